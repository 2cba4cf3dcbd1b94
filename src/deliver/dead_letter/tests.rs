use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::deliver::view::Sink;

const ARN: &str = "arn:aws:cloudtrail:us-east-1:111122223333:trail/main";

fn letter(content: Content) -> Letter {
    Letter {
        at: "2026-01-02T03:04:05Z".to_owned(),
        trail: "main".to_owned(),
        trail_arn: Some(ARN.to_owned()),
        sink: "bus".to_owned(),
        reason: "too_large".to_owned(),
        message: "over the \"limit\"\nby far".to_owned(),
        events: 2,
        content,
    }
}

fn item(position: u64) -> Letter {
    letter(Content::Item {
        position,
        index: 1,
        body: RawValue::from_string(format!("{{\"eventID\":\"{position}\"}}")).unwrap(),
    })
}

fn gap(from: u64) -> Letter {
    let to = from + 10;
    letter(Content::Gap { from, to })
}

/// A data directory, and the dead letters of a leg in it.
fn leg() -> (tempfile::TempDir, DeadLetters) {
    let data_dir = tempfile::tempdir().unwrap();
    let letters = DeadLetters::new(&data_dir.path().join(DIRECTORY), "main", "bus");
    (data_dir, letters)
}

fn positions(letters: &[Letter]) -> Vec<u64> {
    let position = |letter: &Letter| match letter.content {
        Content::Item { position, .. } => position,
        Content::Gap { from, .. } => from,
    };
    letters.iter().map(position).collect()
}

fn rest(replay: &Replay, mut upto: u64) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let batch = replay.next(upto, 100).unwrap();
        if batch.letters.is_empty() {
            return all;
        }
        all.extend(positions(&batch.letters));
        upto = batch.upto;
    }
}

/// All of it was settled.
fn finish(mut replay: Replay) -> io::Result<()> {
    replay.finish(replay.mark().bytes)
}

fn names(leg: &DeadLetters) -> Vec<String> {
    let name = |file: LetterFile| file.path.file_name().unwrap().to_str().unwrap().to_owned();
    files(&leg.directory)
        .unwrap()
        .into_iter()
        .map(name)
        .collect()
}

fn text(leg: &DeadLetters) -> String {
    fs::read_to_string(leg.path()).unwrap()
}

#[test]
fn a_letter_is_one_line_with_the_names_that_stand_on_disk() {
    let (_data_dir, leg) = leg();
    let body = "{ \"eventID\":\"e\",\r\n\t\"note\":\"a\\nb\", \"n\":1.0e2 }";
    let pretty = letter(Content::Item {
        position: 7,
        index: 0,
        body: RawValue::from_string(body.to_owned()).unwrap(),
    });
    leg.append(&[pretty, gap(20)]).unwrap();
    let expected = r#"{"at":"2026-01-02T03:04:05Z","trail":"main","trail_arn":"arn:aws:cloudtrail:us-east-1:111122223333:trail/main","sink":"bus","reason":"too_large","message":"over the \"limit\"\nby far","events":2,"position":7,"index":0,"body":{ "eventID":"e",  	"note":"a\nb", "n":1.0e2 }}
{"at":"2026-01-02T03:04:05Z","trail":"main","trail_arn":"arn:aws:cloudtrail:us-east-1:111122223333:trail/main","sink":"bus","reason":"too_large","message":"over the \"limit\"\nby far","events":2,"from":20,"to":30}
"#;
    assert_eq!(text(&leg), expected);

    let mut letters = Letters::open(&leg.path()).unwrap().unwrap();
    let mut again = Vec::new();
    while let Some(line) = letters.next_line().unwrap() {
        let Line::Letter { letter, .. } = line else {
            panic!("{line:?}");
        };
        write_line(&mut again, &letter).unwrap();
    }
    assert_eq!(String::from_utf8(again).unwrap(), expected);
}

