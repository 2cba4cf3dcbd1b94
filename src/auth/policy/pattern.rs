//! Text with wildcards and, in documents that know them, variables.

use super::Asked;
use super::key::Key;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// This character.
    Exactly(char),
    /// `?`
    One,
    /// `*`
    Any,
    /// `*` that does not reach over a colon.
    AnyButColon,
    /// What the request has for this key, as it is. A request that does not have it does not match.
    Variable(Key),
}

impl Pattern {
    /// Every `*` reaches over anything; there are no variables.
    pub fn any_reach(given: &str) -> Self {
        Self(given.chars().map(wild).collect())
    }

    /// With `${key}` for what the request has, and `${*}`, `${?}` and `${$}` for these characters themselves
    /// (IAM user guide, "IAM policy elements: Variables and tags"). Otherwise `wildcards` says whether `*` and `?` stand for others.
    pub fn with_variables(given: &str, wildcards: bool) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = given;
        while let Some(first) = rest.chars().next() {
            if let Some(behind) = rest.strip_prefix("${") {
                let (name, after) = behind
                    .split_once('}')
                    .ok_or("has \"${\" without \"}\" behind it")?;
                pieces.push(match name {
                    "*" => Piece::Exactly('*'),
                    "?" => Piece::Exactly('?'),
                    "$" => Piece::Exactly('$'),
                    name => Piece::Variable(Key::named(name).ok_or_else(|| {
                        format!(
                            "has the variable ${{{name}}}, which is no key that traild has; {}",
                            Key::list()
                        )
                    })?),
                });
                rest = after;
            } else {
                pieces.push(if wildcards {
                    wild(first)
                } else {
                    Piece::Exactly(first)
                });
                rest = &rest[first.len_utf8()..];
            }
        }
        Ok(Self(pieces))
    }

    /// As an ARN: a `*` reaches over colons only at the end of its part (IAM user guide, "IAM JSON policy elements: Resource").
    pub fn within_parts(mut self) -> Self {
        for index in 0..self.0.len() {
            let ends_part = matches!(self.0.get(index + 1), None | Some(Piece::Exactly(':')));
            if self.0[index] == Piece::Any && !ends_part {
                self.0[index] = Piece::AnyButColon;
            }
        }
        self
    }

    /// Colons that are written in it.
    pub fn colons(&self) -> usize {
        let colons = self.0.iter().filter(|piece| **piece == Piece::Exactly(':'));
        colons.count()
    }

    pub fn matches(&self, text: &str, asked: &Asked<'_>) -> bool {
        if !self
            .0
            .iter()
            .any(|piece| matches!(piece, Piece::Variable(_)))
        {
            return matches(&self.0, text);
        }
        let mut pieces = Vec::with_capacity(self.0.len());
        for piece in &self.0 {
            match piece {
                Piece::Variable(key) => match key.text(asked) {
                    Some(text) => pieces.extend(text.chars().map(Piece::Exactly)),
                    None => return false,
                },
                piece => pieces.push(piece.clone()),
            }
        }
        matches(&pieces, text)
    }

    /// For a pattern without variables.
    pub fn matches_plainly(&self, text: &str) -> bool {
        matches(&self.0, text)
    }
}

fn wild(character: char) -> Piece {
    match character {
        '*' => Piece::Any,
        '?' => Piece::One,
        character => Piece::Exactly(character),
    }
}

/// Walks all ways to match at once, so that no pattern takes longer than its length times the text's.
fn matches(pieces: &[Piece], text: &str) -> bool {
    // reached[i]: the first i pieces match what was read so far.
    let mut reached = vec![false; pieces.len() + 1];
    let mut next = reached.clone();
    reached[0] = true;
    pass_stars(pieces, &mut reached);
    for character in text.chars() {
        next.fill(false);
        for (index, piece) in pieces
            .iter()
            .enumerate()
            .filter(|(index, _)| reached[*index])
        {
            match piece {
                Piece::Exactly(wanted) => next[index + 1] |= *wanted == character,
                Piece::One => next[index + 1] = true,
                Piece::Any => next[index] = true,
                Piece::AnyButColon => next[index] |= character != ':',
                Piece::Variable(_) => {}
            }
        }
        pass_stars(pieces, &mut next);
        std::mem::swap(&mut reached, &mut next);
    }
    reached[pieces.len()]
}

/// A star may stand for nothing.
fn pass_stars(pieces: &[Piece], reached: &mut [bool]) {
    for (index, piece) in pieces.iter().enumerate() {
        if reached[index] && matches!(piece, Piece::Any | Piece::AnyButColon) {
            reached[index + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_reach_as_far_as_aws_says() {
        let arn = "arn:aws:cloudtrail:us-east-1:111122223333:trail/main";
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", arn, true),
            ("arn:aws:cloudtrail:*", arn, true),
            ("arn:aws:cloudtrail:*:trail/main", arn, true),
            ("arn:aws:cloudtrail:us-*-1:111122223333:trail/*", arn, true),
            ("arn:aws:cloudtrail:u*1:trail/main", arn, false),
            ("arn:aws:cloudtrail:u*3333:trail/main", arn, false),
            ("arn:aws:cloudtrail:*:*:trail/m??n", arn, true),
            ("arn:aws:cloudtrail:*:*:trail/m?n", arn, false),
            ("arn:aws:cloudtrail:*:*:trail/Main", arn, false),
            ("*:*a*n", "x:a:c:an", true),
            ("a?c", "aéc", true),
            ("", "", true),
            ("", "a", false),
            ("?", "", false),
        ] {
            let parsed = Pattern::any_reach(pattern).within_parts();
            assert_eq!(parsed.matches_plainly(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_no_bomb() {
        let pattern = Pattern::any_reach(&"*a".repeat(200));
        assert!(!pattern.matches_plainly(&"a".repeat(199)));
        assert!(pattern.matches_plainly(&"a".repeat(2000)));
    }
}
