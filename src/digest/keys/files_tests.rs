use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::digest::sign::verify;

const DAY: i64 = 86_400;
/// 2026-05-01T00:00:00Z.
const MAY: i64 = 1_777_593_600;

fn region(name: &str) -> Region {
    name.parse().unwrap()
}

fn here() -> Region {
    region("eu-west-1")
}

fn everything() -> TimeRange {
    TimeRange::asked(Some(i64::MIN), Some(i64::MAX), WallMillis(0)).unwrap()
}

fn open(path: &Path) -> Directory {
    Directory::open(path).unwrap()
}

fn new_dir() -> (tempfile::TempDir, PathBuf) {
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("data/keys");
    (above, path)
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The file of the only pair there is.
fn only(path: &Path, what: &str) -> PathBuf {
    let found: Vec<_> = names(path)
        .into_iter()
        .filter(|name| name.ends_with(what))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    path.join(&found[0])
}

/// Files of the directory are read-only: put in anew.
fn overwrite(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_pair_is_made_on_first_use_and_kept() {
    let (_above, path) = new_dir();
    let mut keys = open(&path);
    assert!(names(&path).is_empty());
    let pair = keys.signer(here(), MAY).unwrap();
    assert_eq!(pair.public_key().len(), 270, "2048 bits");
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&only(&path, PRIVATE)), 0o400);
    let stem = format!("eu-west-1.{}", pair.fingerprint());
    assert_eq!(
        names(&path),
        [format!("{stem}.{PRIVATE}"), format!("{stem}.{PUBLIC}")]
    );

    let mut keys = open(&path);
    let again = keys.signer(here(), MAY + 29 * DAY).unwrap();
    assert_eq!(again.fingerprint(), pair.fingerprint());
    let signature = again.sign("text").unwrap();
    let listed = keys.public_keys(everything());
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].0, here());
    assert_eq!(verify(listed[0].1.der(), "text", &signature), Ok(()));
}

#[test]
fn each_region_has_a_pair_of_its_own() {
    let (_above, path) = new_dir();
    let mut keys = open(&path);
    let regions = ["eu-west-1", "us-east-1", "our-cellar"].map(region);
    let fingerprints: BTreeSet<_> = regions
        .iter()
        .map(|region| keys.signer(*region, MAY).unwrap().fingerprint())
        .collect();
    assert_eq!(fingerprints.len(), 3);
    let listed: BTreeSet<_> = open(&path)
        .public_keys(everything())
        .into_iter()
        .map(|(region, _)| region)
        .collect();
    assert_eq!(listed, BTreeSet::from(regions));
}

#[test]
fn pairs_change_every_thirty_days_and_public_keys_stay_for_ever() {
    let (_above, path) = new_dir();
    let mut keys = open(&path);
    let mut used = Vec::new();
    for hour in (0..365 * 24).step_by(7) {
        if hour % 500 == 0 {
            keys = open(&path);
        }
        let at = MAY + hour * 3600;
        let fingerprint = keys.signer(here(), at).unwrap().fingerprint();
        used.push((at, fingerprint));
    }
    let listed = keys.public_keys(everything());
    assert_eq!(listed.len(), 13, "365 days, 30 at a time");
    for pair in listed.windows(2) {
        assert_eq!(pair[0].1.end, pair[1].1.start, "no gap, no overlap");
        assert_eq!(pair[0].1.end - pair[0].1.start, VALIDITY);
    }
    for (at, fingerprint) in used {
        let range = TimeRange::asked(Some(at), Some(at), WallMillis(0)).unwrap();
        let found = keys.public_keys(range);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.fingerprint(), fingerprint);
    }
    assert_eq!(open(&path).public_keys(everything()), listed);
}

#[test]
fn private_keys_go_when_their_time_is_over_and_all_is_signed() {
    let (_above, path) = new_dir();
    let mut keys = open(&path);
    let days = [0, 30, 60];
    let fingerprints = days.map(|day| keys.signer(here(), MAY + day * DAY).unwrap().fingerprint());
    let listed = keys.public_keys(everything());
    let there = || fingerprints.map(|it| file(&path, here(), it, PRIVATE).exists());
    for (before, left) in [
        (30 * DAY - 1, [true, true, true]),
        (30 * DAY, [false, true, true]),
        (89 * DAY, [false, false, true]),
        (89 * DAY, [false, false, true]),
    ] {
        keys.retire(MAY + before);
        assert_eq!(there(), left);
    }
    assert_eq!(open(&path).public_keys(everything()), listed);
    let current = keys.signer(here(), MAY + 89 * DAY).unwrap();
    assert_eq!(current.fingerprint(), fingerprints[2]);
}

