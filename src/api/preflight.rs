//! Whether what a trail is to deliver to will take it: asked before a trail is made or set to something else, as CloudTrail does.
//!
//! - The bucket: an empty object is written to `[<prefix>/]AWSLogs/[<o-id>/]<account>/CloudTrail/`, as CloudTrail leaves one there. That shows that the
//!   bucket exists, and that it, and the KMS key of the trail, may be used. CloudTrail's GetBucketAcl is left out: delivery does not need it.
//! - The topic is sent `CloudTrail validation message.`
//! - The log stream of the trail is made in its log group.
//!
//! [`Preflight`] asks; what the answers mean is said here, in CloudTrail's errors. What gave no clear answer is an error that clients try again on.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::Error;
use crate::deliver::failure::Failure;
use crate::trail::Trail;

pub type Asked<'a> = BoxFuture<'a, Result<(), Failure>>;

/// Asks services.
pub trait Preflight: fmt::Debug + Send + Sync {
    /// Writes the trail's marker to its bucket, encrypted as its log files will be.
    fn bucket(&self, trail: Arc<Trail>) -> Asked<'_>;

    /// Publishes to the trail's topic, when it has one.
    fn topic(&self, trail: Arc<Trail>) -> Asked<'_>;

    /// Makes the trail's stream in its log group, when it has one.
    fn log_group(&self, trail: Arc<Trail>) -> Asked<'_>;
}

/// What a request has set anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Anew {
    pub topic: bool,
    pub log_group: bool,
}

/// Asks for the bucket, and for what is set anew.
pub async fn check(preflight: &dyn Preflight, trail: &Arc<Trail>, anew: Anew) -> Result<(), Error> {
    let asked = preflight.bucket(trail.clone()).await;
    asked.map_err(|failure| of_bucket(trail, failure))?;
    if anew.topic {
        let asked = preflight.topic(trail.clone()).await;
        asked.map_err(|failure| of_topic(trail, failure))?;
    }
    if anew.log_group {
        let asked = preflight.log_group(trail.clone()).await;
        asked.map_err(|failure| of_log_group(trail, failure))?;
    }
    Ok(())
}

/// What it means that the marker could not be written (S3 API reference, "error responses"; what S3 passes on of KMS begins with `KMS.`).
fn of_bucket(trail: &Trail, failure: Failure) -> Error {
    let bucket = trail.bucket.clone();
    if let Some(key) = trail.kms_key_id.clone() {
        match failure.code.as_str() {
            "KMS.NotFoundException" => return Error::KmsKeyNotFound { key, failure },
            code if code.starts_with("KMS.") => return Error::Kms { key, failure },
            // S3 names the action that the key's policy does not allow.
            "AccessDenied" if failure.message.contains("kms:") => {
                return Error::InsufficientEncryptionPolicy {
                    key,
                    bucket,
                    failure,
                };
            }
            _ => {}
        }
    }
    match (failure.code.as_str(), failure.status) {
        ("NoSuchBucket", _) => Error::S3BucketDoesNotExist(bucket),
        ("InvalidBucketName", _) => Error::InvalidS3BucketName {
            given: bucket,
            problem: "is none that S3 takes".to_owned(),
        },
        ("PermanentRedirect" | "AuthorizationHeaderMalformed", _) | (_, Some(301)) => {
            Error::InvalidParameter(format!(
                "S3 bucket {bucket} is in another region than the one traild's credentials are set up for: set AWS_REGION to the bucket's"
            ))
        }
        (_, Some(403)) if !failure.is_about_credentials() => {
            Error::InsufficientS3BucketPolicy { bucket, failure }
        }
        _ => Error::Unchecked {
            place: bucket,
            failure,
        },
    }
}

/// What it means that the topic was not published to (SNS API reference, Publish, "errors").
fn of_topic(trail: &Trail, failure: Failure) -> Error {
    let topic = trail.topic.as_ref().map(|topic| topic.arn().to_owned());
    let topic = topic.unwrap_or_default();
    match failure.code.as_str() {
        "InvalidClientTokenId" => Error::InvalidClientTokenId { topic, failure },
        "NotFound" | "AuthorizationError" | "AccessDenied" | "InvalidParameter" => {
            Error::InsufficientSnsTopicPolicy { topic, failure }
        }
        // The topic is encrypted, and its key may not be used.
        code if code.starts_with("KMS") && code != "KMSThrottling" => {
            Error::InsufficientSnsTopicPolicy { topic, failure }
        }
        _ => Error::Unchecked {
            place: topic,
            failure,
        },
    }
}

