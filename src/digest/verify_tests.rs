use std::collections::BTreeMap;

use super::coverage::{Coverage, Standing};
use super::*;
use crate::digest::key::Chain;
use crate::digest::sign::KeyPair;
use crate::digest::{File, Previous, vectors};

const HOUR: i64 = 3600;
/// 2026-05-01T00:12:34Z, the end of the first digest.
const FIRST: i64 = 1_777_594_354;

fn chain_of_digests() -> Chain {
    crate::digest::key::tests::chain()
}

fn place(key: String) -> Location {
    Location {
        bucket: "audit-bucket".into(),
        key,
    }
}

fn public(pair: &KeyPair, start: i64, end: i64) -> PublicKey {
    PublicKey::new(pair.public_key().to_vec(), start, end)
}

/// A bucket with a chain of five digests, every other one with a log file, and the keys to it. Tests spoil it.
struct World {
    pair: KeyPair,
    keys: Vec<PublicKey>,
    digests: BTreeMap<Location, Found>,
    logs: BTreeMap<Location, LogState>,
    due: Option<i64>,
}

impl World {
    fn new() -> Self {
        let pair = vectors::key_pair();
        let key = public(&pair, FIRST - HOUR, FIRST + 30 * 24 * HOUR);
        let mut world = Self {
            pair,
            keys: vec![key],
            digests: BTreeMap::new(),
            logs: BTreeMap::new(),
            due: Some(FIRST + 4 * HOUR),
        };
        let mut previous = None;
        for hour in 0..5 {
            previous = Some(world.add(hour, Kind::Standard, previous));
        }
        world
    }

    /// The digest of the hour that ends `hour` hours after the first, with a log file in odd hours.
    fn draft(&self, hour: i64, kind: Kind, previous: Option<Previous>) -> Digest {
        let end = FIRST + hour * HOUR;
        let key = format!("AWSLogs/111122223333/CloudTrail/eu-west-1/{hour}.json.gz");
        let file = File {
            location: place(key),
            sha256: Sha256::of(&hour.to_le_bytes()),
            newest: end - 5,
            oldest: end - 9,
        };
        Digest {
            account: "111122223333".parse().unwrap(),
            start: end - HOUR,
            end,
            location: place(chain_of_digests().key(end, kind)),
            fingerprint: self.pair.fingerprint(),
            previous,
            files: if hour % 2 == 1 {
                vec![file]
            } else {
                Vec::new()
            },
        }
    }

    fn add(&mut self, hour: i64, kind: Kind, previous: Option<Previous>) -> Previous {
        let digest = self.draft(hour, kind, previous);
        self.put(&digest)
    }

    /// Signs the digest and puts it and its files into the bucket.
    fn put(&mut self, digest: &Digest) -> Previous {
        for file in &digest.files {
            let state = LogState::Read {
                sha256: file.sha256,
                event_times: Some((file.newest, file.oldest)),
            };
            self.logs.insert(file.location.clone(), state);
        }
        let json = digest.to_json();
        let sha256 = Sha256::of(&json);
        let signature = self.pair.sign(&string_to_sign(digest, &sha256)).unwrap();
        let backfilled = digest.location.key.contains("_backfill");
        let metadata = Metadata {
            signature: Some(signature.to_string()),
            signature_algorithm: Some(SIGNATURE_ALGORITHM.into()),
            backfill_generation_timestamp: backfilled.then(|| "2026-05-02T00:00:00.000Z".into()),
        };
        let found = Found {
            location: digest.location.clone(),
            json,
            metadata,
        };
        self.digests.insert(digest.location.clone(), found);
        Previous {
            location: digest.location.clone(),
            sha256,
            signature,
        }
    }

    fn place(&self, hour: i64) -> Location {
        place(chain_of_digests().key(FIRST + hour * HOUR, Kind::Standard))
    }

    fn found(&mut self, hour: i64) -> &mut Found {
        let place = self.place(hour);
        self.digests.get_mut(&place).unwrap()
    }

