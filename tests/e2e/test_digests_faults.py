"""S3 fails while digests are written: each is written again with the same bytes, and the chains are whole afterwards (I5)."""

import digests
import events
import logfiles
from crashing import SMALL
from fault_proxy import KINDS, FaultProxy, is_object_put
from harness import BUCKET, TEST_CREDENTIALS, Sender, delivering_to, wait_until
from test_digests import ORGANIZATION_TRAIL, accepted_by_all, all_digested, digesting, keys_of


def is_digest_put(request):
    return is_object_put(request) and "/CloudTrail-Digest/" in request.path


def test_digests_are_written_again_byte_for_byte_through_a_storm(make_daemon, rng, seed, report):
    store = make_daemon("store", config={"trails": []}).start()
    kinds = [kind for kind in KINDS if kind not in ("silent", "slow")]
    hit = set()

    def storm(request, rng):
        if is_digest_put(request) and request.path not in hit:
            hit.add(request.path)
            return rng.choice(kinds)
        return rng.choice(kinds) if is_object_put(request) and rng.random() < 0.3 else None

    with FaultProxy(store.store_port, seed=seed, choose=storm) as proxy:
        daemon = make_daemon(config=digesting(ORGANIZATION_TRAIL) | SMALL | delivering_to(proxy.endpoint), env=TEST_CREDENTIALS).start()
        sender = Sender(daemon, lambda: events.spread(rng, 10, accounts=2, regions=2), pause=0.1)
        sender.start()
        wait_until(lambda: len(hit) >= 12 or sender.failure, 60, "a dozen digests to be struck")
        sender.finish()
        daemon.kill()
        daemon.start()
        proxy.heal()
        daemon.drain(60)
        found = all_digested(store.s3(), daemon, seconds=60)
        logfiles.check(logfiles.read(store.s3(), BUCKET), sender.accepted, sender.open)
        digests.check(found, keys_of(daemon, found))
        proxy.check_redone_bytes()
        accepted_by_all(daemon, store.store_endpoint, found)
        report(f"digests in a storm: {dict(proxy.fired)}; {len(hit)} digests struck, {len(found.digests)} there, all valid")
