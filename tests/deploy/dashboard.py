"""The dashboard, and what can be said against one without Grafana."""

import json
import re
from itertools import combinations

import promql_parser
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import chart

FILE = chart.CHART / "files" / "dashboards" / "deletion-worker.json"
README = chart.ROOT / "README.md"
GRID = 24
# Labels that Prometheus adds, or a histogram has.
ADDED = {"namespace", "job", "instance", "le"}
# What Grafana's Prometheus data source reads of an annotation; the types leave that to the data source.
OF_THE_DATA_SOURCE = {"titleFormat", "textFormat", "useValueForTime"}
# Variables as they are when everything is selected, and as Grafana fills them for a short range.
VARIABLES = {
    "$namespace": ".*",
    "$job": ".*",
    "$instance": ".*",
    "$queue": "deletions|deletions\\\\.dead",
    "$__rate_interval": "5s",
    "$__range": "10m",
}
# Not the worker's own.
FOREIGN = {
    "ALERTS",
    "up",
    "rabbitmq_detailed_queue_consumers",
    "rabbitmq_detailed_queue_messages",
    "rabbitmq_detailed_queue_messages_ready",
    "rabbitmq_detailed_queue_messages_unacked",
    "rabbitmq_queue_consumers",
    "rabbitmq_queue_messages_ready",
    "rabbitmq_queue_messages_unacked",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
}

plugins.register_default_plugins()


def read():
    return json.loads(FILE.read_text())


def metrics():
    """{name: kind} of the README's table, which tests/docs.rs holds against the code."""
    rows = re.findall(r"^\| `(deletion_worker_\w+)` \| (\w+) \|", README.read_text(), re.MULTILINE)
    assert len(rows) > 20
    return dict(rows)


def labels():
    """{series: (its label, the values it can have)} of the README's table; series without a label aren't in it."""
    rows = re.findall(
        r"^\| `(deletion_worker_\w+)` \| .* `(\w+)`: ((?:`[^`]+`(?:, )?)+)\. \|$", README.read_text(), re.MULTILINE
    )
    assert len(rows) > 5
    return {name: (label, set(re.findall(r"`([^`]+)`", values))) for name, label, values in rows}


def known():
    """Every series there is to ask for."""
    own = {
        name + suffix
        for name, kind in metrics().items()
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    return own | FOREIGN


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(dashboard):
    """Every (where, expression), with the variables filled in."""
    found = [
        (f"{panel['title']}/{target['refId']}", target["expr"])
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]
    found += [(annotation["name"], annotation["expr"]) for annotation in dashboard["annotations"]["list"]]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            found.append((f"variable {variable['name']}", asked[1] if asked else variable["query"]["query"]))
    return [(where, fill(expression)) for where, expression in found]


def fill(expression):
    for variable, value in VARIABLES.items():
        expression = re.sub(re.escape(variable) + r"\b", lambda _, value=value: value, expression)
    return expression


def series(expression):
    """The names of the series that an expression asks for; a pattern gives every name it was made of."""
    names = set()

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            if node.name:
                names.add(node.name)
            for matcher in node.matchers.matchers:
                if matcher.name == "__name__":
                    stem, option, rest = re.fullmatch(r"(\w+)\((\w+)\)\?(\w+)", matcher.value).groups()
                    names.update((stem + rest, stem + option + rest))
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return names


def strange_labels(expression):
    """Labels that an expression asks the worker's series for, and that these don't have."""
    found, known_labels = [], labels()

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector) and (node.name or "").startswith("deletion_worker_"):
            label, values = known_labels.get(node.name, (None, set()))
            for matcher in node.matchers.matchers:
                if matcher.name in ADDED:
                    continue
                if matcher.name != label:
                    found.append(f"{node.name} has no {matcher.name}")
                elif label != "version":
                    found.extend(f"{label} is never {value}" for value in set(matcher.value.split("|")) - values)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def faults(dashboard):
    """Everything that is wrong with a dashboard."""
    return [
        *of_types(dashboard),
        *of_layout(dashboard),
        *of_panels(dashboard),
        *of_queries(dashboard),
        *of_frame(dashboard),
    ]


def of_types(dashboard):
    try:
        again = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    except (KeyError, TypeError, ValueError) as error:
        return [f"Grafana's types don't take it: {error!r}"]
    return [f"unknown to Grafana: {path}" for path in lost(dashboard, again)]


