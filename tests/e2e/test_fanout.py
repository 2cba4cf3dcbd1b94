"""Each destination of a trail gets each event that the trail selects, and the topic the news of each object: once, when nothing fails.

Against the fake AWS, which holds the daemon to AWS's limits and rules; real emulators are in test_fanout_localstack.py.
"""

import json
import time

import pytest

import events
import fanout
import logfiles
from fake_aws import GROUP, ROLE, TOPIC, VALIDATION
from fanout import MAIN
from harness import Sender, wait_until

KIB = 1024


def test_each_destination_gets_what_its_trail_selects_once(make_sender, aws, rng, report):
    writes = fanout.trail_of_its_own(aws, "writes", event_selectors=[{"ReadWriteType": "WriteOnly", "IncludeManagementEvents": True}])
    daemon = make_sender([MAIN, writes]).start()
    sent = []
    for _ in range(4):
        batch = [events.spread(rng, 1, readOnly=rng.random() < 0.5)[0] for _ in range(250)]
        daemon.send(batch)
        sent += batch
        time.sleep(0.4)
    daemon.drain_everywhere()
    fanout.check(daemon, aws, sent)
    chosen = [event for event in sent if not json.loads(event)["readOnly"]]
    fanout.check(daemon, aws, chosen, trail=writes)
    aws.check_nothing_sent_again()
    report(f"fan-out: {len(sent)} events and {len(chosen)} of them, {len(aws.notifications())} objects; {dict(aws.calls)}")


def test_advanced_selectors_choose_for_all_destinations(make_sender, aws, rng):
    objects = [
        {"Field": "eventCategory", "Equals": ["Data"]},
        {"Field": "resources.type", "Equals": ["AWS::S3::Object"]},
        {"Field": "resources.ARN", "StartsWith": ["arn:aws:s3:::b/"], "NotStartsWith": ["arn:aws:s3:::b/tmp/"]},
    ]
    management = [{"Field": "eventCategory", "Equals": ["Management"]}, {"Field": "eventSource", "NotEquals": ["kms.amazonaws.com"]}]
    selectors = [{"Name": "objects", "FieldSelectors": objects}, {"Name": "management", "FieldSelectors": management}]
    trail = fanout.trail_of_its_own(aws, "chosen", advanced_event_selectors=selectors)
    daemon = make_sender([trail]).start()

    def access(key):
        resources = [{"type": "AWS::S3::Object", "ARN": f"arn:aws:s3:::{key}"}, {"type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::b"}]
        return events.make(rng, eventCategory="Data", managementEvent=False, resources=resources)

    wanted = [access("b/a"), access("b/tmp"), events.make(rng)]
    passed_over = [access("b/tmp/a"), access("c/a"), events.make(rng, eventSource="kms.amazonaws.com")]
    daemon.send([*wanted, *passed_over])
    wait_until(lambda: len(aws.on_bus("chosen")) >= 3 and len(aws.notifications(trail["sns_topic_arn"])) >= 1, 20, "the chosen events")
    daemon.drain_everywhere()
    fanout.check(daemon, aws, wanted, trail=trail)


def test_two_trails_of_one_bus_give_it_one_copy_of_an_event(make_sender, aws, rng):
    first = fanout.trail_of_its_own(aws, "first", event_selectors=[{"ReadWriteType": "ReadOnly", "IncludeManagementEvents": True}])
    daemon = make_sender([first, MAIN | {"event_bus": "first"}]).start()
    sent = [events.make(rng, readOnly=n % 3 == 0) for n in range(60)]
    daemon.send(sent)
    daemon.drain_everywhere()
    found = fanout.event_ids(aws.on_bus("first"))
    assert found == fanout.event_ids(sent)
    assert fanout.event_ids(aws.logged("first-group")) == fanout.event_ids(sent[::3])
    assert fanout.event_ids(aws.logged()) == fanout.event_ids(sent)


def test_what_a_trail_left_to_one_that_is_taken_out_reaches_their_bus(make_sender, aws, rng):
    """The first of two trails waits for the bus with events that the second one has passed."""
    first, second = fanout.trail_of_its_own(aws, "first"), MAIN | {"event_bus": "first"}
    daemon = make_sender([first, second]).start()
    sent = events.make_many(rng, 20)
    daemon.send(sent)
    daemon.drain_everywhere()
    places = {place for place in aws.buses if place[1] == "first"}
    aws.buses -= places
    more = events.make_many(rng, 20)
    daemon.send(more)
    wait_until(lambda: daemon.metrics().of_leg("delivered_total", ("main", "logs")) == 40, 20, "the second trail to have passed them")
    time.sleep(1.5)  # until its place is saved
    assert daemon.stop()[0] == 0
    daemon.write_config(daemon.config | {"trails": [second]})
    daemon.start()
    aws.buses |= places
    wait_until(lambda: set(fanout.event_ids(aws.on_bus("first"))) == set(fanout.event_ids(sent + more)), 20, "all events on the bus")


