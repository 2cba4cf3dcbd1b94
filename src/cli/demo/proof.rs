//! The proof, shown: `traild verify` on what was delivered, and on the same with one byte changed.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use tokio::process::Command;

use super::{PATIENCE, Place};
use crate::daemon::DEFAULT_TRAIL;
use crate::digest::{Digest, DigestKey};

/// Waits until digests name all these log files, has the bucket verified, changes one byte of a log file, has that refused, and puts the
/// byte back.
pub async fn show(client: &Client, place: Place, log_files: &[&str]) -> anyhow::Result<()> {
    wait_for(client, log_files).await?;
    eprintln!("\nverifying the bucket: {}", command(place));
    let (is_valid, text) = verify(place).await?;
    print!("{text}");
    if !is_valid {
        bail!("the chain of digests does not verify");
    }
    let Some(key) = log_files.first() else {
        return Ok(());
    };
    let original = get(client, key).await?;
    put(client, key, changed(&original)?).await?;
    eprintln!("\none byte of {key} is changed; verifying again:");
    let outcome = verify(place).await;
    put(client, key, original).await?;
    let (is_valid, text) = outcome?;
    print!("{text}");
    if is_valid {
        bail!("a changed byte was not noticed");
    }
    eprintln!("\nrefused, as it must be; the byte is put back");
    Ok(())
}

/// What a person would type.
pub fn command(place: Place) -> String {
    let environment: Vec<_> = environment(place)
        .map(|(name, value)| format!("{name}={value}"))
        .into();
    format!(
        "{} traild verify --bucket {}",
        environment.join(" "),
        DEFAULT_TRAIL.1
    )
}

fn environment(place: Place) -> [(&'static str, String); 5] {
    let Place { api, store } = place;
    [
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
        ("AWS_ENDPOINT_URL_CLOUDTRAIL", format!("http://{api}")),
        ("AWS_ENDPOINT_URL_S3", format!("http://{store}")),
    ]
}

/// Whether this very program finds the bucket in order, and what it says.
async fn verify(place: Place) -> anyhow::Result<(bool, String)> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = Command::new(program);
    command
        .args(["verify", "--bucket", DEFAULT_TRAIL.1])
        .envs(environment(place))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let output = command.output().await.context("cannot run traild verify")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.success(), text))
}

/// Until each of these log files is in a digest that is in the bucket, or patience is over.
async fn wait_for(client: &Client, log_files: &[&str]) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut named = BTreeSet::new();
    let mut read = BTreeSet::new();
    loop {
        let mut pages = client
            .list_objects_v2()
            .bucket(DEFAULT_TRAIL.1)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = page.context("cannot list the bucket")?;
            let keys = page.contents().iter().filter_map(|object| object.key());
            for key in keys.filter(|key| DigestKey::parse(key).is_some()) {
                if read.insert(key.to_owned()) {
                    let json = inflated(&get(client, key).await?)?;
                    let digest = Digest::read(&json).context("cannot read a digest")?;
                    named.extend(digest.files.into_iter().map(|file| file.location.key));
                }
            }
        }
        let missing = log_files.iter().filter(|key| !named.contains(**key));
        let missing = missing.count();
        if missing == 0 {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            bail!("{missing} log files are in no digest after {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn get(client: &Client, key: &str) -> anyhow::Result<Bytes> {
    let get = client.get_object().bucket(DEFAULT_TRAIL.1).key(key);
    let object = get.send().await.context("cannot read an object")?;
    Ok(object.body.collect().await?.into_bytes())
}

async fn put(client: &Client, key: &str, gzip: Bytes) -> anyhow::Result<()> {
    let put = client
        .put_object()
        .bucket(DEFAULT_TRAIL.1)
        .key(key)
        .content_type("application/json")
        .content_encoding("gzip")
        .body(ByteStream::from(gzip));
    put.send().await.context("cannot write an object")?;
    Ok(())
}

fn inflated(gzip: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut json = Vec::new();
    GzDecoder::new(gzip)
        .read_to_end(&mut json)
        .context("object is not gzip")?;
    Ok(json)
}

/// The same log file with one byte of an event changed.
fn changed(gzip: &[u8]) -> anyhow::Result<Bytes> {
    let mut json = inflated(gzip)?;
    let middle = json.len() / 2;
    let letter = json[middle..]
        .iter_mut()
        .find(|byte| byte.is_ascii_lowercase());
    match letter {
        Some(letter) => *letter = if *letter == b'x' { b'y' } else { b'x' },
        None => bail!("there is nothing to change"),
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&json)?;
    Ok(encoder.finish()?.into())
}
