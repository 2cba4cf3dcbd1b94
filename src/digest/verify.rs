//! A chain of digests held against what is there: every finding, as a value.
//!
//! In three steps, so that many readers can share the first two and nobody has to hold a whole chain's bytes:
//!
//! 1. [`digest`]: one digest by itself. It is where it says, well formed, and signed with a known key that was valid then.
//! 2. [`log`]: one log file against what its digest says of it.
//! 3. [`chain`]: the digests of a chain among one another: each follows the one before, in time, by hash and by signature; none is
//!    missing, also not the newest; no log file is in two of them.
//!
//! And of the log files that are in the bucket, [`coverage`]: those that some digest must name and none does.
//!
//! The words of the AWS CLI are used where it has words for a finding (awscli, `customizations/cloudtrail/validation.py`). It looks
//! at the chain from the newest digest backwards and at the links alone; what it misses is found here, too.

pub mod coverage;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use super::document::{Digest, SIGNATURE_ALGORITHM};
use super::hex::{Fingerprint, Sha256, Signature};
use super::key::{DigestKey, Kind};
use super::keys::PublicKey;
use super::sign::{self, NotSigned, string_to_sign};
use super::{Location, moment};
use crate::event::{Region, time};

/// How long after a digest's window its key must still have been listed, at the latest: as long as the AWS CLI looks for it.
const SIGNED_WITHIN: i64 = 2 * 3600;

/// Something that is not as it must be, or worth knowing. [`Display`](fmt::Display) says it as the AWS CLI does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub subject: Subject,
    pub location: Location,
    pub fault: Fault,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    Digest(Kind),
    /// All digests below a folder.
    Chain,
    Log,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    // Of a digest or a log file.
    #[error("not found")]
    NotFound,
    /// Not gzip, or not what it should be inside.
    #[error("invalid format: {0}")]
    Format(String),

    // Of a digest by itself.
    #[error("has been moved from its original location")]
    Moved,
    #[error("public key not found in region {region} for fingerprint {fingerprint}")]
    UnknownKey {
        region: Region,
        fingerprint: Fingerprint,
    },
    #[error("Unable to load PKCS #1 key with fingerprint {0}")]
    UnusableKey(Fingerprint),
    #[error("signature verification failed")]
    Signature,
    /// Metadata are missing or are not those of a signature.
    #[error("signature verification failed: metadata {0} is missing or invalid")]
    Metadata(&'static str),
    /// Not a word against the digest, nor one for it.
    #[error(
        "its signature was not checked: that is metadata of the object, and neither the copy nor a later digest file has it"
    )]
    NoMetadata,
    #[error("signed with key {fingerprint}, which was not valid at {at}", at = moment::text(*.at))]
    KeyOutOfTime { fingerprint: Fingerprint, at: i64 },

    // Of a digest in its chain.
    #[error("hash value of the previous digest file doesn't match")]
    PreviousHash,
    #[error("signature of the previous digest file doesn't match")]
    PreviousSignature,
    #[error("no digest file covers the time from {from} to {until}", from = moment::text(*.from), until = moment::text(*.until))]
    Gap { from: i64, until: i64 },
    #[error("its time from {from} to {until} is also covered by the previous digest file", from = moment::text(*.from), until = moment::text(*.until))]
    Overlap { from: i64, until: i64 },
    #[error("its time ends before it begins")]
    Backwards,
    #[error("no later digest file names it as the previous one")]
    Unlinked,
    /// A chain begins anew: logging or validation was stopped and started again. Not a failure.
    #[error("No log files were delivered by CloudTrail between {from} and {until}", from = moment::text(*.from), until = moment::text(*.until))]
    Restarted { from: i64, until: i64 },
    #[error("the newest digest file ends at {newest}, there should be one up to {due}", newest = or_never(*.newest), due = moment::text(*.due))]
    Stale { newest: Option<i64>, due: i64 },
    /// Of an account and region. Whether a trail without validation wrote them, or a chain is gone, nobody can tell.
    #[error("{0} log files, and no digest file")]
    NoDigests(u64),
    /// Of an account and region: those that are not told one by one, so that no number of objects fills the memory.
    #[error(
        "{0} more log files are in no digest file, or came late and were not looked for in later ones"
    )]
    MoreInNoDigest(u64),

    // Of a log file.
    #[error("hash value doesn't match")]
    Hash,
    #[error("is also in digest file {0}")]
    InTwoDigests(Location),
    #[error("holds events of other times than its digest file says")]
    EventTimes,
    #[error("is in no digest file")]
    InNoDigest,
}

