use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use tokio::task::JoinHandle;

use super::*;
use crate::ingest::fixture::{Fixture, Knobs, anonymous, event, open};

struct Run {
    fixture: Fixture,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

fn start_with(directory: &Path, knobs: Knobs) -> Run {
    let fixture = open(&directory.join("data"), knobs);
    let options = Options {
        paths: vec![directory.join("logs/audit*.ndjson").display().to_string()],
        state_file: directory.join("data/inputs.json"),
        poll: Duration::from_millis(20),
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(fixture.ingest.clone(), options, stop.clone()));
    Run {
        fixture,
        stop,
        task,
    }
}

fn start(directory: &Path) -> Run {
    fs::create_dir_all(directory.join("logs")).unwrap();
    fs::create_dir_all(directory.join("data")).unwrap();
    start_with(directory, Knobs::default())
}

impl Run {
    async fn until_stored(&self, names: &[&str]) {
        for _ in 0..1000 {
            if self.fixture.stored_names().len() >= names.len() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A little longer, so that one too many would show.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(self.fixture.stored_names(), names);
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.fixture.wal.close();
    }
}

fn append(path: &Path, text: &str) {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

#[tokio::test]
async fn lines_are_taken_as_they_are_completed() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logs/audit.ndjson");
    let run = start(directory.path());
    append(
        &log,
        &format!("{}\r\n\nnot json\n{}\n", event("A"), event("B")),
    );
    run.until_stored(&["A", "B"]).await;
    let c = event("C");
    append(&log, &c[..20]);
    run.until_stored(&["A", "B"]).await;
    append(
        &log,
        &format!(
            "{}\n{{\"Records\":[{},{}]}}\n",
            &c[20..],
            event("D"),
            event("E")
        ),
    );
    append(
        &directory.path().join("logs/audit-2.ndjson"),
        &format!("{}\n", event("F")),
    );
    append(
        &directory.path().join("logs/other.txt"),
        &format!("{}\n", event("G")),
    );
    run.until_stored(&["A", "B", "C", "D", "E", "F"]).await;
    assert_eq!(run.fixture.metrics.rejected(Code::InvalidJson), 1);
    run.stop().await;
}

#[tokio::test]
async fn the_position_is_kept_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logs/audit.ndjson");
    let run = start(directory.path());
    append(&log, &format!("{}\n{}\n", anonymous("A"), anonymous("A")));
    run.until_stored(&["A", "A"]).await;
    run.stop().await;
    append(&log, &format!("{}\n", anonymous("B")));
    let run = start(directory.path());
    run.until_stored(&["A", "A", "B"]).await;
    assert_eq!(run.fixture.metrics.duplicate.get(), 0);
    run.stop().await;
}

/// A crash after the events are durable and before the position is: what was read is read again.
#[tokio::test]
async fn lines_read_again_after_a_crash_are_duplicates() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logs/audit.ndjson");
    let state = directory.path().join("data/inputs.json");
    let run = start(directory.path());
    append(&log, "\n");
    for _ in 0..1000 {
        if fs::read_to_string(&state).is_ok_and(|text| text.contains("\"offset\": 1,")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = fs::read(&state).unwrap();
    append(
        &log,
        &format!(
            "{}\n{}\n{{\"Records\":[{0},{0}]}}\n",
            anonymous("A"),
            event("B")
        ),
    );
    run.until_stored(&["A", "B", "A", "A"]).await;
    run.stop().await;
    fs::write(&state, before).unwrap();
    append(&log, &format!("{}\n", anonymous("C")));
    let run = start(directory.path());
    run.until_stored(&["A", "B", "A", "A", "C"]).await;
    assert_eq!(run.fixture.metrics.duplicate.get(), 4);
    run.stop().await;
}

#[tokio::test]
async fn a_renamed_file_is_read_to_its_end_and_its_successor_from_the_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logs/audit.ndjson");
    let rotated = directory.path().join("logs/audit.ndjson.1");
    let run = start(directory.path());
    append(&log, &format!("{}\n", event("A")));
    run.until_stored(&["A"]).await;
    fs::rename(&log, &rotated).unwrap();
    append(&log, &format!("{}\n", event("C")));
    run.until_stored(&["A", "C"]).await;
    // The writer still had it open, and ends without a newline.
    append(&rotated, &format!("{}\n{}", event("B"), event("LAST")));
    run.until_stored(&["A", "C", "B", "LAST"]).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let state = fs::read_to_string(directory.path().join("data/inputs.json")).unwrap();
    assert_eq!(state.matches("\"inode\"").count(), 1, "{state}");
    append(&log, &format!("{}\n", event("D")));
    run.until_stored(&["A", "C", "B", "LAST", "D"]).await;
    run.stop().await;
}

#[tokio::test]
async fn a_file_rotated_while_the_daemon_was_down_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logs/audit.ndjson");
    let run = start(directory.path());
    append(&log, &format!("{}\n", anonymous("A")));
    run.until_stored(&["A"]).await;
    run.stop().await;
    append(&log, &format!("{}\n{}", anonymous("B"), anonymous("LAST")));
    fs::rename(&log, directory.path().join("logs/audit.ndjson.1")).unwrap();
    append(&log, &format!("{}\n", anonymous("C")));
    let run = start(directory.path());
    run.until_stored(&["A", "C", "B", "LAST"]).await;
    run.stop().await;
}

