//! The trails that share an event bus: what each leg leaves to the others, agreed on and written down before any of them runs.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::deliver::bus::Earlier;
use crate::deliver::bus::sharing::{revise, selection};
use crate::deliver::memory::{self, Memory, MemoryFile, Recalled};
use crate::deliver::view::Sink;
use crate::event::AccountId;
use crate::trail::Trail;
use crate::wal::Position;

/// The legs that share their bus with legs before them, by their trails' ARNs.
#[derive(Debug, Default)]
pub struct Buses {
    shared: HashMap<String, Shared>,
}

/// What a leg shares.
#[derive(Debug, Default)]
pub struct Shared {
    pub earlier: Vec<Earlier>,
    /// The leg has no place yet.
    new: Option<NewLeg>,
}

#[derive(Debug)]
struct NewLeg {
    file: MemoryFile,
    memory: Memory,
    /// Where it must begin, having lost its place.
    lost: Option<Position>,
}

impl Buses {
    /// What the legs of `trails`, in their order, leave to one another from now on. `home` is where buses are that have no ARN, `journal`
    /// what the journal holds. Blocking; no leg may run yet.
    pub fn agree(
        cursors: &Path,
        trails: &[Arc<Trail>],
        home: (&str, AccountId),
        journal: Range<Position>,
    ) -> io::Result<Self> {
        let memories = memories(cursors)?;
        let mut shared = HashMap::new();
        for (index, trail) in trails.iter().enumerate() {
            let Some(bus) = &trail.event_bus else {
                continue;
            };
            let shares = |other: &&Arc<Trail>| {
                let others = other.event_bus.as_ref();
                others.is_some_and(|others| others.is_same(bus, home))
            };
            let earlier: Vec<_> = trails[..index].iter().filter(shares).cloned().collect();
            let agreed = agree(cursors, trail, earlier, &memories, journal.clone())?;
            shared.insert(trail.arn(), agreed);
        }
        Ok(Self { shared })
    }

    /// What the leg of this trail shares.
    pub fn take(&mut self, trail: &Trail) -> Shared {
        self.shared.remove(&trail.arn()).unwrap_or_default()
    }
}

impl Shared {
    /// Remembers what is shared for a leg that is new, and begins at `new_from`. Blocking.
    pub fn begin(&self, new_from: Position) -> io::Result<()> {
        let Some(NewLeg { file, memory, lost }) = &self.new else {
            return Ok(());
        };
        let next = lost.unwrap_or(new_from).0;
        tracing::info!(trail = memory.trail, sink = %Sink::Bus, from = next, "new leg");
        file.write(&Memory {
            next,
            ..memory.clone()
        })
    }
}

/// What the legs to buses remember, by their trails' ARNs.
fn memories(cursors: &Path) -> io::Result<BTreeMap<String, Memory>> {
    let mut memories = BTreeMap::new();
    for found in memory::files(cursors)? {
        if found.is_to(Sink::Bus)
            && let Recalled::Memory(memory) = found.file.read()
        {
            memories.insert(memory.trail.clone(), memory);
        }
    }
    Ok(memories)
}

