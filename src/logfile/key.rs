//! Where a log file belongs in its bucket (CloudTrail user guide, "finding your CloudTrail log files").
//!
//! ```text
//! [<prefix>/]AWSLogs/[<o-id>/]<account>/<FOLDER>/<region>/<YYYY>/<MM>/<DD>/<account>_<FOLDER>_<region>_<YYYYMMDD>T<HHmm>Z_<UNIQ>.json.gz
//! ```
//!
//! The stamp is the minute of delivery; for the folder `CloudTrail` it is rounded up to the next five minutes, as CloudTrail's
//! own names are. It is taken when the batch is sealed and never again, and UNIQ is derived from the sealed batch, so that an
//! upload that is done again after a crash goes to the same key.

use aws_lc_rs::digest;
use time::OffsetDateTime;

use crate::clock::WallMillis;
use crate::event::Folder;
use crate::trail::{Stream, Trail};
use crate::wal::Position;

/// What makes a sealed batch unlike any other, on this and every other daemon.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The journal's own random identity.
    pub journal: &'a [u8; 16],
    pub first: Position,
    pub last: Position,
    pub count: u32,
    /// Counts up when the key turned out to be taken by something else.
    pub attempt: u32,
}

/// The key of the log file of a batch sealed at `sealed_at`.
pub fn of(trail: &Trail, stream: &Stream, sealed_at: WallMillis, identity: Identity<'_>) -> String {
    let Stream {
        account,
        region,
        folder,
    } = stream;
    let folder_name = folder.as_str();
    let stamp = stamp(*folder, sealed_at);
    let (year, month, day) = (stamp.year(), u8::from(stamp.month()), stamp.day());
    let (hour, minute) = (stamp.hour(), stamp.minute());
    let unique = unique(trail, stream, identity);
    let above = above_account(&trail.prefix, trail.organization_id());
    format!(
        "{above}{account}/{folder_name}/{region}/{year:04}/{month:02}/{day:02}/\
         {account}_{folder_name}_{region}_{year:04}{month:02}{day:02}T{hour:02}{minute:02}Z_{unique}.json.gz"
    )
}

/// The levels above the account, `[<prefix>/]AWSLogs/[<o-id>/]`, of log files and digests alike.
pub fn above_account(prefix: &str, organization_id: Option<&str>) -> String {
    let levels = [prefix, "AWSLogs", organization_id.unwrap_or_default()];
    let named = levels.iter().filter(|level| !level.is_empty());
    named.flat_map(|level| [*level, "/"]).collect()
}

/// The empty object that CloudTrail leaves where a trail's log files will be, when it is made. It is no log file: its key ends with a slash.
pub fn marker(trail: &Trail) -> String {
    let above = above_account(&trail.prefix, trail.organization_id());
    let folder = Folder::CloudTrail.as_str();
    format!("{above}{}/{folder}/", trail.home_account)
}