#[test]
fn what_is_signed_late_is_signed_with_the_key_of_its_time() {
    let (_above, path) = new_dir();
    let mut keys = open(&path);
    let first = keys.signer(here(), MAY).unwrap().fingerprint();
    // The machine was off for longer than a key is valid.
    let late = keys.signer(here(), MAY + 70 * DAY).unwrap().fingerprint();
    let between = keys.signer(here(), MAY + 35 * DAY).unwrap().fingerprint();
    assert_eq!(
        keys.signer(here(), MAY + 69 * DAY).unwrap().fingerprint(),
        { keys.signer(here(), MAY + 60 * DAY).unwrap().fingerprint() }
    );
    assert_eq!(keys.signer(here(), MAY + DAY).unwrap().fingerprint(), first);
    assert_eq!(
        keys.signer(here(), MAY + 36 * DAY).unwrap().fingerprint(),
        between
    );
    assert_eq!(
        keys.signer(here(), MAY + 71 * DAY).unwrap().fingerprint(),
        late
    );
    // A clock that was set back.
    keys.signer(here(), MAY - DAY).unwrap();
    let listed = keys.public_keys(everything());
    let windows: Vec<_> = listed
        .iter()
        .map(|(_, key)| ((key.start - MAY) / DAY, (key.end - MAY) / DAY))
        .collect();
    assert_eq!(windows, [(-1, 0), (0, 30), (30, 60), (60, 70), (70, 100)]);
}

#[test]
fn what_a_crash_leaves_at_any_step_does_no_harm() {
    let (_above, whole) = new_dir();
    open(&whole).signer(here(), MAY).unwrap();
    let private = only(&whole, PRIVATE);
    let public = only(&whole, PUBLIC);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let (private_name, public_name) = (name(&private), name(&public));
    let (private, public) = (fs::read(private).unwrap(), fs::read(public).unwrap());
    let unfinished = |name: &str| format!("{name}{UNFINISHED}");
    let steps: [Vec<(String, &[u8])>; 6] = [
        vec![(unfinished(&private_name), &[])],
        vec![(unfinished(&private_name), &private[..100])],
        vec![(unfinished(&private_name), &private)],
        vec![(private_name.clone(), &private)],
        vec![
            (private_name.clone(), &private),
            (unfinished(&public_name), &public[..50]),
        ],
        vec![
            (private_name.clone(), &private),
            (unfinished(&public_name), &public),
        ],
    ];
    for (step, left) in steps.into_iter().enumerate() {
        let (_above, path) = new_dir();
        snapshot::make_private_dir(&path).unwrap();
        for (name, bytes) in &left {
            fs::write(path.join(name), bytes).unwrap();
        }
        let mut keys = open(&path);
        assert!(keys.public_keys(everything()).is_empty(), "step {step}");
        let pair = keys.signer(here(), MAY).unwrap();
        let listed = open(&path).public_keys(everything());
        assert_eq!(listed.len(), 1, "step {step}");
        assert_eq!(listed[0].1.fingerprint(), pair.fingerprint());
        assert!(!names(&path).iter().any(|name| name.ends_with(UNFINISHED)));
    }
}

#[test]
fn a_pair_that_cannot_be_written_leaves_nothing_and_is_made_later() {
    let (above, path) = new_dir();
    let mut keys = open(&path);
    let aside = above.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    let error = keys.signer(here(), MAY).unwrap_err();
    assert!(matches!(error, KeysError::File { .. }), "{error}");
    assert!(keys.public_keys(everything()).is_empty());
    fs::rename(&aside, &path).unwrap();
    keys.signer(here(), MAY).unwrap();
    assert_eq!(names(&path).len(), 2);
}

#[test]
fn the_private_file_is_there_before_the_public_one() {
    let (_above, path) = new_dir();
    snapshot::make_private_dir(&path).unwrap();
    let pair = KeyPair::generate().unwrap();
    let public = PublicKey::new(pair.public_key().to_vec(), MAY, MAY + VALIDITY);
    let paths = [PRIVATE, PUBLIC].map(|what| file(&path, here(), pair.fingerprint(), what));
    fs::create_dir(&paths[1]).unwrap();
    let error = write_pair(&pair, &public, &paths).unwrap_err();
    assert!(matches!(error, KeysError::File { path, .. } if path == paths[1]));
    assert!(paths[0].exists(), "the private one comes first");
}

