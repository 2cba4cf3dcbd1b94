"""Everything for as long as one likes (`--trials` is seconds): clients, faults of every destination, lookups, channels, trails that come and go.

One process all along: its memory, its descriptors and its threads are sampled. What the test itself remembers of an event is five bytes, so
that an hour of it fits: each has a number, which is its eventID, and a sum of its bytes.
"""

import json
import random
import re
import statistics
import threading
import time
import uuid
import zlib
from array import array
from collections import Counter
from pathlib import Path

import pytest

import events
import judges
import logfiles
from fake_aws import VALIDATION, FakeAws
from fanout import MAIN
from fault_proxy import FaultProxy, is_object_put
from harness import BUCKET, TEST_CREDENTIALS, Sender, wait_until
from test_api import client
from test_channels import make_channel
from test_put_audit_events import audit_event, data_client, entries
from trails import make_trail

MIB = 2**20
SENDERS = 4
S3_FAULTS = ["500", "503", "reset", "lost", "slow"]
AWS_FAULTS = ["throttled", "internal", "unavailable", "reset", "lost", "slow"]
SHARE = 0.04  # of the requests, that fail
LONG = 600  # seconds from which on growth of memory is told from noise
GROWTH = 5 * MIB  # an hour
SPARE_DESCRIPTORS = 10
WARMING_UP = 30  # descriptors that a short run may still gain; one a request would be hundreds


