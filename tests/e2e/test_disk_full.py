"""A full disk answers 503 with Retry-After, drops nothing accepted, and is over when there is space: no restart needed.

The data_dir lies on a tmpfs of 48 MiB, which needs the right to mount; without it the test fails and says so.
"""

import errno
import os
import subprocess

import pytest

import events
import logfiles
from harness import BUCKET, TEST_CREDENTIALS, Client, delivering_to, ensure_bucket, wait_until

SIZE = 48 * 2**20


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.fail(f"cannot mount a tmpfs to fill up, so the full disk is not tested: {mounted.stderr}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(path, leave):
    """Another program takes the disk, but for `leave` bytes."""
    free = os.statvfs(path.parent)
    with open(path, "wb", buffering=0) as file:
        left = free.f_bavail * free.f_frsize - leave
        while left > 0:
            try:
                left -= file.write(b"\0" * min(left, 2**20))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                return  # the daemon has taken some of it meanwhile


@pytest.mark.campaign("disk-full", trials=1)
@pytest.mark.parametrize("leave", [0, 200_000, 3_000_000])
def test_a_full_disk_refuses_and_then_recovers_by_itself(make_daemon, small_disk, rng, leave, campaign):
    daemon = make_daemon(config={"data_dir": str(small_disk / "data"), "journal": {"segment_bytes": "1MiB", "max_bytes": "1GiB"}})
    daemon.start()
    accepted, refused = [], []
    first = events.make_many(rng, 10)
    daemon.send(first)
    accepted += first
    fill(small_disk / "ballast", leave)
    with Client(daemon.api_port) as client:
        for _ in range(200):
            batch = events.make_many(rng, 20, size=4000)
            status, headers, answer = client.post(b"\n".join(batch))
            if status == 200:
                accepted += batch
                continue
            assert status == 503 and int(headers["Retry-After"]) > 0, (status, answer)
            refused += batch
            if len(refused) >= 200:
                break
    assert refused, "the disk never filled up"
    assert daemon.running() and daemon.ops("/livez")[0] == 200
    (small_disk / "ballast").unlink()

    def accepts_again():
        batch = events.make_many(rng, 20)
        status, _, _ = daemon.post(b"\n".join(batch))
        (accepted if status == 200 else refused).extend(batch)
        return status == 200

    wait_until(accepts_again, 20, "events to be accepted again")
    daemon.drain(60)
    logfiles.check(logfiles.read(daemon.s3(), BUCKET), accepted, refused)
    daemon.kill()
    daemon.start()
    daemon.drain(60)
    logfiles.check(logfiles.read(daemon.s3(), BUCKET), accepted, refused)
    campaign.count(1)


def test_a_full_journal_refuses_until_delivery_frees_it(make_daemon, rng):
    """`journal.max_bytes`, with deliveries that cannot go anywhere: the bucket is not there yet."""
    store = make_daemon("store", config={"trails": []}, buckets=()).start()
    config = delivering_to(store.store_endpoint) | {"journal": {"segment_bytes": "256KiB", "max_bytes": "2MiB"}}
    daemon = make_daemon(config=config, env=TEST_CREDENTIALS).start()
    accepted, status, headers = [], 200, {}
    while status == 200:
        batch = events.make_many(rng, 50)
        status, headers, _ = daemon.post(b"\n".join(batch))
        accepted += batch if status == 200 else []
        assert len(accepted) < 10_000, "the journal took more than it may"
    assert status == 503 and int(headers["Retry-After"]) > 0
    assert daemon.metrics().total("traild_journal_bytes") <= 2 * 2**20
    ensure_bucket(store.s3(), BUCKET)
    wait_until(lambda: daemon.post(events.make(rng, eventName="Probe"))[0] == 200, 90, "space in the journal")
    daemon.drain(60)
    files = logfiles.read(store.s3(), BUCKET)
    probes = [stored for file in files for stored, value in file.records if value["eventName"] == "Probe"]
    logfiles.check(files, accepted, probes)