#[test]
fn the_directory_and_its_files_are_private() {
    let (_data_dir, leg) = leg();
    assert_eq!(leg.known(ARN, 0).unwrap(), BTreeSet::new());
    assert!(!leg.directory.exists(), "reading makes nothing");
    leg.append(&[item(1)]).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&leg.directory), 0o700);
    assert_eq!(mode(&leg.path()), 0o600);
    assert_eq!(mode(&leg.directory.join("lock")), 0o600);
}

#[test]
fn names_are_read_back_and_files_of_others_are_left_alone() {
    let (_data_dir, leg) = leg();
    leg.append(&[item(1)]).unwrap();
    for name in [
        "main.bus.replay-10.ndjson",
        "main.bus.replay-9.ndjson",
        "a.b-c.replay-1.sns.ndjson",
        "a.b-c.replay-1.sns.replay-3.ndjson",
        "lock",
        "main.ndjson",
        "main.kafka.ndjson",
        "main.bus.replay-01.ndjson",
        "main.bus.replay-+1.ndjson",
        "main.bus.replay-.ndjson",
        "main.bus.ndjson.bak",
        "x.bus.ndjson",
        ".bus.ndjson",
    ] {
        fs::write(leg.directory.join(name), "").unwrap();
    }
    let expected = [
        "a.b-c.replay-1.sns.replay-3.ndjson",
        "a.b-c.replay-1.sns.ndjson",
        "main.bus.replay-9.ndjson",
        "main.bus.replay-10.ndjson",
        "main.bus.ndjson",
    ];
    assert_eq!(names(&leg), expected);
    let first = &files(&leg.directory).unwrap()[0];
    assert_eq!(first.trail, "a.b-c.replay-1");
    assert_eq!((first.sink, first.replay), (Sink::Sns, Some(3)));
}

#[test]
fn a_line_cut_short_by_a_power_loss_costs_no_neighbour() {
    for torn in ["{\"at\":\"2026-", "\0\0\0\0", "{\"at\":\"\u{e4}"] {
        let (_data_dir, leg) = leg();
        leg.append(&[item(1)]).unwrap();
        let mut bytes = fs::read(leg.path()).unwrap();
        bytes.extend_from_slice(&torn.as_bytes()[..torn.len() - 1]);
        fs::write(leg.path(), bytes).unwrap();
        leg.append(&[item(2), item(3)]).unwrap();
        let known: Vec<u64> = leg
            .known(ARN, 2)
            .unwrap()
            .iter()
            .map(|id| id.position.0)
            .collect();
        assert_eq!(known, [2, 3]);
        let tally = leg.hand_over().unwrap();
        assert_eq!((tally.items, tally.unreadable), (3, 1));
    }
}

#[test]
fn a_line_of_someone_else_is_skipped_and_kept() {
    let (_data_dir, leg) = leg();
    leg.append(&[item(1)]).unwrap();
    let foreign = "not json\n\n{\"at\":\"\",\"trail\":\"\",\"sink\":\"\",\"reason\":\"\",\"message\":\"\",\"events\":1}\n[1]\n";
    fs::write(leg.path(), format!("{foreign}{}", text(&leg))).unwrap();
    leg.append(&[gap(50), item(2)]).unwrap();
    let tally = Tally {
        items: 2,
        item_events: 4,
        gaps: 1,
        gap_events: 2,
        unreadable: 3,
        ..Tally::default()
    };
    assert_eq!(leg.hand_over().unwrap(), tally);
    let replay = leg.handed_back(ARN).unwrap().unwrap();
    assert_eq!(rest(&replay, 0), [1, 2]);
    finish(replay).unwrap();
    let kept = text(&leg);
    assert!(kept.starts_with(&foreign.replace("\n\n", "\n")), "{kept}");
    assert!(kept.ends_with("\"from\":50,\"to\":60}\n"), "{kept}");
    assert_eq!(kept.lines().count(), 4);
}

