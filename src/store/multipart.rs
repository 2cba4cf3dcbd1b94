//! Multipart uploads: a directory of parts that becomes one object. Everything here blocks.
//!
//! The directory is the only state: a part is there or not, an upload is there or not. Completing copies the named parts into
//! one file and commits it like any other object; only then the directory goes. A crash in between leaves the object
//! and the upload, and completing again writes the same object again.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::digests::{self, Algorithm, Checksums, Hasher};
use super::error::StoreError;
use super::layout::{self, Facts, UploadFacts};
use super::objects::{Precondition, Sealed, seal};
use super::{Bucket, Store, lock};
use crate::clock::WallMillis;

pub const MAX_PARTS: u16 = 10_000;
const MIN_PART_BYTES: u64 = 5 << 20;
const MAX_OBJECT_BYTES: u64 = 5 << 40;

/// A part as CompleteMultipartUpload names it.
#[derive(Debug, Clone)]
pub struct NamedPart {
    pub number: u16,
    pub etag: String,
    pub checksums: Checksums,
}

/// The conditions and claims of CompleteMultipartUpload about the whole.
#[derive(Debug, Clone, Default)]
pub struct Whole {
    pub precondition: Precondition,
    pub checksums: Checksums,
    pub size: Option<u64>,
}

impl Bucket {
    fn upload_path(&self, id: &str) -> Result<PathBuf, StoreError> {
        // The identifiers made below; anything else, `..` too, names no upload.
        let well_formed = id.len() == 32
            && id
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if well_formed {
            Ok(self.path.join("uploads").join(id))
        } else {
            Err(StoreError::NoSuchUpload)
        }
    }

