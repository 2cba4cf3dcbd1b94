"""What is released: a build that does not depend on its folder, a bill of materials, a crate, and workflows that run what is there."""

import json
import os
import re
import subprocess
import tomllib

import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from conftest import ROOT

EPOCH = {"SOURCE_DATE_EPOCH": "1780000000"}

#: Two crates whose paths are in their bytes: in what a panic says, and in the debugger's lines.
PROGRAM = 'fn main() { println!("{} {}", file!(), beside::place()); panic!("in {}", line!()) }'
BESIDE = '#[inline(never)] pub fn place() -> String { format!("{:?}", std::panic::Location::caller()) + file!() }'


def small_project(root, cargo_home):
    """A program of the same name, and a crate from where cargo keeps what it has downloaded; the environment to build it in."""
    downloaded = cargo_home / "downloaded"
    files = {
        root / "src/main.rs": PROGRAM,
        root / "Cargo.toml": manifest("traild", '[dependencies]\nbeside = "0.1.0"'),
        root / "deploy/release/build": (ROOT / "deploy/release/build").read_text(),
        downloaded / "beside/src/lib.rs": BESIDE,
        downloaded / "beside/Cargo.toml": manifest("beside"),
        downloaded / "beside/.cargo-checksum.json": json.dumps({"package": "0" * 64, "files": {}}),
        cargo_home / "config.toml": f'[source.crates-io]\nreplace-with = "downloaded"\n[source.downloaded]\ndirectory = "{downloaded}"',
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    rustup = os.environ.get("RUSTUP_HOME", os.path.expanduser("~/.rustup"))
    environment = os.environ | EPOCH | {"CARGO_HOME": str(cargo_home), "RUSTUP_HOME": rustup}
    subprocess.run(["cargo", "generate-lockfile"], check=True, cwd=root, env=environment, capture_output=True)
    return environment


def manifest(name, more=""):
    return f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2024"\n[profile.release]\ndebug = "line-tables-only"\n{more}\n'


def test_a_build_has_the_same_bytes_in_every_folder(tmp_path):
    """The real script on a small program: traild itself takes minutes, and the release workflow builds it twice."""
    built, plain = [], []
    for place in ("one", "another/and deeper"):
        root = tmp_path / place / "traild"
        environment = small_project(root, tmp_path / place / "cargo")
        subprocess.run(["bash", root / "deploy/release/build", "dist"], check=True, env=environment, capture_output=True)
        built.append([(root / "dist" / name).read_bytes() for name in ("traild", "traild.debug")])
        said = subprocess.run([root / "dist/traild"], capture_output=True, text=True)
        assert "/cargo/downloaded/beside/src/lib.rs" in said.stdout and str(tmp_path) not in said.stdout + said.stderr, said
        subprocess.run(["cargo", "build", "--release", "--locked"], check=True, cwd=root, env=environment, capture_output=True)
        plain.append((root / "target/release/traild").read_bytes())
    assert built[0] == built[1]
    assert plain[0] != plain[1], "without the script's flags the folder shows, or this test could not fail"


def test_the_program_does_not_say_where_it_was_built(traild_bin, tmp_path):
    """Of this build, without the script's flags: where cargo keeps its downloads shows in it, the checkout does not."""
    subprocess.run(["objcopy", "--strip-all", traild_bin, tmp_path / "traild"], check=True)
    program = (tmp_path / "traild").read_bytes()
    assert b"/registry/src/" in program, "what panics in a crate say"
    assert str(ROOT).encode() not in program


def test_the_bill_of_materials_is_valid_and_names_what_is_linked():
    text = subprocess.run([ROOT / "deploy/release/sbom"], check=True, stdout=subprocess.PIPE, text=True, env=os.environ | EPOCH).stdout
    errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert errors is None, errors
    bill = json.loads(text)
    names = {component["name"] for component in bill["components"]}
    assert {"tokio", "aws-lc-sys", "aws-sdk-s3", "rustls"} <= names
    # What is banned, what only tests or the compiler need.
    assert not names & {"ring", "openssl-sys", "proptest", "serde_derive", "cc"}
    locked = {(each["name"], each["version"]) for each in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    assert {(each["name"], each["version"]) for each in bill["components"]} <= locked
    refs = {component["purl"] for component in bill["components"]} | {bill["metadata"]["component"]["purl"]}
    assert {entry["ref"] for entry in bill["dependencies"]} == refs
    assert {need for entry in bill["dependencies"] for need in entry["dependsOn"]} < refs


def test_the_crate_holds_what_it_takes_to_build_and_no_more():
    listed = subprocess.run(["cargo", "package", "--list", "--allow-dirty", "--locked"], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    files = listed.stdout.split()
    assert {"Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "src/main.rs", "src/lib.rs"} <= set(files)
    assert not [path for path in files if re.match(r"tests/(e2e|corpus)|deploy|\.cache", path)]
    given = [ROOT / path for path in files if (ROOT / path).exists()]
    assert sum(path.stat().st_size for path in given) < 10 << 20, "what crates.io takes"


def test_the_workflows_run_what_is_there():
    commands = []
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        jobs = yaml.safe_load(workflow.read_text())["jobs"]
        commands += [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
        image = [step["with"] for job in jobs.values() for step in job["steps"] if "build-push-action" in step.get("uses", "")]
        assert all((ROOT / given["file"]).exists() for given in image)
    scripts = set(re.findall(r"(?<![\w/])(?:\.ci|deploy|localstack|tests)/[\w/.-]+", "\n".join(commands)))
    assert ".ci/run" in scripts and "deploy/release/build" in scripts
    assert not [script for script in scripts if not os.access(ROOT / script, os.X_OK)]
