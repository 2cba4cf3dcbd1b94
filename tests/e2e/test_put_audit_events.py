"""PutAuditEvents of CloudTrail Data through boto3: what is taken, what is refused, who may, and that nothing is lost or doubled."""

import base64
import hashlib
import json
import threading
import time
import uuid
from datetime import datetime, timezone

import boto3
import pytest
from botocore.config import Config

import logfiles
from events import HOME_ACCOUNT, HOME_REGION
from harness import BUCKET, Client
from provoked import Provoked, all_tests_of_this_file_ran
from test_api import cli, client
from test_channels import OTHER, make_channel, policy
from trails import make_trail

#: Errors of the model that traild never answers with.
NEVER = {
    "ChannelUnsupportedSchema": "there is one schema",
    "UnsupportedOperationException": "the operation is there",
}
SECRET = "channel/Secret+0123456789abcdef="
UNKNOWN = f"arn:aws:cloudtrail:{HOME_REGION}:{HOME_ACCOUNT}:channel/{uuid.UUID(int=7)}"


def data_client(daemon, key="AKIDEXAMPLE", secret="secret", region=HOME_REGION, attempts=1):
    return boto3.client(
        "cloudtrail-data",
        endpoint_url=f"http://127.0.0.1:{daemon.api_port}",
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": attempts}, parameter_validation=False),
    )


def audit_event(uid, **members):
    """The `eventData` of one event."""
    event = {
        "version": "1.0",
        "UID": uid,
        "userIdentity": {"type": "Member", "principalId": "alice@example.com", "details": {"team": "docs"}},
        "eventTime": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": "wiki.example.com",
        "eventName": "EditPage",
        "recipientAccountId": HOME_ACCOUNT,
        "sourceIPAddress": "198.51.100.7",
        "requestParameters": {"page": "Ünïcode \u4e2d", "z": 1, "a": 2},
    }
    event |= members
    return json.dumps({name: value for name, value in event.items() if value is not None}, ensure_ascii=False)


def entries(*events):
    return [{"id": str(number), "eventData": event} for number, event in enumerate(events)]


def put(daemon, arn, events, **options):
    return data_client(daemon, **options).put_audit_events(channelArn=arn, auditEvents=events)


def records_of(daemon):
    daemon.drain()
    files = logfiles.read(daemon.s3(), BUCKET)
    return [(file, stored, value) for file in files for stored, value in file.records if value["eventCategory"] == "ActivityAuditLog"]


@pytest.fixture(scope="module")
def provoked():
    return Provoked()


