//! `traild verify`: whether the log files of a bucket are those that were delivered, all of them and no others.
//!
//! It reads the bucket itself and believes nothing but the public keys. Beside what `aws cloudtrail validate-logs` checks:
//!
//! - The newest digests must be there. A chain must reach on to now, or to `--end`, but for the window that is open and as much time again, a minute at
//!   least, for its digest to be written. A trail that was stopped looks like one whose newest digests were deleted: name it, and an
//!   `--end` at which it still ran.
//! - No window may be missing or covered twice, and each digest must have the hash and the signature that the next one says.
//! - Every log file in the folders must be in a digest ([`verify::coverage`](crate::digest::verify::coverage)). This is a matter of the folder: all trails that write to it
//!   are looked at, also with `--trail`.
//! - An account and region with log files must have digests. A trail that never was validated looks like one whose chain is gone:
//!   `--account` and `--region` leave out where that is so.
//! - Events must be of the times that the digest says.
//!
//! What nobody can see in a bucket: a chain of which nothing at all is left, no log file either, unless its account and region are
//! named, when finding nothing is an error; the chain of one of several trails in a folder, but by the log files that nothing names then; and the
//! last digests before a pause of validation, which nothing names. The log files of such a time, and of the time before a chain, are counted, as "of times that no digest file
//! covers".
//!
//! A chain is followed into the bucket and prefix that it was in before, and the log files that its digests name are read there. Log files in no digest are looked for
//! where `--bucket` and `--prefix` say, and nowhere else. To look for those of the former place name it, with an `--end` at which the
//! trail still wrote to it: later, its chain looks as if it had been cut off. A former bucket that is gone is told as the digest that is
//! missing in it.
//!
//! A file that was delivered but not entered in a digest at once, because the daemon was killed between the two, is "in no digest file" until the
//! next digest is written.
//!
//! ```text
//!  survey    which accounts and regions there are, and their digests     source    S3, or a copy of a bucket
//!  check     one account and region: read, then ask the core             keys      public keys, from CloudTrail or a file
//!  content   an object inflated, bounded    events   its events' times   report    what is printed
//! ```
//!
//! # The JSON
//!
//! ```text
//! { "chains":   [{ "bucket", "prefix", "organizationId" (or null), "account", "region", "trail", "homeRegion",
//!                  "from", "until" (RFC 3339, or null without a valid digest),
//!                  "digests": {"valid", "total"}, "backfillDigests": {…}, "logFiles": {…} }],
//!   "findings": [{ "subject": "digest" | "backfillDigest" | "chain" | "logFile", "bucket", "key",
//!                  "code" (Fault::code), "message", "failure" (false: only worth knowing) }],
//!   "summary":  { "digests": {…}, "backfillDigests": {…}, "logFiles": {…},
//!                 "logFilesInNoDigest", "logFilesNotYetCovered", "logFilesNeverCovered", "failures" },
//!   "error":    why not everything was looked at, or null,
//!   "verified": whether there is no failure and no error }
//! ```

mod check;
pub(crate) mod content;
mod keys;
mod report;
pub(crate) mod source;
mod survey;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use aws_config::meta::region::RegionProviderChain;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::config::ResponseChecksumValidation;
use clap::CommandFactory as _;
use clap::error::ErrorKind;
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Semaphore;

use super::{Failure, talk};
use crate::digest::verify::Fault;
use crate::event::time::parse_rfc3339;
use crate::event::{AccountId, Region};
use crate::trail::TrailName;
use check::Checker;
use keys::Keys;
use report::PlaceReport;
use source::{Copied, S3, Source};

/// Accounts and regions looked at together, so that small ones keep the readers busy, too.
const PLACES_AT_ONCE: usize = 4;

const AFTER_HELP: &str = "\
S3 and CloudTrail (for the public keys) are found as the AWS SDKs find them: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL_CLOUDTRAIL, AWS_PROFILE and so on.

A copy (--dir) lacks the metadata in which signatures are. That of a digest is taken from its successor; for the newest one, and for every \
backfill digest, put what `aws s3api head-object` prints into KEY.metadata.json beside it. Without, it counts as not verified.

--json prints one object: chains, findings (subject, bucket, key, code, message, failure), summary, error, verified.

exit codes: 0 everything is valid, 1 something is not, or could not be checked, or nothing was found, 2 usage";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The bucket that a trail delivers to
    #[arg(long, value_name = "BUCKET")]
    bucket: String,
    /// What comes before AWSLogs/ in its keys
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// Of an organization trail (o-…); without it those found in the bucket
    #[arg(long, value_name = "ID")]
    organization: Option<String>,
    /// Only this account; without it all that have digests or log files
    #[arg(long)]
    account: Option<AccountId>,
    /// Only the events of this region; without it all that have digests or log files
    #[arg(long)]
    region: Option<Region>,
    /// Only this trail; log files in no digest are looked for in the whole folder all the same
    #[arg(long, value_name = "NAME")]
    trail: Option<TrailName>,
    /// From here: 2026-05-01T00:00:00Z, or 2026-05-01 for its beginning; without it from the beginning of each chain
    #[arg(long, value_name = "TIME", value_parser = moment)]
    start: Option<i64>,
    /// To here; without it to now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    end: Option<i64>,
    /// What `aws cloudtrail list-public-keys` printed, instead of asking CloudTrail; may be given several times
    #[arg(long, value_name = "FILE", num_args = 1..)]
    public_keys: Vec<PathBuf>,
    /// A copy of the bucket, as `aws s3 sync` makes it, instead of the bucket
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How many objects to read at once
    #[arg(long, value_name = "N", default_value = "8")]
    readers: NonZeroUsize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn moment(text: &str) -> Result<i64, &'static str> {
    let day = || parse_rfc3339(format!("{text}T00:00:00Z").as_bytes());
    parse_rfc3339(text.as_bytes())
        .or_else(day)
        .ok_or("not a time like 2026-05-01T00:00:00Z, nor a date")
}

