"""Chains of digests that a real daemon made, held against its bucket, the unmodified AWS CLI and `traild verify`."""

import time

import pytest

import digests
import events
import logfiles
from crashing import SMALL, kill_under_load, outcome
from digests import HOME, ORGANIZATION_TRAIL, OWN_TRAIL, all_digested, beginning, digesting, keys_of
from harness import BUCKET, TEST_CREDENTIALS, delivering_to, ensure_bucket, s3_client, wait_until
from judges import accepted_by_all, judge_all, verify

OTHER_BUCKET = "later-logs"


# Under load, with kills.


def run_with_kills(daemon, s3, bucket, rng, campaign, report):
    senders, kills = kill_under_load(daemon, campaign.trials, rng, lambda: daemon.drain(60), pause=0.05, accounts=2, regions=3)
    accepted, unanswered = outcome(senders)
    logfiles.check(logfiles.read(s3, bucket), accepted, unanswered)
    found = all_digested(s3, daemon, [bucket], more_than=2)
    assert len(found.sources()) == 6, found.sources()
    digests.check(found, keys_of(daemon, found))
    accepted_by_all(daemon, s3.meta.endpoint_url, found, buckets=[bucket])
    campaign.count(campaign.trials)
    most = max(len(found.of(source)) for source in found.sources())
    report(f"{kills}; {len(found.logs)} log files in {len(found.digests)} digests, up to {most} in a row, all valid")


@pytest.mark.campaign("kill", trials=6)
def test_chains_of_an_organization_are_valid_after_kills_under_load(make_daemon, rng, campaign, report):
    daemon = make_daemon(config=digesting(ORGANIZATION_TRAIL) | SMALL).start()
    run_with_kills(daemon, daemon.s3(), BUCKET, rng, campaign, report)


@pytest.mark.campaign("kill", trials=6)
def test_chains_in_localstacks_s3_are_valid_after_kills_under_load(make_daemon, localstack, rng, campaign, report):
    s3, bucket = s3_client(localstack), f"chains-{rng.getrandbits(48):012x}"
    ensure_bucket(s3, bucket)
    config = digesting(ORGANIZATION_TRAIL | {"s3_bucket_name": bucket}) | SMALL | delivering_to(localstack)
    daemon = make_daemon(config=config, env=TEST_CREDENTIALS).start()
    run_with_kills(daemon, s3, bucket, rng, campaign, report)


# A life with stops and changes.


def test_an_own_trails_chain_goes_on_after_a_stop_and_makes_up_for_missed_windows(make_daemon, rng):
    trail = OWN_TRAIL | {"s3_key_prefix": "audit/logs"}
    daemon = make_daemon(config=digesting(trail, "1s")).start()
    daemon.send(events.make_many(rng, 5))
    daemon.drain()
    before = all_digested(daemon.s3(), daemon, more_than=1)
    first = before.of(HOME)[0]
    assert [first.value[field] for field in digests.FIELDS[9:14]] == [None] * 5, first.value
    assert daemon.stop()[0] == 0
    time.sleep(3)
    daemon.start()
    daemon.send(events.make_many(rng, 5))
    daemon.drain()
    after = all_digested(daemon.s3(), daemon, more_than=len(before.of(HOME)) + 3)
    digests.check(after, keys_of(daemon, after))
    chain = after.of(HOME)
    kept = [(digest.key, digest.body) for digest in before.of(HOME)]
    assert [(digest.key, digest.body) for digest in chain][: len(kept)] == kept
    empty = [digest.value for digest in chain if not digest.value["logFiles"]]
    assert empty and {(value["newestEventTime"], value["oldestEventTime"]) for value in empty} == {(None, None)}
    accepted_by_all(daemon, daemon.store_endpoint, after, trail)


