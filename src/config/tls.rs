//! `listen.tls`: the files are read when the configuration is, so that a pair that cannot be used is a mistake like any other.

use std::os::unix::fs::PermissionsExt;

use super::reader::{At, Findings, Section};
use super::sections::path;
use crate::server::tls::{self, Files};

pub(super) fn read(mut section: Section<'_>, findings: &Findings) -> Option<Files> {
    let keys = ["cert_file", "key_file", "client_ca_file"];
    if !keys.iter().any(|key| section.has(key)) {
        section.close();
        return None;
    }
    let hint = "TLS takes both: cert_file with the certificate and the chain behind it, key_file with its private key, in PEM";
    let cert = section.require("cert_file", hint, path);
    let key = section.require("key_file", hint, path);
    let client_ca = section.take("client_ca_file", path);
    section.close();
    let (cert, key) = cert.zip(key)?;
    if let Some(mode) = mode(&key).filter(|mode| mode & 0o004 != 0) {
        findings.warn(key.warning(format!(
            "names a file that everyone on this machine can read (mode {mode:04o}); take that away with chmod o-r"
        )));
    }
    let files = Files {
        cert_file: cert.value.clone(),
        key_file: key.value.clone(),
        client_ca_file: client_ca.as_ref().map(|at| at.value.clone()),
    };
    if let Err(error) = tls::load(&files) {
        let at = match (error.key, &client_ca) {
            ("key_file", _) => &key,
            ("client_ca_file", Some(client_ca)) => client_ca,
            _ => &cert,
        };
        let hint = "name PEM files that belong together, and let the user traild runs as read them";
        findings.mistake(at.mistake(format!("names a file that {}", error.problem), hint));
    }
    Some(files)
}

fn mode(file: &At<std::path::PathBuf>) -> Option<u32> {
    let metadata = std::fs::metadata(&file.value).ok()?;
    Some(metadata.permissions().mode() & 0o7777)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
