"""deploy/terraform: arguments that the AWS provider has, references that lead somewhere, and the policies of deploy/cloudformation.

There is no Terraform in the registries that the tests may use, nor the provider: the files are parsed, and held against the provider's
schema as far as it is used (terraform_schema.json). Where a terraform is at hand, it formats, and runs the module of the policies, which needs no provider.
"""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import hcl2
import pytest

import cloudformation
import iam
from deploy_tools import DEPLOY
from harness import run_cli

MODULE = DEPLOY / "terraform"
POLICIES = MODULE / "policies"
SCHEMA = json.loads((Path(__file__).parent / "terraform_schema.json").read_text())
#: Terraform's own.
META = {"count", "for_each", "depends_on", "provider", "lifecycle", "__is_block__"}

#: Terraform's variables and CloudFormation's names of the same things.
VALUES = {
    "partition": "aws",
    "dns_suffix": "amazonaws.com",
    "account": "111122223333",
    "region": "us-east-1",
    "trail_name": "main",
    "key_arn": "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555",
    "topic_arn": "arn:aws:sns:us-east-1:111122223333:traild-main",
    "log_group_name": "traild/main",
    "logs_role_arn": "arn:aws:iam::111122223333:role/traild-main-logs",
    "event_bus_arn": "arn:aws:events:us-east-1:111122223333:event-bus/traild-main",
    "digest_key_arn": "arn:aws:kms:us-east-1:111122223333:key/66666666-7777-8888-9999-000000000000",
}
IN_CLOUDFORMATION = {
    "AWS::Partition": VALUES["partition"],
    "AWS::URLSuffix": VALUES["dns_suffix"],
    "AWS::AccountId": VALUES["account"],
    "AWS::Region": VALUES["region"],
    "TrailName": VALUES["trail_name"],
    "KeyPrefix": "a/b",
    "Bucket.Arn": "arn:aws:s3:::logs",
    "Key.Arn": VALUES["key_arn"],
    "Topic": VALUES["topic_arn"],
    "LogsRole.Arn": VALUES["logs_role_arn"],
    "EventBus.Arn": VALUES["event_bus_arn"],
    "DigestKey.Arn": VALUES["digest_key_arn"],
}


def unquoted(value):
    """Blocks are labelled in quotes."""
    if isinstance(value, dict):
        return {key.strip('"'): unquoted(inner) for key, inner in value.items()}
    return [unquoted(item) for item in value] if isinstance(value, list) else value


def parse(folder):
    merged = {}
    for path in sorted(folder.glob("*.tf")):
        with open(path) as file:
            for kind, blocks in unquoted(hcl2.load(file)).items():
                if kind != "__comments__":
                    merged.setdefault(kind, []).extend(blocks)
    return merged


def blocks(module, kind):
    """(type, name, body) of resources and data."""
    return [(of, name, body) for block in module.get(kind, []) for of, named in block.items() for name, body in named.items()]


def named(module, kind):
    return {name: body for block in module.get(kind, []) for name, body in block.items()}


def check_arguments(body, schema, where):
    given = body.keys() - META
    assert given <= schema.keys(), f"{where} has no {given - schema.keys()}"
    missing = {name for name, argument in schema.items() if argument.get("required")} - given
    assert not missing, f"{where} lacks {missing}"
    for name in given:
        inner = body[name]
        if isinstance(inner, list) and inner and isinstance(inner[0], dict) and inner[0].get("__is_block__"):
            for each in inner:
                check_arguments(each, schema[name]["block"], f"{where}.{name}")
        else:
            assert "block" not in schema[name], f"{where}.{name} is a block"


def test_each_argument_is_one_that_the_provider_has():
    module = parse(MODULE)
    found = [(kind, *block) for kind in ("resource", "data") for block in blocks(module, kind)]
    assert len(found) > 20
    for kind, of, name, body in found:
        check_arguments(body, SCHEMA[f"{kind} {of}"], f"{of}.{name}")
    with pytest.raises(AssertionError, match="has no"):
        check_arguments({"bucket": "b", "acls": "none"}, SCHEMA["resource aws_s3_bucket"], "spoilt")
    with pytest.raises(AssertionError, match="lacks"):
        check_arguments({}, SCHEMA["resource aws_s3_bucket_policy"], "spoilt")


@pytest.mark.parametrize("folder", [MODULE, POLICIES], ids=["module", "policies"])
def test_what_is_named_is_there_and_what_is_there_is_used(folder):
    module = parse(folder)
    text = "\n".join(path.read_text() for path in folder.glob("*.tf"))
    expressions = re.sub(r'(?m)^\s*#.*$|description\s*=.*$', "", text)
    variables, locals_ = named(module, "variable").keys(), {key for block in module.get("locals", []) for key in block if not key.startswith("__")}
    assert set(re.findall(r"\bvar\.(\w+)", expressions)) == variables
    assert set(re.findall(r"\blocal\.(\w+)", expressions)) == locals_
    made = {f"{of}.{name}" for of, name, _ in blocks(module, "resource")}
    assert set(re.findall(r"(?<![\w.\"])(aws_\w+\.\w+)", expressions)) <= made
    data = {f"{of}.{name}" for of, name, _ in blocks(module, "data")}
    assert set(re.findall(r"\bdata\.(aws_\w+\.\w+)", expressions)) == data
    for name, body in named(module, "module").items():
        inner = parse(MODULE / body["source"].strip('"'))
        given = body.keys() - {"source", "__is_block__"}
        assert given <= named(inner, "variable").keys()
        required = {variable for variable, said in named(inner, "variable").items() if "default" not in said}
        assert required <= given
        assert set(re.findall(rf"\bmodule\.{name}\.(\w+)", expressions)) == named(inner, "output").keys()


