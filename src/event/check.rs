//! Judges an event once; what passes carries the proof.
//!
//! The rules, in the order they are asked (the first that fails names the refusal):
//!
//! - size: at most `max_event_bytes` as given; UTF-8; one JSON object, strict (see [`super::json`]); at most [`MAX_DEPTH`] deep
//! - no name twice at the top level or in `userIdentity`, spelt with escapes or not: readers would disagree on which one counts
//! - `eventCategory`: Management, Data, NetworkActivity, Insight or ActivityAuditLog. Others are refused: CloudTrail puts `Aggregated` elsewhere in another
//!   shape, and an unknown category in the CloudTrail folder would be one that no selector can name. Without one, `eventType` tells Insight
//!   and network activity events, `"managementEvent": false` tells data events, and the rest is Management
//! - `eventTime` is there; `eventSource` and `eventName` too, except in Insight events, which have neither
//! - types: what the reference calls a string is one, an object is an object or null, a flag is `true`, `false` or one of these words as
//!   a string. Null stands only where CloudTrail's schema does not require a value; a required one that is null is refused instead of
//!   filled, because filling would change what was given
//! - `eventTime` is RFC 3339, from 1970 to a day ahead of now
//! - `awsRegion`, or else the request's, is a region; `recipientAccountId`, else `userIdentity.accountId`, else the caller's, an account

use std::borrow::Cow;
use std::ops::Range;

use super::fields::{as_text, is_read_only};
use super::json::{self, Fault};
use super::record::Meta;
use super::refusal::{Code, Refusal, shown};
use super::scan::{Field, Scanned, scan};
use super::time::parse_rfc3339;
use super::types::{AccountId, Category, Region};
use crate::clock::WallMillis;

/// Objects and arrays within one another, the event itself included. Twice this and `Records` stays within what common readers take.
pub const MAX_DEPTH: usize = 64;

/// An event may be stamped this much ahead of the daemon's clock.
const MAX_AHEAD_SECONDS: i64 = 86_400;

/// Characters of what was given that a message repeats.
const SHOWN: usize = 64;

/// What an event is judged by.
#[derive(Debug, Clone)]
pub struct Rules {
    pub max_event_bytes: usize,
    /// The caller's account, for events that name none.
    pub account: AccountId,
    /// The request's region, for events that name none.
    pub region: Region,
    pub now: WallMillis,
}

/// An event that passed. It still borrows the bytes as given.
#[derive(Debug)]
pub struct Checked<'a> {
    /// The object as given, from `{` to `}`.
    pub given: &'a [u8],
    pub account: AccountId,
    pub region: Region,
    pub category: Category,
    pub global_service: bool,
    /// Seconds since 1970.
    pub event_time: i64,
    /// `readOnly`; where it says nothing, what the operation's name says.
    pub read_only: bool,
    /// Fields that were not given, one bit each, numbered as in [`Field`].
    pub(super) absent: u32,
}

impl Checked<'_> {
    pub fn has_event_id(&self) -> bool {
        !self.lacks(Field::EventId)
    }

    pub(super) fn lacks(&self, field: Field) -> bool {
        self.absent & 1 << field as u32 != 0
    }

    pub fn meta(&self, accepted_at: WallMillis, fingerprint: [u8; 16]) -> Meta {
        Meta {
            account: self.account,
            region: self.region,
            category: self.category,
            global_service: self.global_service,
            read_only: self.read_only,
            event_time: self.event_time,
            accepted_at,
            fingerprint,
        }
    }
}

/// Reads and judges text that should be one event, with nothing but whitespace around it.
pub fn parse<'a>(text: &'a [u8], rules: &Rules) -> Result<Checked<'a>, Refusal> {
    let (given, found) = read(text)?;
    check(given, &found, rules)
}

