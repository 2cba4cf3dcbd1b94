"""Real events, of every age and origin: each is delivered byte for byte, or refused by name with a sensible reason."""

import json
import re
from collections import Counter, defaultdict

import events
import logfiles
from harness import BUCKET


def must_be_refused(event):
    """An account of four or five digits, or no time: nothing else in the corpus is wrong."""
    identity = event.get("userIdentity") or {}
    account = event.get("recipientAccountId") or identity.get("accountId")
    return "eventTime" not in event or not (account is None or re.fullmatch(r"[0-9]{12}", account))


def test_every_event_is_delivered_as_given_or_refused_with_a_reason(daemon):
    given = list(events.corpus())
    accepted, duplicates, refused = [], 0, []
    for start in range(0, len(given), 100):
        batch = given[start : start + 100]
        status, _, answer = daemon.post(b"\n".join(event for _, event in batch))
        assert status == 200, answer
        bad = {refusal["index"]: refusal for refusal in answer["rejected"]}
        assert answer["accepted"] + answer["duplicates"] + len(bad) == len(batch), answer
        accepted += [event for index, (_, event) in enumerate(batch) if index not in bad]
        duplicates += answer["duplicates"]
        refused += [(batch[index][0], batch[index][1], refusal) for index, refusal in bad.items()]

    for origin, event, refusal in refused:
        name = json.loads(event).get("eventName")
        print(f"refused: {origin} {name} {refusal.get('eventID')}: {refusal['code']}: {refusal['message']}")
        assert refusal["code"] and refusal["message"]
        assert must_be_refused(json.loads(event)), f"refused without need: {event}"
    assert len(refused) == sum(must_be_refused(json.loads(event)) for _, event in given)

    daemon.drain()
    files = logfiles.read(daemon.s3(), BUCKET)
    expected, doubles = Counter(accepted), len(accepted) - len(set(accepted))
    assert duplicates == doubles
    by_id = defaultdict(list)
    for event in expected:
        by_id[json.loads(event).get("eventID")].append(event)
    found = Counter()
    for file in files:
        for stored, value in file.records:
            candidates = [*by_id.get(value["eventID"], []), *by_id.get(None, [])]
            matches = [event for event in candidates if logfiles.same(event, stored)]
            assert len(matches) == 1, f"{file.key}: {len(matches)} given events match {stored[:200]}"
            found[matches[0]] += 1
    assert set(found) == set(expected)
    assert set(found.values()) == {1}, "an event was delivered twice"
    folders = {file.parts["folder"] for file in files}
    assert {"CloudTrail", "CloudTrail-Insight"} <= folders
    print(f"{len(given)} given, {len(found)} delivered in {len(files)} files, {duplicates} duplicates, {len(refused)} refused")
