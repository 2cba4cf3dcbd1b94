//! The log on the real disk, and its format against the golden files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tempfile::TempDir;

use super::sim::SimDisk;
use super::*;

fn options(directory: &Path) -> Options {
    Options {
        directory: directory.join("journal"),
        segment_bytes: 64 << 10,
        max_bytes: 1 << 30,
        disk_reserve: DiskReserve::Bytes(1),
        queue_bytes: 1 << 20,
    }
}

type Frames = Vec<(Position, Vec<u8>)>;

fn open_with(options: Options, metrics: Metrics) -> (Wal, Recovery, Frames) {
    let mut seen = Vec::new();
    let each = &mut |position, payload: &[u8]| seen.push((position, payload.to_vec()));
    let (wal, recovery) = Wal::open(Arc::new(RealDisk), options, metrics, each).unwrap();
    (wal, recovery, seen)
}

fn open(directory: &Path) -> (Wal, Frames) {
    let (wal, _, seen) = open_with(options(directory), Metrics::default());
    (wal, seen)
}

fn batch(payloads: &[&[u8]]) -> Batch {
    let mut batch = Batch::new();
    for payload in payloads {
        batch.push(payload);
    }
    batch
}

async fn append(wal: &Wal, payloads: &[&[u8]]) -> Result<Range<Position>, AppendError> {
    let batch = batch(payloads);
    wal.reserve(batch.bytes()).await?.append(batch).await
}

fn read_all(wal: &Wal) -> Frames {
    let mut reader = wal.reader();
    let mut at = wal.start();
    let mut frames = Vec::new();
    loop {
        let chunk = reader.read(at, 10_000).unwrap();
        if chunk.is_empty() {
            return frames;
        }
        at = chunk.next;
        frames.extend(chunk.iter().map(|(at, payload)| (at, payload.to_vec())));
    }
}

#[tokio::test]
async fn what_was_appended_is_read_and_found_again() {
    let directory = TempDir::new().unwrap();
    let (wal, seen) = open(directory.path());
    assert!(seen.is_empty());
    let large = vec![b'x'; 3 << 20];
    let range = append(&wal, &[b"one", b"", &large]).await.unwrap();
    assert_eq!(wal.durable(), range.end);
    let then = append(&wal, &[b"four"]).await.unwrap();
    let frames = read_all(&wal);
    let payloads: Vec<&[u8]> = frames.iter().map(|(_, payload)| &payload[..]).collect();
    assert_eq!(payloads, [b"one", &b""[..], &large, b"four"]);
    assert_eq!(frames[0].0, range.start);
    assert_eq!(frames[3].0, then.start);
    drop(wal);
    let (wal, seen) = open(directory.path());
    assert_eq!(seen, frames);
    assert!(append(&wal, &[b"five"]).await.unwrap().start > then.end);
}

#[tokio::test]
async fn batches_stand_in_the_order_of_append_and_share_fsyncs() {
    let metrics = Metrics::default();
    let disk = SimDisk::new();
    let options = Options {
        disk_reserve: DiskReserve::None,
        ..options(Path::new("/"))
    };
    let shared = Arc::new(disk.clone());
    let (wal, _) = Wal::open(shared, options, metrics.clone(), &mut |_, _| {}).unwrap();
    let mut waiting = Vec::new();
    let mut expected = Vec::new();
    let held = disk.hold();
    for number in 0..500u32 {
        let permit = wal.reserve(1000).await.unwrap();
        let payload = number.to_string().into_bytes();
        waiting.push(permit.append(batch(&[&payload])));
        expected.push(payload);
    }
    drop(held);
    let mut last = Position(0);
    for appending in waiting {
        let range = appending.await.unwrap();
        assert!(range.start >= last);
        last = range.end;
    }
    let payloads: Vec<_> = read_all(&wal).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(payloads, expected);
    assert_eq!(series(&metrics, "traild_append_seconds_count"), 500);
    assert!(series(&metrics, "traild_journal_fsync_seconds_count") <= 2);
}

#[tokio::test]
async fn the_queue_is_bounded_in_bytes_and_a_larger_permit_waits_for_all_of_it() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        queue_bytes: 1000,
        ..options(directory.path())
    };
    let (wal, _, _) = open_with(options, Metrics::default());
    let first = wal.reserve(800).await.unwrap();
    assert!(wal.reserve(300).now_or_never().is_none());
    let small = wal.reserve(200).now_or_never().unwrap().unwrap();
    let mut huge = std::pin::pin!(wal.reserve(50_000));
    assert!(huge.as_mut().now_or_never().is_none());
    drop(first);
    assert!(huge.as_mut().now_or_never().is_none());
    small.append(batch(&[b"x"])).await.unwrap();
    let huge = huge.await.unwrap();
    assert!(wal.reserve(1).now_or_never().is_none());
    let payload = vec![1; 40_000];
    huge.append(batch(&[&payload])).await.unwrap();
    wal.reserve(1000).await.unwrap();
}

