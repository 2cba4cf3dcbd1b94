//! The configuration: file and environment turned into checked values, with every mistake reported at once.
//!
//! Looked for in this order: the file named by the user, `./traild.toml`, `/etc/traild/traild.toml`, the embedded default. Unknown keys
//! are mistakes; `${VAR}` in strings of the file is expanded; `TRAILD__SECTION__KEY` in the environment overrides a key.
//! A key that this version cannot honour is a mistake when ignoring it would be a lie, and a [`Warning`] when the rest works without it.

mod auth;
mod mistake;
mod reader;
mod sections;
mod tree;
pub mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use mistake::{Mistake, Place, Warning};

use crate::event::{AccountId, Region};
use crate::trail::{EventBus, LogGroup, Members, Selectors, Topic};
use reader::Findings;

/// Everything a daemon is told. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub account_id: AccountId,
    /// The home region.
    pub region: Region,
    pub data_dir: PathBuf,
    pub listen: Listen,
    pub storage: Storage,
    pub aws: Aws,
    pub ingest: Ingest,
    pub journal: Journal,
    pub delivery: Delivery,
    pub digest: Digest,
    pub history: History,
    pub sinks: Sinks,
    pub auth: Auth,
    pub inputs: Inputs,
    /// The trails of the file, with distinct names. Empty only with the embedded storage.
    pub trails: Vec<TrailConfig>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub api: SocketAddr,
    pub ops: SocketAddr,
    pub unix: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    pub kind: StorageKind,
    /// Where the embedded store serves S3.
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageKind {
    Embedded,
    S3,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aws {
    pub endpoint_url: Option<String>,
    pub force_path_style: bool,
    pub checksum: Checksum,
}

/// When the SDK adds checksums of its own to uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    WhenRequired,
    WhenSupported,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// Of a request's body, as sent and inflated.
    pub max_body_bytes: u64,
    pub max_event_bytes: u64,
    /// Events whose fingerprints are remembered; 0 turns recognition of duplicates off.
    pub dedup_window: usize,
    pub on_full: OnFull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// 503 and Retry-After.
    Reject,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    pub max_bytes: u64,
    pub segment_bytes: u64,
    pub on_full: JournalOnFull,
}

/// What happens when only legs besides S3 hold the journal, and it has seven eighths of `max_bytes`, or the disk takes no more.
///
/// It is about legs that follow the journal: CloudWatch Logs and EventBridge. SNS follows the ledger, and is cut off in any case when the
/// ledger has 256 MiB, or 64 MiB while the journal takes no more: what is kept for a topic must never stop events from being accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalOnFull {
    /// They are cut off, a segment of `segment_bytes` at a time: what they have not delivered becomes a dead-lettered gap.
    CutOff,
    /// Events are refused until they go on, as for S3, when the journal has `max_bytes`.
    Reject,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub max_age: Duration,
    /// Uncompressed.
    pub max_bytes: u64,
    /// 1 to 12, libdeflate's scale.
    pub gzip_level: u8,
    pub flush_on_stop: bool,
    pub stop_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    pub interval: Duration,
    /// `None`: `data_dir/keys`. See [`Config::key_dir`].
    pub key_dir: Option<PathBuf>,
    /// The asymmetric AWS KMS key that signs instead of keys in files: its id, `alias/…`, or the ARN of either. Its public key is
    /// kept in the key directory as those of files are.
    pub kms_key_id: Option<String>,
}