/// Walks text that should be one JSON object, with nothing but whitespace around it, and gives the object.
pub fn read(text: &[u8]) -> Result<(&[u8], Scanned), Refusal> {
    let text = text.trim_ascii();
    let found = match text.first() {
        Some(b'{') => scan(text).map_err(|fault| unreadable(text, fault))?,
        Some(_) => {
            let value = json::skip_value(text, 0);
            return Err(value.map_or_else(|fault| unreadable(text, fault), |_| not_an_object(text)));
        }
        None => {
            return Err(unreadable(
                text,
                Fault {
                    at: 0,
                    what: "the text is empty",
                },
            ));
        }
    };
    if found.len < text.len() {
        let at = json::skip_whitespace(text, found.len);
        return Err(unreadable(
            text,
            Fault {
                at,
                what: "something follows the event",
            },
        ));
    }
    Ok((text, found))
}

/// The refusal of text that is JSON, but not an object.
pub fn not_an_object(text: &[u8]) -> Refusal {
    let message = format!("an event is a JSON object, given: {}", shown(text, SHOWN));
    Refusal {
        code: Code::InvalidJson,
        event_id: None,
        message,
    }
}

/// The refusal of text that is not JSON, or not even UTF-8.
pub fn unreadable(text: &[u8], fault: Fault) -> Refusal {
    match std::str::from_utf8(text) {
        Err(error) => not_utf8(error.valid_up_to()),
        Ok(_) => {
            let rest = text.get(fault.at..).unwrap_or_default();
            let message = match shown(rest, 24) {
                given if given.is_empty() => format!("not JSON: {fault}"),
                given => format!("not JSON: {fault}, given: {given}"),
            };
            Refusal {
                code: Code::InvalidJson,
                event_id: None,
                message,
            }
        }
    }
}

fn not_utf8(at: usize) -> Refusal {
    Refusal {
        code: Code::InvalidUtf8,
        event_id: None,
        message: format!("not UTF-8 at byte {at}"),
    }
}

/// Judges an event whose bytes `scan` has walked. `given` ends with the event.
pub fn check<'a>(given: &'a [u8], found: &Scanned, rules: &Rules) -> Result<Checked<'a>, Refusal> {
    if simdutf8::basic::from_utf8(given).is_err() {
        let valid = std::str::from_utf8(given).map_or_else(|error| error.valid_up_to(), str::len);
        return Err(not_utf8(valid));
    }
    let event = Event { given, found };
    event
        .judge(rules)
        .map_err(|(code, message)| event.refusal(code, message))
}

/// The refusal of an event for what is not its own fault.
pub fn refusal(given: &[u8], found: &Scanned, code: Code, message: String) -> Refusal {
    Event { given, found }.refusal(code, message)
}

type Verdict<T> = Result<T, (Code, String)>;

struct Event<'a, 'b> {
    given: &'a [u8],
    found: &'b Scanned,
}

