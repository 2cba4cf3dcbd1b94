"""The harness itself can fail: each check is shown a lie and must notice, and each fault of the proxy is felt by a real client."""

import gzip
import json
import random
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError

import events
import fake_aws
import fanout
import logfiles
from fake_aws import BUS, GROUP, ROLE, TOPIC, VALIDATION, Delivery, FakeAws
from fault_proxy import KINDS, FaultProxy
from harness import Daemon, Metrics, s3_client, toml

NAME = "AWSLogs/111122223333/CloudTrail/us-east-1/2026/01/02/111122223333_CloudTrail_us-east-1_20260102T0305Z_{}.json.gz"


def log_file(unique, records):
    body = b'{"Records":[' + b",".join(records) + b"]}"
    return logfiles.parse(NAME.format(unique.ljust(16, "x")), gzip.compress(body, mtime=0))


def test_checks_pass_what_is_right(rng):
    sent = events.make_many(rng, 4)
    filled = sent[3][:-1] + b',"apiVersion":null}'
    files = [log_file("A", sent[:2]), log_file("B", [sent[2], filled])]
    assert logfiles.check(files, sent[:3], sent[3:]) == 1


@pytest.mark.parametrize(
    "lie",
    [
        lambda sent: [log_file("A", sent[:2])],  # one lost
        lambda sent: [log_file("A", sent), log_file("B", sent[:1])],  # one doubled over files
        lambda sent: [log_file("A", [*sent, sent[0]])],  # one doubled in a file
        lambda sent: [log_file("A", [*sent[:2], sent[2].replace(b"1.11", b"1.10")])],  # one changed
        lambda sent: [log_file("A", sent), log_file("B", [events.make(random.Random(1))])],  # one invented
        lambda sent: [log_file("A", [sent[0].replace(b"us-east-1", b"eu-west-1")])],
    ],
    ids=["lost", "doubled", "doubled-in-file", "changed", "invented", "misplaced"],
)
def test_checks_notice(rng, lie):
    sent = events.make_many(rng, 3)
    with pytest.raises(AssertionError):
        logfiles.check(lie(sent), sent)


@pytest.mark.parametrize("body", [gzip.compress(b'{"Records":[{}]}') * 2, gzip.compress(b'{"Records":[{}]}')[:-3], b"{}"])
def test_torn_or_doubled_gzip_is_noticed(body):
    with pytest.raises((AssertionError, zlib.error)):
        logfiles.gunzip_one_member("key", body)


def test_metrics_are_read_and_books_are_checked():
    text = 'traild_events_{}{{trail="a",sink="s3"}} {}\n'
    good = Metrics(text.format("routed_total", 3) + text.format("delivered_total", 1) + text.format("pending", 2))
    good.check_books()
    with pytest.raises(AssertionError):
        Metrics(text.format("routed_total", 3) + text.format("delivered_total", 1)).check_books()


def test_toml_is_written_as_meant():
    assert toml({"a": 1, "b": {"c": "x"}, "d": [{"e": True}]}) == 'a = 1\n[b]\nc = "x"\n[[d]]\ne = true\n'


