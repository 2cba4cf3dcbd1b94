use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::super::Accounts;
use super::super::fixture::{Fixture, Knobs, open};
use super::*;

/// An event as an API server of 1.30 writes it, its content made up.
fn event(audit_id: &str) -> Value {
    json!({
        "level": "RequestResponse", "auditID": audit_id, "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/shop/pods?fieldManager=kubectl-run", "verb": "create",
        "user": {"username": "alice@example.com", "uid": "u-1", "groups": ["dev", "system:authenticated"], "extra": {"scopes": ["a"]}},
        "sourceIPs": ["198.51.100.7", "192.0.2.1"], "userAgent": "kubectl/v1.30.1 (linux/amd64) kubernetes/6911225",
        "objectRef": {"resource": "pods", "namespace": "shop", "name": "web", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 201},
        "requestObject": {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web"}},
        "responseObject": {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web", "uid": "p-1"}},
        "requestReceivedTimestamp": "2026-05-01T00:19:01.451356Z", "stageTimestamp": "2026-05-01T00:19:01.460002Z",
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "RBAC: allowed"},
    })
}

fn list(items: &[Value]) -> String {
    json!({"kind": "EventList", "apiVersion": API_VERSION, "metadata": {}, "items": items})
        .to_string()
}

async fn post(fixture: &Fixture, body: impl Into<Bytes>) -> (u16, Value) {
    post_as(fixture, body, Accounts::every()).await
}

async fn post_as(fixture: &Fixture, body: impl Into<Bytes>, accounts: Accounts) -> (u16, Value) {
    let from = Origin {
        account: Some("111122223333".parse().unwrap()),
        region: Some("us-east-1".parse().unwrap()),
        peer: "192.0.2.9".to_owned(),
        accounts,
    };
    let request = Request::post("/v1/kubernetes/audit")
        .body(Full::new(body.into()))
        .unwrap();
    let response = post_audit(&fixture.ingest, request, from, Some("prod".to_owned())).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), serde_json::from_slice(&body).unwrap())
}

fn records(fixture: &Fixture) -> Vec<Value> {
    let stored = fixture.stored();
    stored
        .iter()
        .map(|(_, json)| serde_json::from_str(json).unwrap())
        .collect()
}

fn counts(answer: &Value) -> (u64, u64, u64, usize) {
    let number = |name: &str| answer[name].as_u64().unwrap();
    let rejected = answer["rejected"].as_array().unwrap().len();
    (
        number("accepted"),
        number("duplicates"),
        number("skipped"),
        rejected,
    )
}

#[tokio::test]
async fn an_answered_request_becomes_one_record() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let (status, answer) = post(&fixture, list(&[event("a-1")])).await;
    assert_eq!((status, counts(&answer)), (200, (1, 0, 0, 0)), "{answer}");
    assert_eq!(
        records(&fixture),
        [json!({
            "eventVersion": "1.11",
            "userIdentity": {
                "type": "KubernetesUser", "principalId": "u-1", "userName": "alice@example.com",
                "groups": ["dev", "system:authenticated"], "extra": {"scopes": ["a"]},
            },
            "eventTime": "2026-05-01T00:19:01Z", "eventSource": "kubernetes.io", "eventName": "CreatePods",
            "awsRegion": "us-east-1", "sourceIPAddress": "192.0.2.1", "userAgent": "kubectl/v1.30.1 (linux/amd64) kubernetes/6911225",
            "requestParameters": {
                "requestURI": "/api/v1/namespaces/shop/pods?fieldManager=kubectl-run", "verb": "create",
                "objectRef": {"resource": "pods", "namespace": "shop", "name": "web", "apiVersion": "v1"},
                "requestObject": {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web"}},
            },
            "responseElements": {
                "responseStatus": {"code": 201},
                "responseObject": {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web", "uid": "p-1"}},
            },
            "additionalEventData": {
                "cluster": "prod", "level": "RequestResponse", "stage": "ResponseComplete",
                "requestReceivedTimestamp": "2026-05-01T00:19:01.451356Z", "stageTimestamp": "2026-05-01T00:19:01.460002Z",
                "sourceIPs": ["198.51.100.7", "192.0.2.1"],
                "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "RBAC: allowed"},
            },
            "eventID": "a-1", "readOnly": false, "eventType": "AwsApiCall", "managementEvent": true,
            "resources": [{
                "type": "Kubernetes::core::pods", "accountId": "111122223333",
                "ARN": "arn:aws:traild:us-east-1:111122223333:kubernetes/prod/api/v1/namespaces/shop/pods/web",
            }],
            "apiVersion": "v1", "recipientAccountId": "111122223333", "eventCategory": "Management",
        })]
    );
}

#[tokio::test]
async fn stages_without_an_outcome_are_skipped_and_batches_come_again_unharmed() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let mut received = event("a-1");
    received["stage"] = "RequestReceived".into();
    let mut started = event("a-2");
    started["stage"] = "ResponseStarted".into();
    let mut panicked = event("a-3");
    panicked["stage"] = "Panic".into();
    panicked["responseStatus"] =
        json!({"code": 500, "status": "Failure", "message": "APIServer panic'd"});
    let batch = list(&[received, event("a-1"), started, panicked]);
    let (status, answer) = post(&fixture, batch.clone()).await;
    assert_eq!((status, counts(&answer)), (200, (2, 0, 2, 0)), "{answer}");
    let (status, answer) = post(&fixture, batch).await;
    assert_eq!((status, counts(&answer)), (200, (0, 2, 2, 0)), "{answer}");
    // Somebody chose an Audit-ID that was there before.
    let mut hidden = event("a-1");
    hidden["verb"] = "delete".into();
    let (_, answer) = post(&fixture, list(&[hidden])).await;
    assert_eq!(counts(&answer), (1, 0, 0, 0), "{answer}");
    let records = records(&fixture);
    let names: Vec<_> = records.iter().map(|record| &record["eventName"]).collect();
    assert_eq!(names, ["CreatePods", "CreatePods", "DeletePods"]);
    assert_eq!(
        (&records[1]["errorCode"], &records[1]["errorMessage"]),
        (&json!("Panic"), &json!("APIServer panic'd"))
    );
    assert_eq!(fixture.metrics.skipped.get(), 4);
    // One by itself is fine, too.
    let mut single = event("a-9");
    single["kind"] = "Event".into();
    single["apiVersion"] = API_VERSION.into();
    let (status, answer) = post(&fixture, single.to_string()).await;
    assert_eq!((status, counts(&answer)), (200, (1, 0, 0, 0)), "{answer}");
    let (status, answer) = post(&fixture, list(&[])).await;
    assert_eq!((status, counts(&answer)), (200, (0, 0, 0, 0)), "{answer}");
}

