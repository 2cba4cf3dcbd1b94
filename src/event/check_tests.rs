use super::*;
use crate::event::Folder;

/// 2026-05-01T12:00:00Z
const NOW: WallMillis = WallMillis(1_777_636_800_000);

fn rules() -> Rules {
    Rules {
        max_event_bytes: 4096,
        account: "999988887777".parse().unwrap(),
        region: "eu-central-1".parse().unwrap(),
        now: NOW,
    }
}

/// A minimal event with `member` put in front.
fn event_with(member: &str) -> String {
    let base = r#""eventTime":"2026-05-01T00:19:01Z","eventSource":"s3.amazonaws.com","eventName":"ListBuckets""#;
    let own: String = member.split('"').nth(1).unwrap_or_default().to_owned();
    let rest: Vec<&str> = base
        .split(',')
        .filter(|part| !part.starts_with(&format!("\"{own}\":")))
        .collect();
    let comma = if member.is_empty() || rest.is_empty() {
        ""
    } else {
        ","
    };
    format!("{{{member}{comma}{}}}", rest.join(","))
}

fn verdict(text: &str) -> Result<Code, Code> {
    parse(text.as_bytes(), &rules())
        .map(|_| Code::InvalidField)
        .map_err(|refusal| refusal.code)
}

fn refusal(text: &str) -> Refusal {
    parse(text.as_bytes(), &rules()).unwrap_err()
}

fn taken(text: &str) -> Checked<'_> {
    parse(text.as_bytes(), &rules()).unwrap_or_else(|refusal| panic!("{refusal}: {text}"))
}

#[test]
fn the_smallest_event_takes_the_callers_account_and_region() {
    let text = event_with("");
    let event = taken(&text);
    assert_eq!(event.account.as_str(), "999988887777");
    assert_eq!(event.region.as_str(), "eu-central-1");
    assert_eq!(event.category, Category::Management);
    assert_eq!(event.event_time, 1_777_594_741);
    assert!(event.read_only && !event.global_service && !event.has_event_id());
}

