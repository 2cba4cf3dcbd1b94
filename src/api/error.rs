//! What the API refuses with, in AWS's names for it.
//!
//! An answer has status 400 when the caller is at fault and 500 when traild is, as those of AWS's JSON 1.1 services have, and one of
//! HTTP's own where it is about HTTP. Names are those that the API reference lists under "Errors" for each operation, and those of
//! "Common Errors".

use http::StatusCode;

use crate::auth::Denied;
use crate::digest::keys::{InvalidTimeRange, KeysError};
use crate::event::AccountId;
use crate::ingest::body::BodyError;
use crate::trail::InvalidTrailName;

/// Why a request is not answered as asked. Text of the caller's in it is bounded and harmless.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    // Of the protocol.
    #[error("the API is asked with POST")]
    Method,
    #[error("the API is asked with Content-Type: {content_type}", content_type = super::protocol::CONTENT_TYPE)]
    ContentType,
    #[error("X-Amz-Target names no operation that there is: {0}")]
    UnknownOperation(String),
    #[error("traild does not have the operation {0} of AWS CloudTrail")]
    UnsupportedOperation(&'static str),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the body is not a request for {operation}: {reason}")]
    Serialization {
        operation: &'static str,
        reason: String,
    },
    #[error(transparent)]
    AccessDenied(#[from] Denied),

    // Of operations.
    #[error("trail name '{given}' is not valid: {reason}")]
    InvalidTrailName {
        given: String,
        reason: InvalidTrailName,
    },
    #[error(
        "'{0}' is not the ARN of a trail, as in arn:aws:cloudtrail:us-east-1:111122223333:trail/main"
    )]
    CloudTrailArnInvalid(String),
    #[error("StartTime is after EndTime; one that is left out is now")]
    InvalidTimeRange(#[from] InvalidTimeRange),
    #[error("NextToken is reserved: all keys come in one answer, leave it out")]
    InvalidToken,
    #[error(
        "account {0} has no organization trail, whose organization_id says which organization it is of"
    )]
    OrganizationsNotInUse(AccountId),

    // Ours.
    #[error("cannot list the public keys of digests")]
    Keys(#[from] KeysError),
    #[error("cannot write the answer")]
    Answer(#[from] serde_json::Error),
}

impl Error {
    /// What AWS calls it: the `__type` of the answer.
    pub fn code(&self) -> &'static str {
        match self {
            // The first two have no name of their own: what does not come by the protocol, AWS does not know.
            Self::Method | Self::ContentType | Self::UnknownOperation(_) => {
                "UnknownOperationException"
            }
            Self::UnsupportedOperation(_) => "UnsupportedOperationException",
            Self::Body(BodyError::TooLarge(_) | BodyError::InflatesTooLarge(_)) => {
                "RequestEntityTooLargeException"
            }
            Self::Body(BodyError::TooSlow(_)) => "RequestTimeoutException",
            Self::Body(BodyError::NoMemory) => "ServiceUnavailableException",
            Self::Body(
                BodyError::UnknownEncoding(_) | BodyError::Garbled { .. } | BodyError::BrokeOff(_),
            )
            | Self::Serialization { .. } => "SerializationException",
            Self::AccessDenied(_) => Denied::CODE,
            Self::InvalidTrailName { .. } => "InvalidTrailNameException",
            Self::CloudTrailArnInvalid(_) => "CloudTrailARNInvalidException",
            Self::InvalidTimeRange(_) => "InvalidTimeRangeException",
            Self::InvalidToken => "InvalidTokenException",
            Self::OrganizationsNotInUse(_) => "AWSOrganizationsNotInUseException",
            Self::Keys(_) | Self::Answer(_) => "InternalFailure",
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body(BodyError::TooLarge(_) | BodyError::InflatesTooLarge(_)) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::Body(BodyError::TooSlow(_)) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::NoMemory) => StatusCode::SERVICE_UNAVAILABLE,
            _ if self.is_ours() => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether traild is at fault, and not the caller.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Keys(_) | Self::Answer(_))
    }
}