class Upstream(BaseHTTPRequestHandler):
    """Takes any PUT and counts it."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.puts += 1
        self.send_response(200)
        self.send_header("ETag", '"x"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def upstream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.puts = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_each_fault_is_felt(upstream, kind):
    with FaultProxy(upstream.server_port, choose=lambda request, rng: kind, delay=0.2) as proxy:
        s3 = s3_client(proxy.endpoint, read_timeout=1)
        s3.meta.events.register("needs-retry.s3", lambda **_: None)
        put = lambda: s3.put_object(Bucket="b", Key="k", Body=b"z" * 300_000)  # noqa: E731
        if kind in (None, "slow"):
            put()
        else:
            with pytest.raises((ClientError, BotoCoreError)):
                put()
        arrived = kind in (None, "slow", "lost")
        assert (upstream.puts > 0) == arrived
        assert (proxy.fired[kind] > 0) == (kind is not None)
        assert proxy.check_redone_bytes() == (0 if kind == "reset" else 1)
        proxy.heal()
        put()


def test_other_bytes_under_one_key_are_noticed(upstream):
    with FaultProxy(upstream.server_port) as proxy:
        for body in (b"one", b"two"):
            s3_client(proxy.endpoint).put_object(Bucket="b", Key="k", Body=body)
        with pytest.raises(AssertionError):
            proxy.check_redone_bytes()


STREAM = "111122223333_CloudTrail_us-east-1"


@pytest.fixture
def aws():
    with FakeAws(delay=0.2) as fake:
        fake.roles.add(ROLE)
        yield fake


def client(fake, service, region="us-east-1", key="test", token=None):
    return boto3.client(
        service,
        endpoint_url=fake.endpoint,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key="test",
        aws_session_token=token,
        config=BotoConfig(retries={"total_max_attempts": 1}, read_timeout=1, parameter_validation=False),
    )


def publish(fake, message="news", topic=TOPIC, **options):
    return client(fake, "sns", **options).publish(TopicArn=topic, Message=message)


def log(fake, *texts, ago=(), group=GROUP, stream=STREAM, **options):
    """Texts are stamped now, or that many seconds ago."""
    logs = client(fake, "logs", **options)
    if (options.get("region", "us-east-1"), group, stream) not in fake.streams:
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
    now = int(time.time() * 1000)
    stamps = [now - int(seconds * 1000) for seconds in ago] or [now] * len(texts)
    batch = [{"timestamp": stamp, "message": text} for stamp, text in zip(stamps, texts)]
    return logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=batch)


def entry(detail='{"eventID":"a"}', source="traild.iam", kind="AWS API Call via CloudTrail", bus=BUS):
    return {"Source": source, "DetailType": kind, "Detail": detail, "EventBusName": bus, "Time": 0}


def put(fake, *entries, **options):
    return client(fake, "events", **options).put_events(Entries=list(entries))


def put_ok(fake, *entries, **options):
    """For what must not be refused: as the real client would, an entry that failed is an exception."""
    result = put(fake, *entries, **options)
    assert result["FailedEntryCount"] == 0, result


def test_the_fake_takes_what_aws_takes(aws):
    publish(aws, "x" * (256 * 1024))
    log(aws, *["x" * 78] * 10_000)
    log(aws, "x" * (2**20 - 26))
    log(aws, "a", "b", ago=(86_400, 0))
    log(aws, "a", ago=(-3600,))
    put_ok(aws, *[entry()] * 10)
    put_ok(aws, entry("{" + " " * (256 * 1024 - 14 - len("traild.iam") - 27 - 3) + "}"))
    put_ok(aws, entry(bus=f"arn:aws:events:us-east-1:111122223333:event-bus/{BUS}"))
    assert client(aws, "events").describe_event_bus(Name=BUS)["Name"] == BUS
    aws.check()
    assert (len(aws.messages[TOPIC]), len(aws.logged()), len(aws.on_bus()), aws.dropped) == (1, 10_004, 12, [])
    assert [text for _, _, text in aws.sent_again] == ["a", '{"eventID":"a"}'], "what was answered for is not to come again"
    with pytest.raises(AssertionError):
        aws.check_nothing_sent_again()


@pytest.mark.parametrize(
    "breach",
    [
        lambda aws: publish(aws, "x" * (256 * 1024 + 1)),
        lambda aws: publish(aws, ""),
        lambda aws: publish(aws, topic=f"{TOPIC}.fifo"),
        lambda aws: publish(aws, region="eu-west-1"),
        lambda aws: publish(aws, key="stranger"),
        lambda aws: publish(aws, token="not-asked-for"),
        lambda aws: log(aws, *["x"] * 10_001),
        lambda aws: log(aws),
        lambda aws: log(aws, "x" * (2**20 - 25)),
        lambda aws: log(aws, "x" * 2**19, "x" * (2**19 - 51)),
        lambda aws: log(aws, ""),
        lambda aws: log(aws, "a", "b", ago=(0, 1)),
        lambda aws: log(aws, "a", "b", ago=(86_401, 0)),
        lambda aws: log(aws, "a", ago=(15 * 86_400,)),
        lambda aws: log(aws, "a", ago=(-3 * 3600,)),
        lambda aws: log(aws, "a", stream="a:b"),
        lambda aws: put(aws, *[entry()] * 11),
        lambda aws: put(aws),
        lambda aws: put(aws, entry("{" + " " * (256 * 1024 - 14 - len("traild.iam") - 27 - 2) + "}")),
        lambda aws: put(aws, entry(source="aws.iam")),
        lambda aws: put(aws, entry(source="")),
        lambda aws: put(aws, entry(kind="x" * 129)),
        lambda aws: put(aws, entry("[]")),
        lambda aws: put(aws, entry("{")),
        lambda aws: put(aws, entry(bus=f"arn:aws:events:eu-west-1:111122223333:event-bus/{BUS}")),
        lambda aws: client(aws, "sns").list_topics(),
        lambda aws: client(aws, "events").list_rules(),
    ],
)
def test_the_fake_notices_what_aws_would_refuse(aws, breach):
    try:
        result = breach(aws)
        assert result.get("FailedEntryCount") == 1 or result.get("rejectedLogEventsInfo")
    except ClientError:
        pass
    with pytest.raises(AssertionError):
        aws.check()
    assert not (aws.messages[TOPIC] or aws.logged() or aws.on_bus() or aws.acknowledged)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda aws: publish(aws, topic=f"{TOPIC}2"), "NotFound"),
        (lambda aws: log(aws, "a", group="other"), "ResourceNotFoundException"),
        (lambda aws: log(aws, "a", region="eu-west-1"), "ResourceNotFoundException"),
        (lambda aws: client(aws, "events").describe_event_bus(Name="other"), "ResourceNotFoundException"),
        (lambda aws: client(aws, "sts").assume_role(RoleArn=f"{ROLE}2", RoleSessionName="x"), "AccessDenied"),
    ],
)
def test_the_fake_misses_what_is_not_there(aws, call, code):
    with pytest.raises(ClientError) as error:
        call(aws)
    assert error.value.response["Error"]["Code"] == code
    aws.check()


def test_a_missing_bus_swallows_and_says_it_did_well(aws):
    put_ok(aws, entry(bus="other"))
    assert (aws.dropped, aws.on_bus("other"), aws.acknowledged) == (['{"eventID":"a"}'], [], set())


@pytest.mark.parametrize("service", ["sns", "logs", "events"])
@pytest.mark.parametrize("kind", [None, *fake_aws.KINDS])
def test_each_fault_of_the_fake_is_felt(aws, service, kind):
    send = {"sns": publish, "logs": lambda aws: log(aws, "a"), "events": lambda aws: put_ok(aws, entry())}[service]
    arrived = {"sns": lambda: aws.messages[TOPIC], "logs": aws.logged, "events": aws.on_bus}[service]
    aws.streams.add(("us-east-1", GROUP, STREAM))
    aws.choose = lambda call, rng: kind
    if kind in (None, "slow"):
        send(aws)
    else:
        with pytest.raises((ClientError, BotoCoreError)):
            send(aws)
    assert bool(arrived()) == (kind in (None, "slow", "lost"))
    assert bool(aws.acknowledged) == (kind in (None, "slow"))
    assert aws.fired[kind] == aws.fired_by_service[service, kind] == (kind is not None)
    aws.heal()
    send(aws)
    assert len(aws.sent_again) == (kind in (None, "slow"))
    aws.check()


def test_partial_failures_and_poison_are_for_single_entries(aws):
    details = [json.dumps({"eventID": f"e{n}"}) for n in range(10)]
    aws.choose = lambda call, rng: "partial"
    result = put(aws, *map(entry, details))
    failed = [index for index, answer in enumerate(result["Entries"]) if "ErrorCode" in answer]
    assert len(failed) == result["FailedEntryCount"] > 0
    assert aws.on_bus() == [detail for index, detail in enumerate(details) if index not in failed]
    aws.heal()
    aws.poison.add("e3")
    again = put(aws, *map(entry, details))
    assert [index for index, answer in enumerate(again["Entries"]) if "ErrorCode" in answer] == [3]
    with pytest.raises(ClientError, match="InvalidParameterException"):
        log(aws, *details)
    assert not aws.logged()
    aws.check()


@pytest.mark.parametrize(("fault", "left"), [("too_new", ["a", "b"]), ("too_old", ["b", "c"]), ("expired_events", ["b", "c"])])
def test_rejected_log_events_leave_their_neighbours(aws, fault, left):
    aws.choose = lambda call, rng: fault if call.operation == "PutLogEvents" else None
    assert log(aws, "a", "b", "c")["rejectedLogEventsInfo"]
    assert aws.logged() == left
    assert len(aws.rejected_log_events[fault]) == 1
    aws.check()


def test_an_assumed_role_signs_until_it_expires(aws):
    credentials = client(aws, "sts").assume_role(RoleArn=ROLE, RoleSessionName="x")["Credentials"]
    who = {"key": credentials["AccessKeyId"], "token": credentials["SessionToken"]}
    publish(aws, **who)
    assert aws.messages[TOPIC][0].by == ROLE
    aws.expire(ROLE)
    with pytest.raises(ClientError, match="ExpiredToken"):
        publish(aws, **who)
    publish(aws, "by another")
    aws.check()


def check_texts(texts, sent):
    stored = {events.event_id(event): event.decode() for event in sent}
    return fanout.check_events("log events", texts, set(stored), stored)


def test_events_that_arrived_are_held_against_what_is_stored(rng):
    sent = events.make_many(rng, 3)
    texts = [event.decode() for event in sent]
    assert (check_texts(texts, sent), check_texts([*texts, texts[0]], sent)) == (0, 1)
    for lie in (texts[:2], [*texts[:2], texts[2].replace("1.11", "1.10")], [*texts, events.make(rng).decode()]):
        with pytest.raises(AssertionError):
            check_texts(lie, sent)


def check_messages(texts, files):
    fake = FakeAws()
    fake.messages[TOPIC] = [Delivery(text, 0, "test") for text in texts]
    return fanout.check_notifications(fake, TOPIC, "logs", files)


def test_notifications_are_held_against_the_objects(rng):
    files = [log_file(unique, events.make_many(rng, 1)) for unique in "AB"]
    texts = [json.dumps({"s3Bucket": "logs", "s3ObjectKey": [file.key]}) for file in files]
    right = [VALIDATION, *texts]
    assert [check_messages(said, files) for said in (right, [*right, texts[0]], [*right, VALIDATION])] == [0, 1, 1]
    for lie in (texts, right[:2], [*texts, VALIDATION], [VALIDATION, *texts[:1], texts[1].replace("logs", "other")]):
        with pytest.raises(AssertionError):
            check_messages(lie, files)


def test_entries_are_held_against_cloudtrails_envelope(rng):
    [event] = events.make_many(rng, 1, eventSource="iam.amazonaws.com", eventTime="2026-05-01T00:19:01Z")
    right = entry(event.decode()) | {"Time": 1777594741}

    def check(*lies):
        fake = FakeAws()
        fake.entries[BUS] = [Delivery(event.decode(), 0, "test", right | lie) for lie in lies]
        fanout.check_entries(fake, BUS)

    check({})
    for lie in ({"Source": "aws.iam"}, {"DetailType": "AWS Service Event via CloudTrail"}, {"Time": 0}, {"Resources": ["x"]}):
        with pytest.raises(AssertionError):
            check({}, lie)


def test_a_leg_that_was_not_given_all_is_noticed(tmp_path):
    daemon = Daemon("traild", tmp_path, config={"trails": [fanout.MAIN, fanout.MAIN | {"name": "other", "event_selectors": [{}]}]})
    daemon.answered = 2

    def unrouted(s3, delivered, **others):
        series = {("main", "s3"): s3} | {("main", sink): count for sink, count in others.items()}
        text = "".join(f'traild_events_routed_total{{trail="{t}",sink="{s}"}} {n}\n' for (t, s), n in series.items())
        return daemon.unrouted(Metrics(text + f'traild_events_delivered_total{{trail="main",sink="s3"}} {delivered}\n'))

    assert unrouted(2, 2, logs=2, bus=2, sns=2) == []
    assert unrouted(1, 1, logs=2, bus=2, sns=1) == [("main", "s3")]
    assert unrouted(2, 2, logs=1, bus=0, sns=1) == [("main", "logs"), ("main", "bus"), ("main", "sns")]
