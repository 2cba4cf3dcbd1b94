"""The golden chain: four digests over two log files, signed with a throwaway key, and a CloudTrail that answers for it."""

import base64
import json
from pathlib import Path

from judges import FakeCloudTrail

CHAIN = json.loads((Path(__file__).resolve().parents[1] / "golden" / "digest" / "chain.json").read_text())
BUCKET = CHAIN["bucket"]
REGION = CHAIN["source_region"]
KEYS = [
    {
        "Value": CHAIN["public_key_pkcs1_der_b64"],
        "Fingerprint": CHAIN["fingerprint_md5_hex"],
        "ValidityStartTime": 1777000000.0,
        "ValidityEndTime": 1779592000.0,
    }
]
TRAIL = {
    "Name": CHAIN["trail_name"],
    "S3BucketName": BUCKET,
    "TrailARN": CHAIN["trail_arn"],
    "HomeRegion": CHAIN["home_region"],
    "IsMultiRegionTrail": True,
    "LogFileValidationEnabled": True,
    "IsOrganizationTrail": False,
}


def objects():
    """Body and metadata of each object, by key: log files, then digests, the oldest first."""
    found = {}
    for item in CHAIN["objects"]:
        headers = item["headers"].items()
        metadata = {name.removeprefix("x-amz-meta-"): value for name, value in headers if name.startswith("x-amz-meta-")}
        found[item["key"]] = (base64.b64decode(item["gzip_b64"]), metadata)
    return found


def put(s3):
    """Into its bucket, which is there."""
    for key, (body, metadata) in objects().items():
        headers = {"ContentEncoding": "gzip", "ContentType": "application/json"}
        s3.put_object(Bucket=BUCKET, Key=key, Body=body, Metadata=metadata, **headers)


def cloudtrail():
    return FakeCloudTrail([TRAIL], KEYS)