def lost(before, after, path=""):
    if isinstance(before, dict):
        for key, value in before.items():
            if isinstance(after, dict) and key in after:
                yield from lost(value, after[key], f"{path}/{key}")
            elif key not in OF_THE_DATA_SOURCE:
                yield f"{path}/{key}"
    elif isinstance(before, list):
        if not isinstance(after, list) or len(before) != len(after):
            yield path
        else:
            for number, (one, other) in enumerate(zip(before, after, strict=True)):
                yield from lost(one, other, f"{path}/{number}")
    elif before != after:
        yield path


def of_layout(dashboard):
    found = []
    ids = [panel["id"] for panel in dashboard["panels"]]
    found += [f"id {number} twice" for number in sorted(set(ids)) if ids.count(number) > 1]
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        if place["x"] < 0 or place["w"] < 1 or place["h"] < 1 or place["x"] + place["w"] > GRID:
            found.append(f"{panel['title']}: beyond the grid")
    for one, other in combinations(dashboard["panels"], 2):
        if overlap(one["gridPos"], other["gridPos"]):
            found.append(f"{one['title']} overlaps {other['title']}")
    titles = [panel["title"] for panel in dashboard["panels"]]
    return found + [f"title {title!r} twice" for title in sorted(set(titles)) if titles.count(title) > 1]


def overlap(one, other):
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in (("x", "w"), ("y", "h"))
    )


def of_panels(dashboard):
    for panel in panels(dashboard):
        unit = panel["options"].get("yAxis", {}).get("unit") or panel["fieldConfig"]["defaults"].get("unit")
        if not unit:
            yield f"{panel['title']}: no unit"
        if len(panel.get("description", "")) < 20:
            yield f"{panel['title']}: no description"
        if panel["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
            yield f"{panel['title']}: not the chosen data source"
        if len({target["refId"] for target in panel["targets"]}) != len(panel["targets"]):
            yield f"{panel['title']}: a refId twice"
        is_brokers = any("rabbitmq_" in target["expr"] for target in panel["targets"])
        if is_brokers != ("(from RabbitMQ)" in panel["title"]):
            yield f"{panel['title']}: the title has to say whether RabbitMQ is the source"


def of_queries(dashboard):
    names = known()
    for where, expression in queries(dashboard):
        try:
            asked = series(expression)
        except (ValueError, AttributeError) as error:
            yield f"{where}: {error}"
            continue
        yield from (f"{where}: there is no {name}" for name in sorted(asked - names))
        yield from (f"{where}: {strange}" for strange in strange_labels(expression))
    for panel in panels(dashboard):
        for target in panel["targets"]:
            where, expression = f"{panel['title']}/{target['refId']}", target["expr"]
            if target["datasource"] != panel["datasource"]:
                yield f"{where}: not the chosen data source"
            if windows := set(re.findall(r"\[([^]]+)\]", expression)) - {"$__rate_interval", "$__range"}:
                yield f"{where}: a window of its own, {windows}"
            for selector in re.findall(r"\b(?:deletion_worker|process)_\w+(\{[^}]*\}|)", expression):
                if not selector.startswith('{namespace=~"$namespace", job=~"$job", instance=~"$instance"'):
                    yield f"{where}: not what the variables select"


def of_frame(dashboard):
    expected = {"uid": "deletion-worker", "schemaVersion": 39, "graphTooltip": 1}
    yield from (f"{key} isn't {value}" for key, value in expected.items() if dashboard.get(key) != value)
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    if names != ["datasource", "namespace", "job", "instance", "queue"]:
        yield f"variables: {names}"
    for variable in dashboard["templating"]["list"]:
        # A label that isn't there at all, as `namespace` without Kubernetes, is matched by `.*` only.
        if variable["name"] in ("namespace", "job", "instance") and variable.get("allValue") != ".*":
            yield f"variable {variable['name']}: All doesn't match series without the label"
    rows = [panel["title"].split(":")[0] for panel in dashboard["panels"] if panel["type"] == "row"]
    if rows != ["Overview", "Throughput", "Batches", "Endpoint", "Latency", "Broker", "Process"]:
        yield f"rows: {rows}"
    if [annotation["name"] for annotation in dashboard["annotations"]["list"]] != ["Restarts", "Alerts"]:
        yield "annotations"
