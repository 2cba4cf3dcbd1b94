"""The embedded store has what the AWS CLI's validator asks of S3, shown with the CLI itself over the golden chain."""

import gzip
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.exceptions import ClientError

import golden_chain
from digests import moment
from harness import ensure_bucket
from judges import validate_logs

START, END = moment("2026-05-01T00:00:00Z"), moment("2026-05-01T04:00:00Z")


def test_the_cli_accepts_the_golden_chain_and_sees_a_changed_byte(daemon):
    s3 = daemon.s3()
    ensure_bucket(s3, golden_chain.BUCKET)
    golden_chain.put(s3)
    log = next(iter(golden_chain.objects()))
    arn, region = golden_chain.TRAIL["TrailARN"], golden_chain.REGION
    with golden_chain.cloudtrail() as cloudtrail:
        judge = lambda: validate_logs(cloudtrail.endpoint, daemon.store_endpoint, arn, region, START, END)  # noqa: E731
        verdict = judge()
        assert (verdict.code, verdict.counts("digest"), verdict.counts("log")) == (0, (4, 4), (2, 2)), verdict
        s3.put_object(Bucket=golden_chain.BUCKET, Key=log, Body=gzip.compress(b'{"Records":[]}'))
        verdict = judge()
        assert (verdict.code, verdict.counts("digest"), verdict.counts("log")) == (1, (4, 4), (1, 2)), verdict
        assert verdict.complaints() == ["hash value doesn't match"], verdict
        s3.delete_object(Bucket=golden_chain.BUCKET, Key=log)
        assert judge().complaints() == ["not found"]


def test_metadata_come_back_in_lower_case_whatever_case_they_were_put_in(daemon):
    """botocore keeps the case that a store answers with: `Signature` makes every digest "signature verification failed"."""
    s3 = daemon.s3()
    bucket = "audit-logs"
    for index, (name, algorithm) in enumerate([("signature", "signature-algorithm"), ("Signature", "SIGNATURE-Algorithm")]):
        key = f"digest-{index}.json.gz"
        put = {"Body": gzip.compress(b"{}"), "ContentEncoding": "gzip", "Metadata": {name: "ab" * 256, algorithm: "SHA256withRSA"}}
        s3.put_object(Bucket=bucket, Key=key, IfNoneMatch="*", **put)
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.put_object(Bucket=bucket, Key=key, IfNoneMatch="*", **put)
        for answer in (s3.head_object(Bucket=bucket, Key=key), s3.get_object(Bucket=bucket, Key=key)):
            assert answer["Metadata"] == {"signature": "ab" * 256, "signature-algorithm": "SHA256withRSA"}
            assert answer["ContentEncoding"] == "gzip"
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == put["Body"], "the body must not be inflated on the way"


def test_the_calls_of_the_validator_work_in_any_region_and_for_any_key(daemon):
    plain = daemon.s3()
    keys = sorted([f"a b+c&d=e%2F/é/日本/{n:04}" for n in range(1050)] + ["a b+c&d=e%2F/\u0001", "zz"], key=str.encode)
    put_all(plain, "audit-logs", keys)
    prefix = "a b+c&d=e%2F/"
    wanted = [key for key in keys if key.startswith(prefix)]
    for region in ("us-east-1", "eu-west-1", "mars-north-7"):
        s3 = client_in(region, daemon.store_endpoint)
        assert s3.get_bucket_location(Bucket="audit-logs")["LocationConstraint"] is None
        pages = list(s3.get_paginator("list_objects").paginate(Bucket="audit-logs", Prefix=prefix, Marker=wanted[9]))
        assert [len(page["Contents"]) for page in pages] == [1000, 41]
        assert [item["Key"] for page in pages for item in page["Contents"]] == wanted[10:]
        with pytest.raises(ClientError) as missing:
            s3.get_object(Bucket="audit-logs", Key="none")
        assert missing.value.response["Error"]["Code"] == "NoSuchKey"


def client_in(region, endpoint):
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client("s3", endpoint_url=endpoint, region_name=region, **credentials)


def put_all(s3, bucket, keys):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b""), keys))