def test_an_event_is_one_record_with_its_bytes_in_the_log_file(daemon):
    arn = make_channel(client(daemon))
    first, second = audit_event("u-1"), audit_event("u-2", eventName="DeletePage", team="docs", userAgent="wiki/1.0")
    checksum = base64.b64encode(hashlib.sha256(first.encode()).digest()).decode()
    events = entries(first, second)
    events[0]["eventDataChecksum"] = checksum
    began = datetime.now(timezone.utc).replace(microsecond=0)
    answer = put(daemon, arn, events)
    assert answer["failed"] == [] and [one["id"] for one in answer["successful"]] == ["0", "1"], answer
    assert answer["ResponseMetadata"]["RequestId"]
    found = {value["eventID"]: (file, stored, value) for file, stored, value in records_of(daemon)}
    assert len(found) == 2
    for given, one in zip([first, second], answer["successful"]):
        file, stored, value = found[one["eventID"]]
        assert (file.parts["folder"], file.parts["account"], file.parts["region"]) == ("CloudTrail", HOME_ACCOUNT, HOME_REGION)
        given = json.loads(given)
        # The objects stand in the log file as they were sent, byte for byte.
        for name in ["userIdentity", "requestParameters"]:
            assert f'"{name}":{json.dumps(given[name], ensure_ascii=False)}'.encode() in stored, stored
        metadata = value.pop("metadata")
        assert metadata.keys() == {"ingestionTime", "channelARN"} and metadata["channelARN"] == arn
        ingested = datetime.strptime(metadata["ingestionTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        assert began <= ingested <= datetime.now(timezone.utc)
        rest = {name: given.pop(name) for name in ["version", "UID", "team"] if name in given}
        assert value == given | {
            "eventVersion": "1.11",
            "awsRegion": HOME_REGION,
            "eventType": "ActivityLog",
            "eventCategory": "ActivityAuditLog",
            "eventID": one["eventID"],
            "eventData": rest,
        }
    status = client(daemon).get_channel(Channel=arn)["IngestionStatus"]
    assert status["LatestIngestionSuccessEventID"] == status["LatestIngestionAttemptEventID"] == answer["successful"][-1]["eventID"]
    assert status["LatestIngestionSuccessTime"] >= began and "LatestIngestionErrorCode" not in status


def test_the_aws_cli_sends(daemon):
    arn = make_channel(client(daemon))
    made = daemon.metrics().total("traild_events_accepted_total")
    events = json.dumps(entries(audit_event("u")))
    code, out, err = cli(daemon, "cloudtrail-data", "put-audit-events", "--channel-arn", arn, "--audit-events", events)
    assert code == 0, err
    assert [one["id"] for one in json.loads(out)["successful"]] == ["0"]
    assert daemon.metrics().total("traild_events_accepted_total") - made == 1


def test_each_entry_has_its_own_answer(daemon):
    arn = make_channel(client(daemon))
    rows = [
        (audit_event("good"), None),
        ("not json", "InvalidData"),
        (audit_event("u", UID=None), "FieldNotFound"),
        (audit_event("u", eventName="n" * 1025), "FieldTooLong"),
        (audit_event("u", requestParameters={"k": "x" * 103_000}), "FieldTooLong"),
        (audit_event("u", recipientAccountId=OTHER), "InvalidRecipient"),
        (audit_event("u", eventSource="s3.amazonaws.com"), "InvalidEventSource"),
        (audit_event("u", sourceIPAddress="wiki"), "InvalidData"),
        (audit_event("u", eventTime="2199-01-01T00:00:00Z"), "InvalidData"),
        (audit_event("u", extra={"k": "x" * 300_000}), "InvalidData"),
        (audit_event("sum"), "InvalidChecksum"),
        (audit_event("also good"), None),
    ]
    events = entries(*(event for event, _ in rows))
    events[10]["eventDataChecksum"] = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    answer = put(daemon, arn, events)
    assert [one["id"] for one in answer["successful"]] == ["0", "11"]
    assert {one["id"]: one["errorCode"] for one in answer["failed"]} == {str(n): code for n, (_, code) in enumerate(rows) if code}
    assert all(0 < len(one["errorMessage"]) <= 1024 for one in answer["failed"])
    assert len(records_of(daemon)) == 2
    assert daemon.metrics().total("traild_events_rejected_total", code="FieldTooLong") == 2
    status = client(daemon).get_channel(Channel=arn)["IngestionStatus"]
    assert status["LatestIngestionErrorCode"] == "InvalidChecksum"
    nothing = put(daemon, arn, entries("not json"))
    assert (nothing["successful"], len(nothing["failed"])) == ([], 1)


def test_requests_that_cannot_be(daemon, provoked):
    cloudtrail = client(daemon)
    arn = make_channel(cloudtrail)
    data = data_client(daemon)
    one = entries(audit_event("u"))

    def refused(code, channel=arn, events=one, status=400, **members):
        provoked(data, "PutAuditEvents", code, status, channelArn=channel, auditEvents=events, **members)

    for given in ["wiki!", "arn:aws:cloudtrail", arn.replace("channel/", "trail/"), ""]:
        refused("InvalidChannelARN", given)
    refused("ChannelNotFound", UNKNOWN)
    refused("ChannelNotFound", arn.replace(HOME_REGION, "eu-west-1"))
    refused("DuplicatedAuditEventId", events=one + one)
    refused("ValidationException", events=[])
    refused("ValidationException", events=entries(*(audit_event(f"u-{number}") for number in range(101))))
    refused("ValidationException", events=[one[0] | {"id": "a b"}])
    refused("ValidationException", events=[one[0] | {"id": "i" * 129}])
    refused("ValidationException", events=entries(*(audit_event(f"u-{n}", responseElements={"k": "x" * 100_000}) for n in range(11))))
    refused("ValidationException", externalId="x")
    refused("ValidationException", externalId="a b")
    refused("RequestEntityTooLargeException", events=entries("x" * (5 << 20)), status=413)
    with Client(daemon.api_port) as connection:
        status, headers, answer = connection.post(b"[", {"Content-Type": "application/json"}, f"/PutAuditEvents?channelArn={arn}")
    assert (status, headers["x-amzn-ErrorType"], answer["__type"]) == (400, "SerializationException", "SerializationException")
    assert put(daemon, arn.rsplit("/")[-1], one)["successful"], "by its id, too"
    assert len(records_of(daemon)) == 1


def test_a_policy_lets_another_account_in_with_the_id_that_it_asks_for(daemon, provoked):
    cloudtrail = client(daemon)
    arn = make_channel(cloudtrail)
    theirs, event = data_client(daemon, key=OTHER), entries(audit_event("u"))
    denied = "ChannelInsufficientPermission"
    provoked(theirs, "PutAuditEvents", denied, channelArn=arn, auditEvents=event)
    condition = {"StringEquals": {"cloudtrail:ExternalId": "shared-secret"}}
    cloudtrail.put_resource_policy(ResourceArn=arn, ResourcePolicy=policy(arn, Condition=condition))
    provoked(theirs, "PutAuditEvents", denied, channelArn=arn, auditEvents=event)
    provoked(theirs, "PutAuditEvents", denied, channelArn=arn, auditEvents=event, externalId="other-secret")
    assert theirs.put_audit_events(channelArn=arn, auditEvents=event, externalId="shared-secret")["successful"]
    assert put(daemon, arn, entries(audit_event("own")))["successful"], "the owner needs no policy"
    third = data_client(daemon, key="999988887777")
    provoked(third, "PutAuditEvents", denied, channelArn=arn, auditEvents=event, externalId="shared-secret")
    cloudtrail.put_resource_policy(ResourceArn=arn, ResourcePolicy=policy(arn, principal=HOME_ACCOUNT, Effect="Deny"))
    provoked(data_client(daemon), "PutAuditEvents", denied, channelArn=arn, auditEvents=event)
    cloudtrail.delete_resource_policy(ResourceArn=arn)
    provoked(theirs, "PutAuditEvents", denied, channelArn=arn, auditEvents=event, externalId="shared-secret")
    accounts = {value["recipientAccountId"] for _, _, value in records_of(daemon)}
    assert accounts == {HOME_ACCOUNT}, "whoever sends, the record is the channel owner's"


def test_signed_requests_are_held_to_both_policies(make_daemon, provoked):
    allow = lambda resource: {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "cloudtrail-data:PutAuditEvents", "Resource": resource}]}
    everything = f"arn:aws:cloudtrail:*:{HOME_ACCOUNT}:channel/*"
    keys = {
        "owner": (HOME_ACCOUNT, None),
        "sender": (HOME_ACCOUNT, allow(everything)),
        "other": (OTHER, allow(everything)),
        "bare": (OTHER, allow("*")),
        "status": (HOME_ACCOUNT, {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "traild:*", "Resource": "*"}]}),
    }
    daemon = make_daemon()
    credentials = []
    for name, (account, document) in keys.items():
        secret, document_file = daemon.home / f"{name}.secret", daemon.home / f"{name}.json"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        credential = {"access_key_id": name, "secret_access_key_file": str(secret), "account_id": account}
        if document:
            document_file.write_text(json.dumps(document))
            credential["policy_file"] = str(document_file)
        credentials.append(credential)
    daemon.write_config(daemon.config | {"auth": {"mode": "sigv4", "credentials": credentials}})
    daemon.start()
    signed = lambda service, key: boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{daemon.api_port}",
        region_name=HOME_REGION,
        aws_access_key_id=key,
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}),
    )
    owner = signed("cloudtrail", "owner")
    arn = make_channel(owner)

    def asked(key, code=None, status=400, channel=arn):
        data, request = signed("cloudtrail-data", key), {"channelArn": channel, "auditEvents": entries(audit_event(key))}
        if code:
            return provoked(data, "PutAuditEvents", code, status, **request)
        assert data.put_audit_events(**request)["successful"]

    asked("owner")
    asked("sender")
    asked("status", "AccessDeniedException", 403)
    asked("status", "AccessDeniedException", 403, channel=UNKNOWN)
    asked("sender", "ChannelNotFound", channel=UNKNOWN)
    asked("other", "ChannelInsufficientPermission")
    owner.put_resource_policy(ResourceArn=arn, ResourcePolicy=policy(arn, principal=[OTHER, f"arn:aws:iam::{HOME_ACCOUNT}:user/status"]))
    asked("other")
    asked("bare", "AccessDeniedException", 403)
    asked("status")
    data = data_client(daemon, key="owner", secret="wrong")
    provoked(data, "PutAuditEvents", "InvalidSignatureException", 403, channelArn=arn, auditEvents=entries(audit_event("x")))
    provoked(data_client(daemon, key="nobody"), "PutAuditEvents", "UnrecognizedClientException", 403, channelArn=arn, auditEvents=entries(audit_event("x")))
    with Client(daemon.api_port) as connection:
        status, headers, _ = connection.post(json.dumps({"auditEvents": []}), {}, f"/PutAuditEvents?channelArn={arn}")
    assert (status, headers["x-amzn-ErrorType"]) == (403, "MissingAuthenticationTokenException")
    names = [value["eventData"]["UID"] for _, _, value in records_of(daemon)]
    assert sorted(names) == ["other", "owner", "sender", "status"]


