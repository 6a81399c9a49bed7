"""What holds for the chart: each check takes the chart's folder and returns what is wrong with it, in words.

They are functions of a folder so that test_bites.py can show that each of them finds the fault it is there for.
"""

import functools
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import helm_python as helm
import yaml

import kinds
import pod_security
import worker
from chart import LEAST, ROOT, Refused, cases, load, merged, nested, objects, one, render, texts

# What the chart sets itself, from other values.
OWNED = re.compile(r"amqp\.urls(_file)?|amqp\.tls\..*|endpoint\.token(_file)?|admin\.listen|log\.format")
# Parts of Kubernetes' objects, or maps of the user's own: any key is taken.
OPEN = {
    *("commonLabels", "commonAnnotations", "deploymentAnnotations", "podAnnotations", "podLabels", "nodeSelector"),
    *("updateStrategy", "resources", "podSecurityContext", "securityContext", "affinity", "global"),
    *("keda.behavior", "keda.fallback", "keda.annotations", "serviceAccount.annotations", "service.annotations"),
    *("podMonitor.labels", "podMonitor.annotations", "serviceMonitor.labels", "serviceMonitor.annotations"),
    *("prometheusRule.labels", "prometheusRule.annotations", "prometheusRule.alertLabels", "prometheusRule.alertAnnotations"),
    *("dashboard.labels", "dashboard.annotations"),
}
LABEL_MAX = NAME_MAX = 63


def cases_render(chart):
    """Every case of ci/ renders."""
    found = []
    for name, values in cases(chart).items():
        try:
            render(values, chart=chart)
        except Refused as error:
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
    seen = {path for values in cases(chart).values() for path, found in render(values, chart=chart).items() if found}
    there = {path.relative_to(chart).as_posix() for path in (chart / "templates").rglob("*.yaml")}
    return [f"{path}: rendered by no case" for path in sorted(there - seen)]


def kubernetes_takes_it(chart):
    """All objects of all cases fit the API of every minor version that the chart promises, without unknown fields."""
    core = [document for document in _distinct(chart) if kinds.is_core(document)]
    return [fault for document in core for version in kinds.versions() for fault in kinds.core_faults(document, version)]


def operators_take_it(chart):
    """Objects of operators fit the published types."""
    return kinds.model_faults([document for document in _distinct(chart) if kinds.is_modelled(document)])


def definitions_take_it(chart):
    """Objects of operators fit the definitions in CRD_DIR."""
    found = [document for document in _distinct(chart) if kinds.definition(document)]
    return [fault for document in found for fault in kinds.definition_faults(document)]


