"""The Debian package and its systemd unit: installed on a machine of its own under a real systemd, or, where that is not to be had, the unit's own command lines."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import machine as machines
from conftest import ROOT
from harness import clean_env, free_port, wait_until

UNIT = ROOT / "deploy/systemd/traild.service"
CONFIG = "/etc/traild/traild.toml"
EVENT = {"eventTime": "2026-05-01T00:19:01Z", "eventSource": "orders.example.com", "eventName": "CancelOrder"}
SOCKET = "unix:/run/traild/traild.sock"
NOBODY = 65534
SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"

SIGNED = """
[auth]
mode = "sigv4"
[[auth.credentials]]
access_key_id          = "AKIDEXAMPLE"
secret_access_key_file = "${CREDENTIALS_DIRECTORY}/traild_app"
"""


def build_package(traild_bin, folder):
    command = [ROOT / "deploy/deb/build", "--binary", traild_bin, "--out", folder, "--level", "0"]
    built = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"SOURCE_DATE_EPOCH": "1780000000"})
    return Path(built.stdout.strip())


def later_revision(package, folder):
    """The same package, of the revision after it."""
    tree = folder / "later"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("Version: 0.1.0-1\n", "Version: 0.1.0-2\n"))
    later = folder / "traild_0.1.0-2.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-z0", "--build", tree, later], check=True, stdout=subprocess.DEVNULL)
    return later


@pytest.fixture(scope="module")
def package(traild_bin, tmp_path_factory):
    if not shutil.which("dpkg-deb"):
        pytest.skip("NOT CHECKED: the Debian package, because dpkg-deb is not on this machine")
    return build_package(traild_bin, tmp_path_factory.mktemp("package"))


@pytest.fixture
def machine(tmp_path):
    if why := machines.why_not():
        pytest.skip(f"NOT CHECKED: the package under systemd, because {why}")
    machine = machines.Machine(tmp_path)
    try:
        yield machine.wait_booted()
    finally:
        if machine.inside():
            print(machine.log()[-6000:])
        machine.end()


@pytest.fixture
def installed(machine, package, tmp_path):
    """The machine with the package, and a log file as soon as there are events."""
    set_variables(machine, TRAILD__DELIVERY__MAX_AGE="1s")
    install(machine, package, tmp_path)
    return machine


def install(machine, package, tmp_path):
    shutil.copyfile(package, tmp_path / "traild.deb")
    # What it depends on need not be on this machine in Debian's own form; and neither a new index of all manual pages nor the disk is tested.
    return machine.run("dpkg", "--force-depends,confold,unsafe-io", "--no-triggers", "--install", "/mnt/traild.deb")


def set_variables(machine, **variables):
    lines = "".join(f"{name}={value}\n" for name, value in variables.items())
    machine.run("sh", "-c", "mkdir -p /etc/default; cat >> /etc/default/traild", input=lines)


def append_to_config(machine, text):
    machine.run("sh", "-c", f"cat >> {CONFIG}", input=text)


def send(machine, *before, endpoint=SOCKET, count=1, check=True):
    lines = "\n".join(json.dumps(EVENT | {"eventID": f"{time.monotonic_ns()}-{number}"}) for number in range(count))
    return machine.run(*before, "traild", "send", "--endpoint", endpoint, "-", input=lines, check=check)


def delivered(machine):
    status = json.loads(machine.run("traild", "status", "--endpoint", SOCKET, "--json").stdout)
    return status["trails"][0]["sinks"][0]["delivered"]


def is_active(machine):
    return machine.property("ActiveState") == "active"


def test_the_unit_exposes_little(report):
    """systemd's own judgement, from 0 for nothing to 10 for everything."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("NOT CHECKED: what the unit exposes, because systemd-analyze is not on this machine")
    judge = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", UNIT]
    analyze = subprocess.run(judge, capture_output=True, text=True)
    assert analyze.returncode == 0, analyze.stdout + analyze.stderr
    report(re.search("Overall exposure level.*[0-9.]+", analyze.stdout)[0])


