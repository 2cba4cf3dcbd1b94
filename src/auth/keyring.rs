//! The credentials that requests are signed with.

use std::collections::HashMap;
use std::sync::Arc;

use super::policy::Policy;
use super::secret::SecretKey;
use super::sigv4::SigningKeys;
use crate::event::AccountId;

/// A long-term credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub access_key_id: String,
    pub secret: SecretKey,
    pub account: AccountId,
    /// `None`: everything in its own account.
    pub policy: Option<Arc<Policy>>,
}

/// All of them, by access key, with the signing keys that were derived from them.
#[derive(Debug)]
pub(super) struct Keyring {
    credentials: HashMap<String, Credential>,
    pub keys: SigningKeys,
}

impl Keyring {
    pub fn new(credentials: Vec<Credential>) -> Self {
        let by_key = credentials.into_iter();
        Self {
            credentials: by_key
                .map(|credential| (credential.access_key_id.clone(), credential))
                .collect(),
            keys: SigningKeys::default(),
        }
    }

    /// A session token belongs to temporary credentials, and there are none.
    pub fn find(&self, access_key_id: &str, session_token: Option<&str>) -> Option<&Credential> {
        match session_token {
            None => self.credentials.get(access_key_id),
            Some(_) => None,
        }
    }
}
