"""TLS of the api listener: the clients of AWS and traild's own, renewal under load, slow handshakes, and clients that show certificates."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from datetime import datetime, timedelta, timezone
from http.client import HTTPSConnection

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

import logfiles
from certificates import Authority
from events import HOME_ACCOUNT, HOME_REGION, spread
from harness import BUCKET, run_cli, wait_until

OTHER = "444455556666"
EVENT = {"eventSource": "tls.example.com", "eventName": "Probe"}


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "certificates")


@pytest.fixture
def make_tls(make_daemon, authority):
    """Makes daemons that serve TLS with a certificate for 127.0.0.1."""

    def make(name="traild", client_ca=None, config=None, days=90, **options):
        cert, key = authority.issue("server", dns=["localhost"], ips=["127.0.0.1"], days=days)
        tls = {"cert_file": str(cert), "key_file": str(key)}
        if client_ca:
            tls["client_ca_file"] = str(client_ca.file)
        given = {"listen": {"tls": tls}} | (config or {})
        daemon = make_daemon(name, config=given, **options)
        daemon.endpoint = f"https://127.0.0.1:{daemon.api_port}"
        return daemon

    return make


def trusting(authority, shown=None):
    """A client's side of TLS, which shows the certificate of these two files."""
    context = ssl.create_default_context(cafile=authority.file)
    if shown:
        context.load_cert_chain(*shown)
    return context


def ask(daemon, context, path="/v1/events", body=None, headers=None, connection=None):
    """Status and JSON of an answer. Whoever is not let in gets an OSError."""
    connection = connection or HTTPSConnection("127.0.0.1", daemon.api_port, context=context, timeout=10)
    method = "GET" if body is None else "POST"
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def event(**members):
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps(EVENT | {"eventTime": now} | members).encode()


def call(daemon, context, operation, **members):
    target = f"com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.{operation}"
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
    return ask(daemon, context, "/", json.dumps(members).encode(), headers)


def test_the_clients_of_aws_and_our_own(make_tls, authority, tmp_path, rng):
    daemon = make_tls().start()
    options = {"endpoint_url": daemon.endpoint, "region_name": HOME_REGION, "aws_access_key_id": "a", "aws_secret_access_key": "b"}
    cloudtrail = boto3.client("cloudtrail", verify=str(authority.file), **options)
    request_id = cloudtrail.describe_trails()["ResponseMetadata"]["RequestId"]
    env = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_CA_BUNDLE": str(authority.file), "AWS_ENDPOINT_URL": daemon.endpoint}
    code, out, err = run_cli("aws", "cloudtrail", "describe-trails", "--region", HOME_REGION, env=env)
    assert code == 0 and json.loads(out)["trailList"][0]["Name"] == "main", err
    if shutil.which("curl"):
        curl = ["curl", "-sS", "--fail", "--cacert", authority.file, f"{daemon.endpoint}/v1/events", "--data-binary", event(eventID="by-curl")]
        assert json.loads(subprocess.run(curl, check=True, capture_output=True).stdout)["accepted"] == 1

    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(spread(rng, 10)))
    told = run_cli(daemon.binary, "send", "--endpoint", daemon.endpoint, "--ca-file", authority.file, file)
    assert told[0] == 0 and "10 accepted" in told[2], told
    told = run_cli(daemon.binary, "status", "--endpoint", daemon.endpoint, "--json", env={"AWS_CA_BUNDLE": str(authority.file)})
    assert told[0] == 0 and json.loads(told[1])["ready"], told
    stranger = Authority(tmp_path / "stranger")
    code, _, err = run_cli(daemon.binary, "status", "--endpoint", daemon.endpoint, "--ca-file", stranger.file)
    assert code == 1 and "tls handshake failed" in err, err
    # Plain HTTP gets no answer there.
    with pytest.raises(OSError):
        daemon.post(event())

    daemon.answered = 11
    daemon.drain()
    calls = {value["requestID"]: value for file in logfiles.read(daemon.s3(), BUCKET) for value in file.own_calls}
    details = calls[request_id]["tlsDetails"]
    assert details["clientProvidedHostHeader"] == f"127.0.0.1:{daemon.api_port}"
    assert (details["tlsVersion"], details["cipherSuite"][:8]) == ("TLSv1.3", "TLS_AES_"), details
    expiry = daemon.metrics().total("traild_certificate_expiry_seconds")
    assert abs(expiry - time.time() - 90 * 86400) < 3600


