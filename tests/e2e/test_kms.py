"""A key in AWS KMS signs digests: LocalStack's KMS, through the same code path as AWS's."""

import base64
import gzip
import hashlib
import json
import os
import stat
import time

import boto3
import pytest

import events
from digests import all_digested, check, keys_of
from fault_proxy import FaultProxy
from harness import BUCKET, HOME_REGION, TEST_CREDENTIALS, calling, free_port, merged, run_cli, wait_until

ALGORITHM = "RSASSA_PKCS1_V1_5_SHA_256"
INTERVAL = 2  # seconds


@pytest.fixture
def kms(localstack):
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client("kms", endpoint_url=localstack, region_name=HOME_REGION, **credentials)


@pytest.fixture
def alias(rng):
    return f"alias/e2e-{rng.getrandbits(48):012x}"


@pytest.fixture
def free_endpoint():
    return f"http://127.0.0.1:{free_port()}"


def a_key(kms, usage="SIGN_VERIFY", spec="RSA_2048"):
    return kms.create_key(KeyUsage=usage, KeySpec=spec)["KeyMetadata"]["Arn"]


def signing_with(key, endpoint):
    """Configuration for a daemon with an embedded store, whose digests come every two seconds."""
    return merged(calling(endpoint), {"digest": {"interval": f"{INTERVAL}s", "kms_key_id": key}})


def kept_keys(daemon):
    """The public keys of KMS in the key directory, by fingerprint."""
    found = {}
    for path in (daemon.data_dir / "keys").glob("*.kms.json"):
        region, fingerprint, _, _ = path.name.split(".")
        key = json.loads(path.read_text())
        der = base64.b64decode(key["Value"])
        assert region == HOME_REGION
        assert fingerprint == key["Fingerprint"] == hashlib.md5(der).hexdigest()
        found[fingerprint] = key
    return found


