"""Trails made, changed and deleted through the CloudTrail API, by unmodified clients: boto3 and the AWS CLI.

What deliveries make of it is not asked here.
"""

import json
import threading
from datetime import datetime, timedelta, timezone

import pytest

from events import HOME_ACCOUNT, HOME_REGION, spread
from harness import BUCKET, wait_until
from test_api import arn, cli, client
from trails import as_account, make_trail, settings

AWAY = "eu-west-1"
OTHER = "444455556666"


@pytest.fixture
def trails(make_daemon):
    """A ready daemon with a trail `main` of its configuration."""
    return make_daemon().start()


def test_the_whole_life_of_a_trail(trails):
    cloudtrail, s3 = client(trails), trails.s3()
    s3.create_bucket(Bucket="new-logs")
    made = cloudtrail.create_trail(Name="life", S3BucketName="new-logs", S3KeyPrefix="a/b", EnableLogFileValidation=True)
    assert settings(made) == {
        "Name": "life",
        "S3BucketName": "new-logs",
        "S3KeyPrefix": "a/b",
        "IncludeGlobalServiceEvents": True,
        "IsMultiRegionTrail": False,
        "TrailARN": arn("life"),
        "LogFileValidationEnabled": True,
        "IsOrganizationTrail": False,
    }
    marker = s3.get_object(Bucket="new-logs", Key=f"a/b/AWSLogs/{HOME_ACCOUNT}/CloudTrail/")
    assert (marker["ContentLength"], marker["ContentType"], marker["ContentEncoding"]) == (0, "application/json", "gzip")

    status = cloudtrail.get_trail_status(Name="life")
    texts = ["LatestDeliveryAttemptTime", "LatestDeliveryAttemptSucceeded", "LatestNotificationAttemptTime"]
    texts += ["LatestNotificationAttemptSucceeded", "TimeLoggingStarted", "TimeLoggingStopped"]
    assert settings(status) == {"IsLogging": False} | dict.fromkeys(texts, "")

    now = datetime.now(timezone.utc)
    for _ in range(2):
        cloudtrail.start_logging(Name="life")
    status = cloudtrail.get_trail_status(Name=arn("life"))
    assert status["IsLogging"] and abs(status["StartLoggingTime"] - now) < timedelta(minutes=1), status
    for _ in range(2):
        cloudtrail.stop_logging(Name="life")
    status = cloudtrail.get_trail_status(Name="life")
    assert not status["IsLogging"] and status["StopLoggingTime"] >= status["StartLoggingTime"], status
    assert status["TimeLoggingStopped"].endswith("Z") and status["TimeLoggingStarted"].endswith("Z")

    cloudtrail.delete_trail(Name="life")
    with pytest.raises(cloudtrail.exceptions.TrailNotFoundException):
        cloudtrail.get_trail(Name="life")
    assert [trail["Name"] for trail in cloudtrail.describe_trails()["trailList"]] == ["main"]
    assert s3.get_object(Bucket="new-logs", Key=f"a/b/AWSLogs/{HOME_ACCOUNT}/CloudTrail/")["ContentLength"] == 0, "its objects stay"
    assert cloudtrail.create_trail(Name="life", S3BucketName="new-logs")["TrailARN"] == arn("life")


