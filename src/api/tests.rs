mod recorded;
mod refusals;
mod sdk;
mod trails;

use std::collections::BTreeSet;

use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;
use crate::auth::{self, Door};
use crate::digest::keys::{FileKeys, PublicKey};
use crate::server::Peer;
use crate::trail::tests::trail;
use crate::trail::{Accounts, Members, Trail};

const LONG: &str = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101";
const SHORT: &str = "CloudTrail_20131101";
const ORGANIZATIONS: &str = "AWSOrganizationsV20161128";

/// An answer, read as botocore reads it.
#[derive(Debug)]
pub(crate) struct Read {
    pub status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Read {
    /// The name of the error, and that everything a client relies on is there.
    pub fn code(&self) -> &str {
        let Some(code) = self.body["__type"].as_str() else {
            panic!("no error: {self:?}");
        };
        let message = self.body["message"].as_str().unwrap();
        assert!(!message.is_empty() && message.len() < 1200, "{self:?}");
        assert!(!message.contains(char::is_control), "{self:?}");
        code
    }
}

pub(crate) fn request(target: &str, body: impl Into<Vec<u8>>) -> Request<Full<Bytes>> {
    Request::post("/")
        .header(protocol::TARGET, target)
        .header(CONTENT_TYPE, protocol::CONTENT_TYPE)
        .body(Full::new(Bytes::from(body.into())))
        .unwrap()
}

pub(crate) async fn send(api: &Api, request: Request<Full<Bytes>>) -> Read {
    let (head, body) = request.into_parts();
    let door = Door::new(
        api.home.account,
        api.home.region,
        auth::Options::None,
        Vec::new(),
    );
    let peer = Peer::Tcp("192.0.2.7:40000".parse().unwrap());
    let response = match door.admit(&head, &peer, "cloudtrail", WallMillis::now()) {
        Ok(admitted) => {
            let request = Request::from_parts(head, body);
            api.answer(request, &admitted.caller).await
        }
        Err(refused) => auth::refusal(&refused, auth::Protocol::Json11),
    };
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let id = head.headers[protocol::REQUEST_ID].to_str().unwrap();
    assert!(id.parse::<Uuid>().is_ok(), "{id}");
    assert_eq!(head.headers[CONTENT_TYPE], protocol::CONTENT_TYPE);
    Read {
        status: head.status.as_u16(),
        headers: head.headers,
        body: serde_json::from_slice(&body).unwrap(),
    }
}

async fn ask(api: &Api, target: &str, body: impl Into<Vec<u8>>) -> Read {
    send(api, request(target, body)).await
}

pub(crate) fn cloudtrail(operation: &str) -> String {
    format!("{LONG}.{operation}")
}

pub(crate) struct Fixture {
    directory: tempfile::TempDir,
    trails: Vec<Trail>,
    preflight: Arc<preflight::fake::Told>,
    facts: Option<TrailFacts>,
    history: History,
}

impl Fixture {
    pub(crate) fn new(trails: Vec<Trail>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            directory,
            trails,
            preflight: Arc::default(),
            facts: None,
            history: History::off(),
        }
    }

    /// A key of `region` that is valid for a time, in seconds since 1970.
    fn with_key(self, region: &str, der: u8, start: i64, end: i64) -> Self {
        let key = PublicKey::new(vec![der], start, end);
        let name = format!("keys/{region}.{}.public.json", key.fingerprint());
        let keys = self.directory.path().join("keys");
        crate::snapshot::make_private_dir(&keys).unwrap();
        let json = serde_json::to_vec(&key).unwrap();
        std::fs::write(self.directory.path().join(name), json).unwrap();
        self
    }

    pub(super) fn path(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub(crate) fn api(&self) -> Api {
        let registry = Registry::open(self.directory.path(), self.trails.clone()).unwrap();
        // Whatever changes, runs at once.
        registry.applied(u64::MAX);
        let facts = self.facts.clone();
        Api::new(Home {
            account: "111122223333".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
            registry,
            keys: Keys::Files(FileKeys::open(&self.directory.path().join("keys")).unwrap()),
            journal: Arc::new(|| Position(64)..Position(4096)),
            facts: Arc::new(move |_| facts.clone()),
            preflight: self.preflight.clone(),
            ingestions: channel::Ingestions::default(),
            history: self.history.clone(),
            records: None,
        })
    }
}

#[tokio::test]
async fn an_operation_is_asked_for_by_either_name_of_its_service() {
    let fixture = Fixture::new(vec![trail()]);
    let api = fixture.api();
    for name in [LONG, SHORT] {
        let answer = ask(&api, &format!("{name}.DescribeTrails"), "{}").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body["trailList"][0]["Name"], "main");
    }
}

