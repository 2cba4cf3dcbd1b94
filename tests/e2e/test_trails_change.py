"""Trails that come and go under load: each change takes effect without a restart, and nothing is lost or doubled for anybody.

A trail records what is accepted between StartLogging and StopLogging, to the event: what was answered before the one was asked or sent after
the other was answered is not in its bucket, and everything between is, once. The trail of the configuration takes everything throughout.
"""

import random
import threading
import time

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

import events
import logfiles
from crashing import SMALL, outcome, senders_for
from harness import BUCKET, TEST_CREDENTIALS, ensure_bucket, wait_until

CHANGING = SMALL | {"digest": {"interval": "1s"}}
LIVES = 4  # with that of the configuration, as many as a region may have


@pytest.fixture
def daemon(make_daemon):
    daemon = make_daemon(config=CHANGING)
    daemon.start()
    return daemon


def cloudtrail(daemon):
    return boto3.client(
        "cloudtrail",
        endpoint_url=daemon.api_endpoint,
        region_name="us-east-1",
        aws_access_key_id=TEST_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=TEST_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"max_attempts": 0}),
    )


class Life(threading.Thread):
    """A trail from its creation to its deletion."""

    def __init__(self, daemon, name, rng):
        super().__init__()
        self.rng = random.Random(rng.getrandbits(64))
        self.daemon_under_test, self.trail, self.bucket = daemon, name, f"{name}-logs"
        self.failure = None
        self.recorded, self.passed = [], []

    def run(self):
        try:
            self.live()
        except (AssertionError, ClientError, BotoCoreError, OSError) as failure:
            self.failure = failure

    def send(self, to):
        sent = [events.make(self.rng) for _ in range(5)]
        self.daemon_under_test.send(sent)
        to.extend(sent)

    def live(self):
        client, name = cloudtrail(self.daemon_under_test), self.trail
        ensure_bucket(self.daemon_under_test.s3(), self.bucket)
        client.create_trail(Name=name, S3BucketName=self.bucket, EnableLogFileValidation=True)
        for _ in range(2):
            self.send(self.passed)
            client.start_logging(Name=name)
            self.send(self.recorded)
            time.sleep(0.7)
            self.send(self.recorded)
            client.stop_logging(Name=name)
            self.send(self.passed)
        client.delete_trail(Name=name)
        self.send(self.passed)

    def mine(self):
        """Of the events that this thread sent, those in the trail's bucket."""
        sent = {events.event_id(event) for event in self.recorded + self.passed}
        files = logfiles.read(self.daemon_under_test.s3(), self.bucket)
        found = [value["eventID"] for file in files for _, value in file.records]
        assert len(found) == len(set(found)), f"{self.trail} has events twice"
        return {each for each in found if each in sent}


def is_drained(daemon):
    metrics = daemon.metrics()
    routed = metrics.by_trail("traild_events_routed_total")["main"]
    return routed >= daemon.answered and not any(metrics.by_trail("traild_events_pending").values())


def test_trails_record_from_start_to_stop_and_disturb_nobody(daemon, rng, report):
    senders = senders_for(daemon, rng)
    lives = [Life(daemon, f"life{number}", rng) for number in range(LIVES)]
    for sender in senders:
        sender.start()
    for life in lives:
        life.start()
        time.sleep(0.3)
    for life in lives:
        life.join(60)
        assert life.failure is None, life.failure
    for sender in senders:
        sender.finish()
    wait_until(lambda: is_drained(daemon), 60, "main to deliver everything")
    for life in lives:
        recorded = {events.event_id(event) for event in life.recorded}
        wait_until(lambda life=life, recorded=recorded: life.mine() >= recorded, 20, f"all that {life.trail} recorded")
        assert life.mine() == recorded
    accepted, unanswered = outcome(senders)
    files = logfiles.read(daemon.s3(), BUCKET)
    ours = [event for life in lives for event in life.recorded + life.passed]
    logfiles.check(files, accepted + ours, unanswered)
    assert [trail["Name"] for trail in cloudtrail(daemon).describe_trails()["trailList"]] == ["main"]
    daemon.metrics().check_books()
    report(f"{LIVES} trails lived twice under load of {len(accepted)} events; each has exactly its own, main has all once")

