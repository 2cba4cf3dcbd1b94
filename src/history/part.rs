//! One file of history: an SQLite database with up to [`MAX_EVENTS`] events of one day, or about [`MAX_BYTES`], in the order of the journal.
//!
//! ```text
//! part        one row: the span of the journal that it has, how many events, the seed of its keys
//! event       at → the journal's frame, compressed          at = seconds since the day began << 20 | number of the event in the file
//! posting     (key, at), for each value that the event at `at` is found by        key: see super::key
//! dictionary  what frames are compressed with
//! ```
//!
//! Events and the span of the journal that they are of are written in one transaction: whoever reads the journal again, from anywhere, sees what is there
//! already. A file never has so many postings that its tree is large: a batch, sorted, is written to a tree that lies in memory.
//!
//! A frame is one byte, the number of its dictionary or 0, and a Zstandard frame with a checksum. A dictionary is a few events of the file itself, as they are.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use zstd::bulk::Compressor;
use zstd::dict::{DecoderDictionary, EncoderDictionary};
use zstd::zstd_safe::{self, CParameter, DCtx};

use super::attribute::Facts;
use super::key::{Keys, Scope};
use crate::clock::WallMillis;
use crate::event::Record;
use crate::event::time::parse_rfc3339;
use crate::wal::Position;

/// Events of a file.
pub const MAX_EVENTS: u64 = 1 << 18;
/// A file that has so many bytes is full: of events with many postings it holds fewer, and its filter is built in memory.
pub const MAX_BYTES: u64 = 512 << 20;

pub const DAY: i64 = 86_400;

/// The lower bits of `at`, for the event's number in its file.
const NUMBER_BITS: u32 = 20;

const APPLICATION: i32 = 0x7472_4864;
const VERSION: i32 = 1;

const LEVEL: i32 = 1;
const DICTIONARY_BYTES: usize = 48 << 10;
/// So much of one event goes into a dictionary.
const SAMPLE_BYTES: usize = 2 << 10;
/// A dictionary is made when a file comes to have so many events, and again, from more of them.
const DICTIONARIES_AT: [u64; 2] = [64, 4096];
/// More than any frame of the journal has.
const MAX_FRAME_BYTES: u64 = 32 << 20;

/// Of the pages of a file in memory, while it is written, and in each connection that reads.
const WRITER_CACHE_KIB: i32 = 8 << 10;
const READER_CACHE_KIB: i32 = 128;

/// So much of a write-ahead log stays to be written over once it is in its place. Of a larger one the rest is given back.
const LOG_KEPT_BYTES: u64 = 16 << 20;

/// A day, and one of its files: the name of a file, and the order of events of the same second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId {
    /// Days since 1970.
    pub day: i32,
    pub number: u32,
}

impl PartId {
    /// Seconds since 1970.
    pub fn day_start(self) -> i64 {
        i64::from(self.day) * DAY
    }

    /// As in `2026-05-01.0003`.
    pub fn stem(self) -> String {
        let date = WallMillis(self.day_start() * 1000).rfc3339();
        format!("{}.{:04}", &date[..date.len().min(10)], self.number)
    }

    /// By the name of a file, `2026-05-01.0003.db`.
    pub fn named(name: &str) -> Option<Self> {
        let (date, number) = name.strip_suffix(".db")?.split_once('.')?;
        let start = parse_rfc3339(format!("{date}T00:00:00Z").as_bytes())?;
        let id = Self {
            day: i32::try_from(start / DAY).ok()?,
            number: number.parse().ok()?,
        };
        (format!("{}.db", id.stem()) == name).then_some(id)
    }

    /// Where an event of this second has its place in the file's order, before all others of the second.
    pub fn at(self, time: i64) -> i64 {
        let offset = time.saturating_sub(self.day_start());
        offset.clamp(0, i64::MAX >> NUMBER_BITS) << NUMBER_BITS
    }

    /// The second of an event, since 1970.
    pub fn time_of(self, at: i64) -> i64 {
        self.day_start() + (at >> NUMBER_BITS)
    }
}

