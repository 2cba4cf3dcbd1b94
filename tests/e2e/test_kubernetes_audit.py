"""The audit webhook of a Kubernetes API server: batches as kube-apiserver 1.30 writes them, their content made up."""

import json
import uuid
from datetime import datetime, timezone

import logfiles
from events import HOME_ACCOUNT, HOME_REGION
from harness import BUCKET
from test_auth import Signed

PATH = "/v1/kubernetes/audit"
SECRET = "kubernetes/Secret+0123456789abc="


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def request_of(verb="create", stages=("RequestReceived", "ResponseComplete"), **members):
    """The events of one request to the API server, one a stage."""
    event = {
        "level": "RequestResponse",
        "auditID": str(uuid.uuid4()),
        "stage": "",
        "requestURI": "/apis/apps/v1/namespaces/shop/deployments?fieldManager=kubectl-client-side-apply",
        "verb": verb,
        "user": {"username": "kubernetes-admin", "groups": ["kubeadm:cluster-admins", "system:authenticated"]},
        "sourceIPs": ["198.51.100.23"],
        "userAgent": "kubectl/v1.30.1 (linux/amd64) kubernetes/6911225",
        "objectRef": {"resource": "deployments", "namespace": "shop", "name": "web", "apiGroup": "apps", "apiVersion": "v1"},
        "requestReceivedTimestamp": now(),
    } | members
    outcome = {"responseStatus": {"metadata": {}, "code": 201}, "requestObject": {"kind": "Deployment", "spec": {"replicas": 3}}}
    return [event | {"stage": stage, "stageTimestamp": now()} | (outcome if stage == "ResponseComplete" else {}) for stage in stages]


def batch(*requests):
    items = [event for events in requests for event in events]
    return json.dumps({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": items}).encode()


def records_of(daemon):
    daemon.drain()
    return [value for file in logfiles.read(daemon.s3(), BUCKET) for _, value in file.records if value["eventSource"] == "kubernetes.io"]


def test_a_batch_is_recorded_once_however_often_it_comes(daemon):
    watch = request_of("watch", stages=("RequestReceived", "ResponseStarted", "ResponseComplete"))
    denied = request_of("delete", stages=("ResponseComplete",))
    denied[0]["responseStatus"] = {"metadata": {}, "status": "Failure", "message": 'deployments.apps "web" is forbidden', "reason": "Forbidden", "code": 403}
    health = request_of("get", objectRef=None, requestURI="/readyz?verbose", user={"username": "system:anonymous", "groups": ["system:unauthenticated"]})
    body = batch(request_of(), watch, denied, health)
    status, _, answer = daemon.post(body, {"Content-Type": "application/json"}, f"{PATH}?cluster=prod&timeout=30s")
    assert (status, answer) == (200, {"accepted": 4, "duplicates": 0, "skipped": 4, "rejected": []})
    for _ in range(2):
        daemon.kill()
        daemon.start()
        status, _, answer = daemon.post(body, path=f"{PATH}?cluster=prod")
        assert (status, answer) == (200, {"accepted": 0, "duplicates": 4, "skipped": 4, "rejected": []})
    records = {value["eventID"]: value for value in records_of(daemon)}
    assert records.keys() == {events[-1]["auditID"] for events in json_requests(body)}
    by_name = {value["eventName"]: value for value in records.values()}
    assert {name: value["readOnly"] for name, value in by_name.items()} == {
        "CreateDeployments": False,
        "WatchDeployments": True,
        "DeleteDeployments": False,
        "GetNonResourceURL": True,
    }
    created = by_name["CreateDeployments"]
    assert created["recipientAccountId"] == HOME_ACCOUNT and created["awsRegion"] == HOME_REGION
    assert created["resources"][0]["ARN"] == (
        f"arn:aws:traild:{HOME_REGION}:{HOME_ACCOUNT}:kubernetes/prod/apis/apps/v1/namespaces/shop/deployments/web"
    )
    assert created["requestParameters"]["requestObject"] == {"kind": "Deployment", "spec": {"replicas": 3}}
    assert by_name["DeleteDeployments"]["errorCode"] == "Forbidden"


def json_requests(body):
    """The events of a batch by their requests."""
    requests = {}
    for event in json.loads(body)["items"]:
        requests.setdefault(event["auditID"], []).append(event)
    return list(requests.values())


def test_a_large_batch_comes_compressed_or_not(daemon):
    big = {"kind": "ConfigMap", "data": {"blob": "x" * 90_000}}
    requests = [request_of(stages=("ResponseComplete",)) for _ in range(100)]
    for events in requests:
        events[0]["requestObject"] = big
    status, _, answer = daemon.post(batch(*requests), path=PATH)
    assert (status, answer["accepted"], answer["rejected"]) == (200, 100, []), answer
    assert len(records_of(daemon)) == 100


def test_a_server_is_told_to_come_again_when_the_journal_is_full(make_daemon):
    config = {
        "storage": {"kind": "s3"},
        "aws": {"endpoint_url": "http://127.0.0.1:9", "force_path_style": True},
        "journal": {"max_bytes": "1MiB", "segment_bytes": "256KiB"},
    }
    daemon = make_daemon(config=config, env={"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}).start()
    for _ in range(100):
        status, headers, answer = daemon.post(batch(*(request_of() for _ in range(50))), path=PATH)
        if status != 200:
            break
    assert (status, answer["code"]) == (503, "JournalFull") and int(headers["Retry-After"]) > 0


def test_who_may_send_audit_events(make_daemon):
    daemon = make_daemon()
    policies = {"webhook": "traild:PutKubernetesAudit", "events": "traild:PutEvents"}
    credentials = []
    for name, action in policies.items():
        secret, document = daemon.home / f"{name}.secret", daemon.home / f"{name}.json"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        document.write_text(json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]}))
        credentials.append(
            {"access_key_id": name, "secret_access_key_file": str(secret), "account_id": HOME_ACCOUNT, "policy_file": str(document)}
        )
    daemon.write_config(daemon.config | {"auth": {"mode": "sigv4", "credentials": credentials}})
    daemon.start()
    body = batch(request_of())
    signed = lambda key: Signed(daemon, path=PATH, body=body, key=key, secret=SECRET).send()
    status, _, answer = signed("webhook")
    assert (status, answer["accepted"]) == (200, 1), answer
    status, _, answer = signed("events")
    # Before any of them is looked at: also those that would be skipped.
    assert (status, answer["skipped"], [one["code"] for one in answer["rejected"]]) == (403, 0, ["AccessDenied"] * 2), answer
    # The API server does not sign.
    status, headers, _ = daemon.post(body, path=PATH)
    assert (status, headers["x-amzn-ErrorType"]) == (401, "MissingAuthenticationTokenException")
