"""deploy/consumers: what reads the log files finds every event of them, and what Vector and Fluent Bit send is taken."""

import configparser
import gzip
import json
import re
import tomllib
import xml.etree.ElementTree as xml
from datetime import date, datetime, timezone
from pathlib import Path

import duckdb
import pytest
import sqlglot
import vrl_python
import yaml
from sqlglot import exp

import events
import logfiles
from harness import BUCKET, wait_until

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "consumers"
#: What the tables of athena.sql and trino.sql look into; their bucket is that of the tests.
ACCOUNTS, REGIONS = ["111122223333", "111122223334"], ["us-east-1", "eu-central-1", "ap-southeast-2"]


# Those that read.


def statements(file, dialect):
    return sqlglot.parse((FOLDER / file).read_text(), dialect=dialect)


def athena_table():
    """The columns with their types, and the properties, as Athena's parser sees them."""
    [table] = statements("athena.sql", "athena")
    assert isinstance(table, exp.Create), "not understood"
    columns = {column.name: column.args["kind"] for column in table.this.expressions}
    properties = dict(re.findall(r"'([\w.]+)' = '([^']*)'", (FOLDER / "athena.sql").read_text()))
    return columns, properties


def partitions(properties):
    """Where Athena looks, by account, region and day: every combination that the projection names, up to today."""
    accounts, regions = (properties[f"projection.{name}.values"].split(",") for name in ["account", "region"])
    assert properties["projection.day.format"] == "yyyy/MM/dd" and properties["projection.day.interval.unit"] == "DAYS"
    first, last = properties["projection.day.range"].split(",")
    first, last = date.fromisoformat(first.replace("/", "-")), datetime.now(timezone.utc).date()
    days = [date.fromordinal(day).strftime("%Y/%m/%d") for day in range(first.toordinal(), last.toordinal() + 1)]
    template = properties["storage.location.template"]
    for account in accounts:
        for region in regions:
            for day in days:
                place = template.replace("${account}", account).replace("${region}", region).replace("${day}", day)
                assert "$" not in place
                yield place.removeprefix(f"s3://{BUCKET}/") + "/", (account, region, day)


def test_each_log_file_is_where_the_tables_look(make_daemon, rng):
    """And digests are where they do not. The trail is an organization's, to have two accounts, so the tables get its level, too."""
    columns, properties = athena_table()
    daemon = make_daemon(config={"digest": {"interval": "1s"}}).start()
    sent = [event for account in ACCOUNTS for region in REGIONS for event in events.make_many(rng, 3, account=account, region=region)]
    daemon.send(sent)
    daemon.drain()
    files = logfiles.read(daemon.s3(), BUCKET)
    organization = "AWSLogs/o-exampleorgid/"
    assert all(file.key.startswith(organization) for file in files)
    places = {place.replace("AWSLogs/", organization): values for place, values in partitions(properties)}
    found = [places.get(file.key[: file.key.rindex("/") + 1]) for file in files]
    assert None not in found, [file.key for file in files]
    assert {value[:2] for value in found} == {(account, region) for account in ACCOUNTS for region in REGIONS}
    others = wait_until(lambda: [item["Key"] for item in objects(daemon) if logfiles.is_digest(item["Key"])], 20, "a digest")
    assert not any(key.startswith(place) for key in others for place in places)
    names = {name.lower() for file in files for _, record in file.records for name in record}
    assert names <= columns.keys(), f"members of events without a column: {names - columns.keys()}"

    create, view = statements("trino.sql", "trino")
    assert isinstance(create, exp.Create) and isinstance(view, exp.Create)
    trino = (FOLDER / "trino.sql").read_text()
    assert f"'{properties['storage.location.template']}'" in trino and f"'{properties['projection.day.format']}'" in trino
    fields = set(re.findall(r"^ {8}(\w+) (?:VARCHAR|ROW)", trino, re.MULTILINE))
    assert fields and fields <= columns.keys()


def objects(daemon):
    return daemon.s3().list_objects_v2(Bucket=BUCKET)["Contents"]


def as_column(value, kind):
    """What Athena's JSON SerDe makes of a value: names without regard to case, and text of what is to be a string."""
    if value is None:
        return None
    if kind.this == exp.DataType.Type.STRUCT:
        fields = {field.name: field.args["kind"] for field in kind.expressions}
        given = {name.lower(): member for name, member in value.items()}
        return {name: as_column(given.get(name), field) for name, field in fields.items()}
    if kind.this == exp.DataType.Type.ARRAY:
        return [as_column(member, kind.expressions[0]) for member in value]
    return value if isinstance(value, str) else json.dumps(value)


