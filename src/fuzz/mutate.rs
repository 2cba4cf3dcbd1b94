//! Input that is nearly good: a file of the corpus with a few changes, all drawn from one seed.
//!
//! Of the crates that do this on stable Rust, `mutatis` changes typed values, where the parsers here want bytes of any kind, and `bolero` and
//! `fuzzcheck` want their own runner; what is left to do is this file.

use std::ops::Range;

use crate::wal::sim::Random;

/// Longer inputs say nothing that these do not, but take longer.
const MOST_BYTES: usize = 64 << 10;

/// Numbers at the edges of types, and of what people take for numbers.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e309",
    "000000000000",
    "3.5",
];

/// Brackets that open and close again; deep ones overflow the stack of a reader that recurses.
const NESTS: &[(&str, &str)] = &[("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")];

/// A file of the corpus with one change, or two, or seldom more: of many changes one is sure to break it, and hides the others.
pub fn mutated(random: &mut Random, corpus: &[Vec<u8>], tokens: &[&str]) -> Vec<u8> {
    let mut bytes = pick(random, corpus).clone();
    loop {
        change(random, &mut bytes, corpus, tokens);
        if random.below(5) < 3 {
            break;
        }
    }
    bytes.truncate(MOST_BYTES);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, corpus: &[Vec<u8>], tokens: &[&str]) {
    let range = range(random, bytes.len());
    let at = range.start;
    match random.below(14) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = random.next() as u8,
        2 => drop(bytes.splice(at..at, [random.next() as u8])),
        3 => drop(bytes.drain(range)),
        4 => bytes.truncate(at),
        5 => {
            let again = bytes[range].repeat(times(random));
            drop(bytes.splice(at..at, again));
        }
        6 => {
            let other = pick(random, corpus);
            let part = other[self::range(random, other.len())].to_vec();
            drop(bytes.splice(range, part));
        }
        7 => {
            let number = pick(random, NUMBERS);
            let digits = digits_behind(bytes, at);
            drop(bytes.splice(digits, number.bytes()));
        }
        8 => {
            let (open, close) = pick(random, NESTS);
            let depth = 1 << random.below(16);
            let inner = bytes[range.clone()].to_vec();
            let nest = [
                open.repeat(depth).as_bytes(),
                &inner,
                close.repeat(depth).as_bytes(),
            ]
            .concat();
            drop(bytes.splice(range, nest));
        }
        9 => {
            let run = pick(random, tokens).repeat(times(random));
            drop(bytes.splice(at..at, run.into_bytes()));
        }
        10 => drop(bytes.splice(range, pick(random, tokens).bytes())),
        _ => drop(bytes.splice(at..at, pick(random, tokens).bytes())),
    }
}

/// Mostly short: of a long one seldom anything is left that makes sense.
fn range(random: &mut Random, len: usize) -> Range<usize> {
    let start = random.below(len as u64 + 1) as usize;
    let most = if random.below(4) == 0 { len } else { 16 };
    start..len.min(start + random.below(most as u64 + 1) as usize)
}

fn times(random: &mut Random) -> usize {
    let most = if random.below(8) == 0 { 5000 } else { 4 };
    1 + random.below(most) as usize
}

/// The first number from `at` on, or nothing at the end.
fn digits_behind(bytes: &[u8], at: usize) -> Range<usize> {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let start = bytes[at..]
        .iter()
        .position(is_digit)
        .map_or(bytes.len(), |skip| at + skip);
    let end = bytes[start..]
        .iter()
        .position(|byte| !is_digit(byte))
        .map_or(bytes.len(), |length| start + length);
    start..end
}

fn pick<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    &from[random.below(from.len() as u64) as usize]
}
