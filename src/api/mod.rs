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
use uuid::Uuid;

use crate::auth::Caller;
use crate::clock::WallMillis;
use crate::digest::keys::Keys;
use crate::event::refusal::shown;
use crate::event::{AccountId, Region};
use crate::history::History;
use crate::ingest::body::{self, Budget, Limits};
use crate::registry::Registry;
use crate::telemetry;
use crate::wal::Position;

use channel::Ingestions;
pub use error::Error;
use preflight::Preflight;
use protocol::Target;
use status::TrailFacts;

/// Bytes of a body, as sent and inflated. The largest that AWS's own limits allow for, the selectors of a trail, is half of it.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// Memory for the bodies of all requests together.
const BODIES_BYTES: usize = 16 << 20;

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
        }
    }

    /// Answers a request to `/`.
    pub async fn answer<B>(&self, request: Request<B>, caller: &Caller) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        let (head, body) = request.into_parts();
        let id = Uuid::new_v4();
        let outcome = self.outcome(&head, body, caller).await;
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
    ) -> Result<Vec<u8>, Error>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        // First, also for nothing: a connection with a body left in it is closed, and the answer may be lost with it.
        let whole = body::read(&head.headers, body, &self.limits, &self.budget).await?;
        let target = Target::of(head)?;
        let call = Call {
            home: &self.home,
            caller,
            region: caller.region,
            now: WallMillis::now(),
        };
        operations::run(target, &whole.bytes, &call).await
    }
}

#[cfg(test)]
mod tests;
