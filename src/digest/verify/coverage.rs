//! Which log files of a folder some digest must name.
//!
//! A log file is in the digest of the window in which it was delivered, of one of the trails that write to its folder: names of log
//! files do not say of which trail they are. So this is a matter of the folder, not of a chain. A trail that is not validated but writes to
//! the folder of one that is makes files that nothing vouches for, which is what is reported of them.
//!
//! Two exceptions keep it from crying wolf. The digest that a chain begins with is of the interval before, and names nothing of it: it
//! covers no time. And windows of trails may be shifted: where one of them still has a digest to write, nothing is covered
//! yet ([`until`]).

use std::collections::HashSet;

use super::{Fault, Finding, Valid};
use crate::digest::{Kind, Location, moment};

/// How long an object may be in the bucket before it counts as delivered, at the most: its window may be the next one.
pub const MAX_SLACK: i64 = 300;

/// Up to where all that was delivered is in a digest, in seconds since 1970: the newest end of the current chain that is furthest behind. Each
/// chain is its newest end and the moment up to which it must reach to be current; others hold up nothing, they have ended.
pub fn until(chains: impl IntoIterator<Item = (i64, i64)>) -> i64 {
    let current = chains.into_iter().filter(|(newest, due)| newest >= due);
    current.map(|(newest, _)| newest).min().unwrap_or(i64::MAX)
}

/// What valid digests of all chains of an account and region cover and name.
#[derive(Debug)]
pub struct Coverage<'a> {
    /// Seconds since 1970, apart from one another and in order.
    windows: Vec<(i64, i64)>,
    named: HashSet<&'a Location>,
    slack: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Named,
    /// It should be in a digest that is there.
    Unnamed,
    /// Its digest is still to be written.
    NotYet,
    /// From a time that no digest covers, which is told of the digests.
    Outside,
    /// Its name is of a time that is covered, but it came when no digest of these covers. It may have been long on its way: then a later
    /// digest names it.
    Late,
}

impl<'a> Coverage<'a> {
    /// `interval` is the usual length of a window, in seconds; `until` is what [`until`] says.
    pub fn of(valid: impl IntoIterator<Item = &'a Valid>, interval: i64, until: i64) -> Self {
        let mut windows = Vec::new();
        let mut named = HashSet::new();
        for it in valid {
            windows.push(covered(it, until));
            named.extend(it.digest.files.iter().map(|file| &file.location));
        }
        Self {
            windows: merged(windows),
            named,
            slack: interval.clamp(0, MAX_SLACK),
        }
    }

    /// The first and the last moment covered, seconds since 1970.
    pub fn span(&self) -> Option<(i64, i64)> {
        let (start, _) = self.windows.first()?;
        let (_, end) = self.windows.last()?;
        Some((*start, *end))
    }

    /// How an object of the folder stands, which is in the bucket since `last_modified`, seconds since 1970. When the store does not say since when, its name does.
    pub fn standing(&self, location: &Location, last_modified: Option<i64>) -> Standing {
        if self.named.contains(location) {
            return Standing::Named;
        }
        let Some(at) = last_modified.or_else(|| named_minute(&location.key)) else {
            return Standing::Unnamed;
        };
        let mut windows = self.windows.iter();
        match windows.find(|(_, end)| at < end - self.slack) {
            Some((start, _)) if *start <= at => Standing::Unnamed,
            _ if self.is_of_covered_time(&location.key, at) => Standing::Late,
            Some(_) => Standing::Outside,
            None => Standing::NotYet,
        }
    }

    /// Whether a file that came at `at` should have come before, by its name. One that has no time in its name should not be there at all.
    /// A name has a minute, of which all must be covered.
    fn is_of_covered_time(&self, key: &str, at: i64) -> bool {
        let Some(minute) = named_minute(key) else {
            return true;
        };
        let mut ended = self.windows.iter().filter(|(_, end)| *end <= at);
        ended.any(|(start, end)| *start <= minute && minute + 59 < end - self.slack)
    }

    pub fn finding(location: Location) -> Finding {
        Finding::log(location, Fault::InNoDigest)
    }
}

/// The time that a digest covers, up to `until`. Nothing, at its end, for one that begins a chain.
fn covered(valid: &Valid, until: i64) -> (i64, i64) {
    let Valid { digest, kind, .. } = valid;
    let begins = *kind == Kind::Standard && digest.previous.is_none() && digest.files.is_empty();
    let start = if begins { digest.end } else { digest.start };
    (start.min(until), digest.end.min(until))
}

