//! Makes a client's request one that s3s takes without knowing anybody's secret.
//!
//! Any credentials are good here, so a signature proves nothing and s3s could only refuse it: the `Authorization` header and
//! the parameters of a presigned URL are taken off (an expired URL is still refused). What the signature protected is
//! still checked, because clients rely on it against damage on the way: the hash of the payload, `Content-MD5` and the
//! `x-amz-checksum-*` values travel on as [`Claims`]. `aws-chunked` bodies are unwrapped here; the chunk signatures are
//! passed over, the trailers kept.
//!
//! Bodies of objects and parts stream through; all other bodies are small, and are read and verified here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use s3s::{Body, HttpRequest};
use time::OffsetDateTime;

use super::body::Trailers;
use super::digests::{Algorithm, Claims};
use super::error::StoreError;

/// The largest XML body: ten thousand parts with their checksums, or a thousand keys of 1024 bytes, escaped.
pub const MAX_DOCUMENT_BYTES: usize = 8 << 20;
const MAX_LINE_BYTES: usize = 4 << 10;
const MAX_TRAILERS: usize = 32;

/// Query parameters that only prove who asks.
const PROOF_PARAMETERS: [&str; 9] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
    "AWSAccessKeyId",
    "Signature",
];

/// `read_whole` is set once the body was read to its end: until then the connection cannot carry another request.
pub async fn adapt(
    request: Request<Incoming>,
    read_whole: &Arc<AtomicBool>,
) -> Result<HttpRequest, StoreError> {
    let (mut parts, body) = request.into_parts();
    let body = Tracked::new(body, read_whole.clone());
    check_not_expired(
        parts.uri.query().unwrap_or_default(),
        OffsetDateTime::now_utc(),
    )?;
    parts.uri = plain_uri(&parts.uri, &parts.headers)?;
    parts.headers.remove(AUTHORIZATION);

    let claims = claims(&parts.headers)?;
    let trailers = Trailers::default();
    let body = match chunked_length(&parts.headers)? {
        None => Wire::Plain(body),
        Some(decoded_bytes) => {
            parts
                .headers
                .insert(CONTENT_LENGTH, HeaderValue::from(decoded_bytes));
            strip_aws_chunked(&mut parts.headers);
            Wire::Chunked(Box::new(ChunkedBody::new(
                body,
                decoded_bytes,
                trailers.clone(),
            )))
        }
    };

    let body = if is_object_body(&parts.method, &parts.uri) {
        match body {
            Wire::Plain(body) => Body::http_body(body),
            Wire::Chunked(body) => Body::http_body(body),
        }
    } else {
        let bytes = match body {
            Wire::Plain(body) => document(body).await?,
            Wire::Chunked(body) => document(body).await?,
        };
        if !bytes.is_empty() {
            parts
                .headers
                .insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            let mut hasher = claims.hasher();
            hasher.update(&bytes);
            claims
                .clone()
                .with_trailers(&trailers)?
                .verify(hasher.finish())?;
        }
        Body::from(bytes)
    };
    parts.extensions.insert(claims);
    parts.extensions.insert(trailers);
    Ok(Request::from_parts(parts, body))
}

/// Says when the network has given all of a body.
struct Tracked {
    inner: Incoming,
    read_whole: Arc<AtomicBool>,
}

impl Tracked {
    fn new(inner: Incoming, read_whole: Arc<AtomicBool>) -> Self {
        let tracked = Self { inner, read_whole };
        tracked.note();
        tracked
    }

