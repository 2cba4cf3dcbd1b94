//! What a leg does with dead letters: writes them, counts them, and sends again those that were handed back.

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::work::{Source, Work};
use super::{Leg, LegError, SAVE_EVERY};
use crate::clock::WallMillis;
use crate::deliver::dead_letter::{Batch, Content, DeadLetters, Letter, Replay};
use crate::deliver::fanout::{Destination, Item, ItemId, Refusal};
use crate::deliver::memory::{Memory, Replayed};
use crate::deliver::view::{JOURNAL_DAMAGED, LegView};
use crate::telemetry::chain;
use crate::wal::Position;

/// How often it is told that letters which were handed back must wait.
const TELL_EVERY: Duration = Duration::from_secs(60);

impl<D: Destination> Leg<D> {
    /// A frame that holds none of what it should: counted, told, left behind. False when it is not, because its letter could not be written.
    pub(super) async fn pass_over(
        &mut self,
        at: Position,
        error: &str,
        stop: &CancellationToken,
    ) -> Result<bool, LegError> {
        let leg = self.view.leg();
        tracing::error!(
            trail = %leg.trail, sink = %leg.sink, position = at.0, error, "log holds a record that cannot be read"
        );
        let gap = Content::Gap {
            from: at.0,
            to: at.0 + 1,
        };
        let letter = self.letter(JOURNAL_DAMAGED, error.to_owned(), 1, gap);
        if self.bury(vec![letter], stop).await?.is_none() {
            return Ok(false);
        }
        self.view.routed(1);
        self.count_dead(JOURNAL_DAMAGED, 1);
        let id = ItemId {
            position: at,
            index: 0,
        };
        self.memory.settle(id);
        Ok(true)
    }

    /// The destination will never take these items. They stay open when their letters cannot be written.
    pub(super) async fn refuse(
        &mut self,
        refused: Vec<(Item, Refusal)>,
        stop: &CancellationToken,
    ) -> Result<(), LegError> {
        let Some(((first, refusal), others)) = refused.split_first() else {
            return Ok(());
        };
        let from_log = self.work.as_ref().is_some_and(Work::is_from_log);
        let leg = self.view.leg();
        tracing::warn!(
            trail = %leg.trail, sink = %leg.sink, position = first.id.position.0, reason = refusal.reason,
            error = refusal.message, items = refused.len(),
            "item cannot be delivered, it becomes a dead letter"
        );
        for (item, refusal) in others {
            tracing::debug!(
                trail = %leg.trail, sink = %leg.sink, position = item.id.position.0, reason = refusal.reason,
                error = refusal.message, "item cannot be delivered, it becomes a dead letter, too"
            );
        }
        let letters: Vec<Letter> = refused
            .iter()
            .filter(|(item, _)| !(from_log && self.buried.contains(&item.id)))
            .map(|(item, refusal)| self.letter_of(item, refusal))
            .collect();
        if !letters.is_empty() && self.bury(letters, stop).await?.is_none() {
            return Ok(());
        }
        for (item, refusal) in refused {
            self.count_dead(refusal.reason, item.events);
            match from_log {
                true => self.memory.settle(item.id),
                false => self.memory.settle_letter(item.id),
            }
            if let Some(work) = &mut self.work {
                work.remove(item.id);
            }
        }
        Ok(())
    }

    fn letter_of(&self, item: &Item, refusal: &Refusal) -> Letter {
        let content = Content::Item {
            position: item.id.position.0,
            index: item.id.index,
            body: raw(&item.json),
        };
        self.letter(
            refusal.reason,
            refusal.message.clone(),
            item.events,
            content,
        )
    }

    pub(super) fn letter(
        &self,
        reason: &'static str,
        message: String,
        events: u64,
        content: Content,
    ) -> Letter {
        let leg = self.view.leg();
        Letter {
            at: WallMillis::now().rfc3339(),
            trail: leg.trail.clone(),
            trail_arn: Some(self.memory.trail.clone()),
            sink: leg.sink.to_string(),
            reason: reason.to_owned(),
            message,
            events,
            content,
        }
    }

    pub(super) fn count_dead(&mut self, reason: &'static str, events: u64) {
        *self
            .memory
            .dead_lettered
            .entry(reason.to_owned())
            .or_default() += events;
        self.is_saved = false;
        self.view.dead_lettered(reason, events);
    }

    /// Writes dead letters, for as long as it takes. Nothing when the leg is to stop first, or to be cut off.
    pub(super) async fn bury(
        &mut self,
        letters: Vec<Letter>,
        stop: &CancellationToken,
    ) -> Result<Option<()>, LegError> {
        let letters: Arc<[Letter]> = letters.into();
        loop {
            if self.bury_once(letters.clone()).await? {
                return Ok(Some(()));
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = cut_beyond(self.cut.clone(), self.memory.next) => return Ok(None),
                () = tokio::time::sleep(SAVE_EVERY) => {}
            }
        }
    }