def test_a_topic_is_told_once_that_it_will_be_told(make_sender, aws, rng):
    daemon = make_sender([MAIN]).start()
    sent = []
    for _ in range(3):
        batch = events.make_many(rng, 5)
        daemon.send(batch)
        sent += batch
        daemon.drain_everywhere()
        assert daemon.stop()[0] == 0
        daemon.start()
    messages = [message.text for message in aws.messages[TOPIC]]
    assert messages.count(VALIDATION) == 1 and messages[0] == VALIDATION
    fanout.check(daemon, aws, sent)


def test_a_stop_in_the_middle_of_the_work_doubles_nothing(make_sender, aws, rng, report):
    """The daemon answers its orderly end before it has delivered: the next life goes on where it was."""
    daemon = make_sender([MAIN], config={"delivery": {"max_age": "500ms", "max_bytes": "64KiB"}}).start()
    senders = [Sender(daemon, lambda: events.spread(rng, 20), pause=0.01) for _ in range(2)]
    for sender in senders:
        sender.start()
    stops = []
    for _ in range(4):
        time.sleep(rng.uniform(0.5, 1.2))
        code, seconds = daemon.stop()
        assert code == 0
        stops.append(seconds)
        daemon.start()
    for sender in senders:
        sender.finish()
    daemon.drain_everywhere()
    accepted = [event for sender in senders for event in sender.accepted]
    fanout.check(daemon, aws, accepted, [event for sender in senders for event in sender.open])
    aws.check_nothing_sent_again()
    report(f"stops: {len(accepted)} events over {len(stops)} stops of at most {max(stops):.2f} s, nothing doubled")


def test_a_role_writes_the_logs(make_sender, aws, rng):
    aws.roles.add(ROLE)
    daemon = make_sender([MAIN | {"cloud_watch_logs_role_arn": ROLE}]).start()
    sent = events.make_many(rng, 20)
    daemon.send(sent)
    daemon.drain_everywhere()
    fanout.check(daemon, aws, sent)
    assert {delivery.by for (group, _), deliveries in aws.log_events.items() for delivery in deliveries if group == GROUP} == {ROLE}
    assert {message.by for message in aws.messages[TOPIC]} == {"test"}
    assert aws.calls["AssumeRole", ROLE] == 1


def test_an_event_over_the_limit_is_in_s3_and_dead_lettered_elsewhere(make_sender, aws, rng):
    daemon = make_sender([MAIN], config={"ingest": {"max_event_bytes": "1MiB"}}).start()
    large = events.make(rng, size=300 * KIB)
    small = [events.make(rng, size=size) for size in (1000, 255 * KIB, 1000)]
    daemon.send([small[0], large, *small[1:]])
    metrics = daemon.drain_everywhere()
    fanout.check(daemon, aws, [*small, large], but=fanout.event_ids([large]))
    for sink in ("logs", "bus"):
        assert metrics.total("traild_events_dead_lettered_total", trail="main", sink=sink, reason="too_large") == 1
        assert metrics.total("traild_events_dead_lettered_total", trail="main", sink=sink) == 1
    letters = daemon.dead_letters()
    assert {(letter["sink"], letter["reason"], letter["body"]["eventID"]) for letter in letters} == {
        (sink, "too_large", events.event_id(large)) for sink in ("logs", "bus")
    }
    assert metrics.total("traild_events_dead_lettered_total", trail="main", sink="s3") == 0


@pytest.mark.parametrize("size", [1000, 20_000])
def test_many_events_go_in_full_requests(make_sender, aws, rng, size, report):
    """A backlog is sent in as few requests as the limits allow; the fake refuses one byte more."""
    daemon = make_sender([MAIN]).start()
    aws.choose = lambda call, rng: "throttled" if call.service != "sns" else None
    sent = [event for _ in range(4) for event in events.make_many(rng, 1_000_000 // size, size=size)]
    for start in range(0, len(sent), 500):
        daemon.send(sent[start : start + 500])
    aws.heal()
    daemon.drain_everywhere()
    fanout.check(daemon, aws, sent)
    bytes_sent = sum(map(len, sent))
    puts = sum(times for (operation, _), times in aws.calls.items() if operation == "PutLogEvents")
    report(f"backlog: {len(sent)} events of {size} bytes, {bytes_sent / 1e6:.1f} MB, in {puts} PutLogEvents, tries included")
    assert puts < bytes_sent / 2**20 * 3 + 20


def test_status_shows_each_destination(make_sender, aws, rng):
    daemon = make_sender([MAIN]).start()
    daemon.send(events.make_many(rng, 3))
    daemon.drain_everywhere()
    [trail] = daemon.status()["trails"]
    assert [(sink["sink"], sink["target"], sink["delivered"], sink["pending"]) for sink in trail["sinks"]] == [
        ("s3", f"s3://{MAIN['s3_bucket_name']}", 3, 0),
        ("sns", TOPIC, 3, 0),
        ("logs", MAIN["cloud_watch_logs_log_group_arn"], 3, 0),
        ("bus", MAIN["event_bus"], 3, 0),
    ]
    assert len(logfiles.read(daemon.s3(), MAIN["s3_bucket_name"])) == len(aws.notifications())