#[test]
fn a_file_is_handed_back_sent_in_order_and_removed() {
    let (_data_dir, leg) = leg();
    assert_eq!(leg.hand_over().unwrap(), Tally::default());
    assert!(leg.handed_back(ARN).unwrap().is_none());
    let all: Vec<Letter> = (0..20).map(item).collect();
    leg.append(&all[..10]).unwrap();
    assert_eq!(leg.hand_over().unwrap().items, 10);
    leg.append(&all[10..]).unwrap();
    assert_eq!(leg.hand_over().unwrap().items, 10);
    assert_eq!(
        leg.hand_over().unwrap(),
        Tally::default(),
        "nothing is left"
    );
    assert_eq!(
        names(&leg),
        ["main.bus.replay-1.ndjson", "main.bus.replay-2.ndjson"]
    );
    assert_eq!(
        leg.known(ARN, 0).unwrap().len(),
        20,
        "they still have letters"
    );

    let first = leg.handed_back(ARN).unwrap().unwrap();
    let batch = first.next(0, 1).unwrap();
    assert_eq!(positions(&batch.letters), [0], "a byte is one letter");
    assert_eq!(rest(&first, batch.upto), (1..10).collect::<Vec<_>>());
    leg.append(&[item(3)]).unwrap();
    finish(first).unwrap();
    assert_eq!(names(&leg), ["main.bus.replay-2.ndjson", "main.bus.ndjson"]);
    assert_eq!(leg.hand_over().unwrap().items, 1, "refused again");
    let second = leg.handed_back(ARN).unwrap().unwrap();
    assert_eq!(rest(&second, 0), (10..20).collect::<Vec<_>>());
    finish(second).unwrap();
    assert_eq!(names(&leg), ["main.bus.replay-3.ndjson"]);
}

#[test]
fn the_files_of_another_leg_are_not_touched() {
    let (_data_dir, leg) = leg();
    let other = DeadLetters::new(&leg.directory, "main.bus", "sns");
    leg.append(&[item(1)]).unwrap();
    other.append(&[item(2)]).unwrap();
    leg.hand_over().unwrap();
    assert!(other.handed_back(ARN).unwrap().is_none());
    assert_eq!(other.known(ARN, 0).unwrap().len(), 1);
    assert_eq!(
        names(&leg),
        ["main.bus.replay-1.ndjson", "main.bus.sns.ndjson"]
    );
}

#[test]
fn gaps_alone_are_not_handed_over() {
    let (_data_dir, leg) = leg();
    leg.append(&[gap(1), gap(100)]).unwrap();
    let before = text(&leg);
    let tally = leg.hand_over().unwrap();
    assert_eq!((tally.items, tally.gaps, tally.gap_events), (0, 2, 4));
    assert!(leg.handed_back(ARN).unwrap().is_none());
    assert_eq!(text(&leg), before);
}

#[test]
fn a_crash_between_adding_gaps_back_and_removing_the_file_loses_nothing() {
    let (_data_dir, leg) = leg();
    leg.append(&[item(1), gap(50), item(2)]).unwrap();
    leg.hand_over().unwrap();
    let waiting = leg.waiting().unwrap().remove(0).path;
    let handed = fs::read(&waiting).unwrap();

    let replay = leg.handed_back(ARN).unwrap().unwrap();
    assert_eq!(rest(&replay, 0), [1, 2]);
    finish(replay).unwrap();
    assert_eq!(text(&leg).lines().count(), 1);
    // The removal was not durable.
    fs::write(&waiting, &handed).unwrap();

    let replay = leg.handed_back(ARN).unwrap().unwrap();
    assert_eq!(rest(&replay, 0), [1, 2], "sent again");
    finish(replay).unwrap();
    assert_eq!(text(&leg).lines().count(), 2, "the gap is told twice");
    assert_eq!(names(&leg), ["main.bus.ndjson"]);
}

