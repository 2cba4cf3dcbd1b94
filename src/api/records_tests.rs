use std::sync::Arc;

use super::*;
use crate::auth::{Door, Options};
use crate::server::Peer;
use crate::server::tls::Secured;

const NOW: WallMillis = WallMillis(1_777_594_354_000); // 2026-05-01T00:12:34Z
const ID: Uuid = Uuid::from_u128(0x11111111_2222_4333_8444_000000000001);

fn caller(peer: &Peer) -> Caller {
    let (account, region) = (
        "111122223333".parse().unwrap(),
        "us-east-1".parse().unwrap(),
    );
    let door = Door::new(account, region, Options::None, Vec::new());
    let (head, ()) = http::Request::new(()).into_parts();
    door.admit(&head, peer, "cloudtrail", NOW).unwrap().caller
}

fn recorded(
    operation: &'static str,
    body: &str,
    caller: &Caller,
    outcome: Result<&str, Error>,
) -> Value {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, "aws-cli/2.17.32".parse().unwrap());
    headers.insert(header::HOST, "audit.example.org:4580".parse().unwrap());
    let asked = Asked {
        service: Service::CloudTrail,
        operation,
        headers: &headers,
        body: body.as_bytes(),
        caller,
        now: NOW,
        request_id: ID,
    };
    let mut event = event(&asked, &outcome.map(|json| json.as_bytes().to_vec()));
    let id = event["eventID"].take();
    assert!(id.as_str().unwrap().parse::<Uuid>().is_ok());
    event
}

fn tcp() -> Peer {
    Peer::Tcp("192.0.2.7:40000".parse().unwrap())
}

#[test]
fn a_change_is_recorded_with_its_request_and_its_answer() {
    let secured = Arc::new(Secured {
        version: "TLSv1.3",
        cipher_suite: "TLS_AES_128_GCM_SHA256",
        certificate: None,
    });
    let caller = caller(&Peer::Tls("192.0.2.7:40000".parse().unwrap(), secured));
    let body = r#"{"Name":"main","S3BucketName":"audit-logs","TagsList":[{"Key":"Team","Value":"Audit"}]}"#;
    let answer = r#"{"Name":"main","TrailARN":"arn:aws:cloudtrail:us-east-1:111122223333:trail/main","IsOrganizationTrail":false}"#;
    assert_eq!(
        recorded("CreateTrail", body, &caller, Ok(answer)),
        json!({
            "eventVersion": "1.11",
            "userIdentity": {"type": "AWSAccount", "principalId": "111122223333", "accountId": "111122223333"},
            "eventTime": "2026-05-01T00:12:34Z",
            "eventSource": "cloudtrail.amazonaws.com",
            "eventName": "CreateTrail",
            "awsRegion": "us-east-1",
            "sourceIPAddress": "192.0.2.7",
            "userAgent": "aws-cli/2.17.32",
            "requestParameters": {
                "name": "main", "s3BucketName": "audit-logs", "tagsList": [{"key": "Team", "value": "Audit"}],
            },
            "responseElements": {
                "name": "main", "trailARN": "arn:aws:cloudtrail:us-east-1:111122223333:trail/main", "isOrganizationTrail": false,
            },
            "requestID": "11111111-2222-4333-8444-000000000001",
            "eventID": null,
            "readOnly": false,
            "eventType": "AwsApiCall",
            "managementEvent": true,
            "recipientAccountId": "111122223333",
            "eventCategory": "Management",
            "tlsDetails": {
                "tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256",
                "clientProvidedHostHeader": "audit.example.org:4580",
            },
        })
    );
}

