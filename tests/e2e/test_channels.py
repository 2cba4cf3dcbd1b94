"""Channels and their resource policies, through boto3 and the AWS CLI."""

import json
import re
import subprocess
import uuid
from pathlib import Path

import pytest

import logfiles
from events import HOME_ACCOUNT, HOME_REGION
from harness import BUCKET, clean_env
from provoked import Provoked, all_tests_of_this_file_ran
from test_api import cli, client
from trails import as_account, make_trail, settings

AWAY, OTHER = "eu-west-1", "444455556666"
ARN = re.compile(rf"arn:aws:cloudtrail:{HOME_REGION}:{HOME_ACCOUNT}:channel/[0-9a-f-]{{36}}")
#: CloudTrail has 60 operations; those of this file.
OPERATIONS = """CreateChannel GetChannel ListChannels UpdateChannel DeleteChannel PutResourcePolicy GetResourcePolicy
DeleteResourcePolicy""".split()

#: Errors of the model that traild never answers with.
NEVER = {
    "UnsupportedOperationException": "these operations are all there",
    "OperationNotPermittedException": "any account may make channels",
    "ConflictException": "a change of one setting is made whatever else has changed",
    "EventDataStoreNotFoundException": "there are no event data stores, their ARNs are kept as they are",
    "InvalidEventDataStoreCategoryException": "there are no event data stores",
    "InactiveEventDataStoreException": "there are no event data stores",
}


def store(number=1, account=HOME_ACCOUNT):
    location = f"arn:aws:cloudtrail:{HOME_REGION}:{account}:eventdatastore/{uuid.UUID(int=number)}"
    return {"Type": "EVENT_DATA_STORE", "Location": location}


def make_channel(cloudtrail, name="wiki", source="Custom", **members):
    return cloudtrail.create_channel(Name=name, Source=source, Destinations=[store()], **members)["ChannelArn"]


def policy(arn, principal=f"arn:aws:iam::{OTHER}:root", **members):
    statement = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "cloudtrail-data:PutAuditEvents", "Resource": arn}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement | members]})


@pytest.fixture(scope="module")
def provoked():
    return Provoked()


def test_a_channel_lives_from_its_making_to_its_end_across_restarts(daemon):
    cloudtrail = client(daemon)
    tags = [{"Key": "team", "Value": "docs"}, {"Key": "bare"}]
    made = settings(cloudtrail.create_channel(Name="wiki", Source="Custom", Destinations=[store()], Tags=tags))
    arn = made["ChannelArn"]
    assert ARN.fullmatch(arn), arn
    assert made == {"ChannelArn": arn, "Name": "wiki", "Source": "Custom", "Destinations": [store()], "Tags": tags}
    rest = {"ChannelArn": arn, "Name": "wiki", "Source": "Custom", "Destinations": [store()]}
    assert settings(cloudtrail.get_channel(Channel=arn)) == rest
    assert settings(cloudtrail.get_channel(Channel=arn.rsplit("/")[-1])) == rest
    assert settings(cloudtrail.list_channels()) == {"Channels": [{"ChannelArn": arn, "Name": "wiki"}]}

    updated = settings(cloudtrail.update_channel(Channel=arn, Name="wiki.2"))
    assert updated == rest | {"Name": "wiki.2"}
    updated = settings(cloudtrail.update_channel(Channel=arn, Destinations=[store(2), store(3)]))
    assert updated == rest | {"Name": "wiki.2", "Destinations": [store(2), store(3)]}
    assert settings(cloudtrail.update_channel(Channel=arn)) == updated

    make_trail(daemon, "made")
    trail = f"arn:aws:cloudtrail:{HOME_REGION}:{HOME_ACCOUNT}:trail/made"
    cloudtrail.add_tags(ResourceId=arn, TagsList=[{"Key": "team", "Value": "wiki"}, {"Key": "stage", "Value": "prod"}])
    cloudtrail.remove_tags(ResourceId=arn, TagsList=[{"Key": "bare"}])
    kept = [{"Key": "team", "Value": "wiki"}, {"Key": "stage", "Value": "prod"}]
    listed = [{"ResourceId": arn, "TagsList": kept}, {"ResourceId": trail, "TagsList": []}]
    assert cloudtrail.list_tags(ResourceIdList=[arn, trail])["ResourceTagList"] == listed

    document = policy(arn)
    attached = {"ResourceArn": arn, "ResourcePolicy": document}
    assert settings(cloudtrail.put_resource_policy(**attached)) == attached

    # What was answered is durable.
    daemon.kill()
    daemon.start()
    cloudtrail = client(daemon)
    assert settings(cloudtrail.get_channel(Channel=arn)) == updated
    assert cloudtrail.list_tags(ResourceIdList=[arn, trail])["ResourceTagList"] == listed
    assert settings(cloudtrail.get_resource_policy(ResourceArn=arn)) == attached
    cloudtrail.delete_resource_policy(ResourceArn=arn)
    assert settings(cloudtrail.delete_channel(Channel=arn)) == {}
    assert cloudtrail.list_channels()["Channels"] == []
    daemon.kill()
    daemon.start()
    assert client(daemon).list_channels()["Channels"] == []