def test_what_was_answered_survives_a_kill(trails):
    cloudtrail = client(trails)
    make_trail(trails, "kept", TagsList=[{"Key": "team", "Value": "audit"}])
    make_trail(trails, "gone")
    cloudtrail.start_logging(Name="kept")
    cloudtrail.put_insight_selectors(TrailName="kept", InsightSelectors=[{"InsightType": "ApiCallRateInsight"}])
    selectors = [{"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}, {"Field": "readOnly", "Equals": ["false"]}]}]
    cloudtrail.put_event_selectors(TrailName="kept", AdvancedEventSelectors=selectors)
    cloudtrail.update_trail(Name="kept", S3KeyPrefix="p", IsMultiRegionTrail=True)
    cloudtrail.delete_trail(Name="gone")
    before = settings(cloudtrail.get_trail(Name="kept"))
    started = cloudtrail.get_trail_status(Name="kept")["StartLoggingTime"]
    trails.kill()
    trails.start()
    assert settings(cloudtrail.get_trail(Name="kept")) == before
    assert before["Trail"]["HasCustomEventSelectors"] and before["Trail"]["HasInsightSelectors"]
    assert cloudtrail.get_event_selectors(TrailName="kept")["AdvancedEventSelectors"] == selectors
    assert cloudtrail.get_insight_selectors(TrailName="kept")["InsightSelectors"] == [{"InsightType": "ApiCallRateInsight"}]
    assert cloudtrail.list_tags(ResourceIdList=[arn("kept")])["ResourceTagList"][0]["TagsList"] == [{"Key": "team", "Value": "audit"}]
    status = cloudtrail.get_trail_status(Name="kept")
    assert status["IsLogging"] and status["StartLoggingTime"] == started
    assert [trail["Name"] for trail in cloudtrail.list_trails()["Trails"]] == ["kept", "main"]


def test_a_damaged_list_of_trails_is_put_aside_and_the_daemon_starts(trails):
    make_trail(trails, "lost")
    assert trails.stop()[0] == 0
    kept = trails.data_dir / "trails.json"
    damaged = kept.read_bytes().replace(b"lost", b"last")
    kept.write_bytes(damaged)
    trails.start()
    assert [trail["Name"] for trail in client(trails).list_trails()["Trails"]] == ["main"]
    [aside] = trails.data_dir.glob("trails.json.damaged-*")
    assert aside.read_bytes() == damaged
    assert "cannot be read" in trails.log.read_text()
    make_trail(trails, "lost")


def test_terraforms_calls_in_its_order(trails):
    """What the provider's resource `aws_cloudtrail` calls: create, read, update, read, import, delete."""
    cloudtrail = client(trails)

    def read():
        described = cloudtrail.describe_trails(trailNameList=[arn("terraformed")])["trailList"]
        status = cloudtrail.get_trail_status(Name=arn("terraformed"))
        tags = cloudtrail.list_tags(ResourceIdList=[arn("terraformed")])["ResourceTagList"][0]["TagsList"]
        [trail] = described
        selectors, insights = None, None
        if trail["HasCustomEventSelectors"]:
            selectors = settings(cloudtrail.get_event_selectors(TrailName=arn("terraformed")))
        if trail["HasInsightSelectors"]:
            insights = cloudtrail.get_insight_selectors(TrailName=arn("terraformed"))["InsightSelectors"]
        return trail, status["IsLogging"], {tag["Key"]: tag["Value"] for tag in tags}, selectors, insights

    tags = [{"Key": "team", "Value": "audit"}, {"Key": "stage", "Value": "prod"}]
    made = cloudtrail.create_trail(
        Name="terraformed", S3BucketName=BUCKET, S3KeyPrefix="tf", IncludeGlobalServiceEvents=False, IsMultiRegionTrail=False,
        EnableLogFileValidation=False, IsOrganizationTrail=False, TagsList=tags,
    )  # fmt: skip
    assert made["TrailARN"] == arn("terraformed")
    cloudtrail.start_logging(Name=arn("terraformed"))
    basic = [{"ReadWriteType": "All", "IncludeManagementEvents": True, "DataResources": [{"Type": "AWS::S3::Object", "Values": ["arn:aws:s3:::"]}]}]
    cloudtrail.put_event_selectors(TrailName=arn("terraformed"), EventSelectors=basic)
    cloudtrail.put_insight_selectors(TrailName=arn("terraformed"), InsightSelectors=[{"InsightType": "ApiErrorRateInsight"}])

    trail, is_logging, got, selectors, insights = read()
    assert (trail["IncludeGlobalServiceEvents"], trail["S3KeyPrefix"], is_logging) == (False, "tf", True)
    assert got == {"team": "audit", "stage": "prod"}
    assert selectors == {"TrailARN": arn("terraformed"), "EventSelectors": [basic[0] | {"ExcludeManagementEventSources": []}]}
    assert insights == [{"InsightType": "ApiErrorRateInsight"}]

    # Removing a setting sends an empty text, removing all selectors the default one, removing insights an empty list.
    cloudtrail.update_trail(
        Name=arn("terraformed"), S3BucketName=BUCKET, S3KeyPrefix="", IncludeGlobalServiceEvents=True, IsMultiRegionTrail=True,
        EnableLogFileValidation=True, CloudWatchLogsRoleArn="", CloudWatchLogsLogGroupArn="", SnsTopicName="", KmsKeyId="",
    )  # fmt: skip
    cloudtrail.stop_logging(Name=arn("terraformed"))
    default = [{"ReadWriteType": "All", "IncludeManagementEvents": True, "DataResources": []}]
    cloudtrail.put_event_selectors(TrailName=arn("terraformed"), EventSelectors=default)
    cloudtrail.put_insight_selectors(TrailName=arn("terraformed"), InsightSelectors=[])
    cloudtrail.remove_tags(ResourceId=arn("terraformed"), TagsList=[{"Key": "stage", "Value": "prod"}])
    cloudtrail.add_tags(ResourceId=arn("terraformed"), TagsList=[{"Key": "team", "Value": "security"}])

    trail, is_logging, got, selectors, insights = read()
    assert trail["IsMultiRegionTrail"] and trail["LogFileValidationEnabled"] and not is_logging
    assert not {"S3KeyPrefix", "SnsTopicName", "KmsKeyId", "CloudWatchLogsLogGroupArn"} & set(trail), trail
    assert (got, selectors, insights) == ({"team": "security"}, None, None)

    cloudtrail.delete_trail(Name=arn("terraformed"))
    assert cloudtrail.describe_trails(trailNameList=[arn("terraformed")])["trailList"] == []


def test_the_life_of_a_trail_by_the_aws_cli(trails):
    def run(*arguments):
        code, out, err = cli(trails, "cloudtrail", *arguments)
        assert code == 0, (arguments, err)
        return json.loads(out) if out.strip() else None

    run("create-trail", "--name", "cli", "--s3-bucket-name", BUCKET, "--is-multi-region-trail", "--tags-list", "Key=a,Value=b")
    run("start-logging", "--name", "cli")
    run("put-event-selectors", "--trail-name", "cli", "--event-selectors", '[{"ReadWriteType":"WriteOnly"}]')
    assert run("get-event-selectors", "--trail-name", "cli")["EventSelectors"][0]["ReadWriteType"] == "WriteOnly"
    assert run("get-trail-status", "--name", "cli")["IsLogging"]
    run("update-trail", "--name", "cli", "--s3-key-prefix", "p", "--no-is-multi-region-trail")
    trail = run("get-trail", "--name", "cli")["Trail"]
    assert (trail["S3KeyPrefix"], trail["IsMultiRegionTrail"]) == ("p", False)
    assert [trail["Name"] for trail in run("list-trails")["Trails"]] == ["cli", "main"]
    assert run("list-tags", "--resource-id-list", arn("cli"))["ResourceTagList"][0]["TagsList"] == [{"Key": "a", "Value": "b"}]
    run("stop-logging", "--name", "cli")
    run("delete-trail", "--name", "cli")
    code, _, err = cli(trails, "cloudtrail", "get-trail", "--name", "cli")
    assert code != 0 and "TrailNotFoundException" in err


def test_accounts_and_regions_share_an_endpoint(trails):
    for account, region in [(HOME_ACCOUNT, AWAY), (OTHER, HOME_REGION), (OTHER, AWAY)]:
        made = as_account(trails, account, region).create_trail(Name="same", S3BucketName=BUCKET)
        assert made["TrailARN"] == arn("same", region, account)
    shadow = arn("same", AWAY)
    client(trails, region=AWAY).update_trail(Name="same", IsMultiRegionTrail=True)

    def described(account, region, **request):
        return {trail["TrailARN"] for trail in as_account(trails, account, region).describe_trails(**request)["trailList"]}

    assert described(HOME_ACCOUNT, HOME_REGION) == {arn("main"), shadow}
    assert described(HOME_ACCOUNT, HOME_REGION, includeShadowTrails=False) == {arn("main")}
    # The trail of the configuration is the organization's, of which all accounts are.
    assert described(OTHER, HOME_REGION) == {arn("main"), arn("same", HOME_REGION, OTHER)}
    assert described(OTHER, "sa-east-1") == {arn("main")}
    here = client(trails)
    assert here.get_trail(Name=shadow)["Trail"]["HomeRegion"] == AWAY
    assert here.get_trail_status(Name=shadow)["IsLogging"] is False
    for call in [here.get_trail, here.get_trail_status]:
        with pytest.raises(here.exceptions.TrailNotFoundException):
            call(Name="same")
    for call in [here.start_logging, here.stop_logging, here.delete_trail, here.update_trail]:
        with pytest.raises(here.exceptions.InvalidHomeRegionException):
            call(Name=shadow)


def test_trails_are_listed_by_pages(trails):
    made = set()
    for number in range(60):
        cloudtrail = as_account(trails, OTHER, f"region-{number // 5}")
        made.add(cloudtrail.create_trail(Name=f"trail-{number}", S3BucketName=BUCKET)["TrailARN"])
    cloudtrail = as_account(trails, OTHER, HOME_REGION)
    pages = list(cloudtrail.get_paginator("list_trails").paginate())
    assert len(pages) > 1 and sum(len(page["Trails"]) for page in pages) == 60
    assert {trail["TrailARN"] for page in pages for trail in page["Trails"]} == made
    token = pages[0]["NextToken"]
    for who, foreign in [(client(trails), token), (cloudtrail, token[:-2]), (cloudtrail, "AAAA")]:
        with pytest.raises(who.exceptions.InvalidTokenException):
            who.list_trails(NextToken=foreign)
    full = as_account(trails, OTHER, "region-0")
    with pytest.raises(full.exceptions.MaximumNumberOfTrailsExceededException):
        full.create_trail(Name="one-more", S3BucketName=BUCKET)


def test_changes_at_the_same_time_are_all_kept(trails):
    make_trail(trails, "busy")

    def tag(number):
        client(trails).add_tags(ResourceId=arn("busy"), TagsList=[{"Key": str(number), "Value": "x"}])

    threads = [threading.Thread(target=tag, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [tags] = client(trails).list_tags(ResourceIdList=[arn("busy")])["ResourceTagList"]
    assert {tag["Key"] for tag in tags["TagsList"]} == set(map(str, range(20)))


def test_a_status_tells_of_deliveries(make_daemon, rng):
    daemon = make_daemon().start()
    cloudtrail = client(daemon)
    assert cloudtrail.get_trail_status(Name="main")["IsLogging"]
    daemon.send(spread(rng, 5))
    status = wait_until(lambda: delivered(cloudtrail), 20, "a delivery in the status")
    assert abs(status["LatestDeliveryTime"] - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert status["LatestDeliveryAttemptSucceeded"] == status["LatestDeliveryAttemptTime"] != ""
    assert "LatestDeliveryError" not in status


def delivered(cloudtrail):
    status = cloudtrail.get_trail_status(Name="main")
    return status if "LatestDeliveryTime" in status else None
