"""Each error that an operation on trails can answer with, as CloudTrail's API reference names it, provoked through boto3.

The operations and their errors are read from botocore's own model: what is in none of the tables here is in NEVER, with the reason.
"""

import threading

import pytest

import events
from events import HOME_ACCOUNT, HOME_REGION
from fake_aws import GROUP_ARN, ROLE, TOPIC, FakeAws, Refused
from harness import BUCKET, TEST_CREDENTIALS, calling, delivering_to, wait_until
from provoked import Provoked, all_tests_of_this_file_ran
from test_api import arn, client
from trails import FakeS3, as_account, make_trail

AWAY = "eu-west-1"
OTHER = "444455556666"
ABSENT = arn("absent")
TAG = [{"Key": "a", "Value": "b"}]

#: Errors of the model that traild never answers with.
NEVER = {
    "UnsupportedOperationException": "these operations are all there",
    "ThrottlingException": "nothing is throttled",
    "TrailNotProvidedException": "no longer in use",
    "KmsKeyDisabledException": "no longer in use, KmsException says it",
    "CloudTrailAccessNotEnabledException": "of AWS Organizations",
    "InsufficientDependencyServiceAccessPermissionException": "of AWS Organizations",
    "OrganizationNotInAllFeaturesModeException": "of AWS Organizations",
    "NoManagementAccountSLRExistsException": "of AWS Organizations",
    "InactiveEventDataStoreException": "there are no event data stores",
}
#: And of some operations only.
NEVER_OF = {
    **{
        (operation, "NotOrganizationMasterAccountException"): "another account does not see an organization trail"
        for operation in "DeleteTrail StartLogging StopLogging PutEventSelectors PutInsightSelectors AddTags RemoveTags UpdateTrail".split()
    },
    **{
        (operation, "ConflictException"): "a change of one setting is made whatever else has changed"
        for operation in "CreateTrail DeleteTrail StartLogging StopLogging PutEventSelectors PutInsightSelectors AddTags RemoveTags".split()
    },
    **{
        (operation, "OperationNotPermittedException"): "what is only read may be read"
        for operation in "GetTrail DescribeTrails ListTrails GetTrailStatus GetEventSelectors GetInsightSelectors ListTags".split()
    },
    **{
        (operation, "InvalidTrailNameException"): "resources are named by their ARNs, a name is no ARN"
        for operation in "AddTags RemoveTags ListTags".split()
    },
    ("CreateTrail", "OperationNotPermittedException"): "any account may make trails",
    ("UpdateTrail", "InvalidEventSelectorsException"): "selectors are not changed with it",
    ("PutInsightSelectors", "InsufficientS3BucketPolicyException"): "the bucket is not asked again",
    ("PutInsightSelectors", "InsufficientEncryptionPolicyException"): "the bucket is not asked again",
    ("PutInsightSelectors", "S3BucketDoesNotExistException"): "the bucket is not asked again",
    ("PutInsightSelectors", "KmsException"): "the bucket is not asked again",
}

OPERATIONS = """CreateTrail UpdateTrail DeleteTrail GetTrail DescribeTrails ListTrails StartLogging StopLogging GetTrailStatus
PutEventSelectors GetEventSelectors PutInsightSelectors GetInsightSelectors AddTags RemoveTags ListTags""".split()


@pytest.fixture(scope="module")
def provoked():
    return Provoked()


@pytest.fixture
def trails(make_daemon):
    """With a trail `main` of its configuration, which is the organization's, and a trail `made` of the API."""
    daemon = make_daemon().start()
    make_trail(daemon, "made")
    return daemon


