use std::io::Write;

use ::http::HeaderMap;
use http_body_util::BodyExt;

use super::super::fixture::{Fixture, Knobs, event, open, origin};
use super::*;

async fn send(
    fixture: &Fixture,
    request: Request<Vec<u8>>,
) -> (StatusCode, HeaderMap, serde_json::Value) {
    let request = request.map(|body| Full::new(Bytes::from(body)));
    let (head, body) = post_events(&fixture.ingest, request, origin())
        .await
        .into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(head.headers[CONTENT_TYPE], "application/json");
    (
        head.status,
        head.headers,
        serde_json::from_slice(&body).unwrap(),
    )
}

fn post(body: impl Into<Vec<u8>>, headers: &[(&str, &str)]) -> Request<Vec<u8>> {
    let mut request = Request::post("/v1/events");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn the_contracts_table() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(
        directory.path(),
        Knobs {
            max_body_bytes: 10_000,
            ..Knobs::default()
        },
    );
    let body = format!(
        "[{},{},{}]",
        event("A"),
        event("B"),
        event("C").replace("2026-05-01T", "yesterday")
    );
    let (status, _, answer) = send(&fixture, post(body, &[])).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&answer["accepted"], &answer["duplicates"]),
        (&2.into(), &0.into())
    );
    let rejected = &answer["rejected"][0];
    assert_eq!(
        (&rejected["index"], &rejected["eventID"]),
        (&2.into(), &"id-C".into())
    );
    assert_eq!(rejected["code"], "InvalidEventTime");
    assert!(rejected["message"].as_str().unwrap().contains("yesterday"));

    let (status, _, answer) = send(&fixture, post("{}", &[])).await;
    assert_eq!(
        (status.as_u16(), &answer["rejected"][0]["code"]),
        (400, &"MissingField".into())
    );
    let (status, _, answer) = send(&fixture, post("[{", &[])).await;
    assert_eq!(
        (status.as_u16(), &answer["code"]),
        (400, &"InvalidJson".into())
    );
    let (status, headers, answer) = send(&fixture, post(vec![b' '; 10_001], &[])).await;
    assert_eq!(
        (status.as_u16(), &answer["code"], &headers[CONNECTION]),
        (
            413,
            &"BodyTooLarge".into(),
            &HeaderValue::from_static("close")
        )
    );
    let (status, _, answer) = send(&fixture, post("x", &[("content-encoding", "br")])).await;
    assert_eq!(
        (status.as_u16(), &answer["code"]),
        (415, &"UnsupportedEncoding".into())
    );
    let (status, _, answer) = send(&fixture, post("x", &[("content-encoding", "gzip")])).await;
    assert_eq!(
        (status.as_u16(), &answer["code"]),
        (400, &"InvalidEncoding".into())
    );
    let get = Request::get("/v1/events").body(Vec::new()).unwrap();
    let (status, headers, _) = send(&fixture, get).await;
    assert_eq!(
        (status.as_u16(), &headers[ALLOW]),
        (405, &HeaderValue::from_static("POST"))
    );

    fixture.ingest.stop();
    let (status, headers, answer) = send(&fixture, post(event("Z"), &[])).await;
    assert_eq!(
        (status.as_u16(), &answer["code"]),
        (503, &"Stopping".into())
    );
    assert!(
        headers[RETRY_AFTER]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 0
    );
    assert_eq!(fixture.stored_names(), ["A", "B"]);
}

#[tokio::test]
async fn compressed_bodies_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = open(directory.path(), Knobs::default());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(event("G").as_bytes()).unwrap();
    send(
        &fixture,
        post(gzip.finish().unwrap(), &[("content-encoding", "gzip")]),
    )
    .await;
    send(
        &fixture,
        post(
            zstd::encode_all(event("Z").as_bytes(), 1).unwrap(),
            &[("content-encoding", "zstd")],
        ),
    )
    .await;
    assert_eq!(fixture.stored_names(), ["G", "Z"]);
}
