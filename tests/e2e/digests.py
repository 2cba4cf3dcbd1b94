"""Digests of a bucket, read and checked by ourselves: what the judges of a chain are judged by.

I5  each delivered log file of a trail with validation is in exactly one digest, and the digests of each account and region are a
    chain without a gap
"""

import gzip
import hashlib
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import boto3
import rsa

from events import HOME_ACCOUNT, HOME_REGION
from harness import BUCKET, WHOLE_ORGANIZATION, wait_until
from logfiles import gunzip_one_member

ORGANIZATION_TRAIL = WHOLE_ORGANIZATION | {"enable_log_file_validation": True}
OWN_TRAIL = {"name": "main", "s3_bucket_name": BUCKET, "is_multi_region_trail": True, "enable_log_file_validation": True}
HOME = (HOME_ACCOUNT, HOME_REGION)
QUICK = {"delivery": {"max_age": "300ms"}}

FORMAT = "%Y-%m-%dT%H:%M:%SZ"

KEY = re.compile(
    r"(?:(?P<prefix>.+)/)?AWSLogs/(?:(?P<organization>o-[a-z0-9]{10,32})/)?(?P<account>\d{12})/CloudTrail-Digest/(?P<region>[a-z0-9-]+)"
    r"/(?P<day>\d{4}/\d\d/\d\d)/(?P=account)_CloudTrail-Digest_(?P=region)_(?P<trail>.+)_(?P<home>[a-z0-9-]+)"
    r"_(?P<stamp>\d{8}T\d{6}Z)(?P<backfill>_backfill)?\.json\.gz"
)
FIELDS = [
    "awsAccountId", "digestStartTime", "digestEndTime", "digestS3Bucket", "digestS3Object", "digestPublicKeyFingerprint",
    "digestSignatureAlgorithm", "newestEventTime", "oldestEventTime", "previousDigestS3Bucket", "previousDigestS3Object",
    "previousDigestHashValue", "previousDigestHashAlgorithm", "previousDigestSignature", "logFiles",
]  # fmt: skip
LOG_FIELDS = ["s3Bucket", "s3Object", "hashValue", "hashAlgorithm", "newestEventTime", "oldestEventTime"]


def moment(text):
    return datetime.strptime(text, FORMAT).replace(tzinfo=timezone.utc)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def md5(data):
    return hashlib.md5(data).hexdigest()


def text_of(time):
    return time.strftime(FORMAT)


def arn(trail="main"):
    return f"arn:aws:cloudtrail:{HOME_REGION}:{HOME_ACCOUNT}:trail/{trail}"


@dataclass
class Digest:
    bucket: str
    key: str
    parts: dict
    body: bytes  # inflated
    value: dict
    metadata: dict

    @property
    def source(self):
        return self.parts["account"], self.parts["region"]

    @property
    def is_backfill(self):
        return bool(self.parts["backfill"])

    @property
    def start(self):
        return moment(self.value["digestStartTime"])

    @property
    def end(self):
        return moment(self.value["digestEndTime"])

    @property
    def sha256(self):
        return sha256(self.body)

    @property
    def string_to_sign(self):
        value = self.value
        place = f"{value['digestS3Bucket']}/{value['digestS3Object']}"
        return "\n".join([value["digestEndTime"], place, self.sha256, value["previousDigestSignature"] or "null"]).encode()


@dataclass
class Holding:
    """What lies in a bucket, or in several."""

    digests: list  # by key, so that those of a chain follow one another
    logs: dict  # (bucket, key): inflated body

    def __add__(self, other):
        return Holding(self.digests + other.digests, self.logs | other.logs)

    def sources(self):
        return sorted({digest.source for digest in self.digests})

    def of(self, source, is_backfill=None):
        """The digests of an account and region by time."""
        found = [d for d in self.digests if d.source == source and is_backfill in (None, d.is_backfill)]
        return sorted(found, key=lambda digest: digest.end)

    def named(self):
        """Each log file that a digest names, as often as one does."""
        return [(file["s3Bucket"], file["s3Object"]) for digest in self.digests for file in digest.value["logFiles"]]

    def undigested(self):
        return set(self.logs) - set(self.named())


def read(s3, bucket=BUCKET, prefix=""):
    return parse(bucket, read_objects(s3, bucket, prefix))


