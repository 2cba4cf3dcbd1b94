"""The CloudTrail API on the api listener, through unmodified clients: boto3 and the AWS CLI."""

import base64
import hashlib
import json
import time
from datetime import datetime, timezone

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from events import HOME_ACCOUNT, HOME_REGION
from harness import BUCKET, ORGANIZATION, WHOLE_ORGANIZATION, Client, run_cli

AWAY = "eu-west-1"
TOPIC = f"arn:aws:sns:{HOME_REGION}:{HOME_ACCOUNT}:told"
GROUP = f"arn:aws:logs:{HOME_REGION}:{HOME_ACCOUNT}:log-group:trail"
ROLE = f"arn:aws:iam::{HOME_ACCOUNT}:role/logs"
TARGET = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101"

#: One trail of each kind, the first with everything that a trail can have.
TRAILS = [
    WHOLE_ORGANIZATION
    | {
        "s3_key_prefix": "audit/logs",
        "sns_topic_arn": TOPIC,
        "cloud_watch_logs_log_group_arn": GROUP,
        "cloud_watch_logs_role_arn": ROLE,
        "enable_log_file_validation": True,
        "event_selectors": [{"ReadWriteType": "WriteOnly"}],
    },
    {
        "name": "local",
        "s3_bucket_name": BUCKET,
        "is_multi_region_trail": False,
        "include_global_service_events": False,
        "enable_log_file_validation": False,
    },
]


def arn(name, region=HOME_REGION, account=HOME_ACCOUNT):
    return f"arn:aws:cloudtrail:{region}:{account}:trail/{name}"


def plant_key(daemon, region, start, end, der=None):
    """A public key in the directory of keys, as a daemon leaves it there; what ListPublicKeys has to say of it."""
    der = der or f"{region} {start}".encode()
    fingerprint = hashlib.md5(der).hexdigest()
    wire = {"Value": base64.b64encode(der).decode(), "ValidityStartTime": start, "ValidityEndTime": end, "Fingerprint": fingerprint}
    keys = daemon.data_dir / "keys"
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    (keys / f"{region}.{fingerprint}.public.json").write_text(json.dumps(wire))
    moment = lambda seconds: datetime.fromtimestamp(seconds, timezone.utc)
    return {"Value": der, "ValidityStartTime": moment(start), "ValidityEndTime": moment(end), "Fingerprint": fingerprint}


@pytest.fixture
def asked(make_daemon):
    """A daemon with one trail of each kind, and keys of two regions, old and new ones."""
    # Where its topic and log group would be, nothing listens: what is asked here is only what the daemon knows.
    config = {"trails": TRAILS, "aws": {"endpoint_url": "http://127.0.0.1:9"}}
    daemon = make_daemon(config=config, env={"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"})
    now = daemon.now = int(time.time())
    day = 86_400
    daemon.keys = {
        "old": plant_key(daemon, HOME_REGION, now - 40 * day, now - 10 * day),
        "home": plant_key(daemon, HOME_REGION, now - 10 * day, now + 20 * day),
        "away": plant_key(daemon, AWAY, now - 5 * day, now + 25 * day),
    }
    return daemon.start()


def client(daemon, service="cloudtrail", region=HOME_REGION):
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{daemon.api_port}",
        region_name=region,
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )


def cli(daemon, *arguments, region=HOME_REGION):
    endpoint = f"http://127.0.0.1:{daemon.api_port}"
    env = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": endpoint}
    return run_cli("aws", *arguments, "--region", region, env=env)