impl Fault {
    /// For programs: its name, which stays as it is when the words change.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::Format(_) => "InvalidFormat",
            Self::Moved => "Moved",
            Self::UnknownKey { .. } => "UnknownKey",
            Self::UnusableKey(_) => "UnusableKey",
            Self::Signature => "InvalidSignature",
            Self::Metadata(_) => "InvalidMetadata",
            Self::NoMetadata => "NoMetadata",
            Self::KeyOutOfTime { .. } => "KeyOutOfTime",
            Self::PreviousHash => "PreviousHash",
            Self::PreviousSignature => "PreviousSignature",
            Self::Gap { .. } => "Gap",
            Self::Overlap { .. } => "Overlap",
            Self::Backwards => "Backwards",
            Self::Unlinked => "Unlinked",
            Self::Restarted { .. } => "Restarted",
            Self::Stale { .. } => "Stale",
            Self::NoDigests(_) => "NoDigests",
            Self::MoreInNoDigest(_) => "MoreInNoDigest",
            Self::Hash => "HashMismatch",
            Self::InTwoDigests(_) => "InTwoDigests",
            Self::EventTimes => "EventTimes",
            Self::InNoDigest => "InNoDigest",
        }
    }
}

fn or_never(newest: Option<i64>) -> String {
    newest.map_or_else(|| "no time".to_owned(), moment::text)
}

impl Finding {
    pub fn log(location: Location, fault: Fault) -> Self {
        Self {
            subject: Subject::Log,
            location,
            fault,
        }
    }

    /// Of the digest at this place. The place alone tells its kind, as it does for the AWS CLI.
    pub fn digest(location: Location, fault: Fault) -> Self {
        let kind = if location.key.ends_with("_backfill.json.gz") {
            Kind::Backfill
        } else {
            Kind::Standard
        };
        Self {
            subject: Subject::Digest(kind),
            location,
            fault,
        }
    }

    /// Whether the chain is refused for it.
    pub fn is_failure(&self) -> bool {
        !matches!(self.fault, Fault::Restarted { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            subject,
            location,
            fault,
        } = self;
        if let Subject::Digest(Kind::Backfill) = subject {
            f.write_str("(backfill) ")?;
        }
        if !self.is_failure() {
            return write!(f, "{fault}");
        }
        let what = match subject {
            Subject::Digest(_) => "Digest file",
            Subject::Chain => "Digest chain",
            Subject::Log => "Log file",
        };
        write!(f, "{what}\t{location}\tINVALID: {fault}")
    }
}

/// The public keys to check signatures with.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    // A key may be listed more than once, with different times.
    keys: HashMap<Fingerprint, Vec<PublicKey>>,
}

impl FromIterator<PublicKey> for Keyring {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        let mut ring = Self::default();
        for key in keys {
            let same = ring.keys.entry(key.fingerprint()).or_default();
            same.push(key);
        }
        ring
    }
}

/// A digest's object as read, inflated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub location: Location,
    pub json: Vec<u8>,
    pub metadata: Metadata,
}

/// What follows `x-amz-meta-` in the names of its metadata, as far as digests have them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    pub signature: Option<String>,
    pub signature_algorithm: Option<String>,
    pub backfill_generation_timestamp: Option<String>,
}

/// A digest that is valid by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Valid {
    pub digest: Digest,
    pub kind: Kind,
    /// Of its uncompressed bytes.
    pub sha256: Sha256,
    pub signature: Signature,
}

/// Checks a digest by itself.
pub fn digest(found: &Found, keys: &Keyring) -> Result<Valid, Finding> {
    check_digest(found, keys).map_err(|fault| Finding::digest(found.location.clone(), fault))
}

