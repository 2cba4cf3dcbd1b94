"""A write or a sync fails with EIO: what depended on it is not answered 200, and the next start has all that was.

strace makes the n-th call of a kind fail, on whatever file of the data_dir it happens to be, once or from then on, while clients post.
A failure in the journal ends the daemon; others end it or are got over. It is killed and started anew either way, whole again.
"""

import re
import time
from collections import Counter

import pytest

import debian
import fanout
from crashing import SMALL, outcome, ready_limit, senders_for
from fanout import MAIN
from harness import merged, wait_until

#: Calls that only files get; and write, which sockets get, too, for the small files that are replaced whole or added to.
CALLS = ["fdatasync", "fsync", "pwrite64", "pwritev", "write"]
SMALL_FILES = ["cursors/main.*.json.new", "dead-letters/main.bus.ndjson", "history/place.new", "id.new", "trails.json.new"]
SINKS = ["sns", "logs", "bus"]
INJECTED = re.compile(r"\d+<(?P<path>[^>]+)>.*\(INJECTED\)")


def fault(rng):
    """Which call fails, the how-manieth of a thread, and whether those after it fail, too."""
    return rng.choice(CALLS), rng.choice([1, 2, 3, rng.randrange(4, 80)]), rng.random() < 0.4


def strace(program, daemon, log, call, nth, and_on):
    paths = []
    if call == "write":
        names = [name.replace("*", sink) for name in SMALL_FILES for sink in (SINKS if "*" in name else [""])]
        paths = [word for name in names for word in ("-P", str(daemon.data_dir / name))]
    inject = f"inject={call}:error=EIO:when={nth}{'+' if and_on else ''}"
    # -D: the daemon, not strace, is the child whose end is seen.
    return [str(program), "-D", "-f", "-qq", "-y", "--seccomp-bpf", "-o", str(log), "-e", f"trace={call}", "-e", inject, *paths]


def hits(daemon, log):
    """The kinds of files that calls failed on, as often as they did: the folder, or the file, below the data_dir."""
    found = INJECTED.finditer(log.read_text(errors="replace")) if log.exists() else []
    paths = [match["path"] for match in found]
    return Counter(path.removeprefix(f"{daemon.data_dir}/").split("/")[0] for path in paths)


def fail_once(daemon, tracer, log, patience=3):
    """One life of the daemon with its fault: the kinds of files that were hit, and whether it ended by itself."""
    daemon.prefix = tracer
    daemon.spawn()
    deadline = time.monotonic() + patience
    while daemon.running() and not hits(daemon, log) and time.monotonic() < deadline:
        time.sleep(0.02)
    hit = hits(daemon, log)
    if "journal" in hit:
        wait_until(lambda: not daemon.running(), 10, f"the end, after {tracer}")
    settle = time.monotonic() + 0.5
    while daemon.running() and time.monotonic() < settle:
        time.sleep(0.02)
    ended = not daemon.running()
    daemon.kill()
    daemon.prefix = []
    return hits(daemon, log), ended


@pytest.mark.campaign("io-errors", trials=12)
def test_writes_and_syncs_that_fail_cost_nothing_that_was_answered(make_sender, aws, rng, campaign, report, tmp_path):
    program = debian.program("strace", "strace")
    daemon = make_sender([MAIN], config=merged(SMALL, {"journal": {"segment_bytes": "256KiB"}}))
    daemon.start()
    senders = senders_for(daemon, rng, pause=0.1)
    for sender in senders:
        sender.start()
    hit, ends, fired = Counter(), 0, 0
    for each in range(campaign.trials):
        log = tmp_path / f"strace-{each}"
        daemon.kill()
        chosen = fault(rng)
        found, ended = fail_once(daemon, strace(program, daemon, log, *chosen), log)
        print(f"{chosen}: {dict(found)}{', it ended' if ended else ''}")
        hit, ends, fired = hit + found, ends + ended, fired + bool(found)
        log.unlink(missing_ok=True)
        daemon.spawn()
        daemon.wait_ready(ready_limit(daemon))
    for sender in senders:
        sender.finish()
    daemon.drain_everywhere(90)
    accepted, unanswered = outcome(senders)
    doubled = fanout.check(daemon, aws, accepted, unanswered, once=False)
    assert "panicked" not in daemon.log.read_text(errors="replace")
    assert accepted and fired, "no call ever failed"
    campaign.count(campaign.trials, fired)
    report(
        f"EIO: {fired} of {campaign.trials} faults struck, calls that failed {dict(hit)}, {ends} ends; {len(accepted)} events accepted,"
        f" none missing; doubled: {doubled}"
    )
