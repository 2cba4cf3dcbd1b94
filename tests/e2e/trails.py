"""Helpers of the tests that make trails through the API."""

import asyncio

import boto3
from botocore.config import Config

from harness import BUCKET
from test_api import client
from wire import Server, read_body, read_head


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


class FakeS3(Server):
    """An S3 whose buckets answer a PUT as `answers` has it by their names: a status, a code, a message. Others take it.

    A bucket that is in `held` answers when its event is set.
    """

    def __init__(self):
        super().__init__()
        self.answers, self.held, self.puts = {}, {}, []

    async def one_request(self, reader, writer):
        request = await read_head(reader)
        if request is None:
            return False
        await read_body(reader, request.headers)
        bucket, _, key = request.path.split("?")[0].lstrip("/").partition("/")
        self.puts.append((request.method, bucket, key, request.headers))
        while bucket in self.held and not self.held[bucket].is_set():
            await asyncio.sleep(0.01)
        status, code, message = self.answers.get(bucket, (200, None, None))
        body = b"" if code is None else f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        return True
