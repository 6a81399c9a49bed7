"""What holds for the objects that the chart renders.

A check takes the chart's folder and returns what is wrong with it, in words; so test_bites.py can show that each
of them finds the faults that it is there for.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path

import helm_python as helm
import yaml

import kinds
import pod_security
from chart import LEAST, Refused, cases, merged, nested, objects, one, refuses, render, texts

LABEL_MAX = NAME_MAX = 63


def cases_render(chart):
    """Every case of ci/ renders."""
    found = []
    for name, values in cases(chart).items():
        try:
            render(values, chart=chart)
        except (Refused, yaml.YAMLError) as error:
            found.append(f"{name}: {error}")
    return found


def lint_is_silent(chart):
    """`helm lint --strict` has nothing to say but that an icon would be nice."""
    found = []
    for name, values in cases(chart).items():
        said = helm.lint(str(chart), values, strict=True)
        texts = [message["error"] for message in said["messages"]] + said["errors"]
        found += [f"{name}: {text}" for text in texts if text != "icon is recommended"]
    return found


def every_template_is_rendered(chart):
    """Each template renders something in some case of ci/."""
    seen = {
        path
        for values in cases(chart).values()
        for path, found in render(values, chart=chart).items()
        if found
    }
    there = {path.relative_to(chart).as_posix() for path in (chart / "templates").rglob("*.yaml")}
    return [f"{path}: rendered by no case" for path in sorted(there - seen)]


def kubernetes_takes_it(chart):
    """All objects fit the API of every minor version that the chart promises, and have no unknown fields."""
    core = [document for document in _distinct(chart) if kinds.is_core(document)]
    return [
        fault
        for document in core
        for version in kinds.versions()
        for fault in kinds.core_faults(document, version)
    ]


def operators_take_it(chart):
    """Objects of operators fit the published types."""
    return kinds.model_faults([document for document in _distinct(chart) if kinds.is_modelled(document)])


def pods_are_restricted(chart):
    """Every pod passes the Pod Security Standard "restricted", and has what goes beyond it."""
    found = []
    for name, values in cases(chart).items():
        for document in objects(values, chart=chart):
            template = {"Pod": document, "Deployment": document.get("spec", {}).get("template")}.get(
                document["kind"]
            )
            if not template:
                continue
            faults = pod_security.faults(template["spec"], template["metadata"].get("annotations"))
            faults += list(_beyond_restricted(template["spec"]))
            found += [f"{name}: {document['kind']}: {fault}" for fault in faults]
    return found


def _beyond_restricted(spec):
    if spec.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken is not false"
    if spec.get("enableServiceLinks") is not False:
        yield "enableServiceLinks is not false"
    for container in spec["containers"]:
        if container["securityContext"].get("readOnlyRootFilesystem") is not True:
            yield "readOnlyRootFilesystem is not true"
        if "cpu" in container["resources"].get("limits", {}):
            yield "CPU is limited"
        if not {"cpu", "memory"} <= set(container["resources"].get("requests", {})):
            yield "requests are missing"
        if "memory" not in container["resources"].get("limits", {}):
            yield "memory is not limited"
        if any("subPath" in mount for mount in container.get("volumeMounts", [])):
            yield "subPath: a changed Secret would never arrive"
        if any("secretKeyRef" in variable.get("valueFrom", {}) for variable in container.get("env", [])):
            yield "a secret is a variable, which never changes"


def objects_are_labelled_and_namespaced(chart):
    """The chart's own objects name their namespace, and carry the recommended labels and the common ones."""
    common = {
        "commonLabels": {"example.com/common": "yes"},
        "commonAnnotations": {"example.com/common": "too"},
    }
    found = []
    for name, values in cases(chart).items():
        own = {**merged(values, common), "extraObjects": []}
        for document in objects(own, chart=chart, name="one", namespace="here"):
            shown, metadata = f"{name}: {document['kind']}", document["metadata"]
            if metadata.get("namespace") != "here":
                found.append(f"{shown}: no namespace")
            labels = metadata.get("labels", {})
            for label in ("name", "instance", "component", "version", "managed-by", "part-of"):
                if not labels.get(f"app.kubernetes.io/{label}"):
                    found.append(f"{shown}: no label {label}")
            if labels.get("example.com/common") != "yes":
                found.append(f"{shown}: no common label")
            if metadata.get("annotations", {}).get("example.com/common") != "too":
                found.append(f"{shown}: no common annotation")
    return found


