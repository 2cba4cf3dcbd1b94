//! Checks the chains of one account and region: reads what they name, and asks the core ([`verify`]) what is wrong with it.
//!
//! Several readers share the work. Digests are read first; what is kept of them is what they say, about 1 KB and 300 bytes for each of their log files:
//! 40 MB for a year of hourly digests over twelve files each. Of log files nothing is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;

use indicatif::ProgressBar;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Asked;
use super::content::{self, fault};
use super::keys::Keys;
use super::report::{ChainReport, PlaceReport, Tally};
use super::source::{Listed, NoBucket, Source};
use super::survey::{Entry, Place};
use crate::digest::document::SIGNATURE_ALGORITHM;
use crate::digest::key::FOLDER;
use crate::digest::verify::coverage::{self, Coverage, MAX_SLACK, Standing};
use crate::digest::verify::{
    self, Fault, Finding, Found, Keyring, Metadata, Scope, Subject, Valid,
};
use crate::digest::{Chain, Digest, DigestKey, File, Kind, Location, Previous, Signature};
use crate::event::time::parse_rfc3339;

/// The usual window of CloudTrail's own digests, and the longest of ours.
const HOUR: i64 = 3600;

/// A digest is late when it is missing for its window's length again, but for no less than this.
const SHORTEST_GRACE: i64 = 60;

/// How many of a chain's newest digests tell how long its windows are.
const TELLING: usize = 3;

/// No interval is shorter. Windows of seconds follow upon a clock that was set back, and say nothing of the next.
const SHORTEST_INTERVAL: i64 = 60;

/// Log files of an account and region that are kept to be told one by one, and as many to be looked for in later digests. Of more than
/// these there is a number: whoever can put objects into the bucket could put any number there.
const MOST_KEPT: usize = 10_000;

/// What all checks of a run share.
#[derive(Clone)]
pub struct Checker {
    pub source: Source,
    pub keys: Keys,
    pub asked: Arc<Asked>,
    /// One for each reader.
    pub slots: Arc<Semaphore>,
    pub progress: ProgressBar,
}

/// A chain while it is checked.
#[derive(Default)]
struct Progress {
    present: BTreeSet<Location>,
    valid: Vec<Valid>,
    findings: Vec<Finding>,
}

/// The log files in the bucket that are not named by a digest.
#[derive(Default)]
struct FilesThere {
    unnamed: Vec<Location>,
    /// More of them, or of those that came late.
    more: u64,
    not_yet: u64,
    /// From times that no digest covers: the trail was not validated then.
    outside: u64,
}

impl FilesThere {
    fn add_unnamed(&mut self, location: Location) {
        if self.unnamed.len() < MOST_KEPT {
            self.unnamed.push(location);
        } else {
            self.more += 1;
        }
    }
}

/// What digests say of one another's signatures, for a copy that has no metadata. A signature proves itself, wherever it comes from.
type Signatures = HashMap<Location, Signature>;

impl Checker {
    /// Nothing when there is nothing of the time asked for.
    pub async fn check(&self, place: &Place) -> anyhow::Result<Option<PlaceReport>> {
        let entries = place.digests(&self.source, &self.asked).await?;
        if entries.is_empty() {
            return self.without_digests(place).await;
        }
        let mut chains = self.read_digests(place, entries).await?;
        let mut reports = Vec::new();
        let mut findings = Vec::new();
        for (chain, progress) in &mut chains {
            if self.is_asked(chain) {
                let scope = self.scope(place, &progress.valid);
                let among = verify::chain(&scope, &progress.present, &progress.valid);
                progress.findings.extend(among);
                let bad_logs = self.read_logs(&progress.valid).await?;
                progress.findings.extend(bad_logs);
                reports.push(chain_report(place, chain, progress));
                findings.append(&mut progress.findings);
            }
        }
        let files = self.files_there(place, &chains).await?;
        let unnamed = files.unnamed.len() as u64 + files.more;
        findings.extend(files.unnamed.into_iter().map(Coverage::finding));
        if files.more > 0 {
            findings.push(of_all(place, Fault::MoreInNoDigest(files.more)));
        }
        findings.sort_by(|one, other| one.location.key.cmp(&other.location.key));
        Ok(Some(PlaceReport {
            chains: reports,
            findings,
            unnamed,
            not_yet_covered: files.not_yet,
            never_covered: files.outside,
        }))
    }

