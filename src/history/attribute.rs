//! What an event can be looked up by, and what LookupEvents tells of it besides its JSON.
//!
//! The user name and the resources are derived, not copied (API reference, `Event`): see [`username`] and [`super::resources`]. An Insight event has its
//! operation in `insightDetails`, and is known by that and its id alone.

use std::borrow::Cow;

use super::resources::{self, Resource};
use crate::event::fields::{as_text, each_member};
use crate::event::scan::Field;
use crate::event::{Category, Fields, Record};

/// The longest value that can be asked for, in characters (API reference, `LookupAttribute`). What is longer is told and not found.
pub const MAX_VALUE_CHARS: usize = 2000;

/// `LookupAttributeKey`. The numbers are stable: what is kept on disk is derived from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Attribute {
    EventId = 0,
    EventName = 1,
    ReadOnly = 2,
    Username = 3,
    ResourceType = 4,
    ResourceName = 5,
    EventSource = 6,
    AccessKeyId = 7,
}

impl Attribute {
    pub const ALL: [Self; 8] = [
        Self::EventId,
        Self::EventName,
        Self::ReadOnly,
        Self::Username,
        Self::ResourceType,
        Self::ResourceName,
        Self::EventSource,
        Self::AccessKeyId,
    ];

    /// As the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::EventId => "EventId",
            Self::EventName => "EventName",
            Self::ReadOnly => "ReadOnly",
            Self::Username => "Username",
            Self::ResourceType => "ResourceType",
            Self::ResourceName => "ResourceName",
            Self::EventSource => "EventSource",
            Self::AccessKeyId => "AccessKeyId",
        }
    }

    /// By its name, to the letter.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Whether Insight events are looked up by it, too.
    pub fn is_of_insights(self) -> bool {
        matches!(self, Self::EventId | Self::EventName | Self::EventSource)
    }
}

/// What is known of an event without reading all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts<'a> {
    pub event_id: Option<Cow<'a, str>>,
    pub event_name: Option<Cow<'a, str>>,
    pub event_source: Option<Cow<'a, str>>,
    /// Nothing for an Insight event.
    pub read_only: Option<bool>,
    pub access_key_id: Option<Cow<'a, str>>,
    pub username: Option<Cow<'a, str>>,
    pub resources: Vec<Resource<'a>>,
}

impl<'a> Facts<'a> {
    /// Of an accepted event; of bytes that are none, nothing is known.
    pub fn of(record: &Record<'a>) -> Self {
        let Some(fields) = Fields::of(record.json) else {
            return Self::default();
        };
        if record.meta.category == Category::Insight {
            return Self::of_insight(&fields);
        }
        let identity = Identity::of(&fields);
        Self {
            event_id: fields.text(Field::EventId),
            event_name: fields.text(Field::EventName),
            event_source: fields.text(Field::EventSource),
            read_only: Some(record.meta.read_only),
            resources: resources::of(&fields),
            username: username(&identity),
            access_key_id: identity.access_key_id.filter(|id| !id.is_empty()),
        }
    }

    fn of_insight(fields: &Fields<'a>) -> Self {
        let mut facts = Self {
            event_id: fields.text(Field::EventId),
            ..Self::default()
        };
        let details = fields.raw(Field::InsightDetails).unwrap_or_default();
        each_member(details, |name, value| match name {
            b"eventName" => facts.event_name = as_text(value),
            b"eventSource" => facts.event_source = as_text(value),
            _ => {}
        });
        facts
    }