#[tokio::test]
async fn what_cloudtrail_has_and_traild_has_not_is_refused_by_its_name() {
    let fixture = Fixture::new(vec![trail()]);
    let api = fixture.api();
    let mut absent = BTreeSet::new();
    for name in operations::OF_CLOUDTRAIL {
        let answer = ask(&api, &cloudtrail(name), "{}").await;
        if answer.status == 200 || answer.code() != "UnsupportedOperationException" {
            continue;
        }
        assert_eq!(answer.status, 400);
        assert!(answer.body["message"].as_str().unwrap().contains(name));
        absent.insert(name);
    }
    assert!(absent.contains("CreateEventDataStore"));
    for built in [
        "DescribeTrails",
        "ListPublicKeys",
        "CreateTrail",
        "ListTags",
    ] {
        assert!(!absent.contains(built), "{built}");
    }
}

#[tokio::test]
async fn a_head_that_asks_for_nothing_there_is_is_refused() {
    let fixture = Fixture::new(vec![trail()]);
    let api = fixture.api();
    for target in [
        "",
        ".",
        "DescribeTrails",
        "CloudTrail_20131101",
        "CloudTrail_20131101.",
        "CloudTrail_20131101.describetrails",
        "CloudTrail_20131101.DescribeTrails ",
        "CloudTrail_20131101.x.DescribeTrails",
        "cloudtrail_20131101.DescribeTrails",
        "v20131101.CloudTrail_20131101.DescribeTrails",
        "DynamoDB_20120810.ListTables",
        "CloudTrail_20131101.DescribeOrganization",
        "AWSOrganizationsV20161128.DescribeTrails",
        "AWSOrganizationsV20161128.ListAccounts",
        &format!("CloudTrail_20131101.{}", "x".repeat(5000)),
    ] {
        let answer = ask(&api, target, "{}").await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, "UnknownOperationException"),
            "{target}"
        );
    }

    let sound = || request("CloudTrail_20131101.DescribeTrails", "{}");
    let mut without_target = sound();
    without_target.headers_mut().remove(protocol::TARGET);
    let mut two_targets = sound();
    let again = HeaderValue::from_static("CloudTrail_20131101.DescribeTrails");
    two_targets.headers_mut().append(protocol::TARGET, again);
    let mut strange_target = sound();
    let strange = HeaderValue::from_bytes(b"CloudTrail_20131101.\xff\xfe").unwrap();
    strange_target
        .headers_mut()
        .insert(protocol::TARGET, strange);
    for bad in [without_target, two_targets, strange_target] {
        let answer = send(&api, bad).await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, "UnknownOperationException")
        );
    }

    for (content_type, status) in [
        ("application/x-amz-json-1.1", 200),
        ("Application/X-Amz-JSON-1.1; charset=utf-8", 200),
        ("application/x-amz-json-1.0", 400),
        ("application/json", 400),
        ("text/plain", 400),
        ("application/x-www-form-urlencoded", 400),
        ("", 400),
    ] {
        let mut given = sound();
        let value = HeaderValue::from_static(content_type);
        given.headers_mut().insert(CONTENT_TYPE, value);
        assert_eq!(send(&api, given).await.status, status, "{content_type}");
    }

    let mut put = sound();
    *put.method_mut() = Method::PUT;
    let answer = send(&api, put).await;
    assert_eq!(
        (answer.status, &answer.headers[ALLOW]),
        (405, &HeaderValue::from_static("POST"))
    );
}

