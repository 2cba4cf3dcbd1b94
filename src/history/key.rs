//! What postings are kept by: a hash of where an event belongs, an attribute, and a value.
//!
//! Values may be the same hash and not the same; so whatever is found is compared with the event itself. Each file has a seed of its own, so that nobody
//! who sends events can make two values meet in all of them.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::attribute::{Attribute, Facts, MAX_VALUE_CHARS, read_only_text};
use crate::event::{AccountId, Category, Meta, Region};

/// Bits of a key: a number of this size takes six bytes in a file.
const BITS: u32 = 47;

/// Whose events, and of which category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    pub account: AccountId,
    pub region: Region,
    pub category: Category,
}

impl Scope {
    pub fn of(meta: &Meta) -> Self {
        Self {
            account: meta.account,
            region: meta.region,
            category: meta.category,
        }
    }
}

/// Makes the keys of one scope in one file.
#[derive(Debug)]
pub struct Keys {
    seed: u64,
    text: Vec<u8>,
    scope_len: usize,
}

impl Keys {
    pub fn new(seed: u64, scope: &Scope) -> Self {
        let region = scope.region.as_str().as_bytes();
        let mut text = Vec::with_capacity(128);
        text.push(scope.category as u8);
        text.extend_from_slice(scope.account.as_bytes());
        text.extend_from_slice(region);
        // No region's name has it.
        text.push(0);
        Self {
            seed,
            scope_len: text.len(),
            text,
        }
    }

    pub fn of(&mut self, attribute: Attribute, value: &str) -> i64 {
        self.text.truncate(self.scope_len);
        self.text.push(attribute as u8);
        self.text.extend_from_slice(value.as_bytes());
        let hash = xxh3_64_with_seed(&self.text, self.seed);
        i64::try_from(hash >> (u64::BITS - BITS)).expect("key: forty-seven bits")
    }

    /// Two lists that have each event of the scope once, in one or the other: an event reads only, or it does not.
    pub fn of_all(&mut self) -> [i64; 2] {
        [true, false].map(|read_only| self.of(Attribute::ReadOnly, read_only_text(read_only)))
    }

    /// Those of one event, each once, in order.
    pub fn of_event(&mut self, meta: &Meta, facts: &Facts<'_>, keys: &mut Vec<i64>) {
        keys.clear();
        // For an Insight event, too, of which nobody can ask it: it stands in the lists of all events.
        keys.push(self.of(Attribute::ReadOnly, read_only_text(meta.read_only)));
        facts.each(|attribute, value| {
            // Every character is a byte at least.
            if value.len() <= MAX_VALUE_CHARS || value.chars().count() <= MAX_VALUE_CHARS {
                keys.push(self.of(attribute, value));
            }
        });
        keys.sort_unstable();
        keys.dedup();
    }
}
