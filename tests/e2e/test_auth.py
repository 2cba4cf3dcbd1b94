"""Who is let in and what they may, with auth.mode = "sigv4": boto3, the AWS CLI, curl, and requests that were tampered with on the way."""

import gzip
import hashlib
import http.client
import json
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import boto3
import botocore.auth
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

import events as samples
from events import HOME_ACCOUNT, HOME_REGION
from harness import Client, Daemon, run_cli

TABLE = json.loads((Path(__file__).parents[1] / "golden" / "policies.json").read_text())
#: Nothing that the daemon prints may hold it.
CANARY = "canary/Secret+0123456789abcdef="
TARGET = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101"
JSON = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{TARGET}.DescribeTrails"}


@pytest.fixture(scope="module")
def guarded(traild_bin, tmp_path_factory):
    """A daemon with a credential for each policy of the table, named like it, all with one secret, and logging all that it can."""
    home = tmp_path_factory.mktemp("guarded")
    secret = home / "secret"
    secret.write_text(CANARY + "\n")
    secret.chmod(0o600)
    credentials = []
    for name, policy in TABLE["policies"].items():
        credential = {"access_key_id": name, "secret_access_key_file": str(secret), "account_id": TABLE["account"]}
        if policy is not None:
            credential["policy_file"] = str(home / f"{name}.json")
            (home / f"{name}.json").write_text(json.dumps(policy))
        credentials.append(credential)
    config = {
        "auth": {"mode": "sigv4", "credentials": credentials},
        "listen": {"unix": str(home / "socket")},
    }
    daemon = Daemon(traild_bin, home / "traild", config=config, env={"RUST_LOG": "trace"})
    yield daemon.start()
    daemon.kill()
    log = daemon.log.read_text(errors="replace")
    assert "request refused" in log, "the log says nothing at all"
    assert CANARY not in log, "a secret is in the log"


def event(account=HOME_ACCOUNT, region=HOME_REGION, name="Probe"):
    return json.dumps(
        {
            "eventTime": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "eventSource": "auth.example.com",
            "eventName": name,
            "awsRegion": region,
            "recipientAccountId": account,
        }
    ).encode()


class Signed:
    """A request as botocore signs it, which can be changed before it is sent."""

    def __init__(self, daemon, method="POST", path="/v1/events", body=b"", headers=None, key="none", secret=CANARY, token=None,
                 service="traild", region=HOME_REGION, presigned=None):
        url = f"http://127.0.0.1:{daemon.api_port}{path}"
        self.request = AWSRequest(method=method, url=url, data=body, headers=headers or {})
        credentials = Credentials(key, secret, token)
        if presigned:
            SigV4QueryAuth(credentials, service, region, expires=presigned).add_auth(self.request)
        else:
            SigV4Auth(credentials, service, region).add_auth(self.request)
        self.daemon, self.body = daemon, body
        self.target = self.request.url.removeprefix(f"http://127.0.0.1:{daemon.api_port}")

    def resign(self, change):
        """The Authorization header, changed."""
        self.request.headers.replace_header("Authorization", change(self.request.headers["Authorization"]))
        return self

    def send(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.api_port, timeout=10)
        try:
            connection.request(self.request.method, self.target, self.body, dict(self.request.headers.items()))
            answer = connection.getresponse()
            body = json.loads(answer.read())
            return answer.status, answer.headers.get("x-amzn-ErrorType"), body
        finally:
            connection.close()


def at(monkeypatch, minutes, make):
    """What `make` signs so many minutes from now."""
    moment = datetime.now(timezone.utc) + timedelta(minutes=minutes)
    with monkeypatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda **_: moment.replace(tzinfo=None))
        return make()


def client(daemon, key="none", secret=CANARY, service="cloudtrail", region=HOME_REGION, **options):
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{daemon.api_port}",
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}),
        **options,
    )


def code_of(call):
    """The code that boto3 raises, with its status; nothing for an answer."""
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return None


# What is allowed.


def put_events(daemon, row):
    body = event(row["account"], row["region"])
    status, _, answer = Signed(daemon, body=body, key=row["policy"], region=row["region"]).send()
    denied = [one["code"] for one in answer.get("rejected", [])]
    if denied:
        assert (status, denied) == (403, ["AccessDenied"]), answer
    else:
        assert (status, answer["accepted"]) == (200, 1), answer
    return not denied