    /// What is to be said of log files where no digest is. They may be of a trail that is not validated: nothing vouches for them, all the same.
    async fn without_digests(&self, place: &Place) -> anyhow::Result<Option<PlaceReport>> {
        let start = self.asked.start.unwrap_or(i64::MIN);
        let end = self.until();
        // Nobody knows how long the windows of a first digest are that is not there yet.
        let due = due(end, HOUR);
        let (mut old, mut not_yet) = (0, 0);
        for folder in place.log_folders() {
            let take = |page: Vec<Listed>| {
                for Listed { key, last_modified } in page {
                    match last_modified {
                        _ if key.ends_with('/') => {}
                        Some(at) if at < start || at > end => {}
                        Some(at) if at >= due => not_yet += u64::from(self.asked.end.is_none()),
                        _ => old += 1,
                    }
                }
                ControlFlow::Continue(())
            };
            let source = &self.source;
            source.list(&place.bucket, &folder, "", take).await?;
        }
        if (old, not_yet) == (0, 0) {
            return Ok(None);
        }
        let finding = (old > 0).then(|| of_all(place, Fault::NoDigests(old)));
        Ok(Some(PlaceReport {
            findings: finding.into_iter().collect(),
            not_yet_covered: not_yet,
            ..PlaceReport::default()
        }))
    }

    /// To where the time goes that is asked for, seconds since 1970.
    fn until(&self) -> i64 {
        self.asked.end.unwrap_or(i64::MAX).min(self.asked.now)
    }

    fn is_asked(&self, chain: &Chain) -> bool {
        let trail = self.asked.trail.as_ref();
        trail.is_none_or(|trail| *trail == chain.trail)
    }

    fn scope(&self, place: &Place, valid: &[Valid]) -> Scope {
        Scope {
            folder: digests_of(place),
            from: self.asked.start.unwrap_or(i64::MIN),
            due: Some(due(self.until(), usual_window(valid))),
        }
    }

    /// Reads these digests, and those before them that are elsewhere: a trail's bucket and prefix may change.
    async fn read_digests(
        &self,
        place: &Place,
        entries: Vec<Entry>,
    ) -> anyhow::Result<BTreeMap<Chain, Progress>> {
        let mut chains: BTreeMap<Chain, Progress> = BTreeMap::new();
        let mut listed = vec![place.clone()];
        let mut tried = HashSet::new();
        let mut entries = entries;
        while !entries.is_empty() {
            for entry in &entries {
                tried.insert(entry.location.clone());
                let progress = chains.entry(identity(&entry.key.chain)).or_default();
                progress.present.insert(entry.location.clone());
            }
            self.read_entries(place, entries, &mut chains).await?;
            entries = self.before(&chains, &mut listed, &mut tried).await?;
        }
        Ok(chains)
    }

    /// The digests that are named as previous ones and are none of those tried, or all of their folder when it is another one. A bucket that is
    /// gone has none of them, which is then found of the one that is named.
    async fn before(
        &self,
        chains: &BTreeMap<Chain, Progress>,
        listed: &mut Vec<Place>,
        tried: &mut HashSet<Location>,
    ) -> anyhow::Result<Vec<Entry>> {
        let from = self.asked.start.unwrap_or(i64::MIN);
        let valid = chains.values().flat_map(|it| &it.valid);
        let wanted = valid.filter(|it| it.digest.start > from);
        let named = wanted.filter_map(|it| it.digest.previous.as_ref());
        let mut entries = Vec::new();
        for previous in named {
            let location = &previous.location;
            let Some(key) = DigestKey::parse(&location.key) else {
                continue;
            };
            if !tried.insert(location.clone()) {
                continue;
            }
            let elsewhere = Place::of(&location.bucket, &key.chain);
            if !listed.contains(&elsewhere) {
                let all = match elsewhere.digests(&self.source, &self.asked).await {
                    Err(error) if error.is::<NoBucket>() => Vec::new(),
                    other => other?,
                };
                entries.extend(all.into_iter().filter(|it| {
                    chains.contains_key(&identity(&it.key.chain)) && !tried.contains(&it.location)
                }));
                listed.push(elsewhere);
            }
            let is_there = || self.source.get(location);
            if !entries.iter().any(|it| it.location == *location) && is_there().await?.is_some() {
                let location = location.clone();
                entries.push(Entry { location, key });
            }
        }
        Ok(entries)
    }