    pub(crate) fn create_upload(
        &self,
        store: &Store,
        facts: &UploadFacts,
    ) -> Result<String, StoreError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let path = self.upload_path(&id)?;
        let _alive = self.alive()?;
        let make = || {
            fs::create_dir(&path)?;
            let bytes = serde_json::to_vec(facts)?;
            layout::replace_small(store.temporary().path(), &path.join("upload.json"), &bytes)?;
            layout::sync_directory(&self.path.join("uploads"))
        };
        let made = make();
        if made.is_err() {
            let _ = fs::remove_dir_all(&path);
        }
        made.map_err(StoreError::io("create a multipart upload"))?;
        Ok(id)
    }

    /// The facts of an upload, which must be for `key`.
    pub(crate) fn upload(&self, id: &str, key: &str) -> Result<UploadFacts, StoreError> {
        let facts = self.read_upload(id)?;
        if facts.key == key {
            Ok(facts)
        } else {
            Err(StoreError::NoSuchUpload)
        }
    }

    fn read_upload(&self, id: &str) -> Result<UploadFacts, StoreError> {
        let bytes = fs::read(self.upload_path(id)?.join("upload.json")).map_err(no_such_upload)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::io("read a multipart upload")(error.into()))
    }

    pub(crate) fn put_part(
        &self,
        id: &str,
        number: u16,
        sealed: Sealed,
    ) -> Result<Facts, StoreError> {
        let path = self.upload_path(id)?;
        let _alive = self.alive()?;
        let _upload = lock(self.upload_lock(id));
        sealed
            .rename_to(&path.join(layout::part_name(number)))
            .map_err(no_such_upload)?;
        layout::sync_directory(&path).map_err(StoreError::io("put a part in place"))?;
        Ok(sealed.into_facts())
    }

    /// The parts of an upload above `after`, at most `max`, and whether there are more.
    pub(crate) fn parts(
        &self,
        id: &str,
        after: u16,
        max: usize,
    ) -> Result<(Vec<(u16, Facts)>, bool), StoreError> {
        let path = self.upload_path(id)?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&path).map_err(no_such_upload)? {
            let name = entry.map_err(StoreError::io("list parts"))?.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_prefix("part-"))
                .and_then(|number| number.parse::<u16>().ok());
            numbers.extend(number.filter(|number| *number > after));
        }
        numbers.sort_unstable();
        let more = numbers.len() > max;
        let parts = numbers.into_iter().take(max).map(|number: u16| {
            let file = File::open(path.join(layout::part_name(number))).map_err(no_such_upload)?;
            Ok((
                number,
                layout::read_facts(&file).map_err(StoreError::io("read a part"))?,
            ))
        });
        Ok((parts.collect::<Result<_, StoreError>>()?, more))
    }

    /// All uploads in progress, by key and then identifier.
    pub(crate) fn uploads(&self) -> Result<Vec<(String, UploadFacts)>, StoreError> {
        let mut uploads = Vec::new();
        for entry in fs::read_dir(self.path.join("uploads"))
            .map_err(StoreError::io("list multipart uploads"))?
        {
            let name = entry
                .map_err(StoreError::io("list multipart uploads"))?
                .file_name();
            let Some(id) = name.to_str() else { continue };
            match self.read_upload(id) {
                Ok(facts) => uploads.push((id.to_owned(), facts)),
                // Completed, aborted, or never answered.
                Err(StoreError::NoSuchUpload) => {}
                Err(error) => return Err(error),
            }
        }
        uploads.sort_by(|a, b| (&a.1.key, &a.0).cmp(&(&b.1.key, &b.0)));
        Ok(uploads)
    }

    pub(crate) fn abort_upload(
        &self,
        store: &Store,
        id: &str,
        key: &str,
    ) -> Result<(), StoreError> {
        let _alive = self.alive()?;
        let _upload = lock(self.upload_lock(id));
        self.upload(id, key)?;
        self.remove_upload(store, id)
    }

    fn remove_upload(&self, store: &Store, id: &str) -> Result<(), StoreError> {
        let grave = store.temporary();
        fs::rename(self.upload_path(id)?, grave.path()).map_err(no_such_upload)?;
        layout::sync_directory(&self.path.join("uploads"))
            .map_err(StoreError::io("remove a multipart upload"))?;
        fs::remove_dir_all(grave.path()).map_err(StoreError::io("remove a multipart upload"))
    }

    pub(crate) fn complete_upload(
        &self,
        store: &Store,
        id: &str,
        key: &str,
        named: &[NamedPart],
        whole: &Whole,
    ) -> Result<Facts, StoreError> {
        let path = self.upload_path(id)?;
        // `commit` asks for the bucket again: a lock held here as well could wait for itself behind a deletion.
        drop(self.alive()?);
        let _upload = lock(self.upload_lock(id));
        let upload = self.upload(id, key)?;
        if named
            .windows(2)
            .any(|pair| pair[0].number >= pair[1].number)
        {
            return Err(StoreError::InvalidPartOrder);
        }
        let mut parts = Vec::with_capacity(named.len());
        for part in named {
            let file = File::open(path.join(layout::part_name(part.number)))
                .map_err(|_| StoreError::InvalidPart)?;
            let facts = layout::read_facts(&file).map_err(StoreError::io("read a part"))?;
            let wrong_checksum =
                |algorithm| part.checksums.get(algorithm) != facts.checksums.get(algorithm);
            if facts.etag != part.etag || part.checksums.algorithms().any(wrong_checksum) {
                return Err(StoreError::InvalidPart);
            }
            parts.push((part.number, facts));
        }
        check_sizes(&parts, whole)?;

        let algorithm = upload.checksum_algorithm;
        let composite = algorithm
            .filter(|_| !upload.full_object_checksum)
            .and_then(|algorithm| Some((algorithm, composite_of(algorithm, &parts)?)));
        let hasher = algorithm
            .filter(|_| upload.full_object_checksum)
            .map(Hasher::of);

        let temporary = store.temporary();
        let mut object =
            File::create_new(temporary.path()).map_err(StoreError::io("create a file"))?;
        let mut checksums = concatenate(&path, &parts, &mut object, hasher)?;
        if let Some((algorithm, value)) = composite {
            checksums.set(algorithm, Some(value));
            checksums.composite = true;
        }
        for algorithm in whole.checksums.algorithms() {
            let ours = checksums.get(algorithm);
            if ours.is_some() && ours != whole.checksums.get(algorithm) {
                return Err(StoreError::BadDigest {
                    digest: algorithm.header(),
                });
            }
        }
        let md5s = parts
            .iter()
            .map(|(_, facts)| md5_of(facts))
            .collect::<Result<Vec<_>, _>>()?;
        let facts = Facts {
            key: key.to_owned(),
            size: parts.iter().map(|(_, facts)| facts.size).sum(),
            modified_millis: WallMillis::now().0,
            etag: digests::multipart_etag(&md5s),
            checksums,
            headers: upload.headers,
            part_sizes: parts.iter().map(|(_, facts)| facts.size).collect(),
        };
        let committed = self.commit(seal(object, temporary, facts)?, &whole.precondition)?;
        // The object is there: an upload that cannot be removed now can still be aborted.
        if let Err(error) = self.remove_upload(store, id) {
            tracing::warn!(upload = id, %error, "a completed multipart upload could not be removed");
        }
        Ok(committed)
    }
}

