//! The CloudTrail API, for unmodified AWS clients: the AWS CLI and the SDKs.
//!
//! ```text
//!  protocol     what a request asks for, what an answer looks like     error   what is refused, in AWS's names
//!  operations   one file each, and the table of them all               trail   a trail in the API's words
//!  timestamp    moments on the wire                                    given   what callers set a trail to
//!  token        where a list goes on                                   tags    what a trail is tagged with
//!  preflight    whether what a trail delivers to will take it          status  how a trail's deliveries go
//!  channel      a channel in the API's words                           resource_policy  who else may send by one
//!  audit_events what comes by channels: an API of its own, REST-JSON
//!  records      what was asked, as events of the caller's account
//! ```
//!
//! An operation is a request, an answer, and what leads from one to the other ([`Operation`]). To add one is a file and a line in
//! [`operations`]. What CloudTrail has and traild has not is refused by its name (`UnsupportedOperationException`), never answered
//! with a success that is none.
//!
//! Who asks, from which account and in which region, was settled at the door ([`crate::auth`]); whether they may is asked here, for each operation,
//! when its request is read and before it runs.

pub mod audit_events;
pub mod channel;
pub mod error;
pub mod given;
pub mod operations;
pub mod preflight;
pub mod protocol;
pub mod records;
pub mod resource_policy;
pub mod status;
pub mod tags;
pub mod timestamp;
pub mod token;
pub mod trail;

use std::fmt::{self, Display};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, request};
use http_body::Body;
use http_body_util::Full;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::auth::Caller;
use crate::clock::WallMillis;
use crate::digest::keys::Keys;
use crate::event::refusal::shown;
use crate::event::{AccountId, Region};
use crate::history::History;
use crate::ingest::body::{self, Budget, Limits, Whole};
use crate::registry::Registry;
use crate::telemetry;
use crate::wal::Position;

use channel::Ingestions;
pub use error::Error;
use preflight::Preflight;
use protocol::{Service, Target};
use records::{Asked, Records};
use status::TrailFacts;

/// Bytes of a body, as sent and inflated. The largest that AWS's own limits allow for, the selectors of a trail, is half of it.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// Memory for the bodies of all requests together.
const BODIES_BYTES: usize = 16 << 20;

/// Changes at a time, those included whose callers have hung up; further callers wait for their turn.
const MOST_CHANGES: usize = 64;

/// What the journal holds, durably: logging starts and stops at its end.
pub type Holds = Arc<dyn Fn() -> Range<Position> + Send + Sync>;

/// How the deliveries of the trail of an ARN go; nothing when none have begun.
pub type Facts = Arc<dyn Fn(&str) -> Option<TrailFacts> + Send + Sync>;

/// What operations are answered from: the home account, where it is at home, and what there is.
#[derive(Clone)]
pub struct Home {
    pub account: AccountId,
    pub region: Region,
    pub registry: Registry,
    /// Of digests.
    pub keys: Keys,
    pub journal: Holds,
    pub facts: Facts,
    pub preflight: Arc<dyn Preflight>,
    /// What came by each channel last.
    pub ingestions: Ingestions,
    /// What LookupEvents answers from.
    pub history: History,
    /// Nothing when calls are not recorded.
    pub records: Option<Records>,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home")
            .field("account", &self.account)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// What an operation knows besides its request.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub home: &'a Home,
    pub caller: &'a Caller,
    /// Where the caller believes to be.
    pub region: Region,
    pub now: WallMillis,
}

/// An operation of AWS. The type is its request as the API reference has it; members that are unknown are left aside.
pub trait Operation: DeserializeOwned + Send {
    /// As in the request's `X-Amz-Target`.
    const NAME: &'static str;
    type Answer: Serialize;

    /// The ARNs that it is about, of which each must be allowed; `*` when it is about none (service authorization reference, "Actions,
    /// resources, and condition keys for AWS CloudTrail").
    fn resources(&self, _call: &Call<'_>) -> Vec<String> {
        vec!["*".to_owned()]
    }

    fn run(self, call: &Call<'_>) -> impl Future<Output = Result<Self::Answer, Error>> + Send;
}

/// The answer of operations that have nothing to tell but that it is done: `{}`.
#[derive(Debug, Serialize)]
pub struct Empty {}

/// Answers the API's requests. Clones share everything.
#[derive(Debug, Clone)]
pub struct Api {
    home: Arc<Home>,
    limits: Arc<Limits>,
    budget: Budget,
    audit_bodies: audit_events::Bodies,
    /// Changes that are under way: they and their records come to an end together, whether the caller waits or not.
    changes: TaskTracker,
    turns: Arc<Semaphore>,
}

impl Api {
    pub fn new(home: Home) -> Self {
        let limits = Limits {
            max_body_bytes: MAX_BODY_BYTES,
            grace: Duration::from_secs(5),
            min_bytes_per_second: 1024,
        };
        Self {
            home: Arc::new(home),
            limits: Arc::new(limits),
            budget: Budget::new(BODIES_BYTES, MAX_BODY_BYTES),
            audit_bodies: audit_events::Bodies::default(),
            changes: TaskTracker::new(),
            turns: Arc::new(Semaphore::new(MOST_CHANGES)),
        }
    }