#[tokio::test]
async fn what_is_admitted_has_room_in_the_log_and_is_in_nobodys_way() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        queue_bytes: 1000,
        max_bytes: 100_000,
        ..options(directory.path())
    };
    let (wal, _, _) = open_with(options, Metrics::default());
    let admitted = wal.admit(50_000).unwrap();
    assert!(matches!(
        wal.reserve(60_000).await,
        Err(AppendError::Full { used: 50_000, .. })
    ));
    let all = wal.reserve(1000).now_or_never().unwrap().unwrap();
    let mut late = std::pin::pin!(admitted.permit(500));
    assert!(late.as_mut().now_or_never().is_none());
    drop(all);
    let permit = late.await.unwrap();
    assert!(wal.reserve(501).now_or_never().is_none());
    permit.append(batch(&[b"late"])).await.unwrap();
    // What was admitted and not used is given back.
    wal.reserve(60_000).await.unwrap();
    let admitted = wal.admit(100).unwrap();
    wal.close();
    assert_eq!(admitted.permit(100).await.err(), Some(AppendError::Closed));
}

#[tokio::test]
async fn a_dropped_future_is_appended_all_the_same() {
    let directory = TempDir::new().unwrap();
    let (wal, _) = open(directory.path());
    drop(wal.reserve(100).await.unwrap().append(batch(&[b"kept"])));
    drop(wal.reserve(100).await.unwrap());
    wal.barrier().await.unwrap();
    let frames = read_all(&wal);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].1, b"kept");
}

#[tokio::test]
async fn close_writes_what_is_queued_and_takes_nothing_more() {
    let directory = TempDir::new().unwrap();
    let (wal, _) = open(directory.path());
    let unused = wal.reserve(100).await.unwrap();
    let mut waiting = Vec::new();
    for _ in 0..50 {
        waiting.push(wal.reserve(20).await.unwrap().append(batch(&[b"late"])));
    }
    wal.close();
    for appending in waiting {
        appending.now_or_never().unwrap().unwrap();
    }
    assert_eq!(
        unused.append(batch(&[b"x"])).await,
        Err(AppendError::Closed)
    );
    assert_eq!(wal.reserve(1).await.err(), Some(AppendError::Closed));
    assert_eq!(wal.barrier().await, Err(AppendError::Closed));
    assert_eq!(read_all(&wal).len(), 50);
    assert_eq!(open(directory.path()).1.len(), 50);
}

#[tokio::test]
async fn whoever_waits_for_room_learns_that_the_log_closes() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        queue_bytes: 100,
        ..options(directory.path())
    };
    let (wal, _, _) = open_with(options, Metrics::default());
    let _all = wal.reserve(100).await.unwrap();
    let waiting = wal.clone();
    let waiting = tokio::spawn(async move { waiting.reserve(1).await.err() });
    tokio::task::yield_now().await;
    wal.close();
    assert_eq!(waiting.await.unwrap(), Some(AppendError::Closed));
}

#[tokio::test]
async fn a_full_log_refuses_until_it_is_trimmed() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        max_bytes: 100_000,
        ..options(directory.path())
    };
    let (wal, _, _) = open_with(options, Metrics::default());
    let payload = vec![7; 9000];
    let refusal = loop {
        match append(&wal, &[&payload]).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(
        refusal,
        AppendError::Full {
            used: 80_000..,
            capacity: 100_000,
            asked: 9016
        }
    ));
    // The refusal has begun a new segment, so that all that was read can go.
    wal.barrier().await.unwrap();
    assert!(wal.bytes() <= 100_000);
    for segment in wal.trimmable(wal.durable()) {
        wal.remove_oldest(segment).unwrap();
    }
    assert!(wal.bytes() < 10_000);
    append(&wal, &[&payload]).await.unwrap();
}

/// What is in the way of a large batch can go even when it is only a little, and is in the newest segment.
#[tokio::test]
async fn a_batch_that_fits_an_empty_log_fits_once_all_is_trimmed() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        max_bytes: 100_000,
        ..options(directory.path())
    };
    let metrics = Metrics::default();
    let (wal, _, _) = open_with(options, metrics.clone());
    append(&wal, &[&[7; 9000]]).await.unwrap();
    let large = vec![8; 85_000];
    let refusal = append(&wal, &[&large]).await.unwrap_err();
    assert!(
        matches!(refusal, AppendError::Full { .. }),
        "the small one is not in the way: {refusal}"
    );
    wal.barrier().await.unwrap();
    let segments = wal.bytes();
    for _ in 0..100 {
        append(&wal, &[&large]).await.unwrap_err();
    }
    wal.barrier().await.unwrap();
    assert_eq!(wal.bytes(), segments, "refusals go on beginning segments");
    for segment in wal.trimmable(wal.durable()) {
        wal.remove_oldest(segment).unwrap();
    }
    append(&wal, &[&large]).await.unwrap();
}

