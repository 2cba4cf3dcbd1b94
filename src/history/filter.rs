//! Tells without opening a file that it has none of a key's events: a blocked Bloom filter beside each file that is at rest.
//!
//! ```text
//! "traildHF", u32 LE version 1, u32 LE number of blocks, u64 LE events of the file that it is for, u32 LE CRC-32 of these
//! blocks of 64 bytes: 480 bits, u32 LE CRC-32 of them
//! ```
//!
//! All bits of a key are in one block, so to ask is one read of 64 bytes, and nothing of it is kept in memory. It errs about once in a hundred times, and
//! then a file is opened in vain. A filter that is for another number of events, or damaged, is none: the file is asked itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: &[u8; 8] = b"traildHF";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 28;
const BLOCK_BYTES: usize = 64;
const BLOCK_BITS: u64 = 480;
const BITS_PER_KEY: u64 = 12;
/// Bits that are set for a key.
const PROBES: u32 = 7;

/// A filter that is asked on the disk.
#[derive(Debug)]
pub struct Filter {
    file: File,
    blocks: u32,
}

impl Filter {
    /// The filter at `path`, when it is for a file of so many events.
    pub fn open(path: &Path, events: u64) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut head = [0; HEAD_BYTES];
        match file.read_exact_at(&mut head, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut blocks = [0; 4];
        blocks.copy_from_slice(&head[12..16]);
        let blocks = u32::from_le_bytes(blocks);
        let is_ours = head == head_of(blocks, events) && blocks > 0;
        Ok(is_ours.then_some(Self { file, blocks }))
    }

    /// Whether the file may have events of this key. Nothing when the filter is damaged.
    pub fn may_have(&self, key: i64) -> io::Result<Option<bool>> {
        let (block, bits) = place(key, self.blocks);
        let mut bytes = [0; BLOCK_BYTES];
        let at = HEAD_BYTES as u64 + u64::from(block) * BLOCK_BYTES as u64;
        match self.file.read_exact_at(&mut bytes, at) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let (data, sum) = bytes.split_at(BLOCK_BYTES - 4);
        if crc32fast::hash(data).to_le_bytes() != sum {
            return Ok(None);
        }
        let has = |bit: usize| data[bit / 8] & (1 << (bit % 8)) != 0;
        Ok(Some(bits.into_iter().all(has)))
    }
}

/// Gathers keys for a file of `events` events.
#[derive(Debug)]
pub struct Builder {
    blocks: Vec<[u8; BLOCK_BYTES]>,
    events: u64,
}

impl Builder {
    /// `keys` is how many will be added.
    pub fn new(keys: u64, events: u64) -> Self {
        let blocks = (keys * BITS_PER_KEY).div_ceil(BLOCK_BITS).max(1);
        let blocks = usize::try_from(blocks.min(1 << 24)).unwrap_or(1);
        Self {
            blocks: vec![[0; BLOCK_BYTES]; blocks],
            events,
        }
    }

    pub fn add(&mut self, key: i64) {
        let (block, bits) = place(key, self.count());
        for bit in bits {
            self.blocks[block as usize][bit / 8] |= 1 << (bit % 8);
        }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.blocks.len()).expect("filter: at most 2^24 blocks")
    }

    /// The file's bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = head_of(self.count(), self.events).to_vec();
        bytes.reserve(self.blocks.len() * BLOCK_BYTES);
        for mut block in self.blocks {
            let (data, sum) = block.split_at_mut(BLOCK_BYTES - 4);
            sum.copy_from_slice(&crc32fast::hash(data).to_le_bytes());
            bytes.extend_from_slice(&block);
        }
        bytes
    }
}

fn head_of(blocks: u32, events: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&blocks.to_le_bytes());
    head[16..24].copy_from_slice(&events.to_le_bytes());
    let sum = crc32fast::hash(&head[..24]);
    head[24..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// The block of a key, and its bits there.
fn place(key: i64, blocks: u32) -> (u32, [usize; PROBES as usize]) {
    // The finalizer of SplitMix64; a key has forty-seven random bits, two mixes of them are as good as independent.
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let first = mix(key.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let block = ((first >> 32) * u64::from(blocks)) >> 32;
    let mut second = mix(first);
    let bits = std::array::from_fn(|_| {
        let bit = ((second & 0x1ff) * BLOCK_BITS) >> 9;
        second >>= 9;
        bit as usize
    });
    (block as u32, bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> i64 {
        (xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()) >> 17).cast_signed()
    }

    fn written(directory: &Path, keys: u64) -> std::path::PathBuf {
        let mut builder = Builder::new(keys, 77);
        (0..keys).for_each(|n| builder.add(key(n)));
        let path = directory.join("f.filter");
        std::fs::write(&path, builder.finish()).unwrap();
        path
    }

    #[test]
    fn no_key_is_missed_and_one_in_fifty_of_others_is_taken_at_most() {
        let directory = tempfile::tempdir().unwrap();
        for keys in [0, 1, 50, 20_000] {
            let path = written(directory.path(), keys);
            let filter = Filter::open(&path, 77).unwrap().unwrap();
            let has = |n| filter.may_have(key(n)).unwrap().unwrap();
            assert!((0..keys).all(has), "{keys}");
            let wrong = (keys..keys + 20_000).filter(|n| has(*n)).count();
            assert!(wrong < 400, "{wrong} of 20000 with {keys} keys");
        }
    }

    #[test]
    fn a_filter_of_other_events_or_a_damaged_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), 1000);
        assert!(Filter::open(&path, 78).unwrap().is_none());
        assert!(
            Filter::open(&directory.path().join("none"), 77)
                .unwrap()
                .is_none()
        );
        let whole = std::fs::read(&path).unwrap();
        for at in (0..HEAD_BYTES).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            assert!(Filter::open(&path, 77).unwrap().is_none(), "{at}");
        }
        let mut bytes = whole.clone();
        bytes[HEAD_BYTES..].iter_mut().for_each(|byte| *byte ^= 4);
        std::fs::write(&path, &bytes).unwrap();
        let filter = Filter::open(&path, 77).unwrap().unwrap();
        assert_eq!(filter.may_have(key(1)).unwrap(), None);
        std::fs::write(&path, &whole[..HEAD_BYTES + 10]).unwrap();
        let filter = Filter::open(&path, 77).unwrap().unwrap();
        assert_eq!(filter.may_have(key(1)).unwrap(), None);
    }
}
