"""The alert rules of the rendered chart, promtool as their judge, and faults to put into them."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import yaml

import chart

PREFIX = "DeletionWorker"
JOB, NAMESPACE = "release-deletion-worker", "deletions"
REPLICAS = {name: {"namespace": NAMESPACE, "job": JOB, "instance": name, "pod": f"{JOB}-{name}"} for name in "abc"}
QUEUES = {
    name: {"namespace": "rabbitmq", "job": "rabbitmq", "instance": "rabbit-0", "vhost": "/", "queue": queue}
    for name, queue in {"q": "deletions", "d": "deletions.dead"}.items()
}
ALL_ALERTS = {"prometheusRule": {"enabled": True, "rabbitmq": {"enabled": True}}}
NEEDED = {"amqp": {"existingSecret": "amqp"}, "token": {"existingSecret": "token"}}


def render(values=None):
    """Renders the PrometheusRule with all alerts; `values` are those of `prometheusRule`, or whole sections."""
    values = values or {}
    sections = {"prometheusRule": {**ALL_ALERTS["prometheusRule"], **values.pop("prometheusRule", {})}}
    [rule] = chart.render({**NEEDED, **sections, **values})["templates/prometheusrule.yaml"]
    return rule


def rules(rendered):
    """All rules by the alert's name, without its prefix."""
    return {rule["alert"].removeprefix(PREFIX): rule for group in rendered["spec"]["groups"] for rule in group["rules"]}


def cases(its_rules):
    """{alert: [case]} of alert_cases.yaml, each with the labels that are expected of these rules."""
    read = yaml.safe_load((Path(__file__).parent / "alert_cases.yaml").read_text())
    for alert, its_cases in read.items():
        for case in its_cases:
            case["expected"] = expected_labels(case, its_rules[alert]["labels"])
    return read


def check(rendered, directory):
    """What `promtool check rules` says against the rules; nothing if they are fine."""
    file = directory / "rules.yaml"
    file.write_text(yaml.safe_dump(rendered["spec"]))
    return promtool("check", "rules", "--lint=all", "--lint-fatal", file)


def judge(variants, its_cases, directory):
    """Runs the cases of an alert on variants of its rule at once; returns those that don't pass.

    Takes {name: rule}, returns {name: what promtool says}. A variant that can't be evaluated doesn't pass.
    """
    names = {f"Variant{number}": name for number, name in enumerate(variants)}
    failed = {}
    while pending := [name for name in names if names[name] not in failed]:
        said = promtool(
            "test", "rules", write_tests(directory, {name: variants[names[name]] for name in pending}, its_cases)
        )
        errors = re.findall(r"rule: (Variant\d+), ", said)
        failed |= {names[name]: said for name in errors}
        if not errors:
            for block in re.split(r"\n(?=    name: )", said)[1:]:
                failed.setdefault(names[re.search(r"alertname: (Variant\d+),", block)[1]], block)
            assert bool(said) == any(names[name] in failed for name in pending), said
            break
    return failed


def write_tests(directory, variants, its_cases):
    """Writes rules and their tests into files, and returns that of the tests."""
    directory.mkdir(parents=True, exist_ok=True)
    # Annotations are for people; they would have to be repeated word for word.
    bare = [{**rule, "alert": name, "annotations": {}} for name, rule in variants.items()]
    (directory / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "alerts", "rules": bare}]}))
    tests = directory / "tests.yaml"
    tests.write_text(yaml.safe_dump(promtool_tests("rules.yaml", variants, its_cases), width=1000))
    return tests


def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"


def promtool_tests(rule_file, alerts, its_cases):
    def group(case):
        step = case.get("step", 1)
        moments = [
            {
                "eval_time": f"{minute}m",
                "alertname": alert,
                "exp_alerts": [{"exp_labels": case["expected"]}] if is_firing else [],
            }
            for minute, is_firing in when(case).items()
            for alert in alerts
        ]
        series = [{"series": expand(name), "values": str(values)} for name, values in case["series"].items()]
        return {"name": case["name"], "interval": f"{step}m", "input_series": series, "alert_rule_test": moments}

    [step] = {case.get("step", 1) for case in its_cases}
    return {
        "rule_files": [rule_file],
        "evaluation_interval": f"{step}m",
        "tests": [group(case) for case in its_cases],
    }


def when(case):
    """{minute: whether it fires then}."""
    step, moments = case.get("step", 1), dict.fromkeys(case.get("silent", []), False)
    match case.get("firing"):
        case [first, *last]:
            moments |= {first: True} | ({first - step: False} if first else {})
            moments |= {end + later: not later for end in last for later in (0, step)}
    return moments


def expand(series):
    """`name{@a, x="y"}` with the labels of replica a in place of `@a`."""
    known = {**REPLICAS, **QUEUES}

    def labels(match):
        return ", ".join(f'{name}="{value}"' for name, value in known[match[1]].items())

    return re.sub(r"@(\w)", labels, series)