#[test]
fn a_lost_or_damaged_private_key_gives_way_to_a_new_pair_and_its_public_key_stays() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 5] = [
        ("gone", |path| fs::remove_file(path).unwrap()),
        ("empty", |path| overwrite(path, b"")),
        ("cut", |path| {
            overwrite(path, &fs::read(path).unwrap()[..600]);
        }),
        ("changed", |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[700] ^= 1;
            overwrite(path, &bytes);
        }),
        ("another", |path| {
            let other = KeyPair::generate().unwrap().to_pkcs8().unwrap();
            overwrite(path, other.as_ref());
        }),
    ];
    for (what, spoil) in spoils {
        let (_above, path) = new_dir();
        let old = open(&path).signer(here(), MAY).unwrap();
        let signature = old.sign("text").unwrap();
        spoil(&only(&path, PRIVATE));

        let mut keys = open(&path);
        let new = keys.signer(here(), MAY + DAY).unwrap();
        assert_ne!(new.fingerprint(), old.fingerprint(), "{what}");
        let listed = keys.public_keys(everything());
        assert_eq!(listed.len(), 2, "{what}");
        for (_, key) in &listed {
            assert_eq!((key.start, key.end), (MAY, MAY + VALIDITY), "{what}");
        }
        let kept = listed
            .iter()
            .find(|(_, key)| key.fingerprint() == old.fingerprint());
        assert_eq!(verify(kept.unwrap().1.der(), "text", &signature), Ok(()));
        // And from then on the new one signs.
        let again = open(&path).signer(here(), MAY + 2 * DAY).unwrap();
        assert_eq!(again.fingerprint(), new.fingerprint(), "{what}");
        assert_eq!(open(&path).public_keys(everything()).len(), 2, "{what}");
    }
}

#[test]
fn a_directory_that_others_have_rights_to_is_refused() {
    for others in [0o750, 0o705, 0o701, 0o777] {
        let (_above, path) = new_dir();
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(others)).unwrap();
        let error = Directory::open(&path).unwrap_err();
        assert!(matches!(&error, KeysError::Exposed { mode, .. } if *mode == others));
        let text = error.to_string();
        assert!(text.contains("hint: chmod 700"), "{text}");
    }
}

#[test]
fn a_file_in_the_place_of_the_directory_is_an_error() {
    let (_above, path) = new_dir();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, b"").unwrap();
    assert!(matches!(
        Directory::open(&path),
        Err(KeysError::Directory { .. })
    ));
}

#[test]
fn public_files_that_are_not_what_their_names_say_are_neither_listed_nor_removed() {
    let (_above, path) = new_dir();
    let pair = open(&path).signer(here(), MAY).unwrap();
    let public = fs::read(only(&path, PUBLIC)).unwrap();
    let stranger = format!("eu-west-1.{}.{PUBLIC}", "ab".repeat(16));
    fs::write(path.join(&stranger), &public).unwrap();
    let broken = format!("eu-west-1.{}.{PUBLIC}", "cd".repeat(16));
    fs::write(path.join(&broken), b"{").unwrap();
    fs::write(path.join("notes.txt"), b"mine").unwrap();
    let before = names(&path);
    let listed = open(&path).public_keys(everything());
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].1.fingerprint(), pair.fingerprint());
    assert_eq!(names(&path), before);
}

#[test]
fn private_keys_are_in_no_debug_output() {
    let (_above, path) = new_dir();
    let mut keys = open(&path);
    keys.signer(here(), MAY).unwrap();
    let pkcs8 = fs::read(only(&path, PRIVATE)).unwrap();
    let printed = format!("{keys:?}");
    assert!(printed.contains("KeyPair { fingerprint: "));
    // Its prime factors stand in the second half.
    let secret = &pkcs8[pkcs8.len() / 2..][..16];
    assert!(!printed.contains(&hex::encode(secret)));
    assert!(!printed.contains(&format!("{secret:?}").replace(['[', ']'], "")));
}

#[tokio::test]
async fn two_callers_at_once_get_the_same_pair() {
    let (_above, path) = new_dir();
    let keys = FileKeys::open(&path).unwrap();
    let other = keys.clone();
    let at = WallMillis(MAY * 1000);
    let (one, two) = tokio::join!(keys.signer(here(), at), other.signer(here(), at));
    assert_eq!(one.unwrap().fingerprint(), two.unwrap().fingerprint());
    let now = TimeRange::asked(None, None, at).unwrap();
    assert_eq!(keys.public_keys(now).await.unwrap().len(), 1);
}

#[test]
fn no_validity_whatever_makes_the_next_one_overflow() {
    let extremes = [i64::MIN, -1, 0, 1, i64::MAX];
    for (start, end) in extremes.into_iter().flat_map(|a| extremes.map(|b| (a, b))) {
        let other = PublicKey::new(Vec::new(), start, end);
        for at in [WallMillis(i64::MIN), WallMillis(0), WallMillis(i64::MAX)] {
            let at = at.unix_seconds();
            let (start, end) = validity([&other].into_iter(), at);
            assert!(start <= at && at < end);
        }
    }
}

proptest! {
    #[test]
    fn validities_never_overlap_and_hold_the_moment_that_asked(
        moments in proptest::collection::vec(-400_i64..400, 1..60),
    ) {
        let mut keys: Vec<PublicKey> = Vec::new();
        for day in moments {
            let at = MAY + day * DAY + day;
            if keys.iter().any(|key| key.is_valid_at(at)) {
                continue;
            }
            let (start, end) = validity(keys.iter(), at);
            prop_assert!(start <= at && at < end && end - start <= VALIDITY);
            prop_assert!(keys.iter().all(|key| key.end <= start || end <= key.start));
            keys.push(PublicKey::new(Vec::new(), start, end));
        }
    }
}
