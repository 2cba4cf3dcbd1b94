//! Where a digest belongs in its bucket, and what its place says of it.
//!
//! ```text
//! [<prefix>/]AWSLogs/[<o-id>/]<account>/CloudTrail-Digest/<source region>/<YYYY>/<MM>/<DD>/
//!     <account>_CloudTrail-Digest_<source region>_<trail>_<home region>_<YYYYMMDD>T<HHmmss>Z[_backfill].json.gz
//! ```
//!
//! The stamp is the end of the digest's window. The AWS CLI finds digests by this pattern and cuts the stamp out by its distance
//! from the end (awscli, `customizations/cloudtrail/validation.py`).

use std::fmt;

use super::moment;
use crate::event::{AccountId, Region};
use crate::logfile::key::above_account;
use crate::trail::TrailName;

/// The level of digests below an account, where log files have theirs.
pub const FOLDER: &str = "CloudTrail-Digest";
const BACKFILL: &str = "_backfill";
const EXTENSION: &str = ".json.gz";

/// The digests that name one another: those of one trail, account and source region.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Chain {
    /// Without slashes at either end; empty for none.
    pub prefix: String,
    /// The `o-…` level of an organization trail.
    pub organization_id: Option<String>,
    pub account: AccountId,
    /// The region that the events are of, which also signs.
    pub source_region: Region,
    pub trail: TrailName,
    /// The trail's own region.
    pub home_region: Region,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Standard,
    /// Written later, for a window whose digest was missed. These are a chain of their own beside the standard ones.
    Backfill,
}

/// What the key of a digest says. [`Display`](fmt::Display) writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DigestKey {
    pub chain: Chain,
    /// End of the window, seconds since 1970.
    pub end: i64,
    pub kind: Kind,
}

impl Chain {
    /// What all keys of the chain begin with, and of other trails in the same bucket too: for listing.
    pub fn folder(&self) -> String {
        let Self {
            prefix,
            organization_id,
            account,
            source_region,
            ..
        } = self;
        let above = above_account(prefix, organization_id.as_deref());
        format!("{above}{account}/{FOLDER}/{source_region}/")
    }

    /// The key of the digest of a window that ends at `end`, seconds since 1970.
    pub fn key(&self, end: i64, kind: Kind) -> String {
        let Self {
            account,
            source_region,
            trail,
            home_region,
            ..
        } = self;
        let folder = self.folder();
        let stamp = moment::stamp(end);
        let (year, month, day) = (&stamp[..4], &stamp[4..6], &stamp[6..8]);
        let backfill = match kind {
            Kind::Standard => "",
            Kind::Backfill => BACKFILL,
        };
        format!(
            "{folder}{year}/{month}/{day}/\
             {account}_{FOLDER}_{source_region}_{trail}_{home_region}_{stamp}{backfill}{EXTENSION}"
        )
    }
}

impl fmt::Display for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain.key(self.end, self.kind))
    }
}

impl DigestKey {
    /// Nothing when a digest is never written there.
    pub fn parse(key: &str) -> Option<Self> {
        // From its end, since the prefix may hold anything.
        let mut levels = key.rsplitn(7, '/');
        let name = levels.next()?;
        let (_day, _month, _year) = (levels.next()?, levels.next()?, levels.next()?);
        let (_region, _folder) = (levels.next()?, levels.next()?);
        let (above, account) = levels.next()?.rsplit_once('/')?;
        let account: AccountId = account.parse().ok()?;
        let (prefix, organization_id) = parse_above(above)?;

        let stem = name.strip_suffix(EXTENSION)?;
        let (stem, kind) = match stem.strip_suffix(BACKFILL) {
            Some(stem) => (stem, Kind::Backfill),
            None => (stem, Kind::Standard),
        };
        // A trail's name may hold underscores; nothing else does.
        let (stem, stamp) = stem.rsplit_once('_')?;
        let (stem, home_region) = stem.rsplit_once('_')?;
        let (_account, stem) = stem.split_once('_')?;
        let (_folder, stem) = stem.split_once('_')?;
        let (source_region, trail) = stem.split_once('_')?;
        let parsed = Self {
            chain: Chain {
                prefix: prefix.to_owned(),
                organization_id: organization_id.map(str::to_owned),
                account,
                source_region: source_region.parse().ok()?,
                trail: trail.parse().ok()?,
                home_region: home_region.parse().ok()?,
            },
            end: moment::read_stamp(stamp)?,
            kind,
        };
        // What stands in it twice must be the same both times.
        (parsed.to_string() == key).then_some(parsed)
    }
}

