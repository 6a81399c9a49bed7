"""What of the chart is shipped, and what it says of itself; checks as in checks.py."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import helm_python as helm
import yaml

import kinds
from chart import LEAST, ROOT, Refused, cases, load, merged, objects, one, texts


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
            return [line for line in (ran.stdout + ran.stderr).splitlines() if "ERROR" in line] or [
                ran.stderr
            ]
        if readme.read_text() != (chart / "README.md").read_text():
            return ["README.md is out of date: UPDATE_DOCS=1 make test-deploy"]
    return []


def the_examples_work(chart):
    """The YAML in the README renders, and values that README and NOTES name are there."""
    found = []
    readme = (chart / "README.md").read_text().partition("## Parameters")[0]
    for example in re.findall(r"^```yaml\n(.*?)^```", readme, re.M | re.S):
        values = merged(LEAST, yaml.safe_load(example))
        try:
            objects(values, chart=chart)
        except Refused as error:
            found.append(f"README.md: {example}: {error}")
    values = (chart / "values.yaml").read_text()
    known = set(re.findall(r"^ *## @(?:param|extra) (\S+)", values, re.M))
    for file, text in (("README.md", readme), ("NOTES.txt", (chart / "templates/NOTES.txt").read_text())):
        named = re.findall(r"(?<![\w./-])([a-z]\w*(?:\.\w+)+)=", text)
        found += [f"{file}: {key} is no value" for key in named if key not in known]
    return found


def generate_readme(chart, readme):
    """Writes the tables into `readme`."""
    command = [kinds.NODE / "node_modules/.bin/readme-generator", "-v", chart / "values.yaml", "-r", readme]
    return subprocess.run(command, capture_output=True, text=True)


def it_works_as_a_subchart(chart):
    """A chart that depends on this one can switch it by `enabled`, and name a registry for all."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        parent = Path(folder) / "parent"
        shutil.copytree(chart, parent / "charts" / "deletion-worker")
        dependency = {"name": "deletion-worker", "version": "*", "condition": "deletion-worker.enabled"}
        metadata = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]}
        (parent / "Chart.yaml").write_text(yaml.safe_dump(metadata))
        nothing = {"config": {"batch": {"linger": None}}, "podSecurityContext": {"fsGroup": None}}
        own = merged(LEAST, nothing, {"enabled": True})
        values = {"global": {"imageRegistry": "r.example.com"}, "deletion-worker": own}
        try:
            image = one("Deployment", values, chart=parent)["spec"]["template"]["spec"]["containers"][0][
                "image"
            ]
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


CHECKS = [
    the_package_is_complete,
    the_readme_is_generated,
    the_examples_work,
    it_works_as_a_subchart,
    the_metadata_is_true,
]
