"""SNS, CloudWatch Logs and EventBridge fail in every way a wire can show: nothing is missing afterwards, each fault stays its own
trail's and destination's, and a record that is refused for good leaves its neighbours alone and its reason behind.
"""

import json
import re
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest

import events
import fanout
import logfiles
from crashing import SMALL, kill_under_load, outcome
from fake_aws import BUS, GROUP, KINDS, REGION, ROLE, TOPIC, Key
from fanout import MAIN
from harness import BUCKET, Sender, merged, wait_until

MIB = 2**20
MEMORY_LIMIT = 256 * MIB
SINKS = {"sns": "sns", "logs": "logs", "events": "bus"}  # as the service and as the metrics have it
SMALL_FILES = {"delivery": {"max_age": "500ms", "max_bytes": "64KiB"}}


@pytest.mark.campaign("partial-failures", trials=120)
def test_a_storm_of_all_faults_under_load(make_sender, aws, rng, campaign, report):
    """Only what failed is sent again: the fake knows what it has answered for."""
    wanted = campaign.trials
    aws.delay = 0.2
    hung = set()

    def storm(call, rng):
        if call.service not in hung and aws.calls[call.operation, call.target] > 3:
            hung.add(call.service)
            return "silent"  # once each: only the client's patience ends it
        kinds = [kind for kind in KINDS if kind != "silent"] + ["partial"] * (3 if call.operation == "PutEvents" else 0)
        return rng.choice(kinds) if rng.random() < 0.4 else None

    def every_kind_has_fired():
        return all(aws.fired_by_service[service, kind] for service in SINKS for kind in KINDS) and aws.fired["partial"]

    daemon = make_sender([MAIN], config=SMALL_FILES).start()
    aws.choose = storm
    sender = Sender(daemon, lambda: events.spread(rng, 10), pause=0.05)
    sender.start()
    try:
        wait_until(lambda: (sum(aws.fired.values()) >= wanted and every_kind_has_fired()) or sender.failure, 120 + wanted, f"{wanted} faults: {aws.fired_by_service}")
    finally:
        sender.finish()
    metrics = daemon.metrics()
    for sink in SINKS.values():
        assert metrics.total("traild_delivery_errors_total", trail="main", sink=sink) > 0
    assert metrics.total("traild_delivery_errors_total", trail="main", sink="s3") == 0
    aws.heal()
    daemon.drain_everywhere(90)
    answers_lost = fanout.check(daemon, aws, sender.accepted, sender.open, once=False)
    aws.check_nothing_sent_again()
    assert daemon.dead_letters() == []
    peak = daemon.memory("VmHWM")
    assert peak < MEMORY_LIMIT, f"peak {peak / MIB:.0f} MiB"
    campaign.count(sum(aws.fired.values()))
    report(
        f"storm: {sum(aws.fired.values())} faults {dict(aws.fired)}; {len(sender.accepted)} events, none missing; sent twice for want of"
        f" the answer: {answers_lost}, peak {peak / MIB:.0f} MiB"
    )


def test_a_record_that_is_refused_is_dead_lettered_alone_and_can_be_replayed(make_sender, aws, rng):
    daemon = make_sender([MAIN]).start()
    sent = events.make_many(rng, 40)
    poisoned = events.event_id(sent[17])
    elsewhere = events.make(rng, account="999988887777")
    aws.poison = {poisoned, "_999988887777_", "/999988887777/"}
    daemon.send([*sent, elsewhere])
    metrics = daemon.drain_everywhere()
    neighbours = fanout.event_ids([*sent[:17], *sent[18:], elsewhere])
    assert fanout.event_ids(aws.logged()) == neighbours == fanout.event_ids(aws.on_bus())
    assert len(aws.notifications()) == len(logfiles.read(daemon.s3(), BUCKET)) - 1

    for sink in SINKS.values():
        assert metrics.total("traild_events_dead_lettered_total", trail="main", sink=sink, reason="refused") == 1, sink
        assert daemon.sink_status(sink)["dead_lettered"] == 1
    letters = {letter["sink"]: letter for letter in daemon.dead_letters()}
    assert len(daemon.dead_letters()) == 3 and set(letters) == set(SINKS.values())
    for sink, letter in letters.items():
        assert (letter["trail"], letter["reason"], letter["events"]) == ("main", "refused", 1)
        assert letter["message"], letter
        assert datetime.fromisoformat(letter["at"]).tzinfo, letter
        if sink != "sns":
            assert letter["body"] == json.loads(sent[17])
    assert "999988887777" in letters["sns"]["body"]["s3ObjectKey"][0]

    assert daemon.dlq("replay")[0] == 0  # too early: they are refused again, and stay
    wait_until(lambda: len(daemon.dead_letters()) == 3 and not handed_back(daemon), 30, "the letters to come back")
    aws.poison.clear()
    code, out, err = daemon.dlq("replay")
    assert code == 0, err
    wait_until(lambda: not daemon.dead_letters() and not handed_back(daemon), 30, "the letters to be delivered")
    daemon.drain_everywhere()
    fanout.check(daemon, aws, [*sent, elsewhere])