    /// Shows each value that the event can be found by; some more than once.
    pub fn each(&self, mut value: impl FnMut(Attribute, &str)) {
        let mut one = |attribute, text: &Option<Cow<'a, str>>| {
            if let Some(text) = text {
                value(attribute, text);
            }
        };
        one(Attribute::EventId, &self.event_id);
        one(Attribute::EventName, &self.event_name);
        one(Attribute::EventSource, &self.event_source);
        one(Attribute::AccessKeyId, &self.access_key_id);
        one(Attribute::Username, &self.username);
        if let Some(read_only) = self.read_only {
            value(Attribute::ReadOnly, read_only_text(read_only));
        }
        for resource in &self.resources {
            if let Some(kind) = &resource.kind {
                value(Attribute::ResourceType, kind);
            }
            value(Attribute::ResourceName, &resource.name);
        }
    }

    /// Whether the event is found by this value.
    pub fn has(&self, attribute: Attribute, wanted: &str) -> bool {
        let mut found = false;
        self.each(|of, value| found |= of == attribute && value == wanted);
        found
    }
}

/// `ReadOnly` as the API has it.
pub fn read_only_text(read_only: bool) -> &'static str {
    if read_only { "true" } else { "false" }
}

/// The members of `userIdentity` that tell who it was.
#[derive(Debug, Default)]
struct Identity<'a> {
    kind: Option<Cow<'a, str>>,
    user_name: Option<Cow<'a, str>>,
    principal_id: Option<Cow<'a, str>>,
    arn: Option<Cow<'a, str>>,
    access_key_id: Option<Cow<'a, str>>,
}

impl<'a> Identity<'a> {
    fn of(fields: &Fields<'a>) -> Self {
        let mut identity = Self::default();
        let object = fields.raw(Field::UserIdentity).unwrap_or_default();
        each_member(object, |name, value| match name {
            b"type" => identity.kind = as_text(value),
            b"userName" => identity.user_name = as_text(value),
            b"principalId" => identity.principal_id = as_text(value),
            b"arn" => identity.arn = as_text(value),
            b"accessKeyId" => identity.access_key_id = as_text(value),
            _ => {}
        });
        identity
    }
}

/// The user's name: `userName` when there is one; the session's name of a role or of a federated user, which ends `principalId` and `arn`
/// ("AROAEXAMPLE:session", "…:assumed-role/Role/session"); `root`. A service has none.
fn username<'a>(identity: &Identity<'a>) -> Option<Cow<'a, str>> {
    if let Some(name) = identity.user_name.clone().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    match identity.kind.as_deref()? {
        "Root" => Some(Cow::Borrowed("root")),
        "AssumedRole" | "FederatedUser" => {
            let principal = identity.principal_id.as_ref();
            let session = principal.and_then(|id| behind(id, ':'));
            session.or_else(|| identity.arn.as_ref().and_then(|arn| behind(arn, '/')))
        }
        _ => None,
    }
}

