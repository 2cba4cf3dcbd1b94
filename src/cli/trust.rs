//! TLS of the commands that talk to a daemon: whom they believe, and what they show of themselves.
//!
//! The daemon's certificate must be of an authority in `--ca-file`, else of one in the file that `AWS_CA_BUNDLE` names, as for AWS's own tools, else of one
//! that this machine trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs as cryptography;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

#[derive(Debug, Clone, Default, clap::Args)]
pub struct Trust {
    /// Authorities, in PEM, one of which the daemon's certificate must be of; without it those of AWS_CA_BUNDLE, else those of this machine
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A client certificate to show, in PEM
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// The key of the client certificate
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
}

impl Trust {
    pub fn connector(&self) -> anyhow::Result<TlsConnector> {
        let provider = Arc::new(cryptography::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?);
        let mut config = match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                let unusable = || format!("cannot use {} (--key-file)", key.display());
                let key = PrivateKeyDer::from_pem_file(key).with_context(unusable)?;
                let config = builder.with_client_auth_cert(chain, key);
                config.context("the client certificate and its key do not go together")?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }

    fn roots(&self) -> anyhow::Result<RootCertStore> {
        let bundle = std::env::var_os("AWS_CA_BUNDLE").filter(|bundle| !bundle.is_empty());
        let named = self.ca_file.clone().or(bundle.map(PathBuf::from));
        let mut roots = RootCertStore::empty();
        match named {
            Some(path) => {
                for certificate in certificates(&path)? {
                    let unusable =
                        || format!("{} holds a certificate of no authority", path.display());
                    roots.add(certificate).with_context(unusable)?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    bail!("this machine trusts no authority: name one with --ca-file");
                }
            }
        }
        Ok(roots)
    }
}

/// All certificates of a file; one at least.
fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let unusable = || format!("cannot use {}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).with_context(unusable)?;
    let certificates: Vec<_> = certificates
        .collect::<Result<_, _>>()
        .with_context(unusable)?;
    if certificates.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(certificates)
}