    fn note(&self) {
        if self.inner.is_end_stream() {
            self.read_whole.store(true, Ordering::Relaxed);
        }
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match frame {
            None => self.read_whole.store(true, Ordering::Relaxed),
            Some(_) => self.note(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

enum Wire {
    Plain(Tracked),
    Chunked(Box<ChunkedBody>),
}

impl Claims {
    /// Completed by what came behind the body.
    pub fn with_trailers(mut self, trailers: &Trailers) -> Result<Self, StoreError> {
        for (name, value) in trailers.0.get().into_iter().flatten() {
            if let Some(algorithm) = Algorithm::from_header(name) {
                self.checksums.set(algorithm, Some(value.clone()));
            }
        }
        if self
            .announced
            .iter()
            .any(|algorithm| self.checksums.get(*algorithm).is_none())
        {
            return Err(StoreError::MalformedTrailer);
        }
        self.check_form()?;
        Ok(self)
    }
}

async fn document<B>(body: B) -> Result<Bytes, StoreError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let reading = tokio::time::timeout(
        super::body::STALL,
        Limited::new(body, MAX_DOCUMENT_BYTES).collect(),
    );
    match reading.await {
        Err(_) => Err(StoreError::RequestTimeout),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) => Err(match error.downcast_ref::<ChunkedError>() {
            Some(chunked) => chunked.as_store_error(),
            None if error.is::<http_body_util::LengthLimitError>() => StoreError::EntityTooLarge,
            None => StoreError::IncompleteBody,
        }),
    }
}

/// True for PutObject and UploadPart (and their copies, which have no body): a PUT on a key that names no sub-resource.
fn is_object_body(method: &Method, uri: &Uri) -> bool {
    let has_key = uri
        .path()
        .trim_start_matches('/')
        .split_once('/')
        .is_some_and(|(_, key)| !key.is_empty());
    let plain = |name: &str| {
        matches!(name, "partNumber" | "uploadId") || name.starts_with("x-") || name.is_empty()
    };
    method == Method::PUT
        && has_key
        && parameters(uri.query().unwrap_or_default())
            .all(|(name, _)| plain(name) || is_proof(name))
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn is_proof(name: &str) -> bool {
    PROOF_PARAMETERS.contains(&name)
}

/// Without the proof, and with the bucket of a `<bucket>.localhost` host in the path.
fn plain_uri(uri: &Uri, headers: &HeaderMap) -> Result<Uri, StoreError> {
    let query = uri.query().unwrap_or_default();
    let signed = parameters(query).any(|(name, _)| is_proof(name));
    let bucket = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .and_then(bucket_of_host);
    if !signed && bucket.is_none() {
        return Ok(uri.clone());
    }
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
            // `Expires` belongs to the old form of presigned URLs.
            !(is_proof(name) || signed && name == "Expires")
        })
        .collect();
    let path = match bucket {
        Some(bucket) => format!("/{bucket}{}", uri.path()),
        None => uri.path().to_owned(),
    };
    let text = if kept.is_empty() {
        path
    } else {
        format!("{path}?{}", kept.join("&"))
    };
    text.parse()
        .map_err(|_| StoreError::InvalidRequest("malformed request URI".into()))
}

fn bucket_of_host(host: &str) -> Option<&str> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.strip_suffix(".localhost")
        .filter(|bucket| !bucket.is_empty())
}

/// Refuses a presigned URL whose time has passed, as clients expect of one.
fn check_not_expired(query: &str, now: OffsetDateTime) -> Result<(), StoreError> {
    let value = |wanted: &str| {
        parameters(query)
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
    };
    let until = match (value("X-Amz-Signature"), value("Signature")) {
        (Some(_), _) => {
            let malformed =
                || StoreError::InvalidRequest("malformed X-Amz-Date or X-Amz-Expires".into());
            let format =
                time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
            let signed_at =
                time::PrimitiveDateTime::parse(value("X-Amz-Date").unwrap_or_default(), format)
                    .map_err(|_| malformed())?;
            let seconds: u32 = value("X-Amz-Expires")
                .and_then(|text| text.parse().ok())
                .ok_or_else(malformed)?;
            signed_at
                .assume_utc()
                .checked_add(time::Duration::seconds(seconds.into()))
        }
        (None, Some(_)) => value("Expires")
            .and_then(|text| text.parse().ok())
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()),
        (None, None) => return Ok(()),
    };
    match until {
        Some(until) if now > until => Err(StoreError::RequestExpired),
        _ => Ok(()),
    }
}

