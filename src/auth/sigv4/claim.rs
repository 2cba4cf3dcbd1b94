//! What a request says about its signature, in its header or in its query.

use http::header::AUTHORIZATION;
use http::{HeaderMap, request};

use super::{
    ALGORITHM, MAX_EXPIRES_SECONDS, Refused, Rules, SKEW_SECONDS, TERMINATOR, canonical, stamp,
};
use crate::digest::moment;
use crate::event::Region;
use crate::event::refusal::shown;

/// Who says to have signed, what for, and the signature. Nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub access_key_id: String,
    /// The region of the scope.
    pub region: String,
    pub session_token: Option<String>,
    pub(super) service: String,
    pub(super) date: String,
    terminator: String,
    /// `20260501T001234Z`.
    pub(super) at: String,
    /// Seconds, of a presigned request.
    expires: Option<i64>,
    pub(super) signed_headers: String,
    pub(super) signature: String,
}

impl Claim {
    /// The claim of a request. [`Refused::Missing`] when it makes none.
    pub fn of(head: &request::Parts) -> Result<Self, Refused> {
        let query = canonical::pairs(head.uri.query().unwrap_or_default());
        let in_query = query.iter().any(|(name, _)| name == b"X-Amz-Algorithm");
        let mut headers = head.headers.get_all(AUTHORIZATION).iter();
        match (headers.next(), headers.next(), in_query) {
            (None, _, false) => Err(Refused::Missing),
            (Some(header), None, false) => {
                let header = header
                    .to_str()
                    .map_err(|_| incomplete("the Authorization header holds what is not ASCII"))?;
                Self::of_header(header, &head.headers)
            }
            (None, _, true) => Self::of_query(query),
            _ => Err(incomplete(
                "a request is signed once: in one Authorization header, or in its query",
            )),
        }
    }

