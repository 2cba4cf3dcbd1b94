//! What went wrong with an attempt, in words that are fit to be shown: bounded, one line, whatever a service has answered.

use std::error::Error;

// Every AWS client has these two types; the crate that they come from, aws-smithy-runtime-api, asks to be used through them.
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ConnectorError, SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::telemetry::chain;

/// The code of an attempt for which the client had no credentials: none were found, or a role could not be assumed.
const NO_CREDENTIALS: &str = "CredentialsError";

const MAX_CODE_BYTES: usize = 64;
const MAX_MESSAGE_CHARS: usize = 512;

/// A failed attempt. What follows is the leg's decision: all is tried again but what [`Failure::is_about_content`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The service's own code where it has given one, else one of ours: 1 to 64 ASCII letters, digits and dots (`KMS.DisabledException` of S3).
    pub code: String,
    /// One line of at most 512 characters.
    pub message: String,
    /// Of HTTP, when there was an answer.
    pub status: Option<u16>,
}

impl Failure {
    pub fn new(code: &str, message: impl AsRef<str>) -> Self {
        let well_formed = (1..=MAX_CODE_BYTES).contains(&code.len())
            && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
        Self {
            code: if well_formed { code } else { "Unknown" }.to_owned(),
            message: presentable(message.as_ref()),
            status: None,
        }
    }

    /// What an AWS client says. Without a code of the service's, it is `Timeout`, `DispatchFailure` (the service was not reached, or broke
    /// off), `CredentialsError` (there was nothing to sign with), `ConstructionFailure`, `ResponseError` or `Http<status>`.
    pub fn of<E: ProvideErrorMetadata + Error + 'static>(
        error: &SdkError<E, HttpResponse>,
    ) -> Self {
        let status = error
            .raw_response()
            .map(|response| response.status().as_u16());
        let code = match (error.code(), error, status) {
            (Some(code), _, _) => code,
            (None, SdkError::TimeoutError(_), _) => "Timeout",
            (None, SdkError::DispatchFailure(failure), _)
                if failure.as_connector_error().is_some_and(was_not_signed) =>
            {
                NO_CREDENTIALS
            }
            (None, SdkError::DispatchFailure(_), _) => "DispatchFailure",
            (None, SdkError::ConstructionFailure(_), _) => "ConstructionFailure",
            (None, _, Some(status)) => &format!("Http{status}"),
            (None, _, None) => "ResponseError",
        };
        // A service says it in a sentence; what never reached one is in the chain of causes.
        let message = match (error.message(), error) {
            (Some(message), _) => message,
            (None, SdkError::ServiceError(_)) => match status {
                Some(status) => &format!("http status {status}"),
                None => "no message",
            },
            (None, _) => &chain(error),
        };
        Self {
            status,
            ..Self::new(code, message)
        }
    }

    /// The destination refuses what was sent, and would refuse it again: the request is malformed, or a record in it.
    pub fn is_about_content(&self) -> bool {
        const CODES: [&str; 7] = [
            "InvalidParameter",
            "InvalidParameterException",
            "InvalidParameterValue",
            "ParameterValueInvalid",
            "SerializationException",
            "ValidationError",
            "ValidationException",
        ];
        CODES.contains(&self.code.as_str()) || self.status == Some(413)
    }

    /// The service refuses because of who asks or how it was signed, or there was nothing to sign with: asked again with better
    /// credentials, it may answer.
    pub fn is_about_credentials(&self) -> bool {
        const CODES: [&str; 12] = [
            NO_CREDENTIALS,
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "InvalidSecurity",
            "InvalidSignatureException",
            "InvalidToken",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ];
        CODES.contains(&self.code.as_str())
    }
}

/// Whether the client failed before it had anything to send. The SDK gives that the same error as a connection that failed, though of no
/// kind of its own (`OrchestratorError::into_sdk_error`), which the connection's errors only have when the HTTP client cannot tell either.
fn was_not_signed(error: &ConnectorError) -> bool {
    let is_of_no_kind = error.is_other() && error.as_other().is_none();
    let is_of_http = error.source().is_some_and(|source| {
        source.is::<hyper_util::client::legacy::Error>() || source.is::<hyper::Error>()
    });
    is_of_no_kind && !is_of_http
}

fn presentable(message: &str) -> String {
    message
        .chars()
        .take(MAX_MESSAGE_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::error::ErrorMetadata;
    use aws_smithy_types::retry::ErrorKind;

    #[derive(Debug, thiserror::Error)]
    #[error("refused")]
    struct Refused;

    impl ProvideErrorMetadata for Refused {
        fn meta(&self) -> &ErrorMetadata {
            unreachable!("no service has answered")
        }
    }

    #[test]
    fn only_what_failed_before_there_was_a_request_is_about_credentials() {
        let why = || "the role may not be assumed".into();
        for (error, code) in [
            (ConnectorError::other(why(), None), "CredentialsError"),
            (
                // How the HTTP client tells of a connection that was closed in the middle of an answer.
                ConnectorError::other(why(), Some(ErrorKind::TransientError)),
                "DispatchFailure",
            ),
            (ConnectorError::io(why()), "DispatchFailure"),
            (ConnectorError::timeout(why()), "DispatchFailure"),
            (ConnectorError::user(why()), "DispatchFailure"),
        ] {
            let failure = Failure::of(&SdkError::<Refused, _>::dispatch_failure(error));
            assert_eq!(failure.code, code);
            assert_eq!(failure.is_about_credentials(), code == "CredentialsError");
            assert!(
                failure.message.contains("may not be assumed"),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn a_hostile_answer_is_shown_short_and_on_one_line() {
        let failure = Failure::new(
            "AccessDenied",
            format!("no\r\n\u{1b}[31m{}", "ä".repeat(9999)),
        );
        assert_eq!(failure.code, "AccessDenied");
        assert_eq!(failure.message.chars().count(), MAX_MESSAGE_CHARS);
        assert!(!failure.message.contains(char::is_control));
        for code in ["a\" b", "", &"x".repeat(65)] {
            let shown = Failure::new(code, "").code;
            assert_eq!(shown, "Unknown", "{code}");
        }
    }
}
