"""The harness itself can fail: each check is shown a lie and must notice, and each fault of the proxy is felt by a real client."""

import gzip
import random
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.exceptions import BotoCoreError, ClientError

import events
import logfiles
from fault_proxy import KINDS, FaultProxy
from harness import Metrics, s3_client, toml

NAME = "AWSLogs/111122223333/CloudTrail/us-east-1/2026/01/02/111122223333_CloudTrail_us-east-1_20260102T0305Z_{}.json.gz"


def log_file(unique, records):
    body = b'{"Records":[' + b",".join(records) + b"]}"
    return logfiles.parse(NAME.format(unique.ljust(16, "x")), gzip.compress(body, mtime=0))


def test_checks_pass_what_is_right(rng):
    sent = events.make_many(rng, 4)
    filled = sent[3][:-1] + b',"apiVersion":null}'
    files = [log_file("A", sent[:2]), log_file("B", [sent[2], filled])]
    assert logfiles.check(files, sent[:3], sent[3:]) == 1


@pytest.mark.parametrize(
    "lie",
    [
        lambda sent: [log_file("A", sent[:2])],  # one lost
        lambda sent: [log_file("A", sent), log_file("B", sent[:1])],  # one doubled over files
        lambda sent: [log_file("A", [*sent, sent[0]])],  # one doubled in a file
        lambda sent: [log_file("A", [*sent[:2], sent[2].replace(b"1.11", b"1.10")])],  # one changed
        lambda sent: [log_file("A", sent), log_file("B", [events.make(random.Random(1))])],  # one invented
        lambda sent: [log_file("A", [sent[0].replace(b"us-east-1", b"eu-west-1")])],
    ],
    ids=["lost", "doubled", "doubled-in-file", "changed", "invented", "misplaced"],
)
def test_checks_notice(rng, lie):
    sent = events.make_many(rng, 3)
    with pytest.raises(AssertionError):
        logfiles.check(lie(sent), sent)


@pytest.mark.parametrize("body", [gzip.compress(b'{"Records":[{}]}') * 2, gzip.compress(b'{"Records":[{}]}')[:-3], b"{}"])
def test_torn_or_doubled_gzip_is_noticed(body):
    with pytest.raises((AssertionError, zlib.error)):
        logfiles.gunzip_one_member("key", body)


def test_metrics_are_read_and_books_are_checked():
    text = 'traild_events_{}{{trail="a",sink="s3"}} {}\n'
    good = Metrics(text.format("routed_total", 3) + text.format("delivered_total", 1) + text.format("pending", 2))
    good.check_books()
    with pytest.raises(AssertionError):
        Metrics(text.format("routed_total", 3) + text.format("delivered_total", 1)).check_books()


def test_toml_is_written_as_meant():
    assert toml({"a": 1, "b": {"c": "x"}, "d": [{"e": True}]}) == 'a = 1\n[b]\nc = "x"\n[[d]]\ne = true\n'


class Upstream(BaseHTTPRequestHandler):
    """Takes any PUT and counts it."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.puts += 1
        self.send_response(200)
        self.send_header("ETag", '"x"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def upstream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.puts = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_each_fault_is_felt(upstream, kind):
    with FaultProxy(upstream.server_port, choose=lambda request, rng: kind, delay=0.2) as proxy:
        s3 = s3_client(proxy.endpoint, read_timeout=1)
        s3.meta.events.register("needs-retry.s3", lambda **_: None)
        put = lambda: s3.put_object(Bucket="b", Key="k", Body=b"z" * 300_000)  # noqa: E731
        if kind in (None, "slow"):
            put()
        else:
            with pytest.raises((ClientError, BotoCoreError)):
                put()
        arrived = kind in (None, "slow", "lost")
        assert (upstream.puts > 0) == arrived
        assert (proxy.fired[kind] > 0) == (kind is not None)
        assert proxy.check_redone_bytes() == (0 if kind == "reset" else 1)
        proxy.heal()
        put()


def test_other_bytes_under_one_key_are_noticed(upstream):
    with FaultProxy(upstream.server_port) as proxy:
        for body in (b"one", b"two"):
            s3_client(proxy.endpoint).put_object(Bucket="b", Key="k", Body=body)
        with pytest.raises(AssertionError):
            proxy.check_redone_bytes()
