//! An asymmetric key in AWS KMS, which signs the digests of every region. Its private part never leaves KMS.
//!
//! Only a key with the usage `SIGN_VERIFY`, of 2048, 3072 or 4096 bits of RSA, will do (KMS developer guide, "Key spec reference"): digests are
//! signed with RSASSA-PKCS1-v1_5 and SHA-256 and nothing else. KMS is sent the hash of what is signed (Sign, `MessageType` `DIGEST`), and
//! what it answers is checked before it is used.
//!
//! Nothing is asked before the first digest is to be signed, so that a daemon starts while KMS is away; digests wait for it. The configured name of the key
//! may be an alias, which may be moved to another key: so KMS is asked again what is behind it ([`REFRESH`]), and signs under the ARN that it
//! answered, never under the alias. No key signs before its public part is on the disk, in the key directory, where it stays for ever
//! ([`FileKeys`]); listing public keys needs no KMS.
//!
//! Each call is one attempt, as long as the client allows; callers try again. Those that ask for the key at the same time share one question and
//! its answer, also when that is an error.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::operation::get_public_key::GetPublicKeyOutput;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeySpec, KeyUsageType, MessageType, SigningAlgorithmSpec};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::files::{FileKeys, KeysError};
use crate::clock::WallMillis;
use crate::deliver::failure::Failure;
use crate::deliver::renewing::Renewing;
use crate::digest::hex::{Fingerprint, Sha256, Signature};
use crate::digest::sign::{self, SignError, Signer};
use crate::event::Region;
use crate::trail::arn::Arn;

/// For how long it is taken for granted which key is behind the configured name.
const REFRESH: Duration = Duration::from_secs(300);

/// Why there is no key to sign with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    /// KMS was not reached, or refuses, or has no such key.
    #[error("cannot get the public key of the KMS key {key}: {}: {}", .failure.code, .failure.message)]
    NotGiven { key: String, failure: Failure },
    /// Asking again helps nothing until the key or its name is changed.
    #[error("the KMS key {key} cannot sign digests: {why}")]
    Unfit { key: String, why: String },
}

/// The key of this name, whatever is behind it. Clones share it.
#[derive(Clone)]
pub struct KmsKeys(Arc<Shared>);

struct Shared {
    client: Renewing<Client>,
    /// An id, an alias, or the ARN of either.
    key_id: String,
    directory: FileKeys,
    asked: Mutex<Arc<Asked>>,
}

/// A question for the key, and what came of it.
struct Asked {
    at: Instant,
    answer: OnceCell<Result<Arc<Key>, KmsError>>,
}

/// What KMS says of a key that can sign.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    arn: String,
    /// Of the key, not of what it signs.
    region: Region,
    /// PKCS#1.
    der: Vec<u8>,
    fingerprint: Fingerprint,
}

/// A key that may sign for the moment for which it was asked.
#[derive(Debug, Clone)]
pub struct KmsSigner {
    keys: KmsKeys,
    key: Arc<Key>,
}

/// Whether the key of this name can sign digests, as far as its public part tells. One attempt.
pub async fn check(client: Client, key_id: &str) -> Result<(), KmsError> {
    let answer = ask(client, key_id).await;
    read(key_id, answer).map(|_| ())
}

async fn ask(client: Client, key_id: &str) -> Result<GetPublicKeyOutput, Failure> {
    let answer = client.get_public_key().key_id(key_id).send().await;
    answer.map_err(|error| Failure::of(&error))
}

fn read(key_id: &str, answer: Result<GetPublicKeyOutput, Failure>) -> Result<Key, KmsError> {
    let key = key_id.to_owned();
    match answer {
        Ok(answer) => usable(&answer).map_err(|why| KmsError::Unfit { key, why }),
        // A specified resource is not valid for this operation (GetPublicKey, Errors): a symmetric key.
        Err(failure) if failure.code == "UnsupportedOperationException" => {
            let why = format!("it has no public key: {}", failure.message);
            Err(KmsError::Unfit { key, why })
        }
        Err(failure) => Err(KmsError::NotGiven { key, failure }),
    }
}

