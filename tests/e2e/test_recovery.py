"""What deploy/README.md tells operators to do with a data_dir: move it, keep what cannot be made again, go on after the disk is lost."""

import shutil

import pytest

import events
import logfiles
from harness import BUCKET, TEST_CREDENTIALS, WHOLE_ORGANIZATION, delivering_to, ensure_bucket, merged, run_cli, wait_until


@pytest.fixture
def bucket(make_daemon):
    """A store that outlives the daemon under test: another daemon's, whose own trail writes elsewhere."""
    store = make_daemon("store", config={"trails": [WHOLE_ORGANIZATION | {"s3_bucket_name": "own-logs"}]}, buckets=("own-logs",)).start()
    ensure_bucket(store.s3(), BUCKET)
    return store


@pytest.fixture
def daemon(make_daemon, bucket):
    """One that writes a digest a minute to that bucket, and is stopped by the tests."""
    config = merged(delivering_to(bucket.store_endpoint), {"trails": [WHOLE_ORGANIZATION | {"name": "audit"}]})
    return make_daemon(config=config, env=TEST_CREDENTIALS).start()


def verify(daemon, bucket, *arguments):
    where = {"AWS_ENDPOINT_URL_CLOUDTRAIL": daemon.api_endpoint, "AWS_ENDPOINT_URL_S3": bucket.store_endpoint, "AWS_REGION": "us-east-1"}
    code, out, err = run_cli(daemon.binary, "verify", "--bucket", BUCKET, *arguments, env=where | TEST_CREDENTIALS)
    return code, out + err


def test_a_data_dir_that_is_moved_goes_on_where_it_was(daemon, bucket, rng, tmp_path):
    before, open_ = events.spread(rng, 40), events.spread(rng, 40)
    daemon.send(before)
    daemon.drain()
    daemon.send(open_)
    daemon.stop()
    moved = tmp_path / "another" / "place"
    shutil.copytree(daemon.data_dir, moved)
    shutil.rmtree(daemon.data_dir)
    code, out, err = run_cli(daemon.binary, "wal", "check", "--data-dir", moved)
    assert code == 0, out + err
    daemon.write_config(daemon.config | {"data_dir": str(moved)})
    daemon.start()
    assert daemon.post(b"\n".join(before))[2]["duplicates"] == len(before), "what was sent before is known"
    daemon.drain()
    logfiles.check(logfiles.read(bucket.s3(), BUCKET), before + open_)


def test_after_a_lost_disk_the_kept_keys_still_verify_what_was_delivered(daemon, bucket, rng, tmp_path):
    before, after = events.spread(rng, 40), events.spread(rng, 40)
    daemon.send(before)
    daemon.drain()
    wait_until(lambda: verify(daemon, bucket)[0] == 0, 20, "the first digests")
    shutil.copytree(daemon.data_dir / "keys", tmp_path / "keys")  # while it runs
    daemon.kill()
    shutil.rmtree(daemon.data_dir)

    daemon.data_dir.mkdir(mode=0o700)
    shutil.copytree(tmp_path / "keys", daemon.data_dir / "keys")
    daemon.start()
    daemon.answered = 0
    daemon.send(after)
    daemon.drain()
    logfiles.check(logfiles.read(bucket.s3(), BUCKET), before + after)
    code, out = verify(daemon, bucket)
    assert code == 0 and "INVALID" not in out, out
    (tmp_path / "none.json").write_text('{"PublicKeyList": []}')
    code, out = verify(daemon, bucket, "--public-keys", tmp_path / "none.json")
    assert code == 1 and "public key not found" in out, "as it would be without the kept keys"
