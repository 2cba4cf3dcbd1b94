"""Unmodified S3 clients against a running embedded store: boto3, and the AWS CLI when it is installed beside python.

    STORE_ENDPOINT=http://127.0.0.1:4582 python -m pytest tests/store_clients.py     or     python tests/store_clients.py
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["STORE_ENDPOINT"]
KEYS = dict(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")


def client(**config):
    return boto3.client("s3", endpoint_url=ENDPOINT, config=Config(retries={"max_attempts": 0}, **config), **KEYS)


def bucket(s3):
    name = "t-" + uuid.uuid4().hex[:20]
    s3.create_bucket(Bucket=name)
    return name


def refused(code, status, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status, error.response
    else:
        raise AssertionError(f"{code} expected")


def test_buckets():
    s3 = client()
    name = bucket(s3)
    s3.create_bucket(Bucket=name)  # us-east-1: the owner may ask again
    s3.head_bucket(Bucket=name)
    assert name in [b["Name"] for b in s3.list_buckets()["Buckets"]]
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] is None
    assert s3.get_bucket_acl(Bucket=name)["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert "Status" not in s3.get_bucket_versioning(Bucket=name)
    refused("NoSuchBucketPolicy", 404, s3.get_bucket_policy, Bucket=name)
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    s3.put_bucket_policy(Bucket=name, Policy=policy)
    assert s3.get_bucket_policy(Bucket=name)["Policy"] == policy
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    refused("BucketNotEmpty", 409, s3.delete_bucket, Bucket=name)
    s3.delete_object(Bucket=name, Key="k")
    s3.delete_bucket(Bucket=name)
    refused("404", 404, s3.head_bucket, Bucket=name)
    refused("NoSuchBucket", 404, s3.put_object, Bucket=name, Key="k", Body=b"x")
    refused("NoSuchBucket", 404, s3.list_objects_v2, Bucket=name)

    elsewhere = "t-" + uuid.uuid4().hex[:20]
    where = {"LocationConstraint": "eu-west-1"}
    s3.create_bucket(Bucket=elsewhere, CreateBucketConfiguration=where)
    assert s3.get_bucket_location(Bucket=elsewhere)["LocationConstraint"] == "eu-west-1"
    refused("BucketAlreadyOwnedByYou", 409, s3.create_bucket, Bucket=elsewhere, CreateBucketConfiguration=where)
    refused("InvalidBucketName", 400, client(parameter_validation=False).create_bucket, Bucket="No_Such_Name")


def test_objects_keep_what_they_were_given():
    s3 = client()
    name = bucket(s3)
    body = b"0123456789" * 1000
    put = s3.put_object(
        Bucket=name, Key="a/b.json.gz", Body=body, ContentType="application/x-gzip", ContentEncoding="gzip",
        CacheControl="no-store", ContentDisposition="attachment", Metadata={"Back-Fill": "Yes"},
        ServerSideEncryption="aws:kms", SSEKMSKeyId="arn:aws:kms:us-east-1:111122223333:key/k",
        SSEKMSEncryptionContext="e30=", ACL="bucket-owner-full-control", Tagging="a=1&b=2")
    etag = '"%s"' % hashlib.md5(body).hexdigest()
    assert put["ETag"] == etag and put["ServerSideEncryption"] == "aws:kms"
    for answer in (s3.get_object(Bucket=name, Key="a/b.json.gz"), s3.head_object(Bucket=name, Key="a/b.json.gz")):
        assert answer["ETag"] == etag and answer["ContentLength"] == len(body)
        assert answer["ContentType"] == "application/x-gzip" and answer["ContentEncoding"] == "gzip"
        assert answer["CacheControl"] == "no-store" and answer["ContentDisposition"] == "attachment"
        assert answer["Metadata"] == {"back-fill": "Yes"}
        assert answer["SSEKMSKeyId"].endswith("key/k")
    assert s3.get_object(Bucket=name, Key="a/b.json.gz")["Body"].read() == body
    assert len(s3.get_object_tagging(Bucket=name, Key="a/b.json.gz")["TagSet"]) == 2
    refused("NoSuchKey", 404, s3.get_object, Bucket=name, Key="a/b")
    refused("404", 404, s3.head_object, Bucket=name, Key="a/b")
    part = s3.get_object(Bucket=name, Key="a/b.json.gz", Range="bytes=5-14")
    assert part["Body"].read() == body[5:15] and part["ContentRange"] == "bytes 5-14/10000"
    assert part["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert s3.get_object(Bucket=name, Key="a/b.json.gz", Range="bytes=-3")["Body"].read() == body[-3:]
    refused("InvalidRange", 416, s3.get_object, Bucket=name, Key="a/b.json.gz", Range="bytes=10000-")
    refused("304", 304, s3.get_object, Bucket=name, Key="a/b.json.gz", IfNoneMatch=etag)
    refused("PreconditionFailed", 412, s3.get_object, Bucket=name, Key="a/b.json.gz", IfMatch='"x"')
    for key in ("a", "a/", "a//b", "/", "//", "../../x", "..", ".", "é ü+%20&?=#", "\u0001", "x" * 1024, "日本" * 100):
        s3.put_object(Bucket=name, Key=key, Body=key.encode())
        assert s3.get_object(Bucket=name, Key=key)["Body"].read() == key.encode()
    listed = [o["Key"] for o in s3.list_objects_v2(Bucket=name)["Contents"]]
    assert listed == sorted(listed, key=str.encode) and len(listed) == 13, listed
    assert [o["Key"] for o in s3.list_objects(Bucket=name)["Contents"]] == listed
    refused("KeyTooLongError", 400, s3.put_object, Bucket=name, Key="x" * 1025, Body=b"")


def test_checksums():
    s3 = client()
    name = bucket(s3)
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        put = s3.put_object(Bucket=name, Key=algorithm, Body=b"hello", ChecksumAlgorithm=algorithm)
        got = s3.get_object(Bucket=name, Key=algorithm, ChecksumMode="ENABLED")
        assert got["Checksum" + algorithm] == put["Checksum" + algorithm] and got["Body"].read() == b"hello"
    refused("BadDigest", 400, s3.put_object, Bucket=name, Key="bad", Body=b"hello", ChecksumCRC32="AAAAAA==")
    refused("InvalidDigest", 400, s3.put_object, Bucket=name, Key="bad", Body=b"hello", ContentMD5="x")
    refused("BadDigest", 400, s3.put_object, Bucket=name, Key="bad", Body=b"hello", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    refused("404", 404, s3.head_object, Bucket=name, Key="bad")
    # A body that cannot be rewound is sent aws-chunked, its checksum in a trailer.
    reader, writer = os.pipe()
    data = os.urandom(300_000)
    thread = threading.Thread(target=lambda: (os.fdopen(writer, "wb").write(data)))
    thread.start()
    with os.fdopen(reader, "rb") as stream:
        client().upload_fileobj(stream, name, "piped")
    thread.join()
    assert s3.get_object(Bucket=name, Key="piped")["Body"].read() == data


def test_conditional_puts():
    s3 = client()
    name = bucket(s3)
    etag = s3.put_object(Bucket=name, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    refused("PreconditionFailed", 412, s3.put_object, Bucket=name, Key="k", Body=b"2", IfNoneMatch="*")
    refused("PreconditionFailed", 412, s3.put_object, Bucket=name, Key="k", Body=b"2", IfMatch='"other"')
    refused("NoSuchKey", 404, s3.put_object, Bucket=name, Key="none", Body=b"2", IfMatch=etag)
    s3.put_object(Bucket=name, Key="k", Body=b"2", IfMatch=etag)
    assert s3.get_object(Bucket=name, Key="k")["Body"].read() == b"2"

    wins = []
    def writer(number):
        mine = client()
        for key in range(25):
            try:
                mine.put_object(Bucket=name, Key=f"race/{key}", Body=str(number).encode(), IfNoneMatch="*")
                wins.append(key)
            except ClientError as error:
                assert error.response["Error"]["Code"] == "PreconditionFailed", error
        ended.append(number)
    ended = []
    threads = [threading.Thread(target=writer, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(wins) == list(range(25)) and len(ended) == 8


def test_listing_pages():
    s3 = client()
    name = bucket(s3)
    keys = sorted([f"d{d}/{n:02}" for d in range(5) for n in range(7)] + ["top", "a b+c"])
    for key in keys:
        s3.put_object(Bucket=name, Key=key, Body=b"")
    for operation in ("list_objects", "list_objects_v2"):
        pages = s3.get_paginator(operation)
        listed = [o["Key"] for p in pages.paginate(Bucket=name, PaginationConfig={"PageSize": 4}) for o in p.get("Contents", [])]
        assert listed == keys
        folders, files = [], []
        for page in pages.paginate(Bucket=name, Delimiter="/", PaginationConfig={"PageSize": 2}):
            folders += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
            files += [o["Key"] for o in page.get("Contents", [])]
        assert folders == [f"d{d}/" for d in range(5)] and files == ["a b+c", "top"]
    assert s3.list_objects_v2(Bucket=name, StartAfter="d4/06")["KeyCount"] == 1
    refused("InvalidArgument", 400, s3.list_objects_v2, Bucket=name, ContinuationToken="?")
    deleted = s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": key} for key in keys] + [{"Key": "none"}]})
    assert len(deleted["Deleted"]) == len(keys) + 1
    assert s3.list_objects_v2(Bucket=name)["KeyCount"] == 0


def test_multipart():
    s3 = client()
    name = bucket(s3)
    data = os.urandom(10 * 1024 * 1024)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
        s3.upload_file(file.name, name, "big", Config=config, ExtraArgs={"Metadata": {"a": "b"}})
        s3.download_file(name, "big", file.name + ".back", Config=config)
        with open(file.name + ".back", "rb") as back:
            assert back.read() == data
        os.unlink(file.name + ".back")
    head = s3.head_object(Bucket=name, Key="big")
    md5s = b"".join(hashlib.md5(data[at:at + (5 << 20)]).digest() for at in (0, 5 << 20))
    assert head["ETag"] == '"%s-2"' % hashlib.md5(md5s).hexdigest() and head["Metadata"] == {"a": "b"}
    second = s3.get_object(Bucket=name, Key="big", PartNumber=2)
    assert second["Body"].read() == data[5 << 20:] and second["PartsCount"] == 2

    upload = s3.create_multipart_upload(Bucket=name, Key="parts")["UploadId"]
    assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket=name)["Uploads"]] == [upload]
    part = s3.upload_part(Bucket=name, Key="parts", UploadId=upload, PartNumber=1, Body=b"small")
    other = s3.upload_part_copy(Bucket=name, Key="parts", UploadId=upload, PartNumber=2, CopySource=f"{name}/big", CopySourceRange="bytes=0-9")
    assert [p["Size"] for p in s3.list_parts(Bucket=name, Key="parts", UploadId=upload)["Parts"]] == [5, 10]
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}, {"PartNumber": 2, "ETag": other["CopyPartResult"]["ETag"]}]
    complete = lambda parts: s3.complete_multipart_upload(Bucket=name, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    refused("EntityTooSmall", 400, complete, parts=parts)
    refused("InvalidPartOrder", 400, complete, parts=parts[::-1])
    refused("InvalidPart", 400, complete, parts=[{"PartNumber": 1, "ETag": '"0"'}])
    refused("InvalidPart", 400, complete, parts=[{"PartNumber": 3, "ETag": part["ETag"]}])
    complete(parts[:1])
    assert s3.get_object(Bucket=name, Key="parts")["Body"].read() == b"small"
    refused("NoSuchUpload", 404, s3.list_parts, Bucket=name, Key="parts", UploadId=upload)
    upload = s3.create_multipart_upload(Bucket=name, Key="parts")["UploadId"]
    s3.abort_multipart_upload(Bucket=name, Key="parts", UploadId=upload)
    refused("NoSuchUpload", 404, s3.upload_part, Bucket=name, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
    refused("NoSuchUpload", 404, s3.abort_multipart_upload, Bucket=name, Key="parts", UploadId="../../x")


def test_multipart_full_object_checksum():
    s3 = client()
    name = bucket(s3)
    upload = s3.create_multipart_upload(Bucket=name, Key="k", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")["UploadId"]
    part = s3.upload_part(Bucket=name, Key="k", UploadId=upload, PartNumber=1, Body=b"hello", ChecksumAlgorithm="CRC32")
    done = s3.complete_multipart_upload(Bucket=name, Key="k", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}]})
    assert done["ChecksumCRC32"] == part["ChecksumCRC32"] and done["ChecksumType"] == "FULL_OBJECT"


def test_copy():
    s3 = client()
    name = bucket(s3)
    s3.put_object(Bucket=name, Key="from é", Body=b"data", ContentType="text/plain", Metadata={"a": "1"})
    copy = s3.copy_object(Bucket=name, Key="to", CopySource={"Bucket": name, "Key": "from é"})
    got = s3.get_object(Bucket=name, Key="to")
    assert got["ETag"] == copy["CopyObjectResult"]["ETag"] and got["Body"].read() == b"data"
    assert got["ContentType"] == "text/plain" and got["Metadata"] == {"a": "1"}
    s3.copy_object(Bucket=name, Key="to", CopySource=f"{name}/to", MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(Bucket=name, Key="to")["Metadata"] == {"b": "2"}
    refused("InvalidRequest", 400, s3.copy_object, Bucket=name, Key="to", CopySource=f"{name}/to")
    refused("NoSuchKey", 404, s3.copy_object, Bucket=name, Key="to", CopySource=f"{name}/none")


def test_presigned_and_anonymous():
    for version in ("s3v4", "s3"):
        s3 = client(signature_version=version)
        name = bucket(s3)
        url = s3.generate_presigned_url("put_object", Params={"Bucket": name, "Key": "a b"})
        urllib.request.urlopen(urllib.request.Request(url, data=b"signed", method="PUT")).read()
        url = s3.generate_presigned_url("get_object", Params={"Bucket": name, "Key": "a b", "ResponseContentType": "text/x"})
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"signed" and answer.headers["Content-Type"] == "text/x"
        url = s3.generate_presigned_url("get_object", Params={"Bucket": name, "Key": "a b"}, ExpiresIn=1)
        time.sleep(2.1)
        try:
            urllib.request.urlopen(url)
            raise AssertionError("an expired URL was served")
        except urllib.error.HTTPError as error:
            assert error.code == 403
        assert client(signature_version=UNSIGNED).get_object(Bucket=name, Key="a b")["Body"].read() == b"signed"


def test_delete():
    s3 = client()
    name = bucket(s3)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    assert s3.delete_object(Bucket=name, Key="k")["ResponseMetadata"]["HTTPStatusCode"] == 204
    s3.delete_object(Bucket=name, Key="k")
    refused("NoSuchKey", 404, s3.get_object, Bucket=name, Key="k")


def aws(*arguments, data=None):
    program = os.path.join(os.path.dirname(sys.executable), "aws")
    program = program if os.path.exists(program) else shutil.which("aws")
    environment = dict(os.environ, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1",
                       AWS_MAX_ATTEMPTS="1", AWS_PAGER="", AWS_CONFIG_FILE=os.devnull)
    command = [program, "--endpoint-url", ENDPOINT, *arguments]
    done = subprocess.run(command, input=data, env=environment, capture_output=True)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def test_aws_cli():
    if not (os.path.exists(os.path.join(os.path.dirname(sys.executable), "aws")) or shutil.which("aws")):
        print("no AWS CLI here: its part is not run")
        return
    name = "t-" + uuid.uuid4().hex[:20]
    aws("s3", "mb", f"s3://{name}")
    aws("s3", "cp", "-", f"s3://{name}/AWSLogs/x.json.gz", data=b"piped")
    assert aws("s3", "cp", f"s3://{name}/AWSLogs/x.json.gz", "-") == b"piped"
    assert b"PRE AWSLogs/" in aws("s3", "ls", f"s3://{name}")
    assert b"5 AWSLogs/x.json.gz" in aws("s3", "ls", "--recursive", f"s3://{name}")
    with tempfile.TemporaryDirectory() as here:
        os.makedirs(os.path.join(here, "up", "sub"))
        for path, size in (("one", 3), ("sub/two é", 100_000), ("big", 9 << 20)):
            with open(os.path.join(here, "up", path), "wb") as file:
                file.write(os.urandom(size))
        aws("s3", "sync", os.path.join(here, "up"), f"s3://{name}/copy")
        aws("s3", "sync", f"s3://{name}/copy", os.path.join(here, "down"))
        subprocess.run(["diff", "-r", os.path.join(here, "up"), os.path.join(here, "down")], check=True)
        assert aws("s3", "sync", os.path.join(here, "up"), f"s3://{name}/copy") == b""
    assert json.loads(aws("s3api", "list-objects-v2", "--bucket", name, "--max-items", "2"))["NextToken"]
    aws("s3", "rb", "--force", f"s3://{name}")


if __name__ == "__main__":
    for test_name, test in list(globals().items()):
        if test_name.startswith("test_") and (len(sys.argv) < 2 or test_name in sys.argv[1:]):
            test()
            print("ok", test_name, flush=True)
