//! What the daemon is held against, on the same bytes and the same disk: bare compression and bare durable writes.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::work::Work;

/// What a log file may hold, uncompressed.
pub const MAX_FILE_BYTES: usize = 50 << 20;

/// CPU seconds of libdeflate at `level` over the work cut into log files, one core.
pub fn deflate_seconds(work: &Work, level: i32) -> Result<f64> {
    let level = libdeflater::CompressionLvl::new(level)
        .ok()
        .context("no such compression level")?;
    let mut compressor = libdeflater::Compressor::new(level);
    let mut seconds = 0.0;
    let mut out = Vec::new();
    for file in work.files(MAX_FILE_BYTES) {
        out.resize(compressor.gzip_compress_bound(file.len()), 0);
        let before = thread_cpu_seconds()?;
        let written = compressor
            .gzip_compress(&file, &mut out)
            .context("libdeflate refused")?;
        seconds += thread_cpu_seconds()? - before;
        ensure!(written > 0, "libdeflate wrote nothing");
    }
    Ok(seconds)
}

/// Bytes that `gzip -6` makes of the work cut into log files.
pub fn gzip_bytes(work: &Work) -> Result<u64> {
    let mut total = 0;
    for file in work.files(MAX_FILE_BYTES) {
        let mut child = Command::new("gzip")
            .args(["-6", "-n", "-c"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run gzip")?;
        let mut stdin = child.stdin.take().context("gzip without stdin")?;
        let mut stdout = child.stdout.take().context("gzip without stdout")?;
        std::thread::scope(|scope| -> Result<()> {
            let writer = scope.spawn(move || stdin.write_all(&file));
            let mut out = Vec::new();
            stdout.read_to_end(&mut out)?;
            total += out.len() as u64;
            writer.join().expect("the writer does not panic")?;
            Ok(())
        })?;
        ensure!(child.wait()?.success(), "gzip failed");
    }
    Ok(total)
}

/// Times of one write and one fdatasync for each body, sorted.
pub fn durable_writes(folder: &Path, bodies: &[Vec<u8>]) -> Result<Vec<Duration>> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("bare-writes");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::with_capacity(bodies.len());
    for body in bodies {
        let began = Instant::now();
        file.write_all(body)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times)
}

fn thread_cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text
        .split(' ')
        .next()
        .context("schedstat is empty")?
        .parse::<f64>()?
        / 1e9)
}
