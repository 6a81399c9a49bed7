"""The alert rules of the rendered chart, promtool as their judge, and faults to put into them."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

import chart

PREFIX = "DeletionWorker"
JOB, NAMESPACE = "release-deletion-worker", "deletions"
REPLICAS = {
    name: {"namespace": NAMESPACE, "job": JOB, "instance": name, "pod": f"{JOB}-{name}"} for name in "ab"
}
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
    return {
        rule["alert"].removeprefix(PREFIX): rule for group in rendered["spec"]["groups"] for rule in group["rules"]
    }


def cases():
    """{alert: [case]} of alert_cases.yaml."""
    return yaml.safe_load((Path(__file__).parent / "alert_cases.yaml").read_text())


def check(rendered, directory):
    """What `promtool check rules` says against the rules; nothing if they are fine."""
    file = directory / "rules.yaml"
    file.write_text(yaml.safe_dump(rendered["spec"]))
    return promtool("check", "rules", "--lint=all", "--lint-fatal", file)


def judge(jobs, directory):
    """Runs each (rule, [cases]); returns for each what promtool has against it, or nothing."""
    directory.mkdir(parents=True, exist_ok=True)

    def run(job):
        number, (rule, its_cases) = job
        # Annotations are for people; they would have to be repeated word for word.
        bare = {key: value for key, value in rule.items() if key != "annotations"}
        file = directory / f"{number}.yaml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "alerts", "rules": [bare]}]}))
        tests = directory / f"{number}.test.yaml"
        tests.write_text(yaml.safe_dump(promtool_tests(file.name, rule["alert"], its_cases), width=1000))
        return promtool("test", "rules", tests)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, enumerate(jobs)))


def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"


def promtool_tests(rule_file, alert, its_cases):
    def at(minute, labels):
        expected = [{"exp_labels": labels}] if labels else []
        return {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": expected}

    def group(case):
        step, expected = case.get("step", 1), case["expected"]
        moments = [at(minute, None) for minute in case.get("silent", [])]
        if "firing" in case:
            first, *last = case["firing"]
            moments += [at(first - step, None)] if first else []
            moments += [at(first, expected)]
            moments += [at(minute, labels) for end in last for minute, labels in ((end, expected), (end + step, None))]
        series = [{"series": expand(name), "values": str(values)} for name, values in case["series"].items()]
        return {"name": case["name"], "interval": f"{step}m", "input_series": series, "alert_rule_test": moments}

    steps = {case.get("step", 1) for case in its_cases}
    assert len(steps) == 1, f"{alert}: the cases of an alert have one step"
    return {
        "rule_files": [rule_file],
        "evaluation_interval": f"{steps.pop()}m",
        "tests": [group(case) for case in its_cases],
    }


def expand(series):
    """`name{@a, x="y"}` with the labels of replica a in place of `@a`."""
    known = {**REPLICAS, **QUEUES}

    def labels(match):
        return ", ".join(f'{name}="{value}"' for name, value in known[match[1]].items())

    return re.sub(r"@(\w)", labels, series)


def expected_labels(case, alert, severity):
    """The labels an alert of this case has."""
    special = case.get("labels", {})
    of_instance = REPLICAS[special["instance"]] if "instance" in special else {}
    of_queue = {"vhost": "/", **special} if "queue" in special else {"namespace": NAMESPACE, "job": JOB}
    labels = {"alertname": PREFIX + alert, "severity": severity, **of_queue, **of_instance}
    return {name: value for name, value in labels.items() if name != "alertname"}


# Faults.

METRIC = re.compile(r"\b(?:deletion_worker|process|rabbitmq_detailed)_[a-z_]+\b|\bup\b")
NUMBER = re.compile(r"(?<![\w.\"\[-])\d+(?:\.\d+)?(?![\w.\"])")
WINDOW = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])|(?<=offset )(\d+)([smhd])")
COMPARISON = re.compile(r"(?<= )(?:==|>=|>|<)(?= )|(?<=\n)(?:==|>=|>|<)(?= )")
MATCHER = re.compile(r"(?<=[{ ])(\w+)(!=|=~|=)\"([^\"]*)\"")
GROUPING = re.compile(r"(\b(?:by|on) \()([a-z_, ]+)\)")
LOGIC = re.compile(r"\b(?:and|unless)\b|\bor\b")


def mutants(rule):
    """Yields (what is wrong, rule) for one fault after the other in each place where it can be."""
    seconds = rule["for"] not in ("0s", "0m")
    yield "for doubled or there", {**rule, "for": "2m" if not seconds else double(rule["for"])}
    if seconds:
        yield "for dropped", {key: value for key, value in rule.items() if key != "for"}
    yield "severity lost", {**rule, "labels": {}}
    for what, expression in expressions(rule["expr"]):
        yield what, {**rule, "expr": expression}


def expressions(text):
    def replaced(match, by):
        return text[: match.start()] + by + text[match.end() :]

    def said(what, match):
        line = text.count("\n", 0, match.start()) + 1
        return f"{what}: {match[0]} in line {line}, column {match.start() - text.rfind(chr(10), 0, match.start())}"

    for match in METRIC.finditer(text):
        yield said("metric renamed", match), replaced(match, match[0] + "_x")
    for match in NUMBER.finditer(text):
        number = float(match[0])
        for other in (number * 2, number / 2) if number else (-1, 1e6):
            yield said(f"{other:g} in place of a number", match), replaced(match, f"{other:g}")
    for match in WINDOW.finditer(text):
        count, unit = int(match[1] or match[3]), match[2] or match[4]
        yield said("window doubled", match), replaced(match, f"{count * 2}{unit}")
    for match in COMPARISON.finditer(text):
        yield said("comparison turned", match), replaced(match, {"==": "!=", ">=": "<", ">": "<=", "<": ">="}[match[0]])
    for match in MATCHER.finditer(text):
        # A comma too many is allowed at the end only, so the matcher is made to match everything.
        yield said("matcher lost", match), replaced(match, f'{match[1]}=~".*"')
    for match in GROUPING.finditer(text):
        for label in match[2].split(", "):
            rest = ", ".join(other for other in match[2].split(", ") if other != label)
            yield said(f"label {label} lost", match), replaced(match, f"{match[1]}{rest})")
    for match in LOGIC.finditer(text):
        for other in {"and": ("or", "unless"), "unless": ("and",), "or": ("and",)}[match[0]]:
            yield said(f"{other} in place of", match), replaced(match, other)


def double(duration):
    count, unit = re.fullmatch(r"(\d+)([smhd])", duration).groups()
    return f"{int(count) * 2}{unit}"
