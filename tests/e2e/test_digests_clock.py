"""I5 whatever the wall clock does: hours that were missed, hours that were longer ago, and jumps in either direction under load."""

import os
import time



import digests
import events
import logfiles
from crashing import SMALL, outcome, senders_for
from harness import BUCKET
from digests import HOME, ORGANIZATION_TRAIL, OWN_TRAIL, all_digested, digesting, keys_of
from judges import accepted_by_all

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(daemon):
    user, system = open(f"/proc/{daemon.process.pid}/stat").read().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / TICKS


def test_missed_hours_are_made_up_for_in_order_and_those_longer_ago_as_backfill(make_daemon, wall_clock, rng):
    daemon = make_daemon(config=digesting(OWN_TRAIL, "1h"), env=wall_clock.env).start()
    daemon.send(events.make_many(rng, 4))
    daemon.drain()
    wall_clock.jump(hours=1)
    before = all_digested(daemon.s3(), daemon)
    daemon.send(events.make_many(rng, 4))
    daemon.drain()
    daemon.stop()
    wall_clock.jump(hours=5)
    daemon.start()
    found = all_digested(daemon.s3(), daemon, more_than=len(before.of(HOME)) + 4)
    digests.check(found, keys_of(daemon, found))
    missed = found.of(HOME)[len(before.of(HOME)) :]
    assert [digest.is_backfill for digest in missed] == [True, True, True, False, False]
    assert {digest.end - digest.start for digest in missed} == {digests.timedelta(hours=1)}
    accepted_by_all(daemon, daemon.store_endpoint, found, OWN_TRAIL, env=wall_clock.env, end=wall_clock.now())


JUMPS = [
    {"days": 1},
    {"seconds": -2},  # back over the edge between two windows
    {"hours": 1},
    {"hours": -1},
]


def test_a_clock_that_jumps_under_load_leaves_no_gap(make_daemon, wall_clock, rng, report):
    daemon = make_daemon(config=digesting(ORGANIZATION_TRAIL, "1s") | SMALL, env=wall_clock.env).start()
    senders = senders_for(daemon, rng, 0.2, accounts=1, regions=1)
    for sender in senders:
        sender.start()
    time.sleep(2)
    for jump in JUMPS:
        wall_clock.jump(**jump)
        time.sleep(1.5)
    for sender in senders:
        sender.finish()
    daemon.drain()
    accepted, unanswered = outcome(senders)
    logfiles.check(logfiles.read(daemon.s3(), BUCKET), accepted, unanswered)
    found = all_digested(daemon.s3(), daemon, seconds=60)
    digests.check(found, keys_of(daemon, found))
    accepted_by_all(daemon, daemon.store_endpoint, found, env=wall_clock.env, end=max(digest.end for digest in found.digests))
    began, busy = time.monotonic(), cpu_seconds(daemon)
    time.sleep(2)
    share = (cpu_seconds(daemon) - busy) / (time.monotonic() - began)
    assert share < 0.5, f"behind its digests, and at rest, it takes {share:.0%} of a processor"
    report(f"clock: {len(JUMPS)} jumps, {len(found.logs)} log files in {len(found.digests)} digests, {share:.0%} of a processor at rest")