#[tokio::test]
async fn a_batch_that_no_trimming_makes_room_for_is_told_so() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        max_bytes: 100_000,
        ..options(directory.path())
    };
    let (wal, _, _) = open_with(options, Metrics::default());
    append(&wal, &[b"something"]).await.unwrap();
    let limit = 100_000 - 2 * super::segment::FRAMES_AT as usize;
    let refusal = wal.reserve(limit + 1).await.err();
    assert!(
        matches!(refusal, Some(AppendError::NeverFits { .. })),
        "{refusal:?}"
    );
    let refusal = wal.reserve(limit).await.err();
    assert!(
        matches!(refusal, Some(AppendError::Full { .. })),
        "{refusal:?}"
    );
    wal.barrier().await.unwrap();
    for segment in wal.trimmable(wal.durable()) {
        wal.remove_oldest(segment).unwrap();
    }
    wal.reserve(limit).await.unwrap();
}

#[tokio::test]
async fn a_permit_counts_against_the_log_before_it_is_used() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        max_bytes: 100_000,
        ..options(directory.path())
    };
    let (wal, _, _) = open_with(options, Metrics::default());
    let first = wal.reserve(60_000).await.unwrap();
    let second = wal.reserve(60_000).await.err();
    assert!(matches!(
        second,
        Some(AppendError::Full { used: 60_000, .. })
    ));
    drop(first);
    wal.reserve(60_000).await.unwrap();
}

#[tokio::test]
async fn a_payload_that_is_too_long_refuses_its_batch_alone() {
    let directory = TempDir::new().unwrap();
    let (wal, _) = open(directory.path());
    let mut batch = batch(&[b"fine"]);
    batch.push_with(|out| out.resize(out.len() + MAX_PAYLOAD_BYTES + 1, 0));
    assert_eq!(batch.len(), 1);
    let permit = wal.reserve(batch.bytes()).await.unwrap();
    let limit = MAX_PAYLOAD_BYTES;
    let bytes = limit + 1;
    assert_eq!(
        permit.append(batch).await,
        Err(AppendError::TooLarge { bytes, limit })
    );
    append(&wal, &[b"next"]).await.unwrap();
    assert_eq!(read_all(&wal).len(), 1);
}

#[tokio::test]
async fn trimming_takes_whole_segments_from_the_front_under_readers() {
    let directory = TempDir::new().unwrap();
    let (wal, _) = open(directory.path());
    let mut ends = Vec::new();
    for _ in 0..40 {
        ends.push(append(&wal, &[&[1; 5000]]).await.unwrap());
    }
    let mut reader = wal.reader();
    let first = reader.read(wal.start(), 1).unwrap();
    assert_eq!(first.len(), 1);
    let trimmable = wal.trimmable(ends[30].start);
    assert!(trimmable.len() >= 2);
    assert!(trimmable.last().unwrap().end <= ends[30].start);
    assert!(wal.remove_oldest(trimmable[1].clone()).is_err());
    for segment in &trimmable {
        wal.remove_oldest(segment.clone()).unwrap();
        assert_eq!(wal.start(), segment.end);
    }
    let next = reader.read(first.next, 1).unwrap();
    assert!(next.iter().next().unwrap().0 >= wal.start());
    let mut seen = Vec::new();
    let wanted = [ends[0].start, ends[39].start, ends[39].end];
    let each = &mut |at, frame: Result<&[u8], FrameError>| {
        seen.push((at, frame.map(<[u8]>::len)));
    };
    reader.read_each(&mut wanted.into_iter(), each).unwrap();
    assert_eq!(
        seen,
        [
            (wanted[0], Err(FrameError::Missing)),
            (wanted[1], Ok(5000)),
            (wanted[2], Err(FrameError::Missing)),
        ]
    );
    let left = read_all(&wal);
    drop(wal);
    assert_eq!(open(directory.path()).1, left);
}

