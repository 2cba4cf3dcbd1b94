//! Log events to a CloudWatch Logs whose every answer a test chooses, on the wire; STS is at the same address.

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_cloudwatchlogs::config::{Credentials, SharedCredentialsProvider};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::aws;
use crate::config::Config;
use crate::deliver::fanout::ItemId;
use crate::deliver::view::{TOO_LARGE, TOO_NEW, TOO_OLD};
use crate::trail::tests::{event, trail};

const ROLE: &str = "arn:aws:iam::111122223333:role/CloudTrail_CloudWatchLogs";
const STREAM: &str = "111122223333_CloudTrail_us-east-1";

/// What the services are asked.
#[derive(Debug, Clone)]
struct Asked {
    /// `AssumeRole` for STS, else the operation of CloudWatch Logs.
    operation: String,
    /// Who signed, when, for where: `<access key>/<date>/<region>/<service>/aws4_request`.
    credential: String,
    session_token: Option<String>,
    /// JSON; a form for STS.
    body: String,
}

impl Asked {
    fn new(headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        let between = |text: &str, before: &str, after: char| {
            let (_, rest) = text.split_once(before).unwrap();
            rest.split(after).next().unwrap().to_owned()
        };
        let body = String::from_utf8(body.to_vec()).unwrap();
        Self {
            operation: match header("x-amz-target") {
                Some(target) => target.strip_prefix("Logs_20140328.").unwrap().to_owned(),
                None => between(&body, "Action=", '&'),
            },
            credential: between(header("authorization").unwrap(), "Credential=", ','),
            session_token: header("x-amz-security-token").map(str::to_owned),
            body,
        }
    }

    fn is(&self, operation: &str) -> bool {
        self.operation == operation
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn stream(&self) -> String {
        self.json()["logStreamName"].as_str().unwrap().to_owned()
    }

    fn is_signed_by(&self, access_key: &str) -> bool {
        self.credential.starts_with(&format!("{access_key}/"))
    }
}

struct Answer {
    status: u16,
    body: String,
}

fn ok(body: Value) -> Answer {
    Answer {
        status: 200,
        body: body.to_string(),
    }
}

fn error(status: u16, code: &str) -> Answer {
    Answer {
        status,
        body: json!({"__type": code, "message": "no"}).to_string(),
    }
}

fn credentials(access_key: &str) -> Answer {
    let body = format!(
        r#"<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
        <AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
        <SessionToken>token-of-{access_key}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>
        </Credentials></AssumeRoleResult></AssumeRoleResponse>"#
    );
    Answer { status: 200, body }
}

/// The requests that the services have got.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Asked>>>);

impl Log {
    fn all(&self) -> Vec<Asked> {
        self.0.lock().unwrap().clone()
    }

