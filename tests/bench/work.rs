//! The work: seeded CloudTrail-like events, posted as NDJSON bodies.
//!
//! Each event is one of the corpus with its own identity: account, region, time, eventID, and everything in it that
//! looks like an identifier and is rare in the corpus are made anew; access keys and principals come from a small pool,
//! as users do. So the events compress about as real ones do, and no two are equal.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const SHORTEST: usize = 1_200;
const LONGEST: usize = 1_500;
const USERS: u64 = 200;
const REGIONS: [&str; 4] = ["us-east-1", "eu-central-1", "ap-southeast-2", "sa-east-1"];

pub struct Work {
    /// NDJSON, as posted.
    pub bodies: Vec<Vec<u8>>,
    /// Where each event lies: body, bytes within it, and its account × region pair.
    pub events: Vec<Event>,
    pub pairs: usize,
}

pub struct Event {
    body: usize,
    range: Range<usize>,
    pair: usize,
}

impl Work {
    pub fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.range.len()).sum()
    }

    /// The events of each pair one after another, as log files of at most `max_bytes` would hold them.
    pub fn files(&self, max_bytes: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut by_pair: Vec<Vec<&Event>> = Vec::new();
        by_pair.resize_with(self.pairs, Vec::new);
        for event in &self.events {
            by_pair[event.pair].push(event);
        }
        by_pair.into_iter().flat_map(move |events| {
            let mut files = Vec::new();
            let mut file = Vec::new();
            for event in events {
                let bytes = &self.bodies[event.body][event.range.clone()];
                if !file.is_empty() && file.len() + bytes.len() + 3 > max_bytes {
                    files.push(finish(std::mem::take(&mut file)));
                }
                file.extend_from_slice(if file.is_empty() {
                    br#"{"Records":["#
                } else {
                    b","
                });
                file.extend_from_slice(bytes);
            }
            if !file.is_empty() {
                files.push(finish(file));
            }
            files
        })
    }
}

fn finish(mut file: Vec<u8>) -> Vec<u8> {
    file.extend_from_slice(b"]}");
    file
}

/// SplitMix64: small, seeded, and good enough to choose and to fill.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Clone, Copy)]
enum Slot {
    Account,
    Region,
    Time,
    EventId,
    /// Made anew for each event.
    Fresh,
    /// The same for each event of one user.
    User,
}

/// An event of the corpus, cut where something is replaced.
struct Template {
    bytes: Vec<u8>,
    slots: Vec<(Range<usize>, Slot)>,
}

/// Whose events: few pairs have real region names, many have invented ones.
pub fn make(
    corpus: &Path,
    seed: u64,
    events: usize,
    per_body: usize,
    pairs: usize,
) -> Result<Work> {
    let templates = templates(corpus)?;
    let mut rng = Rng::new(seed);
    let regions_per_account = (pairs as f64).sqrt().round() as usize;
    ensure!(
        regions_per_account * regions_per_account == pairs,
        "the number of pairs must be a square"
    );
    let region_name = |index: usize| match REGIONS.get(index) {
        Some(name) if regions_per_account <= REGIONS.len() => (*name).to_owned(),
        _ => format!("bench-region-{index}"),
    };
    let names: Vec<(String, String)> = (0..pairs)
        .map(|pair| {
            (
                format!("{:012}", 100_000_000_000 + pair / regions_per_account),
                region_name(pair % regions_per_account),
            )
        })
        .collect();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .context("the clock is before 1970")?;
    let mut work = Work {
        bodies: Vec::new(),
        events: Vec::with_capacity(events),
        pairs,
    };
    let mut body = Vec::new();
    for number in 0..events {
        let pair = rng.below(pairs as u64) as usize;
        let template = &templates[rng.below(templates.len() as u64) as usize];
        let (account, region) = &names[pair];
        let start = body.len();
        template.write(
            &mut body,
            account,
            region,
            now.as_secs() - 600 + (number as u64) % 600,
            &mut rng,
        );
        work.events.push(Event {
            body: work.bodies.len(),
            range: start..body.len(),
            pair,
        });
        body.push(b'\n');
        if (number + 1) % per_body == 0 || number + 1 == events {
            work.bodies.push(std::mem::take(&mut body));
        }
    }
    Ok(work)
}