def test_a_channel_is_seen_in_its_own_account_and_region_only(daemon, provoked):
    arn = make_channel(client(daemon))
    elsewhere = [client(daemon, region=AWAY), as_account(daemon, OTHER, HOME_REGION)]
    for cloudtrail in elsewhere:
        assert cloudtrail.list_channels()["Channels"] == []
        for operation in ["GetChannel", "UpdateChannel", "DeleteChannel"]:
            provoked(cloudtrail, operation, "ChannelNotFoundException", Channel=arn)
        for operation, rest in [("GetResourcePolicy", {}), ("DeleteResourcePolicy", {}), ("PutResourcePolicy", {"ResourcePolicy": policy(arn)})]:
            provoked(cloudtrail, operation, "ResourceNotFoundException", ResourceArn=arn, **rest)
        # Names and sources are taken once in each.
        make_channel(cloudtrail) if cloudtrail is elsewhere[0] else cloudtrail.create_channel(
            Name="wiki", Source="Custom", Destinations=[store(account=OTHER)]
        )
    assert [one["ChannelArn"] for one in client(daemon).list_channels()["Channels"]] == [arn]


def test_settings_that_cannot_be(daemon, provoked):
    cloudtrail = client(daemon)
    arn = make_channel(cloudtrail)
    other = make_channel(cloudtrail, "other", "Okta")
    sound = {"Name": "third", "Source": "Partner", "Destinations": [store()]}
    many = [store(number) for number in range(201)]
    foreign = [store(account=OTHER)]
    names = [{"Name": "a b"}, {"Name": "n" * 129}, {"Name": "ab"}]
    destinations = [{"Destinations": many}, {"Destinations": []}, {"Destinations": [store(), store()]}]
    destinations.append({"Destinations": [{"Type": "AWS_SERVICE", "Location": "wiki"}]})
    stores = [{"Destinations": [store(), *foreign]}, {"Destinations": [{"Type": "EVENT_DATA_STORE", "Location": "wiki"}]}]
    for members, code in [
        *((members, "InvalidParameterException") for members in names + destinations),
        *((members, "EventDataStoreARNInvalidException") for members in stores),
        ({"Name": "wiki"}, "ChannelAlreadyExistsException"),
    ]:
        provoked(cloudtrail, "CreateChannel", code, **sound | members)
        provoked(cloudtrail, "UpdateChannel", code, Channel=other, **members)
    for members, code in [
        ({"Source": "Okta"}, "ChannelAlreadyExistsException"),
        ({"Source": "custom"}, "InvalidSourceException"),
        ({"Source": "1Password!"}, "InvalidSourceException"),
        ({"Source": "s" * 257}, "InvalidSourceException"),
        ({"Tags": [{"Key": "k" * 129}]}, "InvalidTagParameterException"),
        ({"Tags": [{"Key": "k"}, {"Key": "k"}]}, "InvalidTagParameterException"),
        ({"Tags": [{"Key": str(number)} for number in range(51)]}, "TagsLimitExceededException"),
    ]:
        provoked(cloudtrail, "CreateChannel", code, **sound | members)
    for operation in ["GetChannel", "UpdateChannel", "DeleteChannel"]:
        for given in ["a b", "arn:aws:cloudtrail", arn.replace("channel/", "trail/"), "x" * 300]:
            provoked(cloudtrail, operation, "ChannelARNInvalidException", Channel=given)
        provoked(cloudtrail, operation, "ChannelNotFoundException", Channel=str(uuid.uuid4()))
    for number in range(23):
        make_channel(cloudtrail, f"channel-{number}", f"Partner{number}")
    provoked(cloudtrail, "CreateChannel", "ChannelMaxLimitExceededException", **sound)
    cloudtrail.delete_channel(Channel=other)
    cloudtrail.create_channel(**sound)


def test_lists_come_in_pages_that_belong_together(daemon, provoked):
    cloudtrail = client(daemon)
    arns = sorted(make_channel(cloudtrail, f"channel-{number}", f"Partner{number}") for number in range(5))
    seen, request = [], {"MaxResults": 2}
    while True:
        page = cloudtrail.list_channels(**request)
        assert len(page["Channels"]) <= 2
        seen += [channel["ChannelArn"] for channel in page["Channels"]]
        if "NextToken" not in page:
            break
        request["NextToken"] = page["NextToken"]
    assert seen == arns
    token = cloudtrail.list_channels(MaxResults=2)["NextToken"]
    code = "InvalidNextTokenException"
    provoked(cloudtrail, "ListChannels", code, MaxResults=3, NextToken=token)
    provoked(cloudtrail, "ListChannels", code, NextToken=token)
    provoked(cloudtrail, "ListChannels", code, MaxResults=2, NextToken=token[:-1] + ("A" if token[-1] != "A" else "B"))
    provoked(client(daemon, region=AWAY), "ListChannels", code, MaxResults=2, NextToken=token)
    provoked(as_account(daemon, OTHER, HOME_REGION), "ListChannels", code, MaxResults=2, NextToken=token)
    provoked(cloudtrail, "ListChannels", "InvalidParameterException", MaxResults=1001)


