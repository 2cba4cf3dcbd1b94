//! The events of a demo: those of a file, byte for byte, or made-up ones.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// An event, and what the demo must know of it.
pub struct Event {
    pub json: Box<RawValue>,
    /// What it is found again by.
    pub id: String,
    pub account: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Head {
    #[serde(rename = "eventID")]
    event_id: Option<String>,
    recipient_account_id: Option<String>,
    user_identity: Option<Identity>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Identity {
    account_id: Option<String>,
}

impl Event {
    /// An event without an eventID is given one. What is no event at all is sent as it is, to be refused by the daemon.
    fn new(json: Box<RawValue>) -> Self {
        let head: Head = serde_json::from_str(json.get()).unwrap_or_default();
        let account = head
            .recipient_account_id
            .or_else(|| head.user_identity.and_then(|identity| identity.account_id));
        match head.event_id {
            Some(id) => Self { json, id, account },
            None => {
                let id = Uuid::new_v4().to_string();
                let json = with_id(&json, &id).unwrap_or(json);
                Self { json, id, account }
            }
        }
    }
}

fn with_id(json: &RawValue, id: &str) -> Option<Box<RawValue>> {
    let members = json.get().strip_prefix('{')?;
    let comma = if members.trim_start().starts_with('}') {
        ""
    } else {
        ","
    };
    RawValue::from_string(format!("{{\"eventID\":\"{id}\"{comma}{members}")).ok()
}

/// A log file, or anything else with `Records`.
#[derive(Deserialize)]
pub struct Records {
    #[serde(rename = "Records")]
    pub records: Vec<Box<RawValue>>,
}

/// The events of a file of NDJSON, JSON arrays or `{"Records":[…]}`.
pub fn read(path: &Path) -> anyhow::Result<Vec<Event>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut events = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<Box<RawValue>>() {
        let value = value.with_context(|| format!("{} is not JSON", path.display()))?;
        if let Ok(array) = serde_json::from_str::<Vec<Box<RawValue>>>(value.get()) {
            events.extend(array);
        } else if let Ok(Records { records }) = serde_json::from_str(value.get()) {
            events.extend(records);
        } else {
            events.push(value);
        }
    }
    if events.is_empty() {
        bail!("{} holds no events", path.display());
    }
    Ok(events.into_iter().map(Event::new).collect())
}

/// Made-up events of one account in three regions: a few people at work.
pub fn samples(count: usize, account: &str) -> Vec<Event> {
    let now = OffsetDateTime::now_utc();
    (0..count)
        .filter_map(|n| {
            let at = now - Duration::from_secs((count - n) as u64);
            RawValue::from_string(sample(n, at, account)).ok()
        })
        .map(Event::new)
        .collect()
}

fn sample(n: usize, at: OffsetDateTime, account: &str) -> String {
    const CALLS: [(&str, &str, bool); 8] = [
        ("ec2.amazonaws.com", "DescribeInstances", true),
        ("s3.amazonaws.com", "ListBuckets", true),
        ("iam.amazonaws.com", "CreateUser", false),
        ("sts.amazonaws.com", "AssumeRole", true),
        ("ec2.amazonaws.com", "RunInstances", false),
        ("lambda.amazonaws.com", "GetFunction", true),
        ("kms.amazonaws.com", "Decrypt", true),
        ("orders.example.com", "CancelOrder", false),
    ];
    const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "dave"];
    const REGIONS: [&str; 3] = ["us-east-1", "eu-central-1", "ap-southeast-2"];
    let (source, name, read_only) = CALLS[n % CALLS.len()];
    let person = PEOPLE[n / 3 % PEOPLE.len()];
    let is_global = source.starts_with("iam.") || source.starts_with("sts.");
    let region = if is_global {
        REGIONS[0]
    } else {
        REGIONS[n % REGIONS.len()]
    };
    let at = at
        .replace_nanosecond(0)
        .unwrap_or(at)
        .format(&Rfc3339)
        .unwrap_or_default();
    let (request_id, event_id) = (Uuid::new_v4(), Uuid::new_v4());
    let principal = format!("AIDAEXAMPLE{}", person.to_uppercase());
    let address = format!("192.0.2.{}", 1 + n % 250);
    format!(
        r#"{{"eventVersion":"1.11","userIdentity":{{"type":"IAMUser","principalId":"{principal}","arn":"arn:aws:iam::{account}:user/{person}","accountId":"{account}","userName":"{person}"}},"eventTime":"{at}","eventSource":"{source}","eventName":"{name}","awsRegion":"{region}","sourceIPAddress":"{address}","userAgent":"traild-demo","requestParameters":{{"sample":{n}}},"responseElements":null,"requestID":"{request_id}","eventID":"{event_id}","readOnly":{read_only},"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"{account}","eventCategory":"Management"}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_events_the_daemon_takes() {
        let events = samples(50, "111122223333");
        assert_eq!(events.len(), 50);
        for event in events {
            let json: serde_json::Value = serde_json::from_str(event.json.get()).unwrap();
            assert_eq!(json["eventID"], event.id);
            assert_eq!(event.account.as_deref(), Some("111122223333"));
        }
    }

    #[test]
    fn events_of_a_file_keep_their_bytes_and_get_an_id_when_they_have_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let text = "{\"eventID\": \"a\"}\n[{\"eventID\":\"b\"}, {}]\n{\"Records\":[{\"eventName\":\"X\"}]}";
        std::fs::write(&path, text).unwrap();
        let events = read(&path).unwrap();
        let texts: Vec<_> = events.iter().map(|event| event.json.get()).collect();
        assert_eq!(texts[..2], [r#"{"eventID": "a"}"#, r#"{"eventID":"b"}"#]);
        assert_eq!(texts[2], format!(r#"{{"eventID":"{}"}}"#, events[2].id));
        assert_eq!(
            texts[3],
            format!(r#"{{"eventID":"{}","eventName":"X"}}"#, events[3].id)
        );
    }
}