fn merged(mut windows: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    windows.sort_unstable();
    let mut merged: Vec<(i64, i64)> = Vec::new();
    for (start, end) in windows {
        match merged.last_mut() {
            Some((_, until)) if start <= *until => *until = end.max(*until),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// The minute of delivery in a log file's name, `…_20260501T0015Z_<UNIQ>.json.gz`.
fn named_minute(key: &str) -> Option<i64> {
    let (stem, _unique) = key.rsplit_once('_')?;
    let (_, stamp) = stem.rsplit_once('_')?;
    moment::read_stamp(&format!("{}00Z", stamp.strip_suffix('Z')?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coverage(windows: &[(i64, i64)], interval: i64) -> Coverage<'static> {
        Coverage {
            windows: merged(windows.to_vec()),
            named: HashSet::new(),
            slack: interval.clamp(0, MAX_SLACK),
        }
    }

    fn place(key: &str) -> Location {
        Location {
            bucket: "b".into(),
            key: key.into(),
        }
    }

    /// Its name is of a time that no test covers.
    const OTHER: &str = "a_CloudTrail_r_20010101T0010Z_UNIQ.json.gz";

    #[test]
    fn a_file_stands_by_when_it_came_into_the_bucket() {
        let coverage = coverage(&[(7200, 10_800), (0, 3600), (3600, 5000)], 3600);
        assert_eq!(coverage.span(), Some((0, 10_800)));
        for (at, standing) in [
            (-1, Standing::Outside),
            (0, Standing::Unnamed),
            (3600, Standing::Unnamed),
            (4699, Standing::Unnamed),
            (4700, Standing::Outside),
            (7199, Standing::Outside),
            (7200, Standing::Unnamed),
            (10_499, Standing::Unnamed),
            (10_500, Standing::NotYet),
            (99_999, Standing::NotYet),
        ] {
            assert_eq!(coverage.standing(&place(OTHER), Some(at)), standing, "{at}");
        }
    }

    #[test]
    fn a_file_that_comes_late_is_told_from_one_of_a_later_time() {
        let coverage = coverage(&[(0, 3600), (7200, 10_800)], 3600);
        let named = |stamp: &str| place(&format!("a_CloudTrail_r_19700101T{stamp}Z_UNIQ.json.gz"));
        for (stamp, at, standing) in [
            ("0010", Some(700), Standing::Unnamed),
            ("0010", None, Standing::Unnamed),
            ("0010", Some(99_999), Standing::Late),
            ("0010", Some(5000), Standing::Late),
            ("0010", Some(8000), Standing::Unnamed),
            ("0110", Some(99_999), Standing::NotYet),
            ("0110", Some(5000), Standing::Outside),
            ("0210", Some(5000), Standing::Outside),
            ("0210", Some(99_999), Standing::Late),
            ("0300", Some(10_790), Standing::NotYet),
            ("2310", None, Standing::NotYet),
        ] {
            assert_eq!(
                coverage.standing(&named(stamp), at),
                standing,
                "{stamp} {at:?}"
            );
        }
        assert_eq!(coverage.standing(&place("k"), Some(99_999)), Standing::Late);
        assert_eq!(coverage.standing(&place("k"), None), Standing::Unnamed);
    }

    #[test]
    fn what_is_covered_ends_where_the_last_of_the_current_chains_does() {
        for (chains, expected) in [
            (&[][..], i64::MAX),
            (&[(36_000, 30_000)], 36_000),
            (&[(36_000, 30_000), (37_800, 30_000)], 36_000),
            // One has ended, or is behind: that is told of the chain itself.
            (&[(29_999, 30_000), (37_800, 30_000)], 37_800),
            (&[(29_999, 30_000)], i64::MAX),
        ] {
            assert_eq!(until(chains.iter().copied()), expected, "{chains:?}");
        }
    }

    #[test]
    fn a_minute_in_a_name_is_of_covered_time_when_all_of_it_is() {
        // Validation ended in the middle of a minute, in which files came before and after.
        let coverage = coverage(&[(0, 3630), (7200, 10_800)], 0);
        for (stamp, standing) in [("0100", Standing::Outside), ("0059", Standing::Late)] {
            let file = place(&format!("a_CloudTrail_r_19700101T{stamp}Z_UNIQ.json.gz"));
            assert_eq!(coverage.standing(&file, Some(3640)), standing, "{stamp}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_within_a_window_and_before_its_slack_is_covered(
            windows in proptest::collection::vec((0..500_i64, 1..50_i64), 1..20),
            at in 0..600_i64,
        ) {
            let windows: Vec<_> = windows.iter().map(|(start, long)| (*start, start + long)).collect();
            let is_within = windows.iter().any(|(start, end)| (*start..*end).contains(&at));
            let standing = coverage(&windows, 0).standing(&place("k"), Some(at));
            prop_assert_eq!(standing == Standing::Unnamed, is_within);
        }
    }
}
