"""Events to send: made ones, which are never equal, and the corpus of real ones."""

import gzip
import json
import uuid
from datetime import datetime, timezone
from pathlib import Path

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
HOME_ACCOUNT = "111122223333"
HOME_REGION = "us-east-1"


def make(rng, account=HOME_ACCOUNT, region=HOME_REGION, size=1200, **overrides):
    """One event as compact JSON bytes, about `size` long, with an eventID of its own."""
    event = {
        "eventVersion": "1.11",
        "userIdentity": {"type": "IAMUser", "accountId": account, "userName": f"user-{rng.randrange(50)}"},
        "eventTime": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": rng.choice(["ec2", "s3", "lambda", "dynamodb"]) + ".amazonaws.com",
        "eventName": rng.choice(["DescribeInstances", "GetObject", "Invoke20150331", "PutItem", "CreateUser"]),
        "awsRegion": region,
        "sourceIPAddress": "192.0.2.7",
        "userAgent": "e2e/1.0 \u00e9\u4e2d\U0001f600",
        "requestParameters": {"token": f"{rng.getrandbits(256):064x}"},
        "responseElements": None,
        "eventID": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "eventType": "AwsApiCall",
        "recipientAccountId": account,
        "readOnly": True,
        "managementEvent": True,
        "eventCategory": "Management",
    } | overrides
    missing = size - len(encode(event))
    if missing > 20:
        event["additionalEventData"] = {"note": "x" * (missing - 36)}
    return encode(event)


def encode(event):
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def make_many(rng, count, **options):
    return [make(rng, **options) for _ in range(count)]


def spread(rng, count, accounts=3, regions=3, **options):
    """Events over several accounts and regions."""
    names = ["us-east-1", "eu-central-1", "ap-southeast-2", "sa-east-1"]
    return [
        make(rng, account=f"{111122223333 + rng.randrange(accounts)}", region=names[rng.randrange(regions)], **options)
        for _ in range(count)
    ]


def event_id(event):
    return json.loads(event).get("eventID")


def corpus():
    """Every event of the corpus, as given, with the set it is from."""
    for path in sorted(CORPUS.glob("*.ndjson.gz")):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            yield path.name.removesuffix(".ndjson.gz"), line
