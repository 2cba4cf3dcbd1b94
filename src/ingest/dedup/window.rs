//! The last fingerprints, first in, first out.
//!
//! A ring holds them in the order they came, a table finds the place in the ring: 16 bytes and some 5 to 10 for each. A place is numbered
//! for ever (the first event ever remembered is number 0), so that taking one back can never touch another that came into its slot since.

use hashbrown::HashTable;

use crate::event::{Record, Secret};

pub type Fingerprint = [u8; 16];

/// The fingerprints of the last `capacity` events, and the secret they are made with.
pub struct Window {
    secret: Secret,
    capacity: usize,
    /// Slot `number % capacity`; grows until there are `capacity`.
    ring: Vec<Fingerprint>,
    /// Slots whose fingerprint counts. A slot taken back is in the ring only.
    table: HashTable<u32>,
    /// The number the next one gets.
    next: u64,
}

/// What the window says to a fingerprint. Both carry the number of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Not seen before; it is remembered now.
    New(u64),
    Seen(u64),
}

impl Window {
    pub fn new(secret: Secret, capacity: usize) -> Self {
        let capacity = capacity.min(u32::MAX as usize);
        Self {
            secret,
            capacity,
            ring: Vec::new(),
            table: HashTable::new(),
            next: 0,
        }
    }

    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Takes note of a frame of the journal, as opening the journal shows it. A frame that is no event is none of the window's business.
    pub fn remember_frame(&mut self, frame: &[u8]) {
        if let Ok(record) = Record::decode(frame) {
            self.claim(record.meta.fingerprint);
        }
    }

    /// The number the next new fingerprint gets.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Fingerprints that count.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Looks `fingerprint` up and remembers it when it is new, forgetting the oldest if need be.
    pub fn claim(&mut self, fingerprint: Fingerprint) -> Claim {
        let number = self.next;
        if self.capacity == 0 {
            self.next += 1;
            return Claim::New(number);
        }
        let found = self.table.find(hash(&fingerprint), |slot| {
            self.ring[*slot as usize] == fingerprint
        });
        if let Some(slot) = found {
            return Claim::Seen(self.number_of(*slot));
        }
        self.next += 1;
        let slot = self.slot_of(number);
        if slot as usize == self.ring.len() {
            self.grow();
            self.ring.push(fingerprint);
        } else {
            self.drop_slot(slot);
            self.ring[slot as usize] = fingerprint;
        }
        let ring = &self.ring;
        self.table
            .insert_unique(hash(&fingerprint), slot, |slot| hash(&ring[*slot as usize]));
        Claim::New(number)
    }

    /// Forgets what was remembered as `number`, whose event was not stored after all.
    pub fn take_back(&mut self, number: u64) {
        let held = number < self.next && self.next - number <= self.ring.len() as u64;
        if held {
            self.drop_slot(self.slot_of(number));
        }
    }

    fn slot_of(&self, number: u64) -> u32 {
        u32::try_from(number % self.capacity as u64).expect("slot: below the capacity, which fits")
    }

    /// The number that the newest occupant of `slot` has.
    fn number_of(&self, slot: u32) -> u64 {
        let capacity = self.capacity as u64;
        let newest = self.next - 1;
        newest - (newest + capacity - u64::from(slot)) % capacity
    }

    fn drop_slot(&mut self, slot: u32) {
        let fingerprint = self.ring[slot as usize];
        if let Ok(entry) = self
            .table
            .find_entry(hash(&fingerprint), |other| *other == slot)
        {
            entry.remove();
        }
    }

    /// Doubles the ring, but never beyond what it will hold.
    fn grow(&mut self) {
        if self.ring.len() == self.ring.capacity() {
            let room = (self.ring.len() * 2)
                .clamp(1024, self.capacity.max(1024))
                .min(self.capacity);
            self.ring.reserve_exact(room - self.ring.len());
        }
    }
}

/// Fingerprints are hashes under a secret, or random: any eight bytes of them will do.
fn hash(fingerprint: &Fingerprint) -> u64 {
    let [first @ .., _, _, _, _, _, _, _, _] = *fingerprint;
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn window(capacity: usize) -> Window {
        Window::new(Secret::new([0; 192]), capacity)
    }

    fn fingerprint(n: u32) -> Fingerprint {
        xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()).to_le_bytes()
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut window = window(3);
        for n in 0..3 {
            assert_eq!(window.claim(fingerprint(n)), Claim::New(u64::from(n)));
        }
        assert_eq!(window.claim(fingerprint(0)), Claim::Seen(0));
        assert_eq!(window.claim(fingerprint(3)), Claim::New(3));
        assert_eq!(window.claim(fingerprint(2)), Claim::Seen(2));
        assert_eq!(window.claim(fingerprint(0)), Claim::New(4));
        assert_eq!(window.len(), 3);
    }

    #[test]
    fn a_place_taken_back_is_free_again_and_harms_no_later_one() {
        let mut window = window(3);
        window.claim(fingerprint(0));
        window.take_back(0);
        assert!(window.is_empty());
        assert_eq!(window.claim(fingerprint(0)), Claim::New(1));
        window.take_back(0);
        assert_eq!(window.claim(fingerprint(0)), Claim::Seen(1));
        // Slot 0 is used anew by number 3: what stood there was taken back, number 1 with the same fingerprint stays.
        window.claim(fingerprint(2));
        window.claim(fingerprint(3));
        assert_eq!(window.claim(fingerprint(0)), Claim::Seen(1));
        window.take_back(99);
        window.take_back(0);
        assert_eq!(window.len(), 3);
    }

    #[test]
    fn a_window_of_nothing_remembers_nothing() {
        let mut window = window(0);
        assert_eq!(window.claim(fingerprint(0)), Claim::New(0));
        assert_eq!(window.claim(fingerprint(0)), Claim::New(1));
        window.take_back(0);
    }

    #[test]
    fn memory_is_at_most_forty_bytes_an_event() {
        let capacity = 1_000_000;
        let mut window = window(capacity);
        for n in 0..1_200_000 {
            window.claim(fingerprint(n));
        }
        assert_eq!(window.len(), capacity);
        let bytes = window.ring.capacity() * 16 + window.table.allocation_size();
        assert!(bytes <= 40 * capacity, "{bytes}");
    }

    proptest! {
        #[test]
        fn behaves_like_a_plain_queue(capacity in 1usize..12, steps in prop::collection::vec((0u32..20, any::<bool>()), 0..200)) {
            let mut window = window(capacity);
            // Number, fingerprint, whether it counts.
            let mut model: VecDeque<(u64, u32, bool)> = VecDeque::new();
            let mut next = 0;
            for (n, take_back) in steps {
                let known = model.iter().find(|(_, other, counts)| *counts && *other == n).map(|(number, ..)| *number);
                let claim = window.claim(fingerprint(n));
                prop_assert_eq!(claim, known.map_or(Claim::New(next), Claim::Seen));
                if known.is_none() {
                    model.push_back((next, n, true));
                    next += 1;
                    if model.len() > capacity {
                        model.pop_front();
                    }
                }
                if take_back {
                    let number = u64::from(n) % (next + 1);
                    window.take_back(number);
                    model.iter_mut().filter(|place| place.0 == number).for_each(|place| place.2 = false);
                }
                prop_assert_eq!(window.len(), model.iter().filter(|place| place.2).count());
            }
        }
    }
}
