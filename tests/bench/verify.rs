//! How fast a chain is verified: `traild verify` with 1, 4 and 8 readers, held against one reader that only downloads and hashes.
//!
//! ```text
//! cargo bench --bench verify                                    a year of hours at once, over loopback
//! cargo bench --bench verify -- --latency-ms 5                  every request takes 5 ms longer, as over a network
//! cargo bench --bench verify -- --files-per-digest 4 --file-kib 256
//! ```
//!
//! The store is the embedded one, in a process of its own; with `--latency-ms` it is behind a forwarder that holds each request back. Turns alternate between all competitors;
//! printed are medians and ratios. On few cores and without latency, all there is to share between readers is the processor, of which the
//! store takes its part. No target is enforced here.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use clap::Parser;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use traild::digest::keys::PublicKey;
use traild::digest::sign::{KeyPair, string_to_sign};
use traild::digest::{Chain, Digest, File, Kind, Location, Sha256, Signed, moment};
use traild::store::Store;

const BUCKET: &str = "audit";
const HOUR: i64 = 3600;
/// 2026-01-01T00:00:00Z
const START: i64 = 1_767_225_600;

#[derive(Parser)]
struct Args {
    /// Digests in the chain
    #[arg(long, default_value_t = 300)]
    digests: i64,
    #[arg(long, default_value_t = 4)]
    files_per_digest: i64,
    /// Of a log file, uncompressed
    #[arg(long, default_value_t = 64)]
    file_kib: usize,
    /// How long each request is held back
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Serve a store and nothing else: what this program starts itself
    #[arg(long, hide = true)]
    serve: Option<std::path::PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    if let Some(directory) = &args.serve {
        return runtime.block_on(serve(directory));
    }
    let folder = tempfile::tempdir()?;
    let mut store = Command::new(std::env::current_exe()?)
        .arg("--serve")
        .arg(folder.path().join("store"))
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let outcome = measure(&args, folder.path(), &mut store, &runtime);
    store.kill()?;
    store.wait()?;
    outcome
}

/// Prints the address, and serves until killed.
async fn serve(directory: &Path) -> Result<()> {
    let store = Store::open(directory.to_owned())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    traild::store::serve(store, listener, tokio_util::sync::CancellationToken::new()).await;
    Ok(())
}

fn measure(
    args: &Args,
    folder: &Path,
    store: &mut std::process::Child,
    runtime: &tokio::runtime::Runtime,
) -> Result<()> {
    let mut line = String::new();
    let stdout = store.stdout.take().context("the store has no stdout")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    let upstream: SocketAddr = line.trim().parse()?;
    let address = match args.latency_ms {
        0 => upstream,
        latency => runtime.block_on(forwarder(upstream, Duration::from_millis(latency)))?,
    };
    let direct = client(upstream);
    let keys = folder.join("keys.json");
    let places = runtime.block_on(fill(args, &direct, &keys))?;
    let objects = places.len();
    let distant = client(address);
    println!(
        "{objects} objects, log files of {} KiB, requests held back {} ms, {} cores, {} turns",
        args.file_kib,
        args.latency_ms,
        std::thread::available_parallelism()?,
        args.turns,
    );
    let readers = [1, 4, 8, 16];
    let mut download = Vec::new();
    let mut verify = readers.map(|_| Vec::new());
    let mut processor = readers.map(|_| Vec::new());
    let mut of_store = Vec::new();
    for _ in 0..args.turns {
        let began = Instant::now();
        runtime.block_on(download_and_hash(&distant, &places))?;
        download.push(objects as f64 / began.elapsed().as_secs_f64());
        for (index, readers) in readers.into_iter().enumerate() {
            let (began, own, theirs) = (Instant::now(), ended()?, ticks(store.id())?);
            run_verify(args, address, &keys, readers, objects)?;
            verify[index].push(objects as f64 / began.elapsed().as_secs_f64());
            processor[index].push(per_object(ended()? - own, objects));
            of_store.push(per_object(ticks(store.id())? - theirs, objects));
        }
    }
    let base = median(&mut download);
    println!("one reader that downloads and hashes: {base:>8.0} objects/s");
    for (index, readers) in readers.into_iter().enumerate() {
        let speed = median(&mut verify[index]);
        let (ratio, processor) = (speed / base, median(&mut processor[index]));
        println!(
            "traild verify --readers {readers:<2}:           {speed:>8.0} objects/s  {ratio:.2} x, \
             {processor:.2} ms of the processor an object"
        );
    }
    let of_store = median(&mut of_store);
    println!("the store takes {of_store:.2} ms of the processor an object");
    Ok(())
}