def test_what_is_malformed_missing_or_not_to_be_changed(trails, provoked):
    cloudtrail = client(trails)

    def all_of(operations, code, **request):
        for operation in operations.split():
            provoked(cloudtrail, operation, code, **request)

    by_name = "UpdateTrail DeleteTrail GetTrail StartLogging StopLogging GetTrailStatus"
    by_trail_name = [
        ("PutEventSelectors", {"EventSelectors": [{}]}),
        ("PutInsightSelectors", {"InsightSelectors": []}),
        ("GetEventSelectors", {}),
        ("GetInsightSelectors", {}),
    ]
    for name, code in [("absent", "TrailNotFoundException"), (ABSENT, "TrailNotFoundException")]:
        all_of(by_name, code, Name=name)
        for operation, body in by_trail_name:
            provoked(cloudtrail, operation, code, TrailName=name, **body)
    for name, code in [("a b", "InvalidTrailNameException"), ("arn:aws:cloudtrail", "CloudTrailARNInvalidException")]:
        all_of(by_name, code, Name=name)
        for operation, body in by_trail_name:
            provoked(cloudtrail, operation, code, TrailName=name, **body)
        provoked(cloudtrail, "DescribeTrails", code, trailNameList=["made", name])
    provoked(cloudtrail, "CreateTrail", "InvalidTrailNameException", Name="a b", S3BucketName=BUCKET)

    read_only = "OperationNotPermittedException"
    all_of("UpdateTrail DeleteTrail StartLogging StopLogging", read_only, Name="main")
    for operation, body in by_trail_name[:2]:
        provoked(cloudtrail, operation, read_only, TrailName="main", **body)
    all_of("AddTags RemoveTags", read_only, ResourceId=arn("main"), TagsList=TAG)

    away = client(trails, region=AWAY)
    for operation in "UpdateTrail DeleteTrail StartLogging StopLogging".split():
        provoked(away, operation, "InvalidHomeRegionException", Name=arn("made"))
    for operation, body in by_trail_name[:2]:
        provoked(away, operation, "InvalidHomeRegionException", TrailName=arn("made"), **body)


def test_settings_that_cannot_be(trails, provoked):
    cloudtrail = client(trails)
    for members, code in [
        ({"S3BucketName": "Not_A_Bucket"}, "InvalidS3BucketNameException"),
        ({"S3KeyPrefix": "p" * 201}, "InvalidS3PrefixException"),
        ({"SnsTopicName": "t" * 257}, "InvalidSnsTopicNameException"),
        ({"SnsTopicName": f"{TOPIC}.fifo"}, "InvalidSnsTopicNameException"),
        ({"KmsKeyId": "not a key"}, "InvalidKmsKeyIdException"),
        ({"CloudWatchLogsLogGroupArn": "group"}, "InvalidCloudWatchLogsLogGroupArnException"),
        ({"CloudWatchLogsLogGroupArn": GROUP_ARN, "CloudWatchLogsRoleArn": "role"}, "InvalidCloudWatchLogsRoleArnException"),
        ({"CloudWatchLogsRoleArn": ROLE}, "InvalidParameterCombinationException"),
        ({"IsMultiRegionTrail": True, "IncludeGlobalServiceEvents": False}, "InvalidParameterCombinationException"),
    ]:
        provoked(cloudtrail, "CreateTrail", code, **{"Name": "other", "S3BucketName": BUCKET} | members)
        provoked(cloudtrail, "UpdateTrail", code, Name="made", **members)
    for members, code in [
        ({"Name": "made"}, "TrailAlreadyExistsException"),
        ({"Name": "main"}, "TrailAlreadyExistsException"),
        ({"TagsList": [{"Key": str(number)} for number in range(51)]}, "TagsLimitExceededException"),
        ({"TagsList": [{"Key": "k" * 129}]}, "InvalidTagParameterException"),
        ({"TagsList": [{"Key": "k", "Value": "v" * 257}]}, "InvalidTagParameterException"),
        ({"TagsList": [*TAG, *TAG]}, "InvalidTagParameterException"),
        ({"S3BucketName": "not-there"}, "S3BucketDoesNotExistException"),
    ]:
        provoked(cloudtrail, "CreateTrail", code, **{"Name": "other", "S3BucketName": BUCKET} | members)
    provoked(cloudtrail, "UpdateTrail", "S3BucketDoesNotExistException", Name="made", S3BucketName="not-there")
    make_trail(trails, "organization", IsOrganizationTrail=True)
    other = as_account(trails, OTHER, HOME_REGION)
    code = "NotOrganizationMasterAccountException"
    provoked(other, "CreateTrail", code, Name="other", S3BucketName=BUCKET, IsOrganizationTrail=True)
    for number in range(3):
        make_trail(trails, f"trail-{number}")
    provoked(cloudtrail, "CreateTrail", "MaximumNumberOfTrailsExceededException", Name="sixth", S3BucketName=BUCKET)


def test_an_organization_trail_without_an_organization(make_daemon, provoked):
    daemon = make_daemon(config={"trails": [{"name": "main", "s3_bucket_name": BUCKET}]}).start()
    code = "OrganizationsNotInUseException"
    provoked(client(daemon), "CreateTrail", code, Name="other", S3BucketName=BUCKET, IsOrganizationTrail=True)
    make_trail(daemon, "made")
    provoked(client(daemon), "UpdateTrail", code, Name="made", IsOrganizationTrail=True)


