"""The alert rules: each fires when it should and not when it comes close, and what is wrong with one is noticed."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

import promql_parser
import pytest
import yaml

import alerts
import chart

RENDERED = alerts.render()
RULES = alerts.rules(RENDERED)
CASES = alerts.cases(RULES)
FAULTS = {alert: dict(alerts.mutants(rule)) for alert, rule in RULES.items()}


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """{alert: {fault, or "as it is": what promtool says}}, without those that pass."""

    def judge(alert):
        its_cases = CASES[alert] + alerts.of_others(alert, CASES[alert])
        return alerts.judge({"as it is": RULES[alert], **FAULTS[alert]}, its_cases, tmp_path_factory.mktemp(alert))

    # The longest first.
    order = sorted(RULES, key=lambda alert: len(RULES[alert]["expr"]), reverse=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(order, pool.map(judge, order), strict=True))


def test_promtool_has_nothing_against_them(tmp_path):
    assert alerts.check(RENDERED, tmp_path) == ""


def test_every_alert_has_cases_of_both_kinds():
    assert list(CASES) == list(RULES)
    for alert, its_cases in CASES.items():
        assert any("firing" in case for case in its_cases), f"{alert}: nothing makes it fire"
        assert any("silent" in case for case in its_cases), f"{alert}: nothing comes close"


@pytest.mark.parametrize("alert", RULES)
def test_it_fires_when_it_should_and_only_then(alert, failed):
    assert "as it is" not in failed[alert], failed[alert]["as it is"]


@pytest.mark.parametrize("alert", RULES)
def test_any_fault_in_it_is_noticed(alert, failed):
    assert len(FAULTS[alert]) >= 8
    assert FAULTS[alert].keys() - failed[alert].keys() == set()


def test_every_alert_is_described():
    for alert, rule in RULES.items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert {"summary", "description", "runbook_url"} == rule["annotations"].keys()
        for text in rule["annotations"].values():
            assert not re.search(r"<\w+( \w+)?>", text), f"{alert}: a word without a value: {text}"
        assert not re.search(r"<[a-zA-Z]+( \w+)?>", rule["expr"]), rule["expr"]
        assert re.search(r"[Ll]ook at ", rule["annotations"]["description"]), f"{alert}: where to look first?"


def test_values_reach_the_rules():
    rule = alerts.render(
        {
            "prometheusRule": {
                "namespace": "monitoring",
                "labels": {"release": "kube-prometheus-stack"},
                "annotations": {"example.com/owner": "video"},
                "interval": "30s",
                "selector": 'job="deletion-worker", cluster=~"a|b"',
                "runbookUrl": "https://example.com/runbook",
                "alertLabels": {"team": "video"},
                "alertAnnotations": {"dashboard_url": "https://example.com/d/deletion-worker"},
                "objective": 0.999,
                "rabbitmq": {"enabled": True, "selector": 'job="rabbitmq"', "vhost": "video"},
                "rules": {
                    "Down": {"for": "1m", "severity": "page"},
                    "DeadLettering": {"share": 0.2, "window": "1h"},
                    "VersionSkew": {"enabled": False},
                },
            },
            "config": {"amqp": {"queue": 'a "b"'}, "endpoint": {"api": "v1.2"}, "shutdown": {"grace": "2m"}},
        }
    )
    metadata, [group] = rule["metadata"], rule["spec"]["groups"]
    assert metadata["namespace"] == "monitoring"
    assert metadata["labels"]["release"] == "kube-prometheus-stack"
    assert metadata["annotations"] == {"example.com/owner": "video"}
    assert group["interval"] == "30s"
    rules = alerts.rules(rule)
    assert "VersionSkew" not in rules
    assert (rules["Down"]["for"], rules["Down"]["labels"]) == ("1m", {"severity": "page", "team": "video"})
    assert rules["Down"]["annotations"]["runbook_url"] == "https://example.com/runbook#deletionworkerdown"
    assert rules["Down"]["annotations"]["dashboard_url"].endswith("/deletion-worker")
    assert 'absent(up{job="deletion-worker", cluster=~"a|b"})' in rules["Down"]["expr"]
    assert "[1h]" in rules["DeadLettering"]["expr"] and rules["DeadLettering"]["expr"].endswith("> 0.2")
    assert "14.4 * 0.001 " in rules["ErrorBudgetBurnFast"]["expr"]
    assert "0.5 * 100\n" in rules["LowFill"]["expr"]
    assert "[135s]" in rules["DrainIncomplete"]["expr"]
    assert r'{job="rabbitmq", vhost="video", queue="a \"b\""}' in rules["Backlog"]["expr"]
    for one in rules.values():
        promql_parser.parse(one["expr"])


def test_the_brokers_alerts_are_opt_in():
    brokers = {"QueueWithoutConsumers", "Backlog", "DeadLetterQueueNotEmpty", "QueueMetricsMissing"}
    own = alerts.rules(alerts.render({"prometheusRule": {"rabbitmq": {"enabled": False}}}))
    assert RULES.keys() - own.keys() == brokers


def test_values_rules_and_schema_name_the_same_alerts():
    values = yaml.safe_load((chart.CHART / "values.yaml").read_text())["prometheusRule"]["rules"]
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    known = schema["properties"]["prometheusRule"]["properties"]["rules"]["properties"]
    assert list(values) == list(known) == list(RULES)
    for alert, rule in values.items():
        assert rule.keys() == known[alert]["properties"].keys(), alert


@pytest.mark.parametrize(
    "mistake",
    [
        {"rules": {"Downn": {"enabled": True}}},
        {"rules": {"Down": {"enable": False}}},
        {"rules": {"Down": {"share": 0.5}}},
        {"rules": {"Down": {"for": "5 minutes"}}},
        {"rules": {"Down": {"severity": ""}}},
        {"rules": {"Throttled": {"share": 20}}},
        {"rules": {"Flapping": {"window": 30}}},
        {"objective": 99},
        {"selector": "job=deletion-worker"},
        {"selector": '{job="deletion-worker"}'},
        {"runbookUrl": "https://example.com/runbook#alerts"},
        {"alertLabels": {"not-a-label": "x"}},
        {"rabbitmq": {"vhost": ""}},
        {"additionalLabels": {"release": "x"}},
    ],
    ids=str,
)
def test_a_mistake_in_the_values_is_refused(mistake):
    with pytest.raises(chart.Refused):
        alerts.render({"prometheusRule": mistake})


def test_the_operator_takes_the_object():
    rule = alerts.render()
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    for group in rule["spec"]["groups"]:
        assert group.keys() <= {"name", "interval", "rules"}
        for one in group["rules"]:
            assert one.keys() == {"alert", "expr", "for", "labels", "annotations"}
            assert all(isinstance(value, str) for part in ("labels", "annotations") for value in one[part].values())
