//! A lane: sends requests one after the other until each entry is settled, and tells of each.
//!
//! A whole request that is refused for what is in it is halved until the entry stands alone that is to blame. Alone, it is to blame only if the
//! destination is known to take others: a mistake in the destination's own settings refuses everything, and must not make dead letters
//! of it. Where nothing was taken yet, the entry is tried for half a minute before it is given up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Destination, Item, ItemId, Refusal, Verdict};
use crate::clock::WallMillis;
use crate::deliver::failure::Failure;
use crate::deliver::gate::Gate;
use crate::deliver::view::{LegView, REFUSED};
use crate::retry::Backoff;

/// How long an entry is tried that is refused alone by a destination that has taken nothing yet.
const TRIAL: Duration = Duration::from_secs(30);

/// What lanes tell their leg.
#[derive(Debug)]
pub(super) enum Report {
    Sent(Vec<ItemId>),
    Refused(Vec<(Item, Refusal)>),
}

/// Items with what is sent for them, place by place.
#[derive(Debug)]
pub(super) struct Request<E> {
    items: Vec<Item>,
    entries: Vec<E>,
}

impl<E> Request<E> {
    fn split_off(&mut self, at: usize) -> Self {
        Self {
            items: self.items.split_off(at),
            entries: self.entries.split_off(at),
        }
    }
}

/// Parts entries into requests, in order, each as long as the destination takes.
pub(super) fn pack<D: Destination>(
    destination: &D,
    items: Vec<Item>,
    entries: Vec<D::Entry>,
) -> VecDeque<Request<D::Entry>> {
    let mut rest = Request { items, entries };
    let mut requests = VecDeque::new();
    while !rest.entries.is_empty() {
        let fit = destination.fits(&rest.entries).clamp(1, rest.entries.len());
        let next = rest.split_off(fit);
        requests.push_back(rest);
        rest = next;
    }
    requests
}

/// What the lanes of one leg share for one chunk of its log.
pub(super) struct Lanes<D: Destination> {
    pub destination: Arc<D>,
    pub gate: Arc<Gate>,
    pub view: LegView,
    /// The destination has taken something since the daemon started.
    pub has_taken: Arc<AtomicBool>,
    pub requests: Mutex<VecDeque<Request<D::Entry>>>,
    /// No request is begun any more.
    pub stop: CancellationToken,
}

impl<D: Destination> Lanes<D> {
    /// One lane's way: until no request is left, or the leg stops.
    pub async fn run(self: Arc<Self>, lane: usize, reports: mpsc::Sender<Report>) {
        loop {
            let request = self.requests().pop_front();
            let Some(request) = request else { return };
            if self.deliver(lane, request, &reports).await.is_none() {
                return;
            }
        }
    }

    fn requests(&self) -> MutexGuard<'_, VecDeque<Request<D::Entry>>> {
        self.requests
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Nothing when the leg stops, or does not listen any more.
    async fn deliver(
        &self,
        lane: usize,
        mut request: Request<D::Entry>,
        reports: &mpsc::Sender<Report>,
    ) -> Option<()> {
        let mut patience = Backoff::default();
        let mut on_trial_since = None;
        while !request.entries.is_empty() {
            let turn = self.stop.run_until_cancelled(self.gate.enter()).await?;
            match self.destination.send(lane, &request.entries).await {
                Ok(verdicts) if verdicts.len() == request.entries.len() => {
                    let asked = verdicts.len();
                    let left = self.sort(&mut request, verdicts, reports).await?;
                    if request.entries.len() < asked {
                        // The destination works; what it did not take this time is this request's own trouble.
                        turn.succeeded();
                        if left {
                            self.stop
                                .run_until_cancelled(tokio::time::sleep(patience.next_delay()))
                                .await?;
                        }
                    } else {
                        self.stop.run_until_cancelled(turn.failed()).await?;
                    }
                }
                Ok(verdicts) => {
                    let asked = request.entries.len();
                    let message =
                        format!("{asked} entries were sent and {} answered", verdicts.len());
                    self.tell(&Failure::new("MalformedResponse", message));
                    self.stop.run_until_cancelled(turn.failed()).await?;
                }
                Err(failure) if failure.is_about_content() && request.entries.len() > 1 => {
                    let second = request.split_off(request.entries.len() / 2);
                    self.requests().push_front(second);
                }
                Err(failure) if failure.is_about_content() => {
                    let since = *on_trial_since.get_or_insert_with(Instant::now);
                    if self.has_taken.load(Ordering::Relaxed) || since.elapsed() >= TRIAL {
                        let refusal = Refusal {
                            reason: REFUSED,
                            message: format!("{}: {}", failure.code, failure.message),
                        };
                        let item = request.items.remove(0);
                        request.entries.clear();
                        reports
                            .send(Report::Refused(vec![(item, refusal)]))
                            .await
                            .ok()?;
                    } else {
                        self.tell(&failure);
                        self.stop.run_until_cancelled(turn.failed()).await?;
                    }
                }
                Err(failure) => {
                    self.tell(&failure);
                    self.stop.run_until_cancelled(turn.failed()).await?;
                }
            }
        }
        Some(())
    }

    /// Reports what is settled and keeps the rest in the request. Whether any is left.
    async fn sort(
        &self,
        request: &mut Request<D::Entry>,
        verdicts: Vec<Verdict>,
        reports: &mpsc::Sender<Report>,
    ) -> Option<bool> {
        let items = std::mem::take(&mut request.items);
        let entries = std::mem::take(&mut request.entries);
        let (mut sent, mut refused, mut failure) = (Vec::new(), Vec::new(), None);
        for ((item, entry), verdict) in items.into_iter().zip(entries).zip(verdicts) {
            match verdict {
                Verdict::Delivered => sent.push(item.id),
                Verdict::Refused(refusal) => refused.push((item, refusal)),
                Verdict::Again(why) => {
                    failure = Some(why);
                    request.items.push(item);
                    request.entries.push(entry);
                }
            }
        }
        if !sent.is_empty() {
            self.has_taken.store(true, Ordering::Relaxed);
            reports.send(Report::Sent(sent)).await.ok()?;
        }
        if !refused.is_empty() {
            reports.send(Report::Refused(refused)).await.ok()?;
        }
        if let Some(failure) = &failure {
            self.tell(failure);
        }
        Some(failure.is_some())
    }

    fn tell(&self, failure: &Failure) {
        tell(&self.view, self.destination.target(), failure);
    }
}

/// A failed attempt, to the log, the metrics and the status.
pub(super) fn tell(view: &LegView, target: &str, failure: &Failure) {
    let Failure { code, message, .. } = failure;
    let leg = view.leg();
    tracing::warn!(
        trail = %leg.trail, sink = %leg.sink, target, code, error = message,
        "delivery failed, will retry"
    );
    view.failed(code, message.clone(), WallMillis::now());
}
