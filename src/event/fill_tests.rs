use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::{Rules, parse};
use super::*;
use crate::clock::WallMillis;

fn rules() -> Rules {
    Rules {
        max_event_bytes: 256 << 10,
        account: "999988887777".parse().unwrap(),
        region: "eu-central-1".parse().unwrap(),
        now: WallMillis(1_777_636_800_000),
    }
}

const ID: Uuid = Uuid::from_u128(0x0a_0b);

fn stored(given: &str) -> String {
    let event =
        parse(given.as_bytes(), &rules()).unwrap_or_else(|refusal| panic!("{refusal}: {given}"));
    let mut out = b"before".to_vec();
    event.write(
        &mut out,
        Filling {
            event_id: ID,
            source_address: "192.0.2.7",
        },
    );
    let most_bytes = event.most_bytes("192.0.2.7");
    assert!(out.len() - 6 <= most_bytes);
    // An estimate much too high would refuse what fits.
    assert!(
        most_bytes <= out.len() - 6 + 64,
        "{most_bytes} for {}",
        out.len() - 6
    );
    String::from_utf8(out)
        .unwrap()
        .strip_prefix("before")
        .unwrap()
        .to_owned()
}

#[test]
fn absent_members_follow_what_was_given() {
    let given = r#"{"eventTime":"2026-05-01T02:19:01.5+02:00", "eventSource":"s3.amazonaws.com","eventName":"ListBuckets" }"#;
    let expected = concat!(
        r#"{"eventTime":"2026-05-01T02:19:01.5+02:00", "eventSource":"s3.amazonaws.com","eventName":"ListBuckets" "#,
        r#","eventVersion":"1.11","userIdentity":{"type":"Unknown"},"awsRegion":"eu-central-1","sourceIPAddress":"192.0.2.7","#,
        r#""requestParameters":null,"responseElements":null,"eventID":"00000000-0000-0000-0000-000000000a0b","readOnly":true,"#,
        r#""eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"999988887777","eventCategory":"Management"}"#,
    );
    assert_eq!(stored(given), expected);
}

#[test]
fn a_whole_event_is_stored_as_it_came() {
    // CloudTrail's own minimal management record.
    let given = r#"{"eventVersion":"1.11","userIdentity":{"type":"IAMUser","principalId":"AIDAEXAMPLE","arn":"arn:aws:iam::111122223333:user/alice","accountId":"111122223333","accessKeyId":"AKIAEXAMPLE","userName":"alice"},"eventTime":"2026-05-01T00:19:01Z","eventSource":"iam.amazonaws.com","eventName":"CreateUser","awsRegion":"us-east-1","sourceIPAddress":"192.0.2.7","userAgent":"test/1","requestParameters":{"userName":"bob"},"responseElements":null,"requestID":"11111111-2222-4333-8444-000000000001","eventID":"aaaaaaaa-bbbb-4ccc-8ddd-000000000001","readOnly":false,"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"111122223333","eventCategory":"Management"}"#;
    assert_eq!(stored(given), given);
    assert_eq!(stored(&format!("  {given}\r\n")), given);
}

