//! Items being sent, and what they wait for.

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::WallMillis;
use crate::deliver::fanout::lane::Report;
use crate::deliver::fanout::{Confirmation, Item, ItemId};
use crate::retry::Backoff;
use crate::wal::Position;

/// A question to the destination, on its way.
pub(super) type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Where items came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The log, up to this position.
    Log(Position),
    /// Dead letters that were handed back, up to this many bytes of their file.
    Letters(u64),
}

/// Items being sent.
pub(super) struct Work {
    pub source: Source,
    pub since: Instant,
    /// Not settled.
    open: BTreeMap<ItemId, Item>,
    /// Of the items that are not settled.
    bytes: usize,
    /// Answered with success, to be confirmed.
    pub sent: Vec<ItemId>,
    pub confirming: Option<Confirming>,
    /// Closed when every lane has come to its end.
    pub reports: Option<mpsc::Receiver<Report>>,
    pub lanes: JoinSet<()>,
}

/// A question to the destination: whether these have arrived.
pub(super) struct Confirming {
    pub ids: Vec<ItemId>,
    pub answer: Answer<Confirmation>,
    pub patience: Backoff,
}

impl Work {
    pub fn new(source: Source) -> Self {
        Self {
            source,
            since: Instant::now(),
            open: BTreeMap::new(),
            bytes: 0,
            sent: Vec::new(),
            confirming: None,
            reports: None,
            lanes: JoinSet::new(),
        }
    }

    pub fn add(&mut self, item: Item) {
        self.bytes += item.json.len();
        if let Some(same) = self.open.insert(item.id, item) {
            self.bytes -= same.json.len();
        }
    }

    /// The item is settled.
    pub fn remove(&mut self, id: ItemId) -> Option<Item> {
        let item = self.open.remove(&id)?;
        self.bytes -= item.json.len();
        Some(item)
    }

    pub fn open(&self) -> impl Iterator<Item = &Item> {
        self.open.values()
    }

    pub fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether the next chunk of the log can be sent, too: every lane has ended, and what waits to be confirmed is less than `limit`
    /// bytes.
    pub fn has_room(&self, limit: usize) -> bool {
        self.is_from_log() && self.reports.is_none() && self.bytes < limit
    }

    /// The position in the log before which all is settled.
    pub fn settled_before(&self) -> Option<Position> {
        let Source::Log(upto) = self.source else {
            return None;
        };
        let first = self.open.first_key_value().map(|(id, _)| id.position);
        Some(first.map_or(upto, |first| first.min(upto)))
    }

    pub fn oldest(&self) -> Option<WallMillis> {
        self.open.first_key_value().map(|(_, item)| item.since)
    }

    pub fn is_from_log(&self) -> bool {
        matches!(self.source, Source::Log(_))
    }

    /// Whether something will happen to it by itself.
    pub fn is_busy(&self) -> bool {
        self.reports.is_some() || self.confirming.is_some()
    }
}

/// What work waits for.
pub(super) enum Happened {
    Report(Report),
    LanesEnded,
    Answer(Confirmation),
}

/// The next thing that happens to the work; pends while there is none. Cancel safe.
pub(super) async fn next_of(work: &mut Option<Work>) -> Happened {
    let Some(work) = work else {
        return pending().await;
    };
    let Work {
        reports,
        confirming,
        ..
    } = work;
    let report = async {
        match reports {
            Some(reports) => match reports.recv().await {
                Some(report) => Happened::Report(report),
                None => Happened::LanesEnded,
            },
            None => pending().await,
        }
    };
    let answer = async {
        match confirming {
            Some(confirming) => Happened::Answer((&mut confirming.answer).await),
            None => pending().await,
        }
    };
    tokio::select! {
        happened = report => happened,
        happened = answer => happened,
    }
}
