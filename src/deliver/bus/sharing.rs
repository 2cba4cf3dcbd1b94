//! Trails that send to one bus: which of them sends an event that several select, and from where on in the journal that holds.
//!
//! The first of them sends it; the legs of the others leave it. A leg may leave an event only if the leg before it reads that event, and selects
//! it. So each leg remembers from where on it has left events to whom, and by which selection that one chose. When the trails change, a leg
//! goes back to what nobody may have sent:
//!
//! | a trail before this one | is left events | and this leg |
//! |---|---|---|
//! | is as it was | from where it was | stays where it is |
//! | is new there | from the end of the journal on | stays where it is |
//! | has another selection, or lost its place | from the end of the journal on | goes back to where the other one was |
//! | is gone, or comes after it now | never | goes back to where the other one was |
//!
//! So a change may send events twice, never not at all. Nothing here reads a file.

use std::collections::BTreeMap;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_128;

use crate::deliver::memory::{Left, Memory};
use crate::trail::Trail;
use crate::wal::Position;

/// Tells apart what trails choose: 32 hex digits of all that decides it.
pub fn selection(trail: &Trail) -> String {
    let Trail {
        name: _,
        home_account,
        home_region,
        accounts,
        is_multi_region,
        include_global_service_events,
        bucket: _,
        prefix: _,
        kms_key_id: _,
        topic: _,
        log_group: _,
        event_bus: _,
        // Of its log files only.
        log_file_validation: _,
        // Says of each position by itself what it takes, and changes it for none that is past.
        logging: _,
        selectors,
    } = trail;
    let decides = format!(
        "{home_account} {home_region} {accounts:?} {is_multi_region} {include_global_service_events} {selectors:?}"
    );
    format!("{:032x}", xxh3_128(decides.as_bytes()))
}

