"""deploy/ecs: what ECS takes, by the shapes of its own API, and what the daemon does with it: its configuration, health check and end."""

import json

import boto3
import parliament
import pytest
from botocore.validate import validate_parameters

import cloudformation
import iam
from deploy_tools import DEPLOY
from harness import run_cli

ECS = DEPLOY / "ecs"
#: ECS's own limit (ECS API, ContainerDefinition, `stopTimeout`).
MOST_STOP_SECONDS = 120
#: For the parameters of service.yaml.
GIVEN = {
    "AWS::AccountId": "111122223333",
    "AWS::Region": "us-east-1",
    "AWS::Partition": "aws",
    "Name": "traild",
    "RepositoryArn": "arn:aws:ecr:us-east-1:111122223333:repository/traild",
    "Image": "registry.example.com/traild:0.1.0",
    "TaskRoleArn": "arn:aws:iam::111122223333:role/traild",
    "CredentialsSecretArn": "arn:aws:secretsmanager:us-east-1:111122223333:secret:c-AbCdEf",
    "DigestKeyArn": "alias/traild-main-digests",
    "Trails": '[{ name = "main", s3_bucket_name = "audit-logs" }]',
}


def from_cloudformation(value):
    """PascalCase as the API's camelCase; texts and lists as they are."""
    if isinstance(value, list):
        return [from_cloudformation(item) for item in value]
    if not isinstance(value, dict):
        return value
    renamed = {"FilesystemId": "fileSystemId", "IAM": "iam"}
    kept = {}
    for key, inner in value.items():
        ours = renamed.get(key, key if key.startswith(("awslogs", "mode", "max-")) else key[0].lower() + key[1:])
        ours = {"eFSVolumeConfiguration": "efsVolumeConfiguration"}.get(ours, ours)
        kept[ours] = from_cloudformation(inner)
    return kept


def task_definitions():
    template = cloudformation.load(ECS / "service.yaml", GIVEN)
    found = {"service.yaml": from_cloudformation(template["Resources"]["TaskDefinition"]["Properties"])}
    return found | {path.name: json.loads(path.read_text()) for path in sorted(ECS.glob("task-definition-*.json"))}


TASKS = task_definitions()


def traild_in(task):
    [container] = [each for each in task["containerDefinitions"] if each["name"] == "traild"]
    return container


def variables(container):
    return {each["name"]: each["value"] for each in container["environment"]}


def check_shape(operation, given):
    shape = boto3.client("ecs", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x").meta.service_model.operation_model(operation)
    validate_parameters(given, shape.input_shape)


@pytest.mark.parametrize("name", TASKS)
def test_each_task_definition_is_one_that_ecs_takes(name):
    check_shape("RegisterTaskDefinition", TASKS[name])
    with pytest.raises(Exception, match="Unknown parameter"):
        check_shape("RegisterTaskDefinition", TASKS[name] | {"stopTimeout": 30})


def test_the_task_on_ebs_is_run_with_a_volume_that_outlives_it():
    given = json.loads((ECS / "run-task-ebs.json").read_text())
    check_shape("RunTask", given)
    task = TASKS["task-definition-ebs.json"]
    assert given["taskDefinition"] == task["family"]
    assert [each["name"] for each in given["volumeConfigurations"]] == [each["name"] for each in task["volumes"] if each["configuredAtLaunch"]]
    assert all(each["managedEBSVolume"]["terminationPolicy"] == {"deleteOnTermination": False} for each in given["volumeConfigurations"])


@pytest.mark.parametrize("name", TASKS)
def test_a_container_has_no_more_rights_than_it_needs(name):
    container = traild_in(TASKS[name])
    assert container["readonlyRootFilesystem"] is True and container["linuxParameters"]["capabilities"]["drop"] == ["ALL"]
    assert container["user"] == "65532:65532" and "privileged" not in container
    assert not any("SECRET" in name or "CREDENTIALS" in name for name in variables(container)), "secrets come from Secrets Manager"
    [mount] = container["mountPoints"]
    assert mount["sourceVolume"] in {volume["name"] for volume in TASKS[name]["volumes"]}
    assert variables(container)["TRAILD__DATA_DIR"] == mount["containerPath"]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_time_to_stop(name):
    container = traild_in(TASKS[name])
    stop_timeout = int(variables(container)["TRAILD__DELIVERY__STOP_TIMEOUT"].removesuffix("s"))
    assert stop_timeout + 20 <= container["stopTimeout"] <= MOST_STOP_SECONDS


def test_two_tasks_never_share_a_data_dir():
    service = cloudformation.load(ECS / "service.yaml", GIVEN)["Resources"]["Service"]["Properties"]
    assert service["DesiredCount"] == 1
    deployment = service["DeploymentConfiguration"]
    assert (deployment["MaximumPercent"], deployment["MinimumHealthyPercent"]) == (100, 0)
    assert service["AvailabilityZoneRebalancing"] == "DISABLED", "it starts the second before it ends the first"


def test_what_starts_the_task_may_do_that_alone():
    """parliament has AWS's service authorization reference."""
    resources = cloudformation.load(ECS / "service.yaml", GIVEN)["Resources"]
    [policy] = resources["ExecutionRole"]["Properties"]["Policies"]
    findings = parliament.analyze_policy_string(json.dumps(policy["PolicyDocument"])).findings
    assert not findings, findings
    actions = {action for action, _ in iam.granted([policy["PolicyDocument"]])}
    assert actions == {
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "secretsmanager:GetSecretValue",
        "ecr:GetAuthorizationToken",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
        "ecr:BatchCheckLayerAvailability",
    }


@pytest.mark.parametrize("name", TASKS)
def test_the_daemon_takes_the_configuration_of_the_variables(name, traild_bin, tmp_path):
    container = traild_in(TASKS[name])
    env = variables(container)
    if container.get("secrets"):
        env |= {each["name"]: '[{ access_key_id = "SENDER", secret_access_key = "a-secret" }]' for each in container["secrets"]}
    env["TRAILD__DATA_DIR"] = str(tmp_path / "data")
    code, out, err = run_cli(traild_bin, "validate", "--offline", cwd=tmp_path, env=env)
    assert code == 0, err + out
    listens = {port["containerPort"] for port in container.get("portMappings", [])}
    assert env.get("TRAILD__LISTEN__API", "127.0.0.1:4580").endswith(f":{max(listens, default=4580)}")


@pytest.mark.parametrize("name", TASKS)
def test_the_health_check_is_the_programs_own(name, traild_bin, daemon):
    kind, program, *arguments = traild_in(TASKS[name])["healthCheck"]["command"]
    assert (kind, program) == ("CMD", "/usr/bin/traild"), "the image has no shell"
    endpoint = ["--endpoint", f"http://127.0.0.1:{daemon.ops_port}"]
    code, out, err = run_cli(traild_bin, *arguments, *endpoint)
    assert code == 0, err
    daemon.kill()
    assert run_cli(traild_bin, *arguments, *endpoint)[0] == 1
