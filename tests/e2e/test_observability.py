"""deploy/observability against a real Prometheus: each alert fires when it should and is silent when it should be, and no query of the
dashboard or of an alert asks for a series that the daemon does not have.
"""

import json
import math
import re
import time
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

import events
from fanout import MAIN, trail_of_its_own
from fault_proxy import FaultProxy, is_object_put
from harness import TEST_CREDENTIALS, delivering_to, free_port, merged, wait_until
from prometheus import Prometheus, promtool

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "observability"
RULES = FOLDER / "rules" / "traild.yaml"
RUNBOOK = "deploy/observability/README.md"
DAY = 86400

#: For each alert: series with what they are of an instance that is ill and of one that is well, a value a minute in promtool's notation;
#: the last minute at which it is silent, and one at which it fires.
ALERTS = {
    "TraildDown": ([("up", "", "1 1 0x40", "1x40")], 3, 5),
    "TraildNotReady": ([("traild_ready", "", "1 1 0x40", "1x40")], 3, 5),
    "TraildRestarting": (
        [
            ("process_start_time_seconds", "", "10 10 80 80 200 200 320 320 500x40", "10 10 80 80 200 200 320x40"),
            ("traild_build_info", 'version="1"', "1x60", "1x60"),
        ],
        7,
        9,
    ),
    "TraildDescriptorsRunningOut": (
        [
            ("process_open_fds", "", "900x40", "700x40"),
            ("process_max_fds", "", "1000x40", "1000x40"),
            ("traild_build_info", 'version="1"', "1x60", "1x60"),
        ],
        4,
        6,
    ),
    "TraildLogFilesLate": (
        [
            ("traild_oldest_pending_seconds", 'trail="a", sink="s3"', "0+60x40", "299x40"),
            ("traild_oldest_pending_seconds", 'trail="a", sink="logs"', "0x40", "9999x40"),
            ("traild_delivery_max_age_seconds", "", "60x40", "60x40"),
        ],
        7,
        9,
    ),
    "TraildSendingOnLate": (
        [
            ("traild_oldest_pending_seconds", 'trail="a", sink="bus"', "0+60x40", "300x40"),
            ("traild_oldest_pending_seconds", 'trail="a", sink="s3"', "0x40", "9999x40"),
        ],
        7,
        9,
    ),
    "TraildDeliveryErrors": ([("traild_delivery_errors_total", 'trail="a", sink="s3", code="SlowDown"', "0+1x40", "5x40")], 10, 12),
    "TraildCredentialsRefused": (
        [
            ("traild_delivery_errors_total", 'trail="a", sink="s3", code="ExpiredToken"', "0+1x40", "7x40"),
            ("traild_delivery_errors_total", 'trail="a", sink="s3", code="SlowDown"', "0+1x40", "0+1x40"),
        ],
        5,
        7,
    ),
    "TraildEventsLost": (
        [
            ("traild_events_dead_lettered_total", 'trail="a", sink="s3", reason="journal_damaged"', "0 0 1x90", "1x90"),
            ("traild_events_dead_lettered_total", 'trail="a", sink="bus", reason="refused"', "0x90", "0 0 1x90"),
        ],
        1,
        3,
    ),
    "TraildDeadLetters": ([("traild_events_dead_lettered_total", 'trail="a", sink="bus", reason="refused"', "2 2 3x90", "2x90")], 1, 3),
    "TraildEventsUnaccounted": (
        [
            ("traild_events_routed_total", 'trail="a", sink="s3"', "100x40", "100x40"),
            ("traild_events_delivered_total", 'trail="a", sink="s3"', "92x40", "90x40"),
            # One that adds up at every other scrape is only moving.
            ("traild_events_pending", 'trail="a", sink="s3"', "7x40", "7 3 7 3 7 3 7 3 7 3 7 3 7 3 7 3 7 3 7 3 7 3 7 3"),
            ("traild_events_dead_lettered_total", 'trail="a", sink="s3", reason="one"', "2x40", "2x40"),
            ("traild_events_dead_lettered_total", 'trail="a", sink="s3", reason="two"', "1x40", "1x40"),
        ],
        4,
        16,
    ),
    "TraildEventsRejected": ([("traild_events_rejected_total", 'code="InvalidJson"', "0+2x40", "9x40")], 15, 17),
    "TraildDigestLate": (
        [
            ("traild_digest_covered_until_seconds", 'trail="a"', "0x140", "0x59 3600x59 7200x59"),
            ("traild_digest_interval_seconds", "", "3600x140", "3600x140"),
        ],
        125,
        132,
    ),
    "TraildDigestsNotDelivered": ([("traild_digest_windows_pending", 'trail="a"', "4x40", "3x40")], 14, 16),
    "TraildDigestsUndeliverable": ([("traild_digests_undeliverable_total", 'trail="a"', "0 0 1x40", "0x40")], 1, 3),
    "TraildJournalFilling": ([("traild_journal_bytes", "", "75x40", "70x40"), ("traild_journal_max_bytes", "", "100x40", "100x40")], 4, 6),
    "TraildJournalNearlyFull": ([("traild_journal_bytes", "", "90x40", "87x40"), ("traild_journal_max_bytes", "", "100x40", "100x40")], 0, 2),
    "TraildDiskNearlyFull": ([("traild_disk_free_bytes", "", "9x40", "11x40"), ("traild_disk_size_bytes", "", "100x40", "100x40")], 4, 6),
    "TraildDiskSlow": (
        [
            ("traild_journal_fsync_seconds_bucket", 'le="0.4"', "0+1x40", "0+100x40"),
            ("traild_journal_fsync_seconds_bucket", 'le="0.8"', "0+100x40", "0+100x40"),
            ("traild_journal_fsync_seconds_bucket", 'le="+Inf"', "0+100x40", "0+100x40"),
        ],
        10,
        12,
    ),
    "TraildJournalDamaged": ([("traild_journal_quarantined_bytes_total", "", "0 0 17x40", "0x40")], 1, 3),
    "TraildHistoryStopped": ([("traild_history_running", "", "0x40", "1x40")], 4, 6),
    "TraildHistoryBehind": ([("traild_history_pending_bytes", "", "65e6x40", "63e6x40")], 9, 11),
    "TraildHistoryIncomplete": (
        [
            ("traild_history_skipped_bytes_total", "", "0x40", "0x40"),
            ("traild_history_quarantined_files_total", "", "0x40", "0x40"),
            ("traild_history_damaged_events_total", "", "0 0 1x40", "0x40"),
        ],
        1,
        3,
    ),
    "TraildAuditRecordsLost": ([("traild_audit_records_lost_total", "", "0 0 1x90", "1x90")], 1, 3),
    "TraildCertificateExpiring": ([("traild_certificate_expiry_seconds", "", f"{14 * DAY + 90}x40", f"{15 * DAY}x40")], 1, 2),
    "TraildCertificateExpired": ([("traild_certificate_expiry_seconds", "", f"{DAY + 90}x40", f"{2 * DAY}x40")], 1, 2),
}

