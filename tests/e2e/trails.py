"""Helpers of the tests that make trails through the API."""

import boto3
from botocore.config import Config

from harness import BUCKET
from test_api import client


def as_account(daemon, account, region):
    """A client whose access key is an account: without authentication, that is who it is."""
    return boto3.client(
        "cloudtrail",
        endpoint_url=f"http://127.0.0.1:{daemon.api_port}",
        region_name=region,
        aws_access_key_id=account,
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )


def make_trail(daemon, name, bucket=BUCKET, **members):
    return client(daemon).create_trail(Name=name, S3BucketName=bucket, **members)


def settings(answer):
    """An answer without what boto3 adds."""
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}
