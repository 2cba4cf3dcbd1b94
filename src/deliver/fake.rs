//! An AWS service on loopback whose every answer a test chooses, and who keeps what it was asked: AWS, faked on the wire.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_eventbridge::config::{Credentials, SharedCredentialsProvider};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Asked {
    /// Of the JSON protocols: the operation, as in `AWSEvents.PutEvents`.
    pub fn target(&self) -> &str {
        let target = self.headers.get("x-amz-target");
        target.map_or("", |target| target.to_str().unwrap())
    }

    /// Of the JSON protocols: the input.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn new(status: u16, body: impl ToString) -> Self {
        Self {
            status,
            body: body.to_string(),
        }
    }
}

/// A service that runs as long as the test.
pub struct Service {
    endpoint: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Service {
    pub async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (answer, asked) = (Arc::new(answer), log.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, log) = (answer.clone(), log.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, log) = (answer.clone(), log.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let asked = Asked {
                            headers: head.headers,
                            body: body.collect().await.unwrap().to_bytes(),
                        };
                        let Answer { status, body } = answer(&asked);
                        log.lock().unwrap().push(asked);
                        let response = Response::builder()
                            .status(status)
                            .body(Full::new(Bytes::from(body)));
                        Ok::<_, Infallible>(response.unwrap())
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { endpoint, asked }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What any client of it is made from: in eu-west-1, without retries, like the daemon's own.
    pub fn sdk_config(&self) -> SdkConfig {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .retry_config(RetryConfig::disabled())
            .build()
    }

    /// Everything that it was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}
