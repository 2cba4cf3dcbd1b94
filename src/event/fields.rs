//! An event's fields, read when they are asked for: for the few places after acceptance that look into an event.
//!
//! One walk finds where the known top-level fields are; it allocates nothing. Values are borrowed unless they hold escapes. What was
//! accepted is one sound JSON object without a name twice, so neither is asked again here.

use std::borrow::Cow;
use std::ops::Range;

use super::json;
use super::scan::{Field, unescaped, walk_object};

/// A stored event, walked once.
#[derive(Debug)]
pub struct Fields<'a> {
    json: &'a [u8],
    values: [Range<usize>; Field::ALL.len()],
}

/// One of an event's `resources`. CloudTrail gives either `ARN` or, for a call that spans many, `ARNPrefix`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resource<'a> {
    /// The member `type`.
    pub kind: Option<Cow<'a, str>>,
    pub arn: Option<Cow<'a, str>>,
    pub arn_prefix: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    /// Nothing when the bytes are not one JSON object, which what was accepted is.
    pub fn of(json: &'a [u8]) -> Option<Self> {
        if json.first() != Some(&b'{') {
            return None;
        }
        let mut values = [const { 0..0 }; Field::ALL.len()];
        walk_object(json, 0, &mut |name, at| {
            let end = json::skip_value(json, at)?.end;
            if let Some(field) = Field::of(&name) {
                values[field as usize] = at..end;
            }
            Ok(end)
        })
        .ok()?;
        Some(Self { json, values })
    }

    /// The value as written, quotes included.
    pub fn raw(&self, field: Field) -> Option<&'a [u8]> {
        let value = &self.values[field as usize];
        (value.end > 0).then(|| &self.json[value.clone()])
    }

    /// The value of a field that is a string.
    pub fn text(&self, field: Field) -> Option<Cow<'a, str>> {
        as_text(self.raw(field)?)
    }

    /// `readOnly`; where it says nothing, what the operation's name says.
    pub fn is_read_only(&self) -> bool {
        let name = self.text(Field::EventName).unwrap_or_default();
        is_read_only(self.raw(Field::ReadOnly), &name)
    }

    /// `userIdentity.arn`.
    pub fn identity_arn(&self) -> Option<Cow<'a, str>> {
        let identity = self.raw(Field::UserIdentity)?;
        let mut arn = None;
        each_member(identity, |name, value| {
            if name == b"arn" {
                arn = as_text(value);
            }
        });
        arn
    }

    /// The objects of `resources`, in order.
    pub fn resources(&self) -> impl Iterator<Item = Resource<'a>> {
        elements(self.raw(Field::Resources).unwrap_or_default())
            .filter(|element| element.first() == Some(&b'{'))
            .map(Resource::of)
    }
}

impl<'a> Resource<'a> {
    fn of(object: &'a [u8]) -> Self {
        let mut resource = Self::default();
        each_member(object, |name, value| match name {
            b"type" => resource.kind = as_text(value),
            b"ARN" => resource.arn = as_text(value),
            b"ARNPrefix" => resource.arn_prefix = as_text(value),
            _ => {}
        });
        resource
    }
}

/// The text of a JSON value that is a string.
pub fn as_text(raw: &[u8]) -> Option<Cow<'_, str>> {
    if raw.first() != Some(&b'"') {
        return None;
    }
    match unescaped(raw, memchr::memchr(b'\\', raw).is_some()) {
        Cow::Borrowed(text) => std::str::from_utf8(text).ok().map(Cow::Borrowed),
        Cow::Owned(text) => String::from_utf8(text).ok().map(Cow::Owned),
    }
}

/// Whether the event only reads: what its `readOnly` says when it says it, else what its name's verb says. KMS and STS have reading
/// operations with other verbs; real events say so themselves.
pub(super) fn is_read_only(read_only: Option<&[u8]>, event_name: &str) -> bool {
    const VERBS: [&str; 17] = [
        "Get", "List", "Describe", "Head", "Lookup", "BatchGet", "Search", "Query", "Scan",
        "Select", "View", "Check", "Validate", "Preview", "Estimate", "Simulate", "Discover",
    ];
    match read_only {
        Some(b"true" | b"\"true\"") => true,
        Some(b"false" | b"\"false\"") => false,
        _ => VERBS.iter().any(|verb| {
            event_name
                .strip_prefix(verb)
                .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_lowercase()))
        }),
    }
}