#[test]
fn a_replay_goes_on_where_it_was_and_only_in_the_same_file() {
    let (_data_dir, leg) = leg();
    leg.append(&[item(1), item(2)]).unwrap();
    leg.hand_over().unwrap();
    let replay = leg.handed_back(ARN).unwrap().unwrap();
    let batch = replay.next(0, 1).unwrap();
    assert_eq!(positions(&batch.letters), [1]);
    let mark = replay.mark().clone();
    drop(replay);
    let replay = leg.handed_back(ARN).unwrap().unwrap();
    assert!(replay.mark().is_of_same_file(&mark));
    assert_eq!(rest(&replay, batch.upto), [2]);
    finish(replay).unwrap();

    leg.append(&[item(3), item(4)]).unwrap();
    leg.hand_over().unwrap();
    let replay = leg.handed_back(ARN).unwrap().unwrap();
    assert_eq!(
        (replay.mark().number, replay.mark().bytes),
        (mark.number, mark.bytes)
    );
    assert!(
        !replay.mark().is_of_same_file(&mark),
        "it has the same name"
    );
}

#[test]
fn a_replay_with_letters_left_is_not_finished() {
    let (_data_dir, leg) = leg();
    leg.append(&[item(1), item(2)]).unwrap();
    leg.hand_over().unwrap();
    let mut replay = leg.handed_back(ARN).unwrap().unwrap();
    let batch = replay.next(0, 1).unwrap();
    assert!(replay.finish(batch.upto).is_err());
    assert_eq!(leg.known(ARN, 0).unwrap().len(), 2);
}

#[test]
fn a_file_that_cannot_be_removed_gives_its_gaps_back_once() {
    use std::os::fd::AsRawFd;
    let (_data_dir, leg) = leg();
    leg.append(&[item(1), gap(50)]).unwrap();
    leg.hand_over().unwrap();
    let mut replay = leg.handed_back(ARN).unwrap().unwrap();
    let end = replay.mark().bytes;
    let waiting = replay.file.path.clone();
    let held = File::open(&waiting).unwrap();
    // The same file, by a name that cannot be removed.
    replay.file.path = format!("/proc/self/fd/{}", held.as_raw_fd()).into();
    for _ in 0..3 {
        assert!(replay.finish(end).is_err());
    }
    replay.file.path = waiting;
    replay.finish(end).unwrap();
    assert_eq!(text(&leg).lines().count(), 1);
    assert_eq!(names(&leg), ["main.bus.ndjson"]);
}

#[test]
fn letters_of_one_item_are_sent_once_or_one_after_the_other() {
    let (_data_dir, leg) = leg();
    let again = Letter {
        at: "2026-01-03T00:00:00Z".to_owned(),
        ..item(1)
    };
    let other = letter(Content::Item {
        position: 1,
        index: 1,
        body: RawValue::from_string("{\"eventID\":\"other\"}".to_owned()).unwrap(),
    });
    leg.append(&[item(1), item(2), again, other.clone(), item(3), other])
        .unwrap();
    leg.hand_over().unwrap();
    let replay = leg.handed_back(ARN).unwrap().unwrap();
    let first = replay.next(0, 1 << 20).unwrap();
    assert_eq!(positions(&first.letters), [1, 2]);
    let second = replay.next(first.upto, 1 << 20).unwrap();
    assert_eq!(positions(&second.letters), [1, 3]);
    assert_eq!(second.upto, replay.mark().bytes);
}

