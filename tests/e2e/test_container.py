"""The container image without Docker: its file system, put together as its Dockerfile does it, read-only, and started in namespaces as the Dockerfile says."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import yaml

from conftest import ROOT
from harness import clean_env, wait_until

CONTAINER = ROOT / "deploy/container"
SECRET = "0123456789abcdef0123456789abcdef"
EVENTS = "\n".join(
    json.dumps({"eventTime": "2026-05-01T00:19:01Z", "eventSource": "orders.example.com", "eventName": "CancelOrder"}) for _ in range(20)
)

#: What a runtime does. $1 is the image's root, $2 what is mounted over /var/lib/traild, $3 over /run/traild, $4 a file for
#: /etc/traild/traild.toml, $5 one for /run/secrets/app, $6 the user; then the command.
START = r"""
set -e
mount --make-rprivate /
root=$1
mount --bind "$root" "$root"
mkdir -p "$root/run/secrets"
touch "$root/run/secrets/app" "$root/etc/hosts" "$root/dev/null" "$root/dev/urandom"
mount -o remount,bind,ro "$root"
mount --bind "$2" "$root/var/lib/traild"
mount --bind "$3" "$root/run/traild"
mount --bind "$4" "$root/etc/traild/traild.toml"
mount --bind "$5" "$root/run/secrets/app"
mount --bind /etc/hosts "$root/etc/hosts"
mount -t proc proc "$root/proc"
for device in null urandom; do mount --bind "/dev/$device" "$root/dev/$device"; done
ip link set lo up
user=$6
shift 6
exec chroot --userspec="$user" "$root" "$@"
"""


@pytest.fixture(scope="module")
def instructions():
    """What the last stage of the Dockerfile says, by its words."""
    text = (CONTAINER / "Dockerfile").read_text().replace("\\\n", " ")
    last = text.split("\nFROM ")[-1]
    return {line.split()[0]: line.partition(" ")[2] for line in last.splitlines()[1:] if line and not line.startswith("#")}


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """What Docker is given to build from: what the ignore file lets through."""
    folder = tmp_path_factory.mktemp("context")
    comment, everything, *lines = (CONTAINER / "Dockerfile.dockerignore").read_text().splitlines()
    assert comment.startswith("#") and everything == "*"
    for line in lines:
        if not line.startswith("!"):
            for path in folder.glob(line):
                path.unlink()
            continue
        source, target = ROOT / line[1:], folder / line[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
    return folder


@pytest.fixture(scope="module")
def rootfs(traild_bin, context, tmp_path_factory):
    if not shutil.which("dpkg"):
        pytest.skip("NOT CHECKED: the container image, because it is put together from Debian's libraries")
    root = tmp_path_factory.mktemp("image") / "root"
    subprocess.run([context / "deploy/container/rootfs", traild_bin, root], check=True, env=os.environ | {"SOURCE_DATE_EPOCH": "1780000000"})
    return root


class Container:
    """One that runs, in namespaces of its own; `enter` starts something beside it, as `docker exec` does."""

    def __init__(self, rootfs, instructions, folder, config):
        self.folder, self.instructions = folder, instructions
        (folder / "secret").write_text(SECRET)
        for name, mode in (("data", 0o700), ("run", 0o750), ("secret", 0o400)):
            if name != "secret":
                (folder / name).mkdir(exist_ok=True)
            (folder / name).chmod(mode)
            os.chown(folder / name, *map(int, instructions["USER"].split(":")))
        mounts = [rootfs, folder / "data", folder / "run", config, folder / "secret"]
        command = json.loads(instructions["ENTRYPOINT"]) + json.loads(instructions["CMD"])
        with open(folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--net", "--ipc", "--uts", "sh", "-c", START, "sh", *mounts, instructions["USER"], *command],
                env=clean_env() | {"TRAILD__DELIVERY__MAX_AGE": "1s", "TRAILD__AUTH__ALLOW_ANONYMOUS": "true"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def enter(self, *command, env=None, input=None):
        uid, gid = self.instructions["USER"].split(":")
        enter = ["nsenter", f"--target={self.process.pid}", "--mount", "--net", "--root", "--wd=/", f"--setuid={uid}", f"--setgid={gid}"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, input=input, timeout=60, env=clean_env() | (env or {}))

    def is_healthy(self):
        command = json.loads(self.instructions["HEALTHCHECK"].partition("CMD ")[2])
        return self.enter(*command).returncode == 0

    def wait_healthy(self):
        def healthy():
            assert self.process.poll() is None, self.log()
            return self.is_healthy()

        wait_until(healthy, 20, "the container's health check")
        return self

    def log(self):
        return (self.folder / "log").read_text()

    def stop(self):
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20), time.monotonic() - began


@pytest.fixture
def start(rootfs, instructions, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("NOT CHECKED: the container image, because namespaces with another user's files take root")
    if not shutil.which("ip") or subprocess.run(["unshare", "--mount", "--net", "--ipc", "--uts", "true"], capture_output=True).returncode != 0:
        pytest.skip("NOT CHECKED: the container image, because this machine lets nobody make namespaces, or has no ip (iproute2)")
    started = []

    def start(config=CONTAINER / "traild.toml"):
        started.append(Container(rootfs, instructions, tmp_path, config))
        return started[-1]

    yield start
    for container in started:
        container.process.kill()
        container.process.wait()
        print(container.log())


def test_the_image_holds_the_program_and_nothing_else_to_run(rootfs):
    programs = [path for path in rootfs.rglob("*") if path.is_file() and os.access(path, os.X_OK)]
    libraries = {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1"}
    assert {path.name for path in programs} - libraries == {"traild"}
    assert (rootfs / "usr/share/doc/libc6/copyright").exists()
    assert not [path for path in rootfs.rglob("*") if path.stat().st_mode & 0o6000], "nothing changes its user"


def test_it_runs_read_only_and_unprivileged_and_keeps_its_events(start):
    container = start().wait_healthy()
    status = dict(line.split(":\t", 1) for line in open(f"/proc/{container.process.pid}/status").read().splitlines())
    assert set(status["Uid"].split()) == {"65532"} and int(status["CapEff"], 16) == 0
    assert container.enter("/bin/sh", "-c", "true").returncode != 0, "there is no shell"
    # By name: the resolver of the image works, too.
    sent = container.enter("/usr/bin/traild", "send", "--endpoint", "http://localhost:4580", "-", input=EVENTS)
    assert sent.returncode == 0, sent.stderr
    status = ["/usr/bin/traild", "status", "--json", "--endpoint", "unix:/run/traild/traild.sock"]

    def delivered():
        return json.loads(container.enter(*status).stdout)["trails"][0]["sinks"][0]["delivered"] == 20

    wait_until(delivered, 20, "the events in the bucket")
    code, seconds = container.stop()
    assert code == 0 and seconds < 5, container.log()
    container = start().wait_healthy()
    assert delivered(), "what the volume keeps is there after a restart"


def test_a_daemon_that_is_stuck_is_not_healthy(start):
    container = start().wait_healthy()
    container.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert not container.is_healthy()
    timeout = float(re.search(r"--timeout=(\d+)s", container.instructions["HEALTHCHECK"])[1])
    assert time.monotonic() - began < timeout, "it answers before Docker gives up"
    container.process.send_signal(signal.SIGCONT)
    assert container.is_healthy()


def test_it_wants_to_be_told_who_may_send(traild_bin):
    config = CONTAINER / "traild.toml"
    checked = subprocess.run([traild_bin, "validate", "--offline", "--config", config], capture_output=True, text=True, env=clean_env())
    assert checked.returncode == 78 and "whoever reaches it could write audit events" in checked.stderr, checked.stderr


def test_the_compose_example_lets_in_who_signs(start):
    compose = yaml.safe_load((CONTAINER / "compose.yaml").read_text())
    [service] = compose["services"].values()
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert (CONTAINER / service["build"]["context"]).resolve() == ROOT
    assert (ROOT / service["build"]["dockerfile"]).exists()
    config = CONTAINER / compose["configs"]["traild"]["file"]
    assert service["secrets"] == ["app"] and '"/run/secrets/app"' in config.read_text()
    container = start(config).wait_healthy()
    send = ["/usr/bin/traild", "send", "--endpoint", "http://127.0.0.1:4580", "-"]
    signing = {"AWS_ACCESS_KEY_ID": "APP", "AWS_REGION": "us-east-1", "AWS_SECRET_ACCESS_KEY": SECRET}
    assert container.enter(*send, env=signing, input=EVENTS).returncode == 0
    assert container.enter(*send, env=signing | {"AWS_SECRET_ACCESS_KEY": "another"}, input=EVENTS).returncode == 1
    assert container.enter(*send, input=EVENTS).returncode == 1


def test_hadolint_has_nothing_to_say():
    subprocess.run([shutil.which("hadolint", path=clean_env()["PATH"]), CONTAINER / "Dockerfile"], check=True)
