//! The digests S3 clients send, ask for and get back: MD5, SHA-256 of the payload, and the five `x-amz-checksum-*`.
//!
//! Only what a request names is computed, besides the MD5 every ETag needs, in the one pass that writes the bytes.

use aws_smithy_types::base64;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use serde::{Deserialize, Serialize};

use super::error::StoreError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    Crc32,
    Crc32c,
    Crc64nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    /// The name S3 uses, as in `x-amz-checksum-algorithm: CRC32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    pub fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    pub fn from_header(header: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.header().eq_ignore_ascii_case(header.trim()))
    }

    fn digest_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// Base64 values as they travel in `x-amz-checksum-*`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Checksums {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc64nvme: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha1: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// A checksum of the parts' checksums, not of the bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub composite: bool,
}

impl Checksums {
    pub fn get(&self, algorithm: Algorithm) -> Option<&String> {
        match algorithm {
            Algorithm::Crc32 => self.crc32.as_ref(),
            Algorithm::Crc32c => self.crc32c.as_ref(),
            Algorithm::Crc64nvme => self.crc64nvme.as_ref(),
            Algorithm::Sha1 => self.sha1.as_ref(),
            Algorithm::Sha256 => self.sha256.as_ref(),
        }
    }

    pub fn set(&mut self, algorithm: Algorithm, value: Option<String>) {
        match algorithm {
            Algorithm::Crc32 => self.crc32 = value,
            Algorithm::Crc32c => self.crc32c = value,
            Algorithm::Crc64nvme => self.crc64nvme = value,
            Algorithm::Sha1 => self.sha1 = value,
            Algorithm::Sha256 => self.sha256 = value,
        }
    }

    pub fn is_empty(&self) -> bool {
        Algorithm::ALL
            .into_iter()
            .all(|algorithm| self.get(algorithm).is_none())
    }

    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> + '_ {
        Algorithm::ALL
            .into_iter()
            .filter(|algorithm| self.get(*algorithm).is_some())
    }
}

/// What a request says its body is.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    pub md5: Option<[u8; 16]>,
    pub payload_sha256: Option<[u8; 32]>,
    pub checksums: Checksums,
    /// To be computed and kept though no value was given.
    pub wanted: Vec<Algorithm>,
    /// Announced by `x-amz-trailer`: their values come behind the body.
    pub announced: Vec<Algorithm>,
}

impl Claims {
    /// Refuses values that cannot be what they claim to be, before a byte is read.
    pub fn check_form(&self) -> Result<(), StoreError> {
        for algorithm in self.checksums.algorithms() {
            let value = self
                .checksums
                .get(algorithm)
                .map(String::as_str)
                .unwrap_or_default();
            if !base64::decode(value).is_ok_and(|bytes| bytes.len() == algorithm.digest_bytes()) {
                return Err(StoreError::InvalidChecksumHeader {
                    header: algorithm.header(),
                });
            }
        }
        Ok(())
    }

    pub fn parse_md5(header: &str) -> Result<[u8; 16], StoreError> {
        base64::decode(header)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(StoreError::InvalidDigest)
    }

    pub fn hasher(&self) -> Hasher {
        let mut hasher = Hasher {
            md5: Some(Md5::new()),
            ..Hasher::default()
        };
        for algorithm in self
            .checksums
            .algorithms()
            .chain(self.wanted.iter().copied())
            .chain(self.announced.iter().copied())
        {
            hasher.also(algorithm);
        }
        if self.payload_sha256.is_some() {
            hasher.also(Algorithm::Sha256);
        }
        hasher
    }

    /// Compares what was computed with what was claimed; gives the MD5 and the checksums to keep.
    pub fn verify(&self, computed: Computed) -> Result<([u8; 16], Checksums), StoreError> {
        let Computed { md5, mut checksums } = computed;
        if self.md5.is_some_and(|claimed| claimed != md5) {
            return Err(StoreError::BadDigest {
                digest: "Content-MD5",
            });
        }
        if let Some(claimed) = self.payload_sha256
            && checksums.sha256.as_deref() != Some(base64::encode(claimed).as_str())
        {
            return Err(StoreError::PayloadSha256Mismatch);
        }
        for algorithm in self.checksums.algorithms() {
            if self.checksums.get(algorithm) != checksums.get(algorithm) {
                return Err(StoreError::BadDigest {
                    digest: algorithm.header(),
                });
            }
        }
        if self.checksums.sha256.is_none() && !self.wanted.contains(&Algorithm::Sha256) {
            checksums.sha256 = None;
        }
        Ok((md5, checksums))
    }
}

/// Running digests over one body.
#[derive(Default)]
pub struct Hasher {
    md5: Option<Md5>,
    crc32: Option<Crc32>,
    crc32c: Option<Crc32c>,
    crc64nvme: Option<Crc64Nvme>,
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
}

