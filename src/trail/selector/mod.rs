//! Event selectors: which events a trail records, basic and advanced, as PutEventSelectors takes them. Pure.
//!
//! Checked and compiled once, from the shapes of [`spec`]. A trail without selectors records every event. A trail with selectors records an
//! event once when any of them matches. Insight events are not theirs to choose (PutInsightSelectors chooses those), so that a trail with
//! selectors records none.
//!
//! Both kinds compile to the same clauses ([`clause`]): [`basic`] and [`advanced`] hold the rules of the user guide for each. Category and
//! read-only stand in the record's head; the event's JSON is walked only when a clause that fits the head asks for more, once for all
//! clauses. Nothing is allocated but for a value that holds escapes.
//!
//! - A field selector matches when any value of any of its positive operators does (or it has none), and no value of its negative ones.
//! - A field that the event lacks satisfies no positive operator and is excluded by no negative one. `null` is no value.
//! - Values are compared as they are, upper and lower case apart; there are no wildcards.
//! - An event matches `resources.type` and `resources.ARN` when one and the same of its `resources` has that type and satisfies every
//!   condition on the ARN: its `ARN`, or its `ARNPrefix` where it has only that.
//!
//! Sources: CloudTrail user guide, "logging management events", "logging data events", "logging network activity events", "filtering data
//! events by using advanced event selectors"; API reference, PutEventSelectors and the shapes below it.

mod advanced;
mod basic;
mod clause;
pub mod spec;
mod values;

use crate::event::Record;
use clause::Clauses;
use spec::{AdvancedEventSelector, EventSelector};

/// What a trail chooses, compiled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selectors {
    /// The trail chooses nothing in particular: it records every event.
    #[default]
    Everything,
    Basic(Chosen<EventSelector>),
    Advanced(Chosen<AdvancedEventSelector>),
}

/// Selectors as given, and what they come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen<S> {
    given: Vec<S>,
    clauses: Clauses,
}

/// Why selectors are refused: each selector at fault, with what is allowed instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidEventSelectors(String);

impl InvalidEventSelectors {
    /// CloudTrail's name for the error.
    pub fn code(&self) -> &'static str {
        "InvalidEventSelectorsException"
    }
}

impl Selectors {
    /// One to five basic selectors.
    pub fn basic(given: Vec<EventSelector>) -> Result<Self, InvalidEventSelectors> {
        let clauses = basic::compile(&given)?;
        Ok(Self::Basic(Chosen { given, clauses }))
    }

    /// One or more advanced selectors.
    pub fn advanced(given: Vec<AdvancedEventSelector>) -> Result<Self, InvalidEventSelectors> {
        let clauses = advanced::compile(&given)?;
        Ok(Self::Advanced(Chosen { given, clauses }))
    }

    /// Whether the trail records the event.
    pub fn select(&self, event: &Record<'_>) -> bool {
        match self {
            Self::Everything => true,
            Self::Basic(Chosen { clauses, .. }) => clauses.select(event),
            Self::Advanced(Chosen { clauses, .. }) => clauses.select(event),
        }
    }

    /// The basic selectors as given; none when the trail has others, or none at all.
    pub fn event_selectors(&self) -> &[EventSelector] {
        match self {
            Self::Basic(chosen) => &chosen.given,
            Self::Everything | Self::Advanced(_) => &[],
        }
    }

    /// The advanced selectors as given; none when the trail has others, or none at all.
    pub fn advanced_event_selectors(&self) -> &[AdvancedEventSelector] {
        match self {
            Self::Advanced(chosen) => &chosen.given,
            Self::Everything | Self::Basic(_) => &[],
        }
    }
}

/// Makes something of each selector, or tells of every one that is at fault by its number and what `name` calls it.
fn each<S, T>(
    kind: &str,
    given: impl IntoIterator<Item = S>,
    name: impl Fn(&S) -> Option<String>,
    make: impl Fn(S) -> Result<T, String>,
) -> Result<Vec<T>, InvalidEventSelectors> {
    let mut made = Vec::new();
    let mut faults = Vec::new();
    for (index, selector) in given.into_iter().enumerate() {
        let name =
            name(&selector).map_or_else(String::new, |name| format!(" \"{}\"", shown(&name)));
        match make(selector) {
            Ok(one) => made.push(one),
            Err(fault) => faults.push(format!("{kind} {}{name}: {fault}", index + 1)),
        }
    }
    if faults.is_empty() {
        Ok(made)
    } else {
        Err(InvalidEventSelectors(faults.join("; ")))
    }
}

/// What was given, made short and harmless for a message.
fn shown(given: &str) -> String {
    crate::event::refusal::shown(given.as_bytes(), 64)
}

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;