def test_policies_that_cannot_be(daemon, provoked):
    cloudtrail = client(daemon)
    arn = make_channel(cloudtrail)
    for operation in ["GetResourcePolicy", "DeleteResourcePolicy"]:
        provoked(cloudtrail, operation, "ResourcePolicyNotFoundException", ResourceArn=arn)
    of = lambda resource: f"arn:aws:cloudtrail:{HOME_REGION}:{HOME_ACCOUNT}:{resource}"
    for given, code in [
        ("wiki", "ResourceARNNotValidException"),
        (of("channel/a b"), "ResourceARNNotValidException"),
        (of("snapshot/x"), "ResourceARNNotValidException"),
        (of(f"channel/{uuid.uuid4()}"), "ResourceNotFoundException"),
        (of(f"eventdatastore/{uuid.uuid4()}"), "ResourceNotFoundException"),
        (of("dashboard/x"), "ResourceNotFoundException"),
        (of("trail/main"), "ResourceTypeNotSupportedException"),
        ("arn:aws:s3:::bucket", "ResourceTypeNotSupportedException"),
    ]:
        provoked(cloudtrail, "GetResourcePolicy", code, ResourceArn=given)
        provoked(cloudtrail, "DeleteResourcePolicy", code, ResourceArn=given)
        provoked(cloudtrail, "PutResourcePolicy", code, ResourceArn=given, ResourcePolicy=policy(given))
    for document in [
        "{}",
        "not json",
        policy(arn, principal="alice"),
        policy(arn, Action="cloudtrail:*"),
        policy(arn, Resource="*"),
        policy(arn, Sid="x" * 8192),
    ]:
        provoked(cloudtrail, "PutResourcePolicy", "ResourcePolicyNotValidException", ResourceArn=arn, ResourcePolicy=document)
    provoked(cloudtrail, "GetResourcePolicy", "ResourcePolicyNotFoundException", ResourceArn=arn)


def test_the_aws_cli_makes_and_shows_a_channel(daemon):
    code, out, err = cli(daemon, "cloudtrail", "create-channel", "--name", "wiki", "--source", "Custom", "--destinations", json.dumps([store()]))
    assert code == 0, err
    arn = json.loads(out)["ChannelArn"]
    code, out, err = cli(daemon, "cloudtrail", "get-channel", "--channel", arn)
    assert (code, json.loads(out)["Name"]) == (0, "wiki"), err


def test_the_commands_of_the_readme_make_a_channel_and_send_by_it(daemon):
    readme = Path(__file__).resolve().parents[2] / "README.md"
    blocks = re.findall(r"^```sh\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    [printed] = [block for block in blocks if "put-audit-events" in block]
    here = printed.replace("127.0.0.1:4580", f"127.0.0.1:{daemon.api_port}")
    assert here != printed
    done = subprocess.run(["bash", "-euc", here], cwd=daemon.home, env=clean_env(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["failed"] == [] and [one["id"] for one in answer["successful"]] == ["1"], answer
    daemon.drain()
    records = [value for file in logfiles.read(daemon.s3(), BUCKET) for _, value in file.records]
    [record] = [value for value in records if value["eventID"] == answer["successful"][0]["eventID"]]
    [channel] = client(daemon).list_channels()["Channels"]
    assert (record["eventName"], record["metadata"]["channelARN"]) == ("EditPage", channel["ChannelArn"])


def test_every_operation_of_cloudtrail_is_answered_or_refused_by_its_name(daemon):
    """All 60, through boto3, each with the members that it needs: a true answer, an error of its own, or UnsupportedOperationException."""
    cloudtrail = client(daemon)
    model = cloudtrail.meta.service_model
    assert len(model.operation_names) == 60
    unsupported, answered = set(), set()
    filled = {"string": "xxx", "integer": 1, "boolean": True, "list": [], "map": {}, "timestamp": 0, "structure": {}, "double": 1.0}
    for operation in model.operation_names:
        shape = model.operation_model(operation).input_shape
        request = {name: filled[shape.members[name].type_name] for name in shape.required_members}
        modelled = {error.name for error in model.operation_model(operation).error_shapes}
        try:
            getattr(cloudtrail, re.sub(r"(?<!^)([A-Z])", r"_\1", operation).lower())(**request)
            answered.add(operation)
        except cloudtrail.exceptions.ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
            if code == "UnsupportedOperationException":
                assert operation in message, message
                unsupported.add(operation)
            else:
                assert code in modelled | {"InvalidParameterException", "ConflictException"}, (operation, code)
                answered.add(operation)
    assert set(OPERATIONS) <= answered, unsupported
    assert "CreateEventDataStore" in unsupported and "StartQuery" in unsupported


def test_every_error_of_the_model_was_provoked_or_never_occurs(daemon, provoked, request):
    """The last of this file: what the tests above have provoked, held against botocore's model."""
    if not all_tests_of_this_file_ran(request, 9):
        pytest.skip("only with all tests of this file")
    provoked.check(client(daemon), OPERATIONS, NEVER, {})
