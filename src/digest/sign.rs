//! How a digest is signed, and the check of a signature (CloudTrail user guide, "Custom implementations of CloudTrail log file
//! integrity validation").
//!
//! RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, 8.2) over four lines, without a line end after the last:
//!
//! ```text
//! <digestEndTime>
//! <digestS3Bucket>/<digestS3Object>
//! <hex SHA-256 of the digest, uncompressed>
//! <previousDigestSignature, or the word null>
//! ```
//!
//! The signature is not in the digest but in the metadata of its object. A public key is published as PKCS#1 `RSAPublicKey` in DER.
//! The same key and the same digest always give the same signature.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{self, KeyPair as _, UnparsedPublicKey};

use super::Location;
use super::document::{Digest, Previous, SIGNATURE_ALGORITHM};
use super::hex::{Fingerprint, Sha256, Signature};
use super::moment;
use crate::deliver::failure::Failure;

/// Metadata of a digest's object, as S3 returns its names: what follows `x-amz-meta-`, in lower case. The AWS CLI reads no other case.
pub const SIGNATURE_METADATA: &str = "signature";
pub const ALGORITHM_METADATA: &str = "signature-algorithm";
/// When a [`Kind::Backfill`](super::Kind::Backfill) digest was made; on all of these and on no others.
pub const BACKFILL_METADATA: &str = "backfill-generation-timestamp";

/// A digest ready to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Uncompressed.
    pub json: Vec<u8>,
    /// Of `json`.
    pub sha256: Sha256,
    pub signature: Signature,
}

/// What is signed of the digest whose uncompressed bytes have this hash.
pub fn string_to_sign(digest: &Digest, sha256: &Sha256) -> String {
    let end = moment::text(digest.end);
    let bucket = &digest.location.bucket;
    let key = &digest.location.key;
    let previous = match &digest.previous {
        Some(previous) => previous.signature.to_string(),
        None => "null".to_owned(),
    };
    format!("{end}\n{bucket}/{key}\n{sha256}\n{previous}")
}

/// Who signs: the owner of a private key, here or at AWS KMS.
pub trait Signer: Send + Sync {
    /// Of [`public_key`](Self::public_key).
    fn fingerprint(&self) -> Fingerprint;

    /// PKCS#1 DER.
    fn public_key(&self) -> &[u8];

    /// RSASSA-PKCS1-v1_5 with SHA-256 over `text`.
    fn sign(&self, text: &str) -> impl Future<Output = Result<Signature, SignError>> + Send;
}

/// Why a digest was not signed. Each of them but the first may go away by itself.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the digest names key {named}, the signer has {own}")]
    OtherKey {
        named: Fingerprint,
        own: Fingerprint,
    },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot sign with the KMS key {key}: {}: {}", .failure.code, .failure.message)]
    Kms { key: String, failure: Failure },
    #[error("AWS KMS has answered with a signature that is not of the key {key}")]
    Invalid { key: String },
    #[error("the daemon is stopping")]
    Stopping,
}

impl Signed {
    /// Signs a digest that names `signer`'s key.
    pub async fn new(digest: &Digest, signer: &impl Signer) -> Result<Self, SignError> {
        if digest.fingerprint != signer.fingerprint() {
            return Err(SignError::OtherKey {
                named: digest.fingerprint,
                own: signer.fingerprint(),
            });
        }
        let json = digest.to_json();
        let sha256 = Sha256::of(&json);
        let signature = signer.sign(&string_to_sign(digest, &sha256)).await?;
        Ok(Self {
            json,
            sha256,
            signature,
        })
    }

    /// What the next digest of the chain says of this one, which is at `location`.
    pub fn as_previous(&self, location: Location) -> Previous {
        Previous {
            location,
            sha256: self.sha256,
            signature: self.signature.clone(),
        }
    }

    /// The object's metadata, without `x-amz-meta-`. `backfilled_at` is when a backfill digest is made, seconds since 1970.
    pub fn metadata(&self, backfilled_at: Option<i64>) -> Vec<(&'static str, String)> {
        let mut metadata = vec![
            (SIGNATURE_METADATA, self.signature.to_string()),
            (ALGORITHM_METADATA, SIGNATURE_ALGORITHM.to_owned()),
        ];
        if let Some(seconds) = backfilled_at {
            // With thousandths, as CloudTrail writes it here and only here.
            let text = moment::text(seconds).replace('Z', ".000Z");
            metadata.push((BACKFILL_METADATA, text));
        }
        metadata
    }
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// Not an `RSAPublicKey` of at least 2048 bits; the `SubjectPublicKeyInfo` of X.509 is none.
    #[error("not a public key in PKCS #1 form")]
    Key,
    #[error("not signed with this key")]
    Signature,
}

