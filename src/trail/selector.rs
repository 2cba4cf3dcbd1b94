//! Event selectors: which events a trail records, basic and advanced, as PutEventSelectors takes them. Pure.

use crate::event::Record;

/// What a trail chooses, compiled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selectors {
    /// The trail chooses nothing in particular: it records every event.
    #[default]
    Everything,
}

impl Selectors {
    pub fn select(&self, _event: &Record<'_>) -> bool {
        true
    }
}
