"""Those who judge a chain of digests: the AWS CLI, and `traild verify`.

The AWS CLI is the unmodified one that tests/requirements.txt pins. Its endpoints are set by the environment alone, as a user would
(AWS SDKs and Tools Reference Guide, "Service-specific endpoints").
"""

import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import digests
from digests import arn, text_of
from events import HOME_REGION
from harness import BUCKET, TEST_CREDENTIALS, run_cli
from wire import Server, read_body, read_head

AWS = Path(sys.executable).parent / "aws"
JUDGES = 3  # at once


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


def judge_all(daemon, s3, sources, start, end=None, trail="main", of_organization=True):
    """The CLI's verdict on each account and region of a trail: several at once, each is a process that mostly starts."""

    def judge(source):
        account, region = source
        account = account if of_organization else None
        return validate_logs(daemon.api_endpoint, s3, arn(trail), region, start, end, account)

    with ThreadPoolExecutor(JUDGES) as pool:
        return dict(zip(sources, pool.map(judge, sources)))


def verify(daemon, s3, *arguments, bucket=BUCKET, env=None):
    """Runs `traild verify` against the same two endpoints."""
    endpoints = {"AWS_ENDPOINT_URL_CLOUDTRAIL": daemon.api_endpoint, "AWS_ENDPOINT_URL_S3": s3, "AWS_REGION": HOME_REGION}
    env = TEST_CREDENTIALS | endpoints | {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull} | (env or {})
    return Verdict(*run_cli(daemon.binary, "verify", "--bucket", bucket, *arguments, env=env, timeout=90))


def accepted_by_all(daemon, s3, found, trail=digests.ORGANIZATION_TRAIL, buckets=(BUCKET,), end=None, env=None):
    """The CLI and `traild verify` find as many digests and log files as we do, or more by now, and all of them valid."""
    of_organization = trail.get("is_organization_trail", False)
    verdicts = judge_all(daemon, s3, found.sources(), digests.beginning(found), end, of_organization=of_organization)
    for source, verdict in verdicts.items():
        files = [file for digest in found.of(source) for file in digest.value["logFiles"]]
        there = {"digest": found.of(source, False), "backfill digest": found.of(source, True), "log": files}
        for kind, items in there.items():
            valid, of = verdict.counts(kind)
            told = f"{source}: {valid} of {of} {kind} files are valid, {len(items)} are there\n{verdict}"
            assert verdict.code == 0 and valid == of >= len(items), told
    prefix = trail.get("s3_key_prefix")
    verified = verify(daemon, s3, *(["--prefix", prefix] if prefix else []), bucket=buckets[-1], env=env)
    assert verified.code == 0, verified
    return verdicts


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
