//! Why the store refuses, and the S3 code each refusal answers with.

use std::borrow::Cow;
use std::io;

use http::StatusCode;
use s3s::{S3Error, S3ErrorCode};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("The specified bucket does not exist")]
    NoSuchBucket,
    #[error("The specified key does not exist.")]
    NoSuchKey,
    #[error(
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    )]
    NoSuchUpload,
    #[error("Your previous request to create the named bucket succeeded and you already own it.")]
    BucketAlreadyOwnedByYou,
    #[error("The bucket you tried to delete is not empty")]
    BucketNotEmpty,
    #[error("At least one of the pre-conditions you specified did not hold")]
    PreconditionFailed,
    #[error("Not Modified")]
    NotModified,
    #[error("The {digest} you specified did not match what we received.")]
    BadDigest { digest: &'static str },
    #[error("The provided 'x-amz-content-sha256' header does not match what was computed.")]
    PayloadSha256Mismatch,
    #[error("The Content-MD5 you specified is not valid.")]
    InvalidDigest,
    #[error("Value for {header} header is invalid.")]
    InvalidChecksumHeader { header: &'static str },
    #[error("{0}")]
    InvalidArgument(Cow<'static, str>),
    #[error("{0}")]
    InvalidRequest(Cow<'static, str>),
    #[error("{0}")]
    NotImplemented(Cow<'static, str>),
    #[error("The requested range is not satisfiable")]
    InvalidRange,
    #[error("The requested partnumber is not satisfiable")]
    InvalidPartNumber,
    #[error(
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."
    )]
    InvalidPart,
    #[error("The list of parts was not in ascending order. Parts must be ordered by part number.")]
    InvalidPartOrder,
    #[error("Your proposed upload is smaller than the minimum allowed size")]
    EntityTooSmall,
    #[error("Your proposed upload exceeds the maximum allowed size")]
    EntityTooLarge,
    #[error("Your metadata headers exceed the maximum allowed metadata size")]
    MetadataTooLarge,
    #[error("You did not provide the number of bytes specified by the Content-Length HTTP header")]
    IncompleteBody,
    #[error(
        "Your socket connection to the server was not read from or written to within the timeout period."
    )]
    RequestTimeout,
    #[error(
        "The request contained trailing data that was not well-formed or did not conform to our published schema."
    )]
    MalformedTrailer,
    #[error("Request has expired")]
    RequestExpired,
    #[error("You must provide the Content-Length HTTP header.")]
    MissingContentLength,
    #[error("The store's disk is full")]
    DiskFull,
    #[error("The store could not {attempt}")]
    Io {
        attempt: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("The store is stopping")]
    Stopping,
}

impl StoreError {
    /// For `map_err`: names what was attempted, and tells a full disk from a broken one.
    pub fn io(attempt: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io { attempt, source },
        }
    }

    fn code(&self) -> S3ErrorCode {
        match self {
            Self::NoSuchBucket => S3ErrorCode::NoSuchBucket,
            Self::NoSuchKey => S3ErrorCode::NoSuchKey,
            Self::NoSuchUpload => S3ErrorCode::NoSuchUpload,
            Self::BucketAlreadyOwnedByYou => S3ErrorCode::BucketAlreadyOwnedByYou,
            Self::BucketNotEmpty => S3ErrorCode::BucketNotEmpty,
            Self::PreconditionFailed => S3ErrorCode::PreconditionFailed,
            Self::NotModified => S3ErrorCode::NotModified,
            Self::BadDigest { .. } => S3ErrorCode::BadDigest,
            Self::PayloadSha256Mismatch => S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
            Self::InvalidDigest => S3ErrorCode::InvalidDigest,
            Self::InvalidChecksumHeader { .. } | Self::InvalidRequest(_) => {
                S3ErrorCode::InvalidRequest
            }
            Self::InvalidArgument(_) => S3ErrorCode::InvalidArgument,
            Self::NotImplemented(_) => S3ErrorCode::NotImplemented,
            Self::InvalidRange => S3ErrorCode::InvalidRange,
            Self::InvalidPartNumber => S3ErrorCode::Custom("InvalidPartNumber".into()),
            Self::InvalidPart => S3ErrorCode::InvalidPart,
            Self::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
            Self::EntityTooSmall => S3ErrorCode::EntityTooSmall,
            Self::EntityTooLarge => S3ErrorCode::EntityTooLarge,
            Self::MetadataTooLarge => S3ErrorCode::MetadataTooLarge,
            Self::IncompleteBody => S3ErrorCode::IncompleteBody,
            Self::RequestTimeout => S3ErrorCode::RequestTimeout,
            Self::MalformedTrailer => S3ErrorCode::Custom("MalformedTrailerError".into()),
            Self::RequestExpired => S3ErrorCode::AccessDenied,
            Self::MissingContentLength => S3ErrorCode::MissingContentLength,
            Self::DiskFull => S3ErrorCode::Custom("InsufficientStorage".into()),
            Self::Io { .. } => S3ErrorCode::InternalError,
            Self::Stopping => S3ErrorCode::ServiceUnavailable,
        }
    }
}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        if let StoreError::Io { attempt, source } = &error {
            tracing::error!(attempt, error = %source, "the object store failed on its disk");
        }
        let mut answer = S3Error::with_message(error.code(), error.to_string());
        match error {
            StoreError::PayloadSha256Mismatch | StoreError::MalformedTrailer => {
                answer.set_status_code(StatusCode::BAD_REQUEST)
            }
            StoreError::InvalidPartNumber => {
                answer.set_status_code(StatusCode::RANGE_NOT_SATISFIABLE)
            }
            StoreError::DiskFull => answer.set_status_code(StatusCode::INSUFFICIENT_STORAGE),
            _ => {}
        }
        answer
    }
}