    /// Resolves when the changes that are under way have come to their end, with their records: what is made by now is recorded, and what is not
    /// yet is not made any more. To be called when no more come.
    pub async fn settle(&self) {
        self.home.registry.stop();
        self.changes.close();
        self.changes.wait().await;
    }

    /// Answers a request to `/`.
    pub async fn answer<B>(&self, request: Request<B>, caller: &Caller) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        let (head, body) = request.into_parts();
        let id = Uuid::new_v4();
        let outcome = self.outcome(&head, body, caller, id).await;
        // Its target is the caller's own text, the rest of its head none of the log's business.
        let target = head.headers.get(protocol::TARGET);
        let target = target.map_or_else(String::new, |target| shown(target.as_bytes(), 128));
        match &outcome {
            Ok(_) => tracing::debug!(%id, target, "api request answered"),
            Err(error) if error.is_ours() => {
                let error = telemetry::chain(error);
                tracing::error!(%id, target, error, "api request failed");
            }
            Err(error) => tracing::debug!(%id, target, %error, "api request refused"),
        }
        let is_body_left = matches!(outcome, Err(Error::Body(_)));
        let mut response = protocol::response(outcome, id);
        if is_body_left {
            // What is left of the body is not worth reading.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }

    async fn outcome<B>(
        &self,
        head: &request::Parts,
        body: B,
        caller: &Caller,
        id: Uuid,
    ) -> Result<Vec<u8>, Error>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        // First, also for nothing: a connection with a body left in it is closed, and the answer may be lost with it.
        let whole = body::read(&head.headers, body, &self.limits, &self.budget).await?;
        let target = Target::of(head)?;
        let known = self.home.records.clone().zip(operations::named(target));
        let Some((records, operation)) = known else {
            return operations::run(target, &whole.bytes, &call(&self.home, caller)).await;
        };
        let service = target.service;
        let recorded = Recorded {
            home: Arc::clone(&self.home),
            records,
            service,
            operation,
            head: head.clone(),
            whole,
            caller: caller.clone(),
            id,
        };
        if recorded.asked().only_reads() {
            return recorded.read().await;
        }
        // The caller's own wait: one that hangs up meanwhile has asked for nothing.
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.expect("semaphore: never closed");
        let change = async move {
            let outcome = recorded.change().await;
            drop(turn);
            outcome
        };
        match self.changes.spawn(change).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends.
                Err(_) => Err(Error::Unrecordable("the daemon is stopping".to_owned())),
            },
        }
    }
}

fn call<'a>(home: &'a Home, caller: &'a Caller) -> Call<'a> {
    Call {
        home,
        caller,
        region: caller.region,
        now: WallMillis::now(),
    }
}

/// A call that is recorded, with all that it needs.
struct Recorded {
    home: Arc<Home>,
    records: Records,
    service: Service,
    operation: &'static str,
    head: request::Parts,
    /// With its part of the budget, which is held for as long as the call takes, though its caller hangs up.
    whole: Whole,
    caller: Caller,
    id: Uuid,
}

impl Recorded {
    fn asked(&self) -> Asked<'_> {
        Asked {
            service: self.service,
            operation: self.operation,
            headers: &self.head.headers,
            body: &self.whole.bytes,
            caller: &self.caller,
            now: WallMillis::now(),
            request_id: self.id,
        }
    }

    async fn run(&self) -> Result<Vec<u8>, Error> {
        let target = Target::of(&self.head)?;
        // Before anything is done: what is done must be told.
        records::can_tell(&self.asked())?;
        let call = call(&self.home, &self.caller);
        operations::run(target, &self.whole.bytes, &call).await
    }

    async fn read(self) -> Result<Vec<u8>, Error> {
        let outcome = self.run().await;
        self.records.keep(&self.asked(), &outcome).await;
        outcome
    }

    async fn change(self) -> Result<Vec<u8>, Error> {
        let room = self.records.room(&self.asked())?;
        let outcome = self.run().await;
        let asked = self.asked();
        self.records.keep_change(room, &asked, outcome).await
    }
}

#[cfg(test)]
pub(crate) mod tests;
