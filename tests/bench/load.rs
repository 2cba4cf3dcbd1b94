//! The clients: kept connections that post bodies, as fast as they are answered or at a given rate.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

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

/// Posts each body once, over all connections together; every event must be accepted.
pub fn post(
    to: SocketAddr,
    bodies: &[Vec<u8>],
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
            let Some(body) = bodies.get(number) else {
                return Ok(latencies);
            };
            let mut due = Instant::now();
            if let Some(rate) = bodies_per_second {
                due = began + Duration::from_secs_f64(number as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            connection.post(body)?;
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

    fn post(&mut self, body: &[u8]) -> Result<()> {
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.writer.write_all(head.as_bytes())?;
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