/// The prefix and the organization of `[<prefix>/]AWSLogs[/<o-id>]`.
fn parse_above(above: &str) -> Option<(&str, Option<&str>)> {
    let (rest, last) = above.rsplit_once('/').unwrap_or(("", above));
    if last == "AWSLogs" {
        return Some((rest, None));
    }
    let (prefix, fixed) = rest.rsplit_once('/').unwrap_or(("", rest));
    (fixed == "AWSLogs").then_some((prefix, Some(last)))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn chain() -> Chain {
        Chain {
            prefix: String::new(),
            organization_id: None,
            account: "111122223333".parse().unwrap(),
            source_region: "eu-west-1".parse().unwrap(),
            trail: "mytrail".parse().unwrap(),
            home_region: "us-east-1".parse().unwrap(),
        }
    }

    #[test]
    fn keys_have_the_layout_of_cloudtrail() {
        let end = moment::read("2026-05-01T00:12:34Z").unwrap();
        assert_eq!(
            chain().key(end, Kind::Standard),
            "AWSLogs/111122223333/CloudTrail-Digest/eu-west-1/2026/05/01/\
             111122223333_CloudTrail-Digest_eu-west-1_mytrail_us-east-1_20260501T001234Z.json.gz"
        );
        assert_eq!(
            chain().key(end, Kind::Backfill),
            "AWSLogs/111122223333/CloudTrail-Digest/eu-west-1/2026/05/01/\
             111122223333_CloudTrail-Digest_eu-west-1_mytrail_us-east-1_20260501T001234Z_backfill.json.gz"
        );
    }

    #[test]
    fn a_real_key_of_an_organization_trail_is_understood() {
        let key = "o-fxozgwu6rc/AWSLogs/o-fxozgwu6rc/123456789016/CloudTrail-Digest/ca-central-1/2020/08/30/\
                   123456789016_CloudTrail-Digest_ca-central-1_PBMMAccel-Org-Trail_ca-central-1_20200830T190938Z.json.gz";
        let expected = DigestKey {
            chain: Chain {
                prefix: "o-fxozgwu6rc".into(),
                organization_id: Some("o-fxozgwu6rc".into()),
                account: "123456789016".parse().unwrap(),
                source_region: "ca-central-1".parse().unwrap(),
                trail: "PBMMAccel-Org-Trail".parse().unwrap(),
                home_region: "ca-central-1".parse().unwrap(),
            },
            end: moment::read("2020-08-30T19:09:38Z").unwrap(),
            kind: Kind::Standard,
        };
        assert_eq!(DigestKey::parse(key), Some(expected));
    }

    #[test]
    fn the_aws_cli_cuts_the_stamp_out_of_our_keys() {
        for (kind, from_end) in [(Kind::Standard, (24, 8)), (Kind::Backfill, (33, 17))] {
            let key = chain().key(1_777_594_354, kind);
            let cut = &key[key.len() - from_end.0..key.len() - from_end.1];
            assert_eq!(cut, "20260501T001234Z");
        }
    }

    #[test]
    fn a_key_that_does_not_agree_with_itself_is_none() {
        let good = "p/AWSLogs/111122223333/CloudTrail-Digest/eu-west-1/2026/05/01/\
                    111122223333_CloudTrail-Digest_eu-west-1_my_trail_us-east-1_20260501T001234Z.json.gz";
        assert!(DigestKey::parse(good).is_some());
        for (from, to) in [
            ("2026/05/01", "2026/05/02"),
            ("333/Cloud", "334/Cloud"),
            ("Digest/eu-west-1", "Digest/eu-west-2"),
            ("CloudTrail-Digest_", "CloudTrail_"),
            ("AWSLogs", "Logs"),
            ("p/AWSLogs", "/AWSLogs"),
            ("p/AWSLogs", "p/AWSLogs/"),
            ("T001234Z", "T001234Z_1"),
            (".json.gz", ".json"),
            ("_my_trail", "_"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert_eq!(DigestKey::parse(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_key_reads_back_as_written(
            prefix in "([a-zA-Z0-9_.-]{1,9}(/[a-zA-Z0-9_.-]{1,9}){0,2}|AWSLogs|x/AWSLogs)?",
            organization_id in proptest::option::of("o-[a-z0-9]{10,32}"),
            account in "[0-9]{12}",
            source in "[a-z][a-z0-9-]{1,9}[a-z0-9]",
            home in "[a-z][a-z0-9-]{1,9}[a-z0-9]",
            trail in "[A-Za-z][A-Za-z0-9]{2,9}([._-][A-Za-z0-9]{1,9}){0,3}",
            end in -62_167_219_200_i64..=253_402_300_799,
            backfill: bool,
        ) {
            let key = DigestKey {
                chain: Chain {
                    prefix,
                    organization_id,
                    account: account.parse().unwrap(),
                    source_region: source.parse().unwrap(),
                    trail: trail.parse().unwrap(),
                    home_region: home.parse().unwrap(),
                },
                end,
                kind: if backfill { Kind::Backfill } else { Kind::Standard },
            };
            prop_assert_eq!(DigestKey::parse(&key.to_string()), Some(key));
        }

        #[test]
        fn no_text_whatever_makes_the_parser_stumble(text in "(.*/){0,9}.*") {
            if let Some(key) = DigestKey::parse(&text) {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }
}
