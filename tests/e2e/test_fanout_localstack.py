"""A real emulator's topic, log group and event bus get what two trails select of the corpus: by eventID, none missing, none doubled.

What is selected is worked out here from the text of CLOUDTRAIL's user guide, not by traild.
"""

import json
import time
from collections import Counter

import boto3
import pytest

import events
import logfiles
from fake_aws import VALIDATION
from harness import TEST_CREDENTIALS, WHOLE_ORGANIZATION, Daemon, delivering_to, ensure_bucket, s3_client, wait_until

REGION = "us-east-1"
KIB = 1024
CHOSEN_OBJECTS = ["arn:aws:s3:::payroll/", "arn:aws:s3:::reports/2026/"]
SELECTORS = [
    {
        "Name": "management except KMS",
        "FieldSelectors": [
            {"Field": "eventCategory", "Equals": ["Management"]},
            {"Field": "eventSource", "NotEquals": ["kms.amazonaws.com"]},
        ],
    },
    {
        "Name": "objects",
        "FieldSelectors": [
            {"Field": "eventCategory", "Equals": ["Data"]},
            {"Field": "resources.type", "Equals": ["AWS::S3::Object"]},
            {"Field": "resources.ARN", "StartsWith": CHOSEN_OBJECTS},
        ],
    },
]


def is_chosen(event):
    """SELECTORS, spelled out."""
    if event["eventCategory"] == "Management":
        return event["eventSource"] != "kms.amazonaws.com"
    objects = [each.get("ARN", "") for each in event.get("resources") or [] if each.get("type") == "AWS::S3::Object"]
    return event["eventCategory"] == "Data" and any(arn.startswith(prefix) for arn in objects for prefix in CHOSEN_OBJECTS)


def data_events(rng):
    """Access to objects, functions and tables, which the corpus is short of."""
    kinds = [
        ("s3", "AWS::S3::Object", "arn:aws:s3:::payroll/june"),
        ("s3", "AWS::S3::Object", "arn:aws:s3:::payroll-copy/june"),
        ("s3", "AWS::S3::Object", "arn:aws:s3:::reports/2026/june"),
        ("s3", "AWS::S3::Object", "arn:aws:s3:::reports/2025/june"),
        ("lambda", "AWS::Lambda::Function", "arn:aws:lambda:us-east-1:111122223333:function:payroll"),
        ("dynamodb", "AWS::DynamoDB::Table", "arn:aws:dynamodb:us-east-1:111122223333:table/payroll"),
    ]
    for service, kind, arn in kinds * 20:
        resources = [{"type": kind, "ARN": arn, "accountId": events.HOME_ACCOUNT}]
        about = {"eventSource": f"{service}.amazonaws.com", "resources": resources}
        yield events.make(rng, eventCategory="Data", managementEvent=False, readOnly=rng.random() < 0.5, **about)


class Place:
    """A bucket, a topic and a bus with a queue behind each, and a log group, at LocalStack."""

    def __init__(self, endpoint, name):
        self.name = name
        options = {"endpoint_url": endpoint, "region_name": REGION, "aws_access_key_id": "test", "aws_secret_access_key": "test"}
        self.s3, self.sqs = s3_client(endpoint), boto3.client("sqs", **options)
        self.logs, self.bus = boto3.client("logs", **options), boto3.client("events", **options)
        sns = boto3.client("sns", **options)
        ensure_bucket(self.s3, name)
        self.topic = sns.create_topic(Name=name)["TopicArn"]
        self.topic_queue, arn = self.queue(f"{name}-topic")
        sns.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn)
        self.logs.create_log_group(logGroupName=name)
        self.bus_arn = self.bus.create_event_bus(Name=name)["EventBusArn"]
        self.bus_queue, arn = self.queue(f"{name}-bus")
        self.bus.put_rule(Name=name, EventBusName=name, EventPattern=json.dumps({"source": [{"prefix": "traild."}]}))
        failed = self.bus.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "queue", "Arn": arn}])["FailedEntries"]
        assert not failed, failed

    def queue(self, name):
        url = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        return url, self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    def trail(self, **changes):
        group = self.topic.replace(":sns:", ":logs:").removesuffix(self.name) + f"log-group:{self.name}:*"
        own = {"name": self.name, "s3_bucket_name": self.name, "sns_topic_arn": self.topic, "event_bus": self.bus_arn}
        return WHOLE_ORGANIZATION | own | {"cloud_watch_logs_log_group_arn": group} | changes

    def received(self, url, count):
        """Bodies of the messages in a queue: as many as are expected, and whatever else is there."""
        bodies, empty, deadline = [], 0, time.monotonic() + 60
        while empty < 3 and time.monotonic() < deadline:
            got = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
            bodies += [message["Body"] for message in got]
            if got:
                entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(got)]
                self.sqs.delete_message_batch(QueueUrl=url, Entries=entries)
            empty = 0 if got or len(bodies) < count else empty + 1
        return bodies

    def logged(self):
        """Messages by stream."""
        streams = {}
        for page in self.logs.get_paginator("describe_log_streams").paginate(logGroupName=self.name):
            for stream in page["logStreams"]:
                name = stream["logStreamName"]
                pages = self.logs.get_paginator("filter_log_events").paginate(logGroupName=self.name, logStreamNames=[name])
                streams[name] = [event["message"] for page in pages for event in page["events"]]
        return streams