def test_selectors_that_cannot_be(trails, provoked):
    cloudtrail = client(trails)
    management = {"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]}
    for request in [
        {},
        {"EventSelectors": []},
        {"EventSelectors": [{"ReadWriteType": "Some"}]},
        {"EventSelectors": [{}] * 6},
        {"EventSelectors": [{"DataResources": [{"Type": "AWS::S3::Bucket", "Values": ["arn:aws:s3"]}]}]},
        {"EventSelectors": [{"ExcludeManagementEventSources": ["s3.amazonaws.com"]}]},
        {"EventSelectors": [{}], "AdvancedEventSelectors": [management]},
        {"AdvancedEventSelectors": [{"FieldSelectors": []}]},
        {"AdvancedEventSelectors": [{"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Other"]}]}]},
        {"AdvancedEventSelectors": [management | {"Name": "n" * 1001}]},
    ]:
        provoked(cloudtrail, "PutEventSelectors", "InvalidEventSelectorsException", TrailName="made", **request)
    call_rate = {"InsightType": "ApiCallRateInsight"}
    for selectors in [[{"InsightType": "Some"}], [call_rate, call_rate], [call_rate | {"EventCategories": ["Some"]}]]:
        code = "InvalidInsightSelectorsException"
        provoked(cloudtrail, "PutInsightSelectors", code, TrailName="made", InsightSelectors=selectors)
    for operation in ["PutInsightSelectors", "GetInsightSelectors"]:
        both = {"TrailName": "made", "EventDataStore": "store"}
        rest = {"InsightSelectors": []} if operation.startswith("Put") else {}
        provoked(cloudtrail, operation, "InvalidParameterCombinationException", **both, **rest)
        provoked(cloudtrail, operation, "InvalidParameterException", EventDataStore="store", **rest)
        provoked(cloudtrail, operation, "InvalidParameterException", **rest)
    provoked(cloudtrail, "GetInsightSelectors", "InsightNotEnabledException", TrailName="made")


def test_tags_that_cannot_be(trails, provoked):
    cloudtrail = client(trails)
    of = lambda resource, region=HOME_REGION: f"arn:aws:cloudtrail:{region}:{HOME_ACCOUNT}:{resource}"
    for resource, code in [
        (ABSENT, "ResourceNotFoundException"),
        (arn("made", account=OTHER), "ResourceNotFoundException"),
        ("made", "CloudTrailARNInvalidException"),
        (of("channel/a b"), "ChannelARNInvalidException"),
        (of("channel/absent"), "ChannelNotFoundException"),
        (of("eventdatastore/a b"), "EventDataStoreARNInvalidException"),
        (of("eventdatastore/absent"), "EventDataStoreNotFoundException"),
        (of("dashboard/absent"), "ResourceTypeNotSupportedException"),
        ("arn:aws:s3:::bucket", "ResourceTypeNotSupportedException"),
    ]:
        provoked(cloudtrail, "AddTags", code, ResourceId=resource, TagsList=TAG)
        provoked(cloudtrail, "RemoveTags", code, ResourceId=resource, TagsList=TAG)
        # Its model has no error of its own for a channel that is not there.
        code = code.replace("ChannelNotFound", "ResourceNotFound")
        provoked(cloudtrail, "ListTags", code, ResourceIdList=[arn("made"), resource])
    for tags in [[{"Key": ""}], [{"Key": "k" * 129}], [{"Key": "aws:x"}]]:
        for operation in ["AddTags", "RemoveTags"]:
            provoked(cloudtrail, operation, "InvalidTagParameterException", ResourceId=arn("made"), TagsList=tags)
    many = [{"Key": str(number), "Value": "x"} for number in range(50)]
    cloudtrail.add_tags(ResourceId=arn("made"), TagsList=many)
    cloudtrail.add_tags(ResourceId=arn("made"), TagsList=many)
    provoked(cloudtrail, "AddTags", "TagsLimitExceededException", ResourceId=arn("made"), TagsList=TAG)
    provoked(cloudtrail, "ListTags", "InvalidTokenException", ResourceIdList=[arn("made")], NextToken="more")
    provoked(cloudtrail, "ListTags", "InvalidParameterException", ResourceIdList=[arn("made")] * 21)
    provoked(cloudtrail, "ListTrails", "InvalidTokenException", NextToken="more")


