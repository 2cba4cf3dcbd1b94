"""Drives the real binary: configuration, start, kill, requests, metrics, and the embedded store by boto3."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

from events import HOME_ACCOUNT, HOME_REGION

BUCKET = "audit-logs"
ORGANIZATION = "o-exampleorgid"

#: Selects every account and every region.
WHOLE_ORGANIZATION = {
    "name": "main",
    "s3_bucket_name": BUCKET,
    "is_multi_region_trail": True,
    "include_global_service_events": True,
    "is_organization_trail": True,
    "organization_id": ORGANIZATION,
    "organization_accounts": ["*"],
}


#: Ports given out before: the kernel may give the same one again as long as nobody listens there.
GIVEN_PORTS = set()


def free_port():
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in GIVEN_PORTS:
            GIVEN_PORTS.add(port)
            return port


def wait_until(condition, seconds, what):
    """Asks until the answer is true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.02)


def s3_client(endpoint, **options):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=HOME_REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=BotoConfig(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3}, **options),
    )


def ensure_bucket(s3, bucket):
    try:
        s3.create_bucket(Bucket=bucket)
    except ClientError as error:
        assert error.response["Error"]["Code"] in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"), error


def delivering_to(endpoint):
    """Configuration for a daemon that delivers to an S3 endpoint of ours instead of its embedded store."""
    return {"storage": {"kind": "s3"}, "aws": {"endpoint_url": endpoint, "force_path_style": True}}


def calling(endpoint):
    """Configuration for a daemon that keeps its objects itself and calls the other services at an endpoint of ours."""
    return {"aws": {"endpoint_url": endpoint}}


#: For such daemons: credentials that any endpoint of ours takes.
TEST_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def toml(config):
    """Scalars and arrays are JSON, which TOML shares for what is used here; tables and arrays of tables get headings."""
    lines = []

    def table(path, values):
        nested = {}
        for key, value in values.items():
            if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
                nested[key] = value
            else:
                lines.append(f"{key} = {json.dumps(value)}")
        for key, value in nested.items():
            for item in value if isinstance(value, list) else [value]:
                heading = ".".join([*path, key])
                lines.append(f"[[{heading}]]" if isinstance(value, list) else f"[{heading}]")
                table([*path, key], item)

    table([], config)
    return "\n".join(lines) + "\n"


def merged(base, changes):
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


