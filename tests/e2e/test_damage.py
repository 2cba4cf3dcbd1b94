"""Whatever file below the data_dir is damaged, the daemon starts by itself, loses no more than the damaged records, and tells of it.

A data_dir with something in every kind of file is made once. Each trial damages one or two files of a copy and starts on it: one trail has
delivered everything, another nothing yet, and a log group is behind. `--seed S+n --trials 1` repeats the n-th trial, from nought, of seed S.
"""

import json
import random
import shutil
import tempfile
import time
from pathlib import Path

import pytest

import damaging
import events
import fanout
import logfiles
from fake_aws import GROUP, REGION
from harness import BUCKET, WHOLE_ORGANIZATION, wait_until
from test_api import client
from test_channels import make_channel
from trails import make_trail

LATE = WHOLE_ORGANIZATION | {"name": "late", "s3_bucket_name": "late-logs", "enable_log_file_validation": True}
MAIN = fanout.MAIN | {"enable_log_file_validation": True}
BUCKETS = {"main": BUCKET, "late": "late-logs", "api": "api-logs"}
QUICK = {"journal": {"segment_bytes": "128KiB"}, "delivery": {"max_age": "200ms", "max_bytes": "16KiB"}, "digest": {"interval": "1s"}}

#: One is drawn, then one of its files. The objects of the embedded store are no part of the promise.
KINDS = {
    "journal": ["journal/*.wal"],
    "ledger": ["ledger/*.wal"],
    "cursors": ["cursors/*"],
    "places of followed files": ["inputs.json"],
    "keys": ["keys/*"],
    "sealed digests": ["digests/*/*"],
    "history": ["history/*"],
    "remembered events": ["dedup/*"],
    "dead letters": ["dead-letters/*.ndjson"],
    "trails and channels": ["trails.json", "channels.json"],
    "identity": ["id", "lock"],
    "store": ["buckets/traild-store", "buckets/buckets/*/bucket.json"],
}
TOLD = ("damaged", "missing", "cannot be read", "torn")


@pytest.fixture
def memory_disk():
    """Folders are made and removed by the thousand here; what a real disk does with them is not the question."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="traild-damage-") as folder:
        yield Path(folder)


@pytest.fixture
def prepared(make_sender, aws, rng, memory_disk):
    """The daemon, killed, and all that it was answered 200 for: by the API's trail only what came after it was made."""
    followed = memory_disk / "followed.ndjson"
    followed.touch()
    daemon = make_sender([MAIN, LATE], name=memory_disk / "traild", config=QUICK | {"inputs": {"file": [{"path": str(followed)}]}})
    daemon.buckets = (BUCKET, "api-logs")
    aws.groups.discard((REGION, GROUP))
    daemon.start()
    before = events.spread(rng, 40)
    aws.poison = {events.event_id(before[0])}
    daemon.send(before)
    cloudtrail = client(daemon)
    make_trail(daemon, "api", "api-logs")
    cloudtrail.start_logging(Name="api")
    make_channel(cloudtrail)
    daemon.stop()
    daemon.start()
    objects = daemon.data_dir / "buckets" / "buckets" / "late-logs" / "objects"
    objects.rename(memory_disk / "objects")
    objects.write_text("a file where folders would be made: nothing more can be delivered there\n")
    followed.write_bytes(b"".join(event + b"\n" for event in events.spread(rng, 20)))
    daemon.send(events.spread(rng, 240))
    delivered = lambda: len(sent_to(daemon, "main")) == 300
    wait_until(delivered, 20, "the first trail's events")
    wait_until(lambda: len(list(daemon.data_dir.glob("digests/*main/*"))) and len(list(daemon.data_dir.glob("cursors/*"))) == 3, 20, "digests and cursors")
    wait_until(lambda: "ResourceNotFound" in daemon.log.read_text() and saved(daemon), 20, "the bus's cursor to be at the end")
    metrics = daemon.metrics()
    assert metrics.of_leg("pending", ("late", "s3")) >= 260 and metrics.of_leg("pending", ("main", "logs")) > 0, metrics.legs()
    daemon.kill()
    aws.groups.add((REGION, GROUP))
    aws.poison.clear()
    objects.unlink()
    (memory_disk / "objects").rename(objects)
    daemon.data_dir.rename(memory_disk / "prepared")
    daemon.buckets = tuple(BUCKETS.values())
    return daemon, memory_disk / "prepared"


def saved(daemon):
    """Cursors are saved every second: whether the bus's is, with all that it got."""
    cursor = json.loads((daemon.data_dir / "cursors" / "main.bus.json").read_text().split("\n", 1)[1])
    return cursor["delivered"] + sum(cursor["dead_lettered"].values()) >= 300


def sent_to(daemon, trail):
    return [record for file in logfiles.read(daemon.s3(), BUCKETS[trail]) for record in file.records]


def files_of(kind, folder):
    return sorted(path for pattern in KINDS[kind] for path in folder.glob(pattern) if path.is_file() and path.stat().st_size)


