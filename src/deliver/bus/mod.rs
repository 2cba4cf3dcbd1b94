//! EventBridge: each event of a trail on an event bus, in CloudTrail's own envelope ([`envelope`]).
//!
//! - An event goes to a bus once, even when several trails that send there select it: the first of them sends it ([`sharing`]; EventBridge user guide,
//!   "AWS service events delivered via CloudTrail"; seen on AWS as one copy a bus). The others' legs do not count it as theirs.
//! - PutEvents answers each entry by itself. One that is refused for what is in it is a dead letter; one that failed is sent again, alone.
//! - PutEvents also answers success, and drops the events, when the bus does not exist. So nothing is sent before the bus was seen once, and
//!   what was sent counts as delivered only when the bus is seen to be there afterwards ([`existence`]). A role that may put and not look is
//!   believed, and so is a service that cannot tell; the log says so once.
//! - On AWS, a rule sees read-only management events only when its state is `ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS`. EventBridge
//!   applies that to AWS's own sources alone, so every rule on a source of traild's sees them. One that wants AWS's usual choice says it in
//!   its pattern: every event has an `eventCategory`, and every management event a `readOnly`, filled at acceptance when it came without:
//!
//! ```json
//! {"detail": {"$or": [{"readOnly": [false]}, {"eventCategory": [{"anything-but": "Management"}]}]}}
//! ```

mod envelope;
mod existence;

pub mod sharing;
pub mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::config::Region;
use aws_sdk_eventbridge::types::PutEventsResultEntry;
use bytes::Bytes;

use self::envelope::Envelope;
use self::existence::{Existence, Lookout};
use super::failure::Failure;
use super::fanout::{Confirmation, Destination, Item, Refusal, Unreadable, Verdict, events};
use super::renewing::Renewing;
use super::view::{REFUSED, TOO_LARGE};
use crate::trail::{EventBus, Trail};
use crate::wal::Position;

/// Entries of one PutEvents request (EventBridge API reference, PutEvents).
const MAX_ENTRIES: usize = 10;
/// Requests at a time. A request is small, so its round trip, not its size, is what takes time.
const LANES: usize = 8;

/// How a trail's events become entries.
#[derive(Debug, Clone)]
pub struct Options {
    /// The template of the entries' [`source`].
    pub source: String,
    /// The entries of one request stay below this many bytes, as EventBridge counts them.
    pub max_bytes: u64,
}

/// A trail that sends to the same bus, and goes first.
#[derive(Debug, Clone)]
pub struct Earlier {
    pub trail: Arc<Trail>,
    /// From this position on it sends what it selects ([`sharing`]).
    pub since: Position,
}

/// The leg from a trail to its event bus.
pub struct Bus {
    trail: Arc<Trail>,
    earlier: Vec<Earlier>,
    bus: EventBus,
    client: Renewing<Client>,
    options: Options,
    lookout: Lookout,
    blindness_is_told: AtomicBool,
}

impl Bus {
    /// The events of `trail` that none of `earlier` sends.
    pub fn new(
        trail: Arc<Trail>,
        earlier: Vec<Earlier>,
        bus: EventBus,
        client: Renewing<Client>,
        options: Options,
    ) -> Self {
        Self {
            trail,
            earlier,
            bus,
            client,
            options,
            lookout: Lookout::default(),
            blindness_is_told: AtomicBool::new(false),
        }
    }

    async fn look(&self) -> Existence {
        let look = self.client.attempt(async |client| {
            let look = client.describe_event_bus().name(self.bus.as_str());
            match look.send().await {
                Ok(_) => Ok(Existence::Present),
                Err(error) => self.not_seen(Failure::of(&error), client.config().region()),
            }
        });
        look.await.unwrap_or_else(Existence::Unknown)
    }

    /// What it means that the bus was not seen, asked for in this region. A failure says nothing about the bus.
    fn not_seen(&self, failure: Failure, region: Option<&Region>) -> Result<Existence, Failure> {
        let bus = &self.bus;
        match failure.code.as_str() {
            "ResourceNotFoundException" => {
                let region = region.map_or("the configured region", Region::as_ref);
                let message = format!(
                    "event bus {bus} does not exist in {region}: create it there, or name another one in event_bus; \
                     until then its events wait here"
                );
                Ok(Existence::Absent(Failure {
                    status: failure.status,
                    ..Failure::new(&failure.code, message)
                }))
            }
            _ if forbids_looking(&failure) => {
                if !self.blindness_is_told.swap(true, Ordering::Relaxed) {
                    let Failure { code, message, .. } = failure;
                    tracing::warn!(
                        trail = %self.trail.name, %bus, code, error = message,
                        "cannot describe the event bus, so its events count as delivered when PutEvents has answered; \
                         PutEvents says the same of a bus that does not exist; allow events:DescribeEventBus to be sure"
                    );
                }
                Ok(Existence::Hidden)
            }
            _ => Err(failure),
        }
    }
}

impl Destination for Bus {
    type Entry = Envelope;