#[test]
fn what_only_reads_and_what_answers_nothing_has_no_response_elements() {
    let caller = caller(&tcp());
    let read = recorded(
        "DescribeTrails",
        r#"{"trailNameList":["main"]}"#,
        &caller,
        Ok(r#"{"trailList":[]}"#),
    );
    assert_eq!(read["readOnly"], true);
    assert_eq!(
        read["requestParameters"],
        json!({"trailNameList": ["main"]})
    );
    assert!(read["responseElements"].is_null() && read.get("tlsDetails").is_none());
    let stopped = recorded("StopLogging", r#"{"Name":"main"}"#, &caller, Ok("{}"));
    assert_eq!(stopped["readOnly"], false);
    assert!(stopped["responseElements"].is_null());
    assert!(recorded("ListTrails", "{}", &caller, Ok("{}"))["requestParameters"].is_null());
}

#[test]
fn a_refusal_is_recorded_with_its_code_and_its_reason() {
    let caller = caller(&tcp());
    let error = Error::TrailNotFound {
        given: "none".to_owned(),
        account: caller.account,
    };
    let refused = recorded("DeleteTrail", r#"{"Name":"none"}"#, &caller, Err(error));
    assert_eq!(refused["errorCode"], "TrailNotFoundException");
    assert_eq!(
        refused["errorMessage"],
        "Unknown trail: none for the user: 111122223333"
    );
    assert_eq!(refused["requestParameters"], json!({"name": "none"}));
    assert!(refused["responseElements"].is_null());
    let unread = Error::Serialization {
        operation: "DeleteTrail",
        reason: "it is not a JSON object".to_owned(),
    };
    let refused = recorded("DeleteTrail", "[", &caller, Err(unread));
    assert_eq!(refused["errorCode"], "SerializationException");
    assert!(refused["requestParameters"].is_null());
}

#[test]
fn callers_are_told_by_what_is_verified_of_them() {
    let unix = Peer::Unix {
        pid: Some(7),
        uid: 1000,
    };
    let process = recorded("ListTrails", "{}", &caller(&unix), Ok("{}"));
    assert_eq!(process["sourceIPAddress"], "127.0.0.1");
    assert_eq!(
        process["userIdentity"],
        json!({
            "type": "IAMUser", "principalId": "uid-1000", "arn": "arn:aws:iam::111122223333:user/uid-1000",
            "accountId": "111122223333", "userName": "uid-1000",
        })
    );
    let mut user = caller(&tcp());
    user.principal = Principal::User;
    user.access_key_id = Some("AKID".into());
    let user = recorded("ListTrails", "{}", &user, Ok("{}"));
    assert_eq!(user["userIdentity"]["accessKeyId"], "AKID");
    assert_eq!(
        user["userIdentity"]["arn"],
        "arn:aws:iam::111122223333:user/AKID"
    );
}

#[test]
fn no_request_and_no_answer_is_too_large_for_the_room_that_is_taken() {
    let caller = caller(&tcp());
    let numbers = format!(r#"{{"N":[{}1]}}"#, "1e20,".repeat(18_000));
    let text = format!(r#"{{"N":"{}"}}"#, r"\u0001".repeat(16_000));
    for body in [
        "{}",
        &numbers,
        &text,
        &format!(r#"{{"N":"{}"}}"#, "x".repeat(1 << 20)),
    ] {
        let mut headers = HeaderMap::new();
        let long = "\"".repeat(60_000);
        headers.insert(header::USER_AGENT, long.parse().unwrap());
        headers.insert(header::HOST, long.parse().unwrap());
        let asked = Asked {
            service: Service::CloudTrail,
            operation: "PutEventSelectors",
            headers: &headers,
            body: body.as_bytes(),
            caller: &caller,
            now: NOW,
            request_id: ID,
        };
        let event = event(&asked, &Ok(body.as_bytes().to_vec())).to_string();
        assert!(
            event.len() <= most_bytes(&asked),
            "{} of {}",
            event.len(),
            most_bytes(&asked)
        );
        assert!(event.len() <= crate::ingest::records::MAX_RECORD_BYTES);
        assert!(crate::event::check::read(event.as_bytes()).is_ok());
    }
    let large = recorded(
        "ListTrails",
        &text.replace("u0001", "u0002"),
        &caller,
        Ok("{}"),
    );
    assert!(
        large["requestParameters"].is_object(),
        "within CloudTrail's limit"
    );
}
