//! What a sender is told, one variant a row of the contract's table.

use std::time::Duration;

use ::http::StatusCode;

/// One event that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its place among the events of the request, from zero.
    pub index: usize,
    pub event_id: Option<String>,
    pub code: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200, or 400 when there were events and every one of them was refused. What was accepted is durable.
    Taken { accepted: usize, duplicates: usize, rejected: Vec<Refused> },
    /// 400: the body as a whole makes no sense.
    Unreadable { code: &'static str, message: String },
    /// 413.
    TooLarge { message: String },
    /// 503 with `Retry-After`: nothing was accepted, the same request may succeed later.
    Unavailable { code: &'static str, message: String, retry_after: Duration },
}

impl Answer {
    pub fn status(&self) -> StatusCode {
        todo!()
    }

    /// The body of the answer, JSON.
    pub fn to_json(&self) -> Vec<u8> {
        todo!()
    }
}
