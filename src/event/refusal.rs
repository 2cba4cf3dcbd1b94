//! Why an event is not taken: a code for programs, a sentence for people.

use std::borrow::Cow;
use std::fmt;

/// The kinds of refusal. Their names are part of the surface: senders and alerts match on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    EventTooLarge,
    InvalidUtf8,
    InvalidJson,
    TooDeep,
    DuplicateField,
    MissingField,
    InvalidField,
    InvalidEventTime,
    InvalidEventCategory,
    InvalidRegion,
    InvalidAccount,
    /// It is sound, and its sender may not send it.
    AccessDenied,
}

impl Code {
    pub const ALL: [Self; 12] = [
        Self::EventTooLarge,
        Self::InvalidUtf8,
        Self::InvalidJson,
        Self::TooDeep,
        Self::DuplicateField,
        Self::MissingField,
        Self::InvalidField,
        Self::InvalidEventTime,
        Self::InvalidEventCategory,
        Self::InvalidRegion,
        Self::InvalidAccount,
        Self::AccessDenied,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventTooLarge => "EventTooLarge",
            Self::InvalidUtf8 => "InvalidUtf8",
            Self::InvalidJson => "InvalidJson",
            Self::TooDeep => "TooDeep",
            Self::DuplicateField => "DuplicateField",
            Self::MissingField => "MissingField",
            Self::InvalidField => "InvalidField",
            Self::InvalidEventTime => "InvalidEventTime",
            Self::InvalidEventCategory => "InvalidEventCategory",
            Self::InvalidRegion => "InvalidRegion",
            Self::InvalidAccount => "InvalidAccount",
            Self::AccessDenied => "AccessDenied",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: Code,
    /// As given, shortened; nothing when the event has none or cannot be read so far.
    pub event_id: Option<String>,
    /// Bounded in length whatever the event holds.
    pub message: String,
}

/// Text that a stranger gave, fit for a message or a log line: at most about `most` characters, control characters escaped.
pub fn shown(given: &[u8], most: usize) -> String {
    // Four bytes a character at most; a cut inside one only harms the replacement that is cut off anyway.
    let head = &given[..given.len().min(most * 4 + 4)];
    let text: Cow<'_, str> = String::from_utf8_lossy(head);
    let mut shown = String::new();
    let mut characters = text.chars();
    let mut length = 0;
    while length < most {
        let Some(character) = characters.next() else {
            break;
        };
        let reorders = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
        if character.is_control() || reorders {
            let escaped = character.escape_unicode();
            length += escaped.len(); // or all would be several times as long as it may be
            shown.extend(escaped);
        } else {
            length += 1;
            shown.push(character);
        }
    }
    if characters.next().is_some() || head.len() < given.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        assert_eq!(shown(b"plain", 10), "plain");
        assert_eq!(shown(b"0123456789abc", 10), "0123456789…");
        assert_eq!(shown("ééééé".as_bytes(), 3), "ééé…");
        assert_eq!(shown(b"a\x1b[31m\r\n", 20), "a\\u{1b}[31m\\u{d}\\u{a}");
        assert_eq!(shown("x\u{202e}y".as_bytes(), 20), "x\\u{202e}y");
        assert_eq!(shown(b"\xff\xfe", 20), "\u{fffd}\u{fffd}");
        assert!(shown(&vec![1; 1 << 20], 64).len() < 80);
    }
}
