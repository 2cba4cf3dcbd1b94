use std::fs;
use std::ops::Range;

use proptest::prelude::*;

use super::book::{MAX_SPANS, MAX_TRAILS, MAX_TRAILS_A_REGION, NOT_STARTED};
use super::*;
use crate::trail::selector::spec::EventSelector;
use crate::trail::tests::trail;
use crate::trail::{Accounts, Logging, Members, Selectors};
use crate::wal::Position;

const NOW: WallMillis = WallMillis(1_777_594_354_123);

/// A journal that ends there.
fn until(end: u64) -> Range<Position> {
    Position(0)..Position(end)
}

fn named(name: &str) -> Entry {
    let trail = Trail {
        name: name.parse().unwrap(),
        logging: NOT_STARTED,
        selectors: Selectors::basic(vec![EventSelector::default()]).unwrap(),
        ..trail()
    };
    Entry::new(trail, KeptBy::Api)
}

/// In a region, seen there only.
fn local(name: &str, account: &str, region: &str) -> Entry {
    let mut entry = named(name);
    let trail = entry.trail_mut();
    trail.home_account = account.parse().unwrap();
    trail.home_region = region.parse().unwrap();
    trail.is_multi_region = false;
    entry
}

/// Every member set.
fn full() -> Entry {
    let mut entry = named("full");
    *entry.trail_mut() = Trail {
        accounts: Accounts::Organization {
            id: "o-exampleorgid".to_owned(),
            members: Members::Listed(["222233334444".parse().unwrap()].into()),
        },
        is_multi_region: false,
        include_global_service_events: false,
        prefix: "a/b".to_owned(),
        kms_key_id: Some("alias/audit".to_owned()),
        topic: Some("arn:aws:sns:us-east-1:111122223333:told".parse().unwrap()),
        log_group: Some(
            "arn:aws:logs:us-east-1:111122223333:log-group:trail:*"
                .parse::<crate::trail::LogGroup>()
                .unwrap()
                .with_role(Some("arn:aws:iam::111122223333:role/r".to_owned())),
        ),
        selectors: Selectors::advanced(
            serde_json::from_str(
                r#"[{"Name":"all","FieldSelectors":[{"Field":"eventCategory","Equals":["Management"]}]}]"#,
            )
            .unwrap(),
        )
        .unwrap(),
        ..(*entry.trail).clone()
    };
    entry.topic_name = Some("told".to_owned());
    entry.tags = vec![Tag {
        key: "team".to_owned(),
        value: Some("audit".to_owned()),
    }];
    entry.insight_selectors = vec![InsightSelector {
        insight_type: "ApiCallRateInsight".to_owned(),
        event_categories: None,
    }];
    entry.start(&until(64), NOW).unwrap();
    entry.stop(&until(128), WallMillis(NOW.0 + 1));
    entry
}

fn open(directory: &Path, configured: Vec<Trail>) -> Registry {
    let registry = Registry::open(directory, configured).unwrap();
    run(&registry);
    registry
}

/// Every generation runs at once.
fn run(registry: &Registry) {
    registry.applied(u64::MAX);
}

async fn create(registry: &Registry, entry: Entry) {
    let created = registry.change(move |book| {
        book.create(entry).unwrap();
        Ok::<_, NotKept>(())
    });
    created.await.unwrap();
}

fn names(registry: &Registry) -> String {
    let book = registry.book();
    let names: Vec<_> = book
        .trails()
        .map(|entry| entry.trail.name.to_string())
        .collect();
    names.join(" ")
}

fn in_generation(registry: &Registry) -> (String, usize) {
    let generation = registry.watch().borrow().clone();
    let names = generation.trails.iter().map(|trail| trail.name.to_string());
    let names: Vec<_> = names.collect();
    (names.join(" "), generation.deleted.len())
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (plain, full) = (named("plain"), full());
    {
        let registry = open(directory.path(), vec![trail()]);
        create(&registry, plain.clone()).await;
        create(&registry, full.clone()).await;
        assert_eq!(names(&registry), "main plain full");
        assert_eq!(in_generation(&registry), ("main plain full".to_owned(), 0));
    }
    let registry = open(directory.path(), vec![trail()]);
    let book = registry.book();
    let entries: Vec<_> = book.trails().map(|entry| Entry::clone(entry)).collect();
    let configured = Entry::new(trail(), KeptBy::Configuration);
    assert_eq!(entries, [configured, plain, full]);
}