/// Shows the members of `object` one after another; none when it is something else.
pub fn each_member<'a>(object: &'a [u8], mut member: impl FnMut(&[u8], &'a [u8])) {
    if object.first() != Some(&b'{') {
        return;
    }
    // An object within an accepted event: the walk comes to its end.
    let _ = walk_object(object, 0, &mut |name, at| {
        let end = json::skip_value(object, at)?.end;
        member(&name, &object[at..end]);
        Ok(end)
    });
}

/// The elements of `array`, as written; none when it is something else.
pub fn elements(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = match array.first() {
        Some(b'[') => json::skip_whitespace(array, 1),
        _ => array.len(),
    };
    std::iter::from_fn(move || {
        let start = at;
        let end = json::skip_value(array, start).ok()?.end;
        at = json::skip_whitespace(array, end);
        if array.get(at) == Some(&b',') {
            at = json::skip_whitespace(array, at + 1);
        }
        Some(&array[start..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_resources_and_the_callers_arn_are_found_however_they_are_spelt() {
        let json = br#"{ "event\u004eame" : "Put\u004fbject", "userIdentity":{"x":[{"arn":"no"}],"arn":"arn:a\/b"},
            "resources" : [ {"ARN":"arn:1","type":"T","accountId":"1"} , "odd", {"type":"U\n","ARNPrefix":"arn:2"}, {} ], "readOnly":"false" }"#;
        let fields = Fields::of(json).unwrap();
        assert_eq!(fields.text(Field::EventName).as_deref(), Some("PutObject"));
        assert_eq!(fields.raw(Field::ReadOnly), Some(br#""false""#.as_slice()));
        assert_eq!(fields.raw(Field::EventId), None);
        assert_eq!(fields.identity_arn().as_deref(), Some("arn:a/b"));
        let found: Vec<Resource<'_>> = fields.resources().collect();
        let text = |text: &'static str| Some(Cow::Borrowed(text));
        assert_eq!(
            found,
            [
                Resource {
                    kind: text("T"),
                    arn: text("arn:1"),
                    arn_prefix: None
                },
                Resource {
                    kind: text("U\n"),
                    arn: None,
                    arn_prefix: text("arn:2")
                },
                Resource::default(),
            ]
        );
    }

    #[test]
    fn values_of_other_types_are_no_texts_objects_or_lists() {
        for json in [
            r#"{"resources":null,"userIdentity":null,"eventName":null}"#,
            r#"{"resources":{"type":"T"},"userIdentity":["arn"],"eventName":7}"#,
            r#"{"resources":[],"userIdentity":{"arn":null}}"#,
            "{}",
        ] {
            let fields = Fields::of(json.as_bytes()).unwrap();
            assert_eq!(fields.resources().count(), 0, "{json}");
            assert_eq!(fields.identity_arn(), None, "{json}");
            assert_eq!(fields.text(Field::EventName), None, "{json}");
        }
        for broken in ["", "[]", "\"{}\"", "{", "{\"a\":}"] {
            assert!(Fields::of(broken.as_bytes()).is_none(), "{broken}");
        }
    }

    #[test]
    fn read_only_is_what_the_event_says_and_else_what_its_verb_says() {
        for (read_only, name, expected) in [
            ("true", "PutObject", true),
            ("\"true\"", "PutObject", true),
            ("false", "GetObject", false),
            ("\"false\"", "GetObject", false),
            ("null", "GetObject", true),
            ("null", "PutObject", false),
        ] {
            let json = format!(r#"{{"readOnly":{read_only},"eventName":"{name}"}}"#);
            let fields = Fields::of(json.as_bytes()).unwrap();
            assert_eq!(fields.is_read_only(), expected, "{json}");
        }
        assert!(!Fields::of(b"{}").unwrap().is_read_only());
    }
}
