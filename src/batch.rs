//! Gathers events into batches, one for each account, region and folder of a trail.
//!
//! A batch stays open until it is old, heavy or told to close; sealed, it never changes again. It holds where its events stand
//! in the journal, not copies of them: a few bytes an event, so that ten thousand open batches fit in a few megabytes.
//! Nothing here reads a clock or a disk: callers pass `now`, so every rule can be tested as arithmetic.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::clock::Monotonic;
use crate::trail::Stream;
use crate::wal::Position;

/// When a batch is cut.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Its oldest event is this old.
    pub max_age: Duration,
    /// Its file would hold more than this, uncompressed.
    pub max_bytes: u64,
}

/// Ascending journal positions, each kept as its distance from the one before (LEB128).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions {
    encoded: Vec<u8>,
    last: Position,
    count: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the list of positions is malformed")]
pub struct MalformedPositions;

impl Positions {
    /// Adds a position above all that are in the list.
    fn push(&mut self, position: Position) {
        debug_assert!(self.count == 0 || position > self.last, "positions ascend");
        let mut distance = position.0 - self.last.0;
        while distance >= 0x80 {
            self.encoded.push((distance & 0x7f) as u8 | 0x80);
            distance >>= 7;
        }
        self.encoded.push(distance as u8);
        self.last = position;
        self.count += 1;
    }

    pub fn len(&self) -> u32 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The highest one.
    pub fn last(&self) -> Position {
        self.last
    }

    /// The form that is written to disk.
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// Reads the form written to disk; checks that the positions ascend.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MalformedPositions> {
        let mut positions = Self {
            encoded: bytes.to_vec(),
            last: Position(0),
            count: 0,
        };
        let mut last = None;
        for position in decode(bytes) {
            let position = position?;
            if last.is_some_and(|last| position <= last) {
                return Err(MalformedPositions);
            }
            last = Some(position);
            positions.count = positions.count.checked_add(1).ok_or(MalformedPositions)?;
        }
        positions.last = last.unwrap_or_default();
        Ok(positions)
    }

    pub fn iter(&self) -> impl Iterator<Item = Position> + '_ {
        decode(&self.encoded).map_while(Result::ok)
    }
}

fn decode(bytes: &[u8]) -> impl Iterator<Item = Result<Position, MalformedPositions>> + '_ {
    let mut rest = bytes.iter();
    let mut last = 0u64;
    std::iter::from_fn(move || {
        let mut distance = 0u64;
        let mut shift = 0;
        loop {
            let Some(byte) = rest.next() else {
                // An end in the middle of a number is damage; between two it is the end.
                return (shift > 0).then_some(Err(MalformedPositions));
            };
            if shift > 63 {
                return Some(Err(MalformedPositions));
            }
            distance |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        match last.checked_add(distance) {
            Some(position) => {
                last = position;
                Some(Ok(Position(position)))
            }
            None => Some(Err(MalformedPositions)),
        }
    })
}

/// A batch that takes no more events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub stream: Stream,
    /// The lowest position in it.
    pub first: Position,
    pub positions: Positions,
    /// Bytes of its events' JSON, with a comma each.
    pub json_bytes: u64,
    /// When its oldest event was accepted.
    pub since: Monotonic,
}

#[derive(Debug)]
struct Open {
    since: Monotonic,
    first: Position,
    positions: Positions,
    json_bytes: u64,
}

/// The open batches of one trail.
#[derive(Debug)]
pub struct Batches {
    limits: Limits,
    open: HashMap<Stream, Open>,
    /// The same batches by age, oldest first.
    by_age: BTreeSet<(Monotonic, Stream)>,
    /// The same batches by their lowest position.
    by_first: BTreeSet<Position>,
    /// Bytes held by the position lists.
    held_bytes: usize,
}

/// What a file's envelope adds to its events (`{"Records":[` and `]}`).
pub const ENVELOPE_BYTES: u64 = 14;

