"""`POST /v1/events` as the contract says it: bodies, encodings, limits, refusals, filled fields, and the unix socket."""

import gzip
import json
import re

import pytest
import zstandard

import events
import logfiles
from harness import BUCKET, Client

MIB = 2**20
SHAPES = {
    "ndjson": b"\n".join,
    "ndjson-with-crlf-and-blank-lines": lambda batch: b"\r\n\r\n".join(batch) + b"\r\n\n",
    "array": lambda batch: b" [ " + b" ,\n ".join(batch) + b" ]\n",
    "records": lambda batch: b'{ "Records" : [' + b",".join(batch) + b"]}",
}
ENCODINGS = {
    "identity": (lambda body: body, {}),
    "gzip": (gzip.compress, {"Content-Encoding": "gzip"}),
    "zstd": (zstandard.ZstdCompressor().compress, {"Content-Encoding": "zstd"}),
}


def stored(daemon):
    daemon.drain()
    return logfiles.read(daemon.s3(), BUCKET)


def test_each_shape_in_each_encoding_is_delivered(daemon, rng):
    sent = []
    for shape, write in SHAPES.items():
        for encoding, (encode, headers) in ENCODINGS.items():
            batch = events.make_many(rng, 5)
            status, _, answer = daemon.post(encode(write(batch)), headers)
            assert (status, answer) == (200, {"accepted": 5, "duplicates": 0, "rejected": []}), (shape, encoding)
            sent += batch
    logfiles.check(stored(daemon), sent)


def test_a_body_may_come_in_chunks(daemon, rng):
    sent = events.make_many(rng, 50)
    body = b"\n".join(sent)
    status, _, answer = daemon.post(iter([body[at : at + 777] for at in range(0, len(body), 777)]))
    assert (status, answer["accepted"]) == (200, 50)
    logfiles.check(stored(daemon), sent)


def test_one_bad_event_is_named_and_its_neighbours_are_delivered(daemon, rng):
    good = events.make_many(rng, 8)
    bad = {
        "no time": events.encode({k: v for k, v in json.loads(events.make(rng)).items() if k != "eventTime"}),
        "time of year 9999": events.make(rng, eventTime="9999-12-31T23:59:59Z"),
        "time of another format": events.make(rng, eventTime="yesterday"),
        "time as a number": events.make(rng, eventTime=1700000000),
        "no source": events.encode({k: v for k, v in json.loads(events.make(rng)).items() if k != "eventSource"}),
        "account with path characters": events.make(rng, account="../../../etc"),
        "region with path characters": events.make(rng, region="../us-east-1"),
        "not an object": b"17",
        "torn JSON": events.make(rng)[:-40],
        "NaN": events.make(rng)[:-1] + b',"x":NaN}',
        "bad UTF-8": events.make(rng)[:-1] + b',"x":"\xff\xfe"}',
        "too deep": events.make(rng)[:-1] + b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
        "too big": events.make(rng)[:-1] + b',"x":"' + b"y" * 300_000 + b'"}',
    }
    lines, bad_at = [], {}
    for (name, event), neighbour in zip(bad.items(), [*good, *[None] * len(bad)]):
        bad_at[len(lines)] = name
        lines += [event] + ([neighbour] if neighbour else [])
    status, _, answer = daemon.post(b"\n".join(lines))
    assert status == 200, answer
    refused = {bad_at[refusal["index"]]: refusal for refusal in answer["rejected"]}
    assert set(refused) == set(bad), f"accepted although bad: {set(bad) - set(refused)}"
    assert answer["accepted"] == len(good)
    for name, refusal in refused.items():
        print(name, refusal)
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]+", refusal["code"]) and refusal["message"], (name, refusal)
    assert daemon.metrics().total("traild_events_rejected_total") == len(bad)
    logfiles.check(stored(daemon), good)


def test_absent_fields_are_filled_and_given_ones_kept(daemon, rng):
    given = b'{"eventTime":"2026-01-02T03:04:05Z", "eventSource":"ec2.amazonaws.com","eventName":"DescribeInstances","a":1.0e2}'
    status, _, answer = daemon.post(given)
    assert (status, answer["accepted"]) == (200, 1)
    [file] = stored(daemon)
    [(raw, value)] = file.records
    assert logfiles.same(given, raw), raw
    assert (file.parts["account"], file.parts["region"]) == ("111122223333", "us-east-1")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value["eventID"])
    expected = {
        "eventType": "AwsApiCall",
        "eventCategory": "Management",
        "managementEvent": True,
        "readOnly": True,
        "userIdentity": {"type": "Unknown"},
        "requestParameters": None,
        "responseElements": None,
        "sourceIPAddress": "127.0.0.1",
    }
    assert {key: value[key] for key in expected} == expected
    assert value["eventVersion"]