/// What follows the last `mark`, if anything does.
fn behind<'a>(text: &Cow<'a, str>, mark: char) -> Option<Cow<'a, str>> {
    let name = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.rsplit_once(mark)?.1),
        Cow::Owned(text) => Cow::Owned(text.rsplit_once(mark)?.1.to_owned()),
    };
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallMillis;
    use crate::event::{Meta, corpus};

    fn record(json: &[u8], category: Category) -> Record<'_> {
        let meta = Meta {
            account: "111122223333".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
            category,
            global_service: false,
            read_only: true,
            event_time: 1_777_594_741,
            accepted_at: WallMillis(0),
            fingerprint: [0; 16],
        };
        Record { meta, json }
    }

    fn username_of(identity: &str) -> Option<String> {
        let json = format!(r#"{{"userIdentity":{identity}}}"#);
        let facts = Facts::of(&record(json.as_bytes(), Category::Management));
        facts.username.map(Cow::into_owned)
    }

    #[test]
    fn the_username_is_the_users_or_the_sessions_or_root() {
        for (identity, expected) in [
            (r#"{"type":"IAMUser","userName":"alice"}"#, Some("alice")),
            (r#"{"type":"IAMUser","userName":""}"#, None),
            (
                r#"{"type":"AssumedRole","principalId":"AROAEXAMPLE:ses","arn":"arn:aws:sts::111122223333:assumed-role/R/ses"}"#,
                Some("ses"),
            ),
            (
                r#"{"type":"AssumedRole","arn":"arn:aws:sts::111122223333:assumed-role/R/s\u00e9s"}"#,
                Some("sés"),
            ),
            (
                r#"{"type":"AssumedRole","principalId":"AROAEXAMPLE:"}"#,
                None,
            ),
            (r#"{"type":"AssumedRole"}"#, None),
            (
                r#"{"type":"FederatedUser","principalId":"111122223333:carol"}"#,
                Some("carol"),
            ),
            (
                r#"{"type":"Root","principalId":"111122223333"}"#,
                Some("root"),
            ),
            (
                r#"{"type":"WebIdentityUser","userName":"accounts.example:1"}"#,
                Some("accounts.example:1"),
            ),
            (
                r#"{"type":"AWSService","invokedBy":"ec2.amazonaws.com"}"#,
                None,
            ),
            (r#"{"type":"AWSAccount","principalId":"AIDA:x"}"#, None),
            (r#"{"principalId":"AROAEXAMPLE:ses"}"#, None),
            ("null", None),
        ] {
            assert_eq!(username_of(identity).as_deref(), expected, "{identity}");
        }
    }

    #[test]
    fn an_insight_is_known_by_its_operation() {
        let json = br#"{"eventID":"e","eventCategory":"Insight","insightDetails":{"eventSource":"autoscaling.amazonaws.com","eventName":"X"}}"#;
        let facts = Facts::of(&record(json, Category::Insight));
        let mut seen = Vec::new();
        facts.each(|attribute, value| seen.push((attribute, value.to_owned())));
        let expected = [
            (Attribute::EventId, "e"),
            (Attribute::EventName, "X"),
            (Attribute::EventSource, "autoscaling.amazonaws.com"),
        ];
        assert_eq!(seen, expected.map(|(of, value)| (of, value.to_owned())));
        assert!(seen.iter().all(|(attribute, _)| attribute.is_of_insights()));
    }

    /// By the events' own JSON, read another way.
    #[test]
    fn every_event_of_the_corpus_is_found_by_what_it_says() {
        let mut named = 0;
        for event in corpus::events() {
            let value: serde_json::Value = serde_json::from_slice(&event).unwrap();
            let facts = Facts::of(&record(&event, Category::Management));
            for (member, attribute) in [
                ("eventID", Attribute::EventId),
                ("eventName", Attribute::EventName),
                ("eventSource", Attribute::EventSource),
            ] {
                if let Some(text) = value[member].as_str() {
                    assert!(facts.has(attribute, text), "{value}");
                }
            }
            let identity = &value["userIdentity"];
            if let Some(id) = identity["accessKeyId"].as_str().filter(|id| !id.is_empty()) {
                assert!(facts.has(Attribute::AccessKeyId, id), "{value}");
            }
            if let Some(name) = identity["userName"].as_str() {
                assert!(facts.has(Attribute::Username, name), "{value}");
            }
            if identity["type"] == "AssumedRole" {
                let principal = identity["principalId"].as_str().unwrap();
                let session = principal.rsplit(':').next().unwrap();
                assert_eq!(facts.username.as_deref(), Some(session), "{value}");
                named += 1;
            }
            for resource in value["resources"].as_array().into_iter().flatten() {
                if let Some(arn) = resource["ARN"].as_str() {
                    assert!(facts.has(Attribute::ResourceName, arn), "{value}");
                }
            }
        }
        assert!(named > 100, "{named}");
    }

    #[test]
    fn attributes_are_named_to_the_letter() {
        for attribute in Attribute::ALL {
            assert_eq!(Attribute::named(attribute.name()), Some(attribute));
        }
        for other in ["eventid", "EventID", "", "UserName"] {
            assert_eq!(Attribute::named(other), None, "{other}");
        }
    }
}