class Daemon:
    """One daemon with a folder, ports and a configuration of its own, which may be started many times."""

    def __init__(self, binary, home, config=None, env=None, prepare=None, buckets=(BUCKET,)):
        self.binary, self.home, self.buckets, self.prepare = binary, Path(home), buckets, prepare
        self.home.mkdir(parents=True, exist_ok=True)
        self.api_port, self.ops_port, self.store_port = free_port(), free_port(), free_port()
        self.data_dir = self.home / "data"
        self.config = merged(
            {
                "account_id": HOME_ACCOUNT,
                "region": HOME_REGION,
                "data_dir": str(self.data_dir),
                "listen": {"api": f"127.0.0.1:{self.api_port}", "ops": f"127.0.0.1:{self.ops_port}"},
                "storage": {"kind": "embedded", "listen": f"127.0.0.1:{self.store_port}"},
                "delivery": {"max_age": "1s"},
                "trails": [WHOLE_ORGANIZATION],
            },
            config or {},
        )
        if self.config["storage"]["kind"] == "s3":
            self.config["storage"] = {"kind": "s3"}
        self.config_file = self.home / "traild.toml"
        self.env = clean_env() | {"RUST_LOG": "info"} | (env or {})
        self.log = self.home / "log"
        self.prefix = []  # a program that runs it, with its options
        self.process = None
        self.ready_after = None
        self.answered = 0  # events this daemon has answered for, over all its lives
        self.write_config()

    # Life.

    def write_config(self, config=None):
        self.config = config or self.config
        self.config_file.write_text(toml(self.config))

    def spawn(self):
        assert self.process is None or self.process.poll() is not None
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, self.binary, "run", "--config", str(self.config_file)],
                cwd=self.home,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=self.prepare,
            )
        return self

    def start(self, within=10):
        """Starts, waits until ready, and sees to it that the embedded store has the trails' buckets."""
        began = time.monotonic()
        self.spawn()
        self.wait_ready(within)
        self.ready_after = time.monotonic() - began
        if self.config["storage"]["kind"] == "embedded":
            for bucket in self.buckets:
                ensure_bucket(self.s3(), bucket)
        return self

    def wait_ready(self, within=10):
        def ready():
            assert self.process.poll() is None, f"traild ended with {self.process.returncode}\n{self.log_tail()}"
            return self.is_ready()

        wait_until(ready, within, f"/readyz of {self.home.name}")

    def is_ready(self):
        try:
            return self.ops("/readyz")[0] == 200
        except OSError:
            return False

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.running():
            self.process.kill()
            self.process.wait()

    def stop(self, within=10):
        """SIGTERM; the exit code and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=within)
        return code, time.monotonic() - began

    def hang_up(self):
        self.process.send_signal(signal.SIGHUP)

    def log_tail(self, lines=60):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- {self.home.name}\n" + "\n".join(text.splitlines()[-lines:])

    # Requests.

    def post(self, body, headers=None, path="/v1/events", timeout=30):
        with Client(self.api_port, timeout) as client:
            status, headers, answer = client.post(body, headers, path)
        self.answered += answer.get("accepted", 0) if isinstance(answer, dict) else 0
        return status, headers, answer

    def send(self, events):
        """Posts the events as NDJSON and expects each to be accepted."""
        status, _, answer = self.post(b"\n".join(events))
        assert (status, answer.get("rejected")) == (200, []), (status, answer)
        assert answer["accepted"] == len(events), answer
        return answer

    def ops(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.ops_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    # What it says of itself.

    def metrics(self):
        return Metrics(self.ops("/metrics")[1])

    def drain(self, seconds=30, sink="s3"):
        """Waits until each trail has delivered all that was answered for, then checks I8.

        An event counts as pending only once it is routed; so what was answered must be routed too, and nothing move.
        """
        last = None

        def drained():
            nonlocal last
            metrics = self.metrics()
            pending = metrics.by_trail("traild_events_pending", sink)
            routed = metrics.by_trail("traild_events_routed_total", sink)
            done = routed and not any(pending.values()) and min(routed.values()) >= self.answered
            still, last = done and routed == last, routed
            if done and not still:
                time.sleep(0.3)
            return still and metrics

        metrics = wait_until(drained, seconds, f"pending events of {self.home.name} to be delivered")
        metrics.check_books()
        return metrics

    def drain_everywhere(self, seconds=60):
        """Waits until no leg of any trail has anything left to deliver, then checks I8.

        A trail without selectors must have routed all that was answered for, to each of its destinations, and its topic must have
        been told of all that S3 has got; and nothing moves.
        """
        last = None

        def drained():
            nonlocal last
            metrics = self.metrics()
            legs = metrics.legs()
            done = legs and all(metrics.of_leg("pending", leg) == 0 for leg in legs) and not self.unrouted(metrics)
            still, last = done and legs == last, legs
            if done and not still:
                time.sleep(0.3)
            return still and metrics

        try:
            metrics = wait_until(drained, seconds, f"all legs of {self.home.name} to deliver")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.metrics().legs()}\n{self.unrouted(self.metrics())}") from error
        metrics.check_books()
        return metrics

    def unrouted(self, metrics):
        """Legs that have not been given yet all that they must get."""
        legs, buses = [], set()
        for trail in self.config["trails"]:
            name, bus = trail["name"], trail.get("event_bus")
            chooses = trail.get("event_selectors") or trail.get("advanced_event_selectors")
            sinks = {"s3": True, "logs": "cloud_watch_logs_log_group_arn" in trail, "bus": bus and bus not in buses}
            buses.add(bus)
            if not chooses:
                given = [(name, sink) for sink, wanted in sinks.items() if wanted]
                legs += [leg for leg in given if metrics.of_leg("routed_total", leg) < self.answered]
            if "sns_topic_arn" in trail:
                told = metrics.of_leg("routed_total", (name, "sns"))
                legs += [(name, "sns")] if told < metrics.of_leg("delivered_total", (name, "s3")) else []
        return legs

    def status(self):
        return json.loads(self.api_get("/v1/status"))

    def sink_status(self, sink, trail="main"):
        [found] = [each for each in self.status()["trails"] if each["name"] == trail]
        return next(each for each in found["sinks"] if each["sink"] == sink)

    def api_get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def dead_letters(self):
        """What `traild dlq list` tells."""
        code, out, err = self.dlq("list", "--json")
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def dlq(self, *arguments):
        return run_cli(self.binary, "dlq", *arguments, "--data-dir", self.data_dir)

    def memory(self, field="VmRSS"):
        """Bytes of memory: VmRSS now, VmHWM at most so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024

    # Its store, and its CloudTrail.

    @property
    def api_endpoint(self):
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def store_endpoint(self):
        return f"http://127.0.0.1:{self.store_port}"

    def s3(self):
        return s3_client(self.store_endpoint)


