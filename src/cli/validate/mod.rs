//! `traild validate`: every mistake at once, in the configuration and in what it names.

mod certificate;
mod destinations;
mod keys;
mod summary;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::client::{Client, Endpoint};
use super::{ConfigArgument, Failure, status, talk};
use crate::aws;
use crate::clock::WallMillis;
use crate::config::{Config, Loaded, Mistake, Place, Source, StorageKind};
use crate::server::{BindError, Listener};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Check the configuration alone, and none of the directories, ports, files and destinations it names
    #[arg(long)]
    offline: bool,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let loaded = super::load(&arguments.config)?;
    if !arguments.offline {
        let findings = super::runtime()?.block_on(environment(&loaded));
        for note in &findings.notes {
            talk(note);
        }
        if !findings.mistakes.is_empty() {
            return Err(Failure::Configuration(findings.mistakes));
        }
    }
    super::print(summary::of(&loaded))
}

/// What the machine and AWS say about a sound configuration.
struct Findings {
    place: Place,
    mistakes: Vec<Mistake>,
    notes: Vec<String>,
}

impl Findings {
    fn mistake(
        &mut self,
        key: &str,
        value: impl ToString,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.mistakes.push(Mistake {
            key: key.to_owned(),
            place: self.place.clone(),
            value: Some(value.to_string()),
            problem: problem.into(),
            hint: Some(hint.into()),
        });
    }

    fn warn(&mut self, key: &str, message: impl std::fmt::Display) {
        self.notes
            .push(format!("warning: {}: {key}: {message}", self.place));
    }
}

async fn environment(Loaded { config, source, .. }: &Loaded) -> Findings {
    let place = match source {
        Source::File(path) => Place::File {
            path: path.display().to_string(),
            line: None,
        },
        Source::EmbeddedDefault => Place::Default,
    };
    let mut findings = Findings {
        place,
        mistakes: Vec::new(),
        notes: Vec::new(),
    };
    check_directory("data_dir", &config.data_dir, &mut findings);
    check_listeners(config, &mut findings).await;
    certificate::check(config, WallMillis::now(), &mut findings);
    check_inputs(config, &mut findings);
    let sdk = aws::sdk_config(config).await;
    keys::check(config, &sdk, &mut findings).await;
    destinations::check(config, &sdk, &mut findings).await;
    findings
}

/// The directory must be writable, or its nearest existing ancestor so that it can be made.
fn check_directory(key: &str, path: &Path, findings: &mut Findings) {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let Some(existing) = absolute
        .ancestors()
        .find(|path| path.symlink_metadata().is_ok())
    else {
        return;
    };
    let shown = path.display();
    let problem = match existing.metadata() {
        Ok(metadata) if !metadata.is_dir() => {
            Some(format!("{} is not a directory", existing.display()))
        }
        Err(error) => Some(format!("cannot use {}: {error}", existing.display())),
        Ok(_) => {
            let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
            let refused = |errno: rustix::io::Errno| {
                format!(
                    "cannot write to {}: {}",
                    existing.display(),
                    io::Error::from(errno)
                )
            };
            rustix::fs::access(existing, access).err().map(refused)
        }
    };
    if let Some(problem) = problem {
        findings.mistake(
            key,
            shown,
            problem,
            "name a directory that the user traild runs as may write to",
        );
    }
}

/// Listeners must be free, or be a running traild's: then this is a check before a restart.
async fn check_listeners(config: &Config, findings: &mut Findings) {
    let running = running_traild(config).await;
    let mut listeners = vec![
        ("listen.api", config.listen.api),
        ("listen.ops", config.listen.ops),
    ];
    if config.storage.kind == StorageKind::Embedded {
        listeners.push(("storage.listen", config.storage.listen));
    }
    for (key, address) in listeners {
        let outcome = Listener::bind_tcp(key, address).await;
        note_listener(
            key,
            &address.to_string(),
            outcome,
            running.as_deref(),
            findings,
        );
    }
    if let Some(path) = &config.listen.unix {
        let outcome = Listener::bind_unix("listen.unix", path).await;
        note_listener(
            "listen.unix",
            &path.display().to_string(),
            outcome,
            running.as_deref(),
            findings,
        );
    }
}