    async fn read_entries(
        &self,
        place: &Place,
        entries: Vec<Entry>,
        chains: &mut BTreeMap<Chain, Progress>,
    ) -> anyhow::Result<()> {
        let ends = || entries.iter().map(|it| it.key.end);
        let (Some(first), Some(last)) = (ends().min(), ends().max()) else {
            return Ok(());
        };
        let start = self.asked.start.map_or(first, |start| start.min(first));
        let keyring = self.keys.between(place.region, start, last).await?;
        let signatures = Arc::new(self.said_signatures(&entries).await?);
        self.progress.inc_length(entries.len() as u64);
        let read = |entry: Entry| {
            let (it, keyring, signatures) = (self.clone(), keyring.clone(), signatures.clone());
            async move {
                let outcome = it.digest(&entry, &keyring, &signatures).await;
                Ok((entry.key.chain, outcome?))
            }
        };
        let keep = |(chain, outcome): (Chain, Result<Valid, Finding>)| {
            let progress = chains.entry(identity(&chain)).or_default();
            match outcome {
                Ok(valid) => progress.valid.push(valid),
                Err(finding) => progress.findings.push(finding),
            }
        };
        self.in_parallel(entries, read, keep).await
    }

    /// For a copy, what each of these digests says of the signature of the one before.
    async fn said_signatures(&self, entries: &[Entry]) -> anyhow::Result<Signatures> {
        let mut signatures = Signatures::new();
        if !self.source.is_copy() {
            return Ok(signatures);
        }
        let read = |location: Location| {
            let it = self.clone();
            async move {
                let read = content::digest(&it.source, &location).await?;
                let json = fault(read).ok().map(|(json, _)| json);
                Ok(json.and_then(|json| Digest::read(&json).ok()?.previous))
            }
        };
        let keep = |previous: Option<Previous>| {
            signatures.extend(previous.map(|it| (it.location, it.signature)));
        };
        let locations: Vec<Location> = entries.iter().map(|it| it.location.clone()).collect();
        self.in_parallel(locations, read, keep).await?;
        Ok(signatures)
    }

    async fn digest(
        &self,
        entry: &Entry,
        keyring: &Keyring,
        signatures: &Signatures,
    ) -> anyhow::Result<Result<Valid, Finding>> {
        let location = &entry.location;
        let refused = |fault| Ok(Err(Finding::digest(location.clone(), fault)));
        let read = content::digest(&self.source, location).await?;
        self.progress.inc(1);
        let (json, metadata) = match fault(read) {
            Ok(read) => read,
            Err(fault) => return refused(fault),
        };
        let Some(metadata) = metadata.or_else(|| said(entry, signatures)) else {
            return refused(Fault::NoMetadata);
        };
        let made = match entry.key.kind {
            Kind::Standard => None,
            Kind::Backfill => metadata.backfill_generation_timestamp.as_deref(),
        };
        let made = made.and_then(|text| parse_rfc3339(text.as_bytes()));
        let found = Found {
            location: location.clone(),
            json,
            metadata,
        };
        Ok(match made {
            None => verify::digest(&found, keyring),
            Some(when) => {
                let keyring = self.keys.about(entry.key.chain.source_region, when).await?;
                verify::digest(&found, &keyring)
            }
        })
    }

    /// Reads the log files that these digests name.
    async fn read_logs(&self, valid: &[Valid]) -> anyhow::Result<Vec<Finding>> {
        let files = valid.iter().flat_map(|it| &it.digest.files);
        self.progress.inc_length(files.clone().count() as u64);
        let mut findings = Vec::new();
        let read = |file: &File| {
            let (it, file) = (self.clone(), file.clone());
            async move {
                let state = content::log(&it.source, &file.location).await?;
                it.progress.inc(1);
                Ok(verify::log(&file, &state).err())
            }
        };
        self.in_parallel(files, read, |finding| findings.extend(finding))
            .await?;
        Ok(findings)
    }

