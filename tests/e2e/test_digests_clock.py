"""I5 whatever the wall clock does: hours that were missed, hours that were longer ago, and jumps in either direction under load."""

import os
import time
from collections import Counter
from itertools import pairwise

import pytest

import digests
import events
import logfiles
from crashing import SMALL, outcome, senders_for
from harness import BUCKET
from digests import HOME, ORGANIZATION_TRAIL, OWN_TRAIL, all_digested, digesting, keys_of
from judges import accepted_by_all, judge_all, verify

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


def test_while_a_clock_that_was_set_back_catches_up_no_time_is_covered_twice_and_no_file_waits_longer(
    make_daemon, wall_clock, rng, report
):
    interval = 4  # so that the windows of a second, one each interval, are known from the others
    daemon = make_daemon(config=digesting(OWN_TRAIL, f"{interval}s"), env=wall_clock.env).start()
    s3 = daemon.s3()

    def wait_of_a_file():
        """Seconds from its delivery to its digest."""
        daemon.send(events.make_many(rng, 4))
        daemon.drain()
        began = time.monotonic()
        all_digested(s3, daemon)
        return time.monotonic() - began

    wait_of_a_file()
    wall_clock.jump(seconds=-60)  # far fewer intervals than make a chain begin anew, and more than this test takes
    waits = [wait_of_a_file() for _ in range(4)]
    assert max(waits) < 2 * interval, f"an interval, and a while to sign and deliver, not {waits}"
    wall_clock.jump(seconds=60)
    wait_of_a_file()
    found = all_digested(s3, daemon, more_than=len(digests.read(s3).of(HOME)))
    digests.check(found, keys_of(daemon, found))
    lengths = Counter((digest.end - digest.start).seconds for digest in found.of(HOME))
    assert set(lengths) == {1, interval} and lengths[1] >= len(waits), lengths
    accepted_by_all(daemon, daemon.store_endpoint, found, OWN_TRAIL, env=wall_clock.env, end=max(digest.end for digest in found.digests))
    report(f"clock: 60 s back, {lengths[1]} windows of a second, a file waited {max(waits):.1f} s at most")


JUMPS = [
    {"seconds": -5},  # back over the edge between two windows
    {"hours": 1},
    {"hours": -1},
    {"days": 1},
    {"days": -1},
]


def chains_of(found):
    """The digests of each chain of an account and region, in the order in which they name one another."""
    by_key = {digest.key: digest for digest in found.digests}
    named = {digest.value["previousDigestS3Object"] for digest in found.digests}
    chains = []
    for newest in (digest for digest in found.digests if digest.key not in named):
        chain = [newest]
        while (previous := chain[-1].value["previousDigestS3Object"]) is not None:
            assert previous in by_key, f"{chain[-1].key} names {previous}, which is not there"
            chain.append(by_key[previous])
        chains.append(chain[::-1])
    assert sum(map(len, chains)) == len(found.digests), "a digest is named by two"
    return chains


def check_chains_begun_anew(daemon, found, env):
    """A clock that is set back by many intervals begins a chain in time that the one before has covered: each is whole by itself."""
    keys = keys_of(daemon, found)
    for digest in found.digests:
        digests.check_digest(digest, found, keys, "main")
    named = found.named()
    assert len(named) == len(set(named)) and not found.undigested(), "each log file is in exactly one digest"
    for chain in chains_of(found):
        digests.check_links(chain)
        for before, after in pairwise(chain):
            assert before.end == after.start, f"{after.key} begins at {after.start}, {before.key} ends at {before.end}"
    end = max(digest.end for digest in found.digests)
    for source, verdict in judge_all(daemon, daemon.store_endpoint, found.sources(), digests.beginning(found), end).items():
        assert verdict.code == 0 and not verdict.complaints(), f"{source}: {verdict}"
    verified = verify(daemon, daemon.store_endpoint, env=env)
    assert verified.code == 0, verified


@pytest.mark.campaign("clock", trials=5)
def test_a_clock_that_jumps_under_load_leaves_no_gap(make_daemon, wall_clock, rng, campaign, report):
    daemon = make_daemon(config=digesting(ORGANIZATION_TRAIL, "2s") | SMALL, env=wall_clock.env).start()
    senders = senders_for(daemon, rng, 0.2, accounts=1, regions=1)
    for sender in senders:
        sender.start()
    time.sleep(3)
    jumps = [JUMPS[number % len(JUMPS)] for number in range(campaign.trials)]
    for jump in jumps:
        wall_clock.jump(**jump)
        time.sleep(3)
    for sender in senders:
        sender.finish()
    daemon.drain()
    accepted, unanswered = outcome(senders)
    logfiles.check(logfiles.read(daemon.s3(), BUCKET), accepted, unanswered)
    found = all_digested(daemon.s3(), daemon, seconds=60)
    begun = {source: sum(digest.value["previousDigestS3Object"] is None for digest in found.of(source)) for source in found.sources()}
    if max(begun.values()) == 1:
        digests.check(found, keys_of(daemon, found))
        end = max(digest.end for digest in found.digests)
        accepted_by_all(daemon, daemon.store_endpoint, found, env=wall_clock.env, end=end)
    else:
        far_back = [jump for jump in jumps if set(jump) & {"hours", "days"} and min(jump.values()) < 0]
        assert max(begun.values()) <= 1 + len(far_back), f"begun anew by no more than {far_back}: {begun}"
        check_chains_begun_anew(daemon, found, wall_clock.env)
    began, busy = time.monotonic(), cpu_seconds(daemon)
    time.sleep(2)
    share = (cpu_seconds(daemon) - busy) / (time.monotonic() - began)
    assert share < 0.5, f"behind its digests, and at rest, it takes {share:.0%} of a processor"
    campaign.count(len(jumps))
    report(f"clock: {len(jumps)} jumps, {len(found.logs)} log files in {len(found.digests)} digests, {max(begun.values())} chains at most, {share:.0%} of a processor at rest")
