//! Log events to a CloudWatch Logs whose every answer a test chooses, on the wire; STS is at the same address.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_cloudwatchlogs::config::{Credentials, SharedCredentialsProvider};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::aws;
use crate::config::Config;
use crate::deliver::dead_letter::DeadLetters;
use crate::deliver::fake::{Answer, Asked, Service};
use crate::deliver::fanout::ItemId;
use crate::deliver::fanout::leg::{Leg, Parts};
use crate::deliver::memory::MemoryFile;
use crate::deliver::view::{self, LegView, TOO_LARGE, TOO_NEW, TOO_OLD};
use crate::trail::tests::{event, trail};
use crate::wal::sim::SimDisk;
use crate::wal::{self, Wal};

const ROLE: &str = "arn:aws:iam::111122223333:role/CloudTrail_CloudWatchLogs";
const STREAM: &str = "111122223333_CloudTrail_us-east-1";

/// `AssumeRole` for STS, else the operation of CloudWatch Logs.
fn operation(asked: &Asked) -> &str {
    match asked.target().strip_prefix("Logs_20140328.") {
        Some(operation) => operation,
        None => between(std::str::from_utf8(&asked.body).unwrap(), "Action=", '&'),
    }
}

/// Who signed, when, for where: `<access key>/<date>/<region>/<service>/aws4_request`.
fn scope(asked: &Asked) -> &str {
    between(header(asked, "authorization").unwrap(), "Credential=", ',')
}

fn is_signed_by(asked: &Asked, access_key: &str) -> bool {
    scope(asked).starts_with(&format!("{access_key}/"))
}

fn header<'a>(asked: &'a Asked, name: &str) -> Option<&'a str> {
    let value = asked.headers.get(name)?;
    Some(value.to_str().unwrap())
}

fn between<'a>(text: &'a str, before: &str, after: char) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap();
    rest.split(after).next().unwrap()
}

fn operations(service: &Service) -> Vec<String> {
    let asked = service.asked();
    asked
        .iter()
        .map(|asked| operation(asked).to_owned())
        .collect()
}

fn ok(output: Value) -> Answer {
    Answer::new(200, output)
}

fn error(status: u16, code: &str) -> Answer {
    Answer::new(status, json!({"__type": code, "message": "no"}))
}

fn credentials(access_key: &str) -> Answer {
    let body = format!(
        r#"<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
        <AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
        <SessionToken>token-of-{access_key}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>
        </Credentials></AssumeRoleResult></AssumeRoleResponse>"#
    );
    Answer::new(200, body)
}

/// The client that the daemon makes for services at `endpoint`, for whom `AKBASE` is the daemon.
async fn client(endpoint: String, group: LogGroup) -> Client {
    let mut config = Config::embedded_default();
    config.aws.endpoint_url = Some(endpoint);
    let daemon = Credentials::new("AKBASE", "secret", None, None, "test");
    let sdk = aws::sdk_config(&config)
        .await
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(daemon))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    aws::logs_client(&sdk, group.region(), group.role_arn()).await
}

/// A group of eu-west-1, written to with this role.
fn group(role_arn: Option<&str>) -> LogGroup {
    let group: LogGroup = "arn:aws:logs:eu-west-1:111122223333:log-group:trail:*"
        .parse()
        .unwrap();
    group.with_role(role_arn.map(str::to_owned))
}

