"""The whole life of a trail by one client, against the real daemon: its bucket, logging, selectors, events, their lookup, its status, its log
files' validation, its end. Once by the unmodified AWS CLI and once by boto3; tests/life.rs does the same by AWS's SDK for Rust.
"""

import json
import uuid
from datetime import datetime, timedelta, timezone

import boto3
import pytest

import logfiles
from digests import QUICK
from events import HOME_ACCOUNT, HOME_REGION, make
from harness import TEST_CREDENTIALS, run_cli, wait_until
from judges import validate_logs

BUCKET = "life-logs"
WRITES = [{"ReadWriteType": "WriteOnly", "IncludeManagementEvents": True}]


class ByCli:
    """`aws cloudtrail create-trail --name …`, as typed."""

    def __init__(self, daemon):
        self.env = TEST_CREDENTIALS | {
            "AWS_ENDPOINT_URL_CLOUDTRAIL": daemon.api_endpoint,
            "AWS_ENDPOINT_URL_S3": daemon.store_endpoint,
            "AWS_DEFAULT_REGION": HOME_REGION,
        }

    def run(self, *words):
        code, out, err = run_cli("aws", *words, env=self.env)
        assert code == 0, (words, err)
        return json.loads(out) if out.strip().startswith("{") else None

    def make_bucket(self):
        self.run("s3", "mb", f"s3://{BUCKET}")

    def create_trail(self, name):
        words = ["--name", name, "--s3-bucket-name", BUCKET, "--is-multi-region-trail", "--enable-log-file-validation"]
        return self.run("cloudtrail", "create-trail", *words)["TrailARN"]

    def start_logging(self, name):
        self.run("cloudtrail", "start-logging", "--name", name)

    def put_event_selectors(self, name, selectors):
        self.run("cloudtrail", "put-event-selectors", "--trail-name", name, "--event-selectors", json.dumps(selectors))

    def lookup_events(self, key, value):
        words = ["--lookup-attributes", f"AttributeKey={key},AttributeValue={value}"]
        return self.run("cloudtrail", "lookup-events", *words)["Events"]

    def get_trail_status(self, name):
        return self.run("cloudtrail", "get-trail-status", "--name", name)

    def stop_logging(self, name):
        self.run("cloudtrail", "stop-logging", "--name", name)

    def delete_trail(self, name):
        self.run("cloudtrail", "delete-trail", "--name", name)

    def names(self):
        return [trail["Name"] for trail in self.run("cloudtrail", "list-trails")["Trails"]]


class ByBoto3:
    def __init__(self, daemon):
        options = {"region_name": HOME_REGION, "aws_access_key_id": "test", "aws_secret_access_key": "test"}
        self.s3 = boto3.client("s3", endpoint_url=daemon.store_endpoint, **options)
        self.cloudtrail = boto3.client("cloudtrail", endpoint_url=daemon.api_endpoint, **options)

    def make_bucket(self):
        self.s3.create_bucket(Bucket=BUCKET)

    def create_trail(self, name):
        settings = {"IsMultiRegionTrail": True, "EnableLogFileValidation": True}
        return self.cloudtrail.create_trail(Name=name, S3BucketName=BUCKET, **settings)["TrailARN"]

    def start_logging(self, name):
        self.cloudtrail.start_logging(Name=name)

    def put_event_selectors(self, name, selectors):
        self.cloudtrail.put_event_selectors(TrailName=name, EventSelectors=selectors)

    def lookup_events(self, key, value):
        attribute = {"AttributeKey": key, "AttributeValue": value}
        pages = self.cloudtrail.get_paginator("lookup_events").paginate(LookupAttributes=[attribute])
        return [event for page in pages for event in page["Events"]]

    def get_trail_status(self, name):
        return self.cloudtrail.get_trail_status(Name=name)

    def stop_logging(self, name):
        self.cloudtrail.stop_logging(Name=name)

    def delete_trail(self, name):
        self.cloudtrail.delete_trail(Name=name)

    def names(self):
        pages = self.cloudtrail.get_paginator("list_trails").paginate()
        return [trail["Name"] for page in pages for trail in page["Trails"]]


@pytest.mark.parametrize("by", [ByCli, ByBoto3])
def test_the_whole_life_of_a_trail(make_daemon, rng, by):
    daemon = make_daemon(config=QUICK | {"digest": {"interval": "2s"}}).start()
    client, began = by(daemon), datetime.now(timezone.utc)
    client.make_bucket()
    arn = client.create_trail("life")
    assert arn == f"arn:aws:cloudtrail:{HOME_REGION}:{HOME_ACCOUNT}:trail/life"
    daemon.send([make(rng, readOnly=False)])  # before it logs
    client.start_logging("life")
    client.put_event_selectors("life", WRITES)

    user = f"user-{uuid.uuid4()}"
    identity = {"type": "IAMUser", "accountId": HOME_ACCOUNT, "userName": user}
    writes = [make(rng, readOnly=False, userIdentity=identity, eventName="CreateUser") for _ in range(5)]
    reads = [make(rng, userIdentity=identity, eventName="GetUser") for _ in range(5)]
    daemon.send(writes + reads)

    found = wait_until(lambda: all_of(client.lookup_events("Username", user), 10), 20, "the events in the history")
    assert {event["CloudTrailEvent"].encode() for event in found} == set(writes + reads), "byte for byte, selected or not"
    assert {event["EventName"] for event in client.lookup_events("EventName", "CreateUser")} == {"CreateUser"}

    status = wait_until(lambda: delivered(client.get_trail_status("life")), 20, "a log file and a digest of the trail")
    assert status["IsLogging"] is True and "LatestDeliveryError" not in status
    validated = lambda: validate_logs(daemon.api_endpoint, daemon.store_endpoint, arn, HOME_REGION, began - timedelta(minutes=1))
    verdict = wait_until(lambda: valid(validated()), 30, "log files that the AWS CLI calls valid")
    assert verdict.code == 0 and not verdict.complaints(), verdict
    records = recorded(daemon)
    assert sorted(event for event in records if event in writes + reads) == sorted(writes), "what it selects, each once"

    client.stop_logging("life")
    assert client.get_trail_status("life")["IsLogging"] is False
    client.delete_trail("life")
    assert client.names() == ["main"]
    assert set(records) <= set(recorded(daemon)), "its log files stay"


def recorded(daemon):
    return [stored for file in logfiles.read(daemon.s3(), BUCKET) for stored, _ in file.records]


def all_of(events, count):
    return events if len(events) == count else None


def delivered(status):
    return status if {"LatestDeliveryTime", "LatestDigestDeliveryTime"} <= set(status) else None


def valid(verdict):
    """The run's verdict, once a log file has come into a digest."""
    digests, logs = verdict.counts("digest"), verdict.counts("log")
    return verdict if logs[0] > 0 and digests[0] == digests[1] and logs[0] == logs[1] else None
