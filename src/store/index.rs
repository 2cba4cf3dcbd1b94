//! The keys of one bucket in byte order, in memory.
//!
//! Rebuilt at open from the object files, so it needs no durability of its own. Keys are kept in blocks of at most
//! [`BLOCK_ENTRIES`], each key as the length it shares with the one before it and the rest: a CloudTrail key of 120 bytes
//! costs about 65 bytes with everything a listing shows (measured by a test below), instead of 250 in a plain `BTreeMap`.
//!
//! A block's map key is a lower bound of its keys and above all keys of the block before; the first block's is empty.

use std::collections::BTreeMap;
use std::ops::Bound;

const BLOCK_ENTRIES: usize = 128;

/// What a listing shows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub size: u64,
    pub modified_millis: i64,
    pub md5: [u8; 16],
    /// The number behind the `-` of a multipart ETag; 0 without.
    pub parts: u32,
}

impl Entry {
    pub fn etag(&self) -> String {
        let md5 = hex::encode(self.md5);
        if self.parts == 0 {
            md5
        } else {
            format!("{md5}-{}", self.parts)
        }
    }

    /// From `<32 hex>` or `<32 hex>-<parts>`.
    pub fn new(size: u64, modified_millis: i64, etag: &str) -> Option<Self> {
        let (md5_hex, parts) = match etag.split_once('-') {
            Some((md5_hex, parts)) => (md5_hex, parts.parse().ok().filter(|parts| *parts > 0)?),
            None => (etag, 0),
        };
        let mut md5 = [0; 16];
        hex::decode_to_slice(md5_hex, &mut md5).ok()?;
        Some(Self {
            size,
            modified_millis,
            md5,
            parts,
        })
    }
}

#[derive(Debug)]
pub struct Index {
    blocks: BTreeMap<Box<[u8]>, Block>,
    entries: usize,
}

#[derive(Debug, Default)]
struct Block {
    bytes: Vec<u8>,
    entries: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            blocks: BTreeMap::from([(Box::default(), Block::default())]),
            entries: 0,
        }
    }
}

impl Index {
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub fn get(&self, key: &str) -> Option<Entry> {
        let (_, block) = self
            .blocks
            .range::<[u8], _>(up_to(key.as_bytes()))
            .next_back()?;
        let mut cursor = Cursor::at(block, 0);
        while cursor.advance() {
            match cursor.key.as_slice().cmp(key.as_bytes()) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Some(cursor.entry),
                std::cmp::Ordering::Greater => return None,
            }
        }
        None
    }

    pub fn insert(&mut self, key: &str, entry: Entry) {
        let key = key.as_bytes();
        let Some((_, block)) = self.blocks.range_mut::<[u8], _>(up_to(key)).next_back() else {
            return;
        };
        let (previous, found) = block.seek(key);
        let mut encoded = Vec::with_capacity(key.len() + 64);
        encode(&mut encoded, &previous, key, &entry);
        match found {
            Some(found) if found.key == key => block.splice(found.start, found.end, &encoded),
            Some(found) => {
                encode(&mut encoded, key, &found.key, &found.entry);
                block.splice(found.start, found.end, &encoded);
                block.entries += 1;
                self.entries += 1;
            }
            None => {
                let end = block.bytes.len();
                block.splice(end, end, &encoded);
                block.entries += 1;
                self.entries += 1;
            }
        }
        if block.entries > BLOCK_ENTRIES {
            let (first_key, upper) = block.split();
            self.blocks.insert(first_key, upper);
        }
    }

    pub fn remove(&mut self, key: &str) {
        let key = key.as_bytes();
        let Some((bound, block)) = self.blocks.range_mut::<[u8], _>(up_to(key)).next_back() else {
            return;
        };
        let (previous, found) = block.seek(key);
        let Some(found) = found.filter(|found| found.key == key) else {
            return;
        };
        let mut next = Cursor {
            block,
            at: found.end,
            start: found.end,
            key: found.key.clone(),
            entry: found.entry,
        };
        let (end, encoded) = if next.advance() {
            let mut encoded = Vec::with_capacity(next.key.len() + 64);
            encode(&mut encoded, &previous, &next.key, &next.entry);
            (next.at, encoded)
        } else {
            (found.end, Vec::new())
        };
        block.splice(found.start, end, &encoded);
        block.entries -= 1;
        self.entries -= 1;
        if block.entries == 0 && !bound.is_empty() {
            let bound = bound.clone();
            self.blocks.remove(&bound);
        }
    }

    /// The entries from `start` on, in byte order.
    pub fn iter_from(&self, start: &[u8]) -> Iter<'_> {
        let mut blocks = self.blocks.range::<[u8], _>(up_to(start));
        let first = blocks.next_back();
        // The first block's bound is empty, so there always is one.
        let bound = first.map_or(start, |(bound, _)| bound.as_ref());
        let rest = self
            .blocks
            .range::<[u8], _>((Bound::Excluded(bound), Bound::Unbounded));
        Iter {
            cursor: first.map(|(_, block)| Cursor::at(block, 0)),
            rest,
            start: Some(start.to_vec()),
        }
    }

    #[cfg(test)]
    fn heap_bytes(&self) -> usize {
        // A B-tree's leaves are about two thirds full.
        let slot = size_of::<Box<[u8]>>() + size_of::<Block>();
        self.blocks
            .iter()
            .map(|(bound, block)| bound.len() + block.bytes.capacity() + slot * 3 / 2 + 32)
            .sum()
    }
}

