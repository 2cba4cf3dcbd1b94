//! The daemon under test, as a process of its own: start, figures from /proc and /metrics, end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use traild::auth::SecretKey;
use traild::auth::sigv4::Signer;

/// `/proc/<pid>/stat` counts in ticks of 1/100 s on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What may be had besides delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extras {
    pub history: bool,
    pub sigv4: bool,
}

impl Extras {
    pub const NONE: Self = Self {
        history: false,
        sigv4: false,
    };

    /// For the requests to a daemon with them.
    pub fn signer(self) -> Option<Signer> {
        self.sigv4.then(|| Signer {
            access_key_id: "AKIDBENCH".to_owned(),
            secret: SecretKey::new(SECRET.to_owned()),
            session_token: None,
            region: "us-east-1".parse().expect("region: a valid one"),
            service: traild::auth::TRAILD,
        })
    }

    /// The benchmark's events are of several accounts, so that the credential needs a policy that lets it write for all.
    fn config(self, home: &Path) -> Result<String> {
        let mut config = format!("[history]\nenabled = {}\n", self.history);
        if self.sigv4 {
            let policy = home.join("policy.json");
            std::fs::write(
                &policy,
                r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"traild:PutEvents","Resource":"arn:aws:traild:*:*:events"}}"#,
            )?;
            config += &format!(
                "[auth]\nmode = \"sigv4\"\n[[auth.credentials]]\naccess_key_id = \"AKIDBENCH\"\nsecret_access_key = \"{SECRET}\"\npolicy_file = \"{}\"\n",
                policy.display()
            );
        }
        Ok(config)
    }
}

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// How a daemon is set up.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    pub home: &'a Path,
    pub sink: SocketAddr,
    /// `delivery.max_age`
    pub max_age: &'a str,
    /// Trails, each for every account and region.
    pub trails: usize,
    /// `journal.max_bytes`, in GB
    pub journal_gb: u64,
    pub extras: Extras,
}

impl Setup<'_> {
    fn config(&self, api: SocketAddr, ops: SocketAddr) -> Result<String> {
        let Self {
            sink,
            max_age,
            journal_gb,
            ..
        } = self;
        let data = self.home.join("data");
        let mut config = format!(
            r#"account_id = "111122223333"
region = "us-east-1"
data_dir = "{}"
[listen]
api = "{api}"
ops = "{ops}"
[storage]
kind = "s3"
[aws]
endpoint_url = "http://{sink}"
force_path_style = true
checksum = "when_required"
[journal]
max_bytes = "{journal_gb}GB"
[delivery]
max_age = "{max_age}"
"#,
            data.display(),
        );
        for number in 0..self.trails {
            config += &format!(
                r#"[[trails]]
name = "bench-{number}"
s3_bucket_name = "bench-{number}"
is_multi_region_trail = true
is_organization_trail = true
organization_id = "o-exampleorgid"
organization_accounts = ["*"]
"#
            );
        }
        Ok(config + &self.extras.config(self.home)?)
    }
}

pub struct Daemon {
    child: Child,
    pub api: SocketAddr,
    ops: SocketAddr,
    home: PathBuf,
    pub ready_after: Duration,
}

impl Daemon {
    /// Starts on an empty folder.
    pub fn start(setup: Setup<'_>) -> Result<Self> {
        let home = setup.home;
        if home.exists() {
            std::fs::remove_dir_all(home)
                .with_context(|| format!("cannot empty {}", home.display()))?;
        }
        Self::start_again(setup)
    }

    /// Starts on what an earlier one has left.
    pub fn start_again(setup: Setup<'_>) -> Result<Self> {
        let home = setup.home;
        std::fs::create_dir_all(home)?;
        let (api, ops) = (free_address()?, free_address()?);
        let config = home.join("traild.toml");
        std::fs::write(&config, setup.config(api, ops)?)?;
        let log = std::fs::File::create(home.join("log"))?;
        let began = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_traild"))
            .args(["run", "--config"])
            .arg(&config)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start traild")?;
        let mut daemon = Self {
            child,
            api,
            ops,
            home: home.to_owned(),
            ready_after: Duration::ZERO,
        };
        while !daemon.get("/readyz").is_ok_and(|(status, _)| status == 200) {
            if daemon.child.try_wait()?.is_some() || began.elapsed() > Duration::from_secs(60) {
                bail!("traild did not become ready; it said:\n{}", daemon.log());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        daemon.ready_after = began.elapsed();
        Ok(daemon)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// User and system CPU seconds so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit_once(')').context("stat without a name")?.1;
        let ticks = |field: usize| -> Result<f64> {
            Ok(after_name
                .split_ascii_whitespace()
                .nth(field)
                .context("stat is short")?
                .parse::<f64>()?)
        };
        Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
    }

    /// The most memory it ever had, in bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Kills it, and keeps its data.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.home.clear();
        Ok(())
    }

    pub fn wait_delivered(&mut self, events: u64, within: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let (_, text) = self.get("/metrics")?;
            let delivered = text
                .lines()
                .filter(|line| line.starts_with("traild_events_delivered_total{"))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum::<f64>();
            if delivered >= events as f64 {
                return Ok(());
            }
            ensure!(
                began.elapsed() < within,
                "only {delivered} of {events} events delivered; the log:\n{}",
                self.log()
            );
            ensure!(
                self.child.try_wait()?.is_none(),
                "traild ended:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Observations of a histogram so far, by their upper bounds in seconds, each with all below it.
    pub fn histogram(&self, name: &str) -> Result<Vec<(f64, u64)>> {
        let (_, text) = self.get("/metrics")?;
        let prefix = format!("{name}_bucket{{le=\"");
        let buckets = text.lines().filter_map(|line| {
            let (bound, count) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
            Some((bound.replace('+', "").parse().ok()?, count.parse().ok()?))
        });
        Ok(buckets.collect())
    }

    fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.ops)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer
            .split(' ')
            .nth(1)
            .context("no status line")?
            .parse()?;
        Ok((status, answer))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already; there is nothing else to do about it here.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.home.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(self.home.join("data"));
        }
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
