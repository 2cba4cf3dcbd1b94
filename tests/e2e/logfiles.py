"""Reads log files back from S3 and holds them against what was sent: the invariants of "nothing lost, nothing doubled".

I1  every accepted event is in exactly one object, byte-equal, under its own account, region and folder
I2  an event that was refused or never answered need not be there; if it is, then intact and once
I3  every object is one gzip member with valid JSON
I4  no two objects share an event (that a redo writes the same bytes is seen where the PUTs pass, in fault_proxy.py)
"""

import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass

KEY = re.compile(
    r"(?:(?P<prefix>.+)/)?AWSLogs/(?:(?P<organization>o-[a-z0-9]{10,32})/)?(?P<account>\d{12})"
    r"/(?P<folder>CloudTrail|CloudTrail-Insight|CloudTrail-NetworkActivity)/(?P<region>[a-z][a-z0-9-]{1,30}[a-z0-9])"
    r"/(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d)"
    r"/(?P=account)_(?P=folder)_(?P=region)_(?P<date>\d{8})T(?P<minute>\d{4})Z_(?P<unique>[0-9A-Za-z]{16})\.json\.gz"
)
FOLDERS = {"Insight": "CloudTrail-Insight", "NetworkActivity": "CloudTrail-NetworkActivity"}


@dataclass
class LogFile:
    key: str
    parts: dict
    records: list  # (bytes as stored, value)
    own_calls: list  # values of the records that traild made of what its API was asked


def read(s3, bucket, prefix=""):
    """Every log file of the bucket, checked on its own: key, gzip, JSON, and that its records belong where it lies."""
    files = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            if item["Key"].endswith("/") and item["Size"] == 0:
                continue  # CloudTrail's own marker objects
            if is_digest(item["Key"]):
                continue
            body = s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            files.append(parse(item["Key"], body))
    return files


def is_digest(key):
    return "/CloudTrail-Digest/" in key


def parse(key, body):
    match = KEY.fullmatch(key)
    assert match, f"not a CloudTrail key: {key}"
    parts = match.groupdict()
    assert parts["date"] == parts["year"] + parts["month"] + parts["day"], key
    records = split_records(gunzip_one_member(key, body), key)
    assert records, f"{key} holds no record"
    for _, value in records:
        identity = value.get("userIdentity") or {}
        account = value.get("recipientAccountId") or identity.get("accountId")
        assert account in (None, parts["account"]), f"{key} holds an event of account {account}"
        assert value["awsRegion"] == parts["region"], f"{key} holds an event of {value['awsRegion']}"
        assert FOLDERS.get(value.get("eventCategory"), "CloudTrail") == parts["folder"], key
    own_calls = [value for _, value in records if is_own_call(value)]
    return LogFile(key, parts, [record for record in records if not is_own_call(record[1])], own_calls)


def is_own_call(value):
    """Whether traild made it of a call of its API by a test, all of which come from this machine; no sample event does."""
    of_api = value.get("eventSource") in ("cloudtrail.amazonaws.com", "organizations.amazonaws.com")
    return of_api and value.get("sourceIPAddress") == "127.0.0.1"


def gunzip_one_member(key, body):
    inflate = zlib.decompressobj(wbits=31)
    text = inflate.decompress(body)
    assert inflate.eof, f"{key}: gzip is torn"
    assert not inflate.unused_data, f"{key}: more than one gzip member"
    return text


def split_records(text, key=""):
    """The records with their bytes as stored: the envelope is compact, so they lie between commas and nothing else."""
    text = text.decode("utf-8")
    head, tail = '{"Records":[', "]}"
    assert text.startswith(head) and text.endswith(tail), f"{key}: not the envelope: {text[:40]!r} … {text[-10:]!r}"
    decoder, at, records = json.JSONDecoder(), len(head), []
    while True:
        value, end = decoder.raw_decode(text, at)
        records.append((text[at:end].encode(), value))
        if text[end] != ",":
            break
        at = end + 1
    assert end == len(text) - len(tail), f"{key}: stray bytes at {end}"
    return records


def same(given, stored):
    """The stored record is the given bytes, or begins with them and goes on with the fields that were filled."""
    return stored == given or (stored.startswith(given[:-1] + b",") and stored.endswith(b"}"))


def check(files, accepted, others=()):
    """Holds the files of one trail against the events: `accepted` were answered 200, `others` were sent and not answered.

    Both are the events as sent, each with an eventID of its own. Returns how many of the others are there.
    """
    accepted = {json.loads(event)["eventID"]: event for event in accepted}
    others = {json.loads(event)["eventID"]: event for event in others}
    found = Counter()
    for file in files:
        for stored, value in file.records:
            given = accepted.get(value["eventID"]) or others.get(value["eventID"])
            assert given, f"{file.key} holds {value['eventID']}, which was never sent"
            assert same(given, stored), f"{file.key} changed {value['eventID']}:\n{given}\n{stored}"
            found[value["eventID"]] += 1
    keys = Counter(file.key for file in files)
    assert len(keys) == len(files)
    doubled = [event for event, times in found.items() if times > 1]
    lost = [event for event in accepted if event not in found]
    assert not doubled, f"{len(doubled)} of {len(found)} events are in more than one place: {where(files, doubled[:3])}"
    assert not lost, f"{len(lost)} of {len(accepted)} accepted events are in no object, for example {lost[:3]}"
    return sum(1 for event in others if event in found)


def where(files, wanted):
    return {event: [f.key for f in files for _, value in f.records if value["eventID"] == event] for event in wanted}