class Book:
    """The events by their numbers: how often each was accepted and arrived, and the sum of its bytes."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sums = array("I")
        self.accepted = bytearray()

    def make(self, rng):
        with self.lock:
            number = len(self.sums)
            self.sums.append(0)
            self.accepted.append(0)
        event = events.spread(rng, 1, accounts=2, regions=2, size=700, eventID=str(uuid.UUID(int=number)))[0]
        self.sums[number] = zlib.crc32(event)
        return event

    def accept(self, sent):
        for event in sent:
            self.accepted[number_of(json.loads(event))] = 1

    def arrived(self, records):
        """How often each event is among the records, which must be as they were sent."""
        times = bytearray(len(self.sums))
        for stored, value in records:
            number = number_of(value)
            assert zlib.crc32(stored) == self.sums[number], f"changed: {stored}"
            times[number] += 1
        return times

    def missing(self, times):
        return [number for number, accepted in enumerate(self.accepted) if accepted and not times[number]]


def number_of(value):
    return uuid.UUID(value["eventID"]).int


class CountingAws(FakeAws):
    """Remembers the numbers of what arrived, and no texts."""

    def __init__(self, **options):
        super().__init__(**options)
        self.numbers = {"logs": bytearray(), "events": bytearray()}
        self.told = set()

    def arrived(self, call, target, text):
        if call.service == "sns":
            self.told |= set() if text == VALIDATION else set(json.loads(text)["s3ObjectKey"])
        else:
            self.count(self.numbers[call.service], json.loads(text))
        for kept in (self.messages, self.log_events, self.entries):
            kept.clear()
        return call.service

    @staticmethod
    def count(times, value):
        if not logfiles.is_own_call(value) and value["eventCategory"] != "ActivityAuditLog":
            number = number_of(value)
            times.extend(bytes(max(0, number + 1 - len(times))))
            times[number] = 1


class Samples(threading.Thread):
    """What the process takes, again and again."""

    def __init__(self, daemon, every):
        super().__init__(daemon=True)
        self.process, self.every = Path(f"/proc/{daemon.process.pid}"), every
        self.memory = daemon.memory
        self.taken = []  # seconds, bytes, descriptors, threads
        self.stopping = threading.Event()

    def run(self):
        began = time.monotonic()
        while not self.stopping.wait(self.every):
            descriptors, threads = (len(list((self.process / what).iterdir())) for what in ("fd", "task"))
            self.taken.append((time.monotonic() - began, self.memory(), descriptors, threads))

    def finish(self):
        self.stopping.set()
        self.join(10)
        assert len(self.taken) >= 8, f"only {len(self.taken)} samples"
        return self.taken


def quarter(samples, which, column):
    """The median of a column in the first, second, third or last quarter of the time."""
    bounds = [len(samples) * edge // 4 for edge in (which - 1, which)]
    return statistics.median(sample[column] for sample in samples[slice(*bounds)])


def eighths(samples):
    """The memory in MiB: whether it still grows, or has grown at once, is seen when a run fails."""
    return [[memory / MIB for _, memory, *_ in samples[len(samples) * at // 8 : len(samples) * (at + 1) // 8]] for at in range(8)]


def growth(samples):
    """Bytes an hour in the second half, by least squares."""
    half = samples[len(samples) // 2 :]
    return statistics.linear_regression([at for at, *_ in half], [memory for _, memory, *_ in half]).slope * 3600


class Caller(threading.Thread):
    """Uses the API now and then: lookups, events by a channel, a trail that is made, used and deleted."""

    def __init__(self, daemon, rng):
        super().__init__(daemon=True)
        self.cloudtrail, self.data, self.rng, self.to = client(daemon), data_client(daemon), rng, daemon
        self.channel = make_channel(self.cloudtrail)
        self.sent, self.calls, self.failure = 0, Counter(), None
        self.stopping = threading.Event()

    def run(self):
        try:
            while not self.stopping.wait(0.5):
                call = self.rng.choice([self.look_up, self.look_up, self.send, self.send, self.change])
                call()
                self.calls[call.__name__] += 1
        except Exception as error:  # told to the test by finish()
            self.failure = error

    def look_up(self):
        by = {"AttributeKey": "EventName", "AttributeValue": "PutItem"}
        self.cloudtrail.lookup_events(LookupAttributes=self.rng.choice([[], [by]]))

    def send(self):
        uids = range(self.sent, self.sent + 5)
        answer = self.data.put_audit_events(channelArn=self.channel, auditEvents=entries(*(audit_event(f"edit-{uid}") for uid in uids)))
        assert not answer["failed"], answer
        self.sent += 5

    def change(self):
        """Faults may meet what is asked of the bucket, too; then there is no such trail."""
        if not self.cloudtrail.describe_trails(trailNameList=["passing"])["trailList"]:
            try:
                make_trail(self.to, "passing", "passing-logs")
            except self.cloudtrail.exceptions.ClientError:
                return
            self.cloudtrail.start_logging(Name="passing")
        else:
            self.cloudtrail.delete_trail(Name="passing")

    def finish(self):
        self.stopping.set()
        self.join(30)
        assert not self.is_alive(), "the caller did not end"
        if self.failure:
            raise self.failure
        return self


def sender_for(daemon, book, seed):
    rng = random.Random(seed)

    def batch():
        settle(sender, book)
        return [book.make(rng) for _ in range(10)]

    sender = Sender(daemon, batch, pause=0.2)
    return sender


def settle(sender, book):
    """The sender need not remember what was accepted."""
    book.accept(sender.accepted)
    sender.accepted.clear()
    sender.latencies.clear()


def stored(s3, bucket, keys):
    """The records of the log files one after the other, so that never all of them are in memory; their keys are added."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            key = item["Key"]
            if logfiles.is_digest(key) or (key.endswith("/") and item["Size"] == 0):
                continue
            keys.add(key)
            yield from logfiles.parse(key, s3.get_object(Bucket=bucket, Key=key)["Body"].read()).records


def check_bucket(book, s3, sent_by_channel):
    """I1 to I3. Returns the keys of the log files."""
    keys, channel = set(), Counter()

    def clients_records():
        for text, value in stored(s3, BUCKET, keys):
            if value["eventCategory"] == "ActivityAuditLog":
                channel[value["eventData"]["UID"]] += 1
            else:
                yield text, value

    times = book.arrived(clients_records())
    doubled = [number for number, count in enumerate(times) if count > 1]
    assert not doubled and not book.missing(times), f"{len(doubled)} doubled, {len(book.missing(times))} lost of {sum(book.accepted)}"
    assert channel == Counter(f"edit-{uid}" for uid in range(sent_by_channel)), "events of the channel are missing or doubled"
    return keys


