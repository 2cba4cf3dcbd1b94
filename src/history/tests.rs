//! The store against a list of events: whatever is appended, given again, reopened, removed or damaged, lookups answer what the list has.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;

use super::files::Files;
use super::part::{DAY, Given, PartId};
use super::*;
use crate::event::{Category, Meta, Record};
use crate::wal::sim::Random;
use crate::wal::{Batch, DiskReserve, RealDisk};

/// 2026-05-01T00:00:00Z
const MAY: i64 = 1_777_593_600;

/// An event of the list.
#[derive(Debug, Clone)]
struct Known {
    given: Given,
    scope: Scope,
    facts: Vec<(Attribute, String)>,
}

fn meta(scope: &Scope, time: i64, read_only: bool) -> Meta {
    Meta {
        account: scope.account,
        region: scope.region,
        category: scope.category,
        global_service: false,
        read_only,
        event_time: time,
        accepted_at: WallMillis(time * 1000),
        fingerprint: [0; 16],
    }
}

fn known(position: u64, scope: Scope, time: i64, read_only: bool, json: &str) -> Known {
    let mut frame = Vec::new();
    meta(&scope, time, read_only).encode(&mut frame);
    frame.extend_from_slice(json.as_bytes());
    let mut facts = Vec::new();
    Facts::of(&Record::decode(&frame).unwrap()).each(|attribute, value| {
        facts.push((attribute, value.to_owned()));
    });
    Known {
        given: Given {
            position: Position(position),
            time,
            frame: Bytes::from(frame),
        },
        scope,
        facts,
    }
}

fn scope(account: &str, region: &str, category: Category) -> Scope {
    Scope {
        account: account.parse().unwrap(),
        region: region.parse().unwrap(),
        category,
    }
}

/// Events of one second, one after another.
fn numbered(scope: Scope, count: u64) -> Vec<Given> {
    let event = |number| {
        let json = format!(r#"{{"eventID":"id-{number}"}}"#);
        known(number, scope, MAY, false, &json).given
    };
    (0..count).map(event).collect()
}

/// An event like others, and unlike all.
fn random(rng: &mut Random, number: u64) -> Known {
    let scope = scope(
        ["111122223333", "444455556666"][rng.below(2) as usize],
        ["us-east-1", "eu-central-1"][rng.below(2) as usize],
        [
            Category::Management,
            Category::Management,
            Category::Insight,
        ][rng.below(3) as usize],
    );
    let time = MAY + rng.below(4) as i64 * DAY + rng.below(50) as i64;
    let (name, user, bucket) = (rng.below(3), rng.below(4), rng.below(5));
    let json = match scope.category {
        Category::Insight => format!(
            r#"{{"eventID":"id-{number}","insightDetails":{{"eventName":"Call{name}","eventSource":"s3.amazonaws.com"}}}}"#
        ),
        _ => format!(
            r#"{{"eventID":"id-{number}","eventName":"Call{name}","eventSource":"s3.amazonaws.com",
            "userIdentity":{{"type":"IAMUser","userName":"user-{user}","accessKeyId":"AKIA{user}"}},
            "requestParameters":{{"bucketName":"bucket-{bucket}","padding":"{}"}}}}"#,
            "x".repeat(rng.below(300) as usize)
        ),
    };
    known(number * 100, scope, time, name == 0, &json)
}

/// What a lookup should answer, the newest first. Of a second, what came last is the newest.
fn expected<'k>(list: &'k [Known], query: &Query) -> Vec<&'k Bytes> {
    let mut found: Vec<&Known> = list
        .iter()
        .filter(|known| {
            known.scope == query.scope
                && (query.times.0..=query.times.1).contains(&known.given.time)
                && query
                    .filter
                    .as_ref()
                    .is_none_or(|filter| known.facts.contains(filter))
        })
        .collect();
    found.sort_by_key(|known| std::cmp::Reverse((known.given.time, known.given.position)));
    found.into_iter().map(|known| &known.given.frame).collect()
}

