//! What a sender is told, one variant a row of the contract's table.

use std::time::Duration;

use ::http::StatusCode;
use serde::Serialize;

use crate::event::Refusal;
use crate::event::refusal::Code;

/// One event that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Its place among the events of the request, from zero.
    pub index: usize,
    #[serde(rename = "eventID", skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    pub code: &'static str,
    pub message: String,
}

impl Refused {
    pub fn new(index: usize, refusal: Refusal) -> Self {
        let Refusal {
            code,
            event_id,
            message,
        } = refusal;
        Self {
            index,
            event_id,
            code: code.as_str(),
            message,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200; when there were events and every one of them was refused, 403 if none was the sender's to send, else 400. What was accepted is
    /// durable.
    Taken {
        accepted: usize,
        duplicates: usize,
        rejected: Vec<Refused>,
    },
    /// 400: the body as a whole makes no sense. Nothing was accepted.
    Unreadable { code: &'static str, message: String },
    /// 408: the body came too slowly.
    TooSlow { message: String },
    /// 413.
    TooLarge { message: String },
    /// 415.
    UnknownEncoding { message: String },
    /// 503 with `Retry-After`: the same request may succeed later.
    Unavailable {
        code: &'static str,
        message: String,
        retry_after: Duration,
    },
}

impl Answer {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Taken {
                accepted,
                duplicates,
                rejected,
            } => taken_status(accepted + duplicates, rejected),
            Self::Unreadable { .. } => StatusCode::BAD_REQUEST,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownEncoding { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Seconds for the `Retry-After` header, where there is one.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Unavailable { retry_after, .. } => Some(retry_after.as_secs().max(1)),
            _ => None,
        }
    }

    /// The body of the answer, JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let json = match self {
            Self::Taken {
                accepted,
                duplicates,
                rejected,
            } => serde_json::to_vec(&Taken {
                accepted: *accepted,
                duplicates: *duplicates,
                rejected,
            }),
            Self::Unreadable { code, message } | Self::Unavailable { code, message, .. } => {
                serde_json::to_vec(&Error { code, message })
            }
            Self::TooSlow { message } => serde_json::to_vec(&Error {
                code: "BodyTooSlow",
                message,
            }),
            Self::TooLarge { message } => serde_json::to_vec(&Error {
                code: "BodyTooLarge",
                message,
            }),
            Self::UnknownEncoding { message } => serde_json::to_vec(&Error {
                code: "UnsupportedEncoding",
                message,
            }),
        };
        json.expect("numbers and strings: always JSON")
    }
}

/// The status of [`Answer::Taken`]; `stored` events are durable, now or before.
pub(super) fn taken_status(stored: usize, rejected: &[Refused]) -> StatusCode {
    let denied = Code::AccessDenied.as_str();
    match (stored, rejected) {
        (0, [_, ..]) if rejected.iter().all(|refused| refused.code == denied) => {
            StatusCode::FORBIDDEN
        }
        (0, [_, ..]) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

#[derive(Serialize)]
struct Taken<'a> {
    accepted: usize,
    duplicates: usize,
    rejected: &'a [Refused],
}

/// An answer that is about the whole request.
#[derive(Serialize)]
pub(super) struct Error<'a> {
    pub code: &'a str,
    pub message: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(index: usize, event_id: Option<&str>) -> Refused {
        let message = "eventTime is missing".to_owned();
        Refused {
            index,
            event_id: event_id.map(str::to_owned),
            code: "InvalidEventTime",
            message,
        }
    }

    #[test]
    fn answers_are_the_contracts() {
        let answer = Answer::Taken {
            accepted: 2,
            duplicates: 0,
            rejected: vec![refused(2, Some("id")), refused(3, None)],
        };
        assert_eq!(answer.status(), 200);
        assert_eq!(
            String::from_utf8(answer.to_json()).unwrap(),
            concat!(
                r#"{"accepted":2,"duplicates":0,"rejected":["#,
                r#"{"index":2,"eventID":"id","code":"InvalidEventTime","message":"eventTime is missing"},"#,
                r#"{"index":3,"code":"InvalidEventTime","message":"eventTime is missing"}]}"#
            )
        );
        let nothing = Answer::Taken {
            accepted: 0,
            duplicates: 0,
            rejected: Vec::new(),
        };
        assert_eq!(nothing.status(), 200);
        let known = Answer::Taken {
            accepted: 0,
            duplicates: 1,
            rejected: vec![refused(0, None)],
        };
        assert_eq!(known.status(), 200);
        let all_refused = Answer::Taken {
            accepted: 0,
            duplicates: 0,
            rejected: vec![refused(0, None)],
        };
        assert_eq!(all_refused.status(), 400);
        let full = Answer::Unavailable {
            code: "JournalFull",
            message: "x".to_owned(),
            retry_after: Duration::from_millis(1),
        };
        assert_eq!(
            (full.status().as_u16(), full.retry_after_seconds()),
            (503, Some(1))
        );
        assert_eq!(full.to_json(), br#"{"code":"JournalFull","message":"x"}"#);
        assert_eq!(
            Answer::TooLarge {
                message: String::new()
            }
            .status(),
            413
        );
        assert_eq!(
            Answer::UnknownEncoding {
                message: String::new()
            }
            .status(),
            415
        );
        assert_eq!(
            Answer::TooSlow {
                message: String::new()
            }
            .status(),
            408
        );
    }
}