    /// What the digest of this hour says of itself to its successor.
    fn previous(&mut self, hour: i64) -> Previous {
        let found = self.found(hour);
        Previous {
            location: found.location.clone(),
            sha256: Sha256::of(&found.json),
            signature: found.metadata.signature.as_ref().unwrap().parse().unwrap(),
        }
    }

    fn log_place(&self, hour: i64) -> Location {
        self.draft(hour, Kind::Standard, None).files[0]
            .location
            .clone()
    }

    /// As `traild verify` does it: the findings, without what they all begin with.
    fn findings(&self) -> Vec<String> {
        let keys: Keyring = self.keys.iter().cloned().collect();
        let mut valid = Vec::new();
        let mut findings = Vec::new();
        for found in self.digests.values() {
            match digest(found, &keys) {
                Ok(digest) => valid.push(digest),
                Err(finding) => findings.push(finding),
            }
        }
        for file in valid.iter().flat_map(|it| &it.digest.files) {
            let state = self.logs.get(&file.location).unwrap_or(&LogState::Missing);
            findings.extend(log(file, state).err());
        }
        let scope = Scope {
            folder: place(chain_of_digests().folder()),
            from: FIRST - HOUR,
            due: self.due,
        };
        let present = self.digests.keys().cloned().collect();
        findings.extend(chain(&scope, &present, &valid));
        let shorten = |finding: &Finding| {
            let mut text = finding.to_string();
            for hour in -1..40 {
                text = text.replace(&moment::text(FIRST + hour * HOUR), &format!("+{hour}h"));
                for (kind, sign) in [(Kind::Standard, "#"), (Kind::Backfill, "b")] {
                    let place = place(chain_of_digests().key(FIRST + hour * HOUR, kind));
                    text = text.replace(&place.to_string(), &format!("{sign}{hour}"));
                }
            }
            text.replace(
                "s3://audit-bucket/AWSLogs/111122223333/CloudTrail/eu-west-1/",
                "",
            )
        };
        findings.iter().map(shorten).collect()
    }
}

#[test]
fn a_whole_chain_has_no_findings() {
    assert_eq!(World::new().findings(), [""; 0]);
}

#[test]
fn the_vectors_have_no_findings() {
    let pair = vectors::key_pair();
    let keys = Keyring::from_iter([public(&pair, 1_777_000_000, 1_779_592_000)]);
    let valid: Vec<_> = vectors::digests()
        .into_iter()
        .map(|object| Found {
            location: Location {
                bucket: object.bucket,
                key: object.key,
            },
            json: object.uncompressed.into_bytes(),
            metadata: Metadata {
                signature: Some(object.signature),
                signature_algorithm: Some(SIGNATURE_ALGORITHM.into()),
                backfill_generation_timestamp: None,
            },
        })
        .map(|found| digest(&found, &keys).unwrap())
        .collect();
    let logs: BTreeMap<_, _> = vectors::logs()
        .into_iter()
        .map(|object| (object.key, object.uncompressed))
        .collect();
    let files: Vec<_> = valid.iter().flat_map(|it| &it.digest.files).collect();
    assert_eq!(files.len(), 2);
    for file in &files {
        let state = LogState::Read {
            sha256: Sha256::of(logs[&file.location.key].as_bytes()),
            event_times: None,
        };
        assert_eq!(log(file, &state), Ok(()));
    }
    let scope = Scope {
        folder: place(chain_of_digests().folder()),
        from: FIRST - HOUR,
        due: Some(FIRST + 3 * HOUR),
    };
    let present = valid.iter().map(|it| it.digest.location.clone()).collect();
    assert_eq!(chain(&scope, &present, &valid), []);
    let coverage = Coverage::of(&valid, HOUR, i64::MAX);
    assert_eq!(coverage.span(), Some((FIRST, FIRST + 3 * HOUR)));
    for file in files {
        assert_eq!(coverage.standing(&file.location, None), Standing::Named);
    }
}