/// Time on the processor of the programs that were started and have ended, in hundredths of a second.
fn ended() -> Result<u64> {
    fields("self", [15, 16])
}

/// And of one that runs.
fn ticks(process: u32) -> Result<u64> {
    fields(&process.to_string(), [13, 14])
}

/// The sum of two fields of `/proc/<pid>/stat`, counted from 0.
fn fields(process: &str, wanted: [usize; 2]) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may hold anything; two fields end with it.
    let (_, rest) = text.rsplit_once(") ").context("not a stat file")?;
    let values: Vec<&str> = rest.split(' ').collect();
    Ok(values[wanted[0] - 2].parse::<u64>()? + values[wanted[1] - 2].parse::<u64>()?)
}

fn per_object(ticks: u64, objects: usize) -> f64 {
    ticks as f64 * 10.0 / objects as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn client(address: SocketAddr) -> aws_sdk_s3::Client {
    let options = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(format!("http://{address}"))
        .force_path_style(true)
        .credentials_provider(Credentials::new("test", "test", None, None, "bench"));
    aws_sdk_s3::Client::from_conf(options.build())
}

/// Passes connections on; what a client sends is held back, which is once for a request without a body.
async fn forwarder(upstream: SocketAddr, latency: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(forward(client, upstream, latency));
        }
    });
    Ok(address)
}

async fn forward(client: TcpStream, upstream: SocketAddr, latency: Duration) -> Result<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let read = from_client.read(&mut piece).await?;
            if read == 0 {
                return to_server.shutdown().await;
            }
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            to_server.write_all(&piece[..read]).await?;
        }
    };
    tokio::try_join!(requests, async {
        copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    })?;
    Ok(())
}

fn chain() -> Result<Chain> {
    Ok(Chain {
        prefix: String::new(),
        organization_id: None,
        account: "111122223333".parse()?,
        source_region: "eu-west-1".parse()?,
        trail: "mytrail".parse()?,
        home_region: "eu-west-1".parse()?,
    })
}

fn gzip(plain: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(plain)?;
    Ok(encoder.finish()?)
}

/// Puts a chain into the bucket and its key into a file. Gives all its objects, digests and log files.
async fn fill(args: &Args, s3: &aws_sdk_s3::Client, keys: &Path) -> Result<Vec<Location>> {
    s3.create_bucket().bucket(BUCKET).send().await?;
    let pair = KeyPair::generate()?;
    let chain = chain()?;
    let end_of = |digest: i64| START + digest * HOUR;
    let key = PublicKey::new(pair.public_key().to_vec(), START, end_of(args.digests + 1));
    std::fs::write(keys, serde_json::to_vec(&[key])?)?;
    let mut places = Vec::new();
    let mut previous = None;
    for number in 1..=args.digests {
        let end = end_of(number);
        let mut files = Vec::new();
        for file in 0..args.files_per_digest {
            let plain = log_file(args.file_kib * 1024, end - 1800, number * 1000 + file);
            let stamp = moment::stamp(end - 1800);
            let (year, month, day) = (&stamp[..4], &stamp[4..6], &stamp[6..8]);
            let location = Location {
                bucket: BUCKET.to_owned(),
                key: format!(
                    "AWSLogs/111122223333/CloudTrail/eu-west-1/{year}/{month}/{day}/111122223333_CloudTrail_eu-west-1_{}Z_{file:016}.json.gz",
                    &stamp[..13]
                ),
            };
            put(s3, &location, gzip(&plain)?, Vec::new()).await?;
            files.push(File {
                location: location.clone(),
                sha256: Sha256::of(&plain),
                newest: end - 1800,
                oldest: end - 1800,
            });
            places.push(location);
        }
        let location = Location {
            bucket: BUCKET.to_owned(),
            key: chain.key(end, Kind::Standard),
        };
        let digest = Digest {
            account: chain.account,
            start: end - HOUR,
            end,
            location: location.clone(),
            fingerprint: pair.fingerprint(),
            previous: previous.take(),
            files,
        };
        let json = digest.to_json();
        let sha256 = Sha256::of(&json);
        let signature = pair.sign(&string_to_sign(&digest, &sha256))?;
        let signed = Signed {
            json,
            sha256,
            signature,
        };
        put(s3, &location, gzip(&signed.json)?, signed.metadata(None)).await?;
        previous = Some(signed.as_previous(location.clone()));
        places.push(location);
    }
    Ok(places)
}