#[test]
fn the_form_on_disk_does_not_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let mut book = Book::default();
    book.create(full()).unwrap();
    file::write(&path, &book).unwrap();
    let bytes = fs::read(&path).unwrap();
    let json = crate::snapshot::without_sum(&bytes).unwrap();
    assert_eq!(
        std::str::from_utf8(json).unwrap(),
        concat!(
            r#"{"version":1,"trails":[{"name":"full","account":"111122223333","region":"us-east-1","bucket":"audit-logs","prefix":"a/b","#,
            r#""kms_key_id":"alias/audit","topic":"arn:aws:sns:us-east-1:111122223333:told","topic_name":"told","#,
            r#""log_group":"arn:aws:logs:us-east-1:111122223333:log-group:trail:*","log_role":"arn:aws:iam::111122223333:role/r","#,
            r#""is_multi_region":false,"include_global_service_events":false,"log_file_validation":true,"#,
            r#""organization":{"id":"o-exampleorgid","accounts":["222233334444"]},"event_selectors":[],"#,
            r#""advanced_event_selectors":[{"Name":"all","FieldSelectors":[{"Field":"eventCategory","Equals":["Management"]}]}],"#,
            r#""insight_selectors":[{"InsightType":"ApiCallRateInsight"}],"tags":[{"Key":"team","Value":"audit"}],"#,
            r#""logging":{"spans":[{"from":64,"until":128}]},"started_at":1777594354123,"stopped_at":1777594354124,"is_deleted":false}]}"#
        )
    );
    assert_eq!(file::read(&path, NOW).unwrap(), [full()]);
}

fn channel(name: &str) -> Channel {
    Channel {
        id: "6464f5be-705b-4c51-b64c-d46643ff96dc".to_owned(),
        account: "111122223333".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
        name: name.to_owned(),
        source: "Custom".to_owned(),
        destinations: vec![Destination {
            kind: "EVENT_DATA_STORE".to_owned(),
            location: "arn:aws:cloudtrail:us-east-1:111122223333:eventdatastore/8fb8a0e9"
                .to_owned(),
        }],
        tags: vec![Tag {
            key: "team".to_owned(),
            value: None,
        }],
        policy: Some("{}".to_owned()),
    }
}

#[test]
fn the_form_of_channels_on_disk_does_not_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(CHANNELS_FILE);
    let book = Book::default().with_channels(vec![channel("wiki")]);
    channel_file::write(&path, &book.channels).unwrap();
    let bytes = fs::read(&path).unwrap();
    let json = crate::snapshot::without_sum(&bytes).unwrap();
    assert_eq!(
        std::str::from_utf8(json).unwrap(),
        concat!(
            r#"{"version":1,"channels":[{"id":"6464f5be-705b-4c51-b64c-d46643ff96dc","account":"111122223333","region":"us-east-1","#,
            r#""name":"wiki","source":"Custom","destinations":[{"Type":"EVENT_DATA_STORE","#,
            r#""Location":"arn:aws:cloudtrail:us-east-1:111122223333:eventdatastore/8fb8a0e9"}],"tags":[{"Key":"team"}],"policy":"{}"}]}"#
        )
    );
    assert_eq!(channel_file::read(&path, NOW).unwrap(), [channel("wiki")]);
}

