use std::cell::Cell;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use uuid::Uuid;

use super::spec::{AdvancedEventSelector, EventSelector};
use super::*;
use crate::clock::WallMillis;
use crate::event::fill::Filling;
use crate::event::{Rules, corpus, parse};

const S3: &str = "AWS::S3::Object";
const LAMBDA: &str = "AWS::Lambda::Function";
const DYNAMODB: &str = "AWS::DynamoDB::Table";

/// An event as the journal keeps it; nothing when it is not accepted.
fn stored(given: &[u8]) -> Option<Vec<u8>> {
    let rules = Rules {
        max_event_bytes: 256 << 10,
        account: "111122223333".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
        now: WallMillis(1_800_000_000_000),
    };
    let checked = parse(given, &rules).ok()?;
    let mut bytes = Vec::new();
    checked.meta(rules.now, [0; 16]).encode(&mut bytes);
    let filling = Filling {
        event_id: Uuid::nil(),
        source_address: "192.0.2.7",
    };
    checked.write(&mut bytes, filling);
    Some(bytes)
}

fn selects(selectors: &Selectors, event: &Value) -> bool {
    let bytes = stored(event.to_string().as_bytes()).unwrap();
    selectors.select(&Record::decode(&bytes).unwrap())
}

fn basic(json: Value) -> Result<Selectors, InvalidEventSelectors> {
    Selectors::basic(EventSelector::list(json)?)
}

fn advanced(json: Value) -> Result<Selectors, InvalidEventSelectors> {
    Selectors::advanced(AdvancedEventSelector::list(json)?)
}

/// An event with these members; those that an event must have are put to it.
fn event(members: Value) -> Value {
    let mut event = json!({
        "eventTime": "2026-05-01T00:19:01Z",
        "eventSource": "iam.amazonaws.com",
        "eventName": "CreateUser",
    });
    let all = event.as_object_mut().unwrap();
    all.extend(members.as_object().unwrap().clone());
    event
}

fn management(source: &str, read_only: bool) -> Value {
    event(json!({"eventCategory": "Management", "eventSource": source, "readOnly": read_only}))
}

fn data(kind: &str, arn: &str, read_only: bool) -> Value {
    event(json!({
        "eventCategory": "Data",
        "readOnly": read_only,
        "resources": [{"type": kind, "ARN": arn}, {"accountId": "111122223333", "type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::b"}],
    }))
}

fn network(members: Value) -> Value {
    let mut event = event(members);
    event["eventCategory"] = "NetworkActivity".into();
    event
}

fn insight() -> Value {
    json!({"eventTime": "2026-05-01T00:19:00Z", "eventCategory": "Insight", "insightDetails": {}})
}

#[track_caller]
fn check(selectors: &Selectors, cases: &[(Value, bool)]) {
    for (event, expected) in cases {
        assert_eq!(selects(selectors, event), *expected, "{event}");
    }
}

fn data_selector(field: Value) -> Selectors {
    advanced(json!([{"FieldSelectors": [
        {"Field": "eventCategory", "Equals": ["Data"]},
        {"Field": "resources.type", "Equals": [S3]},
        field,
    ]}]))
    .unwrap()
}

#[test]
fn a_trail_without_selectors_records_every_event() {
    check(
        &Selectors::default(),
        &[
            (management("kms.amazonaws.com", true), true),
            (data(S3, "arn:aws:s3:::b/a", false), true),
            (network(json!({})), true),
            (insight(), true),
        ],
    );
}

#[test]
fn the_default_selector_of_a_new_trail_records_management_events_alone() {
    let default = Selectors::basic(vec![EventSelector::default()]).unwrap();
    let written = json!([{"ReadWriteType":"All","IncludeManagementEvents":true,"DataResources":[],"ExcludeManagementEventSources":[]}]);
    assert_eq!(basic(written).unwrap(), default);
    assert_eq!(basic(json!([{}])).unwrap(), default);
    check(
        &default,
        &[
            (management("kms.amazonaws.com", true), true),
            (management("iam.amazonaws.com", false), true),
            (data(S3, "arn:aws:s3:::b/a", false), false),
            (network(json!({})), false),
            (insight(), false),
        ],
    );
}

#[test]
fn the_read_write_type_holds_for_management_and_data_events() {
    for (direction, reads, writes) in [
        ("ReadOnly", true, false),
        ("WriteOnly", false, true),
        ("All", true, true),
    ] {
        let selectors = basic(
            json!([{"ReadWriteType": direction, "DataResources": [{"Type": S3, "Values": ["arn:aws:s3"]}]}]),
        );
        check(
            &selectors.unwrap(),
            &[
                (management("iam.amazonaws.com", true), reads),
                (management("iam.amazonaws.com", false), writes),
                (data(S3, "arn:aws:s3:::b/a", true), reads),
                (data(S3, "arn:aws:s3:::b/a", false), writes),
            ],
        );
    }
}

#[test]
fn management_events_of_two_services_can_be_left_out() {
    let selectors = basic(
        json!([{"ExcludeManagementEventSources": ["kms.amazonaws.com", "rdsdata.amazonaws.com"]}]),
    );
    check(
        &selectors.unwrap(),
        &[
            (management("kms.amazonaws.com", true), false),
            (management("rdsdata.amazonaws.com", false), false),
            (management("iam.amazonaws.com", false), true),
        ],
    );
}

fn data_values(kind: &str, values: &[&str]) -> Selectors {
    let resources = json!([{"Type": kind, "Values": values}]);
    basic(json!([{"IncludeManagementEvents": false, "DataResources": resources}])).unwrap()
}

