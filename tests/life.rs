//! The whole life of a trail by AWS's SDK for Rust, against the real daemon: its bucket, logging, selectors, events, their lookup, its status, its
//! log files' verification, its end. tests/e2e/test_life.py does the same by the AWS CLI and by boto3.

#![allow(clippy::unwrap_used)] // a test that cannot go on may stop

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_cloudtrail::Client;
use aws_sdk_cloudtrail::config::Credentials;
use aws_sdk_cloudtrail::types::{
    EventSelector, LookupAttribute, LookupAttributeKey, ReadWriteType,
};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use uuid::Uuid;

const BUCKET: &str = "life-logs";
const NAME: &str = "life";

struct Daemon {
    child: Child,
    api: SocketAddr,
    store: SocketAddr,
}

impl Daemon {
    /// Ready on the embedded store, below `home`, with a trail of its configuration beside the one that is about to be made.
    async fn start(home: &Path) -> Self {
        let [api, ops, store] = [free(), free(), free()];
        let config = format!(
            "data_dir = \"{}\"\n[listen]\napi = \"{api}\"\nops = \"{ops}\"\n[storage]\nlisten = \"{store}\"\n\
             [delivery]\nmax_age = \"300ms\"\n[digest]\ninterval = \"2s\"\n\
             [[trails]]\nname = \"main\"\ns3_bucket_name = \"main-logs\"\n",
            home.join("data").display()
        );
        std::fs::write(home.join("traild.toml"), config).unwrap();
        let log = std::fs::File::create(home.join("log")).unwrap();
        let child = traild(home)
            .arg("run")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let ready: http::Uri = format!("http://{ops}/readyz").parse().unwrap();
        let daemon = Self { child, api, store };
        eventually("the daemon is ready", async || {
            let answer = http_client().get(ready.clone()).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        daemon
    }

    fn cloudtrail(&self) -> Client {
        let options = aws_sdk_cloudtrail::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://{}", self.api))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"));
        Client::from_conf(options.build())
    }

    fn s3(&self) -> aws_sdk_s3::Client {
        let options = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://{}", self.store))
            .force_path_style(true)
            .credentials_provider(Credentials::new("test", "test", None, None, "test"));
        aws_sdk_s3::Client::from_conf(options.build())
    }

    async fn send(&self, events: &[String]) {
        let body = Full::new(Bytes::from(events.join("\n")));
        let request = Request::post(format!("http://{}/v1/events", self.api)).body(body);
        let answer = http_client().request(request.unwrap()).await.unwrap();
        assert!(answer.status().is_success());
    }

    /// `traild verify` of the trail's bucket.
    fn verify(&self, home: &Path) -> Output {
        traild(home)
            .args(["verify", "--bucket", BUCKET, "--trail", NAME])
            .env(
                "AWS_ENDPOINT_URL_CLOUDTRAIL",
                format!("http://{}", self.api),
            )
            .env("AWS_ENDPOINT_URL_S3", format!("http://{}", self.store))
            .output()
            .unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn traild(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_traild"));
    command
        .current_dir(home)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

fn http_client() -> legacy::Client<legacy::connect::HttpConnector, Full<Bytes>> {
    legacy::Client::builder(TokioExecutor::new()).build_http()
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Asks until there is something.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn event(user: &str, name: &str) -> String {
    let now = time::OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .unwrap();
    let now = now.format(&time::format_description::well_known::Rfc3339);
    format!(
        r#"{{"eventVersion":"1.11","userIdentity":{{"type":"IAMUser","userName":"{user}"}},"eventTime":"{}","eventSource":"iam.amazonaws.com","eventName":"{name}","awsRegion":"us-east-1","sourceIPAddress":"192.0.2.7","requestParameters":null,"responseElements":null,"eventID":"{}","readOnly":{},"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"111122223333","eventCategory":"Management"}}"#,
        now.unwrap(),
        Uuid::new_v4(),
        name.starts_with("Get")
    )
}

#[tokio::test]
async fn the_whole_life_of_a_trail_by_the_sdk() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path()).await;
    let (cloudtrail, s3) = (daemon.cloudtrail(), daemon.s3());
    s3.create_bucket().bucket(BUCKET).send().await.unwrap();
    let create = cloudtrail.create_trail().name(NAME).s3_bucket_name(BUCKET);
    let create = create
        .is_multi_region_trail(true)
        .enable_log_file_validation(true);
    let arn = create.send().await.unwrap().trail_arn.unwrap();
    cloudtrail.start_logging().name(&arn).send().await.unwrap();
    let writes = EventSelector::builder().read_write_type(ReadWriteType::WriteOnly);
    let put = cloudtrail.put_event_selectors().trail_name(&arn);
    put.event_selectors(writes.build()).send().await.unwrap();

    let user = format!("user-{}", Uuid::new_v4());
    let (write, read) = (event(&user, "CreateUser"), event(&user, "GetUser"));
    daemon.send(&[write.clone(), read.clone()]).await;

    let by_user = LookupAttribute::builder()
        .attribute_key(LookupAttributeKey::Username)
        .attribute_value(&user)
        .build()
        .unwrap();
    let found = eventually("both events are in the history", async || {
        let lookup = cloudtrail
            .lookup_events()
            .lookup_attributes(by_user.clone());
        let mut pages = lookup.into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(event) = pages.next().await {
            found.push(event.unwrap().cloud_trail_event.unwrap());
        }
        (found.len() == 2).then_some(found)
    })
    .await;
    assert!(found.contains(&write) && found.contains(&read), "{found:?}");

    let status = eventually("a log file and a digest are delivered", async || {
        let status = cloudtrail
            .get_trail_status()
            .name(&arn)
            .send()
            .await
            .unwrap();
        let is_there = status
            .latest_delivery_time
            .and(status.latest_digest_delivery_time);
        is_there.is_some().then_some(status)
    })
    .await;
    assert_eq!(status.is_logging(), Some(true));
    eventually("the log file is in a valid digest", async || {
        let Output { status, stdout, .. } = daemon.verify(home.path());
        let told = String::from_utf8(stdout).unwrap();
        let mut lines = told.lines();
        let has_one = lines.any(|line| line.contains("log file") && line.ends_with("valid"));
        (status.success() && has_one).then_some(())
    })
    .await;

    cloudtrail.stop_logging().name(&arn).send().await.unwrap();
    let status = cloudtrail
        .get_trail_status()
        .name(&arn)
        .send()
        .await
        .unwrap();
    assert_eq!(status.is_logging(), Some(false));
    cloudtrail.delete_trail().name(&arn).send().await.unwrap();
    let error = cloudtrail.get_trail().name(&arn).send().await.unwrap_err();
    assert!(error.into_service_error().is_trail_not_found_exception());
}