#[tokio::test]
async fn channels_are_kept_beside_the_trails_and_make_no_generation() {
    let directory = tempfile::tempdir().unwrap();
    let registry = open(directory.path(), vec![trail()]);
    create(&registry, named("made")).await;
    let number = registry.watch().borrow().number;
    let trails = fs::read(directory.path().join(FILE)).unwrap();
    let created = registry.change(|book| {
        book.channels.create(channel("wiki")).unwrap();
        Ok::<_, NotKept>(())
    });
    created.await.unwrap();
    assert_eq!(registry.watch().borrow().number, number);
    assert_eq!(fs::read(directory.path().join(FILE)).unwrap(), trails);

    let channels = |registry: &Registry| -> Vec<Channel> {
        let book = registry.book();
        let channels = book.channels.iter();
        channels.map(|channel| Channel::clone(channel)).collect()
    };
    let again = open(directory.path(), vec![trail()]);
    assert_eq!(channels(&again), [channel("wiki")]);
    assert_eq!(names(&again), "main made");

    // Damage to the one leaves the other.
    let path = directory.path().join(CHANNELS_FILE);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let damaged = open(directory.path(), vec![trail()]);
    assert_eq!(channels(&damaged), []);
    assert_eq!(names(&damaged), "main made");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_change_that_is_refused_or_cannot_be_written_has_not_happened() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("data");
    fs::create_dir(&home).unwrap();
    let registry = open(&home, vec![]);
    create(&registry, named("first")).await;

    #[derive(Debug)]
    struct Refused;
    impl From<NotKept> for Refused {
        fn from(_: NotKept) -> Self {
            unreachable!("nothing is to be written")
        }
    }
    let refused = registry.change(|book| {
        book.create(named("second")).unwrap();
        Err::<(), _>(Refused)
    });
    assert!(refused.await.is_err());
    assert_eq!(names(&registry), "first");

    fs::rename(&home, directory.path().join("gone")).unwrap();
    let unwritten = registry.change(|book| {
        book.create(named("second")).unwrap();
        Ok::<_, NotKept>(())
    });
    let error = unwritten.await.unwrap_err();
    assert!(error.to_string().contains("trails.json"), "{error}");
    assert_eq!(names(&registry), "first");
    assert_eq!(in_generation(&registry).0, "first");

    fs::rename(directory.path().join("gone"), &home).unwrap();
    create(&registry, named("third")).await;
    assert_eq!(names(&open(&home, vec![])), "first third");
}

#[tokio::test]
async fn changes_at_the_same_time_are_all_made() {
    let directory = tempfile::tempdir().unwrap();
    let registry = open(directory.path(), vec![]);
    create(&registry, named("tagged")).await;
    let arn = named("tagged").trail.arn();
    let each = |number: usize| {
        let (registry, arn) = (registry.clone(), arn.clone());
        tokio::spawn(async move {
            let changed = registry.change(move |book| {
                let tags = &mut book.trail_mut(&arn).unwrap().tags;
                tags.push(Tag {
                    key: number.to_string(),
                    value: None,
                });
                Ok::<_, NotKept>(())
            });
            changed.await.unwrap();
        })
    };
    futures::future::join_all((0..20).map(each)).await;
    let kept = open(directory.path(), vec![]).book();
    let tags = kept.trails().next().unwrap().tags.clone();
    assert_eq!(tags.len(), 20);
    assert_eq!(
        registry.watch().borrow().number,
        2,
        "what legs do not know of makes no generation"
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_is_answered_when_its_generation_runs_and_after_a_while_anyway() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::open(directory.path(), vec![]).unwrap();
    registry.applied(1);
    let mut generations = registry.watch();

    let changing = tokio::spawn({
        let registry = registry.clone();
        async move { create(&registry, named("first")).await }
    });
    generations.changed().await.unwrap();
    let number = generations.borrow_and_update().number;
    assert!(!changing.is_finished());
    let began = tokio::time::Instant::now();
    registry.applied(number);
    changing.await.unwrap();
    assert!(began.elapsed() < PATIENCE);

    create(&registry, named("second")).await;
    assert!(began.elapsed() >= PATIENCE);
    assert_eq!(names(&registry), "first second");
}

#[tokio::test(start_paused = true)]
async fn at_a_stop_no_caller_waits_for_the_legs_and_no_change_is_made_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::open(directory.path(), vec![]).unwrap();
    let mut generations = registry.watch();
    let changing = tokio::spawn({
        let registry = registry.clone();
        async move { create(&registry, named("first")).await }
    });
    generations.changed().await.unwrap();
    let began = tokio::time::Instant::now();
    registry.stop();
    changing.await.unwrap();
    assert!(began.elapsed() < PATIENCE);

    let late = registry
        .change(|book| {
            *book = Book::default();
            Ok::<_, NotKept>(())
        })
        .await;
    assert!(late.is_err());
    assert_eq!(names(&registry), "first");
    // What the daemon itself has to write down is not asked for by a caller.
    registry.forget("arn:none").await.unwrap();
    assert_eq!(names(&open(directory.path(), vec![])), "first");
}