    fn of_header(header: &str, headers: &HeaderMap) -> Result<Self, Refused> {
        let header = header.trim();
        let (algorithm, rest) = header
            .split_once(char::is_whitespace)
            .unwrap_or((header, ""));
        // Another scheme than AWS's is no signature at all.
        if !algorithm.starts_with("AWS4-") {
            return Err(Refused::Missing);
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for parameter in rest.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or_else(|| {
                let shown = shown(parameter.as_bytes(), 64);
                incomplete(format!(
                    "'{shown}' not a valid key=value pair (missing equal-sign) in Authorization header."
                ))
            })?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(incomplete(format!(
                    "Authorization header has '{name}' twice."
                )));
            }
        }
        let at = one(headers, "x-amz-date")?.or(one(headers, "date")?);
        let mut lacking = String::new();
        for (name, value) in [
            ("Credential", credential),
            ("Signature", signature),
            ("SignedHeaders", signed_headers),
        ] {
            if value.is_none_or(str::is_empty) {
                lacking += &format!("Authorization header requires '{name}' parameter. ");
            }
        }
        if at.is_none() {
            lacking += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ";
        }
        let (Some(credential), Some(signature), Some(signed_headers), Some(at), true) = (
            credential,
            signature,
            signed_headers,
            at,
            lacking.is_empty(),
        ) else {
            return Err(incomplete(lacking.trim_end()));
        };
        let token = one(headers, "x-amz-security-token")?;
        Self::new(algorithm, credential, at, signed_headers, signature, token)
    }

    fn of_query(query: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Self, Refused> {
        let find = |wanted: &str| -> Result<Option<String>, Refused> {
            let mut values = query.iter().filter(|(name, _)| name == wanted.as_bytes());
            match (values.next(), values.next()) {
                (None, _) => Ok(None),
                (Some((_, value)), None) => {
                    String::from_utf8(value.clone()).map(Some).map_err(|_| {
                        incomplete(format!(
                            "AWS query-string parameter '{wanted}' is not UTF-8."
                        ))
                    })
                }
                _ => Err(incomplete(format!(
                    "AWS query-string parameter '{wanted}' is given twice."
                ))),
            }
        };
        let require = |wanted: &str| {
            find(wanted)?
                .filter(|value| !value.is_empty())
                .ok_or_else(|| {
                    incomplete(format!(
                        "AWS query-string parameters must include '{wanted}'."
                    ))
                })
        };
        let expires = require("X-Amz-Expires")?;
        let seconds = expires
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| expires.parse().ok());
        let seconds = seconds
            .flatten()
            .filter(|seconds| (1..=MAX_EXPIRES_SECONDS).contains(seconds));
        let seconds = seconds.ok_or_else(|| {
            incomplete(format!(
                "X-Amz-Expires must be a number of seconds from 1 to {MAX_EXPIRES_SECONDS}."
            ))
        })?;
        let claim = Self::new(
            &require("X-Amz-Algorithm")?,
            &require("X-Amz-Credential")?,
            &require("X-Amz-Date")?,
            &require("X-Amz-SignedHeaders")?,
            &require("X-Amz-Signature")?,
            find("X-Amz-Security-Token")?.as_deref(),
        )?;
        Ok(Self {
            expires: Some(seconds),
            ..claim
        })
    }

    fn new(
        algorithm: &str,
        credential: &str,
        at: &str,
        signed_headers: &str,
        signature: &str,
        token: Option<&str>,
    ) -> Result<Self, Refused> {
        if algorithm != ALGORITHM {
            return Err(incomplete(format!(
                "Unsupported AWS 'algorithm': '{}' (only {ALGORITHM} for now).",
                shown(algorithm.as_bytes(), 32)
            )));
        }
        // An access key may hold slashes, the scope behind it cannot.
        let parts: Vec<&str> = credential.rsplitn(5, '/').collect();
        let [terminator, service, region, date, access_key_id] = parts[..] else {
            return Err(incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{}'",
                shown(credential.as_bytes(), 128)
            )));
        };
        // Nothing but names: what else stood here would stand in the canonical request.
        let is_name = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.;".contains(&byte)
        };
        if !signed_headers.bytes().all(is_name) {
            return Err(incomplete(format!(
                "SignedHeaders are names in lower case with semicolons between them, got '{}'",
                shown(signed_headers.as_bytes(), 128)
            )));
        }
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            region: region.to_owned(),
            session_token: token.map(str::to_owned),
            service: service.to_owned(),
            date: date.to_owned(),
            terminator: terminator.to_owned(),
            at: at.to_owned(),
            expires: None,
            signed_headers: signed_headers.to_owned(),
            signature: signature.to_owned(),
        })
    }

    /// The claim of a request that is yet to be signed.
    pub(super) fn ours(
        access_key_id: &str,
        scope: [&str; 3],
        at: &str,
        signed_headers: &str,
    ) -> Self {
        let [date, region, service] = scope.map(str::to_owned);
        Self {
            access_key_id: access_key_id.to_owned(),
            region,
            session_token: None,
            service,
            date,
            terminator: TERMINATOR.to_owned(),
            at: at.to_owned(),
            expires: None,
            signed_headers: signed_headers.to_owned(),
            signature: String::new(),
        }
    }

    pub(super) fn is_presigned(&self) -> bool {
        self.expires.is_some()
    }

    /// Whether the request is fresh, covers what it must, and is scoped to the service that is asked. Its region, checked.
    pub fn check(&self, headers: &HeaderMap, rules: &Rules<'_>) -> Result<Region, Refused> {
        self.check_time(rules.now.unix_seconds())?;
        self.check_signed_headers(headers)?;
        self.check_scope(rules.service)
    }

    fn check_time(&self, now: i64) -> Result<(), Refused> {
        let Some(at) = moment::read_stamp(&self.at) else {
            return Err(incomplete(format!(
                "Date must be in ISO-8601 'basic format'. Got '{}'. See http://en.wikipedia.org/wiki/ISO_8601",
                shown(self.at.as_bytes(), 32)
            )));
        };
        let (lasts, said) = match self.expires {
            Some(seconds) => (seconds, format!("{seconds} sec.")),
            None => (SKEW_SECONDS, "15 min.".to_owned()),
        };
        let (earliest, latest) = (now - lasts, now + SKEW_SECONDS);
        if at < earliest {
            return Err(Refused::Invalid(format!(
                "Signature expired: {} is now earlier than {} ({} - {said})",
                self.at,
                stamp(earliest),
                stamp(now),
            )));
        }
        if at > latest {
            return Err(Refused::Invalid(format!(
                "Signature not yet current: {} is still later than {} ({} + 15 min.)",
                self.at,
                stamp(latest),
                stamp(now),
            )));
        }
        Ok(())
    }

    /// Headers that could make another request of it are covered.
    fn check_signed_headers(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let is_signed = |name: &str| self.signed_headers.split(';').any(|signed| signed == name);
        if !is_signed("host") {
            return Err(Refused::Invalid(
                "'Host' must be a 'SignedHeader' in the AWS Authorization.".to_owned(),
            ));
        }
        let left_out = headers.keys().map(http::HeaderName::as_str).find(|name| {
            name.starts_with("x-amz-") && *name != "x-amz-user-agent" && !is_signed(name)
        });
        match left_out {
            None => Ok(()),
            Some(name) => Err(Refused::Invalid(format!(
                "'{}' must be a 'SignedHeader' in the AWS Authorization.",
                shown(name.as_bytes(), 64)
            ))),
        }
    }

    fn check_scope(&self, service: &str) -> Result<Region, Refused> {
        let mut wrong = Vec::new();
        let region = self.region.parse::<Region>();
        if region.is_err() {
            wrong.push(format!(
                "Credential should be scoped to a valid region, not '{}'.",
                shown(self.region.as_bytes(), 64)
            ));
        }
        if self.service != service {
            wrong.push(format!(
                "Credential should be scoped to correct service: '{service}'."
            ));
        }
        if self.terminator != TERMINATOR {
            wrong.push(format!(
                "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{}'.",
                shown(self.terminator.as_bytes(), 32)
            ));
        }
        if Some(self.date.as_str()) != self.at.get(..8) {
            wrong.push(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{}', from '{}'.",
                shown(self.date.as_bytes(), 16),
                self.at.get(..8).unwrap_or_default(),
                self.at,
            ));
        }
        match region {
            Ok(region) if wrong.is_empty() => Ok(region),
            _ => Err(Refused::Invalid(wrong.join(" "))),
        }
    }
}

fn incomplete(message: impl Into<String>) -> Refused {
    Refused::Incomplete(message.into())
}

/// The value of a header that may be there once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refused> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(value) => Ok(Some(value.trim())),
            Err(_) => Err(incomplete(format!(
                "header '{name}' holds what is not ASCII"
            ))),
        },
        _ => Err(incomplete(format!("header '{name}' is given twice"))),
    }
}
