//! What went wrong with an attempt, in words that are fit to be shown: bounded, one line, whatever a store has answered.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::telemetry::chain;

const MAX_CODE_BYTES: usize = 64;
const MAX_MESSAGE_CHARS: usize = 512;

/// A failed attempt. Whatever it was, it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The store's own code where it has given one: ASCII letters and digits.
    pub code: String,
    pub message: String,
    pub status: Option<u16>,
}

impl Failure {
    pub fn new(code: &str, message: impl AsRef<str>) -> Self {
        let well_formed = (1..=MAX_CODE_BYTES).contains(&code.len())
            && code.bytes().all(|b| b.is_ascii_alphanumeric());
        Self {
            code: if well_formed { code } else { "Unknown" }.to_owned(),
            message: presentable(message.as_ref()),
            status: None,
        }
    }

    pub fn of<E: ProvideErrorMetadata + std::error::Error + 'static>(
        error: &SdkError<E, HttpResponse>,
    ) -> Self {
        let status = error
            .raw_response()
            .map(|response| response.status().as_u16());
        let code = match (error.code(), error, status) {
            (Some(code), _, _) => code,
            (None, SdkError::TimeoutError(_), _) => "Timeout",
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

    /// The store refuses because of who asks or how it was signed: asked again with better credentials, it may answer.
    pub fn is_about_credentials(&self) -> bool {
        const CODES: [&str; 11] = [
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