fn agree(
    cursors: &Path,
    trail: &Trail,
    earlier: Vec<Arc<Trail>>,
    memories: &BTreeMap<String, Memory>,
    journal: Range<Position>,
) -> io::Result<Shared> {
    let arn = trail.arn();
    let file = MemoryFile::new(cursors, trail.name.as_str(), Sink::Bus.as_str());
    let remembered = memories.get(&arn);
    let selections = earlier.iter().map(|other| (other.arn(), selection(other)));
    let start = journal.start;
    let new = || Memory {
        trail: arn.clone(),
        ..Memory::default()
    };
    let before = remembered.cloned().unwrap_or_else(new);
    let after = revise(&before, &selections.collect(), memories, journal);
    let since = |trail: &Arc<Trail>| {
        after
            .earlier
            .get(&trail.arn())
            .map(|left| Position(left.since))
    };
    let shared = earlier.iter().filter_map(|trail| {
        Some(Earlier {
            trail: trail.clone(),
            since: since(trail)?,
        })
    });
    let earlier: Vec<_> = shared.collect();
    if remembered.is_some() {
        if after != before {
            tracing::info!(
                trail = %trail.name, sink = %Sink::Bus, was_at = before.next, goes_on_at = after.next,
                "trails before this one on its event bus have changed; events may be sent twice, so that each is sent"
            );
            file.write(&after)?;
        }
        return Ok(Shared { earlier, new: None });
    }
    if earlier.is_empty() {
        return Ok(Shared::default());
    }
    let lost = (file.read() == Recalled::Damaged).then_some(start);
    if lost.is_some() {
        tracing::error!(
            trail = %trail.name, sink = %Sink::Bus,
            "place of this leg cannot be read: it sends all again that the log still holds"
        );
    }
    let new = Some(NewLeg {
        file,
        memory: after,
        lost,
    });
    Ok(Shared { earlier, new })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::tests::trail;

    fn named(name: &str, bus: &str) -> Arc<Trail> {
        Arc::new(Trail {
            name: name.parse().unwrap(),
            event_bus: Some(bus.parse().unwrap()),
            ..trail()
        })
    }

    struct Cursors(tempfile::TempDir);

    impl Cursors {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self, trail: &str) -> MemoryFile {
            MemoryFile::new(self.0.path(), trail, "bus")
        }

        fn next(&self, trail: &str) -> u64 {
            match self.file(trail).read() {
                Recalled::Memory(memory) => memory.next,
                other => panic!("{other:?}"),
            }
        }

        fn moves(&self, trail: &str, next: u64) {
            let Recalled::Memory(memory) = self.file(trail).read() else {
                panic!("{trail} has no memory");
            };
            self.file(trail).write(&Memory { next, ..memory }).unwrap();
        }

        /// Starts legs with the journal's end here; answers whom each leaves events to, from where on.
        fn start(&self, trails: &[Arc<Trail>], end: u64) -> Vec<Vec<(String, u64)>> {
            let home = ("us-east-1", trail().home_account);
            let journal = Position(10)..Position(end);
            let mut buses = Buses::agree(self.0.path(), trails, home, journal).unwrap();
            let start = |trail: &Arc<Trail>| {
                let shared = buses.take(trail);
                shared.begin(Position(end)).unwrap();
                if self.file(trail.name.as_str()).read() == Recalled::Nothing {
                    // As the leg does that shares with none before it.
                    let memory = Memory {
                        trail: trail.arn(),
                        next: end,
                        ..Memory::default()
                    };
                    self.file(trail.name.as_str()).write(&memory).unwrap();
                }
                let earlier = shared.earlier.iter();
                earlier
                    .map(|earlier| (earlier.trail.name.to_string(), earlier.since.0))
                    .collect()
            };
            trails.iter().map(start).collect()
        }
    }

    fn to<const N: usize>(of: [(&str, u64); N]) -> Vec<(String, u64)> {
        of.map(|(name, since)| (name.to_owned(), since)).into()
    }

    #[test]
    fn trails_of_one_bus_however_it_is_spelled_leave_events_to_those_before_them() {
        let arn = "arn:aws:events:us-east-1:111122223333:event-bus/default";
        let trails = [
            named("one", "default"),
            named("two", "audit"),
            named("three", arn),
        ];
        let cursors = Cursors::new();
        let shared = [to([]), to([]), to([("one", 100)])];
        assert_eq!(cursors.start(&trails, 100), shared);
        cursors.moves("one", 150);
        cursors.moves("three", 170);
        assert_eq!(cursors.start(&trails, 200), shared, "nothing has changed");
        assert_eq!((cursors.next("one"), cursors.next("three")), (150, 170));
    }

    #[test]
    fn what_waited_for_a_trail_is_sent_by_another_when_it_is_taken_out_and_when_they_change_places()
    {
        let [one, two] = ["one", "two"].map(|name| named(name, "default"));
        for then in [vec![two.clone()], vec![two.clone(), one.clone()]] {
            let cursors = Cursors::new();
            cursors.start(&[one.clone(), two.clone()], 100);
            cursors.moves("one", 120);
            cursors.moves("two", 300);
            let shared = cursors.start(&then, 400);
            assert_eq!(shared[0], to([]));
            assert_eq!(cursors.next("two"), 120);
            assert_eq!(cursors.next("one"), 120);
            if then.len() > 1 {
                assert_eq!(shared[1], to([("two", 400)]));
            }
        }
    }

    #[test]
    fn a_trail_that_is_put_first_leaves_the_others_what_they_had_not_sent() {
        let [one, two] = ["one", "two"].map(|name| named(name, "default"));
        let cursors = Cursors::new();
        cursors.start(std::slice::from_ref(&two), 100);
        let shared = cursors.start(&[one.clone(), two.clone()], 400);
        assert_eq!(shared, [to([]), to([("one", 400)])]);
        assert_eq!((cursors.next("one"), cursors.next("two")), (400, 100));
        // Started again, it is as it was.
        assert_eq!(cursors.start(&[one, two], 500), shared);
    }

    #[test]
    fn a_leg_whose_place_is_damaged_begins_where_the_journal_does() {
        let [one, two] = ["one", "two"].map(|name| named(name, "default"));
        let cursors = Cursors::new();
        cursors.start(&[one.clone(), two.clone()], 100);
        std::fs::write(cursors.0.path().join("two.bus.json"), b"?").unwrap();
        let shared = cursors.start(&[one, two], 400);
        assert_eq!(shared, [to([]), to([("one", 400)])]);
        assert_eq!(cursors.next("two"), 10);
    }
}
