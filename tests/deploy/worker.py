"""The worker's own word on its configuration."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

from chart import ROOT

BINARY = os.environ.get("DELETION_WORKER_BINARY", str(ROOT / "target/debug/deletion-worker"))
MOUNT = "/etc/deletion-worker/"
UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def check_config(toml, folder, *flags, env=None):
    """Has the worker read `toml`; returns its exit code, what it printed, and what it complained of."""
    file = Path(folder) / "config.toml"
    file.write_text(toml)
    command = [BINARY, "check-config", "--config", str(file), *flags]
    ran = subprocess.run(command, capture_output=True, text=True, env=env or {})
    return ran.returncode, ran.stdout, ran.stderr


def accepts(key, value, folder):
    """Whether the worker takes `value` for `key`, with a token, and the API that a namespace needs."""
    section, _, name = key.rpartition(".")
    lines = {"endpoint": {"token": "a token"}}
    if key == "endpoint.namespace":
        lines["endpoint"]["api"] = "v1.2"
    lines.setdefault(section, {})[name] = value
    toml = "".join(
        f"[{head}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in keys.items())
        for head, keys in lines.items()
    )
    return check_config(toml, folder)[0] == 0


def defaults(folder, api):
    """{key: the default, or None}, as check-config prints it on an empty file."""
    code, text, err = check_config("", folder, "--set", "worker.dry_run=true", "--set", f"endpoint.api={api}")
    assert code == 0, err
    tables = tomllib.loads(text)
    tables["worker"]["dry_run"] = False  # What had to be set, for want of a token.
    found, section = {}, ""
    for line in text.splitlines():
        if head := re.fullmatch(r"\[(.*)\]", line):
            section = head[1]
        elif key := re.match(r"(?:# )?(\w+) (?:=|is not set)", line):
            table = tables
            for part in section.split("."):
                table = table.get(part, {})
            found[f"{section}.{key[1]}"] = table.get(key[1])
    return found


def allowed():
    """{key: what may be written}, from the README's table, which the worker's own tests keep true."""
    rows = re.findall(
        r"^\| `(\w+(?:\.\w+)+)` \| .*? \| (.*?) \| [^|]*\|$", (ROOT / "README.md").read_text(), re.M
    )
    return dict(rows)


def probes(key, allowed):
    """Values at the edges of what is allowed, on both sides, and of other types."""
    number = r"(\d+(?:\.\d+)?)"
    if span := re.fullmatch(r'`"(\d+)(ms|s|m|h)"` to `"(\d+)(ms|s|m|h)"`', allowed):
        low, high = int(span[1]) * UNITS[span[2]], int(span[3]) * UNITS[span[4]]
        edges = [f"{ms}ms" for ms in (low - 1, low, low + 1, high - 1, high, high + 1) if ms >= 0]
        return edges + [
            "",
            "x",
            "1",
            1,
            "2.5s",
            "0.5m",
            "1.5ms",
            "1m30s",
            "2 min 1 sec",
            "1 hour",
            "999s",
            "1h1ms",
            "-1s",
        ]
    if size := re.fullmatch(r"(\d+) to (\d+) bytes", allowed):
        high = int(size[2])
        return [
            "",
            "x",
            "x" * high,
            "x" * (high + 1),
            "ä" * (high // 2),
            "ä" * (high // 2 + 1),
            "a\tb",
            'a"\\<&>',
            1,
        ]
    if size := re.fullmatch(r"(\d+) to (\d+) characters, no white space", allowed):
        return ["", "x", "x" * int(size[2]), "x" * (int(size[2]) + 1), "a b", 1]
    if numbers := re.fullmatch(rf'(?:`"auto"`, or |0, or )?{number} to {number}', allowed):
        low, high = (float(each) if "." in each else int(each) for each in numbers.groups())
        step = 1 if isinstance(low, int) else low / 2
        return [low - step, low, low + step, high - 1, high, high + 1, 0, -1, str(high), "auto", "x", True]
    if re.fullmatch(r"`true`, `false`", allowed):
        return [True, False, "true", 1, "x"]
    if re.fullmatch(r'`"[^"]+"`(, `"[^"]+"`)*', allowed):
        return [*re.findall(r'"([^"]+)"', allowed), "", "x", 1]
    if "no code documented as a failure" in allowed:
        failures = ["0001", "0409", "413", "500"]
        return [
            ["0000"],
            ["0000", "200"],
            [],
            ["a b"],
            ["x" * 32],
            ["x" * 33],
            [""],
            "0000",
            [0],
            *([each] for each in failures),
        ]
    if allowed.startswith("`http://`"):
        good = ["http://a/", "https://a.b:1/c/d", "https://a", "http://[::1]:8080/x"]
        return good + ["", "a", "ftp://a/", "http://u:p@a/", "http://a/?q=1", "http://a/#f", "http://", 1]
    if allowed.startswith('`"off"`'):
        return ["off", "error", "warn", "info", "debug", "trace", "info,deletion_worker::engine=debug", "", 1]
    raise AssertionError(f"{key}: no probes are known for: {allowed}")
