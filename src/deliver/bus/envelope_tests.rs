use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::clock::WallMillis;
use crate::event::fill::Filling;
use crate::event::{Rules, parse};

const TEMPLATE: &str = "traild.{service}";

/// CloudTrail's minimal management record.
const CREATE_USER: &str = r#"{"eventVersion":"1.11","userIdentity":{"type":"IAMUser","principalId":"AIDAEXAMPLE","arn":"arn:aws:iam::111122223333:user/alice","accountId":"111122223333","accessKeyId":"AKIAEXAMPLE","userName":"alice"},"eventTime":"2026-05-01T00:19:01Z","eventSource":"iam.amazonaws.com","eventName":"CreateUser","awsRegion":"us-east-1","sourceIPAddress":"192.0.2.7","userAgent":"test/1","requestParameters":{"userName":"bob"},"responseElements":null,"requestID":"11111111-2222-4333-8444-000000000001","eventID":"aaaaaaaa-bbbb-4ccc-8ddd-000000000001","readOnly":false,"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"111122223333","eventCategory":"Management"}"#;

fn envelope(event: &str, template: &str) -> Result<Envelope, Refusal> {
    Envelope::of(&Bytes::copy_from_slice(event.as_bytes()), template)
}

/// The event that EventBridge makes of an entry, but for the id, the account and the region, which are its own.
fn delivered(event: &str, template: &str) -> serde_json::Value {
    let entry = envelope(event, template).unwrap().addressed("default");
    let detail: serde_json::Value = serde_json::from_str(entry.detail().unwrap()).unwrap();
    let format = aws_sdk_eventbridge::primitives::DateTimeFormat::DateTime;
    json!({
        "detail-type": entry.detail_type(),
        "source": entry.source(),
        "time": entry.time().map(|time| time.fmt(format).unwrap()),
        "resources": entry.resources(),
        "detail": detail,
    })
}

#[test]
fn an_event_gets_the_envelope_that_cloudtrail_gives_it() {
    let detail: serde_json::Value = serde_json::from_str(CREATE_USER).unwrap();
    let expected = json!({
        "detail-type": "AWS API Call via CloudTrail",
        "source": "aws.iam",
        "time": "2026-05-01T00:19:01Z",
        "resources": [],
        "detail": detail,
    });
    assert_eq!(delivered(CREATE_USER, "aws.{service}"), expected);
}

#[test]
fn the_detail_is_the_event_byte_for_byte_and_the_bus_as_given() {
    let event = "{ \"eventSource\" : \"iam.amazonaws.com\",\"x\":\"\\u00e9é\\/\",\"n\":1.0e+00 }";
    let bus = "arn:aws:events:eu-west-1:111122223333:event-bus/audit";
    let entry = envelope(event, TEMPLATE).unwrap().addressed(bus);
    assert_eq!(entry.detail(), Some(event));
    assert_eq!(entry.event_bus_name(), Some(bus));
}

