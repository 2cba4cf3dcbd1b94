"""Digests: those who judge them (the AWS CLI, `traild verify`), and our own reading of a bucket, which judges the judges.

The AWS CLI is the unmodified one that tests/requirements.txt pins. Its endpoints are set by the environment alone, as a user would
(AWS SDKs and Tools Reference Guide, "Service-specific endpoints").
"""

import base64
import gzip
import hashlib
import json
import os
import re
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import rsa

from events import HOME_ACCOUNT, HOME_REGION
from harness import TEST_CREDENTIALS, run_cli
from wire import Server, read_body, read_head

AWS = Path(sys.executable).parent / "aws"
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


def text_of(time):
    return time.strftime(FORMAT)


# The judges.


@dataclass
class Verdict:
    code: int
    out: str
    err: str

    def counts(self, of):
        """(valid, of how many), as the summary's line for `digest`, `backfill digest` or `log` files has it; (0, 0) for none."""
        match = re.search(rf"^(\d+)/(\d+) {of} files? valid", self.out, re.MULTILINE)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    def complaints(self):
        """What follows INVALID in each line that has it."""
        return [line.split("INVALID: ", 1)[1] for line in (self.out + self.err).splitlines() if "INVALID: " in line]

    def __str__(self):
        return f"exit code {self.code}\n{self.out}\n{self.err}"


def validate_logs(cloudtrail, s3, trail_arn, region, start, end=None, account=None, bucket=None):
    """Runs `aws cloudtrail validate-logs` against two endpoints."""
    env = TEST_CREDENTIALS | {
        "AWS_ENDPOINT_URL_CLOUDTRAIL": cloudtrail,
        "AWS_ENDPOINT_URL_ORGANIZATIONS": cloudtrail,
        "AWS_ENDPOINT_URL_S3": s3,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_MAX_ATTEMPTS": "2",
    }
    options = {"--trail-arn": trail_arn, "--region": region, "--start-time": text_of(start)}
    options |= {"--end-time": end and text_of(end), "--account-id": account, "--s3-bucket": bucket}
    given = [word for option, value in options.items() if value for word in (option, value)]
    return Verdict(*run_cli(AWS, "cloudtrail", "validate-logs", "--verbose", *given, env=env, timeout=90))


class FakeCloudTrail(Server):
    """Answers the two calls the validator makes, for chains that no daemon has made."""

    def __init__(self, trails, public_keys, **options):
        super().__init__(**options)
        self.answers = {"DescribeTrails": {"trailList": trails}, "ListPublicKeys": {"PublicKeyList": public_keys}}

    async def one_request(self, reader, writer):
        request = await read_head(reader)
        if request is None:
            return False
        await read_body(reader, request.headers)
        body = json.dumps(self.answers[request.headers["x-amz-target"].rpartition(".")[2]]).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        return True