def test_a_bucket_or_a_key_that_may_not_be_used(make_daemon, provoked):
    with FakeS3() as s3:
        daemon = make_daemon(config=delivering_to(s3.endpoint), env=TEST_CREDENTIALS).start()
        cloudtrail = client(daemon)
        make_trail(daemon, "made")
        missing = (404, "NoSuchBucket", "The specified bucket does not exist")
        s3.answers = {
            "missing": missing,
            "denied": (403, "AccessDenied", "Access Denied"),
            "elsewhere": (301, "PermanentRedirect", "must be addressed using the specified endpoint"),
            "busy": (503, "SlowDown", "Please reduce your request rate."),
            "key-missing": (400, "KMS.NotFoundException", "Invalid keyId"),
            "key-disabled": (400, "KMS.DisabledException", "is disabled"),
            "key-denied": (403, "AccessDenied", "not authorized to perform: kms:GenerateDataKey on resource"),
        }
        key = {"KmsKeyId": "alias/audit"}
        for bucket, members, code, status in [
            ("missing", {}, "S3BucketDoesNotExistException", 400),
            ("missing", key, "S3BucketDoesNotExistException", 400),
            ("denied", {}, "InsufficientS3BucketPolicyException", 400),
            ("elsewhere", {}, "InvalidParameterException", 400),
            ("busy", {}, "ServiceUnavailableException", 503),
            ("key-missing", key, "KmsKeyNotFoundException", 400),
            ("key-disabled", key, "KmsException", 400),
            ("key-denied", key, "InsufficientEncryptionPolicyException", 400),
        ]:
            members = members | {"S3BucketName": bucket}
            provoked(cloudtrail, "CreateTrail", code, status, Name="other", **members)
            provoked(cloudtrail, "UpdateTrail", code, status, Name="made", **members)
        assert [trail["S3BucketName"] for trail in cloudtrail.describe_trails()["trailList"]] == [BUCKET, BUCKET]
        [marker] = [put for put in s3.puts if put[1] == BUCKET and put[2].endswith("/")]
        assert marker[:3] == ("PUT", BUCKET, f"AWSLogs/{HOME_ACCOUNT}/CloudTrail/")
        headers = {"content-length": "0", "x-amz-acl": "bucket-owner-full-control", "content-encoding": "gzip"}
        assert headers.items() <= marker[3].items(), marker


def test_a_status_tells_why_deliveries_fail(make_daemon, rng):
    with FakeS3() as s3:
        daemon = make_daemon(config=delivering_to(s3.endpoint), env=TEST_CREDENTIALS).start()
        s3.answers[BUCKET] = (403, "KMS.DisabledException", "the key is disabled")
        daemon.send(events.spread(rng, 3))

        def failed():
            status = client(daemon).get_trail_status(Name="main")
            return status if "LatestDeliveryError" in status else None

        status = wait_until(failed, 20, "a failed delivery in the status")
        assert status["LatestDeliveryError"] == "KMS.DisabledException"
        assert status["LatestDeliveryAttemptTime"] and not status["LatestDeliveryAttemptSucceeded"]
        s3.answers.clear()
        wait_until(lambda: "LatestDeliveryError" not in client(daemon).get_trail_status(Name="main"), 20, "the error to be gone after a success")


def test_of_two_updates_at_the_same_time_one_is_refused(make_daemon, provoked):
    with FakeS3() as s3:
        daemon = make_daemon(config=delivering_to(s3.endpoint), env=TEST_CREDENTIALS).start()
        make_trail(daemon, "made")
        s3.held["slow-logs"] = threading.Event()
        answers = []

        def update_slowly():
            answers.append(client(daemon).update_trail(Name="made", S3BucketName="slow-logs"))

        def is_asked():
            return any(bucket == "slow-logs" for _, bucket, _, _ in s3.puts)

        slow = threading.Thread(target=lambda: provoked(client(daemon), "UpdateTrail", "ConflictException", Name="made", S3BucketName="slow-logs"))
        slow.start()
        wait_until(is_asked, 10, "the bucket of the first update to be asked")
        client(daemon).update_trail(Name="made", S3KeyPrefix="second")
        s3.held["slow-logs"].set()
        slow.join()
        assert ("UpdateTrail", "ConflictException") in provoked.errors
        trail = client(daemon).get_trail(Name="made")["Trail"]
        assert (trail["S3BucketName"], trail["S3KeyPrefix"]) == (BUCKET, "second")
        s3.puts.clear()
        update_slowly()
        assert answers[0]["S3BucketName"] == "slow-logs"


