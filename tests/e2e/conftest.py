"""Fixtures shared by the end-to-end tests: where the binary is, a daemon per test, a real S3 to deliver to."""

import os
import random
import subprocess
from pathlib import Path

import pytest

import wall_clock as wall_clocks
from fake_aws import FakeAws
from harness import TEST_CREDENTIALS, Daemon, calling, merged

ROOT = Path(__file__).resolve().parents[2]


def pytest_addoption(parser):
    parser.addoption("--crash-rounds", type=int, default=30, help="how often the crash test kills the daemon")
    parser.addoption("--fault-rounds", type=int, default=200, help="how many faults the S3 fault test fires at least")
    parser.addoption("--fanout-faults", type=int, default=120, help="how many faults the storm over SNS, Logs and EventBridge fires at least")
    parser.addoption("--seed", type=int, default=None, help="repeats a run's random choices")


@pytest.fixture(scope="session")
def traild_bin():
    path = Path(os.environ.get("TRAILD_BIN", ROOT / "target" / "release" / "traild"))
    assert path.is_file(), f"{path} is not there: build it (cargo build --release) or set TRAILD_BIN"
    return str(path.resolve())


@pytest.fixture
def seed(request):
    """Printed by pytest when the test fails, so that the same choices can be made again with --seed."""
    seed = request.config.getoption("--seed")
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    print(f"seed {seed}")
    return seed


@pytest.fixture
def rng(seed):
    return random.Random(seed)


@pytest.fixture
def make_daemon(traild_bin, tmp_path):
    """Makes daemons with folders of their own under the test's folder; all are killed when the test ends."""
    made = []

    def make(name="traild", **options):
        daemon = Daemon(traild_bin, tmp_path / name, **options)
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.kill()
        print(daemon.log_tail())


@pytest.fixture
def daemon(make_daemon):
    """A ready daemon on the embedded store, with one trail for every account and region."""
    daemon = make_daemon()
    daemon.start()
    return daemon


@pytest.fixture
def aws(seed):
    """SNS, CloudWatch Logs, EventBridge and STS; whoever broke one of AWS's rules is told when the test ends."""
    with FakeAws(seed=seed) as fake:
        yield fake
        fake.check()


@pytest.fixture
def make_sender(make_daemon, aws):
    """Makes daemons whose trails send on to `aws`."""

    def make(trails, name="traild", config=None, env=TEST_CREDENTIALS, **options):
        buckets = {trail["s3_bucket_name"] for trail in trails}
        config = merged(calling(aws.endpoint) | {"trails": trails}, config or {})
        return make_daemon(name, config=config, env=env, buckets=buckets, **options)

    return make


@pytest.fixture(scope="session")
def wall_clock_library(tmp_path_factory):
    return wall_clocks.build(tmp_path_factory.mktemp("wall-clock"))


@pytest.fixture
def wall_clock(wall_clock_library, tmp_path):
    return wall_clocks.WallClock(wall_clock_library, tmp_path)


@pytest.fixture(scope="session")
def localstack():
    """The endpoint of a running LocalStack; one that was not running before is stopped afterwards."""
    was_running = os.environ.get("TRAILD_LOCALSTACK")
    if was_running:
        yield was_running
        return
    up = subprocess.run([ROOT / "localstack" / "up"], check=True, stdout=subprocess.PIPE, text=True)
    yield up.stdout.strip()
    subprocess.run([ROOT / "localstack" / "down"], check=True)


@pytest.fixture
def report(request):
    """Says a line even when the test passes: how often the fault really fired is part of the result."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(line):
        with capture.global_and_fixture_disabled():
            print(f"\n    {line}")

    return say
