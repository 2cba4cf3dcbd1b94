//! `[auth]`: who may ask, with the files that secrets and policies are in.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::Auth;
use super::reader::{At, Findings, Problem, Section, filled, parsed, text, truth};
use super::sections::path;
use super::tree::Item;
use crate::api::operations::OF_CLOUDTRAIL;
use crate::auth::policy::{Actions, Policy};
use crate::auth::{CertificateName, Credential, KnownCertificate, OF_PATHS, Options, SecretKey};
use crate::event::AccountId;

/// More than this is no secret and no policy; IAM's own limit for a managed policy is 6,144 characters.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Every action that is asked of a policy.
const ACTIONS: [Actions<'static>; 4] = [
    OF_PATHS[0],
    OF_PATHS[1],
    Actions {
        service: "cloudtrail",
        names: &OF_CLOUDTRAIL,
    },
    Actions {
        service: "organizations",
        names: &["DescribeOrganization"],
    },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    None,
    SigV4,
}

/// Credentials and certificates are of `home` unless they say otherwise. `asks_for_certificates`: clients must show one.
pub(super) fn read(
    mut section: Section<'_>,
    default: Auth,
    home: AccountId,
    asks_for_certificates: bool,
    findings: &Findings,
) -> Auth {
    let words = &[("none", Mode::None), ("sigv4", Mode::SigV4)];
    let mode = section.take_or("mode", Mode::None, super::reader::one_of(words));
    let allow_anonymous = section.take_or("allow_anonymous", default.allow_anonymous, truth);
    let sections = section.tables("credentials");
    let given = sections.len();
    let first = sections.first().map(|section| section.place.clone());
    let credentials = read_credentials(sections, home, findings);
    let sections = section.tables("certificates");
    let knows_certificates = !sections.is_empty();
    if knows_certificates && !asks_for_certificates {
        findings.mistake(section.mistake(
            "certificates",
            "are asked for by nobody: without an authority clients show no certificate",
            "add client_ca_file to listen.tls",
        ));
    }
    let certificates = read_certificates(sections, home, findings);
    section.close();
    match mode.value {
        Mode::None => {
            if let Some(place) = first {
                findings.warn(super::Warning {
                    key: "auth.credentials".into(),
                    place,
                    message: "have no effect while auth.mode is \"none\": nothing is verified"
                        .into(),
                });
            }
        }
        Mode::SigV4 if given == 0 && !knows_certificates => findings.mistake(mode.mistake(
            "needs credentials, or nobody could sign a request",
            "add [[auth.credentials]] with an access_key_id and a secret_access_key_file, or [[auth.certificates]] of clients that need not sign",
        )),
        Mode::SigV4 => {}
    }
    Auth {
        requests: match mode.value {
            Mode::None => Options::None,
            Mode::SigV4 => Options::SigV4(credentials),
        },
        certificates,
        allow_anonymous: allow_anonymous.value,
    }
}

fn read_credentials(
    sections: Vec<Section<'_>>,
    home: AccountId,
    findings: &Findings,
) -> Vec<Credential> {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut credentials = Vec::new();
    for section in sections {
        let (name, credential) = read_credential(section, home, findings);
        if let Some(name) = name {
            let this = name.key.trim_end_matches(".access_key_id").to_owned();
            match seen.get(&name.value) {
                Some(first) => findings.mistake(name.mistake(
                    format!("is also the access key of {first}"),
                    "give each credential an access key of its own",
                )),
                None => {
                    seen.insert(name.value, this);
                }
            }
        }
        credentials.extend(credential);
    }
    credentials
}

/// The access key, and the credential when all of it is sound.
fn read_credential(
    mut section: Section<'_>,
    home: AccountId,
    findings: &Findings,
) -> (Option<At<String>>, Option<Credential>) {
    let key = section.require(
        "access_key_id",
        "every credential has an access key, as in access_key_id = \"AKIDEXAMPLE\"",
        access_key_id,
    );
    let has_secret = section.has("secret_access_key");
    let has_file = section.has("secret_access_key_file");
    let hint = "write the secret in quotes, or better name a file with secret_access_key_file";
    let written = section.take("secret_access_key", |item| {
        secret(text(item)?).map_err(|problem| Problem::hint(problem, hint))
    });
    let file = section.take("secret_access_key_file", |item| {
        let path = path(item)?;
        let hint = "name a file that holds the secret and nothing else, and let the user traild runs as read it";
        let (content, mode) = read_file(&path).map_err(|problem| Problem::hint(problem, hint))?;
        let secret = secret(content).map_err(|problem| Problem::hint(format!("names a file that {problem}"), hint))?;
        Ok((secret, mode))
    });
    if let Some(file) = file.as_ref().filter(|file| file.value.1 & 0o004 != 0) {
        findings.warn(file.warning(format!(
            "names a file that everyone on this machine can read (mode {:04o}); take that away with chmod o-r",
            file.value.1 & 0o7777
        )));
    }
    let account = section.take_or(
        "account_id",
        home,
        parsed("write it in quotes, as in \"111122223333\""),
    );
    let policy = section.take("policy_file", policy);
    if has_secret && has_file {
        findings.mistake(section.mistake(
            "secret_access_key_file",
            "does not go with secret_access_key: a credential has one secret",
            "leave one of the two out",
        ));
    }
    if !has_secret && !has_file {
        findings.mistake(section.mistake(
            "secret_access_key_file",
            "is missing",
            "name a file that holds the secret, or write secret_access_key = \"${APP_SECRET}\" and set the variable",
        ));
    }
    section.close();
    let secret = match (written, file) {
        (Some(written), _) => Some(written.value),
        (None, file) => file.map(|file| file.value.0),
    };
    let credential = key.as_ref().zip(secret).map(|(key, secret)| Credential {
        access_key_id: key.value.clone(),
        secret,
        account: account.value,
        policy: policy.map(|policy| policy.value),
    });
    (key, credential)
}

