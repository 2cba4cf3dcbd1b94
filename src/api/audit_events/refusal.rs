//! What PutAuditEvents refuses with as a whole, in AWS's names: those of its own, which have no `Exception` behind them, and the common ones.

use http::{HeaderName, StatusCode};

use crate::auth::Denied;
use crate::auth::policy::InvalidPolicy;
use crate::ingest::Answer;
use crate::ingest::body::BodyError;

/// Where clients of REST-JSON look for the name.
pub const TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("audit events are sent with POST")]
    Method,
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the body is not a request for PutAuditEvents: {0}")]
    Serialization(String),
    #[error("{0}")]
    Validation(String),
    #[error("'{0}' is not the ARN of a channel")]
    InvalidChannelArn(String),
    #[error("no channel has the ARN {0}")]
    ChannelNotFound(String),
    #[error("two events of the request have the id {0}")]
    DuplicatedAuditEventId(String),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("{message}", message = told(.0))]
    Unavailable(Answer),

    // Ours.
    #[error("cannot read the policy of the channel")]
    Policy(#[from] InvalidPolicy),
    #[error("cannot write the answer")]
    Answer(#[from] serde_json::Error),
}

impl Error {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Method => "UnknownOperationException",
            Self::Body(BodyError::TooLarge(_) | BodyError::InflatesTooLarge(_))
            | Self::Unavailable(Answer::TooLarge { .. }) => "RequestEntityTooLargeException",
            Self::Body(BodyError::TooSlow(_)) => "RequestTimeoutException",
            Self::Body(BodyError::NoMemory) | Self::Unavailable(_) => "ServiceUnavailableException",
            Self::Body(
                BodyError::UnknownEncoding(_) | BodyError::Garbled { .. } | BodyError::BrokeOff(_),
            )
            | Self::Serialization(_) => "SerializationException",
            Self::Validation(_) => "ValidationException",
            Self::InvalidChannelArn(_) => "InvalidChannelARN",
            Self::ChannelNotFound(_) => "ChannelNotFound",
            Self::DuplicatedAuditEventId(_) => "DuplicatedAuditEventId",
            Self::Denied(denied) if denied.is_by_resource() => "ChannelInsufficientPermission",
            Self::Denied(_) => Denied::CODE,
            Self::Policy(_) | Self::Answer(_) => "InternalFailure",
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body(BodyError::TooLarge(_) | BodyError::InflatesTooLarge(_))
            | Self::Unavailable(Answer::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyError::TooSlow(_)) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::NoMemory) | Self::Unavailable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Denied(denied) if !denied.is_by_resource() => StatusCode::FORBIDDEN,
            _ if self.is_ours() => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether traild is at fault, and not the caller.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Policy(_) | Self::Answer(_))
    }

    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Unavailable(answer) => answer.retry_after_seconds(),
            Self::Body(BodyError::NoMemory) => Some(2),
            _ => None,
        }
    }

    /// The body of the answer.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::json!({ "__type": self.code(), "message": self.to_string() })
            .to_string()
            .into_bytes()
    }
}

/// Why the ways in took nothing.
fn told(answer: &Answer) -> String {
    match answer {
        Answer::Unavailable { code, message, .. } => format!("{code}: {message}"),
        Answer::TooLarge { message } | Answer::Unreadable { message, .. } => message.clone(),
        answer => format!("answered {}", answer.status()),
    }
}
