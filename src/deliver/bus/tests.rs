//! A bus whose every answer a test chooses, on the wire.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::clock::WallMillis;
use crate::deliver::fake::{Answer, Asked, Service};
use crate::deliver::fanout::ItemId;
use crate::trail::tests::{event, trail};

const BUS: &str = "arn:aws:events:eu-west-1:111122223333:event-bus/audit";

fn bus(service: &Service, earlier: Vec<Trail>) -> Bus {
    let options = Options {
        source: "traild.{service}".to_owned(),
        max_bytes: 1000,
    };
    Bus::new(
        Arc::new(trail()),
        earlier
            .into_iter()
            .map(|trail| Earlier {
                trail: Arc::new(trail),
                since: Position(7),
            })
            .collect(),
        BUS.parse().unwrap(),
        client(service),
        options,
    )
}

/// Each client of the service is the same.
fn client(service: &Service) -> Renewing<Client> {
    let client = Client::new(&service.sdk_config());
    Renewing::new(client.clone(), move || std::future::ready(client.clone()))
}

async fn silent() -> Service {
    Service::start(|_| Answer::new(500, "{}")).await
}

fn item(json: impl ToString) -> Item {
    Item {
        id: ItemId {
            position: Position(7),
            index: 0,
        },
        events: 1,
        since: WallMillis(0),
        json: json.to_string().into(),
    }
}

fn entries(bus: &Bus, events: usize) -> Vec<Envelope> {
    let entry = |n| {
        let event = json!({
            "eventID": format!("event-{n}"),
            "eventSource": "iam.amazonaws.com",
            "eventTime": "2026-05-01T00:19:01Z",
        });
        bus.entry(&item(event)).unwrap()
    };
    (0..events).map(entry).collect()
}

/// PutEvents answers `results`, DescribeEventBus that the bus is there.
async fn answering(results: Json) -> Service {
    Service::start(move |asked| match asked.target() {
        "AWSEvents.PutEvents" => Answer::new(200, json!({ "Entries": results })),
        target => panic!("{target} is not asked for"),
    })
    .await
}

/// DescribeEventBus answers so.
async fn describing(status: u16, code: &'static str) -> Service {
    Service::start(move |asked| {
        assert_eq!(asked.target(), "AWSEvents.DescribeEventBus");
        assert_eq!(asked.json(), json!({ "Name": BUS }));
        match code {
            "" => Answer::new(status, json!({ "Name": "audit", "Arn": BUS })),
            code => Answer::new(status, json!({ "__type": code, "message": "no" })),
        }
    })
    .await
}

fn refused(message: &str) -> Verdict {
    Verdict::Refused(Refusal {
        reason: REFUSED,
        message: message.to_owned(),
    })
}

