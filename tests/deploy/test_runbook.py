"""The runbook: a section for each alert, and commands, metrics and words of /status that exist."""

import os
import re
import subprocess

import pytest

import alerts
import chart
import dashboard

RUNBOOK = (chart.ROOT / "docs" / "runbook.md").read_text()
RULES = alerts.rules(alerts.render())
CODE = re.findall(r"`([^`\n]+)`", RUNBOOK) + [
    line for block in re.findall(r"```sh\n(.*?)```", RUNBOOK, re.DOTALL) for line in block.splitlines()
]
# What stands for something of the reader's.
PLACES = {"NS", "W", "POD", "VHOST", "SECRET", "TOKEN", "ENDPOINT_URL", "RABBITMQ"}
# Programs of others, and which of their commands are used.
RABBITMQ = {
    "rabbitmqctl": {"list_queues", "list_exchanges", "list_permissions", "list_connections", "list_consumers"},
    "rabbitmq-diagnostics": {"alarms", "check_running"},
    "rabbitmq-plugins": {"enable"},
}


def anchor(title):
    """As Git hosts make it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def headings():
    return re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)


def commands():
    """Every command line of the program itself, without what stands before it."""
    found = []
    for line in CODE:
        line = line.split("#")[0].split(" > ")[0].strip()
        if match := re.search(
            r"(?:^|/)(?:deletion-worker) ((?:dead-letters|healthcheck|check-config|publish|run)\b.*)", line
        ):
            found.append(match[1])
    return sorted(set(found))


def test_each_alert_has_a_section_and_each_section_an_alert():
    sections = [title for title in headings() if title.startswith(alerts.PREFIX)]
    assert len(sections) == len(set(sections))
    assert set(sections) == {rule["alert"] for rule in RULES.values()}


@pytest.mark.parametrize("alert", RULES)
def test_the_url_of_an_alert_leads_to_its_section(alert):
    page, place = RULES[alert]["annotations"]["runbook_url"].split("#")
    assert (chart.ROOT / page).is_file()
    assert place in {anchor(title) for title in headings()}
    section = re.search(rf"^### {alerts.PREFIX}{alert}\n(.*?)(?=^##|\Z)", RUNBOOK, re.DOTALL | re.MULTILINE)[1]
    text = " ".join(section.split())
    for part in (
        r"\*\*Means\*\*",
        r"\*\*People notice\*\*",
        r"\*\*Confirm( and do)?\*\*",
        r"\*\*Do\*\*|\*\*Confirm and do\*\*",
    ):
        assert re.search(part, text), f"no {part}"


def test_links_lead_somewhere():
    places = {anchor(title) for title in headings()}
    links = re.findall(r"\]\(([^)]+)\)", RUNBOOK)
    assert len(links) > 20
    for link in links:
        page, _, place = link.partition("#")
        assert not page or (chart.ROOT / "docs" / page).is_file(), link
        assert page or place in places, link


def test_there_are_command_lines_to_check():
    assert len(commands()) >= 8, commands()


@pytest.mark.parametrize("command", commands())
def test_a_command_line_is_one_that_the_program_takes(command):
    # With --help everything before it is read, and nothing done; a flag that isn't there is refused first.
    words = command.split()
    done = subprocess.run(
        [os.environ["DELETION_WORKER_BINARY"], *words, "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    flags = {word for word in words if word.startswith("--")}
    assert flags <= set(re.findall(r"--[a-z][a-z-]*", done.stdout)), f"{flags} are not all among the flags"


def test_metrics_exist():
    named = set(re.findall(r"\b(?:deletion_worker|process|rabbitmq_detailed)_[a-z_]+\b", RUNBOOK))
    assert named and named <= dashboard.known()


def test_panels_exist():
    titles = {panel["title"] for panel in dashboard.panels(dashboard.read())}
    named = {
        title
        for text in re.findall(r"panels? ((?:\"[^\"]+\"(?: and )?)+)", RUNBOOK.replace("\n", " "))
        for title in re.findall(r'"([^"]+)"', text)
    }
    assert named and named <= titles


def test_keys_exist():
    readme = (chart.ROOT / "README.md").read_text()
    keys = set(re.findall(r"^\| `([a-z]+\.[a-z_.]+)` \|", readme, re.MULTILINE))
    sections = "|".join(sorted({key.split(".")[0] for key in keys}))
    named = set(re.findall(rf"`(?:config\.)?((?:{sections})\.[a-z_.]+)(?: = [^`]+)?`", RUNBOOK))
    # Of /status, whose members are looked for in a real one.
    named -= set(status_members())
    assert named and named <= keys


def status_members():
    sections = "broker|endpoint|rate|held|totals"
    return re.findall(rf"`((?:{sections})\.[a-z_]+(?:\.[a-z_]+)?)`", RUNBOOK)


def test_members_of_status_exist():
    source = (chart.ROOT / "src" / "status.rs").read_text()
    fields = set(re.findall(r"^\s+(?:pub )?([a-z_]+): ", source, re.MULTILINE)) | {"state"}
    named = {
        name
        for path in status_members()
        if not path.startswith(("endpoint.url", "endpoint.api", "endpoint.requests"))
        for name in path.split(".")
    }
    assert {"last_failure", "because", "held"} <= named and named <= fields


def test_commands_of_rabbitmq_exist():
    for program, known in RABBITMQ.items():
        used = set(re.findall(rf"\b{program} ([a-z_]+)", RUNBOOK))
        assert used and used <= known, f"{program}: {used - known}"


def test_placeholders_are_the_ones_that_are_explained():
    lines = [line.split("#")[0] for line in CODE if line.startswith(("kubectl", "curl", "rabbitmq"))]
    named = {word for line in lines for word in re.findall(r"(?<![\w:.=<-])[A-Z][A-Z_]*(?![\w:.-])", line)}
    assert named <= PLACES
