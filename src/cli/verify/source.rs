//! Where digests and log files are read: S3, or a directory that a bucket was copied to.
//!
//! An object that is not there is an answer. Whatever else goes wrong is an error: what could not be read is neither valid nor
//! invalid.
//!
//! A copy, as `aws s3 sync s3://<bucket> <dir>` makes it, has the objects' bytes below their keys, and their `LastModified` as the
//! files' times. It does not have their metadata, which is where signatures are. They may lie beside an object, in
//! `<key>.metadata.json`, as `aws s3api head-object` prints them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use aws_config::{Region, SdkConfig};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use crate::clock::WallMillis;
use crate::digest::verify::Metadata;
use crate::digest::{Location, sign};
use crate::event::time::parse_rfc3339;

const SIDE_FILE: &str = ".metadata.json";

/// From a copy, a file is read in pieces of this many bytes.
const PIECE_BYTES: usize = 128 * 1024;

#[derive(Clone)]
pub enum Source {
    S3(Arc<S3>),
    Copy(Arc<Copied>),
    #[cfg(test)]
    Memory(Arc<super::tests::Memory>),
}

/// Why nothing is read in a bucket: there is none of that name.
#[derive(Debug, thiserror::Error)]
#[error("there is no bucket {0}")]
pub struct NoBucket(pub String);

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    /// Seconds since 1970, when the store says so.
    pub last_modified: Option<i64>,
}

/// An object that is being read.
pub struct Object {
    /// Nothing in a copy without a side file.
    pub metadata: Option<Metadata>,
    pub body: Body,
}

pub enum Body {
    S3(ByteStream),
    File(tokio::fs::File),
    #[cfg(test)]
    Memory(Option<Bytes>),
}

impl Body {
    /// The next piece, of any size; nothing after the last.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        match self {
            Self::S3(stream) => Ok(stream.next().await.transpose()?),
            Self::File(file) => {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                let read = file.read_buf(&mut piece).await?;
                Ok((read > 0).then(|| piece.into()))
            }
            #[cfg(test)]
            Self::Memory(bytes) => Ok(bytes.take()),
        }
    }
}

impl Source {
    /// The object, or nothing when there is none, or not even its bucket.
    pub async fn get(&self, location: &Location) -> anyhow::Result<Option<Object>> {
        let found = match self {
            Self::S3(s3) => s3.get(location).await,
            Self::Copy(copy) => copy.get(location).await,
            #[cfg(test)]
            Self::Memory(memory) => memory.get(location),
        };
        if matches!(&found, Err(error) if error.is::<NoBucket>()) {
            return Ok(None);
        }
        found.with_context(|| format!("cannot read {location}"))
    }

    /// Hands out the objects below `prefix` in the order of their keys, from `from` on, in pages, until `take` breaks. Fails with
    /// [`NoBucket`] when there is no such bucket.
    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        from: &str,
        take: impl FnMut(Vec<Listed>) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::S3(s3) => s3.list(bucket, prefix, from, take).await,
            Self::Copy(copy) => copy.list(bucket, prefix, from, take).await,
            #[cfg(test)]
            Self::Memory(memory) => memory.list(bucket, prefix, from, take),
        }
        .with_context(|| format!("cannot list s3://{bucket}/{prefix}"))
    }

    /// The names of the folders in the folder `prefix`, which ends with a slash or is empty.
    pub async fn folders(&self, bucket: &str, prefix: &str) -> anyhow::Result<BTreeSet<String>> {
        match self {
            Self::S3(s3) => s3.folders(bucket, prefix).await,
            Self::Copy(copy) => copy.folders(bucket, prefix).await,
            #[cfg(test)]
            Self::Memory(memory) => memory.folders(bucket, prefix),
        }
        .with_context(|| format!("cannot list s3://{bucket}/{prefix}"))
    }

    /// Whether an object's metadata may be missing although the object is as it was.
    pub fn is_copy(&self) -> bool {
        matches!(self, Self::Copy(_))
    }
}

/// S3, by the SDK's own configuration. A bucket is asked in its own region, as the AWS CLI does.
pub struct S3 {
    sdk: SdkConfig,
    clients: tokio::sync::Mutex<HashMap<String, aws_sdk_s3::Client>>,
}

