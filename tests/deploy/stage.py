"""The real system on loopback: RabbitMQ, the endpoint's stand-in, two workers, and Prometheus that scrapes them all."""

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

PATIENCE = 120
POLL = 0.1
DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
IMAGE = "rabbitmq:4-management"
FAMILIES = "family=queue_coarse_metrics&family=queue_consumer_count"


class Stage:
    """Starts everything when entered, and ends it when left."""

    def __init__(self, settings=None, rules=None, scrape_interval="1s"):
        self.settings, self.rules, self.scrape_interval = settings or {}, rules, scrape_interval
        self.binary, self.processes = os.environ["DELETION_WORKER_BINARY"], {}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.stack = stack
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deletion-worker-stage-")))
            self.amqp, broker_metrics = self._broker()
            self.mock = f"127.0.0.1:{free_port()}"
            self._start("mock", [self.binary, "mock-endpoint", "--listen", self.mock])
            self.workers = [f"127.0.0.1:{free_port()}" for _ in range(2)]
            # The first is the active one.
            for number in range(len(self.workers)):
                self.start_worker(number)
            self.prometheus = f"127.0.0.1:{free_port()}"
            self._prometheus(broker_metrics)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, error, *_):
        if error:
            for log in sorted(self.directory.glob("*.log")):
                print(f"--- {log.name}", *log.read_text().splitlines()[-15:], sep="\n")
        self.stack.close()

    def start_worker(self, number):
        """Starts a worker, for the first time or again, and waits until it is ready."""
        admin = self.workers[number]
        self._start(f"worker-{number}", [self.binary, "run"], self._worker_environment(admin))
        wait_for(f"worker {number} is ready", lambda: get(f"http://{admin}/readyz"))

    def stop_worker(self, number):
        end(self.processes[f"worker-{number}"])

    def faults(self, **faults):
        """Replaces the endpoint's faults."""
        request = urllib.request.Request(
            f"http://{self.mock}/_mock/faults",
            json.dumps(faults).encode(),
            {"content-type": "application/json"},
            method="PUT",
        )
        urllib.request.urlopen(request, timeout=10).read()

    def publish(self, ids, per_message=1):
        """Publishes requests, and returns when the broker has them."""
        command = [self.binary, "publish", "--file", "-", "--per-message", str(per_message)]
        done = subprocess.run(
            command,
            input="\n".join(ids),
            text=True,
            capture_output=True,
            check=False,
            env=self._environment(),
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr

    def metric(self, series):
        """The sum of a series over the workers, as they say themselves; the name goes without its prefix."""
        lines = [line for admin in self.workers for line in get(f"http://{admin}/metrics").splitlines()]
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"deletion_worker_{series} ")]
        assert values, f"no worker has the series {series}"
        return sum(values)

    def status(self, worker=0):
        return json.loads(get(f"http://{self.workers[worker]}/status"))

    def ask(self, path, **parameters):
        """Asks Prometheus' API."""
        answer = json.loads(get(f"http://{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def wait_until_scraped(self):
        """Waits until Prometheus has seen what has happened until now: at two workers, and at RabbitMQ's two queues."""
        everybody = "{__name__=~'deletion_worker_build_info|rabbitmq_detailed_queue_consumers'}"
        fresh = f"count(timestamp({everybody}) > {time.time():f})"
        wait_for("Prometheus has scraped everybody", lambda: self._value(fresh) == 4)

    def _value(self, expression):
        result = self.ask("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else 0

    def _environment(self):
        ours = {name: value for name, value in os.environ.items() if not name.startswith("DELETION_WORKER__")}
        return {**ours, "DELETION_WORKER__AMQP__URLS": self.amqp}

    def _worker_environment(self, admin):
        url = f"http://{self.mock}/api/serve/video/delete"
        settings = {"endpoint.url": url, "endpoint.token": "any", "admin.listen": admin, **self.settings}
        variables = {f"DELETION_WORKER__{key.upper().replace('.', '__')}": value for key, value in settings.items()}
        return {**self._environment(), **variables}

    def _start(self, name, command, environment=None):
        with (self.directory / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                preexec_fn=die_with_us,
            )
        self.stack.callback(end, process)
        self.processes[name] = process
        return process

    def _prometheus(self, broker_metrics):
        host, path = broker_metrics.split("/", 1)
        path, query = path.split("?")
        scrapes = [
            {"job_name": "deletion-worker", "static_configs": [{"targets": self.workers}]},
            {
                "job_name": "rabbitmq",
                "metrics_path": "/" + path,
                "params": urllib.parse.parse_qs(query),
                "static_configs": [{"targets": [host]}],
            },
        ]
        configuration = {
            "global": {"scrape_interval": self.scrape_interval, "evaluation_interval": "1s"},
            "scrape_configs": scrapes,
            "rule_files": ["rules.yaml"] if self.rules else [],
        }
        (self.directory / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        (self.directory / "rules.yaml").write_text(yaml.safe_dump(self.rules))
        self._start(
            "prometheus",
            [
                "prometheus",
                f"--config.file={self.directory}/prometheus.yaml",
                f"--storage.tsdb.path={self.directory}/prometheus",
                f"--web.listen-address={self.prometheus}",
            ],
        )
        wait_for("Prometheus is ready", lambda: get(f"http://{self.prometheus}/-/ready"))

    def _broker(self):
        """Starts RabbitMQ; returns its URL, and where its metrics are."""
        server = DEBIAN if DEBIAN.is_file() else shutil.which("rabbitmq-server")
        if server:
            return self._node(server)
        if shutil.which("docker"):
            return self._container()
        raise AssertionError("RabbitMQ is missing, and so is Docker: `make test` gets one, or install rabbitmq-server")

    def _container(self):
        name = f"deletion-worker-stage-{secrets.token_hex(4)}"
        self.stack.callback(
            subprocess.run, ["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False
        )
        ports = ["--publish", "127.0.0.1::5672", "--publish", "127.0.0.1::15692"]
        subprocess.run(["docker", "run", "--detach", "--name", name, *ports, IMAGE], check=True, capture_output=True)

        def address(port):
            asked = subprocess.run(["docker", "port", name, port], check=True, capture_output=True, text=True)
            return asked.stdout.splitlines()[0]

        metrics = f"{address('15692/tcp')}/metrics/detailed?{FAMILIES}"
        wait_for("RabbitMQ's container serves", lambda: get(f"http://{metrics}"))
        return f"amqp://guest:guest@{address('5672/tcp')}/%2f", metrics

    def _node(self, server):
        """A private node, set up as src/rabbitmq/node.rs does it."""
        amqp, metrics, distribution, epmd = (free_port() for _ in range(4))
        directory, name = self.directory / "rabbitmq", f"deletion-worker-{amqp}@localhost"
        for part in ("conf.d", "data", "log"):
            (directory / part).mkdir(parents=True)
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{amqp}\n"
            f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {metrics}\n"
            "disk_free_limit.absolute = 10MB\ncollect_statistics_interval = 500\n"
            "raft.wal_max_size_bytes = 67108864\nlog.console = false\n"
        )
        (directory / "advanced.config").write_text("[].\n")
        (directory / "enabled_plugins").write_text("[rabbitmq_prometheus].\n")
        cookie = directory / ".erlang.cookie"
        cookie.touch(mode=0o600)
        cookie.write_text(secrets.token_hex(10))
        cookie.chmod(0o400)
        environment = {
            "ERL_EPMD_PORT": str(epmd),
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
            "PATH": os.environ["PATH"],
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
            # The start script turns into the node, so that its process ID is the node's.
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(directory / "conf.d"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_NODENAME": name,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"+S 2:2 +SDio 4 -start_epmd false -sname {name} -kernel inet_dist_use_interface {{127,0,0,1}} "
                f"-kernel inet_dist_listen_min {distribution} -kernel inet_dist_listen_max {distribution}"
            ),
        }
        self._start("epmd", ["epmd", "-port", epmd, "-address", "127.0.0.1"], environment)
        node = self._start("rabbitmq", [server], environment)
        where = f"127.0.0.1:{metrics}/metrics/detailed?{FAMILIES}"

        def serves():
            log = (self.directory / "rabbitmq.log").read_text()
            assert node.poll() is None, f"RabbitMQ ended while starting:\n{log[-2000:]}"
            with socket.create_connection(("127.0.0.1", amqp), 1):
                return get(f"http://{where}")

        wait_for("RabbitMQ serves", serves)
        return f"amqp://guest:guest@127.0.0.1:{amqp}/%2f", where


def wait_for(what, condition):
    """Waits until `condition` is true; one that can't connect isn't true yet."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
            last = "it isn't"
        except OSError as error:
            last = error
        assert time.monotonic() < deadline, f"waited in vain: {what} ({last})"
        time.sleep(POLL)


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def free_port():
    """A port nobody listens on, below the range from which systems take the local ports of connections."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def end(process):
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def die_with_us():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
