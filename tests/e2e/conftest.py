"""Fixtures shared by the end-to-end tests: where the binary is, a daemon per test, a real S3 to deliver to."""

import json
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
    parser.addoption("--trials", type=int, default=None, help="how many faults each test of the campaign makes, instead of its own few")
    parser.addoption("--seed", type=int, default=None, help="repeats a run's random choices")


def pytest_configure(config):
    config.addinivalue_line("markers", "campaign(row, trials): makes faults of this row of tests/campaign, so many if nothing else is asked for")


class Campaign:
    """How many trials a test is to make, and where it says how many there were: the tally that `TRAILD_TALLY` names."""

    def __init__(self, row, trials):
        self.row, self.trials = row, trials

    def count(self, trials, fired=None):
        """So many independent trials went well, in which so many faults really happened."""
        if tally := os.environ.get("TRAILD_TALLY"):
            with open(tally, "a") as file:
                counted = {"row": self.row, "how": "real", "trials": trials, "fired": trials if fired is None else fired}
                file.write(json.dumps(counted) + "\n")


@pytest.fixture
def campaign(request):
    marker = request.node.get_closest_marker("campaign")
    return Campaign(marker.args[0], request.config.getoption("--trials") or marker.kwargs["trials"])


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
