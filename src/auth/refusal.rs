//! What is answered to those who are not let in, in the names AWS has for it.
//!
//! | | JSON 1.1 | REST-JSON | `/v1/…` |
//! |---|---|---|---|
//! | `MissingAuthenticationTokenException`: not signed | 400 | 403 | 401 |
//! | `IncompleteSignatureException`: a part of the signature is missing or unreadable | 400 | 403 | 403 |
//! | `UnrecognizedClientException`: no such access key or certificate | 400 | 403 | 403 |
//! | `InvalidSignatureException`: expired, of another service or region, of other bytes, by another secret | 400 | 403 | 403 |
//! | `AccessDeniedException`: known, and not allowed | 400 | 403 | 403 |
//!
//! Those are the names of AWS's JSON services. Its query and XML services say `MissingAuthenticationToken`, `IncompleteSignature`, `InvalidClientTokenId`,
//! `SignatureDoesNotMatch` and `AccessDenied`; none of those is spoken here.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use uuid::Uuid;

use super::caller::Denied;
use super::sigv4::Refused;

/// How a path speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `POST /`.
    Json11,
    /// `POST /PutAuditEvents`.
    RestJson,
    /// `/v1/…`.
    Traild,
}

impl Protocol {
    fn status(self, is_missing: bool) -> StatusCode {
        match self {
            Self::Json11 => StatusCode::BAD_REQUEST,
            Self::Traild if is_missing => StatusCode::UNAUTHORIZED,
            Self::RestJson | Self::Traild => StatusCode::FORBIDDEN,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json11 => "application/x-amz-json-1.1",
            Self::RestJson | Self::Traild => "application/json",
        }
    }
}

impl Refused {
    /// What AWS calls it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::Invalid(_) => "InvalidSignatureException",
            Self::UnknownKey | Self::UnknownCertificate => "UnrecognizedClientException",
        }
    }
}

impl Denied {
    /// What AWS calls it.
    pub const CODE: &'static str = "AccessDeniedException";
}

/// The answer to a caller who is refused.
pub trait Refusal: std::fmt::Display {
    fn code(&self) -> &'static str;
    fn is_missing(&self) -> bool {
        false
    }
}

impl Refusal for Refused {
    fn code(&self) -> &'static str {
        Refused::code(self)
    }

    fn is_missing(&self) -> bool {
        *self == Self::Missing
    }
}

impl Refusal for Denied {
    fn code(&self) -> &'static str {
        Self::CODE
    }
}

/// The whole answer. Its code stands where each kind of client looks for it: `__type`, `code` and the header `x-amzn-ErrorType`.
pub fn refusal(refused: &impl Refusal, protocol: Protocol) -> Response<Full<Bytes>> {
    let code = refused.code();
    let body = serde_json::json!({ "__type": code, "code": code, "message": refused.to_string() });
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = protocol.status(refused.is_missing());
    let headers = answer.headers_mut();
    let content_type = HeaderValue::from_static(protocol.content_type());
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(
        HeaderName::from_static("x-amzn-errortype"),
        HeaderValue::from_static(code),
    );
    let id = Uuid::new_v4().hyphenated().to_string();
    let id = HeaderValue::try_from(id).expect("request id: hexadecimal digits and hyphens");
    headers.insert(HeaderName::from_static("x-amzn-requestid"), id);
    answer
}
