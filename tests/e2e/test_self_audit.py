"""What the API is asked becomes CloudTrail events of the caller's account."""

import gzip
import json
from datetime import datetime, timezone
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

import logfiles
import trails
from events import HOME_ACCOUNT, HOME_REGION, spread
from harness import BUCKET, Client, ensure_bucket, wait_until
from test_api import client
from trails import as_account

OTHER = "444455556666"
TARGET = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101"
CORPUS = Path(__file__).parents[1] / "corpus"


def make_trail(daemon, name, **members):
    """A trail that delivers elsewhere than the one whose records are read."""
    ensure_bucket(daemon.s3(), "elsewhere")
    return trails.make_trail(daemon, name, bucket="elsewhere", **members)


def records(daemon, count, bucket=BUCKET):
    """So many records of calls, by their requestID, once they are delivered."""

    def delivered():
        found = [value for file in logfiles.read(daemon.s3(), bucket) for value in file.own_calls]
        return len(found) >= count and found

    found = wait_until(delivered, 20, f"{count} records of calls")
    assert len(found) == count, [(value["eventName"], value.get("errorCode")) for value in found]
    by_id = {value["requestID"]: value for value in found}
    assert len(by_id) == count
    return by_id


def request_id(answer):
    return answer["ResponseMetadata"]["RequestId"]