/// All pages of a lookup.
fn all_pages(store: &Store, query: &Query) -> Vec<Bytes> {
    let mut query = query.clone();
    let mut found = Vec::new();
    loop {
        let page = store.lookup(&query).unwrap();
        assert!(page.events.len() <= query.most);
        found.extend(page.events.into_iter().map(Bytes::from));
        match page.next {
            None => return found,
            next => query.after = next,
        }
    }
}

fn everything(scope: Scope) -> Query {
    Query {
        scope,
        filter: None,
        times: (i64::MIN, i64::MAX),
        after: None,
        most: 50,
    }
}

/// Asks for what some of the events have, in every way.
fn check(store: &Store, list: &[Known], rng: &mut Random) {
    for _ in 0..25 {
        let Some(known) = list.get(rng.below(list.len().max(1) as u64) as usize) else {
            return;
        };
        let mut query = everything(known.scope);
        query.most = 1 + rng.below(60) as usize;
        if rng.below(4) > 0 {
            let fact = rng.below(known.facts.len() as u64) as usize;
            query.filter = Some(known.facts[fact].clone());
        }
        if rng.below(3) == 0 {
            let (before, after) = (rng.below(30) as i64, rng.below(2 * DAY as u64) as i64);
            query.times = (known.given.time - before, known.given.time + after);
        }
        let found = all_pages(store, &query);
        let found: Vec<&Bytes> = found.iter().collect();
        let expected = expected(list, &query);
        assert_eq!(found.len(), expected.len(), "{query:?}");
        assert!(found == expected, "another order for {query:?}");
    }
    let nothing = Query {
        filter: Some((Attribute::EventId, "id-x".to_owned())),
        ..everything(list[0].scope)
    };
    assert!(store.lookup(&nothing).unwrap().events.is_empty());
}

fn open(directory: &Path) -> Arc<Store> {
    Arc::new(Store::open(directory, Position(u64::MAX), Metrics::default()).unwrap())
}

#[test]
fn lookups_answer_what_a_list_of_the_events_has() {
    for seed in 0..12 {
        let rng = &mut Random(seed);
        let directory = tempfile::tempdir().unwrap();
        let most = [7, 100, MANY][rng.below(3) as usize];
        let mut store = open(directory.path());
        let mut files = Files::with_at_most(store.clone(), most);
        let mut list: Vec<Known> = Vec::new();
        for _ in 0..20 {
            for _ in 0..rng.below(60) {
                list.push(random(rng, list.len() as u64));
            }
            // Some of what is there already is given again, as after a crash.
            let from = list.len() - (rng.below(90) as usize).min(list.len());
            let from = from.min(store_has(&store));
            let given: Vec<Given> = list[from..].iter().map(|it| it.given.clone()).collect();
            files.write(&given).unwrap();
            match rng.below(6) {
                0 => assert!(files.sync().unwrap()),
                1 => {
                    // Killed: nothing is closed in order, and what was not brought to the disk is in SQLite's log.
                    std::mem::forget(files);
                    store = open(directory.path());
                    files = Files::with_at_most(store.clone(), most);
                }
                2 => {
                    drop(files);
                    files = Files::with_at_most(store.clone(), most);
                    while files.make_filter(WallMillis((MAY + 90 * DAY) * 1000)) {}
                }
                _ => {}
            }
            if !list.is_empty() {
                check(&store, &list, rng);
            }
        }
        assert_eq!(store_has(&store), list.len());
    }
}

const MANY: u64 = 1 << 18;

fn store_has(store: &Store) -> usize {
    let events: u64 = store.parts().iter().map(|part| part.head().events).sum();
    events as usize
}

fn some_days(rng: &mut Random, directory: &Path) -> (Arc<Store>, Files, Vec<Known>) {
    let store = open(directory);
    let mut files = Files::with_at_most(store.clone(), 60);
    let list: Vec<Known> = (0..600).map(|number| random(rng, number)).collect();
    for batch in list.chunks(40) {
        let given: Vec<Given> = batch.iter().map(|it| it.given.clone()).collect();
        files.write(&given).unwrap();
    }
    assert!(files.sync().unwrap());
    (store, files, list)
}