#[test]
fn an_edited_digest_is_refused() {
    let mut world = World::new();
    let found = world.found(3);
    let text = String::from_utf8(found.json.clone()).unwrap();
    found.json = text.replace("/3.json.gz", "/4.json.gz").into_bytes();
    assert_eq!(
        world.findings(),
        ["Digest file\t#3\tINVALID: signature verification failed"]
    );
}

#[test]
fn a_digest_cut_short_is_refused() {
    let mut world = World::new();
    world.found(3).json.truncate(300);
    let findings = world.findings();
    assert_eq!(findings.len(), 1);
    assert!(findings[0].starts_with("Digest file\t#3\tINVALID: invalid format: "));
}

#[test]
fn a_digest_without_a_member_is_refused_and_the_member_named() {
    let mut world = World::new();
    let found = world.found(3);
    let mut json: serde_json::Value = serde_json::from_slice(&found.json).unwrap();
    json.as_object_mut().unwrap().remove("logFiles");
    found.json = json.to_string().into_bytes();
    assert!(world.findings()[0].contains("INVALID: invalid format: missing field `logFiles`"));
}

#[test]
fn a_deleted_digest_is_missed() {
    for hour in [0, 2, 3] {
        let mut world = World::new();
        let place = world.place(hour);
        world.digests.remove(&place);
        assert_eq!(
            world.findings(),
            [format!("Digest file\t#{hour}\tINVALID: not found")]
        );
    }
}

#[test]
fn the_beginning_of_a_chain_may_be_out_of_scope() {
    let mut world = World::new();
    let keys: Keyring = world.keys.iter().cloned().collect();
    let first = world.place(0);
    world.digests.remove(&first);
    let valid: Vec<_> = world
        .digests
        .values()
        .map(|found| digest(found, &keys).unwrap())
        .collect();
    let present = world.digests.keys().cloned().collect();
    for (from, count) in [(FIRST, 0), (FIRST - 1, 1)] {
        let scope = Scope {
            folder: place(String::new()),
            from,
            due: None,
        };
        assert_eq!(chain(&scope, &present, &valid).len(), count);
    }
}

#[test]
fn deleted_newest_digests_are_missed() {
    let mut world = World::new();
    for hour in [3, 4] {
        let place = world.place(hour);
        world.digests.remove(&place);
    }
    let folder = "s3://audit-bucket/AWSLogs/111122223333/CloudTrail-Digest/eu-west-1/";
    assert_eq!(
        world.findings(),
        [format!(
            "Digest chain\t{folder}\tINVALID: the newest digest file ends at +2h, there should be one up to +4h"
        )]
    );
    world.digests.clear();
    assert_eq!(
        world.findings(),
        [format!(
            "Digest chain\t{folder}\tINVALID: the newest digest file ends at no time, there should be one up to +4h"
        )]
    );
    world.due = None;
    assert_eq!(world.findings(), [""; 0]);
}

#[test]
fn a_moved_digest_is_refused() {
    let mut world = World::new();
    let mut found = world.found(3).clone();
    let here = world.place(3);
    let there = world.place(9);
    found.location = there.clone();
    world.digests.remove(&here);
    world.digests.insert(there, found);
    assert_eq!(
        world.findings(),
        [
            "Digest file\t#9\tINVALID: has been moved from its original location",
            "Digest file\t#3\tINVALID: not found",
        ]
    );
}

#[test]
fn swapped_digests_are_refused() {
    let mut world = World::new();
    let (one, two) = (world.found(1).clone(), world.found(2).clone());
    (world.found(1).json, world.found(1).metadata) = (two.json, two.metadata);
    (world.found(2).json, world.found(2).metadata) = (one.json, one.metadata);
    assert_eq!(
        world.findings(),
        [
            "Digest file\t#1\tINVALID: has been moved from its original location",
            "Digest file\t#2\tINVALID: has been moved from its original location",
        ]
    );
}

