//! The embedded store through the wire: the AWS SDK for Rust in this process, boto3 and the AWS CLI beside it.

// Helpers of tests are tests: a failed step ends the story.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use traild::store::{OpenError, Store, serve};

struct Server {
    endpoint: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(directory: &Path) -> Self {
        let store = Store::open(directory.to_owned()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(store, listener, stop.clone()));
        Self {
            endpoint,
            stop,
            task,
        }
    }

    fn client(&self) -> Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .force_path_style(true)
            .build();
        Client::from_conf(config)
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn code<E: ProvideErrorMetadata>(error: SdkError<E>) -> String {
    error.code().unwrap_or("no code").to_owned()
}

fn body(bytes: &[u8]) -> ByteStream {
    ByteStream::from(bytes.to_vec())
}

async fn get(client: &Client, bucket: &str, key: &str) -> Vec<u8> {
    let answer = client
        .get_object()
        .bucket(bucket)
        .key(key)
        .send()
        .await
        .unwrap();
    answer.body.collect().await.unwrap().to_vec()
}

async fn keys(client: &Client, bucket: &str) -> Vec<String> {
    let mut pages = client
        .list_objects_v2()
        .bucket(bucket)
        .into_paginator()
        .send();
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        keys.extend(
            page.unwrap()
                .contents()
                .iter()
                .map(|object| object.key().unwrap().to_owned()),
        );
    }
    keys
}

fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path))
        } else {
            files.push(path)
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_a_reopen() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let client = server.client();
    client.create_bucket().bucket("logs").send().await.unwrap();
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    client
        .put_object()
        .bucket("logs")
        .key("AWSLogs/large")
        .content_type("application/json")
        .content_encoding("gzip")
        .metadata("Fill", "a b")
        .body(body(&large))
        .send()
        .await
        .unwrap();
    client
        .put_object()
        .bucket("logs")
        .key("k")
        .body(body(b"old"))
        .send()
        .await
        .unwrap();
    client
        .put_object()
        .bucket("logs")
        .key("k")
        .body(body(b"new"))
        .send()
        .await
        .unwrap();
    client
        .put_object()
        .bucket("logs")
        .key("gone")
        .body(body(b"x"))
        .send()
        .await
        .unwrap();
    client
        .delete_object()
        .bucket("logs")
        .key("gone")
        .send()
        .await
        .unwrap();
    let upload = client
        .create_multipart_upload()
        .bucket("logs")
        .key("m")
        .send()
        .await
        .unwrap();
    let upload = upload.upload_id().unwrap();
    client
        .upload_part()
        .bucket("logs")
        .key("m")
        .upload_id(upload)
        .part_number(1)
        .body(body(b"part"))
        .send()
        .await
        .unwrap();
    server.stop().await;

    let server = Server::start(directory.path()).await;
    let client = server.client();
    assert_eq!(keys(&client, "logs").await, ["AWSLogs/large", "k"]);
    assert_eq!(get(&client, "logs", "AWSLogs/large").await, large);
    assert_eq!(get(&client, "logs", "k").await, b"new");
    let head = client
        .head_object()
        .bucket("logs")
        .key("AWSLogs/large")
        .send()
        .await
        .unwrap();
    assert_eq!(head.content_type(), Some("application/json"));
    assert_eq!(head.content_encoding(), Some("gzip"));
    assert_eq!(
        head.metadata().unwrap().get("fill").map(String::as_str),
        Some("a b")
    );
    let parts = client
        .list_parts()
        .bucket("logs")
        .key("m")
        .upload_id(upload)
        .send()
        .await
        .unwrap();
    assert_eq!(parts.parts().len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_eight_conditional_writers_exactly_one_wins_each_key() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    server
        .client()
        .create_bucket()
        .bucket("race")
        .send()
        .await
        .unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        for key in 0..25 {
            let client = server.client();
            writers.spawn(async move {
                let content = format!("{writer} wrote {key}");
                let put = client
                    .put_object()
                    .bucket("race")
                    .key(format!("k{key}"))
                    .if_none_match("*")
                    .body(body(content.as_bytes()));
                match put.send().await {
                    Ok(_) => Some((key, content)),
                    Err(error) => {
                        assert_eq!(code(error), "PreconditionFailed");
                        None
                    }
                }
            });
        }
    }
    let mut winners: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    winners.sort();
    assert_eq!(
        winners.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
        (0..25).collect::<Vec<_>>()
    );
    for (key, content) in winners {
        assert_eq!(
            get(&server.client(), "race", &format!("k{key}")).await,
            content.as_bytes()
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_eight_compare_and_swap_writers_none_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    server
        .client()
        .create_bucket()
        .bucket("race")
        .send()
        .await
        .unwrap();
    server
        .client()
        .put_object()
        .bucket("race")
        .key("n")
        .body(body(b"0"))
        .send()
        .await
        .unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = server.client();
        writers.spawn(async move {
            let mut done = 0;
            while done < 5 {
                let read = client
                    .get_object()
                    .bucket("race")
                    .key("n")
                    .send()
                    .await
                    .unwrap();
                let etag = read.e_tag().unwrap().to_owned();
                let n: u32 = String::from_utf8(read.body.collect().await.unwrap().to_vec())
                    .unwrap()
                    .parse()
                    .unwrap();
                let next = (n + 1).to_string();
                match client
                    .put_object()
                    .bucket("race")
                    .key("n")
                    .if_match(etag)
                    .body(body(next.as_bytes()))
                    .send()
                    .await
                {
                    Ok(_) => done += 1,
                    Err(error) => assert_eq!(code(error), "PreconditionFailed"),
                }
            }
        });
    }
    writers.join_all().await;
    assert_eq!(get(&server.client(), "race", "n").await, b"40");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_write_left_is_removed_and_damage_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let client = server.client();
    client.create_bucket().bucket("logs").send().await.unwrap();
    for key in ["whole", "torn"] {
        client
            .put_object()
            .bucket("logs")
            .key(key)
            .body(body(key.as_bytes()))
            .send()
            .await
            .unwrap();
    }
    server.stop().await;

    std::fs::write(directory.path().join("tmp/17"), b"half an obj").unwrap();
    std::fs::create_dir(directory.path().join("tmp/18")).unwrap();
    std::fs::write(directory.path().join("tmp/18/bucket.json"), b"{").unwrap();
    let torn = files_below(&directory.path().join("buckets/logs/objects"))
        .into_iter()
        .find(|path| std::fs::read(path).unwrap().starts_with(b"torn"))
        .unwrap();
    let length = std::fs::metadata(&torn).unwrap().len();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&torn)
        .unwrap()
        .set_len(length - 1)
        .unwrap();

    let server = Server::start(directory.path()).await;
    let client = server.client();
    assert_eq!(keys(&client, "logs").await, ["whole"]);
    assert_eq!(
        files_below(&directory.path().join("tmp")),
        Vec::<std::path::PathBuf>::new()
    );
    assert_eq!(files_below(&directory.path().join("damaged")).len(), 1);
    assert_eq!(
        code(
            client
                .get_object()
                .bucket("logs")
                .key("torn")
                .send()
                .await
                .unwrap_err()
        ),
        "NoSuchKey"
    );
    // The key is free again.
    client
        .put_object()
        .bucket("logs")
        .key("torn")
        .if_none_match("*")
        .body(body(b"again"))
        .send()
        .await
        .unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_or_lies_leaves_nothing() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let client = server.client();
    client.create_bucket().bucket("logs").send().await.unwrap();
    let address = server.endpoint.trim_start_matches("http://").to_owned();
    for request in [
        "PUT /logs/k HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf",
        "PUT /logs/k HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nx-amz-content-sha256: 0000000000000000000000000000000000000000000000000000000000000000\r\n\r\nbody",
        "PUT /logs/k HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ncontent-md5: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\nbody",
        "PUT /logs/k HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nx-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nx-amz-decoded-content-length: 4\r\n\r\n4\r\nbody\r\n",
        "PUT /logs/k HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\nx-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nx-amz-decoded-content-length: 4\r\nx-amz-trailer: x-amz-checksum-crc32\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        "PUT /logs/k HTTP/1.1\r\nhost: x\r\ncontent-length: 45\r\nx-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nx-amz-decoded-content-length: 4\r\nx-amz-trailer: x-amz-checksum-crc32\r\n\r\n4\r\nbody\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let cut_short = request.ends_with("half");
        if cut_short {
            stream.shutdown().await.unwrap();
        }
        let mut answer = [0; 12];
        let answered = stream.read_exact(&mut answer).await;
        // To a client that has gone there may be no answer.
        assert!(
            cut_short || (answered.is_ok() && answer == *b"HTTP/1.1 400"),
            "{request}: {answered:?} {answer:?}"
        );
        assert_eq!(
            keys(&client, "logs").await,
            Vec::<String>::new(),
            "{request}"
        );
    }
    assert_eq!(
        files_below(&directory.path().join("tmp")),
        Vec::<std::path::PathBuf>::new()
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_keeps_the_object_it_began_with() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let client = server.client();
    client.create_bucket().bucket("logs").send().await.unwrap();
    let old = vec![b'o'; 20 << 20];
    client
        .put_object()
        .bucket("logs")
        .key("k")
        .body(body(&old))
        .send()
        .await
        .unwrap();
    let reading = client
        .get_object()
        .bucket("logs")
        .key("k")
        .send()
        .await
        .unwrap();
    client
        .put_object()
        .bucket("logs")
        .key("k")
        .body(body(b"new"))
        .send()
        .await
        .unwrap();
    client
        .delete_object()
        .bucket("logs")
        .key("k")
        .send()
        .await
        .unwrap();
    let read = reading.body.collect().await.unwrap().into_bytes();
    assert!(read == old, "{} bytes", read.len());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_put_reaches_a_bucket_that_is_being_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    for _ in 0..20 {
        let client = server.client();
        client.create_bucket().bucket("gone").send().await.unwrap();
        let put = client
            .put_object()
            .bucket("gone")
            .key("k")
            .body(body(b"x"))
            .send();
        let delete = client.delete_bucket().bucket("gone").send();
        match tokio::join!(put, delete) {
            (Ok(_), Err(error)) => {
                assert_eq!(code(error), "BucketNotEmpty");
                assert_eq!(get(&client, "gone", "k").await, b"x");
                client
                    .delete_object()
                    .bucket("gone")
                    .key("k")
                    .send()
                    .await
                    .unwrap();
                client.delete_bucket().bucket("gone").send().await.unwrap();
            }
            (Err(error), Ok(_)) => assert_eq!(code(error), "NoSuchBucket"),
            (put, delete) => panic!("both or neither: {put:?} {delete:?}"),
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_answered_and_healthy_ones_go_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let client = server.client();
    client.create_bucket().bucket("logs").send().await.unwrap();
    let address = server.endpoint.trim_start_matches("http://").to_owned();
    for head in [
        "GET /%ff%fe HTTP/1.1",
        "GET /logs/%00?partNumber=-1 HTTP/1.1",
        "GET /logs?list-type=2&max-keys=-5 HTTP/1.1",
        "GET /logs?list-type=2&max-keys=99999999999999999999 HTTP/1.1",
        "GET /logs?list-type=2&continuation-token=zz HTTP/1.1",
        "GET /../../etc/passwd HTTP/1.1",
        "GET /../x HTTP/1.1",
        "PUT /../x HTTP/1.1\r\ncontent-length: 0",
        "PUT /.. HTTP/1.1\r\ncontent-length: 0",
        "POST /logs?delete HTTP/1.1\r\ncontent-length: 5\r\nx-pad: 1",
        "POST /logs/k?uploadId=../../.. HTTP/1.1\r\ncontent-length: 0",
        "DELETE /logs/k?uploadId=%2e%2e HTTP/1.1",
        "PUT /logs/k HTTP/1.1\r\nx-amz-copy-source: ../../etc/passwd\r\ncontent-length: 0",
        "PUT /logs/k HTTP/1.1\r\nx-amz-copy-source: %ff\r\ncontent-length: 0",
        "PUT /logs/k HTTP/1.1\r\nx-amz-content-sha256: zz\r\ncontent-length: 0",
        "PUT /logs/k HTTP/1.1\r\nx-amz-content-sha256: STREAMING-X\r\ncontent-length: 0",
        "PUT /logs/k HTTP/1.1\r\nif-match: \"\r\ncontent-length: 0",
        "GET /logs/k?X-Amz-Signature=1&X-Amz-Expires=99999999999&X-Amz-Date=99999999T999999Z HTTP/1.1",
        "GET /logs/k?Signature=1&Expires=-99999999999999999 HTTP/1.1",
        "POST /logs HTTP/1.1\r\ncontent-type: multipart/form-data; boundary=x\r\ncontent-length: 0",
        "PATCH / HTTP/1.1",
        "nonsense",
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream
            .write_all(
                format!("{head}\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n<x>&y").as_bytes(),
            )
            .await
            .unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        let status: u16 = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("{head}: {answer}"));
        assert!(
            (400..600).contains(&status) && status != 500,
            "{head}: {answer}"
        );
    }
    client
        .put_object()
        .bucket("logs")
        .key("k")
        .body(body(b"fine"))
        .send()
        .await
        .unwrap();
    assert_eq!(get(&client, "logs", "k").await, b"fine");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_process_opens_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let first = Store::open(directory.path().to_owned()).unwrap();
    assert!(matches!(
        Store::open(directory.path().to_owned()),
        Err(OpenError::InUse { .. })
    ));
    drop(first);
    drop(Store::open(directory.path().to_owned()).unwrap());
    std::fs::write(directory.path().join("traild-store"), "traild-store 9\n").unwrap();
    assert!(matches!(
        Store::open(directory.path().to_owned()),
        Err(OpenError::UnknownFormat { .. })
    ));
}

/// The stop answers what it can and does not wait for clients that say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_stops_with_connections_open() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let address = server.endpoint.trim_start_matches("http://").to_owned();
    let idle = tokio::net::TcpStream::connect(&address).await.unwrap();
    server
        .client()
        .create_bucket()
        .bucket("logs")
        .send()
        .await
        .unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(5), server.stop())
        .await
        .unwrap();
    drop(idle);
    drop(Store::open(directory.path().to_owned()).unwrap());
}

