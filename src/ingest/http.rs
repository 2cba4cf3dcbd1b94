//! `POST /v1/events`.

use bytes::Bytes;
use http_body_util::Full;

use super::accept::Ingest;

/// Answers one request. `peer` is the sender's address as text, written into events without `sourceIPAddress`.
pub async fn post_events<B>(_ingest: &Ingest, _request: ::http::Request<B>, _peer: &str) -> ::http::Response<Full<Bytes>>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    todo!()
}
