"""Trails that send on, and what arrived at the fake AWS held against what was sent and what lies in S3."""

import json
from collections import Counter
from datetime import datetime

import logfiles
from fake_aws import ACCOUNT, BUS, GROUP, GROUP_ARN, REGION, TOPIC, VALIDATION
from harness import BUCKET, WHOLE_ORGANIZATION

#: Sends everything everywhere.
MAIN = WHOLE_ORGANIZATION | {"sns_topic_arn": TOPIC, "cloud_watch_logs_log_group_arn": GROUP_ARN, "event_bus": BUS}
STREAM = f"{ACCOUNT}_CloudTrail_{REGION}"


def trail_of_its_own(aws, name, **changes):
    """A trail like the main one with a bucket, a topic, a log group and a bus of its own, which are there."""
    group, topic = f"{name}-group", f"{TOPIC}-{name}"
    aws.topics.add(topic)
    aws.groups.add((REGION, group))
    aws.buses.add((REGION, name))
    own = {
        "name": name,
        "s3_bucket_name": f"{name}-logs",
        "sns_topic_arn": topic,
        "cloud_watch_logs_log_group_arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:*",
        "event_bus": name,
    }
    return WHOLE_ORGANIZATION | own | changes


def event_ids(texts):
    return Counter(json.loads(text)["eventID"] for text in texts)


def check(daemon, aws, accepted, others=(), trail=MAIN, but=(), once=True):
    """Holds S3, topic, log group and bus of a trail against the events that were accepted, and those that were never answered.

    `but` are eventIDs that log group and bus refuse. Unless `once`, the three may get things twice. Returns how many they did.
    """
    aws.check()
    bucket, topic, bus = trail["s3_bucket_name"], trail["sns_topic_arn"], trail["event_bus"]
    group = trail["cloud_watch_logs_log_group_arn"].split(":")[6]
    files = logfiles.read(daemon.s3(), bucket)
    logfiles.check(files, accepted, others)
    stored = {value["eventID"]: text.decode() for file in files for text, value in file.records}
    expected = set(event_ids(accepted)) - set(but)
    logged, on_bus = aws.logged(group), aws.on_bus(bus)
    doubled = {
        "sns": check_notifications(aws, topic, bucket, files),
        "logs": check_events("log events", logged, expected, stored),
        "bus": check_events("entries of the bus", on_bus, expected, stored),
    }
    check_streams(aws, group)
    check_entries(aws, bus)
    assert not once or not any(doubled.values()), f"doubled: {doubled}"
    return doubled


def check_events(what, texts, expected, stored):
    """Each expected event has arrived, with the very bytes that S3 has. Returns how many too many there are."""
    found = event_ids(texts)
    missing = expected - set(found)
    assert not missing, f"{len(missing)} of {len(expected)} events are not among the {what}, for example {list(missing)[:3]}"
    for text in texts:
        event_id = json.loads(text)["eventID"]
        assert text == stored.get(event_id), f"{what}: not what is stored of {event_id}: {text[:300]}"
    return sum(found.values()) - len(found)


def check_notifications(aws, topic, bucket, files):
    """CloudTrail's first message, once, and then each object. Returns how many too many there are."""
    messages = [message.text for message in list(aws.messages[topic])]
    assert messages[:1] == [VALIDATION], messages[:1]
    told = Counter(aws.notifications(topic))
    assert set(told) == {(bucket, file.key) for file in files}, set(told) ^ {(bucket, file.key) for file in files}
    assert not any("Subject" in message.parameters for message in list(aws.messages[topic]))
    return len(messages) - 1 - len(told)


def check_streams(aws, group):
    streams = {stream for of, stream in list(aws.log_events) if of == group}
    assert STREAM in streams, streams
    assert all(stream == STREAM or stream.removeprefix(f"{STREAM}_").isdigit() for stream in streams), streams


def check_entries(aws, bus):
    for delivery in list(aws.entries[bus]):
        entry, event = delivery.parameters, delivery.value
        service = event["eventSource"].removesuffix(".amazonaws.com")
        assert entry["Source"] == f"traild.{service}", entry["Source"]
        assert entry["DetailType"] == "AWS API Call via CloudTrail", entry["DetailType"]
        assert datetime.fromisoformat(event["eventTime"]).timestamp() == entry["Time"], entry
        assert not entry.get("Resources"), entry["Resources"]
