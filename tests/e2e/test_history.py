"""The event history: LookupEvents through boto3 and the AWS CLI, and `traild lookup`.

What is kept is every management event and every Insight event, whatever the trails select; the trail here selects nothing of it.
"""

import json
import time
from datetime import datetime, timedelta, timezone

import pytest

import events
from crashing import SMALL, kill_under_load, outcome
from events import HOME_ACCOUNT, HOME_REGION
from harness import WHOLE_ORGANIZATION, run_cli, wait_until
from test_api import cli, client
from test_trails_api_errors import Provoked
from trails import as_account

AWAY = "eu-west-1"
OTHER = "444455556666"
NOW = datetime.now(timezone.utc).replace(microsecond=0)

#: A trail that takes data events alone: history does not ask it.
TRAIL = WHOLE_ORGANIZATION | {
    "advanced_event_selectors": [
        {"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Data"]}, {"Field": "resources.type", "Equals": ["AWS::S3::Object"]}]}
    ],
}


#: No event but those that a test sends: each call of the API would be one, and a test of the history makes many.
QUIET = {"trails": [TRAIL], "api": {"record_calls": False}}


def written(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_ago(seconds):
    return written(NOW - timedelta(seconds=seconds))


def attribute(key, value):
    return [{"AttributeKey": key, "AttributeValue": value}]


def all_of(cloudtrail, **request):
    """Every event, over all pages."""
    pages = cloudtrail.get_paginator("lookup_events").paginate(**request)
    return [event for page in pages for event in page["Events"]]


def ids(found):
    return [event["EventId"] for event in found]


def wait_for(daemon, count):
    """Until the history has so many events, since the daemon was started."""
    has = lambda: daemon.metrics().total("traild_history_events_total")
    wait_until(lambda: has() >= count, 20, f"{count} events in the history, there are {has()}")
    assert has() == count


def create_user(rng, name, ago, account=HOME_ACCOUNT, **overrides):
    return events.make(
        rng,
        account=account,
        eventTime=seconds_ago(ago),
        eventName="CreateUser",
        eventSource="iam.amazonaws.com",
        readOnly=False,
        userIdentity={
            "type": "AssumedRole",
            "principalId": "AROAEXAMPLE:deployer",
            "arn": f"arn:aws:sts::{account}:assumed-role/Admin/deployer",
            "accountId": account,
            "accessKeyId": "ASIAEXAMPLE1",
        },
        requestParameters={"userName": name},
        responseElements={"user": {"userName": name, "userId": f"AIDA{name.upper()}", "arn": f"arn:aws:iam::{account}:user/{name}"}},
        **overrides,
    )


def insight(rng, ago):
    event = json.loads(events.make(rng, eventTime=seconds_ago(ago), eventCategory="Insight", eventType="AwsCloudTrailInsight"))
    for name in "userIdentity eventSource eventName readOnly managementEvent requestParameters responseElements sourceIPAddress userAgent".split():
        event.pop(name)
    details = {"state": "Start", "eventSource": "autoscaling.amazonaws.com", "eventName": "CompleteLifecycleAction", "insightType": "ApiCallRateInsight"}
    return events.encode(event | {"insightDetails": details})


@pytest.fixture
def kept(make_daemon):
    return make_daemon(config=QUIET).start()


def test_an_event_is_found_by_each_of_its_attributes_and_answered_whole(kept, rng):
    bob = create_user(rng, "bob", 100)
    others = [events.make(rng, eventTime=seconds_ago(50 + number), eventSource="ec2.amazonaws.com") for number in range(5)]
    data = events.make(rng, eventTime=seconds_ago(90), eventCategory="Data", managementEvent=False, eventName="CreateUser")
    kept.send([bob, *others, data])
    wait_for(kept, 6)
    cloudtrail = client(kept)
    arn = f"arn:aws:iam::{HOME_ACCOUNT}:user/bob"
    for key, value in [
        ("EventId", events.event_id(bob)),
        ("EventName", "CreateUser"),
        ("ReadOnly", "false"),
        ("Username", "deployer"),
        ("ResourceType", "AWS::IAM::User"),
        ("ResourceName", "bob"),
        ("ResourceName", arn),
        ("ResourceName", "AIDABOB"),
        ("EventSource", "iam.amazonaws.com"),
        ("AccessKeyId", "ASIAEXAMPLE1"),
    ]:
        answer = cloudtrail.lookup_events(LookupAttributes=attribute(key, value))
        assert "NextToken" not in answer
        [found] = [event for event in answer["Events"] if event["EventSource"] == "iam.amazonaws.com"]
        assert found == {
            "EventId": events.event_id(bob),
            "EventName": "CreateUser",
            "ReadOnly": "false",
            "AccessKeyId": "ASIAEXAMPLE1",
            "EventTime": NOW - timedelta(seconds=100),
            "EventSource": "iam.amazonaws.com",
            "Username": "deployer",
            "Resources": [
                {"ResourceType": "AWS::IAM::User", "ResourceName": "bob"},
                {"ResourceType": "AWS::IAM::User", "ResourceName": "AIDABOB"},
                {"ResourceType": "AWS::IAM::User", "ResourceName": arn},
            ],
            "CloudTrailEvent": bob.decode(),
        }, key
    for key, value in [("EventName", "createuser"), ("ResourceType", "AWS::IAM::Role"), ("EventId", "x"), ("Username", "bob")]:
        assert cloudtrail.lookup_events(LookupAttributes=attribute(key, value))["Events"] == []
    everything = cloudtrail.lookup_events()["Events"]
    assert ids(everything) == [events.event_id(event) for event in [*others, bob]], "newest first, without data events"
    assert ids(cloudtrail.lookup_events(LookupAttributes=attribute("ReadOnly", "true"))["Events"]) == ids(everything)[:-1]
    code, out, err = cli(kept, "cloudtrail", "lookup-events", "--lookup-attributes", "AttributeKey=ResourceName,AttributeValue=bob")
    assert code == 0, err
    [event] = json.loads(out)["Events"]
    assert event["CloudTrailEvent"].encode() == bob


def test_times_are_included_at_both_ends_and_old_events_are_not_there(kept, rng):
    days = [0, 1, 30, 89]
    sent = {day: events.make(rng, eventTime=written(NOW - timedelta(days=day, seconds=60))) for day in days}
    older = events.make(rng, eventTime=written(NOW - timedelta(days=91)))
    kept.send([*sent.values(), older])
    wait_for(kept, 4)
    assert kept.metrics().total("traild_history_expired_events_total") == 1
    cloudtrail = client(kept)
    assert ids(cloudtrail.lookup_events()["Events"]) == [events.event_id(sent[day]) for day in days]
    at = NOW - timedelta(days=30, seconds=60)
    second = timedelta(seconds=1)
    for start, end, found in [
        (at, at, [30]),
        (at - second, at + second, [30]),
        (at + second, NOW, [0, 1]),
        (None, at - second, [89]),
        (at, None, [0, 1, 30]),
        (at - timedelta(milliseconds=1), at + timedelta(milliseconds=1), [30]),
        (at + timedelta(milliseconds=1), at + timedelta(milliseconds=2), []),
    ]:
        times = {name: moment for name, moment in [("StartTime", start), ("EndTime", end)] if moment}
        assert ids(cloudtrail.lookup_events(**times)["Events"]) == [events.event_id(sent[day]) for day in found], (start, end)


def test_pages_stand_still_while_events_come_in(kept, rng):
    sent = [events.make(rng, eventTime=seconds_ago(1000 - number // 3)) for number in range(200)]
    kept.send(sent)
    wait_for(kept, 200)
    cloudtrail = client(kept)
    for size in (50, 7):
        found, token, page = [], {}, 0
        while token is not None and page < 100:
            answer = cloudtrail.lookup_events(MaxResults=size, EndTime=NOW - timedelta(seconds=100), **token)
            found += ids(answer["Events"])
            assert len(answer["Events"]) <= size
            token = {"NextToken": answer["NextToken"]} if "NextToken" in answer else None
            if page < 3:
                kept.send([events.make(rng, eventTime=seconds_ago(200 - page))])
                has = kept.metrics().total("traild_history_events_total")
                wait_until(lambda: kept.metrics().total("traild_history_events_total") > has, 20, "the new event")
            page += 1
        newest_first = [events.event_id(event) for event in reversed(sent)]
        assert [found for found in found if found in set(newest_first)] == newest_first
        assert len(set(found)) == len(found)


def test_accounts_and_regions_are_apart_and_insights_are_asked_for(kept, rng):
    home = events.make(rng, eventTime=seconds_ago(10))
    away = events.make(rng, region=AWAY, eventTime=seconds_ago(20))
    other = events.make(rng, account=OTHER, eventTime=seconds_ago(30))
    spike = insight(rng, 40)
    kept.send([home, away, other, spike])
    wait_for(kept, 4)
    assert ids(client(kept).lookup_events()["Events"]) == [events.event_id(home)]
    assert ids(client(kept, region=AWAY).lookup_events()["Events"]) == [events.event_id(away)]
    assert ids(as_account(kept, OTHER, HOME_REGION).lookup_events()["Events"]) == [events.event_id(other)]
    assert as_account(kept, OTHER, AWAY).lookup_events()["Events"] == []
    cloudtrail = client(kept)
    for request in [
        {},
        {"LookupAttributes": attribute("EventId", events.event_id(spike))},
        {"LookupAttributes": attribute("EventName", "CompleteLifecycleAction")},
        {"LookupAttributes": attribute("EventSource", "autoscaling.amazonaws.com")},
    ]:
        [found] = cloudtrail.lookup_events(EventCategory="insight", **request)["Events"]
        assert found["CloudTrailEvent"].encode() == spike
        assert (found["EventName"], found["Resources"]) == ("CompleteLifecycleAction", [])
        assert not {"ReadOnly", "Username", "AccessKeyId"} & set(found)
    assert cloudtrail.lookup_events(EventCategory="insight", LookupAttributes=attribute("EventName", "CreateUser"))["Events"] == []


def test_a_call_of_the_api_can_be_looked_up_and_so_can_the_lookup(make_daemon):
    cloudtrail = client(make_daemon(config={"trails": [TRAIL]}).start())
    asked = cloudtrail.describe_trails()["ResponseMetadata"]["RequestId"]
    for name, request in [("DescribeTrails", asked), ("LookupEvents", None)]:
        found = lambda: cloudtrail.lookup_events(LookupAttributes=attribute("EventName", name))["Events"]
        event = wait_until(found, 20, f"the record of {name}")[-1]
        assert (event["EventSource"], event["ReadOnly"]) == ("cloudtrail.amazonaws.com", "true")
        record = json.loads(event["CloudTrailEvent"])
        assert (record["eventID"], record["eventName"]) == (event["EventId"], name)
        assert request in (None, record["requestID"])


#: Errors of the model that traild never answers with.
NEVER = {"OperationNotPermittedException": "whoever may look up may look up anything of their account"}


def test_every_error_of_the_model_is_provoked(make_daemon, kept, rng):
    kept.send(events.make_many(rng, 3))
    wait_for(kept, 3)
    provoked, cloudtrail = Provoked(), client(kept)
    refuse = lambda code, **request: provoked(cloudtrail, "LookupEvents", code, **request)
    for attributes in [
        attribute("EventName", "a") + attribute("EventId", "b"),
        attribute("eventName", "a"),
        attribute("EventName", ""),
        attribute("EventName", "x" * 2001),
        attribute("ReadOnly", "True"),
        [{}],
    ]:
        refuse("InvalidLookupAttributesException", LookupAttributes=attributes)
    assert cloudtrail.lookup_events(LookupAttributes=attribute("EventName", "\u00e9" * 2000))["Events"] == []
    refuse("InvalidLookupAttributesException", LookupAttributes=attribute("Username", "a"), EventCategory="insight")
    for category in ("Insight", "management", ""):
        refuse("InvalidEventCategoryException", EventCategory=category)
    for most in (0, 51, -1):
        refuse("InvalidMaxResultsException", MaxResults=most)
    refuse("InvalidTimeRangeException", StartTime=NOW, EndTime=NOW - timedelta(seconds=1))
    refuse("InvalidTimeRangeException", StartTime=datetime.now(timezone.utc) + timedelta(hours=1))
    token = cloudtrail.lookup_events(MaxResults=1)["NextToken"]
    for request in [
        {"NextToken": token},
        {"NextToken": token, "MaxResults": 2},
        {"NextToken": token, "MaxResults": 1, "LookupAttributes": attribute("ReadOnly", "true")},
        {"NextToken": token, "MaxResults": 1, "EndTime": NOW},
        {"NextToken": token + "A", "MaxResults": 1},
        {"NextToken": "", "MaxResults": 1},
    ]:
        refuse("InvalidNextTokenException", **request)
    for stranger in (client(kept, region=AWAY), as_account(kept, OTHER, HOME_REGION)):
        provoked(stranger, "LookupEvents", "InvalidNextTokenException", NextToken=token, MaxResults=1)
    assert len(cloudtrail.lookup_events(NextToken=token, MaxResults=1)["Events"]) == 1

    without = make_daemon("without", config=QUIET | {"history": {"enabled": False}}).start()
    without.send(events.make_many(rng, 3))
    provoked(client(without), "LookupEvents", "UnsupportedOperationException")
    assert not (without.data_dir / "history").exists()
    model = cloudtrail.meta.service_model.operation_model("LookupEvents")
    modelled = {("LookupEvents", shape.name) for shape in model.error_shapes}
    assert provoked.errors == {error for error in modelled if error[1] not in NEVER}


def test_the_command_shows_events_and_takes_what_the_api_takes(kept, rng, traild_bin):
    users = [create_user(rng, f"user{number:03}", 300 - number) for number in range(120)]
    strange = events.make(rng, eventTime=seconds_ago(2), eventName="Strange\u001b[31m")
    kept.send([*users, strange])
    wait_for(kept, 121)
    endpoint = ["--endpoint", kept.api_endpoint]
    lookup = lambda *arguments, **env: run_cli(traild_bin, "lookup", *endpoint, *arguments, env=env)

    code, out, err = lookup("--json", "--max", "110", "--attribute", "EventName=CreateUser")
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert [event["CloudTrailEvent"].encode() for event in found] == list(reversed(users))[:110]
    code, out, err = lookup()
    assert (code, err) == (0, "")
    rows = out.splitlines()
    assert len(rows) == 51 and rows[0].split() == ["TIME", "EVENT", "SOURCE", "USER", "RESOURCE", "EVENT", "ID"]
    assert "\x1b" not in out and "Strange\\u{1b}[31m" in rows[1] and "user119 +2" in rows[2]
    code, out, _ = lookup("--start", seconds_ago(190), "--end", seconds_ago(181), "--json")
    assert (code, len(out.splitlines())) == (0, 10)
    assert lookup("--attribute", "EventName=None")[:2] == (0, "no events\n")

    code, _, err = lookup("--start", "2026-05-02", "--end", "2026-05-01")
    assert code == 1 and "InvalidTimeRangeException" in err, err
    for wrong in [("--attribute", "Name=x"), ("--start", "soon"), ("--max", "0")]:
        assert lookup(*wrong)[0] == 2
    code, _, err = run_cli(traild_bin, "lookup", "--endpoint", "http://127.0.0.1:1")
    assert code == 1 and "hint:" in err, err
    as_other = {"AWS_ACCESS_KEY_ID": OTHER, "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": AWAY}
    kept.send([events.make(rng, account=OTHER, region=AWAY)])
    wait_for(kept, 122)
    code, out, err = lookup("--json", **as_other)
    assert (code, len(out.splitlines())) == (0, 1), err


def test_a_policy_allows_looking_up_or_does_not(make_daemon, rng, tmp_path, traild_bin):
    policy = lambda *actions: json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}
    )
    credentials = []
    for key, actions in [("AKIDLOOKER", ["cloudtrail:LookupEvents"]), ("AKIDSENDER", ["traild:PutEvents", "cloudtrail:Describe*"])]:
        path = tmp_path / f"{key}.json"
        path.write_text(policy(*actions))
        credentials.append({"access_key_id": key, "secret_access_key": f"secret-of-{key}", "account_id": HOME_ACCOUNT, "policy_file": str(path)})
    daemon = make_daemon(config=QUIET | {"auth": {"mode": "sigv4", "credentials": credentials}}).start()

    def lookup(key):
        env = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": f"secret-of-{key}", "AWS_REGION": HOME_REGION}
        return run_cli(traild_bin, "lookup", "--endpoint", daemon.api_endpoint, env=env)

    assert lookup("AKIDLOOKER")[:2] == (0, "no events\n")
    code, _, err = lookup("AKIDSENDER")
    assert code == 1 and "AccessDenied" in err and "cloudtrail:LookupEvents" in err, err
    code, _, err = run_cli(traild_bin, "lookup", "--endpoint", daemon.api_endpoint)
    assert code == 1 and "hint: sign" in err, err


def test_killed_again_and_again_it_has_each_event_once(make_daemon, rng, report):
    daemon = make_daemon(config=SMALL | QUIET).start()
    senders, kills = kill_under_load(daemon, 5, rng, drain=lambda: None, pause=0.02)
    accepted, unanswered = outcome(senders)
    sent = {events.event_id(event): event for event in accepted}
    maybe = {events.event_id(event) for event in unanswered}
    assert accepted

    def found():
        by_id = {}
        for account in range(111122223333, 111122223336):
            for region in ["us-east-1", "eu-central-1", "ap-southeast-2"]:
                for event in all_of(as_account(daemon, str(account), region)):
                    assert event["EventId"] not in by_id, "twice"
                    by_id[event["EventId"]] = event["CloudTrailEvent"].encode()
        return by_id

    wait_until(lambda: daemon.metrics().total("traild_history_pending_bytes") == 0, 30, "the history to see all")
    time.sleep(0.5)
    there = found()
    assert {id: there.get(id) for id in sent} == sent
    assert set(there) - set(sent) <= maybe
    report(f"{kills}; {len(sent)} events accepted, each once in the history")

    # Stopped in order it has seen everything, and starts where it was.
    assert daemon.stop()[0] == 0
    daemon.start()
    assert daemon.metrics().total("traild_history_events_total") == 0
    assert found() == there

    # A damaged file is put aside, and the daemon starts; what the journal still holds comes back.
    daemon.kill()
    [first, *_] = sorted((daemon.data_dir / "history").glob("*.db"))
    for beside in ("-wal", "-shm"):
        first.with_name(first.name + beside).unlink(missing_ok=True)
    first.write_bytes(b"not a database" * 1000)
    daemon.start()
    assert daemon.metrics().total("traild_history_quarantined_files_total") == 1
    assert any((daemon.data_dir / "history" / "quarantine").iterdir())
    assert json.loads(daemon.api_get("/v1/status"))["history"]["quarantined_files"] == 1
    assert set(found()) <= set(there)
    daemon.send([events.make(rng)])
    wait_until(lambda: daemon.metrics().total("traild_history_events_total") >= 1, 20, "it goes on")


def test_history_that_is_deleted_comes_back_from_the_journal(make_daemon, rng):
    """The trail's bucket is not there, so the journal holds everything."""
    trail = WHOLE_ORGANIZATION | {"s3_bucket_name": "absent"}
    config = QUIET | {"trails": [trail], "storage": {"kind": "s3"}, "aws": {"endpoint_url": "http://127.0.0.1:1"}}
    daemon = make_daemon(config=config, env={"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}).start()
    daemon.send(events.make_many(rng, 70))
    wait_for(daemon, 70)
    before = all_of(client(daemon))
    assert daemon.stop()[0] == 0
    history = daemon.data_dir / "history"
    for path in history.iterdir():
        path.unlink()
    history.rmdir()
    daemon.start()
    wait_for(daemon, 70)
    assert all_of(client(daemon)) == before