/// The key, or why it will not do.
fn usable(answer: &GetPublicKeyOutput) -> Result<Key, String> {
    const SPECS: [KeySpec; 3] = [KeySpec::Rsa2048, KeySpec::Rsa3072, KeySpec::Rsa4096];
    let of = |value: Option<&str>| value.unwrap_or("not given").to_owned();
    if answer.key_usage() != Some(&KeyUsageType::SignVerify) {
        let usage = of(answer.key_usage().map(KeyUsageType::as_str));
        return Err(format!("its usage is {usage}, not SIGN_VERIFY"));
    }
    if !answer.key_spec().is_some_and(|spec| SPECS.contains(spec)) {
        let spec = of(answer.key_spec().map(KeySpec::as_str));
        return Err(format!(
            "its spec is {spec}, not RSA_2048, RSA_3072 or RSA_4096"
        ));
    }
    let algorithms = answer.signing_algorithms();
    if !algorithms.contains(&SigningAlgorithmSpec::RsassaPkcs1V15Sha256) {
        return Err("it does not sign with RSASSA_PKCS1_V1_5_SHA_256".to_owned());
    }
    let arn = answer.key_id().unwrap_or_default();
    let Some(region) = Arn::regional(arn, "kms").map(|arn| arn.region) else {
        return Err("KMS has answered without its ARN".to_owned());
    };
    let public_key = answer.public_key().map_or(&[][..], AsRef::as_ref);
    let der = sign::to_pkcs1(public_key)
        .map_err(|_| "KMS has answered with something else than an RSA public key".to_owned())?;
    Ok(Key {
        arn: arn.to_owned(),
        region,
        fingerprint: Fingerprint::of(&der),
        der,
    })
}

impl KmsKeys {
    /// The key with this id, alias, or ARN of either; its public part is kept in the key directory. Asks nothing.
    pub fn open(client: Renewing<Client>, key_id: String, directory: FileKeys) -> Self {
        Self(Arc::new(Shared {
            client,
            key_id,
            directory,
            asked: Mutex::default(),
        }))
    }

    /// Where the public keys are, and the pairs of files that signed before.
    pub fn directory(&self) -> &FileKeys {
        &self.0.directory
    }

    /// The key, once its public part is listed for the moment `at`.
    pub async fn signer(&self, at: WallMillis) -> Result<KmsSigner, KeysError> {
        let Shared {
            client,
            key_id,
            directory,
            ..
        } = &*self.0;
        let asked = self.current();
        let answer = asked.answer.get_or_init(async || {
            let answer = client.attempt(async |client| ask(client, key_id).await);
            read(key_id, answer.await).map(Arc::new)
        });
        let key = answer.await.clone()?;
        directory.keep(key.region, key.der.clone(), at).await?;
        let keys = self.clone();
        Ok(KmsSigner { keys, key })
    }

    /// The question that callers share now: a new one, when the last has failed or is too long ago.
    fn current(&self) -> Arc<Asked> {
        let mut asked = self.asked();
        let is_over = match asked.answer.get() {
            None => false,
            Some(Ok(_)) => asked.at.elapsed() >= REFRESH,
            Some(Err(_)) => true,
        };
        if is_over {
            *asked = Arc::default();
        }
        Arc::clone(&asked)
    }

    /// What is known of the key behind the name is not taken for granted any more.
    fn doubt(&self, key: &Arc<Key>) {
        let mut asked = self.asked();
        if let Some(Ok(known)) = asked.answer.get()
            && Arc::ptr_eq(known, key)
        {
            *asked = Arc::default();
        }
    }

    fn asked(&self) -> MutexGuard<'_, Arc<Asked>> {
        // It is replaced as a whole.
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KmsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KmsKeys").field(&self.0.key_id).finish()
    }
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            answer: OnceCell::new(),
        }
    }
}

impl Signer for KmsSigner {
    fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint
    }

    fn public_key(&self) -> &[u8] {
        &self.key.der
    }

    async fn sign(&self, text: &str) -> Result<Signature, SignError> {
        let Self { keys, key } = self;
        let hash = Blob::new(Sha256::of(text.as_bytes()).0);
        let attempt = keys.0.client.attempt(async |client| {
            let request = client.sign().key_id(&key.arn).message(hash);
            let answer = request
                .message_type(MessageType::Digest)
                .signing_algorithm(SigningAlgorithmSpec::RsassaPkcs1V15Sha256)
                .send();
            answer.await.map_err(|error| Failure::of(&error))
        });
        let answer = attempt.await.map_err(|failure| {
            if is_about_key(&failure) {
                keys.doubt(key);
            }
            let key = key.arn.clone();
            SignError::Kms { key, failure }
        })?;
        let signature = Signature(answer.signature.map_or(Vec::new(), Blob::into_inner));
        if sign::verify(&key.der, text, &signature).is_err() {
            keys.doubt(key);
            let key = key.arn.clone();
            return Err(SignError::Invalid { key });
        }
        Ok(signature)
    }
}

/// KMS refuses this key, and may not refuse the one that an alias points to by now (Sign, Errors).
fn is_about_key(failure: &Failure) -> bool {
    const CODES: [&str; 5] = [
        "AccessDeniedException",
        "DisabledException",
        "InvalidKeyUsageException",
        "KMSInvalidStateException",
        "NotFoundException",
    ];
    CODES.contains(&failure.code.as_str())
}

#[cfg(test)]
#[path = "kms_tests.rs"]
mod tests;
