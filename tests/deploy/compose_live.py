"""Brings docker-compose.yml up as it is, under load, and looks at everything in it: run by `make test-compose`.

Waits for conditions, each within PATIENCE. Prints what took how long; exits with 1 at the first thing that is wrong, with
the logs of all services.
"""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300
STEP = 0.2
# A service that needs this long to stop didn't listen to the signal: the shortest stop_grace_period is 10 s.
STOPPED_WITHIN = 8
# What a viewer sees when the load has an effect.
LIFE = [
    "sum(rate(deletion_worker_ids_deleted_total[20s])) > 0",
    "sum(rate(deletion_worker_ids_deduplicated_total[20s])) > 0",
    'sum(deletion_worker_dead_letters_total{reason="malformed"}) > 0',
    'sum(deletion_worker_dead_letters_total{reason="rejected"}) > 0',
]


class Wrong(Exception):
    """Something is not as it should be."""


def main():
    arguments = sys.argv[1:]
    project = Project(["--no-build"] if "--no-build" in arguments else [])
    try:
        project.refuse_to_disturb()
        try:
            check(project)
        finally:
            project.compose("--profile", "load", "down", "--volumes", "--remove-orphans")
        if left := project.containers():
            raise Wrong(f"still there after `down`: {left}")
    except Wrong as wrong:
        sys.exit(f"error: {wrong}")
    print("all of it works, and nothing is left")


def check(project):
    began = time.monotonic()
    try:
        project.compose("up", "--detach", "--wait", *project.flags)
        say(began, f"all healthy: {', '.join(sorted(project.containers()))}")
        project.compose("--profile", "load", "up", "--detach", *project.flags)
        deleted = wait_for("a first deletion", lambda: metric(project, "deletion_worker_ids_deleted_total"))
        say(began, f"{deleted:.0f} IDs deleted, with a publisher")
        look_at_memory(project)
        look_at_alerts(project, began)
        look_at_dashboard(project, began)
        stop(project)
    except Wrong:
        print(project.compose("logs", "--tail", "40"))
        raise


class Project:
    """The compose project, by Docker's and Compose's own command lines."""

    def __init__(self, flags):
        self.flags = flags
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        self.command = ["docker", "compose"] if plugin.returncode == 0 else [shutil.which("docker-compose")]
        if self.command == [None]:
            raise SystemExit("error: there is neither `docker compose` nor docker-compose")
        self.config = json.loads(self.compose("--profile", "load", "config", "--format", "json"))

    def compose(self, *arguments):
        return run(*self.command, *arguments)

    def containers(self):
        """{service: what `docker inspect` says of its container}, stopped ones too."""
        ids = run(
            "docker", "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.config['name']}"
        ).split()
        found = json.loads(run("docker", "inspect", *ids)) if ids else []
        return {container["Config"]["Labels"]["com.docker.compose.service"]: container for container in found}

    def refuse_to_disturb(self):
        if there := self.containers():
            raise Wrong(f"the project is up already, with {', '.join(there)}: take it down first")

    def url(self, service, target):
        """Where a port of a service is reached from here."""
        [port] = [port for port in self.config["services"][service]["ports"] if port["target"] == target]
        return f"http://{port['host_ip']}:{port['published']}"


def look_at_memory(project):
    for service in ("deletion-worker", "mock-endpoint", "publisher"):
        container = project.containers()[service]
        status = Path(f"/proc/{container['State']['Pid']}/status").read_text()
        resident, uid = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "Uid"))
        print(f"          {service}: {resident / 1024:.1f} MiB resident, uid {uid}")
    size = json.loads(run("docker", "image", "inspect", container["Image"]))[0]["Size"]
    print(f"          the image: {size / 1e6:.1f} MB")


def look_at_alerts(project, began):
    """Every rule is evaluated without an error, and none fires."""

    def rules():
        answer = get(project.url("prometheus", 9090) + "/api/v1/rules?type=alert")
        found = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
        return found if found and all(rule["health"] != "unknown" for rule in found) else None

    found = wait_for("every alert rule to be evaluated", rules)
    if bad := [f"{rule['name']}: {rule.get('lastError')}" for rule in found if rule["health"] != "ok"]:
        raise Wrong("\n".join(bad))
    if firing := [rule["name"] for rule in found if rule["state"] == "firing"]:
        raise Wrong(f"firing: {firing}")
    say(began, f"{len(found)} alert rules evaluated, none fires")


def look_at_dashboard(project, began):
    """Every expression of the dashboard that Grafana has returns data by way of Grafana's own datasource."""
    grafana = project.url("grafana", 3000)
    dashboard = get(grafana + "/api/dashboards/uid/deletion-worker")["dashboard"]
    left = {
        (panel["title"], fill_in(target["expr"]))
        for panel in panels(dashboard["panels"])
        for target in panel.get("targets", [])
    }
    total = len(left)

    def has_data(expression):
        query = urllib.parse.urlencode({"query": expression})
        answer = get(f"{grafana}/api/datasources/proxy/uid/prometheus/api/v1/query?{query}")
        return bool(answer["data"]["result"])

    def all_have_data():
        left.difference_update([panel for panel in left if has_data(panel[1])])
        return not left

    wait_for("every panel to have data", all_have_data, lambda: "\n".join(map(str, sorted(left))))
    for expression in LIFE:
        wait_for(expression, lambda: has_data(expression))
    say(began, f"all {total} expressions of the dashboard have data; deletions, duplicates and dead letters are seen")


def panels(some):
    for panel in some:
        yield panel
        yield from panels(panel.get("panels", []))


def fill_in(expression):
    """An expression with Grafana's variables filled in, as by a viewer who chose nothing."""
    values = {"__rate_interval": "20s", "__interval": "20s", "__range": "5m"}
    filled = re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda match: values.get(match[1], ".*"), expression)
    return filled


def stop(project):
    """Each service stops at once when it is told to, with 0; those that depend on others first."""
    for service in ("publisher", "grafana", "prometheus", "deletion-worker", "mock-endpoint", "rabbitmq"):
        began = time.monotonic()
        project.compose("stop", service)
        took = time.monotonic() - began
        code = project.containers()[service]["State"]["ExitCode"]
        print(f"          {service}: stopped in {took:.1f} s with {code}")
        if code != 0 or (took > STOPPED_WITHIN and service != "rabbitmq"):
            raise Wrong(f"{service} took {took:.1f} s to stop, with {code}")


def metric(project, name):
    """The value of a metric of the worker, by its own word; None for 0."""
    text = fetch(project.url("deletion-worker", 9090) + "/metrics").decode()
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found and float(found[1]) else None


def get(url):
    return json.loads(fetch(url))


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        raise Wrong(f"{url}: {error} {error.read().decode(errors='replace')}") from error
    except OSError as error:
        raise Wrong(f"{url}: {error}") from error


def wait_for(what, condition, detail=lambda: ""):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Wrong(f"waited {PATIENCE} s in vain for {what}\n{detail()}")
        time.sleep(STEP)
    return found


def run(*command):
    end = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if end.returncode != 0:
        raise Wrong(f"{' '.join(command)} exited with {end.returncode}:\n{end.stderr}")
    return end.stdout


def say(began, sentence):
    print(f"{time.monotonic() - began:6.1f} s  {sentence}", flush=True)


if __name__ == "__main__":
    main()