/// What is known of a file without looking at its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Every event of the day from this position of the journal on is in the file …
    pub from: Position,
    /// … up to this one.
    pub upto: Position,
    pub events: u64,
    /// Of the database, with what is in its log.
    pub bytes: u64,
    /// The lowest and the highest `at`.
    pub first_at: i64,
    pub last_at: i64,
    pub seed: u64,
}

/// An event as it comes from the journal.
#[derive(Debug, Clone)]
pub struct Given {
    pub position: Position,
    /// Seconds since 1970.
    pub time: i64,
    /// The journal's frame.
    pub frame: Bytes,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("it is no file of history of this version")]
    Foreign,
    /// It was being made when the daemon stopped.
    #[error("nothing was ever written to it")]
    Empty,
    #[error("somebody else has written to it")]
    Changed,
    #[error("SQLite keeps its journal in mode {0} and not in a write-ahead log")]
    NoLog(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl PartError {
    /// Whether the file itself is at fault, and not the disk or the moment.
    pub fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure, Unknown};
        /// SQLITE_IOERR_SHORT_READ: the file ends before a page that it should have.
        const SHORT_READ: i32 = 522;
        match self {
            Self::Foreign | Self::Empty => true,
            Self::Changed | Self::NoLog(_) | Self::Io(_) => false,
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => match error.code {
                // The last one: a table is not there.
                DatabaseCorrupt | NotADatabase | Unknown => true,
                SystemIoFailure => error.extended_code == SHORT_READ,
                _ => false,
            },
            // A row that should be there, or the type of a column.
            Self::Sqlite(_) => true,
        }
    }
}

fn head(connection: &Connection) -> Result<Head, PartError> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    match (number("application_id")?, number("user_version")?) {
        (APPLICATION, VERSION) => {}
        (0, 0) => return Err(PartError::Empty),
        _ => return Err(PartError::Foreign),
    }
    let bytes = bytes(connection)?;
    let sql = "SELECT from_position, upto_position, events, first_at, last_at, seed FROM part";
    let head = connection.query_row(sql, [], |row| {
        let unsigned = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        Ok(Head {
            from: Position(unsigned(0)?),
            upto: Position(unsigned(1)?),
            events: unsigned(2)?,
            bytes,
            first_at: row.get(3)?,
            last_at: row.get(4)?,
            seed: unsigned(5)?,
        })
    })?;
    Ok(head)
}

fn bytes(connection: &Connection) -> Result<u64, PartError> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let bytes = number("page_count")?.saturating_mul(number("page_size")?);
    Ok(u64::try_from(bytes).unwrap_or_default())
}