#[test]
fn a_source_follows_its_template() {
    let of = |event_source: &str, template: &str| {
        let event = json!({ "eventSource": event_source }).to_string();
        let entry = envelope(&event, template).unwrap().addressed("default");
        entry.source().unwrap().to_owned()
    };
    assert_eq!(of("s3.amazonaws.com", TEMPLATE), "traild.s3");
    assert_eq!(of("s3.amazonaws.com", "aws.{service}"), "aws.s3");
    assert_eq!(of("s3.amazonaws.com", "audit"), "audit");
    assert_eq!(
        of("kubernetes.example.com", TEMPLATE),
        "traild.kubernetes.example.com"
    );
    assert_eq!(of("{service}.amazonaws.com", TEMPLATE), "traild.{service}");
    let insight = envelope(r#"{"eventCategory":"Insight"}"#, TEMPLATE).unwrap();
    assert_eq!(
        insight.addressed("default").source(),
        Some("traild.cloudtrail")
    );
}

#[test]
fn a_detail_type_follows_the_kind_of_event() {
    let api_call = "AWS API Call via CloudTrail";
    let network = "AWS Network Activity Event via CloudTrail";
    for (event, expected) in [
        (
            r#"{"eventType":"AwsApiCall","eventCategory":"Management"}"#,
            api_call,
        ),
        (
            r#"{"eventType":"AwsApiCall","eventCategory":"Data"}"#,
            api_call,
        ),
        (
            r#"{"eventType":"AwsConsoleSignIn"}"#,
            "AWS Console Sign In via CloudTrail",
        ),
        (
            r#"{"eventType":"AwsConsoleAction"}"#,
            "AWS Console Action via CloudTrail",
        ),
        (
            r#"{"eventType":"AwsServiceEvent"}"#,
            "AWS Service Event via CloudTrail",
        ),
        (
            r#"{"eventType":"AwsCloudTrailInsight"}"#,
            "AWS Insight via CloudTrail",
        ),
        (r#"{"eventType":"AwsVpceEvent"}"#, network),
        (r#"{"eventType":"AwsVpceEvents"}"#, network),
        (
            r#"{"eventType":"Other","eventCategory":"NetworkActivity"}"#,
            network,
        ),
        (
            r#"{"eventCategory":"Insight"}"#,
            "AWS Insight via CloudTrail",
        ),
        (
            r#"{"eventType":"Other","eventCategory":"Management"}"#,
            api_call,
        ),
        ("{}", api_call),
    ] {
        assert_eq!(
            delivered(event, TEMPLATE)["detail-type"],
            expected,
            "{event}"
        );
    }
}

#[test]
fn the_size_is_counted_as_eventbridge_counts_it() {
    // 14 for the time; "traild.iam"; "AWS API Call via CloudTrail"; the detail, "é" being two bytes.
    let timed = r#"{"eventTime":"2026-05-01T00:19:01Z","eventSource":"iam.amazonaws.com","x":"é"}"#;
    assert_eq!(timed.len(), 79);
    assert_eq!(envelope(timed, TEMPLATE).unwrap().size(), 14 + 10 + 27 + 79);
    let timeless = r#"{"eventSource":"iam.amazonaws.com"}"#;
    assert_eq!(
        envelope(timeless, TEMPLATE).unwrap().size(),
        10 + 27 + timeless.len() as u64
    );
}

#[test]
fn what_eventbridge_could_never_take_is_refused() {
    let refusal = |event: &[u8], template| {
        let refusal = Envelope::of(&Bytes::copy_from_slice(event), template).unwrap_err();
        assert_eq!(refusal.reason, REFUSED);
        refusal.message
    };
    for event in [&b""[..], b"[]", b"{\"a\":", b"{\"a\":\"\xff\"}", b"\xff"] {
        assert_eq!(refusal(event, TEMPLATE), "the event is not a JSON object");
    }
    let named = |chars: usize| json!({ "eventSource": "é".repeat(chars) }).to_string();
    assert!(envelope(&named(256), "{service}").is_ok());
    assert_eq!(
        refusal(named(257).as_bytes(), "{service}"),
        "the source has 257 characters, EventBridge takes 1 to 256"
    );
    assert_eq!(
        refusal(br#"{"eventSource":".amazonaws.com"}"#, "{service}"),
        "the source has 0 characters, EventBridge takes 1 to 256"
    );
}

/// What acceptance stores of an event that says as little as it may.
fn accepted(members: &str) -> String {
    let given = format!(
        r#"{{"eventTime":"2026-05-01T00:19:01Z","eventSource":"iam.amazonaws.com",{members}}}"#
    );
    let rules = Rules {
        max_event_bytes: 1 << 18,
        account: "111122223333".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
        now: WallMillis(1_777_636_800_000),
    };
    let mut stored = Vec::new();
    parse(given.as_bytes(), &rules).unwrap().write(
        &mut stored,
        Filling {
            event_id: Uuid::nil(),
            source_address: "192.0.2.7",
        },
    );
    String::from_utf8(stored).unwrap()
}

#[test]
fn a_rule_can_leave_out_read_only_management_events() {
    // As EventBridge reads `{"$or": [{"readOnly": [false]}, {"eventCategory": [{"anything-but": "Management"}]}]}`.
    let matched = |members: &str| {
        let event = delivered(&accepted(members), TEMPLATE);
        let category = event["detail"]["eventCategory"].as_str();
        event["detail"]["readOnly"] == json!(false)
            || category.is_some_and(|category| category != "Management")
    };
    for (members, matches) in [
        (r#""eventName":"CreateUser""#, true),
        (r#""eventName":"ListUsers""#, false),
        (r#""eventName":"ListUsers","readOnly":false"#, true),
        (r#""eventName":"AssumeRole","readOnly":true"#, false),
        (r#""eventName":"GetObject","eventCategory":"Data""#, true),
        (r#""eventName":"GetObject","managementEvent":false"#, true),
        (
            r#""eventName":"ListBuckets","eventType":"AwsVpceEvent""#,
            true,
        ),
        (r#""eventType":"AwsCloudTrailInsight""#, true),
    ] {
        assert_eq!(matched(members), matches, "{members}");
    }
    let management = delivered(&accepted(r#""eventName":"ListUsers""#), TEMPLATE);
    assert_eq!(management["detail"]["managementEvent"], json!(true));
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        if let Ok(envelope) = Envelope::of(&bytes, TEMPLATE) {
            let entry = envelope.addressed("default");
            prop_assert_eq!(entry.detail().unwrap().as_bytes(), &bytes[..]);
        }
    }

    #[test]
    fn any_text_in_a_field_is_carried_or_refused(
        source in "\\PC{0,300}", kind in "\\PC{0,20}", time in "\\PC{0,30}"
    ) {
        let event = json!({ "eventSource": source, "eventType": kind, "eventTime": time }).to_string();
        if let Ok(envelope) = envelope(&event, TEMPLATE) {
            let entry = envelope.addressed("default");
            prop_assert!(entry.source().unwrap().chars().count() <= 256);
            prop_assert!(entry.detail_type().unwrap().len() <= 128);
            prop_assert_eq!(entry.detail(), Some(&*event));
        }
    }
}
