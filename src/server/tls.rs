//! TLS of a listener: its certificate, the authority that clients' certificates must be of, and how both are renewed.
//!
//! rustls, TLS 1.2 and 1.3, HTTP/1.1 by ALPN. With an authority for clients every client must present a certificate of it, or its handshake fails:
//! what is behind may rely on that. Such sessions are not resumed, so that each connection is held to a certificate that is valid then.
//!
//! The files are read again every few seconds and when [`Tls::look_again`] is called, by their contents: a renewal that renames files, or that swaps a
//! symbolic link to their directory as Kubernetes does, is seen like any other. New connections get what is new, open ones stay as they are. A
//! pair that cannot be used, because it is half written or its key belongs to another certificate, is told once and the old one goes on.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_rustls::rustls::crypto::aws_lc_rs as cryptography;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;

use super::certificate::{self, Certificate};
use crate::clock::WallMillis;

/// How often the files are looked at.
pub const POLL: Duration = Duration::from_secs(5);

/// Before the end of a certificate it is time to say so.
pub const SOON: Duration = Duration::from_secs(14 * 86_400);

/// More than this is no certificate and no key.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where certificates and keys are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The listener's own certificate, and behind it those that lead to its authority.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// The authorities whose certificates clients must present one of.
    pub client_ca_file: Option<PathBuf>,
}

/// Why the files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {path} (listen.tls.{key}): it {problem}", path = .path.display())]
pub struct TlsError {
    /// `cert_file`, `key_file` or `client_ca_file`.
    pub key: &'static str,
    pub path: PathBuf,
    /// Finishes the sentence "this file …".
    pub problem: String,
}

/// What the files hold, good for connections.
#[derive(Clone)]
pub struct Loaded {
    config: Arc<ServerConfig>,
    /// The first second at which the certificate is good, and the last one, since 1970.
    pub not_before: i64,
    pub not_after: i64,
    fingerprint: Fingerprint,
}

/// Of the contents of all files.
type Fingerprint = [u8; 32];

/// Reads the files. Blocks on the disk.
pub fn load(files: &Files) -> Result<Loaded, TlsError> {
    Contents::read(files)?.load(files)
}

impl Loaded {
    /// What is wrong with the dates of the certificate. Finishes the sentence "this certificate …".
    pub fn misdated(&self, now: WallMillis) -> Option<&'static str> {
        match now.unix_seconds() {
            now if now > self.not_after => Some("has expired"),
            now if now < self.not_before => Some("is not valid yet"),
            _ => None,
        }
    }

    /// Whether it ends within [`SOON`].
    pub fn ends_soon(&self, now: WallMillis) -> bool {
        let left = self.not_after.saturating_sub(now.unix_seconds());
        left < i64::try_from(SOON.as_secs()).unwrap_or(i64::MAX)
    }

    /// RFC 3339.
    pub fn end(&self) -> String {
        WallMillis(self.not_after.saturating_mul(1000)).rfc3339()
    }
}

/// The files as they were at one time.
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &Files) -> Result<Self, TlsError> {
        let client_ca = files.client_ca_file.as_deref();
        Ok(Self {
            cert: read("cert_file", &files.cert_file)?,
            key: read("key_file", &files.key_file)?,
            client_ca: client_ca
                .map(|path| read("client_ca_file", path))
                .transpose()?,
        })
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut hash = digest::Context::new(&digest::SHA256);
        let none = Vec::new();
        for file in [
            &self.cert,
            &self.key,
            self.client_ca.as_ref().unwrap_or(&none),
        ] {
            hash.update(&(file.len() as u64).to_le_bytes());
            hash.update(file);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(hash.finish().as_ref());
        fingerprint
    }

    fn load(self, files: &Files) -> Result<Loaded, TlsError> {
        let fault = |key, path: &Path, problem: String| TlsError {
            key,
            path: path.to_owned(),
            problem,
        };
        let of_cert = |problem| fault("cert_file", &files.cert_file, problem);
        let chain = certificates(&self.cert).map_err(of_cert)?;
        let leaf = Certificate::parse(&chain[0])
            .map_err(|why| of_cert(format!("holds a certificate that cannot be read: {why}")))?;
        let of_key = |problem| fault("key_file", &files.key_file, problem);
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            of_key(format!(
                "holds no private key that can be read ({error}): it must be PEM, and not encrypted"
            ))
        })?;

        let provider = Arc::new(cryptography::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| of_cert(format!("goes with no version of TLS: {error}")))?;
        let builder = match (&self.client_ca, &files.client_ca_file) {
            (Some(authorities), Some(path)) => {
                let of_ca = |problem| fault("client_ca_file", path, problem);
                let roots = roots(authorities).map_err(of_ca)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| of_ca(format!("cannot judge clients: {error}")))?,
                )
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    of_key("is not the key of the certificate in cert_file".to_owned())
                }
                rustls::Error::InvalidCertificate(_) => {
                    of_cert(format!("holds a certificate that cannot be used: {error}"))
                }
                error => of_key(format!("holds a key that cannot be used: {error}")),
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if self.client_ca.is_some() {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Loaded {
            config: Arc::new(config),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            fingerprint: self.fingerprint(),
        })
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let fault = |problem: String| TlsError {
        key,
        path: path.to_owned(),
        problem,
    };
    let unreadable = |error: io::Error| fault(format!("cannot be read: {error}"));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut content = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(fault(format!("holds more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(content)
}

/// All certificates of a file; one at least.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("holds no certificate: it must be PEM".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("is not sound PEM: {error}")),
    }
}

fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|error| format!("holds a certificate of no authority: {error}"))?;
    }
    Ok(Arc::new(roots))
}

/// What connections are made with, now. Clones share it.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: Files,
    state: Mutex<State>,
    expiry: Gauge<i64, AtomicI64>,
}

struct State {
    loaded: Loaded,
    /// What was last seen and could not be used, so that it is told once.
    refused: Option<Refused>,
}

#[derive(PartialEq, Eq)]
enum Refused {
    Contents(Fingerprint),
    Files(TlsError),
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.0.files).finish()
    }
}

impl Tls {
    /// Blocks on the disk. A certificate whose dates are wrong is told and taken: a daemon that is down would help nobody.
    pub fn open(files: Files) -> Result<Self, TlsError> {
        let loaded = load(&files)?;
        let expiry = Gauge::default();
        expiry.set(loaded.not_after);
        tell_of(&loaded, &files);
        Ok(Self(Arc::new(Shared {
            files,
            state: Mutex::new(State {
                loaded,
                refused: None,
            }),
            expiry,
        })))
    }

    /// Registers its series: there is none without TLS, as an end in 1970 would be an alarm.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "traild_certificate_expiry_seconds",
            "When the certificate of the api listener ends, seconds since 1970",
            self.0.expiry.clone(),
        );
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state().loaded.config)
    }

    /// Reads the files again, by a request of the operator's: whatever comes of it is told. Blocks on the disk.
    pub fn look_again(&self) {
        self.state().refused = None;
        if !self.look() {
            tracing::info!(cert_file = %self.0.files.cert_file.display(), "certificate is unchanged");
        }
    }

    /// Looks at the files now and then, until `stop`.
    pub async fn follow(self, every: Duration, stop: CancellationToken) {
        let next = || tokio::time::sleep(every);
        while stop.run_until_cancelled(next()).await.is_some() {
            let tls = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || tls.look()).await {
                tracing::error!(%error, "cannot look at the certificate, will try again");
            }
        }
    }

    /// Takes what is new in the files, if it can be used. Answers whether there was anything to tell.
    fn look(&self) -> bool {
        let Shared { files, expiry, .. } = &*self.0;
        let outcome = Contents::read(files).map(|contents| (contents.fingerprint(), contents));
        let (refused, error) = match outcome {
            Ok((fingerprint, _)) if fingerprint == self.state().loaded.fingerprint => {
                return self.state().refused.take().is_some();
            }
            Ok((fingerprint, contents)) => match usable(contents, files) {
                Ok(loaded) => {
                    expiry.set(loaded.not_after);
                    tracing::info!(cert_file = %files.cert_file.display(), end = loaded.end(), "certificate is renewed");
                    tell_of(&loaded, files);
                    *self.state() = State {
                        loaded,
                        refused: None,
                    };
                    return true;
                }
                Err(error) => (Refused::Contents(fingerprint), error),
            },
            Err(error) => (Refused::Files(error.clone()), error),
        };
        let mut state = self.state();
        if state.refused.as_ref() == Some(&refused) {
            return false;
        }
        state.refused = Some(refused);
        tracing::error!(%error, "new certificate is refused, going on with the old one");
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A renewal must be good now.
fn usable(contents: Contents, files: &Files) -> Result<Loaded, TlsError> {
    let loaded = contents.load(files)?;
    match loaded.misdated(WallMillis::now()) {
        None => Ok(loaded),
        Some(problem) => Err(TlsError {
            key: "cert_file",
            path: files.cert_file.clone(),
            problem: format!(
                "holds a certificate that {problem} (its end is {})",
                loaded.end()
            ),
        }),
    }
}

fn tell_of(loaded: &Loaded, files: &Files) {
    let now = WallMillis::now();
    let cert_file = files.cert_file.display();
    if let Some(problem) = loaded.misdated(now) {
        tracing::error!(%cert_file, end = loaded.end(), "the certificate of the api listener {problem}");
    } else if loaded.ends_soon(now) {
        tracing::warn!(%cert_file, end = loaded.end(), "the certificate of the api listener ends soon");
    }
}

/// What the TLS of a connection came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// As CloudTrail writes it: `TLSv1.3`.
    pub version: &'static str,
    /// As CloudTrail writes it: `TLS_AES_128_GCM_SHA256`, and with TLS 1.2 OpenSSL's name, as `ECDHE-RSA-AES128-GCM-SHA256`.
    pub cipher_suite: &'static str,
    /// The client's, which an authority has vouched for.
    pub certificate: Option<certificate::Names>,
}

impl Secured {
    /// Of a connection whose handshake is done. The error is about the client's certificate.
    pub fn of(connection: &rustls::ServerConnection) -> Result<Self, der::Error> {
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let certificate = leaf.map(|leaf| Certificate::parse(leaf)).transpose()?;
        Ok(Self {
            version: match connection.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            cipher_suite: connection
                .negotiated_cipher_suite()
                .map_or("", |suite| cipher_suite(suite.suite())),
            certificate: certificate.map(|certificate| certificate.names),
        })
    }
}

fn cipher_suite(suite: rustls::CipherSuite) -> &'static str {
    use rustls::CipherSuite as Suite;
    match suite {
        Suite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        Suite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        Suite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        other => other.as_str().unwrap_or(""),
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