    /// Looks at the log files that are in the bucket.
    async fn files_there(
        &self,
        place: &Place,
        chains: &BTreeMap<Chain, Progress>,
    ) -> anyhow::Result<FilesThere> {
        let window = usual_window(chains.values().flat_map(|it| &it.valid));
        let coverage = coverage(chains, window, self.until());
        let mut files = FilesThere::default();
        let Some((start, end)) = coverage.span() else {
            return Ok(files);
        };
        let asked = &self.asked;
        let edge = asked.start.map_or(i64::MIN, |_| start + MAX_SLACK);
        let mut late = Vec::new();
        for folder in place.log_folders() {
            let (from, until) = Place::log_range(&folder, start, end);
            let from = asked.start.map_or_else(String::new, |_| from);
            let until = asked.end.map(|_| until);
            let mut take = |page: Vec<Listed>| {
                for Listed { key, last_modified } in page {
                    if until.as_ref().is_some_and(|until| key > *until) {
                        return ControlFlow::Break(());
                    }
                    // The consoles of S3 and its like make an object for a folder.
                    if key.ends_with('/') {
                        continue;
                    }
                    let location = Location {
                        bucket: place.bucket.clone(),
                        key,
                    };
                    let is_before = last_modified.is_some_and(|at| at < edge);
                    match coverage.standing(&location, last_modified) {
                        Standing::Named => {}
                        // It may be in the digest before the first that was asked for.
                        Standing::Unnamed | Standing::Outside if is_before => {}
                        Standing::Unnamed => files.add_unnamed(location),
                        Standing::Late if late.len() >= MOST_KEPT => files.more += 1,
                        Standing::Late => late.extend(last_modified.map(|at| (location, at))),
                        Standing::Outside => files.outside += 1,
                        // After the end that was asked for there is no "yet".
                        Standing::NotYet => files.not_yet += u64::from(asked.end.is_none()),
                    }
                }
                ControlFlow::Continue(())
            };
            let source = &self.source;
            source
                .list(&place.bucket, &folder, &from, &mut take)
                .await?;
        }
        let (never, not_yet) = self.late(place, late, end, window).await?;
        never.into_iter().for_each(|it| files.add_unnamed(it));
        files.not_yet += not_yet;
        Ok(files)
    }

    /// Of log files that came late, those that no later digest names; and how many of them the next one may name, if the chains still go on.
    async fn late(
        &self,
        place: &Place,
        late: Vec<(Location, i64)>,
        covered_until: i64,
        window: i64,
    ) -> anyhow::Result<(Vec<Location>, u64)> {
        let Some(first) = late.iter().map(|(_, at)| *at).min() else {
            return Ok((Vec::new(), 0));
        };
        let mut newest = covered_until;
        let mut later = BTreeMap::new();
        if self.asked.end.is_some() {
            // Digests after the end that was asked for have not been looked at so far.
            let asked = Asked {
                start: Some(first),
                end: None,
                ..(*self.asked).clone()
            };
            let it = Self {
                asked: Arc::new(asked),
                ..self.clone()
            };
            let entries = place.digests(&it.source, &it.asked).await?;
            let ends = entries.iter().map(|it| it.key.end);
            newest = ends.max().unwrap_or(newest).max(newest);
            later = it.read_digests(place, entries).await?;
        }
        let later = coverage(&later, window, self.asked.now);
        let current = due(self.asked.now, window);
        let (mut never, mut not_yet) = (Vec::new(), 0);
        for (location, at) in late {
            match later.standing(&location, Some(at)) {
                Standing::Named => {}
                Standing::Unnamed => never.push(location),
                _ if newest >= current && at >= current => not_yet += 1,
                _ => never.push(location),
            }
        }
        Ok((never, not_yet))
    }

    /// Does the jobs with as many readers as there are, and hands over what comes of each, in any order.
    async fn in_parallel<T, R, F>(
        &self,
        items: impl IntoIterator<Item = T>,
        job: impl Fn(T) -> F,
        mut done: impl FnMut(R),
    ) -> anyhow::Result<()>
    where
        R: Send + 'static,
        F: Future<Output = anyhow::Result<R>> + Send + 'static,
    {
        // Those that wait for others to end are stopped when this ends early: the set goes with it.
        let mut jobs = JoinSet::new();
        for item in items {
            let slot = self.slots.clone().acquire_owned();
            let slot = slot.await.expect("slots: the semaphore is never closed");
            let job = job(item);
            jobs.spawn(async move {
                let _slot = slot;
                job.await
            });
            while let Some(outcome) = jobs.try_join_next() {
                done(outcome??);
            }
        }
        while let Some(outcome) = jobs.join_next().await {
            done(outcome??);
        }
        Ok(())
    }
}

