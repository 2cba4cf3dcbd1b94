"""S3 fails in every way a wire can show; nothing is dropped, memory stays bounded, and all drains when it heals.

A second daemon's embedded store is the real S3 behind the proxy. One trail's dead bucket does not hold up another trail.
"""

import time

import pytest

import events
import logfiles
from fault_proxy import KINDS, FaultProxy, bucket_of
from harness import BUCKET, TEST_CREDENTIALS, WHOLE_ORGANIZATION, Sender, delivering_to, wait_until

MIB = 2**20
MEMORY_LIMIT = 256 * MIB


@pytest.fixture
def store(make_daemon):
    daemon = make_daemon("store", config={"trails": []}, buckets=(BUCKET, "other-logs"))
    return daemon.start()


def deliver_through(make_daemon, proxy, **config):
    daemon = make_daemon(config=delivering_to(proxy.endpoint) | config, env=TEST_CREDENTIALS)
    return daemon.start()


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_of_fault_for_a_while_and_then_all_drains(make_daemon, store, rng, seed, kind):
    with FaultProxy(store.store_port, seed=seed, choose=lambda request, rng: kind, delay=0.5) as proxy:
        daemon = deliver_through(make_daemon, proxy)
        sent = events.spread(rng, 60)
        daemon.send(sent)
        wait_until(lambda: proxy.fired[kind] >= 3, 45, f"three faults of kind {kind}")
        assert daemon.is_ready()
        if kind != "slow":
            metrics = daemon.metrics()
            metrics.check_books()
            assert kind == "lost" or metrics.total("traild_events_delivered_total", trail="main", sink="s3") == 0
        proxy.heal()
        # The longest pause between two tries must have an end; a silent upload must time out.
        daemon.drain(90)
        logfiles.check(logfiles.read(store.s3(), BUCKET), sent)
        proxy.check_redone_bytes()


@pytest.mark.campaign("s3-faults", trials=200)
def test_a_storm_of_all_faults_under_load(make_daemon, store, rng, seed, campaign, report):
    wanted = campaign.trials
    kinds = [kind for kind in KINDS if kind != "silent"]

    def storm(request, rng):
        return rng.choice(kinds) if rng.random() < 0.5 else None

    with FaultProxy(store.store_port, seed=seed, choose=storm, delay=0.2) as proxy:
        daemon = deliver_through(make_daemon, proxy, delivery={"max_age": "1s", "max_bytes": "64KiB"})
        sender = Sender(daemon, lambda: events.spread(rng, 20), pause=0.05)
        sender.start()
        try:
            wait_until(lambda: sum(proxy.fired.values()) >= wanted or sender.failure, 120 + wanted, f"{wanted} faults")
        finally:
            sender.finish()
        proxy.heal()
        daemon.drain(90)
        files = logfiles.read(store.s3(), BUCKET)
        logfiles.check(files, sender.accepted, sender.open)
        proxy.check_redone_bytes()
        peak = daemon.memory("VmHWM")
        assert peak < MEMORY_LIMIT, f"peak {peak / MIB:.0f} MiB"
        campaign.count(sum(proxy.fired.values()))
        report(f"storm: {dict(proxy.fired)}; {len(sender.accepted)} accepted events in {len(files)} objects, peak {peak / MIB:.0f} MiB")


def test_memory_is_bounded_while_s3_is_down(make_daemon, store, rng, seed, report):
    """60,000 events (100 MB) pile up behind an S3 that answers 503; then all of them are delivered."""
    with FaultProxy(store.store_port, seed=seed, choose=lambda request, rng: "503") as proxy:
        daemon = deliver_through(make_daemon, proxy, delivery={"max_age": "1s", "max_bytes": "4MiB"})
        sent = []
        for _ in range(120):
            batch = events.spread(rng, 500, size=1600)
            daemon.send(batch)
            sent += batch
        pending = daemon.metrics().by_trail("traild_events_pending")["main"]
        wait_until(lambda: proxy.fired["503"] >= 5, 45, "five refusals")
        peak_down = daemon.memory("VmHWM")
        proxy.heal()
        daemon.drain(120)
        peak = daemon.memory("VmHWM")
        logfiles.check(logfiles.read(store.s3(), BUCKET), sent)
        assert peak < MEMORY_LIMIT, f"peak {peak / MIB:.0f} MiB"
        report(f"S3 down: {len(sent)} events held ({pending:.0f} pending), peak {peak_down / MIB:.0f} MiB, {peak / MIB:.0f} MiB after draining")


def latencies(daemon, store, rng, bucket, times=4):
    """Seconds from the answer to the object, for single events sent one after the other."""
    s3, seconds = store.s3(), []
    for _ in range(times):
        event = events.make(rng)
        daemon.send([event])
        began = time.monotonic()
        wanted = events.event_id(event)
        seen = lambda: any(  # noqa: E731
            value["eventID"] == wanted for file in logfiles.read(s3, bucket) for _, value in file.records
        )
        wait_until(seen, 60, f"{wanted} in {bucket}")
        seconds.append(time.monotonic() - began)
    return sorted(seconds)[times // 2]


@pytest.mark.parametrize("kind", ["404", "403", "silent"])
def test_a_dead_bucket_of_one_trail_does_not_delay_another(make_daemon, store, rng, seed, kind, report):
    trails = [
        WHOLE_ORGANIZATION | {"name": "alive", "s3_bucket_name": BUCKET},
        WHOLE_ORGANIZATION | {"name": "dead", "s3_bucket_name": "other-logs"},
    ]
    with FaultProxy(store.store_port, seed=seed) as proxy:
        daemon = deliver_through(make_daemon, proxy, trails=trails)
        normal = latencies(daemon, store, rng, BUCKET)
        daemon.drain()
        proxy.choose = lambda request, rng: kind if bucket_of(request) == "other-logs" else None
        beside_a_dead_one = latencies(daemon, store, rng, BUCKET)
        assert proxy.fired[kind] > 0
        pending = daemon.metrics().by_trail("traild_events_pending")
        assert pending["dead"] >= 4
        # I9, with a floor that a busy machine needs.
        assert beside_a_dead_one < 2 * normal + 1, f"{normal:.2f} s alone, {beside_a_dead_one:.2f} s beside a dead bucket"
        proxy.heal()
        daemon.drain(90)
        both = [logfiles.read(store.s3(), bucket) for bucket in (BUCKET, "other-logs")]
        ids = [sorted(value["eventID"] for file in files for _, value in file.records) for files in both]
        assert ids[0] == ids[1] and len(set(ids[0])) == len(ids[0]) == 8
        report(f"dead bucket ({kind}): object after {normal:.2f} s alone, {beside_a_dead_one:.2f} s beside it")