class UnknownCaller(FakeAws):
    """SNS does not know who publishes, as of an account that is suspended."""

    def publish(self, call, _fault):
        raise Refused(403, "InvalidClientTokenId", "The security token included in the request is invalid")


PLAIN = {"trails": [{"name": "main", "s3_bucket_name": BUCKET}]}


def test_a_topic_or_a_log_group_that_may_not_be_used(make_daemon, aws, provoked):
    daemon = make_daemon(config=calling(aws.endpoint) | PLAIN, env=TEST_CREDENTIALS).start()
    cloudtrail = client(daemon)
    group = {"CloudWatchLogsLogGroupArn": GROUP_ARN, "CloudWatchLogsRoleArn": ROLE}

    def both(code, status=400, **members):
        provoked(cloudtrail, "CreateTrail", code, status, Name="other", S3BucketName=BUCKET, **members)
        provoked(cloudtrail, "UpdateTrail", code, status, Name="made", **members)

    make_trail(daemon, "made")
    both("InsufficientSnsTopicPolicyException", SnsTopicName="absent")
    aws.choose = lambda call, rng: "denied" if call.operation == "Publish" else None
    both("InsufficientSnsTopicPolicyException", SnsTopicName=TOPIC)
    aws.choose = lambda call, rng: "throttled" if call.operation == "Publish" else None
    both("ServiceUnavailableException", 503, SnsTopicName=TOPIC)
    aws.heal()
    both("InvalidCloudWatchLogsRoleArnException", **group)
    aws.roles.add(ROLE)
    both("InvalidCloudWatchLogsLogGroupArnException", **group | {"CloudWatchLogsLogGroupArn": GROUP_ARN.replace(":trail:", ":absent:")})
    aws.choose = lambda call, rng: "denied" if call.operation == "CreateLogStream" else None
    both("InvalidCloudWatchLogsRoleArnException", **group)
    aws.choose = lambda call, rng: "unavailable" if call.operation == "CreateLogStream" else None
    both("CloudWatchLogsDeliveryUnavailableException", **group)
    aws.heal()

    made = make_trail(daemon, "whole", SnsTopicName="trail", **group)
    assert (made["SnsTopicName"], made["SnsTopicARN"]) == ("trail", TOPIC)
    assert (made["CloudWatchLogsLogGroupArn"], made["CloudWatchLogsRoleArn"]) == (GROUP_ARN, ROLE)
    assert aws.messages[TOPIC][0].text == "CloudTrail validation message."
    assert any(stream.endswith(f"{HOME_ACCOUNT}_CloudTrail_{HOME_REGION}") for _, _, stream in aws.streams)

    def told():
        """The preflight says this, and once the leg, to which the topic is new."""
        return sum(message.text == "CloudTrail validation message." for message in aws.messages[TOPIC])

    before = wait_until(lambda: told() if told() == 2 else None, 10, "the leg to have said it, too")
    cloudtrail.update_trail(Name="whole", EnableLogFileValidation=True)
    assert told() == before, "what is not set anew is not asked again"
    cloudtrail.update_trail(Name="whole", SnsTopicName="trail")
    assert told() == before + 1


def test_credentials_that_sns_does_not_know(make_daemon, seed, provoked):
    with UnknownCaller(seed=seed) as aws:
        daemon = make_daemon(config=calling(aws.endpoint) | PLAIN, env=TEST_CREDENTIALS).start()
        make_trail(daemon, "made")
        code = "CloudTrailInvalidClientTokenIdException"
        provoked(client(daemon), "CreateTrail", code, Name="other", S3BucketName=BUCKET, SnsTopicName=TOPIC)
        provoked(client(daemon), "UpdateTrail", code, Name="made", SnsTopicName=TOPIC)


def test_every_error_of_the_model_was_provoked_or_never_occurs(trails, provoked, request):
    """The last of this file: what the tests above have provoked, held against botocore's model."""
    if not all_tests_of_this_file_ran(request, 9):
        pytest.skip("only with all tests of this file")
    provoked.check(client(trails), OPERATIONS, NEVER, NEVER_OF)
