use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

struct Running {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// A server that answers with the path: `/panic` panics, `/slow` takes a while, `/never` takes for ever.
    async fn start(limits: Limits) -> Self {
        let listener = Listener::bind_tcp("listen.api", ([127, 0, 0, 1], 0).into())
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, answer, limits, stop.clone()));
        Self {
            address,
            stop,
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn answer(request: Request<Incoming>, peer: Peer) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/panic" => panic!("the handler was asked to"),
        "/slow" => tokio::time::sleep(Duration::from_millis(150)).await,
        "/never" => std::future::pending().await,
        "/large" => return Response::new(Full::new(Bytes::from(vec![0; 64 << 20]))),
        _ => {}
    }
    Response::new(Full::new(Bytes::from(format!(
        "hello {}",
        peer.source_ip()
    ))))
}

/// Everything until the other end closes.
async fn drained(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut out = Vec::new();
    let _ = stream.read_to_end(&mut out).await;
    String::from_utf8(out).unwrap()
}

async fn asked(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    drained(stream).await
}

#[tokio::test]
async fn connections_that_send_no_request_are_closed() {
    let limits = Limits {
        header_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Running::start(limits).await;
    let began = Instant::now();
    let silent = async {
        let mut stream = server.connect().await;
        drained(&mut stream).await
    };
    let half = async {
        let mut stream = server.connect().await;
        asked(&mut stream, b"GET / HTTP/1.1\r\nhost: ").await
    };
    let dripping = async {
        let mut stream = server.connect().await;
        // A byte now and then does not help.
        for byte in GET.iter().cycle() {
            if stream.write_all(&[*byte | 0x20]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let idle = async {
        let mut stream = server.connect().await;
        asked(&mut stream, GET).await
    };
    let (silent, half, (), idle) = tokio::join!(silent, half, dripping, idle);
    assert_eq!(silent, "");
    assert!(!half.contains("200"), "{half}");
    assert!(idle.ends_with("hello 127.0.0.1"), "{idle}");
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(200) && took < Duration::from_secs(5),
        "{took:?}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answer_is_let_go() {
    let limits = Limits {
        connections: 1,
        write_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Running::start(limits).await;
    let mut deaf = server.connect().await;
    deaf.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    // The only place is free again once the server has given up on the first.
    let mut next = server.connect().await;
    let answer = tokio::time::timeout(Duration::from_secs(5), asked(&mut next, CLOSE))
        .await
        .unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
    drop(deaf);
    server.stop().await;
}

#[tokio::test]
async fn over_the_cap_connections_wait_for_their_turn() {
    let server = Running::start(Limits {
        connections: 2,
        ..Limits::default()
    })
    .await;
    let (first, second) = (server.connect().await, server.connect().await);
    // Both have been accepted once both are answered; a third is only in the kernel's queue.
    let mut third = server.connect().await;
    third.write_all(CLOSE).await.unwrap();
    let mut byte = [0];
    let waited = tokio::time::timeout(Duration::from_millis(200), third.read(&mut byte)).await;
    assert!(
        waited.is_err(),
        "the third connection was served: {waited:?}"
    );
    drop(first);
    assert!(drained(&mut third).await.contains("200 OK"));
    drop(second);
    server.stop().await;
}

#[tokio::test]
async fn one_address_gets_its_share_and_no_more() {
    let server = Running::start(Limits {
        connections_per_ip: 2,
        ..Limits::default()
    })
    .await;
    let (mut first, second) = (server.connect().await, server.connect().await);
    let mut third = server.connect().await;
    assert_eq!(drained(&mut third).await, "");
    drop(second);
    // The share comes back once the server has seen the end.
    let mut answered = String::new();
    for _ in 0..100 {
        let mut again = server.connect().await;
        if again.write_all(CLOSE).await.is_ok() {
            answered = drained(&mut again).await;
        }
        if answered.contains("200 OK") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(answered.contains("200 OK"));
    assert!(asked(&mut first, CLOSE).await.contains("200 OK"));
    server.stop().await;
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_drops_those_that_do_not() {
    let server = Running::start(Limits {
        drain: Duration::from_millis(400),
        ..Limits::default()
    })
    .await;
    let (mut idle, mut slow, mut never) = (
        server.connect().await,
        server.connect().await,
        server.connect().await,
    );
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    never
        .write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let address = server.address;
    let began = Instant::now();
    let ((), idle, slow, never) = tokio::join!(
        server.stop(),
        drained(&mut idle),
        drained(&mut slow),
        drained(&mut never)
    );
    assert_eq!(idle, "");
    assert!(slow.contains("200 OK"), "{slow}");
    assert_eq!(never, "");
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(400) && took < Duration::from_secs(2),
        "{took:?}"
    );
    assert!(
        TcpStream::connect(address).await.is_err(),
        "the socket is still open"
    );
}

#[tokio::test]
async fn a_panic_costs_one_connection() {
    let server = Running::start(Limits::default()).await;
    let mut unlucky = server.connect().await;
    assert_eq!(
        asked(&mut unlucky, b"GET /panic HTTP/1.1\r\nhost: x\r\n\r\n").await,
        ""
    );
    let mut next = server.connect().await;
    assert!(asked(&mut next, CLOSE).await.contains("200 OK"));
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_refused() {
    let server = Running::start(Limits {
        header_bytes: 8 << 10,
        ..Limits::default()
    })
    .await;
    let mut stream = server.connect().await;
    let mut head = b"GET / HTTP/1.1\r\nx: ".to_vec();
    head.resize(64 << 10, b'a');
    // The answer may come, and the connection end, before everything is taken.
    let _ = stream.write_all(&head).await;
    let mut out = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut out))
        .await
        .expect("the connection stays open");
    assert!(!String::from_utf8_lossy(&out).contains("200 OK"));
    server.stop().await;
}

#[tokio::test]
async fn a_unix_socket_is_private_replaced_when_stale_and_removed_at_the_end() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("traild.sock");
    // Left behind by a process that died.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Listener::bind_unix("listen.unix", &path).await.unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o660
    );

    let again = Listener::bind_unix("listen.unix", &path).await.unwrap_err();
    assert!(
        matches!(
            again,
            BindError::InUse {
                key: "listen.unix",
                ..
            }
        ),
        "{again}"
    );

    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listener, answer, Limits::default(), stop.clone()));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    assert!(asked(&mut stream, CLOSE).await.ends_with("hello 127.0.0.1"));
    stop.cancel();
    task.await.unwrap();
    assert!(!path.exists());

    std::fs::write(&path, "not a socket").unwrap();
    assert!(Listener::bind_unix("listen.unix", &path).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a socket");
}

#[tokio::test]
async fn an_address_in_use_names_the_key() {
    let taken = Listener::bind_tcp("listen.api", ([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let error = Listener::bind_tcp("listen.ops", taken.local_addr().unwrap())
        .await
        .unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("listen.ops") && told.contains("in use") && told.contains("hint:"),
        "{told}"
    );
}

#[tokio::test]
async fn ops_tells_alive_ready_and_metrics() {
    use super::ops::{Ops, Readiness};
    let (phase, watched) = tokio::sync::watch::channel(Readiness::NotReady("starting".into()));
    let full = Arc::new(Mutex::new(None));
    let (seen, refreshed) = (full.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = refreshed.clone();
    let ops = Ops {
        phase: watched,
        obstacle: Arc::new(move || seen.lock().unwrap().clone()),
        illness: Arc::new(|| None),
        metrics: Arc::new(crate::telemetry::metrics::Registry::new()),
        refresh: Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }),
    };
    let ask = async |path: &str| {
        use http_body_util::BodyExt;
        let answer = ops.answer(&http::Method::GET, path);
        let status = answer.status().as_u16();
        (
            status,
            String::from_utf8(
                answer
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
                    .to_vec(),
            )
            .unwrap(),
        )
    };
    assert_eq!(ask("/livez").await, (200, "ok\n".into()));
    assert_eq!(ask("/readyz").await, (503, "starting\n".into()));
    phase.send(Readiness::Ready).unwrap();
    assert_eq!(ask("/readyz").await.0, 200);
    *full.lock().unwrap() = Some("disk is full".to_owned());
    assert_eq!(ask("/readyz").await, (503, "disk is full\n".into()));
    let (status, metrics) = ask("/metrics").await;
    assert_eq!(status, 200);
    assert!(
        metrics.contains("traild_build_info{version=\"") && metrics.ends_with("# EOF\n"),
        "{metrics}"
    );
    assert!(metrics.contains("traild_ready 0\n"), "{metrics}");
    *full.lock().unwrap() = None;
    assert!(ask("/metrics").await.1.contains("traild_ready 1\n"));
    assert_eq!(refreshed.load(Ordering::SeqCst), 2);
    assert_eq!(ask("/other").await.0, 404);
    assert_eq!(ops.answer(&http::Method::POST, "/livez").status(), 405);
}