def test_a_renewal_under_load_fails_no_request_and_a_bad_pair_is_refused(make_tls, authority):
    daemon = make_tls().start()
    context = trusting(authority)
    stop, failures, answered = threading.Event(), [], []

    def load(kept):
        connection = HTTPSConnection("127.0.0.1", daemon.api_port, context=context, timeout=10) if kept else None
        try:
            while not stop.is_set():
                status, answer = ask(daemon, context, body=event(), connection=connection)
                assert (status, answer["accepted"]) == (200, 1)
                answered.append(kept)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=load, args=(kept,)) for kept in (True, True, False)]
    for thread in threads:
        thread.start()
    try:
        expiry = daemon.metrics().total("traild_certificate_expiry_seconds")
        cert, key = daemon.config["listen"]["tls"]["cert_file"], daemon.config["listen"]["tls"]["key_file"]

        def serial():
            with socket.create_connection(("127.0.0.1", daemon.api_port)) as raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
                return tls.getpeercert()["serialNumber"]

        before = serial()
        # By SIGHUP: a pair that does not go together, then a good one.
        new_cert, new_key = authority.issue("new", dns=["localhost"], ips=["127.0.0.1"], days=180)
        shutil.copy(new_cert, cert)
        daemon.hang_up()
        wait_until(lambda: "is not the key of the certificate" in daemon.log.read_text(), 5, "the refusal of a bad pair")
        assert serial() == before and daemon.metrics().total("traild_certificate_expiry_seconds") == expiry
        shutil.copy(new_key, key)
        daemon.hang_up()
        wait_until(lambda: serial() != before, 5, "the new certificate")
        assert daemon.metrics().total("traild_certificate_expiry_seconds") > expiry
        # By itself, seconds after the files have changed.
        renewed = serial()
        for source, target in zip(authority.issue("newer", dns=["localhost"], ips=["127.0.0.1"]), (cert, key)):
            shutil.copy(source, f"{target}.new")
            os.rename(f"{target}.new", target)
        wait_until(lambda: serial() != renewed, 15, "the certificate to be looked at")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert answered.count(True) > 20 and answered.count(False) > 5
    daemon.answered = len(answered)
    daemon.drain()


def test_slow_handshakes_keep_nobody_out(make_tls, authority):
    daemon = make_tls().start()
    stalled = []
    try:
        for _ in range(400):
            stalled.append(socket.create_connection(("127.0.0.1", daemon.api_port)))
            stalled[-1].sendall(b"\x16\x03\x01")
        began = time.monotonic()
        assert ask(daemon, trusting(authority), body=event())[0] == 200
        assert time.monotonic() - began < 5, "half of what a handshake is given"
    finally:
        for each in stalled:
            each.close()


def mtls(authority, tmp_path, **options):
    policy = tmp_path / "policy.json"
    statement = {
        "Effect": "Allow",
        "Action": ["traild:PutEvents", "cloudtrail:ListTrails"],
        "Resource": "*",
        "Condition": {"Bool": {"aws:SecureTransport": "true"}, "StringEquals": {"aws:username": "audit/collector"}},
    }
    policy.write_text(json.dumps({"Version": "2012-10-17", "Statement": statement}))
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    certificates = [
        {"uri": "spiffe://example.org/ns/audit/sa/collector", "user_name": "audit/collector", "account_id": OTHER, "policy_file": str(policy)},
        {"dns": "operator.audit.svc"},
    ]
    credentials = [{"access_key_id": "AKID", "secret_access_key_file": str(secret)}]
    return {"auth": {"mode": "sigv4", "credentials": credentials, "certificates": certificates}}


