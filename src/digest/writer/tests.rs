//! Writers with a real spool, real keys and the embedded store; the ledger is on a simulated disk.

use std::future::ready;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use aws_sdk_s3::Client;
use flate2::read::GzDecoder;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::aws;
use crate::config::Config;
use crate::deliver::renewing::Renewing;
use crate::digest::keys::{FileKeys, TimeRange};
use crate::digest::verify::{self, Found, Keyring, Metadata, Valid};
use crate::digest::{Digest, Location};
use crate::event::Folder;
use crate::ledger::{self, Entry, Object, Settled, StreamName};
use crate::store::{self, Store};
use crate::trail::{Stream, tests::trail};
use crate::wal::sim::SimDisk;
use crate::wal::{self, Batch, DiskReserve};

/// A trail's surroundings.
struct Ground {
    directory: TempDir,
    ledger: Wal,
    keys: Keys,
    client: Client,
    view: View,
}

impl Ground {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = wal::Options {
            directory: "/ledger".into(),
            segment_bytes: 1 << 20,
            max_bytes: 1 << 30,
            disk_reserve: DiskReserve::None,
            queue_bytes: 1 << 20,
        };
        let disk = Arc::new(SimDisk::new());
        let (ledger, _) =
            Wal::open(disk, options, wal::Metrics::default(), &mut |_, _| ()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = Store::open(directory.path().join("buckets")).unwrap();
        tokio::spawn(store::serve(store, listener, CancellationToken::new()));
        Self {
            keys: Keys::Files(FileKeys::open(&directory.path().join("keys")).unwrap()),
            client: client(address),
            view: View::new("main", view::Metrics::default()),
            ledger,
            directory,
        }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("digests")
    }

    async fn open(&self, is_ending: bool) -> Option<Writer> {
        self.open_towards(self.client.clone(), is_ending).await
    }

    async fn open_towards(&self, client: Client, is_ending: bool) -> Option<Writer> {
        let end = CancellationToken::new();
        if is_ending {
            end.cancel();
        }
        let renewing = Renewing::new(client.clone(), move || ready(client.clone()));
        let parts = Parts {
            place: Place::from(&trail()),
            interval: Duration::from_secs(3600),
            end,
            begins: !is_ending,
            ledger: self.ledger.clone(),
            keys: self.keys.clone(),
            bucket: Bucket::new(renewing, true),
            view: self.view.clone(),
        };
        let root = self.root();
        let opened = tokio::task::spawn_blocking(move || Writer::open(&root, parts));
        opened.await.unwrap().unwrap()
    }

