//! IAM policy documents.

use http::Request;
use serde_json::{Value, json};

use super::{Input, JSON, corpus, fuzz};
use crate::auth::policy::{Asked, Decision, Policy};
use crate::auth::{self, Caller, Door, OF_PATHS, ResourcePolicy};
use crate::clock::WallMillis;
use crate::server::Peer;

const CHANNEL: &str =
    "arn:aws:cloudtrail:us-east-1:111122223333:channel/6464f5be-705b-4c51-b64c-d46643ff96dc";

const ASKED: [(&str, &str); 3] = [
    (
        "traild:PutEvents",
        "arn:aws:traild:us-east-1:111122223333:events",
    ),
    (
        "traild:GetStatus",
        "arn:aws:traild:us-east-1:111122223333:status",
    ),
    ("cloudtrail-data:PutAuditEvents", CHANNEL),
];

/// Somebody at a network address.
fn caller() -> Caller {
    let (account, region) = (
        "111122223333".parse().unwrap(),
        "us-east-1".parse().unwrap(),
    );
    let door = Door::new(account, region, auth::Options::None, Vec::new());
    let (head, ()) = Request::new(()).into_parts();
    let peer = Peer::Tcp("192.0.2.7:40000".parse().unwrap());
    let admitted = door.admit(&head, &peer, auth::TRAILD, WallMillis::now());
    admitted.unwrap().caller
}

#[test]
fn a_policy_is_understood_to_its_last_word_and_a_denial_wins() {
    let tokens = [
        JSON,
        &[
            "\"Deny\"",
            "\"NotAction\"",
            "\"*\"",
            "**",
            "?",
            "${aws:SourceIp}",
            "${",
            "aws:SourceIp",
            "\"StringLike\"",
            "IfExists",
            "ForAllValues:",
            "10.0.0.0/33",
            "arn:aws:",
        ],
    ]
    .concat();
    fuzz("policies", 25_000, &corpus("policies"), &tokens, |text| {
        let Ok(text) = std::str::from_utf8(text) else {
            return Input::Refused;
        };
        let _ =
            ResourcePolicy::parse(text, CHANNEL).map(|policy| asked(|asked| policy.decide(asked)));
        let policy = match Policy::parse(text, &OF_PATHS) {
            Ok(policy) => policy,
            Err(wrong) => {
                assert!(!wrong.to_string().is_empty());
                return Input::Refused;
            }
        };
        asked(|asked| policy.decide(asked));
        let plain: Value = serde_json::from_str(text).unwrap();
        let statements = match plain["Statement"].clone() {
            Value::Array(statements) => statements,
            one => vec![one],
        };
        let known = [
            "Sid",
            "Effect",
            "Action",
            "NotAction",
            "Resource",
            "NotResource",
            "Condition",
        ];
        let all_known = |statement: &Value| {
            statement
                .as_object()
                .unwrap()
                .keys()
                .all(|name| known.contains(&name.as_str()))
        };
        assert!(statements.iter().all(all_known));

        let all = json!({"Effect": "Deny", "Action": "*", "Resource": "*"});
        for place in [0, statements.len()] {
            let mut denying = plain.clone();
            let mut statements = statements.clone();
            statements.insert(place, all.clone());
            denying["Statement"] = Value::Array(statements);
            let denying = Policy::parse(&denying.to_string(), &OF_PATHS).unwrap();
            for decision in asked(|asked| denying.decide(asked)) {
                assert_eq!(decision, Decision::Denied);
            }
        }
        Input::Understood
    });
}

fn asked(decide: impl Fn(&Asked<'_>) -> Decision) -> Vec<Decision> {
    let caller = caller();
    let decisions = ASKED.iter().map(|(action, resource)| {
        decide(&Asked {
            action,
            resource,
            account: caller.account,
            now: WallMillis(1_777_594_354_000),
            caller: &caller,
            principal_arn: "arn:aws:iam::111122223333:user/AKID",
            external_id: None,
        })
    });
    decisions.collect()
}