    /// Whether dead letters could be written. If not, it is told.
    pub(super) async fn bury_once(&mut self, letters: Arc<[Letter]>) -> Result<bool, LegError> {
        let files = self.letters.clone();
        let written = crate::background::spawn_blocking(move || files.append(&letters)).await?;
        if let Err(error) = &written {
            let leg = self.view.leg();
            tracing::error!(
                trail = %leg.trail, sink = %leg.sink, error = %chain(error),
                "cannot write dead letters"
            );
        }
        Ok(written.is_ok())
    }

    /// Takes the next of the dead letters that were handed back, if there are any.
    pub(super) async fn take_letters_back(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<(), LegError> {
        let files = self.letters.clone();
        let Memory { trail, replay, .. } = self.memory.clone();
        let (mut file, bytes) = (self.replay.take(), self.chunk_bytes);
        let looked = crate::background::spawn_blocking(move || {
            let handed = look(&files, &trail, &mut file, replay, bytes);
            (file, handed)
        });
        let (file, handed) = looked.await?;
        self.replay = file;
        let handed = match handed {
            Ok(handed) => handed,
            Err(error) => {
                self.tell_replay_waits(&error);
                return Ok(());
            }
        };
        self.replay_told = None;
        let Some(Handed { items, upto, from }) = handed else {
            self.is_saved &= self.memory.replay.take().is_none();
            return Ok(());
        };
        self.memory.replay = Some(from);
        self.is_saved = false;
        self.view.routed(items.iter().map(|item| item.events).sum());
        self.send(Source::Letters(upto), items, stop).await
    }

    /// At most once a minute.
    fn tell_replay_waits(&mut self, error: &io::Error) {
        if self
            .replay_told
            .is_some_and(|told| told.elapsed() < TELL_EVERY)
        {
            return;
        }
        self.replay_told = Some(Instant::now());
        let leg = self.view.leg();
        tracing::error!(
            trail = %leg.trail, sink = %leg.sink, error = %chain(error),
            "cannot go on with dead letters that were handed back, will retry"
        );
    }
}

/// Returns when the log says, and the leg has not seen yet, that it can wait for nothing before a position beyond `next`.
async fn cut_beyond(mut cut: watch::Receiver<Position>, next: u64) {
    while cut.changed().await.is_ok() {
        if cut.borrow_and_update().0 > next {
            return;
        }
    }
    pending().await
}

/// The items of this trail at or after `from` that have a letter. Without them, an item may get a second letter, and nothing else.
pub(super) fn buried(
    letters: &DeadLetters,
    trail: &str,
    from: u64,
    view: &LegView,
) -> BTreeSet<ItemId> {
    letters.known(trail, from).unwrap_or_else(|error| {
        let leg = view.leg();
        tracing::error!(
            trail = %leg.trail, sink = %leg.sink, error = %chain(&error),
            "cannot read dead letters; what is refused again gets a second one"
        );
        BTreeSet::new()
    })
}

/// Letters that were handed back, to be sent together.
struct Handed {
    items: Vec<Item>,
    /// When they are settled, so is all in this many bytes of their file.
    upto: u64,
    /// What of their file was settled before.
    from: Replayed,
}

/// The next letters of the file under way, or of the next one; none when there is nothing to send again. A file of which all is settled is
/// removed.
fn look(
    files: &DeadLetters,
    trail: &str,
    file: &mut Option<Replay>,
    remembered: Option<Replayed>,
    bytes: usize,
) -> io::Result<Option<Handed>> {
    if file.is_none() {
        *file = files.handed_back(trail)?;
    }
    let Some(replay) = file else {
        return Ok(None);
    };
    let mut from = remembered
        .filter(|remembered| remembered.is_of_same_file(replay.mark()))
        .unwrap_or_else(|| replay.mark().clone());
    loop {
        let Batch { letters, upto } = replay.next(from.upto, bytes)?;
        if letters.is_empty() {
            replay.finish(upto)?;
            *file = None;
            return Ok(None);
        }
        let mut items: Vec<Item> = letters.into_iter().filter_map(item).collect();
        items.retain(|item| !from.has_settled(item.id));
        if !items.is_empty() {
            return Ok(Some(Handed { items, upto, from }));
        }
        from.upto = upto;
        from.settled.clear();
    }
}

/// What a letter says once more; nothing for a gap.
fn item(letter: Letter) -> Option<Item> {
    let Content::Item {
        position,
        index,
        body,
    } = letter.content
    else {
        return None;
    };
    let id = ItemId {
        position: Position(position),
        index,
    };
    Some(Item {
        id,
        events: letter.events,
        since: WallMillis::now(),
        json: Bytes::from(String::from(Box::<str>::from(body))),
    })
}

/// An item's JSON as a letter holds it. What is not JSON is kept as a string, which an accepted event never is.
fn raw(json: &[u8]) -> Box<RawValue> {
    if let Ok(json) = serde_json::from_slice::<&RawValue>(json) {
        return json.to_owned();
    }
    to_raw_value(&String::from_utf8_lossy(json)).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