#[test]
fn letters_of_a_trail_of_the_same_name_elsewhere_are_passed_over_and_kept() {
    let (_data_dir, leg) = leg();
    let elsewhere = Letter {
        trail_arn: Some(ARN.replace("us-east-1", "eu-west-1")),
        ..item(2)
    };
    let old = Letter {
        trail_arn: None,
        ..item(3)
    };
    leg.append(&[item(1), elsewhere, old]).unwrap();
    let known: Vec<u64> = leg
        .known(ARN, 0)
        .unwrap()
        .iter()
        .map(|id| id.position.0)
        .collect();
    assert_eq!(known, [1, 3]);
    leg.hand_over().unwrap();
    let replay = leg.handed_back(ARN).unwrap().unwrap();
    assert_eq!(rest(&replay, 0), [1, 3]);
    finish(replay).unwrap();
    assert_eq!(text(&leg).lines().count(), 1);
    assert!(text(&leg).contains("eu-west-1"));
}

#[test]
fn gaps_of_a_damaged_log_are_told_apart() {
    let (_data_dir, leg) = leg();
    let damaged = Letter {
        reason: JOURNAL_DAMAGED.to_owned(),
        ..gap(7)
    };
    leg.append(&[gap(1), damaged]).unwrap();
    let tally = leg.hand_over().unwrap();
    assert_eq!((tally.gaps, tally.gap_events), (1, 2));
    assert_eq!((tally.damaged, tally.damaged_events), (1, 2));
}

#[test]
fn many_gaps_go_back_in_several_writes() {
    let (_data_dir, leg) = leg();
    let gaps: Vec<Letter> = (0..10_000).map(gap).collect();
    leg.append(&[item(1)]).unwrap();
    leg.append(&gaps).unwrap();
    assert!(fs::metadata(leg.path()).unwrap().len() > ADDED_BACK_BYTES as u64);
    leg.hand_over().unwrap();
    let replay = leg.handed_back(ARN).unwrap().unwrap();
    assert_eq!(rest(&replay, 0), [1]);
    finish(replay).unwrap();
    assert_eq!(leg.hand_over().unwrap().gaps, 10_000);
}

#[test]
fn an_append_to_a_full_disk_fails_and_can_be_repeated() {
    let (_data_dir, leg) = leg();
    leg.append(&[item(1)]).unwrap();
    let aside = leg.directory.join("aside");
    fs::rename(leg.path(), &aside).unwrap();
    std::os::unix::fs::symlink("/dev/full", leg.path()).unwrap();
    let error = leg.append(&[item(2)]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    fs::rename(&aside, leg.path()).unwrap();
    leg.append(&[item(2)]).unwrap();
    assert_eq!(leg.known(ARN, 0).unwrap().len(), 2);
}

#[test]
fn appends_and_hand_overs_at_the_same_time_lose_and_double_nothing() {
    const WRITERS: u64 = 3;
    const EACH: u64 = 200;
    let (_data_dir, leg) = leg();
    let writing = AtomicBool::new(true);
    let (mut replayed, handed_over) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let leg = &leg;
                scope.spawn(move || {
                    for n in 0..EACH {
                        leg.append(&[item(writer * EACH + n)]).unwrap();
                    }
                })
            })
            .collect();
        let handing = scope.spawn(|| {
            let mut items = 0;
            while writing.load(Ordering::Acquire) {
                items += leg.hand_over().unwrap().items;
            }
            items + leg.hand_over().unwrap().items
        });
        let replaying = scope.spawn(|| {
            let mut all = Vec::new();
            while writing.load(Ordering::Acquire) {
                while let Some(replay) = leg.handed_back(ARN).unwrap() {
                    all.extend(rest(&replay, 0));
                    finish(replay).unwrap();
                }
            }
            all
        });
        for writer in writers {
            writer.join().unwrap();
        }
        writing.store(false, Ordering::Release);
        (replaying.join().unwrap(), handing.join().unwrap())
    });
    while let Some(replay) = leg.handed_back(ARN).unwrap() {
        replayed.extend(rest(&replay, 0));
        finish(replay).unwrap();
    }
    replayed.sort_unstable();
    assert_eq!(replayed, (0..WRITERS * EACH).collect::<Vec<_>>());
    assert_eq!(handed_over, WRITERS * EACH, "each was told once");
    assert_eq!(names(&leg), [""; 0]);
}