    fn operations(&self) -> Vec<String> {
        self.all()
            .into_iter()
            .map(|asked| asked.operation)
            .collect()
    }
}

/// Services that answer as `answer` says; gives their endpoint.
async fn services(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let (answer, asked) = (Arc::new(answer), log.clone());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (answer, asked) = (answer.clone(), asked.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, asked) = (answer.clone(), asked.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let request = Asked::new(&head.headers, &body);
                    let Answer { status, body } = answer(&request);
                    asked.0.lock().unwrap().push(request);
                    let response = Response::builder().status(status);
                    let response = response.body(Full::new(Bytes::from(body)));
                    Ok::<_, Infallible>(response.unwrap())
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (endpoint, log)
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

/// Log streams in a group of eu-west-1, written to with this role.
async fn log_streams(
    role_arn: Option<&str>,
    answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (LogStreams, Log) {
    let (endpoint, log) = services(answer).await;
    let group: LogGroup = "arn:aws:logs:eu-west-1:111122223333:log-group:trail:*"
        .parse()
        .unwrap();
    let group = group.with_role(role_arn.map(str::to_owned));
    let make = {
        let group = group.clone();
        move || client(endpoint.clone(), group.clone())
    };
    let client = Renewing::new(make().await, make);
    let streams = LogStreams::new(Arc::new(trail()), group, client, 256 << 10);
    (streams, log)
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
    let (streams, log) = log_streams(None, |_| ok(json!({"nextSequenceToken": "1"}))).await;
    let texts = entries(&streams, 3);
    let before = WallMillis::now();
    let verdicts = streams.send(0, &texts).await.unwrap();
    let after = WallMillis::now();
    assert_eq!(verdicts, vec![Verdict::Delivered; 3]);
    let [asked] = &log.all()[..] else {
        panic!("{:?}", log.all());
    };
    assert_eq!(asked.operation, "PutLogEvents");
    assert!(asked.is_signed_by("AKBASE"), "{asked:?}");
    assert!(asked.credential.contains("/eu-west-1/logs/"), "{asked:?}");
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
    let (streams, log) = log_streams(None, |_| ok(json!({}))).await;
    let texts = entries(&streams, 1);
    for lane in [0, 1, 7] {
        streams.send(lane, &texts).await.unwrap();
    }
    let written: Vec<_> = log.all().iter().map(Asked::stream).collect();
    let expected = ["", "_2", "_8"].map(|suffix| format!("{STREAM}{suffix}"));
    assert_eq!(written, expected);
    let mib = 1 << 20;
    for (behind, lanes) in [
        (0, 1),
        (4 * mib - 1, 1),
        (4 * mib, 2),
        (8 * mib, 4),
        (12 * mib, 8),
        (u64::MAX, 8),
    ] {
        assert_eq!(streams.lanes(behind), lanes, "{behind} bytes behind");
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
        let (streams, log) = log_streams(None, move |asked| {
            if asked.is("CreateLogStream") {
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
        assert_eq!(log.operations(), expected);
        let create = log.all()[1].json();
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
    let (streams, log) = log_streams(None, not_found).await;
    let failure = streams.send(0, &entries(&streams, 1)).await.unwrap_err();
    assert_eq!(failure.code, "ResourceNotFoundException");
    assert_eq!(failure.status, Some(400));
    for part in ["log group trail", "eu-west-1", "111122223333", "create it"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    assert_eq!(log.operations(), ["PutLogEvents", "CreateLogStream"]);
}

#[tokio::test]
async fn a_stream_that_stays_missing_is_not_made_over_and_over_in_one_attempt() {
    let (streams, log) = log_streams(None, |asked| match asked.is("CreateLogStream") {
        true => ok(json!({})),
        false => error(400, "ResourceNotFoundException"),
    })
    .await;
    let failure = streams.send(0, &entries(&streams, 1)).await.unwrap_err();
    assert_eq!(failure.code, "ResourceNotFoundException");
    assert_eq!(log.operations().len(), 3);
}

#[tokio::test]
async fn an_error_of_the_service_fails_the_attempt_and_is_asked_once() {
    for (status, code, about_content) in [
        (400, "ThrottlingException", false),
        (500, "ServiceUnavailableException", false),
        (400, "AccessDeniedException", false),
        (400, "InvalidParameterException", true),
    ] {
        let (streams, log) = log_streams(None, move |_| error(status, code)).await;
        let failure = streams.send(0, &entries(&streams, 2)).await.unwrap_err();
        assert_eq!((&*failure.code, failure.status), (code, Some(status)));
        assert_eq!(failure.is_about_content(), about_content);
        assert_eq!(
            log.operations(),
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
    let (streams, log) = log_streams(Some(ROLE), |asked| match asked.is("AssumeRole") {
        true => credentials("AKROLE"),
        false => ok(json!({})),
    })
    .await;
    assert!(log.all().is_empty(), "nothing is asked before it is needed");
    for lane in [0, 1] {
        streams.send(lane, &entries(&streams, 1)).await.unwrap();
    }
    assert_eq!(
        log.operations(),
        ["AssumeRole", "PutLogEvents", "PutLogEvents"]
    );
    let [assume, puts @ ..] = &log.all()[..] else {
        unreachable!()
    };
    assert!(assume.is_signed_by("AKBASE"), "{assume:?}");
    assert!(assume.credential.contains("/eu-west-1/sts/"), "{assume:?}");
    assert!(
        assume.body.contains("RoleSessionName=traild&")
            || assume.body.ends_with("RoleSessionName=traild")
    );
    let role = "RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2FCloudTrail_CloudWatchLogs";
    assert!(assume.body.contains(role), "{assume:?}");
    for put in puts {
        assert!(put.is_signed_by("AKROLE"), "{put:?}");
        assert_eq!(put.session_token.as_deref(), Some("token-of-AKROLE"));
    }
}

#[tokio::test]
async fn credentials_that_the_service_calls_expired_are_not_used_again() {
    let assumed = AtomicUsize::new(0);
    let (streams, log) = log_streams(Some(ROLE), move |asked| {
        if asked.is("AssumeRole") {
            credentials(&format!(
                "AKROLE{}",
                assumed.fetch_add(1, Ordering::Relaxed)
            ))
        } else if asked.is_signed_by("AKROLE0") {
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
    assert_eq!(log.operations(), expected);
}

#[tokio::test]
async fn a_role_that_may_not_be_assumed_fails_the_attempt_and_is_asked_for_again() {
    let refusals = AtomicUsize::new(0);
    let (streams, log) = log_streams(Some(ROLE), move |asked| {
        if !asked.is("AssumeRole") {
            ok(json!({}))
        } else if refusals.fetch_add(1, Ordering::Relaxed) == 0 {
            Answer {
                status: 403,
                body: "<ErrorResponse><Error><Code>AccessDenied</Code>\
                       <Message>not your role</Message></Error></ErrorResponse>"
                    .to_owned(),
            }
        } else {
            credentials("AKROLE")
        }
    })
    .await;
    let texts = entries(&streams, 1);
    let failure = streams.send(0, &texts).await.unwrap_err();
    assert!(failure.message.contains("not your role"), "{failure:?}");
    streams.send(0, &texts).await.unwrap();
    assert_eq!(
        log.operations(),
        ["AssumeRole", "AssumeRole", "PutLogEvents"]
    );
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
