//! From what an application sends as `eventData` to a CloudTrail record. Pure.
//!
//! The schema and its limits are CloudTrail's (user guide, "CloudTrail Lake integrations event schema"). In an event data store an event stays
//! whole below `eventData`; a trail's readers look for who, what and when at the top level, so that is where they stand in the record:
//!
//! | of the record | from |
//! |---|---|
//! | `userIdentity`, `eventTime`, `eventSource`, `eventName`, `sourceIPAddress`, `userAgent`, `errorCode`, `errorMessage`, `requestParameters`, `responseElements`, `additionalEventData` | the members of these names, byte for byte; `eventTime` gets its `Z` when it has none |
//! | `recipientAccountId`, `awsRegion` | the channel, whose account `recipientAccountId` must be |
//! | `eventType`, `eventCategory` | `ActivityLog`, `ActivityAuditLog` |
//! | `metadata.ingestionTime`, `metadata.channelARN` | when it was accepted, and by which channel |
//! | `eventData` | `version`, `UID`, and every member that the schema does not know, byte for byte |
//! | `eventID` | derived from the channel and the bytes of `eventData`: the same again whenever the same comes again |
//! | `eventVersion` | as everywhere |
//!
//! What is over a limit is refused, not cut. A member that may be left out may be null.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Range;

use crate::clock::WallMillis;
use crate::event::json;
use crate::event::refusal::shown;
use crate::event::scan::walk_object;
use crate::event::time::parse_rfc3339;
use crate::ingest::audit_code::{
    FIELD_NOT_FOUND, FIELD_TOO_LONG, INVALID_DATA, INVALID_EVENT_SOURCE, INVALID_RECIPIENT,
};
use crate::registry::Channel;

/// Why an event is not taken (API reference of CloudTrail Data, `ResultErrorEntry`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    pub code: &'static str,
    pub message: String,
}

const KIB: usize = 1 << 10;

/// What a member of `eventData` must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A string that is not empty, of so many characters.
    Text(usize),
    /// An object of so many bytes.
    Object(usize),
    Identity,
    Time,
    Address,
    Recipient,
    Source(usize),
}

/// The members of the schema, those that the record has at its top level first.
const MEMBERS: [(&str, Kind, bool); 14] = [
    ("userIdentity", Kind::Identity, true),
    ("eventTime", Kind::Time, true),
    ("eventSource", Kind::Source(1024), true),
    ("eventName", Kind::Text(1024), true),
    ("sourceIPAddress", Kind::Address, false),
    ("userAgent", Kind::Text(1024), false),
    ("errorCode", Kind::Text(256), false),
    ("errorMessage", Kind::Text(256), false),
    ("requestParameters", Kind::Object(100 * KIB), false),
    ("responseElements", Kind::Object(100 * KIB), false),
    ("additionalEventData", Kind::Object(28 * KIB), false),
    ("recipientAccountId", Kind::Recipient, true),
    ("version", Kind::Text(256), true),
    ("UID", Kind::Text(1024), true),
];
/// So many of them go to the top level as they are.
const AT_THE_TOP: usize = 11;

/// The record of an event that came by this channel, but for its eventID and its eventVersion.
pub fn record(event_data: &str, channel: &Channel, now: WallMillis) -> Result<Vec<u8>, Refused> {
    let given = event_data.trim_ascii().as_bytes();
    let members = members(given)?;
    let raw = |name: &str| {
        let found = members
            .iter()
            .find(|(member, _)| member.as_ref() == name.as_bytes());
        let value = found.map(|(_, value)| &given[value.clone()]);
        value.filter(|value| *value != b"null")
    };
    for (name, kind, required) in MEMBERS {
        match raw(name) {
            Some(value) => kind.check(name, value, channel)?,
            None if required => {
                return Err(refused(FIELD_NOT_FOUND, format!("{name} is missing")));
            }
            None => {}
        }
    }
    let mut record = Vec::with_capacity(given.len() + 512);
    record.push(b'{');
    for (name, kind, _) in &MEMBERS[..AT_THE_TOP] {
        let Some(value) = raw(name) else { continue };
        put_name(&mut record, name);
        match kind {
            Kind::Time => put_time(&mut record, value),
            _ => record.extend_from_slice(value),
        }
        record.push(b',');
    }
    let added = format!(
        r#""awsRegion":"{}","eventType":"ActivityLog","recipientAccountId":"{}","eventCategory":"ActivityAuditLog","metadata":{{"ingestionTime":"{}","channelARN":"{}"}},"eventData":"#,
        channel.region,
        channel.account,
        now.rfc3339(),
        channel.arn()
    );
    record.extend_from_slice(added.as_bytes());
    let is_elsewhere = |name: &[u8]| {
        let elsewhere = MEMBERS[..AT_THE_TOP + 1].iter();
        elsewhere
            .map(|(known, ..)| known.as_bytes())
            .any(|known| known == name)
    };
    let rest = members.iter().filter(|(name, _)| !is_elsewhere(name));
    for (index, (name, value)) in rest.enumerate() {
        record.push(if index == 0 { b'{' } else { b',' });
        put_name(&mut record, &String::from_utf8_lossy(name));
        record.extend_from_slice(&given[value.clone()]);
    }
    // At least `version` and `UID` are there.
    record.extend_from_slice(b"}}");
    Ok(record)
}

