//! S3, SNS, CloudWatch Logs and EventBridge as a simulated daemon meets them: below the SDK, where its requests would go to a network. They answer late,
//! sometimes an error, and sometimes nothing, as the seed has it; whatever they took, they keep.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{
    Credentials, RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider,
};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use serde_json::{Value, json};

use crate::simulation;

/// An object, as the bucket has it.
#[derive(Debug, Clone)]
pub struct Object {
    pub bytes: Vec<u8>,
    pub metadata: BTreeMap<String, String>,
    /// When it was written, by the bucket's own clock.
    pub at: Duration,
}

#[derive(Debug, Default)]
pub struct State {
    /// By `bucket/key`.
    pub objects: BTreeMap<String, Object>,
    /// What was told to the topic, the log group and the bus, each as often as it was taken.
    pub published: Vec<String>,
    pub logged: Vec<String>,
    pub put: Vec<String>,
    /// Of a hundred requests, those that something happens to.
    pub trouble: u64,
    /// Nobody answers for the destinations besides S3.
    pub is_silent: bool,
    /// What happened to requests.
    pub faults: u64,
    /// What must not be: an object written anew with other bytes.
    pub violations: Vec<String>,
}

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Aws(pub Arc<Mutex<State>>);

/// What happens to a request.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Refused(u16, &'static str),
    /// It never arrives.
    Cut,
    /// It arrives, and the answer does not.
    AnswerLost,
    /// It is not answered for so long that the client has given up.
    Silent,
    /// Of many entries, some.
    InPart,
}

const FAULTS: [Fault; 9] = [
    Fault::Refused(500, "InternalError"),
    Fault::Refused(503, "SlowDown"),
    Fault::Refused(403, "AccessDenied"),
    Fault::Refused(404, "NoSuchBucket"),
    Fault::Refused(400, "ExpiredToken"),
    Fault::Cut,
    Fault::AnswerLost,
    Fault::Silent,
    Fault::InPart,
];

impl HttpConnector for Aws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let aws = self.clone();
        HttpConnectorFuture::new(async move { aws.answer(request).await })
    }
}

struct Asked {
    method: String,
    /// Without the slash that begins it.
    path: String,
    target: String,
    is_conditional: bool,
    metadata: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Asked {
    async fn read(mut request: HttpRequest) -> Self {
        let body = ByteStream::new(request.take_body());
        let body = body.collect().await.unwrap().to_vec();
        let headers = request.headers();
        let header = |name| headers.get(name).unwrap_or_default().to_owned();
        let metadata = headers.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix("x-amz-meta-")?;
            Some((name.to_owned(), value.to_owned()))
        });
        let uri: http::Uri = request.uri().parse().unwrap();
        Self {
            method: request.method().to_owned(),
            path: uri.path().trim_start_matches('/').to_owned(),
            target: header("x-amz-target"),
            is_conditional: !header("if-none-match").is_empty(),
            metadata: metadata.collect(),
            body,
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    fn is_s3(&self) -> bool {
        self.target.is_empty() && self.path.contains('/')
    }
}

impl Aws {
    /// What the daemon's clients are made from.
    pub fn sdk(&self) -> SdkConfig {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "simulation");
        let connector = SharedHttpConnector::new(self.clone());
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url("http://aws.test")
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .retry_config(RetryConfig::disabled())
            // It asks the real clock whether bytes move.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build()
    }

