//! Calls that are recorded, on a journal on a real disk.

use std::time::Duration;

use super::*;
use crate::ingest::fixture::{self, Knobs};
use records::Metrics;

/// An API with a journal behind it, and what became of calls.
struct Recording {
    api: Api,
    journal: fixture::Fixture,
    preflight: Arc<preflight::fake::Told>,
    _directories: (Fixture, tempfile::TempDir),
}

impl Recording {
    fn new() -> Self {
        let fixture = Fixture::new(vec![]);
        let directory = tempfile::tempdir().unwrap();
        let journal = fixture::open(directory.path(), Knobs::default());
        let home = Home::clone(&fixture.api().home);
        let records = Records::new(journal.ingest.clone(), Metrics::default());
        let api = Api::new(Home {
            records: Some(records),
            ..home
        });
        Self {
            api,
            journal,
            preflight: fixture.preflight.clone(),
            _directories: (fixture, directory),
        }
    }

    async fn ask(&self, operation: &str, body: &str) -> Read {
        ask(&self.api, &cloudtrail(operation), body).await
    }

    /// Preflights give no answer from here on.
    fn hang(&self) {
        self.preflight.gate.forget_permits(usize::MAX);
    }

    fn go_on(&self) {
        self.preflight.gate.add_permits(1000);
    }

    /// Asks for a trail in a task of its own.
    fn create(&self, number: usize) -> tokio::task::JoinHandle<Read> {
        let api = self.api.clone();
        let body = format!(r#"{{"Name":"trail-{number}","S3BucketName":"audit"}}"#);
        tokio::spawn(async move { ask(&api, &cloudtrail("CreateTrail"), body).await })
    }

    async fn until_asked(&self, count: usize) {
        while self.preflight.asked.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn events(&self) -> Vec<Value> {
        let stored = self.journal.stored();
        let events = stored.iter();
        events
            .map(|(_, json)| serde_json::from_str(json).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn what_its_record_could_not_tell_is_not_done_and_is_recorded_as_refused() {
    let recording = Recording::new();
    recording.create(1).await.unwrap();
    let started = recording.ask("StartLogging", r#"{"Name":"trail-1"}"#).await;
    assert_eq!(started.status, 200);
    let (open, close) = ("[".repeat(63), "]".repeat(63));
    let bodies = [
        format!(r#"{{"Name":"trail-1","x":{open}{close}}}"#),
        r#"{"Name":"trail-1","name":"sandbox"}"#.to_owned(),
        r#"{"Name":"trail-1","x":1e999}"#.to_owned(),
    ];
    for body in &bodies {
        let refused = recording.ask("StopLogging", body).await;
        assert_eq!(
            (refused.status, refused.code()),
            (400, "SerializationException")
        );
    }
    let book = recording.api.home.registry.book();
    assert!(book.running().all(|entry| entry.trail.logging.is_on()));
    let events = recording.events();
    assert_eq!(events.len(), 2 + bodies.len());
    for event in &events[2..] {
        assert_eq!(event["eventName"], "StopLogging");
        assert_eq!(event["errorCode"], "SerializationException");
        assert!(event["requestParameters"].is_null());
    }
}

#[tokio::test]
async fn a_change_that_takes_long_is_in_no_senders_way() {
    let recording = Recording::new();
    recording.hang();
    let change = recording.create(1);
    recording.until_asked(1).await;
    // As much as the queue of the journal holds.
    let line = |number: usize| {
        let event = fixture::event(&format!("E{number}"));
        let padding = "x".repeat(250 << 10);
        let event = event.strip_suffix('}').unwrap();
        format!("{event},\"requestParameters\":{{\"x\":\"{padding}\"}}}}\n")
    };
    let body: String = (0..70).map(line).collect();
    let sent = recording
        .journal
        .ingest
        .accept(body.into(), fixture::origin());
    let answer = tokio::time::timeout(Duration::from_secs(20), sent).await;
    let answer = answer.expect("it waits for the change");
    let crate::ingest::Answer::Taken { accepted, .. } = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(accepted, 70);
    assert!(!change.is_finished());
    recording.go_on();
    assert_eq!(change.await.unwrap().status, 200);
    assert_eq!(recording.events().len(), 71);
}

#[tokio::test]
async fn changes_whose_callers_have_hung_up_are_bounded_and_are_recorded() {
    let recording = Recording::new();
    recording.hang();
    let callers: Vec<_> = (0..MOST_CHANGES)
        .map(|number| recording.create(number))
        .collect();
    recording.until_asked(MOST_CHANGES).await;
    for caller in callers {
        caller.abort();
        assert!(caller.await.is_err());
    }
    let late = recording.create(MOST_CHANGES);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = recording.preflight.asked.lock().unwrap().len();
    assert_eq!(asked, MOST_CHANGES, "one more than there may be");
    assert!(!late.is_finished());
    // Those that only read have no part in it.
    assert_eq!(recording.ask("ListTrails", "{}").await.status, 200);
    recording.go_on();
    late.await.unwrap();
    recording.api.settle().await;
    assert_eq!(recording.events().len(), MOST_CHANGES + 2);
}

#[tokio::test]
async fn reading_is_answered_though_the_disk_hangs() {
    let recording = Recording::new();
    // As if all that is queued waited for the disk.
    let hung = recording.journal.wal.reserve(16 << 20).await.unwrap();
    let began = std::time::Instant::now();
    assert_eq!(recording.ask("ListTrails", "{}").await.status, 200);
    assert!(began.elapsed() >= Duration::from_secs(2));
    drop(hung);
    assert_eq!(recording.ask("ListTrails", "{}").await.status, 200);
    assert_eq!(recording.events().len(), 1);
}