fn check_sizes(parts: &[(u16, Facts)], whole: &Whole) -> Result<(), StoreError> {
    let Some((_, all_but_last)) = parts.split_last() else {
        return Err(StoreError::InvalidRequest(
            "You must specify at least one part".into(),
        ));
    };
    if all_but_last
        .iter()
        .any(|(_, facts)| facts.size < MIN_PART_BYTES)
    {
        return Err(StoreError::EntityTooSmall);
    }
    let size: u64 = parts.iter().map(|(_, facts)| facts.size).sum();
    if size > MAX_OBJECT_BYTES {
        return Err(StoreError::EntityTooLarge);
    }
    if whole.size.is_some_and(|claimed| claimed != size) {
        return Err(StoreError::InvalidRequest(
            "The provided 'x-amz-mp-object-size' does not match the parts".into(),
        ));
    }
    Ok(())
}

fn composite_of(algorithm: Algorithm, parts: &[(u16, Facts)]) -> Option<String> {
    let sums = parts
        .iter()
        .map(|(_, facts)| facts.checksums.get(algorithm))
        .collect::<Option<Vec<_>>>()?;
    digests::composite(algorithm, sums.into_iter())
}

fn md5_of(facts: &Facts) -> Result<[u8; 16], StoreError> {
    let mut md5 = [0; 16];
    hex::decode_to_slice(&facts.etag, &mut md5).map_err(|_| StoreError::InvalidPart)?;
    Ok(md5)
}

/// Without a hasher the kernel copies, and the bytes never pass through here.
fn concatenate(
    upload: &std::path::Path,
    parts: &[(u16, Facts)],
    object: &mut File,
    hasher: Option<Hasher>,
) -> Result<Checksums, StoreError> {
    let mut hasher = hasher;
    for (number, facts) in parts {
        let copy = || -> io::Result<()> {
            let mut part = File::open(upload.join(layout::part_name(*number)))?;
            part.seek(SeekFrom::Start(0))?;
            let mut content = part.take(facts.size);
            let copied = match &mut hasher {
                None => io::copy(&mut content, object)?,
                Some(hasher) => copy_hashing(&mut content, object, hasher)?,
            };
            if copied == facts.size {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        };
        let mut copy = copy;
        copy().map_err(StoreError::io("join the parts of an upload"))?;
    }
    Ok(hasher
        .map(|hasher| hasher.finish().checksums)
        .unwrap_or_default())
}

fn copy_hashing(from: &mut impl Read, to: &mut File, hasher: &mut Hasher) -> io::Result<u64> {
    let mut piece = vec![0; 256 << 10];
    let mut copied = 0;
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            return Ok(copied);
        }
        hasher.update(&piece[..read]);
        to.write_all(&piece[..read])?;
        copied += read as u64;
    }
}

fn no_such_upload(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreError::NoSuchUpload,
        _ => StoreError::io("reach a multipart upload")(error),
    }
}
