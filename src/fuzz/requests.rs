//! Requests to the listener of the API: CloudTrail's own, those of applications, those of API servers of Kubernetes.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use super::{Input, JSON, corpus, fuzz};
use crate::api::audit_events::tests as audit_events;
use crate::api::tests::{Fixture, cloudtrail, request, send};
use crate::ingest::fixture::{self, Knobs};
use crate::ingest::kubernetes::post_audit;
use crate::ingest::{Accounts, Origin};
use crate::trail::tests::trail;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A file is the operation's name, a line end and the body.
#[test]
fn an_operation_succeeds_or_is_refused_by_a_name_of_cloudtrails_and_never_fails() {
    let tokens = [
        JSON,
        &[
            "\"Name\":\"main\",",
            "\"TrailNameList\":",
            "arn:aws:cloudtrail:us-east-1:111122223333:trail/main",
            "\"MaxResults\":",
            "\"NextToken\":",
            "\"StartTime\":1e300,",
            "GetTrail",
            "UpdateTrail",
        ],
    ]
    .concat();
    fuzz("api", 2_000, &corpus("api"), &tokens, |input| {
        let line = memchr::memchr(b'\n', input).unwrap_or(input.len());
        let operation: String = input[..line]
            .iter()
            .filter(|byte| byte.is_ascii_alphanumeric())
            .map(|byte| char::from(*byte))
            .collect();
        let body = input.get(line + 1..).unwrap_or_default();
        let answer = runtime().block_on(async {
            let fixture = Fixture::new(vec![trail()]);
            send(&fixture.api(), request(&cloudtrail(&operation), body)).await
        });
        match answer.status {
            200 => Input::Understood,
            status => {
                assert!((400..500).contains(&status), "{answer:?}");
                assert!(!answer.code().is_empty());
                Input::Refused
            }
        }
    });
}

#[test]
fn each_audit_event_of_a_request_is_stored_or_named_as_failed() {
    let tokens = [
        JSON,
        &[
            "\"id\":\"1\",",
            "\\\"UID\\\":\\\"u\\\",",
            "\\\"userIdentity\\\":",
            "\\\"recipientAccountId\\\":",
            "\"eventDataChecksum\":\"\",",
            "2026-05-01T00:12:33Z",
        ],
    ]
    .concat();
    let corpus = corpus("audit-events");
    fuzz("audit-events", 300, &corpus, &tokens, |body| {
        runtime().block_on(async {
            let (_files, api, ways) = audit_events::open(Knobs::default()).await;
            let channel = audit_events::arn(audit_events::OWN, audit_events::ID);
            let request = audit_events::request(Method::POST, &channel, body.to_vec());
            let caller = audit_events::caller(audit_events::OWN);
            let peer = "192.0.2.7".to_owned();
            let answer = api.put_audit_events(&ways.ingest, request, &caller, peer);
            let audit_events::Read { head, body: told } =
                audit_events::Read::of(answer.await).await;
            let stored = ways.stored();
            for (_, json) in &stored {
                assert!(serde_json::from_str::<Value>(json).unwrap().is_object());
            }
            if head.status != 200 {
                assert!(head.status.is_client_error(), "{}: {told}", head.status);
                assert!(stored.is_empty(), "{told}");
                return Input::Refused;
            }
            let count = |list: &Value| list.as_array().unwrap().len();
            // Members that are not known are passed over, half a surrogate pair in their names, too.
            let Ok(given) = serde_json::from_slice::<Value>(body) else {
                return Input::Refused;
            };
            let (successful, failed) = (count(&told["successful"]), count(&told["failed"]));
            assert_eq!(stored.len(), successful, "{told}");
            assert_eq!(successful + failed, count(&given["auditEvents"]), "{told}");
            Input::understood(successful > 0)
        })
    });
}

#[test]
fn an_audit_batch_of_kubernetes_becomes_events_or_is_refused() {
    let tokens = [
        JSON,
        &[
            "\"items\":[",
            "\"auditID\":\"a-1\",",
            "\"stage\":\"ResponseComplete\"",
            "\"sourceIPs\":null",
            "2026-05-01T00:19:01.451356Z",
        ],
    ]
    .concat();
    fuzz("kubernetes", 500, &corpus("kubernetes"), &tokens, |body| {
        let directory = tempfile::tempdir().unwrap();
        let fixture = fixture::open(directory.path(), Knobs::default());
        let from = Origin {
            account: None,
            region: None,
            peer: "192.0.2.9".to_owned(),
            accounts: Accounts::every(),
        };
        let request = Request::post("/v1/kubernetes/audit")
            .body(Full::new(Bytes::copy_from_slice(body)))
            .unwrap();
        let (status, answer) = runtime().block_on(async {
            read(post_audit(&fixture.ingest, request, from, Some("prod".to_owned())).await).await
        });
        assert!(
            status == 200 || (400..500).contains(&status),
            "{status}: {answer}"
        );
        let stored = fixture.stored();
        for (_, json) in &stored {
            assert!(serde_json::from_str::<Value>(json).unwrap().is_object());
        }
        assert_eq!(
            stored.len() as u64,
            answer["accepted"].as_u64().unwrap_or(0)
        );
        Input::understood(!stored.is_empty())
    });
}

async fn read(response: Response<Full<Bytes>>) -> (u16, Value) {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), serde_json::from_slice(&body).unwrap())
}