#[test]
fn each_category_gets_only_the_members_of_its_schema() {
    let names = |given: &str| -> Vec<String> {
        let value: Json = serde_json::from_str(&stored(given)).unwrap();
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(
        names(
            r#"{"eventTime":"2026-05-01T00:19:00Z","eventCategory":"Insight","insightDetails":{}}"#
        ),
        [
            "awsRegion",
            "eventCategory",
            "eventID",
            "eventTime",
            "eventType",
            "eventVersion",
            "insightDetails",
            "recipientAccountId"
        ]
    );
    assert_eq!(
        names(
            r#"{"eventTime":"2026-05-01T00:19:00Z","eventCategory":"NetworkActivity","eventSource":"a","eventName":"b"}"#
        ),
        [
            "awsRegion",
            "eventCategory",
            "eventID",
            "eventName",
            "eventSource",
            "eventTime",
            "eventType",
            "eventVersion",
            "recipientAccountId",
            "sourceIPAddress",
            "userIdentity"
        ]
    );
    assert_eq!(
        names(
            r#"{"eventTime":"2026-05-01T00:19:00Z","eventCategory":"ActivityAuditLog","eventSource":"a","eventName":"b"}"#
        ),
        [
            "awsRegion",
            "eventCategory",
            "eventID",
            "eventName",
            "eventSource",
            "eventTime",
            "eventType",
            "eventVersion",
            "recipientAccountId",
            "userIdentity"
        ]
    );
}

#[test]
fn a_data_event_is_not_called_a_management_event() {
    let base = r#""eventTime":"2026-05-01T00:19:00Z","eventSource":"s3.amazonaws.com","eventName":"PutObject"}"#;
    for member in [r#""eventCategory":"Data""#, r#""managementEvent":false"#] {
        let value: Json = serde_json::from_str(&stored(&format!("{{{member},{base}"))).unwrap();
        assert_eq!(
            (&value["eventCategory"], &value["managementEvent"]),
            (&json!("Data"), &json!(false))
        );
        assert_eq!(value["readOnly"], json!(false));
    }
}

#[test]
fn a_strange_address_is_escaped() {
    let event = parse(
        br#"{"eventTime":"2026-05-01T00:19:00Z","eventSource":"a","eventName":"b"}"#,
        &rules(),
    )
    .unwrap();
    let mut out = Vec::new();
    event.write(
        &mut out,
        Filling {
            event_id: ID,
            source_address: "a\"\\\u{1}",
        },
    );
    assert!(out.len() <= event.most_bytes("a\"\\\u{1}"));
    assert_eq!(
        serde_json::from_slice::<Json>(&out).unwrap()["sourceIPAddress"],
        json!("a\"\\\u{1}")
    );
}

/// Some of an event's members, in any order, with anything else among them.
fn any_event() -> impl Strategy<Value = String> {
    let optional = prop::sample::subsequence(
        vec![
            r#""eventVersion":"1.08""#,
            r#""userIdentity":{"type":"Root","accountId":"222222222222"}"#,
            r#""awsRegion" : "us-west-2""#,
            r#""sourceIPAddress":"AWS Internal""#,
            r#""requestParameters":{"a":{"b":[1,2,{"c":null}]}}"#,
            r#""responseElements":null"#,
            r#""eventID":"3038ebd2-c98a-4c65-9b6e-e22506292313""#,
            r#""readOnly":false"#,
            r#""eventType":"AwsConsoleSignIn""#,
            r#""managementEvent":true"#,
            r#""recipientAccountId":"111122223333""#,
        ],
        0..=11,
    );
    let category = prop::option::of(prop::sample::select(vec![
        "Management",
        "Data",
        "Insight",
        "NetworkActivity",
    ]));
    let extra = prop::collection::btree_map("x[a-z\"\\\\é\u{1}]{0,6}", "\\PC{0,20}", 0..4);
    let space = prop::sample::select(vec!["", " ", "\n\t", "\r\n"]);
    (optional, category, extra, space, any::<u64>()).prop_map(
        |(optional, category, extra, space, order)| {
            let mut members: Vec<String> = optional.into_iter().map(str::to_owned).collect();
            members.extend(
                [
                    r#""eventTime":"2026-05-01T00:19:01Z""#,
                    r#""eventSource":"ec2.amazonaws.com""#,
                    r#""eventName":"RunInstances""#,
                ]
                .map(str::to_owned),
            );
            members.extend(category.map(|category| format!("\"eventCategory\":\"{category}\"")));
            members.extend(
                extra
                    .into_iter()
                    .map(|(name, value)| format!("{}:{}", json!(name), json!(value))),
            );
            let mut state = order | 1;
            for last in (1..members.len()).rev() {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                members.swap(last, (state >> 33) as usize % (last + 1));
            }
            format!(
                "{{{space}{}{space}}}",
                members.join(&format!("{space},{space}"))
            )
        },
    )
}

proptest! {
    #[test]
    fn what_was_given_stays_and_what_is_stored_is_whole(given in any_event()) {
        let stored = stored(&given);
        prop_assert!(stored.starts_with(&given[..given.len() - 1]));
        let before: serde_json::Map<String, Json> = serde_json::from_str(&given).unwrap();
        let after: serde_json::Map<String, Json> = serde_json::from_str(&stored).unwrap();
        for (name, value) in &before {
            prop_assert_eq!(after.get(name), Some(value));
        }
        let insight = after["eventCategory"] == "Insight";
        let always = ["eventVersion", "eventTime", "awsRegion", "eventID", "eventType", "recipientAccountId", "eventCategory"];
        for name in always {
            prop_assert!(after[name].is_string(), "{}", name);
        }
        if !insight {
            prop_assert!(after["userIdentity"].is_object() && after["sourceIPAddress"].is_string());
        }
        // Stored once, nothing is missing any more: it is a fixed point.
        let again = parse(stored.as_bytes(), &rules()).unwrap();
        let mut out = Vec::new();
        again.write(&mut out, Filling { event_id: Uuid::max(), source_address: "other" });
        prop_assert_eq!(String::from_utf8(out).unwrap(), stored);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, &rules());
    }

    #[test]
    fn damaged_events_never_panic_and_what_passes_is_json(given in any_event(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = given.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(event) = parse(&bytes, &rules()) {
            let mut out = Vec::new();
            event.write(&mut out, Filling { event_id: ID, source_address: "::1" });
            prop_assert!(serde_json::from_slice::<Json>(&out).is_ok());
        }
    }
}