#: What the names of series begin with that a daemon has all of or, for want of the part or the setting, none.
PARTS = ["traild_certificate_", "traild_history_", "traild_audit_", "traild_events_skipped_"]


def alert_rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule]


def firing(name):
    return f'count by (instance) (ALERTS{{alertname="{name}", alertstate="firing"}})'


def test_promtool_accepts_the_rules_and_the_configuration():
    code, said = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert code == 0, said
    code, said = promtool("check", "config", FOLDER / "prometheus.yaml")
    assert code == 0, said


def test_each_alert_fires_for_the_ill_and_not_for_the_well(tmp_path):
    tests = []
    for name, (series, silent_at, fires_at) in ALERTS.items():
        written = [
            {"series": f'{metric}{{job="traild", instance="{instance}"{", " + labels if labels else ""}}}', "values": values}
            for metric, labels, *both in series
            for instance, values in zip(["ill", "well"], both)
        ]
        ill = [{"labels": '{instance="ill"}', "value": 1}]
        asked = [
            {"expr": firing(name), "eval_time": f"{silent_at}m", "exp_samples": []},
            {"expr": firing(name), "eval_time": f"{fires_at}m", "exp_samples": ill},
        ]
        tests.append({"interval": "1m", "input_series": written, "promql_expr_test": asked})
    absent = 'count(ALERTS{alertname="TraildAbsent", alertstate="firing"})'
    for values, expected in [("1x40", []), ("_x40", [{"labels": "{}", "value": 1}])]:
        written = [{"series": 'traild_build_info{version="1"}', "values": values}]
        asked = [
            {"expr": absent, "eval_time": "4m", "exp_samples": []},
            {"expr": absent, "eval_time": "6m", "exp_samples": expected},
        ]
        tests.append({"interval": "1m", "input_series": written, "promql_expr_test": asked})
    assert {rule["alert"] for rule in alert_rules()} == {*ALERTS, "TraildAbsent"}, "each alert has its test"
    file = tmp_path / "tests.yaml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    code, said = promtool("test", "rules", file)
    assert code == 0, said