def test_sent_again_after_a_kill_an_event_is_taken_once_under_the_same_id(daemon):
    arn = make_channel(client(daemon))
    second = make_channel(client(daemon), "second", "Okta")
    batch = entries(*(audit_event(f"u-{number}") for number in range(20)))
    ids = None
    for _ in range(3):
        answer = put(daemon, arn, batch)
        assert ids in (None, answer["successful"]), "the same ids"
        ids = answer["successful"]
        daemon.kill()
        daemon.start()
    # Other content, another channel: other events.
    changed = put(daemon, arn, entries(audit_event("u-0", eventName="Other")))["successful"]
    elsewhere = put(daemon, second, batch[:1])["successful"]
    # The same event twice in a request is one.
    again = put(daemon, arn, [batch[0] | {"id": "x"}, batch[0] | {"id": "y"}])["successful"]
    assert {one["eventID"] for one in again} == {ids[0]["eventID"]}
    found = [value["eventID"] for _, _, value in records_of(daemon)]
    expected = {one["eventID"] for one in ids + changed + elsewhere}
    assert len(found) == len(set(found)) == 22 and set(found) == expected


def test_many_senders_under_kill_9_lose_and_double_nothing(daemon):
    arn = make_channel(client(daemon))
    answered, stopping = [], threading.Event()

    def send(name):
        number = 0
        while not stopping.is_set():
            number += 1
            batch = entries(*(audit_event(f"{name}-{number}-{index}") for index in range(10)))
            while True:  # what a careful client does: again until it is answered, the last one, too
                try:
                    answered.extend(one["eventID"] for one in put(daemon, arn, batch)["successful"])
                    break
                except Exception:
                    stopping.wait(0.02)

    senders = [threading.Thread(target=send, args=(name,)) for name in "abc"]
    for sender in senders:
        sender.start()
    for _ in range(4):
        stopping.wait(0.7)
        daemon.kill()
        daemon.start()
    stopping.set()
    for sender in senders:
        sender.join(30)
    found = [value["eventID"] for _, _, value in records_of(daemon)]
    assert len(answered) > 100 and len(found) == len(set(found))
    assert set(found) == set(answered)