impl Batches {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: HashMap::new(),
            by_age: BTreeSet::new(),
            by_first: BTreeSet::new(),
            held_bytes: 0,
        }
    }

    /// Adds an event. When it would not fit in its stream's open batch, that one is sealed first and returned.
    /// `since` is when the event was accepted, on the monotonic clock.
    pub fn push(
        &mut self,
        stream: Stream,
        position: Position,
        json_len: usize,
        since: Monotonic,
    ) -> Option<Sealed> {
        let bytes = json_len as u64 + 1;
        let full = self
            .open
            .get(&stream)
            .is_some_and(|open| open.json_bytes + bytes + ENVELOPE_BYTES > self.limits.max_bytes);
        let sealed = if full { self.seal(&stream) } else { None };
        let open = self.open.entry(stream).or_insert_with(|| {
            self.by_age.insert((since, stream));
            self.by_first.insert(position);
            Open {
                since,
                first: position,
                positions: Positions::default(),
                json_bytes: 0,
            }
        });
        let before = open.positions.encoded.len();
        open.positions.push(position);
        open.json_bytes += bytes;
        self.held_bytes += open.positions.encoded.len() - before;
        sealed
    }

    /// When the oldest open batch becomes due.
    pub fn next_due(&self) -> Option<Monotonic> {
        self.by_age
            .first()
            .map(|(since, _)| since.saturating_add(self.limits.max_age))
    }

    /// When the oldest event in an open batch was accepted.
    pub fn oldest(&self) -> Option<Monotonic> {
        self.by_age.first().map(|(since, _)| *since)
    }

    /// Seals one batch that is due at `now`, the oldest first.
    pub fn seal_due(&mut self, now: Monotonic) -> Option<Sealed> {
        if self.next_due()? > now {
            return None;
        }
        self.seal_oldest()
    }

    /// Seals the oldest open batch.
    pub fn seal_oldest(&mut self) -> Option<Sealed> {
        let (_, stream) = *self.by_age.first()?;
        self.seal(&stream)
    }

    /// Seals the open batch with the longest list of positions: what gives back most memory.
    pub fn seal_longest(&mut self) -> Option<Sealed> {
        let (stream, _) = self
            .open
            .iter()
            .max_by_key(|(stream, open)| (open.positions.encoded.len(), **stream))?;
        let stream = *stream;
        self.seal(&stream)
    }

    fn seal(&mut self, stream: &Stream) -> Option<Sealed> {
        let Open {
            since,
            first,
            mut positions,
            json_bytes,
        } = self.open.remove(stream)?;
        self.by_age.remove(&(since, *stream));
        self.by_first.remove(&first);
        self.held_bytes -= positions.encoded.len();
        positions.encoded.shrink_to_fit();
        Some(Sealed {
            stream: *stream,
            first,
            positions,
            json_bytes,
            since,
        })
    }

    /// The lowest position in any open batch.
    pub fn lowest(&self) -> Option<Position> {
        self.by_first.first().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// About as many bytes of memory as the open batches hold.
    pub fn held_bytes(&self) -> usize {
        /// A batch in the map and in both orders.
        const BATCH_BYTES: usize = 400;
        self.held_bytes + self.open.len() * BATCH_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::tests::event;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        max_age: Duration::from_secs(60),
        max_bytes: 1000,
    };

    fn stream(region: &str) -> Stream {
        Stream::from(&event("111122223333", region))
    }

    fn seconds(seconds: u64) -> Monotonic {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_batch_is_due_when_its_oldest_event_is_old() {
        let mut batches = Batches::new(LIMITS);
        assert_eq!(batches.next_due(), None);
        batches.push(stream("us-east-1"), Position(10), 5, seconds(100));
        batches.push(stream("eu-west-1"), Position(20), 5, seconds(130));
        batches.push(stream("us-east-1"), Position(30), 5, seconds(159));
        assert_eq!(batches.next_due(), Some(seconds(160)));
        assert_eq!(batches.seal_due(seconds(159)), None);
        let sealed = batches.seal_due(seconds(160)).unwrap();
        assert_eq!(
            (
                sealed.first,
                sealed.positions.last(),
                sealed.positions.len()
            ),
            (Position(10), Position(30), 2)
        );
        assert_eq!(sealed.json_bytes, 12);
        assert_eq!(batches.lowest(), Some(Position(20)));
        assert_eq!(batches.seal_due(seconds(160)), None);
        assert!(batches.seal_due(seconds(190)).is_some());
        assert!(batches.is_empty());
        assert_eq!((batches.lowest(), batches.held_bytes()), (None, 0));
    }

    #[test]
    fn a_batch_is_sealed_before_its_file_would_be_too_heavy() {
        let mut batches = Batches::new(LIMITS);
        let fits = 1000 - ENVELOPE_BYTES as usize - 1;
        assert_eq!(
            batches.push(stream("us-east-1"), Position(1), fits - 10, seconds(0)),
            None
        );
        assert_eq!(
            batches.push(stream("us-east-1"), Position(2), 9, seconds(0)),
            None,
            "exactly full"
        );
        let sealed = batches
            .push(stream("us-east-1"), Position(3), 1, seconds(0))
            .unwrap();
        assert_eq!(
            sealed.positions.iter().collect::<Vec<_>>(),
            [Position(1), Position(2)]
        );
        assert_eq!(sealed.json_bytes + ENVELOPE_BYTES, 1000);
        assert_eq!(batches.lowest(), Some(Position(3)));
    }

    #[test]
    fn an_event_heavier_than_a_file_gets_a_file_of_its_own() {
        let mut batches = Batches::new(LIMITS);
        assert_eq!(
            batches.push(stream("us-east-1"), Position(1), 5000, seconds(0)),
            None
        );
        let sealed = batches
            .push(stream("us-east-1"), Position(2), 1, seconds(0))
            .unwrap();
        assert_eq!(sealed.positions.len(), 1);
    }

    #[test]
    fn ten_thousand_open_batches_hold_a_few_bytes_an_event() {
        let mut batches = Batches::new(Limits {
            max_bytes: 50 << 20,
            ..LIMITS
        });
        for n in 0..1_000_000u64 {
            let stream = Stream {
                region: format!("region-{}", n % 10_000).parse().unwrap(),
                ..stream("us-east-1")
            };
            batches.push(stream, Position(n * 1400), 1300, seconds(0));
        }
        assert!(batches.held_bytes() < 9_000_000, "{}", batches.held_bytes());
        assert_eq!(batches.seal_longest().unwrap().positions.len(), 100);
    }

    proptest! {
        #[test]
        fn positions_read_back_as_written(distances in proptest::collection::vec(1u64..u64::MAX / 200, 0..100)) {
            let mut positions = Positions::default();
            let mut expected = Vec::new();
            let mut at = 0;
            for distance in distances {
                at += distance;
                positions.push(Position(at));
                expected.push(Position(at));
            }
            let read = Positions::from_bytes(positions.as_bytes()).unwrap();
            prop_assert_eq!(&read, &positions);
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), expected);
        }

        #[test]
        fn hostile_position_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(positions) = Positions::from_bytes(&bytes) {
                prop_assert_eq!(positions.iter().count(), positions.len() as usize);
            }
        }
    }
}