def test_certificates_are_principals(make_tls, authority, tmp_path):
    daemon = make_tls(client_ca=authority, config=mtls(authority, tmp_path)).start()
    collector = trusting(authority, authority.issue("collector", uris=["spiffe://example.org/ns/audit/sa/collector"]))
    operator = trusting(authority, authority.issue("operator", common_name="x", dns=["operator.audit.svc"]))
    files = authority.issue("stranger", common_name="stranger")
    stranger = trusting(authority, files)

    assert ask(daemon, collector, body=event())[1] == {"accepted": 1, "duplicates": 0, "rejected": []}
    status, answer = ask(daemon, collector, body=event(recipientAccountId=HOME_ACCOUNT))
    assert (status, answer["rejected"][0]["code"]) == (403, "AccessDenied"), "of another account"
    assert call(daemon, collector, "ListTrails")[0] == 200
    status, answer = call(daemon, collector, "DescribeTrails")
    assert (status, answer["__type"]) == (400, "AccessDeniedException"), answer
    assert f"arn:aws:iam::{OTHER}:user/audit/collector" in answer["message"]
    assert ask(daemon, collector, "/v1/status")[0] == 403
    assert call(daemon, operator, "DescribeTrails")[1]["trailList"][0]["Name"] == "main"
    status, answer = call(daemon, stranger, "DescribeTrails")
    assert (status, answer["__type"]) == (400, "MissingAuthenticationTokenException")

    # Whoever signs is held to it, be the certificate known or not.
    def signed(secret, shown):
        return boto3.client(
            "cloudtrail", endpoint_url=daemon.endpoint, region_name=HOME_REGION, aws_access_key_id="AKID", aws_secret_access_key=secret,
            verify=str(authority.file), config=Config(retries={"total_max_attempts": 1}, client_cert=tuple(map(str, shown))),
        )  # fmt: skip

    by_name = (authority.folder / "operator.pem", authority.folder / "operator.key")
    for shown in [files, by_name]:
        assert signed("secret", shown).describe_trails()["trailList"]
        with pytest.raises(ClientError) as refused:
            signed("wrong", shown).describe_trails()
        assert refused.value.response["Error"]["Code"] == "InvalidSignatureException"

    cert, key = by_name
    told = run_cli(daemon.binary, "status", "--endpoint", daemon.endpoint, "--ca-file", authority.file, "--cert-file", cert, "--key-file", key)
    assert told[0] == 0 and "ready" in told[1], told
    daemon.answered = 1
    daemon.drain()
    calls = [value for file in logfiles.read(daemon.s3(), BUCKET) for value in file.own_calls]
    [denied] = [value for value in calls if value.get("errorCode") == "AccessDenied"]
    assert denied["requestParameters"] is None and denied["recipientAccountId"] == OTHER
    assert denied["userIdentity"] == {
        "type": "IAMUser", "principalId": "audit/collector", "arn": f"arn:aws:iam::{OTHER}:user/audit/collector",
        "accountId": OTHER, "userName": "audit/collector",
    }  # fmt: skip
    assert {value["userIdentity"].get("accessKeyId") for value in calls} == {None, "AKID"}


def test_only_certificates_of_the_authority_get_through_the_handshake(make_tls, authority, tmp_path):
    daemon = make_tls(client_ca=authority).start()
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    other = Authority(tmp_path / "other")
    good = trusting(authority, authority.issue("good", common_name="anybody"))
    assert call(daemon, good, "DescribeTrails")[0] == 200
    for shown in [None, authority.issue("expired", common_name="anybody", ended=yesterday), other.issue("other", common_name="anybody")]:
        with pytest.raises(OSError):
            call(daemon, trusting(authority, shown), "DescribeTrails")


def test_validate_looks_at_the_certificate(make_tls, authority):
    daemon = make_tls(days=10)

    def validate():
        return run_cli(daemon.binary, "validate", "--config", daemon.config_file)

    code, out, err = validate()
    assert code == 0 and f"api       https://127.0.0.1:{daemon.api_port}" in out and "ends soon" in err, (out, err)
    authority.issue("server", dns=["localhost"], ended=datetime.now(timezone.utc) - timedelta(hours=1))
    code, _, err = validate()
    assert code == 78 and "has expired" in err, err
    authority.issue("server", dns=["localhost"])[1].chmod(0o644)
    code, _, err = validate()
    assert code == 0 and "everyone on this machine can read" in err, err
    authority.issue("server", dns=["localhost"])[0].write_text("nothing")
    code, _, err = validate()
    assert code == 78 and "listen.tls.cert_file" in err and "no certificate" in err, err