/// What makes digests one chain, wherever the trail put them at the time.
fn identity(chain: &Chain) -> Chain {
    Chain {
        prefix: String::new(),
        ..chain.clone()
    }
}

/// What the digests of these chains cover at a moment.
fn coverage(chains: &BTreeMap<Chain, Progress>, window: i64, at: i64) -> Coverage<'_> {
    let reach = |progress: &Progress| {
        let newest = progress.valid.iter().map(|it| it.digest.end).max()?;
        Some((newest, due(at, usual_window(&progress.valid))))
    };
    let until = coverage::until(chains.values().filter_map(reach));
    Coverage::of(chains.values().flat_map(|it| &it.valid), window, until)
}

/// All digests of an account and region.
fn digests_of(place: &Place) -> Location {
    Location {
        bucket: place.bucket.clone(),
        key: place.folder(FOLDER),
    }
}

fn of_all(place: &Place, fault: Fault) -> Finding {
    Finding {
        subject: Subject::Chain,
        location: digests_of(place),
        fault,
    }
}

/// For a digest without metadata, what its successor says; a backfill digest has more metadata than that.
fn said(entry: &Entry, signatures: &Signatures) -> Option<Metadata> {
    let signature = signatures.get(&entry.location)?;
    matches!(entry.key.kind, Kind::Standard).then(|| Metadata {
        signature: Some(signature.to_string()),
        signature_algorithm: Some(SIGNATURE_ALGORITHM.to_owned()),
        backfill_generation_timestamp: None,
    })
}

/// Up to where there must be digests at a moment, when windows are this long.
fn due(at: i64, window: i64) -> i64 {
    at.saturating_sub(window + window.clamp(SHORTEST_GRACE, HOUR))
}

/// The usual length of the windows of these digests, in seconds: the longest of the newest, since the last of a chain may be short, and
/// since an interval that was made longer is so at once.
fn usual_window<'a>(valid: impl IntoIterator<Item = &'a Valid>) -> i64 {
    let standard = valid.into_iter().filter(|it| it.kind == Kind::Standard);
    let mut windows: Vec<(i64, i64)> = standard
        .map(|it| (it.digest.end, it.digest.end.saturating_sub(it.digest.start)))
        .collect();
    if windows
        .iter()
        .any(|(_, length)| *length >= SHORTEST_INTERVAL)
    {
        windows.retain(|(_, length)| *length >= SHORTEST_INTERVAL);
    }
    if windows.len() < TELLING
        && windows
            .iter()
            .all(|(_, length)| *length < SHORTEST_INTERVAL)
    {
        // A chain that begins while the clock catches up: what it has says nothing yet.
        return HOUR;
    }
    windows.sort_unstable();
    let newest = windows.iter().rev().take(TELLING);
    let longest = newest.map(|(_, length)| *length).max();
    longest.map_or(HOUR, |length| length.clamp(1, HOUR))
}

fn chain_report(place: &Place, chain: &Chain, progress: &Progress) -> ChainReport {
    let Progress {
        present,
        valid,
        findings,
    } = progress;
    let failures = || findings.iter().filter(|it| it.is_failure());
    let digests = |kind| {
        let refused: HashSet<&Location> = failures()
            .filter(|it| it.subject == Subject::Digest(kind))
            .map(|it| &it.location)
            .collect();
        let of_kind =
            |it: &&Location| DigestKey::parse(&it.key).is_some_and(|key| key.kind == kind);
        let there: HashSet<&Location> = present.iter().filter(of_kind).collect();
        Tally {
            valid: there.difference(&refused).count() as u64,
            total: there.union(&refused).count() as u64,
        }
    };
    let files = valid.iter().flat_map(|it| &it.digest.files);
    let files: HashSet<&Location> = files.map(|file| &file.location).collect();
    let refused = failures().filter(|it| it.subject == Subject::Log);
    let refused: HashSet<&Location> = refused.map(|it| &it.location).collect();
    let starts = valid.iter().map(|it| it.digest.start);
    let ends = valid.iter().map(|it| it.digest.end);
    ChainReport {
        chain: Chain {
            prefix: place.prefix.clone(),
            ..chain.clone()
        },
        bucket: place.bucket.clone(),
        time: starts.min().zip(ends.max()),
        digests: digests(Kind::Standard),
        backfill: digests(Kind::Backfill),
        logs: Tally {
            valid: files.difference(&refused).count() as u64,
            total: files.len() as u64,
        },
    }
}
