//! When a trail records: StartLogging and StopLogging, as places in the journal.
//!
//! A trail records what is accepted between the two, to the event. What was accepted before StopLogging is delivered after it.

use serde::{Deserialize, Serialize};

use crate::wal::Position;

/// The parts of the journal that a trail records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Logging {
    /// A trail of the configuration file: all of it.
    Always,
    /// A trail of the API: from each StartLogging to the StopLogging after it, in order.
    Spans(Vec<Span>),
}

/// From one StartLogging to the next StopLogging. The names are stable: they are written to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The journal position of the first event.
    pub from: u64,
    /// The one after the last event; nothing while logging goes on.
    pub until: Option<u64>,
}

impl Logging {
    /// Whether the event at this position is recorded.
    pub fn covers(&self, position: Position) -> bool {
        match self {
            Self::Always => true,
            Self::Spans(spans) => spans.iter().any(|span| span.covers(position)),
        }
    }

    /// Whether what is accepted now is recorded.
    pub fn is_on(&self) -> bool {
        match self {
            Self::Always => true,
            Self::Spans(spans) => spans.last().is_some_and(|span| span.until.is_none()),
        }
    }

    /// Where logging was stopped; nothing while it is on, or when it never was.
    pub fn stopped_at(&self) -> Option<Position> {
        match self {
            Self::Always => None,
            Self::Spans(spans) => spans.last()?.until.map(Position),
        }
    }

    /// Where logging was first started, of what is remembered; nothing for a trail that always records.
    pub fn began_at(&self) -> Option<Position> {
        match self {
            Self::Always => None,
            Self::Spans(spans) => spans.first().map(|span| Position(span.from)),
        }
    }

    /// Whether it ever was on.
    pub fn has_begun(&self) -> bool {
        !matches!(self, Self::Spans(spans) if spans.is_empty())
    }

    /// StartLogging, with `now` the durable end of the journal. Starting again what is on changes nothing.
    pub fn start(&mut self, now: Position) {
        let Self::Spans(spans) = self else {
            return;
        };
        match spans.last_mut() {
            Some(Span { until: None, .. }) => {}
            // Nothing was accepted in between.
            Some(Span { until, .. }) if *until == Some(now.0) => *until = None,
            _ => spans.push(Span {
                from: now.0,
                until: None,
            }),
        }
    }

    /// StopLogging, with `now` the durable end of the journal. Stopping again what is off changes nothing.
    pub fn stop(&mut self, now: Position) {
        if let Self::Spans(spans) = self
            && let Some(span) = spans.last_mut()
        {
            span.until.get_or_insert(now.0.max(span.from));
        }
    }

    /// The newest start or stop is no earlier than `at`: the legs had read so far when they learned of it.
    pub fn settle(&mut self, at: Position) {
        if let Self::Spans(spans) = self
            && let Some(span) = spans.last_mut()
        {
            let newest = span.until.as_mut().unwrap_or(&mut span.from);
            *newest = at.0.max(*newest);
        }
    }

    /// Forgets the parts of the journal before `horizon`, of which nothing is left to deliver, but for the newest.
    pub fn forget(&mut self, horizon: Position) {
        if let Self::Spans(spans) = self {
            let newest = spans.len().saturating_sub(1);
            let mut index = 0;
            spans.retain(|span| {
                let is_newest = index == newest;
                index += 1;
                is_newest || span.until.is_none_or(|until| until > horizon.0)
            });
        }
    }
}

impl Span {
    fn covers(&self, position: Position) -> bool {
        self.from <= position.0 && self.until.is_none_or(|until| position.0 < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_records_what_lies_between_start_and_stop() {
        let mut logging = Logging::Spans(Vec::new());
        assert!(!logging.covers(Position(5)) && !logging.is_on() && !logging.has_begun());
        logging.stop(Position(5));
        logging.start(Position(10));
        logging.start(Position(15));
        logging.stop(Position(20));
        logging.stop(Position(25));
        assert_eq!(logging.stopped_at(), Some(Position(20)));
        logging.start(Position(40));
        let covered: Vec<u64> = (0..60)
            .step_by(5)
            .filter(|at| logging.covers(Position(*at)))
            .collect();
        assert_eq!(covered, [10, 15, 40, 45, 50, 55]);
        assert!(logging.is_on() && logging.stopped_at().is_none());
        logging.forget(Position(20));
        assert!(!logging.covers(Position(15)) && logging.covers(Position(41)));
        assert!(Logging::Always.covers(Position(0)) && Logging::Always.is_on());
    }

    #[test]
    fn stopping_and_starting_with_nothing_in_between_leaves_one_span() {
        let mut logging = Logging::Spans(Vec::new());
        for _ in 0..3 {
            logging.start(Position(10));
            logging.stop(Position(10));
        }
        logging.start(Position(10));
        let from = |from| Span { from, until: None };
        assert_eq!(logging, Logging::Spans(vec![from(10)]));
    }

    #[test]
    fn the_form_on_disk_does_not_change() {
        let mut logging = Logging::Spans(Vec::new());
        logging.start(Position(10));
        logging.stop(Position(20));
        logging.start(Position(30));
        let json = r#"{"spans":[{"from":10,"until":20},{"from":30,"until":null}]}"#;
        assert_eq!(serde_json::to_string(&logging).unwrap(), json);
        assert_eq!(serde_json::from_str::<Logging>(json).unwrap(), logging);
        assert_eq!(
            serde_json::to_string(&Logging::Always).unwrap(),
            r#""always""#
        );
    }
}
