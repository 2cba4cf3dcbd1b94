"""deploy/kubernetes: what Helm and kustomize render is what Kubernetes takes, and what the daemon serves.

Rendered by the real helm and kubectl; held against the published schemas; the traild.toml in it is read by the real binary, with its
files where the pod has them.
"""

import base64
import functools
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import tomllib
import uuid
from datetime import datetime, timezone
from pathlib import Path

import jsonschema
import pytest
import yaml

import events
from deploy_tools import DEPLOY, ROOT, check_manifest, kubernetes_tools, objects, run
from harness import run_cli, wait_until

CHART = DEPLOY / "kubernetes" / "chart"
BASE = DEPLOY / "kubernetes" / "base"
AUDIT = DEPLOY / "kubernetes" / "audit-webhook"
OBSERVABILITY = DEPLOY / "observability"
#: The oldest that Chart.yaml admits, and the newest with a schema.
VERSIONS = ("1.29", "1.37")
ROLE = "arn:aws:iam::111122223333:role/traild"
ONLY_PUT = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "traild:PutEvents", "Resource": "*"}]}
TRAIL = {"name": "main", "s3_bucket_name": "audit-logs"}

#: Every value away from its default, and every key of traild.toml that the chart takes.
EVERYTHING = {
    "fullnameOverride": "audit",
    "commonLabels": {"team": "platform"},
    "image": {"registry": "registry.example.com", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "pull"}],
    "config": {
        "account_id": "222233334444",
        "region": "eu-central-1",
        "storage": {"kind": "s3"},
        "aws": {"endpoint_url": "https://s3.example.com", "force_path_style": True, "checksum": "when_supported"},
        "ingest": {"max_body_bytes": "32MiB", "max_event_bytes": 524288, "dedup_window": 2000000, "on_full": "reject"},
        "journal": {"max_bytes": "80GiB", "segment_bytes": "128MiB", "on_full": "reject"},
        "delivery": {"max_age": "5m", "max_bytes": "40MiB", "gzip_level": 9, "flush_on_stop": True, "stop_timeout": "1m30s"},
        "digest": {"interval": "1h", "kms_key_id": "alias/traild-digests"},
        "sinks": {"event_bridge_source": "audit.{service}", "cloudwatch_max_event_bytes": "1MiB", "put_events_max_bytes": "1MiB"},
        "auth": {"mode": "sigv4", "allow_anonymous": False},
        "inputs": {"file": [{"path": "/var/log/app/audit*.ndjson"}, {"path": '/var/log/a "quoted" \\ name.ndjson'}]},
        "trails": [
            {
                "name": "main",
                "s3_bucket_name": "audit-logs",
                "s3_key_prefix": "prod",
                "sns_topic_arn": "arn:aws:sns:eu-central-1:222233334444:trail",
                "cloud_watch_logs_log_group_arn": "arn:aws:logs:eu-central-1:222233334444:log-group:trail:*",
                "cloud_watch_logs_role_arn": "arn:aws:iam::222233334444:role/to-logs",
                "event_bus": "audit",
                "is_multi_region_trail": False,
                "include_global_service_events": False,
                "is_organization_trail": True,
                "organization_id": "o-exampleorgid",
                "organization_accounts": ["222233334444", "333344445555"],
                "enable_log_file_validation": True,
                "kms_key_id": "alias/audit",
                "advanced_event_selectors": [
                    {"Name": "writes, no KMS", "FieldSelectors": [
                        {"Field": "eventCategory", "Equals": ["Management"]},
                        {"Field": "eventSource", "NotEquals": ["kms.amazonaws.com"]},
                    ]},
                ],
            },
            {"name": "reads", "s3_bucket_name": "audit-logs", "event_selectors": [{"ReadWriteType": "ReadOnly", "IncludeManagementEvents": True}]},
        ],
    },
    "credentials": [
        {"accessKeyId": "SENDER.1", "secretAccessKey": "a-secret", "policy": ONLY_PUT},
        {"accessKeyId": "OTHERS", "accountId": "333344445555", "existingSecret": "others", "existingSecretKey": "secret"},
    ],
    "listenAddress": "[::]",
    "aws": {"region": "eu-west-1", "existingSecret": "aws-keys"},
    "serviceAccount": {"name": "audit", "roleArn": ROLE, "annotations": {"eks.amazonaws.com/sts-regional-endpoints": "true"}},
    "persistence": {
        "size": "100Gi",
        "storageClass": "fast",
        "accessModes": ["ReadWriteOncePod"],
        "annotations": {"backup": "daily"},
        "keys": {"enabled": True, "storageClass": "safe", "size": "2Gi", "annotations": {"backup": "hourly"}},
    },
    "service": {"type": "LoadBalancer", "port": 443, "clusterIP": "10.96.0.80", "annotations": {"a": "b"}},
    "podDisruptionBudget": {"maxUnavailable": 0},
    "networkPolicy": {
        "apiFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "opsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
    },
    "serviceMonitor": {"enabled": True, "interval": "15s", "scrapeTimeout": "5s", "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True, "annotations": {"k8s-sidecar-target-directory": "audit"}},
    "securityContext": {"runAsUser": 1001, "runAsGroup": 1002, "fsGroup": 1003},
    "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
    "startupSeconds": 60,
    "logLevel": "debug",
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"disk": "local"},
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}},
    "tolerations": [{"key": "audit", "operator": "Exists", "effect": "NoSchedule"}],
    "podLabels": {"sidecar": "no"},
    "podAnnotations": {"note": "x"},
    "extraEnv": [{"name": "AWS_PROFILE", "value": "audit"}],
    "extraEnvFrom": [{"configMapRef": {"name": "more", "optional": True}}],
    "extraVolumes": [{"name": "app-logs", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "app-logs", "mountPath": "/var/log/app", "readOnly": True}],
}
MTLS = {"tls": {"secretName": "api-tls", "clientCa": True}, "certificates": [{"commonName": "kube-apiserver", "policy": ONLY_PUT}]}

