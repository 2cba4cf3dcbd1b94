"""What requests to AWS need (services, actions, resources, conditions), and whether policies of IAM allow it.

The evaluation is IAM's for one account without boundaries ("policy evaluation logic"): denied unless a statement allows it, and none denies it.
An operator that is not known here is an error, never a pass.
"""

import fnmatch
import json
import re
import urllib.parse
from base64 import b64decode
from dataclasses import dataclass, field

#: `x-amz-target` before the dot, as IAM calls the service.
TARGETS = {"Logs_20140328": "logs", "AWSEvents": "events", "TrentService": "kms"}


@dataclass(frozen=True)
class Need:
    action: str
    resource: str
    context: dict = field(default_factory=dict, hash=False)


class Wire:
    """Reads requests of one account and region. Remembers under which context objects were encrypted, and which topics are."""

    def __init__(self, account, region, encrypted_topics=()):
        self.account, self.region, self.encrypted_topics = account, region, dict(encrypted_topics)
        self.contexts = {}  # path: KMS context of the object there, with its key

    def needs(self, request):
        """All that IAM asks for this request."""
        if "x-amz-target" in request.headers:
            prefix, _, operation = request.headers["x-amz-target"].partition(".")
            return self.json(TARGETS[prefix], operation, json.loads(request.body))
        if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return self.query(dict(urllib.parse.parse_qsl(request.body.decode())))
        return self.s3(request)

    def json(self, service, operation, given):
        def arn(rest):
            return f"arn:aws:{service}:{self.region}:{self.account}:{rest}"

        if service == "logs":
            group = given.get("logGroupName", "")
            return [Need(f"logs:{operation}", arn(f"log-group:{group}:log-stream:{given.get('logStreamName', '')}"))]
        if service == "events":
            buses = {entry.get("EventBusName", "default") for entry in given.get("Entries", [])} or {given["Name"]}
            return [Need(f"events:{operation}", bus if bus.startswith("arn:") else arn(f"event-bus/{bus}")) for bus in buses]
        context = {"kms:SigningAlgorithm": given.get("SigningAlgorithm"), "kms:MessageType": given.get("MessageType")}
        return [Need(f"kms:{operation}", given["KeyId"], {key: value for key, value in context.items() if value})]

    def query(self, given):
        operation = given["Action"]
        if operation == "AssumeRole":
            return [Need("sts:AssumeRole", given["RoleArn"])]
        needs = [Need(f"sns:{operation}", given["TopicArn"])]
        # Amazon SNS developer guide, "key management": who publishes to an encrypted topic.
        if operation == "Publish" and given["TopicArn"] in self.encrypted_topics:
            context = {"kms:ViaService": f"sns.{self.region}.amazonaws.com"}
            needs += [Need(action, self.encrypted_topics[given["TopicArn"]], context) for action in ("kms:GenerateDataKey", "kms:Decrypt")]
        return needs

    def s3(self, request):
        """Amazon S3 user guide, "required permissions for Amazon S3 API operations"."""
        path, _, query = request.path.partition("?")
        bucket, _, key = urllib.parse.unquote(path.lstrip("/")).partition("/")
        asked = {name for name, _ in urllib.parse.parse_qsl(query, keep_blank_values=True)} - {"x-id"}
        of_bucket, of_object = f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/{key}"
        if not key:
            if request.method == "GET" and "location" in asked:
                return [Need("s3:GetBucketLocation", of_bucket)]
            if request.method == "HEAD" or (request.method == "GET" and "list-type" in asked):
                return [Need("s3:ListBucket", of_bucket)]
        elif request.method == "PUT" and not asked:
            return self.put(request, path, of_object)
        elif request.method in ("GET", "HEAD") and not asked:
            needs = [Need("s3:GetObject", of_object)]
            if path in self.contexts:
                key_arn, context = self.contexts[path]
                needs.append(Need("kms:Decrypt", key_arn, context))
            return needs
        raise AssertionError(f"no rule for {request.method} {request.path}")

    def put(self, request, path, of_object):
        acl = request.headers.get("x-amz-acl")
        context = {"s3:x-amz-acl": acl} if acl else {}
        needs = [Need("s3:PutObject", of_object, context)]
        if acl:
            needs.append(Need("s3:PutObjectAcl", of_object, context))
        if request.headers.get("x-amz-server-side-encryption") == "aws:kms":
            given = json.loads(b64decode(request.headers["x-amz-server-side-encryption-context"]))
            context = {f"kms:EncryptionContext:{name}": value for name, value in given.items()}
            context["kms:ViaService"] = f"s3.{self.region}.amazonaws.com"
            key_arn = request.headers["x-amz-server-side-encryption-aws-kms-key-id"]
            self.contexts[path] = key_arn, context
            needs.append(Need("kms:GenerateDataKey", key_arn, context))
        return needs


def listed(value):
    return value if isinstance(value, list) else [value]


def statements(policy):
    return listed(policy["Statement"])


def like(pattern, text):
    """`*` and `?`, and nothing else that fnmatch knows."""
    return fnmatch.fnmatchcase(text, re.sub(r"\[", "[[]", pattern))


OPERATORS = {
    "StringEquals": lambda wanted, given: wanted == given,
    "StringLike": like,
    "ArnEquals": like,
    "ArnLike": like,
    "Bool": lambda wanted, given: wanted == given,
}


def holds(conditions, context):
    for operator, keys in conditions.items():
        for key, wanted in keys.items():
            given = context.get(key)
            if given is None or not any(OPERATORS[operator](each, given) for each in listed(wanted)):
                return False
    return True


def is_about(statement, need):
    """Whether a statement is about this action on this resource under these conditions. Actions are compared without case."""
    assert not {"NotAction", "NotResource", "NotPrincipal"} & statement.keys(), statement
    return (
        any(like(action.lower(), need.action.lower()) for action in listed(statement["Action"]))
        and any(like(resource, need.resource) for resource in listed(statement["Resource"]))
        and holds(statement.get("Condition", {}), need.context)
    )


def allows(policies, need):
    about = [statement["Effect"] for policy in policies for statement in statements(policy) if is_about(statement, need)]
    return "Allow" in about and "Deny" not in about


def granted(policies):
    """(action, resource) of each grant. Actions must be spelled out."""
    pairs = set()
    for policy in policies:
        for statement in statements(policy):
            assert statement["Effect"] == "Allow", statement
            for action in listed(statement["Action"]):
                assert "*" not in action and "?" not in action, f"{action} is more than one action"
                pairs |= {(action, resource) for resource in listed(statement["Resource"])}
    return pairs