/// The minute in a file's name. A clock outside the years 1970 to 9999 is taken as the nearer end of them.
fn stamp(folder: Folder, sealed_at: WallMillis) -> OffsetDateTime {
    const LAST: i64 = 253_402_300_500; // 9999-12-31T23:55:00Z, the last multiple of five minutes
    let seconds = sealed_at.unix_seconds().clamp(0, LAST);
    let step = match folder {
        Folder::CloudTrail => 300,
        Folder::Insight | Folder::NetworkActivity => 60,
    };
    let rounded = match folder {
        Folder::CloudTrail => (seconds + step - 1) / step * step,
        Folder::Insight | Folder::NetworkActivity => seconds / step * step,
    };
    OffsetDateTime::from_unix_timestamp(rounded).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Sixteen of `[0-9A-Za-z]`, 95 bits of a SHA-256 over everything that identifies the batch.
fn unique(trail: &Trail, stream: &Stream, identity: Identity<'_>) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let Identity {
        journal,
        first,
        last,
        count,
        attempt,
    } = identity;
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(journal);
    for text in [
        &*trail.arn(),
        stream.account.as_str(),
        stream.region.as_str(),
        stream.folder.as_str(),
    ] {
        context.update(text.as_bytes());
        context.update(b"\n");
    }
    for number in [first.0, last.0, u64::from(count), u64::from(attempt)] {
        context.update(&number.to_le_bytes());
    }
    let hash = context.finish();
    let half: [u8; 16] = hash.as_ref()[..16]
        .try_into()
        .expect("SHA-256: 32 bytes long");
    let mut number = u128::from_le_bytes(half);
    (0..16)
        .map(|_| {
            let digit = (number % 62) as usize;
            number /= 62;
            char::from(ALPHABET[digit])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::tests::{event, trail};
    use crate::trail::{Accounts, Members};

    const IDENTITY: Identity<'_> = Identity {
        journal: &[1; 16],
        first: Position(64),
        last: Position(9000),
        count: 7,
        attempt: 0,
    };

    fn at(text: &str) -> WallMillis {
        let when =
            OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap();
        WallMillis(when.unix_timestamp() * 1000)
    }

    fn key(trail: &Trail, folder: Folder, when: &str) -> String {
        of(
            trail,
            &Stream {
                folder,
                ..Stream::from(&event("111122223333", "us-east-2"))
            },
            at(when),
            IDENTITY,
        )
    }

    /// The key without its sixteen unique characters, which are checked.
    fn shape(key: &str) -> String {
        let stem = key.strip_suffix(".json.gz").unwrap();
        let (rest, unique) = stem.rsplit_once('_').unwrap();
        assert!(
            unique.len() == 16 && unique.bytes().all(|b| b.is_ascii_alphanumeric()),
            "{unique}"
        );
        rest.to_owned()
    }

    #[test]
    fn keys_have_the_layout_of_cloudtrail() {
        assert_eq!(
            shape(&key(&trail(), Folder::CloudTrail, "2016-03-14T01:16:03Z")),
            "AWSLogs/111122223333/CloudTrail/us-east-2/2016/03/14/111122223333_CloudTrail_us-east-2_20160314T0120Z"
        );
        let prefixed = Trail {
            prefix: "team/a".into(),
            ..trail()
        };
        assert_eq!(
            shape(&key(&prefixed, Folder::Insight, "2020-09-23T05:16:59Z")),
            "team/a/AWSLogs/111122223333/CloudTrail-Insight/us-east-2/2020/09/23/111122223333_CloudTrail-Insight_us-east-2_20200923T0516Z"
        );
        let organization = Trail {
            accounts: Accounts::Organization {
                id: "o-exampleorgid".into(),
                members: Members::Every,
            },
            ..trail()
        };
        assert_eq!(
            shape(&key(
                &organization,
                Folder::NetworkActivity,
                "2020-09-23T05:16:59Z"
            )),
            "AWSLogs/o-exampleorgid/111122223333/CloudTrail-NetworkActivity/us-east-2/2020/09/23/\
             111122223333_CloudTrail-NetworkActivity_us-east-2_20200923T0516Z"
        );
    }

    #[test]
    fn the_stamp_is_rounded_up_to_five_minutes_and_carries_the_day_with_it() {
        for (when, stamp) in [
            (
                "2026-05-01T10:00:00Z",
                "2026/05/01/111122223333_CloudTrail_us-east-2_20260501T1000Z",
            ),
            (
                "2026-05-01T10:00:01Z",
                "2026/05/01/111122223333_CloudTrail_us-east-2_20260501T1005Z",
            ),
            (
                "2026-12-31T23:56:00Z",
                "2027/01/01/111122223333_CloudTrail_us-east-2_20270101T0000Z",
            ),
        ] {
            let key = shape(&key(&trail(), Folder::CloudTrail, when));
            assert!(key.ends_with(stamp), "{when}: {key}");
        }
        assert!(
            of(
                &trail(),
                &Stream::from(&event("111122223333", "us-east-2")),
                WallMillis(i64::MAX),
                IDENTITY
            )
            .contains("9999/12/31")
        );
        assert!(
            of(
                &trail(),
                &Stream::from(&event("111122223333", "us-east-2")),
                WallMillis(i64::MIN),
                IDENTITY
            )
            .contains("1970/01/01")
        );
    }

    #[test]
    fn every_part_of_a_batch_s_identity_changes_its_key_and_nothing_else_does() {
        let stream = Stream::from(&event("111122223333", "us-east-2"));
        let when = at("2026-05-01T10:00:00Z");
        let of = |identity| super::of(&trail(), &stream, when, identity);
        let other = [
            Identity {
                journal: &[2; 16],
                ..IDENTITY
            },
            Identity {
                first: Position(65),
                ..IDENTITY
            },
            Identity {
                last: Position(9001),
                ..IDENTITY
            },
            Identity {
                count: 8,
                ..IDENTITY
            },
            Identity {
                attempt: 1,
                ..IDENTITY
            },
        ];
        assert_eq!(of(IDENTITY), of(IDENTITY));
        let mut keys: Vec<_> = other.into_iter().map(of).chain([of(IDENTITY)]).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 6);
    }
}