def test_a_batch_sent_again_adds_nothing_also_after_a_crash(daemon, rng):
    sent = events.make_many(rng, 30)
    daemon.send(sent)
    for again in range(3):
        status, _, answer = daemon.post(b"\n".join(sent))
        assert (status, answer) == (200, {"accepted": 0, "duplicates": 30, "rejected": []}), again
        daemon.kill() if again == 1 else daemon.drain()
        if again == 1:
            daemon.start()
    logfiles.check(stored(daemon), sent)


def test_the_same_id_with_other_content_is_another_event(daemon, rng):
    one = events.make(rng)
    other = one.replace(b"192.0.2.7", b"192.0.2.8")
    daemon.send([one, other])
    records = [raw for file in stored(daemon) for raw, _ in file.records]
    assert sorted(records) == sorted([one, other])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_over_the_limit_is_answered_413(daemon, rng, encoding):
    encode, headers = ENCODINGS[encoding]
    body = b"\n".join([events.make(rng, size=2000)] * 9000)
    assert len(body) > 16 * MIB
    before = daemon.memory()
    try:
        status, _, _ = daemon.post(encode(body), headers)
    except OSError as error:  # refused while the body was still being sent
        pytest.skip(str(error)) if encoding != "identity" else None
        status = 413
    assert status == 413
    assert daemon.memory() - before < 100 * MIB
    daemon.send(events.make_many(rng, 1))


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_is_stopped_while_it_inflates(daemon, rng, encoding):
    """One gibibyte of spaces in a megabyte or less."""
    encode, headers = ENCODINGS[encoding]
    bomb = encode(b" " * 2**30)
    status, _, _ = daemon.post(bomb, headers)
    assert status == 413
    assert daemon.memory("VmHWM") < 256 * MIB
    daemon.send(events.make_many(rng, 1))


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"not json", {}),
        (b'{"Records":', {}),
        (b"\x1f\x8b garbage", {"Content-Encoding": "gzip"}),
        (b"garbage", {"Content-Encoding": "zstd"}),
        (b"{}", {"Content-Encoding": "br"}),
    ],
)
def test_a_body_that_cannot_be_read_is_a_client_error(daemon, rng, body, headers):
    status, _, answer = daemon.post(body, headers)
    assert status in (400, 415), (status, answer)
    assert answer.get("code") or answer.get("rejected"), answer
    daemon.send(events.make_many(rng, 1))


def test_the_unix_socket_is_the_same_api(make_daemon, tmp_path, rng):
    path = tmp_path / "s.sock"
    daemon = make_daemon(config={"listen": {"unix": str(path)}}).start()
    sent = events.make_many(rng, 10)
    with Client(path) as client:
        status, _, answer = client.post(b"\n".join(sent))
    assert (status, answer["accepted"]) == (200, 10)
    logfiles.check(stored(daemon), sent)
    daemon.kill()
    daemon.start()  # a socket file left behind is no obstacle
    with Client(path) as client:
        assert client.post(events.make(rng))[0] == 200


def test_every_series_of_the_contract_is_there_from_the_start(daemon):
    names = daemon.metrics().names()
    expected = {
        "traild_events_accepted_total",
        "traild_events_duplicate_total",
        "traild_events_routed_total",
        "traild_events_delivered_total",
        "traild_events_pending",
        "traild_oldest_pending_seconds",
        "traild_objects_delivered_total",
        "traild_object_bytes_total",
        "traild_journal_bytes",
        "traild_journal_fsync_seconds_count",
        "traild_append_seconds_count",
        "traild_put_object_seconds_count",
        "traild_journal_quarantined_bytes_total",
        "traild_build_info",
    }
    assert expected <= names, f"missing: {sorted(expected - names)}"
    assert daemon.ops("/livez")[0] == 200


def test_unknown_paths_and_methods_are_answered_as_such(daemon):
    assert daemon.post(b"", path="/nowhere")[0] == 404
    with Client(daemon.api_port) as client:
        client.connection.request("GET", "/v1/events")
        assert client.connection.getresponse().status == 405