impl S3 {
    pub fn new(sdk: SdkConfig) -> Self {
        Self {
            sdk,
            clients: tokio::sync::Mutex::default(),
        }
    }

    fn client_in(&self, region: Option<String>) -> aws_sdk_s3::Client {
        // Any endpoint understands it, and one of one's own often nothing else.
        let options = aws_sdk_s3::config::Builder::from(&self.sdk).force_path_style(true);
        let options = match region {
            Some(region) => options.region(Region::new(region)),
            None => options,
        };
        aws_sdk_s3::Client::from_conf(options.build())
    }

    async fn client(&self, bucket: &str) -> anyhow::Result<aws_sdk_s3::Client> {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(bucket) {
            return Ok(client.clone());
        }
        let anywhere = self.client_in(None);
        let region = match anywhere.get_bucket_location().bucket(bucket).send().await {
            // S3 has no name for its first region.
            Ok(answer) => Some(match answer.location_constraint() {
                Some(region) if !region.as_str().is_empty() => region.as_str().to_owned(),
                _ => "us-east-1".to_owned(),
            }),
            // Not everybody who may read objects may ask.
            Err(error)
                if error
                    .raw_response()
                    .is_some_and(|it| it.status().as_u16() == 403) =>
            {
                None
            }
            Err(error) if error.code() == Some("NoSuchBucket") => {
                return Err(NoBucket(bucket.to_owned()).into());
            }
            Err(error) => {
                let error = anyhow!(error.into_service_error());
                return Err(error.context(format!("cannot ask for the region of bucket {bucket}")));
            }
        };
        let client = self.client_in(region);
        clients.insert(bucket.to_owned(), client.clone());
        Ok(client)
    }

    async fn get(&self, location: &Location) -> anyhow::Result<Option<Object>> {
        let Location { bucket, key } = location;
        let client = self.client(bucket).await?;
        let answer = client.get_object().bucket(bucket).key(key).send().await;
        let answer = match answer.map_err(|error| error.into_service_error()) {
            Ok(answer) => answer,
            Err(GetObjectError::NoSuchKey(_)) => return Ok(None),
            Err(error) => return Err(anyhow!(error)),
        };
        Ok(Some(Object {
            metadata: Some(metadata(answer.metadata.unwrap_or_default())),
            body: Body::S3(answer.body),
        }))
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        from: &str,
        mut take: impl FnMut(Vec<Listed>) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        let client = self.client(bucket).await?;
        let request = client.list_objects_v2().bucket(bucket).prefix(prefix);
        let request = if from.is_empty() {
            request
        } else {
            request.start_after(from)
        };
        let mut pages = request.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| anyhow!(error.into_service_error()))?;
            let listed = page.contents.unwrap_or_default().into_iter();
            let listed = listed.filter_map(|object| {
                let last_modified = object.last_modified.map(|when| when.secs());
                let key = object.key?;
                (key.as_str() > from).then_some(Listed { key, last_modified })
            });
            if take(listed.collect()).is_break() {
                break;
            }
        }
        Ok(())
    }

    async fn folders(&self, bucket: &str, prefix: &str) -> anyhow::Result<BTreeSet<String>> {
        let client = self.client(bucket).await?;
        let request = client.list_objects_v2().bucket(bucket).prefix(prefix);
        let mut pages = request.delimiter("/").into_paginator().send();
        let mut folders = BTreeSet::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| anyhow!(error.into_service_error()))?;
            let grouped = page.common_prefixes().iter().filter_map(|it| it.prefix());
            // Not every store knows how to group.
            let single = page.contents().iter().filter_map(|it| it.key());
            folders.extend(grouped.chain(single).filter_map(|key| folder(prefix, key)));
        }
        Ok(folders)
    }
}

/// The folder of `prefix` that the key is in.
pub fn folder(prefix: &str, key: &str) -> Option<String> {
    let (folder, _) = key.strip_prefix(prefix)?.split_once('/')?;
    Some(folder.to_owned())
}

fn metadata(mut given: HashMap<String, String>) -> Metadata {
    Metadata {
        signature: given.remove(sign::SIGNATURE_METADATA),
        signature_algorithm: given.remove(sign::ALGORITHM_METADATA),
        backfill_generation_timestamp: given.remove(sign::BACKFILL_METADATA),
    }
}

