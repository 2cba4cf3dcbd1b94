"""Everything at once: S3 fails, the daemon is killed and stopped, the clock is set, clients post. Digests that are put again are put
with the same bytes, and the chains are whole afterwards (I5). `--trials` says how long it goes on.
"""

import time

import pytest

import digests
import logfiles
from crashing import SMALL, outcome, senders_for
from fault_proxy import FaultProxy, is_object_put
from harness import BUCKET, TEST_CREDENTIALS, delivering_to
from digests import ORGANIZATION_TRAIL, all_digested, digesting, keys_of
from judges import accepted_by_all

FAULTS = ["500", "503", "403", "404", "reset", "lost"]
JUMPS = [-60, -5, -1, 1, 10, 60]  # seconds


def is_digest_put(request):
    return is_object_put(request) and "/CloudTrail-Digest/" in request.path


def strike(daemon, wall_clock, rng):
    """Does one thing to the daemon, and says what."""
    what = rng.choice(["kill", "kill", "kill and jump", "stop", "jump"])
    if what == "stop":
        daemon.wait_ready()
        daemon.stop()
    elif what.startswith("kill"):
        daemon.kill()
    if what.endswith("jump"):
        seconds = rng.choice(JUMPS)
        wall_clock.jump(seconds=seconds)
        what = f"{what} {seconds:+} s"
    if not daemon.running():
        daemon.spawn()
    time.sleep(rng.uniform(0, 1.5))
    return what


@pytest.mark.campaign("clock", trials=8)
def test_chains_are_whole_after_faults_kills_and_jumps_together(make_daemon, wall_clock, rng, seed, campaign, report):
    store = make_daemon("store", config={"trails": []}).start()
    struck = {}

    def storm(request, rng):
        """Each digest's first PUT fails, and so does a third of the others."""
        if is_digest_put(request):
            struck[request.path] = struck.get(request.path, 0) + 1
        first = struck.get(request.path) == 1
        return rng.choice(FAULTS) if is_object_put(request) and (first or rng.random() < 0.3) else None

    with FaultProxy(store.store_port, seed=seed, choose=storm) as proxy:
        config = digesting(ORGANIZATION_TRAIL) | SMALL | delivering_to(proxy.endpoint)
        daemon = make_daemon(config=config, env=TEST_CREDENTIALS | wall_clock.env).start()
        senders = senders_for(daemon, rng, 0.1, accounts=2, regions=1)
        for sender in senders:
            sender.start()
        time.sleep(2)
        history = [strike(daemon, wall_clock, rng) for _ in range(campaign.trials)]
        print(", ".join(history))
        daemon.wait_ready()
        for sender in senders:
            sender.finish()
        proxy.heal()
        daemon.drain(60)
        found = all_digested(store.s3(), daemon, seconds=90)
        accepted, unanswered = outcome(senders)
        logfiles.check(logfiles.read(store.s3(), BUCKET), accepted, unanswered)
        digests.check(found, keys_of(daemon, found))
        proxy.check_redone_bytes()
        assert max(struck.values()) > 1, "no digest was put twice"
        newest = max(digest.end for digest in found.digests)
        accepted_by_all(daemon, store.store_endpoint, found, env=wall_clock.env, end=newest)
        twice = sum(times > 1 for times in struck.values())
        campaign.count(len(history))
        report(f"together: {dict(proxy.fired)}; {len(history)} blows; {twice} of {len(found.digests)} digests put again, all valid")