def handed_back(daemon):
    return list(daemon.data_dir.glob("dead-letters/*.replay-*"))


@pytest.mark.parametrize(("fault", "reason"), [("too_new", "too_new"), ("too_old", "too_old"), ("expired_events", "expired")])
def test_a_log_event_that_is_rejected_is_dead_lettered_with_the_reason(make_sender, aws, rng, fault, reason):
    daemon = make_sender([MAIN]).start()
    sent = events.make_many(rng, 20)
    once = []

    def reject_once(call, _rng):
        if call.operation == "PutLogEvents" and not once and (REGION, GROUP, fanout.STREAM) in aws.streams:
            once.append(call)
            return fault
        return None

    aws.choose = reject_once
    daemon.send(sent)
    metrics = daemon.drain_everywhere()
    [rejected] = fanout.event_ids(aws.rejected_log_events[fault])
    assert metrics.total("traild_events_dead_lettered_total", sink="logs", reason=reason) == 1
    assert metrics.total("traild_events_dead_lettered_total") == 1
    fanout.check(daemon, aws, [event for event in sent if events.event_id(event) != rejected], sent)
    [letter] = daemon.dead_letters()
    assert (letter["sink"], letter["reason"], letter["body"]["eventID"]) == ("logs", reason, rejected)


class Lags(threading.Thread):
    """Posts events at an even pace, and tells how long each took to S3, the log group and the bus of each trail."""

    def __init__(self, daemon, aws, trails, rng):
        super().__init__(daemon=True)
        self.to, self.aws, self.trails, self.rng = daemon, aws, trails, rng
        self.posted, self.seen = {}, {}  # eventID: time; (bucket, eventID): time
        self.keys = {}  # (bucket, key): when it was seen
        self.stopping = threading.Event()
        self.sender = Sender(daemon, self.batch, pause=0.1)

    def batch(self):
        made = events.make_many(self.rng, 5)
        now = time.monotonic()
        self.posted |= {events.event_id(event): now for event in made}
        return made

    def run(self):
        self.sender.start()
        s3 = self.to.s3()
        while not self.stopping.is_set():
            for trail in self.trails:
                self.look(s3, trail["s3_bucket_name"])
            time.sleep(0.05)

    def look(self, s3, bucket):
        # Names go on with time, in steps of five minutes: what is far older than that need not be listed again.
        old = time.monotonic() - 660
        after = max((key for (of, key), at in self.keys.items() if of == bucket and at < old), default="")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, StartAfter=after)
        for item in (item for page in pages for item in page.get("Contents", [])):
            if (bucket, item["Key"]) in self.keys or logfiles.is_digest(item["Key"]):
                continue
            now = time.monotonic()
            self.keys[bucket, item["Key"]] = now
            file = logfiles.parse(item["Key"], s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())
            self.seen |= {(bucket, value["eventID"]): now for _, value in file.records}

    def finish(self):
        self.sender.finish()
        time.sleep(2)
        self.stopping.set()
        self.join(60)
        return self.sender

    def medians(self, begin, end):
        """Of the events posted in that time: trail and sink to the median of their seconds."""
        asked = [event_id for event_id, at in self.posted.items() if begin <= at < end]
        answer = {}
        for trail in self.trails:
            name, group = trail["name"], trail["cloud_watch_logs_log_group_arn"].split(":")[6]
            logged = [d for (of, _), deliveries in list(self.aws.log_events.items()) if of == group for d in list(deliveries)]
            arrived = {
                "s3": {event_id: at for (bucket, event_id), at in self.seen.items() if bucket == trail["s3_bucket_name"]},
                "logs": {d.value["eventID"]: d.at for d in logged},
                "bus": {d.value["eventID"]: d.at for d in list(self.aws.entries[trail["event_bus"]])},
            }
            for sink, times in arrived.items():
                missing = [event_id for event_id in asked if event_id not in times]
                assert not missing, f"{len(missing)} of {len(asked)} events have not reached {sink} of {name}"
                lags = sorted(times[event_id] - self.posted[event_id] for event_id in asked)
                answer[name, sink] = lags[len(lags) // 2]
        return answer


@pytest.mark.campaign("silent-destination", trials=21)
def test_a_topic_that_never_answers_delays_nothing_else(make_sender, aws, rng, campaign, report):
    """I9 and I7, over as many seconds of silence as there are trials; and the daemon still ends at once."""
    other = fanout.trail_of_its_own(aws, "other")
    daemon = make_sender([MAIN, other]).start()
    lags = Lags(daemon, aws, [MAIN, other], rng)
    lags.start()
    time.sleep(8)
    memory_before = daemon.memory()
    silence = time.monotonic()
    aws.choose = lambda call, rng: "silent" if call.target == TOPIC else None
    time.sleep(campaign.trials)
    memory_during = daemon.memory()
    told_others = len(aws.notifications(other["sns_topic_arn"]))
    metrics = daemon.metrics()
    sender = lags.finish()
    normal, beside = lags.medians(silence - 7, silence - 2), lags.medians(silence + 1, silence + campaign.trials - 1)
    for leg, lag in beside.items():
        assert lag < 2 * normal[leg] + 0.5, f"{leg}: {normal[leg]:.2f} s normally, {lag:.2f} s beside a topic that is silent"
    assert metrics.of_leg("pending", ("main", "sns")) > 0
    assert told_others >= 10 and metrics.of_leg("pending", ("other", "sns")) < metrics.of_leg("pending", ("main", "sns"))
    assert aws.fired["silent"] >= 1
    assert metrics.total("traild_delivery_errors_total", trail="main", sink="sns", code="Timeout") > 0
    assert metrics.total("traild_oldest_pending_seconds", trail="main", sink="sns") > 15
    assert memory_during < memory_before + 24 * MIB, f"{memory_before / MIB:.0f} MiB before, {memory_during / MIB:.0f} MiB during"
    code, seconds = daemon.stop()
    assert code == 0 and seconds < 1.5, f"exit {code} after {seconds:.2f} s"
    aws.heal()
    daemon.start()
    daemon.drain_everywhere()
    fanout.check(daemon, aws, sender.accepted, sender.open)
    fanout.check(daemon, aws, sender.accepted, sender.open, trail=other)
    campaign.count(campaign.trials, aws.fired["silent"])
    show = {f"{trail}/{sink}": f"{normal[trail, sink]:.2f}→{lag:.2f}" for (trail, sink), lag in beside.items()}
    report(
        f"silent topic: lag {show}; memory {memory_before / MIB:.0f}→{memory_during / MIB:.0f} MiB; exit after {seconds:.2f} s"
    )


MISSING = {
    "sns": (lambda aws: aws.topics, TOPIC, "NotFound"),
    "logs": (lambda aws: aws.groups, (REGION, GROUP), "ResourceNotFoundException"),
    "bus": (lambda aws: aws.buses, (REGION, BUS), "ResourceNotFoundException"),
}


@pytest.mark.parametrize("sink", MISSING)
def test_a_destination_that_does_not_exist_is_told_and_gets_everything_once_it_does(make_sender, aws, rng, sink):
    """PutEvents to a bus that does not exist answers success; it must not be believed."""
    places, place, code = MISSING[sink][0](aws), *MISSING[sink][1:]
    places.discard(place)
    daemon = make_sender([MAIN]).start()
    sent = events.spread(rng, 60)
    daemon.send(sent)
    error = wait_until(lambda: daemon.sink_status(sink)["last_error"], 20, f"an error of {sink}")
    name = {"sns": TOPIC, "logs": GROUP, "bus": BUS}[sink]
    assert error["code"] == code and name in error["message"], error
    wait_until(lambda: daemon.metrics().of_leg("delivered_total", ("main", "s3")) == len(sent), 20, "S3 to have everything")
    metrics = daemon.metrics()
    assert metrics.of_leg("delivered_total", ("main", sink)) == 0
    assert metrics.total("traild_delivery_errors_total", trail="main", sink=sink, code=code) > 0
    metrics.check_books()
    places.add(place)
    daemon.drain_everywhere()
    fanout.check(daemon, aws, sent)
    assert daemon.sink_status(sink)["last_error"] is None
    assert sink == "bus" or not aws.dropped
    assert daemon.dead_letters() == []


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_bus_that_is_made_just_before_a_question_has_lost_nothing(make_sender, aws, rng, nth):
    """What it swallowed before must not count as delivered because it is there when one asks."""
    aws.buses.discard((REGION, BUS))
    asked = []

    def make_it(call, _rng):
        if call.operation == "DescribeEventBus":
            asked.append(call)
            if len(asked) == nth:
                aws.buses.add((REGION, BUS))

    aws.choose = make_it
    daemon = make_sender([MAIN]).start()
    sent = events.make_many(rng, 25)
    daemon.send(sent)
    wait_until(lambda: len(asked) >= nth, 30, "questions for the bus")
    daemon.drain_everywhere()
    fanout.check(daemon, aws, sent)


def test_credentials_that_expired_are_fetched_anew(make_sender, aws, rng, tmp_path):
    """A profile's credential_process gives out what a file holds. The old ones are refused long before their stated end."""
    holder, script, profile = tmp_path / "credentials.json", tmp_path / "credentials.py", tmp_path / "aws-config"
    script.write_text(f"print(open({str(holder)!r}).read())\n")
    profile.write_text(f"[default]\nregion = {REGION}\ncredential_process = {sys.executable} {script}\n")

    def issue(access_key):
        aws.keys[access_key] = Key(access_key, token=f"token-of-{access_key}")
        end = (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        temporary = {"SessionToken": f"token-of-{access_key}", "Expiration": end}
        new = {"Version": 1, "AccessKeyId": access_key, "SecretAccessKey": "secret"} | temporary
        (tmp_path / "new").write_text(json.dumps(new))
        (tmp_path / "new").rename(holder)

    issue("ASIAFIRST")
    daemon = make_sender([MAIN], env={"AWS_CONFIG_FILE": str(profile)}).start()
    sent = events.make_many(rng, 10)
    daemon.send(sent)
    daemon.drain_everywhere()
    aws.expire("ASIAFIRST")
    more = events.make_many(rng, 10)
    daemon.send(more)
    for sink in SINKS.values():
        error = wait_until(lambda: daemon.sink_status(sink)["last_error"], 20, f"an error of {sink}")
        assert re.fullmatch("ExpiredToken(Exception)?", error["code"]), error
    issue("ASIASECOND")
    daemon.drain_everywhere()
    fanout.check(daemon, aws, sent + more)
    aws.check_nothing_sent_again()
    by = {delivery.by for deliveries in [*aws.log_events.values(), *aws.entries.values(), *aws.messages.values()] for delivery in deliveries}
    assert by == {"ASIAFIRST", "ASIASECOND"}
    assert daemon.dead_letters() == []


def test_a_role_whose_credentials_expired_is_assumed_again(make_sender, aws, rng):
    aws.roles.add(ROLE)
    daemon = make_sender([MAIN | {"cloud_watch_logs_role_arn": ROLE}]).start()
    sent = events.make_many(rng, 10)
    daemon.send(sent)
    daemon.drain_everywhere()
    aws.expire(ROLE)
    more = events.make_many(rng, 10)
    daemon.send(more)
    daemon.drain_everywhere()
    fanout.check(daemon, aws, sent + more)
    assert aws.calls["AssumeRole", ROLE] >= 2
    assert {delivery.by for deliveries in aws.log_events.values() for delivery in deliveries} == {ROLE}


def test_a_role_that_may_not_be_assumed_is_told_and_waited_for(make_sender, aws, rng):
    daemon = make_sender([MAIN | {"cloud_watch_logs_role_arn": ROLE}]).start()
    sent = events.make_many(rng, 10)
    daemon.send(sent)
    error = wait_until(lambda: daemon.sink_status("logs")["last_error"], 20, "an error of logs")
    assert "AssumeRole" in error["message"] or ROLE in error["message"], error
    aws.roles.add(ROLE)
    daemon.drain_everywhere()
    fanout.check(daemon, aws, sent)


def test_a_dead_log_group_is_cut_off_before_it_fills_the_journal(make_sender, aws, rng, report):
    aws.groups.discard((REGION, GROUP))
    limit = 8 * MIB
    journal = {"max_bytes": "8MiB", "segment_bytes": "256KiB"}
    daemon = make_sender([MAIN], config={"journal": journal, "delivery": {"max_age": "500ms"}}).start()
    sender = Sender(daemon, lambda: events.spread(rng, 5, size=20_000), pause=0.15)
    sender.start()
    wait_until(lambda: len(sender.accepted) * 20_000 > 1.5 * limit or sender.failure, 60, "more events than the journal holds")
    sender.finish()
    assert set(sender.statuses) == {200}, sender.statuses
    wait_until(lambda: daemon.metrics().of_leg("delivered_total", ("main", "s3")) >= len(sender.accepted), 30, "S3 to have everything")
    metrics = wait_until(lambda: cut_off(daemon.metrics()) and daemon.metrics(), 30, "the log group to be cut off")
    metrics.check_books()
    lost = cut_off(metrics)
    gaps = [letter for letter in daemon.dead_letters() if letter["reason"] == "cut_off"]
    assert {(gap["trail"], gap["sink"]) for gap in gaps} == {("main", "logs")}, "another leg was cut off, too"
    assert all(gap["from"] < gap["to"] for gap in gaps)
    assert sum(gap["events"] for gap in gaps) == lost
    journal = sum(path.stat().st_size for path in (daemon.data_dir / "journal").rglob("*") if path.is_file())
    assert journal <= limit, f"{journal / MIB:.1f} MiB of journal"
    aws.groups.add((REGION, GROUP))
    later = events.spread(rng, 30)
    daemon.send(later)
    daemon.drain_everywhere()
    accepted = sender.accepted + later
    arrived = fanout.event_ids(aws.logged())
    never = set(fanout.event_ids(accepted)) - set(arrived)
    assert set(fanout.event_ids(later)) <= set(arrived) and set(arrived.values()) == {1}
    assert cut_off(daemon.metrics()) == len(never)
    logfiles.check(logfiles.read(daemon.s3(), BUCKET), accepted, sender.open)
    assert fanout.event_ids(aws.on_bus()) == fanout.event_ids(accepted)
    assert len(aws.notifications()) == len(logfiles.read(daemon.s3(), BUCKET))
    report(f"dead log group: {len(accepted)} events through a journal of 8 MiB, {len(never)} cut off and counted, {len(gaps)} gaps told")


def cut_off(metrics):
    return metrics.total("traild_events_dead_lettered_total", trail="main", sink="logs", reason="cut_off")


@pytest.mark.campaign("kill", trials=10)
def test_killed_again_and_again_nothing_is_missing_anywhere(make_sender, aws, rng, campaign, report):
    daemon = make_sender([MAIN], config=merged(SMALL, {"journal": {"segment_bytes": "1MiB"}}))
    daemon.start()
    senders, kills = kill_under_load(daemon, campaign.trials, rng, drain=lambda: daemon.drain_everywhere(90), pause=0.08)
    accepted, unanswered = outcome(senders)
    doubled = fanout.check(daemon, aws, accepted, unanswered, once=False)
    assert accepted and daemon.dead_letters() == []
    campaign.count(campaign.trials)
    report(
        f"{kills}; {len(accepted)} events accepted, none missing; doubled: {doubled}"
    )