#[tokio::test]
async fn a_deleted_trail_runs_until_it_is_forgotten_and_nobody_sees_it() {
    let directory = tempfile::tempdir().unwrap();
    let registry = open(directory.path(), vec![]);
    let mut entry = named("gone");
    entry.start(&until(10), NOW).unwrap();
    let arn = entry.trail.arn();
    create(&registry, entry).await;
    let delete = |at: u64| {
        let (registry, arn) = (registry.clone(), arn.clone());
        async move {
            let deleted = registry.change(move |book| {
                book.delete(&arn, &until(at), NOW);
                Ok::<_, NotKept>(())
            });
            deleted.await.unwrap();
        }
    };
    delete(20).await;
    assert_eq!(names(&registry), "");
    assert_eq!(in_generation(&registry), ("gone".to_owned(), 1));
    let logging = registry.watch().borrow().trails[0].logging.clone();
    assert_eq!(logging.stopped_at(), Some(Position(20)));
    let after_restart = open(directory.path(), vec![]);
    assert_eq!(in_generation(&after_restart), ("gone".to_owned(), 1));

    // One of its name delivers what is left of it; forgetting comes too late then.
    create(&registry, named("gone")).await;
    let logging = registry.watch().borrow().trails[0].logging.clone();
    assert!(logging.covers(Position(15)) && !logging.is_on());
    registry.forget(&arn).await.unwrap();
    assert_eq!(names(&registry), "gone");
    assert_eq!(in_generation(&registry), ("gone".to_owned(), 0));

    delete(30).await;
    registry.forget(&arn).await.unwrap();
    assert_eq!(in_generation(&registry), (String::new(), 0));
    assert_eq!(open(directory.path(), vec![]).book().kept().count(), 0);
}

#[tokio::test]
async fn a_trail_of_the_configuration_covers_one_of_the_api_which_is_back_later() {
    let directory = tempfile::tempdir().unwrap();
    let registry = open(directory.path(), vec![]);
    create(&registry, named("main")).await;
    create(&registry, named("other")).await;

    let covered = open(directory.path(), vec![trail()]);
    let kept_by: Vec<_> = covered.book().trails().map(|entry| entry.kept_by).collect();
    assert_eq!(kept_by, [KeptBy::Configuration, KeptBy::Api]);
    assert_eq!(in_generation(&covered).0, "main other");
    create(&covered, named("third")).await;

    let back = open(directory.path(), vec![]);
    let mut names: Vec<_> = back
        .book()
        .trails()
        .map(|entry| entry.trail.name.to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["main", "other", "third"]);
    assert!(
        back.book()
            .trails()
            .all(|entry| entry.kept_by == KeptBy::Api)
    );
}

