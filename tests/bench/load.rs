//! The clients: kept connections that post bodies, as fast as they are answered or at a given rate.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use traild::auth::sigv4::Signer;
use traild::clock::WallMillis;

/// A body with the head that it is posted behind, made before the clock runs.
pub struct Post<'a> {
    head: Vec<u8>,
    body: &'a [u8],
}

/// The requests that carry `bodies`, signed if there is whom to sign for; a signature is good for fifteen minutes.
pub fn prepare<'a>(bodies: &'a [Vec<u8>], signer: Option<&Signer>) -> Result<Vec<Post<'a>>> {
    let one = |body: &'a Vec<u8>| {
        let request = http::Request::post("/v1/events")
            .header("host", "bench")
            .header("content-type", "application/x-ndjson")
            .header("content-length", body.len());
        let (mut parts, ()) = request.body(())?.into_parts();
        if let Some(signer) = signer {
            signer.sign(&mut parts, body, WallMillis::now())?;
        }
        let mut head = b"POST /v1/events HTTP/1.1\r\n".to_vec();
        for (name, value) in &parts.headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        Ok(Post { head, body })
    };
    bodies.iter().map(one).collect()
}

pub struct Outcome {
    /// From the first post to the last answer.
    pub took: Duration,
    /// Sorted. At a given rate they count from when the request was due, so that a stall shows in all it held up.
    pub latencies: Vec<Duration>,
}

impl Outcome {
    pub fn percentile(&self, percent: usize) -> Duration {
        percentile(&self.latencies, percent)
    }
}

pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Posts each of `posts` once, over all connections together; every event must be accepted.
pub fn post(
    to: SocketAddr,
    posts: &[Post<'_>],
    connections: usize,
    bodies_per_second: Option<f64>,
) -> Result<Outcome> {
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let client = || -> Result<Vec<Duration>> {
        let mut connection = Connection::open(to)?;
        let mut latencies = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(post) = posts.get(number) else {
                return Ok(latencies);
            };
            let mut due = Instant::now();
            if let Some(rate) = bodies_per_second {
                due = began + Duration::from_secs_f64(number as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            connection.post(post)?;
            latencies.push(due.elapsed());
        }
    };
    let all: Result<Vec<Vec<Duration>>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..connections).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client does not panic"))
            .collect()
    });
    let took = began.elapsed();
    let mut latencies = all?.concat();
    latencies.sort_unstable();
    Ok(Outcome { took, latencies })
}

struct Connection {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn open(to: SocketAddr) -> Result<Self> {
        let writer = TcpStream::connect(to).context("cannot connect to traild")?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            reader: BufReader::new(writer.try_clone()?),
            writer,
        })
    }

    fn post(&mut self, post: &Post<'_>) -> Result<()> {
        let Post { head, body } = post;
        self.writer.write_all(head)?;
        self.writer.write_all(body)?;
        let mut status = String::new();
        self.reader.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            if line.trim_end().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.reader.read_exact(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(
            status.starts_with("HTTP/1.1 200"),
            "answered {} {answer}",
            status.trim_end()
        );
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        let events = memchr::memchr_iter(b'\n', body).count();
        ensure!(
            answer["accepted"] == events,
            "of {events} events not all were accepted: {answer}"
        );
        Ok(())
    }
}