@pytest.mark.campaign("soak", trials=20)
def test_a_daemon_that_runs_on_and_on_under_load_and_faults(make_daemon, rng, seed, campaign, report):
    seconds = campaign.trials
    store = make_daemon("store", config={"trails": []}, buckets=(BUCKET, "passing-logs")).start()
    few = lambda kinds, wanted=lambda asked: True: lambda asked, rng: rng.choice(kinds) if rng.random() < SHARE and wanted(asked) else None
    with FaultProxy(store.store_port, seed=seed, delay=0.3) as proxy, CountingAws(seed=seed, delay=0.3) as aws:
        config = {
            "storage": {"kind": "s3"},
            "aws": {"force_path_style": True},
            "trails": [MAIN | {"enable_log_file_validation": True}],
            "digest": {"interval": f"{max(3, seconds // 60)}s"},
            "ingest": {"dedup_window": 20_000},
            "journal": {"segment_bytes": "1MiB"},
        }
        env = TEST_CREDENTIALS | {"AWS_ENDPOINT_URL": aws.endpoint, "AWS_ENDPOINT_URL_S3": proxy.endpoint}
        daemon = make_daemon(config=config, env=env).start()
        book, caller = Book(), Caller(daemon, random.Random(rng.random()))
        senders = [sender_for(daemon, book, rng.random()) for _ in range(SENDERS)]
        samples = Samples(daemon, 5 if seconds >= LONG else 0.5)
        proxy.choose, aws.choose = few(S3_FAULTS, is_object_put), few(AWS_FAULTS)
        threads = [*senders, caller, samples]
        for thread in threads:
            thread.start()
        ended = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > ended or not all(t.is_alive() for t in threads) or not daemon.running(), seconds + 10, "the end")
        for sender in senders:
            settle(sender.finish(), book)
        caller.finish()
        samples = samples.finish()
        proxy.heal()
        aws.heal()

        daemon.drain_everywhere(90)
        aws.check()
        keys = check_bucket(book, store.s3(), caller.sent)
        for service, numbers in aws.numbers.items():
            assert not book.missing(numbers + bytes(len(book.sums) - len(numbers))), f"events are missing at {service}"
        proxy.check_redone_bytes()
        daemon.metrics().check_books()
        # Asking is recorded, and makes more log files.
        wait_until(lambda: verified(daemon, store) >= len(keys), 60 + seconds // 20, "all log files to be in a digest, and valid")
        assert "panicked" not in daemon.log.read_text(errors="replace")

    fired = sum(proxy.fired.values()) + sum(aws.fired.values())
    assert proxy.fired and aws.fired and all(caller.calls[name] for name in ("look_up", "send")), caller.calls
    descriptors = [quarter(samples, which, 2) for which in (2, 4)]
    assert abs(descriptors[1] - descriptors[0]) <= (SPARE_DESCRIPTORS if seconds >= LONG else WARMING_UP), f"descriptors: {descriptors}"
    an_hour = growth(samples)
    print("MiB, by eighths of the time:", [round(statistics.median(eighth), 1) for eighth in eighths(samples)])
    assert seconds < LONG or an_hour < GROWTH, f"memory grows by {an_hour / MIB:.1f} MiB an hour"
    campaign.count(1, fired)
    memory = [quarter(samples, which, 1) / MIB for which in (2, 4)]
    report(
        f"soak: {seconds} s, {sum(book.accepted)} events, {fired} faults {dict(proxy.fired + aws.fired)}, calls {dict(caller.calls)};"
        f" {len(keys)} log files, all valid; memory {memory[0]:.0f}→{memory[1]:.0f} MiB, {an_hour / MIB:+.1f} MiB an hour;"
        f" descriptors {descriptors[0]:.0f}→{descriptors[1]:.0f}, threads {quarter(samples, 2, 3):.0f}→{quarter(samples, 4, 3):.0f}"
    )


def verified(daemon, store):
    """I5, as `traild verify` has it: how many log files it finds valid, of all chains, when it finds nothing else."""
    verdict = judges.verify(daemon, store.store_endpoint)
    counts = re.findall(r"^(\d+)/(\d+) log files? valid", verdict.out, re.MULTILINE)
    return sum(int(valid) for valid, of in counts if valid == of) if verdict.code == 0 else 0