/// The memory of a leg as it must be before the leg runs on. `earlier` are the trails before its own on the same bus, and `others` what the
/// legs to buses remember, of trails that are gone, too; both by the trail's ARN. `journal` is what the journal holds, before anything new.
pub fn revise(
    memory: &Memory,
    earlier: &BTreeMap<String, String>,
    others: &BTreeMap<String, Memory>,
    journal: Range<Position>,
) -> Memory {
    let stays = |arn: &String, left: &Left| {
        earlier.get(arn) == Some(&left.selection) && others.contains_key(arn)
    };
    let left = earlier.iter().map(|(arn, selection)| {
        let kept = memory.earlier.get(arn).filter(|left| stays(arn, left));
        let new = || Left {
            since: journal.end.0,
            selection: selection.clone(),
        };
        (arn.clone(), kept.cloned().unwrap_or_else(new))
    });
    let unsent = memory
        .earlier
        .iter()
        .filter(|(arn, left)| !stays(arn, left));
    let unsent = unsent.map(|(arn, left)| {
        let reached = others.get(arn).map_or(0, |other| other.next);
        reached.max(left.since).max(journal.start.0)
    });
    Memory {
        earlier: left.collect(),
        // What is settled beyond stays settled: only what this leg has sent itself is.
        next: unsent.fold(memory.next, u64::min),
        ..memory.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::Accounts;
    use crate::trail::tests::trail;

    const JOURNAL: Range<Position> = Position(50)..Position(1000);

    fn left<const N: usize>(of: [(&str, u64, &str); N]) -> BTreeMap<String, Left> {
        let left = |(arn, since, selection): (&str, u64, &str)| {
            let selection = selection.to_owned();
            (arn.to_owned(), Left { since, selection })
        };
        of.map(left).into()
    }

    fn at<const N: usize>(next: u64, earlier: [(&str, u64, &str); N]) -> Memory {
        Memory {
            trail: "this".into(),
            introduced_to: Some("bus".into()),
            next,
            settled: [(900, 0)].into(),
            delivered: 7,
            earlier: left(earlier),
            ..Memory::default()
        }
    }

    fn revised<const N: usize, const M: usize>(
        memory: &Memory,
        earlier: [(&str, &str); N],
        others: [(&str, u64); M],
    ) -> Memory {
        let earlier = earlier.map(|(arn, selection)| (arn.to_owned(), selection.to_owned()));
        let others = others.map(|(arn, next)| (arn.to_owned(), at(next, [])));
        revise(memory, &earlier.into(), &others.into(), JOURNAL)
    }

    #[test]
    fn without_a_change_a_leg_stays_as_it_is() {
        for memory in [
            at(500, []),
            at(500, [("a", 100, "all"), ("b", 300, "some")]),
        ] {
            let earlier: Vec<_> = memory.earlier.iter().collect();
            let same = match earlier[..] {
                [] => revised(&memory, [], [("a", 60)]),
                _ => revised(
                    &memory,
                    [("a", "all"), ("b", "some")],
                    [("a", 60), ("b", 2000), ("this", 500)],
                ),
            };
            assert_eq!(same, memory);
        }
    }

    #[test]
    fn a_trail_that_is_added_before_it_is_left_nothing_of_what_waits() {
        // "a" begins at the end of the journal; what "this" has not sent is its own to send.
        let waiting = at(500, []);
        let revised = revised(&waiting, [("a", "all")], []);
        assert_eq!(revised, at(500, [("a", 1000, "all")]));
    }

    #[test]
    fn what_a_trail_had_not_sent_when_it_was_taken_out_is_sent_by_the_next() {
        let memory = at(500, [("a", 100, "all"), ("b", 100, "some")]);
        let all_there = [("a", 200), ("b", 300)];
        let without_a = revised(&memory, [("b", "some")], all_there);
        assert_eq!(without_a, at(200, [("b", 100, "some")]));
        let without_both = revised(&memory, [], all_there);
        assert_eq!(without_both, at(200, []));
        let ahead = revised(&memory, [("b", "some")], [("a", 800), ("b", 300)]);
        assert_eq!(ahead.next, 500, "it had sent all that this leg has passed");
    }

    #[test]
    fn a_leg_goes_back_no_further_than_it_left_events_and_the_journal_reaches() {
        let back_from = |since, reached| {
            let memory = at(500, [("a", since, "all")]);
            revised(&memory, [], [("a", reached)]).next
        };
        assert_eq!(back_from(100, 70), 100);
        assert_eq!(back_from(10, 20), 50);
        assert_eq!(back_from(700, 20), 500);
        let memory = at(500, [("a", 100, "all")]);
        assert_eq!(
            revised(&memory, [], []).next,
            100,
            "where a was is not known"
        );
    }

    #[test]
    fn trails_that_change_places_leave_nothing_between_them() {
        let this = at(500, [("a", 100, "all")]);
        let a = at(200, []);
        let memories = [("a", 200), ("this", 500)];
        assert_eq!(revised(&this, [], memories), at(200, []));
        let a = revised(&a, [("this", "all")], memories);
        assert_eq!(a, at(200, [("this", 1000, "all")]));
    }

    #[test]
    fn a_trail_that_chooses_otherwise_is_as_one_taken_out_and_added() {
        let memory = at(500, [("a", 100, "all")]);
        let revised = revised(&memory, [("a", "some")], [("a", 200)]);
        assert_eq!(revised, at(200, [("a", 1000, "some")]));
    }

    #[test]
    fn a_trail_that_has_lost_its_place_is_left_nothing_of_what_it_may_have_missed() {
        let memory = at(500, [("a", 100, "all")]);
        let revised = revised(&memory, [("a", "all")], [("this", 500)]);
        assert_eq!(revised, at(100, [("a", 1000, "all")]));
    }

    #[test]
    fn whatever_decides_what_a_trail_chooses_is_in_its_selection_and_nothing_else() {
        let other_name = Trail {
            name: "other".parse().unwrap(),
            bucket: "elsewhere".into(),
            event_bus: Some("default".parse().unwrap()),
            ..trail()
        };
        assert_eq!(selection(&other_name), selection(&trail()));
        assert_eq!(selection(&trail()).len(), 32);
        let organization = Accounts::Organization {
            id: "o-exampleorgid".into(),
            members: crate::trail::Members::Every,
        };
        let choosing = serde_json::json!([{ "ReadWriteType": "WriteOnly" }]);
        let choosing = crate::trail::selector::spec::EventSelector::list(choosing).unwrap();
        let others = [
            Trail {
                home_account: "444455556666".parse().unwrap(),
                ..trail()
            },
            Trail {
                home_region: "eu-west-1".parse().unwrap(),
                ..trail()
            },
            Trail {
                accounts: organization,
                ..trail()
            },
            Trail {
                is_multi_region: false,
                ..trail()
            },
            Trail {
                include_global_service_events: false,
                ..trail()
            },
            Trail {
                selectors: crate::trail::Selectors::basic(choosing).unwrap(),
                ..trail()
            },
        ];
        for other in others {
            assert_ne!(selection(&other), selection(&trail()), "{other:?}");
        }
    }
}