#[test]
fn all_buckets_are_meant_by_either_spelling() {
    for all in ["arn:aws:s3", "arn:aws:s3:::"] {
        check(
            &data_values(S3, &[all]),
            &[
                (data(S3, "arn:aws:s3:::b/a", true), true),
                (data(S3, "arn:aws:s3:::c/", true), true),
                (data(LAMBDA, "arn:aws:s3:::b/a", true), false),
                (management("s3.amazonaws.com", true), false),
            ],
        );
    }
}

#[test]
fn a_bucket_is_named_with_its_slash_and_a_beginning_of_keys_after_it() {
    check(
        &data_values(S3, &["arn:aws:s3:::b/", "arn:aws:s3:::c/pre"]),
        &[
            (data(S3, "arn:aws:s3:::b/a", true), true),
            (data(S3, "arn:aws:s3:::b2/a", true), false),
            (data(S3, "arn:aws:s3:::c/prefix/a", true), true),
            (data(S3, "arn:aws:s3:::c/other", true), false),
        ],
    );
}

#[test]
fn a_function_is_named_exactly_or_all_of_them() {
    let arn = "arn:aws:lambda:us-east-1:111122223333:function:helloworld";
    let longer = format!("{arn}2");
    check(
        &data_values(LAMBDA, &[arn]),
        &[
            (data(LAMBDA, arn, true), true),
            (data(LAMBDA, &longer, true), false),
        ],
    );
    check(
        &data_values(LAMBDA, &["arn:aws:lambda"]),
        &[(data(LAMBDA, &longer, true), true)],
    );
}

#[test]
fn a_table_is_named_exactly_or_all_of_them() {
    let arn = "arn:aws:dynamodb:us-east-1:111122223333:table/t";
    let longer = format!("{arn}/stream/1");
    check(
        &data_values(DYNAMODB, &[arn]),
        &[
            (data(DYNAMODB, arn, true), true),
            (data(DYNAMODB, &longer, true), false),
        ],
    );
    check(
        &data_values(DYNAMODB, &["arn:aws:dynamodb"]),
        &[(data(DYNAMODB, &longer, true), true)],
    );
}

#[test]
fn one_of_several_selectors_is_enough() {
    let selectors = basic(json!([
        {"ReadWriteType": "WriteOnly"},
        {"ReadWriteType": "ReadOnly", "IncludeManagementEvents": false, "DataResources": [{"Type": S3, "Values": ["arn:aws:s3:::b/"]}]},
    ]));
    check(
        &selectors.unwrap(),
        &[
            (management("iam.amazonaws.com", false), true),
            (management("iam.amazonaws.com", true), false),
            (data(S3, "arn:aws:s3:::b/a", true), true),
            (data(S3, "arn:aws:s3:::b/a", false), false),
        ],
    );
}

#[test]
fn all_management_but_kms_and_writes_of_one_bucket() {
    let selectors = advanced(json!(
        [{"Name":"mgmt","FieldSelectors":[{"Field":"eventCategory","Equals":["Management"]},{"Field":"eventSource","NotEquals":["kms.amazonaws.com"]}]},
         {"Name":"s3w","FieldSelectors":[{"Field":"eventCategory","Equals":["Data"]},{"Field":"resources.type","Equals":["AWS::S3::Object"]},{"Field":"readOnly","Equals":["false"]},{"Field":"resources.ARN","StartsWith":["arn:aws:s3:::audit-bucket/"]}]}]
    ));
    check(
        &selectors.unwrap(),
        &[
            (management("kms.amazonaws.com", true), false),
            (management("iam.amazonaws.com", true), true),
            (data(S3, "arn:aws:s3:::audit-bucket/a", false), true),
            (data(S3, "arn:aws:s3:::audit-bucket/a", true), false),
            (data(S3, "arn:aws:s3:::other/a", false), false),
            (
                data("AWS::S3::AccessPoint", "arn:aws:s3:::audit-bucket/a", false),
                false,
            ),
            (network(json!({})), false),
            (insight(), false),
        ],
    );
}

#[test]
fn a_beginning_can_be_wanted_and_a_longer_one_not() {
    let selectors = data_selector(
        json!({"Field": "resources.ARN", "StartsWith": ["arn:aws:s3:::b/"], "NotStartsWith": ["arn:aws:s3:::b/tmp/"]}),
    );
    check(
        &selectors,
        &[
            (data(S3, "arn:aws:s3:::b/a", true), true),
            (data(S3, "arn:aws:s3:::b/tmp/a", true), false),
            (data(S3, "arn:aws:s3:::c/a", true), false),
        ],
    );
}

#[test]
fn any_value_of_any_positive_operator_is_enough() {
    let selectors = data_selector(
        json!({"Field": "eventName", "Equals": ["GetObject", "HeadObject"], "StartsWith": ["Put"], "EndsWith": ["Tagging"], "NotEquals": ["PutObjectAcl"]}),
    );
    for (name, expected) in [
        ("GetObject", true),
        ("HeadObject", true),
        ("PutObject", true),
        ("DeleteObjectTagging", true),
        ("PutObjectAcl", false),
        ("DeleteObject", false),
        ("getObject", false),
    ] {
        let mut event = data(S3, "arn:aws:s3:::b/a", true);
        event["eventName"] = name.into();
        assert_eq!(selects(&selectors, &event), expected, "{name}");
    }
}