def template(name, **changes):
    """As templatefile does it."""
    values = VALUES | {"bucket_arn": "arn:aws:s3:::logs", "prefix": "a/b/"} | changes
    return json.loads(re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], (POLICIES / f"{name}.json").read_text()))


def in_cloudformation():
    resources = cloudformation.load(DEPLOY / "cloudformation" / "traild.yaml", IN_CLOUDFORMATION)["Resources"]
    return {
        "daemon": resources["RolePolicy"]["Properties"]["PolicyDocument"],
        "logs": resources["LogsRole"]["Properties"]["Policies"][0]["PolicyDocument"],
        "auditor": resources["AuditorPolicy"]["Properties"]["PolicyDocument"],
        "bucket": resources["BucketPolicy"]["Properties"]["PolicyDocument"],
        "key": resources["Key"]["Properties"]["KeyPolicy"],
    }


@pytest.mark.parametrize("name", ["daemon", "logs", "auditor", "bucket", "key"])
def test_the_policies_are_those_of_cloudformation(name):
    """Which test_aws_roles.py holds against what the daemon asks for."""
    assert template(name) == in_cloudformation()[name]


# With a terraform.


@pytest.fixture
def terraform(tmp_path):
    program = shutil.which("terraform")
    if not program:
        pytest.skip("NOT CHECKED: the module as terraform itself reads it; there is none on the PATH")
    (tmp_path / "rc").touch()
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TF_CLI_CONFIG_FILE": str(tmp_path / "rc"), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}

    def terraform(*arguments, cwd):
        done = subprocess.run([program, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    return terraform


@pytest.fixture
def policies(terraform, tmp_path):
    """What the module of the policies puts out for these variables."""
    folder = tmp_path / "policies"
    shutil.copytree(POLICIES, folder)
    code, out, err = terraform("init", "-input=false", "-no-color", cwd=folder)
    assert code == 0, out + err

    def outputs(**variables):
        (folder / "terraform.tfvars.json").write_text(json.dumps({"bucket": "logs"} | variables))
        code, out, err = terraform("apply", "-auto-approve", "-input=false", "-no-color", cwd=folder)
        assert code == 0, out + err
        code, out, err = terraform("output", "-json", cwd=folder)
        return {name: output["value"] for name, output in json.loads(out).items()}

    return outputs


def test_it_is_formatted(terraform):
    code, out, err = terraform("fmt", "-check", "-recursive", "-diff", cwd=MODULE)
    assert code == 0, out + err


def test_terraform_makes_the_same_policies(policies, traild_bin, tmp_path):
    everything = policies(**VALUES, key_prefix="a/b", object_lock=True)
    for name, policy in in_cloudformation().items():
        assert json.loads(everything[name]) == policy, name
    configuration = tomllib.loads(everything["configuration"])
    [trail] = configuration["trails"]
    assert trail["s3_key_prefix"] == "a/b" and trail["cloud_watch_logs_role_arn"] == VALUES["logs_role_arn"]
    assert configuration["aws"] == {"checksum": "when_supported"}

    required = {name: VALUES[name] for name in ("partition", "dns_suffix", "account", "region", "trail_name", "key_arn")}
    bare = policies(**required, runs_on="eks-pod-identity")
    assert {action.partition(":")[0] for action, _ in iam.granted([json.loads(bare["daemon"])])} == {"s3", "kms"}
    [trust] = json.loads(bare["trust"])["Statement"]
    assert trust == {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}, "Action": ["sts:AssumeRole", "sts:TagSession"]}

    provider = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.us-east-1.amazonaws.com/id/ABC"
    account = "system:serviceaccount:audit:traild"
    irsa = policies(**required, runs_on="eks-irsa", irsa={"provider_arn": provider, "subject": account})
    [trust] = json.loads(irsa["trust"])["Statement"]
    issuer = provider.partition("oidc-provider/")[2]
    assert trust["Principal"] == {"Federated": provider}
    assert trust["Condition"] == {"StringEquals": {f"{issuer}:aud": "sts.amazonaws.com", f"{issuer}:sub": account}}

    for outputs in (everything, bare, irsa):
        file = tmp_path / "traild.toml"
        file.write_text(outputs["configuration"])
        code, _, err = run_cli(traild_bin, "validate", "--offline", "--config", file)
        assert code == 0, err
