//! A topic whose every answer a test chooses, on the wire.

use proptest::prelude::*;

use super::*;
use crate::clock::WallMillis;
use crate::deliver::fake::{Answer, Service};
use crate::ledger::{Checkpoint, Entry, Settled, StreamName, Totals};
use crate::trail::Stream;
use crate::trail::tests::{event, trail};

const TOPIC: &str = "arn:aws:sns:eu-west-1:111122223333:trail";
const TRAIL: &str = "arn:aws:cloudtrail:us-east-1:111122223333:trail/main";

fn notifications(service: &Service) -> Notifications {
    let client = Client::new(&service.sdk_config());
    let client = Renewing::new(client.clone(), move || std::future::ready(client.clone()));
    Notifications::new(&trail(), TOPIC.parse().unwrap(), client)
}

/// SNS, once it takes a message.
async fn taking() -> Service {
    Service::start(|_| {
        let answer = "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult>\
            <MessageId>m</MessageId></PublishResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></PublishResponse>";
        Answer::new(200, answer)
    })
    .await
}

/// SNS, while it refuses every message.
async fn refusing(status: u16, code: &'static str) -> Service {
    Service::start(move |_| {
        let answer = format!(
            "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>why</Message></Error><RequestId>r</RequestId></ErrorResponse>"
        );
        Answer::new(status, answer)
    })
    .await
}

/// The form that a service was sent, as names and values without their escapes.
fn forms(service: &Service) -> Vec<Vec<(String, String)>> {
    let asked = service.asked().into_iter();
    let form = |body: Bytes| {
        let body = String::from_utf8(body.to_vec()).unwrap();
        let pairs = body.split('&').map(|pair| pair.split_once('=').unwrap());
        pairs
            .map(|(name, value)| (plain(name), plain(value)))
            .collect()
    };
    asked.map(|asked| form(asked.body)).collect()
}

fn plain(escaped: &str) -> String {
    let mut parts = escaped.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at(2);
        bytes.extend(hex::decode(code).unwrap());
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).unwrap()
}

