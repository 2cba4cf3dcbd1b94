//! What the signature of a request should be, to be compared when its body has come.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::request;

use super::claim::Claim;
use super::key::SigningKey;
use super::{ALGORITHM, Refused, TERMINATOR, canonical};
use crate::event::refusal::shown;

/// What a request says of its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: its hash is needed to verify the signature.
    Unsaid,
    /// Its SHA-256 in lower-case hex, as signed.
    Said(String),
}

impl Payload {
    /// By `x-amz-content-sha256`, in the header or, presigned, in the query.
    pub fn of(head: &request::Parts, claim: &Claim) -> Result<Self, Refused> {
        let mut given: Vec<Vec<u8>> = Vec::new();
        let values = head.headers.get_all("x-amz-content-sha256").iter();
        given.extend(values.map(|value| value.as_bytes().trim_ascii().to_vec()));
        if claim.is_presigned() {
            let pairs = canonical::pairs(head.uri.query().unwrap_or_default());
            let pairs = pairs.into_iter();
            let said = pairs.filter(|(name, _)| name.eq_ignore_ascii_case(b"x-amz-content-sha256"));
            given.extend(said.map(|(_, value)| value));
        }
        let [only] = &given[..] else {
            return if given.is_empty() {
                Ok(Self::Unsaid)
            } else {
                Err(Refused::Incomplete(
                    "'x-amz-content-sha256' is given twice".to_owned(),
                ))
            };
        };
        let is_hash = only.len() == 64
            && only
                .iter()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match std::str::from_utf8(only) {
            Ok(hash) if is_hash => Ok(Self::Said(hash.to_owned())),
            _ => Err(Refused::Invalid(format!(
                "the payload must be signed: 'x-amz-content-sha256' is its SHA-256 in lower-case hex or left out, given: {}",
                shown(only, 64)
            ))),
        }
    }
}

/// A request whose head is good, waiting for its payload.
#[derive(Debug)]
pub struct Expected {
    key: SigningKey,
    /// The canonical request up to the payload's hash.
    canonical: Vec<u8>,
    /// The string to sign up to the canonical request's hash.
    to_sign: String,
    signature: String,
    payload: Payload,
}

impl Expected {
    /// With a payload's hash in the head, a wrong signature is refused here, before the body is read.
    pub fn new(head: &request::Parts, claim: &Claim, key: SigningKey) -> Result<Self, Refused> {
        let expected = Self::of(head, claim, key, Payload::of(head, claim)?);
        if let Payload::Said(hash) = &expected.payload {
            expected.compare(hash)?;
        }
        Ok(expected)
    }

    /// The signature of a request whose payload has this hash, in hex.
    pub(super) fn signature(
        head: &request::Parts,
        claim: &Claim,
        key: SigningKey,
        payload_hash: &str,
    ) -> String {
        Self::of(head, claim, key, Payload::Unsaid).sign(payload_hash)
    }

    fn of(head: &request::Parts, claim: &Claim, key: SigningKey, payload: Payload) -> Self {
        let Claim {
            at,
            date,
            region,
            service,
            ..
        } = claim;
        Self {
            key,
            canonical: canonical::before_payload(head, &claim.signed_headers),
            to_sign: format!("{ALGORITHM}\n{at}\n{date}/{region}/{service}/{TERMINATOR}\n"),
            signature: claim.signature.clone(),
            payload,
        }
    }

    /// Whether the signature is good for a body with this hash.
    pub fn finish(&self, payload_sha256: &[u8]) -> Result<(), Refused> {
        let hash = hex::encode(payload_sha256);
        match &self.payload {
            Payload::Unsaid => self.compare(&hash),
            Payload::Said(said) if *said == hash => Ok(()),
            Payload::Said(_) => Err(Refused::Invalid(
                "The provided 'x-amz-content-sha256' header does not match what was computed."
                    .to_owned(),
            )),
        }
    }

    fn compare(&self, payload_hash: &str) -> Result<(), Refused> {
        let signature = self.sign(payload_hash);
        verify_slices_are_equal(signature.as_bytes(), self.signature.as_bytes())
            .map_err(|_| Refused::mismatch())
    }

    fn sign(&self, payload_hash: &str) -> String {
        let canonical = [&self.canonical[..], payload_hash.as_bytes()].concat();
        let hash = hex::encode(digest(&SHA256, &canonical));
        self.key.sign(&format!("{}{hash}", self.to_sign))
    }
}