def test_the_package_holds_what_it_says(package, traild_bin, tmp_path):
    again = build_package(traild_bin, tmp_path)
    assert again.read_bytes() == package.read_bytes(), "the same binary gave two packages"
    tree = tmp_path / "tree"
    subprocess.run(["dpkg-deb", "--extract", package, tree], check=True)
    manual = subprocess.run(["gzip", "-dc", tree / "usr/share/man/man1/traild.1.gz"], check=True, capture_output=True).stdout
    assert b"TRAILD VALIDATE" in manual
    for completions, marker in {
        "usr/share/bash-completion/completions/traild": "complete -F _traild",
        "usr/share/zsh/vendor-completions/_traild": "#compdef traild",
        "usr/share/fish/vendor_completions.d/traild.fish": "complete -c traild",
    }.items():
        assert marker in (tree / completions).read_text()
    changelog = subprocess.run(["gzip", "-dc", tree / "usr/share/doc/traild/changelog.Debian.gz"], check=True, capture_output=True, text=True).stdout
    assert changelog.startswith("traild (0.1.0-1) unstable; urgency=medium\n\n  * The first release: ")
    fields = subprocess.run(["dpkg-deb", "--field", package], check=True, capture_output=True, text=True).stdout
    assert re.search(r"^Depends: libc6 \(>= 2\.\d+\), libgcc-s1, ca-certificates, ", fields, re.M), fields
    assert subprocess.run([tree / "usr/bin/traild", "validate", "--offline", "--config", tree / CONFIG[1:]], capture_output=True).returncode == 0


