"""`traild verify` and the unmodified AWS CLI on one signed chain, whole and spoiled: what the AWS CLI finds, traild finds, and more."""

import base64
import copy
import gzip
import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness import TEST_CREDENTIALS, clean_env, ensure_bucket, run_cli

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "digest" / "chain.json"
CHAIN = json.loads(GOLDEN.read_text())
BUCKET = CHAIN["bucket"]
START, END = "2026-05-01T00:00:00Z", "2026-05-01T04:00:00Z"
DIGESTS = [o["key"] for o in CHAIN["objects"] if "CloudTrail-Digest" in o["key"]]
LOGS = [o["key"] for o in CHAIN["objects"] if "CloudTrail-Digest" not in o["key"]]

KEYS = {
    "PublicKeyList": [
        {
            "Value": CHAIN["public_key_pkcs1_der_b64"],
            "ValidityStartTime": 1777000000.0,
            "ValidityEndTime": 1779592000.0,
            "Fingerprint": CHAIN["fingerprint_md5_hex"],
        }
    ]
}


class CloudTrail(http.server.BaseHTTPRequestHandler):
    """Answers ListPublicKeys, which is all that a validator of a given bucket asks."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers["X-Amz-Target"].endswith(".ListPublicKeys")
        body = json.dumps(KEYS if known else {"__type": "UnknownOperationException"}).encode()
        self.send_response(200 if known else 400)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def cloudtrail():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), CloudTrail)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Bucket:
    """The objects of the chain: key → (bytes, metadata). Tests spoil them before they are stored."""

    def __init__(self):
        self.objects = {}
        for o in CHAIN["objects"]:
            metadata = {k.removeprefix("x-amz-meta-"): v for k, v in o["headers"].items() if k.startswith("x-amz-meta-")}
            self.objects[o["key"]] = (base64.b64decode(o["gzip_b64"]), metadata)

    def edit(self, key, old, new):
        packed, metadata = self.objects[key]
        text = gzip.decompress(packed).decode()
        assert old in text
        self.objects[key] = (gzip.compress(text.replace(old, new, 1).encode()), metadata)

    def swap(self, one, other):
        self.objects[one], self.objects[other] = self.objects[other], self.objects[one]

    def cut(self, key):
        packed, metadata = self.objects[key]
        self.objects[key] = (packed[: len(packed) // 2], metadata)

    def append(self, key, plain):
        packed, metadata = self.objects[key]
        self.objects[key] = (packed + gzip.compress(plain), metadata)

    def without_metadata(self, key):
        self.objects[key] = (self.objects[key][0], {})

    def forge_signature(self, key):
        packed, metadata = self.objects[key]
        signature = metadata["signature"]
        self.objects[key] = (packed, metadata | {"signature": ("0" if signature[0] != "0" else "1") + signature[1:]})


def slip_in(bucket):
    day = LOGS[0].rsplit("/", 1)[0]
    bucket.objects[f"{day}/111122223333_CloudTrail_eu-west-1_20260501T0020Z_AAAAAAAAAAAAAAAA.json.gz"] = (gzip.compress(b'{"Records":[]}'), {})


def delete_the_newest(bucket):
    for key in DIGESTS[1:]:
        del bucket.objects[key]


def move_log(bucket):
    bucket.objects[LOGS[0].replace("/2026/05/01/", "/2026/05/02/")] = bucket.objects.pop(LOGS[0])


def move_digest(bucket):
    bucket.objects[DIGESTS[2]] = bucket.objects[DIGESTS[1]]


#: What is done, what the AWS CLI says (nothing: it is content), what traild says.
TAMPERINGS = {
    "a log file is edited": (lambda b: b.edit(LOGS[0], "a", "b"), "hash value doesn't match", "hash value doesn't match"),
    "a log file is deleted": (lambda b: b.objects.pop(LOGS[0]), "INVALID: not found", "INVALID: not found"),
    "a log file is moved": (move_log, "INVALID: not found", "INVALID: not found"),
    "log files are swapped": (lambda b: b.swap(*LOGS), "hash value doesn't match", "hash value doesn't match"),
    "a log file is cut short": (lambda b: b.cut(LOGS[0]), "INVALID", "INVALID: invalid format"),
    "a log file has a second gzip member": (lambda b: b.append(LOGS[0], b"{}"), "unexpected data after end of compressed stream", "hash value doesn't match"),
    "a log file is slipped in": (slip_in, None, "is in no digest file"),
    "a digest is edited": (lambda b: b.edit(DIGESTS[1], LOGS[0], LOGS[1]), "signature verification failed", "signature verification failed"),
    "a digest is deleted": (lambda b: b.objects.pop(DIGESTS[1]), "INVALID: not found", "INVALID: not found"),
    "a digest is moved": (move_digest, "has been moved from its original location", "has been moved from its original location"),
    "digests are swapped": (lambda b: b.swap(DIGESTS[1], DIGESTS[2]), "has been moved", "has been moved"),
    "a digest is cut short": (lambda b: b.cut(DIGESTS[1]), "INVALID: invalid format", "INVALID: invalid format"),
    "a digest has lost its metadata": (lambda b: b.without_metadata(DIGESTS[1]), "signature verification failed", "signature verification failed"),
    "a digest is signed by somebody else": (lambda b: b.forge_signature(DIGESTS[1]), "signature verification failed", "signature verification failed"),
    "the newest digests are deleted": (delete_the_newest, None, "the newest digest file ends at"),
}


@pytest.fixture
def store(make_daemon):
    daemon = make_daemon(buckets=(BUCKET,))
    daemon.start()
    ensure_bucket(daemon.s3(), BUCKET)
    return daemon


def put(s3, bucket):
    listed = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    for key in {o["Key"] for o in listed} - set(bucket.objects):
        s3.delete_object(Bucket=BUCKET, Key=key)
    for key, (body, metadata) in bucket.objects.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=body, Metadata=metadata)


def environment(store, cloudtrail):
    return TEST_CREDENTIALS | {
        "AWS_ENDPOINT_URL_S3": store.store_endpoint,
        "AWS_ENDPOINT_URL_CLOUDTRAIL": cloudtrail,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
    }


def aws_cli(env):
    """What `aws cloudtrail validate-logs` says: (exit code, output)."""
    aws = Path(sys.executable).parent / "aws"
    arguments = ["--region", "eu-west-1", "--trail-arn", CHAIN["trail_arn"], "--s3-bucket", BUCKET, "--start-time", START, "--end-time", END]
    done = subprocess.run([str(aws), "cloudtrail", "validate-logs", *arguments], env=clean_env() | env, capture_output=True, timeout=120)
    return done.returncode, (done.stdout + done.stderr).decode()


def verify(traild_bin, env, *arguments):
    code, out, err = run_cli(traild_bin, "verify", "--bucket", BUCKET, "--end", END, *arguments, env=env)
    assert "panicked" not in err
    return code, out, err


def test_every_tampering_is_found_also_those_that_the_aws_cli_misses(traild_bin, store, cloudtrail):
    env = environment(store, cloudtrail)
    s3 = store.s3()
    whole = Bucket()
    put(s3, whole)
    code, said = aws_cli(env)
    assert code == 0 and "4/4 digest files valid" in said and "2/2 log files valid" in said, said
    code, out, err = verify(traild_bin, env)
    assert code == 0 and "4/4 digest files valid\n2/2 log files valid" in out, out + err

    rows = []
    for what, (spoil, by_aws, by_traild) in TAMPERINGS.items():
        bucket = copy.deepcopy(whole)
        spoil(bucket)
        put(s3, bucket)
        aws_code, said = aws_cli(env)
        code, out, err = verify(traild_bin, env, "--json")
        answer = json.loads(out)
        found = [finding["message"] if finding["code"] == "Stale" else f"INVALID: {finding['message']}" for finding in answer["findings"]]
        assert (aws_code != 0) == (by_aws is not None), f"{what}: {said}"
        assert by_aws is None or by_aws in said, f"{what}: {said}"
        assert code == 1 and answer["verified"] is False and answer["error"] is None, f"{what}: {out}{err}"
        assert any(by_traild in message for message in found), f"{what}: {found}"
        rows.append(f"| {what} | {by_aws or 'nothing, exit 0'} | {'; '.join(sorted(set(found)))} |")
    print("\n".join(["| what is done | AWS CLI | traild verify |", "|---|---|---|", *rows]))


def test_a_chain_is_verified_offline_from_a_copy_and_exported_keys(traild_bin, tmp_path):
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(KEYS))
    bucket = Bucket()
    for key, (body, _) in bucket.objects.items():
        path = tmp_path / "copy" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    # Nothing is asked: nobody answers here.
    env = TEST_CREDENTIALS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_REGION": "us-east-1"}
    offline = ["--dir", tmp_path / "copy", "--public-keys", keys]
    code, out, err = verify(traild_bin, env, *offline)
    assert code == 1 and "its signature was not checked" in out and "head-object" in err, out + err
    newest = DIGESTS[-1]
    (tmp_path / "copy" / f"{newest}.metadata.json").write_text(json.dumps({"Metadata": bucket.objects[newest][1]}))
    code, out, err = verify(traild_bin, env, *offline)
    assert code == 0 and "4/4 digest files valid\n2/2 log files valid" in out, out + err


def test_what_cannot_be_read_is_not_called_valid(traild_bin, store, cloudtrail):
    env = environment(store, cloudtrail)
    code, out, err = run_cli(traild_bin, "verify", "--bucket", "nobodys-bucket", env=env)
    assert code == 1 and out == "" and "nobodys-bucket" in err, out + err
    code, out, err = verify(traild_bin, env)
    assert code == 1 and "No digests found" in err, out + err
    put(store.s3(), Bucket())
    nobody = env | {"AWS_ENDPOINT_URL_CLOUDTRAIL": "http://127.0.0.1:9"}
    code, out, err = verify(traild_bin, nobody)
    assert code == 1 and out == "" and "could not verify" in err and "public keys" in err, out + err
    code, out, err = verify(traild_bin, nobody, "--json")
    answer = json.loads(out)
    assert code == 1 and answer["verified"] is False and "public keys" in answer["error"]
    for arguments in [["--account", "1"], ["--start", "soon"], ["--start", "2026-06-01"], ["--readers", "0"]]:
        code, out, err = verify(traild_bin, env, *arguments)
        assert code == 2 and out == "", f"{arguments}: {out}{err}"