def test_the_corpus_reaches_topic_log_group_and_bus_as_selected(make_daemon, localstack, rng, report):
    everything, chosen = (Place(localstack, f"{name}-{rng.getrandbits(32):08x}") for name in ("all", "chosen"))
    trails = [everything.trail(), chosen.trail(advanced_event_selectors=SELECTORS)]
    delivery = {"max_age": "2s"}
    config = delivering_to(localstack) | {"trails": trails, "delivery": delivery, "ingest": {"max_event_bytes": "1MiB"}}
    daemon: Daemon = make_daemon(config=config, env=TEST_CREDENTIALS)
    daemon.start()

    large = events.make(rng, size=300 * KIB)
    given = [event for _, event in events.corpus()] + list(data_events(rng)) + [large]
    for start in range(0, len(given), 200):
        status, _, answer = daemon.post(b"\n".join(given[start : start + 200]))
        assert status == 200, answer
    metrics = daemon.drain_everywhere(180)

    files = logfiles.read(everything.s3, everything.name)
    stored = {text.decode(): value for file in files for text, value in file.records}
    assert len(stored) > 3600
    selected = {text: value for text, value in stored.items() if is_chosen(value)}
    data = [value for value in selected.values() if value["eventCategory"] == "Data"]
    assert len(data) == 40 and 200 < len(stored) - len(selected) < 500
    chosen_files = logfiles.read(chosen.s3, chosen.name)
    in_chosen_files = Counter(text.decode() for file in chosen_files for text, _ in file.records)
    assert in_chosen_files == Counter(selected.keys())

    large_text = next(text for text in stored if len(text) > 256 * KIB)
    for place, expected, its_files in [(everything, stored, files), (chosen, selected, chosen_files)]:
        sendable = {text: value for text, value in expected.items() if text != large_text}
        for sink in ("logs", "bus"):
            too_large = metrics.total("traild_events_dead_lettered_total", trail=place.name, sink=sink, reason="too_large")
            assert too_large == 1 == metrics.total("traild_events_dead_lettered_total", trail=place.name, sink=sink)
        check_topic(place, its_files)
        check_logs(place, sendable)
        check_bus(place, sendable)
        report(f"LocalStack, {place.name}: {len(sendable)} events in log group and on the bus, {len(its_files)} objects told, each once")


def check_topic(place, files):
    notifications = [json.loads(body) for body in place.received(place.topic_queue, len(files) + 1)]
    assert {each["Type"] for each in notifications} == {"Notification"}
    messages = [each["Message"] for each in notifications]
    assert messages.count(VALIDATION) == 1
    told = [json.loads(message) for message in messages if message != VALIDATION]
    assert all(each["s3Bucket"] == place.name for each in told)
    assert Counter(key for each in told for key in each["s3ObjectKey"]) == Counter(file.key for file in files)


def check_logs(place, expected):
    streams = place.logged()
    stream = f"{events.HOME_ACCOUNT}_CloudTrail_{REGION}"
    assert stream in streams and all(name == stream or name.startswith(f"{stream}_") for name in streams), list(streams)
    assert Counter(text for texts in streams.values() for text in texts) == Counter(expected.keys())


def check_bus(place, expected):
    envelopes = [json.loads(body) for body in place.received(place.bus_queue, len(expected))]
    found = Counter(canonical(each["detail"]) for each in envelopes)
    wanted = Counter(canonical(value) for value in expected.values())
    assert found == wanted, f"{len(wanted - found)} missing, {len(found - wanted)} too many"
    for each in envelopes:
        event = each["detail"]
        service = event.get("eventSource", "cloudtrail").removesuffix(".amazonaws.com")
        assert each["source"] == f"traild.{service}"
        assert each["detail-type"] == detail_type(event), event
        assert each["time"] == event["eventTime"]
        assert (each["version"], each["region"], each["resources"]) == ("0", REGION, [])
        assert each["id"] != event["eventID"]


def canonical(value):
    return json.dumps(value, sort_keys=True)


def detail_type(event):
    names = {
        "AwsConsoleSignIn": "AWS Console Sign In via CloudTrail",
        "AwsConsoleAction": "AWS Console Action via CloudTrail",
        "AwsServiceEvent": "AWS Service Event via CloudTrail",
        "AwsCloudTrailInsight": "AWS Insight via CloudTrail",
    }
    return names.get(event["eventType"], "AWS API Call via CloudTrail")


@pytest.mark.parametrize("missing", ["topic", "group", "bus"])
def test_what_localstack_lacks_is_told_and_delivered_once_it_is_there(make_daemon, localstack, rng, missing):
    place = Place(localstack, f"late-{missing}-{rng.getrandbits(32):08x}")
    sns = boto3.client("sns", endpoint_url=localstack, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test")
    if missing == "topic":
        sns.delete_topic(TopicArn=place.topic)
    elif missing == "group":
        place.logs.delete_log_group(logGroupName=place.name)
    else:
        place.bus.remove_targets(Rule=place.name, EventBusName=place.name, Ids=["queue"])
        place.bus.delete_rule(Name=place.name, EventBusName=place.name)
        place.bus.delete_event_bus(Name=place.name)
    daemon = make_daemon(config=delivering_to(localstack) | {"trails": [place.trail()]}, env=TEST_CREDENTIALS)
    daemon.start()
    sent = events.make_many(rng, 30)
    daemon.send(sent)
    sink = {"topic": "sns", "group": "logs", "bus": "bus"}[missing]
    error = wait_until(lambda: daemon.sink_status(sink, place.name)["last_error"], 30, f"an error of {sink}")
    assert error["code"].startswith(("NotFound", "ResourceNotFound")) and place.name in error["message"], error
    if missing == "topic":
        sns.create_topic(Name=place.name)
    elif missing == "group":
        place.logs.create_log_group(logGroupName=place.name)
    else:
        place.bus.create_event_bus(Name=place.name)
    daemon.drain_everywhere(90)
    assert not daemon.dead_letters()
    if missing == "group":
        assert Counter(text for texts in place.logged().values() for text in texts) == Counter(event.decode() for event in sent)