/// Of about this many bytes, like CloudTrail's events in how it compresses.
fn log_file(bytes: usize, time: i64, seed: i64) -> Vec<u8> {
    let time = moment::text(time);
    let mut text = String::from("{\"Records\":[");
    let mut state = seed as u64;
    while text.len() < bytes {
        if !text.ends_with('[') {
            text.push(',');
        }
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state
        };
        let (id, address, object) = (random(), random() >> 40, random());
        text.push_str(&format!(
            r#"{{"eventVersion":"1.11","userIdentity":{{"type":"AssumedRole","principalId":"AROAEXAMPLE:{address}","arn":"arn:aws:sts::111122223333:assumed-role/app/{address}","accountId":"111122223333"}},"eventTime":"{time}","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"eu-west-1","sourceIPAddress":"10.{}.{}.{}","userAgent":"[aws-sdk-rust/1.3 os/linux lang/rust]","requestParameters":{{"bucketName":"data","key":"objects/{object:016x}"}},"responseElements":null,"requestID":"{id:016x}","eventID":"{object:08x}-{id:016x}","readOnly":true,"eventType":"AwsApiCall","managementEvent":false,"recipientAccountId":"111122223333","eventCategory":"Data"}}"#,
            address & 255, (address >> 8) & 255, (address >> 16) & 255
        ));
    }
    text.push_str("]}");
    text.into_bytes()
}

async fn put(
    s3: &aws_sdk_s3::Client,
    location: &Location,
    bytes: Vec<u8>,
    metadata: Vec<(&'static str, String)>,
) -> Result<()> {
    let mut request = s3.put_object().bucket(&location.bucket).key(&location.key);
    for (name, value) in metadata {
        request = request.metadata(name, value);
    }
    request.body(ByteStream::from(bytes)).send().await?;
    Ok(())
}

/// The least that any validator does: every object once, inflated and hashed.
async fn download_and_hash(s3: &aws_sdk_s3::Client, places: &[Location]) -> Result<()> {
    for Location { bucket, key } in places {
        let answer = s3.get_object().bucket(bucket).key(key).send().await?;
        let packed = answer.body.collect().await?.into_bytes();
        let mut plain = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut plain)?;
        std::hint::black_box(Sha256::of(&plain));
    }
    Ok(())
}

fn run_verify(
    args: &Args,
    address: SocketAddr,
    keys: &Path,
    readers: usize,
    objects: usize,
) -> Result<()> {
    let end = moment::text(START + args.digests * HOUR);
    let answer = Command::new(env!("CARGO_BIN_EXE_traild"))
        .args(["verify", "--bucket", BUCKET, "--json", "--end", &end])
        .args(["--readers", &readers.to_string(), "--public-keys"])
        .arg(keys)
        .env("AWS_ENDPOINT_URL_S3", format!("http://{address}"))
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "us-east-1")
        .output()?;
    let said = String::from_utf8_lossy(&answer.stdout);
    ensure!(
        answer.status.success(),
        "it did not verify: {said}{}",
        String::from_utf8_lossy(&answer.stderr)
    );
    let json: serde_json::Value = serde_json::from_slice(&answer.stdout)?;
    let valid = |what: &str| json["summary"][what]["valid"].as_u64().unwrap_or(0);
    let checked = valid("digests") + valid("logFiles");
    ensure!(
        checked == objects as u64,
        "it checked {checked} objects of {objects}"
    );
    Ok(())
}