fn claims(headers: &HeaderMap) -> Result<Claims, StoreError> {
    let mut claims = Claims::default();
    if let Some(md5) = text(headers, "content-md5") {
        claims.md5 = Some(Claims::parse_md5(md5)?);
    }
    match text(headers, "x-amz-content-sha256") {
        None => {}
        Some(value) if value == "UNSIGNED-PAYLOAD" || value.starts_with("STREAMING-") => {}
        Some(value) => {
            let mut hash = [0; 32];
            hex::decode_to_slice(value, &mut hash).map_err(|_| {
                StoreError::InvalidArgument(
                    "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-…, or a valid sha256 value.".into(),
                )
            })?;
            claims.payload_sha256 = Some(hash);
        }
    }
    for algorithm in Algorithm::ALL {
        claims.checksums.set(
            algorithm,
            text(headers, algorithm.header()).map(str::to_owned),
        );
    }
    claims.check_form()?;
    let announced = text(headers, "x-amz-trailer").unwrap_or_default();
    claims
        .announced
        .extend(announced.split(',').filter_map(Algorithm::from_header));
    claims
        .wanted
        .extend(text(headers, "x-amz-sdk-checksum-algorithm").and_then(Algorithm::from_name));
    Ok(claims)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The length inside the chunks, when the body is `aws-chunked`.
fn chunked_length(headers: &HeaderMap) -> Result<Option<u64>, StoreError> {
    if !text(headers, "x-amz-content-sha256").is_some_and(|value| value.starts_with("STREAMING-")) {
        return Ok(None);
    }
    match text(headers, "x-amz-decoded-content-length").and_then(|value| value.parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => Err(StoreError::MissingContentLength),
    }
}

fn strip_aws_chunked(headers: &mut HeaderMap) {
    let Some(encodings) = text(headers, CONTENT_ENCODING.as_str()) else {
        return;
    };
    let kept: Vec<&str> = encodings
        .split(',')
        .map(str::trim)
        .filter(|name| *name != "aws-chunked" && !name.is_empty())
        .collect();
    match HeaderValue::try_from(kept.join(",")) {
        Ok(value) if !value.is_empty() => drop(headers.insert(CONTENT_ENCODING, value)),
        _ => drop(headers.remove(CONTENT_ENCODING)),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkedError {
    #[error("the chunked body ends early")]
    Incomplete,
    #[error("the chunked body is malformed: {0}")]
    Malformed(&'static str),
}

impl ChunkedError {
    pub fn as_store_error(&self) -> StoreError {
        match self {
            Self::Incomplete => StoreError::IncompleteBody,
            Self::Malformed(why) => StoreError::InvalidRequest(
                format!("The aws-chunked body is malformed: {why}").into(),
            ),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Expects `<hex size>[;chunk-signature=…]`.
    Head,
    /// So many bytes of a chunk to come.
    Data(u64),
    /// Expects the empty line behind a chunk's bytes.
    DataEnd,
    /// Expects a trailer, or the empty line that ends them.
    Trailer,
    Done,
}

/// `aws-chunked` decoding, apart from the network: fed buffers, gives slices of them.
struct Decoder {
    state: State,
    line: Vec<u8>,
    left_bytes: u64,
    trailers: Vec<(String, String)>,
}

impl Decoder {
    fn new(decoded_bytes: u64) -> Self {
        Self {
            state: State::Head,
            line: Vec::new(),
            left_bytes: decoded_bytes,
            trailers: Vec::new(),
        }
    }

    /// The next bytes of the content found in `buffer`; none when it is used up.
    fn decode(&mut self, buffer: &mut Bytes) -> Result<Option<Bytes>, ChunkedError> {
        while !buffer.is_empty() {
            match self.state {
                State::Data(left) => {
                    let take = left.min(buffer.len() as u64);
                    self.left_bytes = self
                        .left_bytes
                        .checked_sub(take)
                        .ok_or(ChunkedError::Malformed("longer than announced"))?;
                    self.state = if take == left {
                        State::DataEnd
                    } else {
                        State::Data(left - take)
                    };
                    // At most the buffer's length.
                    return Ok(Some(buffer.split_to(take as usize)));
                }
                State::Done => return Err(ChunkedError::Malformed("bytes behind its end")),
                State::Head | State::DataEnd | State::Trailer => {
                    if self.take_line(buffer)? {
                        self.end_of_line()?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// True when `line` holds a whole line, without its end.
    fn take_line(&mut self, buffer: &mut Bytes) -> Result<bool, ChunkedError> {
        let (take, whole) = match memchr::memchr(b'\n', buffer) {
            Some(at) => (at + 1, true),
            None => (buffer.len(), false),
        };
        if self.line.len() + take > MAX_LINE_BYTES {
            return Err(ChunkedError::Malformed("a line is too long"));
        }
        self.line.extend_from_slice(&buffer[..take]);
        buffer.advance(take);
        if whole {
            self.line.pop();
            let carriage_return = self.line.pop_if(|byte| *byte == b'\r').is_some();
            // The manual's own example ends a trailer with a bare line feed.
            if !carriage_return && self.state != State::Trailer {
                return Err(ChunkedError::Malformed("a line does not end in CR LF"));
            }
        }
        Ok(whole)
    }

    fn end_of_line(&mut self) -> Result<(), ChunkedError> {
        let line = std::mem::take(&mut self.line);
        self.state = match self.state {
            State::Head => {
                match chunk_size(&line).ok_or(ChunkedError::Malformed("no chunk size"))? {
                    0 => State::Trailer,
                    size => State::Data(size),
                }
            }
            State::DataEnd if line.is_empty() => State::Head,
            State::Trailer if line.is_empty() => State::Done,
            State::Trailer => {
                self.trailers
                    .push(trailer(&line).ok_or(ChunkedError::Malformed("a trailer"))?);
                if self.trailers.len() > MAX_TRAILERS {
                    return Err(ChunkedError::Malformed("too many trailers"));
                }
                State::Trailer
            }
            State::DataEnd | State::Data(_) | State::Done => {
                return Err(ChunkedError::Malformed("a chunk's length"));
            }
        };
        Ok(())
    }

    /// Called when no more bytes come. Some clients leave the last empty line out.
    fn finish(&mut self) -> Result<Vec<(String, String)>, ChunkedError> {
        if self.state == State::Trailer && !self.line.is_empty() {
            self.end_of_line()?;
        }
        if !matches!(self.state, State::Trailer | State::Done) || self.left_bytes > 0 {
            return Err(ChunkedError::Incomplete);
        }
        Ok(std::mem::take(&mut self.trailers))
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?;
    let digits = std::str::from_utf8(digits).ok()?.trim();
    if digits.starts_with('+') {
        None
    } else {
        u64::from_str_radix(digits, 16).ok()
    }
}

fn trailer(line: &[u8]) -> Option<(String, String)> {
    let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
    Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

struct ChunkedBody {
    inner: Tracked,
    buffer: Bytes,
    decoder: Decoder,
    trailers: Trailers,
    ended: bool,
}

impl ChunkedBody {
    fn new(inner: Tracked, decoded_bytes: u64, trailers: Trailers) -> Self {
        Self {
            inner,
            buffer: Bytes::new(),
            decoder: Decoder::new(decoded_bytes),
            trailers,
            ended: false,
        }
    }
}

impl http_body::Body for ChunkedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            match this.decoder.decode(&mut this.buffer) {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) => {}
                Err(error) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.buffer = data;
                    }
                }
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    this.ended = true;
                    return Poll::Ready(match this.decoder.finish() {
                        Ok(trailers) => {
                            // Set once: the end is reached once.
                            let _ = this.trailers.0.set(trailers);
                            None
                        }
                        Err(error) => Some(Err(error.into())),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Decoded = (Vec<u8>, Vec<(String, String)>);

    fn decode(decoded_bytes: u64, wire: &[u8], piece: usize) -> Result<Decoded, ChunkedError> {
        let mut decoder = Decoder::new(decoded_bytes);
        let mut content = Vec::new();
        for piece in wire.chunks(piece) {
            let mut buffer = Bytes::copy_from_slice(piece);
            while let Some(data) = decoder.decode(&mut buffer)? {
                content.extend_from_slice(&data);
            }
        }
        Ok((content, decoder.finish()?))
    }

    #[test]
    fn the_manuals_signed_chunks_and_trailers_are_unwrapped() {
        let signature = "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648";
        let wire = format!(
            "3;chunk-signature={signature}\r\nabc\r\n2;chunk-signature={signature}\r\nde\r\n0;chunk-signature={signature}\r\n\
             x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:{signature}\r\n\r\n"
        );
        for piece in [1, 2, 7, wire.len()] {
            let (content, trailers) = decode(5, wire.as_bytes(), piece).unwrap();
            assert_eq!(content, b"abcde");
            assert_eq!(
                trailers[0],
                ("x-amz-checksum-crc32c".to_owned(), "sOO8/Q==".to_owned())
            );
        }
    }

    #[test]
    fn wrong_framing_is_refused() {
        for (length, wire) in [
            (3, "3\r\nabc"),
            (3, "3\r\nabc\r\n"),
            (3, "3\r\nab\r\n0\r\n\r\n"),
            (3, "3\r\nabcd\r\n0\r\n\r\n"),
            (4, "3\r\nabc\r\n0\r\n\r\n"),
            (2, "3\r\nabc\r\n0\r\n\r\n"),
            (3, "x\r\nabc\r\n0\r\n\r\n"),
            (3, "+3\r\nabc\r\n0\r\n\r\n"),
            (3, "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
            (3, "3\r\nabc\r\n0\r\n\r\nmore"),
            (0, "0\r\nno colon\r\n\r\n"),
        ] {
            assert!(decode(length, wire.as_bytes(), 4).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn proof_is_taken_off_and_the_rest_kept() {
        let uri = "/b/k%20ey?partNumber=1&X-Amz-Signature=ab&uploadId=u&X-Amz-Date=20260101T000000Z&X-Amz-Expires=9";
        assert_eq!(
            plain_uri(&uri.parse().unwrap(), &HeaderMap::new()).unwrap(),
            "/b/k%20ey?partNumber=1&uploadId=u"
        );
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("logs.localhost:4582"));
        assert_eq!(
            plain_uri(&"/k?acl".parse().unwrap(), &headers).unwrap(),
            "/logs/k?acl"
        );
    }

    #[test]
    fn an_expired_url_is_refused() {
        let query = "X-Amz-Signature=ab&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60";
        let at = |text| {
            OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap()
        };
        assert!(check_not_expired(query, at("2026-01-01T00:00:59Z")).is_ok());
        assert!(matches!(
            check_not_expired(query, at("2026-01-01T00:01:01Z")),
            Err(StoreError::RequestExpired)
        ));
        assert!(
            check_not_expired(
                "X-Amz-Signature=ab&X-Amz-Date=x",
                at("2026-01-01T00:00:00Z")
            )
            .is_err()
        );
    }

    #[test]
    fn only_objects_and_parts_stream() {
        let streams = |method: Method, uri: &str| is_object_body(&method, &uri.parse().unwrap());
        assert!(streams(Method::PUT, "/b/k"));
        assert!(streams(Method::PUT, "/b/k/?x-id=PutObject"));
        assert!(streams(Method::PUT, "/b/k?partNumber=1&uploadId=u"));
        assert!(!streams(Method::PUT, "/b/k?tagging"));
        assert!(!streams(Method::PUT, "/b"));
        assert!(!streams(Method::PUT, "/b/"));
        assert!(!streams(Method::POST, "/b/k?uploads"));
    }

    proptest! {
        #[test]
        fn hostile_bodies_never_panic(wire in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0')], 0..200), piece in 1usize..50) {
            let _ = decode(10, &wire, piece);
        }

        #[test]
        fn any_chunking_comes_out_as_it_went_in(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..10), piece in 1usize..60) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let content = chunks.concat();
            prop_assert_eq!(decode(content.len() as u64, &wire, piece).unwrap().0, content);
        }
    }
}
