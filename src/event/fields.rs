//! An event's fields, read when they are asked for: for the few places after acceptance that look into an event.

use std::borrow::Cow;

use serde::Deserialize;

use super::scan::{Field, Scanned, scan};

/// A stored event, walked once.
#[derive(Debug)]
pub struct Fields<'a> {
    json: &'a [u8],
    found: Scanned,
}

/// One of an event's `resources`. CloudTrail gives either `ARN` or, for a call that spans many, `ARNPrefix`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Resource<'a> {
    #[serde(borrow, rename = "type", default)]
    pub kind: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "ARN", default)]
    pub arn: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "ARNPrefix", default)]
    pub arn_prefix: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    /// Nothing when the bytes are not one JSON object, which what was accepted is.
    pub fn of(json: &'a [u8]) -> Option<Self> {
        let found = scan(json).ok()?;
        Some(Self { json, found })
    }

    /// The value as written, quotes included.
    pub fn raw(&self, field: Field) -> Option<&'a [u8]> {
        self.json.get(self.found.value(field)?)
    }

    /// The value of a field that is a string.
    pub fn text(&self, field: Field) -> Option<Cow<'a, str>> {
        serde_json::from_slice::<Text<'a>>(self.raw(field)?)
            .ok()
            .map(|text| text.0)
    }
}

/// Borrowed unless it holds escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
