//! Signs a request: for traild's own commands, where a daemon lets in only who signs.

use aws_lc_rs::digest::{SHA256, digest};
use http::header::{AUTHORIZATION, InvalidHeaderValue};
use http::{HeaderValue, request};

use super::claim::Claim;
use super::expected::Expected;
use super::key::SigningKey;
use super::{ALGORITHM, TERMINATOR, stamp};
use crate::auth::SecretKey;
use crate::clock::WallMillis;
use crate::event::Region;

/// Somebody's credential, for one region and service.
#[derive(Debug, Clone)]
pub struct Signer {
    pub access_key_id: String,
    pub secret: SecretKey,
    pub session_token: Option<String>,
    pub region: Region,
    pub service: &'static str,
}

impl Signer {
    /// Adds the headers of a signature, which covers every header that is there, `host` among them, and the body. What an earlier signature added
    /// is replaced.
    pub fn sign(
        &self,
        head: &mut request::Parts,
        body: &[u8],
        now: WallMillis,
    ) -> Result<(), InvalidHeaderValue> {
        let (at, hash) = (
            stamp(now.unix_seconds()),
            hex::encode(digest(&SHA256, body)),
        );
        head.headers.remove(AUTHORIZATION);
        head.headers
            .insert("x-amz-date", HeaderValue::try_from(at.as_str())?);
        head.headers.insert(
            "x-amz-content-sha256",
            HeaderValue::try_from(hash.as_str())?,
        );
        if let Some(token) = &self.session_token {
            head.headers
                .insert("x-amz-security-token", HeaderValue::try_from(token)?);
        }
        let mut names: Vec<&str> = head.headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        let signed_headers = names.join(";");
        let scope = [&at[..8], self.region.as_str(), self.service];
        let claim = Claim::ours(&self.access_key_id, scope, &at, &signed_headers);
        let key = SigningKey::derive(&self.secret, &claim);
        let signature = Expected::signature(head, &claim, key, &hash);
        let value = format!(
            "{ALGORITHM} Credential={}/{}/{TERMINATOR}, SignedHeaders={signed_headers}, Signature={signature}",
            self.access_key_id,
            scope.join("/")
        );
        let mut value = HeaderValue::try_from(value)?;
        value.set_sensitive(true);
        head.headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}