/// What is to be verified.
#[derive(Debug, Clone)]
pub struct Asked {
    pub bucket: String,
    /// Without slashes at either end.
    pub prefix: String,
    pub organization: Option<String>,
    pub account: Option<AccountId>,
    pub region: Option<Region>,
    pub trail: Option<TrailName>,
    /// Seconds since 1970.
    pub start: Option<i64>,
    pub end: Option<i64>,
    pub now: i64,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let asked = Asked {
        bucket: arguments.bucket,
        prefix: arguments.prefix.trim_matches('/').to_owned(),
        organization: arguments.organization,
        account: arguments.account,
        region: arguments.region,
        trail: arguments.trail,
        start: arguments.start,
        end: arguments.end,
        now: source::now(),
    };
    if asked
        .start
        .zip(asked.end)
        .is_some_and(|(start, end)| start > end)
    {
        let mistake = "--end is before --start";
        let mut command = super::Arguments::command();
        command.error(ErrorKind::ValueValidation, mistake).exit();
    }
    // Hashing is work for every core.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let sdk = runtime.block_on(sdk());
    let source = match arguments.dir {
        None => Source::S3(Arc::new(S3::new(sdk.clone()))),
        Some(directory) if directory.is_dir() => Source::Copy(Arc::new(Copied {
            bucket: asked.bucket.clone(),
            directory,
        })),
        Some(directory) => return Err(anyhow!("{} is not a directory", directory.display()).into()),
    };
    let keys = if arguments.public_keys.is_empty() {
        Keys::of_cloudtrail(sdk)
    } else {
        Keys::of_files(&arguments.public_keys)?
    };
    let checker = Checker {
        source,
        keys,
        asked: Arc::new(asked),
        slots: Arc::new(Semaphore::new(arguments.readers.get())),
        progress: progress(),
    };
    runtime.block_on(verify(checker, arguments.json))
}

/// By the SDK's own environment variables and profiles. A bucket and a chain have regions of their own; this is for the first question.
async fn sdk() -> SdkConfig {
    let region = RegionProviderChain::default_provider().or_else("us-east-1");
    let loader = aws_config::defaults(BehaviorVersion::latest()).region(region);
    // What is read is hashed anyway.
    let checksums = ResponseChecksumValidation::WhenRequired;
    loader.response_checksum_validation(checksums).load().await
}

fn progress() -> ProgressBar {
    // Draws on stderr, and only when that is a terminal.
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} objects {per_sec}");
    ProgressBar::new(0).with_style(style.expect("progress template: well-formed"))
}

async fn verify(checker: Checker, as_json: bool) -> Result<(), Failure> {
    let mut kept = Vec::new();
    let mut seen = Seen::default();
    let outcome = check_all(&checker, |place| {
        seen.add(&place);
        if as_json {
            kept.push(place);
            return Ok(());
        }
        checker.progress.suspend(|| super::print(place.to_string()))
    })
    .await;
    checker.progress.finish_and_clear();
    let outcome = outcome.and_then(|()| seen.found(&checker.asked));
    if as_json {
        let error = match &outcome {
            Err(Failure::Failed { error, .. }) => Some(format!("{error:#}")),
            _ => None,
        };
        let json = report::json(&kept, error.as_deref());
        super::print(format!("{json}\n"))?;
    }
    outcome?;
    if seen.lacks_metadata {
        talk(
            "hint: for what a copy lacks: aws s3api head-object --bucket BUCKET --key KEY > DIR/KEY.metadata.json",
        );
    }
    if seen.is_refused {
        return Err(Failure::Told);
    }
    Ok(())
}

/// What is remembered of places that have been told.
#[derive(Default)]
struct Seen {
    chains: usize,
    is_refused: bool,
    lacks_metadata: bool,
}

impl Seen {
    fn add(&mut self, place: &PlaceReport) {
        self.chains += place.chains.len();
        self.is_refused |= !place.is_valid();
        let lacking = |fault: &Fault| matches!(fault, Fault::NoMetadata);
        self.lacks_metadata |= place.findings.iter().any(|it| lacking(&it.fault));
    }

    /// Nothing that could be verified is not verified.
    fn found(&self, asked: &Asked) -> Result<(), Failure> {
        if self.chains > 0 {
            return Ok(());
        }
        let top = crate::logfile::key::above_account(&asked.prefix, asked.organization.as_deref());
        Err(Failure::hinted(
            anyhow!("No digests found below s3://{}/{top}", asked.bucket),
            "is enable_log_file_validation set on the trail? does --prefix name what comes before AWSLogs/?",
        ))
    }
}

/// Checks place after place, a few at once, and hands over what was found in their order.
async fn check_all(
    checker: &Checker,
    mut told: impl FnMut(PlaceReport) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let places = survey::places(&checker.source, &checker.asked).await;
    let places = places.map_err(cannot_verify)?;
    let checks = places.iter().map(|place| checker.check(place));
    let mut reports = futures::stream::iter(checks).buffered(PLACES_AT_ONCE);
    while let Some(report) = reports.next().await {
        if let Some(report) = report.map_err(cannot_verify)? {
            told(report)?;
        }
    }
    Ok(())
}

fn cannot_verify(error: anyhow::Error) -> Failure {
    error.context("could not verify").into()
}

#[cfg(test)]
pub(crate) mod tests;