#[tokio::test]
async fn entries_are_sent_as_they_are_and_in_order() {
    let service = answering(json!([{ "EventId": "a" }, { "EventId": "b" }])).await;
    let bus = bus(&service, vec![]);
    let verdicts = bus.send(0, &entries(&bus, 2)).await.unwrap();
    assert_eq!(verdicts, [Verdict::Delivered, Verdict::Delivered]);
    let [asked]: [Asked; 1] = service.asked().try_into().unwrap();
    let entry = |n: usize| {
        json!({
            "EventBusName": BUS,
            "Source": "traild.iam",
            "DetailType": "AWS API Call via CloudTrail",
            "Time": 1_777_594_741,
            "Detail": format!(r#"{{"eventID":"event-{n}","eventSource":"iam.amazonaws.com","eventTime":"2026-05-01T00:19:01Z"}}"#),
        })
    };
    assert_eq!(asked.json(), json!({ "Entries": [entry(0), entry(1)] }));
}

#[tokio::test]
async fn each_entry_has_its_own_verdict() {
    let failed = |code: &str| json!({ "ErrorCode": code, "ErrorMessage": "why" });
    let service = answering(json!([
        { "EventId": "a" },
        failed("ThrottlingException"),
        failed("MalformedDetail"),
        failed("InternalFailure"),
        failed("AccessDeniedException"),
        failed("NotAuthorizedForSourceException"),
        failed("NotAuthorizedForDetailTypeException"),
        { "ErrorCode": "InvalidArgument" },
        {},
        { "EventId": "b" },
    ]))
    .await;
    let bus = bus(&service, vec![]);
    let again = |code: &str| Verdict::Again(Failure::new(code, "why"));
    let verdicts = bus.send(0, &entries(&bus, 10)).await.unwrap();
    let expected = [
        Verdict::Delivered,
        again("ThrottlingException"),
        refused("MalformedDetail: why"),
        again("InternalFailure"),
        again("AccessDeniedException"),
        Verdict::Again(Failure::new(
            "NotAuthorizedForSourceException",
            "why; set sinks.event_bridge_source to a source that this bus takes: \
             not one of AWS's own, which begin with \"aws.\"",
        )),
        Verdict::Again(Failure::new(
            "NotAuthorizedForDetailTypeException",
            "why; this bus takes CloudTrail's detail types from other sources only: \
             set sinks.event_bridge_source to one of them, or event_bus to another bus",
        )),
        refused("InvalidArgument: no message"),
        Verdict::Again(Failure::new(
            "UnexpectedAnswer",
            "PutEvents answered an entry with neither an EventId nor an ErrorCode",
        )),
        Verdict::Delivered,
    ];
    assert_eq!(verdicts, expected);
}

#[tokio::test]
async fn a_refused_request_is_a_failure_of_all_with_the_code_of_the_service() {
    for (status, code) in [
        (400, "ThrottlingException"),
        (400, "AccessDeniedException"),
        (500, "InternalException"),
        (503, "ServiceUnavailable"),
    ] {
        let service = Service::start(move |_| {
            Answer::new(status, json!({ "__type": code, "message": "why" }))
        })
        .await;
        let bus = bus(&service, vec![]);
        let failure = bus.send(0, &entries(&bus, 2)).await.unwrap_err();
        let expected = Failure {
            status: Some(status),
            ..Failure::new(code, "why")
        };
        assert_eq!(failure, expected);
        assert_eq!(service.asked().len(), 1, "retries are for the leg to make");
    }
}

#[tokio::test]
async fn requests_with_expired_credentials_make_the_next_ones_have_others() {
    let expired = |_: &Asked| {
        let error = json!({ "__type": "ExpiredTokenException", "message": "late" });
        Answer::new(400, error)
    };
    let renewed = answering(json!([{ "EventId": "a" }])).await;
    let describable = describing(200, "").await;
    for (asked_to_look, good) in [(false, &renewed), (true, &describable)] {
        let service = Service::start(expired).await;
        let good = Client::new(&good.sdk_config());
        let bus = Bus {
            client: Renewing::new(Client::new(&service.sdk_config()), move || {
                std::future::ready(good.clone())
            }),
            ..bus(&service, vec![])
        };
        if asked_to_look {
            assert!(matches!(bus.confirm().await, Confirmation::Unknown(_)));
            assert_eq!(bus.confirm().await, Confirmation::Arrived);
        } else {
            let failure = bus.send(0, &entries(&bus, 1)).await.unwrap_err();
            assert_eq!(failure.code, "ExpiredTokenException");
            let verdicts = bus.send(0, &entries(&bus, 1)).await;
            assert_eq!(verdicts, Ok(vec![Verdict::Delivered]));
        }
    }
}

#[tokio::test]
async fn what_was_sent_has_arrived_when_the_bus_is_there() {
    let service = describing(200, "").await;
    assert_eq!(bus(&service, vec![]).confirm().await, Confirmation::Arrived);
    assert_eq!(service.asked().len(), 1);
}

#[tokio::test]
async fn what_was_sent_to_a_missing_bus_has_vanished_and_the_message_says_what_to_do() {
    let service = describing(400, "ResourceNotFoundException").await;
    let Confirmation::Vanished(failure) = bus(&service, vec![]).confirm().await else {
        panic!("a missing bus took events");
    };
    assert_eq!(failure.code, "ResourceNotFoundException");
    assert_eq!(
        failure.message,
        format!(
            "event bus {BUS} does not exist in eu-west-1: create it there, or name another one in event_bus; until then its events wait here"
        )
    );
}

#[tokio::test]
async fn where_the_bus_cannot_be_described_it_is_believed_and_not_asked_again_at_once() {
    for (status, code) in [
        (400, "AccessDeniedException"),
        (400, "UnknownOperationException"),
        (400, "InvalidAction"),
        (404, "NotImplemented"),
        (501, "InternalFailure"),
    ] {
        let service = describing(status, code).await;
        let bus = bus(&service, vec![]);
        assert_eq!(bus.is_there().await, Ok(()), "{code}");
        for _ in 0..3 {
            assert_eq!(bus.confirm().await, Confirmation::Arrived, "{code}");
        }
        assert_eq!(service.asked().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn nothing_is_sent_before_the_bus_was_seen() {
    let service = describing(200, "").await;
    assert_eq!(bus(&service, vec![]).is_there().await, Ok(()));
    for (status, code) in [
        (400, "ResourceNotFoundException"),
        (500, "InternalException"),
    ] {
        let service = describing(status, code).await;
        let failure = bus(&service, vec![]).is_there().await.unwrap_err();
        assert_eq!(failure.code, code);
    }
}

#[tokio::test]
async fn while_the_bus_cannot_be_looked_at_nothing_is_known() {
    for (status, code) in [(400, "ThrottlingException"), (500, "InternalException")] {
        let service = describing(status, code).await;
        let Confirmation::Unknown(failure) = bus(&service, vec![]).confirm().await else {
            panic!("{code} said something");
        };
        assert_eq!(failure.code, code);
    }
}

#[tokio::test]
async fn an_event_that_several_trails_select_is_sent_by_the_first_of_them() {
    let service = silent().await;
    let frame = |region: &str| {
        let mut frame = Vec::new();
        event("111122223333", region).encode(&mut frame);
        frame.extend_from_slice(br#"{"eventID":"1"}"#);
        Bytes::from(frame)
    };
    let at_home = Trail {
        is_multi_region: false,
        ..trail()
    };
    let read_at = |at: u64, earlier: Vec<Trail>, region: &str| {
        let items = bus(&service, earlier).read(Position(at), frame(region));
        items.unwrap().len()
    };
    let read = |earlier, region| read_at(7, earlier, region);
    for region in ["us-east-1", "eu-west-1"] {
        assert_eq!(read(vec![], region), 1, "alone, it sends all of its own");
        assert_eq!(read(vec![trail()], region), 0, "the other one sends all");
    }
    assert_eq!(read(vec![at_home.clone()], "us-east-1"), 0);
    assert_eq!(read(vec![at_home.clone()], "eu-west-1"), 1);
    assert_eq!(read(vec![at_home, trail()], "eu-west-1"), 0);
    let before = read_at(6, vec![trail()], "us-east-1");
    assert_eq!(before, 1, "the other one did not send it yet");
    let torn = frame("us-east-1").slice(..10);
    assert!(bus(&service, vec![]).read(Position(7), torn).is_err());
}

#[tokio::test]
async fn an_entry_of_the_limit_is_too_large_and_one_below_it_is_taken() {
    let service = silent().await;
    let bus = bus(&service, vec![]);
    let entry = |size: usize| {
        // "traild.iam" and "AWS API Call via CloudTrail" are 37 bytes, the rest of the event 42.
        let padding = "x".repeat(size - 37 - 42);
        bus.entry(&item(format!(
            r#"{{"eventSource":"iam.amazonaws.com","p":"{padding}"}}"#
        )))
    };
    assert_eq!(entry(999).unwrap().size(), 999);
    let refusal = entry(1000).unwrap_err();
    assert_eq!(refusal.reason, TOO_LARGE);
    assert_eq!(
        refusal.message,
        "the entry has 1000 bytes, one request must have less than 1000"
    );
}

proptest! {
    #[test]
    fn requests_are_within_both_limits_and_as_large_as_they_may_be(
        sizes in prop::collection::vec(prop_oneof![1..=9u64, 1..=99u64, 90..=99u64], 1..60)
    ) {
        const MAX_BYTES: u64 = 100;
        let mut rest = &sizes[..];
        while !rest.is_empty() {
            let count = fits(rest.iter().copied(), MAX_BYTES);
            let (request, left) = rest.split_at(count);
            let total: u64 = request.iter().sum();
            prop_assert!((1..=MAX_ENTRIES).contains(&count) && total < MAX_BYTES);
            let room_for_next = left.first().is_some_and(|next| total + next < MAX_BYTES);
            prop_assert!(!room_for_next || count == MAX_ENTRIES, "the next one would have fitted");
            rest = left;
        }
    }
}
