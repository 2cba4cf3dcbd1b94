//! `traild lookup`: events of the last ninety days, the newest first, as LookupEvents has them.
//!
//! With `--json` each is one line, the answer's own event. Else a table, in which nothing that a stranger wrote can move the cursor.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, SIGNING_HINT};
use super::{EndpointArgument, Failure};
use crate::api::protocol::Service;
use crate::api::timestamp::Timestamp;
use crate::clock::WallMillis;
use crate::config::units::parse_duration;
use crate::event::refusal::shown;
use crate::event::time::parse_rfc3339;
use crate::history::Attribute;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    endpoint: EndpointArgument,
    /// Only events with this: EventId, EventName, ReadOnly, Username, ResourceType, ResourceName, EventSource or AccessKeyId
    #[arg(long, value_name = "KEY=VALUE")]
    attribute: Option<Wanted>,
    /// Only events from this time on: 2026-05-01T00:00:00Z, 2026-05-01, or how long ago, as in 12h
    #[arg(long, value_name = "TIME")]
    start: Option<Moment>,
    /// Only events up to this time
    #[arg(long, value_name = "TIME")]
    end: Option<Moment>,
    /// How many at most, the newest
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    max: u32,
    /// Print each event as a line of JSON
    #[arg(long)]
    json: bool,
}

const TARGET: &str = "CloudTrail_20131101.LookupEvents";
const PATIENCE: Duration = Duration::from_secs(30);
/// Of one answer.
const PAGE: u32 = 50;

/// `KEY=VALUE`, the key an attribute's name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    attribute: Attribute,
    value: String,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or("an attribute is KEY=VALUE, as in EventName=CreateUser")?;
        let attribute = Attribute::named(key).ok_or_else(|| {
            let names = Attribute::ALL.map(Attribute::name).join(", ");
            format!("'{key}' is none of {names}")
        })?;
        match value {
            "" => Err(format!("{key} is looked up by a value: {key}=…")),
            value => Ok(Self {
                attribute,
                value: value.to_owned(),
            }),
        }
    }
}

/// A moment, or how long ago it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    At(i64),
    Ago(Duration),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let day = format!("{text}T00:00:00Z");
        let at = parse_rfc3339(text.as_bytes()).or_else(|| parse_rfc3339(day.as_bytes()));
        match (at, parse_duration(text)) {
            (Some(seconds), _) => Ok(Self::At(seconds)),
            (None, Some(ago)) => Ok(Self::Ago(ago)),
            (None, None) => {
                Err("a time is 2026-05-01T00:00:00Z, 2026-05-01, or how long ago, as in 12h".into())
            }
        }
    }
}