#: Each by itself, over the defaults.
VARIANTS = {
    "defaults": {},
    "everything": EVERYTHING,
    "mTLS": MTLS,
    "s3": {"config": {"storage": {"kind": "s3"}, "trails": [TRAIL]}},
    "text": {"configText": 'account_id = "111122223333"\nregion = "us-east-1"\n[auth]\nallow_anonymous = true\n', "credentials": []},
    "anonymous": {"config": {"auth": {"mode": "none", "allow_anonymous": True}}, "credentials": []},
    "existing claim": {"persistence": {"existingClaim": "old"}},
    "existing claim, own keys": {"persistence": {"existingClaim": "old", "keys": {"enabled": True}}},
    "no extras": {"podDisruptionBudget": {"enabled": False}, "networkPolicy": {"enabled": False}, "serviceAccount": {"create": False}},
    "monitored": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}},
    "grace by hand": {"terminationGracePeriodSeconds": 300},
}

REFUSED = {
    "a key that is none": ({"replicas": 3}, "additional properties 'replicas' not allowed"),
    "a misspelt key of traild.toml": ({"config": {"delivery": {"max_aeg": "60s"}}}, "additional properties 'max_aeg' not allowed"),
    "a number for a time": ({"config": {"delivery": {"stop_timeout": 10}}}, "/config/delivery/stop_timeout"),
    "an account that is a number": ({"config": {"account_id": 111122223333}}, "/config/account_id"),
    "a level that does not exist": ({"config": {"delivery": {"gzip_level": 77}}}, "/config/delivery/gzip_level"),
    "a bucket's name in capitals": ({"config": {"trails": [{"name": "main", "s3_bucket_name": "Audit"}]}}, "/config/trails/0/s3_bucket_name"),
    "a trail without a bucket": ({"config": {"trails": [{"name": "main"}]}}, "missing property 's3_bucket_name'"),
    "root": ({"securityContext": {"runAsUser": 0}}, "/securityContext/runAsUser"),
    "a role that is none": ({"serviceAccount": {"roleArn": "traild"}}, "/serviceAccount/roleArn"),
    "a pull policy that is none": ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    "a certificate with two names": ({"certificates": [{"commonName": "a", "dns": "b"}]}, "/certificates/0"),
    "nobody who could send": ({"credentials": []}, "credentials is empty"),
    "S3 and no trail": ({"config": {"storage": {"kind": "s3"}}}, "config.trails is empty"),
    "a journal larger than its volume": ({"persistence": {"size": "10Gi"}}, "more than nine tenths of persistence.size"),
    "certificates that nobody asks for": ({"certificates": [{"commonName": "a"}]}, "certificates are shown by nobody"),
}


@pytest.fixture(scope="session")
def tools():
    return kubernetes_tools()


@pytest.fixture(scope="session")
def render(tools, tmp_path_factory):
    file = tmp_path_factory.mktemp("values") / "values.yaml"

    @functools.cache
    def template(text, version):
        file.write_text(text)
        return run(tools.helm, "template", "traild", CHART, "--namespace", "audit", "--kube-version", f"v{version}.0", "--values", file)

    return lambda values, version=VERSIONS[-1]: template(yaml.safe_dump(values), version)


def rendered(render, values, **options):
    code, out, err = render(values, **options)
    assert code == 0, err
    return objects(out)


def only(manifests, kind):
    [found] = [manifest for (of, _), manifest in manifests.items() if of == kind]
    return found


def pod_of(manifests):
    return only(manifests, "StatefulSet")["spec"]["template"]


def container_of(manifests):
    [container] = pod_of(manifests)["spec"]["containers"]
    return container