    pub fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let asked = Asked::read(request).await;
        let (late, early, fault) = self.draw(&asked);
        let broken = |what: &str| Err(ConnectorError::io(what.into()));
        if !early {
            tokio::time::sleep(late).await;
        }
        let answer = match fault {
            Some(Fault::Refused(status, code)) => Ok(refused(&asked, status, code)),
            Some(Fault::Cut) => broken("connection reset"),
            Some(Fault::Silent) => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                broken("no answer")
            }
            Some(Fault::AnswerLost) => {
                self.take(&asked, false);
                broken("connection reset")
            }
            Some(Fault::InPart) => Ok(self.take(&asked, true)),
            None => Ok(self.take(&asked, false)),
        };
        if early {
            tokio::time::sleep(late).await;
        }
        answer
    }

    /// How long it takes, whether it takes effect before that, and what happens to it.
    fn draw(&self, asked: &Asked) -> (Duration, bool, Option<Fault>) {
        let mut state = self.state();
        let trouble = state.trouble;
        let drawn = simulation::with(|machine| {
            let random = &mut machine.random;
            let late = Duration::from_millis(2 + random.below(80));
            let early = random.below(2) == 0;
            let is_hit = random.below(100) < trouble;
            let fault = FAULTS[random.below(FAULTS.len() as u64) as usize];
            (late, early, is_hit.then_some(fault))
        });
        let (late, early, mut fault) = drawn.expect("a simulation's");
        if state.is_silent && !asked.is_s3() {
            fault = Some(Fault::Silent);
        }
        state.faults += u64::from(fault.is_some());
        (late, early, fault)
    }

    fn take(&self, asked: &Asked, in_part: bool) -> HttpResponse {
        let mut state = self.state();
        match (asked.target.as_str(), asked.method.as_str()) {
            ("", "PUT") => state.put_object(asked),
            ("", "GET") => match state.objects.get(&asked.path) {
                Some(object) => {
                    let mut answer = response(200, object.bytes.clone());
                    answer.headers_mut().insert("etag", "\"tag\"");
                    answer
                }
                None => refused(asked, 404, "NoSuchKey"),
            },
            ("", _) => {
                let form = String::from_utf8_lossy(&asked.body).into_owned();
                state.published.push(form);
                response(
                    200,
                    "<PublishResponse><PublishResult><MessageId>m</MessageId></PublishResult></PublishResponse>",
                )
            }
            ("Logs_20140328.PutLogEvents", _) => {
                let body = asked.json();
                let events = body["logEvents"].as_array().cloned().unwrap_or_default();
                let messages = events.iter().filter_map(|it| it["message"].as_str());
                state.logged.extend(messages.map(str::to_owned));
                response(200, "{}")
            }
            ("AWSEvents.PutEvents", _) => {
                let body = asked.json();
                let entries = body["Entries"].as_array().cloned().unwrap_or_default();
                let mut results = Vec::new();
                for (nth, entry) in entries.iter().enumerate() {
                    if in_part && nth % 2 == 0 {
                        results.push(json!({"ErrorCode": "InternalFailure", "ErrorMessage": "no"}));
                        continue;
                    }
                    results.push(json!({"EventId": "e"}));
                    let detail = entry["Detail"].as_str().unwrap_or_default();
                    state.put.push(detail.to_owned());
                }
                let failed = results.iter().filter(|it| it["ErrorCode"].is_string());
                let answer = json!({"FailedEntryCount": failed.count(), "Entries": results});
                response(200, answer.to_string())
            }
            ("AWSEvents.DescribeEventBus", _) => response(200, r#"{"Name":"default"}"#),
            _ => response(200, "{}"),
        }
    }
}

impl State {
    fn put_object(&mut self, asked: &Asked) -> HttpResponse {
        if let Some(there) = self.objects.get(&asked.path) {
            if there.bytes != asked.body {
                let path = &asked.path;
                self.violations
                    .push(format!("{path} was to be written with other bytes"));
            }
            if asked.is_conditional {
                return refused(asked, 412, "PreconditionFailed");
            }
        }
        let object = Object {
            bytes: asked.body.clone(),
            metadata: asked.metadata.clone(),
            at: simulation::elapsed().unwrap_or_default(),
        };
        self.objects.insert(asked.path.clone(), object);
        let mut answer = response(200, "");
        answer.headers_mut().insert("etag", "\"tag\"");
        answer
    }
}

fn response(status: u16, body: impl Into<Vec<u8>>) -> HttpResponse {
    let status = status.try_into().unwrap();
    HttpResponse::new(status, SdkBody::from(body.into()))
}

fn refused(asked: &Asked, status: u16, code: &str) -> HttpResponse {
    if !asked.target.is_empty() {
        return response(status, json!({"__type": code, "message": "no"}).to_string());
    }
    let error = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
    let body = match asked.is_s3() {
        true => error,
        false => format!("<ErrorResponse>{error}</ErrorResponse>"),
    };
    response(status, body)
}
