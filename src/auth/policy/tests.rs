use serde::Deserialize;

use super::*;
use crate::auth::caller::Rights;
use crate::auth::{OF_PATHS, Principal};

const KNOWN: [Actions<'static>; 4] = [
    OF_PATHS[0],
    OF_PATHS[1],
    Actions {
        service: "cloudtrail",
        names: &[
            "DescribeTrails",
            "ListPublicKeys",
            "GetTrail",
            "DeleteTrail",
        ],
    },
    Actions {
        service: "organizations",
        names: &["DescribeOrganization"],
    },
];

const NOW: WallMillis = WallMillis(1_777_594_354_000);

fn caller(name: &str, account: &str, region: &str, rights: Rights) -> Caller {
    Caller {
        account: account.parse().unwrap(),
        region: region.parse().unwrap(),
        principal: Principal::User,
        access_key_id: Some(name.into()),
        source_ip: Some("127.0.0.1".parse().unwrap()),
        tls: None,
        rights,
    }
}

fn by(document: &serde_json::Value) -> Rights {
    let policy = Policy::parse(&document.to_string(), &KNOWN);
    Rights::By(std::sync::Arc::new(
        policy.unwrap_or_else(|wrong| panic!("{wrong}: {document}")),
    ))
}

/// The table that the end-to-end tests ask of a daemon, too.
#[derive(Deserialize)]
struct Table {
    account: String,
    policies: std::collections::BTreeMap<String, serde_json::Value>,
    decisions: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    policy: String,
    action: String,
    account: String,
    region: String,
    allowed: bool,
}

#[test]
fn the_table_of_decisions() {
    let table: Table =
        serde_json::from_str(include_str!("../../../tests/golden/policies.json")).unwrap();
    assert!(table.decisions.len() >= 40);
    for row in &table.decisions {
        let rights = match &table.policies[&row.policy] {
            serde_json::Value::Null => Rights::OwnAccount,
            document => by(document),
        };
        let caller = caller(&row.policy, &table.account, &row.region, rights);
        let resource = match row.action.as_str() {
            "traild:PutEvents" => format!("arn:aws:traild:{}:{}:events", row.region, row.account),
            "traild:GetStatus" => "arn:aws:traild:us-east-1:111122223333:status".to_owned(),
            _ => "*".to_owned(),
        };
        let outcome = caller.authorize(&row.action, &resource, NOW);
        assert_eq!(outcome.is_ok(), row.allowed, "{row:?}: {outcome:?}");
    }
}

#[test]
fn trails_are_told_apart_by_their_arns() {
    let document = serde_json::json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "cloudtrail:*Trail*", "Resource": "arn:aws:cloudtrail:*:111122223333:trail/team-*"},
        {"Effect": "Deny", "Action": "cloudtrail:DeleteTrail", "NotResource": "arn:aws:cloudtrail:*:*:trail/*-scratch"},
    ]});
    let caller = caller("AKID", "111122223333", "us-east-1", by(&document));
    for (action, resource, allowed) in [
        (
            "cloudtrail:GetTrail",
            "arn:aws:cloudtrail:us-east-1:111122223333:trail/team-a",
            true,
        ),
        (
            "cloudtrail:GetTrail",
            "arn:aws:cloudtrail:eu-west-1:111122223333:trail/team-",
            true,
        ),
        (
            "cloudtrail:GetTrail",
            "arn:aws:cloudtrail:us-east-1:111122223333:trail/Team-a",
            false,
        ),
        (
            "cloudtrail:GetTrail",
            "arn:aws:cloudtrail:us-east-1:111122223333:trail/other",
            false,
        ),
        (
            "cloudtrail:GetTrail",
            "arn:aws:cloudtrail:us-east-1:999988887777:trail/team-a",
            false,
        ),
        ("cloudtrail:DescribeTrails", "*", false),
        (
            "cloudtrail:DeleteTrail",
            "arn:aws:cloudtrail:us-east-1:111122223333:trail/team-a",
            false,
        ),
        (
            "cloudtrail:DeleteTrail",
            "arn:aws:cloudtrail:us-east-1:111122223333:trail/team-scratch",
            true,
        ),
    ] {
        let outcome = caller.authorize(action, resource, NOW);
        assert_eq!(outcome.is_ok(), allowed, "{action} {resource}");
    }
}