/// A directory that one bucket was copied to.
pub struct Copied {
    pub bucket: String,
    pub directory: PathBuf,
}

/// What `aws s3api head-object` prints, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Head {
    #[serde(default)]
    metadata: HashMap<String, String>,
    #[serde(default)]
    last_modified: Option<String>,
}

impl Copied {
    fn only_this(&self, bucket: &str) -> anyhow::Result<()> {
        if bucket != self.bucket {
            bail!(
                "{} is a copy of bucket {} alone",
                self.directory.display(),
                self.bucket
            );
        }
        Ok(())
    }

    /// Where the object is; nothing when its key leads out of the copy.
    fn path(&self, key: &str) -> Option<PathBuf> {
        let below = Path::new(key);
        let is_plain = |part| matches!(part, Component::Normal(_));
        below
            .components()
            .all(is_plain)
            .then(|| self.directory.join(below))
    }

    async fn get(&self, location: &Location) -> anyhow::Result<Option<Object>> {
        self.only_this(&location.bucket)?;
        let Some(path) = self.path(&location.key) else {
            return Ok(None);
        };
        let file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) if is_absence(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let head = read_side_file(&path)?;
        Ok(Some(Object {
            metadata: head.map(|head| metadata(head.metadata)),
            body: Body::File(file),
        }))
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        from: &str,
        mut take: impl FnMut(Vec<Listed>) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        self.only_this(bucket)?;
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let Some(directory) = self.path(folder) else {
            return Ok(());
        };
        let mut found = BTreeMap::new();
        walk(&directory, &self.directory, &mut found)?;
        let listed = found.iter().filter(|(key, _)| {
            key.starts_with(prefix) && key.as_str() > from && !is_side_file(key, &found)
        });
        let listed = listed.map(|(key, last_modified)| Listed {
            key: key.clone(),
            last_modified: *last_modified,
        });
        let _ = take(listed.collect());
        Ok(())
    }

    async fn folders(&self, bucket: &str, prefix: &str) -> anyhow::Result<BTreeSet<String>> {
        self.only_this(bucket)?;
        let mut folders = BTreeSet::new();
        let Some(directory) = self.path(prefix.trim_end_matches('/')) else {
            return Ok(folders);
        };
        for entry in entries(&directory)? {
            let entry = entry?;
            if entry.path().is_dir() {
                folders.extend(entry.file_name().into_string().ok());
            }
        }
        Ok(folders)
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn entries(directory: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if is_absence(&error) => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}

/// The keys of all files below `directory`, and when they were last modified.
fn walk(
    directory: &Path,
    root: &Path,
    found: &mut BTreeMap<String, Option<i64>>,
) -> anyhow::Result<()> {
    for entry in entries(directory)? {
        let path = entry?.path();
        // Follows links: the copy is the reader's own.
        let facts =
            fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if facts.is_dir() {
            walk(&path, root, found)?;
            continue;
        }
        let below = path.strip_prefix(root).ok().and_then(Path::to_str);
        let key =
            below.ok_or_else(|| anyhow!("{} is not the name of an object", path.display()))?;
        let said = read_side_file(&path)?.and_then(|head| head.last_modified);
        let said = said.and_then(|text| parse_rfc3339(text.as_bytes()));
        let last_modified = said.or_else(|| facts.modified().ok().map(seconds));
        found.insert(key.to_owned(), last_modified);
    }
    Ok(())
}

fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

/// Made for the copy, and no object: it lies beside the one it is about.
fn is_side_file(key: &str, found: &BTreeMap<String, Option<i64>>) -> bool {
    key.strip_suffix(SIDE_FILE)
        .is_some_and(|about| found.contains_key(about))
}

fn read_side_file(path: &Path) -> anyhow::Result<Option<Head>> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(SIDE_FILE);
    match fs::read(&beside) {
        Ok(bytes) => {
            let head = serde_json::from_slice(&bytes);
            let name = Path::new(&beside).display().to_string();
            head.with_context(|| format!("{name} is not what `aws s3api head-object` prints"))
                .map(Some)
        }
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Now, seconds since 1970.
pub fn now() -> i64 {
    WallMillis::now().unix_seconds()
}