/// The event history, for LookupEvents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub enabled: bool,
    /// By event time.
    pub retention: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sinks {
    /// Holds `{service}` where the event's service goes.
    pub event_bridge_source: String,
    pub cloudwatch_max_event_bytes: u64,
    pub put_events_max_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    pub requests: crate::auth::Options,
    /// Lets listeners that ask nobody who they are listen beyond loopback.
    pub allow_anonymous: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inputs {
    pub file: Vec<FileInput>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInput {
    /// A path or a sound glob pattern.
    pub path: String,
}

/// A trail of the file. Names and ARNs are well-formed; whether they exist is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailConfig {
    pub name: String,
    pub s3_bucket_name: String,
    /// Empty: none. Never begins or ends with a slash.
    pub s3_key_prefix: String,
    pub sns_topic: Option<Topic>,
    /// The log group, with the role if one is given.
    pub cloud_watch_logs: Option<LogGroup>,
    pub event_bus: Option<EventBus>,
    pub selectors: Selectors,
    pub is_multi_region_trail: bool,
    pub include_global_service_events: bool,
    pub is_organization_trail: bool,
    /// Given whenever `is_organization_trail` is true.
    pub organization_id: Option<String>,
    pub organization_accounts: Members,
    pub enable_log_file_validation: bool,
    pub kms_key_id: Option<String>,
}

impl Config {
    /// What a daemon without any configuration runs with: everything on loopback, buckets under `./traild-data`.
    pub fn embedded_default() -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            account_id: DEFAULT_ACCOUNT
                .parse()
                .expect("default account: twelve digits"),
            region: "us-east-1".parse().expect("default region: well-formed"),
            data_dir: PathBuf::from("./traild-data"),
            listen: Listen {
                api: loopback(4580),
                ops: loopback(4581),
                unix: None,
            },
            storage: Storage {
                kind: StorageKind::Embedded,
                listen: loopback(4582),
            },
            aws: Aws {
                endpoint_url: None,
                force_path_style: false,
                checksum: Checksum::WhenRequired,
            },
            ingest: Ingest {
                max_body_bytes: 16 << 20,
                max_event_bytes: 256 << 10,
                dedup_window: 1_000_000,
                on_full: OnFull::Reject,
            },
            journal: Journal {
                max_bytes: 10 << 30,
                segment_bytes: 64 << 20,
                on_full: JournalOnFull::CutOff,
            },
            delivery: Delivery {
                max_age: Duration::from_secs(60),
                max_bytes: 50 << 20,
                gzip_level: 6,
                flush_on_stop: false,
                stop_timeout: Duration::from_secs(10),
            },
            digest: Digest {
                interval: Duration::from_secs(3600),
                key_dir: None,
                kms_key_id: None,
            },
            history: History {
                enabled: true,
                retention: crate::history::RETENTION,
            },
            sinks: Sinks {
                event_bridge_source: "traild.{service}".into(),
                cloudwatch_max_event_bytes: 256 << 10,
                put_events_max_bytes: 256 << 10,
            },
            auth: Auth {
                requests: crate::auth::Options::None,
                allow_anonymous: false,
            },
            inputs: Inputs::default(),
            trails: Vec::new(),
        }
    }

    /// Where the keys of digests are, the public ones also when AWS KMS signs: `digest.key_dir`, else `data_dir/keys`.
    pub fn key_dir(&self) -> PathBuf {
        let given = self.digest.key_dir.clone();
        given.unwrap_or_else(|| self.data_dir.join("keys"))
    }
}

const DEFAULT_ACCOUNT: &str = "111122223333";

/// Where the configuration came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    EmbeddedDefault,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::EmbeddedDefault => f.write_str("the embedded default"),
        }
    }
}

/// A configuration that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub config: Config,
    pub source: Source,
    pub warnings: Vec<Warning>,
}

/// Finds, reads and checks the configuration. `environment` serves `${VAR}` and `TRAILD__…`.
pub fn load(
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Vec<Mistake>> {
    let candidates = ["./traild.toml", "/etc/traild/traild.toml"].map(Path::new);
    let (source, text) = find(path, &candidates)?;
    check(source, &text, environment)
}

/// The environment as [`load`] takes it. Variables that are not Unicode cannot be ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The first configuration there is. A file that is named must exist; one that exists must be readable.
fn find(named: Option<&Path>, candidates: &[&Path]) -> Result<(Source, String), Vec<Mistake>> {
    if let Some(path) = named {
        return match std::fs::read_to_string(path) {
            Ok(text) => Ok((Source::File(path.into()), text)),
            Err(error) => Err(unreadable(path, &error)),
        };
    }
    for path in candidates {
        match std::fs::read_to_string(path) {
            Ok(text) => return Ok((Source::File(path.into()), text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
    Ok((Source::EmbeddedDefault, String::new()))
}

fn unreadable(path: &Path, error: &io::Error) -> Vec<Mistake> {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "name an existing file, or leave --config out to run with the embedded default"
        }
        io::ErrorKind::PermissionDenied => "let the user traild runs as read it",
        io::ErrorKind::InvalidData => "a configuration is TOML in UTF-8",
        _ => "a configuration is a TOML file",
    };
    vec![Mistake {
        key: String::new(),
        place: Place::File {
            path: path.display().to_string(),
            line: None,
        },
        value: None,
        problem: format!("cannot read the configuration: {error}"),
        hint: Some(hint.into()),
    }]
}

/// Checks the text of a configuration.
pub fn check(
    source: Source,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Vec<Mistake>> {
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    let file = source.to_string();
    let mut table = tree::parse(text, &file)?;
    let findings = Findings::default();
    tree::expand(
        &mut table,
        &environment,
        &mut findings.mistakes.borrow_mut(),
    );
    tree::override_from(
        &mut table,
        &environment,
        &mut findings.mistakes.borrow_mut(),
    );
    let place = match source {
        Source::File(_) => Place::File {
            path: file,
            line: None,
        },
        Source::EmbeddedDefault => Place::Default,
    };
    let config = sections::read(table, place, &findings);
    let (mistakes, warnings) = findings.into_parts();
    if mistakes.is_empty() {
        Ok(Loaded {
            config,
            source,
            warnings,
        })
    } else {
        Err(mistakes)
    }
}

#[cfg(test)]
mod tests;