#[test]
fn a_digest_that_a_stranger_signed_is_refused() {
    let mut world = World::new();
    let stranger = KeyPair::generate().unwrap();
    let mut digest = Digest::read(&world.found(3).json).unwrap();
    // As the region's own key.
    let text = string_to_sign(&digest, &Sha256::of(&digest.to_json()));
    let signature = stranger.sign(&text).unwrap().to_string();
    world.found(3).metadata.signature = Some(signature);
    assert_eq!(
        world.findings(),
        ["Digest file\t#3\tINVALID: signature verification failed"]
    );
    // As itself.
    digest.fingerprint = stranger.fingerprint();
    let own = std::mem::replace(&mut world.pair, stranger);
    world.put(&digest);
    let fingerprint = digest.fingerprint;
    assert_eq!(
        world.findings(),
        [format!(
            "Digest file\t#3\tINVALID: public key not found in region us-east-1 for fingerprint {fingerprint}"
        )]
    );
    // As itself, and its key was smuggled in: what comes after it tells.
    let stranger = std::mem::replace(&mut world.pair, own);
    world.keys.push(public(&stranger, 0, i64::MAX));
    assert_eq!(
        world.findings(),
        [
            "Digest file\t#4\tINVALID: hash value of the previous digest file doesn't match",
            "Digest file\t#4\tINVALID: signature of the previous digest file doesn't match",
        ]
    );
}

#[test]
fn metadata_must_be_those_of_a_signature() {
    type Spoil = fn(&mut Metadata);
    let spoils: [(&str, Spoil); 4] = [
        ("signature", |it| it.signature = None),
        ("signature", |it| it.signature = Some("d1c3xx".into())),
        ("signature-algorithm", |it| it.signature_algorithm = None),
        ("signature-algorithm", |it| {
            it.signature_algorithm = Some("none".into());
        }),
    ];
    for (name, spoil) in spoils {
        let mut world = World::new();
        spoil(&mut world.found(3).metadata);
        assert_eq!(
            world.findings(),
            [format!(
                "Digest file\t#3\tINVALID: signature verification failed: metadata {name} is missing or invalid"
            )]
        );
    }
}

#[test]
fn a_key_that_is_not_pkcs_1_is_refused() {
    let mut world = World::new();
    let key = PublicKey::new(b"SubjectPublicKeyInfo".to_vec(), 0, i64::MAX);
    let mut digest = Digest::read(&world.found(3).json).unwrap();
    digest.fingerprint = key.fingerprint();
    world.put(&digest);
    world.keys.push(key.clone());
    let fingerprint = key.fingerprint();
    assert_eq!(
        world.findings(),
        [format!(
            "Digest file\t#3\tINVALID: Unable to load PKCS #1 key with fingerprint {fingerprint}"
        )]
    );
}

#[test]
fn a_key_signs_only_in_its_time() {
    let mut world = World::new();
    let fingerprint = world.pair.fingerprint();
    world.keys[0].end = FIRST + 4 * HOUR;
    let out = |hour| {
        format!(
            "Digest file\t#{hour}\tINVALID: signed with key {fingerprint}, which was not valid at +{hour}h"
        )
    };
    assert_eq!(world.findings()[0], out(4));
    assert_eq!(world.findings().len(), 2, "and none is valid up to +4h");
    // A digest is written some time after its window.
    world.keys[0] = public(&world.pair, FIRST + 2 * HOUR, FIRST + 5 * HOUR);
    assert_eq!(world.findings(), [""; 0]);
    world.keys[0].start += 1;
    assert_eq!(world.findings()[0], out(0));
}

#[test]
fn wrong_links_are_found_although_both_digests_are_valid() {
    let mut world = World::new();
    let right = world.previous(2);
    let wrong_hash = Previous {
        sha256: Sha256::of(b"other"),
        ..right.clone()
    };
    let wrong_signature = Previous {
        signature: Signature(vec![7; 256]),
        ..right
    };
    for (previous, words) in [(wrong_hash, "hash value"), (wrong_signature, "signature")] {
        let mut world = World::new();
        let three = world.add(3, Kind::Standard, Some(previous));
        world.add(4, Kind::Standard, Some(three));
        assert_eq!(
            world.findings(),
            [format!(
                "Digest file\t#3\tINVALID: {words} of the previous digest file doesn't match"
            )]
        );
    }
}

