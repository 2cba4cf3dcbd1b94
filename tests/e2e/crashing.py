"""Kills the daemon again and again, while careful clients post."""

import random
import time

import events
from harness import Sender

SENDERS = 4
SMALL = {
    "journal": {"segment_bytes": "256KiB"},
    "delivery": {"max_age": "500ms", "max_bytes": "64KiB"},
}


def ready_limit(daemon):
    """I6: ten seconds, and one more for each gigabyte of journal."""
    journal = sum(path.stat().st_size for path in daemon.data_dir.rglob("*") if path.is_file())
    return 10 + journal / 1e9


def senders_for(daemon, rng, pause=0.005, **spread):
    seeds = [rng.getrandbits(64) for _ in range(SENDERS)]

    def batches(seed):
        own = random.Random(seed)
        return lambda: events.spread(own, own.choice([1, 5, 40]), size=own.choice([300, 1200, 4000]), **spread)

    return [Sender(daemon, batches(seed), pause=pause) for seed in seeds]


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


def kill_under_load(daemon, rounds, rng, drain, pause=0.005, **spread):
    """Kills the daemon while clients post, then lets it drain: the senders, and what to say of the kills."""
    senders = senders_for(daemon, rng, pause, **spread)
    for sender in senders:
        sender.start()
    slowest, while_starting = kill_again_and_again(daemon, rounds, rng)
    daemon.wait_ready(ready_limit(daemon))
    time.sleep(0.5)
    for sender in senders:
        sender.finish()
    drain()
    return senders, f"crash: {rounds} kills ({while_starting} while starting), slowest start {slowest:.2f} s"


def outcome(senders):
    """The events that were answered for, and those that never were."""
    return [event for sender in senders for event in sender.accepted], [event for sender in senders for event in sender.open]