#[tokio::test]
async fn names_directions_and_callers_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let object = |resource: &str, subresource: &str| json!({"resource": resource, "subresource": subresource, "apiGroup": "apps", "apiVersion": "v1"});
    let rows = [
        ("get", object("deployments", ""), "GetDeployments", true),
        ("list", object("deployments", ""), "ListDeployments", true),
        (
            "watch",
            object("deployments", "status"),
            "WatchDeploymentsStatus",
            true,
        ),
        ("get", object("pods", "exec"), "GetPodsExec", false),
        (
            "create",
            object("pods", "portforward"),
            "CreatePodsPortforward",
            false,
        ),
        (
            "deletecollection",
            object("secrets", ""),
            "DeletecollectionSecrets",
            false,
        ),
        ("patch", object("x-y.z", ""), "PatchXYZ", false),
        ("get", Value::Null, "GetNonResourceURL", true),
        ("post", Value::Null, "PostNonResourceURL", false),
        ("---", Value::Null, "NonResourceURL", false),
    ];
    let items: Vec<Value> = rows
        .iter()
        .enumerate()
        .map(|(number, (verb, object, ..))| {
            let mut event = event(&format!("a-{number}"));
            event["verb"] = (*verb).into();
            event["objectRef"] = object.clone();
            event
        })
        .collect();
    let (status, answer) = post(&fixture, list(&items)).await;
    assert_eq!(status, 200, "{answer}");
    for (record, (_, _, name, read_only)) in records(&fixture).iter().zip(&rows) {
        assert_eq!(
            (&record["eventName"], &record["readOnly"]),
            (&json!(name), &json!(read_only))
        );
    }

    let mut by_service = event("s-1");
    by_service["user"] = json!({"username": "system:serviceaccount:shop:deployer", "uid": ""});
    by_service["impersonatedUser"] = json!({"username": "root", "groups": ["system:masters"]});
    by_service["responseStatus"] = json!({"status": "Failure", "message": "pods is forbidden", "reason": "Forbidden", "code": 403});
    by_service["sourceIPs"] = Value::Null;
    by_service.as_object_mut().unwrap().remove("responseObject");
    post(&fixture, list(&[by_service])).await;
    let record = records(&fixture).pop().unwrap();
    assert_eq!(
        record["userIdentity"],
        json!({
            "type": "KubernetesServiceAccount", "principalId": "system:serviceaccount:shop:deployer",
            "userName": "system:serviceaccount:shop:deployer", "serviceAccount": {"namespace": "shop", "name": "deployer"},
            "impersonatedUser": {"username": "root", "groups": ["system:masters"]},
        })
    );
    assert_eq!(
        (&record["errorCode"], &record["errorMessage"]),
        (&json!("Forbidden"), &json!("pods is forbidden"))
    );
    assert_eq!(
        record["responseElements"],
        json!({"responseStatus": {"status": "Failure", "reason": "Forbidden", "code": 403}})
    );
    assert_eq!(record["sourceIPAddress"], "kubernetes.io");

    let mut many = event("m-1");
    let addresses: Vec<String> = (0..30).map(|n| format!("192.0.2.{n}")).collect();
    many["sourceIPs"] = json!(addresses);
    let long = "n".repeat(5000);
    many["user"] = json!({"username": format!("system:serviceaccount:{long}:{long}")});
    post(&fixture, list(&[many])).await;
    let record = records(&fixture).pop().unwrap();
    assert_eq!(record["sourceIPAddress"], "192.0.2.29");
    assert_eq!(
        record["additionalEventData"]["sourceIPs"],
        json!(addresses[10..])
    );
    let cut = format!("{}…", &long[..1024]);
    assert_eq!(
        record["userIdentity"]["serviceAccount"],
        json!({"namespace": cut, "name": cut})
    );
}

