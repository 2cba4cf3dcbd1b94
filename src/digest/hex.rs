//! What digests write in lower-case hex: hashes, fingerprints and signatures. No other spelling is read, since validators compare
//! these as text.

use std::fmt;
use std::str::FromStr;

use md5::{Digest as _, Md5};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// SHA-256 of uncompressed bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(pub [u8; 32]);

/// Names a public key: MD5 of its PKCS#1 DER. The AWS documents do not say so; all their samples are reproduced by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);

/// An RSA signature.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Signature(pub Vec<u8>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {0} in lower-case hex")]
pub struct InvalidHex(&'static str);

impl Sha256 {
    pub fn of(bytes: &[u8]) -> Self {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        let hash = hash.as_ref().try_into();
        Self(hash.expect("SHA-256: 32 bytes long"))
    }
}

impl Fingerprint {
    /// Of a public key's DER, exactly as it is published.
    pub fn of(public_key: &[u8]) -> Self {
        Self(Md5::digest(public_key).into())
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let is_lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.bytes()
        .all(is_lower)
        .then(|| ::hex::decode(text).ok())?
}

impl FromStr for Sha256 {
    type Err = InvalidHex;

    fn from_str(text: &str) -> Result<Self, InvalidHex> {
        let bytes = decode(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(InvalidHex("a SHA-256"))
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidHex;

    fn from_str(text: &str) -> Result<Self, InvalidHex> {
        let bytes = decode(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(InvalidHex("a fingerprint"))
    }
}

impl FromStr for Signature {
    type Err = InvalidHex;

    fn from_str(text: &str) -> Result<Self, InvalidHex> {
        let bytes = decode(text).filter(|bytes| !bytes.is_empty());
        bytes.map(Self).ok_or(InvalidHex("a signature"))
    }
}

/// Gives a type its text: how it is printed, kept and read.
macro_rules! as_text {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&::hex::encode(&self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(Sha256);
as_text!(Fingerprint);
as_text!(Signature);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_hex_of_the_right_length_is_read() {
        let hash = "d216191bb61620a9251504ca2370bfa90e212a55b33a385e730979c0caf8db9e";
        assert_eq!(hash.parse::<Sha256>().unwrap().to_string(), hash);
        assert!(hash.to_uppercase().parse::<Sha256>().is_err());
        assert!(hash[2..].parse::<Sha256>().is_err());
        assert!("".parse::<Signature>().is_err());
        assert!("abc".parse::<Signature>().is_err());
        assert!(
            "d5d3e8448c6a26f52c9aaf486c4b31ag"
                .parse::<Fingerprint>()
                .is_err()
        );
    }

    #[test]
    fn hashes_are_those_of_the_standards() {
        assert_eq!(
            Sha256::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            Fingerprint::of(b"abc").to_string(),
            "900150983cd24fb0d6963f7d28e17f72"
        );
    }
}