def seconds(text):
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(int(amount) * units[unit] for amount, unit in re.findall(r"(\d+)(ms|s|m|h)", text))


# What Kubernetes takes.


def test_the_chart_lints(tools):
    code, out, err = run(tools.helm, "lint", "--strict", CHART)
    assert code == 0, out + err


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_manifest_keeps_to_its_schema(render, variant):
    for version in VERSIONS if variant in ("defaults", "everything") else VERSIONS[-1:]:
        manifests = rendered(render, VARIANTS[variant], version=version)
        for manifest in manifests.values():
            check_manifest(manifest, version)


def test_the_schemas_refuse_what_is_wrong(render):
    """A check that cannot fail is none."""
    manifests = rendered(render, EVERYTHING)
    spoilt = {
        "StatefulSet": lambda it: it["spec"]["template"]["spec"].update(terminationGracePeriod=1),
        "NetworkPolicy": lambda it: it["spec"].update(podSelector="all"),
        "ServiceMonitor": lambda it: it["spec"]["endpoints"][0].update(scrapeEvery="1s"),
        "PrometheusRule": lambda it: it["spec"]["groups"][0]["rules"][0].update(severity="page"),
    }
    for kind, spoil in spoilt.items():
        manifest = only(manifests, kind)
        check_manifest(manifest)
        spoil(manifest)
        with pytest.raises(Exception, match="dditional properties|is not of type"):
            check_manifest(manifest)


@pytest.mark.parametrize("wrong", REFUSED)
def test_wrong_values_are_refused_with_their_name(render, wrong):
    values, told = REFUSED[wrong]
    code, _, err = render(values)
    assert code != 0 and told in err, err


def test_a_cluster_that_is_too_old_is_refused(render):
    code, _, err = render({}, version="1.28")
    assert code != 0 and "incompatible" in err, err