#[test]
fn retention_removes_whole_days_and_nothing_else() {
    let rng = &mut Random(5);
    let directory = tempfile::tempdir().unwrap();
    let (store, mut files, list) = some_days(rng, directory.path());
    check(&store, &list, rng);
    // Two days are over, a third is not.
    files.tidy(MAY + 2 * DAY + 7);
    let left: Vec<Known> = list
        .into_iter()
        .filter(|known| known.given.time >= MAY + 2 * DAY)
        .collect();
    check(&store, &left, rng);
    assert_eq!(store_has(&store), left.len());
    let names = std::fs::read_dir(directory.path()).unwrap();
    let gone = ["2026-05-01", "2026-05-02"];
    for name in names {
        let name = name.unwrap().file_name().into_string().unwrap();
        assert!(!gone.iter().any(|day| name.starts_with(day)), "{name}");
    }
    drop(files);
    check(&open(directory.path()), &left, rng);
}

type Harm = fn(&mut Vec<u8>);

#[test]
fn a_damaged_file_is_put_aside_and_what_the_journal_holds_of_it_comes_back() {
    let harm: [(&str, Harm); 5] = [
        ("no database", |bytes| bytes[..100].fill(7)),
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", Vec::clear),
        ("another program's", |bytes| bytes[68..72].fill(1)),
        ("pages of nothing", |bytes| bytes[4096..].fill(0)),
    ];
    for (seed, (what, harm)) in harm.into_iter().enumerate() {
        let rng = &mut Random(seed as u64);
        let directory = tempfile::tempdir().unwrap();
        let (store, files, list) = some_days(rng, directory.path());
        // At rest: all is in the file, and nothing beside it.
        drop(store);
        files.close_all();
        let victim = PartId {
            day: (MAY / DAY) as i32 + 1,
            number: 1,
        };
        let path = directory.path().join(format!("{}.db", victim.stem()));
        let mut bytes = std::fs::read(&path).unwrap();
        harm(&mut bytes);
        std::fs::write(&path, bytes).unwrap();

        let store = open(directory.path());
        let found: BTreeSet<Bytes> = [Category::Management, Category::Insight]
            .into_iter()
            .flat_map(|category| {
                let scope = scope("111122223333", "us-east-1", category);
                all_pages(&store, &everything(scope))
            })
            .collect();
        let there = list.iter().map(|known| &known.given.frame);
        let there: BTreeSet<&Bytes> = there.collect();
        assert!(found.iter().all(|frame| there.contains(frame)), "{what}");
        assert!(store.take_lost(), "{what}");
        let is_told = store.metrics().quarantined.get() == 1 || what == "empty";
        assert!(is_told, "{what}");
        assert!(!path.exists(), "{what}");

        let mut files = Files::with_at_most(store.clone(), 60);
        let given: Vec<Given> = list.iter().map(|it| it.given.clone()).collect();
        files.write(&given).unwrap();
        assert_eq!(store_has(&store), list.len(), "{what}");
        // What came back has a later file than what was beside it, so of a second it may be the newest.
        for known in list.iter().step_by(17) {
            let query = Query {
                filter: Some(known.facts[0].clone()),
                ..everything(known.scope)
            };
            let found = all_pages(&store, &query);
            assert!(found.contains(&known.given.frame), "{what}");
        }
        drop(files);
        assert_eq!(store_has(&open(directory.path())), list.len(), "{what}");
    }
}