def refused(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    assert answer["Error"]["Message"] and answer["ResponseMetadata"]["RequestId"], answer
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def test_a_trail_is_described_with_every_member_that_it_has(asked):
    answer = client(asked).describe_trails()
    main, local = answer["trailList"]
    assert main == {
        "Name": "main",
        "S3BucketName": BUCKET,
        "S3KeyPrefix": "audit/logs",
        "SnsTopicName": "told",
        "SnsTopicARN": TOPIC,
        "IncludeGlobalServiceEvents": True,
        "IsMultiRegionTrail": True,
        "HomeRegion": HOME_REGION,
        "TrailARN": arn("main"),
        "LogFileValidationEnabled": True,
        "CloudWatchLogsLogGroupArn": f"{GROUP}:*",
        "CloudWatchLogsRoleArn": ROLE,
        "HasCustomEventSelectors": True,
        "HasInsightSelectors": False,
        "IsOrganizationTrail": True,
    }
    assert local == {
        "Name": "local",
        "S3BucketName": BUCKET,
        "IncludeGlobalServiceEvents": False,
        "IsMultiRegionTrail": False,
        "HomeRegion": HOME_REGION,
        "TrailARN": arn("local"),
        "LogFileValidationEnabled": False,
        "HasCustomEventSelectors": False,
        "HasInsightSelectors": False,
        "IsOrganizationTrail": False,
    }
    assert len(answer["ResponseMetadata"]["RequestId"]) == 36


def test_a_region_sees_its_own_trails_and_those_of_all_regions(asked):
    def names(region, **request):
        return [trail["Name"] for trail in client(asked, region=region).describe_trails(**request)["trailList"]]

    assert names(HOME_REGION) == ["main", "local"]
    assert names(HOME_REGION, includeShadowTrails=False) == ["main", "local"]
    assert names(HOME_REGION, trailNameList=["local", "absent"]) == ["local"]
    assert names(AWAY) == ["main"]
    assert names(AWAY, includeShadowTrails=False) == []
    assert names(AWAY, trailNameList=["main"]) == []
    assert names(AWAY, trailNameList=[arn("main"), arn("local")]) == ["main", "local"]
    assert names(AWAY, trailNameList=[arn("main", account="999988887777")]) == []


def test_public_keys_are_those_of_every_region_in_the_time_asked_for(asked):
    keys, day = asked.keys, 86_400

    def listed(**request):
        pages = client(asked, region="sa-east-1").get_paginator("list_public_keys").paginate(**request)
        found = [key for page in pages for key in page["PublicKeyList"]]
        return {name for name, key in keys.items() if key in found}

    at = lambda days: datetime.fromtimestamp(asked.now + days * day, timezone.utc)
    assert listed() == {"home", "away"}
    assert listed(StartTime=at(-20)) == {"old", "home", "away"}
    assert listed(StartTime=at(-20), EndTime=at(-15)) == {"old"}
    assert listed(StartTime=at(22), EndTime=at(23)) == {"away"}
    assert listed(StartTime=at(-400), EndTime=at(-300)) == set()
    assert listed(StartTime=asked.now - 7 * day, EndTime=asked.now - 6 * day) == {"home"}


def test_the_organization_is_the_one_of_the_organization_trail(asked, make_daemon):
    organization = client(asked, "organizations").describe_organization()["Organization"]
    assert organization == {
        "Id": ORGANIZATION,
        "Arn": f"arn:aws:organizations::{HOME_ACCOUNT}:organization/{ORGANIZATION}",
        "FeatureSet": "ALL",
        "MasterAccountArn": f"arn:aws:organizations::{HOME_ACCOUNT}:account/{ORGANIZATION}/{HOME_ACCOUNT}",
        "MasterAccountId": HOME_ACCOUNT,
    }
    alone = make_daemon("alone", config={"trails": [TRAILS[1]]}).start()
    organizations = client(alone, "organizations")
    with pytest.raises(organizations.exceptions.AWSOrganizationsNotInUseException):
        organizations.describe_organization()


def test_each_error_comes_to_the_client_as_the_one_it_knows(asked):
    cloudtrail = client(asked)
    known, later = cloudtrail.exceptions, datetime(2026, 5, 2, tzinfo=timezone.utc)
    for operation, request, error in [
        ("describe_trails", {"trailNameList": ["a b"]}, known.InvalidTrailNameException),
        ("describe_trails", {"trailNameList": ["ab"]}, known.InvalidTrailNameException),
        ("describe_trails", {"trailNameList": ["arn:aws:cloudtrail:x"]}, known.CloudTrailARNInvalidException),
        ("list_public_keys", {"StartTime": later, "EndTime": datetime(2026, 5, 1, tzinfo=timezone.utc)}, known.InvalidTimeRangeException),
        ("list_public_keys", {"NextToken": "more"}, known.InvalidTokenException),
        ("get_event_data_store", {"EventDataStore": "main"}, known.UnsupportedOperationException),
    ]:
        with pytest.raises(error) as caught:
            getattr(cloudtrail, operation)(**request)
        answer = caught.value.response
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert answer["Error"]["Message"] and answer["ResponseMetadata"]["RequestId"], answer
    assert refused(cloudtrail.describe_trails, trailNameList=[17]) == ("SerializationException", 400)
    assert refused(client(asked, "organizations").list_accounts) == ("UnknownOperationException", 400)


def test_every_operation_that_botocore_knows_is_answered_or_refused_by_its_name(asked):
    model, answered = client(asked).meta.service_model, set()
    with Client(asked.api_port) as connection:
        for operation in model.operation_names:
            headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{TARGET}.{operation}"}
            status, _, answer = connection.post(b"{}", headers, path="/")
            if status == 200 or answer["__type"] != "UnsupportedOperationException":
                answered.add(operation)
            else:
                assert status == 400 and operation in answer["message"], (operation, answer)
    trails = {"CreateTrail", "UpdateTrail", "DeleteTrail", "GetTrail", "DescribeTrails", "ListTrails", "StartLogging", "StopLogging", "GetTrailStatus"}
    selectors = {"PutEventSelectors", "GetEventSelectors", "PutInsightSelectors", "GetInsightSelectors"}
    assert answered >= trails | selectors | {"AddTags", "RemoveTags", "ListTags", "ListPublicKeys"}
    assert "CreateEventDataStore" not in answered


def test_what_is_not_the_protocol_is_refused_and_the_connection_stays_usable(asked):
    sound = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{TARGET}.DescribeTrails"}
    with Client(asked.api_port) as connection:
        for headers, body, status, code in [
            ({"X-Amz-Target": sound["X-Amz-Target"]}, b"{}", 400, "UnknownOperationException"),
            (sound | {"Content-Type": "application/json"}, b"{}", 400, "UnknownOperationException"),
            ({"Content-Type": sound["Content-Type"]}, b"{}", 400, "UnknownOperationException"),
            (sound | {"X-Amz-Target": "DynamoDB_20120810.ListTables"}, b"{}", 400, "UnknownOperationException"),
            (sound, b"", 400, "SerializationException"),
            (sound, b"[]", 400, "SerializationException"),
            (sound, b"{", 400, "SerializationException"),
            (sound, b"\xff", 400, "SerializationException"),
            (sound | {"Authorization": "AWS4-HMAC-SHA256 Credential=a/b/../cloudtrail/aws4_request"}, b"{}", 400, "InvalidSignatureException"),
            (sound | {"Content-Encoding": "gzip"}, b"{}", 400, "SerializationException"),
            (sound, b'{"x":"' + b"y" * 1_000_000 + b'"}', 200, None),
        ]:
            got, headers, answer = connection.post(body, headers, path="/")
            assert (got, answer.get("__type")) == (status, code), answer
            assert headers["Content-Type"] == "application/x-amz-json-1.1" and len(headers["x-amzn-RequestId"]) == 36
        for method, status in [("GET", 404), ("PUT", 405), ("DELETE", 405)]:
            connection.connection.request(method, "/")
            answer = connection.connection.getresponse()
            assert (answer.status, bool(json.loads(answer.read()))) == (status, True)


def test_the_aws_cli_describes_trails_and_lists_public_keys(asked):
    code, out, err = cli(asked, "cloudtrail", "describe-trails", region=AWAY)
    assert code == 0, err
    assert [trail["TrailARN"] for trail in json.loads(out)["trailList"]] == [arn("main")]
    code, out, err = cli(asked, "cloudtrail", "list-public-keys")
    assert code == 0, err
    fingerprints = {key["Fingerprint"] for key in json.loads(out)["PublicKeyList"]}
    assert {name for name, key in asked.keys.items() if key["Fingerprint"] in fingerprints} == {"home", "away"}
    code, out, err = cli(asked, "organizations", "describe-organization")
    assert (code, json.loads(out)["Organization"]["Id"]) == (0, ORGANIZATION), err
    code, _, err = cli(asked, "cloudtrail", "list-event-data-stores")
    assert code != 0 and "UnsupportedOperationException" in err and "ListEventDataStores" in err, (code, err)


def test_validate_logs_finds_the_trail_its_organization_and_the_keys(asked):
    """Whether digests are there is not asked here: without any of the three it ends with another code, in every region."""
    for region in (HOME_REGION, AWAY):
        endpoint = f"http://127.0.0.1:{asked.api_port}"
        env = {
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": region,
            "AWS_ENDPOINT_URL_CLOUDTRAIL": endpoint,
            "AWS_ENDPOINT_URL_ORGANIZATIONS": endpoint,
            "AWS_ENDPOINT_URL_S3": asked.store_endpoint,
        }
        start = datetime.fromtimestamp(asked.now - 7200, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        arguments = ["--trail-arn", arn("main"), "--account-id", HOME_ACCOUNT, "--start-time", start]
        code, out, err = run_cli("aws", "cloudtrail", "validate-logs", *arguments, env=env)
        assert code == 0, (code, out, err)


def test_nothing_of_an_authorization_header_is_logged(make_daemon):
    daemon = make_daemon(config={"trails": TRAILS[1:]}, env={"RUST_LOG": "debug"}).start()
    client(daemon).describe_trails()
    refused(client(daemon).get_trail, Name="absent")
    log = daemon.log.read_text()
    assert "api request answered" in log and "api request refused" in log
    assert "AKIDEXAMPLE" not in log and "Signature" not in log