/// The PKCS#1 DER of an RSA public key that is given in X.509's form, `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7), as AWS KMS gives it.
pub fn to_pkcs1(public_key: &[u8]) -> Result<Vec<u8>, NotSigned> {
    match rsa::PublicKey::from_der(public_key) {
        Ok(key) => Ok(key.as_ref().to_vec()),
        Err(_) => Err(NotSigned::Key),
    }
}

/// Whether the owner of `public_key` (PKCS#1 DER) has signed `text`.
pub fn verify(public_key: &[u8], text: &str, signature: &Signature) -> Result<(), NotSigned> {
    // The library takes X.509's form too, which validators refuse.
    match rsa::PublicKey::from_der(public_key) {
        Ok(key) if key.as_ref() == public_key => {}
        _ => return Err(NotSigned::Key),
    }
    UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, public_key)
        .verify(text.as_bytes(), &signature.0)
        .map_err(|_| NotSigned::Signature)
}

/// An RSA pair. Its private part is never printed; the library wipes it from memory when it is dropped.
pub struct KeyPair {
    pair: rsa::KeyPair,
    fingerprint: Fingerprint,
}

/// The random source failed, or bytes are not a private key. That is all that is said of private keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("cannot make an RSA key pair")]
    Generate,
    #[error("not an RSA private key in PKCS #8 form")]
    Private,
    #[error("cannot sign with the RSA private key")]
    Sign,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprint = &self.fingerprint;
        f.debug_struct("KeyPair")
            .field("fingerprint", fingerprint)
            .finish_non_exhaustive()
    }
}

impl KeyPair {
    /// A new pair of 2048 bits. Takes about a tenth of a second of the processor.
    pub fn generate() -> Result<Self, KeyError> {
        #[cfg(test)]
        if let Some(pair) = crate::simulation::key_pair() {
            return Ok(pair);
        }
        let pair = rsa::KeyPair::generate(KeySize::Rsa2048);
        pair.map(Self::from).map_err(|_| KeyError::Generate)
    }

    /// Reads a private key in PKCS#8 DER, the form in which [`to_pkcs8`](Self::to_pkcs8) gives it.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = rsa::KeyPair::from_pkcs8(der);
        pair.map(Self::from).map_err(|_| KeyError::Private)
    }

    /// Reads a private key in PKCS#1 DER.
    #[cfg(test)]
    pub fn from_pkcs1(der: &[u8]) -> Self {
        rsa::KeyPair::from_der(der).unwrap().into()
    }

    /// The private key. Wiped when dropped.
    pub fn to_pkcs8(&self) -> Result<Pkcs8V1Der<'static>, KeyError> {
        self.pair.as_der().map_err(|_| KeyError::Private)
    }

    /// The public key, PKCS#1 DER.
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Takes about a thousandth of a second of the processor.
    pub fn sign(&self, text: &str) -> Result<Signature, KeyError> {
        let mut bytes = vec![0; self.pair.public_modulus_len()];
        let rng = SystemRandom::new();
        self.pair
            .sign(
                &signature::RSA_PKCS1_SHA256,
                &rng,
                text.as_bytes(),
                &mut bytes,
            )
            .map_err(|_| KeyError::Sign)?;
        Ok(Signature(bytes))
    }
}

impl Signer for Arc<KeyPair> {
    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn public_key(&self) -> &[u8] {
        KeyPair::public_key(self)
    }

    async fn sign(&self, text: &str) -> Result<Signature, SignError> {
        let (pair, text) = (Self::clone(self), text.to_owned());
        let signing = crate::background::spawn_blocking(move || KeyPair::sign(&pair, &text));
        Ok(signing.await.map_err(|_| SignError::Stopping)??)
    }
}