def digests(daemon):
    """(digest, hash of its bytes, metadata) of each digest in the bucket, by key."""
    s3, found = daemon.s3(), {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for entry in page.get("Contents", []):
            if "/CloudTrail-Digest/" in entry["Key"]:
                answer = s3.get_object(Bucket=BUCKET, Key=entry["Key"])
                text = gzip.decompress(answer["Body"].read())
                found[entry["Key"]] = json.loads(text), hashlib.sha256(text).hexdigest(), answer["Metadata"]
    return found


def signed_by(kms, key, digest, sha256, metadata):
    """Whether KMS itself says that it has signed this digest with this key."""
    place = f"{digest['digestS3Bucket']}/{digest['digestS3Object']}"
    text = "\n".join([digest["digestEndTime"], place, sha256, digest["previousDigestSignature"] or "null"])
    signature = bytes.fromhex(metadata["signature"])
    try:
        answer = kms.verify(KeyId=key, Message=text.encode(), MessageType="RAW", Signature=signature, SigningAlgorithm=ALGORITHM)
    except kms.exceptions.KMSInvalidSignatureException:
        return False
    return answer["SignatureValid"]


def wait_for_digests(daemon, fingerprint_of_newest=None, at_least=1):
    """Waits until a region has that many digests that name this key, and gives all there are."""

    def enough():
        found = digests(daemon)
        named = [it for it, _, _ in found.values() if fingerprint_of_newest in (None, it["digestPublicKeyFingerprint"])]
        return found if len(named) >= at_least else None

    wait_until(lambda: enough() is not None, 30, f"{at_least} digests")
    return digests(daemon)


def test_digests_are_signed_by_the_key_and_its_public_part_is_listed(make_daemon, localstack, kms, alias, rng):
    key = a_key(kms)
    kms.create_alias(AliasName=alias, TargetKeyId=key)
    daemon = make_daemon(config=signing_with(alias, localstack), env=TEST_CREDENTIALS)
    daemon.start()
    daemon.send(events.spread(rng, 60))
    daemon.drain()
    first = wait_for_digests(daemon, at_least=6)
    assert all(signed_by(kms, key, *each) for each in first.values())
    (old,) = kept_keys(daemon)
    assert {digest["digestPublicKeyFingerprint"] for digest, _, _ in first.values()} == {old}, "one key for every region"
    names = os.listdir(daemon.data_dir / "keys")
    assert not [name for name in names if "private" in name], "no private key is made"

    # The alias is moved: both keys sign what they have signed, and both stay listed.
    daemon.stop()
    other = a_key(kms)
    kms.update_alias(AliasName=alias, TargetKeyId=other.split("/")[1])  # LocalStack takes an ARN and then does not find it
    daemon.start()
    wait_until(lambda: len(kept_keys(daemon)) == 2, 30, "the other key")
    (new,) = set(kept_keys(daemon)) - {old}
    every = wait_for_digests(daemon, new, at_least=2)
    for digest, sha256, metadata in every.values():
        named = {old: key, new: other}[digest["digestPublicKeyFingerprint"]]
        assert signed_by(kms, named, digest, sha256, metadata)
    api = f"http://127.0.0.1:{daemon.api_port}"
    cloudtrail = boto3.client("cloudtrail", endpoint_url=api, region_name=HOME_REGION, aws_access_key_id="a", aws_secret_access_key="b")
    listed = {key["Fingerprint"]: key["Value"] for key in cloudtrail.list_public_keys()["PublicKeyList"]}
    for fingerprint, public in kept_keys(daemon).items():
        assert listed[fingerprint] == base64.b64decode(public["Value"])


def test_digests_wait_for_a_kms_that_fails_and_none_is_missing(make_daemon, localstack, kms, rng, seed):
    key = a_key(kms)
    down = {"kind": None}
    with FaultProxy(int(localstack.rsplit(":", 1)[1]), seed=seed, choose=lambda request, rng: down["kind"]) as proxy:
        daemon = make_daemon(config=signing_with(key, proxy.endpoint), env=TEST_CREDENTIALS)
        daemon.start()
        daemon.send(events.make_many(rng, 5))
        daemon.drain()
        wait_for_digests(daemon, at_least=2)
        for kind in ["500", "lost"]:
            down["kind"], fired = kind, proxy.fired[kind]
            wait_until(lambda kind=kind, fired=fired: proxy.fired[kind] > fired, 20, f"{kind} of KMS")
            daemon.send(events.make_many(rng, 5))
            daemon.drain()
            before = len(digests(daemon))
            time.sleep(3 * INTERVAL)
            assert len(digests(daemon)) == before, "no digest without KMS, for longer than a window"
            down["kind"] = None
            # Those of the windows that are over by now, all of them made up for.
            wait_until(lambda before=before: len(digests(daemon)) >= before + 3, 30, "the digests after the fault")
        found = all_digested(daemon.s3(), daemon)
    assert all(signed_by(kms, key, *each) for each in digests(daemon).values())
    assert len(found.logs) >= 3, "one before the faults, and one in each"
    check(found, keys_of(daemon, found))


def test_a_daemon_starts_and_delivers_without_kms(make_daemon, free_endpoint, rng):
    daemon = make_daemon(config=signing_with("alias/nowhere", free_endpoint), env=TEST_CREDENTIALS)
    daemon.start()
    daemon.send(events.make_many(rng, 5))
    daemon.drain()
    keys = daemon.data_dir / "keys"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert kept_keys(daemon) == {}
    code, seconds = daemon.stop()
    assert (code, seconds < 5) == (0, True)


def test_validate_says_what_is_wrong_with_the_key(traild_bin, make_daemon, localstack, kms, alias, rng):
    def validate(key):
        daemon = make_daemon(f"validated-{rng.getrandbits(32):08x}", config=signing_with(key, localstack))
        code, out, err = run_cli(traild_bin, "validate", "--config", daemon.config_file, env=TEST_CREDENTIALS)
        assert not daemon.data_dir.exists(), "validating creates nothing"
        return code, out + err

    good = a_key(kms)
    code, said = validate(good)
    assert code == 0 and f"signed by AWS KMS with {good}" in said, said
    for key, problem in [
        (alias, "the key does not exist in us-east-1"),
        (a_key(kms, usage="ENCRYPT_DECRYPT"), "its usage is ENCRYPT_DECRYPT, not SIGN_VERIFY"),
        (a_key(kms, spec="ECC_NIST_P256"), "its spec is ECC_NIST_P256, not RSA_2048"),
    ]:
        code, said = validate(key)
        assert code == 78, said
        assert f"digest.kms_key_id = {key}" in said.replace('"', "") and problem in said and "hint: " in said, said
