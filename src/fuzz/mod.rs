//! Hostile input for every parser that meets the outside.
//!
//! A target is a test: the files of its corpus (`tests/fuzz/<target>`), each as it is and then mutated, one mutation a seed ([`mutate`]), and what must hold
//! whatever the input. More than that nothing panics: mostly that a second, plainer reader agrees, or that what was read is written and
//! read again as the same. An input that once broke something stays in the corpus under a name that says what it was.
//!
//! ```text
//! TRAILD_SEEDS=17..18 cargo test --release fuzz::events      one seed again
//! TRAILD_SEEDS=0..9000000 cargo test --release fuzz::        for hours
//! ```
//!
//! A stack overflow ends the process before it can tell the seed; halving the range of `TRAILD_SEEDS` finds it.

mod mutate;

mod configuration;
mod digests;
mod events;
mod files;
mod journal;
mod policies;
mod requests;
mod selectors;
mod signatures;
mod store;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use http::{Request, request};

use crate::campaign;
use crate::wal::sim::Random;

/// An input takes far less; what takes this long grows faster than its input.
const MOST_TIME: Duration = Duration::from_secs(20);

/// What JSON is made of, and what breaks readers of it.
pub const JSON: &[&str] = &[
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\\ud83d\\ude00",
    "\\\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "{}",
    "[]",
    "\"\":",
    "null",
    "true",
    "false",
    "NaN",
    "-",
    "-0",
    "1e999",
    "1E-999",
    "0x10",
    "01",
    "1.",
    "\n",
    "\r\n",
    "\u{feff}",
    "\u{2028}",
    "\u{202e}",
    "é",
];

/// What became of an input: whether it got so far that the target could prove something of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    Understood,
    Refused,
}

impl Input {
    pub fn understood(it: bool) -> Self {
        if it { Self::Understood } else { Self::Refused }
    }
}

/// The files of a target's corpus, in the order of their names.
pub fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz")
        .join(target);
    let entries = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// A request of HTTP as text: `METHOD TARGET`, a header a line, an empty line, the body. Nothing when no HTTP server would take it.
fn parsed(text: &[u8]) -> Option<(request::Parts, &[u8])> {
    let end = memchr::memmem::find(text, b"\n\n")?;
    let mut lines = text[..end].split(|byte| *byte == b'\n');
    let mut words = lines.next()?.splitn(2, |byte| *byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let colon = memchr::memchr(b':', line)?;
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    let (head, ()) = request.body(()).ok()?.into_parts();
    Some((head, &text[end + 2..]))
}

/// Shows `judge` the corpus, and a mutation of it for each seed. It panics at what must not be.
pub fn fuzz(
    target: &str,
    usual: u64,
    corpus: &[Vec<u8>],
    tokens: &[&str],
    mut judge: impl FnMut(&[u8]) -> Input,
) {
    for (number, input) in corpus.iter().enumerate() {
        Trial {
            target,
            of: format!("file {number} of the corpus"),
            input,
        }
        .run(&mut judge);
    }
    let seeds = campaign::seeds(usual);
    let trials = campaign::count_of(&seeds);
    let mut understood = 0;
    for seed in seeds {
        let input = mutate::mutated(&mut Random(seed), corpus, tokens);
        let trial = Trial {
            target,
            of: format!("TRAILD_SEEDS={seed}..{}", seed + 1),
            input: &input,
        };
        understood += u64::from(trial.run(&mut judge) == Input::Understood);
    }
    campaign::count("hostile", trials, trials);
    // Mutations that are all refused, or all good, prove little. What has a sum or a signature is refused at nearly every change.
    assert!(
        trials < 1000 || (trials / 500..trials).contains(&understood),
        "{target}: of {trials} inputs {understood} were understood"
    );
}

/// An input on trial. When it ends in a panic, it says which it was.
struct Trial<'a> {
    target: &'a str,
    of: String,
    input: &'a [u8],
}

impl Trial<'_> {
    fn run(&self, judge: &mut impl FnMut(&[u8]) -> Input) -> Input {
        let began = Instant::now();
        let outcome = judge(self.input);
        assert!(began.elapsed() < MOST_TIME, "it took {:?}", began.elapsed());
        outcome
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { target, of, input } = self;
            let shown = input[..input.len().min(4000)].escape_ascii();
            eprintln!("fuzz target {target}, {of}: {} bytes: {shown}", input.len());
        }
    }
}