def expected_labels(case, own):
    """The labels an alert of this case has, with those of its rule."""
    special = case.get("labels", {})
    if "instance" in special:
        return {**REPLICAS[special["instance"]], **own}
    if "queue" in special:
        return {"vhost": "/", **special, **own}
    return {"namespace": NAMESPACE, "job": JOB, **own}


def elsewhere(case, **labels):
    """The case as it looks when all of it happens to somebody else's series."""

    def moved(name):
        for label, other in labels.items():
            name = re.sub(rf'\b{label}="[^"]*"', f'{label}="{other}"', name)
        return name

    series = {moved(expand(name)): values for name, values in case["series"].items()}
    return {**case, "series": series, "firing": None, "silent": list(when(case))}


def of_others(alert, its_cases):
    """What makes it fire, as the trouble of another release or queue."""
    if alert in ("Down", "QueueMetricsMissing"):
        # What they report is that our own is absent.
        return []
    labels = ("vhost", "queue") if "queue" in its_cases[0].get("labels", {}) else ("job", "namespace")
    firing = next(case for case in its_cases if "firing" in case)
    return [elsewhere(firing, **{label: "other"}) for label in labels]


# Faults.

METRIC = re.compile(r"\b(?:deletion_worker|process|rabbitmq_detailed)_[a-z_]+\b|\bup\b")
NUMBER = re.compile(r"(?<![\w.\"\[-])\d+(?:\.\d+)?(?![\w.\"])")
WINDOW = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])|(?<=offset )(\d+)([smhd])")
COMPARISON = re.compile(r"(?<=[ \n])(?:==|>=|>|<)(?=[ \n])")
MATCHER = re.compile(r"(?<=[{ ])(\w+)(!=|=~|=)\"([^\"]*)\"")
GROUPING = re.compile(r"(\b(?:by|on) \()([a-z_, ]+)\)")
SELECTING = ("job", "namespace", "vhost", "queue")
LOGIC = re.compile(r"\b(?:and|unless)\b|\bor\b")


def mutants(rule):
    """Yields (what is wrong, rule) for one fault after the other in each place where it can be."""
    yield (
        "for ten times as long, or there",
        {**rule, "for": "2m" if rule["for"] == "0s" else rule["for"].replace("m", "0m").replace("h", "0h")},
    )
    if rule["for"] != "0s":
        yield "for dropped", {key: value for key, value in rule.items() if key != "for"}
    yield "severity lost", {**rule, "labels": {}}
    for what, expression in expressions(rule["expr"]):
        yield what, {**rule, "expr": expression}


def expressions(text):
    # Joins bind most series to the selected ones, so a selector counts as lost when it is lost everywhere.
    for name in SELECTING:
        if (lost := re.sub(rf'\b{name}="[^"]*"', f'{name}=~".*"', text)) != text:
            yield f"selector by {name} lost", lost
    seen = Counter()
    for what, match, by in faults(text):
        seen[what, match[0]] += 1
        # What a long expression repeats comes from one place.
        if seen[what, match[0]] <= (1 if len(text) > 2000 else 2):
            line, column = text.count("\n", 0, match.start()) + 1, match.start() - text.rfind("\n", 0, match.start())
            yield f"{what}: {match[0]} at {line}:{column}", text[: match.start()] + by + text[match.end() :]


def faults(text):
    """Yields (what, where, what stands there instead)."""
    for match in METRIC.finditer(text):
        yield "metric renamed", match, match[0] + "_x"
    for match in NUMBER.finditer(text):
        number = float(match[0])
        for other in (number * 2, number / 2) if number else (-1, 1e6):
            yield f"{other:g} in place of a number", match, f"{other:g}"
    for match in WINDOW.finditer(text):
        count, unit = int(match[1] or match[3]), match[2] or match[4]
        yield "window doubled", match, f"{count * 2}{unit}"
    for match in COMPARISON.finditer(text):
        yield "comparison turned", match, {"==": "!=", ">=": "<", ">": "<=", "<": ">="}[match[0]]
    for match in MATCHER.finditer(text):
        if match[1] not in SELECTING:
            yield "matcher lost", match, f'{match[1]}=~".*"'
    for match in GROUPING.finditer(text):
        for label in match[2].split(", "):
            rest = ", ".join(other for other in match[2].split(", ") if other != label)
            # Where the selector asks for one job in one namespace, a join needn't look at them again.
            if match[1] == "by (" or label not in ("job", "namespace"):
                yield f"label {label} lost", match, f"{match[1]}{rest})"
    for match in LOGIC.finditer(text):
        for other in {"and": ("or", "unless"), "unless": ("and",), "or": ("and",)}[match[0]]:
            yield f"{other} in place of", match, other
