//! What the API refuses with, in AWS's names for it.
//!
//! An answer has status 400 when the caller is at fault and 500 when traild is, as those of AWS's JSON 1.1 services have, and one of
//! HTTP's own where it is about HTTP. Names are those that the API reference lists under "Errors" for each operation, and those of
//! "Common Errors".

use http::StatusCode;

use super::token::ForeignToken;
use crate::auth::Denied;
use crate::deliver::failure::Failure;
use crate::digest::keys::{InvalidTimeRange, KeysError};
use crate::event::{AccountId, Region};
use crate::history::LookupError;
use crate::ingest::body::BodyError;
use crate::ingest::records::RecordError;
use crate::registry::{NoRoom, NotKept, StartedTooOften, channels};
use crate::trail::InvalidTrailName;
use crate::trail::selector::InvalidEventSelectors;

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
    #[error("NextToken is reserved: all comes in one answer, leave it out")]
    InvalidToken,
    #[error(transparent)]
    ForeignToken(#[from] ForeignToken),
    /// The same, where the operation calls it so.
    #[error(transparent)]
    InvalidNextToken(ForeignToken),
    #[error(
        "account {0} has no organization trail, whose organization_id says which organization it is of"
    )]
    OrganizationsNotInUse(AccountId),

    // Of trails.
    #[error("Unknown trail: {given} for the user: {account}")]
    TrailNotFound { given: String, account: AccountId },
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("trail {arn} is changed in its home region {home} only, not in {asked}")]
    InvalidHomeRegion {
        arn: String,
        home: Region,
        asked: Region,
    },
    #[error(
        "trail {0} is of the configuration file and can be changed there only: edit its [[trails]] and start traild again"
    )]
    ReadOnly(String),
    #[error("trail {0} has been changed by another request meanwhile: ask again")]
    Conflict(String),
    #[error(transparent)]
    StartedTooOften(#[from] StartedTooOften),
    #[error("bucket name '{given}' {problem}")]
    InvalidS3BucketName { given: String, problem: String },
    #[error("S3 key prefix '{given}' {problem}")]
    InvalidS3Prefix { given: String, problem: String },
    #[error("SNS topic '{given}' {problem}")]
    InvalidSnsTopicName { given: String, problem: String },
    #[error("KMS key '{given}' {problem}")]
    InvalidKmsKeyId { given: String, problem: String },
    #[error("CloudWatch Logs log group '{given}' {problem}")]
    InvalidLogGroupArn { given: String, problem: String },
    #[error("CloudWatch Logs role '{given}' {problem}")]
    InvalidLogRoleArn { given: String, problem: String },
    #[error("{0}")]
    InvalidParameterCombination(&'static str),
    #[error("{0}")]
    InvalidParameter(String),
    #[error(transparent)]
    InvalidEventSelectors(#[from] InvalidEventSelectors),
    #[error("event selectors: {0}")]
    EventSelectorsOfTwoKinds(&'static str),
    #[error("{0}")]
    InvalidInsightSelectors(String),
    #[error(
        "Trail {0} does not have Insights enabled. Edit the trail settings to enable Insights, and then try the operation again."
    )]
    InsightNotEnabled(String),
    #[error(
        "account {0} is not the organization's management account, which alone has organization trails"
    )]
    NotOrganizationMasterAccount(AccountId),
    #[error(
        "there is no organization: an organization trail of the API is of the same one as an organization trail of the configuration file, \
         and there is none"
    )]
    NoOrganization,

    // Of channels and their policies.
    #[error(transparent)]
    NoRoomForChannel(#[from] channels::NoRoom),
    #[error(
        "the source of a channel is Custom, or the name of an integration: a letter, then letters, digits, '.', '_' and '-', given: {0}"
    )]
    InvalidSource(String),
    #[error("'{0}' is not the ARN of a channel, an event data store or a dashboard")]
    ResourceArnNotValid(String),
    #[error("'{0}' is not of a type that has a resource policy here: channels have")]
    ResourceTypeWithoutPolicy(String),
    #[error("{0} has no resource policy")]
    ResourcePolicyNotFound(String),
    #[error("the resource policy is not valid: {0}")]
    ResourcePolicyNotValid(String),

    // Of tags.
    #[error("nothing here has the ARN {0}")]
    ResourceNotFound(String),
    #[error("'{0}' is not the ARN of a channel")]
    ChannelArnInvalid(String),
    #[error("no channel has the ARN {0}")]
    ChannelNotFound(String),
    #[error("'{0}' is not the ARN of an event data store of this account")]
    EventDataStoreArnInvalid(String),
    #[error("no event data store has the ARN {0}")]
    EventDataStoreNotFound(String),
    #[error("'{0}' is not of a type that has tags here: trails and channels have")]
    ResourceTypeNotSupported(String),
    #[error("{0}")]
    InvalidTagParameter(String),
    #[error("a trail or channel has at most {most} tags, this would make {would_be}")]
    TagsLimitExceeded { most: usize, would_be: usize },

    // Of the event history.
    #[error("{0}")]
    InvalidLookupAttributes(String),
    #[error("{0}")]
    InvalidLookupTimes(&'static str),
    #[error("MaxResults is {0}; it is 1 to 50")]
    InvalidMaxResults(i64),
    #[error(
        "EventCategory '{0}' is none that is looked up: 'insight' is, and without one management events are"
    )]
    InvalidEventCategory(String),
    #[error(transparent)]
    Lookup(#[from] LookupError),

    // Of what a trail delivers to.
    #[error("S3 bucket {0} does not exist!")]
    S3BucketDoesNotExist(String),
    #[error("Incorrect S3 bucket policy is detected for bucket: {bucket} ({failure})", failure = told(.failure))]
    InsufficientS3BucketPolicy { bucket: String, failure: Failure },
    #[error("KMS key {key} does not exist ({failure})", failure = told(.failure))]
    KmsKeyNotFound { key: String, failure: Failure },
    #[error("KMS key {key} may not be used for bucket {bucket} ({failure})", failure = told(.failure))]
    InsufficientEncryptionPolicy {
        key: String,
        bucket: String,
        failure: Failure,
    },
    #[error("KMS key {key} cannot be used ({failure})", failure = told(.failure))]
    Kms { key: String, failure: Failure },
    #[error("SNS Topic does not exist or the topic policy is incorrect! {topic} ({failure})", failure = told(.failure))]
    InsufficientSnsTopicPolicy { topic: String, failure: Failure },
    #[error("topic {topic} is not published to with these credentials ({failure})", failure = told(.failure))]
    InvalidClientTokenId { topic: String, failure: Failure },
    #[error("log group {group} cannot be written to now ({failure})", failure = told(.failure))]
    CloudWatchLogsDeliveryUnavailable { group: String, failure: Failure },
    #[error("bucket or topic {place} cannot be checked now ({failure})", failure = told(.failure))]
    Unchecked { place: String, failure: Failure },

    // Of records.
    #[error("nothing was changed, as it could not be recorded now: {0}")]
    Unrecordable(String),
    #[error("it is done, and could not be recorded")]
    Unrecorded(#[source] RecordError),

    // Ours.
    #[error(transparent)]
    NotKept(#[from] NotKept),
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
            Self::InvalidToken | Self::ForeignToken(_) => "InvalidTokenException",
            Self::InvalidNextToken(_) => "InvalidNextTokenException",
            Self::OrganizationsNotInUse(_) => "AWSOrganizationsNotInUseException",
            Self::TrailNotFound { .. } => "TrailNotFoundException",
            Self::NoRoom(NoRoom::Exists { .. }) => "TrailAlreadyExistsException",
            Self::NoRoom(NoRoom::InRegion { .. } | NoRoom::InAll) => {
                "MaximumNumberOfTrailsExceededException"
            }
            Self::InvalidHomeRegion { .. } => "InvalidHomeRegionException",
            Self::ReadOnly(_) => "OperationNotPermittedException",
            Self::Conflict(_) | Self::StartedTooOften(_) => "ConflictException",
            Self::InvalidS3BucketName { .. } => "InvalidS3BucketNameException",
            Self::InvalidS3Prefix { .. } => "InvalidS3PrefixException",
            Self::InvalidSnsTopicName { .. } => "InvalidSnsTopicNameException",
            Self::InvalidKmsKeyId { .. } => "InvalidKmsKeyIdException",
            Self::InvalidLogGroupArn { .. } => "InvalidCloudWatchLogsLogGroupArnException",
            Self::InvalidLogRoleArn { .. } => "InvalidCloudWatchLogsRoleArnException",
            Self::InvalidParameterCombination(_) => "InvalidParameterCombinationException",
            Self::InvalidParameter(_) => "InvalidParameterException",
            Self::InvalidEventSelectors(error) => error.code(),
            Self::EventSelectorsOfTwoKinds(_) => "InvalidEventSelectorsException",
            Self::InvalidInsightSelectors(_) => "InvalidInsightSelectorsException",
            Self::InsightNotEnabled(_) => "InsightNotEnabledException",
            Self::NotOrganizationMasterAccount(_) => "NotOrganizationMasterAccountException",
            Self::NoOrganization => "OrganizationsNotInUseException",
            Self::NoRoomForChannel(
                channels::NoRoom::Name { .. } | channels::NoRoom::Source { .. },
            ) => "ChannelAlreadyExistsException",
            Self::NoRoomForChannel(channels::NoRoom::InRegion { .. } | channels::NoRoom::InAll) => {
                "ChannelMaxLimitExceededException"
            }
            Self::InvalidSource(_) => "InvalidSourceException",
            Self::ResourceArnNotValid(_) => "ResourceARNNotValidException",
            Self::ResourcePolicyNotFound(_) => "ResourcePolicyNotFoundException",
            Self::ResourcePolicyNotValid(_) => "ResourcePolicyNotValidException",
            Self::ResourceNotFound(_) => "ResourceNotFoundException",
            Self::ChannelArnInvalid(_) => "ChannelARNInvalidException",
            Self::ChannelNotFound(_) => "ChannelNotFoundException",
            Self::EventDataStoreArnInvalid(_) => "EventDataStoreARNInvalidException",
            Self::EventDataStoreNotFound(_) => "EventDataStoreNotFoundException",
            Self::ResourceTypeNotSupported(_) | Self::ResourceTypeWithoutPolicy(_) => {
                "ResourceTypeNotSupportedException"
            }
            Self::InvalidTagParameter(_) => "InvalidTagParameterException",
            Self::TagsLimitExceeded { .. } => "TagsLimitExceededException",
            Self::InvalidLookupAttributes(_) => "InvalidLookupAttributesException",
            Self::InvalidLookupTimes(_) => "InvalidTimeRangeException",
            Self::InvalidMaxResults(_) => "InvalidMaxResultsException",
            Self::InvalidEventCategory(_) => "InvalidEventCategoryException",
            Self::Lookup(LookupError::Off) => "UnsupportedOperationException",
            Self::S3BucketDoesNotExist(_) => "S3BucketDoesNotExistException",
            Self::InsufficientS3BucketPolicy { .. } => "InsufficientS3BucketPolicyException",
            Self::KmsKeyNotFound { .. } => "KmsKeyNotFoundException",
            Self::InsufficientEncryptionPolicy { .. } => "InsufficientEncryptionPolicyException",
            Self::Kms { .. } => "KmsException",
            Self::InsufficientSnsTopicPolicy { .. } => "InsufficientSnsTopicPolicyException",
            Self::InvalidClientTokenId { .. } => "CloudTrailInvalidClientTokenIdException",
            Self::CloudWatchLogsDeliveryUnavailable { .. } => {
                "CloudWatchLogsDeliveryUnavailableException"
            }
            // Clients try again by themselves.
            Self::Unchecked { .. } | Self::Unrecordable(_) => "ServiceUnavailableException",
            Self::Keys(_)
            | Self::Answer(_)
            | Self::NotKept(_)
            | Self::Lookup(_)
            | Self::Unrecorded(_) => "InternalFailure",
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body(BodyError::TooLarge(_) | BodyError::InflatesTooLarge(_)) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::Body(BodyError::TooSlow(_)) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::NoMemory) | Self::Unchecked { .. } | Self::Unrecordable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ if self.is_ours() => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether traild is at fault, and not the caller.
    pub fn is_ours(&self) -> bool {
        match self {
            Self::Lookup(error) => !matches!(error, LookupError::Off),
            _ => matches!(
                self,
                Self::Keys(_) | Self::Answer(_) | Self::NotKept(_) | Self::Unrecorded(_)
            ),
        }
    }
}

fn told(failure: &Failure) -> String {
    let Failure { code, message, .. } = failure;
    format!("{code}: {message}")
}
