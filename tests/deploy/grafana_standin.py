"""Not Grafana, but in its place where there is none: reads what Grafana would be provisioned with, and answers from it.

Ends with 1 if the files are not what Grafana takes. Then serves, like Grafana: /api/health, /api/dashboards/uid/UID and
/api/datasources/proxy/uid/UID/PATH. Shows nothing to anybody.
"""

import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

PROVISIONING = Path("/etc/grafana/provisioning")


def provisioned(kind, key):
    """All entries of a kind of provisioning file."""
    entries = []
    for path in sorted((PROVISIONING / kind).glob("*.y*ml")):
        document = yaml.safe_load(path.read_text())
        assert document["apiVersion"] == 1, path
        entries += document[key]
    assert entries, f"no {kind} are provisioned"
    return entries


def datasources():
    """{uid: datasource}, exactly one of them the default."""
    found = {entry["uid"]: entry for entry in provisioned("datasources", "datasources")}
    assert all(map(is_datasource, found.values())), found
    assert [entry for entry in found.values() if entry.get("isDefault")], "no datasource is the default"
    return found


def is_datasource(entry):
    return entry["type"] == "prometheus" and entry["name"] and entry["url"].startswith("http://")


def dashboards():
    """{uid: dashboard}, the home dashboard among them."""
    found, paths = {}, []
    for provider in provisioned("dashboards", "providers"):
        assert provider["type"] == "file" and provider["name"], provider
        for path in sorted(Path(provider["options"]["path"]).rglob("*.json")):
            dashboard = json.loads(path.read_text())
            assert dashboard["title"] and dashboard["panels"] and dashboard["schemaVersion"], path
            found[dashboard["uid"]] = dashboard
            paths.append(str(path))
    home = os.environ["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in paths, f"the home dashboard {home} is not among {paths}"
    return found


class Handler(BaseHTTPRequestHandler):
    """Answers GET."""

    def do_GET(self):
        match self.path.lstrip("/").split("/"):
            case ["api", "health"]:
                self.answer(200, b'{"database": "ok", "version": "none: a stand-in"}')
            case ["api", "dashboards", "uid", uid] if uid in DASHBOARDS:
                answer = {"dashboard": DASHBOARDS[uid], "meta": {"provisioned": True}}
                self.answer(200, json.dumps(answer).encode())
            case ["api", "datasources", "proxy", "uid", uid, *rest] if uid in DATASOURCES:
                self.forward(DATASOURCES[uid]["url"] + "/" + "/".join(rest))
            case _:
                self.answer(404, b"{}")

    def forward(self, url):
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                self.answer(response.status, response.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read())
        except OSError as error:
            self.answer(502, json.dumps({"message": str(error)}).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    DATASOURCES, DASHBOARDS = datasources(), dashboards()
    server = ThreadingHTTPServer(("", 3000), Handler)
    # shutdown() waits for the loop that the handler interrupts.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("a stand-in for Grafana, with the dashboards", *DASHBOARDS, flush=True)
    server.serve_forever()
    sys.exit(0)
