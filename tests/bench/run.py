#!/usr/bin/env python3
"""The end-to-end benchmark: make bench, or tests/bench/run.py [--rounds N] [--messages N] [--only TEXT].

Drains the same backlog with the worker and with what it is compared to, each a process of its own, against a private
RabbitMQ and, where there is an endpoint, the mock. In each round every contender has its turn, so that what else the
machine does hits all of them. Prints medians, with the least and the most in brackets; ratios are medians of the ratios
within a round.

A turn lasts from the start of a process to its end: connecting and closing are part of it. CPU is user and system time
of the whole process, as the kernel counts them, and the peak is that of its resident memory (VmHWM).
"""

import argparse
import collections
import contextlib
import datetime
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
WORKER = TARGET / "release" / "deletion-worker"
TOOLS = TARGET / "bench"
ROLES = [os.environ["BENCH_ROLES"], "--ignored", "--exact", "role", "--nocapture"]
# What the worker takes with 4 calls of 500 IDs at a time.
PREFETCH = 4500
PATH = "/api/serve/video/delete"
BEST = "no-op"


@dataclass
class Turn:
    """What one process took."""

    seconds: float
    cpu: float
    mib: float
    calls: int | None = None


def environment(**more):
    """Ours without what would configure a worker."""
    return {key: value for key, value in os.environ.items() if not key.startswith("DELETION_WORKER")} | more


def flags(*settings):
    return [flag for setting in settings for flag in ("--set", setting)]


class Peak(threading.Thread):
    """Follows a process's memory; what wait4 tells begins with ours, of which the process was a copy."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status, self.kib, self.ended = Path(f"/proc/{pid}/status"), 0, threading.Event()
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while not self.ended.wait(0.01) and (found := re.search(r"^VmHWM:\s*(\d+)", self.status.read_text(), re.M)):
                self.kib = int(found[1])


def finish(child, begun, peak):
    """Waits for a process; what it took."""
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - begun
    peak.ended.set()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{child.args} ended with {child.returncode}")
    return Turn(seconds, usage.ru_utime + usage.ru_stime, peak.kib / 1024)


def run(command, **more):
    begun = time.monotonic()
    command = [str(word) for word in command]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment(**more))
    return finish(child, begun, Peak(child.pid))


class Role:
    """A role of tests/bench/main.rs that talks."""

    def __init__(self, role):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(ROLES, stdin=pipe, stdout=pipe, text=True, env=environment(BENCH=role))

    def hear(self):
        for line in self.process.stdout:
            if line.startswith("bench: "):
                return line.removeprefix("bench: ").strip()
        raise SystemExit(f"{self.process.args} ended")

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


class Mock:
    """The mock endpoint, in a process of its own."""

    def __init__(self, latency, calls_kept=0):
        arguments = ["mock-endpoint", "--listen", "127.0.0.1:0", "--latency", latency, "--calls-kept", str(calls_kept)]
        self.process = subprocess.Popen([WORKER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        env=environment())
        found = None
        while not found:
            found = re.search(r"127\.0\.0\.1:\d+", self.process.stdout.readline() or sys.exit("the mock didn't start"))
        self.address = found[0]
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.connection = http.client.HTTPConnection(self.address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def ask(self, method, path):
        self.connection.request(method, path)
        return self.connection.getresponse().read()

    def stats(self):
        return json.loads(self.ask("GET", "/_mock/stats"))

    def reset(self):
        self.ask("POST", "/_mock/reset")

    def call(self, number):
        """When the call with this number came, once it has."""
        while self.stats()["sizes"]["count"] < number:
            time.sleep(0.002)
        return datetime.datetime.fromisoformat(json.loads(self.ask("GET", "/_mock/calls"))[number - 1]["at"]).timestamp()


@dataclass
class Queue:
    url: str
    name: str
    kind: str

    def flags(self):
        name = self.name
        return flags(f"amqp.urls={self.url}", f"amqp.queue={name}", f"amqp.exchange={name}", f"amqp.queue_type={self.kind}",
                     f"dead_letter.exchange={name}.dlx", f"dead_letter.queue={name}.dead")


@dataclass
class Load:
    """What a queue is filled with: `repeated` of the IDs were named before, up to a thousand lines above."""

    messages: int
    per_message: int = 1
    repeated: float = 0.0

    def write(self, file):
        """IDs as lines; how many of them are different."""
        recent, fresh = collections.deque(maxlen=1000), 0
        for index in range(self.messages * self.per_message):
            if index > 1000 and index * 7919 % 1000 < self.repeated * 1000:
                line = recent[index * 31 % 997]
            else:
                line, fresh = f"VI{6 * 10**17 + fresh}\n", fresh + 1
            recent.append(line)
            file.write(line)
        file.flush()
        return fresh

    def fill(self, queue):
        with tempfile.NamedTemporaryFile("w", suffix=".ids") as file:
            fresh = self.write(file)
            publish(queue, file, self.per_message).check_returncode()
        return fresh


def publish(queue, file, per_message=1):
    command = [WORKER, "publish", "--file", file.name, "--per-message", str(per_message), *queue.flags()]
    quiet = subprocess.DEVNULL
    return subprocess.run(command, stdout=quiet, stderr=quiet, env=environment())


def worker(queue, endpoint, *settings):
    """A worker that may call as often as it likes."""
    settings = ["endpoint.requests_per_second=0", "endpoint.token=any", "admin.listen=127.0.0.1:0", "log.level=warn",
                f"endpoint.url=http://{endpoint}{PATH}", *settings]
    return subprocess.Popen([WORKER, "run", *queue.flags(), *flags(*settings)], env=environment())


def drain(queue, mock, fresh, meanwhile=None):
    mock.reset()
    begun = time.monotonic()
    child = worker(queue, mock.address)
    peak = Peak(child.pid)
    if meanwhile:
        meanwhile()
    while (deleted := mock.stats()["ids_deleted"]) < fresh:
        if child.poll() is not None:
            raise SystemExit("the worker ended before the queue was drained")
        # Whoever asks is on the worker's cores: so the next time is half as far off as the end seems, or the begin.
        gone = time.monotonic() - begun
        left = gone * (fresh - deleted) / deleted if deleted else 0
        time.sleep(max(min(left, gone, 1) / 2, 0.005))
    child.send_signal(signal.SIGTERM)
    turn = finish(child, begun, peak)
    turn.calls = mock.stats()["sizes"]["count"]
    return turn


def contenders(queue, mock, load):
    """{name: how it drains} of what the worker is compared to; what can't be had here is left out."""
    broker = urlsplit(queue.url)
    rest = f"{queue.url} {queue.name} {PREFETCH} {load.messages}"
    found = {f"{BEST}, lapin, {threads} thread{s}": (lambda threads=threads: run(ROLES, BENCH=f"noop {threads} {rest}"))
             for threads, s in (("one", ""), ("many", "s"))}
    if (TOOLS / "noop").exists():
        native = [TOOLS / "noop", broker.hostname, broker.port, queue.name, PREFETCH, load.messages]
        found["no-op in C, librabbitmq"] = lambda: run(native)
    if (TOOLS / "node_modules").exists():
        script = ["node", TOOLS / "batcher.mjs", *rest.split(" "), f"http://{mock.address}{PATH}"]
        found["batcher in Node, amqplib"] = lambda: run(script)
    return found


