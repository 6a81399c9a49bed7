"""The runbook, and what can be said against one: sections, links, command lines, and names that don't exist."""

import functools
import os
import re
import subprocess

import alerts
import chart
import dashboard

FILE = chart.ROOT / "docs" / "runbook.md"
# What each section says, in this order.
PARTS = [r"\*\*Means\*\*", r"\*\*People notice\*\*", r"\*\*Confirm( and do)?\*\*", r"\*\*Do\*\*|\*\*Confirm and do\*\*"]
# What stands for something of the reader's.
PLACES = {"NS", "W", "POD", "VHOST", "SECRET", "TOKEN", "ENDPOINT_URL", "RABBITMQ"}
# RabbitMQ's programs, and those of their commands that are used.
RABBITMQ = {
    "rabbitmqctl": {"list_queues", "list_exchanges", "list_permissions", "list_connections", "list_consumers"},
    "rabbitmq-diagnostics": {"alarms", "check_running"},
    "rabbitmq-plugins": {"enable"},
}


def faults(text):
    """Everything that is wrong with a runbook."""
    checks = (of_sections, of_links, of_commands, of_metrics, of_panels, of_keys, of_status, of_others_programs)
    return [fault for check in checks for fault in check(text)]


def anchor(title):
    """As Git hosts make it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def headings(text):
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def code(text):
    """What is set as code: the lines of blocks, and the spans in sentences."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text) + [line for block in blocks for line in block.splitlines()]


def of_sections(text):
    rules = alerts.rules(alerts.render())
    sections = [title for title in headings(text) if title.startswith(alerts.PREFIX)]
    expected = {rule["alert"] for rule in rules.values()}
    yield from (f"{alert}: no section" for alert in expected - set(sections))
    yield from (f"{title}: no such alert" for title in set(sections) - expected)
    yield from (f"{title}: twice" for title in set(sections) if sections.count(title) > 1)
    places = {anchor(title) for title in headings(text)}
    for rule in rules.values():
        page, place = rule["annotations"]["runbook_url"].split("#")
        if not (chart.ROOT / page).is_file() or place not in places:
            yield f"{rule['alert']}: its URL leads nowhere"
    for title, section in re.findall(rf"^### ({alerts.PREFIX}\w+)\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE):
        section = " ".join(section.split())
        yield from (f"{title}: says nothing of {part}" for part in PARTS if not re.search(part, section))


def of_links(text):
    places = {anchor(title) for title in headings(text)}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        page, _, place = link.partition("#")
        if page and not (FILE.parent / page).is_file() or not page and place not in places:
            yield f"link to {link}: leads nowhere"


def command_lines(text):
    """Every command line of the program itself, without what stands before and after it."""
    tasks = "dead-letters|healthcheck|check-config|publish|run"
    lines = (re.split(r" [>#]", line)[0].strip() for line in code(text))
    found = (re.search(rf"(?:^|/)deletion-worker ((?:{tasks})\b.*)", line) for line in lines)
    return sorted({match[1] for match in found if match})


def of_commands(text):
    for line in command_lines(text):
        words = line.split()
        status, said = helped(*words)
        if status != 0:
            yield f"{line}: {said.splitlines()[0]}"
        yield from (
            f"{line}: no {flag}"
            for flag in words
            if flag.startswith("--") and flag not in re.findall(r"--[\w-]+", said)
        )


@functools.cache
def helped(*words):
    """With --help everything before it is read, and nothing done."""
    command = [os.environ["DELETION_WORKER_BINARY"], *words, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout or done.stderr


def of_metrics(text):
    named = set(re.findall(r"\b(?:deletion_worker|process|rabbitmq_detailed)_[a-z_]+\b", text))
    yield from (f"{name}: no such metric" for name in named - dashboard.known())


def of_panels(text):
    titles = {panel["title"] for panel in dashboard.panels(dashboard.read())}
    for names in re.findall(r"panels? ((?:\"[^\"]+\"(?: and )?)+)", text.replace("\n", " ")):
        yield from (f"{name}: no such panel" for name in re.findall(r'"([^"]+)"', names) if name not in titles)


def of_keys(text):
    readme = dashboard.README.read_text()
    keys = set(re.findall(r"^\| `([a-z]+\.[a-z_.]+)` \|", readme, re.MULTILINE))
    sections = "|".join(sorted({key.split(".")[0] for key in keys} - {"endpoint"}))
    named = set(re.findall(rf"`(?:config\.)?((?:{sections})\.[a-z_.]+)(?: = [^`]+)?`", text))
    yield from (f"{key}: no such key" for key in named - keys)
    # The endpoint has a section in /status too.
    named = set(re.findall(r"`(?:config\.)?(endpoint\.[a-z_.]+)", text))
    yield from (f"{path}: neither key nor in /status" for path in named - keys if not is_in_status(path))


def of_status(text):
    for path in re.findall(r"`((?:broker|rate|held|totals)\.[a-z_]+)`", text):
        if not is_in_status(path):
            yield f"{path}: not in /status"


def is_in_status(path):
    source = (chart.ROOT / "src" / "status.rs").read_text()
    fields = set(re.findall(r"^\s+(?:pub )?([a-z_]+): ", source, re.MULTILINE)) | {"state"}
    return set(path.split(".")) <= fields


def of_others_programs(text):
    for program, known in RABBITMQ.items():
        used = re.findall(rf"\b{program} ([a-z_]+)", text)
        yield from (f"{program} {command}: no such command" for command in set(used) - known)
    lines = [line.split("#")[0] for line in code(text) if line.startswith(("kubectl", "curl", "rabbitmq"))]
    named = {word for line in lines for word in re.findall(r"(?<![\w:.=<-])[A-Z][A-Z_]*(?![\w:.-])", line)}
    yield from (f"{word}: nobody says what it stands for" for word in named - PLACES)
