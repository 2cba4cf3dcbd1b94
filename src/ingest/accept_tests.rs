use super::super::fixture::{Knobs, anonymous, event, open, origin};
use super::*;
use crate::event::{Category, Code};

fn taken(answer: Answer) -> (usize, usize, Vec<(usize, &'static str)>) {
    match answer {
        Answer::Taken {
            accepted,
            duplicates,
            rejected,
        } => (
            accepted,
            duplicates,
            rejected
                .into_iter()
                .map(|refused| (refused.index, refused.code))
                .collect(),
        ),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_accepted_is_in_the_journal_byte_for_byte() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let body = format!(
        "{}\n{}\nnot json\n{}\n",
        event("A"),
        event("B").replace("2026-05", "2026-13"),
        anonymous("GetIt")
    );
    let answer = fixture.ingest.accept(body.into(), origin()).await;
    let Answer::Taken { rejected, .. } = &answer else {
        panic!("{answer:?}")
    };
    assert_eq!(rejected[0].event_id.as_deref(), Some("id-B"));
    assert_eq!(
        taken(answer),
        (2, 0, vec![(1, "InvalidEventTime"), (2, "InvalidJson")])
    );
    let stored = fixture.stored();
    assert_eq!(stored.len(), 2);
    let (meta, json) = &stored[0];
    assert!(json.starts_with(event("A").strip_suffix('}').unwrap()));
    assert_eq!(
        (meta.account.as_str(), meta.region.as_str()),
        ("111122223333", "us-east-1")
    );
    assert_eq!(
        (meta.category, meta.event_time),
        (Category::Management, 1_777_594_741)
    );
    let (meta, json) = &stored[1];
    assert_eq!(
        (meta.account.as_str(), meta.region.as_str()),
        ("999988887777", "eu-central-1")
    );
    let filled: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(filled["sourceIPAddress"], "192.0.2.7");
    assert_eq!(filled["readOnly"], true);
    assert_eq!(
        filled["eventID"].as_str().unwrap(),
        uuid::Uuid::from_bytes(meta.fingerprint).to_string()
    );
    assert_eq!(
        (
            fixture.metrics.accepted.get(),
            fixture.metrics.rejected(Code::InvalidJson)
        ),
        (2, 1)
    );
}

#[tokio::test]
async fn the_caller_gives_what_events_do_not_name() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let from = Origin {
        account: Some("222233334444".parse().unwrap()),
        region: Some("ap-south-1".parse().unwrap()),
        ..origin()
    };
    fixture.ingest.accept(anonymous("A").into(), from).await;
    let (meta, _) = &fixture.stored()[0];
    assert_eq!(
        (meta.account.as_str(), meta.region.as_str()),
        ("222233334444", "ap-south-1")
    );
}

#[tokio::test]
async fn sent_again_it_is_a_duplicate_and_with_other_content_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let batch = |names: &[&str]| {
        names
            .iter()
            .map(|name| event(name))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(
        taken(
            fixture
                .ingest
                .accept(batch(&["A", "B", "A"]).into(), origin())
                .await
        ),
        (2, 1, vec![])
    );
    assert_eq!(
        taken(
            fixture
                .ingest
                .accept(batch(&["A", "B"]).into(), origin())
                .await
        ),
        (0, 2, vec![])
    );
    assert_eq!(
        taken(
            fixture
                .ingest
                .accept(batch(&["C", "B", "D"]).into(), origin())
                .await
        ),
        (2, 1, vec![])
    );
    let changed = event("A").replace("s3.", "s4.");
    assert_eq!(
        taken(fixture.ingest.accept(changed.into(), origin()).await),
        (1, 0, vec![])
    );
    // Without an eventID nothing says that it is the same one.
    for _ in 0..2 {
        assert_eq!(
            taken(fixture.ingest.accept(anonymous("X").into(), origin()).await),
            (1, 0, vec![])
        );
    }
    assert_eq!(fixture.stored_names(), ["A", "B", "C", "D", "A", "X", "X"]);
    assert_eq!(
        (
            fixture.metrics.accepted.get(),
            fixture.metrics.duplicate.get()
        ),
        (7, 4)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_request_eight_times_at_once_is_stored_once() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    for round in 0..20 {
        let body: String = (0..50)
            .map(|n| event(&format!("E{round}x{n}")) + "\n")
            .collect();
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (ingest, body, wal) = (
                    fixture.ingest.clone(),
                    Bytes::from(body.clone()),
                    fixture.wal.clone(),
                );
                tokio::spawn(async move {
                    let answer = taken(ingest.accept(body, origin()).await);
                    // Whoever is answered is answered about durable events.
                    assert!(wal.durable() > crate::wal::Position(0));
                    answer
                })
            })
            .collect();
        let (mut accepted, mut duplicates) = (0, 0);
        for task in tasks {
            let answer = task.await.unwrap();
            accepted += answer.0;
            duplicates += answer.1;
        }
        assert_eq!((accepted, duplicates), (50, 350));
        assert_eq!(fixture.stored().len(), 50 * (round + 1));
    }
}