def test_each_call_is_an_event_of_the_callers_account(daemon):
    cloudtrail = client(daemon)
    made = make_trail(daemon, "mine", TagsList=[{"Key": "team", "Value": "audit"}])
    read = cloudtrail.describe_trails(trailNameList=["mine"])
    started = cloudtrail.start_logging(Name="mine")
    with pytest.raises(ClientError) as refused:
        cloudtrail.delete_trail(Name="none")
    with pytest.raises(ClientError) as unsupported:
        cloudtrail.list_queries(EventDataStore="arn:aws:cloudtrail:us-east-1:111122223333:eventdatastore/x-1-2")
    other = as_account(daemon, OTHER, "eu-west-1").list_trails()
    organization = boto3.client(
        "organizations", endpoint_url=daemon.api_endpoint, region_name=HOME_REGION,
        aws_access_key_id="a", aws_secret_access_key="b", config=Config(retries={"total_max_attempts": 1}),
    ).describe_organization()  # fmt: skip
    found = records(daemon, 7)

    record = found[request_id(made)]
    assert (record["eventName"], record["readOnly"], record["managementEvent"]) == ("CreateTrail", False, True)
    assert record["requestParameters"] == {"name": "mine", "s3BucketName": "elsewhere", "tagsList": [{"key": "team", "value": "audit"}]}
    assert record["responseElements"]["trailARN"] == made["TrailARN"]
    assert record["userAgent"].startswith("Boto3/") and record["recipientAccountId"] == HOME_ACCOUNT
    moment = datetime.strptime(record["eventTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert abs((datetime.now(timezone.utc) - moment).total_seconds()) < 60
    record = found[request_id(read)]
    assert (record["eventName"], record["readOnly"], record["responseElements"]) == ("DescribeTrails", True, None)
    assert record["requestParameters"] == {"trailNameList": ["mine"]}
    assert found[request_id(started)]["responseElements"] is None
    record = found[request_id(refused.value.response)]
    assert record["errorCode"] == "TrailNotFoundException" and "Unknown trail: none" in record["errorMessage"]
    assert found[request_id(unsupported.value.response)]["errorCode"] == "UnsupportedOperationException"
    record = found[request_id(other)]
    assert (record["recipientAccountId"], record["awsRegion"]) == (OTHER, "eu-west-1")
    record = found[request_id(organization)]
    assert (record["eventSource"], record["eventName"]) == ("organizations.amazonaws.com", "DescribeOrganization")
    # Neither the status nor events are calls of the API, nor is what names no operation.
    assert daemon.status()["ready"]
    with Client(daemon.api_port) as raw:
        for headers in [{"X-Amz-Target": f"{TARGET}.Nonsense"}, {}]:
            assert raw.post(b"{}", {"Content-Type": "application/x-amz-json-1.1"} | headers, path="/")[0] == 400
    make_trail(daemon, "again")
    records(daemon, 8)
    metrics = daemon.metrics()
    assert metrics.total("traild_audit_records_total") == 8 and metrics.total("traild_audit_records_lost_total") == 0


def test_records_have_the_fields_of_cloudtrails_own(daemon):
    """Each member of a real record of the same operation is there, with the same type."""
    real = {}
    for file in sorted(CORPUS.glob("*.ndjson.gz")):
        for line in gzip.decompress(file.read_bytes()).splitlines():
            value = json.loads(line)
            if value.get("eventSource") == "cloudtrail.amazonaws.com" and value["eventType"] == "AwsApiCall" and "errorCode" not in value:
                real.setdefault(value["eventName"], []).append(value)
    cloudtrail = client(daemon)
    make_trail(daemon, "same", IncludeGlobalServiceEvents=True, TagsList=[{"Key": "a", "Value": "b"}])
    cloudtrail.put_event_selectors(TrailName="same", EventSelectors=[{"ReadWriteType": "ReadOnly"}])
    cloudtrail.get_event_selectors(TrailName="same")
    cloudtrail.get_trail_status(Name="same")
    cloudtrail.list_tags(ResourceIdList=[f"arn:aws:cloudtrail:{HOME_REGION}:{HOME_ACCOUNT}:trail/same"])
    cloudtrail.start_logging(Name="same")
    cloudtrail.stop_logging(Name="same")
    cloudtrail.describe_trails(trailNameList=["same"])
    cloudtrail.delete_trail(Name="same")
    ours = {value["eventName"]: value for value in records(daemon, 9).values()}
    compared = 0
    for name, value in ours.items():
        for theirs in real.get(name, []):
            optional = {"tlsDetails", "sessionCredentialFromConsole", "vpcEndpointId", "resources", "apiVersion"}
            assert set(theirs) - optional <= set(value), (name, set(theirs) - set(value))
            for key in set(theirs) & set(value) - {"requestParameters"}:
                assert type(theirs[key]) is type(value[key]), (name, key, theirs[key], value[key])
            if isinstance(theirs["requestParameters"], dict) and isinstance(value["requestParameters"], dict):
                assert set(value["requestParameters"]) & set(theirs["requestParameters"]), (name, theirs["requestParameters"])
            compared += 1
    assert compared >= 10, compared


def test_a_change_is_not_made_when_it_could_not_be_recorded_and_reading_goes_on(make_daemon, rng):
    """The journal is full: S3 is not there, so nothing is delivered."""
    config = {"journal": {"max_bytes": "256KiB", "segment_bytes": "64KiB"}, "storage": {"kind": "s3"},
              "aws": {"endpoint_url": "http://127.0.0.1:1", "force_path_style": True}}  # fmt: skip
    daemon = make_daemon(config=config, env={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}).start()
    while daemon.post(b"\n".join(spread(rng, 20)))[0] == 200:
        pass
    cloudtrail = client(daemon)

    def tag():
        arn = f"arn:aws:cloudtrail:{HOME_REGION}:{HOME_ACCOUNT}:trail/main"
        cloudtrail.add_tags(ResourceId=arn, TagsList=[{"Key": "a", "Value": "b"}])

    with pytest.raises(ClientError) as refused:
        tag()
    assert refused.value.response["Error"]["Code"] == "ServiceUnavailableException", refused.value.response
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert "nothing was changed" in refused.value.response["Error"]["Message"]
    assert [trail["Name"] for trail in cloudtrail.describe_trails()["trailList"]] == ["main"]
    metrics = daemon.metrics()
    assert metrics.total("traild_audit_records_lost_total") == 1
    assert "a call of the api is not recorded" in daemon.log.read_text()


def test_what_its_record_could_not_tell_is_not_done(daemon):
    cloudtrail = client(daemon)
    for name in ["mine", "sandbox"]:
        make_trail(daemon, name)
        cloudtrail.start_logging(Name=name)
    deep = "[" * 63 + "]" * 63
    bodies = [f'{{"Name":"mine","x":{deep}}}', '{"Name":"mine","name":"sandbox"}', '{"Name":"mine","x":"\\ud800"}']
    with Client(daemon.api_port) as raw:
        for body in bodies:
            headers = {"X-Amz-Target": f"{TARGET}.StopLogging", "Content-Type": "application/x-amz-json-1.1"}
            status, _, answer = raw.post(body.encode(), headers, path="/")
            assert (status, answer["__type"]) == (400, "SerializationException"), answer
    padded = json.dumps({"Name": "sandbox", "x": "y" * 200_000}).encode()
    with Client(daemon.api_port) as raw:
        headers = {"X-Amz-Target": f"{TARGET}.StopLogging", "Content-Type": "application/x-amz-json-1.1"}
        assert raw.post(padded, headers, path="/")[0] == 200
    found = list(records(daemon, 8).values())
    refused = [value for value in found if value.get("errorCode") == "SerializationException"]
    assert len(refused) == 3 and all(value["requestParameters"] is None for value in refused)
    (stopped,) = [value for value in found if value["eventName"] == "StopLogging" and "errorCode" not in value]
    assert stopped["requestParameters"] == {"name": "sandbox", "xOmitted": {"bytes": 200_002}}
    assert cloudtrail.get_trail_status(Name="mine")["IsLogging"]


def test_records_can_be_turned_off(make_daemon, rng):
    daemon = make_daemon(config={"api": {"record_calls": False}}).start()
    client(daemon).describe_trails()
    daemon.send(spread(rng, 3))
    daemon.drain()
    assert sum(len(file.records) + len(file.own_calls) for file in logfiles.read(daemon.s3(), BUCKET)) == 3
    assert daemon.metrics().total("traild_audit_records_total") == 0


def test_a_kill_after_the_answer_keeps_the_record(daemon):
    ids = [request_id(make_trail(daemon, f"kept-{number}")) for number in range(3)]
    daemon.kill()
    daemon.start()
    assert set(records(daemon, 3)) == set(ids)