#[test]
fn a_denial_says_who_what_and_why_in_awss_words() {
    let deny = serde_json::json!({"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}});
    let (get, arn) = (
        "cloudtrail:GetTrail",
        "arn:aws:cloudtrail:us-east-1:999988887777:trail/main",
    );
    for (rights, resource, expected) in [
        (
            by(&deny),
            "*",
            "User: arn:aws:iam::111122223333:user/AKID is not authorized to perform: cloudtrail:GetTrail on resource: * with an explicit deny in an \
             identity-based policy",
        ),
        (
            Rights::OwnAccount,
            arn,
            "User: arn:aws:iam::111122223333:user/AKID is not authorized to perform: cloudtrail:GetTrail on resource: \
             arn:aws:cloudtrail:us-east-1:999988887777:trail/main because it is of another account and no identity-based policy allows the \
             cloudtrail:GetTrail action there",
        ),
    ] {
        let caller = caller("AKID", "111122223333", "us-east-1", rights);
        let denied = caller.authorize(get, resource, NOW).unwrap_err();
        assert_eq!(denied.to_string(), expected);
    }
}

#[test]
fn a_key_that_the_request_does_not_have_fails_all_but_negated_operators() {
    for (condition, allowed) in [
        (r#"{"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}"#, false),
        (r#"{"NotIpAddress": {"aws:SourceIp": "0.0.0.0/0"}}"#, true),
        (
            r#"{"IpAddressIfExists": {"aws:SourceIp": "10.0.0.0/8"}}"#,
            true,
        ),
        (
            r#"{"ForAllValues:StringEquals": {"aws:SourceIp": "10.0.0.1"}}"#,
            true,
        ),
        (
            r#"{"ForAnyValue:StringNotEquals": {"aws:SourceIp": "10.0.0.1"}}"#,
            false,
        ),
        (r#"{"Null": {"aws:SourceIp": true}}"#, true),
        (r#"{"Null": {"aws:SourceIp": "false"}}"#, false),
    ] {
        let document = format!(
            r#"{{"Statement": {{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {condition}}}}}"#
        );
        let rights = by(&serde_json::from_str(&document).unwrap());
        let mut caller = caller("AKID", "111122223333", "us-east-1", rights);
        caller.source_ip = None;
        assert_eq!(
            caller.authorize("traild:GetStatus", "*", NOW).is_ok(),
            allowed,
            "{condition}"
        );
    }
}

#[test]
fn networks_are_of_their_family_and_length() {
    for (network, address, expected) in [
        ("10.0.0.0/8", "10.255.0.1", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("0.0.0.0/0", "203.0.113.9", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("2001:db8::/32", "2001:db8:1::1", true),
        ("2001:db8::1", "2001:db8::2", false),
        ("203.0.113.9", "203.0.113.9", true),
    ] {
        let document = serde_json::json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*",
            "Condition": {"IpAddress": {"aws:SourceIp": network}}}});
        let mut caller = caller("AKID", "111122223333", "us-east-1", by(&document));
        caller.source_ip = Some(address.parse().unwrap());
        assert_eq!(
            caller.authorize("traild:GetStatus", "*", NOW).is_ok(),
            expected,
            "{network} {address}"
        );
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    let statement =
        |members: &str| format!(r#"{{"Version": "2012-10-17", "Statement": [{{{members}}}]}}"#);
    let base = r#""Effect": "Allow", "Action": "traild:*", "Resource": "*""#;
    let condition = |condition: &str| statement(&format!(r#"{base}, "Condition": {condition}"#));
    for (document, expected) in [
        ("{".to_owned(), "is not JSON"),
        ("[]".to_owned(), "is not a JSON object"),
        ("{}".to_owned(), "has no Statement"),
        (r#"{"Statement": []}"#.to_owned(), "has no Statement"),
        (
            r#"{"Version": "2012-10-18", "Statement": []}"#.to_owned(),
            "Version is",
        ),
        (
            statement(base).replace("Version", "version"),
            "version is no element",
        ),
        (
            statement(&format!(r#"{base}, "effect": "Deny""#)),
            "Statement[0].effect is no element",
        ),
        (
            statement(&format!(r#"{base}, "Effect": "Deny""#)),
            "\"Effect\" is given twice",
        ),
        (
            statement(&format!(r#"{base}, "Principal": "*""#)),
            "Statement[0].Principal has no place here",
        ),
        (
            statement(&format!(r#"{base}, "NotAction": "*""#)),
            "has both Action and NotAction",
        ),
        (
            statement(r#""Effect": "Allow", "Resource": "*""#),
            "has neither Action nor NotAction",
        ),
        (
            statement(&base.replace("Allow", "allow")),
            "Statement[0].Effect is \"Allow\" or \"Deny\"",
        ),
        (
            statement(&base.replace("traild:*", "cloudtrial:*")),
            "Statement[0].Action \"cloudtrial:*\" is no action",
        ),
        (
            statement(&base.replace("traild:*", "cloudtrail:DeletTrail")),
            "is no action",
        ),
        (
            statement(&base.replace("\"*\"", "\"trail/main\"")),
            "Statement[0].Resource \"trail/main\" is neither",
        ),
        (
            statement(&base.replace("\"*\"", "[]")),
            "Statement[0].Resource is empty",
        ),
        (
            statement(&base.replace("\"*\"", "\"arn:aws:traild:*:${aws:Acount}:events\"")),
            "${aws:Acount}",
        ),
        (
            statement(&base.replace("\"*\"", "\"arn:aws:traild:*:${aws:events\"")),
            "without \"}\"",
        ),
        (
            statement(&base.replace("\"*\"", "\"arn:aws:traild:*:${aws:username}:events\""))
                .replace("2012", "2008"),
            "only documents of Version \"2012-10-17\"",
        ),
        (
            condition(r#"{"StringEqual": {"aws:username": "a"}}"#),
            "Statement[0].Condition.StringEqual.aws:username is an operator",
        ),
        (
            condition(r#"{"ForEachValue:StringEquals": {"aws:username": "a"}}"#),
            "is an operator that traild does not have",
        ),
        (
            condition(r#"{"NullIfExists": {"aws:username": "true"}}"#),
            "is an operator that traild does not have",
        ),
        (
            condition(r#"{"StringEquals": {"aws:SourceVpc": "a"}}"#),
            "is about a key that traild does not have",
        ),
        (
            condition(r#"{"IpAddress": {"aws:username": "10.0.0.0/8"}}"#),
            "does not go with this key",
        ),
        (
            condition(r#"{"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}}"#),
            "which is no network",
        ),
        (
            condition(r#"{"Bool": {"aws:SecureTransport": "yes"}}"#),
            "neither true nor false",
        ),
        (
            condition(r#"{"DateLessThan": {"aws:CurrentTime": "yesterday"}}"#),
            "which is no time",
        ),
        (
            condition(r#"{"ArnLike": {"aws:PrincipalArn": "*"}}"#),
            "not an ARN of six parts",
        ),
        (
            condition(r#"{"StringEquals": {"aws:username": []}}"#),
            "is empty",
        ),
        (
            condition(r#"{"StringEquals": {"aws:username": {"a": 1}}}"#),
            "is not text",
        ),
    ] {
        let wrong = Policy::parse(&document, &KNOWN)
            .expect_err(&document)
            .to_string();
        assert!(wrong.contains(expected), "{document}: {wrong}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        let _ = Policy::parse(&text, &KNOWN);
        let _ = Pattern::with_variables(&text, true).map(|pattern| pattern.within_parts().matches_plainly(&text));
    }
}

const CHANNEL: &str = "arn:aws:cloudtrail:us-east-1:111122223333:channel/wiki";

fn of_channel(statements: serde_json::Value) -> Result<ResourcePolicy, InvalidPolicy> {
    let document = serde_json::json!({"Version": "2012-10-17", "Statement": statements});
    ResourcePolicy::parse(&document.to_string(), CHANNEL)
}

fn statement(effect: &str, principal: serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "Effect": effect, "Principal": principal, "Action": "cloudtrail-data:PutAuditEvents", "Resource": CHANNEL,
    })
}

#[test]
fn a_channel_lets_in_whom_its_policy_and_their_own_allow() {
    use serde_json::json;
    const OWNER: &str = "111122223333";
    const OTHER: &str = "444455556666";
    let allows = |resource: &str| {
        by(&json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Action": "cloudtrail-data:*", "Resource": resource}}))
    };
    let denies = by(&json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": CHANNEL},
        {"Effect": "Deny", "Action": "cloudtrail-data:*", "Resource": "*"}]}));
    let nothing = by(&json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Action": "traild:GetStatus", "Resource": "*"}}));
    let root = |account: &str| json!({"AWS": format!("arn:aws:iam::{account}:root")});
    let user = json!({"AWS": [format!("arn:aws:iam::{OTHER}:user/KEY")]});
    let with_id = |effect: &str, operator: &str| {
        let mut with = statement(effect, json!("*"));
        with["Condition"] = json!({operator: {"cloudtrail:ExternalId": "secret-id"}});
        with
    };
    let allow = |principal| Some(json!([statement("Allow", principal)]));
    let owner_denied = Some(json!([statement("Deny", root(OWNER))]));
    use Rights::{Everything, OwnAccount};
    let mine = || allows(CHANNEL);
    #[rustfmt::skip]
    let rows = [
        // The account, what it may itself, the channel's policy, the external id; who says no.
        (OWNER, OwnAccount, None, None, None),
        (OWNER, Everything, None, None, None),
        (OWNER, mine(), None, None, None),
        (OWNER, nothing.clone(), None, None, Some("identity")),
        (OWNER, nothing.clone(), allow(root(OWNER)), None, None),
        (OWNER, denies.clone(), allow(root(OWNER)), None, Some("identity")),
        (OWNER, OwnAccount, owner_denied.clone(), None, Some("resource")),
        (OWNER, Everything, owner_denied, None, Some("resource")),
        (OWNER, OwnAccount, allow(root(OTHER)), None, None),
        (OTHER, OwnAccount, None, None, Some("resource")),
        (OTHER, Everything, None, None, Some("resource")),
        (OTHER, OwnAccount, allow(root(OTHER)), None, None),
        (OTHER, OwnAccount, allow(json!({"AWS": OTHER})), None, None),
        (OTHER, OwnAccount, allow(json!({"AWS": "*"})), None, None),
        (OTHER, OwnAccount, allow(json!("*")), None, None),
        (OTHER, OwnAccount, allow(user.clone()), None, None),
        (OTHER, OwnAccount, allow(json!({"AWS": format!("arn:aws:iam::{OTHER}:user/key")})), None, Some("resource")),
        (OTHER, OwnAccount, allow(root("999988887777")), None, Some("resource")),
        (OTHER, mine(), allow(root(OTHER)), None, None),
        (OTHER, mine(), None, None, Some("resource")),
        (OTHER, allows("*"), allow(root(OTHER)), None, Some("identity")),
        (OTHER, nothing, allow(root(OTHER)), None, Some("identity")),
        (OTHER, denies, allow(root(OTHER)), None, Some("identity")),
        (OTHER, OwnAccount, Some(json!([statement("Allow", json!("*")), statement("Deny", user)])), None, Some("resource")),
        (OTHER, OwnAccount, Some(json!([with_id("Allow", "StringEquals")])), Some("secret-id"), None),
        (OTHER, OwnAccount, Some(json!([with_id("Allow", "StringEquals")])), Some("other-id"), Some("resource")),
        (OTHER, OwnAccount, Some(json!([with_id("Allow", "StringEquals")])), None, Some("resource")),
        (OWNER, OwnAccount, Some(json!([with_id("Deny", "StringNotEquals")])), Some("secret-id"), None),
        (OWNER, OwnAccount, Some(json!([with_id("Deny", "StringNotEquals")])), None, Some("resource")),
    ];
    for (account, rights, policy, external_id, refused_by) in rows {
        let policy = policy.map(|statements| of_channel(statements).unwrap());
        let caller = caller("KEY", account, "us-east-1", rights);
        let at = crate::auth::AtResource {
            owner: OWNER.parse().unwrap(),
            policy: policy.as_ref(),
            external_id,
        };
        let outcome = caller.authorize_at(crate::auth::PUT_AUDIT_EVENTS, CHANNEL, at, NOW);
        let told = outcome.err().map(|denied| match denied.is_by_resource() {
            true => "resource",
            false => "identity",
        });
        assert_eq!(told, refused_by, "{caller:?} {policy:?} {external_id:?}");
    }
}

#[test]
fn the_policy_of_a_channel_is_about_nothing_else() {
    use serde_json::json;
    let sound = || statement("Allow", json!({"AWS": "444455556666"}));
    let with = |member: &str, value: serde_json::Value| {
        let mut changed = sound();
        changed[member] = value;
        json!([changed])
    };
    assert!(of_channel(sound()).is_ok(), "one statement without a list");
    assert!(of_channel(json!(vec![sound(); 20])).is_ok());
    let fifty = vec!["444455556666"; 50];
    assert!(of_channel(with("Principal", json!({"AWS": fifty}))).is_ok());
    let mut without = sound();
    without.as_object_mut().unwrap().remove("Principal");
    let mut negated = without.clone();
    negated["NotPrincipal"] = json!("*");
    let fifty_one = vec!["444455556666"; 51];
    for (bad, told) in [
        (json!([]), "Statement"),
        (json!(vec![sound(); 21]), "at most 20 statements, given: 21"),
        (json!([without]), "Statement[0].Principal is"),
        (json!([negated]), "Statement[0].Principal is"),
        (
            with("Principal", json!({"AWS": []})),
            "1 to 50 principals, given: 0",
        ),
        (
            with("Principal", json!({"AWS": fifty_one})),
            "1 to 50 principals, given: 51",
        ),
        (
            with("Principal", json!({"Service": "s3.amazonaws.com"})),
            "has Service",
        ),
        (with("Principal", json!({})), "is empty"),
        (
            with("Principal", json!({"AWS": "alice"})),
            "no principal that traild has",
        ),
        (
            with("Principal", json!({"AWS": 444_455_556_666_u64})),
            "no principal that traild has",
        ),
        (
            with(
                "Principal",
                json!({"AWS": "arn:aws:iam::444455556666:role/r"}),
            ),
            "no principal that traild has",
        ),
        (
            with(
                "Principal",
                json!({"AWS": "arn:aws:iam::444455556666:user/*"}),
            ),
            "no principal that traild has",
        ),
        (
            with("Action", json!("cloudtrail-data:*")),
            "one action alone",
        ),
        (
            with(
                "Action",
                json!([
                    "cloudtrail-data:PutAuditEvents",
                    "cloudtrail-data:PutAuditEvents"
                ]),
            ),
            "one action alone",
        ),
        (
            with("Action", json!("cloudtrail:GetChannel")),
            "one action alone",
        ),
        (
            with("Resource", json!("*")),
            "the channel that the policy is attached to",
        ),
        (
            with(
                "Resource",
                json!([
                    CHANNEL,
                    "arn:aws:cloudtrail:us-east-1:111122223333:channel/other"
                ]),
            ),
            "attached to",
        ),
        (
            with(
                "Condition",
                json!({"StringEquals": {"sts:ExternalId": "x"}}),
            ),
            "a key that traild does not have",
        ),
        (with("Effect", json!("Maybe")), "Effect"),
        (with("Extra", json!(1)), "no element of a policy"),
    ] {
        let wrong = of_channel(bad.clone()).unwrap_err().to_string();
        assert!(wrong.contains(told), "{wrong}: {bad}");
    }
}
