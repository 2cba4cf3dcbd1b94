//! Public keys with their validity, in the shape of the CloudTrail API (ListPublicKeys).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize};

use crate::clock::WallMillis;
use crate::digest::hex::Fingerprint;
use crate::event::time::parse_rfc3339;

/// A public key and the time in which it signs. Serialises as a member of `PublicKeyList` on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Wire", try_from = "Wire")]
pub struct PublicKey {
    /// PKCS#1 DER.
    der: Vec<u8>,
    fingerprint: Fingerprint,
    /// Seconds since 1970: valid from `start` to just before `end`.
    pub start: i64,
    pub end: i64,
}

impl PublicKey {
    pub fn new(der: Vec<u8>, start: i64, end: i64) -> Self {
        Self {
            fingerprint: Fingerprint::of(&der),
            der,
            start,
            end,
        }
    }

    /// PKCS#1, when it is a key of ours.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether it is valid at this moment, seconds since 1970.
    pub fn is_valid_at(&self, seconds: i64) -> bool {
        (self.start..self.end).contains(&seconds)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    value: String,
    #[serde(deserialize_with = "epoch_seconds")]
    validity_start_time: i64,
    #[serde(deserialize_with = "epoch_seconds")]
    validity_end_time: i64,
    fingerprint: Fingerprint,
}

/// The API gives numbers, the AWS CLI also prints them with a fraction or as text.
fn epoch_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Whole(i64),
        Fraction(f64),
        Text(String),
    }
    match Given::deserialize(deserializer)? {
        Given::Whole(seconds) => Ok(seconds),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "saturates, which is as good"
        )]
        Given::Fraction(seconds) => Ok(seconds as i64),
        Given::Text(text) => parse_rfc3339(text.as_bytes())
            .ok_or_else(|| serde::de::Error::custom("not a time of RFC 3339")),
    }
}

impl From<PublicKey> for Wire {
    fn from(key: PublicKey) -> Self {
        Self {
            value: BASE64.encode(&key.der),
            validity_start_time: key.start,
            validity_end_time: key.end,
            fingerprint: key.fingerprint,
        }
    }
}

impl TryFrom<Wire> for PublicKey {
    type Error = &'static str;

    fn try_from(wire: Wire) -> Result<Self, &'static str> {
        let der = BASE64
            .decode(wire.value)
            .map_err(|_| "value is not base64")?;
        let key = Self::new(der, wire.validity_start_time, wire.validity_end_time);
        if key.fingerprint != wire.fingerprint {
            return Err("the fingerprint is of another key");
        }
        Ok(key)
    }
}

/// The time of which ListPublicKeys is asked, both ends included, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    start: i64,
    end: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the start of the time range is after its end")]
pub struct InvalidTimeRange;

impl TimeRange {
    /// An end that is not given is now, both for `StartTime` and `EndTime` (ListPublicKeys).
    pub fn asked(
        start: Option<i64>,
        end: Option<i64>,
        now: WallMillis,
    ) -> Result<Self, InvalidTimeRange> {
        let now = now.unix_seconds();
        let (start, end) = (start.unwrap_or(now), end.unwrap_or(now));
        (start <= end)
            .then_some(Self { start, end })
            .ok_or(InvalidTimeRange)
    }

    /// Whether the key is valid at some moment of it.
    pub fn touches(&self, key: &PublicKey) -> bool {
        key.start <= self.end && self.start < key.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::vectors;

    #[test]
    fn a_key_is_on_the_wire_as_list_public_keys_has_it() {
        let key = PublicKey::new(vectors::public_key(), 1_777_000_000, 1_779_592_000);
        let expected = format!(
            r#"{{"Value":"{}","ValidityStartTime":1777000000,"ValidityEndTime":1779592000,"Fingerprint":"d5d3e8448c6a26f52c9aaf486c4b31a8"}}"#,
            vectors::all().public_key_pkcs1_der_b64
        );
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, expected);
        for printed in [
            json.clone(),
            json.replace("1777000000", "1777000000.0"),
            json.replace("1777000000", r#""2026-04-24T03:06:40+00:00""#),
        ] {
            assert_eq!(serde_json::from_str::<PublicKey>(&printed).unwrap(), key);
        }
        for bad in [
            json.replace("d5d3", "d5d4"),
            json.replace("MII", "M!I"),
            json.replace("1777000000", r#""soon""#),
        ] {
            assert!(serde_json::from_str::<PublicKey>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_finds_the_keys_that_are_valid_in_some_part_of_it() {
        let key = PublicKey::new(vec![1], 100, 200);
        let now = WallMillis(150_999);
        for (start, end, found) in [
            (None, None, true),
            (Some(200), Some(300), false),
            (Some(199), Some(300), true),
            (Some(0), Some(99), false),
            (Some(0), Some(100), true),
            (Some(0), None, true),
            (Some(120), Some(130), true),
            (Some(0), Some(1000), true),
            (None, Some(150), true),
        ] {
            let range = TimeRange::asked(start, end, now).unwrap();
            assert_eq!(range.touches(&key), found, "{start:?} {end:?}");
        }
        for (start, end) in [(Some(2), Some(1)), (Some(151), None), (None, Some(149))] {
            assert_eq!(TimeRange::asked(start, end, now), Err(InvalidTimeRange));
        }
    }
}
