"""deploy/cloudformation: the stack as LocalStack makes it, and its roles: every action that traild needs is granted, and none that it never uses.

The daemon runs against the stack with the configuration that the stack puts out, through a proxy that writes down every request; from each
follows what IAM would ask (iam.py), and the roles' policies, as the stack has made them, are evaluated for it.
"""

import json
import time
import tomllib
from collections import defaultdict
from urllib.parse import parse_qsl

import boto3
import parliament
import pytest

import events
import iam
from deploy_tools import DEPLOY
from fault_proxy import FaultProxy, is_object_put
from harness import TEST_CREDENTIALS, Daemon, run_cli, wait_until

TEMPLATE = DEPLOY / "cloudformation" / "traild.yaml"
ACCOUNT, REGION = "000000000000", "us-east-1"  # LocalStack's
CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


class Recorder(FaultProxy):
    """Passes requests on to LocalStack, and keeps them by the access key that signed them."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.seen = defaultdict(list)
        self.assumed = {}  # access key: ARN of the role

    async def ask_upstream(self, request):
        answer = await super().ask_upstream(request)
        scope = request.headers.get("authorization", "")
        key = scope.partition("Credential=")[2].partition("/")[0]
        self.seen[key].append(request)
        if b"Action=AssumeRole" in request.body:
            text = answer.decode()
            self.assumed[text.partition("<AccessKeyId>")[2].partition("<")[0]] = dict(parse_qsl(request.body.decode()))["RoleArn"]
        return answer


class Stack:
    """A stack at LocalStack."""

    def __init__(self, endpoint, name, **parameters):
        self.endpoint = endpoint
        cloudformation = self.client("cloudformation")
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        cloudformation.create_stack(StackName=name, TemplateBody=TEMPLATE.read_text(), Capabilities=["CAPABILITY_NAMED_IAM"], Parameters=given)

        def made():
            [stack] = cloudformation.describe_stacks(StackName=name)["Stacks"]
            assert "FAILED" not in stack["StackStatus"] and "ROLLBACK" not in stack["StackStatus"], stack
            return stack["StackStatus"] == "CREATE_COMPLETE" and stack

        stack = wait_until(made, 60, f"stack {name}")
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        self.configuration = tomllib.loads(self.outputs["Configuration"])
        [self.trail] = self.configuration["trails"]

    def client(self, service):
        options = {"config": boto3.session.Config(s3={"addressing_style": "path"})} if service == "s3" else {}
        return boto3.client(service, endpoint_url=self.endpoint, region_name=REGION, **CREDENTIALS, **options)

    def policies_of_role(self, arn):
        client, role = self.client("iam"), arn.rpartition("/")[2]
        names = client.list_role_policies(RoleName=role)["PolicyNames"]
        assert not client.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        return [as_at_aws(client.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]) for name in names]

    def managed_policy(self, arn):
        version = self.client("iam").get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        return as_at_aws(self.client("iam").get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"])


def as_at_aws(policy):
    """AWS::URLSuffix is localhost at LocalStack."""
    return json.loads(json.dumps(policy).replace(f".{REGION}.localhost", f".{REGION}.amazonaws.com"))


@pytest.fixture(scope="module")
def stack(localstack):
    return Stack(localstack, f"traild-{time.time_ns()}", TrailName=f"e2e-{time.time_ns()}")


@pytest.fixture
def recorder(localstack, seed):
    with Recorder(int(localstack.rpartition(":")[2]), seed=seed) as proxy:
        yield proxy


def check(needs_by_role, policies_by_role):
    """Each need is allowed; each grant is needed."""
    for role, needs in needs_by_role.items():
        policies = policies_by_role[role]
        denied = {(need.action, need.resource) for need in needs if not iam.allows(policies, need)}
        assert not denied, f"{role} is not granted what it needs: {denied}"
        used = {(action, pattern) for action, pattern in iam.granted(policies) for need in needs if need.action == action and iam.like(pattern, need.resource)}
        assert iam.granted(policies) == used, f"{role} is granted what it never uses: {iam.granted(policies) - used}"


# The stack.


def test_the_bucket_is_closed_encrypted_and_lets_cloudtrail_write(stack):
    s3, bucket = stack.client("s3"), stack.outputs["BucketName"]
    assert set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    by_sid = {statement["Sid"]: statement for statement in policy["Statement"]}
    # CloudTrail user guide, "Amazon S3 bucket policy for CloudTrail".
    trail = f"arn:aws:cloudtrail:{REGION}:{ACCOUNT}:trail/{stack.trail['name']}"
    for sid, action, resource, context in [
        ("AWSCloudTrailAclCheck20150319", "s3:GetBucketAcl", bucket, {"aws:SourceArn": trail}),
        ("AWSCloudTrailWrite20150319", "s3:PutObject", f"{bucket}/AWSLogs/{ACCOUNT}/CloudTrail/x", {"aws:SourceArn": trail, "s3:x-amz-acl": "bucket-owner-full-control"}),
    ]:
        assert by_sid[sid]["Principal"] == {"Service": "cloudtrail.amazonaws.com"}
        need = iam.Need(action, f"arn:aws:s3:::{resource}", context | {"aws:SecureTransport": "true"})
        assert iam.allows([policy], need)
        for without in context:
            assert not iam.allows([policy], iam.Need(action, need.resource, {key: value for key, value in need.context.items() if key != without}))
        assert not iam.allows([policy], iam.Need(action, need.resource, need.context | {"aws:SecureTransport": "false"}))


def test_the_keys_are_of_the_kinds_that_are_needed(stack):
    kms = stack.client("kms")
    key = kms.describe_key(KeyId=stack.outputs["KeyArn"])["KeyMetadata"]
    assert (key["KeySpec"], key["KeyUsage"]) == ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT")
    assert kms.get_key_rotation_status(KeyId=key["KeyId"])["KeyRotationEnabled"]
    signer = kms.describe_key(KeyId=stack.configuration["digest"]["kms_key_id"])["KeyMetadata"]
    assert (signer["KeySpec"], signer["KeyUsage"]) == ("RSA_2048", "SIGN_VERIFY")


def test_a_stack_of_a_bucket_alone_locks_its_objects_and_has_a_role_for_no_more(localstack, traild_bin, tmp_path):
    name = f"bare-{time.time_ns()}"
    without = dict.fromkeys(["WithTopic", "WithLogGroup", "WithEventBus", "DigestsSignedByKms"], "no")
    bare = Stack(localstack, name, TrailName=name, KeyPrefix="a/b", ObjectLockMode="COMPLIANCE", ObjectLockDays="400", RunsOn="eks-pod-identity", **without)
    lock = bare.client("s3").get_object_lock_configuration(Bucket=bare.outputs["BucketName"])["ObjectLockConfiguration"]
    assert lock == {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 400}}}
    # S3 takes an object that gets a retention only with a checksum (Amazon S3 user guide, "Object Lock considerations").
    assert bare.configuration["aws"] == {"checksum": "when_supported"}
    assert bare.trail["s3_key_prefix"] == "a/b" and bare.trail.keys() == {"name", "s3_bucket_name", "s3_key_prefix", "kms_key_id"}
    [policy] = bare.policies_of_role(bare.outputs["RoleArn"])
    assert {action.partition(":")[0] for action, _ in iam.granted([policy])} == {"s3", "kms"}
    assert ("s3:PutObject", f"arn:aws:s3:::{bare.outputs['BucketName']}/a/b/AWSLogs/*") in iam.granted([policy])
    role = bare.client("iam").get_role(RoleName=bare.outputs["RoleArn"].rpartition("/")[2])["Role"]
    [trust] = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "pods.eks.amazonaws.com"} and trust["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    file = tmp_path / "traild.toml"
    file.write_text(bare.outputs["Configuration"])
    code, _, err = run_cli(traild_bin, "validate", "--offline", "--config", file)
    assert code == 0, err


# The roles.


def test_the_policies_name_actions_resources_and_conditions_that_there_are(stack):
    """parliament has the service authorization reference of AWS: each action, the resources it takes, the keys of conditions it knows."""
    logs_role = stack.trail["cloud_watch_logs_role_arn"]
    policies = [*stack.policies_of_role(stack.outputs["RoleArn"]), *stack.policies_of_role(logs_role), stack.managed_policy(stack.outputs["AuditorPolicyArn"])]
    for policy in policies:
        findings = parliament.analyze_policy_string(json.dumps(policy)).findings
        assert not findings, findings
    wrong = json.loads(json.dumps(policies[0]).replace("s3:PutObjectAcl", "s3:PutObjectAccess"))
    assert parliament.analyze_policy_string(json.dumps(wrong)).findings, "a check that cannot fail is none"


def test_the_daemon_is_granted_what_it_does_and_nothing_else(stack, recorder, traild_bin, tmp_path, rng, report):
    daemon = Daemon(traild_bin, tmp_path / "traild", config={"storage": {"kind": "s3"}}, env=TEST_CREDENTIALS | {"AWS_REGION": REGION})
    config = stack.configuration | {
        "data_dir": str(daemon.data_dir),
        "listen": daemon.config["listen"],
        "aws": {"endpoint_url": recorder.endpoint, "force_path_style": True},
        "delivery": {"max_age": "500ms"},
        "digest": stack.configuration["digest"] | {"interval": "2s"},
    }
    daemon.write_config(config)

    code, _, err = run_cli(traild_bin, "validate", "--config", daemon.config_file, env=daemon.env)
    assert code == 0 and "cannot be checked" not in err, err

    lost = []

    def lose_one_answer(request, _):
        """An upload in doubt."""
        if is_object_put(request) and "/CloudTrail/" in request.path and not lost:
            lost.append(request.path)
            return "lost"
        return None

    recorder.choose = lose_one_answer
    try:
        daemon.start()
        daemon.send(events.make_many(rng, 50, account=ACCOUNT, region=REGION))
        daemon.drain_everywhere()
        make_trail_by_the_api(daemon, stack)
        digest = f"AWSLogs/{ACCOUNT}/CloudTrail-Digest/"
        wait_until(lambda: stack.client("s3").list_objects_v2(Bucket=stack.outputs["BucketName"], Prefix=digest)["KeyCount"] > 1, 30, "digests")
        assert daemon.stop()[0] == 0
        daemon.start()
        daemon.send(events.make_many(rng, 5, account=ACCOUNT, region=REGION))
        daemon.drain_everywhere()
    finally:
        daemon.kill()
        print(daemon.log_tail())
    assert lost

    key_of_topic = {stack.trail["sns_topic_arn"]: stack.outputs["KeyArn"]}
    wire = iam.Wire(ACCOUNT, REGION, key_of_topic)
    needs_by_role = defaultdict(list)
    for access_key, requests in recorder.seen.items():
        role = recorder.assumed.get(access_key, stack.outputs["RoleArn"])
        for request in requests:
            needs_by_role[role] += wire.needs(request)
    assert set(needs_by_role) == {stack.outputs["RoleArn"], stack.trail["cloud_watch_logs_role_arn"]}
    check(needs_by_role, {role: stack.policies_of_role(role) for role in needs_by_role})
    actions = sorted({need.action for needs in needs_by_role.values() for need in needs})
    report(f"{sum(map(len, recorder.seen.values()))} requests, {len(actions)} actions: {', '.join(actions)}")


def make_trail_by_the_api(daemon, stack):
    """Which looks at what the trail is to deliver to."""
    client = boto3.client("cloudtrail", endpoint_url=f"http://127.0.0.1:{daemon.api_port}", region_name=REGION, aws_access_key_id=ACCOUNT, aws_secret_access_key="any")
    client.create_trail(
        Name="second",
        S3BucketName=stack.outputs["BucketName"],
        KmsKeyId=stack.outputs["KeyArn"],
        SnsTopicName=stack.trail["sns_topic_arn"],
        CloudWatchLogsLogGroupArn=stack.trail["cloud_watch_logs_log_group_arn"],
        CloudWatchLogsRoleArn=stack.trail["cloud_watch_logs_role_arn"],
    )


def test_the_auditor_is_granted_what_verifying_does_and_nothing_else(stack, recorder, traild_bin, tmp_path, rng):
    daemon = Daemon(traild_bin, tmp_path / "traild", config={"storage": {"kind": "s3"}}, env=TEST_CREDENTIALS | {"AWS_REGION": REGION})
    plain = {key: value for key, value in stack.trail.items() if key in ("name", "s3_bucket_name", "kms_key_id")}
    config = stack.configuration | {
        "data_dir": str(daemon.data_dir),
        "listen": daemon.config["listen"],
        "aws": {"endpoint_url": recorder.endpoint, "force_path_style": True},
        "delivery": {"max_age": "200ms"},
        "digest": {"interval": "2s"},
        "trails": [plain | {"name": "audited", "s3_key_prefix": "audited"}],
    }
    daemon.write_config(config)
    wire = iam.Wire(ACCOUNT, REGION)
    try:
        daemon.start()
        daemon.send(events.make_many(rng, 20, account=ACCOUNT, region=REGION))
        daemon.drain()
        env = {"AWS_ENDPOINT_URL_S3": recorder.endpoint, "AWS_ENDPOINT_URL_CLOUDTRAIL": f"http://127.0.0.1:{daemon.api_port}", "AWS_REGION": REGION}
        # With the name of the auditor as access key, so that the daemon's own requests are told apart.
        auditor = {"AWS_ACCESS_KEY_ID": "auditor", "AWS_SECRET_ACCESS_KEY": "test"}
        arguments = ["--bucket", stack.outputs["BucketName"], "--prefix", "audited"]
        wait_until(lambda: run_cli(traild_bin, "verify", *arguments, env=daemon.env | env | auditor)[0] == 0, 30, "a bucket that verifies")
    finally:
        daemon.kill()
        print(daemon.log_tail())
    for request in recorder.seen["test"]:
        wire.needs(request)  # remembers under which context objects were encrypted
    needs = [need for request in recorder.seen["auditor"] for need in wire.needs(request)]
    policy = stack.managed_policy(stack.outputs["AuditorPolicyArn"])
    in_prefix = json.loads(json.dumps(policy).replace("/AWSLogs/*", "/audited/AWSLogs/*"))
    check({"auditor": needs}, {"auditor": [in_prefix]})