def get_status(daemon, row):
    status, kind, answer = Signed(daemon, "GET", "/v1/status", key=row["policy"], region=row["region"]).send()
    if status == 200:
        return "trails" in answer
    assert (status, kind, answer["code"]) == (403, "AccessDeniedException", "AccessDeniedException"), answer
    return False


def operation(daemon, row):
    service, name = row["action"].split(":")
    api = client(daemon, row["policy"], service=service, region=row["region"])
    calls = {"DescribeTrails": "describe_trails", "ListPublicKeys": "list_public_keys", "DescribeOrganization": "describe_organization"}
    code = code_of(getattr(api, calls[name]))
    assert code in (None, ("AccessDeniedException", 400)), code
    return code is None


@pytest.mark.parametrize("row", TABLE["decisions"], ids=lambda row: "-".join(str(value) for value in row.values()))
def test_a_policy_decides_the_same_over_http(guarded, row):
    ask = {"traild:PutEvents": put_events, "traild:GetStatus": get_status}.get(row["action"], operation)
    assert ask(guarded, row) == row["allowed"]


def test_events_of_other_accounts_are_refused_one_by_one(guarded):
    accounts = [HOME_ACCOUNT, "999988887777", HOME_ACCOUNT, "123456789012"]
    body = gzip.compress(b"\n".join(event(account, name=f"E{index}") for index, account in enumerate(accounts)))
    signed = Signed(guarded, body=body, headers={"Content-Encoding": "gzip"}, key="one-other-account")
    status, _, answer = signed.send()
    assert (status, answer["accepted"]) == (200, 3), answer
    (refused,) = answer["rejected"]
    assert (refused["index"], refused["code"]) == (3, "AccessDenied")
    assert "arn:aws:iam::111122223333:user/one-other-account is not authorized to perform: traild:PutEvents" in refused["message"]
    assert f"arn:aws:traild:{HOME_REGION}:123456789012:events" in refused["message"]


def test_what_an_event_does_not_name_is_the_credentials_account_and_the_scopes_region(guarded):
    bare = json.loads(event(name="Bare"))
    del bare["awsRegion"], bare["recipientAccountId"]
    status, _, answer = Signed(guarded, body=json.dumps(bare).encode(), key="one-region", region="us-east-1").send()
    assert (status, answer["accepted"]) == (200, 1), answer
    # Its resource is in the region of the request.
    status, _, answer = Signed(guarded, body=json.dumps(bare).encode(), key="one-region", region="eu-west-1").send()
    assert (status, answer["rejected"][0]["code"]) == (403, "AccessDenied"), answer


# Who is let in.

INVALID, UNKNOWN = "InvalidSignatureException", "UnrecognizedClientException"
MISMATCH = "The request signature we calculated does not match"

#: What is done to a sound request for the API or with an event, and what is answered.
TAMPERINGS = {
    "nothing": (lambda make: make(), None, ""),
    "wrong secret": (lambda make: make(secret="wrong"), INVALID, MISMATCH),
    "unknown key": (lambda make: make(key="nobody"), UNKNOWN, "security token"),
    "a session token": (lambda make: make(token="token"), UNKNOWN, "security token"),
    "wrong service": (lambda make: make(service="s3"), INVALID, "Credential should be scoped to correct service: "),
    "another region after signing": (
        lambda make: make().resign(lambda header: header.replace(HOME_REGION, "eu-west-1")),
        INVALID,
        MISMATCH,
    ),
    "no region": (lambda make: make(region="US_EAST"), INVALID, "scoped to a valid region, not 'US_EAST'"),
    "header not signed": (
        lambda make: make().resign(lambda header: header.replace(";x-amz-date", "")),
        INVALID,
        "'x-amz-date' must be a 'SignedHeader'",
    ),
    "no signature": (
        lambda make: make().resign(lambda header: header[: header.rindex(",")]),
        "IncompleteSignatureException",
        "requires 'Signature'",
    ),
    "not signed": (
        lambda make: make().resign(lambda header: "Bearer token"),
        "MissingAuthenticationTokenException",
        "missing Authentication Token",
    ),
    "unsigned payload": (
        lambda make: make(headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}),
        INVALID,
        "the payload must be signed",
    ),
}