/// Log streams in a group of eu-west-1, written to with this role.
async fn log_streams(
    role_arn: Option<&str>,
    answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (LogStreams, Service) {
    let service = Service::start(answer).await;
    let endpoint = service.endpoint().to_owned();
    let group = group(role_arn);
    let make = {
        let group = group.clone();
        move || client(endpoint.clone(), group.clone())
    };
    let client = Renewing::new(make().await, make);
    let streams = LogStreams::new(Arc::new(trail()), group, client, 256 << 10);
    (streams, service)
}

fn item(json: impl Into<Bytes>) -> Item {
    Item {
        id: ItemId {
            position: Position(1),
            index: 0,
        },
        events: 1,
        since: WallMillis(1),
        json: json.into(),
    }
}

fn entries(streams: &LogStreams, count: usize) -> Vec<Text> {
    let item = |n| item(format!(r#"{{"eventID":"{n}","text":"ä\"\\"}}"#));
    let entry = |n| streams.entry(&item(n)).unwrap();
    (0..count).map(entry).collect()
}

#[tokio::test]
async fn events_go_to_the_stream_as_they_are_in_order_with_the_time_of_delivery() {
    let (streams, service) = log_streams(None, |_| ok(json!({"nextSequenceToken": "1"}))).await;
    let texts = entries(&streams, 3);
    let before = WallMillis::now();
    let verdicts = streams.send(0, &texts).await.unwrap();
    let after = WallMillis::now();
    assert_eq!(verdicts, vec![Verdict::Delivered; 3]);
    let [asked] = &service.asked()[..] else {
        panic!("{:?}", service.asked());
    };
    assert_eq!(operation(asked), "PutLogEvents");
    assert!(is_signed_by(asked, "AKBASE"), "{asked:?}");
    assert!(scope(asked).contains("/eu-west-1/logs/"), "{asked:?}");
    let body = asked.json();
    assert_eq!(
        (&body["logGroupName"], &body["logStreamName"]),
        (&json!("trail"), &json!(STREAM))
    );
    let events = body["logEvents"].as_array().unwrap();
    let messages: Vec<_> = events
        .iter()
        .map(|event| event["message"].as_str())
        .collect();
    let given: Vec<_> = texts.iter().map(|text| Some(text.as_str())).collect();
    assert_eq!(messages, given);
    let times: Vec<_> = events
        .iter()
        .map(|event| event["timestamp"].as_i64().unwrap())
        .collect();
    assert!(times.iter().all(|time| *time == times[0]), "{times:?}");
    assert!((before.0..=after.0).contains(&times[0]), "{times:?}");
}

#[tokio::test]
async fn each_lane_has_a_stream_of_its_own_and_a_backlog_has_more_lanes() {
    let (streams, service) = log_streams(None, |_| ok(json!({}))).await;
    let texts = entries(&streams, 1);
    for lane in [0, 1, 3] {
        streams.send(lane, &texts).await.unwrap();
    }
    let asked = service.asked();
    let written: Vec<_> = asked
        .iter()
        .map(|asked| asked.json()["logStreamName"].clone())
        .collect();
    let expected = ["", "_2", "_4"].map(|suffix| json!(format!("{STREAM}{suffix}")));
    assert_eq!(written, expected);
    let mib = 1 << 20;
    for (behind, lanes) in [
        (0, 1),
        (4 * mib - 1, 1),
        (4 * mib, 2),
        (8 * mib, 4),
        (u64::MAX, 4),
    ] {
        assert_eq!(streams.lanes(behind), lanes, "{behind} bytes behind");
        assert_eq!(streams.chunks(behind), lanes, "{behind} bytes behind");
    }
}

#[tokio::test]
async fn a_missing_stream_is_made_and_the_events_are_sent_at_once() {
    for created in [
        || ok(json!({})),
        // Another lane, or another daemon, was faster.
        || error(400, "ResourceAlreadyExistsException"),
    ] {
        let is_there = Mutex::new(false);
        let (streams, service) = log_streams(None, move |asked| {
            if operation(asked) == "CreateLogStream" {
                *is_there.lock().unwrap() = true;
                created()
            } else if *is_there.lock().unwrap() {
                ok(json!({}))
            } else {
                error(400, "ResourceNotFoundException")
            }
        })
        .await;
        let texts = entries(&streams, 2);
        for _ in 0..2 {
            let verdicts = streams.send(1, &texts).await.unwrap();
            assert_eq!(verdicts, vec![Verdict::Delivered; 2]);
        }
        let expected = [
            "PutLogEvents",
            "CreateLogStream",
            "PutLogEvents",
            "PutLogEvents",
        ];
        assert_eq!(operations(&service), expected);
        let create = service.asked()[1].json();
        let stream = format!("{STREAM}_2");
        assert_eq!(
            create,
            json!({"logGroupName": "trail", "logStreamName": stream})
        );
    }
}

#[tokio::test]
async fn a_missing_log_group_is_named_with_its_region_and_its_account() {
    let not_found = |_: &Asked| error(400, "ResourceNotFoundException");
    let (streams, service) = log_streams(None, not_found).await;
    let failure = streams.send(0, &entries(&streams, 1)).await.unwrap_err();
    assert_eq!(failure.code, "ResourceNotFoundException");
    assert_eq!(failure.status, Some(400));
    for part in ["log group trail", "eu-west-1", "111122223333", "create it"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    assert_eq!(operations(&service), ["PutLogEvents", "CreateLogStream"]);
}

#[tokio::test]
async fn a_stream_that_stays_missing_is_not_made_over_and_over_in_one_attempt() {
    let (streams, service) = log_streams(None, |asked| match operation(asked) {
        "CreateLogStream" => ok(json!({})),
        _ => error(400, "ResourceNotFoundException"),
    })
    .await;
    let failure = streams.send(0, &entries(&streams, 1)).await.unwrap_err();
    assert_eq!(failure.code, "ResourceNotFoundException");
    assert_eq!(operations(&service).len(), 3);
}

#[tokio::test]
async fn a_stream_that_cannot_be_made_is_never_the_events_fault() {
    let (streams, _) = log_streams(None, |asked| match operation(asked) {
        "CreateLogStream" => error(400, "InvalidParameterException"),
        _ => error(400, "ResourceNotFoundException"),
    })
    .await;
    let failure = streams.send(0, &entries(&streams, 1)).await.unwrap_err();
    assert!(!failure.is_about_content(), "{failure:?}");
    assert!(
        failure.message.contains("InvalidParameterException"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn an_error_of_the_service_fails_the_attempt_and_is_asked_once() {
    for (status, code, about_content) in [
        (400, "ThrottlingException", false),
        (500, "ServiceUnavailableException", false),
        (400, "AccessDeniedException", false),
        (400, "InvalidParameterException", true),
    ] {
        let (streams, service) = log_streams(None, move |_| error(status, code)).await;
        let failure = streams.send(0, &entries(&streams, 2)).await.unwrap_err();
        assert_eq!((&*failure.code, failure.status), (code, Some(status)));
        assert_eq!(failure.is_about_content(), about_content);
        assert_eq!(
            operations(&service),
            ["PutLogEvents"],
            "the SDK tried again on its own"
        );
    }
}

#[tokio::test]
async fn log_events_that_are_rejected_are_refused_and_their_neighbours_are_delivered() {
    let (streams, _) = log_streams(None, |_| {
        ok(json!({"rejectedLogEventsInfo":
            {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 3}}))
    })
    .await;
    let verdicts = streams.send(0, &entries(&streams, 4)).await.unwrap();
    let reasons: Vec<_> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Refused(refusal) => refusal.reason,
            Verdict::Delivered => "delivered",
            Verdict::Again(failure) => panic!("{failure:?}"),
        })
        .collect();
    assert_eq!(reasons, [TOO_OLD, "delivered", "delivered", TOO_NEW]);
}

#[tokio::test]
async fn a_role_is_assumed_for_the_first_request_and_signs_them_all() {
    let (streams, service) = log_streams(Some(ROLE), |asked| match operation(asked) {
        "AssumeRole" => credentials("AKROLE"),
        _ => ok(json!({})),
    })
    .await;
    assert!(
        service.asked().is_empty(),
        "nothing is asked before it is needed"
    );
    for lane in [0, 1] {
        streams.send(lane, &entries(&streams, 1)).await.unwrap();
    }
    assert_eq!(
        operations(&service),
        ["AssumeRole", "PutLogEvents", "PutLogEvents"]
    );
    let [assume, puts @ ..] = &service.asked()[..] else {
        unreachable!()
    };
    assert!(is_signed_by(assume, "AKBASE"), "{assume:?}");
    assert!(scope(assume).contains("/eu-west-1/sts/"), "{assume:?}");
    let form = std::str::from_utf8(&assume.body).unwrap();
    let role = "arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2FCloudTrail_CloudWatchLogs";
    assert_eq!(between(form, "RoleArn=", '&'), role);
    assert_eq!(between(form, "RoleSessionName=", '&'), "traild");
    for put in puts {
        assert!(is_signed_by(put, "AKROLE"), "{put:?}");
        assert_eq!(header(put, "x-amz-security-token"), Some("token-of-AKROLE"));
    }
}

#[tokio::test]
async fn credentials_that_the_service_calls_expired_are_not_used_again() {
    let assumed = AtomicUsize::new(0);
    let (streams, service) = log_streams(Some(ROLE), move |asked| {
        if operation(asked) == "AssumeRole" {
            credentials(&format!(
                "AKROLE{}",
                assumed.fetch_add(1, Ordering::Relaxed)
            ))
        } else if is_signed_by(asked, "AKROLE0") {
            error(400, "ExpiredTokenException")
        } else {
            ok(json!({}))
        }
    })
    .await;
    let texts = entries(&streams, 1);
    let failure = streams.send(0, &texts).await.unwrap_err();
    assert_eq!(failure.code, "ExpiredTokenException");
    for _ in 0..2 {
        let verdicts = streams.send(0, &texts).await.unwrap();
        assert_eq!(verdicts, [Verdict::Delivered]);
    }
    let expected = [
        "AssumeRole",
        "PutLogEvents",
        "AssumeRole",
        "PutLogEvents",
        "PutLogEvents",
    ];
    assert_eq!(operations(&service), expected);
}

#[tokio::test]
async fn a_role_that_may_not_be_assumed_fails_the_attempt_and_is_asked_for_again() {
    let refusals = AtomicUsize::new(0);
    let (streams, service) = log_streams(Some(ROLE), move |asked| {
        if operation(asked) != "AssumeRole" {
            ok(json!({}))
        } else if refusals.fetch_add(1, Ordering::Relaxed) == 0 {
            let code = "<Code>AccessDenied</Code><Message>not your role</Message>";
            Answer::new(
                403,
                format!("<ErrorResponse><Error>{code}</Error></ErrorResponse>"),
            )
        } else {
            credentials("AKROLE")
        }
    })
    .await;
    let texts = entries(&streams, 1);
    let failure = streams.send(0, &texts).await.unwrap_err();
    assert_eq!(failure.code, "CredentialsError");
    assert!(failure.message.contains("not your role"), "{failure:?}");
    streams.send(0, &texts).await.unwrap();
    assert_eq!(
        operations(&service),
        ["AssumeRole", "AssumeRole", "PutLogEvents"]
    );
}

#[tokio::test]
async fn a_connection_that_breaks_costs_no_role_credentials() {
    let puts = AtomicUsize::new(0);
    let (streams, service) = log_streams(Some(ROLE), move |asked| {
        if operation(asked) == "AssumeRole" {
            return credentials("AKROLE");
        }
        let nth = puts.fetch_add(1, Ordering::Relaxed);
        assert_ne!(nth, 1, "the connection breaks here");
        ok(json!({}))
    })
    .await;
    let texts = entries(&streams, 1);
    streams.send(0, &texts).await.unwrap();
    let failure = streams.send(0, &texts).await.unwrap_err();
    assert_eq!(failure.code, "DispatchFailure", "{failure:?}");
    streams.send(0, &texts).await.unwrap();
    // The request that broke is not among those that were answered.
    assert_eq!(
        operations(&service),
        ["AssumeRole", "PutLogEvents", "PutLogEvents"]
    );
}

/// A proxy, or a service that speaks TLS where a plain connection was asked for.
#[tokio::test]
async fn what_is_no_http_is_not_taken_for_missing_credentials() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream
                .write_all(b"\x15\x03\x01\0\x02\x02\x46")
                .await
                .unwrap();
        }
    });
    let client = client(endpoint, group(None)).await;
    let renewing = Renewing::new(client, || async { unreachable!("client was thrown away") });
    let streams = LogStreams::new(Arc::new(trail()), group(None), renewing, 256 << 10);
    for _ in 0..2 {
        let failure = streams.send(0, &entries(&streams, 1)).await.unwrap_err();
        assert_eq!(failure.code, "DispatchFailure", "{failure:?}");
    }
}

#[tokio::test]
async fn what_the_trail_selects_is_read_and_what_is_too_large_is_refused() {
    let (streams, _) = log_streams(None, |_| ok(json!({}))).await;
    let frame = |account: &str| {
        let mut frame = Vec::new();
        event(account, "eu-west-1").encode(&mut frame);
        frame.extend_from_slice(b"{}");
        Bytes::from(frame)
    };
    let items = streams.read(Position(7), frame("111122223333")).unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(
        (&items[0].json[..], items[0].id.position),
        (&b"{}"[..], Position(7))
    );
    assert_eq!(
        streams.read(Position(7), frame("999988887777")),
        Ok(Vec::new())
    );
    assert!(streams.read(Position(7), Bytes::from_static(b"x")).is_err());
    assert!(streams.entry(&item(vec![b'x'; 256 << 10])).is_ok());
    let refusal = streams
        .entry(&item(vec![b'x'; (256 << 10) + 1]))
        .unwrap_err();
    assert_eq!(refusal.reason, TOO_LARGE);
}

/// A leg that follows a log of its own.
struct Followed {
    log: Wal,
    home: tempfile::TempDir,
    leg: Leg<LogStreams>,
    progress: watch::Receiver<Position>,
}

impl Followed {
    fn new(streams: LogStreams) -> Self {
        let options = wal::Options {
            directory: "/log".into(),
            segment_bytes: 64 << 20,
            max_bytes: 1 << 30,
            disk_reserve: wal::DiskReserve::None,
            queue_bytes: 1 << 20,
        };
        let disk = Arc::new(SimDisk::new());
        let (log, _) = Wal::open(disk, options, wal::Metrics::default(), &mut |_, _| ()).unwrap();
        let home = tempfile::tempdir().unwrap();
        let leg = Leg::open(Parts {
            trail: streams.trail.arn(),
            destination: streams,
            log: log.clone(),
            new_from: Position(0),
            memory: MemoryFile::new(home.path(), "main", "logs"),
            letters: DeadLetters::new(home.path(), "main", "logs"),
            view: LegView::new(
                view::Leg {
                    trail: "main".into(),
                    sink: view::Sink::Logs,
                },
                view::Metrics::default(),
            ),
            chunk_bytes: 1 << 20,
            cut: watch::Sender::new(Position(0)).subscribe(),
        });
        let progress = leg.watch_progress();
        Self {
            log,
            home,
            leg,
            progress,
        }
    }
}

/// Appends this many events of 64 KiB.
async fn append(log: &Wal, count: usize) {
    for _ in 0..count {
        let mut frame = Vec::new();
        event("111122223333", "us-east-1").encode(&mut frame);
        frame.extend_from_slice(
            format!(r#"{{"text":"{}"}}"#, "x".repeat((64 << 10) - 11)).as_bytes(),
        );
        let mut batch = wal::Batch::new();
        batch.push(&frame);
        let permit = log.reserve(batch.bytes()).await.unwrap();
        permit.append(batch).await.unwrap();
    }
}

/// The stream of each request, and how many events it was sent.
fn puts(asked: &[Asked]) -> Vec<(String, usize)> {
    let put = |asked: &Asked| {
        let body = asked.json();
        let stream = body["logStreamName"].as_str().unwrap().to_owned();
        (stream, body["logEvents"].as_array().unwrap().len())
    };
    asked.iter().map(put).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn a_backlog_is_written_to_several_streams_at_once_and_what_keeps_up_to_the_first_alone() {
    let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (streams, service) = {
        let most = most.clone();
        log_streams(None, move |_| {
            most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(100));
            at_once.fetch_sub(1, Ordering::SeqCst);
            ok(json!({}))
        })
        .await
    };
    let Followed {
        log,
        home: _home,
        leg,
        mut progress,
    } = Followed::new(streams);
    let mut drained = async |log: &Wal| {
        let end = log.durable();
        let settled = progress.wait_for(|progress| *progress >= end);
        let settled = tokio::time::timeout(Duration::from_secs(60), settled).await;
        settled.expect("it drains").unwrap();
    };
    append(&log, 14 * 16).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(leg.run(stop.clone()));
    drained(&log).await;
    let backlog = puts(&service.asked());
    let written: BTreeSet<_> = backlog.iter().map(|(stream, _)| stream.clone()).collect();
    let streams = ["", "_2", "_3", "_4"].map(|suffix| format!("{STREAM}{suffix}"));
    assert_eq!(written, streams.into());
    assert_eq!(backlog.iter().map(|(_, events)| events).sum::<usize>(), 224);
    // Four, unless this machine is too busy to send them within the time of an answer.
    assert!(
        most.load(Ordering::SeqCst) > 1,
        "requests wait for each other"
    );

    for _ in 0..3 {
        append(&log, 2).await;
        drained(&log).await;
    }
    let kept_up = &puts(&service.asked())[backlog.len()..];
    assert!(
        kept_up.iter().all(|(stream, _)| stream == STREAM),
        "{kept_up:?}"
    );
    assert_eq!(kept_up.iter().map(|(_, events)| events).sum::<usize>(), 6);
    stop.cancel();
    running.await.unwrap().unwrap();
}
