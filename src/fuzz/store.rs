//! Requests to the embedded store.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Input, corpus, fuzz};
use crate::store::{Store, serve};

/// The request of such a text, nothing when this client could not send it.
fn parsed(text: &[u8]) -> Option<Request<Full<Bytes>>> {
    let (head, body) = super::parsed(text)?;
    let body = Bytes::copy_from_slice(body);
    let length = HeaderValue::from(body.len());
    let mut request = Request::from_parts(head, Full::new(body));
    request.headers_mut().insert(CONTENT_LENGTH, length);
    let framed = ["transfer-encoding", "connection", "expect", "upgrade", "te"];
    let is_ours = !framed
        .iter()
        .any(|name| request.headers().contains_key(*name))
        && request.method() != http::Method::CONNECT;
    is_ours.then_some(request)
}

async fn send(stream: TcpStream, request: Request<Full<Bytes>>) -> hyper::Result<Response<Bytes>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    Ok(Response::from_parts(head, body))
}

fn request(text: &str) -> Request<Full<Bytes>> {
    parsed(text.as_bytes()).unwrap()
}

#[test]
fn every_request_is_answered_by_the_store_and_harms_no_object() {
    let tokens = [
        "\n",
        "/bucket",
        "/kept",
        "?uploads",
        "?delete",
        "&",
        "=",
        "%00",
        "%2e%2e",
        "..",
        "\nrange: bytes=0-",
        "\nx-amz-checksum-crc32: AAAAAA==",
        "\nif-match: *",
        "<",
        ">",
        "</Key>",
        "<Key>",
        "&#0;",
        "&amp;",
        "<!DOCTYPE a [<!ENTITY b \"c\">]>",
        "<Part>",
        "\r\n",
        "ffffffffffffffff\r\n",
        "5;chunk-signature=",
        "0\r\n\r\n",
        "bytes=-1",
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    fuzz("store", 300, &corpus("store"), &tokens, |text| {
        let Some(asked) = parsed(text) else {
            return Input::Refused;
        };
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path().to_owned()).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let stop = CancellationToken::new();
            let served = tokio::spawn(serve(store, listener, stop.clone()));
            let ask = |request| async move {
                send(TcpStream::connect(address).await.unwrap(), request).await
            };
            for setup in [
                "PUT /bucket\nhost: s3\n\n",
                "PUT /bucket/kept\nhost: s3\n\nas it was",
                "PUT /other\nhost: s3\n\n",
                "PUT /other/kept\nhost: s3\n\nas it was",
            ] {
                let answer = ask(request(setup)).await.unwrap();
                assert_eq!(answer.status(), 200, "{setup}: {answer:?}");
            }
            let answer = ask(asked).await.expect("every request is answered");
            // What the store does not have (501) it says, too.
            assert!(
                answer.status() != 500 && answer.status() != 503,
                "{answer:?}"
            );
            let is_other = memchr::memmem::find(text, b"other").is_some();
            let kept = ask(request("GET /other/kept\nhost: s3\n\n")).await.unwrap();
            assert!(is_other || kept.body() == "as it was", "{kept:?}");
            stop.cancel();
            served.await.unwrap();
            // Whatever was done, it opens again.
            Store::open(directory.path().to_owned()).unwrap();
            Input::understood(answer.status().is_success())
        })
    });
}