# What a pod is.


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pod_has_no_more_rights_than_it_needs(render, variant):
    manifests = rendered(render, VARIANTS[variant])
    spec, container = pod_of(manifests)["spec"], container_of(manifests)
    assert spec["automountServiceAccountToken"] is False
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True and context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPath" in volume for volume in spec["volumes"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_pod_owns_the_data_dir_and_has_time_to_stop(render, variant):
    values = VARIANTS[variant]
    manifests = rendered(render, values)
    stateful_set = only(manifests, "StatefulSet")["spec"]
    assert stateful_set["replicas"] == 1
    assert (stateful_set["podManagementPolicy"], stateful_set["updateStrategy"]) == ("Parallel", {"type": "RollingUpdate"})
    assert stateful_set["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert ("Service", stateful_set["serviceName"]) in manifests
    stop_timeout = values.get("config", {}).get("delivery", {}).get("stop_timeout", "10s")
    grace = stateful_set["template"]["spec"]["terminationGracePeriodSeconds"]
    by_hand = values.get("terminationGracePeriodSeconds")
    assert grace == (by_hand or seconds(stop_timeout) + 20)


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_and_ports_agree_with_one_another(render, variant):
    manifests = rendered(render, VARIANTS[variant])
    template, container = pod_of(manifests), container_of(manifests)
    labels = template["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"api": 4580, "ops": 4581}
    for (kind, name), manifest in manifests.items():
        spec = manifest.get("spec", {})
        if kind == "Service":
            assert spec["selector"].items() <= labels.items(), name
            assert all(port["targetPort"] in ports for port in spec["ports"]), name
        if kind in ("PodDisruptionBudget", "StatefulSet"):
            assert spec["selector"]["matchLabels"].items() <= labels.items(), name
        if kind == "NetworkPolicy":
            assert spec["podSelector"]["matchLabels"].items() <= labels.items(), name
            assert [rule["ports"][0]["port"] for rule in spec["ingress"]] == ["api", "ops"]
        if kind == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"].items()
            found = [it for (of, _), it in manifests.items() if of == "Service" and wanted <= it["metadata"]["labels"].items()]
            assert len(found) == 1 and spec["endpoints"][0]["port"] in {port["name"] for port in found[0]["spec"]["ports"]}
            jobs = re.findall(r'job=~"([^"]+)"', (OBSERVABILITY / "rules" / "traild.yaml").read_text())
            job = found[0]["metadata"]["labels"][spec["jobLabel"]]
            assert jobs and all(re.fullmatch(pattern, job) for pattern in jobs), "an alert asks for another job"
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in only(manifests, "StatefulSet")["spec"].get("volumeClaimTemplates", [])}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "ops"


def test_a_change_of_the_configuration_starts_the_pod_anew(render):
    def checksum(values):
        return pod_of(rendered(render, values))["metadata"]["annotations"]["checksum/config"]

    assert checksum({}) == checksum({})
    assert checksum({}) != checksum({"config": {"delivery": {"max_age": "30s"}}})


class FakeCluster(http.server.BaseHTTPRequestHandler):
    """As much of an API server as Helm asks when it looks for a Secret."""

    KINDS = {
        "v1": ["Secret", "ConfigMap", "Service", "ServiceAccount"],
        "apps/v1": ["StatefulSet"],
        "networking.k8s.io/v1": ["NetworkPolicy"],
        "policy/v1": ["PodDisruptionBudget"],
    }
    GROUPS = [
        {"name": version.partition("/")[0], "versions": [{"groupVersion": version, "version": "v1"}]} for version in KINDS if "/" in version
    ]
    ANSWERS = {
        "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": GROUPS},
        "/api/v1/namespaces/audit/secrets/traild-credentials": {
            "kind": "Secret",
            "apiVersion": "v1",
            "metadata": {
                "name": "traild-credentials",
                "namespace": "audit",
                "labels": {"app.kubernetes.io/managed-by": "Helm"},
                "annotations": {"meta.helm.sh/release-name": "traild", "meta.helm.sh/release-namespace": "audit"},
            },
            "data": {"TRAILDCLIENT": base64.b64encode(b"made-by-the-first-install").decode()},
        },
    }
    for version, kinds in KINDS.items():
        resources = [{"name": f"{kind.lower()}s", "namespaced": True, "kind": kind, "verbs": ["get"]} for kind in kinds]
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        ANSWERS[path] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}

    def do_GET(self):
        answer = self.ANSWERS.get(self.path.partition("?")[0])
        body = json.dumps(answer or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_secret_is_made_once_and_kept_by_upgrades(render, tools):
    made = only(rendered(render, {}), "Secret")
    assert made["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert len(base64.b64decode(made["data"]["TRAILDCLIENT"])) == 40
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeCluster) as cluster:
        threading.Thread(target=cluster.serve_forever, daemon=True).start()
        server = f"http://127.0.0.1:{cluster.server_port}"
        command = [tools.helm, "template", "traild", CHART, "--namespace", "audit", "--dry-run=server", "--kube-apiserver", server]
        code, out, err = run(*command, "--disable-openapi-validation")
        cluster.shutdown()
    assert code == 0, err
    assert base64.b64decode(only(objects(out), "Secret")["data"]["TRAILDCLIENT"]) == b"made-by-the-first-install"


def test_a_secret_that_is_given_is_used(render):
    given = rendered(render, EVERYTHING)
    assert {key: base64.b64decode(value) for key, value in only(given, "Secret")["data"].items()} == {"SENDER.1": b"a-secret"}
    [config] = [volume for volume in pod_of(given)["spec"]["volumes"] if volume["name"] == "config"]
    assert {"secret": {"name": "others", "items": [{"key": "secret", "path": "credentials/OTHERS"}]}} in config["projected"]["sources"]


def test_the_role_and_the_credentials_of_aws_reach_the_pod(render):
    manifests = rendered(render, EVERYTHING)
    account = only(manifests, "ServiceAccount")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] == ROLE
    assert pod_of(manifests)["spec"]["serviceAccountName"] == account["metadata"]["name"]
    container = container_of(manifests)
    assert {"secretRef": {"name": "aws-keys"}} in container["envFrom"]
    assert {"name": "AWS_REGION", "value": "eu-west-1"} in container["env"]


def test_rules_and_dashboard_are_those_of_deploy_observability(render, tools, tmp_path):
    manifests = rendered(render, VARIANTS["monitored"])
    rules = yaml.safe_load((OBSERVABILITY / "rules" / "traild.yaml").read_text())
    assert only(manifests, "PrometheusRule")["spec"] == rules
    dashboard = manifests["ConfigMap", "traild-dashboard"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["traild.json"]) == json.loads((OBSERVABILITY / "dashboards" / "traild.json").read_text())
    # A package holds the files themselves, not links that lead out of it.
    code, out, err = run(tools.helm, "package", CHART, "--destination", tmp_path)
    assert code == 0, err
    [package] = tmp_path.glob("*.tgz")
    code, out, err = run(tools.helm, "template", "traild", package, "--set", "prometheusRule.enabled=true")
    assert code == 0, err
    assert only(objects(out), "PrometheusRule")["spec"] == rules


def test_the_notes_say_what_the_values_lead_to(tools, tmp_path):
    def notes(values):
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        code, out, err = run(tools.helm, "install", "traild", CHART, "--namespace", "audit", "--dry-run=client", "--values", file)
        assert code == 0, err
        return out.partition("NOTES:")[2]

    defaults = notes({})
    assert "http://traild.audit.svc:4580 " in defaults and "secret traild-credentials" in defaults and "port-forward traild-0" in defaults
    everything = notes(EVERYTHING)
    assert "http://audit.audit.svc:443 " in everything and "The secret of" not in everything and "port-forward" not in everything
    assert "whoever the network lets in" in notes(VARIANTS["anonymous"])


