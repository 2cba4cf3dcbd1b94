"""kill -9 at any instant loses nothing and doubles nothing.

Careful clients post batches and repeat whatever was not answered, while the daemon is killed again and again: under
load, while it starts, while it uploads. Segments and files are small, so that rolling, trimming, sealing and uploading
all go on when it strikes. Once over the embedded store; once over a proxy that loses answers of finished PUTs, so that
uploads are repeated both after a crash and within a life.
"""

import random
import time

import events
import logfiles
from fault_proxy import FaultProxy
from harness import BUCKET, TEST_CREDENTIALS, Sender, delivering_to

SENDERS = 4
SMALL = {
    "journal": {"segment_bytes": "256KiB"},
    "delivery": {"max_age": "500ms", "max_bytes": "64KiB"},
}


def ready_limit(daemon):
    """I6: ten seconds, and one more for each gigabyte of journal."""
    journal = sum(path.stat().st_size for path in daemon.data_dir.rglob("*") if path.is_file())
    return 10 + journal / 1e9


def senders_for(daemon, rng):
    seeds = [rng.getrandbits(64) for _ in range(SENDERS)]

    def batches(seed):
        own = random.Random(seed)
        return lambda: events.spread(own, own.choice([1, 5, 40]), size=own.choice([300, 1200, 4000]))

    return [Sender(daemon, batches(seed), pause=0.005) for seed in seeds]


def kill_again_and_again(daemon, rounds, rng):
    """Returns the longest start, and how often the kill came while starting."""
    slowest, while_starting = 0.0, 0
    for _ in range(rounds):
        if rng.random() < 0.25:
            time.sleep(rng.uniform(0, 0.08))
            while_starting += not daemon.is_ready()
        else:
            daemon.wait_ready(ready_limit(daemon))
            time.sleep(rng.uniform(0, 2.5) ** 2 / 2.5)
        daemon.kill()
        began = time.monotonic()
        limit = ready_limit(daemon)
        daemon.spawn()
        if rng.random() < 0.5:
            daemon.wait_ready(limit)
            slowest = max(slowest, time.monotonic() - began)
    return slowest, while_starting


def run(daemon, rounds, rng, report):
    senders = senders_for(daemon, rng)
    for sender in senders:
        sender.start()
    slowest, while_starting = kill_again_and_again(daemon, rounds, rng)
    daemon.wait_ready(ready_limit(daemon))
    time.sleep(0.5)
    for sender in senders:
        sender.finish()
    daemon.drain(60)
    accepted = [event for sender in senders for event in sender.accepted]
    unanswered = [event for sender in senders for event in sender.open]
    resent, duplicates = sum(s.resent for s in senders), sum(s.duplicates for s in senders)
    assert accepted
    report(
        f"crash: {rounds} kills ({while_starting} while starting), slowest start {slowest:.2f} s; {len(accepted)} events"
        f" accepted, {resent} requests repeated, {duplicates} duplicates recognised"
    )
    return accepted, unanswered


def test_killed_over_the_embedded_store(make_daemon, rng, pytestconfig, report):
    rounds = -(-pytestconfig.getoption("--crash-rounds") * 2 // 3)
    daemon = make_daemon(config=SMALL)
    daemon.start()
    accepted, unanswered = run(daemon, rounds, rng, report)
    files = logfiles.read(daemon.s3(), BUCKET)
    present = logfiles.check(files, accepted, unanswered)
    report(f"embedded store: {len(files)} objects, each accepted event once, {present} of {len(unanswered)} unanswered ones there")


def test_killed_over_a_wire_that_loses_answers(make_daemon, rng, pytestconfig, report):
    rounds = -(-pytestconfig.getoption("--crash-rounds") // 3)
    store = make_daemon("store", config={"trails": []})
    store.start()

    def lose_some(request, rng):
        return "lost" if request.is_object_put and rng.random() < 0.3 else None

    with FaultProxy(store.store_port, seed=rng.random(), choose=lose_some) as proxy:
        daemon = make_daemon(
            "traild",
            config=SMALL | delivering_to(proxy.endpoint),
            env=TEST_CREDENTIALS,
        )
        daemon.start()
        accepted, unanswered = run(daemon, rounds, rng, report)
        files = logfiles.read(store.s3(), BUCKET)
        present = logfiles.check(files, accepted, unanswered)
        keys = proxy.check_redone_bytes()
        assert proxy.fired["lost"] > 0
        report(
            f"lossy wire: {proxy.fired['lost']} lost answers, {len(files)} objects, {keys} keys each written with one content,"
            f" each accepted event once, {present} of {len(unanswered)} unanswered ones there"
        )