#[test]
fn a_field_that_is_missing_satisfies_nothing_positive_and_nothing_negative_excludes_it() {
    let positive =
        data_selector(json!({"Field": "userIdentity.arn", "StartsWith": ["arn:aws:iam::"]}));
    let negative =
        data_selector(json!({"Field": "userIdentity.arn", "NotStartsWith": ["arn:aws:iam::"]}));
    let from = |identity: Value| {
        let mut event = data(S3, "arn:aws:s3:::b/a", true);
        event["userIdentity"] = identity;
        event
    };
    let arn = |arn: &str| from(json!({"type": "IAMUser", "arn": arn}));
    for (event, in_positive, in_negative) in [
        (arn("arn:aws:iam::111122223333:user/alice"), true, false),
        (
            arn("arn:aws:sts::111122223333:assumed-role/r/s"),
            false,
            true,
        ),
        (from(json!({"type": "AWSService"})), false, true),
        (from(json!({"type": "IAMUser", "arn": null})), false, true),
    ] {
        assert_eq!(selects(&positive, &event), in_positive, "{event}");
        assert_eq!(selects(&negative, &event), in_negative, "{event}");
    }
}

#[test]
fn type_and_arn_must_be_of_the_same_resource() {
    let selectors = data_selector(
        json!({"Field": "resources.ARN", "StartsWith": ["arn:aws:s3:::b/"], "NotEndsWith": [".tmp"]}),
    );
    let with = |resources: Value| event(json!({"eventCategory": "Data", "resources": resources}));
    check(
        &selectors,
        &[
            (
                with(
                    json!([{"type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::b/a"}, {"type": S3, "ARN": "arn:aws:s3:::c/a"}]),
                ),
                false,
            ),
            (
                with(
                    json!([{"type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::b/a.tmp"}, {"type": S3, "ARN": "arn:aws:s3:::b/a"}]),
                ),
                true,
            ),
            (
                with(json!([{"type": S3, "ARNPrefix": "arn:aws:s3:::b/"}])),
                true,
            ),
            (with(json!([{"type": S3}])), false),
            (with(json!([])), false),
            (with(json!(null)), false),
        ],
    );
}

#[test]
fn conditions_on_the_arn_in_several_field_selectors_must_all_hold() {
    let selectors = advanced(json!([{"FieldSelectors": [
        {"Field": "eventCategory", "Equals": ["Data"]},
        {"Field": "resources.type", "Equals": [S3]},
        {"Field": "resources.ARN", "StartsWith": ["arn:aws:s3:::b/"]},
        {"Field": "resources.ARN", "EndsWith": [".log"]},
    ]}]))
    .unwrap();
    check(
        &selectors,
        &[
            (data(S3, "arn:aws:s3:::b/a.log", true), true),
            (data(S3, "arn:aws:s3:::b/a", true), false),
            (data(S3, "arn:aws:s3:::c/a.log", true), false),
        ],
    );
}

#[test]
fn network_activity_events_are_chosen_by_service_error_and_endpoint() {
    let selectors = advanced(json!([{"FieldSelectors": [
        {"Field": "eventCategory", "Equals": ["NetworkActivity"]},
        {"Field": "eventSource", "Equals": ["ec2.amazonaws.com"]},
        {"Field": "errorCode", "Equals": ["VpceAccessDenied"]},
        {"Field": "vpcEndpointId", "Equals": ["vpce-1"]},
    ]}]))
    .unwrap();
    let denied = |source: &str, endpoint: &str| {
        network(
            json!({"eventSource": source, "errorCode": "VpceAccessDenied", "vpcEndpointId": endpoint}),
        )
    };
    check(
        &selectors,
        &[
            (denied("ec2.amazonaws.com", "vpce-1"), true),
            (denied("ec2.amazonaws.com", "vpce-2"), false),
            (denied("s3.amazonaws.com", "vpce-1"), false),
            (
                network(json!({"eventSource": "ec2.amazonaws.com", "vpcEndpointId": "vpce-1"})),
                false,
            ),
            (management("ec2.amazonaws.com", true), false),
        ],
    );
}

#[test]
fn a_flag_is_the_same_as_a_word_and_as_a_string() {
    let console =
        data_selector(json!({"Field": "sessionCredentialFromConsole", "Equals": ["true"]}));
    let other =
        data_selector(json!({"Field": "sessionCredentialFromConsole", "NotEquals": ["true"]}));
    for (value, from_console) in [
        (json!(true), true),
        (json!("true"), true),
        (json!(false), false),
        (json!("false"), false),
        (json!(null), false),
    ] {
        let mut event = data(S3, "arn:aws:s3:::b/a", true);
        event["sessionCredentialFromConsole"] = value;
        assert_eq!(selects(&console, &event), from_console, "{event}");
        assert_eq!(selects(&other, &event), !from_console, "{event}");
    }
    let reads = advanced(json!([{"FieldSelectors": [
        {"Field": "eventCategory", "Equals": ["Management"]},
        {"Field": "readOnly", "Equals": ["true"]},
    ]}]))
    .unwrap();
    for (read_only, name, expected) in [
        (json!("true"), "PutX", true),
        (json!("false"), "GetX", false),
        (json!(null), "GetX", true),
        (json!(null), "PutX", false),
    ] {
        let event = event(json!({"readOnly": read_only, "eventName": name}));
        assert_eq!(selects(&reads, &event), expected, "{event}");
    }
}

