use std::pin::pin;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::super::tests::Fixture;
use super::event::tests::channel;
use super::*;
use crate::auth::Door;
use crate::ingest::fixture::{self, Knobs};
use crate::server::Peer;

pub(crate) const OWN: &str = "111122223333";
const OTHER: &str = "444455556666";
pub(crate) const ID: &str = "6464f5be-705b-4c51-b64c-d46643ff96dc";

pub(crate) fn arn(account: &str, id: &str) -> String {
    format!("arn:aws:cloudtrail:us-east-1:{account}:channel/{id}")
}

pub(crate) fn caller(account: &str) -> Caller {
    let (account, region) = (account.parse().unwrap(), "us-east-1".parse().unwrap());
    let door = Door::new(account, region, auth::Options::None, Vec::new());
    let (head, ()) = Request::new(()).into_parts();
    let peer = Peer::Tcp("192.0.2.7:40000".parse().unwrap());
    let admitted = door.admit(&head, &peer, auth::CLOUDTRAIL_DATA, WallMillis::now());
    admitted.unwrap().caller
}

/// An API with one channel, [`ID`] of [`OWN`], and the ways in.
pub(crate) async fn open(knobs: Knobs) -> (Fixture, Api, fixture::Fixture) {
    let files = Fixture::new(Vec::new());
    let api = files.api();
    let ingest = fixture::open(&files.path().join("ways-in"), knobs);
    let made = api.home.registry.change(|book| {
        book.channels.create(channel()).unwrap();
        Ok::<_, super::super::Error>(())
    });
    made.await.unwrap();
    (files, api, ingest)
}

pub(crate) fn request(
    method: Method,
    channel: &str,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("/PutAuditEvents?channelArn={channel}"))
        .body(Full::new(body.into()))
        .unwrap()
}

async fn put(api: &Api, ingest: &Ingest, caller: &Caller, channel: &str, body: Value) -> Read {
    let request = request(Method::POST, channel, body.to_string());
    let answer = api.put_audit_events(ingest, request, caller, "192.0.2.7".to_owned());
    Read::of(answer.await).await
}

pub(crate) struct Read {
    pub head: http::response::Parts,
    pub body: Value,
}

impl Read {
    pub async fn of(response: Response<Full<Bytes>>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self {
            head,
            body: serde_json::from_slice(&body).unwrap(),
        }
    }

    fn code(&self) -> &str {
        self.body["__type"].as_str().unwrap_or_default()
    }
}

fn sound(uid: &str) -> Value {
    let data = json!({
        "version": "1.0", "UID": uid,
        "userIdentity": {"type": "Member", "principalId": "alice@example.com"},
        "eventTime": "2026-05-01T00:12:33Z", "eventSource": "wiki.example.com", "eventName": "EditPage",
        "recipientAccountId": OWN,
    });
    json!({"id": uid, "eventData": data.to_string()})
}

#[tokio::test]
async fn a_list_of_whatever_length_is_counted_and_not_kept() {
    let list = |count: usize| format!(r#"{{"auditEvents":[{}]}}"#, vec!["{}"; count].join(","));
    let read: PutAuditEvents = serde_json::from_str(&list(1_000_000)).unwrap();
    let Bounded { kept, count } = read.audit_events;
    assert_eq!((kept.len(), count), (MAX_EVENTS, 1_000_000));
    for (count, told) in [(0, "given: 0"), (101, "given: 101")] {
        let error = checked(serde_json::from_str(&list(count)).unwrap()).unwrap_err();
        assert_eq!(error.code(), "ValidationException");
        assert!(error.to_string().ends_with(told), "{error}");
    }
}

#[tokio::test]
async fn who_may_not_send_is_told_the_same_of_a_channel_that_is_there_and_of_one_that_is_not() {
    let (_files, api, ways) = open(Knobs::default()).await;
    let body = || json!({"auditEvents": [sound("u")]});
    let theirs = caller(OTHER);
    let there = put(&api, &ways.ingest, &theirs, &arn(OWN, ID), body()).await;
    let absent = arn(OWN, &Uuid::nil().to_string());
    let not = put(&api, &ways.ingest, &theirs, &absent, body()).await;
    assert_eq!(there.code(), "ChannelInsufficientPermission");
    assert_eq!(there.head.status, not.head.status);
    let message = not.body.to_string().replace(&absent, &arn(OWN, ID));
    assert_eq!(message, there.body.to_string());
    let own = put(&api, &ways.ingest, &caller(OWN), &absent, body()).await;
    assert_eq!(own.code(), "ChannelNotFound");
    assert!(ways.stored().is_empty());
}

#[tokio::test]
async fn refused_events_are_counted_when_the_others_are_stored() {
    let knobs = Knobs {
        max_bytes: 16 << 10,
        segment_bytes: 8 << 10,
        ..Knobs::default()
    };
    let (_files, api, ways) = open(knobs).await;
    let (mut taken, mut full) = (0, 0);
    for number in 0..60 {
        let bad = json!({"id": "bad", "eventData": "not json"});
        let body = json!({"auditEvents": [sound(&number.to_string()), bad]});
        let answer = put(&api, &ways.ingest, &caller(OWN), &arn(OWN, ID), body).await;
        match answer.head.status.as_u16() {
            200 => taken += 1,
            503 => full += 1,
            status => panic!("{status}: {}", answer.body),
        }
    }
    assert!(taken > 0 && full > 0, "{taken} {full}");
    assert_eq!(ways.metrics.rejected_as(INVALID_DATA), taken);
}

#[tokio::test]
async fn what_came_by_a_channel_that_is_deleted_meanwhile_is_not_remembered() {
    let (_files, api, ways) = open(Knobs::default()).await;
    let (caller, arn) = (caller(OWN), arn(OWN, ID));
    let mut sending = pin!(put(
        &api,
        &ways.ingest,
        &caller,
        &arn,
        json!({"auditEvents": [sound("u")]}),
    ));
    tokio::select! {
        biased;
        answer = &mut sending => panic!("answered before it was durable: {}", answer.body),
        () = std::future::ready(()) => {}
    }
    let gone = arn.clone();
    let deleted = api.home.registry.change(move |book| {
        assert!(book.channels.delete(&gone));
        Ok::<_, super::super::Error>(())
    });
    deleted.await.unwrap();
    api.home.ingestions.forget(&arn);
    let answer = sending.await;
    assert_eq!(answer.head.status, 200, "{}", answer.body);
    assert_eq!(api.home.ingestions.of(&arn), None);
}

#[tokio::test]
async fn another_method_is_told_the_one_that_is_allowed() {
    let (_files, api, ways) = open(Knobs::default()).await;
    let request = request(Method::PUT, &arn(OWN, ID), String::new());
    let caller = caller(OWN);
    let answer = api.put_audit_events(&ways.ingest, request, &caller, "192.0.2.7".to_owned());
    let answer = Read::of(answer.await).await;
    assert_eq!(
        (answer.head.status.as_u16(), &answer.head.headers[ALLOW]),
        (405, &HeaderValue::from_static("POST"))
    );
}