def test_switching_validation_off_ends_the_chain_and_on_again_begins_a_new_one(make_daemon, rng):
    on, off = digesting(OWN_TRAIL, "2s"), digesting(OWN_TRAIL | {"enable_log_file_validation": False}, "2s")
    daemon = make_daemon(config=on).start()
    daemon.send(events.make_many(rng, 3))
    daemon.drain()
    first = all_digested(daemon.s3(), daemon)
    assert "traild_digest_covered_until_seconds" in daemon.metrics().names()
    change(daemon, off)
    daemon.send(events.make_many(rng, 3))
    daemon.drain()
    time.sleep(2.5)
    daemon.send(events.make_many(rng, 3))
    daemon.drain()
    time.sleep(1.1)  # S3 knows seconds, and these files are of the time that the new chain's first digest covers in name
    ended = digests.read(daemon.s3())
    unproven = ended.undigested()
    assert unproven and len(ended.digests) > len(first.digests), "there is a final digest, and none of what came later"
    assert "traild_digest_covered_until_seconds" not in daemon.metrics().names(), "what has ended is not late"
    change(daemon, on)
    daemon.send(events.make_many(rng, 3))
    daemon.drain()
    s3 = daemon.s3()
    wait_until(lambda: digests.read(s3).undigested() == unproven, 20, "the new chain to have the new log files")
    found = digests.read(s3)
    proven = {key: body for key, body in found.logs.items() if key not in unproven}
    digests.check(digests.Holding(found.digests, proven), keys_of(daemon, found), restarts=1)
    verdict = judge_all(daemon, daemon.store_endpoint, [HOME], beginning(found), of_organization=False)[HOME]
    assert verdict.code == 0 and "No log files were delivered by CloudTrail between" in verdict.err, verdict
    assert verdict.counts("digest")[0] == verdict.counts("digest")[1] >= len(found.digests), verdict
    # It is the time in between that has no digests, and that is no fault.
    verified = verify(daemon, daemon.store_endpoint)
    assert verified.code == 0 and "of times that no digest file covers" in verified.out, verified


def change(daemon, config):
    """Restarts it with another configuration."""
    assert daemon.stop()[0] == 0
    daemon.write_config(daemon.config | config)
    daemon.start()


def test_a_chain_goes_on_into_another_bucket_and_with_another_key(make_daemon, rng):
    daemon = make_daemon(config=digesting(OWN_TRAIL, "2s"), buckets=(BUCKET, OTHER_BUCKET)).start()
    daemon.send(events.make_many(rng, 3))
    daemon.drain()
    all_digested(daemon.s3(), daemon)
    for lost in daemon.data_dir.glob("keys/*.private.der"):
        lost.unlink()
    change(daemon, digesting(OWN_TRAIL | {"s3_bucket_name": OTHER_BUCKET}, "2s"))
    daemon.send(events.make_many(rng, 3))
    daemon.drain()
    wait_until(lambda: digests.read(daemon.s3(), OTHER_BUCKET).named(), 20, "a log file in a digest of the other bucket")
    found = all_digested(daemon.s3(), daemon, [BUCKET, OTHER_BUCKET])
    digests.check(found, keys_of(daemon, found))
    across = [digest for digest in found.of(HOME) if digest.value["previousDigestS3Bucket"] not in (None, digest.bucket)]
    assert [digest.bucket for digest in across] == [OTHER_BUCKET]
    assert len({digest.value["digestPublicKeyFingerprint"] for digest in found.digests}) == 2
    accepted_by_all(daemon, daemon.store_endpoint, found, OWN_TRAIL, [BUCKET, OTHER_BUCKET])
    remove_bucket(daemon.s3(), BUCKET)
    verified = verify(daemon, daemon.store_endpoint, bucket=OTHER_BUCKET)
    assert verified.code == 1 and f"s3://{BUCKET}/" in verified.out and "not found" in verified.out, verified
    assert "could not verify" not in verified.err, verified


def remove_bucket(s3, bucket):
    for item in s3.list_objects_v2(Bucket=bucket)["Contents"]:
        s3.delete_object(Bucket=bucket, Key=item["Key"])
    s3.delete_bucket(Bucket=bucket)