fn check_digest(found: &Found, keys: &Keyring) -> Result<Valid, Fault> {
    let Found {
        location,
        json,
        metadata,
    } = found;
    let digest = Digest::read(json).map_err(|error| Fault::Format(error.to_string()))?;
    if digest.location != *location {
        return Err(Fault::Moved);
    }
    let Some(key) = DigestKey::parse(&location.key) else {
        return Err(Fault::Format("not the key of a digest".to_owned()));
    };
    if (key.end, key.chain.account) != (digest.end, digest.account) {
        return Err(Fault::Format("its key is of another digest".to_owned()));
    }
    let signature = read_signature(metadata)?;
    let signed_at = match key.kind {
        Kind::Standard => digest.end,
        Kind::Backfill => read_backfill(metadata)?,
    };

    let fingerprint = digest.fingerprint;
    let Some(candidates) = keys.keys.get(&fingerprint) else {
        return Err(Fault::UnknownKey {
            region: key.chain.home_region,
            fingerprint,
        });
    };
    let sha256 = Sha256::of(json);
    let text = string_to_sign(&digest, &sha256);
    sign::verify(candidates[0].der(), &text, &signature).map_err(|error| match error {
        NotSigned::Key => Fault::UnusableKey(fingerprint),
        NotSigned::Signature => Fault::Signature,
    })?;
    let in_time = |key: &PublicKey| {
        let latest = signed_at.saturating_add(SIGNED_WITHIN);
        key.start <= latest && signed_at < key.end
    };
    if !candidates.iter().any(in_time) {
        return Err(Fault::KeyOutOfTime {
            fingerprint,
            at: signed_at,
        });
    }
    Ok(Valid {
        digest,
        kind: key.kind,
        sha256,
        signature,
    })
}

fn read_signature(metadata: &Metadata) -> Result<Signature, Fault> {
    if metadata.signature_algorithm.as_deref() != Some(SIGNATURE_ALGORITHM) {
        return Err(Fault::Metadata(sign::ALGORITHM_METADATA));
    }
    let text = metadata.signature.as_deref();
    text.and_then(|text| text.parse().ok())
        .ok_or(Fault::Metadata(sign::SIGNATURE_METADATA))
}

/// When a backfill digest was made. The AWS CLI calls it a matter of format when it does not say.
fn read_backfill(metadata: &Metadata) -> Result<i64, Fault> {
    let text = metadata.backfill_generation_timestamp.as_deref();
    text.and_then(|text| time::parse_rfc3339(text.as_bytes()))
        .ok_or_else(|| {
            let name = sign::BACKFILL_METADATA;
            Fault::Format(format!("metadata {name} is missing or invalid"))
        })
}

/// What became of reading a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    Missing,
    /// Not gzip, or cut short.
    Unreadable(String),
    Read {
        /// Of its uncompressed bytes.
        sha256: Sha256,
        /// The newest and the oldest event time in it, seconds since 1970, when somebody looked.
        event_times: Option<(i64, i64)>,
    },
}

/// Checks a log file against what a valid digest says of it.
pub fn log(file: &super::File, state: &LogState) -> Result<(), Finding> {
    let fault = match state {
        LogState::Missing => Fault::NotFound,
        LogState::Unreadable(why) => Fault::Format(why.clone()),
        LogState::Read { sha256, .. } if *sha256 != file.sha256 => Fault::Hash,
        LogState::Read {
            event_times: Some(times),
            ..
        } if *times != (file.newest, file.oldest) => Fault::EventTimes,
        LogState::Read { .. } => return Ok(()),
    };
    Err(Finding::log(file.location.clone(), fault))
}

/// What part of a chain is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Where its digests are: bucket and [`Chain::folder`](super::Chain::folder).
    pub folder: Location,
    /// The digests must reach back to here, or to the chain's beginning. Seconds since 1970.
    pub from: i64,
    /// And on to here, when it is still being written: now, less the time that a digest may take.
    pub due: Option<i64>,
}

/// Checks the digests of one chain among one another. `present` are all digests of the chain that are in the bucket, also those not
/// valid by themselves, which are not reported again.
pub fn chain(scope: &Scope, present: &BTreeSet<Location>, valid: &[Valid]) -> Vec<Finding> {
    let mut in_order: Vec<&Valid> = valid.iter().collect();
    in_order.sort_by_key(|it| (it.digest.end, it.digest.start));
    let (standard, backfill): (Vec<_>, Vec<_>) = in_order
        .iter()
        .partition(|it| matches!(it.kind, Kind::Standard));
    let mut findings = Vec::new();
    links(scope, present, &standard, &backfill, &mut findings);
    links(scope, present, &backfill, &[], &mut findings);
    currency(scope, &standard, &backfill, &mut findings);
    files_in_two(&in_order, &mut findings);
    findings
}

