use std::convert::Infallible;
use std::sync::Mutex;

use http::Response;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

use super::*;
use crate::cli::client::Endpoint;

/// A daemon that answers as it is told, and remembers what it was sent.
struct Daemon {
    endpoint: Endpoint,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Daemon {
    async fn answering(
        script: impl Fn(usize, &[u8]) -> Response<Full<Bytes>> + Clone + Send + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp {
            authority: listener.local_addr().unwrap().to_string(),
        };
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let seen = bodies.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, script) = (seen.clone(), script.clone());
                let service = hyper::service::service_fn(
                    move |request: http::Request<hyper::body::Incoming>| {
                        let (seen, script) = (seen.clone(), script.clone());
                        async move {
                            let body = request
                                .into_body()
                                .collect()
                                .await
                                .unwrap()
                                .to_bytes()
                                .to_vec();
                            let mut seen = seen.lock().unwrap();
                            let answer = script(seen.len(), &body);
                            seen.push(body);
                            Ok::<_, Infallible>(answer)
                        }
                    },
                );
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { endpoint, bodies }
    }

    fn sender(&self) -> Sender {
        Sender::new(Client::new(self.endpoint.clone()), ProgressBar::hidden())
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        self.bodies.lock().unwrap().clone()
    }
}

fn answer(status: u16, body: &str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

fn accept_all(body: &[u8]) -> Response<Full<Bytes>> {
    let lines = body.iter().filter(|byte| **byte == b'\n').count();
    answer(
        200,
        &format!(r#"{{"accepted":{lines},"duplicates":0,"rejected":[]}}"#),
    )
}

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

async fn send(daemon: &Daemon, content: &[u8]) -> (Tally, bool) {
    let file = file(content);
    let mut sender = daemon.sender();
    let sent = send_file(file.path(), &mut sender).await.is_ok();
    (sender.tally, sent)
}

fn lines(count: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|n| format!("{{\"eventID\":\"{n}\"}}\n").into_bytes())
        .collect()
}

#[tokio::test]
async fn a_file_is_sent_whole_and_in_order_in_bounded_batches() {
    let daemon = Daemon::answering(|_, body| accept_all(body)).await;
    let content = lines(1234);
    let (tally, sent) = send(&daemon, &content).await;
    assert!(sent);
    assert_eq!((tally.accepted, tally.rejected), (1234, 0));
    let bodies = daemon.bodies();
    assert_eq!(bodies.len(), 3);
    assert_eq!(bodies.concat(), content);

    let big: Vec<u8> = (0..10)
        .flat_map(|n| {
            format!(
                "{{\"eventID\":\"{n}\",\"x\":\"{}\"}}\n",
                "y".repeat(300_000)
            )
            .into_bytes()
        })
        .collect();
    let daemon = Daemon::answering(|_, body| accept_all(body)).await;
    assert_eq!(send(&daemon, &big).await.0.accepted, 10);
    assert!(
        daemon
            .bodies()
            .iter()
            .all(|body| body.len() <= BATCH_BYTES + 1)
    );
    assert_eq!(daemon.bodies().concat(), big);
}

#[tokio::test]
async fn values_that_span_lines_are_sent_as_an_array() {
    let daemon =
        Daemon::answering(|_, _| answer(200, r#"{"accepted":2,"duplicates":0,"rejected":[]}"#))
            .await;
    let (tally, _) = send(
        &daemon,
        b"{\"Records\": [{\"eventID\":\n\"a\"}, {\"eventID\":\"b\"}]}",
    )
    .await;
    assert_eq!(tally.accepted, 2);
    assert_eq!(
        daemon.bodies(),
        [b"[{\"eventID\":\n\"a\"},{\"eventID\":\"b\"}]".to_vec()]
    );
}

#[tokio::test]
async fn a_busy_daemon_gets_the_same_bytes_again() {
    let daemon = Daemon::answering(|number, body| match number {
        0 => answer(
            503,
            r#"{"code":"JournalFull","message":"the journal is full"}"#,
        ),
        1 => answer(500, "oops"),
        _ => accept_all(body),
    })
    .await;
    // Without an eventID, which is given once and stays.
    let (tally, sent) = send(&daemon, b"{\"x\":1}\n").await;
    assert!(sent);
    assert_eq!(tally.accepted, 1);
    let bodies = daemon.bodies();
    assert_eq!(bodies.len(), 3);
    assert!(bodies[0].starts_with(b"{\"eventID\":\""));
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[tokio::test]
async fn refused_events_are_named_by_their_place_in_the_file() {
    let daemon = Daemon::answering(|number, _| {
        let rejected = r#"[{"index":3,"eventID":"e3","code":"InvalidEventTime","message":"no"},{"index":4,"eventID":null,"code":"C","message":"m"}]"#;
        let accepted = if number == 0 { 498 } else { 0 };
        // The body is the same when all were refused, with status 400.
        let status = if number == 0 { 200 } else { 400 };
        answer(status, &format!(r#"{{"accepted":{accepted},"duplicates":0,"rejected":{rejected}}}"#))
    })
    .await;
    let (tally, _) = send(&daemon, &lines(505)).await;
    assert_eq!((tally.accepted, tally.rejected), (498, 4));
    assert!(
        tally.told[0].ends_with("event 3 (e3) was rejected: InvalidEventTime: no"),
        "{:?}",
        tally.told
    );
    assert!(
        tally.told[3].ends_with("event 504 was rejected: C: m"),
        "{:?}",
        tally.told
    );
    assert_eq!(
        tally.summary(1),
        "1 file: 498 accepted, 0 duplicates, 4 rejected"
    );
}

#[tokio::test]
async fn a_body_refused_whole_is_halved_until_the_bad_event_stands_alone() {
    let daemon = Daemon::answering(|_, body| {
        if body.windows(3).any(|window| window == b"\"5\"") {
            answer(413, r#"{"code":"TooLarge","message":"big"}"#)
        } else {
            accept_all(body)
        }
    })
    .await;
    let (tally, sent) = send(&daemon, &lines(9)).await;
    assert!(sent);
    assert_eq!((tally.accepted, tally.rejected), (8, 1));
    assert!(
        tally.told[0].contains("event 5 was rejected: TooLarge: big"),
        "{:?}",
        tally.told
    );
}

#[tokio::test]
async fn what_is_sound_before_the_damage_is_sent() {
    let daemon =
        Daemon::answering(|_, _| answer(200, r#"{"accepted":1,"duplicates":0,"rejected":[]}"#))
            .await;
    let file = file(b"[{\"eventID\":\"a\"},{]");
    let mut sender = daemon.sender();
    let outcome = send_file(file.path(), &mut sender).await;
    assert!(matches!(outcome, Err(Stop::Source(SourceError::Json(_)))));
    assert_eq!(sender.tally.accepted, 1);
}

#[tokio::test]
async fn an_endpoint_that_is_no_traild_ends_the_sending() {
    let daemon = Daemon::answering(|_, _| answer(404, "not found")).await;
    let file = file(&lines(1));
    let outcome = send_file(file.path(), &mut daemon.sender()).await;
    assert!(matches!(
        outcome,
        Err(Stop::Failure(Failure::Failed { hint: Some(_), .. }))
    ));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_nobody_listens_on_is_given_up_soon() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let file = file(&lines(1));
    let mut sender = Sender::new(
        Client::new(Endpoint::Tcp {
            authority: free.to_string(),
        }),
        ProgressBar::hidden(),
    );
    sender.started = Instant::now().checked_sub(REACH_PATIENCE).unwrap();
    let Err(Stop::Failure(Failure::Failed { error, .. })) =
        send_file(file.path(), &mut sender).await
    else {
        panic!("it was sent")
    };
    assert!(
        format!("{error:#}").starts_with(&format!("cannot reach http://{free}: ")),
        "{error:#}"
    );
}
