use std::sync::{Arc, Mutex};

use aws_sdk_s3::primitives::ByteStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A store that is always busy, and remembers the heads of what it was asked.
async fn busy_store() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 64 << 10];
            let got = stream.read(&mut bytes).await.unwrap();
            seen.lock()
                .unwrap()
                .push(String::from_utf8_lossy(&bytes[..got]).to_lowercase());
            let answer =
                b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    });
    (address, heads)
}

#[tokio::test]
async fn the_embedded_store_is_asked_once_by_path_in_the_home_accounts_name() {
    let (address, heads) = busy_store().await;
    let mut config = Config::embedded_default();
    config.storage.listen = address;
    let client = s3_client(&SdkConfig::builder().build(), &config);
    let put = client
        .put_object()
        .bucket("logs")
        .key("a/b")
        .body(ByteStream::from_static(b"x"))
        .send()
        .await;
    assert!(put.is_err());
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 1, "the SDK tried again on its own");
    assert!(heads[0].starts_with("put /logs/a/b"), "{}", heads[0]);
    assert!(
        heads[0].contains("credential=111122223333/"),
        "{}",
        heads[0]
    );
    assert!(
        heads[0].contains("/us-east-1/s3/aws4_request"),
        "{}",
        heads[0]
    );
    // when_required: a plain body, which every compatible store understands.
    assert!(
        !heads[0].contains("x-amz-checksum") && !heads[0].contains("aws-chunked"),
        "{}",
        heads[0]
    );
}

#[test]
fn a_listener_on_all_interfaces_is_reached_over_loopback() {
    for (listener, reached) in [
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        ("10.0.0.1:1", "10.0.0.1:1"),
    ] {
        assert_eq!(reachable(listener.parse().unwrap()).to_string(), reached);
    }
}
