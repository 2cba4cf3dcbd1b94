//! Tells two sendings of one event from two events.
//!
//! The fingerprint is XXH3-128 under a secret of this installation, so that nobody who does not know it can craft an event that passes
//! for another one and is dropped in its stead.

use aws_lc_rs::digest;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128_with_secret;

use super::types::{AccountId, Region};

/// Bytes of a secret; XXH3's own default secret has as many.
pub const SECRET_BYTES: usize = 192;

/// The key of all fingerprints, kept in the data directory. Random; not printed.
#[derive(Clone)]
pub struct Secret(Box<[u8; SECRET_BYTES]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Box::new(bytes))
    }

    /// Of an event that came with an eventID.
    pub fn fingerprint(&self, account: &AccountId, region: &Region, given: &[u8]) -> [u8; 16] {
        let mut all = [0u8; 16 + 12 + 32];
        all[..16].copy_from_slice(&self.hash(given).to_le_bytes());
        all[16..28].copy_from_slice(account.as_bytes());
        let region = region.as_str().as_bytes();
        all[28..28 + region.len()].copy_from_slice(region);
        self.hash(&all).to_le_bytes()
    }

    fn hash(&self, bytes: &[u8]) -> u128 {
        xxh3_128_with_secret(bytes, self.0.as_slice())
    }
}

/// The eventID of an event that came from a file without one: the same again when the same bytes are read again from the same place.
/// `file` is the random name under which this life of the file is followed.
pub fn derived_event_id(file: &Uuid, offset: u64, given: &[u8]) -> Uuid {
    let mut place = [0u8; 16 + 16 + 8];
    place[..16].copy_from_slice(file.as_bytes());
    place[16..32].copy_from_slice(&xxhash_rust::xxh3::xxh3_128(given).to_le_bytes());
    place[32..].copy_from_slice(&offset.to_le_bytes());
    uuid::Builder::from_random_bytes(xxhash_rust::xxh3::xxh3_128(&place).to_le_bytes()).into_uuid()
}

/// The eventID of an event that came in another form and without one: the same again for the same parts, which are what it came as and where.
/// Nobody can make other parts to the same one, so that no event passes for another: it is half of a SHA-256.
pub fn event_id_of(parts: &[&[u8]]) -> Uuid {
    let mut context = digest::Context::new(&digest::SHA256);
    // With its length, so that no two lists of parts are the same bytes.
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut half = [0; 16];
    half.copy_from_slice(&context.finish().as_ref()[..16]);
    uuid::Builder::from_random_bytes(half).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_depends_on_everything_it_covers() {
        let secret = Secret::new([3; SECRET_BYTES]);
        let account: AccountId = "111122223333".parse().unwrap();
        let region: Region = "eu-west-1".parse().unwrap();
        let first = secret.fingerprint(&account, &region, b"{}");
        assert_eq!(first, secret.fingerprint(&account, &region, b"{}"));
        assert_ne!(first, secret.fingerprint(&account, &region, b"{ }"));
        assert_ne!(
            first,
            secret.fingerprint(&"111122223334".parse().unwrap(), &region, b"{}")
        );
        assert_ne!(
            first,
            secret.fingerprint(&account, &"eu-west-2".parse().unwrap(), b"{}")
        );
        assert_ne!(
            first,
            Secret::new([4; SECRET_BYTES]).fingerprint(&account, &region, b"{}")
        );
    }

    #[test]
    fn an_id_of_parts_is_the_same_for_the_same_parts_alone() {
        let id = event_id_of(&[b"a", b"bc"]);
        assert_eq!(id.get_version_num(), 4);
        assert_eq!(id, event_id_of(&[b"a", b"bc"]));
        assert_ne!(id, event_id_of(&[b"ab", b"c"]));
        assert_ne!(id, event_id_of(&[b"a", b"bd"]));
    }

    #[test]
    fn a_derived_id_is_the_same_for_the_same_place_alone() {
        let file = Uuid::from_u128(1);
        let id = derived_event_id(&file, 7, b"{}");
        assert_eq!(id.get_version_num(), 4);
        assert_eq!(id, derived_event_id(&file, 7, b"{}"));
        assert_ne!(id, derived_event_id(&file, 8, b"{}"));
        assert_ne!(id, derived_event_id(&file, 7, b"{ }"));
        assert_ne!(id, derived_event_id(&Uuid::from_u128(2), 7, b"{}"));
    }
}