/// A member's name without its escapes, and where its value is.
type Member<'a> = (Cow<'a, [u8]>, Range<usize>);

/// Of one JSON object without a name twice.
fn members(given: &[u8]) -> Result<Vec<Member<'_>>, Refused> {
    if given.first() != Some(&b'{') {
        return Err(refused(
            INVALID_DATA,
            "eventData is not a JSON object".to_owned(),
        ));
    }
    let mut members: Vec<Member<'_>> = Vec::new();
    let walked = walk_object(given, 0, &mut |name, at| {
        let end = json::skip_value(given, at)?.end;
        members.push((name, at..end));
        Ok(end)
    });
    let end =
        walked.map_err(|fault| refused(INVALID_DATA, format!("eventData is not JSON: {fault}")))?;
    if end < given.len() {
        return Err(refused(
            INVALID_DATA,
            "eventData has something behind its object".to_owned(),
        ));
    }
    let mut names = HashSet::new();
    if let Some((twice, _)) = members.iter().find(|(name, _)| !names.insert(name)) {
        let twice = shown(twice, 64);
        return Err(refused(INVALID_DATA, format!("{twice} is given twice")));
    }
    Ok(members)
}

impl Kind {
    fn check(self, name: &str, value: &[u8], channel: &Channel) -> Result<(), Refused> {
        match self {
            Self::Text(most) => {
                let text = text(name, value)?;
                check_text(name, &text, most)
            }
            Self::Object(most) => check_object(name, value, most),
            Self::Identity => check_identity(value),
            Self::Time => {
                let given = text(name, value)?;
                let is_time = parse_rfc3339(given.as_bytes()).is_some()
                    || parse_rfc3339(format!("{given}Z").as_bytes()).is_some();
                is_time.then_some(()).ok_or_else(|| {
                    let given = shown(given.as_bytes(), 64);
                    invalid(
                        name,
                        &format!("a time such as 2026-05-01T00:19:01Z, in UTC, given: {given}"),
                    )
                })
            }
            Self::Address => {
                let given = text(name, value)?;
                given.parse::<IpAddr>().map(drop).map_err(|_| {
                    let given = shown(given.as_bytes(), 64);
                    invalid(name, &format!("an IPv4 or IPv6 address, given: {given}"))
                })
            }
            Self::Recipient => {
                let given = text(name, value)?;
                if given == channel.account.as_str() {
                    return Ok(());
                }
                let (owner, given) = (channel.account, shown(given.as_bytes(), 64));
                Err(refused(
                    INVALID_RECIPIENT,
                    format!(
                        "recipientAccountId is the account of the channel, {owner}, given: {given}"
                    ),
                ))
            }
            Self::Source(most) => {
                let given = text(name, value)?;
                check_text(name, &given, most)?;
                let lower = given.to_ascii_lowercase();
                if lower == "amazonaws.com" || lower.ends_with(".amazonaws.com") {
                    let given = shown(given.as_bytes(), 64);
                    return Err(refused(
                        INVALID_EVENT_SOURCE,
                        format!("eventSource is a source outside of AWS, given: {given}"),
                    ));
                }
                Ok(())
            }
        }
    }
}