/// Overlapping requests in opposite orders, so that each waits for part of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn overlapping_requests_store_each_event_once() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let tasks: Vec<_> = (0..16)
        .map(|task: usize| {
            let ingest = fixture.ingest.clone();
            let body: String = (0..100)
                .map(|n| event(&format!("E{}", (n * 7 + task * 13) % 150)) + "\n")
                .collect();
            tokio::spawn(async move { taken(ingest.accept(body.into(), origin()).await) })
        })
        .collect();
    let mut accepted = 0;
    for task in tasks {
        let answer = task.await.unwrap();
        assert_eq!(answer.0 + answer.1, 100);
        accepted += answer.0;
    }
    let mut names = fixture.stored_names();
    assert_eq!(names.len(), accepted);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), accepted);
}

#[tokio::test]
async fn a_sender_that_hangs_up_leaves_a_memory_that_is_true() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    {
        let mut accept = std::pin::pin!(fixture.ingest.accept(event("A").into(), origin()));
        // Far enough to be enqueued, not answered.
        let _ = futures::poll!(&mut accept);
    }
    assert_eq!(
        taken(fixture.ingest.accept(event("A").into(), origin()).await),
        (0, 1, vec![])
    );
    assert_eq!(fixture.stored_names(), ["A"]);
}

#[tokio::test]
async fn the_memory_survives_a_restart_and_the_removal_of_segments() {
    let directory = tempfile::tempdir().unwrap();
    let knobs = Knobs {
        segment_bytes: 16 << 10,
        ..Knobs::default()
    };
    let body: String = (0..200).map(|n| event(&format!("E{n}")) + "\n").collect();
    let mut fixture = open(directory.path(), knobs);
    for lines in body.lines().collect::<Vec<_>>().chunks(20) {
        assert_eq!(
            taken(
                fixture
                    .ingest
                    .accept(lines.join("\n").into(), origin())
                    .await
            )
            .0,
            lines.len()
        );
    }
    let count = fixture.stored().len();
    assert!(fixture.trim_all() >= 3);
    assert!(fixture.stored().len() < count);
    fixture.wal.close();
    drop(fixture);
    for _ in 0..2 {
        let fixture = open(directory.path(), knobs);
        assert_eq!(
            taken(fixture.ingest.accept(body.clone().into(), origin()).await),
            (0, 200, vec![])
        );
        fixture.wal.close();
    }
}

#[tokio::test]
async fn a_full_journal_refuses_and_remembers_nothing_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let knobs = Knobs {
        max_bytes: 64 << 10,
        segment_bytes: 16 << 10,
        ..Knobs::default()
    };
    let mut fixture = open(directory.path(), knobs);
    let mut accepted = Vec::new();
    let refused = loop {
        let name = format!("E{}", accepted.len());
        match fixture.ingest.accept(event(&name).into(), origin()).await {
            Answer::Taken { accepted: 1, .. } => accepted.push(name),
            other => break (name, other),
        }
    };
    assert!(
        matches!(
            refused.1,
            Answer::Unavailable {
                code: "JournalFull",
                ..
            }
        ),
        "{:?}",
        refused.1
    );
    assert_eq!(refused.1.status(), 503);
    assert_eq!(fixture.stored_names(), accepted);
    // Space comes back; the refused event is new, not a duplicate.
    fixture.wal.roll();
    for _ in 0..100 {
        if fixture.trim_all() > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        taken(
            fixture
                .ingest
                .accept(event(&refused.0).into(), origin())
                .await
        ),
        (1, 0, vec![])
    );
    assert_eq!(
        taken(fixture.ingest.accept(event("E0").into(), origin()).await),
        (0, 1, vec![])
    );
}

#[tokio::test]
async fn a_request_larger_than_a_batch_is_stored_whole() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(
        directory.path(),
        Knobs {
            window: 100_000,
            ..Knobs::default()
        },
    );
    let body: String = (0..40_000)
        .map(|n| event(&format!("E{n}")) + "\n")
        .collect();
    assert!(body.len() > 6 << 20);
    assert_eq!(
        taken(fixture.ingest.accept(body.into(), origin()).await),
        (40_000, 0, vec![])
    );
    assert_eq!(fixture.stored().len(), 40_000);
}