class Metrics:
    """The numbers of /metrics, by series name and labels."""

    LINE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$')
    LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

    def __init__(self, text):
        self.values = {}
        for line in text.splitlines():
            match = None if line.startswith("#") else self.LINE.match(line)
            if match:
                name, labels, value = match.groups()
                self.values[name, tuple(sorted(self.LABEL.findall(labels or "")))] = float(value)

    def names(self):
        return {name for name, _ in self.values}

    def total(self, name, **labels):
        wanted = set(labels.items())
        return sum(value for (series, given), value in self.values.items() if series == name and wanted <= set(given))

    def by_trail(self, name, sink="s3"):
        return {
            dict(labels)["trail"]: value
            for (series, labels), value in self.values.items()
            if series == name and dict(labels).get("sink") == sink
        }

    def legs(self):
        """Each trail and sink, with what it has routed so far."""
        return {
            (dict(labels)["trail"], dict(labels)["sink"]): value
            for (series, labels), value in self.values.items()
            if series == "traild_events_routed_total"
        }

    def of_leg(self, what, leg):
        trail, sink = leg
        return self.total(f"traild_events_{what}", trail=trail, sink=sink)

    def check_books(self):
        """I8, for each trail and sink."""
        routed = {labels: value for (name, labels), value in self.values.items() if name == "traild_events_routed_total"}
        assert routed, "no series traild_events_routed_total"
        for labels, value in routed.items():
            labels = dict(labels)
            delivered = self.total("traild_events_delivered_total", **labels)
            pending = self.total("traild_events_pending", **labels)
            dead = self.total("traild_events_dead_lettered_total", **labels)
            assert value == delivered + pending + dead, f"{labels}: routed {value}, delivered {delivered}, pending {pending}, dead {dead}"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Client:
    """One kept connection to the API: by TCP port, or by the path of a unix socket."""

    def __init__(self, where, timeout=30):
        tcp = isinstance(where, int)
        self.connection = (
            http.client.HTTPConnection("127.0.0.1", where, timeout=timeout) if tcp else UnixConnection(where, timeout)
        )

    def post(self, body, headers=None, path="/v1/events"):
        """Status, headers, and the JSON of the answer (or its text). A broken connection is an OSError."""
        try:
            self.connection.request("POST", path, body, headers or {})
            answer = self.connection.getresponse()
            text = answer.read()
        except (http.client.HTTPException, OSError) as error:
            self.connection.close()
            raise OSError(f"{type(error).__name__}: {error}") from error
        try:
            return answer.status, answer.headers, json.loads(text)
        except ValueError:
            return answer.status, answer.headers, text

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


COUNTING = threading.Lock()


class Sender(threading.Thread):
    """Posts batches until told to stop, each again and again until it is answered 200: what a careful client does.

    `accepted` are the events that were answered 200, `open` those of the batch that never was.
    """

    def __init__(self, daemon, make_batch, pause=0.0):
        super().__init__(daemon=True)
        self.to, self.make_batch, self.pause = daemon, make_batch, pause
        self.accepted, self.open, self.latencies = [], [], []
        self.resent, self.duplicates = 0, 0
        self.statuses = {}
        self.failure = None
        self.stopping = threading.Event()

    def run(self):
        try:
            client = Client(self.to.api_port, timeout=10)
            while not self.stopping.is_set():
                self.open = self.make_batch()
                self.deliver(client)
        except Exception as error:  # told to the test by finish()
            self.failure = error

    def deliver(self, client):
        body = b"\n".join(self.open)
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                status, _, answer = client.post(body)
            except OSError:
                self.resent += 1
                time.sleep(0.01)
                continue
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status == 200:
                assert answer["accepted"] + answer["duplicates"] == len(self.open) and not answer["rejected"], answer
                self.duplicates += answer["duplicates"]
                with COUNTING:
                    self.to.answered += len(self.open)
                self.latencies.append(time.monotonic() - began)
                self.accepted += self.open
                self.open = []
                time.sleep(self.pause)
                return
            assert status == 503, f"{status} {answer}"
            self.resent += 1
            time.sleep(0.05)

    def finish(self):
        self.stopping.set()
        self.join(timeout=30)
        assert not self.is_alive(), "a sender did not end"
        if self.failure:
            raise self.failure
        return self


def clean_env():
    """The environment without anything that could steer an AWS SDK or traild, and with the venv's aws command first."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "TRAILD_", "RUST_"))}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    env["AWS_EC2_METADATA_DISABLED"] = "true"
    return env


def run_cli(binary, *arguments, cwd=None, env=None, input=None, timeout=60, prepare=None):
    """Runs one command to its end: (exit code, stdout, stderr)."""
    done = subprocess.run(
        [binary, *map(str, arguments)],
        cwd=cwd,
        env=clean_env() | (env or {}),
        input=input,
        capture_output=True,
        timeout=timeout,
        preexec_fn=prepare,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()
