//! Uploads to a store whose every answer a test chooses, on the wire.

mod damaged;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::Read;
use std::sync::Mutex;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::batch::Limits;
use crate::deliver::renewing::Renewing;
use crate::deliver::s3::encode::Share;
use crate::deliver::s3::plan::{Now, Plan, Taken};
use crate::deliver::s3::{OnStop, Options, S3Leg};
use crate::deliver::view::{Leg, Metrics, Sink};
use crate::event::Meta;
use crate::ledger::{Entry, TrailState};
use crate::logfile::{Builder, Compressors};
use crate::trail::tests::{event, trail};
use crate::wal::sim::SimDisk;
use crate::wal::{Batch, DiskReserve};

/// What a store is asked: the bucket and key of it, and whether it is conditional.
#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    path: String,
    conditional: bool,
}

impl Asked {
    fn is(&self, method: Method) -> bool {
        self.method == method
    }
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    /// Without `Content-Length`.
    chunked: bool,
}

fn ok(body: impl Into<Vec<u8>>) -> Answer {
    Answer {
        status: 200,
        body: body.into(),
        chunked: false,
    }
}

fn error(status: u16, code: &str) -> Answer {
    error_saying(status, code, "no")
}

fn error_saying(status: u16, code: &str, message: &str) -> Answer {
    Answer {
        status,
        ..ok(format!(
            "<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        ))
    }
}

/// The requests that a store has got.
type Log = Arc<Mutex<Vec<Asked>>>;

/// A store that answers as `answer` says.
async fn store(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Client, Log) {
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
                    body.collect().await.unwrap();
                    let request = Asked {
                        method: head.method,
                        path: head.uri.path().to_owned(),
                        conditional: head.headers.contains_key("if-none-match"),
                    };
                    let answer = answer(&request);
                    asked.lock().unwrap().push(request);
                    let body = Bytes::from(answer.body);
                    let body: BoxBody<Bytes, Infallible> = if answer.chunked {
                        let frame = Ok(Frame::data(body));
                        BoxBody::new(StreamBody::new(futures::stream::iter([frame])))
                    } else {
                        BoxBody::new(Full::new(body))
                    };
                    let response = Response::builder()
                        .status(answer.status)
                        .header("etag", "\"tag\"")
                        .body(body);
                    Ok::<_, Infallible>(response.unwrap())
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (client(endpoint), log)
}

fn client(endpoint: String) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .force_path_style(true)
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

fn open(directory: &str) -> Wal {
    let options = crate::wal::Options {
        directory: std::path::PathBuf::from("/data").join(directory),
        segment_bytes: 1 << 20,
        max_bytes: 8 << 20,
        disk_reserve: DiskReserve::None,
        queue_bytes: 1 << 20,
    };
    let disk = Arc::new(SimDisk::default());
    Wal::open(
        disk,
        options,
        crate::wal::Metrics::default(),
        &mut |_, _| (),
    )
    .unwrap()
    .0
}

const EVENTS: usize = 200;

fn json(n: usize) -> String {
    let second = n % 60;
    let padding = "x".repeat(n);
    format!(
        r#"{{"eventID":"{n}","eventTime":"2026-05-01T00:12:{second:02}Z","padding":"{padding}"}}"#
    )
}

/// The file of one stream's events, compressed at another level than the uploader's.
fn recompressed() -> Vec<u8> {
    file_of(0..EVENTS).gzip
}

/// The file of some of its events.
fn file_of(events: impl IntoIterator<Item = usize>) -> LogFile {
    let compressors = Compressors::new(1).unwrap();
    let mut builder = Builder::with_capacity(0, &compressors).unwrap();
    for n in events {
        builder
            .push(json(n).as_bytes(), 1_777_594_320 + n as i64 % 60)
            .unwrap();
    }
    builder.finish(&compressors).unwrap()
}

fn inflated() -> Vec<u8> {
    let mut bytes = Vec::new();
    let gzip = recompressed();
    flate2::bufread::GzDecoder::new(&*gzip)
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// A journal with `EVENTS` events in each of these regions.
async fn journal(regions: &[&str]) -> Wal {
    journal_without(0, regions).await
}

/// The same, at the same positions, but nothing to be read where the first `lost` events of each region were.
async fn journal_without(lost: usize, regions: &[&str]) -> Wal {
    let journal = open("journal");
    let mut batch = Batch::new();
    for region in regions {
        for n in 0..EVENTS {
            let meta: Meta = event("111122223333", region);
            batch.push_with(|out| {
                let start = out.len();
                meta.encode(out);
                out.extend_from_slice(json(n).as_bytes());
                if n < lost {
                    out[start..].fill(0xff);
                }
            });
        }
    }
    let permit = journal.reserve(batch.bytes()).await.unwrap();
    permit.append(batch).await.unwrap();
    journal
}

fn uploader(journal: &Wal, client: Client, create: bool) -> Uploader {
    let leg = Leg {
        trail: "main".to_owned(),
        sink: Sink::S3,
    };
    Uploader {
        trail: Arc::new(trail()),
        bucket: Bucket::new(
            Renewing::new(client.clone(), move || std::future::ready(client.clone())),
            create,
        ),
        journal: journal.clone(),
        encoding: Arc::new(Encoding::new(Compressors::new(6).unwrap(), 32 << 20)),
        gate: Gate::default(),
        view: LegView::new(leg, Metrics::default()),
    }
}

fn plan() -> Plan {
    let limits = Limits {
        max_age: Duration::ZERO,
        max_bytes: 1 << 20,
    };
    Plan::new(Arc::new(trail()), [7; 16], limits, TrailState::default())
}

fn sealed(journal: &Wal) -> SealedBatch {
    let mut plan = plan();
    let chunk = journal.reader().read(journal.start(), 8 << 20).unwrap();
    for (position, record) in chunk.iter() {
        assert_eq!(plan.take(position, record, Now::read()), Taken::Routed);
    }
    plan.cut_all(Now::read());
    match plan.take_outbox().remove(0) {
        Entry::Sealed(batch) => batch,
        other => panic!("{other:?}"),
    }
}

/// An uploader to a store, and a batch for it.
async fn scene(
    create: bool,
    answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (Uploader, SealedBatch, Log) {
    let (client, log) = store(answer).await;
    let journal = journal(&["us-east-1"]).await;
    let batch = sealed(&journal);
    (uploader(&journal, client, create), batch, log)
}

/// An outcome in a word: where the object is, or what is wanted.
fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Settled(settled) => match &settled.object {
            Some(object) => {
                assert_eq!(object.events as usize, EVENTS);
                format!("in {}", object.bucket)
            }
            None => "lost".to_owned(),
        },
        Outcome::KeyTaken(_) => "another key".to_owned(),
        Outcome::Again(_) => "again".to_owned(),
    }
}

fn count(log: &Log, method: Method) -> usize {
    log.lock()
        .unwrap()
        .iter()
        .filter(|asked| asked.is(method.clone()))
        .count()
}

#[tokio::test]
async fn an_object_that_is_there_already_is_known_by_what_it_holds() {
    let chunked = |body| Answer {
        chunked: true,
        ..ok(body)
    };
    type Get = Box<dyn Fn() -> Answer + Send + Sync>;
    let cases: [(Get, &str); 8] = [
        (Box::new(|| ok(recompressed())), "in audit-logs"),
        (Box::new(move || chunked(recompressed())), "in audit-logs"),
        (Box::new(move || chunked(inflated())), "in audit-logs"),
        (Box::new(|| ok("something else")), "another key"),
        (Box::new(move || chunked(vec![0; 1 << 20])), "another key"),
        (Box::new(|| error(403, "AccessDenied")), "in audit-logs"),
        (Box::new(|| error(404, "NoSuchKey")), "again"),
        (Box::new(|| error(403, "ExpiredToken")), "again"),
    ];
    for (n, (get, expected)) in cases.into_iter().enumerate() {
        let (uploader, batch, log) = scene(false, move |asked| match asked.is(Method::PUT) {
            true => error(412, "PreconditionFailed"),
            false => get(),
        })
        .await;
        let outcome = uploader.deliver(batch).await;
        assert_eq!(word(&outcome), expected, "case {n}");
        assert_eq!((count(&log, Method::PUT), count(&log, Method::GET)), (1, 1));
    }
}

#[tokio::test]
async fn a_store_that_has_every_key_taken_is_asked_ever_more_slowly() {
    let (uploader, batch, _) = scene(false, |asked| match asked.is(Method::PUT) {
        true => error(412, "PreconditionFailed"),
        false => ok("something else"),
    })
    .await;
    let started = Instant::now();
    for attempt in 0..5 {
        let batch = SealedBatch {
            attempt,
            ..batch.clone()
        };
        assert_eq!(word(&uploader.deliver(batch).await), "another key");
    }
    // The first two have no turn yet; then at least half of 0.1, 0.2 and 0.4 s.
    assert!(started.elapsed() >= Duration::from_millis(350));
}

#[tokio::test]
async fn a_batch_in_doubt_is_looked_for_in_the_bucket_that_it_was_sealed_for() {
    type Get = fn() -> Answer;
    let cases: [(Get, &str); 8] = [
        (|| ok(recompressed()), "in former"),
        (|| ok("something else"), "another key"),
        (|| error(404, "NoSuchKey"), "another key"),
        (|| error(404, "NoSuchBucket"), "another key"),
        (|| error(403, "AccessDenied"), "another key"),
        (|| error(301, "PermanentRedirect"), "another key"),
        (|| error(403, "SignatureDoesNotMatch"), "again"),
        (|| error(503, "SlowDown"), "again"),
    ];
    for (get, expected) in cases {
        let (uploader, batch, log) = scene(false, move |asked| {
            assert!(asked.path.starts_with("/former/"), "{asked:?}");
            get()
        })
        .await;
        let batch = SealedBatch {
            bucket: "former".to_owned(),
            ..batch
        };
        let outcome = uploader.deliver(batch).await;
        assert_eq!(word(&outcome), expected);
        assert_eq!((count(&log, Method::PUT), count(&log, Method::GET)), (0, 1));
    }
}

#[tokio::test]
async fn a_missing_bucket_is_made_if_that_is_asked_for() {
    let is_bucket = |asked: &Asked| asked.path.trim_end_matches('/') == "/audit-logs";
    for (create, works, expected, puts) in [
        (true, true, "in audit-logs", 3),
        // It says that the bucket was made, and then that there is none: no reason to go round and round.
        (true, false, "again", 3),
        (false, true, "again", 1),
    ] {
        let made = Mutex::new(false);
        let (uploader, batch, log) = scene(create, move |asked| {
            if is_bucket(asked) {
                *made.lock().unwrap() = works;
                ok("")
            } else if *made.lock().unwrap() {
                ok("")
            } else {
                error(404, "NoSuchBucket")
            }
        })
        .await;
        assert_eq!(word(&uploader.deliver(batch).await), expected);
        assert_eq!(count(&log, Method::PUT), puts);
    }
}

#[tokio::test]
async fn a_store_without_conditional_puts_is_found_out_once() {
    let (uploader, batch, log) = scene(false, |asked| match asked.conditional {
        true => error(501, "NotImplemented"),
        false => ok(""),
    })
    .await;
    for _ in 0..2 {
        let outcome = uploader.deliver(batch.clone()).await;
        assert_eq!(word(&outcome), "in audit-logs");
    }
    let conditional: Vec<_> = log
        .lock()
        .unwrap()
        .iter()
        .map(|asked| asked.conditional)
        .collect();
    assert_eq!(conditional, [true, false, false]);
}

#[tokio::test]
async fn a_store_that_implements_nothing_is_still_asked_with_the_condition() {
    let (uploader, batch, log) = scene(false, |_| error(501, "NotImplemented")).await;
    for _ in 0..2 {
        assert_eq!(word(&uploader.deliver(batch.clone()).await), "again");
    }
    let conditional: Vec<_> = log
        .lock()
        .unwrap()
        .iter()
        .map(|asked| asked.conditional)
        .collect();
    assert_eq!(conditional, [true, false, true, false]);
}

#[tokio::test]
async fn a_failure_is_told_briefly() {
    let long = "much ".repeat(100_000);
    let (uploader, batch, _) = scene(false, move |_| {
        error_saying(400, &"Strange".repeat(100), &long)
    })
    .await;
    assert_eq!(word(&uploader.deliver(batch).await), "again");
    let told = uploader.view.facts().last_error.unwrap();
    assert_eq!(told.code, "Unknown");
    assert_eq!(told.message.len(), 512);
}

#[tokio::test]
async fn batches_that_are_always_refused_stand_in_nobody_s_way() {
    const REFUSED: [&str; 9] = [
        "a-1", "a-2", "a-3", "a-4", "a-5", "a-6", "a-7", "a-8", "a-9",
    ];
    let accepted = ["b-1", "b-2", "b-3"];
    let (client, log) = store(|asked| match asked.path.contains("/a-") {
        true => error(403, "AccessDenied"),
        false => ok(""),
    })
    .await;
    let journal = journal(&[&REFUSED[..], &accepted[..]].concat()).await;
    let uploader = Arc::new(uploader(&journal, client, false));
    let view = uploader.view.clone();
    let (_checkpoints, wanted) = watch::channel(0);
    let options = Options {
        held_bytes: 1 << 20,
        journal_bytes: u64::MAX,
        max_age: Duration::from_secs(60),
        on_stop: watch::channel(OnStop::Leave).1,
    };
    let leg = S3Leg::open(
        plan(),
        &journal,
        open("ledger"),
        uploader,
        options,
        wanted,
        false,
    )
    .await
    .unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(leg.run(stop.clone()));
    let all_that_can = async {
        while view.facts().objects < accepted.len() as u64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_that_can)
        .await
        .expect("the others are delivered");
    stop.cancel();
    task.await.unwrap().unwrap();
    let refused: BTreeSet<_> = log
        .lock()
        .unwrap()
        .iter()
        .filter_map(|asked| {
            REFUSED
                .into_iter()
                .find(|region| asked.path.contains(region))
        })
        .collect();
    assert!(
        refused.len() >= 8,
        "more refusals than uploads at a time: {refused:?}"
    );
    assert_eq!(
        view.facts().pending(),
        (REFUSED.len() * EVENTS) as u64,
        "and they are kept"
    );
}

#[tokio::test]
async fn a_leg_whose_destination_hangs_leaves_room_for_the_others() {
    for (share, others_go_on) in [(4 << 10, true), (1 << 20, false)] {
        let journal = journal(&["us-east-1"]).await;
        let batch = sealed(&journal);
        // Enough to make one file, and a little more.
        let encoding = Encoding::new(Compressors::new(6).unwrap(), 48 << 10);
        let encoding = Arc::new(encoding);
        // Connections wait in its backlog for ever.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent_client = client(format!("http://{}", silent.local_addr().unwrap()));
        let mut hanging = uploader(&journal, silent_client, false);
        hanging.bucket.share = Share::of(share);
        hanging.encoding = encoding.clone();
        let hanging = Arc::new(hanging);
        let mut uploads = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (hanging, batch) = (hanging.clone(), batch.clone());
            uploads.spawn(async move { hanging.deliver(batch).await });
        }
        tokio::time::sleep(Duration::from_millis(300)).await;

        let (healthy_client, _) = store(|_| ok("")).await;
        let mut healthy = uploader(&journal, healthy_client, false);
        healthy.encoding = encoding;
        let outcome = tokio::time::timeout(Duration::from_secs(1), healthy.deliver(batch)).await;
        assert_eq!(outcome.is_ok(), others_go_on, "share of {share}");
    }
}
