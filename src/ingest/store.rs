//! Stores checked events once: what was seen before is a duplicate, the rest is appended, and both are said only when durable.
//!
//! Looking an event up, remembering it and enqueueing it happen under one lock, so that of two identical requests at the same time one
//! stores and the other finds it. The other must not answer before the first is durable, so it waits for the first's outcome; when that
//! append is refused, its events are forgotten again and the other takes its own turn. The outcome is settled by a task of its own: a
//! sender that hangs up changes nothing about what is remembered.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

use super::dedup::{Claim, Window};
use crate::clock::WallMillis;
use crate::event::fill::Filling;
use crate::event::{Checked, Secret};
use crate::wal::{Admitted, AppendError, Batch, FRAME_HEADER_BYTES, Permit, Wal};

/// A checked event with its name in the window.
pub struct Ready<'a> {
    event: Checked<'a>,
    /// For an event without an eventID this is also the one it is given.
    fingerprint: [u8; 16],
}

impl<'a> Ready<'a> {
    /// `id` is for an event that came without one.
    pub fn new(event: Checked<'a>, secret: &Secret, id: impl FnOnce(&[u8]) -> Uuid) -> Self {
        let fingerprint = if event.has_event_id() {
            secret.fingerprint(&event.account, &event.region, event.given)
        } else {
            *id(event.given).as_bytes()
        };
        Self { event, fingerprint }
    }

    /// No fewer bytes than it takes in the journal.
    fn most_bytes(&self, stamp: &Stamp<'_>) -> usize {
        FRAME_HEADER_BYTES
            + self
                .event
                .meta(stamp.accepted_at, self.fingerprint)
                .encoded_len()
            + self.event.most_bytes(stamp.source_address)
    }
}

/// What all events of a request have in common.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    pub accepted_at: WallMillis,
    /// For events without `sourceIPAddress`.
    pub source_address: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    pub accepted: usize,
    pub duplicates: usize,
}

/// The journal behind the memory of what went in.
#[derive(Clone)]
pub struct Store {
    wal: Wal,
    memory: Arc<Mutex<Memory>>,
}

struct Memory {
    window: Window,
    /// Appends whose outcome is not known yet, in the order they were enqueued.
    in_flight: VecDeque<InFlight>,
}

struct InFlight {
    /// Places in the window.
    numbers: Range<u64>,
    outcome: Outcome,
}

/// Resolves when an append is durable or refused.
type Outcome = watch::Receiver<Option<Result<(), AppendError>>>;

/// What one turn under the lock brought about.
struct Turn<'e, 'a> {
    accepted: usize,
    /// Events that are in the journal already, or stand twice in this turn.
    duplicates: usize,
    /// Of this turn's append, if there was anything to append.
    own: Option<Outcome>,
    /// Events that others are about to store.
    others: Vec<(Outcome, Vec<&'e Ready<'a>>)>,
}

impl Store {
    pub fn new(wal: Wal, window: Window) -> Self {
        Self {
            wal,
            memory: Arc::new(Mutex::new(Memory {
                window,
                in_flight: VecDeque::new(),
            })),
        }
    }

