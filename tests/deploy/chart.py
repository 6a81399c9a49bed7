"""The chart, rendered by Helm itself."""

import functools
from pathlib import Path

import helm_python as helm
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "deletion-worker"


# Ten times as fast where it is built in.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Refused(Exception):
    """Helm, the schema or the chart's own checks don't take these values."""


def texts(values=None, *, chart=CHART, name="release", namespace="deletions", **options):
    """Renders the chart; returns {template: text}, the template's path counted from the chart."""
    loaded = load(chart)
    try:
        rendered = loaded.render(values or {}, name=name, namespace=namespace, **options)
    except helm.HelmError as error:
        raise Refused(str(error)) from error
    prefix = loaded.name + "/"
    return {path.removeprefix(prefix): text for path, text in rendered.items()}


@functools.lru_cache(maxsize=16)
def load(chart):
    """The chart in this folder or archive, which is read once: whoever changes a copy does so before."""
    return helm.Chart.load(chart)


def render(values=None, **options):
    """Renders the chart; returns {template: [objects]}, the template's path counted from the chart."""
    return {
        path: [document for document in yaml.load_all(text, LOADER) if document]
        for path, text in texts(values, **options).items()
        if path.endswith((".yaml", ".yml"))
    }


def objects(values=None, **options):
    """Renders the chart; returns all its objects in one list."""
    return [document for documents in render(values, **options).values() for document in documents]


def notes(values=None, **options):
    """What Helm says after an installation."""
    return texts(values, **options)["templates/NOTES.txt"]


def one(kind, values=None, **options):
    """The object of a kind that there is one of, beside the dashboard's ConfigMap."""
    rendered = {path: documents for path, documents in render(values, **options).items() if path != "templates/dashboard.yaml"}
    (found,) = (document for documents in rendered.values() for document in documents if document["kind"] == kind)
    return found


def cases(chart=CHART):
    """The values files of `ci/`: {name: values}."""
    return {
        path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text())
        for path in sorted((chart / "ci").glob("*-values.yaml"))
    }


def merged(*layers):
    """Values laid over each other, as Helm does with several files."""
    result = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def nested(path, value):
    """The values that `--set path=value` stands for."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


# The least that can be installed.
LEAST = {"amqp": {"existingSecret": "rabbitmq"}, "token": {"existingSecret": "token"}}


def refuses(values, chart=CHART):
    """Whether schema or chart refuse these values."""
    try:
        texts(values, chart=chart)
    except Refused:
        return True
    return False


def schema_refuses(values, chart=CHART):
    """Whether the schema alone does."""
    try:
        load(chart).validate_schema(values)
    except helm.HelmError:
        return True
    return False
