"""The compose file, as Compose and the worker read it. UPDATE_ALERTS=1 writes tests/compose/alerts.yaml, which it mounts."""

import json
import os
import re
import subprocess
import tomllib
from functools import lru_cache

import pytest
import yaml

import chart
import grafana_standin
import schemas
from chart import ROOT
from faulty import Fault, broken

COMPOSE = "docker-compose.yml"
ALERTS = "tests/compose/alerts.yaml"
FILES = [COMPOSE, ALERTS, "tests/compose/endpoint-token"]
OWN_IMAGE = "deletion-worker:"
# How much longer than the grace the worker needs to say goodbye, as in the chart.
FAREWELL = 15
# The release and the values that the alerts are rendered with.
NAMESPACE = "compose"
VALUES = {
    "amqp": {"existingSecret": "amqp"},
    "token": {"existingSecret": "token"},
    "prometheusRule": {"enabled": True, "rabbitmq": {"enabled": True, "selector": 'job="rabbitmq"'}},
}


def read():
    return {name: (ROOT / name).read_text() for name in FILES}


def raw(files):
    return yaml.safe_load(files[COMPOSE])


def compose(files):
    """What Compose makes of the file, and what it says against it."""
    return normalized(files[COMPOSE])


@lru_cache
def normalized(text):
    end = subprocess.run(
        ["docker-compose", "--file", "-", "--project-directory", str(ROOT), "--profile", "*", "config", "--format", "json"],
        input=text, capture_output=True, text=True, check=False,
        # The defaults, whatever is set here.
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
    )
    # It exits with 0 in any case.
    return (json.loads(end.stdout) if end.stdout else None), end.stderr


def services(files):
    return compose(files)[0]["services"]


def ours(files):
    return {name: service for name, service in services(files).items() if service.get("image", "").startswith(OWN_IMAGE)}


def is_taken_by_compose(files):
    config, said = compose(files)
    if config is None or said:
        yield said
    yield from schemas.errors("compose-spec", raw(files))


def is_asked_for_its_health(files):
    for name, service in services(files).items():
        check = service.get("healthcheck", {})
        if not check.get("test") or check.get("disable"):
            yield f"{name} has no health check"


def comes_back(files):
    for name, service in services(files).items():
        if service.get("restart") != "unless-stopped":
            yield f"{name}: restart is {service.get('restart')}"


def listens_on_loopback_alone(files):
    published = [(port, name) for name, service in services(files).items() for port in service.get("ports", [])]
    for port, name in published:
        if port.get("host_ip") != "127.0.0.1":
            yield f"{name}: {port['target']} is open to {port.get('host_ip', 'everybody')}"
    numbers = [port["published"] for port, _ in published]
    if len(numbers) != len(set(numbers)):
        yield f"one port twice: {sorted(numbers)}"
    for name, service in services(files).items():
        if service.get("network_mode") == "host":
            yield f"{name} is on the host's network"


def has_ports_to_choose(files):
    for name, service in raw(files)["services"].items():
        for port in service.get("ports", []):
            if not re.match(r"^\S*\$\{[A-Z_]+:-\d+\}:\d+$", str(port)):
                yield f"{name}: {port}"


def is_pinned(files):
    for name, service in services(files).items():
        if not re.search(r":v?\d+\.\d+\.\d+(-[a-z]+)?$", service["image"]):
            yield f"{name}: {service['image']}"


def is_hardened(files):
    for name, service in services(files).items():
        if "no-new-privileges:true" not in service.get("security_opt", []) or service.get("privileged"):
            yield f"{name} may gain privileges"
    wanted = {"user": "65532:65532", "read_only": True, "cap_drop": ["ALL"], "cap_add": None}
    for name, service in ours(files).items():
        for key, value in wanted.items():
            if service.get(key) != value:
                yield f"{name}: {key} is {service.get(key)}"
        if not service.get("mem_limit") or not service.get("pids_limit"):
            yield f"{name} has no limits"


def waits_for_health(files):
    for name, service in services(files).items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] != "service_healthy":
                yield f"{name} doesn't wait until {other} is healthy, but for {how['condition']}"
        if name not in ("rabbitmq", "mock-endpoint") and not service.get("depends_on"):
            yield f"{name} waits for nobody"


def has_a_configuration_the_worker_takes(files):
    """In this environment, with the secret where it is outside."""
    for name in ("deletion-worker", "publisher"):
        _, said = effective(files, name)
        if said:
            yield f"{name}: {said}"


def leaves_time_to_drain(files):
    config, _ = effective(files, "deletion-worker")
    if config is None:
        return
    grace, given = (seconds(text) for text in (config["shutdown"]["grace"], stop_grace_period(files)))
    if given < grace + FAREWELL:
        yield f"{given} s for a grace of {grace} s"


def effective(files, name):
    """The worker's whole configuration, by its own word, or what it says against it."""
    config, _ = compose(files)
    environment = config["services"][name]["environment"]
    for secret, source in config["secrets"].items():
        environment = {
            key: value.replace(f"/run/secrets/{secret}", source["file"]) for key, value in environment.items()
        }
    if name == "publisher":
        environment["DELETION_WORKER__ENDPOINT__TOKEN"] = "t"
    code, out, said = worker(("check-config",), tuple(environment.items()))
    return (tomllib.loads(out), "") if code == 0 else (None, said)