fn note_listener(
    key: &str,
    address: &str,
    outcome: Result<Listener, BindError>,
    running: Option<&str>,
    findings: &mut Findings,
) {
    match (outcome, running) {
        (Ok(_), _) => {}
        (Err(BindError::InUse { .. }), Some(running)) => {
            findings
                .notes
                .push(format!("note: {key} = {address} is in use, {running}"));
        }
        (Err(BindError::InUse { .. }), None) => {
            findings.mistake(
                key,
                address,
                "the address is in use by another program",
                format!("stop it, or set {key} to a free address"),
            );
        }
        (Err(BindError::Io { hint, source, .. }), _) => {
            findings.mistake(key, address, format!("cannot listen on it: {source}"), hint);
        }
    }
}

/// Says so when the configured addresses answer as a traild does.
async fn running_traild(config: &Config) -> Option<String> {
    let at = |address: SocketAddr| {
        let authority = aws::reachable(address).to_string();
        Client::new(Endpoint::Tcp { authority })
    };
    // With TLS its certificate need not be for this address.
    if config.listen.tls.is_none()
        && let Ok((_, status)) = status::fetch(at(config.listen.api)).await
    {
        return Some(format!(
            "and a traild {} of account {} answers there",
            status.version, status.account_id
        ));
    }
    let metrics = at(config.listen.ops)
        .get("/metrics", Duration::from_secs(2))
        .await
        .ok()?;
    let ours = metrics
        .body
        .windows(17)
        .any(|window| window == b"traild_build_info");
    ours.then(|| format!("and a traild answers on {}", config.listen.ops))
}

/// What matches must be readable; what does not exist yet may come.
fn check_inputs(config: &Config, findings: &mut Findings) {
    for (index, input) in config.inputs.file.iter().enumerate() {
        let key = format!("inputs.file[{index}].path");
        let Ok(paths) = glob::glob(&input.path) else {
            continue;
        };
        let mut found = 0;
        for path in paths {
            found += 1;
            let (path, problem) = match path {
                Ok(path) => {
                    let problem = std::fs::File::open(&path)
                        .err()
                        .map(|error| error.to_string());
                    (path, problem)
                }
                Err(error) => (error.path().to_owned(), Some(error.error().to_string())),
            };
            if let Some(problem) = problem {
                let told = format!("cannot read {}: {problem}", path.display());
                findings.mistake(
                    &key,
                    &input.path,
                    told,
                    "let the user traild runs as read it",
                );
            }
        }
        if found == 0 {
            findings.warn(&key, format!("{} matches no file yet", input.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, FileInput};

    fn loaded(config: Config) -> Loaded {
        Loaded {
            config,
            source: Source::EmbeddedDefault,
            warnings: Vec::new(),
        }
    }

    fn local(directory: &Path) -> Config {
        let mut config = Config::embedded_default();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        (config.listen.api, config.listen.ops, config.storage.listen) = (any, any, any);
        config.data_dir = directory.join("a/b/c");
        config
    }

    #[tokio::test]
    async fn what_the_configuration_names_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = local(directory.path());
        config.inputs.file = vec![FileInput {
            path: directory.path().join("*.ndjson").display().to_string(),
        }];
        let findings = environment(&loaded(config.clone())).await;
        assert_eq!(findings.mistakes, []);
        assert_eq!(findings.notes.len(), 1, "{:?}", findings.notes);
        assert!(!config.data_dir.exists(), "validating creates nothing");

        std::fs::write(directory.path().join("a"), "").unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        config.listen.api = taken.local_addr().unwrap();
        // Whoever holds the port answers nothing: it is no traild.
        std::thread::spawn(move || taken.incoming().for_each(drop));
        config.listen.unix = Some(directory.path().join("no/such/dir.sock"));
        let found = environment(&loaded(config)).await.mistakes;
        let keys: Vec<&str> = found.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(
            keys,
            ["data_dir", "listen.api", "listen.unix"],
            "{found:#?}"
        );
        assert!(found[1].to_string().contains("in use by another program"));
    }

    #[test]
    fn the_configuration_for_localstack_is_sound() {
        let text = include_str!("../../../localstack/traild.toml");
        let loaded = config::check(Source::EmbeddedDefault, text, []).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }

    #[tokio::test]
    async fn a_store_that_is_not_there_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = local(directory.path());
        let text = "[[trails]]\nname = \"main\"\ns3_bucket_name = \"logs\"";
        config.trails = config::check(Source::EmbeddedDefault, text, [])
            .unwrap()
            .config
            .trails;
        config.storage.kind = StorageKind::S3;
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        config.aws.endpoint_url = Some(format!("http://{closed}"));
        let found = environment(&loaded(config)).await.mistakes;
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].key, "trails[0].s3_bucket_name");
    }
}
