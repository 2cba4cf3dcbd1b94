"""A machine of its own, for what is installed: systemd as process 1 in namespaces, over a copy of this machine's root that forgets what is written."""

import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

#: What process 1 of the new namespaces does: the folders of the machine, then systemd. $1 is a folder to work in, $2 one to share, $3 a name.
BOOT = r"""
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 machine "$1"
cd "$1"
mkdir writes work root groups
mount -t overlay overlay -o "lowerdir=/,upperdir=$PWD/writes,workdir=$PWD/work" root
mount -t proc proc root/proc
mount -t sysfs sysfs root/sys
for folder in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs root/$folder; done
chmod 1777 root/tmp
for device in null zero full random urandom tty; do touch root/dev/$device; mount --bind /dev/$device root/dev/$device; done
mkdir root/dev/pts root/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts root/dev/pts
ln -s pts/ptmx root/dev/ptmx
mount --bind "$2" root/mnt
ip link set lo up
# Only what a service may need is started, and nothing of this machine's own.
rm -rf root/etc/systemd/system/*.wants root/usr/sbin/policy-rc.d
find root/usr/lib/systemd/system/sysinit.target.wants root/usr/lib/systemd/system/*.target.wants ! -type d ! -name '*journald*' -delete
: > root/etc/fstab

mount -t cgroup2 cgroup2 groups
mkdir "groups/$3"
echo 0 > "groups/$3/cgroup.procs"
umount groups
exec unshare --cgroup sh -ec '
    mount -t cgroup2 cgroup2 root/sys/fs/cgroup
    cd root
    mkdir -p run/before
    pivot_root . run/before
    umount -l /run/before
    mount --make-rshared / # how systemd wants it, which in a container is not its own to do
    exec env -i container=traild PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target --log-target=journal --show-status=no
'
"""

FORGET = r"""
mount -t cgroup2 cgroup2 "$1"
find "$1/$2" -depth -type d -exec rmdir {} +
"""


def why_not():
    """What is missing for a machine of its own; None when nothing is."""
    if os.geteuid() != 0:
        return "it takes root"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not on this machine"
    missing = [tool for tool in ("setpriv", "unshare", "nsenter", "ip", "pivot_root", "dpkg") if not shutil.which(tool)]
    return f"{', '.join(missing)} is not on this machine" if missing else None


class Machine:
    def __init__(self, folder):
        """`folder` is /mnt of the machine."""
        self.name = f"traild-test-{uuid.uuid4()}"
        self.scratch = Path(folder) / "machine"
        self.scratch.mkdir()
        # Whatever ends the tests ends the machine.
        boot = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net"]
        self.process = subprocess.Popen(
            [*boot, "sh", "-c", BOOT, "sh", self.scratch, folder, self.name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def wait_booted(self, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                pytest.skip(f"NOT CHECKED: this machine gives no namespaces to run systemd in: {self.process.stdout.read().decode()}")
            if self.inside() and self.run("systemctl", "is-active", "basic.target", check=False).stdout == "active\n":
                return self
            time.sleep(0.1)
        raise AssertionError("systemd did not come up")

    def inside(self):
        """The process that is number 1 inside, once it is systemd."""
        if self.process.poll() is not None:
            return None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        systemd = children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd"
        return int(children[0]) if systemd else None

    def enter(self, *command):
        return ["nsenter", f"--target={self.inside()}", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", *map(str, command)]

    def run(self, *command, check=True, input=None):
        done = subprocess.run(
            self.enter("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", *command),
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def property(self, name, unit="traild.service"):
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def log(self):
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit=traild.service").stdout

    def end(self):
        first = self.inside()
        os.kill(first or self.process.pid, signal.SIGKILL)  # with the first process of a namespace go all others
        self.process.wait()
        subprocess.run(["unshare", "--mount", "sh", "-c", FORGET, "sh", self.scratch, self.name], check=False)