#[test]
fn there_is_room_for_five_trails_in_a_region_shadows_among_them() {
    const HOME: &str = "111122223333";
    let mut book = Book::new(vec![trail()], vec![]);
    book.create(named("all-regions")).unwrap();
    for number in 2..=MAX_TRAILS_A_REGION {
        let entry = local(&format!("local-{number}"), HOME, "eu-west-1");
        book.create(entry).unwrap();
    }
    for (name, account, region, room) in [
        ("local-2", HOME, "eu-west-1", Some("already a trail")),
        (
            "one-more",
            HOME,
            "eu-west-1",
            Some("already 5 trails in eu-west-1"),
        ),
        ("main", HOME, "us-east-1", Some("already a trail")),
        ("local-2", HOME, "us-east-1", None),
        ("local-2", "444455556666", "eu-west-1", None),
    ] {
        let told = book.has_room(&local(name, account, region));
        let told = told.err().map(|error| error.to_string());
        let is_expected = match (&told, room) {
            (Some(told), Some(expected)) => told.contains(expected),
            (told, expected) => told.is_none() && expected.is_none(),
        };
        assert!(is_expected, "{name} {account} {region}: {told:?}");
    }
}

#[test]
fn traild_has_room_for_so_many_trails_of_all_accounts() {
    let mut book = Book::default();
    for number in 0..MAX_TRAILS {
        let account = format!("{:012}", number + 1);
        book.create(local("main", &account, "us-east-1")).unwrap();
    }
    let one_more = local("main", "999999999999", "us-east-1");
    assert_eq!(book.create(one_more), Err(NoRoom::InAll));
}

#[test]
fn starting_and_stopping_again_change_nothing() {
    let mut entry = named("main");
    entry.stop(&until(1), NOW);
    assert_eq!((entry.started_at, entry.stopped_at), (None, None));
    entry.start(&until(2), NOW).unwrap();
    let started = entry.clone();
    entry.start(&until(3), WallMillis(NOW.0 + 1)).unwrap();
    assert_eq!(entry, started);
    entry.stop(&until(4), WallMillis(NOW.0 + 2));
    let stopped = entry.clone();
    entry.stop(&until(5), WallMillis(NOW.0 + 3));
    assert_eq!(entry, stopped);
    assert_eq!(entry.stopped_at, Some(WallMillis(NOW.0 + 2)));
    assert_eq!(entry.trail.logging.stopped_at(), Some(Position(4)));
    assert!(matches!(entry.trail.logging, Logging::Spans(_)));
}

#[test]
fn what_is_remembered_of_starts_and_stops_is_bounded() {
    let mut entry = named("main");
    let times = u64::try_from(MAX_SPANS).unwrap();
    for time in 0..times {
        entry.start(&until(time * 20), NOW).unwrap();
        entry.stop(&until(time * 20 + 10), NOW);
    }
    let refused = entry.clone();
    assert_eq!(entry.start(&until(times * 20), NOW), Err(StartedTooOften));
    assert_eq!(entry, refused);
    // The journal has moved on.
    let journal = Position(times * 10)..Position(times * 20);
    entry.start(&journal, NOW).unwrap();
    let Logging::Spans(spans) = &entry.trail.logging else {
        panic!("a trail of the API");
    };
    assert_eq!(spans.len(), MAX_SPANS / 2 + 1);
}

proptest! {
    #[test]
    fn a_damaged_file_is_put_aside_and_the_daemon_starts(at in 0usize..900, bit in 0u8..8, cut in proptest::bool::ANY) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut book = Book::default();
        book.create(full()).unwrap();
        file::write(&path, &book).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let at = at % bytes.len();
        match cut {
            true => bytes.truncate(at),
            false => bytes[at] ^= 1 << bit,
        }
        fs::write(&path, &bytes).unwrap();
        let registry = open(directory.path(), vec![trail()]);
        prop_assert_eq!(names(&registry), "main");
        prop_assert!(!path.exists());
        let aside: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        prop_assert_eq!(aside.len(), 1);
        prop_assert_eq!(fs::read(&aside[0]).unwrap(), bytes);
    }
}

#[test]
fn a_file_of_another_version_is_put_aside_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let later = crate::snapshot::with_sum(br#"{"version":2,"trails":[]}"#);
    fs::write(&path, later).unwrap();
    assert_eq!(file::read(&path, NOW).unwrap(), []);
    assert!(!path.exists());
}