/// Six selectors of one trail, an example of the user guide ("logging network activity events").
#[test]
fn a_trail_may_have_more_than_five_advanced_selectors() {
    let mut selectors =
        vec![json!({"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]})];
    for source in ["cloudtrail", "ec2", "kms", "s3", "secretsmanager"] {
        selectors.push(json!({"Name": format!("Log all network activity events for {source}"), "FieldSelectors": [
            {"Field": "eventCategory", "Equals": ["NetworkActivity"]},
            {"Field": "eventSource", "Equals": [format!("{source}.amazonaws.com")]},
        ]}));
    }
    check(
        &advanced(Value::Array(selectors)).unwrap(),
        &[
            (management("iam.amazonaws.com", true), true),
            (network(json!({"eventSource": "kms.amazonaws.com"})), true),
            (network(json!({"eventSource": "sts.amazonaws.com"})), false),
            (data(S3, "arn:aws:s3:::b/a", true), false),
        ],
    );
}

#[test]
fn selectors_are_given_back_as_they_came() {
    let given = json!([{"Name": "n", "FieldSelectors": [
        {"Field": "readOnly", "Equals": ["true"]},
        {"Field": "eventCategory", "Equals": ["Data"]},
        {"Field": "resources.type", "Equals": [S3]},
        {"Field": "eventName", "StartsWith": ["a"], "NotEndsWith": ["b"]},
    ]}, {"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]}]);
    let selectors = advanced(given.clone()).unwrap();
    let back = serde_json::to_value(selectors.advanced_event_selectors()).unwrap();
    assert_eq!(back, given);
    assert!(selectors.event_selectors().is_empty());
    let given = json!([{"ReadWriteType": "WriteOnly", "IncludeManagementEvents": false,
        "DataResources": [{"Type": S3, "Values": ["arn:aws:s3:::b/"]}], "ExcludeManagementEventSources": []}]);
    let selectors = basic(given.clone()).unwrap();
    let back = serde_json::to_value(selectors.event_selectors()).unwrap();
    assert_eq!(back, given);
    assert!(selectors.advanced_event_selectors().is_empty());
}

#[track_caller]
fn refused(result: Result<Selectors, InvalidEventSelectors>, words: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), "InvalidEventSelectorsException");
    for word in words {
        let message = error.to_string();
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

#[test]
fn each_broken_rule_of_basic_selectors_is_named() {
    let values =
        |kind: &str, value: &str| json!([{"DataResources": [{"Type": kind, "Values": [value]}]}]);
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({}), &["event selectors are a list"]),
        (json!([]), &["1 to 5 event selectors, given: 0"]),
        (
            json!([{}, {}, {}, {}, {}, {}]),
            &["1 to 5 event selectors, given: 6"],
        ),
        (
            json!([{}, {"ReadWriteType": "read-only"}]),
            &[
                "event selector 2: ",
                "read-only",
                "ReadOnly",
                "WriteOnly",
                "All",
            ],
        ),
        (
            json!([{"IncludeManagementEvents": "true"}]),
            &["event selector 1: ", "boolean"],
        ),
        (
            json!([{"Read": "All"}]),
            &["unknown field `Read`", "ReadWriteType"],
        ),
        (
            json!([{"DataResources": [{"Values": ["arn:aws:s3"]}]}]),
            &["missing field `Type`"],
        ),
        (
            json!([{"IncludeManagementEvents": false}]),
            &["selects nothing"],
        ),
        (
            json!([{"IncludeManagementEvents": false, "DataResources": [{"Type": S3, "Values": []}]}]),
            &["selects nothing"],
        ),
        (
            json!([{"ExcludeManagementEventSources": ["iam.amazonaws.com"]}]),
            &["kms.amazonaws.com and rdsdata.amazonaws.com, given: iam.amazonaws.com"],
        ),
        (
            json!([{"IncludeManagementEvents": false, "ExcludeManagementEventSources": ["kms.amazonaws.com"], "DataResources": [{"Type": S3, "Values": ["arn:aws:s3"]}]}]),
            &["needs IncludeManagementEvents"],
        ),
        (
            values("AWS::S3::AccessPoint", "arn:aws:s3"),
            &[
                "AWS::S3::Object, AWS::Lambda::Function or AWS::DynamoDB::Table",
                "given: AWS::S3::AccessPoint",
            ],
        ),
        (
            values(S3, "arn:aws:s3:::bucket"),
            &["with its slash", "given: arn:aws:s3:::bucket"],
        ),
        (values(S3, "arn:aws:s3:::/"), &["given: arn:aws:s3:::/"]),
        (values(S3, "arn:aws:s3:::*"), &["given: arn:aws:s3:::*"]),
        (
            values(S3, "arn:aws:lambda"),
            &["AWS::S3::Object", "given: arn:aws:lambda"],
        ),
        (values(S3, "s3:::b/"), &["given: s3:::b/"]),
        (values(LAMBDA, "arn:aws:lambda:*"), &["ARN of a function"]),
        (
            values(LAMBDA, "arn:aws:lambda:us-east-1:111122223333:function:"),
            &["ARN of a function"],
        ),
        (
            values(DYNAMODB, "arn:aws:dynamodb:us-east-1:111122223333:index/t"),
            &["ARN of a table"],
        ),
        (values(DYNAMODB, ""), &["ARN of a table"]),
    ];
    for (selectors, words) in cases {
        refused(basic(selectors), words);
    }
}

#[test]
fn a_basic_trail_names_at_most_250_data_resources_besides_all_of_a_type() {
    let resources = |count: usize| {
        let values: Vec<String> = (0..count).map(|n| format!("arn:aws:s3:::b{n}/")).collect();
        json!([{"Type": S3, "Values": values}, {"Type": LAMBDA, "Values": ["arn:aws:lambda"]}])
    };
    let two = |first: usize, second: usize| json!([{"DataResources": resources(first)}, {"DataResources": resources(second)}]);
    let selectors = basic(two(200, 50)).unwrap();
    check(
        &selectors,
        &[
            (data(S3, "arn:aws:s3:::b199/a", true), true),
            (data(S3, "arn:aws:s3:::b200/a", true), false),
        ],
    );
    refused(basic(two(200, 51)), &["at most 250 values", "given: 251"]);
}

#[test]
fn activity_of_other_sources_is_chosen_by_its_own_category_alone() {
    let activity = |source: &str| {
        event(
            json!({"eventCategory": "ActivityAuditLog", "eventSource": source, "eventName": "GetPage"}),
        )
    };
    let all =
        json!([{"FieldSelectors": [{"Field": "eventCategory", "Equals": ["ActivityAuditLog"]}]}]);
    check(
        &advanced(all).unwrap(),
        &[
            (activity("wiki.example.com"), true),
            (management("iam.amazonaws.com", false), false),
            (data(S3, "arn:aws:s3:::b/a", false), false),
        ],
    );
    let of_one = json!([{"FieldSelectors": [
        {"Field": "eventCategory", "Equals": ["ActivityAuditLog"]},
        {"Field": "eventSource", "EndsWith": [".example.com"]},
        {"Field": "eventName", "NotEquals": ["Ping"]},
    ]}]);
    check(
        &advanced(of_one).unwrap(),
        &[
            (activity("wiki.example.com"), true),
            (activity("wiki.example.org"), false),
        ],
    );
    let management_alone = Selectors::basic(vec![EventSelector::default()]).unwrap();
    check(&management_alone, &[(activity("wiki.example.com"), false)]);
    check(
        &Selectors::Everything,
        &[(activity("wiki.example.com"), true)],
    );
}

#[test]
fn each_broken_rule_of_advanced_selectors_is_named() {
    let one = |fields: Value| json!([{"Name": "mine", "FieldSelectors": fields}]);
    let of = |category: &str, field: Value| {
        let mut fields = vec![json!({"Field": "eventCategory", "Equals": [category]})];
        match category {
            "Data" => fields.push(json!({"Field": "resources.type", "Equals": [S3]})),
            "NetworkActivity" => {
                fields.push(json!({"Field": "eventSource", "Equals": ["s3.amazonaws.com"]}));
            }
            _ => {}
        }
        fields.push(field);
        one(Value::Array(fields))
    };
    let long = "x".repeat(2049);
    let cases: Vec<(Value, &[&str])> = vec![
        (json!("x"), &["advanced event selectors are a list"]),
        (json!([]), &["at least 1", "given: 0"]),
        (
            json!([{"Name": "mine"}]),
            &[
                "advanced event selector 1 \"mine\": ",
                "missing field `FieldSelectors`",
            ],
        ),
        (
            one(json!([])),
            &["advanced event selector 1 \"mine\": eventCategory is missing"],
        ),
        (
            one(json!([{"Field": "eventCategory"}])),
            &["exactly one value"],
        ),
        (
            one(json!([{"Field": "eventCategory", "Equals": ["Data", "Management"]}])),
            &["exactly one value"],
        ),
        (
            one(json!([{"Field": "eventCategory", "NotEquals": ["Data"]}])),
            &["exactly one value"],
        ),
        (
            one(json!([{"Field": "eventCategory", "Equals": ["Insight"]}])),
            &["Management, Data, NetworkActivity or ActivityAuditLog, given: Insight"],
        ),
        (
            of(
                "Management",
                json!({"Field": "eventCategory", "Equals": ["Management"]}),
            ),
            &["stands once"],
        ),
        (
            of("Management", json!({"Field": "eventName", "Equals": ["a"]})),
            &["management events is one of eventCategory, readOnly, eventSource, given: eventName"],
        ),
        (
            of(
                "Management",
                json!({"Field": "eventSource", "Equals": ["kms.amazonaws.com"]}),
            ),
            &["eventSource of management events takes NotEquals, given: Equals"],
        ),
        (
            of(
                "Management",
                json!({"Field": "eventSource", "NotEquals": ["iam.amazonaws.com"]}),
            ),
            &["kms.amazonaws.com or rdsdata.amazonaws.com, given: iam.amazonaws.com"],
        ),
        (
            of(
                "Management",
                json!({"Field": "readOnly", "Equals": ["True"]}),
            ),
            &["true or false, given: True"],
        ),
        (
            of(
                "Management",
                json!({"Field": "readOnly", "NotEquals": ["true"]}),
            ),
            &["readOnly of management events takes Equals, given: NotEquals"],
        ),
        (
            of(
                "Management",
                json!({"Field": "readOnly", "Equal": ["true"]}),
            ),
            &["unknown field `Equal`"],
        ),
        (
            one(json!([{"Field": "eventCategory", "Equals": ["Data"]}])),
            &["resources.type is missing", "data events"],
        ),
        (
            of(
                "Data",
                json!({"Field": "resources.type", "Equals": [LAMBDA]}),
            ),
            &["resources.type stands once"],
        ),
        (
            one(
                json!([{"Field": "eventCategory", "Equals": ["Data"]}, {"Field": "resources.type", "Equals": [S3, LAMBDA]}]),
            ),
            &["resources.type stands once"],
        ),
        (
            one(
                json!([{"Field": "eventCategory", "Equals": ["Data"]}, {"Field": "resources.type", "StartsWith": ["AWS::"]}]),
            ),
            &["resources.type of data events takes Equals, given: StartsWith"],
        ),
        (
            of("Data", json!({"Field": "vpcEndpointId", "Equals": ["a"]})),
            &["data events is one of", "given: vpcEndpointId"],
        ),
        (
            of("Data", json!({"Field": "resources.ARN"})),
            &["resources.ARN has no operator", "NotEndsWith"],
        ),
        (
            of("Data", json!({"Field": "eventName", "StartsWith": []})),
            &["StartsWith of eventName has no value"],
        ),
        (
            of("Data", json!({"Field": "eventName", "StartsWith": [""]})),
            &["1 to 2048 characters, given: 0"],
        ),
        (
            of("Data", json!({"Field": "eventName", "EndsWith": [long]})),
            &["1 to 2048 characters, given: 2049"],
        ),
        (
            of(
                "Data",
                json!({"Field": "sessionCredentialFromConsole", "Equals": ["false"]}),
            ),
            &["takes true, given: false"],
        ),
        (
            of(
                "Data",
                json!({"Field": "sessionCredentialFromConsole", "StartsWith": ["true"]}),
            ),
            &["takes Equals, NotEquals, given: StartsWith"],
        ),
        (
            one(json!([{"Field": "eventCategory", "Equals": ["NetworkActivity"]}])),
            &["eventSource is missing", "network activity events"],
        ),
        (
            of(
                "NetworkActivity",
                json!({"Field": "errorCode", "Equals": ["AccessDenied"]}),
            ),
            &["VpceAccessDenied, given: AccessDenied"],
        ),
        (
            of(
                "NetworkActivity",
                json!({"Field": "eventSource", "StartsWith": ["s3"]}),
            ),
            &["takes Equals, given: StartsWith"],
        ),
        (
            of(
                "NetworkActivity",
                json!({"Field": "readOnly", "Equals": ["true"]}),
            ),
            &["network activity events is one of"],
        ),
        (
            json!([{"Name": "n".repeat(1001), "FieldSelectors": [{"Field": "eventCategory", "Equals": ["Data"]}]}]),
            &["at most 1000 characters, given: 1001"],
        ),
    ];
    for (selectors, words) in cases {
        refused(advanced(selectors), words);
    }
    let neither = json!([{"FieldSelectors": [
        {"Field": "eventCategory", "Equals": ["Management"]},
        {"Field": "readOnly", "Equals": ["true"]},
        {"Field": "readOnly", "Equals": ["false"]},
    ]}]);
    refused(advanced(neither), &["select nothing"]);
}

#[test]
fn every_selector_at_fault_is_named_at_once() {
    let selectors = json!([
        {"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]},
        {"Name": "second", "FieldSelectors": []},
        {"Name": "th\u{7}ird", "FieldSelectors": [{"Field": "eventCategory", "Equals": ["No"]}]},
    ]);
    refused(
        advanced(selectors),
        &["selector 2 \"second\": ", "selector 3 \"th\\u{7}ird\": "],
    );
}

#[test]
fn advanced_selectors_have_at_most_500_values_together() {
    let selectors = |values: usize| {
        let names: Vec<String> = (0..values).map(|n| format!("Name{n}")).collect();
        json!([
            {"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]},
            {"FieldSelectors": [
                {"Field": "eventCategory", "Equals": ["Data"]},
                {"Field": "resources.type", "Equals": [S3]},
                {"Field": "eventName", "Equals": names},
            ]},
        ])
    };
    let full = advanced(selectors(497)).unwrap();
    let mut event = data(S3, "arn:aws:s3:::b/a", true);
    event["eventName"] = "Name496".into();
    assert!(selects(&full, &event));
    refused(
        advanced(selectors(498)),
        &["at most 500 values", "given: 501"],
    );
}

const SOURCES: [&str; 5] = [
    "kms.amazonaws.com",
    "rdsdata.amazonaws.com",
    "s3.amazonaws.com",
    "iam.amazonaws.com",
    "lambda.amazonaws.com",
];
const NAMES: [&str; 5] = [
    "GetObject",
    "PutObject",
    "PutObjectAcl",
    "Invoke",
    "CreateUser",
];
const TYPES: [&str; 3] = [S3, LAMBDA, DYNAMODB];
const FUNCTION: &str = "arn:aws:lambda:us-east-1:111122223333:function:f";
const TABLE: &str = "arn:aws:dynamodb:us-east-1:111122223333:table/t";
const ARNS: [&str; 8] = [
    "arn:aws:s3:::b/a",
    "arn:aws:s3:::b/tmp/a",
    "arn:aws:s3:::b/",
    "arn:aws:s3:::c/a \"é\"",
    FUNCTION,
    "arn:aws:lambda:us-east-1:111122223333:function:f2",
    TABLE,
    "arn:aws:dynamodb:us-east-1:111122223333:table/t2",
];
const CALLERS: [&str; 3] = [
    "arn:aws:iam::111122223333:user/alice",
    "arn:aws:iam::111122223333:user/bob",
    "arn:aws:sts::111122223333:assumed-role/r/alice",
];
const ENDPOINTS: [&str; 2] = ["vpce-1", "vpce-22"];

/// A member, or nothing.
fn maybe<T: std::fmt::Debug + Clone + 'static>(
    name: &'static str,
    of: impl Strategy<Value = T>,
    json: fn(T) -> Value,
) -> impl Strategy<Value = Option<(String, Value)>> {
    prop::option::weighted(
        0.8,
        of.prop_map(move |value| (name.to_owned(), json(value))),
    )
}

fn some_event() -> impl Strategy<Value = Value> {
    let flag = || {
        select(vec![
            json!(true),
            json!(false),
            json!("true"),
            json!("false"),
        ])
    };
    // Mostly of the type that the ARN is of.
    let resource = (
        select(ARNS.to_vec()),
        prop::option::weighted(0.2, select(TYPES.to_vec())),
        select(vec!["ARN", "ARN", "ARN", "ARNPrefix", "other"]),
    )
        .prop_map(|(arn, other, name)| {
            let own = match arn.split(':').nth(2) {
                Some("s3") => S3,
                Some("lambda") => LAMBDA,
                _ => DYNAMODB,
            };
            json!({"accountId": "111122223333", "type": other.unwrap_or(own), name: arn})
        });
    let members = (
        maybe(
            "resources",
            prop::collection::vec(resource, 0..4),
            Value::Array,
        ),
        maybe(
            "userIdentity",
            select(CALLERS.to_vec()),
            |arn| json!({"type": "IAMUser", "sessionContext": {"arn": "no"}, "arn": arn}),
        ),
        maybe("readOnly", flag(), |flag| flag),
        maybe("sessionCredentialFromConsole", flag(), |flag| flag),
        maybe(
            "errorCode",
            select(vec!["VpceAccessDenied", "AccessDenied"]),
            Value::from,
        ),
        maybe("vpcEndpointId", select(ENDPOINTS.to_vec()), Value::from),
        maybe(
            "eventType",
            select(vec!["AwsApiCall", "AwsServiceEvent"]),
            Value::from,
        ),
    );
    let category = prop_oneof![
        3 => Just("Management"),
        6 => Just("Data"),
        2 => Just("NetworkActivity"),
        1 => Just("Insight"),
    ];
    let what = (select(SOURCES.to_vec()), select(NAMES.to_vec()));
    (category, what, members).prop_map(|(category, (source, name), members)| {
        let mut event =
            event(json!({"eventCategory": category, "eventSource": source, "eventName": name}));
        let (a, b, c, d, e, f, g) = members;
        let members = [a, b, c, d, e, f, g].into_iter().flatten();
        event.as_object_mut().unwrap().extend(members);
        event
    })
}

/// One to three of a field's values, or beginnings or ends of them.
fn some_values(
    values: &[&'static str],
    operator: &'static str,
) -> impl Strategy<Value = Value> + use<> {
    let part = (select(values.to_vec()), 1..12_usize).prop_map(move |(value, len)| {
        let count = value.chars().count();
        let part: String = if operator.ends_with("StartsWith") {
            value
                .chars()
                .take(count.saturating_sub(len).max(1))
                .collect()
        } else if operator.ends_with("EndsWith") {
            value.chars().skip(count.saturating_sub(len)).collect()
        } else {
            value.to_owned()
        };
        json!(part)
    });
    prop::collection::vec(part, 1..4).prop_map(Value::Array)
}

const OPERATORS: [&str; 6] = [
    "Equals",
    "StartsWith",
    "EndsWith",
    "NotEquals",
    "NotStartsWith",
    "NotEndsWith",
];

/// A field selector with some of these operators.
fn some_field(
    field: &'static str,
    operators: &'static [&'static str],
    values: &'static [&'static str],
) -> BoxedStrategy<Value> {
    subsequence(operators, 1..=operators.len().min(2))
        .prop_flat_map(move |operators| {
            operators
                .into_iter()
                .map(|operator| {
                    some_values(values, operator).prop_map(move |values| (operator, values))
                })
                .collect::<Vec<_>>()
        })
        .prop_map(move |conditions| {
            let mut selector = json!({"Field": field});
            for (operator, values) in conditions {
                selector[operator] = values;
            }
            selector
        })
        .boxed()
}

/// Some of these fields, after those that must be there.
fn some_selector(
    required: Vec<BoxedStrategy<Value>>,
    optional: Vec<BoxedStrategy<Value>>,
) -> BoxedStrategy<Value> {
    let count = optional.len();
    subsequence(optional, 0..=count.min(2))
        .prop_flat_map(move |chosen| {
            let mut fields = required.clone();
            fields.extend(chosen);
            fields
        })
        .prop_shuffle()
        .prop_map(|fields| json!({"FieldSelectors": fields}))
        .boxed()
}

fn some_advanced() -> impl Strategy<Value = Value> {
    let category =
        |name: &'static str| Just(json!({"Field": "eventCategory", "Equals": [name]})).boxed();
    let read_only = || some_field("readOnly", &["Equals"], &["true", "false"]);
    let caller = || some_field("userIdentity.arn", &OPERATORS, &CALLERS);
    let name = || some_field("eventName", &OPERATORS, &NAMES);
    let management = some_selector(
        vec![category("Management")],
        vec![
            read_only(),
            some_field(
                "eventSource",
                &["NotEquals"],
                &["kms.amazonaws.com", "rdsdata.amazonaws.com"],
            ),
        ],
    );
    let kind = select(TYPES.to_vec())
        .prop_map(|kind| json!({"Field": "resources.type", "Equals": [kind]}));
    let data = some_selector(
        vec![category("Data"), kind.boxed()],
        vec![
            read_only(),
            caller(),
            name(),
            some_field("resources.ARN", &OPERATORS, &ARNS),
            some_field("resources.ARN", &OPERATORS, &ARNS),
            some_field("eventSource", &OPERATORS, &SOURCES),
            some_field("eventType", &OPERATORS, &["AwsApiCall", "AwsServiceEvent"]),
            some_field(
                "sessionCredentialFromConsole",
                &["Equals", "NotEquals"],
                &["true"],
            ),
        ],
    );
    let network = some_selector(
        vec![
            category("NetworkActivity"),
            some_field("eventSource", &["Equals"], &SOURCES),
        ],
        vec![
            caller(),
            name(),
            some_field("errorCode", &["Equals"], &["VpceAccessDenied"]),
            some_field("vpcEndpointId", &OPERATORS, &ENDPOINTS),
        ],
    );
    let one = prop_oneof![1 => management, 3 => data, 1 => network];
    let readable = |selectors: &Vec<Value>| advanced(json!(selectors)).is_ok();
    prop::collection::vec(one, 1..8)
        .prop_filter("readOnly twice may select nothing", readable)
        .prop_map(Value::Array)
}

fn some_basic() -> impl Strategy<Value = Value> {
    let resource = |kind: &'static str, values: Vec<&'static str>| {
        let count = values.len();
        subsequence(values, 1..=count)
            .prop_map(move |values| json!({"Type": kind, "Values": values}))
    };
    let resource = prop_oneof![
        resource(
            S3,
            vec![
                "arn:aws:s3",
                "arn:aws:s3:::b/",
                "arn:aws:s3:::b/tmp/",
                "arn:aws:s3:::c/",
                "arn:aws:s3:::d/"
            ]
        ),
        resource(LAMBDA, vec!["arn:aws:lambda", FUNCTION]),
        resource(DYNAMODB, vec!["arn:aws:dynamodb", TABLE]),
    ];
    let one = (
        select(vec!["ReadOnly", "WriteOnly", "All"]),
        any::<bool>(),
        prop::collection::vec(resource, 0..3),
        subsequence(vec!["kms.amazonaws.com", "rdsdata.amazonaws.com"], 0..=2),
    )
        .prop_map(|(direction, management, resources, excluded)| {
            let management = management || resources.is_empty();
            let excluded = if management { excluded } else { vec![] };
            json!({"ReadWriteType": direction, "IncludeManagementEvents": management,
                "DataResources": resources, "ExcludeManagementEventSources": excluded})
        });
    prop::collection::vec(one, 1..4).prop_map(Value::Array)
}

type Compile = fn(Value) -> Result<Selectors, InvalidEventSelectors>;
type Model = fn(&Value, &Value) -> bool;

/// Compares with the plain evaluation, over events spelt with and without escapes; a good share must be recorded, and a good share not.
fn agree(selectors: impl Strategy<Value = Value>, compile: Compile, model: Model) {
    let (recorded, total) = (Cell::new(0_u32), Cell::new(0_u32));
    let cases = (
        selectors,
        prop::collection::vec((some_event(), any::<bool>()), 1..12),
    );
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(1500)
    };
    TestRunner::new(config)
        .run(&cases, |(given, events)| {
            let compiled = compile(given.clone()).unwrap();
            for (event, escape) in events {
                let mut text = event.to_string();
                if escape {
                    text = text
                        .replace('/', "\\/")
                        .replace(".amazonaws", "\\u002eamazonaws");
                }
                let bytes = stored(text.as_bytes()).unwrap();
                let record = Record::decode(&bytes).unwrap();
                let kept: Value = serde_json::from_slice(record.json).unwrap();
                let expected = model(&given, &kept);
                prop_assert_eq!(compiled.select(&record), expected, "{}", kept);
                total.set(total.get() + 1);
                recorded.set(recorded.get() + u32::from(expected));
            }
            Ok(())
        })
        .unwrap();
    let share = f64::from(recorded.get()) / f64::from(total.get());
    assert!((0.2..0.8).contains(&share), "{share} of the events matched");
}

#[test]
fn basic_selectors_agree_with_their_plain_evaluation() {
    agree(some_basic(), basic, model::basic);
}

#[test]
fn advanced_selectors_agree_with_their_plain_evaluation() {
    agree(some_advanced(), advanced, model::advanced);
}

/// The event as a data event, if it names resources.
fn data_twin(event: &[u8]) -> Option<Vec<u8>> {
    let mut event: Value = serde_json::from_slice(event).ok()?;
    event["resources"].as_array()?.first()?;
    event["eventCategory"] = "Data".into();
    event["managementEvent"] = false.into();
    Some(event.to_string().into_bytes())
}

#[test]
fn real_events_are_chosen_as_by_the_plain_evaluation() {
    let fields = |fields: Value| json!([{"FieldSelectors": fields}]);
    let management = json!({"Field": "eventCategory", "Equals": ["Management"]});
    let data = |kind: &str, field: Value| {
        fields(
            json!([{"Field": "eventCategory", "Equals": ["Data"]}, {"Field": "resources.type", "Equals": [kind]}, field]),
        )
    };
    let selectors: Vec<(Compile, Model, Value)> = vec![
        (basic, model::basic, json!([{}])),
        (basic, model::basic, json!([{"ReadWriteType": "ReadOnly"}])),
        (
            basic,
            model::basic,
            json!([{"ReadWriteType": "WriteOnly", "ExcludeManagementEventSources": ["kms.amazonaws.com"]}]),
        ),
        (
            advanced,
            model::advanced,
            fields(
                json!([management, {"Field": "eventSource", "NotEquals": ["kms.amazonaws.com"]}]),
            ),
        ),
        (
            advanced,
            model::advanced,
            fields(json!([management, {"Field": "readOnly", "Equals": ["false"]}])),
        ),
        (
            advanced,
            model::advanced,
            data(
                "AWS::S3::Bucket",
                json!({"Field": "userIdentity.arn", "NotEndsWith": ["/none"]}),
            ),
        ),
        (
            advanced,
            model::advanced,
            data(
                "AWS::S3::Bucket",
                json!({"Field": "eventName", "StartsWith": ["Get", "Put"], "NotEndsWith": ["Acl"]}),
            ),
        ),
        (
            advanced,
            model::advanced,
            data(
                "AWS::KMS::Key",
                json!({"Field": "resources.ARN", "StartsWith": ["arn:aws:kms:us-east-1:"]}),
            ),
        ),
        (
            advanced,
            model::advanced,
            data(
                "AWS::IAM::Role",
                json!({"Field": "resources.ARN", "NotEndsWith": ["/none"]}),
            ),
        ),
    ];
    // Hardly any event of the corpus is a data event, so those that name resources come once more as one.
    let mut events = corpus::events();
    let twins: Vec<Vec<u8>> = events.iter().filter_map(|event| data_twin(event)).collect();
    events.extend(twins);
    let kept: Vec<Vec<u8>> = events.iter().filter_map(|event| stored(event)).collect();
    assert_eq!(kept.len(), 3567 + 709);
    for (compile, model, given) in selectors {
        let compiled = compile(given.clone()).unwrap();
        let mut recorded = 0;
        for bytes in &kept {
            let record = Record::decode(bytes).unwrap();
            let value: Value = serde_json::from_slice(record.json).unwrap();
            let expected = model(&given, &value);
            assert_eq!(compiled.select(&record), expected, "{given}: {value}");
            recorded += usize::from(expected);
        }
        assert!(recorded > 0 && recorded < kept.len(), "{given}");
    }
}