fn dictionaries(connection: &Connection) -> Result<Vec<(u8, Vec<u8>)>, PartError> {
    let mut found = connection.prepare("SELECT id, bytes FROM dictionary ORDER BY id")?;
    let rows = found.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Writes a file. There should be one of a file; when there are two, one of them is told [`PartError::Changed`].
pub struct Writer {
    connection: Connection,
    directory: PathBuf,
    id: PartId,
    head: Head,
    /// The number of the newest dictionary, and the dictionary.
    dictionary: Option<(u8, EncoderDictionary<'static>)>,
    /// Of how many events there were when the newest dictionary was made.
    dictionary_of: u64,
}

impl Writer {
    /// Makes a new file. What a crash may have left of one before its first transaction is written over.
    pub fn create(directory: &Path, id: PartId, from: Position) -> Result<Self, PartError> {
        let path = directory.join(format!("{}.db", id.stem()));
        remove(directory, id)?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
        let head = Head {
            from,
            upto: from,
            events: 0,
            bytes: 0,
            first_at: i64::MAX,
            last_at: i64::MIN,
            seed: u64::from_le_bytes(seed),
        };
        let connection = connect(&path, OpenFlags::SQLITE_OPEN_CREATE)?;
        prepare(&connection)?;
        connection.execute_batch(&format!(
            "BEGIN;
             PRAGMA application_id = {APPLICATION};
             PRAGMA user_version = {VERSION};
             CREATE TABLE part (from_position INTEGER NOT NULL, upto_position INTEGER NOT NULL, events INTEGER NOT NULL,
                                first_at INTEGER NOT NULL, last_at INTEGER NOT NULL, seed INTEGER NOT NULL) STRICT;
             CREATE TABLE event (at INTEGER PRIMARY KEY, frame BLOB NOT NULL) STRICT;
             CREATE TABLE posting (key INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (key, at)) STRICT, WITHOUT ROWID;
             CREATE TABLE dictionary (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
             INSERT INTO part VALUES ({from}, {from}, 0, {first}, {last}, {seed});
             COMMIT;",
            from = head.from.0.cast_signed(),
            first = head.first_at,
            last = head.last_at,
            seed = head.seed.cast_signed(),
        ))?;
        Ok(Self {
            connection,
            directory: directory.to_owned(),
            id,
            head,
            dictionary: None,
            dictionary_of: 0,
        })
    }

    /// Goes on with a file.
    pub fn open(directory: &Path, id: PartId) -> Result<Self, PartError> {
        let path = directory.join(format!("{}.db", id.stem()));
        let connection = connect(&path, OpenFlags::empty())?;
        let head = head(&connection)?;
        prepare(&connection)?;
        let newest = dictionaries(&connection)?.pop();
        let dictionary_of = if newest.is_some() { head.events } else { 0 };
        Ok(Self {
            dictionary: newest.map(|(number, bytes)| (number, encoder(&bytes))),
            connection,
            directory: directory.to_owned(),
            id,
            head,
            dictionary_of,
        })
    }

    pub fn id(&self) -> PartId {
        self.id
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Adds events, which are of the file's day and in the order of their positions, all behind those that it has. All or none.
    pub fn append(&mut self, events: &[Given]) -> Result<(), PartError> {
        let mut head = self.head;
        let mut batch: Vec<(i64, &Given)> = Vec::with_capacity(events.len());
        for given in events {
            let number = i64::try_from(head.events).unwrap_or(i64::MAX);
            let at = self.id.at(given.time) | (number & ((1 << NUMBER_BITS) - 1));
            batch.push((at, given));
            head.events += 1;
            head.upto = Position(given.position.0 + 1);
            head.first_at = head.first_at.min(at);
            head.last_at = head.last_at.max(at);
        }
        batch.sort_unstable_by_key(|(at, _)| *at);
        let due = self.dictionary_due(events.len());
        let transaction = self.connection.unchecked_transaction()?;
        if due && let Some(bytes) = sample(&batch) {
            let number = self.dictionary.as_ref().map_or(0, |(number, _)| *number) + 1;
            transaction.execute(
                "INSERT INTO dictionary VALUES (?1, ?2)",
                params![number, bytes],
            )?;
            self.dictionary = Some((number, encoder(&bytes)));
            self.dictionary_of = head.events;
        }
        let written = write(&transaction, &batch, self.dictionary.as_ref(), head.seed);
        written?;
        let is_as_known = transaction.execute(
            "UPDATE part SET upto_position = ?1, events = ?2, first_at = ?3, last_at = ?4 WHERE events = ?5",
            params![
                head.upto.0.cast_signed(),
                head.events.cast_signed(),
                head.first_at,
                head.last_at,
                self.head.events.cast_signed(),
            ],
        )?;
        if is_as_known != 1 {
            return Err(PartError::Changed);
        }
        head.bytes = bytes(&transaction)?;
        transaction.commit()?;
        self.head = head;
        Ok(())
    }

    /// Whether these events, with so many more, should have a dictionary made of them.
    fn dictionary_due(&self, more: usize) -> bool {
        let events = self.head.events + more as u64;
        DICTIONARIES_AT
            .into_iter()
            .any(|at| self.dictionary_of < at && events >= at && more >= 16)
    }

    /// Makes everything that was added survive a power loss. Whether it is all in its place; a lookup under way may have been in the way.
    pub fn sync(&self) -> Result<bool, PartError> {
        let sql = "PRAGMA wal_checkpoint(PASSIVE)";
        let row: (i64, i64, i64) = self
            .connection
            .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        // One that could not begin says -1 of the log and of what is in place.
        let (busy, pages, in_place) = row;
        Ok(busy == 0 && pages >= 0 && pages == in_place)
    }

    /// Closes a file that is on the disk, and leaves nothing beside it, unless a lookup is reading it.
    pub fn close(self) {
        let keeps_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        // Without, the log stays, and does no harm.
        let _ = self.connection.set_db_config(keeps_log, false);
    }

    /// Bytes of its write-ahead log, which [`sync`](Self::sync) puts in place.
    pub fn log_bytes(&self) -> u64 {
        log_bytes(&self.directory, self.id)
    }
}

fn connect(path: &Path, more: OpenFlags) -> Result<Connection, PartError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let connection = Connection::open_with_flags(path, flags)?;
    // A daemon that stops does not wait for it, and the next one finds everything in the log.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> Result<(), PartError> {
    // What a checkpoint has put in place survives a power loss, and a file is whole after one in any case.
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(PartError::NoLog(mode));
    }
    connection.execute_batch(&format!(
        "PRAGMA synchronous = NORMAL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = {LOG_KEPT_BYTES};
         PRAGMA cache_size = -{WRITER_CACHE_KIB};
         PRAGMA temp_store = MEMORY;"
    ))?;
    Ok(())
}

fn encoder(dictionary: &[u8]) -> EncoderDictionary<'static> {
    EncoderDictionary::copy(dictionary, LEVEL)
}

/// Events of a batch, from all over it, one after another. The last ones are the cheapest to refer to, and no better than others.
fn sample(batch: &[(i64, &Given)]) -> Option<Vec<u8>> {
    let step = (batch.len() / 64).max(1);
    let mut bytes = Vec::new();
    for (_, given) in batch.iter().step_by(step) {
        let json = Record::decode(&given.frame).ok()?.json;
        bytes.extend_from_slice(&json[..json.len().min(SAMPLE_BYTES)]);
        if bytes.len() >= DICTIONARY_BYTES {
            break;
        }
    }
    // Any other begins with a brace, and is not taken for a dictionary with a head of its own.
    (bytes.len() >= SAMPLE_BYTES && bytes[0] == b'{').then_some(bytes)
}

/// Writes events and their postings, both in the order of their trees.
fn write(
    connection: &Connection,
    batch: &[(i64, &Given)],
    dictionary: Option<&(u8, EncoderDictionary<'static>)>,
    seed: u64,
) -> Result<(), PartError> {
    let mut compressor = match dictionary {
        Some((_, dictionary)) => Compressor::with_prepared_dictionary(dictionary)?,
        None => Compressor::new(LEVEL)?,
    };
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    let number = dictionary.map_or(0, |(number, _)| *number);
    let mut postings: Vec<(i64, i64)> = Vec::with_capacity(batch.len() * 9);
    let mut keys = Vec::new();
    let mut of_scope: Option<(Scope, Keys)> = None;
    let mut compressed = Vec::new();
    let mut insert = connection.prepare_cached("INSERT INTO event VALUES (?1, ?2)")?;
    for (at, given) in batch {
        let needed = zstd_safe::compress_bound(given.frame.len()) + 1;
        compressed.resize(needed, 0);
        compressed[0] = number;
        let length = compressor.compress_to_buffer(&given.frame[..], &mut compressed[1..])?;
        insert.execute(params![at, &compressed[..=length]])?;
        let Ok(record) = Record::decode(&given.frame) else {
            continue;
        };
        let scope = Scope::of(&record.meta);
        let made = match of_scope.take() {
            Some((of, made)) if of == scope => made,
            _ => Keys::new(seed, &scope),
        };
        let (_, made) = of_scope.insert((scope, made));
        made.of_event(&record.meta, &Facts::of(&record), &mut keys);
        postings.extend(keys.iter().map(|key| (*key, *at)));
    }
    postings.sort_unstable();
    let mut insert = connection.prepare_cached("INSERT INTO posting VALUES (?1, ?2)")?;
    for (key, at) in postings {
        insert.execute([key, at])?;
    }
    Ok(())
}

/// Reads a file, also while it is written.
pub struct Reader {
    connection: Connection,
    dictionaries: Vec<(u8, DecoderDictionary<'static>)>,
}

impl Reader {
    pub fn open(directory: &Path, id: PartId) -> Result<Self, PartError> {
        let path = directory.join(format!("{}.db", id.stem()));
        let connection = connect(&path, OpenFlags::empty())?;
        connection.execute_batch(&format!(
            "PRAGMA query_only = 1; PRAGMA cache_size = -{READER_CACHE_KIB};"
        ))?;
        Ok(Self {
            connection,
            dictionaries: Vec::new(),
        })
    }

    pub fn head(&self) -> Result<Head, PartError> {
        head(&self.connection)
    }

    /// The newest events of a key, at most `most` of them, from `low` and below `high`.
    pub fn newest(
        &self,
        key: i64,
        low: i64,
        high: i64,
        most: usize,
    ) -> Result<Vec<i64>, PartError> {
        let sql = "SELECT at FROM posting WHERE key = ?1 AND at >= ?2 AND at < ?3 ORDER BY at DESC LIMIT ?4";
        let mut statement = self.connection.prepare_cached(sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = statement.query_map([key, low, high, most], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The journal's frame of the event at `at`. Nothing when it is damaged.
    pub fn frame(
        &mut self,
        at: i64,
        context: &mut DCtx<'static>,
    ) -> Result<Option<Vec<u8>>, PartError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT frame FROM event WHERE at = ?1")?;
        let stored: Option<Vec<u8>> = statement.query_row([at], |row| row.get(0)).optional()?;
        drop(statement);
        let Some(stored) = stored else {
            return Ok(None);
        };
        let Some((number, compressed)) = stored.split_first() else {
            return Ok(None);
        };
        let is_known = |dictionaries: &[(u8, _)]| dictionaries.iter().any(|(it, _)| it == number);
        if *number != 0 && !is_known(&self.dictionaries) {
            self.dictionaries = dictionaries(&self.connection)?
                .into_iter()
                .map(|(number, bytes)| (number, DecoderDictionary::copy(&bytes)))
                .collect();
        }
        let bytes = match zstd_safe::get_frame_content_size(compressed) {
            Ok(Some(bytes)) if bytes <= MAX_FRAME_BYTES => usize::try_from(bytes).unwrap_or(0),
            _ => return Ok(None),
        };
        let mut frame = Vec::with_capacity(bytes);
        let done = match self.dictionaries.iter().find(|(it, _)| it == number) {
            Some((_, dictionary)) => {
                context.decompress_using_ddict(&mut frame, compressed, dictionary.as_ddict())
            }
            None if *number == 0 => context.decompress(&mut frame, compressed),
            None => return Ok(None),
        };
        Ok(done.is_ok().then_some(frame))
    }

    /// Shows every key that it has postings of, each once, in order.
    pub fn each_key(&self, mut each: impl FnMut(i64)) -> Result<(), PartError> {
        let mut statement = self.connection.prepare("SELECT key FROM posting")?;
        let mut rows = statement.query([])?;
        let mut before = None;
        while let Some(row) = rows.next()? {
            let key = row.get(0)?;
            if before.replace(key) != Some(key) {
                each(key);
            }
        }
        Ok(())
    }
}

/// The files of a part, as far as there are any: the database, what SQLite keeps beside it, and the filter.
pub fn files(directory: &Path, id: PartId) -> [PathBuf; 4] {
    let stem = id.stem();
    ["db", "db-wal", "db-shm", "filter"].map(|end| directory.join(format!("{stem}.{end}")))
}

/// Bytes of the write-ahead log that lies beside a part, some of which may not be in their place.
pub fn log_bytes(directory: &Path, id: PartId) -> u64 {
    let path = directory.join(format!("{}.db-wal", id.stem()));
    std::fs::metadata(path).map_or(0, |it| it.len())
}

pub fn filter_path(directory: &Path, id: PartId) -> PathBuf {
    directory.join(format!("{}.filter", id.stem()))
}

/// Removes a part, with all that lies beside it: the database first, as it is nothing without its log.
pub fn remove(directory: &Path, id: PartId) -> std::io::Result<()> {
    for path in files(directory, id) {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
