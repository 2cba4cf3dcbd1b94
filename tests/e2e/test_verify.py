"""`traild verify` as a command, on the golden chain: from a bucket, from a copy without a network, and when something cannot be read.

What it finds in a chain that was tampered with is shown in test_digests_tampering.py, on chains that the daemon wrote.
"""

import json

import pytest

import golden_chain
from golden_chain import BUCKET, objects
from harness import TEST_CREDENTIALS, run_cli

END = "2026-05-01T04:00:00Z"


@pytest.fixture
def cloudtrail():
    with golden_chain.cloudtrail() as answering:
        yield answering.endpoint


@pytest.fixture
def store(make_daemon):
    return make_daemon(buckets=(BUCKET,)).start()


def environment(store, cloudtrail):
    return TEST_CREDENTIALS | {
        "AWS_ENDPOINT_URL_S3": store.store_endpoint,
        "AWS_ENDPOINT_URL_CLOUDTRAIL": cloudtrail,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
    }


def verify(traild_bin, env, *arguments):
    code, out, err = run_cli(traild_bin, "verify", "--bucket", BUCKET, "--end", END, *arguments, env=env)
    assert "panicked" not in err
    return code, out, err


def test_a_chain_is_verified_offline_from_a_copy_and_exported_keys(traild_bin, tmp_path):
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"PublicKeyList": golden_chain.KEYS}))
    for key, (body, _) in objects().items():
        path = tmp_path / "copy" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    # Nothing is asked: nobody answers here.
    env = TEST_CREDENTIALS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_REGION": "us-east-1"}
    offline = ["--dir", tmp_path / "copy", "--public-keys", keys]
    code, out, err = verify(traild_bin, env, *offline)
    assert code == 1 and "its signature was not checked" in out and "head-object" in err, out + err
    newest = list(objects())[-1]
    (tmp_path / "copy" / f"{newest}.metadata.json").write_text(json.dumps({"Metadata": objects()[newest][1]}))
    code, out, err = verify(traild_bin, env, *offline)
    assert code == 0 and "4/4 digest files valid\n2/2 log files valid" in out, out + err


def test_what_cannot_be_read_is_not_called_valid(traild_bin, store, cloudtrail):
    env = environment(store, cloudtrail)
    code, out, err = run_cli(traild_bin, "verify", "--bucket", "nobodys-bucket", env=env)
    assert code == 1 and out == "" and "nobodys-bucket" in err, out + err
    code, out, err = verify(traild_bin, env)
    assert code == 1 and "No digests found" in err, out + err
    golden_chain.put(store.s3())
    code, out, err = verify(traild_bin, env)
    assert code == 0 and "4/4 digest files valid\n2/2 log files valid" in out, out + err
    nobody = env | {"AWS_ENDPOINT_URL_CLOUDTRAIL": "http://127.0.0.1:9"}
    code, out, err = verify(traild_bin, nobody)
    assert code == 1 and out == "" and "could not verify" in err and "public keys" in err, out + err
    code, out, err = verify(traild_bin, nobody, "--json")
    answer = json.loads(out)
    assert code == 1 and answer["verified"] is False and "public keys" in answer["error"]
    for arguments in [["--account", "1"], ["--start", "soon"], ["--start", "2026-06-01"], ["--readers", "0"]]:
        code, out, err = verify(traild_bin, env, *arguments)
        assert code == 2 and out == "", f"{arguments}: {out}{err}"