def test_the_pod_and_the_task_are_what_the_image_is_made_for(render):
    dockerfile = (DEPLOY / "container" / "Dockerfile").read_text()
    context = pod_of(rendered(render, {}))["spec"]["securityContext"]
    assert f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile
    assert '\nENTRYPOINT ["/usr/bin/traild"]\n' in dockerfile, "the manifests give arguments, and ECS's health check names the program"


def test_the_chart_is_of_this_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    [version] = re.findall(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert chart["appVersion"] == version


# The kustomize base.


#: What it is the same as.
BASE_VALUES = {
    "config": {"storage": {"kind": "s3"}, "trails": [TRAIL]},
    "credentials": [{"accessKeyId": "TRAILDCLIENT", "existingSecret": "traild-credentials"}],
}
HELMS_OWN = re.compile("helm.sh/|app.kubernetes.io/(managed-by|version)|checksum/")


def plain(manifest):
    """Without what Helm and kustomize add, each for itself; a TOML file as what it says."""
    if isinstance(manifest, list):
        return [plain(item) for item in manifest]
    if not isinstance(manifest, dict):
        return re.sub(r"^traild-[a-z0-9]{10}$", "traild", manifest) if isinstance(manifest, str) else manifest
    kept = {key: plain(value) for key, value in manifest.items() if not HELMS_OWN.match(key)}
    kept = {key: value for key, value in kept.items() if value != {} or key in ("podSelector", "namespaceSelector")}
    if "traild.toml" in kept:
        kept["traild.toml"] = tomllib.loads(kept["traild.toml"])
    return kept


@pytest.fixture(scope="session")
def base(tools):
    code, out, err = run(tools.kubectl, "kustomize", BASE)
    assert code == 0, err
    return objects(out)


def test_the_base_is_the_chart_without_helm(render, base):
    chart = rendered(render, BASE_VALUES)
    ours, theirs = ({(kind, plain(name)): plain(it) for (kind, name), it in found.items()} for found in (base, chart))
    assert ours.keys() == theirs.keys()
    for name, manifest in ours.items():
        assert manifest == theirs[name], name


def test_the_base_keeps_to_the_schemas_and_the_daemon_takes_its_configuration(base, traild_bin, tmp_path):
    for manifest in base.values():
        for version in VERSIONS:
            check_manifest(manifest, version)
    [config] = [volume for volume in pod_of(base)["spec"]["volumes"] if volume["name"] == "config"]
    assert ("ConfigMap", config["projected"]["sources"][0]["configMap"]["name"]) in base, "kustomize has not put the new name in"
    pod = Pod(base, tmp_path, {"traild-credentials": {"TRAILDCLIENT": secret("a-secret")}})
    code, out, err = run_cli(traild_bin, "validate", "--offline", "--config", pod.config)
    assert code == 0, err + out


# The API server's audit webhook.


#: audit.k8s.io/v1 Policy (kubernetes, staging/src/k8s.io/apiserver/pkg/apis/audit/v1/types.go), closed.
LEVELS, STAGES = ["None", "Metadata", "Request", "RequestResponse"], ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]
TEXTS = {"type": "array", "items": {"type": "string"}}
RULE = {
    "level": {"enum": LEVELS},
    **dict.fromkeys(["users", "userGroups", "verbs", "namespaces", "nonResourceURLs"], TEXTS),
    "resources": {"type": "array", "items": {"type": "object", "additionalProperties": False, "properties": {"group": {"type": "string"}, "resources": TEXTS, "resourceNames": TEXTS}}},
    "omitStages": {"type": "array", "items": {"enum": STAGES}},
    "omitManagedFields": {"type": "boolean"},
}
POLICY = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "rules"],
    "properties": {
        "apiVersion": {"const": "audit.k8s.io/v1"},
        "kind": {"const": "Policy"},
        "omitStages": RULE["omitStages"],
        "omitManagedFields": RULE["omitManagedFields"],
        "rules": {"type": "array", "items": {"type": "object", "required": ["level"], "additionalProperties": False, "properties": RULE}},
    },
}


def audit_file(name):
    return yaml.safe_load((AUDIT / name).read_text())


def test_the_audit_policy_is_one_and_never_records_what_is_in_secrets():
    policy = audit_file("policy.yaml")
    jsonschema.validate(policy, POLICY)
    for rule in policy["rules"]:
        assert not (rule.get("resources") and rule.get("nonResourceURLs")), "a rule is about resources or about URLs"
    assert audit_level(policy, "get", "", "secrets") == "Metadata"
    assert audit_level(policy, "create", "", "serviceaccounts/token") == "Metadata"
    assert audit_level(policy, "create", "rbac.authorization.k8s.io", "clusterrolebindings") == "RequestResponse"
    assert audit_level(policy, "create", "apps", "deployments") == "Request"
    assert audit_level(policy, "list", "apps", "deployments") == "Metadata"
    assert audit_level(policy, "update", "coordination.k8s.io", "leases") == "None"