@pytest.fixture
def open_folder():
    """A folder that other users may enter, as tmp_path is not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_the_units_command_lines_as_its_user_speak_systemds_protocol(package, open_folder):
    """The unit's ExecStartPre and ExecStart, by an unprivileged user who can read his credentials and write to his folders, and nowhere else."""
    if os.geteuid() != 0:
        pytest.skip("NOT CHECKED: the unit's command line as another user, which takes root")
    tree = open_folder / "tree"
    subprocess.run(["dpkg-deb", "--extract", package, tree], check=True)
    unit = (tree / "usr/lib/systemd/system/traild.service").read_text()
    [validate] = re.findall(r"^ExecStartPre=-(.+)", unit, re.M)
    [run] = re.findall(r"^ExecStart=(.+)", unit, re.M)
    state, runtime, credentials = (open_folder / name for name in ("state", "runtime", "credentials"))
    for folder, mode in ((state, 0o700), (runtime, 0o750), (credentials, 0o500)):
        folder.mkdir()
        if folder == credentials:
            (folder / "traild_app").write_text(SECRET)
            (folder / "traild_app").chmod(0o400)
            os.chown(folder / "traild_app", NOBODY, NOBODY)
        folder.chmod(mode)
        os.chown(folder, NOBODY, NOBODY)
    with open(tree / CONFIG[1:], "a") as config:
        config.write(SIGNED)
    said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    said.bind(str(open_folder / "notify"))
    (open_folder / "notify").chmod(0o777)
    said.settimeout(20)
    api, ops, store = free_port(), free_port(), free_port()
    environment = clean_env() | {
        "NOTIFY_SOCKET": str(open_folder / "notify"),
        "CREDENTIALS_DIRECTORY": str(credentials),
        "TRAILD__DATA_DIR": str(state),
        "TRAILD__LISTEN__API": f"127.0.0.1:{api}",
        "TRAILD__LISTEN__OPS": f"127.0.0.1:{ops}",
        "TRAILD__LISTEN__UNIX": str(runtime / "traild.sock"),
        "TRAILD__STORAGE__LISTEN": f"127.0.0.1:{store}",
        "TRAILD__DELIVERY__STOP_TIMEOUT": "33s",
    }

    def command(line):
        """The unit's line, with what the package has installed below `tree`, as the user."""
        words = [str(tree / word[1:]) if word.startswith(("/usr/", "/etc/")) else word for word in shlex.split(line)]
        return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--bounding-set=-all", *words]

    def next_message():
        return dict(line.split("=", 1) for line in said.recv(4096).decode().splitlines())

    checked = subprocess.run(command(validate), env=environment, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    with open(open_folder / "log", "wb") as log:
        daemon = subprocess.Popen(command(run), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        ready = next_message()
        assert ready["READY"] == "1" and f":{api}" in ready["STATUS"], ready
        daemon.send_signal(signal.SIGHUP)
        before = time.monotonic_ns() // 1000 - 10_000_000
        reloading = next_message()
        assert reloading["RELOADING"] == "1" and int(reloading["MONOTONIC_USEC"]) > before, reloading
        assert next_message()["READY"] == "1", "a configuration that is unchanged"
        (tree / CONFIG[1:]).write_text("colour = 1")
        daemon.send_signal(signal.SIGHUP)
        assert next_message()["RELOADING"] == "1"
        assert next_message()["STATUS"].endswith("; the new configuration is refused")
        daemon.terminate()
        stopping = next_message()
        assert stopping["STOPPING"] == "1" and int(stopping["EXTEND_TIMEOUT_USEC"]) >= 33_000_000, stopping
        assert daemon.wait(10) == 0, (open_folder / "log").read_text()
    finally:
        daemon.kill()
        said.close()
    mistaken = subprocess.run(command(run), env=environment, capture_output=True, text=True)
    assert mistaken.returncode == 78, mistaken.stderr


def test_it_runs_confined_and_takes_events_of_its_group(installed):
    wait_until(lambda: is_active(installed), 20, "the service")
    pid = installed.property("MainPID")
    status = dict(line.split(":\t", 1) for line in installed.run("cat", f"/proc/{pid}/status").stdout.splitlines())
    [uid] = set(status["Uid"].split())
    assert uid == installed.run("id", "-u", "traild").stdout.strip() != "0"
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert {status[each] for each in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    limits = installed.run("cat", f"/proc/{pid}/limits").stdout
    assert re.search(r"Max open files +(\d+) +\1 ", limits) and re.search("Max core file size +0 +0 ", limits), limits

    installed.run("useradd", "--system", "--groups", "traild", "member")
    installed.run("useradd", "--system", "stranger")
    send(installed, "setpriv", "--reuid=member", "--regid=member", "--init-groups", count=50)
    refused = send(installed, "setpriv", "--reuid=stranger", "--regid=stranger", "--init-groups", check=False)
    assert refused.returncode == 1 and "Permission denied" in refused.stderr, refused.stderr
    wait_until(lambda: delivered(installed) == 50, 20, "the events in the bucket")
    assert installed.run("traild", "health", "--ready").stdout == "ok\n"
    log = [json.loads(line) for line in installed.log().splitlines() if line.startswith("{")]
    assert not [line for line in log if line["level"] in ("WARN", "ERROR")], log
    warned = installed.run("systemd-analyze", "verify", "traild.service").stderr.splitlines()
    # The one line that older ones do not know.
    assert not [line for line in warned if "traild" in line and "ignoring: notify-reload" not in line], warned

    installed.run("systemctl", "stop", "traild")
    assert installed.property("Result") == "success"
    assert installed.run("stat", "-c", "%a %U", "/var/lib/private/traild").stdout.split() == ["700", "traild"]


def test_a_secret_is_a_credential_that_the_daemon_alone_is_given(installed):
    append_to_config(installed, SIGNED)
    installed.run("sh", "-c", "umask 077; cat > /etc/traild/credentials/app", input=SECRET)
    installed.run("systemctl", "restart", "traild")
    address = "http://127.0.0.1:4580"
    signing = ["env", "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_EC2_METADATA_DISABLED=true"]
    send(installed, *signing, f"AWS_SECRET_ACCESS_KEY={SECRET}", endpoint=address)
    refused = send(installed, *signing, "AWS_SECRET_ACCESS_KEY=another", endpoint=address, check=False)
    assert refused.returncode == 1 and "InvalidSignatureException" in refused.stderr, refused.stderr
    assert installed.run("stat", "-c", "%a %U", "/etc/traild/credentials").stdout.split() == ["700", "root"]
    assert SECRET not in installed.log()


def test_aws_credentials_come_from_a_file_that_root_alone_can_read(installed):
    """The bucket is another daemon's, which asks for a signature of anybody's."""
    elsewhere = "TRAILD__LISTEN__API=127.0.0.1:24580 TRAILD__LISTEN__OPS=127.0.0.1:24581 TRAILD__STORAGE__LISTEN=127.0.0.1:24582"
    installed.run("sh", "-c", f"cd /tmp && {elsewhere} traild run --config /dev/null >/dev/null 2>&1 &")
    file = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n"
    installed.run("sh", "-c", "umask 077; cat > /etc/traild/credentials/aws", input=file)
    append_to_config(
        installed,
        """
[storage]
kind = "s3"
[aws]
endpoint_url     = "http://127.0.0.1:24582"
force_path_style = true
[[trails]]
name                  = "main"
s3_bucket_name        = "my-trail-logs"
is_multi_region_trail = true
""",
    )
    set_variables(installed, AWS_EC2_METADATA_DISABLED="true")
    installed.run("systemctl", "restart", "traild")
    send(installed)
    wait_until(lambda: "no credentials" in installed.run("traild", "status", "--endpoint", SOCKET).stdout.lower(), 20, "an error without credentials")
    set_variables(installed, AWS_SHARED_CREDENTIALS_FILE="/run/credentials/traild.service/traild_aws")
    installed.run("systemctl", "restart", "traild")
    wait_until(lambda: delivered(installed) == 1, 30, "the event in the bucket")


def test_a_reload_takes_a_good_configuration_and_fails_for_a_bad_one(installed):
    pid = installed.property("MainPID")
    append_to_config(installed, '\n[[trails]]\nname = "second"\ns3_bucket_name = "second-logs"\n')
    installed.run("systemctl", "reload", "traild")
    status = ["traild", "status", "--endpoint", SOCKET]
    wait_until(lambda: "second" in installed.run(*status, check=False).stdout, 10, "the new trail")
    append_to_config(installed, "\ncolour = 1\n")
    assert installed.run("systemctl", "reload", "traild", check=False).returncode != 0
    assert is_active(installed) and installed.property("MainPID") == pid
    send(installed)


def test_the_drop_ins_of_the_guide_give_back_what_they_say(installed):
    """All those of the table in deploy/README.md at once, each used by the daemon."""
    table = (ROOT / "deploy/README.md").read_text().split("| for | drop-in, below `[Service]` |\n|---|---|\n")[1].split("\n\n")[0]
    lines = [line for row in table.splitlines() if "[Unit]" not in row for line in re.findall(r"`(\w+=[^`]*)`", row)]
    assert len(lines) == 6, lines
    drop_in = "\n".join(["[Service]", *lines]) + "\n"
    installed.run("sh", "-c", "mkdir -p /etc/systemd/system/traild.service.d; cat > /etc/systemd/system/traild.service.d/guide.conf", input=drop_in)
    setting_up = """
        mkdir -p /data/traild /home/someone /var/log/app
        chown traild: /data/traild
        echo "$0" > /home/someone/events.ndjson; echo "$0" > /var/log/app/events.ndjson
        chgrp adm /var/log/app/events.ndjson; chmod 640 /var/log/app/events.ndjson
        sed -i 's|^data_dir.*|data_dir = "/data/traild"|; s|127.0.0.1:4580|127.0.0.1:80|' /etc/traild/traild.toml
    """
    installed.run("sh", "-c", setting_up, json.dumps(EVENT))
    paths = ("/home/someone/*.ndjson", "/var/log/app/*.ndjson")
    append_to_config(installed, "".join(f'[[inputs.file]]\npath = "{path}"\n' for path in paths))
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "restart", "traild")
    wait_until(lambda: delivered(installed) == 2, 20, "the events of both files")
    send(installed, endpoint="http://127.0.0.1:80")
    assert installed.run("test", "-e", "/data/traild/journal").returncode == 0


def test_it_is_started_again_unless_its_configuration_is_mistaken(installed):
    def restarted(times):
        return installed.property("NRestarts") == str(times) and is_active(installed)

    installed.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "traild")
    wait_until(lambda: restarted(1), 20, "the service after kill -9")

    # One that no longer turns: the watchdog's minute is made two seconds.
    installed.run("mkdir", "-p", "/etc/systemd/system/traild.service.d")
    installed.run("sh", "-c", "cat > /etc/systemd/system/traild.service.d/watchdog.conf", input="[Service]\nWatchdogSec=2s\n")
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "restart", "traild")
    time.sleep(3)
    assert restarted(0), "the watchdog is fed"
    installed.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "traild")
    wait_until(lambda: restarted(1), 30, "the service after its watchdog")
    assert "watchdog" in installed.run("journalctl", "--no-pager", "--unit=traild.service").stdout.lower()

    append_to_config(installed, "\ncolour = 1\n")
    assert installed.run("systemctl", "restart", "traild", check=False).returncode != 0
    time.sleep(3)
    assert (installed.property("ActiveState"), installed.property("NRestarts")) == ("failed", "0")
    assert "colour" in installed.log()


