"""The dashboard: Grafana knows every key, and the real worker answers every query."""

import copy
import json
import math
import re
import time

import pytest

import alerts
import chart
import dashboard
from stage import Stage, wait_for


def panel(title):
    return lambda board: next(panel for panel in board["panels"] if panel["title"] == title)


def expression(title, old, new):
    def change(board):
        target = panel(title)(board)["targets"][0]
        assert old in target["expr"]
        target["expr"] = target["expr"].replace(old, new)

    return change


def put(place, key, value):
    return lambda board: place(board).__setitem__(key, value)


def drop(place, key):
    return lambda board: place(board).pop(key)


def frame(board):
    return board


def defaults(title):
    return lambda board: panel(title)(board)["fieldConfig"]["defaults"]


# What is done to the dashboard, and what has to be said of it.
FAULTS = {
    "a metric renamed": (
        expression("Deleted", "ids_deleted_total", "ids_removed_total"),
        "there is no deletion_worker_ids_removed",
    ),
    "a suffix forgotten": (
        expression("IDs in a call", "batch_ids_bucket", "batch_ids"),
        "there is no deletion_worker_batch_ids",
    ),
    "a broker's metric renamed": (
        expression("Queues (from RabbitMQ)", "messages_ready", "messages_here"),
        "there is no rabbitmq_",
    ),
    "a label's value misspelt": (
        expression("Endpoint state", 'state="open"', 'state="opened"'),
        "state is never opened",
    ),
    "a label that isn't there": (
        expression("Endpoint state", 'state="open"', 'status="open"'),
        "deletion_worker_endpoint_state has no status",
    ),
    "a parenthesis lost": (expression("Deleted", "])", "]"), "Deleted/A: "),
    "an unknown function": (expression("Deleted", "rate(", "ratio("), "Deleted/A: "),
    "an aggregation misspelt": (expression("Verdict", "max(", "maxi("), "Verdict/A: "),
    "a window of its own": (expression("Deleted", "$__rate_interval", "5m"), "a window of its own"),
    "a selector lost": (expression("Deleted", ', instance=~"$instance"', ""), "not what the variables select"),
    "an id twice": (put(panel("Memory"), "id", 2), "id 2 twice"),
    "a title twice": (put(panel("Memory"), "title", "CPU"), "title 'CPU' twice"),
    "panels that overlap": (put(panel("Memory"), "gridPos", {"x": 5, "y": 79, "w": 6, "h": 6}), "overlaps"),
    "a panel beyond the grid": (
        put(panel("Versions"), "gridPos", {"x": 21, "y": 79, "w": 4, "h": 6}),
        "beyond the grid",
    ),
    "a unit lost": (drop(defaults("Memory"), "unit"), "Memory: no unit"),
    "a description lost": (drop(panel("Memory"), "description"), "Memory: no description"),
    "an unknown key": (put(defaults("Memory"), "units", "bytes"), "unknown to Grafana: "),
    "an unknown key of the dashboard": (put(frame, "graphToolTip", 1), "unknown to Grafana: /graphToolTip"),
    "an unknown key of the options": (
        put(lambda board: panel("Verdict")(board)["options"], "colourMode", "value"),
        "unknown to Grafana: ",
    ),
    "a data source of its own": (
        put(panel("Memory"), "datasource", {"type": "prometheus", "uid": "abc"}),
        "not the chosen data source",
    ),
    "a broker's panel that doesn't say so": (
        put(panel("Queues (from RabbitMQ)"), "title", "Queues"),
        "whether RabbitMQ is the source",
    ),
    "another uid": (put(frame, "uid", "worker"), "uid isn't"),
    "no shared crosshair": (put(frame, "graphTooltip", 0), "graphTooltip isn't 1"),
    "a variable lost": (lambda board: board["templating"]["list"].pop(), "variables: "),
    "All without the empty": (put(lambda board: board["templating"]["list"][1], "allValue", ".+"), "All doesn't match"),
    "a row lost": (lambda board: board["panels"].remove(panel("Latency")(board)), "rows: "),
    "an annotation lost": (lambda board: board["annotations"]["list"].pop(), "annotations"),
    "an annotation without its metric": (
        lambda board: board["annotations"]["list"][0].__setitem__("expr", "process_start_seconds"),
        "there is no process_start_seconds",
    ),
}
# Queries that only the real worker can tell to be wrong.
WRONG = [
    'sum(rate(deletion_worker_messages_settled_total{outcome="done"}[5s]))',
    'max(deletion_worker_endpoint_state{status="open"})',
    "histogram_quantile(0.5, sum by (bucket) (rate(deletion_worker_batch_ids_bucket[5s])))",
    "sum(rate(deletion_worker_batch_ids[5s]))",
    'process_open_fds{job="worker"}',
    "rabbitmq_detailed_queue_ready_messages",
]
# Metrics that neither dashboard nor alerts use, and why.
UNUSED = {}


def test_nothing_is_wrong_with_it():
    assert dashboard.faults(dashboard.read()) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(fault):
    change, said = FAULTS[fault]
    board = copy.deepcopy(dashboard.read())
    change(board)
    assert any(said in text for text in dashboard.faults(board)), dashboard.faults(board)


def test_metrics_of_code_dashboard_and_alerts_agree():
    rules = alerts.rules(alerts.render())
    asked = {name: dashboard.series(rule["expr"]) for name, rule in rules.items()}
    for alert, names in asked.items():
        assert names <= dashboard.known(), f"{alert} asks for what isn't there"
        assert dashboard.strange_labels(rules[alert]["expr"]) == []
    shown = {name for _, text in dashboard.queries(dashboard.read()) for name in dashboard.series(text)}
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown.union(*asked.values())}
    assert dashboard.metrics().keys() - used == UNUSED.keys()