def read_objects(s3, bucket=BUCKET, prefix="", known=None):
    """Body and metadata of each object, by key; but for CloudTrail's own marker objects. What is `known` is not read again."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]
    known = {} if known is None else known
    new = [key for key in keys if key not in known]
    with ThreadPoolExecutor(4) as pool:
        known.update(zip(new, pool.map(lambda key: get(s3, bucket, key), new)))
    return {key: known[key] for key in keys}


def get(s3, bucket, key):
    answer = s3.get_object(Bucket=bucket, Key=key)
    assert (answer["ContentType"], answer["ContentEncoding"]) == ("application/json", "gzip"), key
    return answer["Body"].read(), answer["Metadata"]


def parse(bucket, objects):
    found = Holding([], {})
    for key, (body, metadata) in objects.items():
        text = gunzip_one_member(key, body)
        match = KEY.fullmatch(key)
        if match:
            found.digests.append(Digest(bucket, key, match.groupdict(), text, json.loads(text), metadata))
        else:
            assert "/CloudTrail-Digest/" not in key, f"not a digest's key: {key}"
            assert metadata == {}, key
            found.logs[bucket, key] = text
    return found


def public_keys(endpoint, start, end):
    """Fingerprint: key, from when, until when, for all keys that CloudTrail lists."""
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("cloudtrail", endpoint_url=endpoint, region_name=HOME_REGION, **credentials)
    listed = client.list_public_keys(StartTime=start, EndTime=end)["PublicKeyList"]
    keys = {}
    for key in listed:
        assert md5(key["Value"]) == key["Fingerprint"], key
        public = rsa.PublicKey.load_pkcs1(key["Value"], "DER")
        keys[key["Fingerprint"]] = (public, key["ValidityStartTime"], key["ValidityEndTime"])
    return keys


def check(found, keys, restarts=0, trail="main"):
    """I5 over buckets that one trail alone writes to: each log file in exactly one digest of its own account and region, the chains
    whole. `restarts` is how often each chain begins anew."""
    for digest in found.digests:
        check_digest(digest, found, keys, trail)
    named = Counter(found.named())
    twice = [key for key, times in named.items() if times > 1]
    assert not twice, f"{len(twice)} log files are in several digests, for example {twice[:2]}"
    missing = found.undigested()
    assert not missing, f"{len(missing)} of {len(found.logs)} log files are in no digest, for example {sorted(missing)[:2]}"
    for source in found.sources():
        check_windows(source, found.of(source), restarts)
        for is_backfill in (False, True):
            check_links(found.of(source, is_backfill))


def check_digest(digest, found, keys, trail):
    value, parts, key = digest.value, digest.parts, digest.key
    assert list(value) == FIELDS, f"{key}: {list(value)}"
    assert json.dumps(value, separators=(",", ":")).encode() == digest.body, f"{key} is not compact"
    assert (value["awsAccountId"], value["digestS3Bucket"], value["digestS3Object"]) == (parts["account"], digest.bucket, key)
    assert (parts["trail"], parts["home"]) == (trail, HOME_REGION), key
    assert (parts["day"], parts["stamp"]) == (digest.end.strftime("%Y/%m/%d"), digest.end.strftime("%Y%m%dT%H%M%SZ")), key
    assert digest.start < digest.end, key
    expected = {"signature", "signature-algorithm"} | ({"backfill-generation-timestamp"} if digest.is_backfill else set())
    assert set(digest.metadata) == expected, f"{key}: {digest.metadata}"
    assert digest.metadata["signature-algorithm"] == value["digestSignatureAlgorithm"] == "SHA256withRSA", key
    made = digest.end
    if digest.is_backfill:
        made = datetime.fromisoformat(digest.metadata["backfill-generation-timestamp"].replace("Z", "+00:00"))
        assert made - digest.end > timedelta(hours=2), f"{key} was made in time: {made}"
    public, since, until = keys[value["digestPublicKeyFingerprint"]]
    assert since <= made <= until, f"{key} was signed with a key of {since} … {until}"
    assert rsa.verify(digest.string_to_sign, bytes.fromhex(digest.metadata["signature"]), public) == "SHA-256", key
    times = [check_log(digest, file, found) for file in value["logFiles"]]
    spans = [value["oldestEventTime"], value["newestEventTime"]]
    assert spans == ([min(t for t, _ in times), max(t for _, t in times)] if times else [None, None]), f"{key}: {spans}"


def check_log(digest, file, found):
    """Its oldest and newest event."""
    key = file["s3Object"]
    assert list(file) == LOG_FIELDS and file["hashAlgorithm"] == "SHA-256", file
    account, region = digest.source
    assert f"/{account}/CloudTrail" in key and f"/{region}/" in key, f"{digest.key} names {key}"
    body = found.logs.get((file["s3Bucket"], key))
    assert body is not None, f"{digest.key} names {key}, which is not there"
    assert sha256(body) == file["hashValue"], key
    times = [record["eventTime"] for record in json.loads(body)["Records"]]
    assert [min(times), max(times)] == [file["oldestEventTime"], file["newestEventTime"]], key
    return min(times), max(times)


def check_windows(source, digests, restarts):
    """They follow one another without a gap, but where a chain begins anew."""
    begun, seen = 0, {digest.is_backfill for digest in digests[:1]}
    for before, after in pairwise(digests):
        first_of_its_kind = after.is_backfill not in seen
        seen.add(after.is_backfill)
        if after.value["previousDigestS3Object"] is None and not first_of_its_kind:
            begun += 1
            assert before.end <= after.start, f"{source}: {after.key} begins in the time of {before.key}"
        else:
            assert before.end == after.start, f"{source}: {before.key} ends at {before.end}, {after.key} begins at {after.start}"
    assert begun == restarts, f"{source}: begun anew {begun} times, not {restarts}"


def check_links(digests):
    """Each names the one before it, with its hash and its signature; the first names none."""
    for index, digest in enumerate(digests):
        links = [digest.value[field] for field in FIELDS[9:14]]
        if links == [None] * 5:
            continue  # where that may be, check_windows has counted
        assert index > 0, f"{digest.key} names {links[1]}, which is not there"
        before = digests[index - 1]
        assert links == [before.bucket, before.key, before.sha256, "SHA-256", before.metadata["signature"]], digest.key


# Daemons that write them.


def digesting(trail, interval="2s"):
    """Who judges a chain asks the API: were that recorded, there would be another log file each time."""
    return QUICK | {"digest": {"interval": interval}, "trails": [trail], "api": {"record_calls": False}}


def all_digested(s3, daemon, buckets=(BUCKET,), more_than=0, seconds=30):
    """Waits until each log file is in a digest, and each chain has so many; what lies in the buckets then."""
    found, known = None, {bucket: {} for bucket in buckets}

    def done():
        nonlocal found
        read = [parse(bucket, read_objects(s3, bucket, known=known[bucket])) for bucket in buckets]
        found = sum(read, Holding([], {}))
        enough = all(len(found.of(source)) > more_than for source in found.sources())
        return found.digests and enough and not found.undigested()

    try:
        wait_until(done, seconds, "all log files to be digested")
    except AssertionError as error:
        state = f"{len(found.digests)} digests, {len(found.undigested())} log files in none"
        raise AssertionError(f"{error}\n{state}\n{daemon.log_tail(20)}") from error
    return found


def keys_of(daemon, found):
    return public_keys(daemon.api_endpoint, beginning(found), max(digest.end for digest in found.digests))


def beginning(found):
    return min(digest.start for digest in found.digests)


# Forgery.


def signed(value, key, kind_metadata=None):
    """A digest's object as traild would write it: body, metadata."""
    body = json.dumps(value, separators=(",", ":")).encode()
    place = f"{value['digestS3Bucket']}/{value['digestS3Object']}"
    text = "\n".join([value["digestEndTime"], place, sha256(body), value["previousDigestSignature"] or "null"])
    signature = rsa.sign(text.encode(), key, "SHA-256").hex()
    return gzip.compress(body), {"signature": signature, "signature-algorithm": "SHA256withRSA"} | (kind_metadata or {})


def private_key(path):
    """Of a daemon's key directory: PKCS#8, which is a head of 26 bytes and the key in PKCS#1 for RSA of 2048 bits."""
    return rsa.PrivateKey.load_pkcs1(Path(path).read_bytes()[26:], "DER")