def test_each_alert_says_what_to_do():
    runbook = (FOLDER / "README.md").read_text()
    anchors = [heading.lower() for heading in re.findall(r"^### (\w+)$", runbook, re.MULTILINE)]
    rules = alert_rules()
    assert anchors == [rule["alert"].lower() for rule in rules], "a heading for each alert, in their order"
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"{RUNBOOK}#{rule['alert'].lower()}"


def dashboard():
    return json.loads((FOLDER / "dashboards" / "traild.json").read_text())


def test_the_dashboard_is_what_grafana_knows():
    """Grafana's own description of dashboards, from which its SDK is made, has a place for everything in it."""
    register_default_plugins()
    given = dashboard()
    understood = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))

    def lost(ours, theirs, where):
        if isinstance(ours, dict):
            for key, value in ours.items():
                yield from lost(value, theirs[key], f"{where}.{key}") if key in (theirs or {}) else [f"{where}.{key}"]
        elif isinstance(ours, list):
            for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                yield from lost(one, other, f"{where}[{index}]")
        elif ours != theirs:
            yield f"{where}: {ours!r}, not {theirs!r}"

    assert list(lost(given, understood, "dashboard")) == []
    panels = given["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, f"{panel['title']} lies on another panel"
        taken |= cells
        assert panel["type"] == "row" or (panel["description"] and panel["datasource"]["uid"] == "${datasource}"), panel["title"]


def queries():
    """Each query of the dashboard by the panel's title, as Grafana asks it when all instances and trails are chosen and the step is short."""
    found = []
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for variable, value in {"$__rate_interval": "10s", "$__range": "10s", "$instance": ".*", "$trail": ".*"}.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression, expression
            found.append((panel["title"], expression))
    return found


def test_each_series_is_explained(daemon):
    runbook = (FOLDER / "README.md").read_text()
    exported = re.findall(r"^# TYPE (\w+) (\w+)$", daemon.ops("/metrics")[1], re.MULTILINE)
    names = {name + ("_total" if kind == "counter" else "") for name, kind in exported}
    explained = set(re.findall(r"`(\w+)(?:\{[\w,]+\})?`", runbook[: runbook.index("## The dashboard")]))
    assert len(names) > 30 and names <= explained, f"not in the table: {names - explained}"
    absent = tuple(part for part in PARTS if not any(name.startswith(part) for name in names))
    assert {name for name in explained if name.startswith(("traild_", "process_")) and not name.startswith(absent)} <= names


def as_printed(expression):
    """Without the choice of all instances and trails."""
    return re.sub(r'instance=~"\.\*"(, trail=~"\.\*")?(, )?', "", expression).replace("{}", "")


def test_the_runbook_shows_each_query():
    shown = re.findall(r"^\| ([^|]+) \| `([^`]+)` \| \d+ \| \S+ \|$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert shown == [(title, as_printed(expression)) for title, expression in queries()]


def hastened(rules):
    """The rules with what takes minutes made to take seconds; what they look for stays."""
    rules, changed = re.subn(r"^(\s+for: )\d+m$", r"\g<1>1s", rules, flags=re.MULTILINE)
    assert changed == rules.count("for: ")
    rules, changed = re.subn(r"\[(5m|10m|1h)\]", "[10s]", rules)
    assert changed > 5
    for slow, fast in [
        ("[30m]", "[30s]"),
        ("3 * traild_delivery_max_age_seconds + 120", "3 * traild_delivery_max_age_seconds"),
        ('{sink!="s3"} > 300', '{sink!="s3"} > 3'),
        ("(traild_digest_interval_seconds + 300)", "traild_digest_interval_seconds"),
    ]:
        assert rules.count(slow) == 1, slow
        rules = rules.replace(slow, fast)
    return rules


def configuration(tmp_path, targets):
    """The example with these targets, and the hastened rules."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "traild.yaml").write_text(hastened(RULES.read_text()))
    config = (FOLDER / "prometheus.yaml").read_text()
    for given, ours in {'["127.0.0.1:4581"]': json.dumps(targets), "_interval: 15s": "_interval: 500ms"}.items():
        assert given in config
        config = config.replace(given, ours)
    (tmp_path / "prometheus.yaml").write_text(config)
    return tmp_path / "prometheus.yaml"


@pytest.fixture
def ward(make_daemon, make_sender, aws, rng, seed):
    """A daemon that is well but for what it is sent, and one for each illness."""
    main, unheard = MAIN | {"enable_log_file_validation": True}, trail_of_its_own(aws, "unheard")
    digesting = {"digest": {"interval": "1s"}}
    limits = {"sinks": {"cloudwatch_max_event_bytes": "4KiB"}}
    aws.choose = lambda call, rng: "unavailable" if (call.service, call.target) == ("events", "unheard") else None
    well = make_sender([main, unheard], name="well", config=digesting | limits).start()
    nowhere = delivering_to(f"http://127.0.0.1:{free_port()}")
    small = {"journal": {"max_bytes": "256KiB", "segment_bytes": "64KiB"}}
    no_key = {"aws": nowhere["aws"], "digest": {"interval": "2s", "kms_key_id": "alias/none"}}
    with FaultProxy(well.store_port, seed=seed, choose=lambda request, rng: "403" if is_object_put(request) else None) as proxy:
        configs = {
            "refused": delivering_to(proxy.endpoint) | digesting,
            "full": nowhere | small,
            "damaged": nowhere,
            "rotting": {"delivery": {"max_age": "4s"}},
            "unsigned": no_key,
            "restless": {},
        }
        ill = {name: make_daemon(name, config=config, env=TEST_CREDENTIALS).start() for name, config in configs.items()}
        ill["full"].send(events.make_many(rng, 6, size=30_000))
        ill["full"].kill()
        ill["full"].write_config(merged(ill["full"].config, {"journal": {"max_bytes": "128KiB"}}))
        ill["full"].spawn()
        yield {"well": well} | ill


#: Which of them must raise what.
PROVOKED = {
    ("TraildDeadLetters", "well"),
    ("TraildEventsRejected", "well"),
    ("TraildSendingOnLate", "well"),
    ("TraildLogFilesLate", "refused"),
    ("TraildDeliveryErrors", "refused"),
    ("TraildCredentialsRefused", "refused"),
    ("TraildDigestsNotDelivered", "refused"),
    ("TraildLogFilesLate", "full"),
    ("TraildDeliveryErrors", "full"),
    ("TraildNotReady", "full"),
    ("TraildJournalFilling", "full"),
    ("TraildJournalNearlyFull", "full"),
    ("TraildJournalDamaged", "damaged"),
    ("TraildEventsLost", "rotting"),
    ("TraildDigestLate", "unsigned"),
    ("TraildRestarting", "restless"),
    ("TraildDown", "nobody"),
}


def rot(daemon, rng):
    """Sends events, and flips a bit of one in the journal, under the daemon's hands."""
    daemon.send(sent := events.make_many(rng, 5))
    damage(daemon, sent[1])


def damage(daemon, event):
    wanted = json.loads(event)["eventID"].encode()
    [path] = [path for path in (daemon.data_dir / "journal").rglob("*") if path.is_file() and wanted in path.read_bytes()]
    with open(path, "r+b") as file:
        at = file.read().index(wanted)
        file.seek(at)
        file.write(bytes([wanted[0] ^ 1]))


def test_a_real_prometheus_finds_each_series_and_raises_what_is_provoked(ward, rng, tmp_path, report):
    targets = {f"127.0.0.1:{daemon.ops_port}": name for name, daemon in ward.items()} | {f"127.0.0.1:{free_port()}": "nobody"}
    with Prometheus(configuration(tmp_path, list(targets)), tmp_path / "prometheus") as prometheus:
        wait_until(lambda: len(prometheus.query("traild_ready")) == len(ward), 20, "a scrape of each")
        rot(ward["damaged"], rng)
        ward["damaged"].kill()
        ward["damaged"].start()
        fired = set()

        def all_fire():
            ward["well"].post(b"\n".join([*events.make_many(rng, 20), events.make(rng, size=8000), b"not an event"]))
            ward["refused"].send(events.make_many(rng, 5))
            rot(ward["rotting"], rng)
            ward["restless"].kill()
            ward["restless"].start()
            time.sleep(0.8)
            for alert in prometheus.alerts():
                said = " ".join(alert["annotations"].values())
                assert "<" not in said, f"a template that could not be expanded: {said}"
            fired.update((name, targets.get(instance)) for name, instance in prometheus.fired())
            return fired >= PROVOKED

        try:
            wait_until(all_fire, 120, "all alerts")
        except AssertionError as error:
            raise AssertionError(f"{error}: {sorted(PROVOKED - fired)}; fired: {sorted(fired, key=str)}") from error
        must_be_silent = {"TraildNotReady", "TraildLogFilesLate", "TraildJournalFilling", "TraildJournalDamaged", "TraildDigestLate", "TraildDown"}
        assert not {(name, "well") for name in must_be_silent} & fired, sorted(fired, key=str)
        check_queries(prometheus, report)
        for daemon in ward.values():
            daemon.kill()
        wait_until(lambda: "TraildAbsent" in {alert["labels"]["alertname"] for alert in prometheus.alerts()}, 15, "TraildAbsent")
    report(f"alerts raised by a real Prometheus: {', '.join(sorted({name for name, _ in fired} | {'TraildAbsent'}))}")


def check_queries(prometheus, report):
    """No query of the dashboard is empty, and no selector of a rule."""
    series = 0
    for title, expression in queries():
        found = prometheus.query(expression)
        assert found, f"panel {title!r} shows nothing: {expression}"
        series += len(found)
        largest = max(value for _, value in found if not math.isnan(value))
        print(f"| {title} | `{as_printed(expression)}` | {len(found)} | {largest:.4g} |")
    rules = prometheus.rules()
    assert len(rules) == RULES.read_text().count("- alert: ") + RULES.read_text().count("- record: ")
    selectors = set()
    for rule in rules:
        assert rule["health"] == "ok", rule
        selectors.update(re.findall(r"\b(?:traild[_:]|process_|up\b)[\w:]*(?:\{.*?\})?", rule["query"]))
    absent = tuple(part for part in PARTS if not prometheus.query(f'{{__name__=~"{part}.*"}}'))
    for selector in selectors:
        assert prometheus.query(selector) or selector.startswith(absent), f"no series: {selector}"
    assert len(selectors) > 20
    report(f"{len(queries())} queries of the dashboard found {series} series; {len(selectors)} selectors of the rules found theirs")