fn check_identity(value: &[u8]) -> Result<(), Refused> {
    check_object("userIdentity", value, usize::MAX)?;
    let found = members(value)?;
    let raw = |name: &[u8]| {
        let member = found.iter().find(|(member, _)| member.as_ref() == name);
        member.map(|(_, at)| &value[at.clone()])
    };
    for (name, most) in [("type", 128), ("principalId", 1024)] {
        let full = format!("userIdentity.{name}");
        let value = raw(name.as_bytes())
            .filter(|value| *value != b"null")
            .ok_or_else(|| refused(FIELD_NOT_FOUND, format!("{full} is missing")))?;
        check_text(&full, &text(&full, value)?, most)?;
    }
    match raw(b"details") {
        None | Some(b"null") => Ok(()),
        Some(details) => check_object("userIdentity.details", details, usize::MAX),
    }
}

fn check_object(name: &str, value: &[u8], most: usize) -> Result<(), Refused> {
    if value.first() != Some(&b'{') {
        return Err(invalid(name, "an object"));
    }
    let len = value.len();
    if len > most {
        return Err(refused(
            FIELD_TOO_LONG,
            format!("{name} has at most {most} bytes, given: {len}"),
        ));
    }
    Ok(())
}

fn check_text(name: &str, given: &str, most: usize) -> Result<(), Refused> {
    let chars = given.chars().count();
    match chars {
        0 => Err(invalid(name, "a string that is not empty")),
        _ if chars > most => Err(refused(
            FIELD_TOO_LONG,
            format!("{name} has at most {most} characters, given: {chars}"),
        )),
        _ => Ok(()),
    }
}

fn text(name: &str, value: &[u8]) -> Result<String, Refused> {
    // A string as JSON has it; half of a surrogate pair is no character.
    serde_json::from_slice(value).map_err(|_| invalid(name, "a string"))
}

fn invalid(name: &str, what: &str) -> Refused {
    refused(INVALID_DATA, format!("{name} must be {what}"))
}

fn refused(code: &'static str, message: String) -> Refused {
    Refused { code, message }
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    serde_json::to_writer(&mut *out, name).expect("writing a string into memory: cannot fail");
    out.push(b':');
}