/// What it means that the stream could not be made (CloudWatch Logs API reference, CreateLogStream, "errors"; STS, AssumeRole).
fn of_log_group(trail: &Trail, failure: Failure) -> Error {
    let Some(log_group) = &trail.log_group else {
        return Error::InvalidParameter("there is no log group".to_owned());
    };
    let group = log_group.arn().to_owned();
    let told = format!("{}: {}", failure.code, failure.message);
    match failure.code.as_str() {
        "ResourceNotFoundException" | "InvalidParameterException" => Error::InvalidLogGroupArn {
            given: group,
            problem: format!("is not there to write to ({told})"),
        },
        "AccessDenied" | "AccessDeniedException" | "CredentialsError" => {
            let role = log_group.role_arn();
            Error::InvalidLogRoleArn {
                given: role.unwrap_or_default().to_owned(),
                problem: match role {
                    Some(_) => {
                        format!("may not be assumed, or not write to log group {group} ({told})")
                    }
                    None => {
                        format!(
                            "is not given, and traild's own credentials may not write to log group {group} ({told})"
                        )
                    }
                },
            }
        }
        _ => Error::CloudWatchLogsDeliveryUnavailable { group, failure },
    }
}

#[cfg(test)]
pub mod fake {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use tokio::sync::Semaphore;

    use super::*;

    /// Answers as a test has it; all is well otherwise.
    #[derive(Debug)]
    pub struct Told {
        pub failures: Mutex<BTreeMap<&'static str, Failure>>,
        /// What was asked, with the bucket.
        pub asked: Mutex<Vec<String>>,
        /// Of answers that may be given.
        pub gate: Semaphore,
    }

    impl Default for Told {
        fn default() -> Self {
            Self {
                failures: Mutex::default(),
                asked: Mutex::default(),
                gate: Semaphore::new(Semaphore::MAX_PERMITS),
            }
        }
    }

    impl Told {
        fn answer(&self, what: &'static str, trail: &Trail) -> Asked<'_> {
            let asked = format!("{what} {}", trail.bucket);
            self.asked.lock().unwrap().push(asked);
            Box::pin(async move {
                self.gate.acquire().await.unwrap().forget();
                match self.failures.lock().unwrap().get(what) {
                    None => Ok(()),
                    Some(failure) => Err(failure.clone()),
                }
            })
        }
    }

    impl Preflight for Told {
        fn bucket(&self, trail: Arc<Trail>) -> Asked<'_> {
            self.answer("bucket", &trail)
        }

        fn topic(&self, trail: Arc<Trail>) -> Asked<'_> {
            self.answer("topic", &trail)
        }

