"""What Kubernetes and its operators take: strict schemas of the kinds that the chart renders."""

import functools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

from chart import ROOT

# The validation of one object reads megabytes otherwise.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)

OLDEST = (1, 27)
NODE = ROOT / "target" / "deploy" / "node"
MODELS = {
    ("monitoring.coreos.com/v1", "PodMonitor"): "prometheus-operator",
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "prometheus-operator",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "prometheus-operator",
    ("keda.sh/v1alpha1", "ScaledObject"): "keda",
    ("keda.sh/v1alpha1", "TriggerAuthentication"): "keda",
    ("external-secrets.io/v1", "ExternalSecret"): "external-secrets",
}


def versions():
    """The minor versions of Kubernetes that the chart promises to fit and that can be checked."""
    known = {tuple(map(int, version.split(".")[:2])) for version in kubernetes_validate.utils.all_versions()}
    return sorted(version for version in known if version >= OLDEST)


def is_core(document):
    """Whether Kubernetes itself knows the kind, rather than an operator."""
    group = document["apiVersion"].rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


def core_faults(document, version):
    """What Kubernetes of this version would refuse, or drop as unknown."""
    try:
        kubernetes_validate.validate(document, "{}.{}".format(*version), strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{_shown(document)} on {version}: {error.json_path}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [f"{_shown(document)} on {version}: {error.message}"]
    return []


def definition(document):
    """The definition (CRD) of an operator's object, if the folder CRD_DIR has it."""
    return _definitions().get((document["apiVersion"], document["kind"]))


def definition_faults(document):
    """What the operator's definition refuses or doesn't know."""
    validator = jsonschema.Draft202012Validator(definition(document))
    return [
        f"{_shown(document)}: {error.json_path}: {error.message}" for error in validator.iter_errors(document)
    ]


def scaler(kind):
    """KEDA's description of a trigger's parameters, if the folder CRD_DIR has it: {name: parameter}."""
    file = Path(os.environ.get("CRD_DIR", "")) / "keda-scalers-schema.json"
    if not file.is_file():
        return None
    (found,) = (each for each in json.loads(file.read_text())["scalers"] if each["type"] == kind)
    return {parameter["name"]: parameter for parameter in found["parameters"]}


def is_modelled(document):
    """Whether a published package has the kind as a type."""
    return (document["apiVersion"], document["kind"]) in MODELS


def model_faults(documents):
    """What the published types refuse or don't know: TypeScript is told that the objects are of them."""
    lines = []
    for index, document in enumerate(documents):
        package, kind = MODELS[document["apiVersion"], document["kind"]], document["kind"]
        source = f"@kubernetes-models/{package}/{document['apiVersion']}/{kind}"
        lines.append(f'import type {{ I{kind} as T{index} }} from "{source}";')
        lines.append(f"export const _{index}: T{index} = {json.dumps(document)};")
    folder = Path(tempfile.mkdtemp(prefix="models-", dir=NODE))
    try:
        (folder / "objects.ts").write_text("\n".join(lines) + "\n")
        command = [
            NODE / "node_modules/.bin/tsc",
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--module",
            "nodenext",
        ]
        ran = subprocess.run([*command, "objects.ts"], cwd=folder, capture_output=True, text=True)
    finally:
        shutil.rmtree(folder)
    found = ran.stdout.splitlines()
    assert ran.returncode == 0 or found, ran.stderr
    return [line for line in found if line]


def _shown(document):
    return f"{document['kind']} {document['metadata']['name']}"


@functools.cache
def _definitions():
    folder = os.environ.get("CRD_DIR")
    found = {}
    for path in sorted(Path(folder).glob("*.yaml")) if folder else []:
        for crd in yaml.safe_load_all(path.read_text()):
            spec = crd["spec"]
            for version in spec["versions"]:
                name = f"{spec['group']}/{version['name']}"
                found[name, spec["names"]["kind"]] = _strict(version["schema"]["openAPIV3Schema"])
    return found


def _strict(schema):
    """A CRD's schema as a JSON Schema that refuses what Kubernetes would drop."""
    schema = dict(schema)
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    is_open = schema.pop("x-kubernetes-preserve-unknown-fields", False)
    if schema.pop("nullable", False) and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    if "properties" in schema:
        schema["properties"] = {name: _strict(each) for name, each in schema["properties"].items()}
        if not is_open:
            schema.setdefault("additionalProperties", False)
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = _strict(schema["additionalProperties"])
    if "items" in schema:
        schema["items"] = _strict(schema["items"])
    return schema
