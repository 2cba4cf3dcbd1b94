//! Signing keys: a secret, narrowed to a day, a region and a service.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hmac;

use super::{Claim, TERMINATOR};
use crate::auth::SecretKey;

/// Scopes that are remembered. A caller has one a day for each region and service it asks.
const REMEMBERED: usize = 1024;

#[derive(Clone)]
pub struct SigningKey(hmac::Key);

impl SigningKey {
    /// The key of a claim's scope ("Create a signed AWS API request", step 4).
    pub fn derive(secret: &SecretKey, claim: &Claim) -> Self {
        let seed = format!("AWS4{}", secret.expose());
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, seed.as_bytes());
        for part in [&claim.date, &claim.region, &claim.service, TERMINATOR] {
            let narrowed = hmac::sign(&key, part.as_bytes());
            key = hmac::Key::new(hmac::HMAC_SHA256, narrowed.as_ref());
        }
        Self(key)
    }

    /// The signature of `text`, in lower-case hex.
    pub(super) fn sign(&self, text: &str) -> String {
        hex::encode(hmac::sign(&self.0, text.as_bytes()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// Keys that were used, so that the next request of the same scope need not derive its own again.
///
/// Only the key of a good signature is remembered: who has no secret cannot make anything be kept.
#[derive(Debug, Default)]
pub struct SigningKeys(Mutex<HashMap<Scope, SigningKey>>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Scope {
    access_key_id: String,
    date: String,
    region: String,
    service: String,
}

impl Scope {
    fn of(claim: &Claim) -> Self {
        Self {
            access_key_id: claim.access_key_id.clone(),
            date: claim.date.clone(),
            region: claim.region.clone(),
            service: claim.service.clone(),
        }
    }
}

impl SigningKeys {
    /// The key of a claim's scope. `secret` is the one of its access key.
    pub fn of(&self, claim: &Claim, secret: &SecretKey) -> SigningKey {
        let known = self.lock().get(&Scope::of(claim)).cloned();
        known.unwrap_or_else(|| SigningKey::derive(secret, claim))
    }

    pub fn remember(&self, claim: &Claim, key: &SigningKey) {
        let mut keys = self.lock();
        let scope = Scope::of(claim);
        if keys.contains_key(&scope) {
            return;
        }
        if keys.len() >= REMEMBERED {
            // Mostly of days that are over.
            keys.clear();
        }
        keys.insert(scope, key.clone());
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Scope, SigningKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