        fn log_group(&self, trail: Arc<Trail>) -> Asked<'_> {
            self.answer("log group", &trail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::tests::trail;

    fn failure(status: u16, code: &str, message: &str) -> Failure {
        Failure {
            status: (status != 0).then_some(status),
            ..Failure::new(code, message)
        }
    }

    #[test]
    fn what_services_answer_is_said_in_cloudtrails_errors() {
        let trail = Trail {
            kms_key_id: Some("alias/audit".to_owned()),
            topic: Some("arn:aws:sns:us-east-1:111122223333:told".parse().unwrap()),
            log_group: Some(
                "arn:aws:logs:us-east-1:111122223333:log-group:trail"
                    .parse()
                    .unwrap(),
            ),
            ..trail()
        };
        let plain = Trail {
            kms_key_id: None,
            ..trail.clone()
        };
        let denied_key = "User is not authorized to perform: kms:GenerateDataKey";
        for (trail, status, code, message, expected) in [
            (
                &plain,
                404,
                "NoSuchBucket",
                "",
                "S3BucketDoesNotExistException",
            ),
            (
                &plain,
                400,
                "InvalidBucketName",
                "",
                "InvalidS3BucketNameException",
            ),
            (
                &plain,
                403,
                "AccessDenied",
                "",
                "InsufficientS3BucketPolicyException",
            ),
            (
                &plain,
                403,
                "AllAccessDisabled",
                "",
                "InsufficientS3BucketPolicyException",
            ),
            (
                &plain,
                403,
                "AccessDenied",
                denied_key,
                "InsufficientS3BucketPolicyException",
            ),
            (
                &plain,
                403,
                "InvalidAccessKeyId",
                "",
                "ServiceUnavailableException",
            ),
            (
                &plain,
                301,
                "PermanentRedirect",
                "",
                "InvalidParameterException",
            ),
            (&plain, 503, "SlowDown", "", "ServiceUnavailableException"),
            (&plain, 0, "Timeout", "", "ServiceUnavailableException"),
            (
                &trail,
                400,
                "KMS.NotFoundException",
                "",
                "KmsKeyNotFoundException",
            ),
            (&trail, 400, "KMS.DisabledException", "", "KmsException"),
            (
                &trail,
                400,
                "KMS.KMSInvalidStateException",
                "",
                "KmsException",
            ),
            (
                &trail,
                403,
                "AccessDenied",
                denied_key,
                "InsufficientEncryptionPolicyException",
            ),
            (
                &trail,
                403,
                "AccessDenied",
                "",
                "InsufficientS3BucketPolicyException",
            ),
            (
                &trail,
                404,
                "NoSuchBucket",
                "",
                "S3BucketDoesNotExistException",
            ),
        ] {
            let error = of_bucket(trail, failure(status, code, message));
            assert_eq!(error.code(), expected, "{code} {message}");
        }
        for (code, expected) in [
            ("NotFound", "InsufficientSnsTopicPolicyException"),
            ("AuthorizationError", "InsufficientSnsTopicPolicyException"),
            ("KMSAccessDenied", "InsufficientSnsTopicPolicyException"),
            (
                "InvalidClientTokenId",
                "CloudTrailInvalidClientTokenIdException",
            ),
            ("KMSThrottling", "ServiceUnavailableException"),
            ("Throttled", "ServiceUnavailableException"),
            ("ExpiredToken", "ServiceUnavailableException"),
            ("DispatchFailure", "ServiceUnavailableException"),
        ] {
            let error = of_topic(&trail, failure(400, code, ""));
            assert_eq!(error.code(), expected, "{code}");
            assert_eq!(
                error.status() == 503,
                expected == "ServiceUnavailableException"
            );
        }
        for (code, expected) in [
            (
                "ResourceNotFoundException",
                "InvalidCloudWatchLogsLogGroupArnException",
            ),
            (
                "InvalidParameterException",
                "InvalidCloudWatchLogsLogGroupArnException",
            ),
            (
                "AccessDeniedException",
                "InvalidCloudWatchLogsRoleArnException",
            ),
            ("CredentialsError", "InvalidCloudWatchLogsRoleArnException"),
            (
                "ServiceUnavailableException",
                "CloudWatchLogsDeliveryUnavailableException",
            ),
            (
                "ThrottlingException",
                "CloudWatchLogsDeliveryUnavailableException",
            ),
            ("Timeout", "CloudWatchLogsDeliveryUnavailableException"),
        ] {
            let error = of_log_group(&trail, failure(400, code, "why"));
            assert_eq!(error.code(), expected, "{code}");
            assert!(error.to_string().contains("why"), "{error}");
        }
    }

    #[tokio::test]
    async fn only_the_bucket_and_what_is_set_anew_is_asked() {
        for (topic, log_group, expected) in [
            (false, false, vec!["bucket audit-logs"]),
            (true, false, vec!["bucket audit-logs", "topic audit-logs"]),
            (
                false,
                true,
                vec!["bucket audit-logs", "log group audit-logs"],
            ),
        ] {
            let told = fake::Told::default();
            let anew = Anew { topic, log_group };
            check(&told, &Arc::new(trail()), anew).await.unwrap();
            assert_eq!(*told.asked.lock().unwrap(), expected);
        }
    }
}