#[test]
fn windows_must_follow_one_another() {
    for (shift, finding) in [
        (
            600,
            "Digest file\t#3\tINVALID: no digest file covers the time from +2h to 2026-05-01T02:22:34Z",
        ),
        (
            -HOUR,
            "Digest file\t#3\tINVALID: its time from +1h to +2h is also covered by the previous digest file",
        ),
        (
            HOUR,
            "Digest file\t#3\tINVALID: its time ends before it begins",
        ),
    ] {
        let mut world = World::new();
        let previous = world.previous(2);
        let mut digest = world.draft(3, Kind::Standard, Some(previous));
        digest.start += shift;
        let three = world.put(&digest);
        world.add(4, Kind::Standard, Some(three));
        assert_eq!(world.findings()[0], finding);
    }
}

#[test]
fn backfill_digests_cover_missed_hours_and_are_checked_themselves() {
    let mut world = World::new();
    for hour in [2, 3] {
        let place = world.place(hour);
        world.digests.remove(&place);
    }
    let one = world.previous(1);
    world.add(4, Kind::Standard, Some(one));
    let gap = "Digest file\t#4\tINVALID: no digest file covers the time from +1h to +3h";
    assert_eq!(world.findings(), [gap]);

    let two = world.add(2, Kind::Backfill, None);
    assert_eq!(world.findings(), [gap.replace("+1h", "+2h")]);
    world.add(3, Kind::Backfill, Some(two.clone()));
    assert_eq!(world.findings(), [""; 0]);

    let wrong = Previous {
        sha256: Sha256::of(b"other"),
        ..two
    };
    world.add(3, Kind::Backfill, Some(wrong));
    assert_eq!(
        world.findings(),
        [
            "(backfill) Digest file\tb3\tINVALID: hash value of the previous digest file doesn't match"
        ]
    );
    let three = place(chain_of_digests().key(FIRST + 3 * HOUR, Kind::Backfill));
    let found = world.digests.get_mut(&three).unwrap();
    found.metadata.backfill_generation_timestamp = None;
    assert_eq!(
        world.findings()[0],
        "(backfill) Digest file\tb3\tINVALID: invalid format: metadata backfill-generation-timestamp is missing or invalid"
    );
}

#[test]
fn backfill_digests_keep_a_chain_current() {
    let mut world = World::new();
    let four = world.place(4);
    world.digests.remove(&four);
    assert_eq!(world.findings().len(), 1);
    world.add(4, Kind::Backfill, None);
    assert_eq!(world.findings(), [""; 0]);
}

#[test]
fn a_backfill_digest_is_signed_with_the_key_of_when_it_was_made() {
    let mut world = World::new();
    let four = world.place(4);
    world.digests.remove(&four);
    world.add(4, Kind::Backfill, None);
    let made = moment::read("2026-05-02T00:00:00Z").unwrap();
    world.keys[0].end = made;
    assert!(world.findings()[0].contains("which was not valid at 2026-05-02T00:00:00Z"));
    world.keys[0].end = made + 1;
    assert_eq!(world.findings(), [""; 0]);
}

#[test]
fn a_chain_that_begins_anew_is_told_but_no_failure() {
    let mut world = World::new();
    let nine = world.add(9, Kind::Standard, None);
    world.add(10, Kind::Standard, Some(nine));
    world.due = None;
    assert_eq!(
        world.findings(),
        ["No log files were delivered by CloudTrail between +4h and +8h"]
    );
    let notice = Finding::digest(
        world.place(9),
        Fault::Restarted {
            from: FIRST,
            until: FIRST,
        },
    );
    assert!(!notice.is_failure());
    assert!(Finding::digest(world.place(9), Fault::NotFound).is_failure());
}