def audit_level(policy, verb, group, resource, user="jane", user_groups=("system:authenticated",)):
    """Of the first rule that fits, as the API server goes through them."""
    for rule in policy["rules"]:
        fits = [
            "nonResourceURLs" not in rule,
            verb in rule.get("verbs", [verb]),
            user in rule.get("users", [user]),
            set(user_groups) & set(rule.get("userGroups", user_groups)),
            any(each["group"] == group and resource in each.get("resources", [resource]) for each in rule.get("resources", [{"group": group}])),
        ]
        if all(fits):
            return rule["level"]
    return "None"


def test_the_flags_of_the_api_server_agree_with_one_another_and_with_traild(tools):
    kubeadm, kind = audit_file("kubeadm.yaml"), audit_file("kind.yaml")
    [node] = kind["nodes"]
    [patch] = [yaml.safe_load(patch) for patch in node["kubeadmConfigPatches"]]
    flags = {each["name"]: each["value"] for each in kubeadm["apiServer"]["extraArgs"]}
    assert flags == patch["apiServer"]["extraArgs"]
    assert kubeadm["apiServer"]["extraVolumes"] == patch["apiServer"]["extraVolumes"]
    [volume] = kubeadm["apiServer"]["extraVolumes"]
    assert node["extraMounts"][0]["containerPath"] == volume["hostPath"]
    webhook = audit_file("webhook.yaml")
    cluster, user = webhook["clusters"][0]["cluster"], webhook["users"][0]["user"]
    files = [flags["audit-policy-file"], flags["audit-webhook-config-file"], cluster["certificate-authority"], *user.values()]
    assert all(path.startswith(volume["mountPath"] + "/") for path in files)
    assert {flags["audit-policy-file"], flags["audit-webhook-config-file"]} == {f"{volume['mountPath']}/{name}" for name in ("policy.yaml", "webhook.yaml")}
    # What traild takes by default: ingest.max_event_bytes and ingest.max_body_bytes.
    assert int(flags["audit-webhook-truncate-max-event-size"]) < 256 << 10
    assert int(flags["audit-webhook-truncate-max-batch-size"]) < 16 << 20
    code, out, err = run(tools.kubectl, "config", "view", "--kubeconfig", AUDIT / "webhook.yaml", "--output", "json")
    assert code == 0 and json.loads(out)["current-context"] == "traild", err


def test_the_webhook_leads_to_the_service_of_the_chart(render):
    manifests = rendered(render, audit_file("values.yaml"))
    service = manifests["Service", "traild"]["spec"]
    cluster = audit_file("webhook.yaml")["clusters"][0]["cluster"]
    assert cluster["server"] == f"https://{service['clusterIP']}:{service['ports'][0]['port']}/v1/kubernetes/audit?cluster=prod"
    assert cluster["tls-server-name"] == "traild.audit.svc"
    assert service["ports"][0]["appProtocol"] == "https"
    for manifest in manifests.values():
        check_manifest(manifest)


def certificates(folder):
    """The data of the Secret that deploy/kubernetes/audit-webhook/certificates makes, with all else it makes beside it."""
    if not shutil.which("openssl"):
        pytest.skip("NOT CHECKED: the certificates of the audit webhook, which take openssl")
    subprocess.run([AUDIT / "certificates", folder], check=True, capture_output=True)
    made = yaml.safe_load((folder / "secret.yaml").read_text())
    check_manifest(made)
    return made["data"]