/// So deep that a record with it would be refused.
fn deep(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

#[tokio::test]
async fn what_a_client_makes_large_or_deep_is_left_out_and_the_event_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let large = |bytes: usize| json!({"data": "x".repeat(bytes)});
    let mut events = Vec::new();
    for (number, (member, value)) in [
        ("requestObject", large(100 << 10)),
        ("requestObject", json!({"spec": deep(60)})),
        ("responseObject", large(3 << 20)),
        ("annotations", large(28 << 10)),
        ("impersonatedUser", large(8 << 10)),
        ("userAgent", json!("\u{1}".repeat(100_000))),
        ("requestURI", json!(format!("/{}", "é".repeat(100_000)))),
        ("verb", json!("G".repeat(10_000))),
        ("sourceIPs", json!(vec!["203.0.113.250"; 10_000])),
        ("objectRef", json!({"resource": "r".repeat(10_000), "name": "n".repeat(10_000), "subresource": "\u{202e}/"})),
    ]
    .into_iter()
    .enumerate()
    {
        let mut event = event(&format!("a-{number}"));
        event[member] = value;
        events.push(event);
    }
    let mut both = event("both");
    both["requestObject"] = large((100 << 10) - 100);
    both["responseObject"] = large((100 << 10) - 100);
    both["requestURI"] = json!("\u{1}".repeat(100_000));
    both["userAgent"] = json!("\u{1}".repeat(100_000));
    both["annotations"] = large((28 << 10) - 100);
    events.push(both);
    let count = events.len() as u64;
    let (status, answer) = post(&fixture, list(&events)).await;
    assert_eq!(
        (status, counts(&answer)),
        (200, (count, 0, 0, 0)),
        "{answer}"
    );
    let records = records(&fixture);
    let bytes = (100 << 10) + 11;
    assert_eq!(
        records[0]["requestParameters"]["requestObjectOmitted"],
        json!({"bytes": bytes})
    );
    assert!(
        records[0]["requestParameters"]
            .get("requestObject")
            .is_none()
    );
    assert!(records[1]["requestParameters"]["requestObjectOmitted"].is_object());
    assert!(records[2]["responseElements"]["responseObjectOmitted"].is_object());
    assert!(records[3]["additionalEventData"]["annotationsOmitted"].is_object());
    assert!(records[4]["userIdentity"]["impersonatedUserOmitted"].is_object());
    let last = records.last().unwrap();
    assert!(last["responseElements"]["responseObjectOmitted"].is_object());
    assert!(last["requestParameters"]["requestObject"].is_object());
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    for body in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1beta1", "items": []}).to_string(),
        json!({"kind": "Policy", "apiVersion": API_VERSION}).to_string(),
        json!({"kind": "EventList", "apiVersion": API_VERSION, "items": 5}).to_string(),
    ] {
        let (status, answer) = post(&fixture, body.clone()).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (400, Some("InvalidKubernetesAudit")),
            "{body}"
        );
    }
    let mut timeless = event("a-1");
    timeless["requestReceivedTimestamp"] = "".into();
    timeless["stageTimestamp"] = "never".into();
    let mut nameless = event("");
    nameless["verb"] = "get".into();
    let (status, answer) = post(
        &fixture,
        list(&[
            json!(7),
            nameless,
            timeless,
            json!({"stage": "ResponseComplete", "auditID": "x"}),
        ]),
    )
    .await;
    assert_eq!((status, counts(&answer)), (400, (0, 0, 0, 4)), "{answer}");
    let codes: Vec<_> = answer["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refused| (&refused["index"], &refused["code"]))
        .collect();
    assert_eq!(
        codes,
        [
            (&json!(0), &json!("InvalidJson")),
            (&json!(1), &json!("MissingField")),
            (&json!(2), &json!("InvalidEventTime")),
            (&json!(3), &json!("MissingField")),
        ]
    );
    let (status, answer) = post(&fixture, list(&[event("good"), json!(7)])).await;
    assert_eq!((status, counts(&answer)), (200, (1, 0, 0, 1)), "{answer}");
}