impl Template {
    fn write(&self, out: &mut Vec<u8>, account: &str, region: &str, seconds: u64, rng: &mut Rng) {
        let user = rng.below(USERS);
        let mut at = 0;
        for (range, slot) in &self.slots {
            out.extend_from_slice(&self.bytes[at..range.start]);
            let given = &self.bytes[range.clone()];
            match slot {
                Slot::Account => out.extend_from_slice(account.as_bytes()),
                Slot::Region => out.extend_from_slice(region.as_bytes()),
                Slot::Time => out.extend_from_slice(rfc3339(seconds).as_bytes()),
                Slot::EventId => {
                    let id = uuid::Uuid::from_u64_pair(rng.next(), rng.next());
                    out.extend_from_slice(
                        id.hyphenated()
                            .encode_lower(&mut uuid::Uuid::encode_buffer())
                            .as_bytes(),
                    );
                }
                Slot::Fresh => alike(given, rng, out),
                Slot::User => alike(given, &mut Rng::new(user * 1_000 + given.len() as u64), out),
            }
            at = range.end;
        }
        out.extend_from_slice(&self.bytes[at..]);
    }
}

/// Other characters of the same kinds: a hexadecimal number stays one, a key id keeps its first four letters.
fn alike(given: &[u8], rng: &mut Rng, out: &mut Vec<u8>) {
    let hex = given
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    for (index, byte) in given.iter().enumerate() {
        out.push(match byte {
            b'A'..=b'Z' if index < 4 => *byte,
            b'0'..=b'9' | b'a'..=b'f' if hex => b"0123456789abcdef"[rng.below(16) as usize],
            b'0'..=b'9' => b'0' + rng.below(10) as u8,
            b'a'..=b'z' => b'a' + rng.below(26) as u8,
            b'A'..=b'Z' => b'A' + rng.below(26) as u8,
            other => *other,
        });
    }
}

fn rfc3339(seconds: u64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(seconds as i64)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (at.date(), at.time());
    format!(
        "{date}T{:02}:{:02}:{:02}Z",
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}

fn templates(corpus: &Path) -> Result<Vec<Template>> {
    let file =
        std::fs::File::open(corpus).with_context(|| format!("cannot open {}", corpus.display()))?;
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut text)
        .with_context(|| format!("cannot read {}", corpus.display()))?;
    let lines: Vec<&[u8]> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    let mut seen: HashMap<&[u8], u32> = HashMap::new();
    for line in &lines {
        for word in words(line) {
            *seen.entry(&line[word]).or_default() += 1;
        }
    }
    let mut templates = Vec::new();
    for line in lines
        .into_iter()
        .filter(|line| (SHORTEST..=LONGEST).contains(&line.len()))
    {
        // Delivered events are counted by their "eventID".
        if memchr::memmem::find_iter(line, b"\"eventID\":").count() != 1 {
            continue;
        }
        let event: serde_json::Value = serde_json::from_slice(line)?;
        let text_of = |key: &str| event[key].as_str().unwrap_or("\0").as_bytes().to_vec();
        let (id, region, time) = (
            text_of("eventID"),
            text_of("awsRegion"),
            text_of("eventTime"),
        );
        let account = text_of("recipientAccountId");
        let time_at = memchr::memmem::find(line, &time).context("an event without its time")?;
        let mut slots = vec![(time_at..time_at + time.len(), Slot::Time)];
        for range in words(line) {
            let word = &line[range.clone()];
            let slot = match word {
                _ if word == id => Slot::EventId,
                _ if word == account => Slot::Account,
                _ if word == region => Slot::Region,
                _ if word.len() >= 16
                    && word.starts_with(b"A")
                    && word[..4].iter().all(u8::is_ascii_uppercase) =>
                {
                    Slot::User
                }
                _ if seen[word] <= 2 && is_identifier(word) => Slot::Fresh,
                _ => continue,
            };
            if range.end <= time_at || range.start >= time_at + time.len() {
                slots.push((range, slot));
            }
        }
        slots.sort_by_key(|(range, _)| range.start);
        templates.push(Template {
            bytes: line.to_vec(),
            slots,
        });
    }
    ensure!(
        templates.len() >= 100,
        "only {} events of the corpus have the wanted size",
        templates.len()
    );
    Ok(templates)
}

fn is_identifier(word: &[u8]) -> bool {
    word.len() >= 16
        && word.iter().any(u8::is_ascii_digit)
        && word.iter().any(u8::is_ascii_alphabetic)
}

fn words(line: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let in_word =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-');
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + line[at..].iter().position(|byte| in_word(*byte))?;
        let end = line[start..]
            .iter()
            .position(|byte| !in_word(*byte))
            .map_or(line.len(), |len| start + len);
        at = end;
        Some(start..end)
    })
}
