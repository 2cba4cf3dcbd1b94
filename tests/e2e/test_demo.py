"""The first command of the README keeps its word: events go in, CloudTrail log files come out, and the AWS CLI reads them."""

import json
import re
import signal
import subprocess
import threading

import events
import logfiles
from harness import clean_env, free_port, run_cli, wait_until


def demo_env():
    """The embedded default, on ports that are surely free."""
    ports = {"LISTEN__API": free_port(), "LISTEN__OPS": free_port(), "STORAGE__LISTEN": free_port()}
    return {f"TRAILD__{key}": f"127.0.0.1:{port}" for key, port in ports.items()}


def files_of(make_daemon, data_dir):
    """The demo's log files, read over S3 from a daemon started on what the demo left behind."""
    daemon = make_daemon("after", config={"data_dir": str(data_dir)}, buckets=())
    daemon.start()
    s3 = daemon.s3()
    buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    return [file for bucket in buckets for file in logfiles.read(s3, bucket)]


def test_once_ends_well_with_each_event_in_exactly_one_object(traild_bin, make_daemon, tmp_path):
    code, out, err = run_cli(traild_bin, "demo", "--once", "--data-dir", tmp_path / "demo", env=demo_env(), cwd=tmp_path)
    assert code == 0, f"{out}\n{err}"
    ids = [value["eventID"] for file in files_of(make_daemon, tmp_path / "demo") for _, value in file.records]
    assert len(ids) == len(set(ids)) >= 200
    assert "aws" in out + err


def test_once_delivers_the_events_it_is_given(traild_bin, make_daemon, tmp_path, rng):
    sent = events.make_many(rng, 50)
    (tmp_path / "mine.ndjson").write_bytes(b"\n".join(sent) + b"\n")
    arguments = ["demo", "--once", "--data-dir", tmp_path / "demo", "--events", tmp_path / "mine.ndjson"]
    code, out, err = run_cli(traild_bin, *arguments, env=demo_env(), cwd=tmp_path)
    assert code == 0, f"{out}\n{err}"
    ids = [value["eventID"] for file in files_of(make_daemon, tmp_path / "demo") for _, value in file.records]
    assert sorted(ids) == sorted(map(events.event_id, sent))


def test_the_printed_command_reads_a_delivered_file(traild_bin, tmp_path):
    demo = subprocess.Popen(
        [traild_bin, "demo", "--data-dir", tmp_path / "demo"],
        cwd=tmp_path,
        env=clean_env() | demo_env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(demo.stdout), daemon=True)
    reader.start()
    try:
        command = wait_until(lambda: printed_command(lines) or demo.poll() is not None, 60, "the demo to print its command")
        assert command is not True, "the demo ended:\n" + "".join(lines)
        shown = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=clean_env(), capture_output=True, timeout=60)
        assert shown.returncode == 0, f"{command}\n{shown.stderr.decode()}"
        assert json.loads(shown.stdout)["Records"], f"{command}\n{shown.stdout[:300]}"
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=10) == 0
    finally:
        demo.kill()
        demo.wait()


def printed_command(lines):
    """The printed `aws … s3 cp … - | gunzip`, with the `export` lines printed before it."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", "".join(lines))
    commands = [line.strip() for line in text.splitlines()]
    exports = [command for command in commands if command.startswith("export ")]
    copies = [command for command in commands if "s3 cp" in command and "gunzip" in command]
    return "\n".join([*exports, copies[0]]) if copies else None
