"""What goes wrong at the keyboard is said plainly: what was attempted, on what, and with the right exit code."""

import gzip
import json
import os
import socket

import pytest

import events
import logfiles
from harness import (
    BUCKET,
    TEST_CREDENTIALS,
    WHOLE_ORGANIZATION,
    delivering_to,
    ensure_bucket,
    free_port,
    run_cli,
    s3_client,
    wait_until,
)

CONFIGURATION = 78


def test_every_mistake_of_a_configuration_is_listed_at_once(traild_bin, tmp_path):
    path = tmp_path / "traild.toml"
    path.write_text(
        """
account_id = "12345"
region = "us-east-1"
surprise = 1
[delivery]
max_age = "soon"
gzip_level = 99
[ingest]
on_full = "shrug"
[[trails]]
name = "main"
"""
    )
    code, out, err = run_cli(traild_bin, "validate", "--offline", "--config", path, cwd=tmp_path)
    said = out + err
    assert code == CONFIGURATION, said
    for mistake in ["account_id", "12345", "surprise", "max_age", "soon", "gzip_level", "99", "on_full", "shrug", "s3_bucket_name"]:
        assert mistake in said, f"{mistake} is missing in:\n{said}"
    assert "panicked" not in said

    code, out, err = run_cli(traild_bin, "run", "--config", path, cwd=tmp_path)
    assert code == CONFIGURATION and "surprise" in out + err


def test_a_good_configuration_validates(traild_bin, make_daemon):
    code, out, err = run_cli(traild_bin, "validate", "--offline", "--config", make_daemon().config_file)
    assert code == 0, out + err


def test_a_missing_or_unreadable_configuration_is_named(traild_bin, tmp_path):
    code, out, err = run_cli(traild_bin, "run", "--config", tmp_path / "nowhere.toml", cwd=tmp_path)
    assert code == CONFIGURATION and "nowhere.toml" in out + err
    (tmp_path / "broken.toml").write_text("account_id = \n")
    code, out, err = run_cli(traild_bin, "run", "--config", tmp_path / "broken.toml", cwd=tmp_path)
    assert code == CONFIGURATION and "broken.toml" in out + err


def test_a_variable_and_an_override_are_taken_from_the_environment(make_daemon, rng):
    port = free_port()
    daemon = make_daemon(config={"region": "${E2E_REGION}"}, env={"E2E_REGION": "eu-central-1", "TRAILD__LISTEN__API": f"127.0.0.1:{port}"})
    daemon.api_port = port
    daemon.start()
    event = events.make(rng)
    event = event.replace(b'"awsRegion":"us-east-1",', b"")
    daemon.send([event])
    daemon.drain()
    [file] = logfiles.read(daemon.s3(), BUCKET)
    assert file.parts["region"] == "eu-central-1"


def test_a_port_that_is_taken_is_named(make_daemon):
    daemon = make_daemon()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", daemon.api_port))
        holder.listen()
        daemon.spawn()
        assert daemon.process.wait(timeout=10) not in (0, 101)
    said = daemon.log.read_text()
    assert str(daemon.api_port) in said and "panicked" not in said, said


def test_a_data_dir_that_cannot_be_written_is_named(make_daemon, tmp_path):
    """Run as nobody, since root may write anywhere."""

    def as_nobody():
        os.setgid(65534)
        os.setuid(65534)

    daemon = make_daemon(prepare=as_nobody if os.getuid() == 0 else None)
    for folder in [tmp_path, *tmp_path.parents[:3]]:
        if folder.stat().st_uid == os.getuid() and folder != folder.parent:
            os.chmod(folder, folder.stat().st_mode | 0o055)
    daemon.data_dir.mkdir()
    os.chmod(daemon.data_dir, 0o555)
    daemon.spawn()
    assert daemon.process.wait(timeout=10) not in (0, 101)
    said = daemon.log.read_text()
    assert str(daemon.data_dir) in said and "ermission denied" in said and "panicked" not in said, said


@pytest.mark.campaign("two-daemons", trials=1)
def test_a_second_daemon_on_one_data_dir_is_refused_and_told_of_the_first(daemon, make_daemon, campaign):
    second = make_daemon("second", config={"data_dir": str(daemon.data_dir)})
    second.spawn()
    assert second.process.wait(timeout=10) not in (0, 101)
    said = second.log.read_text()
    assert str(daemon.process.pid) in said and str(daemon.data_dir) in said, said
    assert daemon.is_ready()
    campaign.count(1)


def test_a_trail_whose_bucket_is_missing_is_reported_and_delivers_once_it_is_made(make_daemon, traild_bin, rng, localstack):
    bucket = f"late-{rng.getrandbits(40):x}"
    trail = WHOLE_ORGANIZATION | {"s3_bucket_name": bucket}
    daemon = make_daemon(config=delivering_to(localstack) | {"trails": [trail]}, env=TEST_CREDENTIALS)
    daemon.start()
    sent = events.make_many(rng, 3)
    daemon.send(sent)

    def status():
        code, out, err = run_cli(traild_bin, "status", "--json", "--endpoint", f"http://127.0.0.1:{daemon.api_port}")
        assert code == 0, err
        return out if "NoSuchBucket" in out else None

    said = wait_until(status, 20, "the status to name the missing bucket")
    assert json.loads(said)
    assert bucket in daemon.log.read_text()
    s3 = s3_client(localstack)
    ensure_bucket(s3, bucket)
    daemon.drain(90)
    logfiles.check(logfiles.read(s3, bucket), sent)


def test_usage_errors_exit_with_2_and_help_with_0(traild_bin, tmp_path):
    assert run_cli(traild_bin, "--no-such-flag", cwd=tmp_path)[0] == 2
    for arguments in (["--help"], ["run", "--help"], ["completions", "bash"], ["man"], ["--version"]):
        code, out, _ = run_cli(traild_bin, *arguments, cwd=tmp_path)
        assert code == 0 and out, arguments


def test_send_reads_files_and_standard_input(daemon, traild_bin, tmp_path, rng):
    parts = [events.make_many(rng, 7) for _ in range(4)]
    (tmp_path / "a.ndjson").write_bytes(b"\n".join(parts[0]) + b"\n")
    (tmp_path / "b.json").write_bytes(b"[" + b",".join(parts[1]) + b"]")
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(b'{"Records":[' + b",".join(parts[2]) + b"]}"))
    endpoint = ["--endpoint", f"http://127.0.0.1:{daemon.api_port}"]
    files = [tmp_path / name for name in ("a.ndjson", "b.json", "c.json.gz")]
    code, out, err = run_cli(traild_bin, "send", *endpoint, *files)
    assert code == 0, out + err
    code, out, err = run_cli(traild_bin, "send", *endpoint, "-", input=b"\n".join(parts[3]))
    assert code == 0, out + err
    code, out, err = run_cli(traild_bin, "send", *endpoint, tmp_path / "missing")
    assert code == 1 and "missing" in err
    daemon.drain()
    logfiles.check(logfiles.read(daemon.s3(), BUCKET), sum(parts, []))


def test_the_journal_can_be_looked_into_offline(daemon, traild_bin, rng):
    daemon.send(events.make_many(rng, 5))
    daemon.kill()
    for command in ("inspect", "check"):
        code, out, err = run_cli(traild_bin, "wal", command, "--data-dir", daemon.data_dir)
        assert code == 0 and out + err, (command, out, err)
