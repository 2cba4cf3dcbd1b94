//! A chain of four digests over two log files, signed with a throwaway key and accepted by the AWS CLI
//! (`tests/golden/digest`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::hex::Signature;
use super::sign::KeyPair;

#[derive(Debug, Deserialize)]
pub struct Vectors {
    pub public_key_pkcs1_der_b64: String,
    pub fingerprint_md5_hex: String,
    pub objects: Vec<Object>,
}

/// A log file or a digest.
#[derive(Debug, Deserialize)]
pub struct Object {
    pub bucket: String,
    pub key: String,
    pub uncompressed: String,
    pub sha256_uncompressed: String,
    /// Digests only.
    #[serde(default)]
    pub string_to_sign: String,
    #[serde(default)]
    pub signature: String,
}

impl Object {
    pub fn signature(&self) -> Signature {
        self.signature.parse().unwrap()
    }
}

pub fn all() -> Vectors {
    serde_json::from_str(include_str!("../../tests/golden/digest/chain.json")).unwrap()
}

/// The oldest first.
pub fn digests() -> Vec<Object> {
    let mut objects = all().objects;
    objects.retain(|object| !object.signature.is_empty());
    objects
}

pub fn logs() -> Vec<Object> {
    let mut objects = all().objects;
    objects.retain(|object| object.signature.is_empty());
    objects
}

pub fn public_key() -> Vec<u8> {
    BASE64.decode(all().public_key_pkcs1_der_b64).unwrap()
}

pub fn key_pair() -> KeyPair {
    let pem = include_str!("../../tests/golden/digest/throwaway-key-DO-NOT-USE.pem");
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    KeyPair::from_pkcs1(&BASE64.decode(lines.collect::<String>()).unwrap())
}