#[tokio::test]
async fn a_full_journal_asks_the_server_to_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(
        directory.path(),
        Knobs {
            max_bytes: 16 << 10,
            segment_bytes: 8 << 10,
            ..Knobs::default()
        },
    );
    let mut statuses = Vec::new();
    for number in 0..20 {
        let mut received = event("r-1");
        received["stage"] = "RequestReceived".into();
        let batch = list(&[event(&number.to_string()), received, json!(7)]);
        let (status, answer) = post(&fixture, batch).await;
        statuses.push(status);
        assert!(status == 200 || answer["code"] == "JournalFull", "{answer}");
    }
    assert!(
        statuses.contains(&200) && statuses.contains(&503),
        "{statuses:?}"
    );
    let taken = statuses.iter().filter(|status| **status == 200).count() as u64;
    let metrics = &fixture.metrics;
    assert_eq!(
        (metrics.skipped.get(), metrics.rejected(Code::InvalidJson)),
        (taken, taken),
        "what comes again is not counted twice"
    );
}

/// A list of these items, as they are.
fn raw_list(items: &str) -> String {
    format!(r#"{{"kind":"EventList","apiVersion":"{API_VERSION}","items":[{items}]}}"#)
}

#[tokio::test]
async fn a_list_of_whatever_length_takes_bounded_memory() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let (status, answer) = post(&fixture, raw_list(&vec!["7"; 4_000_000].join(","))).await;
    assert_eq!(
        (status, &answer["code"]),
        (413, &json!("BodyTooLarge")),
        "{answer}"
    );
    let told = answer["message"].as_str().unwrap();
    assert!(told.contains("given: 4000000"), "{told}");
    // Within the length, but more refusals than there is room for.
    let (status, answer) = post(&fixture, raw_list(&vec!["7"; MAX_ITEMS].join(","))).await;
    assert_eq!(
        (status, &answer["code"]),
        (400, &json!("TooManyRejected")),
        "{answer}"
    );
    assert!(answer.to_string().len() < 1000);
    // Within the length, but each becomes a much larger record.
    let resource = "r".repeat(60);
    let tiny =
        json!({"stage": "Panic", "auditID": "a", "verb": "x", "objectRef": {"resource": resource}});
    let tiny = vec![tiny.to_string(); MAX_ITEMS].join(",");
    let (status, answer) = post(&fixture, raw_list(&tiny)).await;
    let told = answer["message"].as_str().unwrap_or_default();
    assert!(
        status == 413 && told.starts_with("the records of the first"),
        "{answer}"
    );
    assert!(fixture.stored().is_empty());
    assert_eq!(fixture.metrics.rejected(Code::InvalidJson), 0);
}

#[tokio::test]
async fn bytes_that_are_not_utf8_lose_no_event() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let mut strange = event("a-1");
    strange["requestObject"] = json!({"data": "x@y"});
    let mut body = list(&[strange, event("a-2")]).into_bytes();
    let data = body.windows(3).position(|bytes| bytes == b"x@y").unwrap();
    body[data + 1] = 0xff;
    let (status, answer) = post(&fixture, body).await;
    assert_eq!((status, counts(&answer)), (200, (2, 0, 0, 0)), "{answer}");
    let stored = records(&fixture);
    assert_eq!(
        stored[0]["requestParameters"]["requestObject"]["data"],
        "x\u{fffd}y"
    );
    assert_eq!(stored[1]["eventID"], "a-2");
}

#[tokio::test]
async fn who_may_not_send_is_told_before_an_event_is_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let nobody = || Accounts::asking(|account| Err(format!("not of {account}")));
    let batch = list(&[event("a-1"), json!(7)]);
    let (status, answer) = post_as(&fixture, batch, nobody()).await;
    assert_eq!((status, counts(&answer)), (403, (0, 0, 0, 2)), "{answer}");
    for refused in answer["rejected"].as_array().unwrap() {
        assert_eq!(
            (&refused["code"], &refused["message"]),
            (&json!("AccessDenied"), &json!("not of 111122223333"))
        );
    }
    assert_eq!(fixture.metrics.rejected(Code::AccessDenied), 2);
    assert!(fixture.stored().is_empty());
}
