"""The chart, rendered by Helm itself."""

from pathlib import Path

import helm_python as helm
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "deletion-worker"


class Refused(Exception):
    """Helm, the schema or the chart's own checks don't take these values."""


def render(values=None, *, name="release", namespace="deletions", **options):
    """Renders the chart; returns {template: [objects]}, the template's path counted from the chart."""
    with helm.Chart.load(CHART) as chart:
        try:
            chart.validate_schema(values or {})
            rendered = chart.render(values or {}, name=name, namespace=namespace, **options)
        except helm.HelmError as error:
            raise Refused(str(error)) from error
    prefix = CHART.name + "/"
    return {
        path.removeprefix(prefix): [document for document in yaml.safe_load_all(text) if document]
        for path, text in rendered.items()
        if path.endswith((".yaml", ".yml"))
    }


def objects(values=None, **options):
    """Renders the chart; returns all its objects in one list."""
    return [document for documents in render(values, **options).values() for document in documents]


def cases():
    """The values files of `ci/`: {name: values}."""
    return {
        path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text())
        for path in sorted((CHART / "ci").glob("*-values.yaml"))
    }
