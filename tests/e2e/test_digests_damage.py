"""I5 when the journal is damaged between an upload and the moment that its outcome is written down."""

import json

import pytest

import digests
import events
from digests import OWN_TRAIL, all_digested, digesting, keys_of
from fault_proxy import FaultProxy, is_object_put
from harness import TEST_CREDENTIALS, delivering_to, wait_until
from judges import accepted_by_all


def damage(daemon, sent):
    """Flips a bit in the eventID of each of these events, in the journal: returns how many were found."""
    hits = 0
    for path in (daemon.data_dir / "journal").rglob("*"):
        if path.is_file():
            data = bytearray(path.read_bytes())
            places = [data.find(json.loads(event)["eventID"].encode()) for event in sent]
            for place in places:
                if place >= 0:
                    data[place] ^= 1
                    hits += 1
            path.write_bytes(data)
    return hits


@pytest.mark.parametrize("damaged", [1, 6], ids=["one", "all"])
def test_a_digest_says_what_was_delivered_before_events_were_lost_from_the_journal(make_daemon, rng, seed, damaged):
    store = make_daemon("store", config={"trails": []}).start()
    mode = {"now": "lost"}

    def once_lost_then_down(request, rng):
        """The first log file reaches the store, and nobody hears of it."""
        fault = mode["now"]
        if fault == "lost":
            if not is_object_put(request) or "/CloudTrail/" not in request.path:
                return "503"
            mode["now"] = "503"
        return fault

    with FaultProxy(store.store_port, seed=seed, choose=once_lost_then_down) as proxy:
        daemon = make_daemon(config=digesting(OWN_TRAIL) | delivering_to(proxy.endpoint), env=TEST_CREDENTIALS).start()
        sent = events.make_many(rng, 6)
        daemon.send(sent)
        wait_until(lambda: proxy.fired["lost"] and proxy.fired["503"], 20, "an upload in doubt")
        daemon.kill()
        assert damage(daemon, sent[:damaged]) == damaged
        mode["now"] = None
        daemon.start()
        found = all_digested(store.s3(), daemon, more_than=1)
        (log,) = found.logs.values()
        assert len(json.loads(log)["Records"]) == len(sent), "what was delivered is kept, and nothing is written twice"
        digests.check(found, keys_of(daemon, found))
        accepted_by_all(daemon, store.store_endpoint, found, OWN_TRAIL)
        assert "it is kept" in daemon.log_tail(200)