#[tokio::test]
async fn the_owner_thread_goes_round_when_idle() {
    let directory = TempDir::new().unwrap();
    let (wal, _) = open(directory.path());
    let first = wal.last_heartbeat();
    let moves = async {
        while wal.last_heartbeat() == first {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, moves).await.unwrap();
}

#[tokio::test]
async fn the_durable_end_is_announced() {
    let directory = TempDir::new().unwrap();
    let (wal, _) = open(directory.path());
    let mut durable = wal.watch_durable();
    let range = append(&wal, &[b"x"]).await.unwrap();
    durable.changed().await.unwrap();
    assert_eq!(*durable.borrow(), range.end);
    assert!(wal.failed().now_or_never().is_none());
}

/// What a scrape shows for a series without labels.
fn series(metrics: &Metrics, name: &str) -> u64 {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not in {text}"))
}

#[test]
fn the_series_have_the_names_of_the_contract() {
    for name in [
        "traild_journal_bytes",
        "traild_journal_fsync_seconds_count",
        "traild_append_seconds_count",
        "traild_journal_quarantined_bytes_total",
    ] {
        assert_eq!(series(&Metrics::default(), name), 0);
    }
}

#[tokio::test]
async fn inspection_tells_frames_and_damage_and_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let (wal, _) = open(directory.path());
    let mut ranges = Vec::new();
    for _ in 0..30 {
        ranges.push(append(&wal, &[&[9; 5000]]).await.unwrap());
    }
    let journal = directory.path().join("journal");
    // While it is open, as an operator would.
    let sound = inspect(&journal).unwrap();
    assert!(sound.is_sound());
    let frames: u64 = sound.segments.iter().map(|segment| segment.frames).sum();
    assert_eq!(frames, 30);
    assert_eq!(sound.segments[0].first, Some(ranges[0].start));
    drop(wal);

    let victim = &sound.segments[1];
    let mut bytes = std::fs::read(&victim.file).unwrap();
    let offset = (victim.first.unwrap().0 - victim.base.0) as usize;
    bytes[offset + 100] ^= 1;
    std::fs::write(&victim.file, &bytes).unwrap();
    std::fs::write(journal.join("notes"), b"").unwrap();
    let damaged = inspect(&journal).unwrap();
    assert!(!damaged.is_sound());
    assert_eq!(damaged.foreign, ["notes"]);
    let damage = Damage {
        segment: victim.base,
        offset: offset as u64,
        bytes: 5016,
        reason: Reason::Payload,
    };
    assert_eq!(damaged.segments[1].damage, [damage]);
    assert_eq!(std::fs::read(&victim.file).unwrap(), bytes);
    let json = serde_json::to_string(&damaged).unwrap();
    assert!(json.contains(r#""reason":"payload""#));

    let (_, recovery, seen) = open_with(options(directory.path()), Metrics::default());
    assert_eq!(recovery.damage, [damage]);
    assert_eq!(seen.len(), 29);
    let after = inspect(&journal).unwrap();
    assert_eq!(after.quarantine.len(), 1);
    assert_eq!(after.quarantine[0].bytes, 5016);
    let copy = std::fs::read(&after.quarantine[0].file).unwrap();
    assert_eq!(copy, bytes[offset..offset + 5016]);
}

/// Salt, payloads and file names of the golden log.
const GOLDEN_SALT: [u8; 8] = *b"saltsalt";

fn golden_payloads() -> Vec<Vec<u8>> {
    vec![
        b"first".to_vec(),
        Vec::new(),
        (0..=255).collect(),
        "Ereignis \u{e4} \u{1f600}".as_bytes().to_vec(),
        super::frame::MAGIC.repeat(100),
    ]
}

/// Writes the golden log: all payloads but the last in the first segment, the last in the second.
fn write_golden(disk: &SimDisk, directory: &Path) {
    let disk = Arc::new(disk.clone());
    let mut log = super::log::Log::new(disk, directory.to_path_buf(), 1 << 20, 0, 0)
        .with_salt(|| Ok(GOLDEN_SALT));
    let payloads = golden_payloads();
    let (last, first) = payloads.split_last().unwrap();
    let slices: Vec<&[u8]> = first.iter().map(Vec::as_slice).collect();
    log.commit(&mut [batch(&slices)]).unwrap();
    log.roll().unwrap();
    log.commit(&mut [batch(&[last])]).unwrap();
}

#[test]
fn the_golden_log_is_read_and_written_byte_for_byte() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wal-1");
    let disk = SimDisk::new();
    let directory = Path::new("/golden");
    write_golden(&disk, directory);
    assert_eq!(disk.paths().len(), 2);
    for path in disk.paths() {
        let golden = golden.join(path.file_name().unwrap());
        assert!(
            std::fs::read(&golden).unwrap() == disk.content(&path),
            "{} is not what this program writes",
            golden.display()
        );
    }

    let copy = TempDir::new().unwrap();
    for entry in std::fs::read_dir(&golden).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let options = Options {
        directory: copy.path().to_path_buf(),
        ..options(copy.path())
    };
    let (_, recovery, seen) = open_with(options, Metrics::default());
    let payloads: Vec<_> = seen.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, golden_payloads());
    assert_eq!(
        (
            recovery.damaged_ranges,
            recovery.torn_bytes,
            recovery.missing_bytes
        ),
        (0, 0, 0)
    );
}
