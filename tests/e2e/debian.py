"""Programs that only Debian packages, unpacked into .cache and not installed: nothing else of the machine is touched, and no root is needed.

The version is the one that the machine's Debian or Ubuntu release has; a program that is on the PATH already is taken as it is.
"""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "debian"


def program(package, name):
    """Where program `name` of `package` is; downloaded once."""
    installed = shutil.which(name)
    return Path(installed) if installed else unpacked(package) / "usr" / "bin" / name


def unpacked(package):
    """The folder that holds the package's files."""
    folder = CACHE / package
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{package}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            unfinished = CACHE / f"{package}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            download(package, unfinished)
            [file] = unfinished.glob("*.deb")
            run(["dpkg-deb", "--extract", file, unfinished], unfinished)
            file.unlink()
            unfinished.rename(folder)
    return folder


def download(package, into):
    """With the machine's own lists of packages; if they are missing or too old, with fresh ones of our own."""
    assert shutil.which("apt-get"), f"this machine has no apt-get to download {package} with: install it, so that its programs are on the PATH"
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User="]
    if subprocess.run([*command, "download", package], cwd=into, capture_output=True).returncode == 0:
        return
    lists = CACHE / "lists"
    for needed in ["state/lists/partial", "cache/archives/partial"]:
        (lists / needed).mkdir(parents=True, exist_ok=True)
    command += ["-o", f"Dir::State={lists}/state", "-o", "Dir::State::status=/var/lib/dpkg/status", "-o", f"Dir::Cache={lists}/cache"]
    run([*command, "update"], into)
    run([*command, "download", package], into)


def run(command, directory):
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