def test_the_certificates_are_of_the_names_that_webhook_and_chart_want(tmp_path):
    """A handshake in memory, as the API server and traild make it."""
    made = tmp_path / "certificates"
    data = certificates(made)
    assert data.keys() == {"ca.crt", "tls.crt", "tls.key"}
    webhook, values = audit_file("webhook.yaml"), audit_file("values.yaml")
    theirs = ssl.create_default_context(cafile=made / "ca.crt")
    theirs.load_cert_chain(made / "client.crt", made / "client.key")
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=made / "ca.crt")
    ours.load_cert_chain(made / "server.crt", made / "server.key")
    ours.verify_mode = ssl.CERT_REQUIRED
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = theirs.wrap_bio(to_them, to_us, server_hostname=webhook["clusters"][0]["cluster"]["tls-server-name"])
    server = ours.wrap_bio(to_us, to_them, server_side=True)
    for side in (client, server, client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
    subject = dict(pair for pairs in server.getpeercert()["subject"] for pair in pairs)
    assert subject["commonName"] == values["certificates"][0]["commonName"]


# What the daemon takes and serves.


class Pod:
    """The files of a rendered pod, laid out below a folder, with a traild.toml whose paths lead there."""

    def __init__(self, manifests, folder, secrets=()):
        self.folder = folder
        self.secrets = {name: manifest["data"] for (kind, name), manifest in manifests.items() if kind == "Secret"} | dict(secrets)
        self.maps = {name: manifest["data"] for (kind, name), manifest in manifests.items() if kind == "ConfigMap"}
        self.container = container_of(manifests)
        mounts = {mount["name"]: mount["mountPath"] for mount in self.container["volumeMounts"]}
        for path in mounts.values():
            (folder / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for volume in pod_of(manifests)["spec"]["volumes"]:
            for source in volume.get("projected", {}).get("sources", []):
                self.project(source, folder / mounts[volume["name"]].lstrip("/"))
        self.config = folder / "etc/traild/traild.toml"

    def project(self, source, folder):
        if "configMap" in source:
            files = {name: text.encode() for name, text in self.maps[source["configMap"]["name"]].items()}
        else:
            data = self.secrets[source["secret"]["name"]]
            files = {item["path"]: base64.b64decode(data[item["key"]]) for item in source["secret"]["items"]}
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.replace(b'"/etc/traild/', f'"{self.folder}/etc/traild/'.encode()).replace(b'"/var/lib/', f'"{self.folder}/var/lib/'.encode()))
            path.chmod(0o440)

    def env(self):
        given = {each["name"]: each["value"] for each in self.container.get("env", [])}
        return {name: value.replace("/var/lib/", f"{self.folder}/var/lib/") for name, value in given.items()}


def secret(value):
    return base64.b64encode(value.encode()).decode()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_daemon_finds_no_mistake_in_the_rendered_configuration(render, traild_bin, tmp_path, variant):
    manifests = rendered(render, VARIANTS[variant])
    pod = Pod(manifests, tmp_path / "pod", {"others": {"secret": secret("another")}, "api-tls": certificates(tmp_path / "certificates")})
    code, out, err = run_cli(traild_bin, "validate", "--offline", "--config", pod.config, env=pod.env())
    assert code == 0, err + out + pod.config.read_text()


#: Keys that the chart itself writes.
WRITTEN_BY_THE_CHART = {"data_dir", "listen.api", "listen.ops", "listen.unix", "digest.key_dir"}
GIVEN_ELSEWHERE = ("auth.credentials", "auth.certificates", "listen.tls")


def keys_of(schema, path=()):
    """Dotted, with [] behind what is a list of tables."""
    for key, inner in schema.get("properties", {}).items():
        tables = "properties" in inner.get("items", {})
        inner = inner["items"] if tables else inner
        if "properties" in inner:
            yield from keys_of(inner, (*path, key + "[]" if tables else key))
        else:
            yield ".".join((*path, key))


def test_the_schema_of_the_values_has_the_keys_that_the_daemon_has(traild_bin, tmp_path):
    """The daemon is shown all keys of the schema and names those it does not know; its README has a table of those that it does."""
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]
    ours = sorted(keys_of(schema), key=lambda key: (key.count("."), key))
    lines, section = [], ""
    for key in ours:
        path, _, name = key.rpartition(".")
        if path != section:
            lines.append(f"[[{path[:-2]}]]" if path.endswith("[]") else f"[{path}]")
            section = path
        lines.append(f"{name} = []")
    file = tmp_path / "traild.toml"
    file.write_text("\n".join(lines))
    _, _, err = run_cli(traild_bin, "validate", "--offline", "--config", file)
    assert "mistakes" in err, err
    unknown = [line for line in err.splitlines() if "is not a key traild knows" in line]
    assert not unknown, f"values.schema.json has keys that traild does not: {unknown}"

    named = set()
    for cell in re.findall(r"^\| (`[a-z_]+\.[a-z_`, .]+`)[^|]* \|", (ROOT / "README.md").read_text(), re.MULTILINE):
        names = re.findall(r"`([a-z_.]+)`", cell)
        section = names[0].rpartition(".")[0]
        named |= {section + name if name.startswith(".") else name for name in names}
    assert len(named) > 20, named
    missing = {key for key in named - {key.replace("[]", "") for key in ours} - WRITTEN_BY_THE_CHART if not key.startswith(GIVEN_ELSEWHERE)}
    assert not missing, f"values.schema.json lacks keys of traild.toml: {missing}"