def test_a_full_journal_takes_nothing_and_says_so(make_daemon, provoked):
    # Where the log files should go, nothing listens, so that the journal only grows.
    config = {
        "storage": {"kind": "s3"},
        "aws": {"endpoint_url": "http://127.0.0.1:9", "force_path_style": True},
        "journal": {"max_bytes": "1MiB", "segment_bytes": "256KiB"},
    }
    daemon = make_daemon(config=config, env={"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}).start()
    arn = make_channel(client(daemon))
    large = lambda number: entries(audit_event(f"u-{number}", responseElements={"k": "x" * 90_000}))
    # What the event history alone had held may be let go of once: then there is room for a little more.
    taken, refused_since = 0, None
    while refused_since is None or time.monotonic() - refused_since < 2:
        try:
            put(daemon, arn, large(taken))
            taken, refused_since = taken + 1, None
        except Exception:
            refused_since = refused_since or time.monotonic()
            time.sleep(0.1)
        assert taken < 40, "the journal took more than it may"
    assert taken > 3
    code = "ServiceUnavailableException"
    provoked(data_client(daemon), "PutAuditEvents", code, 503, channelArn=arn, auditEvents=large("last"))
    with Client(daemon.api_port) as connection:
        body = json.dumps({"auditEvents": large("last")})
        status, headers, answer = connection.post(body, {}, f"/PutAuditEvents?channelArn={arn}")
    assert (status, headers["x-amzn-ErrorType"]) == (503, code) and int(headers["Retry-After"]) > 0
    assert "JournalFull" in answer["message"]


def test_trails_choose_audit_events_by_their_category(make_daemon):
    daemon = make_daemon(config={"trails": [{"name": "main", "s3_bucket_name": BUCKET}]}).start()
    cloudtrail = client(daemon)
    for name, request in [
        ("management", {}),
        ("activity", {"AdvancedEventSelectors": [{"FieldSelectors": [{"Field": "eventCategory", "Equals": ["ActivityAuditLog"]}]}]}),
    ]:
        make_trail(daemon, name, S3KeyPrefix=name)
        if request:
            cloudtrail.put_event_selectors(TrailName=name, **request)
        cloudtrail.start_logging(Name=name)
    arn = make_channel(cloudtrail)
    assert put(daemon, arn, entries(audit_event("u")))["successful"]
    keys = [file.parts["prefix"] for file, _, _ in records_of(daemon)]
    assert sorted(keys, key=str) == [None, "activity"]


def test_every_error_of_the_model_was_provoked_or_never_occurs(daemon, provoked, request):
    """The last of this file."""
    if not all_tests_of_this_file_ran(request, 10):
        pytest.skip("only with all tests of this file")
    provoked.check(data_client(daemon), ["PutAuditEvents"], NEVER, {})
