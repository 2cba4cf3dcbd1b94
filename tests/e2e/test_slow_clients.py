"""Clients that hold connections and send next to nothing do no harm to those that work."""

import socket
import time

import pytest

import events
import logfiles
from harness import BUCKET, Client

CROWD = 300


def crowd(port, start, source):
    connections = []
    for _ in range(CROWD):
        connection = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0))
        connection.sendall(start)
        connections.append(connection)
    return connections


def closed(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1000) is not None
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_one_address_cannot_take_all_connections(daemon, rng):
    greedy = []
    for _ in range(5):
        try:
            greedy += crowd(daemon.api_port, b"", "127.0.0.9")
        except OSError:
            break
    assert len(greedy) >= CROWD
    daemon.send(events.make_many(rng, 5))
    for connection in greedy:
        connection.close()


@pytest.mark.campaign("hostile", trials=1)
def test_a_crowd_of_slow_clients_does_not_harm_a_healthy_one(daemon, rng, campaign, report):
    starts = [
        b"",
        b"POST /v1/events HTT",
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{",
    ]
    # Each kind from an address of its own, since one address may not hold all connections that there are.
    slow = [
        connection
        for number, start in enumerate(starts, 2)
        for connection in crowd(daemon.api_port, start, f"127.0.0.{number}")
    ]
    sent, longest = [], 0.0
    deadline = time.monotonic() + 45
    with Client(daemon.api_port) as client:
        while time.monotonic() < deadline:
            for connection in slow[2 * CROWD :: 7]:
                try:
                    connection.send(b" ")  # a byte a second is not a body's rate
                except OSError:
                    pass
            batch = events.make_many(rng, 20)
            began = time.monotonic()
            status, _, answer = client.post(b"\n".join(batch))
            longest = max(longest, time.monotonic() - began)
            assert status == 200, answer
            sent += batch
            if all(map(closed, slow)):
                break
            time.sleep(1)
    still_open = sum(not closed(connection) for connection in slow)
    for connection in slow:
        connection.close()
    assert longest < 2, f"a healthy request took {longest:.1f} s"
    assert still_open == 0, f"{still_open} of {len(slow)} slow connections are still open after 45 s"
    with Client(daemon.api_port) as fresh:
        assert fresh.post(events.make(rng))[0] == 200
    daemon.drain()
    ids = {value["eventID"] for file in logfiles.read(daemon.s3(), BUCKET) for _, value in file.records}
    assert {events.event_id(event) for event in sent} <= ids
    campaign.count(1, len(slow))
    report(f"{len(slow)} slow clients: all cut off, the longest healthy request took {longest * 1000:.0f} ms")