#[test]
fn a_filter_that_cannot_be_written_is_no_work_done_and_keeps_no_other_from_its_turn() {
    let directory = tempfile::tempdir().unwrap();
    let (store, files, _) = some_days(&mut Random(1), directory.path());
    drop(files);
    let mut files = Files::with_at_most(store.clone(), 60);
    let parts = store.parts();
    let obstacle = super::part::filter_path(directory.path(), parts[0].id());
    std::fs::create_dir(&obstacle).unwrap();
    let end = WallMillis((MAY + 90 * DAY) * 1000);
    assert!(!files.make_filter(end));
    for _ in 1..parts.len() {
        assert!(files.make_filter(end));
    }
    assert!(!files.make_filter(end), "only that one is left");
    let lacking = parts.iter().filter(|part| part.lacks_filter());
    assert_eq!(lacking.count(), 1);
    std::fs::remove_dir(&obstacle).unwrap();
    assert!(files.make_filter(end));
    assert!(!files.make_filter(end));
}

#[test]
fn a_file_that_is_put_aside_while_it_is_written_is_not_written_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut files = Files::new(store.clone());
    let scope = scope("111122223333", "us-east-1", Category::Management);
    let list = numbered(scope, 6);
    files.write(&list[..3]).unwrap();
    let id = store.parts()[0].id();
    store.quarantine(id, &super::part::PartError::Foreign);
    // These were gathered already.
    files.write(&list[3..]).unwrap();
    assert!(files.sync().unwrap());
    assert_eq!(store_has(&store), 3);
    assert_eq!(store_has(&open(directory.path())), 3, "on the disk, too");
    assert!(store.take_lost());
    files.forget_lost();
    files.write(&list).unwrap();
    assert_eq!(store_has(&store), 6);
    assert_eq!(all_pages(&store, &everything(scope)).len(), 6);
    assert_eq!(store_has(&open(directory.path())), 6);
}

/// A copy of what survives a power loss in any case: files without their logs.
fn after_power_loss(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name();
        if PartId::named(name.to_str().unwrap()).is_some() {
            std::fs::copy(directory.join(&name), copy.path().join(&name)).unwrap();
        }
    }
    copy
}

#[test]
fn what_is_said_to_be_on_the_disk_is_there_without_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let has = || store_has(&open(after_power_loss(directory.path()).path()));
    let scope = scope("111122223333", "us-east-1", Category::Management);
    let list = numbered(scope, 9);
    let mut files = Files::new(open(directory.path()));
    files.write(&list[..3]).unwrap();
    assert_eq!(has(), 0, "so far it is in the log");
    assert!(files.sync().unwrap());
    assert_eq!(has(), 3);

    // Killed with a log: all of it is found to be there, and brought to the disk all the same.
    files.write(&list[3..5]).unwrap();
    std::mem::forget(files);
    let mut files = Files::new(open(directory.path()));
    files.write(&list[..5]).unwrap();
    assert_eq!(has(), 3);
    assert!(files.sync().unwrap());
    assert_eq!(has(), 5);

    // A writer that fails has written before.
    files.write(&list[5..7]).unwrap();
    let mut other = Files::new(open(directory.path()));
    other.write(&list[7..8]).unwrap();
    std::mem::forget(other);
    assert!(files.write(&list[7..]).is_err());
    assert_eq!(has(), 5);
    let mut synced = files.sync();
    if synced.is_err() {
        synced = files.sync();
    }
    assert!(synced.unwrap());
    assert_eq!(has(), 8);
}

#[test]
fn a_log_that_was_large_once_is_small_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Files::new(open(directory.path()));
    let scope = scope("111122223333", "us-east-1", Category::Management);
    let rng = &mut Random(5);
    let mut given = |number: u64, bytes: u64| {
        let noise: String = (0..bytes / 16)
            .map(|_| format!("{:016x}", rng.below(u64::MAX)))
            .collect();
        let json = format!(r#"{{"eventID":"id-{number}","p":"{noise}"}}"#);
        known(number, scope, MAY, false, &json).given
    };
    let id = PartId {
        day: (MAY / DAY) as i32,
        number: 0,
    };
    let log_bytes = || super::part::log_bytes(directory.path(), id);
    for number in 0..5 {
        files.write(&[given(number, 8 << 20)]).unwrap();
    }
    assert!(log_bytes() > 18 << 20, "{}", log_bytes());
    assert!(files.sync().unwrap());
    files.write(&[given(6, 16)]).unwrap();
    assert!(log_bytes() <= 17 << 20, "{}", log_bytes());
}