/// Checks each digest of one kind against the one that it names as previous.
fn links(
    scope: &Scope,
    present: &BTreeSet<Location>,
    digests: &[&Valid],
    backfill: &[&Valid],
    findings: &mut Vec<Finding>,
) {
    let by_location: HashMap<&Location, &Valid> = digests
        .iter()
        .map(|it| (&it.digest.location, *it))
        .collect();
    let named: HashSet<&Location> = digests.iter().filter_map(|it| previous_of(it)).collect();
    for (index, newer) in digests.iter().enumerate() {
        let Valid { digest, kind, .. } = newer;
        let mut report = |fault| findings.push(Finding::digest(digest.location.clone(), fault));
        let before = index.checked_sub(1).map(|before| digests[before]);
        if digest.start >= digest.end {
            report(Fault::Backwards);
        }
        let Some(previous) = &digest.previous else {
            if let Some(before) = before {
                report(Fault::Restarted {
                    from: before.digest.end,
                    until: digest.start,
                });
            }
            continue;
        };
        let Some(older) = by_location.get(&previous.location) else {
            let is_wanted = before.is_some() || digest.start > scope.from;
            if is_wanted && !present.contains(&previous.location) {
                let location = previous.location.clone();
                findings.push(Finding::digest(location, Fault::NotFound));
            }
            continue;
        };
        if previous.sha256 != older.sha256 {
            report(Fault::PreviousHash);
        }
        if previous.signature != older.signature {
            report(Fault::PreviousSignature);
        }
        let covered = match kind {
            Kind::Standard => covered_until(older.digest.end, backfill),
            // Missed hours lie apart.
            Kind::Backfill => digest.start,
        };
        if older.digest.end > digest.start {
            report(Fault::Overlap {
                from: digest.start,
                until: older.digest.end.min(digest.end),
            });
        } else if covered < digest.start {
            report(Fault::Gap {
                from: covered,
                until: digest.start,
            });
        }
    }
    for tail in loose(digests, &named) {
        let location = tail.digest.location.clone();
        findings.push(Finding::digest(location, Fault::Unlinked));
    }
}

/// Digests that nobody names although they are not the newest of those that hang together. A chain that began anew, which a clock that
/// was wrong may have put among the digests of another, hangs together by itself.
fn loose<'a>(digests: &[&'a Valid], named: &HashSet<&Location>) -> Vec<&'a Valid> {
    let mut first_of: HashMap<&Location, &Location> = HashMap::new();
    let mut newest: HashMap<&Location, &Location> = HashMap::new();
    for it in digests {
        let own = &it.digest.location;
        let previous = previous_of(it).and_then(|previous| first_of.get(previous));
        let first = previous.copied().unwrap_or(own);
        first_of.insert(own, first);
        newest.insert(first, own);
    }
    let newest: HashSet<&Location> = newest.into_values().collect();
    let is_loose = |it: &&&'a Valid| {
        let own = &it.digest.location;
        !named.contains(own) && !newest.contains(own)
    };
    digests.iter().filter(is_loose).copied().collect()
}

fn previous_of(valid: &Valid) -> Option<&Location> {
    valid.digest.previous.as_ref().map(|it| &it.location)
}

/// How far from `from` on the time is covered by digests, which are sorted by end.
fn covered_until(from: i64, digests: &[&Valid]) -> i64 {
    digests.iter().fold(from, |until, it| {
        let extends = it.digest.start <= until && until < it.digest.end;
        if extends { it.digest.end } else { until }
    })
}

/// Nothing names the newest digest: that it is missing shows only by the clock.
fn currency(scope: &Scope, standard: &[&Valid], backfill: &[&Valid], findings: &mut Vec<Finding>) {
    let Some(due) = scope.due else { return };
    let newest = standard.last().or(backfill.last());
    let newest = newest.map(|it| covered_until(it.digest.end, backfill));
    if newest.is_none_or(|newest| newest < due) {
        findings.push(Finding {
            subject: Subject::Chain,
            location: scope.folder.clone(),
            fault: Fault::Stale { newest, due },
        });
    }
}

fn files_in_two(digests: &[&Valid], findings: &mut Vec<Finding>) {
    let mut first_seen: HashMap<&Location, &Location> = HashMap::new();
    for it in digests {
        let own = &it.digest.location;
        for file in &it.digest.files {
            if let Some(first) = first_seen.insert(&file.location, own) {
                let fault = Fault::InTwoDigests(first.clone());
                findings.push(Finding::log(file.location.clone(), fault));
            }
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
