"""What the chart takes as values, and whether that is what the worker takes; checks as in checks.py."""

import functools
import json
import re
import subprocess
import tempfile
from pathlib import Path

import yaml

import worker
from chart import LEAST, cases, merged, nested, one, refuses, schema_refuses

# What the chart sets itself, from other values.
OWNED = re.compile(r"amqp\.urls(_file)?|amqp\.tls\..*|endpoint\.token(_file)?|admin\.listen|log\.format")
# Parts of Kubernetes' objects, or maps of the user's own: any key is taken.
OPEN = {
    *(
        "commonLabels",
        "commonAnnotations",
        "deploymentAnnotations",
        "podAnnotations",
        "podLabels",
        "nodeSelector",
    ),
    *("updateStrategy", "resources", "podSecurityContext", "securityContext", "affinity", "global"),
    *(
        "keda.behavior",
        "keda.fallback",
        "keda.annotations",
        "serviceAccount.annotations",
        "service.annotations",
    ),
    *("podMonitor.labels", "podMonitor.annotations", "serviceMonitor.labels", "serviceMonitor.annotations"),
    *("prometheusRule.labels", "prometheusRule.annotations", "prometheusRule.alertLabels", "prometheusRule.alertAnnotations"),
    *("dashboard.labels", "dashboard.annotations"),
}


def unknown_keys_are_refused(chart):
    """The schema is closed where keys are the chart's, open where they are Kubernetes'; it knows them all."""
    found = []
    defaults = yaml.safe_load((chart / "values.yaml").read_text())
    for path in ["", *_maps(defaults), "global"]:
        values = nested(f"{path}.unknownKey".lstrip("."), "x")
        is_open = path in OPEN or any(path.startswith(each + ".") for each in OPEN)
        if schema_refuses(merged(LEAST, values), chart) == is_open:
            found.append(f"{path or 'the root'}: an unknown key is {'refused' if is_open else 'taken'}")
    schema = json.loads((chart / "values.schema.json").read_text())
    top = set(schema["properties"]) - {"global", "enabled"}
    found += [f"{key}: only in the schema or only in values.yaml" for key in sorted(top ^ set(defaults))]
    return found


def _maps(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield prefix + key
            yield from _maps(value, f"{prefix}{key}.")


def _flat(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def keys_and_defaults_are_the_workers(chart):
    """`config` lists each of the worker's keys with its default; null where there is none for all APIs."""
    listed = dict(_flat(yaml.safe_load((chart / "values.yaml").read_text())["config"]))
    with tempfile.TemporaryDirectory() as folder:
        known, other = (worker.defaults(folder, api) for api in ("v1.0", "v1.2"))
    found = [f"{key}: the worker has no such key" for key in sorted(listed.keys() - known.keys())]
    for key, default in known.items():
        if OWNED.fullmatch(key):
            found += [f"{key}: is set by the chart, but listed"] * (key in listed)
            continue
        is_derived = default != other[key] and key != "endpoint.api"
        expected = None if is_derived else default
        if key not in listed:
            found.append(f"{key}: not in values.yaml")
        elif listed[key] != expected or isinstance(listed[key], bool) != isinstance(expected, bool):
            found.append(f"{key}: {listed[key]!r}, not {expected!r}")
    return found


def ranges_are_the_workers(chart, section=""):
    """Chart and worker agree on what each key may be, at the edges and across types."""
    found = []
    for key, allowed in worker.allowed().items():
        if OWNED.fullmatch(key) or not key.startswith(section):
            continue
        for value in worker.probes(key, allowed):
            taken = not refuses(_probe(key, value), chart)
            if taken != _worker_takes(key, json.dumps(value)):
                found.append(f"{key}={value!r}: {'taken' if taken else 'refused'}, but not so by the worker")
    return found


def _probe(key, value):
    """Values in which a key is tried, all else being right for it."""
    api = nested("config.endpoint.api", "v1.2") if key == "endpoint.namespace" else {}
    dry = {"token": {"existingSecret": ""}} if key == "worker.dry_run" and value is True else {}
    return merged(LEAST, api, dry, nested(f"config.{key}", value))


@functools.cache
def _worker_takes(key, value):
    with tempfile.TemporaryDirectory() as folder:
        return worker.accepts(key, json.loads(value), folder)


def the_worker_takes_the_configuration(chart):
    """The real worker accepts what each case renders, its secrets in place, and has no doubts."""
    found = []
    for name, values in cases(chart).items():
        with tempfile.TemporaryDirectory() as folder:
            toml = one("ConfigMap", values, chart=chart)["data"]["config.toml"]
            pod = one("Deployment", values, chart=chart)["spec"]["template"]["spec"]
            place_secrets(pod, Path(folder))
            here = toml.replace(worker.MOUNT, f"{folder}/")
            code, said, complaint = worker.check_config(here, folder, env=_environment(pod))
        unmounted = {
            path for path in re.findall(rf"{worker.MOUNT}[\w./-]+", toml) if not _is_mounted(path, pod)
        }
        found += [f"{name}: {path} is not mounted" for path in sorted(unmounted)]
        found += [
            f"{name}: {line}" for line in complaint.splitlines() if code or not _is_expected(name, line)
        ]
        metrics = {"address": "0.0.0.0", "port": 9090} | values.get("metrics", {})
        listen = "[{address}]:{port}" if ":" in metrics["address"] else "{address}:{port}"
        if code == 0 and f'listen = "{listen.format(**metrics)}"' not in said:
            found.append(f"{name}: listens elsewhere")
    return found


def _environment(pod):
    """The container's variables; the image has some of its own, and these must not matter."""
    (container,) = pod["containers"]
    image = {"DELETION_WORKER__ADMIN__LISTEN": "127.0.0.1:1"}
    return image | {each["name"]: each["value"] for each in container["env"]}


def _is_expected(case, warning):
    """The trial talks to a mock in the clear."""
    return case == "trial" and "the token travels unencrypted" in warning


def _is_mounted(path, pod):
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    folder, _, file = path.rpartition("/")
    volume = next((each for each in pod["volumes"] if each["name"] == mounts.get(folder)), {})
    return file in [item["path"] for item in volume.get("secret", {}).get("items", [])]


def place_secrets(pod, folder):
    """Makes the files that the pod's Secrets would be mounted as; the broker's URL leads nowhere."""
    certificate, key = _certificate()
    contents = {"urls": "amqps://user:password@localhost:1/%2f\n", "token": "a token\n"}
    contents |= {"ca.crt": certificate, "tls.crt": certificate, "tls.key": key}
    for volume in pod["volumes"]:
        for item in volume.get("secret", {}).get("items", []):
            file = folder / volume["name"] / item["path"]
            file.parent.mkdir(exist_ok=True)
            file.write_text(contents.get(item["path"], ""))


@functools.cache
def _certificate():
    with tempfile.TemporaryDirectory() as folder:
        command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=client"]
        subprocess.run(
            [*command, "-keyout", "key", "-out", "crt"], cwd=folder, check=True, capture_output=True
        )
        return (Path(folder) / "crt").read_text(), (Path(folder) / "key").read_text()


CHECKS = [
    unknown_keys_are_refused,
    keys_and_defaults_are_the_workers,
    ranges_are_the_workers,
    the_worker_takes_the_configuration,
]