#[tokio::test]
async fn a_body_that_is_no_request_is_refused_and_unknown_members_are_not() {
    let fixture = Fixture::new(vec![trail()]);
    let api = fixture.api();
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    for (body, code) in [
        (r#"{"trailNameList":null,"includeShadowTrails":null}"#, None),
        (r#"{"trailNameList":[]}"#, None),
        (" \r\n\t{ } \n", None),
        (
            r#"{"unknown":{"a":[1,null,"\ud83d\ude00"]},"TrailNameList":7}"#,
            None,
        ),
        (&*deep, None),
        (
            r#"{"trailNameList":["a"]}"#,
            Some("InvalidTrailNameException"),
        ),
        (
            r#"{"trailNameList":["main","a b"]}"#,
            Some("InvalidTrailNameException"),
        ),
        (
            r#"{"trailNameList":["arn:aws:cloudtrail"]}"#,
            Some("CloudTrailARNInvalidException"),
        ),
        ("", Some("SerializationException")),
        (" ", Some("SerializationException")),
        ("null", Some("SerializationException")),
        ("[]", Some("SerializationException")),
        ("[[],true]", Some("SerializationException")),
        (r#""{}""#, Some("SerializationException")),
        ("17", Some("SerializationException")),
        ("{", Some("SerializationException")),
        ("{}{}", Some("SerializationException")),
        ("{}\0", Some("SerializationException")),
        ("\u{feff}{}", Some("SerializationException")),
        (
            r#"{"trailNameList":"main"}"#,
            Some("SerializationException"),
        ),
        (
            r#"{"trailNameList":[null]}"#,
            Some("SerializationException"),
        ),
        (
            r#"{"trailNameList":[["main"]]}"#,
            Some("SerializationException"),
        ),
        (
            r#"{"trailNameList":["\ud800"]}"#,
            Some("SerializationException"),
        ),
        (
            r#"{"trailNameList":[],"trailNameList":[]}"#,
            Some("SerializationException"),
        ),
        (
            r#"{"includeShadowTrails":"\u0000\u202etrue"}"#,
            Some("SerializationException"),
        ),
        (
            r#"{"includeShadowTrails":1}"#,
            Some("SerializationException"),
        ),
    ] {
        let answer = ask(&api, &cloudtrail("DescribeTrails"), body).await;
        let shown = &body[..body.len().min(80)];
        match code {
            None => assert_eq!(answer.status, 200, "{shown}: {answer:?}"),
            Some(code) => assert_eq!((answer.status, answer.code()), (400, code), "{shown}"),
        }
    }
    let not_utf8 = ask(&api, &cloudtrail("DescribeTrails"), b"{\"x\":\"\xff\xfe\"}").await;
    assert_eq!(not_utf8.code(), "SerializationException");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_its_connection_ended() {
    let fixture = Fixture::new(vec![trail()]);
    let api = fixture.api();
    let largest = format!("{{}}{}", " ".repeat(MAX_BODY_BYTES - 2));
    let most = ask(&api, &cloudtrail("DescribeTrails"), &*largest).await;
    assert_eq!(most.status, 200);
    let more = ask(&api, &cloudtrail("DescribeTrails"), largest + " ").await;
    assert_eq!(
        (more.status, more.code()),
        (413, "RequestEntityTooLargeException")
    );
    assert_eq!(more.headers[CONNECTION], "close");
}

#[tokio::test]
async fn the_region_of_a_request_is_the_one_of_its_unverified_scope() {
    let local = Trail {
        name: "local".parse().unwrap(),
        is_multi_region: false,
        ..trail()
    };
    let fixture = Fixture::new(vec![trail(), local]);
    let api = fixture.api();
    let scoped = |region: &str, body: &str| {
        let mut request = request(&cloudtrail("DescribeTrails"), body);
        let header = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260501/{region}/cloudtrail/aws4_request, SignedHeaders=host, Signature=00"
        );
        let header = HeaderValue::try_from(header).unwrap();
        request.headers_mut().insert(AUTHORIZATION, header);
        request
    };
    for (region, body, expected) in [
        ("us-east-1", "{}", "main local"),
        ("eu-west-1", "{}", "main"),
        ("eu-west-1", r#"{"includeShadowTrails":false}"#, ""),
        ("eu-west-1", r#"{"trailNameList":["main"]}"#, ""),
        ("us-east-1", r#"{"trailNameList":["main"]}"#, "main"),
    ] {
        let answer = send(&api, scoped(region, body)).await;
        let trails = answer.body["trailList"].as_array().unwrap();
        let names: Vec<_> = trails
            .iter()
            .map(|trail| trail["Name"].as_str().unwrap())
            .collect();
        assert_eq!(names.join(" "), expected, "{region} {body}");
    }
    for region in ["", "..", "us_east", &"a".repeat(3000)] {
        let answer = send(&api, scoped(region, "{}")).await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, "InvalidSignatureException")
        );
    }
}

#[tokio::test]
async fn public_keys_of_every_region_are_listed_by_time() {
    let now = WallMillis::now().unix_seconds();
    let (old, current, other) = (
        (now - 200, now - 100),
        (now - 100, now + 100),
        (now - 50, now + 50),
    );
    let fixture = Fixture::new(vec![])
        .with_key("us-east-1", 1, old.0, old.1)
        .with_key("us-east-1", 2, current.0, current.1)
        .with_key("eu-west-1", 3, other.0, other.1);
    let api = fixture.api();
    let list = cloudtrail("ListPublicKeys");
    for (body, expected) in [
        (json!({}), vec!["Aw==", "Ag=="]),
        (
            json!({"StartTime": now - 300}),
            vec!["Aw==", "AQ==", "Ag=="],
        ),
        (
            json!({"StartTime": now - 300, "EndTime": now - 150}),
            vec!["AQ=="],
        ),
        (
            json!({"StartTime": (now - 300) as f64 + 0.25, "EndTime": (now - 150) as f64 + 0.75}),
            vec!["AQ=="],
        ),
        (json!({"StartTime": 0, "EndTime": 1.5}), vec![]),
        (json!({"EndTime": now + 75}), vec!["Aw==", "Ag=="]),
        (
            json!({"StartTime": -5, "EndTime": now - 150, "NextToken": null, "Region": "x"}),
            vec!["AQ=="],
        ),
    ] {
        let answer = ask(&api, &list, body.to_string()).await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        let keys = answer.body["PublicKeyList"].as_array().unwrap();
        let values: Vec<_> = keys
            .iter()
            .map(|key| key["Value"].as_str().unwrap())
            .collect();
        assert_eq!(values, expected, "{body}");
    }
    let answer = ask(
        &api,
        &list,
        json!({"StartTime": now - 150, "EndTime": now - 150}).to_string(),
    )
    .await;
    assert_eq!(
        answer.body,
        json!({"PublicKeyList": [{
            "Value": "AQ==", "ValidityStartTime": old.0, "ValidityEndTime": old.1,
            "Fingerprint": "55a54008ad1ba589aa210d2629c1df41",
        }]})
    );
    for (body, code) in [
        (
            r#"{"StartTime":2,"EndTime":1}"#,
            "InvalidTimeRangeException",
        ),
        (r#"{"StartTime":253402300799}"#, "InvalidTimeRangeException"),
        (r#"{"EndTime":1}"#, "InvalidTimeRangeException"),
        (r#"{"NextToken":""}"#, "InvalidTokenException"),
        (r#"{"NextToken":"more"}"#, "InvalidTokenException"),
        (
            r#"{"StartTime":"2026-05-01T00:00:00Z"}"#,
            "SerializationException",
        ),
        (r#"{"StartTime":1e999}"#, "SerializationException"),
        (
            r#"{"StartTime":18446744073709551616}"#,
            "SerializationException",
        ),
        (r#"{"StartTime":NaN}"#, "SerializationException"),
    ] {
        let answer = ask(&api, &list, body).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{body}");
    }
}

#[tokio::test]
async fn the_organization_is_the_one_of_the_organization_trails() {
    let describe = format!("{ORGANIZATIONS}.DescribeOrganization");
    let of = |id: &str| Trail {
        accounts: Accounts::Organization {
            id: id.to_owned(),
            members: Members::Every,
        },
        ..trail()
    };
    let fixture = Fixture::new(vec![trail(), of("o-exampleorgid"), of("o-anotherorgid")]);
    let answer = ask(&fixture.api(), &describe, "{}").await;
    assert_eq!(
        answer.body,
        json!({"Organization": {
            "Id": "o-exampleorgid",
            "Arn": "arn:aws:organizations::111122223333:organization/o-exampleorgid",
            "FeatureSet": "ALL",
            "MasterAccountArn": "arn:aws:organizations::111122223333:account/o-exampleorgid/111122223333",
            "MasterAccountId": "111122223333",
        }})
    );
    let without = Fixture::new(vec![trail()]);
    let answer = ask(&without.api(), &describe, "{}").await;
    assert_eq!(
        (answer.status, answer.code()),
        (400, "AWSOrganizationsNotInUseException")
    );
}
