//! What was found, for people and for programs.

use std::fmt::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::counted;
use crate::digest::verify::{Finding, Subject};
use crate::digest::{Chain, Kind, moment};

/// Of an account and a region.
#[derive(Debug, Default)]
pub struct PlaceReport {
    pub chains: Vec<ChainReport>,
    pub findings: Vec<Finding>,
    /// Log files in no digest, which are among the findings.
    pub unnamed: u64,
    /// Log files that no digest can name yet.
    pub not_yet_covered: u64,
    /// Log files of times in which there were no digests: the trail was not validated, or else that is among the findings.
    pub never_covered: u64,
}

#[derive(Debug)]
pub struct ChainReport {
    pub chain: Chain,
    pub bucket: String,
    /// From where to where its valid digests go, seconds since 1970.
    pub time: Option<(i64, i64)>,
    pub digests: Tally,
    pub backfill: Tally,
    pub logs: Tally,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub valid: u64,
    pub total: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.valid += other.valid;
        self.total += other.total;
    }
}

impl PlaceReport {
    pub fn is_valid(&self) -> bool {
        !self.findings.iter().any(Finding::is_failure)
    }
}

/// The findings, a line each, and then what each chain has.
impl fmt::Display for PlaceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        for chain in &self.chains {
            write!(f, "{chain}")?;
        }
        if self.unnamed > 0 {
            writeln!(f, "{} in no digest file", counted(self.unnamed, "log file"))?;
        }
        if self.not_yet_covered > 0 {
            let files = counted(self.not_yet_covered, "log file");
            writeln!(f, "{files} not yet covered by a digest file")?;
        }
        if self.never_covered > 0 {
            let files = counted(self.never_covered, "log file");
            writeln!(f, "{files} of times that no digest file covers")?;
        }
        f.write_char('\n')
    }
}

impl fmt::Display for ChainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            chain,
            bucket: _,
            time,
            digests,
            backfill,
            logs,
        } = self;
        let Chain {
            account,
            source_region,
            trail,
            ..
        } = chain;
        write!(f, "{account} {source_region} {trail}: ")?;
        match time {
            Some((from, until)) => {
                writeln!(f, "{} to {}", moment::text(*from), moment::text(*until))?;
            }
            None => writeln!(f, "no valid digest files")?,
        }
        for (tally, name) in [
            (digests, "digest"),
            (backfill, "backfill digest"),
            (logs, "log"),
        ] {
            let Tally { valid, total } = tally;
            if *total == 0 {
                continue;
            }
            write!(f, "{valid}/{total} {name} files valid")?;
            match total - valid {
                0 => writeln!(f)?,
                invalid => writeln!(f, ", {invalid}/{total} {name} files INVALID")?,
            }
        }
        Ok(())
    }
}

/// All of it, as one JSON object. `error` is why not everything was looked at.
pub fn json(places: &[PlaceReport], error: Option<&str>) -> Value {
    let chains = || places.iter().flat_map(|place| &place.chains);
    let (mut digests, mut backfill, mut logs) =
        (Tally::default(), Tally::default(), Tally::default());
    for chain in chains() {
        digests += chain.digests;
        backfill += chain.backfill;
        logs += chain.logs;
    }
    let findings = places.iter().flat_map(|place| &place.findings);
    let failures = findings.clone().filter(|it| it.is_failure()).count();
    let sum = |of: fn(&PlaceReport) -> u64| places.iter().map(of).sum::<u64>();
    json!({
        "chains": chains().map(chain_json).collect::<Vec<_>>(),
        "findings": findings.map(finding_json).collect::<Vec<_>>(),
        "summary": {
            "digests": digests,
            "backfillDigests": backfill,
            "logFiles": logs,
            "logFilesInNoDigest": sum(|it| it.unnamed),
            "logFilesNotYetCovered": sum(|it| it.not_yet_covered),
            "logFilesNeverCovered": sum(|it| it.never_covered),
            "failures": failures,
        },
        "error": error,
        "verified": failures == 0 && error.is_none(),
    })
}

fn chain_json(report: &ChainReport) -> Value {
    let ChainReport {
        chain,
        bucket,
        time,
        digests,
        backfill,
        logs,
    } = report;
    let Chain {
        prefix,
        organization_id,
        account,
        source_region,
        trail,
        home_region,
    } = chain;
    json!({
        "bucket": bucket,
        "prefix": prefix,
        "organizationId": organization_id,
        "account": account.as_str(),
        "region": source_region.as_str(),
        "trail": trail.as_str(),
        "homeRegion": home_region.as_str(),
        "from": time.map(|(from, _)| moment::text(from)),
        "until": time.map(|(_, until)| moment::text(until)),
        "digests": digests,
        "backfillDigests": backfill,
        "logFiles": logs,
    })
}

fn finding_json(finding: &Finding) -> Value {
    let subject = match finding.subject {
        Subject::Digest(Kind::Standard) => "digest",
        Subject::Digest(Kind::Backfill) => "backfillDigest",
        Subject::Chain => "chain",
        Subject::Log => "logFile",
    };
    json!({
        "subject": subject,
        "bucket": finding.location.bucket,
        "key": finding.location.key,
        "code": finding.fault.code(),
        "message": finding.fault.to_string(),
        "failure": finding.is_failure(),
    })
}