impl<'a> Event<'a, '_> {
    fn refusal(&self, code: Code, message: String) -> Refusal {
        let event_id = self
            .text(Field::EventId)
            .map(|id| shown(id.as_bytes(), 128));
        Refusal {
            code,
            event_id,
            message,
        }
    }

    fn judge(&self, rules: &Rules) -> Verdict<Checked<'a>> {
        self.check_shape(rules)?;
        let category = self.category()?;
        self.check_presence(category)?;
        let absent = self.check_types()?;
        let event_time = self.event_time(rules.now)?;
        let region = self.region(rules)?;
        let account = self.account(rules)?;
        let source = self.text(Field::EventSource).unwrap_or_default();
        let name = self.text(Field::EventName).unwrap_or_default();
        Ok(Checked {
            given: self.given,
            account,
            region,
            category,
            global_service: is_global_service(&source) && region.as_str() == "us-east-1",
            event_time,
            read_only: is_read_only(self.raw(Field::ReadOnly), &name),
            absent,
        })
    }

    fn check_shape(&self, rules: &Rules) -> Verdict<()> {
        let (len, most) = (self.given.len(), rules.max_event_bytes);
        if len > most {
            return Err((
                Code::EventTooLarge,
                format!("the event has {len} bytes, at most {most} are taken"),
            ));
        }
        if let Some(name) = &self.found.duplicate {
            return Err((Code::DuplicateField, format!("{name} is given twice")));
        }
        if self.found.depth > MAX_DEPTH {
            let depth = self.found.depth;
            return Err((
                Code::TooDeep,
                format!("the event is {depth} levels deep, at most {MAX_DEPTH} are taken"),
            ));
        }
        Ok(())
    }

    fn category(&self) -> Verdict<Category> {
        if let Some(raw) = self.raw(Field::EventCategory) {
            let named = self.text(Field::EventCategory);
            return named
                .and_then(|name| Category::named(&name))
                .ok_or_else(|| {
                    let message = format!(
                        "eventCategory must be Management, Data, NetworkActivity, Insight or ActivityAuditLog, given: {}",
                        shown(raw, SHOWN)
                    );
                    (Code::InvalidEventCategory, message)
                });
        }
        Ok(match self.text(Field::EventType).as_deref() {
            Some("AwsCloudTrailInsight") => Category::Insight,
            Some("AwsVpceEvent" | "AwsVpceEvents") => Category::NetworkActivity,
            _ if matches!(
                self.raw(Field::ManagementEvent),
                Some(b"false" | b"\"false\"")
            ) =>
            {
                Category::Data
            }
            _ => Category::Management,
        })
    }

    fn check_presence(&self, category: Category) -> Verdict<()> {
        let required: &[Field] = match category {
            Category::Insight => &[Field::EventTime],
            _ => &[Field::EventTime, Field::EventSource, Field::EventName],
        };
        match required.iter().find(|field| !self.found.has(**field)) {
            Some(field) => Err((Code::MissingField, format!("{} is missing", field.name()))),
            None => Ok(()),
        }
    }

    /// Answers the fields that are absent, one bit each.
    fn check_types(&self) -> Verdict<u32> {
        let mut absent = 0;
        for field in Field::ALL {
            let Some(raw) = self.raw(field) else {
                absent |= 1 << field as u32;
                continue;
            };
            let kind = Kind::of(field);
            if !kind.fits(raw) {
                let message = format!(
                    "{} must be {}, given: {}",
                    field.name(),
                    kind.as_str(),
                    shown(raw, SHOWN)
                );
                return Err((code_of(field), message));
            }
        }
        Ok(absent)
    }

    fn event_time(&self, now: WallMillis) -> Verdict<i64> {
        let given = self.text(Field::EventTime).unwrap_or_default();
        let invalid = |why: &str| {
            let message = format!(
                "eventTime must be {why}, given: {}",
                shown(given.as_bytes(), SHOWN)
            );
            (Code::InvalidEventTime, message)
        };
        let time = parse_rfc3339(given.as_bytes())
            .ok_or_else(|| invalid("RFC 3339, such as 2026-05-01T00:19:01Z"))?;
        if time < 0 {
            return Err(invalid("in 1970 or later"));
        }
        if time > now.unix_seconds().saturating_add(MAX_AHEAD_SECONDS) {
            return Err(invalid("at most a day ahead of this machine's clock"));
        }
        Ok(time)
    }

    fn region(&self, rules: &Rules) -> Verdict<Region> {
        let Some(given) = self.text(Field::AwsRegion) else {
            return Ok(rules.region);
        };
        given.parse().map_err(|error| {
            (
                Code::InvalidRegion,
                format!(
                    "awsRegion: {error}, given: {}",
                    shown(given.as_bytes(), SHOWN)
                ),
            )
        })
    }

    fn account(&self, rules: &Rules) -> Verdict<AccountId> {
        let (name, value) = match (
            self.found.value(Field::RecipientAccountId),
            &self.found.identity_account,
        ) {
            (Some(value), _) => ("recipientAccountId", value),
            (None, Some(value)) if &self.given[value.clone()] != b"null" => {
                ("userIdentity.accountId", value.clone())
            }
            _ => return Ok(rules.account),
        };
        let raw = &self.given[value];
        let account = as_text(raw).and_then(|text| text.parse().ok());
        account.ok_or_else(|| {
            let message = format!(
                "{name} must be a string of twelve digits, given: {}",
                shown(raw, SHOWN)
            );
            (Code::InvalidAccount, message)
        })
    }

    fn raw(&self, field: Field) -> Option<&'a [u8]> {
        self.found
            .value(field)
            .map(|range: Range<usize>| &self.given[range])
    }

    /// The value of `field` when it is a string.
    fn text(&self, field: Field) -> Option<Cow<'a, str>> {
        as_text(self.raw(field)?)
    }
}