fn publish(message: &str) -> Vec<(String, String)> {
    let form = [
        ("Action", "Publish"),
        ("Version", "2010-03-31"),
        ("TopicArn", TOPIC),
        ("Message", message),
    ];
    form.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

fn settled(trail: &str, key: &str) -> Settled {
    Settled {
        trail: trail.to_owned(),
        stream: StreamName(Stream::from(&event("111122223333", "us-east-1"))),
        first: Position(64),
        object: Some(Object {
            bucket: "audit-bucket".to_owned(),
            key: key.to_owned(),
            sha256: "00".to_owned(),
            etag: None,
            bytes: 100,
            events: 17,
            oldest_event_time: 1,
            newest_event_time: 2,
        }),
        lost: 0,
        settled_at: WallMillis(9),
    }
}

const KEY: &str = "AWSLogs/111122223333/CloudTrail/us-east-1/2026/05/01/111122223333_CloudTrail_us-east-1_20260501T0025Z_k3Jq9ZxPa0LmN7cD.json.gz";

#[test]
fn a_log_file_in_its_bucket_is_one_notification_in_cloudtrails_words() {
    let frame = ledger::encode(&[Entry::Settled(settled(TRAIL, KEY))]);
    let [item]: [Item; 1] = items(TRAIL, Position(7), &frame).try_into().unwrap();
    let expected = Item {
        id: ItemId {
            position: Position(7),
            index: 0,
        },
        events: 17,
        since: WallMillis(9),
        json: Bytes::from_static(
            br#"{"s3Bucket":"audit-bucket","s3ObjectKey":["AWSLogs/111122223333/CloudTrail/us-east-1/2026/05/01/111122223333_CloudTrail_us-east-1_20260501T0025Z_k3Jq9ZxPa0LmN7cD.json.gz"]}"#,
        ),
    };
    assert_eq!(item, expected);
}

#[test]
fn only_what_this_trail_has_delivered_is_told_and_each_by_its_own_number() {
    let nothing_left = Settled {
        object: None,
        lost: 17,
        ..settled(TRAIL, "lost")
    };
    let checkpoint = Checkpoint {
        trail: TRAIL.to_owned(),
        horizon: Position(0),
        sealed_through: vec![],
        totals: Totals::default(),
    };
    let mut frame = ledger::encode(&[
        Entry::Checkpoint(checkpoint),
        Entry::Settled(settled(TRAIL, "one")),
        Entry::Settled(settled(
            "arn:aws:cloudtrail:us-east-1:111122223333:trail/main2",
            "x",
        )),
        Entry::Settled(nothing_left),
    ]);
    frame.extend_from_slice(b"{\"entry\":\"from the future\"}\nnot JSON \xff\n");
    frame.extend(ledger::encode(&[Entry::Settled(settled(
        TRAIL,
        "two \"é\"",
    ))]));
    let told: Vec<(u32, String)> = items(TRAIL, Position(7), &frame)
        .into_iter()
        .map(|item| {
            (
                item.id.index,
                String::from_utf8(item.json.to_vec()).unwrap(),
            )
        })
        .collect();
    let expected = [
        (
            1,
            r#"{"s3Bucket":"audit-bucket","s3ObjectKey":["one"]}"#.to_owned(),
        ),
        (
            6,
            r#"{"s3Bucket":"audit-bucket","s3ObjectKey":["two \"é\""]}"#.to_owned(),
        ),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_new_topic_gets_cloudtrails_validation_message() {
    let service = taking().await;
    notifications(&service).introduce().await.unwrap();
    assert_eq!(forms(&service), [publish("CloudTrail validation message.")]);
}

#[tokio::test]
async fn a_notification_is_published_as_it_is_without_a_subject() {
    let service = taking().await;
    let notifications = notifications(&service);
    let frame = ledger::encode(&[Entry::Settled(settled(TRAIL, "é&=+%/ .gz"))]);
    let items = notifications.read(Position(7), frame.into()).unwrap();
    let entry = notifications.entry(&items[0]).unwrap();
    let verdicts = notifications.send(0, &[entry]).await.unwrap();
    assert_eq!(verdicts, [Verdict::Delivered]);
    let message = r#"{"s3Bucket":"audit-bucket","s3ObjectKey":["é&=+%/ .gz"]}"#;
    assert_eq!(forms(&service), [publish(message)]);
}

#[tokio::test]
async fn a_refused_message_is_a_failure_with_the_code_of_the_service() {
    for (status, code) in [
        (400, "Throttling"),
        (403, "AuthorizationError"),
        (400, "InvalidParameter"),
        (500, "InternalError"),
        (400, "KMSAccessDenied"),
    ] {
        let service = refusing(status, code).await;
        let notifications = notifications(&service);
        let expected = Failure {
            status: Some(status),
            ..Failure::new(code, "why")
        };
        let sent = notifications.send(0, &["{}".to_owned()]).await;
        assert_eq!(sent, Err(expected.clone()));
        assert_eq!(notifications.introduce().await, Err(expected));
        assert_eq!(service.asked().len(), 2, "retries are for the leg to make");
    }
}

#[tokio::test]
async fn a_missing_topic_is_named_with_what_to_do() {
    let service = refusing(404, "NotFound").await;
    let sent = notifications(&service).send(0, &["{}".to_owned()]).await;
    let failure = sent.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.status),
        ("NotFound", Some(404))
    );
    assert_eq!(
        failure.message,
        format!(
            "topic {TOPIC} does not exist: create it, or name another one in sns_topic_arn; until then its notifications wait here"
        )
    );
}

#[test]
fn a_message_of_the_limit_is_taken_and_one_over_it_is_too_large() {
    assert!(message(&vec![b'x'; MAX_MESSAGE_BYTES]).is_ok());
    let refusal = message(&vec![b'x'; MAX_MESSAGE_BYTES + 1]).unwrap_err();
    assert_eq!(refusal.reason, TOO_LARGE);
    assert_eq!(
        refusal.message,
        "the message has 262145 bytes, SNS takes at most 262144"
    );
    assert_eq!(message(b"\xff").unwrap_err().reason, REFUSED);
}

proptest! {
    #[test]
    fn hostile_frames_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(items(TRAIL, Position(0), &bytes), vec![]);
    }
}