def spread(values, form):
    return f"{form} ({form} to {form})".format(statistics.median(values), min(values), max(values))


def table(load, laps, fresh):
    ours = [name for name in laps if name.startswith(f"{BEST}, lapin")]
    best = min(ours, key=lambda name: statistics.median(turn.seconds for turn in laps[name]), default=None)
    print("| | messages/s | CPU s per million | peak MiB | calls / ideal | rate / no-op | CPU / no-op |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, turns in laps.items():
        cells = [spread([load.messages / turn.seconds for turn in turns], "{:,.0f}"),
                 spread([turn.cpu / load.messages * 1e6 for turn in turns], "{:.2f}"),
                 spread([turn.mib for turn in turns], "{:.1f}")]
        calls = [turn.calls / -(-fresh // 500) for turn in turns if turn.calls]
        cells.append(f"{statistics.median(calls):.3f}" if calls else "")
        if best and name != best:
            pairs = list(zip(turns, laps[best]))
            cells += [f"{statistics.median(base.seconds / turn.seconds for turn, base in pairs):.2f}",
                      f"{statistics.median(turn.cpu / base.cpu for turn, base in pairs):.2f}"]
        else:
            cells += ["", ""]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def backlog(url, rounds, title, kind, load, latency="0s", compared=False):
    print(f"\n### {title}: {load.messages:,} messages, {rounds} rounds\n", flush=True)
    with Mock(latency) as mock:
        queue, laps = Queue(url, f"bench-{kind}", kind), {}
        for _ in range(rounds):
            fresh = load.fill(queue)
            laps.setdefault("worker", []).append(drain(queue, mock, fresh))
            for name, turn in contenders(queue, mock, load).items() if compared else ():
                load.fill(queue)
                laps.setdefault(name, []).append(turn())
        table(load, laps, fresh)


def flow(url, messages):
    """Many more than a queue should hold, published while they are drained: what grows without bound shows in it."""
    print(f"\n### {messages:,} messages, published meanwhile\n", flush=True)
    with Mock("0s") as mock, tempfile.NamedTemporaryFile("w", suffix=".ids") as file:
        queue, load = Queue(url, "bench-flow", "quorum"), Load(messages)
        fresh = load.write(file)
        turn = drain(queue, mock, fresh, lambda: publish(queue, file).check_returncode())
        table(load, {"worker": [turn]}, fresh)


def times(url, rounds):
    """How fast it starts, ends, and carries out a lone request, and what it does when there is nothing to do."""
    linger, lone, idle = 0.1, 20 * rounds, 4 * rounds
    queue = Queue(url, "bench-times", "quorum")
    starts, stops, waits, costs, floors = [], [], [], [], []
    with Mock("0s", calls_kept=1000) as mock:
        for _ in range(rounds):
            fresh = Load(3000).fill(queue)
            mock.reset()
            begun = time.time()
            child = worker(queue, mock.address)
            starts.append(mock.call(1) - begun)
            while mock.stats()["ids_deleted"] < fresh:
                time.sleep(0.001)
            # It is idle once a lone request has gone through.
            seen = mock.stats()["sizes"]["count"]
            with Role(f"publish {url} {queue.name} delete") as publisher:
                publisher.hear()
                publisher.tell('{"videoNo": "VI1"}')
                mock.call(seen + 1)
            begun = time.monotonic()
            child.send_signal(signal.SIGTERM)
            stops.append(finish(child, begun, Peak(child.pid)).seconds)
            costs.append(drain(queue, mock, Load(1).fill(queue)).cpu)
            Load(1).fill(queue)
            floors.append(run(ROLES, BENCH=f"noop one {url} {queue.name} {PREFETCH} 1").cpu)
        child = worker(queue, mock.address, f"batch.linger={int(linger * 1000)}ms")
        mock.reset()
        with Role(f"publish {url} {queue.name} delete") as publisher:
            publisher.hear()
            for number in range(lone):
                begun = time.time()
                publisher.tell(f'{{"videoNo": "VI{number + 10}"}}')
                waits.append(mock.call(number + 1) - begun - linger)
        time.sleep(1)
        before = usage(child.pid)
        time.sleep(idle)
        cpu, wakes = (after - earlier for after, earlier in zip(usage(child.pid), before))
        child.send_signal(signal.SIGTERM)
        finish(child, time.monotonic(), Peak(child.pid))
    trips = round_trips(url, queue, lone)
    waits.sort()
    print(f"\n### Times: {rounds} rounds, {lone} lone messages, {idle} s idle\n\n| | |\n| --- | --- |")
    print(f"| start to first call, 3,000 messages waiting | {spread([s * 1000 for s in starts], '{:.0f}')} ms |")
    print(f"| SIGTERM to exit, idle | {spread([s * 1000 for s in stops], '{:.0f}')} ms |")
    print(f"| CPU of start, one message and end | {spread([s * 1000 for s in costs], '{:.1f}')} ms |")
    print(f"| the same of a consumer that does nothing else | {spread([s * 1000 for s in floors], '{:.1f}')} ms |")
    print(f"| lone message: publish to call, less linger | {percentiles(waits)} |")
    print(f"| lone message: publish to delivery at a consumer that does nothing else | {percentiles(trips)} |")
    print(f"| idle | {cpu / idle * 100:.2f} % CPU, {wakes / idle:.1f} wake-ups a second |", flush=True)


def percentiles(times):
    """Of sorted seconds."""
    return f"p50 {times[len(times) // 2] * 1000:.1f}, p99 {times[len(times) * 99 // 100] * 1000:.1f} ms"


def round_trips(url, queue, count):
    """What of a lone message's time is the broker's, in seconds, sorted."""
    trips = []
    with Role(f"receive {url} {queue.name}") as receiver, Role(f"publish {url} {queue.name} delete") as publisher:
        receiver.hear()
        publisher.hear()
        for number in range(count):
            begun = time.monotonic()
            publisher.tell(f'{{"videoNo": "VI{number + 10}"}}')
            receiver.hear()
            trips.append(time.monotonic() - begun)
            # As seldom as those that linger.
            time.sleep(0.1)
    return sorted(trips)


def usage(pid):
    """CPU seconds, and how often its threads went to sleep."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    sleeps = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        sleeps += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status.read_text(), re.M)[1])
    return seconds, sleeps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--only", default="", help="only tables whose title contains this")
    options = parser.parse_args()
    n = options.messages
    tables = [
        ("Quorum queue", "quorum", Load(n), "0s", True),
        ("Classic queue", "classic", Load(n), "0s", True),
        ("10 IDs a message", "quorum", Load(n // 10, per_message=10), "0s", False),
        ("30 % duplicates", "quorum", Load(n, repeated=0.3), "0s", False),
        ("Endpoint that takes 50 ms", "quorum", Load(n * 2), "50ms", False),
        ("A twentieth of the backlog", "quorum", Load(n // 20), "0s", False),
        ("Five times the backlog", "quorum", Load(n * 5), "0s", False),
    ]
    with Role("broker") as broker:
        url = broker.hear()
        for title, *rest in tables:
            if options.only in title:
                backlog(url, options.rounds, title, *rest)
        if options.only in "Fifty times the backlog":
            flow(url, n * 50)
        if options.only in "Times":
            times(url, options.rounds)


if __name__ == "__main__":
    main()