def test_an_upgrade_keeps_what_was_changed_and_a_purge_keeps_the_data(installed, package, tmp_path):
    send(installed, count=7)
    wait_until(lambda: delivered(installed) == 7, 20, "the events in the bucket")
    pid = installed.property("MainPID")
    append_to_config(installed, '\n[ingest]\nmax_event_bytes = "128KiB"\n')
    install(installed, later_revision(package, tmp_path), tmp_path)
    assert installed.run("dpkg-query", "--show", "--showformat=${Version}", "traild").stdout == "0.1.0-2"
    assert is_active(installed) and installed.property("MainPID") != pid
    assert "128KiB" in installed.run("cat", CONFIG).stdout
    assert delivered(installed) == 7

    installed.run("dpkg", "--remove", "traild")
    assert not is_active(installed)
    assert "128KiB" in installed.run("cat", CONFIG).stdout
    told = installed.run("dpkg", "--purge", "traild").stderr
    assert "/var/lib/private/traild is kept" in told, told
    assert installed.run("test", "-e", CONFIG, check=False).returncode == 1
    left = installed.run("find", "/etc", "/usr", "-xdev", "-name", "*traild*").stdout.split()
    assert left == ["/etc/default/traild"], "what the package has not brought, and nothing else"

    install(installed, package, tmp_path)
    assert delivered(installed) == 7, "it goes on where it stopped"