/// A thread of a daemon that is stopped may write once more when the next one runs already.
#[test]
fn two_that_write_have_each_event_once() {
    let directory = tempfile::tempdir().unwrap();
    let scope = scope("111122223333", "us-east-1", Category::Management);
    let list = numbered(scope, 6);
    let mut before = Files::new(open(directory.path()));
    before.write(&list[..2]).unwrap();
    let store = open(directory.path());
    let mut after = Files::new(store.clone());
    after.write(&list[..3]).unwrap();
    assert!(before.write(&list[2..5]).is_err());
    before.write(&list[2..4]).unwrap_or_default();
    before.write(&list[2..4]).unwrap();
    for attempt in 0..3 {
        let written = after.write(&list);
        assert!(written.is_ok() || attempt < 2);
    }
    assert_eq!(store_has(&store), 6);
    assert_eq!(store_has(&open(directory.path())), 6);
    assert_eq!(all_pages(&store, &everything(scope)).len(), 6);
}

#[test]
fn a_damaged_event_is_left_out_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut files = Files::new(store.clone());
    let scope = scope("111122223333", "us-east-1", Category::Management);
    let list = [0, 1].map(|number| {
        let json = format!(r#"{{"eventID":"id-{number}","eventName":"Same"}}"#);
        known(number, scope, MAY, false, &json)
    });
    let given = list.clone().map(|known| known.given);
    files.write(&given).unwrap();
    drop(files);
    let path = directory.path().join("2026-05-01.0000.db");
    let connection = rusqlite::Connection::open(path).unwrap();
    let spoil = "UPDATE event SET frame = CAST(substr(frame, 1, length(frame) - 1) || x'00' AS BLOB) WHERE at = (SELECT min(at) FROM event)";
    assert_eq!(connection.execute(spoil, []).unwrap(), 1);
    let page = store.lookup(&everything(scope)).unwrap();
    assert_eq!(page.events, [list[1].given.frame.to_vec()]);
    assert_eq!(store.metrics().damaged.get(), 1);
}

#[test]
fn a_clock_that_jumps_ahead_deletes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let at = |days: i64| WallMillis((MAY + days * DAY) * 1000);
    let days = |seconds: i64| (seconds - MAY) / DAY;
    assert_eq!(days(store.oldest_kept(RETENTION, at(500))), 410);
    let mut files = Files::new(store.clone());
    let scope = scope("111122223333", "us-east-1", Category::Management);
    let given = |day: i64| {
        let json = format!(r#"{{"eventID":"id-{day}"}}"#);
        known(day as u64, scope, MAY + day * DAY, false, &json).given
    };
    files.write(&[given(0), given(50)]).unwrap();
    for (now, oldest) in [(50, -40), (51, -39), (500, -38), (90_000, -38)] {
        assert_eq!(days(store.oldest_kept(RETENTION, at(now))), oldest, "{now}");
    }
    files.tidy(store.oldest_kept(RETENTION, at(500)));
    assert_eq!(store_has(&store), 2);
    // Time has passed, and events have come.
    files.write(&[given(100)]).unwrap();
    files.tidy(store.oldest_kept(RETENTION, at(100)));
    assert_eq!(store_has(&store), 2);
}