def test_the_queries_answer_what_they_ask(daemon, rng, tmp_path):
    """DuckDB in Athena's place: the table has the columns of athena.sql, the rows are of real log files, the queries are translated."""
    columns, _ = athena_table()
    admin = {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/admin", "userName": "admin"}
    daemon.send(
        [
            events.make(rng, userIdentity=admin, eventName="ListUsers"),
            events.make(rng, userIdentity=admin, eventName="DeleteUser", readOnly=False, requestParameters={"userName": "bob"}),
            events.make(rng, userIdentity=admin, eventName="DeleteBucket", readOnly=False, errorCode="AccessDenied"),
            events.make(rng, userIdentity=admin, eventName="ConsoleLogin", size=0, additionalEventData={"MFAUsed": "No"}),
            events.make(rng, userIdentity=admin, eventName="ConsoleLogin", size=0, additionalEventData={"MFAUsed": "Yes"}),
        ]
    )
    daemon.drain()
    rows = []
    for file in logfiles.read(daemon.s3(), BUCKET):
        place = {"account": file.parts["account"], "region": file.parts["region"], "day": "/".join(file.key.split("/")[-4:-1])}
        for _, record in file.records:
            given = {name.lower(): value for name, value in record.items()}
            rows.append({name: as_column(given.get(name), kind) for name, kind in columns.items()} | place)
    (tmp_path / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    types = {name: kind.sql(dialect="duckdb") for name, kind in columns.items()} | dict.fromkeys(["account", "region", "day"], "VARCHAR")
    table = duckdb.connect()
    table.execute(f"CREATE TABLE traild AS FROM read_json('{tmp_path / 'rows.json'}', columns = {types})")

    def ask(query):
        return table.execute(query.sql(dialect="duckdb")).fetchall()

    for dialect in ["athena", "trino"]:
        everything, refused, changes, sign_ins, active = map(ask, statements("queries.sql", dialect))
        assert len(everything) == 5
        assert [(arn, *rest) for arn, _, *rest in refused] == [(admin["arn"], "DeleteBucket", "AccessDenied", 1)]
        assert sorted(change[2] for change in changes) == ["DeleteBucket", "DeleteUser"]
        assert {"userName": "bob"} in [json.loads(change[3]) for change in changes]
        assert [sign_in[1] for sign_in in sign_ins] == ["admin"]
        [(arn, account, region, _, _, count)] = active
        assert (arn, account, region, count) == (admin["arn"], "111122223333", "us-east-1", 5)


def test_the_snippets_for_other_products_are_well_formed():
    text = (FOLDER / "README.md").read_text()
    found = {kind: re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for kind in ["xml", "yaml", "ini"]}
    assert all(found.values()), found
    for snippet in found["xml"]:
        assert xml.fromstring(snippet).tag == "wodle"
    for snippet in found["yaml"]:
        assert yaml.safe_load(snippet)
    for snippet in found["ini"]:
        parser = configparser.ConfigParser()
        parser.read_string(snippet)
        assert parser.sections()


# Those that send.


def vector():
    return tomllib.loads((FOLDER / "vector.toml").read_text())


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def vector_request(sink, batch):
    """The headers and the body of Vector's http sink for these events, by its settings. It writes members in the order of their names."""
    lines = [json.dumps(event, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode() for event in batch]
    if sink.get("framing", {}).get("method") == "newline_delimited":
        kind, body = "application/x-ndjson", b"".join(line + b"\n" for line in lines)
    else:
        kind, body = "application/json", b"[" + b",".join(lines) + b"]"
    headers = {"Content-Type": kind, "User-Agent": "Vector/0.50.0"}
    if sink.get("compression", "none") != "none":
        assert sink["compression"] == "gzip"
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    return headers, body


def test_vector_makes_events_of_lines():
    """Vector's own language runs the transform: the line becomes the event, and one without an eventID gets one."""
    program, runtime = vector()["transforms"]["event"]["source"], vrl_python.VRLRuntime()

    def remap(line):
        return runtime.execute(program, {"message": line, "file": "audit.ndjson", "host": "h", "source_type": "file"}).processed_event

    event = {"eventID": "e-1", "eventTime": "2026-05-01T00:19:01Z", "nested": {"list": [1, None, True]}}
    assert remap(json.dumps(event)) == event
    made = remap('{"eventName":"A"}')
    assert made.keys() == {"eventName", "eventID"} and re.fullmatch(r"[0-9a-f-]{36}", made["eventID"])
    for broken in ["not JSON", "[1]", "17", ""]:
        with pytest.raises(RuntimeError):
            remap(broken)


@pytest.mark.parametrize("changes", [{}, {"framing": {}}, {"compression": "none"}], ids=["as configured", "array", "plain"])
def test_what_vector_sends_is_taken_and_taken_once(daemon, rng, changes):
    config = vector()
    sink = config["sinks"]["traild"] | changes
    assert sink["uri"].endswith(":4580/v1/events") and sink["encoding"] == {"codec": "json"}
    assert sink["inputs"] == ["event"] and config["transforms"]["event"]["inputs"] == ["audit"]
    assert sink["batch"]["max_bytes"] < 16 * 2**20, "less than ingest.max_body_bytes"
    assert sink["acknowledgements"]["enabled"] and sink["buffer"]["when_full"] == "block" and "request" not in sink
    check_sent_twice(daemon, rng, lambda batch: vector_request(sink, batch))


def fluent_bit():
    """The sections of fluent-bit.conf, each with its settings."""
    sections = []
    for line in (FOLDER / "fluent-bit.conf").read_text().splitlines():
        line = line.strip()
        if line.startswith("["):
            sections.append((line.strip("[]"), {}))
        elif line and not line.startswith("#"):
            name, value = line.split(None, 1)
            sections[-1][1][name] = value
    return sections


def fluent_bit_request(output, batch):
    """The headers and the body of Fluent Bit's http output for these events, by its settings."""
    named = output.get("json_date_key", "date")
    records = [compact(({} if named == "false" else {named: 1777594741.123456}) | event) for event in batch]
    kind, body = {
        "json": ("application/json", b"[" + b",".join(records) + b"]"),
        "json_lines": ("application/x-ndjson", b"".join(record + b"\n" for record in records)),
        "json_stream": ("application/json", b"".join(records)),
    }[output["format"]]
    headers = {"Content-Type": kind, "User-Agent": "Fluent-Bit"}
    if "compress" in output:
        assert output["compress"] == "gzip"
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    return headers, body


def http_output():
    [output] = [settings for section, settings in fluent_bit() if section == "OUTPUT"]
    return output


@pytest.mark.parametrize(
    "changes", [{}, {"format": "json"}, {"json_date_key": "date"}, {"format": "json", "json_date_key": "date"}], ids=lambda changes: "+".join(changes) or "as configured"
)
def test_what_fluent_bit_sends_is_taken_and_taken_once(daemon, rng, changes):
    sections, output = dict(fluent_bit()), http_output() | changes
    assert (output["uri"], output["port"], output["retry_limit"]) == ("/v1/events", "4580", "no_limits")
    assert output["match"] == sections["INPUT"]["tag"] and sections["INPUT"]["parser"] == "json" and "parsers_file" in sections["SERVICE"]
    assert sections["INPUT"]["storage.type"] == "filesystem" and "storage.path" in sections["SERVICE"]
    check_sent_twice(daemon, rng, lambda batch: fluent_bit_request(output, batch))


def check_sent_twice(daemon, rng, request):
    """All of a batch is taken; sent again after a lost answer, none of it is; a broken neighbour is named."""
    batch = [json.loads(event) for event in events.make_many(rng, 20)]
    headers, body = request(batch)
    status, _, answer = daemon.post(body, headers)
    assert (status, answer) == (200, {"accepted": 20, "duplicates": 0, "rejected": []})
    status, _, answer = daemon.post(body, headers)
    assert (status, answer) == (200, {"accepted": 0, "duplicates": 20, "rejected": []})
    headers, body = request([json.loads(events.make(rng)), {"log": "not an audit event"}])
    status, _, answer = daemon.post(body, headers)
    assert status == 200 and answer["accepted"] == 1 and [refused["index"] for refused in answer["rejected"]] == [1]
    daemon.drain()
    stored = {record["eventID"]: record for file in logfiles.read(daemon.s3(), BUCKET) for _, record in file.records}
    assert len(stored) == 21
    for event in batch:
        assert event.items() <= stored[event["eventID"]].items()


def test_a_format_of_fluent_bit_that_cannot_be_read_is_refused_whole(daemon, rng):
    """json_stream has nothing between events, and msgpack is no JSON."""
    batch = [json.loads(event) for event in events.make_many(rng, 3)]
    headers, body = fluent_bit_request(http_output() | {"format": "json_stream"}, batch)
    status, _, answer = daemon.post(body, headers)
    assert status == 400 and answer["rejected"], answer
    status, _, answer = daemon.post(b"\x92\xd7\x00j\x00\x00\x00\x00\x00\x00\x00\x81\xa3log\xa1x", {"Content-Type": "application/msgpack"})
    assert status == 400, answer