def pods_are_restricted(chart):
    """Every pod passes the Pod Security Standard "restricted", and has what goes beyond it."""
    found = []
    for name, values in cases(chart).items():
        for document in objects(values, chart=chart):
            template = {"Pod": document, "Deployment": document.get("spec", {}).get("template")}.get(document["kind"])
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
    common = {"commonLabels": {"example.com/common": "yes"}, "commonAnnotations": {"example.com/common": "too"}}
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
    longs = [{}, {"nameOverride": "n" * 63}, {"fullnameOverride": "f" * 63}, {"fullnameOverride": "f" * 49 + "-" * 3 + "g"}]
    for name, values in cases(chart).items():
        for long in longs:
            for document in objects({**values, **long, "extraObjects": []}, chart=chart, name="r" * 53):
                metadata = document["metadata"]
                if len(metadata["name"]) > NAME_MAX or not re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", metadata["name"]):
                    found.append(f"{name}: {document['kind']}: name {metadata['name']}")
                for label, value in metadata["labels"].items():
                    if not re.fullmatch("([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value):
                        found.append(f"{name}: {document['kind']}: label {label}={value}")
    return found


def texts_stay_texts(chart):
    """Names that YAML would take for numbers, booleans or nothing arrive as they are, where Kubernetes wants strings."""
    odd = {
        **{"fullnameOverride": "null", "nameOverride": "true", "priorityClassName": "1e3"},
        "amqp": {"existingSecret": "123", "existingSecretKey": "1.5"},
        "token": {"existingSecret": "0x10", "existingSecretKey": "no"},
        "serviceAccount": {"name": "1"},
        "keda": {"enabled": True, "host": "http://a", "existingSecret": "12", "usernameKey": "1", "passwordKey": "2"},
        "image": {"tag": "1.0"},
        "podMonitor": {"enabled": True},
        "networkPolicy": {"enabled": True},
    }
    documents = objects(odd, chart=chart, name="123", namespace="456")
    found = [fault for each in documents if kinds.is_core(each) for fault in kinds.core_faults(each, kinds.versions()[-1])]
    found += [f"{each['kind']}: name" for each in documents if not isinstance(each["metadata"]["name"], str)]
    return found + kinds.model_faults([each for each in documents if kinds.is_modelled(each)])


def releases_keep_apart(chart):
    """Two releases in one namespace share no object, and neither selects the other's pods, nor a test's pod."""
    found = []
    values = merged(cases(chart)["full"], {"keda": cases(chart)["keda"]["keda"], "extraObjects": []})
    pairs = [("one", "two"), ("a", "a-deletion-worker-b"), ("deletion-worker", "deletion-worker-2")]
    for left, right in pairs:
        ours, theirs = (objects(values, chart=chart, name=name) for name in (left, right))
        shared = _identities(ours) & _identities(theirs)
        found += [f"{left} and {right} share {identity}" for identity in sorted(shared)]
        labels = [one("Deployment", values, chart=chart, name=right)["spec"]["template"]["metadata"]["labels"]]
        labels += [pod["metadata"]["labels"] for pod in ours + theirs if pod["kind"] == "Pod"]
        for document in ours:
            for selector in _selectors(document):
                found += [f"{left}: {document['kind']} selects {each}" for each in labels if selector.items() <= each.items()]
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
            found += [f"{name}: {document['kind']}: {each}" for each in _selectors(document) if not each.items() <= target.items()]
        for constraint in deployment["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            if not constraint["labelSelector"]["matchLabels"].items() <= labels.items():
                found.append(f"{name}: topologySpreadConstraints: {constraint}")
    return found


def an_upgrade_keeps_selectors_and_pods(chart):
    """A new version of the chart alone changes neither a selector, which can't be, nor the pods; a new configuration
    restarts them."""
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
    versioned = one("Deployment", merged(LEAST, {"image": {"tag": "9.9.9"}, "commonLabels": {"a": "b"}}), chart=chart)
    if base["spec"]["selector"] != versioned["spec"]["selector"]:
        found.append("the selector changes with tag or labels")
    return found


def it_renders_the_same_everywhere(chart):
    """Rendering asks no cluster, clock or dice, so that Argo CD and Flux see what Helm does."""
    found = []
    for path in (chart / "templates").rglob("*.*"):
        for word in re.findall(r"\.Capabilities|\blookup\b|\bnow\b|\brand\w+|\bgen[A-Z]\w+|\bhtpasswd\b|\buuidv4\b", path.read_text()):
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
    graces = {"0s": 15, "25s": 40, "1m30s": 105, "2 min 1 sec": 136, "1h": 3615, "1500ms": 17, "0.5m": 45, "1ms": 16}
    for grace, seconds in graces.items():
        values = merged(LEAST, nested("config.shutdown.grace", grace))
        got = one("Deployment", values, chart=chart)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        if got != seconds:
            found.append(f"{grace}: {got} s, not {seconds}")
        if not _refuses(merged(values, {"terminationGracePeriodSeconds": seconds - 1}), chart):
            found.append(f"{grace}: {seconds - 1} s are accepted")
    return found


def unknown_keys_are_refused(chart):
    """The schema is closed wherever the keys are the chart's, open where they are Kubernetes', and knows every key."""
    found = []
    defaults = yaml.safe_load((chart / "values.yaml").read_text())
    for path in ["", *_maps(defaults), "global"]:
        values = nested(f"{path}.unknownKey".lstrip("."), "x")
        is_open = path in OPEN or any(path.startswith(each + ".") for each in OPEN)
        if _schema_refuses(merged(LEAST, values), chart) == is_open:
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
    """`config` lists each of the worker's keys with its default; what depends on the API, or isn't set, is null."""
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


def ranges_are_the_workers(chart):
    """Chart and worker agree on what each key may be, at the edges and across types."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for key, allowed in worker.allowed().items():
            if OWNED.fullmatch(key):
                continue
            for value in worker.probes(key, allowed):
                taken, works = not _refuses(_probe(key, value), chart), _worker_takes(key, json.dumps(value), folder)
                if taken != works:
                    found.append(f"{key}={value!r}: {'taken' if taken else 'refused'}, but not so by the worker")
    return found


def _probe(key, value):
    """Values in which a key is tried, all else being right for it."""
    api = nested("config.endpoint.api", "v1.2") if key == "endpoint.namespace" else {}
    dry = {"token": {"existingSecret": ""}} if key == "worker.dry_run" and value is True else {}
    return merged(LEAST, api, dry, nested(f"config.{key}", value))


@functools.cache
def _worker_takes(key, value, folder):
    return worker.accepts(key, json.loads(value), folder)


def the_worker_takes_the_configuration(chart):
    """The real worker accepts what each case renders, its secrets in place, and finds nothing doubtful in it."""
    found = []
    for name, values in cases(chart).items():
        with tempfile.TemporaryDirectory() as folder:
            toml = one("ConfigMap", values, chart=chart)["data"]["config.toml"]
            pod = one("Deployment", values, chart=chart)["spec"]["template"]["spec"]
            _place_secrets(pod, Path(folder))
            code, said, complaint = worker.check_config(toml.replace(worker.MOUNT, f"{folder}/"), folder)
        unmounted = {path for path in re.findall(rf"{worker.MOUNT}[\w./-]+", toml) if not _is_mounted(path, pod)}
        found += [f"{name}: {path} is not mounted" for path in sorted(unmounted)]
        found += [f"{name}: {line}" for line in complaint.splitlines() if code or not _is_expected(name, line)]
        if code == 0 and f"{int(values.get('metrics', {}).get('port', 9090))}\"" not in said.partition("[admin]")[2]:
            found.append(f"{name}: listens elsewhere")
    return found


def _is_expected(case, warning):
    """The trial talks to a mock in the clear."""
    return case == "trial" and "the token travels unencrypted" in warning


def _is_mounted(path, pod):
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    folder, _, file = path.rpartition("/")
    volume = next((each for each in pod["volumes"] if each["name"] == mounts.get(folder)), {})
    return file in [item["path"] for item in volume.get("secret", {}).get("items", [])]


def _place_secrets(pod, folder):
    """Makes the files that the pod's Secrets would be mounted as."""
    certificate, key = _certificate()
    contents = {"urls": "amqps://user:password@rabbitmq:5671/%2f\n", "token": "a token\n"}
    contents |= {"ca.crt": certificate, "tls.crt": certificate, "tls.key": key}
    for volume in pod["volumes"]:
        for item in volume.get("secret", {}).get("items", []):
            file = folder / volume["name"] / item["path"]
            file.parent.mkdir(exist_ok=True)
            file.write_text(contents[item["path"]])


@functools.cache
def _certificate():
    with tempfile.TemporaryDirectory() as folder:
        command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=client"]
        subprocess.run([*command, "-keyout", "key", "-out", "crt"], cwd=folder, check=True, capture_output=True)
        return (Path(folder) / "crt").read_text(), (Path(folder) / "key").read_text()


def the_package_is_complete(chart):
    """`helm package` leaves out nothing but the cases, and what is unpacked renders the same."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        archive = helm.package(str(chart), destination=folder)
        loaded = load(archive)
        packed = {file["name"] for file in loaded.templates} | {file["name"] for file in loaded.files}
        there = {path.relative_to(chart).as_posix() for path in chart.rglob("*") if path.is_file()}
        apart = {"Chart.yaml", "values.yaml", "values.schema.json"}
        expected = {path for path in there - apart if not path.startswith("ci/")}
        found += [f"{path}: not packaged" for path in sorted(expected - packed)]
        found += [f"{path}: packaged" for path in sorted(packed - expected)]
        if loaded.schema is None or loaded.values != load(chart).values:
            found.append("values or schema are not packaged")
        for name, values in cases(chart).items():
            if texts(values, chart=archive) != texts(values, chart=chart):
                found.append(f"{name}: the package renders something else")
    return found


def the_readme_is_generated(chart):
    """The tables of the chart's README are those that readme-generator makes of values.yaml."""
    with tempfile.TemporaryDirectory() as folder:
        readme = Path(folder) / "README.md"
        shutil.copy(chart / "README.md", readme)
        ran = generate_readme(chart, readme)
        if ran.returncode:
            return [line for line in ran.stderr.splitlines() if "ERROR" in line] or [ran.stderr]
        if readme.read_text() != (chart / "README.md").read_text():
            return ["README.md is out of date: UPDATE_DOCS=1 make test-deploy"]
    return []


def generate_readme(chart, readme):
    """Writes the tables into `readme`."""
    command = [kinds.NODE / "node_modules/.bin/readme-generator", "-v", chart / "values.yaml", "-r", readme]
    return subprocess.run(command, capture_output=True, text=True)


def it_works_as_a_subchart(chart):
    """A chart that depends on this one can switch it by `enabled`, name a registry for all, and leave out or null what it will."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        parent = Path(folder) / "parent"
        shutil.copytree(chart, parent / "charts" / "deletion-worker")
        dependency = {"name": "deletion-worker", "version": "*", "condition": "deletion-worker.enabled"}
        metadata = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]}
        (parent / "Chart.yaml").write_text(yaml.safe_dump(metadata))
        values = {"global": {"imageRegistry": "r.example.com"}, "deletion-worker": {**LEAST, "enabled": True}}
        try:
            image = one("Deployment", values, chart=parent)["spec"]["template"]["spec"]["containers"][0]["image"]
            if not image.startswith("r.example.com/"):
                found.append(f"global.imageRegistry: {image}")
            off = objects({"deletion-worker": {"enabled": False}}, chart=parent)
            found += [f"enabled=false: {each['kind']} is rendered" for each in off]
        except Refused as error:
            found.append(str(error))
    return found


def the_metadata_is_true(chart):
    """Chart.yaml says of version, licence and image what Cargo.toml and the templates do."""
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text())
    cargo = (ROOT / "Cargo.toml").read_text()
    found = []
    for key in ("version", "appVersion"):
        if f'\nversion = "{metadata[key]}"\n' not in cargo:
            found.append(f"{key}: {metadata[key]} is not the worker's version")
    annotations = metadata["annotations"]
    if f'\nlicense = "{annotations["artifacthub.io/license"]}"\n' not in cargo:
        found.append("annotations: another licence")
    image = one("Deployment", LEAST, chart=chart)["spec"]["template"]["spec"]["containers"][0]["image"]
    if [each["image"] for each in yaml.safe_load(annotations["artifacthub.io/images"])] != [image]:
        found.append(f"annotations: the image is {image}")
    for change in yaml.safe_load(annotations["artifacthub.io/changes"]):
        if change["kind"] not in ("added", "changed", "deprecated", "removed", "fixed", "security"):
            found.append(f"annotations: a change of the kind {change['kind']}")
    oldest = ">={}.{}.0-0".format(*kinds.OLDEST)
    if metadata["kubeVersion"] != oldest:
        found.append(f"kubeVersion: is not {oldest}, from which on it is checked")
    return found


def _refuses(values, chart):
    try:
        texts(values, chart=chart)
    except Refused:
        return True
    return False


def _schema_refuses(values, chart):
    try:
        load(chart).validate_schema(values)
    except helm.HelmError:
        return True
    return False


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
    unknown_keys_are_refused,
    keys_and_defaults_are_the_workers,
    ranges_are_the_workers,
    the_worker_takes_the_configuration,
    the_package_is_complete,
    the_readme_is_generated,
    it_works_as_a_subchart,
    the_metadata_is_true,
]
