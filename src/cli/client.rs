//! A small HTTP/1.1 client for the daemon's api listener: one connection, kept while it lasts.
//!
//! It does not sign until it is told to ([`UNSIGNED`]); then it does, with the credentials that the SDK finds, if it finds any.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use crate::api::protocol;

use crate::auth::sigv4::{Refused, Signer};
use crate::clock::WallMillis;
use crate::{auth, aws};

/// `http://HOST:PORT` or `unix:/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Tcp { authority: String },
    Unix { path: PathBuf },
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err("a unix endpoint names a socket: unix:/run/traild/traild.sock".into()),
                path => Ok(Self::Unix { path: path.into() }),
            };
        }
        let uri: http::Uri = text
            .parse()
            .map_err(|error| format!("not a URL: {error}"))?;
        match (uri.scheme_str(), uri.authority(), uri.path()) {
            (Some("http"), Some(authority), "" | "/") if !authority.as_str().contains('@') => {
                let port = authority.port_u16().unwrap_or(80);
                Ok(Self::Tcp {
                    authority: format!("{}:{port}", authority.host()),
                })
            }
            (Some("https"), ..) => Err("https is not supported by this version of traild".into()),
            _ => Err("an endpoint is http://HOST:PORT or unix:/PATH".into()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { authority } => write!(f, "http://{authority}"),
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// Whether the daemon lets in only who signs, and the request was not signed: its own paths and AWS's JSON services say it in their ways.
    fn wants_signature(&self) -> bool {
        let missing = Refused::Missing.code().as_bytes();
        self.status == UNSIGNED
            || self.status == StatusCode::BAD_REQUEST
                && memchr::memmem::find(&self.body, missing).is_some()
    }
}

pub struct Client {
    endpoint: Endpoint,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// What requests are signed for.
    service: &'static str,
    signer: Option<Signer>,
}

/// What a daemon that lets in only who signs answers to who does not.
const UNSIGNED: StatusCode = StatusCode::UNAUTHORIZED;

/// What to do about a daemon that answers so.
pub const SIGNING_HINT: &str = "sign with one of the daemon's credentials: set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, or name a profile; \
     over its unix socket nobody need sign";

/// More than any answer of the daemon holds.
const ANSWER_LIMIT: usize = 64 << 20;

impl Client {
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            connection: None,
            service: auth::TRAILD,
            signer: None,
        }
    }

    /// A client of another of the daemon's services. Its requests are signed from the first on when the environment names credentials: they may name an
    /// account and a region also to a daemon that asks nobody who they are.
    pub async fn of_service(endpoint: Endpoint, service: &'static str) -> Self {
        let is_named = ["AWS_ACCESS_KEY_ID", "AWS_PROFILE"]
            .into_iter()
            .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        let signer = match is_named {
            true => aws::signer(service).await,
            false => None,
        };
        Self {
            service,
            signer,
            ..Self::new(endpoint)
        }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub async fn get(&mut self, path: &str, patience: Duration) -> anyhow::Result<Answer> {
        self.request(Request::get(path), Bytes::new(), patience)
            .await
    }

    pub async fn post(
        &mut self,
        path: &str,
        content_type: &str,
        body: Bytes,
        patience: Duration,
    ) -> anyhow::Result<Answer> {
        self.request(
            Request::post(path).header(header::CONTENT_TYPE, content_type),
            body,
            patience,
        )
        .await
    }

    /// Asks for an operation of AWS's, by its `X-Amz-Target`.
    pub async fn operation(
        &mut self,
        target: &str,
        request: &serde_json::Value,
        patience: Duration,
    ) -> anyhow::Result<Answer> {
        let head = Request::post("/")
            .header(header::CONTENT_TYPE, protocol::CONTENT_TYPE)
            .header(protocol::TARGET, target);
        self.request(head, request.to_string().into(), patience)
            .await
    }

    async fn request(
        &mut self,
        request: http::request::Builder,
        body: Bytes,
        patience: Duration,
    ) -> anyhow::Result<Answer> {
        let authority = match &self.endpoint {
            Endpoint::Tcp { authority } => authority,
            Endpoint::Unix { .. } => "localhost",
        };
        let (head, ()) = request
            .header(header::HOST, authority)
            .body(())?
            .into_parts();
        let answer = self.exchange(head.clone(), &body, patience).await?;
        if !answer.wants_signature() || self.signer.is_some() {
            return Ok(answer);
        }
        self.signer = aws::signer(self.service).await;
        match &self.signer {
            Some(_) => self.exchange(head, &body, patience).await,
            None => Ok(answer),
        }
    }

    /// After an error nothing is known about what the daemon did; the next request begins a new connection.
    async fn exchange(
        &mut self,
        mut head: http::request::Parts,
        body: &Bytes,
        patience: Duration,
    ) -> anyhow::Result<Answer> {
        if let Some(signer) = &self.signer {
            signer.sign(&mut head, body, WallMillis::now())?;
        }
        let request = Request::from_parts(head, Full::new(body.clone()));
        let mut connection = match self.connection.take() {
            Some(connection) if connection.is_ready() => connection,
            _ => self.connect().await?,
        };
        let exchange = async {
            let response = connection.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT)
                .collect()
                .await
                .map_err(|error| anyhow::anyhow!(error))?;
            anyhow::Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            })
        };
        let answer = tokio::time::timeout(patience, exchange).await;
        let answer = answer
            .with_context(|| {
                format!(
                    "no answer from {} within {} seconds",
                    self.endpoint,
                    patience.as_secs()
                )
            })?
            .with_context(|| format!("the connection to {} broke", self.endpoint))?;
        self.connection = Some(connection);
        Ok(answer)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let connecting = async {
            anyhow::Ok(match &self.endpoint {
                Endpoint::Tcp { authority } => {
                    let stream = TcpStream::connect(authority).await?;
                    stream.set_nodelay(true)?;
                    handshake(stream).await?
                }
                Endpoint::Unix { path } => handshake(UnixStream::connect(path).await?).await?,
            })
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        let refused = || format!("cannot reach {}", self.endpoint);
        connected.with_context(refused)?.with_context(refused)
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

async fn handshake<S>(stream: S) -> hyper::Result<SendRequest<Full<Bytes>>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends when the sender is dropped or the peer closes; its error reaches the request it broke.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_of_two_kinds() {
        let tcp = |authority: &str| {
            Ok(Endpoint::Tcp {
                authority: authority.into(),
            })
        };
        let unix = |path: &str| Ok(Endpoint::Unix { path: path.into() });
        assert_eq!("http://127.0.0.1:4580".parse(), tcp("127.0.0.1:4580"));
        assert_eq!("http://host/".parse(), tcp("host:80"));
        assert_eq!("http://[::1]:4580".parse(), tcp("[::1]:4580"));
        assert_eq!("unix:/run/x.sock".parse(), unix("/run/x.sock"));
        assert_eq!("unix:///run/x.sock".parse(), unix("/run/x.sock"));
        for bad in [
            "",
            "127.0.0.1:4580",
            "https://host",
            "http://host/path",
            "unix:",
            "ftp://host",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