#[test]
fn a_chain_that_a_wrong_clock_led_past_a_new_one_is_no_failure() {
    let mut world = World::new();
    let newest = world.previous(4);
    let mut ahead = world.draft(40, Kind::Standard, Some(newest));
    ahead.start = FIRST + 4 * HOUR;
    world.put(&ahead);
    let begun = world.add(5, Kind::Standard, None);
    world.add(6, Kind::Standard, Some(begun));
    let failures = world.findings();
    let told = |finding: &String| finding.starts_with("No log files were delivered");
    assert!(failures.iter().all(told), "{failures:?}");
}

#[test]
fn a_digest_that_was_slipped_in_is_found() {
    let mut world = World::new();
    let three = world.previous(3);
    // The same hour twice: a second story beside the first.
    let mut digest = world.draft(4, Kind::Standard, Some(three));
    digest.end -= 60;
    digest.location = place(chain_of_digests().key(digest.end, Kind::Standard));
    world.put(&digest);
    let slipped_in = format!(
        "Digest file\t{}\tINVALID: no later digest file names it as the previous one",
        digest.location
    );
    assert_eq!(world.findings(), [slipped_in]);
}

#[test]
fn a_log_file_in_two_digests_is_found() {
    let mut world = World::new();
    let three = world.previous(3);
    let mut digest = world.draft(4, Kind::Standard, Some(three));
    digest.files = world.draft(1, Kind::Standard, None).files;
    world.put(&digest);
    assert_eq!(
        world.findings(),
        ["Log file\t1.json.gz\tINVALID: is also in digest file #1"]
    );
}

#[test]
fn each_way_to_spoil_a_log_file_is_found() {
    let right = Sha256::of(&3_i64.to_le_bytes());
    let (newest, oldest) = (FIRST + 3 * HOUR - 5, FIRST + 3 * HOUR - 9);
    let read = |sha256, event_times| LogState::Read {
        sha256,
        event_times,
    };
    for (state, words) in [
        (read(Sha256::of(b"other"), None), "hash value doesn't match"),
        (
            LogState::Unreadable("cut short".into()),
            "invalid format: cut short",
        ),
        (LogState::Missing, "not found"),
        (
            read(right, Some((newest + 1, oldest))),
            "holds events of other times than its digest file says",
        ),
        (
            read(right, Some((newest, oldest - 1))),
            "holds events of other times than its digest file says",
        ),
    ] {
        let mut world = World::new();
        let place = world.log_place(3);
        world.logs.insert(place, state);
        assert_eq!(
            world.findings(),
            [format!("Log file\t3.json.gz\tINVALID: {words}")]
        );
    }
}

#[test]
fn a_log_file_that_no_digest_names_is_found() {
    let mut world = World::new();
    let keys: Keyring = world.keys.iter().cloned().collect();
    let valid = [digest(world.found(1), &keys).unwrap()];
    let (named, other) = (world.log_place(1), world.log_place(7));
    let coverage = Coverage::of(&valid, HOUR, i64::MAX);
    assert_eq!(coverage.standing(&named, Some(FIRST)), Standing::Named);
    assert_eq!(coverage.standing(&other, Some(FIRST)), Standing::Unnamed);
    let finding = Coverage::finding(other).to_string();
    assert!(finding.ends_with("INVALID: is in no digest file"));
}

#[test]
fn a_digest_whose_key_tells_another_story_is_refused() {
    let mut world = World::new();
    let place = world.place(3);
    let mut digest = Digest::read(&world.found(3).json).unwrap();
    digest.end += 1;
    world.put(&digest);
    assert_eq!(
        world.findings(),
        ["Digest file\t#3\tINVALID: invalid format: its key is of another digest"]
    );
    digest.location.key = "AWSLogs/somewhere.json.gz".into();
    world.digests.remove(&place);
    world.put(&digest);
    assert!(world.findings()[0].contains("invalid format: not the key of a digest"));
}
