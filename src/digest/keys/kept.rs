//! The public keys of AWS KMS that have signed, each with the one span of time that holds every moment it signed for.
//!
//! KMS says neither since when nor until when a key signs, so the span grows with use: it begins with the earliest moment signed for, and reaches
//! [`VALIDITY`] ahead. It never shrinks. A key that an alias left behind is thus listed for some days after its last signature, which does no
//! harm: what it may sign is for KMS to say.

use super::PublicKey;
use super::files::VALIDITY;
use crate::digest::hex::Fingerprint;
use crate::event::Region;

/// Seconds before its end at which a span is extended, so that between two digests the current key is always listed.
const AHEAD: i64 = 86_400;

/// By region, which is the one that the key is kept in; what it signs may be of any other.
#[derive(Debug, Default)]
pub struct Kept(Vec<(Region, PublicKey)>);

impl Kept {
    pub fn iter(&self) -> impl Iterator<Item = &(Region, PublicKey)> {
        self.0.iter()
    }

    /// What must be known of the key with this DER (PKCS#1) before it signs for `at`, seconds since 1970. Nothing when it is known already.
    pub fn wanting(&self, region: Region, der: &[u8], at: i64) -> Option<PublicKey> {
        let known = self.find(region, Fingerprint::of(der));
        let whole = at.saturating_add(VALIDITY);
        let (start, end) = match known {
            None => (at, whole),
            Some(known) if known.start <= at && at.saturating_add(AHEAD) < known.end => {
                return None;
            }
            Some(known) => (known.start.min(at), known.end.max(whole)),
        };
        Some(PublicKey::new(der.to_vec(), start, end))
    }

    /// Puts a key in, in the place of what was known of it.
    pub fn put(&mut self, region: Region, key: PublicKey) {
        let same =
            |it: &(Region, PublicKey)| it.0 == region && it.1.fingerprint() == key.fingerprint();
        self.0.retain(|it| !same(it));
        self.0.push((region, key));
    }

    fn find(&self, region: Region, fingerprint: Fingerprint) -> Option<&PublicKey> {
        let found = self
            .0
            .iter()
            .find(|(of, key)| *of == region && key.fingerprint() == fingerprint);
        found.map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400;

    proptest! {
        #[test]
        fn the_span_of_a_key_holds_every_moment_it_signed_for_and_the_day_after(
            moments in proptest::collection::vec(-400_i64..400, 1..60),
        ) {
            let region = "eu-west-1".parse().unwrap();
            let mut kept = Kept::default();
            let mut signed = Vec::new();
            for day in moments {
                let at = day * DAY + day;
                signed.push(at);
                let before = kept.find(region, Fingerprint::of(b"key")).cloned();
                if let Some(key) = kept.wanting(region, b"key", at) {
                    kept.put(region, key);
                }
                let key = kept.find(region, Fingerprint::of(b"key")).unwrap();
                prop_assert!(signed.iter().all(|at| key.is_valid_at(*at)));
                prop_assert!(key.is_valid_at(at + DAY - 1));
                if let Some(before) = before {
                    prop_assert!(key.start <= before.start && before.end <= key.end);
                }
                prop_assert_eq!(kept.wanting(region, b"key", at), None);
                prop_assert_eq!(kept.iter().count(), 1);
            }
            // No further than thirty days from what was signed.
            let key = kept.find(region, Fingerprint::of(b"key")).unwrap();
            prop_assert_eq!(Some(&key.start), signed.iter().min());
            prop_assert!(key.end <= signed.iter().max().unwrap() + VALIDITY);
        }
    }

    #[test]
    fn no_moment_whatever_overflows() {
        let region = "eu-west-1".parse().unwrap();
        let mut kept = Kept::default();
        for at in [i64::MIN, 0, i64::MAX - 1, i64::MAX] {
            if let Some(key) = kept.wanting(region, b"key", at) {
                kept.put(region, key);
            }
        }
        assert!(kept.iter().all(|(_, key)| key.is_valid_at(0)));
    }
}
