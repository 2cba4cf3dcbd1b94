"""kill -9 at any instant loses nothing and doubles nothing.

Careful clients post batches and repeat whatever was not answered, while the daemon is killed again and again: under
load, while it starts, while it uploads. Segments and files are small, so that rolling, trimming, sealing and uploading
all go on when it strikes. Once over the embedded store; once over a proxy that loses answers of finished PUTs, so that
uploads are repeated both after a crash and within a life.
"""

import pytest

import logfiles
from crashing import SMALL, kill_under_load, outcome
from fault_proxy import FaultProxy, is_object_put
from harness import BUCKET, TEST_CREDENTIALS, delivering_to


def run(daemon, rounds, rng, report):
    senders, kills = kill_under_load(daemon, rounds, rng, drain=lambda: daemon.drain(60))
    accepted, unanswered = outcome(senders)
    resent, duplicates = sum(s.resent for s in senders), sum(s.duplicates for s in senders)
    assert accepted
    report(f"{kills}; {len(accepted)} events accepted, {resent} requests repeated, {duplicates} duplicates recognised")
    return accepted, unanswered


@pytest.mark.campaign("kill", trials=20)
def test_killed_over_the_embedded_store(make_daemon, rng, campaign, report):
    daemon = make_daemon(config=SMALL)
    daemon.start()
    accepted, unanswered = run(daemon, campaign.trials, rng, report)
    files = logfiles.read(daemon.s3(), BUCKET)
    present = logfiles.check(files, accepted, unanswered)
    campaign.count(campaign.trials)
    report(f"embedded store: {len(files)} objects, each accepted event once, {present} of {len(unanswered)} unanswered ones there")


@pytest.mark.campaign("kill", trials=10)
def test_killed_over_a_wire_that_loses_answers(make_daemon, rng, campaign, report):
    store = make_daemon("store", config={"trails": []})
    store.start()

    def lose_some(request, rng):
        return "lost" if is_object_put(request) and rng.random() < 0.3 else None

    with FaultProxy(store.store_port, seed=rng.random(), choose=lose_some) as proxy:
        daemon = make_daemon(
            "traild",
            config=SMALL | delivering_to(proxy.endpoint),
            env=TEST_CREDENTIALS,
        )
        daemon.start()
        accepted, unanswered = run(daemon, campaign.trials, rng, report)
        files = logfiles.read(store.s3(), BUCKET)
        present = logfiles.check(files, accepted, unanswered)
        keys = proxy.check_redone_bytes()
        assert proxy.fired["lost"] > 0
        campaign.count(campaign.trials)
        report(
            f"lossy wire: {proxy.fired['lost']} lost answers, {len(files)} objects, {keys} keys each written with one content,"
            f" each accepted event once, {present} of {len(unanswered)} unanswered ones there"
        )
