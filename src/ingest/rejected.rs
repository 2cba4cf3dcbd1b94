//! The events of a request that are refused, while there is room to name them.

use super::answer::{Answer, Refused};
use super::framing::Broken;
use super::metrics::Metrics;
use crate::event::Refusal;

/// What the list of refused events may take besides four times the body: hostile bodies hold millions of broken lines.
const REFUSED_BYTES: usize = 256 << 10;

/// What a refusal takes besides its texts, in memory and in the answer.
const EACH_BYTES: usize = 128;

#[derive(Debug)]
pub struct Rejected {
    refusals: Vec<(usize, Refusal)>,
    bytes: usize,
    most_bytes: usize,
}

impl Rejected {
    /// Of a request with a body of so many bytes.
    pub fn of(body_bytes: usize) -> Self {
        Self {
            refusals: Vec::new(),
            bytes: 0,
            most_bytes: body_bytes.saturating_mul(4).saturating_add(REFUSED_BYTES),
        }
    }

    /// The event at `index` is refused. With one too many to name, the request makes no sense as a whole.
    pub fn push(&mut self, index: usize, refusal: Refusal) -> Result<(), Broken> {
        let id_bytes = refusal.event_id.as_ref().map_or(0, String::len);
        self.bytes += refusal.message.len() + id_bytes + EACH_BYTES;
        if self.bytes > self.most_bytes {
            let count = self.refusals.len() + 1;
            return Err(Broken {
                code: "TooManyRejected",
                message: format!(
                    "{count} events are refused, too many to name, the last one because: {refusal}; nothing was accepted"
                ),
            });
        }
        self.refusals.push((index, refusal));
        Ok(())
    }

    /// As they are told once the others are stored, and counted now.
    pub fn counted(self, metrics: &Metrics) -> Vec<Refused> {
        let told = self.refusals.into_iter().map(|(index, refusal)| {
            metrics.count_rejected(refusal.code);
            Refused::new(index, refusal)
        });
        told.collect()
    }
}

impl From<Broken> for Answer {
    fn from(broken: Broken) -> Self {
        let Broken { code, message } = broken;
        Self::Unreadable { code, message }
    }
}