fn code_of(field: Field) -> Code {
    match field {
        Field::EventTime => Code::InvalidEventTime,
        Field::AwsRegion => Code::InvalidRegion,
        Field::RecipientAccountId => Code::InvalidAccount,
        Field::EventCategory => Code::InvalidEventCategory,
        _ => Code::InvalidField,
    }
}

/// What a field's value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A string with something in it: what identifies or places the event.
    Name,
    RequiredText,
    Text,
    RequiredObject,
    Object,
    List,
    Flag,
}

impl Kind {
    fn of(field: Field) -> Self {
        match field {
            Field::EventTime
            | Field::EventSource
            | Field::EventName
            | Field::AwsRegion
            | Field::EventId
            | Field::RecipientAccountId => Self::Name,
            Field::EventVersion
            | Field::EventType
            | Field::EventCategory
            | Field::SourceIpAddress => Self::RequiredText,
            Field::UserAgent
            | Field::ErrorCode
            | Field::ErrorMessage
            | Field::RequestId
            | Field::ApiVersion
            | Field::SharedEventId
            | Field::VpcEndpointId
            | Field::VpcEndpointAccountId => Self::Text,
            Field::UserIdentity => Self::RequiredObject,
            Field::RequestParameters
            | Field::ResponseElements
            | Field::AdditionalEventData
            | Field::ServiceEventDetails
            | Field::Addendum
            | Field::EdgeDeviceDetails
            | Field::TlsDetails
            | Field::EventContext
            | Field::InsightDetails => Self::Object,
            Field::Resources => Self::List,
            Field::ReadOnly | Field::ManagementEvent | Field::SessionCredentialFromConsole => {
                Self::Flag
            }
        }
    }

    /// `raw` is a well-formed JSON value, so its first byte tells its type.
    fn fits(self, raw: &[u8]) -> bool {
        match (self, raw[0]) {
            (Self::Name, b'"') => raw.len() > 2,
            (Self::RequiredText | Self::Text, b'"') => true,
            (Self::RequiredObject | Self::Object, b'{') => true,
            (Self::List, b'[') => true,
            (Self::Flag, b't' | b'f') => true,
            (Self::Flag, b'"') => matches!(raw, b"\"true\"" | b"\"false\""),
            (Self::Text | Self::Object | Self::List | Self::Flag, b'n') => true,
            _ => false,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Name => "a string that is not empty",
            Self::RequiredText => "a string",
            Self::Text => "a string or null",
            Self::RequiredObject => "an object",
            Self::Object => "an object or null",
            Self::List => "an array or null",
            Self::Flag => "true, false or null",
        }
    }
}

/// Services whose events CloudTrail records in us-east-1 and repeats in every trail that includes global services
/// (CloudTrail user guide, "global service events").
fn is_global_service(event_source: &str) -> bool {
    matches!(
        event_source,
        "iam.amazonaws.com" | "sts.amazonaws.com" | "cloudfront.amazonaws.com"
    )
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