class Cost:
    """What the damage may have cost: events by their IDs, and trails of which everything is in doubt."""

    def __init__(self, before, after):
        journal, ledger = damaging.frames(before / "journal"), damaging.frames(before / "ledger")
        self.events = {position: damaging.event_of(payload) for position, payload in journal.items()}
        self.lost = {events.event_id(self.events[at]) for at in damaging.spoilt(before / "journal", after / "journal")}
        # A followed file whose place is lost is read again from its beginning; of an event whose frame is damaged nothing else is remembered.
        places = [(folder / "inputs.json").read_bytes() for folder in (before, after)]
        self.in_doubt = {trail: set(self.lost if places[0] != places[1] else ()) for trail in BUCKETS}
        sealed = {}
        spoilt = damaging.spoilt(before / "ledger", after / "ledger")
        for position, payload in ledger.items():
            for entry in damaging.entries_of(payload):
                batch = tuple(entry.get(name) for name in ("trail", "account", "region", "folder", "first"))
                if "positions" in entry:
                    sealed[batch] = {events.event_id(self.events[at]) for at in damaging.positions_of(entry) if at in self.events}
                if position in spoilt:
                    trail = entry["trail"].rpartition("/")[2]
                    everything = {events.event_id(event) for event in self.events.values()}
                    self.in_doubt[trail] |= sealed.get(batch, everything)


def check(daemon, trail, cost, accepted, later):
    """I1 and I3 for what was not damaged. Returns the eventIDs that are missing."""
    files = logfiles.read(daemon.s3(), BUCKETS[trail])
    doubt = cost.in_doubt[trail]
    for file in files:
        file.records = [record for record in file.records if record[1]["eventID"] not in doubt]
    sure = [event for event in accepted if events.event_id(event) not in cost.lost | doubt]
    unsure = [event for event in accepted if events.event_id(event) in cost.lost - doubt]
    logfiles.check(files, sure + later, unsure)
    present = {value["eventID"] for _, value in sent_to(daemon, trail)}
    return {events.event_id(event) for event in accepted} - present


def trial(daemon, prepared, aws, seed):
    rng = random.Random(f"trial {seed}")
    shutil.rmtree(daemon.data_dir, ignore_errors=True)
    shutil.copytree(prepared, daemon.data_dir)
    daemon.log.unlink(missing_ok=True)
    for kept in (aws.messages, aws.log_events, aws.entries, aws.acknowledged, aws.sent_again):
        kept.clear()
    kinds = [list(KINDS)[seed % len(KINDS)], *(rng.sample(list(KINDS), 1) if rng.random() < 0.3 else [])]
    paths = {rng.choice(files_of(kind, daemon.data_dir)) for kind in kinds}
    done = [f"{path.relative_to(daemon.data_dir)}: {damaging.damage(path, rng)}" for path in sorted(paths)]
    print(f"trial of seed {seed}: {done}")
    cost = Cost(prepared, daemon.data_dir)
    accepted = list(cost.events.values())

    start(daemon, prepared, done)
    later = events.spread(rng, 20)
    daemon.send(later)
    new = {events.event_id(event) for event in later}

    def at_rest():
        metrics = daemon.metrics()
        pending = [leg for leg in metrics.legs() if metrics.of_leg("pending", leg)]
        return not pending and all(new <= {value["eventID"] for _, value in sent_to(daemon, trail)} for trail in ("main", "late")) and metrics

    metrics = wait_until(at_rest, 20, f"{done}: everything to be delivered")
    metrics.check_books()
    missing = set().union(*(check(daemon, trail, cost, own(accepted, trail), later) for trail in ("main", "late")))
    wait_until(lambda: new <= set(fanout.event_ids(aws.logged())), 20, "the log group to have the new events")
    unlogged = {events.event_id(event) for event in accepted} - set(fanout.event_ids(aws.logged())) - cost.lost
    assert not unlogged, f"{done}: {len(unlogged)} events are missing from the log group, for example {sorted(unlogged)[:3]}"
    log = daemon.log.read_text(errors="replace")
    assert "panicked" not in log, f"{done}: {log}"
    if missing:
        told = [line for line in log.splitlines() if '"ERROR"' in line or '"WARN"' in line]
        assert any(word in line for line in told for word in TOLD), f"{done}: {len(missing)} events are gone and nobody is told\n{log}"
    daemon.kill()
    print(f"{len(missing)} of its events gone")
    return len(missing)


def start(daemon, prepared, done):
    """A store whose format is not known is refused, and named, as a later version's is; when its mark is put back, all is well.

    Half a mark is none: a crash leaves that.
    """
    mark = Path("buckets", "traild-store")
    if not (prepared / mark).read_bytes().startswith((daemon.data_dir / mark).read_bytes()):
        daemon.spawn()
        assert daemon.process.wait(10) == 1, f"{done}: it ended otherwise"
        last = daemon.log_tail(2)
        assert str(daemon.data_dir / "buckets") in last and "traild-store" in last, f"{done}: {last}"
        shutil.copy(prepared / mark, daemon.data_dir / mark)
    daemon.start()


def own(accepted, trail):
    """A trail of the file takes all that is not of traild's own calls."""
    return [event for event in accepted if not logfiles.is_own_call(json.loads(event))]


@pytest.mark.campaign("damage", trials=12)
def test_damaged_files_cost_no_more_than_their_records(prepared, aws, seed, campaign, report):
    daemon, folder = prepared
    empty = [kind for kind in KINDS if not files_of(kind, folder)]
    assert not empty, f"nothing to damage of {empty}"
    began, lost = time.monotonic(), 0
    for each in range(campaign.trials):
        lost += trial(daemon, folder, aws, seed + each)
        campaign.count(1)
    report(f"damage: {campaign.trials} damaged data_dirs, {lost} damaged events gone and told, {(time.monotonic() - began) / campaign.trials:.2f} s each")