#[test]
fn each_broken_rule_has_its_code() {
    use Code::*;
    let cases: &[(&str, Code)] = &[
        (r#""eventTime":"2026-05-01 00:19:01""#, InvalidEventTime),
        (r#""eventTime":"1969-12-31T23:59:59Z""#, InvalidEventTime),
        (
            r#""eventTime":"1970-01-01T00:00:00+00:01""#,
            InvalidEventTime,
        ),
        (r#""eventTime":"2026-05-02T12:00:01Z""#, InvalidEventTime),
        (r#""eventTime":"9999-12-31T23:59:59Z""#, InvalidEventTime),
        (r#""eventTime":"-2026-05-01T00:00:00Z""#, InvalidEventTime),
        (r#""eventTime":"2026-05-01T00:19:60Z""#, InvalidEventTime),
        (r#""eventTime":1777594741"#, InvalidEventTime),
        (r#""eventTime":null"#, InvalidEventTime),
        (r#""eventTime":"""#, InvalidEventTime),
        (r#""eventSource":null"#, InvalidField),
        (r#""eventSource":"""#, InvalidField),
        (r#""eventName":["a"]"#, InvalidField),
        (r#""eventID":"""#, InvalidField),
        (r#""eventID":7"#, InvalidField),
        (r#""eventID":null"#, InvalidField),
        (r#""eventVersion":1.08"#, InvalidField),
        (r#""eventType":null"#, InvalidField),
        (r#""userIdentity":"alice""#, InvalidField),
        (r#""userIdentity":null"#, InvalidField),
        (r#""requestParameters":"{}""#, InvalidField),
        (r#""responseElements":[]"#, InvalidField),
        (r#""resources":{}"#, InvalidField),
        (r#""readOnly":"yes""#, InvalidField),
        (r#""readOnly":1"#, InvalidField),
        (r#""sourceIPAddress":true"#, InvalidField),
        (r#""userAgent":{}"#, InvalidField),
        (r#""awsRegion":"""#, InvalidRegion),
        (r#""awsRegion":null"#, InvalidRegion),
        (r#""awsRegion":"../../etc""#, InvalidRegion),
        (r#""awsRegion":"us-east-1/..""#, InvalidRegion),
        (r#""awsRegion":"us-east-1\u0000""#, InvalidRegion),
        (r#""awsRegion":"US-EAST-1""#, InvalidRegion),
        (r#""awsRegion":"ué-east-1""#, InvalidRegion),
        (r#""recipientAccountId":"../../../../""#, InvalidAccount),
        (r#""recipientAccountId":"0000""#, InvalidAccount),
        (r#""recipientAccountId":111122223333"#, InvalidAccount),
        (r#""recipientAccountId":null"#, InvalidAccount),
        (r#""recipientAccountId":"١١١١٢٢٢٢٣٣٣٣""#, InvalidAccount),
        (
            r#""userIdentity":{"accountId":"anonymous"}"#,
            InvalidAccount,
        ),
        (
            r#""userIdentity":{"accountId":111122223333}"#,
            InvalidAccount,
        ),
        (r#""eventCategory":"ActivityLog""#, InvalidEventCategory),
        (r#""eventCategory":"Aggregated""#, InvalidEventCategory),
        (r#""eventCategory":"management""#, InvalidEventCategory),
        (r#""eventCategory":null"#, InvalidEventCategory),
        (r#""eventName":"a","eventName":"b""#, DuplicateField),
        (
            r#""awsRegion":"us-east-1","aws\u0052egion":"us-east-2""#,
            DuplicateField,
        ),
        (r#""custom":1,"custom":2"#, DuplicateField),
        (
            r#""userIdentity":{"accountId":"111122223333","accountId":"111122223334"}"#,
            DuplicateField,
        ),
        (r#""x":NaN"#, InvalidJson),
        (r#""x":-Infinity"#, InvalidJson),
        (r#""x":1e400"#, InvalidJson),
        (r#""x":"\ud800""#, InvalidJson),
        (r#""x":"\udfff\ud800""#, InvalidJson),
        (r#""x":01"#, InvalidJson),
        (r#"'x':1"#, InvalidJson),
        ("\"x\":\"a\tb\"", InvalidJson),
        ("\"x\":\"\u{0}\"", InvalidJson),
    ];
    for (member, code) in cases {
        assert_eq!(verdict(&event_with(member)), Err(*code), "{member}");
    }
}

#[test]
fn what_real_events_have_is_taken() {
    let members = [
        r#""eventTime":"2026-05-02T12:00:00Z""#,
        r#""eventTime":"1970-01-01T00:00:00Z""#,
        r#""eventTime":"2026-05-01T02:19:01.123+02:00""#,
        r#""eventTime":"2016-12-31T23:59:60Z""#,
        r#""requestParameters":null,"responseElements":null,"additionalEventData":null,"resources":null"#,
        r#""readOnly":"true","managementEvent":"false""#,
        r#""readOnly":null,"userAgent":null,"errorCode":null,"apiVersion":null"#,
        r#""userIdentity":{}"#,
        r#""userIdentity":{"type":"AWSService","invokedBy":"ec2.amazonaws.com"}"#,
        r#""userIdentity":{"accountId":null}"#,
        r#""userIdentity":{"accountId":"ANONYMOUS_PRINCIPAL"},"recipientAccountId":"111122223333""#,
        r#""awsRegion":"apiso-westcentral-3r""#,
        r#""eventID":"EXAMPLE8-0558-4f7e-a06a-43969EXAMPLE""#,
        r#""sourceIPAddress":"AWS Internal","eventVersion":"1.0""#,
        r#""invented":{"by":["the","sender"]},"":0"#,
        "\"x\":\"\u{7f}\u{2028}😀\\ud83d\\ude00\"",
    ];
    for member in members {
        taken(&event_with(member));
    }
}

#[test]
fn required_fields_are_named_when_they_are_missing() {
    for field in ["eventTime", "eventSource", "eventName"] {
        let text = event_with("").replace(
            &format!("\"{field}\""),
            &format!("\"{}\"", field.to_uppercase()),
        );
        let refusal = refusal(&text);
        assert_eq!(
            (refusal.code, refusal.message),
            (Code::MissingField, format!("{field} is missing"))
        );
    }
}

#[test]
fn an_insight_event_has_neither_source_nor_name() {
    let text =
        r#"{"eventTime":"2026-05-01T00:19:00Z","eventCategory":"Insight","insightDetails":{}}"#;
    assert_eq!(taken(text).category, Category::Insight);
    let text = r#"{"eventTime":"2026-05-01T00:19:00Z","eventType":"AwsCloudTrailInsight"}"#;
    assert_eq!(taken(text).category, Category::Insight);
    assert_eq!(
        verdict(r#"{"eventCategory":"Insight"}"#),
        Err(Code::MissingField)
    );
    assert_eq!(
        verdict(
            r#"{"eventTime":"2026-05-01T00:19:00Z","eventCategory":"Insight","insightDetails":1}"#
        ),
        Err(Code::InvalidField)
    );
}

#[test]
fn the_category_decides_the_folder() {
    let cases = [
        ("", Folder::CloudTrail, Category::Management),
        (
            r#""eventCategory":"Management""#,
            Folder::CloudTrail,
            Category::Management,
        ),
        (
            r#""eventCategory":"Data""#,
            Folder::CloudTrail,
            Category::Data,
        ),
        (
            r#""eventCategory":"D\u0061ta""#,
            Folder::CloudTrail,
            Category::Data,
        ),
        (
            r#""managementEvent":false"#,
            Folder::CloudTrail,
            Category::Data,
        ),
        (
            r#""eventCategory":"NetworkActivity""#,
            Folder::NetworkActivity,
            Category::NetworkActivity,
        ),
        (
            r#""eventType":"AwsVpceEvents""#,
            Folder::NetworkActivity,
            Category::NetworkActivity,
        ),
        (
            r#""eventCategory":"Insight""#,
            Folder::Insight,
            Category::Insight,
        ),
        (
            r#""eventCategory":"ActivityAuditLog""#,
            Folder::CloudTrail,
            Category::ActivityAuditLog,
        ),
        (
            r#""eventCategory":"Management","eventType":"AwsVpceEvent""#,
            Folder::CloudTrail,
            Category::Management,
        ),
    ];
    for (member, folder, category) in cases {
        let text = event_with(member);
        let event = taken(&text);
        assert_eq!(
            (event.meta(NOW, [0; 16]).category.folder(), event.category),
            (folder, category),
            "{member}"
        );
    }
}

#[test]
fn the_account_is_the_recipients_else_the_identitys_else_the_callers() {
    let cases = [
        (
            r#""recipientAccountId":"111122223333","userIdentity":{"accountId":"222222222222"}"#,
            "111122223333",
        ),
        (
            r#""userIdentity":{"type":"Root","accountId":"222222222222"}"#,
            "222222222222",
        ),
        (r#""userIdentity":{"type":"Root"}"#, "999988887777"),
    ];
    for (member, account) in cases {
        assert_eq!(
            taken(&event_with(member)).account.as_str(),
            account,
            "{member}"
        );
    }
}

#[test]
fn global_services_are_flagged_in_us_east_1_alone() {
    let cases = [
        ("iam.amazonaws.com", "us-east-1", true),
        ("sts.amazonaws.com", "us-east-1", true),
        ("cloudfront.amazonaws.com", "us-east-1", true),
        ("sts.amazonaws.com", "eu-west-1", false),
        ("s3.amazonaws.com", "us-east-1", false),
    ];
    for (source, region, global) in cases {
        let text =
            event_with(&format!(r#""awsRegion":"{region}""#)).replace("s3.amazonaws.com", source);
        assert_eq!(taken(&text).global_service, global, "{source} {region}");
    }
}

#[test]
fn depth_is_counted_with_the_event_itself() {
    let nested = |levels: usize| {
        event_with(&format!(
            "\"x\":{}{}",
            "[".repeat(levels),
            "]".repeat(levels)
        ))
    };
    taken(&nested(MAX_DEPTH - 1));
    assert_eq!(verdict(&nested(MAX_DEPTH)), Err(Code::TooDeep));
    let in_identity = |levels: usize| {
        event_with(&format!(
            "\"userIdentity\":{{\"x\":{}{}}}",
            "{\"y\":".repeat(levels - 1) + "{",
            "}".repeat(levels)
        ))
    };
    taken(&in_identity(MAX_DEPTH - 2));
    assert_eq!(verdict(&in_identity(MAX_DEPTH - 1)), Err(Code::TooDeep));
    let hostile = format!("{{\"x\":{}", "[".repeat(1 << 20));
    assert_eq!(verdict(&hostile), Err(Code::InvalidJson));
}

#[test]
fn size_is_what_was_given() {
    let text = event_with("");
    let exactly = |most: usize| {
        parse(
            text.as_bytes(),
            &Rules {
                max_event_bytes: most,
                ..rules()
            },
        )
        .map(|_| ())
    };
    assert_eq!(exactly(text.len()), Ok(()));
    assert_eq!(
        exactly(text.len() - 1).unwrap_err().code,
        Code::EventTooLarge
    );
}

#[test]
fn text_that_is_not_one_object_is_refused() {
    let cases = [
        ("", Code::InvalidJson),
        ("   ", Code::InvalidJson),
        ("1", Code::InvalidJson),
        ("[]", Code::InvalidJson),
        ("\"eventName\"", Code::InvalidJson),
        ("{}", Code::MissingField),
        ("{} {}", Code::InvalidJson),
        ("{}]", Code::InvalidJson),
        ("{\"a\":1", Code::InvalidJson),
        ("not json", Code::InvalidJson),
    ];
    for (text, code) in cases {
        assert_eq!(verdict(text), Err(code), "{text}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_refused_wherever_they_stand() {
    for (before, after) in [
        ("\"x\":\"", "\""),
        ("\"", "\":1"),
        ("\"\\u0041", "\":1"),
        ("", "\"x\":1"),
    ] {
        let mut text = b"{".to_vec();
        text.extend_from_slice(before.as_bytes());
        text.extend_from_slice(b"\xc3\x28");
        text.extend_from_slice(after.as_bytes());
        text.push(b',');
        text.extend_from_slice(&event_with("").as_bytes()[1..]);
        let refusal = parse(&text, &rules()).unwrap_err();
        assert_eq!(refusal.code, Code::InvalidUtf8, "{}", refusal.message);
        assert_eq!(
            refusal.message,
            format!("not UTF-8 at byte {}", 1 + before.len())
        );
    }
}

#[test]
fn a_refusal_names_the_event_the_field_and_what_was_given() {
    let refusal = refusal(&event_with(
        r#""eventID":"id-1","awsRegion":"a\u001b[31m\/b""#,
    ));
    assert_eq!(refusal.event_id.as_deref(), Some("id-1"));
    assert!(
        refusal
            .message
            .starts_with("awsRegion: a region is 3 to 32"),
        "{}",
        refusal.message
    );
    assert!(
        refusal.message.ends_with("given: a\\u{1b}[31m/b"),
        "{}",
        refusal.message
    );
    let long = event_with(&format!("\"readOnly\":\"{}\"", "x".repeat(3000)));
    assert!(
        super::parse(long.as_bytes(), &rules())
            .unwrap_err()
            .message
            .len()
            < 200
    );
}

#[test]
fn the_verb_tells_what_only_reads() {
    for name in [
        "GetObject",
        "ListBuckets",
        "DescribeInstances",
        "HeadObject",
        "LookupEvents",
        "BatchGetItem",
        "Get",
        "Query",
        "List2",
    ] {
        assert!(is_read_only(None, name), "{name}");
    }
    for name in [
        "CreateUser",
        "Getaway",
        "Listen",
        "PutObject",
        "ConsoleLogin",
        "",
        "Gét",
    ] {
        assert!(!is_read_only(None, name), "{name}");
    }
}

/// Two of the corpus have accounts of four and five digits, one has no eventTime.
#[test]
fn real_events_are_taken() {
    let (mut total, mut refused) = (0, std::collections::BTreeMap::<String, u32>::new());
    let rules = Rules {
        max_event_bytes: 256 << 10,
        ..rules()
    };
    for event in crate::event::corpus::events() {
        total += 1;
        if let Err(refusal) = parse(&event, &rules) {
            *refused.entry(refusal.code.to_string()).or_default() += 1;
        }
    }
    assert_eq!(total, 3570);
    let expected = [("InvalidAccount", 2), ("MissingField", 1)];
    assert_eq!(
        refused,
        expected
            .map(|(code, count)| (code.to_owned(), count))
            .into()
    );
}
