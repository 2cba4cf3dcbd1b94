"""DuckDB reads the log files by the commands that the READMEs print, as they are printed: so the ports are those of a daemon without a
configuration, and nobody else may have them.
"""

import re
import subprocess
from pathlib import Path

import duckdb
import duckdb_extension_httpfs
import pytest

import events
from harness import WHOLE_ORGANIZATION, clean_env

ROOT = Path(__file__).resolve().parents[2]
READMES = [ROOT / "README.md", ROOT / "deploy" / "consumers" / "README.md"]
DEFAULT_TRAIL = WHOLE_ORGANIZATION | {"name": "MyTrail", "s3_bucket_name": "my-trail-logs", "is_organization_trail": False}


@pytest.fixture
def duckdb_home(tmp_path):
    """A home where DuckDB finds its extension httpfs, which it otherwise downloads when it is first asked for s3://."""
    [extension] = Path(duckdb_extension_httpfs.__file__).parent.rglob("httpfs.duckdb_extension")
    [[platform]] = duckdb.sql("PRAGMA platform").fetchall()
    folder = tmp_path / "home" / ".duckdb" / "extensions" / extension.parent.name / platform
    folder.mkdir(parents=True)
    (folder / extension.name).symlink_to(extension)
    return tmp_path / "home"


@pytest.fixture
def default_daemon(make_daemon):
    """One that is reached where one without a configuration is."""
    listen = {"listen": {"api": "127.0.0.1:4580", "ops": "127.0.0.1:4581"}, "storage": {"kind": "embedded", "listen": "127.0.0.1:4582"}}
    daemon = make_daemon(config=listen | {"trails": [DEFAULT_TRAIL]}, buckets=["my-trail-logs"])
    daemon.api_port, daemon.ops_port, daemon.store_port = 4580, 4581, 4582
    return daemon.start()


def printed(command):
    """The blocks of shell in the READMEs that have the command."""
    blocks = [block for readme in READMES for block in re.findall(r"^```sh\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)]
    return [block for block in blocks if command in block]


def test_duckdb_reads_the_bucket_as_the_readmes_say(default_daemon, duckdb_home, rng, tmp_path):
    wanted = {"CancelOrder": 7, "RefundOrder": 5, "CreateUser": 3}
    for name, times in wanted.items():
        default_daemon.send(events.make_many(rng, times, eventName=name, eventSource="orders.example.com", readOnly=False))
    default_daemon.drain()
    commands = printed("duckdb -c")
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(
            ["bash", "-euc", command], cwd=tmp_path, env=clean_env() | {"HOME": str(duckdb_home)}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        found = re.findall(r"│ orders\.example\.com +│ (\w+) +│ +(\d+) │", done.stdout)
        assert {name: int(times) for name, times in found} == wanted, f"{command}\n{done.stdout}"