fn read_certificates(
    sections: Vec<Section<'_>>,
    home: AccountId,
    findings: &Findings,
) -> Vec<KnownCertificate> {
    let mut seen: BTreeMap<CertificateName, String> = BTreeMap::new();
    let mut certificates = Vec::new();
    for section in sections {
        let Some((name, certificate)) = read_certificate(section, home, findings) else {
            continue;
        };
        match seen.get(&certificate.name) {
            Some(first) => findings.mistake(name.mistake(
                format!("is also the name of {first}"),
                "give each certificate once",
            )),
            None => {
                let (this, _) = name.key.rsplit_once('.').unwrap_or_default();
                seen.insert(certificate.name.clone(), this.to_owned());
                certificates.push(certificate);
            }
        }
    }
    certificates
}

/// The name that it is known by, and the certificate when all of it is sound.
fn read_certificate(
    mut section: Section<'_>,
    home: AccountId,
    findings: &Findings,
) -> Option<(At<String>, KnownCertificate)> {
    let hint = "write one of the names that the certificate has, as uri = \"spiffe://example.org/ns/audit/sa/collector\", dns = \"collector.audit.svc\" \
                or common_name = \"collector\"";
    let uri = section.take("uri", filled);
    let dns = section.take("dns", filled);
    let common_name = section.take("common_name", filled);
    let names: Vec<(At<String>, CertificateName)> = [
        uri.map(|at| (at.clone(), CertificateName::Uri(at.value))),
        dns.map(|at| {
            (
                at.clone(),
                CertificateName::Dns(at.value.to_ascii_lowercase()),
            )
        }),
        common_name.map(|at| (at.clone(), CertificateName::CommonName(at.value))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let user_name = section.take("user_name", user_name);
    let account = section.take_or(
        "account_id",
        home,
        parsed("write it in quotes, as in \"111122223333\""),
    );
    let policy = section.take("policy_file", policy);
    let mistake = match names.len() {
        0 => Some(section.mistake("uri", "is missing", hint)),
        1 => None,
        _ => Some(
            names[1]
                .0
                .mistake("is a second name: a certificate is known by one", hint),
        ),
    };
    section.close();
    if let Some(mistake) = mistake {
        findings.mistake(mistake);
        return None;
    }
    let (at, name) = names.into_iter().next()?;
    let user_name = match user_name {
        Some(given) => given.value,
        None => match as_user_name(&at.value) {
            Some(usual) => usual,
            None => {
                let hint = "add user_name = \"…\", which is who this is in policies and in records";
                findings.mistake(at.mistake("cannot be the name of a user as it is", hint));
                return None;
            }
        },
    };
    let certificate = KnownCertificate {
        name,
        user_name: user_name.into(),
        account: account.value,
        policy: policy.map(|policy| policy.value),
    };
    Some((at, certificate))
}

fn user_name(item: &Item) -> Result<String, Problem> {
    let given = filled(item)?;
    as_user_name(&given).filter(|name| *name == given).ok_or_else(|| {
        Problem::hint(
            "is not the name of a user",
            "up to 512 of A-Z, a-z, 0-9, '_', '+', '=', ',', '.', '@', '-' and, between them, '/'",
        )
    })
}

/// What stands behind `user/` in an ARN: a name of IAM, or one behind a path (IAM user guide, "IAM identifiers"). Of a URI, what follows its scheme.
fn as_user_name(name: &str) -> Option<String> {
    let name = name.split_once("://").map_or(name, |(_, rest)| rest);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    let sound = |part: &str| !part.is_empty() && part.bytes().all(allowed);
    (name.len() <= 512 && name.split('/').all(sound)).then(|| name.to_owned())
}

/// What can stand in an Authorization header and in an ARN.
fn access_key_id(item: &Item) -> Result<String, Problem> {
    let key = filled(item)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if key.len() > 128 || !key.bytes().all(allowed) {
        return Err(Problem::hint(
            "is not an access key",
            "up to 128 of A-Z, a-z, 0-9, '_', '.' and '-'",
        ));
    }
    Ok(key)
}

/// A secret of one line. A line's end behind it is the editor's.
fn secret(given: String) -> Result<SecretKey, &'static str> {
    let secret = given.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err("is empty");
    }
    if secret
        .bytes()
        .any(|byte| byte.is_ascii_control() || byte == b' ')
    {
        return Err("holds blanks or more than one line");
    }
    Ok(SecretKey::new(secret.to_owned()))
}

fn policy(item: &Item) -> Result<Arc<Policy>, Problem> {
    let hint = "it is an IAM policy document in JSON: Version, Statement, and in each Effect, Action and Resource";
    let (text, _) = read_file(&path(item)?).map_err(|problem| Problem::hint(problem, hint))?;
    match Policy::parse(&text, &ACTIONS) {
        Ok(policy) => Ok(Arc::new(policy)),
        Err(wrong) => Err(Problem::hint(
            format!("is not a policy that can be kept to: {wrong}"),
            hint,
        )),
    }
}

/// The text of a small file, and its mode. The error finishes the sentence "this path …".
fn read_file(path: &Path) -> Result<(String, u32), String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("holds more than {MAX_FILE_BYTES} bytes"));
    }
    Ok((text, mode))
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