    /// Runs a writer until its trail stands like that.
    async fn run_until(&self, writer: Writer, reached: impl Fn(&view::Facts) -> bool) {
        let stop = CancellationToken::new();
        let running = tokio::spawn(writer.run(stop.clone()));
        let reached = async {
            while !reached(&self.view.facts()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let patience = Duration::from_secs(20);
        let outcome = tokio::time::timeout(patience, reached).await;
        assert!(outcome.is_ok(), "{:?}", self.view.facts());
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    async fn deliver(&self, key: &str) {
        let stream = Stream {
            account: "111122223333".parse().unwrap(),
            region: "eu-west-1".parse().unwrap(),
            folder: Folder::CloudTrail,
        };
        let settled = Entry::Settled(Settled {
            trail: trail().arn(),
            stream: StreamName(stream),
            first: Position(64),
            object: Some(Object {
                bucket: "audit-logs".into(),
                key: key.into(),
                sha256: "07".repeat(32),
                etag: None,
                bytes: 100,
                events: 1,
                oldest_event_time: 5,
                newest_event_time: 6,
            }),
            lost: 0,
            settled_at: WallMillis::now(),
        });
        let mut batch = Batch::new();
        batch.push(&ledger::encode(&[settled]));
        let permit = self.ledger.reserve(batch.bytes()).await.unwrap();
        permit.append(batch).await.unwrap();
    }

    /// The digests of the bucket, each checked by itself, in the order of their keys.
    async fn digests(&self) -> Vec<Valid> {
        // A final digest may end, and its key begin, a second from now.
        let soon = WallMillis::now().unix_seconds() + 5;
        let range = TimeRange::asked(Some(0), Some(soon), WallMillis::now()).unwrap();
        let keys = self.keys.public_keys(range).await.unwrap();
        let keys: Keyring = keys.into_iter().map(|(_, key)| key).collect();
        let listed = self.client.list_objects_v2().bucket("audit-logs").send();
        let mut digests = Vec::new();
        for object in listed.await.unwrap().contents() {
            let found = self.read(object.key().unwrap()).await;
            digests.push(verify::digest(&found, &keys).unwrap());
        }
        digests
    }

    async fn read(&self, key: &str) -> Found {
        let get = self.client.get_object().bucket("audit-logs").key(key);
        let object = get.send().await.unwrap();
        let metadata = object.metadata().cloned().unwrap_or_default();
        assert_eq!(object.content_encoding(), Some("gzip"));
        let gzip = object.body.collect().await.unwrap().into_bytes();
        let mut json = Vec::new();
        GzDecoder::new(&*gzip).read_to_end(&mut json).unwrap();
        Found {
            location: Location {
                bucket: "audit-logs".into(),
                key: key.into(),
            },
            json,
            metadata: Metadata {
                signature: metadata.get("signature").cloned(),
                signature_algorithm: metadata.get("signature-algorithm").cloned(),
                backfill_generation_timestamp: None,
            },
        }
    }

    fn sealed(&self) -> Vec<Sealed> {
        let (spool, recalled) = Spool::open(&self.root(), &Place::from(&trail())).unwrap();
        let windows = recalled.undelivered.into_iter();
        let sealed = windows.map(|number| spool.digests(number).unwrap().unwrap());
        sealed.flatten().collect()
    }
}

fn client(address: SocketAddr) -> Client {
    aws::embedded_client(&Config::embedded_default(), address)
}

/// Where nobody listens.
fn nowhere() -> Client {
    client("127.0.0.1:1".parse().unwrap())
}

#[tokio::test]
async fn what_was_sealed_is_delivered_after_a_crash_byte_for_byte() {
    let ground = Ground::new().await;
    let writer = ground.open_towards(nowhere(), false).await.unwrap();
    ground
        .run_until(writer, |facts| {
            facts.pending_windows > 0 && facts.last_error.is_some()
        })
        .await;
    let sealed = ground.sealed();
    assert_eq!(sealed.len(), 1, "the starting digest");

    let writer = ground.open(false).await.unwrap();
    ground
        .run_until(writer, |facts| {
            facts.delivered == 1 && facts.pending_windows == 0
        })
        .await;
    let found = ground.read(&sealed[0].location.key).await;
    assert_eq!(found.json, sealed[0].signed.json);
    assert_eq!(ground.digests().await.len(), 1);
    assert_eq!(ground.sealed(), [], "what is delivered is not kept");
    assert!(ground.view.facts().last_error.is_none());

    // A crash between the upload and the note of it: it is uploaded again, to the same end.
    let (spool, recalled) = Spool::open(&ground.root(), &Place::from(&trail())).unwrap();
    let state = recalled.state.unwrap();
    spool.write(recalled.newest, &state, &sealed).unwrap();
    let writer = ground.open(false).await.unwrap();
    ground.run_until(writer, |facts| facts.delivered == 2).await;
    assert_eq!(ground.read(&sealed[0].location.key).await, found);
}

#[tokio::test]
async fn a_trail_that_loses_validation_gets_final_digests_and_holds_nothing() {
    let ground = Ground::new().await;
    assert!(
        ground.open(true).await.is_none(),
        "it never had any, and gets none"
    );
    let writer = ground.open(false).await.unwrap();
    ground.run_until(writer, |facts| facts.delivered == 1).await;
    ground.deliver("before").await;
    let writer = ground.open(true).await.unwrap();
    ground.deliver("after").await;
    let wanted = writer.watch_wanted();
    writer.run(CancellationToken::new()).await.unwrap();
    assert_eq!(*wanted.borrow(), Position(u64::MAX));
    let digests = ground.digests().await;
    let files = |valid: &Valid| -> Vec<String> {
        let files = valid.digest.files.iter();
        files.map(|file| file.location.key.clone()).collect()
    };
    let named: Vec<_> = digests.iter().flat_map(files).collect();
    assert_eq!(named, ["before"]);
    assert_eq!(
        digests.len(),
        3,
        "the starting one, and the last of both regions"
    );

    // It has ended, whoever asks; with validation again, a new chain begins.
    let writer = ground.open(true).await.unwrap();
    writer.run(CancellationToken::new()).await.unwrap();
    assert_eq!(ground.digests().await.len(), 3);
    let state = ground.open(false).await.unwrap().book.state().clone();
    let ended = digests.iter().map(|valid| valid.digest.end).max().unwrap();
    assert_eq!((state.end, state.has_ended), (ended, false));
    assert!(state.chains.values().all(|heads| heads.standard.is_none()));
}

#[tokio::test]
async fn a_lost_place_begins_a_new_chain_and_leaves_no_log_file_out() {
    let ground = Ground::new().await;
    let writer = ground.open(false).await.unwrap();
    ground.run_until(writer, |facts| facts.delivered == 1).await;
    ground.deliver("one").await;
    let (spool, recalled) = Spool::open(&ground.root(), &Place::from(&trail())).unwrap();
    let file = spool.path().join(format!("{:020}.jsonl", recalled.newest));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let writer = ground.open(false).await.unwrap();
    assert!(writer.newest > recalled.newest);
    assert_eq!(writer.book.state().next, Next::frame(ground.ledger.start()));
}

#[tokio::test]
async fn something_else_under_a_digests_key_is_left_alone_and_told() {
    let ground = Ground::new().await;
    let writer = ground.open_towards(nowhere(), false).await.unwrap();
    ground
        .run_until(writer, |facts| facts.pending_windows > 0)
        .await;
    let Location { bucket, key } = ground.sealed()[0].location.clone();
    let make = ground.client.create_bucket().bucket(&bucket);
    make.send().await.unwrap();
    let put = ground.client.put_object().bucket(&bucket).key(&key);
    put.body(b"mine".to_vec().into()).send().await.unwrap();

    let writer = ground.open(false).await.unwrap();
    let is_told = |facts: &view::Facts| {
        let error = facts.last_error.as_ref();
        facts.pending_windows == 0 && error.is_some_and(|error| error.code == "KeyTaken")
    };
    ground.run_until(writer, is_told).await;
    let get = ground.client.get_object().bucket(bucket).key(key);
    let left = get.send().await.unwrap().body.collect().await.unwrap();
    assert_eq!(left.into_bytes(), "mine");
    assert_eq!(ground.sealed().len(), 1, "it is kept for the next start");
}

#[test]
fn who_opened_before_writes_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::from(&trail());
    let state = State::starting(place.clone(), 10_000, 60, Next::default(), None);
    let (before, _) = Spool::open(directory.path(), &place).unwrap();
    before.write(1, &state, &[]).unwrap();
    let (after, _) = Spool::open(directory.path(), &place).unwrap();
    assert_eq!(Spool::states(directory.path()).unwrap(), [state.clone()]);
    assert!(before.write(2, &state, &[]).is_err());
    assert!(before.remove(1).is_err());
    after.write(2, &state, &[]).unwrap();
}

#[test]
fn digests_read_back_from_the_spool_as_they_were_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::from(&trail());
    let (spool, recalled) = Spool::open(directory.path(), &place).unwrap();
    assert!(recalled.state.is_none() && !recalled.is_damaged);
    let vectors = crate::digest::vectors::digests();
    let sealed: Vec<_> = vectors
        .iter()
        .zip([None, Some(1_700_000_000), None])
        .map(|(object, backfilled_at)| {
            let json = object.uncompressed.clone().into_bytes();
            Sealed {
                location: Digest::read(&json).unwrap().location,
                signed: Signed {
                    sha256: crate::digest::Sha256::of(&json),
                    signature: object.signature(),
                    json,
                },
                backfilled_at,
            }
        })
        .collect();
    let state = State::starting(place.clone(), 10_000, 60, Next::default(), None);
    spool.write(7, &state, &sealed).unwrap();
    let (spool, recalled) = Spool::open(directory.path(), &place).unwrap();
    assert_eq!((recalled.newest, recalled.state), (7, Some(state)));
    assert_eq!(spool.digests(7).unwrap(), Some(sealed));
    spool.settle(7, None).unwrap();
    assert_eq!(Spool::states(directory.path()).unwrap(), []);
}