    fn target(&self) -> &str {
        self.bus.as_str()
    }

    /// Looks whether the bus is there before anything is sent to it.
    async fn is_there(&self) -> Result<(), Failure> {
        match self.lookout.ask(self.look()).await {
            Existence::Present | Existence::Hidden => Ok(()),
            Existence::Absent(failure) | Existence::Unknown(failure) => Err(failure),
        }
    }

    fn read(&self, at: Position, frame: Bytes) -> Result<Vec<Item>, Unreadable> {
        let mut earlier = self.earlier.iter().filter(|earlier| at >= earlier.since);
        let item = events::read_if(at, &frame, |event| {
            self.trail.selects(at, event)
                && !earlier.any(|earlier| earlier.trail.selects(at, event))
        })?;
        Ok(item.into_iter().collect())
    }

    fn entry(&self, item: &Item) -> Result<Envelope, Refusal> {
        let envelope = Envelope::of(&item.json, &self.options.source)?;
        let (size, max) = (envelope.size(), self.options.max_bytes);
        if size >= max {
            return Err(Refusal {
                reason: TOO_LARGE,
                message: format!(
                    "the entry has {size} bytes, one request must have less than {max}"
                ),
            });
        }
        Ok(envelope)
    }

    fn fits(&self, entries: &[Envelope]) -> usize {
        fits(entries.iter().map(Envelope::size), self.options.max_bytes)
    }

    fn lanes(&self, _behind: u64) -> usize {
        LANES
    }

    async fn send(&self, _lane: usize, entries: &[Envelope]) -> Result<Vec<Verdict>, Failure> {
        let bus = self.bus.as_str();
        let addressed = entries.iter().map(|entry| entry.addressed(bus)).collect();
        let put = self.client.attempt(async |client| {
            let put = client.put_events().set_entries(Some(addressed));
            put.send().await.map_err(|error| Failure::of(&error))
        });
        // Results stand in the order of the request.
        Ok(put.await?.entries().iter().map(verdict).collect())
    }

    async fn confirm(&self) -> Confirmation {
        match self.lookout.ask(self.look()).await {
            Existence::Present | Existence::Hidden => Confirmation::Arrived,
            Existence::Absent(failure) => Confirmation::Vanished(failure),
            Existence::Unknown(failure) => Confirmation::Unknown(failure),
        }
    }
}

/// Who asks may not look, or the service cannot: one that is like EventBridge may know PutEvents alone.
fn forbids_looking(failure: &Failure) -> bool {
    const CODES: [&str; 5] = [
        "AccessDenied",
        "AccessDeniedException",
        "InvalidAction",
        "NotImplemented",
        "UnknownOperationException",
    ];
    CODES.contains(&failure.code.as_str()) || failure.status == Some(501)
}

/// How many entries of these sizes, from the first on, stay below `max_bytes` together: one at least.
fn fits(sizes: impl Iterator<Item = u64>, max_bytes: u64) -> usize {
    let mut total = 0;
    let fitting = sizes.take(MAX_ENTRIES).take_while(|size| {
        total += size;
        total < max_bytes
    });
    fitting.count().max(1)
}

fn verdict(result: &PutEventsResultEntry) -> Verdict {
    let message = result.error_message().unwrap_or("no message");
    match (result.error_code(), result.event_id()) {
        (None, Some(_)) => Verdict::Delivered,
        (None, None) => Verdict::Again(Failure::new(
            "UnexpectedAnswer",
            "PutEvents answered an entry with neither an EventId nor an ErrorCode",
        )),
        (Some(code), _) if is_about_the_entry(code) => Verdict::Refused(refusal(code, message)),
        (Some(code), _) => Verdict::Again(Failure::new(code, format!("{message}{}", hint(code)))),
    }
}

/// Of the codes that EventBridge will not have retried (EventBridge API reference, PutEventsResultEntry), those that are about the entry.
/// The others are about who sends, where to and in whose name, which can be mended: AccessDeniedException, InvalidAccountIdException, and
/// what [`hint`] knows.
fn is_about_the_entry(code: &str) -> bool {
    matches!(
        code,
        "InvalidArgument" | "MalformedDetail" | "RedactionFailure"
    )
}

/// What to do about a code that the settings are to blame for.
fn hint(code: &str) -> &'static str {
    match code {
        "NotAuthorizedForSourceException" => {
            "; set sinks.event_bridge_source to a source that this bus takes: not one of AWS's own, which begin with \"aws.\""
        }
        "NotAuthorizedForDetailTypeException" => {
            "; this bus takes CloudTrail's detail types from other sources only: set sinks.event_bridge_source to one of them, or event_bus \
             to another bus"
        }
        _ => "",
    }
}

fn refusal(code: &str, message: &str) -> Refusal {
    let Failure { code, message, .. } = Failure::new(code, message);
    Refusal {
        reason: REFUSED,
        message: format!("{code}: {message}"),
    }
}

#[cfg(test)]
mod tests;