def stop_grace_period(files):
    return services(files)["deletion-worker"].get("stop_grace_period", "10s")


def seconds(text):
    """Of a duration like `1m30s`."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+) ?(ms|s|m|h)", text))


def runs_commands_that_there_are(files):
    for name, service in ours(files).items():
        for command in (service.get("command"), service.get("healthcheck", {}).get("test", [])[2:]):
            # Everything before --help is read, and refused if it makes no sense.
            code, _, said = worker((*(command or ["run"]), "--help"))
            if code != 0:
                yield f"{name}: {said}"


@lru_cache
def worker(arguments, environment=()):
    """How the program ends, and what it says."""
    command = [os.environ["DELETION_WORKER_BINARY"], *arguments]
    end = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    return end.returncode, end.stdout, end.stderr


def has_one_token(files):
    mock = services(files)["mock-endpoint"]["environment"].get("MOCK_ENDPOINT_TOKEN")
    if mock != files["tests/compose/endpoint-token"].strip():
        yield f"the mock wants {mock!r}"


def mounts_what_there_is(files):
    config, _ = compose(files)
    for kind in ("configs", "secrets"):
        for name, source in config.get(kind, {}).items():
            if "file" in source and not os.path.isfile(source["file"]):
                yield f"{name}: there is no {source['file']}"


def has_the_alerts_of_the_chart(files):
    if files[ALERTS] != rendered_alerts():
        yield f"{ALERTS} is out of date: UPDATE_ALERTS=1 tests/deploy/run.sh -k alerts_of_the_chart"


@lru_cache
def rendered_alerts():
    [rule] = chart.render(VALUES, name="deletion-worker", namespace=NAMESPACE)["templates/prometheusrule.yaml"]
    heading = "# The chart's alerts for docker-compose.yml: written by tests/deploy/test_compose.py, see there.\n"
    return heading + yaml.dump({"groups": rule["spec"]["groups"]}, Dumper=Readable, sort_keys=False, width=120)


class Readable(yaml.SafeDumper):
    """Writes text of several lines as such."""


def written(dumper, text):
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Readable.add_representer(str, written)


def has_a_prometheus_that_starts(files):
    """And finds the worker by the labels that the alerts ask for."""
    text = raw(files)["configs"]["prometheus"]["content"]
    end = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", "/dev/stdin"],
        input=text, capture_output=True, text=True, check=False,
    )
    if end.returncode != 0:
        yield end.stdout + end.stderr
        return
    config = yaml.safe_load(text)
    mounted = [mount["target"] for mount in services(files)["prometheus"]["configs"]]
    yield from (f"{file} is not mounted" for file in config["rule_files"] if file not in mounted)
    jobs = {job["job_name"]: job["static_configs"][0] for job in config["scrape_configs"]}
    for job, target in {"deletion-worker": "deletion-worker:9090", "rabbitmq": "rabbitmq:15692"}.items():
        if jobs.get(job, {}) != {"targets": [target], "labels": {"namespace": NAMESPACE}}:
            yield f"{job} is scraped as {jobs.get(job)}"


def has_a_grafana_that_finds_its_files(files):
    """As far as the stand-in for Grafana can tell."""
    config = raw(files)
    source = yaml.safe_load(config["configs"]["grafana-datasource"]["content"])
    provider = yaml.safe_load(config["configs"]["grafana-dashboards"]["content"])
    grafana = config["services"]["grafana"]
    targets = {mount["source"]: mount["target"] for mount in grafana["configs"]}
    [datasource], [dashboards] = source["datasources"], provider["providers"]
    if not grafana_standin.is_datasource(datasource) or datasource["url"] != "http://prometheus:9090":
        yield f"the datasource is {datasource}"
    if not targets["dashboard"].startswith(dashboards["options"]["path"] + "/"):
        yield f"the dashboard is at {targets['dashboard']}"
    if grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] != targets["dashboard"]:
        yield "the dashboard is not the first thing one sees"
    for kind in ("datasource", "dashboards"):
        if not re.match(rf"/etc/grafana/provisioning/{kind}s?/[a-z]+\.yaml$", targets[f"grafana-{kind}"]):
            yield f"{kind}: {targets[f'grafana-{kind}']}"


def lets_nobody_log_in_to_grafana(files):
    environment = raw(files)["services"]["grafana"]["environment"]
    wanted = {"ANONYMOUS_ENABLED": "true", "ANONYMOUS_ORG_ROLE": "Viewer", "DISABLE_LOGIN_FORM": "true"}
    for key, value in wanted.items():
        if environment.get(f"GF_AUTH_{key}") != value:
            yield f"GF_AUTH_{key} is {environment.get(f'GF_AUTH_{key}')}"


RULES = {
    rule.__name__: rule
    for rule in (
        is_taken_by_compose,
        is_asked_for_its_health,
        comes_back,
        listens_on_loopback_alone,
        has_ports_to_choose,
        is_pinned,
        is_hardened,
        waits_for_health,
        has_a_configuration_the_worker_takes,
        leaves_time_to_drain,
        runs_commands_that_there_are,
        has_one_token,
        mounts_what_there_is,
        has_the_alerts_of_the_chart,
        has_a_prometheus_that_starts,
        has_a_grafana_that_finds_its_files,
        lets_nobody_log_in_to_grafana,
    )
}


def fault(rule, old, new, file=COMPOSE):
    return Fault(rule, file, old, new)


FAULTS = [
    fault("is_taken_by_compose", "stop_grace_period: 60s", "stop_grace_periods: 60s"),
    fault("is_asked_for_its_health", 'test: ["CMD", "rabbitmq-diagnostics"', 'disable: true # "rabbitmq-diagnostics"'),
    fault("is_asked_for_its_health", '"http://127.0.0.1:8089"]', '"http://127.0.0.1:8089"]\n      disable: true'),
    fault("comes_back", "    restart: unless-stopped\n    stop_grace_period: 60s", "    stop_grace_period: 60s"),
    fault("listens_on_loopback_alone", "127.0.0.1:${WORKER_PORT", "0.0.0.0:${WORKER_PORT"),
    fault("listens_on_loopback_alone", "127.0.0.1:${RABBITMQ_PORT", "${RABBITMQ_PORT"),
    fault("listens_on_loopback_alone", "PROMETHEUS_PORT:-9091", "PROMETHEUS_PORT:-9090"),
    fault("has_ports_to_choose", "${GRAFANA_PORT:-3000}", "3000"),
    fault("is_pinned", "rabbitmq:4.0.9-management", "rabbitmq:management"),
    fault("is_pinned", "grafana/grafana:11.6.1", "grafana/grafana:latest"),
    fault("is_hardened", '  user: "65532:65532"\n', ""),
    fault("is_hardened", 'user: "65532:65532"', "user: root"),
    fault("is_hardened", "read_only: true", "read_only: false"),
    fault("is_hardened", "cap_drop: [ALL]", "cap_drop: [NET_RAW]"),
    fault("is_hardened", "    secrets: [", "    privileged: true\n    secrets: ["),
    fault("is_hardened", "    mem_limit: 256m\n", ""),
    fault("waits_for_health", "rabbitmq: {condition: service_healthy}", "rabbitmq: {condition: service_started}"),
    fault("has_a_configuration_the_worker_takes", "BATCH__LINGER: 1s", "BATCH__LINGER: 1"),
    fault("has_a_configuration_the_worker_takes", "BATCH__LINGER", "BATCH__LINGERS"),
    fault("leaves_time_to_drain", "stop_grace_period: 40s", "stop_grace_period: 20s"),
    fault("leaves_time_to_drain", "SHUTDOWN__GRACE: 25s", "SHUTDOWN__GRACE: 1m"),
    fault("leaves_time_to_drain", "    stop_grace_period: 40s\n", ""),
    fault("runs_commands_that_there_are", "--failure-ratio=0.02", "--failures=0.02"),
    fault("runs_commands_that_there_are", '"healthcheck", "--ready"', '"healthcheck", "--deep"'),
    fault("has_one_token", "MOCK_ENDPOINT_TOKEN: not-a-secret", "MOCK_ENDPOINT_TOKEN: another"),
    fault("mounts_what_there_is", "dashboards/deletion-worker.json\n  alerts:", "dashboards/worker.json\n  alerts:"),
    fault("has_the_alerts_of_the_chart", "severity: critical", "severity: warning", ALERTS),
    fault("has_a_prometheus_that_starts", "scrape_interval: 5s", "scrape_intervals: 5s"),
    fault("has_a_prometheus_that_starts", "job_name: deletion-worker", "job_name: worker"),
    fault("has_a_prometheus_that_starts", "target: /etc/prometheus/alerts.yaml", "target: /etc/prometheus/rules.yaml"),
    fault("has_a_grafana_that_finds_its_files", "type: prometheus", "type: loki"),
    fault("has_a_grafana_that_finds_its_files", "path: /etc/grafana/dashboards", "path: /var/lib/grafana/dashboards"),
    fault("has_a_grafana_that_finds_its_files", "_PATH: /etc/grafana/dashboards/", "_PATH: /etc/grafana/"),
    fault("lets_nobody_log_in_to_grafana", "GF_AUTH_ANONYMOUS_ORG_ROLE: Viewer", "GF_AUTH_ANONYMOUS_ORG_ROLE: Admin"),
]


@pytest.fixture(scope="module")
def files():
    if os.environ.get("UPDATE_ALERTS"):
        (ROOT / ALERTS).write_text(rendered_alerts())
    return read()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_compose_file(rule, files):
    assert not list(rule(files))


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_noticed(fault, files):
    assert broken(RULES, fault, files, first="is_taken_by_compose") == {fault.rule}


def test_every_rule_can_be_broken():
    assert {fault.rule for fault in FAULTS} == set(RULES)