@pytest.fixture
def open_folder():
    """One that every user can look into; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="traild-pod-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT CHECKED: a daemon as the pod's user, which takes root")
def test_a_daemon_runs_as_the_pod_does_and_serves_what_the_manifests_ask(render, make_daemon, traild_bin, open_folder, rng):
    """The pod's user and groups, its volume as the kubelet hands it over, its configuration but for the ports; then each path that a manifest names."""
    manifests = rendered(render, {"config": {"auth": {"mode": "none", "allow_anonymous": True}}, "credentials": [], "serviceMonitor": {"enabled": True}})
    container, context = container_of(manifests), pod_of(manifests)["spec"]["securityContext"]
    binary = shutil.copy(traild_bin, open_folder / "program")
    daemon = make_daemon(open_folder / "traild", prepare=as_user(context))
    daemon.binary = str(binary)
    volume = daemon.home / "volume"
    (volume / "lost+found").mkdir(parents=True, mode=0o700)
    hand_over(volume, context["fsGroup"])
    daemon.config["data_dir"] = str(volume)
    daemon.write_config()
    daemon.start()
    daemon.send([events.make(rng)])
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert daemon.ops(container[probe]["httpGet"]["path"])[0] == 200
    [endpoint] = only(manifests, "ServiceMonitor")["spec"]["endpoints"]
    status, text = daemon.ops(endpoint["path"])
    assert status == 200 and "traild_events_accepted_total" in text
    code, took = daemon.stop()
    assert code == 0 and took < pod_of(manifests)["spec"]["terminationGracePeriodSeconds"]
    # The next mount: its root is as it was left, so that OnRootMismatch changes nothing …
    assert context["fsGroupChangePolicy"] == "OnRootMismatch" and handed_over(volume, context["fsGroup"])
    assert (volume / "keys").stat().st_mode & 0o777 == 0o700
    daemon.start()
    daemon.stop()
    # … and with Always the key directory would be everybody's in the group, which traild refuses.
    hand_over(volume, context["fsGroup"])
    daemon.spawn()
    wait_until(lambda: daemon.process.poll() is not None, 10, "the daemon to refuse its key directory")
    assert "others have rights to the key directory" in daemon.log_tail()


def as_user(context):
    def prepare():
        os.setgroups([context["fsGroup"]])
        os.setgid(context["runAsGroup"])
        os.setuid(context["runAsUser"])

    return prepare


def hand_over(volume, group):
    """As the kubelet does (kubernetes, pkg/volume/volume_linux.go): the group of everything, its rights as the owner's, new files of that group."""
    for path in [volume, *volume.rglob("*")]:
        os.chown(path, -1, group)
        path.chmod(path.stat().st_mode | (0o2770 if path.is_dir() else 0o660))


def handed_over(volume, group):
    root = volume.stat()
    return root.st_gid == group and root.st_mode & 0o2770 == 0o2770


def test_the_api_servers_webhook_is_let_in_by_its_certificate_and_may_do_nothing_else(render, make_daemon, tmp_path):
    """The daemon with the chart's configuration, asked as webhook.yaml says."""
    manifests = rendered(render, audit_file("values.yaml"))
    made = tmp_path / "certificates"
    pod = Pod(manifests, tmp_path / "pod", {"traild-tls": certificates(made)})
    daemon = make_daemon()
    config = tomllib.loads(pod.config.read_text())
    config["listen"] |= daemon.config["listen"]
    config["storage"]["listen"] = daemon.config["storage"]["listen"]
    daemon.write_config(config | {"data_dir": str(daemon.data_dir)})
    daemon.start()

    webhook = audit_file("webhook.yaml")
    cluster, user = webhook["clusters"][0]["cluster"], webhook["users"][0]["user"]
    here = {path: made / path.rpartition("/")[2] for path in [cluster["certificate-authority"], *user.values()]}
    context = ssl.create_default_context(cafile=here[cluster["certificate-authority"]])
    path = "/v1/" + cluster["server"].partition("/v1/")[2]
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    event = {
        "level": "Metadata",
        "auditID": str(uuid.uuid4()),
        "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/shop/secrets/db",
        "verb": "get",
        "user": {"username": "jane", "groups": ["system:authenticated"]},
        "sourceIPs": ["198.51.100.23"],
        "objectRef": {"resource": "secrets", "namespace": "shop", "name": "db", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": now,
        "stageTimestamp": now,
    }
    batch = json.dumps({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": [event]})

    def post(to, body):
        connection = http.client.HTTPSConnection(cluster["tls-server-name"], daemon.api_port, context=context, timeout=10)
        plain = socket.create_connection(("127.0.0.1", daemon.api_port), timeout=10)
        connection.sock = context.wrap_socket(plain, server_hostname=cluster["tls-server-name"])
        connection.request("POST", to, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    with pytest.raises((ssl.SSLError, OSError)):
        post(path, batch)
    context.load_cert_chain(here[user["client-certificate"]], here[user["client-key"]])
    status, answer = post(path, batch)
    assert (status, answer["accepted"], answer["rejected"]) == (200, 1, []), answer
    status, answer = post("/v1/events", b'{"eventTime":"2026-05-01T00:19:01Z","eventSource":"a.example.com","eventName":"B"}')
    assert status == 403, answer