def test_it_is_rendered_as_it_is():
    values = {
        **alerts.NEEDED,
        "dashboard": {"enabled": True, "folder": "Video", "namespace": "grafana", "labels": {"team": "video"}},
    }
    [config_map] = chart.render(values)["templates/dashboard.yaml"]
    assert json.loads(config_map["data"]["deletion-worker.json"]) == dashboard.read()
    metadata = config_map["metadata"]
    assert metadata["labels"]["grafana_dashboard"] == "1"
    assert metadata["labels"]["team"] == "video"
    assert metadata["annotations"] == {"grafana_folder": "Video"}
    assert metadata["namespace"] == "grafana"


def test_it_leads_to_the_runbook_where_that_has_a_url():
    url = "https://example.com/runbook"
    values = {**alerts.NEEDED, "dashboard": {"enabled": True}, "prometheusRule": {"runbookUrl": url}}
    [config_map] = chart.render(values)["templates/dashboard.yaml"]
    board = json.loads(config_map["data"]["deletion-worker.json"])
    assert [link["url"] for link in board["links"]] == [url]
    assert dashboard.faults(board) == []


def eventful(stage):
    """Lets the workers meet everything that a panel shows."""
    ids = [f"VI{number}" for number in range(6000)]
    stage.publish(ids + ids[:500])
    wait_for("the videos are deleted", lambda: stage.metric("ids_deleted_total") >= len(ids))
    stage.faults(bad_prefix="bad", latency="5ms")
    # More IDs in a message than these workers take: malformed.
    stage.publish([f"many{number}" for number in range(600)], per_message=600)
    stage.publish([f"good{number}" for number in range(100)] + ["bad1"])
    wait_for("two dead letters are there", lambda: stage.metric('messages_settled_total{outcome="dead_lettered"}') >= 2)
    stage.faults(requests_per_second=1)
    stage.publish([f"throttled{number}" for number in range(3000)])
    wait_for("calls are throttled", lambda: stage.metric('endpoint_requests_total{outcome="throttled"}') >= 1)
    stage.faults(blocked="0401")
    wait_for("the endpoint counts as blocked", lambda: stage.metric('endpoint_state{state="blocked"}') == 1)
    stage.faults(down="unavailable")
    wait_for("calls fail", lambda: stage.metric('endpoint_requests_total{outcome="transient"}') >= 1)
    stage.faults()
    wait_for("all are deleted", lambda: stage.metric("messages_unsettled") == 0)


def test_the_real_worker_answers_every_query():
    settings = {
        "batch.linger": "200ms",
        "batch.max_ids_per_message": "500",
        "endpoint.requests_per_second": "20",
        "health.probe_initial": "100ms",
        "health.probe_max": "500ms",
        "retry.initial": "50ms",
        "retry.max": "200ms",
    }
    rules = alerts.render({"prometheusRule": {"selector": 'job="deletion-worker"'}})["spec"]
    rules["groups"].append(ringing(rules))
    with Stage(settings, rules) as stage:
        # What is counted from here on grows between two scrapes.
        stage.wait_until_scraped()
        begin = time.time()
        eventful(stage)
        stage.wait_until_scraped()
        silent = [where for where, text in of_panels() if not has_data(stage, text, time.time() - begin)]
        assert not silent, f"no data: {silent}"
        assert [text for text in WRONG if has_data(stage, text, time.time() - begin)] == []
        assert series_of_variables(stage) == {
            "job": ["deletion-worker"],
            "instance": sorted(stage.workers),
            "queue": ["deletions", "deletions.dead"],
        }
        wait_for("the rules are evaluated", lambda: all(rule["health"] != "unknown" for rule in evaluated(stage)))
        assert [rule["lastError"] for rule in evaluated(stage) if rule["health"] != "ok"] == []
        texts = {
            one["labels"]["alertname"]: one["annotations"]
            for one in stage.ask("alerts")["alerts"]
            if "rings" in one["labels"]
        }
        assert texts.keys() == {rule["alert"] for rule in rules["groups"][0]["rules"]}
        for alert, annotations in texts.items():
            said = " ".join(annotations.values())
            assert not re.search(r"\{\{|<error|<no value>|%!", said), f"{alert}: {said}"


def ringing(rules):
    """Every alert as if it fired, with all labels there can be, to see its texts filled in."""
    expression = "vector(0.5)"
    for label in ("namespace", "job", "instance", "pod", "vhost", "queue"):
        expression = f'label_replace({expression}, "{label}", "the-{label}", "", "")'
    [group] = rules["groups"]
    loud = [{**rule, "expr": expression, "for": "0s", "labels": {"rings": "yes"}} for rule in group["rules"]]
    return {"name": "ringing", "rules": loud}


def of_panels():
    return [query for query in dashboard.queries(dashboard.read()) if "/" in query[0]]


def has_data(stage, text, seconds):
    """Whether a query gives a number at any moment of the last seconds."""
    end = time.time()
    answer = stage.ask("query_range", query=text, start=end - math.ceil(seconds), end=end, step="1s")["result"]
    return any(not math.isnan(float(value)) for one in answer for _, value in one["values"])


def series_of_variables(stage):
    found = {}
    for variable in dashboard.read()["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            series = stage.ask("series", **{"match[]": dashboard.fill(selector)})
            if values := sorted({one[label] for one in series if label in one}):
                found[variable["name"]] = values
    return found


def evaluated(stage):
    return [rule for group in stage.ask("rules")["groups"] for rule in group["rules"]]
