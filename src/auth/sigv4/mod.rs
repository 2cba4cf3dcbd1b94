//! Signature Version 4, as the one who is asked verifies it (IAM user guide, "AWS Signature Version 4 for API requests"; "Create a signed
//! AWS API request").
//!
//! ```text
//!  head ─► Claim::of ─► check(now, service) ─► keyring ─► expect(key) ─► Expected ─► finish(SHA-256 of the body)
//!          who signed    fresh? for us?         known?     canonical      what it should be, and is it
//! ```
//!
//! A request is signed in its `Authorization` header or, presigned, in its query. What is asked of it, in AWS's order:
//!
//! - the date is within fifteen minutes of ours; a presigned request lasts as long as its `X-Amz-Expires` says, at most seven days
//! - `host` and every `x-amz-*` header that was sent are signed. `x-amz-user-agent` need not be: it names a program, and AWS's own SDK for PHP leaves it
//!   out. It leaves out `content-type`, too; AWS asks signers for it and takes a request without, and so does traild: in none of its protocols
//!   does another content type make another request of the same bytes
//! - the scope is of the service that is asked and of a region; its date is the date of the request
//! - the body is what was signed, by the SHA-256 of its bytes as sent. `UNSIGNED-PAYLOAD` and the `STREAMING-…` schemes of S3 are refused
//! - the signature is compared in constant time
//!
//! Paths are normalized and encoded once more, as for every service but S3. Header names must be signed in the spelling of the canonical request.
//!
//! The same signed request may come again while it is fresh, as at AWS: a client that saw no answer sends it again as it is. Events are not
//! doubled by it (see [`crate::ingest::dedup`]).

mod canonical;
mod claim;
mod expected;
mod key;
mod sign;

pub use canonical::pairs;
pub use claim::Claim;
pub use expected::{Expected, Payload};
pub use key::{SigningKey, SigningKeys};
pub use sign::Signer;

use crate::clock::WallMillis;
use crate::digest::moment;

/// How far the two clocks may be apart, and how long a signed request lasts.
const SKEW_SECONDS: i64 = 15 * 60;

/// The longest that a presigned request may last.
const MAX_EXPIRES_SECONDS: i64 = 7 * 86_400;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

const TERMINATOR: &str = "aws4_request";

/// What a request must keep to.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The signing name of the service that is asked.
    pub service: &'a str,
    pub now: WallMillis,
}

/// Why a request is not authentic. The text is AWS's where it is known; what a stranger gave in it is bounded and harmless.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not signed.
    #[error("Request is missing Authentication Token")]
    Missing,
    /// It is signed in a way that cannot be read.
    #[error("{0}")]
    Incomplete(String),
    /// The signature is not good for this request, here and now.
    #[error("{0}")]
    Invalid(String),
    /// The access key, or the session token with it, is not known.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// The client's certificate is good, and no principal here.
    #[error("The client certificate is of nobody who is known here.")]
    UnknownCertificate,
}

impl Refused {
    fn mismatch() -> Self {
        Self::Invalid(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing \
             method. Consult the service documentation for details."
                .to_owned(),
        )
    }
}

/// `20260501T001234Z`.
fn stamp(seconds: i64) -> String {
    moment::stamp(seconds)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
