"""Stopping is quick and loses nothing; SIGHUP takes a good configuration and refuses a bad one."""

import time

import pytest

import events
import logfiles
from harness import BUCKET, WHOLE_ORGANIZATION, Sender, ensure_bucket, wait_until


@pytest.mark.campaign("sigterm", trials=10)
def test_sigterm_under_load_ends_within_a_second(make_daemon, rng, campaign, report):
    daemon = make_daemon()
    accepted, unanswered, times = [], [], []
    for _ in range(campaign.trials):
        daemon.start()
        senders = [Sender(daemon, lambda: events.spread(rng, 50)) for _ in range(4)]
        for sender in senders:
            sender.start()
        time.sleep(rng.uniform(0.1, 0.6))
        code, seconds = daemon.stop()
        for sender in senders:
            sender.finish()
            accepted += sender.accepted
            unanswered += sender.open
        assert code == 0
        times.append(seconds)
    assert max(times) <= 1.5, times  # a second after the last fsync, and this machine's noise
    daemon.start()
    daemon.drain(60)
    logfiles.check(logfiles.read(daemon.s3(), BUCKET), accepted, unanswered)
    campaign.count(campaign.trials)
    report(f"SIGTERM under load: {len(times)} stops in {min(times):.2f}-{max(times):.2f} s, {len(accepted)} accepted events")


def test_open_batches_are_uploaded_on_stop_if_asked(make_daemon, rng):
    daemon = make_daemon(config={"delivery": {"max_age": "1h", "flush_on_stop": True, "stop_timeout": "10s"}})
    daemon.start()
    sent = events.make_many(rng, 20)
    daemon.send(sent)
    code, _ = daemon.stop(15)
    assert code == 0
    daemon.start()
    logfiles.check(logfiles.read(daemon.s3(), BUCKET), sent)


def test_a_good_configuration_is_taken_up_on_sighup(daemon, rng):
    second = WHOLE_ORGANIZATION | {"name": "second", "s3_bucket_name": "second-logs"}
    ensure_bucket(daemon.s3(), "second-logs")
    daemon.write_config(daemon.config | {"trails": [WHOLE_ORGANIZATION, second]})
    daemon.hang_up()

    def taken_up():
        try:
            return "second" in daemon.metrics().by_trail("traild_events_routed_total")
        except OSError:  # the listeners are opened anew, so for a moment nobody is there
            return False

    wait_until(taken_up, 10, "the new trail's series")
    sent = events.make_many(rng, 5)
    daemon.send(sent)
    daemon.drain()
    for bucket in (BUCKET, "second-logs"):
        logfiles.check(logfiles.read(daemon.s3(), bucket), sent)


def test_a_bad_configuration_is_refused_on_sighup_and_the_old_one_goes_on(daemon, rng):
    before = len(daemon.log.read_bytes())
    daemon.config_file.write_text(daemon.config_file.read_text() + '\n[delivery_]\nmax_agee = "1s"\n')
    daemon.hang_up()
    said = wait_until(lambda: b"delivery_" in daemon.log.read_bytes()[before:], 10, "the refusal in the log")
    assert said and daemon.running() and daemon.is_ready()
    sent = events.make_many(rng, 5)
    daemon.send(sent)
    daemon.drain()
    logfiles.check(logfiles.read(daemon.s3(), BUCKET), sent)