    /// At least as many bytes as `events` take in the journal.
    pub fn most_bytes(events: &[Ready<'_>], stamp: &Stamp<'_>) -> usize {
        events.iter().map(|event| event.most_bytes(stamp)).sum()
    }

    /// Stores `events`; resolves when all of them are durable, now or before. All that is new goes to the journal as one batch, so that
    /// an error means that nothing was stored: unless some of the events were being stored by another sender whose append was then
    /// refused. Those take a second turn, and an error of that one leaves stored what the first has stored; sent again, it is a duplicate.
    pub async fn store(
        &self,
        events: &[Ready<'_>],
        stamp: Stamp<'_>,
    ) -> Result<Stored, AppendError> {
        let mut stored = Stored::default();
        let mut open: Vec<&Ready<'_>> = events.iter().collect();
        while !open.is_empty() {
            let most_bytes = open.iter().map(|event| event.most_bytes(&stamp)).sum();
            let permit = self.wal.reserve(most_bytes).await?;
            // Encoded before the lock is taken, on the bet that most batches hold nothing old.
            let batch = encode(open.iter().copied(), most_bytes, stamp);
            let turn = self.take_turn(permit, batch, &open, stamp);
            if let Some(own) = turn.own {
                settled(own).await?;
            }
            stored.accepted += turn.accepted;
            stored.duplicates += turn.duplicates;
            open.clear();
            for (outcome, events) in turn.others {
                match settled(outcome).await {
                    Ok(()) => stored.duplicates += events.len(),
                    Err(_) => open.extend(events),
                }
            }
        }
        Ok(stored)
    }

    /// Room in the journal for so many bytes, headers included.
    pub fn admit(&self, bytes: usize) -> Result<Admitted, AppendError> {
        self.wal.admit(bytes)
    }

    /// Stores a new event where there is room for it already; resolves when it is durable.
    pub async fn store_in(
        &self,
        admitted: Admitted,
        event: &Ready<'_>,
        stamp: Stamp<'_>,
    ) -> Result<Stored, AppendError> {
        let most_bytes = event.most_bytes(&stamp);
        let permit = admitted.permit(most_bytes).await?;
        let batch = encode(std::iter::once(event), most_bytes, stamp);
        let turn = self.take_turn(permit, batch, &[event], stamp);
        if let Some(own) = turn.own {
            settled(own).await?;
        }
        Ok(Stored {
            accepted: turn.accepted,
            duplicates: turn.duplicates,
        })
    }

    /// Looks up, remembers and enqueues, all under the lock. `batch` is what is enqueued when all of `events` are new.
    fn take_turn<'e, 'a>(
        &self,
        permit: Permit,
        batch: Batch,
        events: &[&'e Ready<'a>],
        stamp: Stamp<'_>,
    ) -> Turn<'e, 'a> {
        let mut memory = lock(&self.memory);
        let first = memory.window.next_number();
        let mut turn = Turn {
            accepted: 0,
            duplicates: 0,
            own: None,
            others: Vec::new(),
        };
        // In-flight appends that hold events of this turn, by their first number.
        let mut other_starts: Vec<u64> = Vec::new();
        let mut new = Vec::with_capacity(events.len());
        for event in events.iter().copied() {
            match memory.window.claim(event.fingerprint) {
                Claim::New(_) => new.push(event),
                Claim::Seen(number) if number >= first => turn.duplicates += 1,
                Claim::Seen(number) => match memory
                    .in_flight
                    .iter()
                    .find(|other| other.numbers.contains(&number))
                {
                    None => turn.duplicates += 1,
                    Some(other) => match other_starts
                        .iter()
                        .position(|start| *start == other.numbers.start)
                    {
                        Some(at) => turn.others[at].1.push(event),
                        None => {
                            other_starts.push(other.numbers.start);
                            turn.others.push((other.outcome.clone(), vec![event]));
                        }
                    },
                },
            }
        }
        if new.is_empty() {
            return turn;
        }
        turn.accepted = new.len();
        let batch = if new.len() == events.len() {
            batch
        } else {
            let bytes = batch.bytes();
            // Never two of them in memory.
            drop(batch);
            encode(new.into_iter(), bytes, stamp)
        };
        let (settle, outcome) = watch::channel(None);
        let appending = permit.append(batch);
        let numbers = first..memory.window.next_number();
        memory.in_flight.push_back(InFlight {
            numbers: numbers.clone(),
            outcome: outcome.clone(),
        });
        drop(memory);
        let memory = Arc::clone(&self.memory);
        tokio::spawn(async move {
            let result = appending.await.map(|_| ());
            lock(&memory).settle(&numbers, result.is_ok());
            settle.send_replace(Some(result));
        });
        turn.own = Some(outcome);
        turn
    }
}

impl Memory {
    fn settle(&mut self, numbers: &Range<u64>, durable: bool) {
        self.in_flight
            .retain(|append| append.numbers.start != numbers.start);
        if !durable {
            for number in numbers.clone() {
                self.window.take_back(number);
            }
        }
    }
}

/// Locks the memory, whose content is whole between any two statements, so that a panic elsewhere does not matter.
fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn settled(mut outcome: Outcome) -> Result<(), AppendError> {
    match outcome.wait_for(Option::is_some).await {
        Ok(result) => result.clone().unwrap_or(Err(AppendError::Closed)),
        // The settling task is gone, with the runtime it ran on.
        Err(_) => Err(AppendError::Closed),
    }
}

/// The journal's records of `events`.
fn encode<'e, 'a: 'e>(
    events: impl Iterator<Item = &'e Ready<'a>>,
    bytes: usize,
    stamp: Stamp<'_>,
) -> Batch {
    let Stamp {
        accepted_at,
        source_address,
    } = stamp;
    let mut batch = Batch::with_capacity(bytes);
    for Ready { event, fingerprint } in events {
        batch.push_with(|out| {
            event.meta(accepted_at, *fingerprint).encode(out);
            event.write(
                out,
                Filling {
                    event_id: Uuid::from_bytes(*fingerprint),
                    source_address,
                },
            );
        });
    }
    batch
}
