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
    let outcome = outcome.map(|json| json.as_bytes().to_vec());
    let mut event = serde_json::to_value(record(&asked, &outcome)).unwrap();
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
    let numbers = format!(r#"{{"N":[{}1]}}"#, "1e20,".repeat(4_000));
    let text = format!(r#"{{"N":"{}"}}"#, r"\u0001".repeat(16_000));
    let long = format!(r#"{{"N":"{}"}}"#, "x".repeat(1 << 20));
    let destinations = r#"{"Type":"EVENT_DATA_STORE","Location":"arn:aws:cloudtrail"}"#;
    let destinations = format!(
        r#"{{"Destinations":[{}{destinations}]}}"#,
        format!("{destinations},").repeat(199)
    );
    let some = format!(r#"{{"S":[{}1]}}"#, "1e20,".repeat(400));
    for (body, answer) in [
        ("{}", "{}"),
        (&*numbers, &*numbers),
        (&text, &text),
        (&long, &long),
        // An answer of what the request does not name.
        ("{}", &destinations),
        ("{}", &text),
        (&some, &numbers),
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
        let record = record(&asked, &Ok(answer.as_bytes().to_vec()));
        let event = serde_json::to_string(&record).unwrap();
        assert!(
            event.len() <= most_bytes(&asked),
            "{} of {}",
            event.len(),
            most_bytes(&asked)
        );
        assert!(event.len() <= crate::ingest::records::MAX_RECORD_BYTES);
        assert!(crate::event::check::read(event.as_bytes()).is_ok());
    }
}

fn told(body: &str) -> Result<(), Error> {
    let headers = HeaderMap::new();
    can_tell(&Asked {
        service: Service::CloudTrail,
        operation: "StopLogging",
        headers: &headers,
        body: body.as_bytes(),
        caller: &caller(&tcp()),
        now: NOW,
        request_id: ID,
    })
}

#[test]
fn a_request_whose_record_would_not_tell_what_is_done_is_refused() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        format!(r#"{{"Name":"main","x":{open}1{close}}}"#)
    };
    let members = |count: usize| {
        let more: String = (1..count).map(|n| format!(r#","x{n}":0"#)).collect();
        format!(r#"{{"Name":"main"{more}}}"#)
    };
    let name = |bytes: usize| format!(r#"{{"{}":0}}"#, "n".repeat(bytes));
    for sound in [
        "{}",
        " {\"Name\" : \"main\"}\n",
        r#"{"Name":"main","Nested":[{"name":1},{"name":2,"Other":{"name":3}}],"x":[null,true,-1,1.5]}"#,
        r#"{"Name":"\ud83d\ude00","\u00dcber":1,"":2}"#,
        &nested(MAX_DEPTH - 1),
        &members(MOST_MEMBERS),
        &name(MOST_NAME_BYTES),
    ] {
        told(sound).unwrap();
        let event = recorded("StopLogging", sound, &caller(&tcp()), Ok("{}"));
        assert_eq!(event["requestParameters"].is_null(), sound == "{}");
        // It is an event, as deep as it is.
        let text = event.to_string().replace("\"eventID\":null,", "");
        let (given, found) = crate::event::check::read(text.as_bytes()).unwrap();
        let rules = crate::event::Rules {
            max_event_bytes: 1 << 20,
            account: caller(&tcp()).account,
            region: caller(&tcp()).region,
            now: NOW,
        };
        crate::event::check(given, &found, &rules).unwrap();
    }
    for (unsound, why) in [
        (r#"{"Name":"main","name":"sandbox"}"#, "name is given twice"),
        (r#"{"Name":"main","\u006eame":"sandbox"}"#, "given twice"),
        (r#"{"name":"sandbox","Name":"main"}"#, "Name is given twice"),
        (r#"{"x":[{"A":1,"b":0,"a":2}]}"#, "a is given twice"),
        (r#"{"x":1,"x":1}"#, "x is given twice"),
        (r#"{"Name":"main","x":1e999}"#, "out of range"),
        (r#"{"Name":"main","x":"\ud800"}"#, "hex escape"),
        (r#"{"Name":"main"} {}"#, "trailing"),
        ("[]", "not a JSON object"),
        ("", "EOF"),
        (&nested(MAX_DEPTH), "too many levels"),
        (&nested(100_000), "too many levels"),
        (&members(MOST_MEMBERS + 1), "65 members"),
        (&name(MOST_NAME_BYTES + 1), "more than 128 bytes"),
    ] {
        let refused = told(unsound).unwrap_err();
        assert_eq!(refused.code(), "SerializationException");
        let message = refused.to_string();
        assert!(message.contains(why) && message.len() < 400, "{message}");
    }
}

#[test]
fn what_is_too_large_is_left_out_and_marked_and_the_rest_stays() {
    let (a, b) = ("a".repeat(90_000), "b".repeat(60_000));
    let body = format!(r#"{{"Name":"main","A":"{a}","B":"{b}","C":[{{"D":true}}]}}"#);
    let event = recorded("StopLogging", &body, &caller(&tcp()), Ok("{}"));
    assert_eq!(
        event["requestParameters"],
        json!({"name": "main", "aOmitted": {"bytes": 90_002}, "b": b, "c": [{"d": true}]})
    );
    // However a request is padded, within the limits of what is taken.
    let escapes = r"\u0001".repeat(125);
    let long = "x".repeat(16_000);
    let more: String = (100..163)
        .map(|n| format!(r#","{escapes}{n}":"{long}""#))
        .collect();
    let arn = "n".repeat(256);
    let body = format!(r#"{{"Name":"{arn}"{more}}}"#);
    told(&body).unwrap();
    let event = recorded("StopLogging", &body, &caller(&tcp()), Ok("{}"));
    let parameters = &event["requestParameters"];
    assert_eq!(parameters["name"], arn);
    assert_eq!(parameters.as_object().unwrap().len(), 64);
    assert!(parameters.to_string().len() <= MAX_OBJECT_BYTES);
    // All that fits stays.
    let body = format!(r#"{{"N":"{}"}}"#, "x".repeat(MAX_OBJECT_BYTES - 8));
    let event = recorded("ListTrails", &body, &caller(&tcp()), Ok("{}"));
    assert!(event["requestParameters"]["n"].is_string());
}

#[test]
fn fields_are_in_the_order_in_which_cloudtrail_writes_them() {
    let headers = HeaderMap::new();
    let asked = Asked {
        service: Service::CloudTrail,
        operation: "DeleteTrail",
        headers: &headers,
        body: b"{}",
        caller: &caller(&tcp()),
        now: NOW,
        request_id: ID,
    };
    let event = serde_json::to_string(&record(&asked, &Ok(b"{}".to_vec()))).unwrap();
    let order = [
        "eventVersion",
        "userIdentity",
        "eventTime",
        "eventSource",
        "eventName",
        "awsRegion",
        "sourceIPAddress",
        "userAgent",
        "requestParameters",
        "responseElements",
        "requestID",
        "eventID",
        "readOnly",
        "eventType",
        "managementEvent",
        "recipientAccountId",
        "eventCategory",
    ];
    let places = order.map(|name| event.find(&format!("\"{name}\":")).unwrap());
    assert!(places.is_sorted(), "{event}");
}