/// Unsized keys cannot stand in `..=key`.
fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

struct Found {
    key: Vec<u8>,
    entry: Entry,
    start: usize,
    end: usize,
}

impl Block {
    /// The key before the first one that is not below `key`, and that first one.
    fn seek(&self, key: &[u8]) -> (Vec<u8>, Option<Found>) {
        let mut previous = Vec::new();
        let mut cursor = Cursor::at(self, 0);
        loop {
            // The cursor rewrites its key in place: keep what the neighbour's encoding refers to.
            previous.clone_from(&cursor.key);
            if !cursor.advance() {
                return (previous, None);
            }
            if cursor.key.as_slice() >= key {
                let Cursor {
                    at,
                    start,
                    key,
                    entry,
                    ..
                } = cursor;
                return (
                    previous,
                    Some(Found {
                        key,
                        entry,
                        start,
                        end: at,
                    }),
                );
            }
        }
    }

    fn splice(&mut self, start: usize, end: usize, encoded: &[u8]) {
        let grow = encoded.len().saturating_sub(end - start);
        if self.bytes.capacity() - self.bytes.len() < grow {
            self.bytes.reserve_exact(grow + 512);
        }
        drop(self.bytes.splice(start..end, encoded.iter().copied()));
    }

    fn split(&mut self) -> (Box<[u8]>, Self) {
        let half = self.entries / 2;
        let mut cursor = Cursor::at(self, 0);
        for _ in 0..=half {
            cursor.advance();
        }
        let mut upper =
            Vec::with_capacity(self.bytes.len() - cursor.start + cursor.key.len() + 512);
        encode(&mut upper, &[], &cursor.key, &cursor.entry);
        upper.extend_from_slice(&self.bytes[cursor.at..]);
        let (cut, first_key) = (cursor.start, cursor.key.into_boxed_slice());
        let upper = Self {
            bytes: upper,
            entries: self.entries - half,
        };
        self.bytes.truncate(cut);
        self.bytes.shrink_to(cut + 512);
        self.entries = half;
        (first_key, upper)
    }
}

struct Cursor<'a> {
    block: &'a Block,
    /// Where the entry after this one starts.
    at: usize,
    /// Where this one starts.
    start: usize,
    key: Vec<u8>,
    entry: Entry,
}

impl<'a> Cursor<'a> {
    fn at(block: &'a Block, at: usize) -> Self {
        let entry = Entry {
            size: 0,
            modified_millis: 0,
            md5: [0; 16],
            parts: 0,
        };
        Self {
            block,
            at,
            start: at,
            key: Vec::new(),
            entry,
        }
    }