def names_fit(chart):
    """Names and labels keep to their limits, however long the release's and the given ones are."""
    found = []
    longs = [
        {},
        {"nameOverride": "n" * 63},
        {"fullnameOverride": "f" * 63},
        {"fullnameOverride": "f" * 49 + "-" * 3 + "g"},
    ]
    for name, values in cases(chart).items():
        for long in longs:
            try:
                documents = objects({**values, **long, "extraObjects": []}, chart=chart, name="r" * 53)
            except Refused as error:
                found.append(f"{name}: {error}")
                continue
            for document in documents:
                metadata = document["metadata"]
                if len(metadata["name"]) > NAME_MAX or not re.fullmatch(
                    "[a-z]([-a-z0-9]*[a-z0-9])?", metadata["name"]
                ):
                    found.append(f"{name}: {document['kind']}: name {metadata['name']}")
                for label, value in metadata["labels"].items():
                    if not re.fullmatch("([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value):
                        found.append(f"{name}: {document['kind']}: label {label}={value}")
    return found


def texts_stay_texts(chart):
    """Names that YAML would take for numbers, booleans or nothing arrive as the strings they are."""
    odd = {
        **{"fullnameOverride": "null", "nameOverride": "true", "priorityClassName": "1e3"},
        "amqp": {"existingSecret": "123", "existingSecretKey": "1.5"},
        "token": {"existingSecret": "0x10", "existingSecretKey": "no"},
        "serviceAccount": {"name": "1"},
        "keda": {
            "enabled": True,
            "host": "http://a",
            "existingSecret": "12",
            "usernameKey": "1",
            "passwordKey": "2",
        },
        "image": {"tag": "1.0"},
        "podMonitor": {"enabled": True},
        "networkPolicy": {"enabled": True},
    }
    documents = objects(odd, chart=chart, name="123", namespace="456")
    found = [
        fault
        for each in documents
        if kinds.is_core(each)
        for fault in kinds.core_faults(each, kinds.versions()[-1])
    ]
    found += [f"{each['kind']}: name" for each in documents if not isinstance(each["metadata"]["name"], str)]
    return found + kinds.model_faults([each for each in documents if kinds.is_modelled(each)])


def releases_keep_apart(chart):
    """Two releases in one namespace share no object, and neither selects the other's pods, or a test's."""
    found = []
    shared = cases(chart)["keda-shared"]
    values = merged(
        cases(chart)["full"], {"keda": shared["keda"], "config": shared["config"], "extraObjects": []}
    )
    pairs = [("one", "two"), ("a", "a-deletion-worker-b"), ("deletion-worker", "deletion-worker-2")]
    for left, right in pairs:
        ours, theirs = (objects(values, chart=chart, name=name) for name in (left, right))
        shared = _identities(ours) & _identities(theirs)
        found += [f"{left} and {right} share {identity}" for identity in sorted(shared)]
        labels = [
            one("Deployment", values, chart=chart, name=right)["spec"]["template"]["metadata"]["labels"]
        ]
        labels += [pod["metadata"]["labels"] for pod in ours + theirs if pod["kind"] == "Pod"]
        for document in ours:
            for selector in _selectors(document):
                found += [
                    f"{left}: {document['kind']} selects {each}"
                    for each in labels
                    if selector.items() <= each.items()
                ]
    return found


def _identities(documents):
    return {(document["kind"], document["metadata"]["name"]) for document in documents}


def _selectors(document):
    """What selects pods: of Deployment, Service, monitors, PodDisruptionBudget, NetworkPolicy, spread."""
    spec = document.get("spec", {})
    if document["kind"] == "Service":
        yield spec["selector"]
    for key in ("selector", "podSelector"):
        if "matchLabels" in spec.get(key, {}):
            yield spec[key]["matchLabels"]


def everything_selects_the_workers(chart):
    """Whatever selects pods selects the Deployment's, and the monitor of Services finds the Service."""
    found = []
    for name, values in cases(chart).items():
        documents = objects({**values, "extraObjects": []}, chart=chart)
        (deployment,) = (each for each in documents if each["kind"] == "Deployment")
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        for document in documents:
            target = labels
            if document["kind"] == "ServiceMonitor":
                target = next(each for each in documents if each["kind"] == "Service")["metadata"]["labels"]
            found += [
                f"{name}: {document['kind']}: {each}"
                for each in _selectors(document)
                if not each.items() <= target.items()
            ]
        for constraint in deployment["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            selector = constraint.get("labelSelector", {}).get("matchLabels", {})
            if not selector or not selector.items() <= labels.items():
                found.append(f"{name}: topologySpreadConstraints: {constraint}")
    return found


def an_upgrade_keeps_selectors_and_pods(chart):
    """A new version of the chart alone changes neither selectors nor pods; a new configuration does."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        newer = Path(folder) / "chart"
        shutil.copytree(chart, newer)
        file = newer / "Chart.yaml"
        file.write_text(re.sub(r"^version: .*", "version: 99.0.0", file.read_text(), flags=re.M))
        for name, values in cases(chart).items():
            old, new = (one("Deployment", values, chart=each) for each in (chart, newer))
            if list(_selectors(old)) != list(_selectors(new)):
                found.append(f"{name}: the selector changes with the chart's version")
            if old["spec"]["template"] != new["spec"]["template"]:
                found.append(f"{name}: the pods change with the chart's version")
    changes = {"config": {"batch": {"linger": "7s"}}}, {"nameOverride": "x"}
    base, changed, renamed = (one("Deployment", merged(LEAST, each), chart=chart) for each in ({}, *changes))
    if base["spec"]["template"] == changed["spec"]["template"]:
        found.append("a changed configuration restarts nothing")
    if base["spec"]["selector"] == renamed["spec"]["selector"]:
        found.append("nameOverride is not in the selector")
    versioned = one(
        "Deployment", merged(LEAST, {"image": {"tag": "9.9.9"}, "commonLabels": {"a": "b"}}), chart=chart
    )
    if base["spec"]["selector"] != versioned["spec"]["selector"]:
        found.append("the selector changes with tag or labels")
    return found


def it_renders_the_same_everywhere(chart):
    """Rendering asks no cluster, clock or dice, so that Argo CD and Flux see what Helm does."""
    found = []
    for path in (chart / "templates").rglob("*.*"):
        for word in re.findall(
            r"\.Capabilities|\blookup\b|\bnow\b|\brand\w+|\bgen[A-Z]\w+|\bhtpasswd\b|\buuidv4\b",
            path.read_text(),
        ):
            found.append(f"{path.name}: {word}")
    for name, values in cases(chart).items():
        first, second = texts(values, chart=chart), texts(values, chart=chart, is_upgrade=True, revision=7)
        found += [f"{name}: {path} differs" for path in first if first[path] != second.get(path)]
    return found


def replicas_are_left_to_autoscalers(chart):
    """`replicas` is rendered exactly if nobody else is to set it."""
    found = []
    for name, values in cases(chart).items():
        spec = one("Deployment", values, chart=chart)["spec"]
        is_left = values.get("keda", {}).get("enabled") or values.get("replicaCount", 2) is None
        if ("replicas" in spec) == bool(is_left):
            found.append(f"{name}: replicas: {spec.get('replicas')}")
    return found


def the_grace_is_derived(chart):
    """Kubernetes waits 15 s longer than the worker's own grace, however that is written."""
    found = []
    graces = {
        "0s": 15,
        "25s": 40,
        "1m30s": 105,
        "2 min 1 sec": 136,
        "1h": 3615,
        "1500ms": 17,
        "0.5m": 45,
        "1ms": 16,
    }
    for grace, seconds in graces.items():
        values = merged(LEAST, nested("config.shutdown.grace", grace))
        got = one("Deployment", values, chart=chart)["spec"]["template"]["spec"][
            "terminationGracePeriodSeconds"
        ]
        if got != seconds:
            found.append(f"{grace}: {got} s, not {seconds}")
        if not refuses(merged(values, {"terminationGracePeriodSeconds": seconds - 1}), chart):
            found.append(f"{grace}: {seconds - 1} s are accepted")
    return found


def _distinct(chart):
    """All objects of all cases, each once."""
    found = {}
    for values in cases(chart).values():
        for document in objects(values, chart=chart):
            found.setdefault(json.dumps(document, sort_keys=True), document)
    return list(found.values())


CHECKS = [
    cases_render,
    lint_is_silent,
    every_template_is_rendered,
    kubernetes_takes_it,
    operators_take_it,
    pods_are_restricted,
    objects_are_labelled_and_namespaced,
    names_fit,
    texts_stay_texts,
    releases_keep_apart,
    everything_selects_the_workers,
    an_upgrade_keeps_selectors_and_pods,
    it_renders_the_same_everywhere,
    replicas_are_left_to_autoscalers,
    the_grace_is_derived,
]