#[tokio::test]
async fn a_body_of_tiny_events_is_not_completed_beyond_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let tiny = r#"{"eventTime":"2026-05-01T00:19:01Z","eventSource":"a.b","eventName":"c"}"#;
    let body = format!("{tiny}\n").repeat((16 << 20) / (tiny.len() + 1));
    let answer = fixture.ingest.accept(body.into(), origin()).await;
    assert_eq!(answer.status(), 413, "{answer:?}");
    let message = String::from_utf8(answer.to_json()).unwrap();
    assert!(message.contains("split the request"), "{message}");
    assert!(fixture.stored().is_empty());
    let half = format!("{tiny}\n").repeat((4 << 20) / (tiny.len() + 1));
    let answer = fixture.ingest.accept(half.into(), origin()).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_body_that_can_never_fit_the_journal_is_too_large() {
    let directory = tempfile::tempdir().unwrap();
    let knobs = Knobs {
        max_bytes: 64 << 10,
        segment_bytes: 16 << 10,
        ..Knobs::default()
    };
    let fixture = open(directory.path(), knobs);
    let body: String = (0..1000).map(|n| event(&format!("E{n}")) + "\n").collect();
    let answer = fixture.ingest.accept(body.into(), origin()).await;
    assert_eq!(answer.status(), 413, "{answer:?}");
}

#[tokio::test]
async fn bodies_that_make_no_sense_are_refused_whole() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let broken = format!("[{},{{]", event("A"));
    let answer = fixture.ingest.accept(broken.into(), origin()).await;
    assert!(
        matches!(
            answer,
            Answer::Unreadable {
                code: "InvalidJson",
                ..
            }
        ),
        "{answer:?}"
    );
    let answer = fixture.ingest.accept(Bytes::new(), origin()).await;
    assert!(
        matches!(
            answer,
            Answer::Unreadable {
                code: "EmptyBody",
                ..
            }
        ),
        "{answer:?}"
    );
    let answer = fixture.ingest.accept("{}\n{}".into(), origin()).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(
        taken(answer),
        (0, 0, vec![(0, "MissingField"), (1, "MissingField")])
    );
    let hostile = "1\n".repeat(100_000);
    let answer = fixture.ingest.accept(hostile.into(), origin()).await;
    assert!(matches!(
        answer,
        Answer::Unreadable {
            code: "TooManyRejected",
            ..
        }
    ));
    assert_eq!(
        taken(fixture.ingest.accept("[]".into(), origin()).await),
        (0, 0, vec![])
    );
    assert!(fixture.stored().is_empty());
}

#[tokio::test]
async fn stopping_refuses_new_requests() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    fixture.ingest.stop();
    let answer = fixture.ingest.accept(event("A").into(), origin()).await;
    assert!(matches!(
        answer,
        Answer::Unavailable {
            code: "Stopping",
            ..
        }
    ));
    let fixture = open(tempfile::tempdir().unwrap().path(), Knobs::default());
    fixture.wal.close();
    let answer = fixture.ingest.accept(event("A").into(), origin()).await;
    assert!(matches!(
        answer,
        Answer::Unavailable {
            code: "Stopping",
            ..
        }
    ));
}

#[tokio::test]
async fn events_of_accounts_that_are_not_the_senders_are_refused_one_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let accounts = {
        let asked = Arc::clone(&asked);
        Accounts::asking(move |account| {
            asked.lock().unwrap().push(account.to_string());
            match account.as_str() {
                "999988887777" => Err("not there".to_owned()),
                _ => Ok(()),
            }
        })
    };
    let from = Origin {
        accounts,
        ..origin()
    };
    let of = |name: &str, account: &str| event(name).replace("111122223333", account);
    let (own, other, foreign) = ("111122223333", "123456789012", "999988887777");
    let body = [
        of("A", own),
        of("B", foreign),
        of("C", other),
        of("D", own),
        of("E", other),
    ];
    let body = format!("[{}]", body.join(","));
    let answer = fixture.ingest.accept(body.into(), from.clone()).await;
    assert_eq!(answer.status(), 200);
    let Answer::Taken {
        accepted: 4,
        rejected,
        ..
    } = answer
    else {
        panic!("{answer:?}");
    };
    let refused = &rejected[0];
    assert_eq!(
        (
            refused.index,
            refused.code,
            refused.event_id.as_deref(),
            refused.message.as_str()
        ),
        (1, "AccessDenied", Some("id-B"), "not there")
    );
    assert_eq!(fixture.metrics.rejected(Code::AccessDenied), 1);
    // However many events an account has.
    assert_eq!(*asked.lock().unwrap(), [own, foreign, other]);

    let none = fixture
        .ingest
        .accept(of("F", foreign).into(), from.clone())
        .await;
    assert_eq!(none.status(), 403);
    let broken = format!("[{},{{}}]", of("G", foreign));
    let mixed = fixture.ingest.accept(broken.into(), from).await;
    assert_eq!(mixed.status(), 400);
    assert_eq!(fixture.stored_names(), ["A", "C", "D", "E"]);
}