/// `value` is a string that is a time, with an offset or without.
fn put_time(out: &mut Vec<u8>, value: &[u8]) {
    let inner = &value[1..value.len() - 1];
    out.push(b'"');
    out.extend_from_slice(inner);
    if parse_rfc3339(inner).is_none() {
        out.push(b'Z');
    }
    out.push(b'"');
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: WallMillis = WallMillis(1_777_594_354_123);

    pub fn channel() -> Channel {
        Channel {
            id: "6464f5be-705b-4c51-b64c-d46643ff96dc".to_owned(),
            account: "111122223333".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
            name: "wiki".to_owned(),
            source: "Custom".to_owned(),
            destinations: Vec::new(),
            tags: Vec::new(),
            policy: None,
        }
    }

    fn event() -> Value {
        json!({
            "version": "1.0", "UID": "u-1",
            "userIdentity": {"type": "Member", "principalId": "alice@example.com"},
            "eventTime": "2026-05-01T00:12:33Z", "eventSource": "wiki.example.com", "eventName": "EditPage",
            "recipientAccountId": "111122223333",
        })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut event = event();
        match name.split_once('.') {
            Some((outer, inner)) => event[outer][inner] = value,
            None => event[name] = value,
        }
        event
    }

    #[test]
    fn an_event_becomes_a_record_with_its_bytes_as_given() {
        let given = concat!(
            r#" {"version":"1.0","UID":"u-1","recipientAccountId":"111122223333","userIdentity": {"type":"Member", "principalId":"a\u00e9","details":{"b":1.50}},"#,
            r#""eventTime":"2026-05-01T00:12:33","eventName":"EditPage","eventSource":"wiki.example.com","requestParameters":{"z":1,"a":[2 , 3]},"#,
            r#""responseElements":null,"sourceIPAddress":"2001:db8::1","team":"docs","eventID":"theirs"} "#
        );
        let made = record(given, &channel(), NOW).unwrap();
        assert_eq!(
            std::str::from_utf8(&made).unwrap(),
            concat!(
                r#"{"userIdentity":{"type":"Member", "principalId":"a\u00e9","details":{"b":1.50}},"eventTime":"2026-05-01T00:12:33Z","#,
                r#""eventSource":"wiki.example.com","eventName":"EditPage","sourceIPAddress":"2001:db8::1","requestParameters":{"z":1,"a":[2 , 3]},"#,
                r#""awsRegion":"us-east-1","eventType":"ActivityLog","recipientAccountId":"111122223333","eventCategory":"ActivityAuditLog","#,
                r#""metadata":{"ingestionTime":"2026-05-01T00:12:34Z","channelARN":"arn:aws:cloudtrail:us-east-1:111122223333:channel/6464f5be-705b-4c51-b64c-d46643ff96dc"},"#,
                r#""eventData":{"version":"1.0","UID":"u-1","team":"docs","eventID":"theirs"}}"#
            )
        );
    }

    #[test]
    fn each_broken_rule_has_its_code() {
        let object = |bytes: usize| json!({"k": "x".repeat(bytes - 8)});
        let fits = |name: &str, value: Value| {
            let event = with(name, value).to_string();
            assert!(record(&event, &channel(), NOW).is_ok(), "{name}");
        };
        fits("eventName", json!("é".repeat(1024)));
        fits("requestParameters", object(100 * KIB));
        fits("additionalEventData", object(28 * KIB));
        fits("userAgent", Value::Null);
        fits("eventTime", json!("2026-05-01T02:12:33+02:00"));
        for (event, code) in [
            (json!("x"), INVALID_DATA),
            (with("version", json!(1)), INVALID_DATA),
            (with("version", json!("")), INVALID_DATA),
            (with("version", json!("v".repeat(257))), FIELD_TOO_LONG),
            (with("UID", Value::Null), FIELD_NOT_FOUND),
            (with("UID", json!("u".repeat(1025))), FIELD_TOO_LONG),
            (with("userIdentity", json!("alice")), INVALID_DATA),
            (
                with("userIdentity", json!({"type": "Member"})),
                FIELD_NOT_FOUND,
            ),
            (
                with("userIdentity.type", json!("t".repeat(129))),
                FIELD_TOO_LONG,
            ),
            (with("userIdentity.principalId", json!(7)), INVALID_DATA),
            (with("userIdentity.details", json!([])), INVALID_DATA),
            (with("eventTime", json!("yesterday")), INVALID_DATA),
            (with("eventTime", json!(1_777_594_354)), INVALID_DATA),
            (
                with("eventSource", json!("iam.amazonaws.com")),
                INVALID_EVENT_SOURCE,
            ),
            (
                with("eventSource", json!("S3.AmazonAWS.com")),
                INVALID_EVENT_SOURCE,
            ),
            (with("eventName", json!("n".repeat(1025))), FIELD_TOO_LONG),
            (
                with("recipientAccountId", json!("444455556666")),
                INVALID_RECIPIENT,
            ),
            (with("sourceIPAddress", json!("wiki")), INVALID_DATA),
            (with("errorMessage", json!("m".repeat(257))), FIELD_TOO_LONG),
            (
                with("requestParameters", object(100 * KIB + 1)),
                FIELD_TOO_LONG,
            ),
            (
                with("responseElements", object(100 * KIB + 1)),
                FIELD_TOO_LONG,
            ),
            (
                with("additionalEventData", object(28 * KIB + 1)),
                FIELD_TOO_LONG,
            ),
            (with("requestParameters", json!([1])), INVALID_DATA),
        ] {
            let outcome = record(&event.to_string(), &channel(), NOW);
            let error = outcome.unwrap_err();
            assert_eq!(error.code, code, "{error}: {event}");
        }
        for name in [
            "version",
            "userIdentity",
            "eventTime",
            "eventSource",
            "eventName",
            "UID",
            "recipientAccountId",
        ] {
            let mut event = event();
            event.as_object_mut().unwrap().remove(name);
            let error = record(&event.to_string(), &channel(), NOW).unwrap_err();
            assert_eq!(
                (error.code, error.message),
                (FIELD_NOT_FOUND, format!("{name} is missing"))
            );
        }
        let sound = event().to_string();
        for broken in [
            "".to_owned(),
            "{".to_owned(),
            "[]".to_owned(),
            format!("{sound}{sound}"),
            sound.replace("\"UID\"", "\"U\\u0049D\":\"x\",\"UID\""),
            sound.replace("\"Member\"", "\"\\ud800\""),
        ] {
            let error = record(&broken, &channel(), NOW).unwrap_err();
            assert_eq!(error.code, INVALID_DATA, "{broken}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_given_is_refused_or_becomes_json(at in 0usize..400, byte in 0u8..128) {
            let mut given = event().to_string().into_bytes();
            let at = at % given.len();
            given[at] = byte;
            let given = String::from_utf8(given).unwrap();
            if let Ok(made) = record(&given, &channel(), NOW) {
                proptest::prop_assert!(serde_json::from_slice::<Value>(&made).is_ok(), "{}", given);
            }
        }
    }
}
