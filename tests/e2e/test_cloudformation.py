"""The templates below deploy/, by CloudFormation's own schemas; what LocalStack makes of them is in test_aws_roles.py."""

import subprocess
import sys
from pathlib import Path

import cloudformation
from deploy_tools import DEPLOY

TEMPLATE = DEPLOY / "cloudformation" / "traild.yaml"


def lint(*templates):
    done = subprocess.run([Path(sys.executable).parent / "cfn-lint", "--", *templates], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_templates_have_no_findings():
    templates = [path for path in sorted(DEPLOY.glob("*/*.yaml")) if "AWSTemplateFormatVersion" in path.read_text()]
    assert templates == [TEMPLATE, DEPLOY / "ecs" / "service.yaml"]
    code, told = lint(*templates)
    assert code == 0, told


def test_the_lint_finds_what_is_wrong(tmp_path):
    spoilt = tmp_path / "spoilt.yaml"
    spoilt.write_text(TEMPLATE.read_text().replace("KeySpec: RSA_2048", "KeySpec: RSA_1024"))
    code, told = lint(spoilt)
    assert code != 0 and "RSA_1024" in told


def test_the_bucket_encrypts_what_is_written_without_a_word_of_it():
    """LocalStack leaves this out."""
    bucket = cloudformation.load(TEMPLATE, {})["Resources"]["Bucket"]["Properties"]
    [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "Key.Arn"}}


def test_what_cannot_be_made_again_outlives_the_stack():
    resources = cloudformation.load(TEMPLATE, {})["Resources"]
    for name in ("Bucket", "Key", "DigestKey", "LogGroup"):
        assert resources[name]["DeletionPolicy"] == resources[name]["UpdateReplacePolicy"] == "Retain", name
    service = cloudformation.load(DEPLOY / "ecs" / "service.yaml", {})["Resources"]
    assert service["FileSystem"]["DeletionPolicy"] == "Retain"