#[derive(Debug, Default)]
pub struct Computed {
    pub md5: [u8; 16],
    pub checksums: Checksums,
}

impl Hasher {
    pub fn of(algorithm: Algorithm) -> Self {
        let mut hasher = Self::default();
        hasher.also(algorithm);
        hasher
    }

    fn also(&mut self, algorithm: Algorithm) {
        match algorithm {
            Algorithm::Crc32 => self.crc32 = Some(Crc32::new()),
            Algorithm::Crc32c => self.crc32c = Some(Crc32c::new()),
            Algorithm::Crc64nvme => self.crc64nvme = Some(Crc64Nvme::new()),
            Algorithm::Sha1 => self.sha1 = Some(Sha1::new()),
            Algorithm::Sha256 => self.sha256 = Some(Sha256::new()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        let Self {
            md5,
            crc32,
            crc32c,
            crc64nvme,
            sha1,
            sha256,
        } = self;
        if let Some(hasher) = md5 {
            hasher.update(bytes);
        }
        if let Some(hasher) = crc32 {
            hasher.update(bytes);
        }
        if let Some(hasher) = crc32c {
            hasher.update(bytes);
        }
        if let Some(hasher) = crc64nvme {
            hasher.update(bytes);
        }
        if let Some(hasher) = sha1 {
            hasher.update(bytes);
        }
        if let Some(hasher) = sha256 {
            hasher.update(bytes);
        }
    }

    pub fn finish(self) -> Computed {
        let Self {
            md5,
            crc32,
            crc32c,
            crc64nvme,
            sha1,
            sha256,
        } = self;
        Computed {
            md5: md5.map(|hasher| hasher.finalize()).unwrap_or_default(),
            checksums: Checksums {
                crc32: crc32.map(|hasher| base64::encode(hasher.finalize())),
                crc32c: crc32c.map(|hasher| base64::encode(hasher.finalize())),
                crc64nvme: crc64nvme.map(|hasher| base64::encode(hasher.finalize())),
                sha1: sha1.map(|hasher| base64::encode(hasher.finalize())),
                sha256: sha256.map(|hasher| base64::encode(hasher.finalize())),
                composite: false,
            },
        }
    }
}

/// The ETag of a completed multipart upload: MD5 over the parts' MD5s, and their number.
pub fn multipart_etag(parts: &[[u8; 16]]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    format!("{}-{}", hex::encode(md5.finalize()), parts.len())
}

/// The composite checksum of a multipart upload: the checksum of the parts' checksums, and their number.
pub fn composite<'a>(
    algorithm: Algorithm,
    parts: impl ExactSizeIterator<Item = &'a String>,
) -> Option<String> {
    let count = parts.len();
    let mut hasher = Hasher::of(algorithm);
    for part in parts {
        hasher.update(&base64::decode(part).ok()?);
    }
    let value = hasher.finish().checksums.get(algorithm)?.clone();
    Some(format!("{value}-{count}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_values_of_the_algorithms_come_out() {
        let claims = Claims {
            wanted: Algorithm::ALL.to_vec(),
            ..Claims::default()
        };
        let mut hasher = claims.hasher();
        hasher.update(b"1234");
        hasher.update(b"56789");
        let (md5, sums) = claims.verify(hasher.finish()).unwrap();
        assert_eq!(hex::encode(md5), "25f9e794323b453885f5181f1b624d0b");
        let hexed =
            |value: &Option<String>| hex::encode(base64::decode(value.as_ref().unwrap()).unwrap());
        assert_eq!(hexed(&sums.crc32), "cbf43926");
        assert_eq!(hexed(&sums.crc32c), "e3069283");
        assert_eq!(hexed(&sums.crc64nvme), "ae8b14860a799888");
        assert_eq!(
            hexed(&sums.sha1),
            "f7c3bc1d808e04732adf679965ccc34ca7ae3441"
        );
        assert_eq!(
            hexed(&sums.sha256),
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
    }

    #[test]
    fn a_payload_hash_is_checked_but_not_kept() {
        let claims = Claims {
            payload_sha256: Some([0; 32]),
            ..Claims::default()
        };
        let mut hasher = claims.hasher();
        hasher.update(b"x");
        assert!(matches!(
            claims.verify(hasher.finish()),
            Err(StoreError::PayloadSha256Mismatch)
        ));
    }

    #[test]
    fn a_checksum_of_the_wrong_length_is_refused_early() {
        let mut claims = Claims::default();
        claims.checksums.crc32 = Some("AAAA".into());
        assert!(claims.check_form().is_err());
        claims.checksums.crc32 = Some("AAAAAA==".into());
        assert!(claims.check_form().is_ok());
    }
}