#[test]
fn a_file_is_full_by_its_bytes_too() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut files = Files::with_bytes_at_most(store.clone(), 256 << 10);
    let scope = scope("111122223333", "us-east-1", Category::Management);
    let names: Vec<String> = (0..100)
        .map(|n| format!(r#"{{"ARN":"arn:aws:s3:::b/{n}"}}"#))
        .collect();
    let list: Vec<Given> = (0..400)
        .map(|number| {
            let resources = names.join(",");
            let json = format!(r#"{{"eventID":"id-{number}","resources":[{resources}]}}"#);
            known(number, scope, MAY, false, &json).given
        })
        .collect();
    for events in list.chunks(20) {
        files.write(events).unwrap();
    }
    let parts = store.parts();
    assert!(parts.len() > 2, "{} files", parts.len());
    assert!(parts.iter().all(|part| part.head().bytes < 512 << 10));
    let again = open(directory.path());
    assert!(
        again
            .parts()
            .iter()
            .zip(&parts)
            .all(|(a, b)| a.head() == b.head())
    );
    assert_eq!(all_pages(&store, &everything(scope)).len(), 400);
    // All but the last are at rest, and get their filters.
    while files.make_filter(WallMillis(MAY * 1000)) {}
    let lacking = parts.iter().filter(|part| part.lacks_filter());
    assert!(lacking.count() <= 4, "those that are open for writing");
}

#[test]
fn an_event_dated_far_ahead_is_kept_with_those_it_came_with() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut files = Files::new(store.clone());
    let scope = scope("111122223333", "us-east-1", Category::Management);
    let far = 253_402_300_799;
    let mut ahead = known(0, scope, far, false, r#"{"eventID":"ahead"}"#);
    let mut frame = Vec::new();
    let accepted = Meta {
        accepted_at: WallMillis(MAY * 1000),
        ..meta(&scope, far, false)
    };
    accepted.encode(&mut frame);
    frame.extend_from_slice(br#"{"eventID":"ahead"}"#);
    ahead.given.frame = frame.into();
    let now = known(1, scope, MAY, false, r#"{"eventID":"now"}"#);
    let list = [ahead, now];
    files.write(&list.clone().map(|known| known.given)).unwrap();
    let found = all_pages(&store, &everything(scope));
    assert_eq!(found, list.clone().map(|known| known.given.frame));
    let at_the_end = Query {
        times: (far, far),
        ..everything(scope)
    };
    assert_eq!(all_pages(&store, &at_the_end).len(), 1);
    files.tidy(MAY + 2 * DAY);
    assert_eq!(store_has(&store), 0);
}

#[test]
fn a_page_ends_where_its_events_are_too_large_for_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut files = Files::new(store.clone());
    let scope = scope("111122223333", "us-east-1", Category::Management);
    let list: Vec<Known> = (0..40)
        .map(|number| {
            let json = format!(
                r#"{{"eventID":"id-{number}","eventName":"Large","p":"{}"}}"#,
                "x".repeat(250_000)
            );
            known(number, scope, MAY + number as i64, false, &json)
        })
        .collect();
    let given: Vec<Given> = list.iter().map(|it| it.given.clone()).collect();
    files.write(&given).unwrap();
    let query = everything(scope);
    let page = store.lookup(&query).unwrap();
    assert!((10..20).contains(&page.events.len()));
    assert_eq!(all_pages(&store, &query).len(), 40);
}

fn journal(directory: &Path) -> Wal {
    let options = crate::wal::Options {
        directory: directory.to_owned(),
        segment_bytes: 8 << 10,
        max_bytes: 1 << 30,
        disk_reserve: DiskReserve::None,
        queue_bytes: 1 << 20,
    };
    let metrics = crate::wal::Metrics::default();
    Wal::open(Arc::new(RealDisk), options, metrics, &mut |_, _| ())
        .unwrap()
        .0
}

/// Events of now, as the follower leaves out what is old.
async fn accept(journal: &Wal, from: u64, count: u64) {
    let scope = scope("111122223333", "us-east-1", Category::Management);
    let now = WallMillis::now().unix_seconds();
    let data = Scope {
        category: Category::Data,
        ..scope
    };
    for number in from..from + count {
        let mut batch = Batch::new();
        for scope in [scope, data] {
            let json = format!(
                r#"{{"eventID":"id-{number}","eventName":"{:?}"}}"#,
                scope.category
            );
            batch.push(&known(0, scope, now, false, &json).given.frame);
        }
        let permit = journal.reserve(batch.bytes()).await.unwrap();
        permit.append(batch).await.unwrap();
    }
}

/// A follower that runs, and what stops it.
struct Running {
    history: History,
    cut: watch::Sender<Position>,
    progress: watch::Receiver<Position>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn follow_into(directory: &Path, journal: &Wal) -> Running {
    let history = History::open(directory, journal, RETENTION, Metrics::default());
    let cut = watch::Sender::new(Position(0));
    let bounds = Bounds {
        disk_reserve: 0,
        held_bytes: 64 << 10,
    };
    let follower = history.follower(journal, bounds, cut.subscribe()).unwrap();
    let progress = follower.watch_progress();
    let stop = CancellationToken::new();
    let task = tokio::spawn(follow(follower, stop.clone()));
    Running {
        history,
        cut,
        progress,
        stop,
        task,
    }
}

impl Running {
    async fn has(&self, events: u64) {
        let store = self.history.store().unwrap();
        let began = std::time::Instant::now();
        while store_has(store) as u64 != events {
            let has = store_has(store);
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{has} of {events}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_followed_and_each_management_event_is_there_once() {
    let directory = tempfile::tempdir().unwrap();
    let (kept, log) = (
        directory.path().join("history"),
        directory.path().join("journal"),
    );
    let journal = journal(&log);
    accept(&journal, 0, 30).await;
    let running = follow_into(&kept, &journal);
    running.has(30).await;
    accept(&journal, 30, 20).await;
    running.has(50).await;
    let mut progress = running.progress.clone();
    let end = journal.durable();
    let saved = progress.wait_for(|position| *position >= end);
    tokio::time::timeout(Duration::from_secs(20), saved)
        .await
        .unwrap()
        .unwrap();
    running.end().await;
    assert_eq!(follower::place(&kept), Some(end));

    // The place is lost: the journal is read from its start, and nothing is there twice.
    std::fs::remove_file(kept.join("place")).unwrap();
    accept(&journal, 50, 10).await;
    let running = follow_into(&kept, &journal);
    running.has(60).await;
    running.end().await;

    // All is lost but the journal.
    std::fs::remove_dir_all(&kept).unwrap();
    let running = follow_into(&kept, &journal);
    running.has(60).await;
    let scope = scope("111122223333", "us-east-1", Category::Management);
    let page = running.history.lookup(everything(scope)).await.unwrap();
    assert_eq!(page.events.len(), 50);
    let newest = Record::decode(&page.events[0]).unwrap();
    assert!(newest.json.starts_with(br#"{"eventID":"id-59""#));
    running.end().await;
    journal.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_damaged_while_the_daemon_runs_comes_back_from_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("history");
    let journal = journal(&directory.path().join("journal"));
    accept(&journal, 0, 30).await;
    let running = follow_into(&kept, &journal);
    running.has(30).await;
    let store = running.history.store().unwrap();
    let id = store.parts()[0].id();
    // With an event gathered that is of the same file. It looks when something happens.
    accept(&journal, 30, 1).await;
    store.quarantine(id, &super::part::PartError::Foreign);
    accept(&journal, 31, 1).await;
    running.has(32).await;
    assert_eq!(store_has(&open(&kept)), 32);
    let put_aside = std::fs::read_dir(kept.join("quarantine")).unwrap();
    let names = put_aside.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = names.collect();
    let database = names.iter().find(|name| name.ends_with(".db")).unwrap();
    assert!(names.contains(&format!("{database}-wal")), "{names:?}");
    running.end().await;
    journal.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_is_cut_off_lets_the_journal_go_and_counts_the_gap() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("history");
    let journal = journal(&directory.path().join("journal"));
    accept(&journal, 0, 30).await;
    let history = History::open(&kept, &journal, RETENTION, Metrics::default());
    let cut = watch::Sender::new(Position(0));
    // A disk that never has room.
    let bounds = Bounds {
        disk_reserve: u64::MAX,
        held_bytes: 64 << 10,
    };
    let follower = history.follower(&journal, bounds, cut.subscribe()).unwrap();
    let mut progress = follower.watch_progress();
    let stop = CancellationToken::new();
    let task = tokio::spawn(follow(follower, stop.clone()));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(*progress.borrow(), Position(0), "it holds the journal");
    let metrics = history.store().unwrap().metrics().clone();
    let behind = metrics.pending_bytes.get().cast_unsigned();
    assert_eq!((metrics.running.get(), behind), (1, journal.durable().0));
    let upto = journal.durable();
    cut.send_replace(upto);
    let let_go = progress.wait_for(|position| *position >= upto);
    tokio::time::timeout(Duration::from_secs(10), let_go)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(metrics.skipped_bytes.get(), upto.0);
    assert_eq!(store_has(history.store().unwrap()), 0);
    stop.cancel();
    task.await.unwrap();

    // With room again it goes on after the gap.
    let running = follow_into(&kept, &journal);
    accept(&journal, 30, 5).await;
    running.has(5).await;
    let at = *running.cut.borrow();
    assert_eq!(at, Position(0));
    assert!(*running.progress.borrow() >= upto);
    running.end().await;
    journal.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_journal_takes_from_under_it_is_counted_and_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("history");
    let journal = journal(&directory.path().join("journal"));
    accept(&journal, 0, 150).await;
    let history = History::open(&kept, &journal, RETENTION, Metrics::default());
    let cut = watch::Sender::new(Position(0));
    let bounds = Bounds {
        disk_reserve: 0,
        held_bytes: 64 << 10,
    };
    let follower = history.follower(&journal, bounds, cut.subscribe()).unwrap();
    let metrics = history.store().unwrap().metrics();
    let behind = metrics.pending_bytes.get().cast_unsigned();
    assert_eq!(behind, journal.durable().0, "told before it runs");
    let segments = journal.trimmable(journal.durable());
    let [first, second, ..] = &segments[..] else {
        panic!("a journal of few segments");
    };
    for segment in [first, second] {
        journal.remove_oldest(segment.clone()).unwrap();
    }
    let stop = CancellationToken::new();
    let mut progress = follower.watch_progress();
    let task = tokio::spawn(follow(follower, stop.clone()));
    let end = journal.durable();
    let seen = progress.wait_for(|position| *position >= end);
    tokio::time::timeout(Duration::from_secs(20), seen)
        .await
        .unwrap()
        .unwrap();
    let store = history.store().unwrap();
    assert_eq!(store.metrics().skipped_bytes.get(), second.end.0);
    assert!((1..150).contains(&store_has(store)));
    stop.cancel();
    task.await.unwrap();
    journal.close();
}

#[test]
fn every_series_exists_from_the_start() {
    let mut registry = prometheus_client::registry::Registry::default();
    Metrics::default().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for series in [
        "traild_history_events_total 0\n",
        "traild_history_expired_events_total 0\n",
        "traild_history_running 0\n",
        "traild_history_pending_bytes 0\n",
        "traild_history_bytes 0\n",
        "traild_history_files 0\n",
        "traild_history_lookup_seconds_count 0\n",
        "traild_history_skipped_bytes_total 0\n",
        "traild_history_quarantined_files_total 0\n",
        "traild_history_damaged_events_total 0\n",
    ] {
        assert!(text.contains(series), "{series} in {text}");
    }
}

#[test]
fn files_are_named_by_their_day() {
    let id = PartId {
        day: (MAY / DAY) as i32,
        number: 12,
    };
    assert_eq!(id.stem(), "2026-05-01.0012");
    assert_eq!(PartId::named("2026-05-01.0012.db"), Some(id));
    for day in [-719_528, -1, 0, 2_932_896] {
        let id = PartId { day, number: 12345 };
        assert_eq!(PartId::named(&format!("{}.db", id.stem())), Some(id));
    }
    for other in [
        "2026-05-01.0012.db-wal",
        "2026-05-01.12.db",
        "2026-5-1.0012.db",
        "2026-02-30.0000.db",
        "place",
        ".db",
    ] {
        assert_eq!(PartId::named(other), None, "{other}");
    }
}