    fn advance(&mut self) -> bool {
        let mut rest = &self.block.bytes[self.at..];
        if rest.is_empty() {
            return false;
        }
        self.start = self.at;
        let whole = rest.len();
        let shared = take_varint(&mut rest) as usize;
        let suffix = take_varint(&mut rest) as usize;
        self.key.truncate(shared);
        self.key.extend_from_slice(&rest[..suffix]);
        rest = &rest[suffix..];
        self.entry.size = take_varint(&mut rest);
        // Zigzag: a clock before 1970 is wrong, not fatal.
        let zigzag = take_varint(&mut rest);
        self.entry.modified_millis = (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
        self.entry.md5.copy_from_slice(&rest[..16]);
        rest = &rest[16..];
        self.entry.parts = take_varint(&mut rest) as u32;
        self.at += whole - rest.len();
        true
    }
}

fn encode(out: &mut Vec<u8>, previous: &[u8], key: &[u8], entry: &Entry) {
    let shared = previous.iter().zip(key).take_while(|(a, b)| a == b).count();
    put_varint(out, shared as u64);
    put_varint(out, (key.len() - shared) as u64);
    out.extend_from_slice(&key[shared..]);
    put_varint(out, entry.size);
    put_varint(
        out,
        ((entry.modified_millis << 1) ^ (entry.modified_millis >> 63)).cast_unsigned(),
    );
    out.extend_from_slice(&entry.md5);
    put_varint(out, u64::from(entry.parts));
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    let mut shift = 0;
    while let Some((first, rest)) = bytes.split_first() {
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    value
}

pub struct Iter<'a> {
    cursor: Option<Cursor<'a>>,
    rest: std::collections::btree_map::Range<'a, Box<[u8]>, Block>,
    /// Keys below are passed over; gone after the first that is not.
    start: Option<Vec<u8>>,
}

impl Iter<'_> {
    /// The next entry; its key lives until the following call.
    pub fn step(&mut self) -> Option<(&[u8], Entry)> {
        loop {
            let cursor = self.cursor.as_mut()?;
            if cursor.advance() {
                if self.start.as_ref().is_some_and(|start| cursor.key < *start) {
                    continue;
                }
                self.start = None;
                break;
            }
            self.cursor = self.rest.next().map(|(_, block)| Cursor::at(block, 0));
        }
        self.cursor
            .as_ref()
            .map(|cursor| (cursor.key.as_slice(), cursor.entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(n: u64) -> Entry {
        Entry {
            size: n,
            modified_millis: n.cast_signed() - 3,
            md5: [n as u8; 16],
            parts: n as u32 % 3,
        }
    }

    fn all(index: &Index, start: &[u8]) -> Vec<(Vec<u8>, Entry)> {
        let mut iter = index.iter_from(start);
        let mut out = Vec::new();
        while let Some((key, entry)) = iter.step() {
            out.push((key.to_vec(), entry));
        }
        out
    }

    #[test]
    fn a_hundred_thousand_log_files_fit_in_a_hundred_bytes_each() {
        let mut index = Index::default();
        for n in 0..100_000u64 {
            // Spread as arrivals are: sixteen account and region pairs in turn, random unique parts.
            let unique = hex::encode(&place(n)[..8]);
            let (account, region) = (n % 4, n / 4 % 4);
            let minute = n / 100 % 60;
            let key = format!(
                "AWSLogs/11112222333{account}/CloudTrail/us-east-{region}/2026/11/22/11112222333{account}_CloudTrail_us-east-{region}_20261122T08{minute:02}Z_{unique}.json.gz"
            );
            index.insert(
                &key,
                Entry {
                    size: 1_000_000 + n,
                    modified_millis: 1_795_000_000_000,
                    md5: [7; 16],
                    parts: 0,
                },
            );
        }
        let each = index.heap_bytes() / 100_000;
        assert!(each < 100, "{each} bytes an object");
    }

    fn place(n: u64) -> Vec<u8> {
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &n.to_le_bytes())
            .as_ref()
            .to_vec()
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_btree_map(
            steps in proptest::collection::vec((any::<bool>(), "[ab/é]{0,5}|k[0-9]{1,3}", 0u64..1_000_000), 0..600),
            start in "[ab/k]{0,3}",
        ) {
            let mut index = Index::default();
            let mut model = BTreeMap::new();
            for (remove, key, n) in steps {
                if remove && n % 3 == 0 {
                    index.remove(&key);
                    model.remove(key.as_bytes());
                } else {
                    index.insert(&key, entry(n));
                    model.insert(key.as_bytes().to_vec(), entry(n));
                }
                prop_assert_eq!(index.get(&key), model.get(key.as_bytes()).copied());
            }
            prop_assert_eq!(index.is_empty(), model.is_empty());
            let expected: Vec<_> = model.range(start.as_bytes().to_vec()..).map(|(k, e)| (k.clone(), *e)).collect();
            prop_assert_eq!(all(&index, start.as_bytes()), expected);
        }
    }
}