@pytest.mark.parametrize("protocol", ["api", "events"])
@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_a_request_that_was_tampered_with_is_refused_by_awss_name(guarded, protocol, tampering):
    how, code, message = TAMPERINGS[tampering]

    def make(headers=None, service=None, **options):
        if protocol == "api":
            return Signed(guarded, path="/", body=b"{}", headers=JSON | (headers or {}), service=service or "cloudtrail", **options)
        return Signed(guarded, body=event(name="Tampered"), headers=headers, service=service or "traild", **options)

    status, kind, answer = how(make).send()
    assert kind == code, answer
    if code is None:
        assert status == 200, answer
        return
    expected = 400 if protocol == "api" else 401 if "Missing" in code else 403
    assert (status, answer["__type"], answer["code"]) == (expected, code, code)
    assert message in answer["message"], answer


@pytest.mark.parametrize("size", [100, 3_000_000], ids=["small", "large"])
@pytest.mark.parametrize("signed_hash", [False, True], ids=["hash unsaid", "hash signed"])
def test_a_changed_body_is_refused_and_nothing_of_it_is_taken(guarded, size, signed_hash):
    body = event(name="Changed") + b" " * size
    headers = {}
    if signed_hash:
        headers["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
    signed = Signed(guarded, body=body, headers=headers)
    before = guarded.metrics().total("traild_events_accepted_total")
    signed.body = body.replace(b"Changed", b"Forged!")
    status, kind, answer = signed.send()
    assert (status, kind) == (403, INVALID), answer
    assert guarded.metrics().total("traild_events_accepted_total") == before
    signed.body = body
    assert signed.send()[0] == 200


@pytest.mark.parametrize("minutes, message", [(-16, "Signature expired: "), (-14, None), (14, None), (16, "Signature not yet current: ")])
def test_a_clock_may_be_a_quarter_of_an_hour_off(guarded, monkeypatch, minutes, message):
    api = client(guarded)
    code = at(monkeypatch, minutes, lambda: code_of(api.describe_trails))
    assert code == (message and (INVALID, 400))
    status, kind, answer = at(monkeypatch, minutes, lambda: Signed(guarded, body=event())).send()
    if message:
        assert (status, kind) == (403, INVALID) and message in answer["message"] and "15 min.)" in answer["message"], answer
    else:
        assert status == 200, answer


def test_a_request_can_be_replayed_while_it_is_fresh_and_doubles_nothing(guarded, monkeypatch):
    fresh = Signed(guarded, body=json.dumps(json.loads(event()) | {"eventID": "replayed"}).encode())
    assert fresh.send()[2]["accepted"] == 1
    status, _, answer = fresh.send()
    assert (status, answer["accepted"], answer["duplicates"]) == (200, 0, 1)
    old = at(monkeypatch, -15.1, lambda: Signed(guarded, body=event()))
    for _ in range(2):
        status, kind, answer = old.send()
        assert (status, kind) == (403, INVALID) and answer["message"].startswith("Signature expired: "), answer


def test_a_presigned_url_lasts_as_long_as_it_says(guarded, monkeypatch):
    make = lambda **options: Signed(guarded, "GET", "/v1/status", presigned=options.pop("lasts", 60), **options)
    assert make().send()[0] == 200
    assert make(lasts=604_800).send()[0] == 200
    post = Signed(guarded, path="/", body=b"", headers=JSON, service="cloudtrail", presigned=60)
    assert post.send()[2]["__type"] == "SerializationException", "let in, to an operation that needs a body"
    for presigned, code, message in [
        (make(lasts=604_801), "IncompleteSignatureException", "X-Amz-Expires"),
        (at(monkeypatch, -2, make), INVALID, "Signature expired: "),
        (make(secret="wrong"), INVALID, MISMATCH),
        (make(service="cloudtrail"), INVALID, "correct service: 'traild'"),
        (make(key="nobody"), UNKNOWN, ""),
    ]:
        status, kind, answer = presigned.send()
        assert (status, kind) == (403, code) and message in answer["message"], answer
    changed = make()
    changed.target = changed.target.replace("X-Amz-Expires=60", "X-Amz-Expires=600")
    assert changed.send()[1] == INVALID


def test_boto3_is_told_by_name(guarded):
    assert {trail["Name"] for trail in client(guarded).describe_trails()["trailList"]} == {"main"}
    assert code_of(client(guarded, secret="wrong").describe_trails) == (INVALID, 400)
    assert code_of(client(guarded, key="nobody").describe_trails) == (UNKNOWN, 400)
    assert code_of(client(guarded, aws_session_token="token").describe_trails) == (UNKNOWN, 400)
    assert code_of(client(guarded, key="ingest-only").describe_trails) == ("AccessDeniedException", 400)
    assert code_of(client(guarded, service="organizations").describe_organization) is None
    with pytest.raises(ClientError) as caught:
        client(guarded, key="ingest-only", region="eu-west-1").describe_trails()
    error = caught.value.response["Error"]
    assert error["Message"].startswith(
        "User: arn:aws:iam::111122223333:user/ingest-only is not authorized to perform: cloudtrail:DescribeTrails on resource: *"
    )


def test_the_aws_cli_is_told_by_name(guarded):
    def cli(key="none", secret=CANARY):
        endpoint = f"http://127.0.0.1:{guarded.api_port}"
        env = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_ENDPOINT_URL": endpoint}
        return run_cli("aws", "cloudtrail", "describe-trails", "--region", HOME_REGION, env=env)

    code, out, _ = cli()
    assert code == 0 and json.loads(out)["trailList"][0]["Name"] == "main"
    for options, name in [
        ({"secret": "wrong"}, INVALID),
        ({"key": "nobody"}, UNKNOWN),
        ({"key": "ingest-only"}, "AccessDeniedException"),
    ]:
        code, _, err = cli(**options)
        assert code != 0 and f"({name})" in err, err


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_curl_signs_events(guarded, tmp_path):
    body = tmp_path / "events"
    body.write_bytes(event(name="Curl"))

    def curl(secret, service="traild"):
        url = f"http://127.0.0.1:{guarded.api_port}/v1/events"
        sign = ["--aws-sigv4", f"aws:amz:{HOME_REGION}:{service}", "--user", f"none:{secret}"]
        done = subprocess.run(["curl", "-s", *sign, "--data-binary", f"@{body}", url], capture_output=True, timeout=30, check=True)
        return json.loads(done.stdout)

    assert curl(CANARY)["accepted"] == 1
    assert curl("wrong")["code"] == INVALID
    assert "correct service: 'traild'" in curl(CANARY, "s3")["message"]


def test_a_process_at_the_unix_socket_need_not_sign(guarded):
    body = event("999988887777", name="Socket")
    with Client(guarded.config["listen"]["unix"]) as socket:
        status, _, answer = socket.post(body)
    assert (status, answer["accepted"]) == (200, 1), answer
    status, _, answer = guarded.post(body)
    assert (status, answer["code"]) == (401, "MissingAuthenticationTokenException"), answer


def test_traild_send_and_status_sign_when_they_are_asked_to(guarded, tmp_path):
    endpoint = ["--endpoint", f"http://127.0.0.1:{guarded.api_port}"]
    file = tmp_path / "events.ndjson"
    # More than one read of a socket: the refusal that asks for a signature must reach a client that is still sending.
    file.write_bytes(b"\n".join(event(name=f"Sent{number}") for number in range(20_000)))
    nothing = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    good = nothing | {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_REGION": HOME_REGION}
    run = lambda env, *arguments: run_cli(guarded.binary, *arguments, env=env)

    code, _, err = run(good, "send", *endpoint, str(file))
    assert code == 0 and "20000 accepted" in err, err
    code, out, err = run(good, "status", *endpoint, "--json")
    assert code == 0 and json.loads(out)["ready"], err
    assert CANARY not in out + err
    for env, name in [
        (nothing, "MissingAuthenticationTokenException"),
        (good | {"AWS_SECRET_ACCESS_KEY": "wrong"}, INVALID),
        (good | {"AWS_ACCESS_KEY_ID": "nobody"}, UNKNOWN),
    ]:
        code, _, err = run(env, "send", *endpoint, str(file))
        assert code == 1 and name in err and "hint: sign with one of the daemon's credentials" in err, err
    code, _, err = run(nothing, "status", *endpoint)
    assert code == 1 and "401" in err and "AWS_ACCESS_KEY_ID" in err, err
    code, _, err = run(good | {"AWS_ACCESS_KEY_ID": "read-only"}, "send", *endpoint, str(file))
    assert code != 0 and "AccessDenied" in err, err
    code, _, err = run(nothing, "send", "--endpoint", f"unix:{guarded.config['listen']['unix']}", str(file))
    assert code == 0, err