impl Moment {
    /// Seconds since 1970.
    fn seconds(self, now: WallMillis) -> i64 {
        match self {
            Self::At(seconds) => seconds,
            Self::Ago(ago) => {
                let ago = i64::try_from(ago.as_secs()).unwrap_or(i64::MAX);
                now.unix_seconds().saturating_sub(ago)
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    events: Vec<Value>,
    next_token: Option<String>,
}

/// What the table shows of an event.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    event_time: Timestamp,
    #[serde(default)]
    event_name: String,
    #[serde(default)]
    event_source: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    event_id: String,
    #[serde(default)]
    resources: Vec<BTreeMap<String, String>>,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let request = request(&arguments, WallMillis::now());
    let is_json = arguments.json;
    let events = super::runtime()?.block_on(fetch(arguments, request))?;
    match is_json {
        true => super::print(lines(&events)),
        false => super::print(table(&events)?),
    }
}

/// The request, but for what is of a page.
fn request(arguments: &Arguments, now: WallMillis) -> Value {
    let mut request = json!({});
    if let Some(Wanted { attribute, value }) = &arguments.attribute {
        request["LookupAttributes"] =
            json!([{ "AttributeKey": attribute.name(), "AttributeValue": value }]);
    }
    for (name, moment) in [("StartTime", arguments.start), ("EndTime", arguments.end)] {
        if let Some(moment) = moment {
            request[name] = moment.seconds(now).into();
        }
    }
    request
}

async fn fetch(arguments: Arguments, mut request: Value) -> Result<Vec<Value>, Failure> {
    let service = Service::CloudTrail.signing_name();
    let mut client = Client::of_service(arguments.endpoint.endpoint, service).await;
    let most = usize::try_from(arguments.max).unwrap_or(usize::MAX);
    // A token is good for requests of the same size only.
    request["MaxResults"] = arguments.max.min(PAGE).into();
    let mut events = Vec::new();
    loop {
        let page = page(&mut client, &request).await?;
        events.extend(page.events);
        events.truncate(most);
        match page.next_token {
            Some(token) if events.len() < most => request["NextToken"] = token.into(),
            _ => return Ok(events),
        }
    }
}

async fn page(client: &mut Client, request: &Value) -> Result<Page, Failure> {
    let answer = client.operation(TARGET, request, PATIENCE).await;
    let answer = answer.map_err(|error| {
        Failure::hinted(
            error,
            "is traild running? name its api listener with --endpoint",
        )
    })?;
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    if answer.status.is_success() {
        let page = body.and_then(|body| serde_json::from_value(body).ok());
        let page = page
            .with_context(|| format!("{} answered other than CloudTrail does", client.endpoint()));
        return page.map_err(|error| Failure::hinted(error, "is it the api listener of a traild?"));
    }
    let text = |name: &str| {
        let member = body.as_ref().and_then(|body| body.get(name));
        member.and_then(Value::as_str).map(str::to_owned)
    };
    let told = |text: String| shown(text.as_bytes(), 1000);
    let error = match (text("__type"), text("message").or_else(|| text("Message"))) {
        (Some(code), Some(message)) => anyhow!("{}: {}", told(code), told(message)),
        (Some(code), None) => anyhow!("{}", told(code)),
        (None, _) => anyhow!("{} answered {}", client.endpoint(), answer.status),
    };
    // As the door and the policies of the daemon name it.
    let about_who = ["Authentication", "Signature", "Client", "AccessDenied"];
    let is_about_who =
        text("__type").is_some_and(|code| about_who.iter().any(|it| code.contains(it)));
    Err(match is_about_who {
        true => Failure::hinted(error, SIGNING_HINT),
        false => error.into(),
    })
}

fn lines(events: &[Value]) -> String {
    let mut out = String::new();
    for event in events {
        // JSON must escape those below U+0020 alone; terminals obey some of the others, too. They stand inside of strings only.
        for character in event.to_string().chars() {
            match character.is_control() {
                true => write!(out, "\\u{:04x}", u32::from(character)),
                false => out.write_char(character),
            }
            .expect("writing to a String cannot fail");
        }
        out.push('\n');
    }
    out
}

fn table(events: &[Value]) -> Result<String, Failure> {
    if events.is_empty() {
        return Ok("no events\n".to_owned());
    }
    let heads = ["TIME", "EVENT", "SOURCE", "USER", "RESOURCE", "EVENT ID"];
    let mut rows = vec![heads.map(str::to_owned)];
    for event in events {
        let event: Shown =
            serde_json::from_value(event.clone()).context("an event is other than CloudTrail's")?;
        rows.push(row(event));
    }
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let line = cells.join("  ");
        writeln!(out, "{}", line.trim_end()).expect("writing to a String cannot fail");
    }
    Ok(out)
}

fn row(event: Shown) -> [String; 6] {
    let Shown {
        event_time: Timestamp(time),
        event_name,
        event_source,
        username,
        event_id,
        resources,
    } = event;
    let more = resources.len().saturating_sub(1);
    let first = resources.first().and_then(|it| it.get("ResourceName"));
    let mut resource = cell(first.map_or("", String::as_str));
    if more > 0 {
        resource.push_str(&format!(" +{more}"));
    }
    [
        time.rfc3339(),
        cell(&event_name),
        cell(&event_source),
        cell(&username),
        resource,
        cell(&event_id),
    ]
}

fn cell(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text => shown(text.as_bytes(), 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_days_or_how_long_ago() {
        let now = WallMillis(1_777_600_000_000);
        for (text, seconds) in [
            ("2026-05-01T00:00:01Z", 1_777_593_601),
            ("2026-05-01T02:00:00+02:00", 1_777_593_600),
            ("2026-05-01", 1_777_593_600),
            ("1h30m", 1_777_594_600),
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(moment.seconds(now), seconds, "{text}");
        }
        for other in ["", "now", "2026-5-1", "1777593600"] {
            assert!(other.parse::<Moment>().is_err(), "{other}");
        }
    }

    #[test]
    fn an_attribute_is_a_key_and_a_value() {
        let wanted: Wanted = "ResourceName=a=b".parse().unwrap();
        assert_eq!(
            (wanted.attribute, wanted.value.as_str()),
            (Attribute::ResourceName, "a=b")
        );
        for other in ["", "EventName", "EventName=", "eventname=x", "=x"] {
            assert!(other.parse::<Wanted>().is_err(), "{other}");
        }
    }

    #[test]
    fn what_strangers_wrote_cannot_move_the_cursor() {
        let events = [
            json!({
                "EventTime": 1_777_593_600, "EventName": "Create\u{1b}[2JUser", "EventSource": "iam.amazonaws.com", "Username": "alice", "EventId": "id-1",
                "Resources": [{"ResourceType": "AWS::IAM::User", "ResourceName": "bob"}, {"ResourceName": "arn"}], "CloudTrailEvent": "{}"
            }),
            json!({"EventTime": 1_777_593_599.0, "Resources": [], "CloudTrailEvent": "{\"a\":\"\u{7f}\u{9b}2J\u{85}é\"}"}),
        ];
        let expected = "\
TIME                  EVENT                SOURCE             USER   RESOURCE  EVENT ID
2026-05-01T00:00:00Z  Create\\u{1b}[2JUser  iam.amazonaws.com  alice  bob +1    id-1
2026-05-01T00:00:00Z  -                    -                  -      -         -
";
        let shown = table(&events).ok().unwrap();
        let expected = expected.replace("2026-05-01T00:00:00Z  -", "2026-04-30T23:59:59Z  -");
        assert_eq!(shown, expected);
        let lines = lines(&events);
        assert_eq!(lines.lines().count(), 2);
        assert!(!lines.replace('\n', "").contains(char::is_control));
        let read: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read, events, "and they say what they said");
        assert_eq!(table(&[]).ok().unwrap(), "no events\n");
    }
}
