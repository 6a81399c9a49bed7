"""What single parts of the chart say, and how they fit the worker."""

import base64
import http.client
import json
import re
import signal
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml

import worker
from agreement import place_secrets
from chart import CHART, LEAST, cases, merged, nested, notes, objects, one

CASES = cases()


def pod(values):
    return one("Deployment", values)["spec"]["template"]["spec"]


def test_two_replicas_by_default_which_are_replaced_without_a_gap():
    spec = one("Deployment", LEAST)["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_probes_ask_what_they_are_for():
    (container,) = pod(LEAST)["containers"]
    asked = {
        key: container[key]["httpGet"]["path"] for key in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert asked == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert (container["startupProbe"]["periodSeconds"], container["startupProbe"]["failureThreshold"]) == (
        2,
        30,
    )


def test_pods_are_spread_and_may_be_evicted_one_by_one():
    constraints = pod(LEAST)["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in constraints] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    assert all(each["whenUnsatisfiable"] == "ScheduleAnyway" for each in constraints)
    assert all(each["matchLabelKeys"] == ["pod-template-hash"] for each in constraints)
    own = {"matchLabels": {"example.com/tier": "backend"}}
    assert pod(CASES["full"])["topologySpreadConstraints"][0]["labelSelector"] == own
    budget = one("PodDisruptionBudget", LEAST)["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert one("PodDisruptionBudget", CASES["autoscaler"])["spec"]["minAvailable"] == "50%"


def test_only_the_keys_that_are_named_are_mounted_of_a_secret_and_for_the_group_only():
    volumes = {each["name"]: each["secret"] for each in pod(CASES["full"])["volumes"] if "secret" in each}
    found = {
        name: (each["secretName"], {item["path"]: item["key"] for item in each["items"]})
        for name, each in volumes.items()
    }
    assert found == {
        "amqp": ("rabbitmq-default-user", {"urls": "urls"}),
        "token": ("memories-token", {"token": "api-token"}),
        "ca": ("rabbitmq-ca", {"ca.crt": "ca.crt"}),
        "client": ("deletion-worker-client", {"tls.crt": "tls.crt", "tls.key": "tls.key"}),
    }
    assert {each["defaultMode"] for each in volumes.values()} == {0o440}


def test_secrets_as_values_end_up_in_a_secret_and_nowhere_else():
    documents = objects(CASES["trial"])
    (secret,) = (each for each in documents if each["kind"] == "Secret")
    data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    assert data["token"] == CASES["trial"]["token"]["value"]
    assert data["urls"].splitlines() == CASES["trial"]["amqp"]["urls"]
    rest = yaml.safe_dump([each for each in documents if each["kind"] != "Secret"]) + notes(CASES["trial"])
    assert "guest:guest" not in rest
    assert CASES["trial"]["token"]["value"] not in rest


def test_a_secret_is_rendered_only_for_what_is_given_as_value():
    assert all(each["kind"] != "Secret" for each in objects(LEAST))
    only_url = merged(LEAST, {"amqp": {"existingSecret": "", "urls": ["amqp://a"]}})
    assert list(one("Secret", only_url)["data"]) == ["urls"]


def test_a_dry_run_without_token_mounts_none():
    assert "token" not in [each["name"] for each in pod(CASES["dry-run"])["volumes"]]
    assert "token_file" not in one("ConfigMap", CASES["dry-run"])["data"]["config.toml"]


def test_a_null_leaves_a_key_to_the_worker():
    values = merged(LEAST, nested("config.batch.linger", None))
    assert "linger" not in one("ConfigMap", values)["data"]["config.toml"]


@pytest.mark.parametrize(
    ("kind", "case", "endpoints"),
    [("PodMonitor", "full", "podMetricsEndpoints"), ("ServiceMonitor", "servicemonitor", "endpoints")],
)
def test_the_job_is_the_full_name_whoever_scrapes(kind, case, endpoints):
    (endpoint,) = one(kind, CASES[case])["spec"][endpoints]
    name = one("Deployment", CASES[case])["metadata"]["name"]
    assert endpoint["relabelings"][0] == {"targetLabel": "job", "replacement": name}
    ports = [port["name"] for port in pod(CASES[case])["containers"][0]["ports"]]
    assert endpoint["port"] in ports


def test_keda_asks_the_management_api_and_counts_what_is_in_hand():
    spec = one("ScaledObject", CASES["keda"])["spec"]
    metadata = spec["triggers"][0]["metadata"]
    assert (metadata["protocol"], metadata["excludeUnacknowledged"], metadata["mode"]) == (
        "http",
        "false",
        "QueueLength",
    )
    assert metadata["queueName"] == "deletions"
    assert spec["scaleTargetRef"]["name"] == one("Deployment", CASES["keda"])["metadata"]["name"]
    authentication = one("TriggerAuthentication", CASES["keda"])
    assert spec["triggers"][0]["authenticationRef"]["name"] == authentication["metadata"]["name"]
    shared = one("ScaledObject", CASES["keda-shared"])["spec"]["triggers"][0]["metadata"]
    assert (shared["value"], shared["vhostName"], "host" in shared) == ("1500000", "/", False)
    parameters = [
        each["parameter"]
        for each in one("TriggerAuthentication", CASES["keda-shared"])["spec"]["secretTargetRef"]
    ]
    assert parameters == ["host"]


def test_the_network_policy_lets_in_scrapes_and_the_test_and_out_what_is_ruled_and_dns():
    spec = one("NetworkPolicy", CASES["full"])["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = spec["ingress"]
    assert rule["ports"] == [{"port": "metrics", "protocol": "TCP"}]
    test = next(each for each in objects(CASES["full"]) if each["kind"] == "Pod")["metadata"]["labels"]
    assert rule["from"][-1]["podSelector"]["matchLabels"].items() <= test.items()
    assert {port["port"] for port in spec["egress"][0]["ports"]} == {53}
    assert spec["egress"][1:] == CASES["full"]["networkPolicy"]["egress"]
    open_ = one("NetworkPolicy", CASES["servicemonitor"])["spec"]
    assert open_["policyTypes"] == ["Ingress"]
    assert "from" not in open_["ingress"][0]


def test_images_are_named_by_registry_tag_and_digest():
    def image(values):
        return pod(merged(LEAST, values))["containers"][0]["image"]

    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    digest = "sha256:" + "0" * 64
    assert image({}) == f"deletion-worker:{version}"
    assert (
        image({"image": {"registry": "a.example.com", "tag": "1.2"}}) == "a.example.com/deletion-worker:1.2"
    )
    assert image({"image": {"tag": "1.2", "digest": digest}}) == f"deletion-worker@{digest}"
    assert (
        image({"image": {"registry": "a"}, "global": {"imageRegistry": "b"}})
        == f"b/deletion-worker:{version}"
    )
    assert pod(CASES["full"])["imagePullSecrets"] == [{"name": "own"}, {"name": "shared"}, {"name": "other"}]


def test_labels_and_annotations_of_the_users_never_replace_the_charts():
    label = "app.kubernetes.io/instance"
    values = merged(LEAST, {"commonLabels": {label: "x"}, "podLabels": {label: "y"}})
    deployment = one("Deployment", values)
    assert deployment["metadata"]["labels"][label] == "release"
    assert deployment["spec"]["template"]["metadata"]["labels"][label] == "release"


def test_extras_are_templates():
    (container,) = pod(CASES["full"])["containers"]
    assert {"name": "HTTPS_PROXY", "value": "http://proxy.deletions:3128"} in container["env"]
    assert container["envFrom"][0]["configMapRef"]["name"] == "release-deletion-worker-proxy"
    queue = one("Queue", CASES["full"])
    assert queue["metadata"] == {"name": "release-deletion-worker", "namespace": "deletions"}
    assert "{{ not a template }}" in one("ConfigMap", CASES["full"])["data"]["config.toml"]


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
def test_the_test_pod_asks_the_service_whether_a_worker_is_ready(status, code):
    """Runs what the pod would, against a server in the place of the Service, with that answer or none."""
    test = one("Pod", LEAST)
    (container,) = test["spec"]["containers"]
    service = one("Service", LEAST)
    address = f"{service['metadata']['name']}.deletions.svc:{service['spec']['ports'][0]['port']}"
    assert container["image"] == pod(LEAST)["containers"][0]["image"]
    assert "command" not in container
    paths = []

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            paths.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        if status:
            thread.start()
        else:
            server.server_close()
        args = [each.replace(address, f"127.0.0.1:{port}") for each in container["args"]]
        assert args != container["args"]
        ran = subprocess.run([worker.BINARY, *args], capture_output=True, text=True, env={})
        if status:
            server.shutdown()
            thread.join()
    assert ran.returncode == code, ran.stderr
    assert paths == (["/readyz"] if status else [])


def test_the_container_runs_answers_its_probes_and_drains(tmp_path):
    """Runs what the pod would, its files in a folder, on loopback; that there is no broker is no fault."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    values = merged(LEAST, {"metrics": {"port": port}})
    (container,) = pod(values)["containers"]
    place_secrets(pod(values), tmp_path)
    (tmp_path / "config").mkdir()
    toml = one("ConfigMap", values)["data"]["config.toml"].replace(worker.MOUNT, f"{tmp_path}/")
    (tmp_path / "config" / "config.toml").write_text(toml)
    variables = {each["name"]: each["value"] for each in container["env"]}
    local = {worker.MOUNT: f"{tmp_path}/", "0.0.0.0": "127.0.0.1"}
    for old, new in local.items():
        variables = {name: value.replace(old, new) for name, value in variables.items()}
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen([worker.BINARY, *container["args"]], env=variables, stdout=log, stderr=log)
    try:
        paths = [container[key]["httpGet"]["path"] for key in ("livenessProbe", "readinessProbe")]
        answers = [answer_of(running, port, path) for path in paths]
        running.send_signal(signal.SIGTERM)
        code = running.wait(timeout=60)
    finally:
        running.kill()
    said = (tmp_path / "log").read_text()
    assert (answers, code) == ([200, 503], 0), said
    assert all(json.loads(line) for line in said.splitlines())


def answer_of(running, port, path):
    """The status that the worker answers with, once it listens; or why it didn't."""
    deadline = time.monotonic() + 60
    while running.poll() is None:
        if time.monotonic() > deadline:
            return f"nobody listens on port {port}"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except ConnectionRefusedError:
            time.sleep(0.02)
        finally:
            connection.close()
    return f"it ended with {running.returncode}"


def test_the_test_pod_is_left_out_where_nobody_could_answer():
    assert all(each["kind"] != "Pod" for each in objects(CASES["keda"]) + objects(CASES["dry-run"]))


def test_commands_that_the_notes_name_are_the_binarys():
    said = notes(CASES["trial"])
    commands = set(re.findall(r"/deletion-worker ([\w-]+)", said)) | set(
        pod(LEAST)["containers"][0]["args"][:1]
    )
    assert commands == {"publish", "dead-letters", "run"}
    for command in commands:
        ran = subprocess.run([worker.BINARY, command, "--help"], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert "env: DELETION_WORKER_CONFIG" in ran.stdout
    assert pod(LEAST)["containers"][0]["env"][0]["name"] == "DELETION_WORKER_CONFIG"


@pytest.mark.parametrize(
    ("case", "said", "unsaid"),
    [
        (
            "default",
            ["2 replicas: one works", "THIS DELETES THE VIDEO", "helm test release", "nobody scrapes"],
            ["secrets are given", "DRY RUN"],
        ),
        (
            "trial",
            ["WARNING: secrets are given", "instead of amqp.urls", "instead of token.value"],
            ["DRY RUN"],
        ),
        (
            "dry-run",
            ["DRY RUN: nothing is deleted", "with 1 replica."],
            ["THIS DELETES", "helm test", "one works"],
        ),
        (
            "full",
            ["port-forward deployment/release-deletion-worker 8080"],
            ["nobody scrapes", "nothing alerts"],
        ),
        ("servicemonitor", ["installed as video-deletions", "nothing alerts"], ["nobody scrapes"]),
        ("keda", ["scaled by KEDA from 0 to 1"], ["helm test", "one works"]),
        ("autoscaler", ["as many replicas as your autoscaler says"], ["one works"]),
    ],
)
def test_the_notes_say_what_was_installed_and_what_is_next(case, said, unsaid):
    text = notes(CASES[case])
    assert [each for each in said if each not in text] == []
    assert [each for each in unsaid if each in text] == []
    assert "\n\n\n" not in text
