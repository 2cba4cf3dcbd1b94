//! AWS JSON 1.1, as the SDKs speak it with CloudTrail and with Organizations (Smithy, "AWS JSON 1.1 protocol").
//!
//! ```text
//!  POST /                                            200 | 400 | 500
//!  Content-Type: application/x-amz-json-1.1          Content-Type: application/x-amz-json-1.1
//!  X-Amz-Target: <service>.<operation>               x-amzn-RequestId: <uuid>
//!  {"StartTime":1777594354,…}                        {"PublicKeyList":[…]} | {"__type":"…Exception","message":"…"}
//! ```
//!
//! CloudTrail has two names: botocore, and so the AWS CLI, uses the long one, newer SDKs the short one. Values in, values out.
//!
//! The content type is insisted on, as AWS does: no page in a browser can send it to another origin without asking first.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE as CONTENT_TYPE_HEADER};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, request};
use http_body_util::Full;
use uuid::Uuid;

use super::{Error, Operation};
use crate::event::refusal::shown;

pub const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
pub const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// The services that have operations here, by the names that stand before the last dot of a target.
const SERVICES: [(&str, Service); 3] = [
    (
        "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101",
        Service::CloudTrail,
    ),
    ("CloudTrail_20131101", Service::CloudTrail),
    ("AWSOrganizationsV20161128", Service::Organizations),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    CloudTrail,
    Organizations,
}

impl Service {
    /// What requests to it are signed for, and what the names of its actions begin with.
    pub fn signing_name(self) -> &'static str {
        match self {
            Self::CloudTrail => "cloudtrail",
            Self::Organizations => "organizations",
        }
    }

    /// By the target of a request, wherever it leads: one that leads nowhere would have been CloudTrail's.
    pub fn of(head: &request::Parts) -> Self {
        let target = head.headers.get(TARGET).map(HeaderValue::as_bytes);
        let names = SERVICES.iter();
        let mut asked = names.filter(|(name, _)| {
            target.is_some_and(|target| {
                target
                    .strip_prefix(name.as_bytes())
                    .is_some_and(|rest| rest.first() == Some(&b'.'))
            })
        });
        asked
            .next()
            .map_or(Self::CloudTrail, |(_, service)| *service)
    }
}

/// What a request asks for. The operation need not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    pub service: Service,
    pub operation: &'a str,
    whole: &'a str,
}

impl<'a> Target<'a> {
    /// By the head of a request to `/`.
    pub fn of(head: &'a request::Parts) -> Result<Self, Error> {
        if head.method != Method::POST {
            return Err(Error::Method);
        }
        let content_type = head.headers.get(CONTENT_TYPE_HEADER);
        let is_json = content_type.and_then(|value| value.to_str().ok()?.split(';').next());
        if !is_json.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(CONTENT_TYPE)) {
            return Err(Error::ContentType);
        }
        let mut targets = head.headers.get_all(TARGET).iter();
        match (targets.next(), targets.next()) {
            (Some(target), None) => Self::parse(target),
            (None, _) => Err(Error::UnknownOperation("there is none".to_owned())),
            (Some(_), Some(_)) => Err(Error::UnknownOperation("given more than once".to_owned())),
        }
    }

    fn parse(target: &'a HeaderValue) -> Result<Self, Error> {
        let unknown = || Error::UnknownOperation(shown(target.as_bytes(), 128));
        let whole = target.to_str().map_err(|_| unknown())?;
        let (name, operation) = whole.rsplit_once('.').ok_or_else(unknown)?;
        let service = SERVICES.iter().find(|(known, _)| *known == name);
        let (_, service) = service.ok_or_else(unknown)?;
        Ok(Self {
            service: *service,
            operation,
            whole,
        })
    }

    /// That there is no such operation.
    pub fn unknown(&self) -> Error {
        Error::UnknownOperation(shown(self.whole.as_bytes(), 128))
    }
}

/// The request in a body. Only an object is one: serde would take an array of the members, too.
pub fn request<O: Operation>(body: &[u8]) -> Result<O, Error> {
    let not_a_request = |reason: String| Error::Serialization {
        operation: O::NAME,
        reason,
    };
    let text =
        std::str::from_utf8(body).map_err(|_| not_a_request("it is not UTF-8".to_owned()))?;
    if !text.trim_ascii_start().starts_with('{') {
        return Err(not_a_request("it is not a JSON object".to_owned()));
    }
    // What serde says may quote the body.
    let request = serde_json::from_str(text);
    request.map_err(|error| not_a_request(shown(error.to_string().as_bytes(), 256)))
}

/// The answer to a request: the JSON of a success, or why there is none. `id` is what the caller and the log know it by.
pub fn response(outcome: Result<Vec<u8>, Error>, id: Uuid) -> Response<Full<Bytes>> {
    let (status, body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (error.status(), refusal(&error)),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE_HEADER, HeaderValue::from_static(CONTENT_TYPE));
    let id = id.hyphenated().to_string();
    let id = HeaderValue::try_from(id).expect("request id: hexadecimal digits and hyphens");
    headers.insert(REQUEST_ID, id);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

fn refusal(error: &Error) -> Vec<u8> {
    serde_json::json!({ "__type": error.code(), "message": error.to_string() })
        .to_string()
        .into_bytes()
}
