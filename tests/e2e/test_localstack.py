"""LocalStack's S3 takes the log files through the same code path as AWS would: headers, conditional puts, KMS."""

import base64
import json

import boto3

import events
import logfiles
from fault_proxy import FaultProxy, is_object_put
from harness import TEST_CREDENTIALS, WHOLE_ORGANIZATION, delivering_to, ensure_bucket, s3_client


def aws(endpoint, service):
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client(service, endpoint_url=endpoint, region_name="us-east-1", **credentials)


def a_bucket(endpoint, rng):
    name = f"e2e-{rng.getrandbits(48):012x}"
    s3 = s3_client(endpoint)
    ensure_bucket(s3, name)
    return s3, name


def deliver(make_daemon, endpoint, trail, sent):
    daemon = make_daemon(config=delivering_to(endpoint) | {"trails": [WHOLE_ORGANIZATION | trail]}, env=TEST_CREDENTIALS)
    daemon.start()
    daemon.send(sent)
    daemon.drain()
    return daemon


def test_log_files_arrive_with_cloudtrails_headers(make_daemon, localstack, rng):
    s3, bucket = a_bucket(localstack, rng)
    sent = events.spread(rng, 100)
    deliver(make_daemon, localstack, {"s3_bucket_name": bucket, "s3_key_prefix": "audit/logs"}, sent)
    files = logfiles.read(s3, bucket)
    logfiles.check(files, sent)
    assert {file.parts["prefix"] for file in files} == {"audit/logs"}
    assert {file.parts["organization"] for file in files} == {"o-exampleorgid"}
    for file in files:
        head = s3.head_object(Bucket=bucket, Key=file.key)
        assert (head["ContentType"], head["ContentEncoding"], head["Metadata"]) == ("application/json", "gzip", {})


def test_an_object_whose_answer_was_lost_is_put_again_and_found_to_be_ours(make_daemon, localstack, rng, seed):
    s3, bucket = a_bucket(localstack, rng)
    sent = events.spread(rng, 40)
    port = int(localstack.rsplit(":", 1)[1])
    lost = set()

    def lose_the_first_answer(request, rng):
        if is_object_put(request) and request.path not in lost:
            lost.add(request.path)
            return "lost"
        return None

    with FaultProxy(port, seed=seed, choose=lose_the_first_answer) as proxy:
        deliver(make_daemon, proxy.endpoint, {"s3_bucket_name": bucket}, sent)
        logfiles.check(logfiles.read(s3, bucket), sent)
        proxy.check_redone_bytes()
        assert proxy.fired["lost"] > 0
        conditional = [headers.get("if-none-match") for path, headers in proxy.put_headers.items() if ".json.gz" in path]
        assert conditional and set(conditional) == {"*"}
        acls = {headers.get("x-amz-acl") for path, headers in proxy.put_headers.items() if ".json.gz" in path}
        assert acls == {"bucket-owner-full-control"}


def test_a_trails_kms_key_encrypts_its_objects(make_daemon, localstack, rng):
    s3, bucket = a_bucket(localstack, rng)
    key = aws(localstack, "kms").create_key()["KeyMetadata"]["Arn"]
    sent = events.make_many(rng, 5)
    deliver(make_daemon, localstack, {"s3_bucket_name": bucket, "kms_key_id": key}, sent)
    files = logfiles.read(s3, bucket)
    logfiles.check(files, sent)
    for file in files:
        head = s3.head_object(Bucket=bucket, Key=file.key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)


def test_the_encryption_context_names_trail_and_object(make_daemon, localstack, rng, seed):
    s3, bucket = a_bucket(localstack, rng)
    key = aws(localstack, "kms").create_key()["KeyMetadata"]["Arn"]
    with FaultProxy(int(localstack.rsplit(":", 1)[1]), seed=seed) as proxy:
        deliver(make_daemon, proxy.endpoint, {"s3_bucket_name": bucket, "kms_key_id": key}, events.make_many(rng, 2))
        contexts = {
            path: headers["x-amz-server-side-encryption-context"]
            for path, headers in proxy.put_headers.items()
            if ".json.gz" in path
        }
    assert contexts
    for path, context in contexts.items():
        assert json.loads(base64.b64decode(context)) == {
            "aws:cloudtrail:arn": "arn:aws:cloudtrail:us-east-1:111122223333:trail/main",
            "aws:s3:arn": f"arn:aws:s3:::{path.lstrip('/')}",
        }


def test_the_init_scripts_have_made_what_a_trail_writes_to(localstack):
    assert aws(localstack, "s3").head_bucket(Bucket="traild")
    subscriptions = aws(localstack, "sns").list_subscriptions()["Subscriptions"]
    assert [each["Protocol"] for each in subscriptions if each["TopicArn"].endswith(":traild")] == ["sqs"]
    assert aws(localstack, "logs").describe_log_groups(logGroupNamePrefix="traild")["logGroups"]
    assert aws(localstack, "events").describe_event_bus(Name="traild")["Name"] == "traild"