/// The other side of the next test: a store in a process of its own, to be killed. Does nothing when run by itself.
#[test]
fn a_store_for_the_killing() {
    let Ok(directory) = std::env::var("STORE_TO_KILL") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let server = Server::start(Path::new(&directory)).await;
        println!("\nendpoint {}", server.endpoint);
        server.task.await.unwrap();
    });
}

struct Victim {
    process: std::process::Child,
    server: Server,
}

impl Victim {
    fn start(directory: &Path) -> Self {
        use std::io::BufRead;
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_store_for_the_killing", "--nocapture"])
            .env("STORE_TO_KILL", directory)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(process.stdout.take().unwrap()).lines();
        let endpoint = lines
            .map(Result::unwrap)
            .find_map(|line| line.strip_prefix("endpoint ").map(str::to_owned))
            .unwrap();
        Self {
            process,
            server: Server {
                endpoint,
                stop: CancellationToken::new(),
                task: tokio::spawn(async {}),
            },
        }
    }
}

/// What version `n` of a key holds: its length and bytes tell whether it is whole.
fn version(key: usize, n: u32) -> Vec<u8> {
    let line = format!("key {key} version {n}\n");
    line.repeat(1 + (key * 977 + n as usize * 131) % 20_000)
        .into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_nine_loses_nothing_that_was_answered_and_tears_nothing() {
    const KEYS: usize = 6;
    let directory = tempfile::tempdir().unwrap();
    // Per key: the last version answered, the last one begun, whether the last answer was a deletion.
    let mut answered = [0u32; KEYS];
    let mut begun = [0u32; KEYS];
    for round in 0..8u64 {
        let mut victim = Victim::start(directory.path());
        victim
            .server
            .client()
            .create_bucket()
            .bucket("logs")
            .send()
            .await
            .unwrap();
        let mut writers = tokio::task::JoinSet::new();
        for key in 0..KEYS {
            let client = victim.server.client();
            let mut n = begun[key];
            let mut done = answered[key];
            writers.spawn(async move {
                loop {
                    n += 1;
                    let put = client
                        .put_object()
                        .bucket("logs")
                        .key(format!("k/{key}"))
                        .body(version(key, n).into());
                    match put.send().await {
                        Ok(_) => done = n,
                        Err(_) => return (key, done, n),
                    }
                }
            });
        }
        tokio::time::sleep(std::time::Duration::from_millis(60 + round * 37)).await;
        victim.process.kill().unwrap();
        victim.process.wait().unwrap();
        for (key, done, n) in writers.join_all().await {
            (answered[key], begun[key]) = (done, n);
        }

        let server = Server::start(directory.path()).await;
        let client = server.client();
        let listed = keys(&client, "logs").await;
        for key in 0..KEYS {
            let name = format!("k/{key}");
            if answered[key] == 0 && !listed.contains(&name) {
                continue;
            }
            let content = get(&client, "logs", &name).await;
            let found = (answered[key].max(1)..=begun[key]).find(|n| content == version(key, *n));
            // The version in doubt may or may not have arrived; what is there is now the least that must stay.
            answered[key] = found
                .unwrap_or_else(|| panic!("{name} holds {} bytes of no version", content.len()));
        }
        assert_eq!(
            files_below(&directory.path().join("tmp")),
            Vec::<std::path::PathBuf>::new()
        );
        assert_eq!(
            files_below(&directory.path().join("damaged")),
            Vec::<std::path::PathBuf>::new()
        );
        server.stop().await;
    }
    assert!(
        answered.iter().all(|n| *n > 8),
        "hardly anything was written: {answered:?}"
    );
}

/// `TRAILD_TEST_SMALL_DISK` names a directory on an empty file system of a few MiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_answered_and_freed_space_is_used() {
    let Ok(disk) = std::env::var("TRAILD_TEST_SMALL_DISK") else {
        eprintln!("TRAILD_TEST_SMALL_DISK is not set: the full disk is not tried");
        return;
    };
    let directory = tempfile::tempdir_in(disk).unwrap();
    let server = Server::start(directory.path()).await;
    let client = server.client();
    client.create_bucket().bucket("logs").send().await.unwrap();
    let mut stored = Vec::new();
    let refusal = loop {
        let key = format!("k{}", stored.len());
        match client
            .put_object()
            .bucket("logs")
            .key(&key)
            .body(body(&vec![7; 700_000]))
            .send()
            .await
        {
            Ok(_) => stored.push(key),
            Err(error) => break error,
        }
        assert!(stored.len() < 1000, "the disk is not small");
    };
    assert_eq!(refusal.raw_response().unwrap().status().as_u16(), 507);
    assert_eq!(code(refusal), "InsufficientStorage");
    assert_eq!(keys(&client, "logs").await, stored);
    assert_eq!(
        files_below(&directory.path().join("tmp")),
        Vec::<std::path::PathBuf>::new()
    );
    client
        .delete_object()
        .bucket("logs")
        .key("k0")
        .send()
        .await
        .unwrap();
    client
        .put_object()
        .bucket("logs")
        .key("k0")
        .body(body(&vec![8; 700_000]))
        .send()
        .await
        .unwrap();
    server.stop().await;
    let server = Server::start(directory.path()).await;
    assert_eq!(keys(&server.client(), "logs").await, stored);
    server.stop().await;
}

/// Runs boto3 and the AWS CLI when `TRAILD_TEST_PYTHON` names a Python that has them; `tests/run` always sets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn unmodified_clients_read_and_write() {
    let Ok(python) = std::env::var("TRAILD_TEST_PYTHON") else {
        eprintln!("TRAILD_TEST_PYTHON is not set: boto3 and the AWS CLI are not run");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    let endpoint = server.endpoint.clone();
    let done = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/store_clients.py"
            ))
            .env("STORE_ENDPOINT", endpoint)
            .output()
            .unwrap()
    });
    let done = done.await.unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{out}\n{err}");
    server.stop().await;
}
