//! What a leg does with dead letters: writes them, counts them, and sends again those that were handed back.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::{RawValue, to_raw_value};
use tokio_util::sync::CancellationToken;

use super::work::{Source, Work};
use super::{Leg, LegError, SAVE_EVERY};
use crate::clock::WallMillis;
use crate::deliver::dead_letter::{Content, DeadLetters, Letter, Replay};
use crate::deliver::fanout::{Destination, Item, ItemId, Refusal};
use crate::deliver::view::JOURNAL_DAMAGED;
use crate::telemetry::chain;
use crate::wal::Position;

impl<D: Destination> Leg<D> {
    /// A frame that holds none of what it should: counted, told, left behind.
    pub(super) async fn pass_over(
        &mut self,
        at: Position,
        error: &str,
        stop: &CancellationToken,
    ) -> Result<(), LegError> {
        let leg = self.view.leg();
        tracing::error!(
            trail = %leg.trail, sink = %leg.sink, position = at.0, error, "log holds a record that cannot be read"
        );
        self.view.routed(1);
        let gap = Content::Gap {
            from: at.0,
            to: at.0 + 1,
        };
        let letter = self.letter(JOURNAL_DAMAGED, error.to_owned(), 1, gap);
        if self.bury(vec![letter], stop).await?.is_some() {
            self.count_dead(JOURNAL_DAMAGED, 1);
            let id = ItemId {
                position: at,
                index: 0,
            };
            self.memory.settle(id);
        }
        Ok(())
    }

    /// The destination will never take this item.
    pub(super) async fn refuse(
        &mut self,
        item: Item,
        refusal: Refusal,
        stop: &CancellationToken,
    ) -> Result<(), LegError> {
        let Refusal { reason, message } = refusal;
        let from_log = self.work.as_ref().is_some_and(Work::is_from_log);
        let leg = self.view.leg();
        tracing::warn!(
            trail = %leg.trail, sink = %leg.sink, position = item.id.position.0, reason, error = message,
            "item cannot be delivered, it becomes a dead letter"
        );
        if !(from_log && self.buried.contains(&item.id)) {
            let content = Content::Item {
                position: item.id.position.0,
                index: item.id.index,
                body: raw(&item.json),
            };
            let letter = self.letter(reason, message, item.events, content);
            if self.bury(vec![letter], stop).await?.is_none() {
                return Ok(());
            }
        }
        self.count_dead(reason, item.events);
        if from_log {
            self.memory.settle(item.id);
        }
        if let Some(work) = &mut self.work {
            work.remove(item.id);
        }
        Ok(())
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

    /// Writes dead letters, for as long as it takes. Nothing when the leg is to stop first.
    pub(super) async fn bury(
        &mut self,
        letters: Vec<Letter>,
        stop: &CancellationToken,
    ) -> Result<Option<()>, LegError> {
        let letters = Arc::new(letters);
        loop {
            let (files, these) = (self.letters.clone(), letters.clone());
            let written = tokio::task::spawn_blocking(move || files.append(&these)).await?;
            let Err(error) = written else {
                return Ok(Some(()));
            };
            tracing::error!(error = %chain(&error), "cannot write dead letters, will retry; this leg waits");
            let wait = tokio::time::sleep(SAVE_EVERY);
            if stop.run_until_cancelled(wait).await.is_none() {
                return Ok(None);
            }
        }
    }

    /// Takes the next of the dead letters that were handed back, if there are any.
    pub(super) async fn take_letters_back(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<(), LegError> {
        let (files, replay, bytes) = (self.letters.clone(), self.replay.take(), self.chunk_bytes);
        let taken = tokio::task::spawn_blocking(move || next_letters(&files, replay, bytes));
        let (replay, letters) = match taken.await? {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(error = %chain(&error), "cannot read dead letters that were handed back, will retry");
                return Ok(());
            }
        };
        self.replay = replay;
        let items: Vec<Item> = letters.into_iter().filter_map(item).collect();
        if items.is_empty() {
            return Ok(());
        }
        self.view.routed(items.iter().map(|item| item.events).sum());
        self.send(Source::Letters, items, stop).await
    }
}

/// The next letters of the replay under way, or of the next one; none when there is nothing to send again.
fn next_letters(
    files: &DeadLetters,
    replay: Option<Replay>,
    bytes: usize,
) -> io::Result<(Option<Replay>, Vec<Letter>)> {
    let replay = match replay {
        Some(replay) => Some(replay),
        None => files.handed_back()?,
    };
    let Some(mut replay) = replay else {
        return Ok((None, Vec::new()));
    };
    let letters = replay.next(bytes)?;
    if letters.is_empty() {
        replay.finish()?;
        return Ok((None, letters));
    }
    Ok((Some(replay), letters))
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
    let text = String::from_utf8_lossy(json).into_owned();
    RawValue::from_string(text.clone())
        .or_else(|_| to_raw_value(&text))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}