impl From<rsa::KeyPair> for KeyPair {
    fn from(pair: rsa::KeyPair) -> Self {
        let fingerprint = Fingerprint::of(pair.public_key().as_ref());
        Self { pair, fingerprint }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::PublicKeyX509Der;

    use super::super::vectors;
    use super::*;

    #[test]
    fn the_vectors_are_reproduced_byte_for_byte() {
        let vectors = vectors::all();
        let pair = vectors::key_pair();
        assert_eq!(pair.public_key(), vectors::public_key());
        assert_eq!(pair.public_key().len(), 270);
        assert_eq!(pair.fingerprint().to_string(), vectors.fingerprint_md5_hex);
        for object in vectors::digests() {
            let json = object.uncompressed.as_bytes();
            let sha256 = Sha256::of(json);
            assert_eq!(sha256.to_string(), object.sha256_uncompressed);
            let text = string_to_sign(&Digest::read(json).unwrap(), &sha256);
            assert_eq!(text, object.string_to_sign);
            let signature = pair.sign(&text).unwrap();
            assert_eq!(signature.to_string(), object.signature);
            assert_eq!(verify(pair.public_key(), &text, &signature), Ok(()));
        }
    }

    #[test]
    fn a_changed_text_or_signature_and_another_key_are_refused() {
        let object = &vectors::digests()[0];
        let key = vectors::public_key();
        let text = &object.string_to_sign;
        let signature = object.signature();
        assert_eq!(verify(&key, text, &signature), Ok(()));
        let changed = text.replace("2026-05-01T00", "2026-05-01T01");
        assert_eq!(
            verify(&key, &changed, &signature),
            Err(NotSigned::Signature)
        );
        for at in [0, 100, 255] {
            let mut bytes = signature.0.clone();
            bytes[at] ^= 1;
            let changed = Signature(bytes);
            assert_eq!(verify(&key, text, &changed), Err(NotSigned::Signature));
        }
        for length in [1, 255, 257, 5000] {
            let other = Signature(vec![1; length]);
            assert_eq!(verify(&key, text, &other), Err(NotSigned::Signature));
        }
        let stranger = KeyPair::generate().unwrap();
        assert_eq!(
            verify(stranger.public_key(), text, &signature),
            Err(NotSigned::Signature)
        );
    }

    #[test]
    fn a_signature_over_another_hash_than_sha_256_is_refused() {
        let pair = vectors::key_pair();
        let mut bytes = vec![0; 256];
        let rng = SystemRandom::new();
        pair.pair
            .sign(&signature::RSA_PKCS1_SHA512, &rng, b"text", &mut bytes)
            .unwrap();
        let refused = verify(pair.public_key(), "text", &Signature(bytes));
        assert_eq!(refused, Err(NotSigned::Signature));
    }

    #[test]
    fn only_the_pkcs_1_form_of_a_public_key_is_taken() {
        let pair = vectors::key_pair();
        let signature = pair.sign("text").unwrap();
        let x509: PublicKeyX509Der<'_> = pair.pair.public_key().as_der().unwrap();
        let trailing = [pair.public_key(), &[0]].concat();
        for other in [x509.as_ref(), &trailing, &pair.public_key()[1..], &[]] {
            assert_eq!(verify(other, "text", &signature), Err(NotSigned::Key));
        }
    }

    #[test]
    fn a_private_key_reads_back_and_is_never_printed() {
        let pair = KeyPair::generate().unwrap();
        let pkcs8 = pair.to_pkcs8().unwrap();
        let again = KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        assert_eq!(again.fingerprint(), pair.fingerprint());
        assert_eq!(again.sign("a").unwrap(), pair.sign("a").unwrap());
        assert_eq!(
            format!("{pair:?}"),
            format!("KeyPair {{ fingerprint: {}, .. }}", pair.fingerprint())
        );
        assert_eq!(KeyPair::from_pkcs8(b"MIIE").unwrap_err(), KeyError::Private);
    }

    #[tokio::test]
    async fn a_chain_signed_anew_is_the_one_of_the_vectors() {
        let signer = Arc::new(vectors::key_pair());
        let mut previous = None;
        for object in vectors::digests() {
            let mut digest = Digest::read(object.uncompressed.as_bytes()).unwrap();
            digest.previous = previous;
            let signed = Signed::new(&digest, &signer).await.unwrap();
            assert_eq!(signed.json, object.uncompressed.as_bytes());
            assert_eq!(signed.signature, object.signature());
            previous = Some(signed.as_previous(digest.location));
        }
    }

    #[tokio::test]
    async fn a_digest_is_not_signed_with_another_key_than_it_names() {
        let stranger = Arc::new(KeyPair::generate().unwrap());
        let object = &vectors::digests()[0];
        let digest = Digest::read(object.uncompressed.as_bytes()).unwrap();
        assert!(matches!(
            Signed::new(&digest, &stranger).await,
            Err(SignError::OtherKey { .. })
        ));
    }

    #[test]
    fn metadata_are_those_that_the_aws_cli_reads() {
        let signed = Signed {
            json: Vec::new(),
            sha256: Sha256::of(b""),
            signature: Signature(vec![0xd1, 0xc3]),
        };
        let standard = [
            ("signature", "d1c3".to_owned()),
            ("signature-algorithm", "SHA256withRSA".to_owned()),
        ];
        assert_eq!(signed.metadata(None), standard);
        let when = moment::read("2025-05-20T00:00:00Z");
        let backfill = (
            "backfill-generation-timestamp",
            "2025-05-20T00:00:00.000Z".to_owned(),
        );
        assert_eq!(signed.metadata(when)[2], backfill);
    }
}