/// The log's volume is not mounted when the daemon starts, and not at the next start either.
#[tokio::test]
async fn the_position_of_a_file_that_is_not_there_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logs/audit.ndjson");
    let away = directory.path().join("away.ndjson");
    let other = directory.path().join("logs/audit-2.ndjson");
    let run = start(directory.path());
    append(&log, &format!("{}\n{}\n", anonymous("A"), anonymous("A")));
    run.until_stored(&["A", "A"]).await;
    run.stop().await;
    fs::rename(&log, &away).unwrap();
    let mut expected = vec!["A", "A"];
    for name in ["B", "C"] {
        let run = start(directory.path());
        append(&other, &format!("{}\n", anonymous(name)));
        expected.push(name);
        run.until_stored(&expected).await;
        run.stop().await;
    }
    let run = start(directory.path());
    append(&other, &format!("{}\n", anonymous("D")));
    expected.push("D");
    run.until_stored(&expected).await;
    fs::rename(&away, &log).unwrap();
    append(&log, &format!("{}\n", anonymous("E")));
    expected.push("E");
    run.until_stored(&expected).await;
    run.stop().await;
}

#[tokio::test]
async fn the_position_of_a_file_that_was_replaced_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logs/audit.ndjson");
    let state = directory.path().join("data/inputs.json");
    let run = start(directory.path());
    append(&log, &format!("{}\n", anonymous("A")));
    run.until_stored(&["A"]).await;
    run.stop().await;
    let anew = directory.path().join("logs/new");
    append(&anew, &format!("{}\n", anonymous("B")));
    fs::rename(&anew, &log).unwrap();
    let run = start(directory.path());
    run.until_stored(&["A", "B"]).await;
    run.stop().await;
    let state = fs::read_to_string(state).unwrap();
    assert_eq!(state.matches("\"inode\"").count(), 1, "{state}");
}

#[tokio::test]
async fn a_truncated_file_is_read_from_its_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logs/audit.ndjson");
    let run = start(directory.path());
    // The same bytes at the same place in two lives of the file are two events.
    append(&log, &format!("{}\n{}\n", anonymous("A"), anonymous("B")));
    run.until_stored(&["A", "B"]).await;
    fs::copy(&log, directory.path().join("logs/audit.ndjson.1")).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(0)
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    append(&log, &format!("{}\n", anonymous("A")));
    run.until_stored(&["A", "B", "A"]).await;
    // Truncated and longer than before at the next look: the first bytes tell.
    let long: String = (0..5).map(|n| anonymous(&format!("C{n}")) + "\n").collect();
    fs::write(&log, long).unwrap();
    run.until_stored(&["A", "B", "A", "C0", "C1", "C2", "C3", "C4"])
        .await;
    run.stop().await;
}

#[tokio::test]
async fn a_line_too_long_is_stepped_over() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logs/audit.ndjson");
    let run = start(directory.path());
    append(&log, &format!("{}\n", event("A")));
    append(&log, &"x".repeat(3 << 20));
    run.until_stored(&["A"]).await;
    append(&log, &format!("xx\n{}\n", event("B")));
    let long = event("C").replace("s3.", &"s".repeat(300 << 10));
    append(&log, &format!("{long}\n{}\n", event("D")));
    run.until_stored(&["A", "B", "D"]).await;
    assert_eq!(run.fixture.metrics.rejected(Code::EventTooLarge), 2);
    run.stop().await;
}

#[tokio::test]
async fn a_full_journal_makes_it_wait_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logs/audit.ndjson");
    fs::create_dir_all(directory.path().join("logs")).unwrap();
    fs::create_dir_all(directory.path().join("data")).unwrap();
    let mut run = start_with(
        directory.path(),
        Knobs {
            max_bytes: 72 << 10,
            segment_bytes: 16 << 10,
            ..Knobs::default()
        },
    );
    let mut seen = Vec::new();
    for n in 0..200 {
        append(&log, &format!("{}\n", event(&format!("E{n}"))));
        if n % 20 == 19 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        run.fixture.stored().len() < 200,
        "the journal is large enough for all, the test shows nothing"
    );
    // Space comes back bit by bit.
    for _ in 0..200 {
        // What is stored between the look and the trimming has not been seen and must stay.
        let looked_at = run.fixture.wal.durable();
        for name in run.fixture.stored_names() {
            if !seen.contains(&name) {
                seen.push(name);
            }
        }
        if seen.len() == 200 {
            break;
        }
        run.fixture.wal.roll();
        run.fixture.trim(looked_at);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let expected: Vec<String> = (0..200).map(|n| format!("E{n}")).collect();
    assert_eq!(seen, expected);
    assert_eq!(run.fixture.metrics.accepted.get(), 200);
    run.stop().await;
}

#[tokio::test]
async fn it_stops_promptly_even_while_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let run = start(directory.path());
    append(
        &directory.path().join("logs/audit.ndjson"),
        &format!("{}\n", event("A")),
    );
    run.until_stored(&["A"]).await;
    let began = std::time::Instant::now();
    run.stop().await;
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn damaged_positions_are_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("logs/audit.ndjson");
    let run = start(directory.path());
    append(&log, &format!("{}\n", event("A")));
    run.until_stored(&["A"]).await;
    run.stop().await;
    fs::write(
        directory.path().join("data/inputs.json"),
        "{\"version\":1,\"fil",
    )
    .unwrap();
    append(&log, &format!("{}\n", event("B")));
    let run = start(directory.path());
    run.until_stored(&["A", "B"]).await;
    assert_eq!(run.fixture.metrics.duplicate.get(), 1);
    assert!(directory.path().join("data/inputs.json.damaged").exists());
    run.stop().await;
}
