"""What the image is built from, and the versions that have to be the same everywhere."""

import json
import os
import re
import subprocess
import tomllib
from fnmatch import fnmatch

import pytest
import yaml

from chart import ROOT
from faulty import Fault, broken

FILES = [
    "Dockerfile",
    ".dockerignore",
    "Cargo.toml",
    "Cargo.lock",
    "CHANGELOG.md",
    "charts/deletion-worker/Chart.yaml",
    "docker-compose.yml",
]


def read():
    return {name: (ROOT / name).read_text() for name in FILES}


def instructions(files):
    """The Dockerfile's stages, each a list of (instruction, rest); what comes before the first is one too."""
    text = re.sub(r"^\s*#.*\n", "", files["Dockerfile"], flags=re.MULTILINE)
    stages = [[]]
    for line in filter(str.strip, re.sub(r"\\\n\s*", " ", text).splitlines()):
        name, _, rest = line.partition(" ")
        if name.upper() == "FROM":
            stages.append([])
        stages[-1].append((name.upper(), rest.strip()))
    return stages


def final(files, name):
    """What an instruction says in the last stage, where the last one counts."""
    found = [rest for instruction, rest in instructions(files)[-1] if instruction == name]
    return found[-1] if found else ""


def cargo(files):
    return tomllib.loads(files["Cargo.toml"])["package"]


def environment(files):
    """What ENV sets in the last stage."""
    return dict(re.findall(r'(\w+)="?([^"\s]*)"?', final(files, "ENV")))


def is_linted(files):
    end = subprocess.run(
        ["hadolint", "--format", "json", "--failure-threshold", "style", "-"],
        input=files["Dockerfile"], capture_output=True, text=True, check=False,
    )
    for finding in json.loads(end.stdout):
        # Which versions are pinned, and how, is a rule of ours.
        yield f"line {finding['line']}: {finding['code']} {finding['message']}"


def needs_no_download_to_be_read(files):
    if re.search(r"^#\s*syntax=", files["Dockerfile"], re.MULTILINE):
        yield "a syntax line makes a build fetch another frontend first"


def runs_as_nobody(files):
    if final(files, "USER") != "65532:65532":
        yield f"USER is {final(files, 'USER')!r}"


def asks_itself_for_its_health(files):
    if not re.search(r'CMD \["/deletion-worker", "healthcheck"\]$', final(files, "HEALTHCHECK")):
        yield f"HEALTHCHECK is {final(files, 'HEALTHCHECK')!r}"


def is_the_worker(files):
    if (final(files, "ENTRYPOINT"), final(files, "CMD")) != ('["/deletion-worker"]', '["run"]'):
        yield f"it runs {final(files, 'ENTRYPOINT')} {final(files, 'CMD')}"


def has_base_images_to_choose(files):
    before, *stages = instructions(files)
    defaults = dict(rest.split("=") for name, rest in before if name == "ARG")
    bases = [stage[0][1].split()[0] for stage in stages]
    if bases != ["${BUILD_IMAGE}", "scratch", "${RUN_IMAGE}"] or defaults.get("RUN_IMAGE") != "scratch":
        yield f"the stages begin from {bases}, the defaults are {defaults}"
    # So a build of the image is a proof of what Cargo.toml says.
    if not re.fullmatch(rf"rust:{re.escape(cargo(files)['rust-version'])}(\.\d+)?-slim-\w+", defaults.get("BUILD_IMAGE", "")):
        yield f"{defaults.get('BUILD_IMAGE')} is not of rust-version {cargo(files)['rust-version']}"


def is_built_from_the_lock_file(files):
    for command in re.findall(r"cargo build[^\n\\&]*", files["Dockerfile"]):
        if "--locked" not in command or "--release" not in command:
            yield command


def is_static(files):
    if not re.search(r"^ENV .*target-feature=\+crt-static", files["Dockerfile"], re.MULTILINE):
        yield "it would need a C library"


def brings_root_certificates(files):
    where = "/etc/ssl/certs/ca-certificates.crt"
    if ("COPY", f"--from=build {where} {where}") not in instructions(files)[-1]:
        yield "https:// and amqps:// would not work"


def copies_what_there_is(files):
    for name, rest in (instruction for stage in instructions(files) for instruction in stage):
        if name == "COPY" and not rest.startswith("--from="):
            for source in rest.split()[:-1]:
                if not (ROOT / source).exists():
                    yield f"there is no {source}"
                elif is_ignored(source, files):
                    yield f"{source} is ignored"


def sends_nothing_else_to_the_builder(files):
    copied = {
        source
        for stage in instructions(files)
        for name, rest in stage
        if name == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }
    for path in sorted(path.name for path in ROOT.iterdir()):
        if path not in copied and not is_ignored(path, files):
            yield f"{path} is sent, and not copied"


def is_ignored(path, files):
    """As .dockerignore has it, for paths at the top: the last pattern that fits decides."""
    ignored = False
    for pattern in re.findall(r"^[^#\s].*$", files[".dockerignore"], re.MULTILINE):
        if fnmatch(path, pattern.removeprefix("!").strip("/")):
            ignored = not pattern.startswith("!")
    return ignored


def says_what_it_is(files):
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', final(files, "LABEL")))
    package = cargo(files)
    expected = {
        "title": package["name"],
        "description": package["description"],
        "licenses": package["license"],
        "version": "${VERSION}",
        "revision": "${REVISION}",
    }
    if labels != expected:
        yield f"{labels} are not {expected}"


def is_reached_from_outside(files):
    """The worker itself says what it makes of the image's environment."""
    end = subprocess.run(
        [os.environ["DELETION_WORKER_BINARY"], "check-config"],
        env={**environment(files), "DELETION_WORKER__ENDPOINT__TOKEN": "t"}, capture_output=True, text=True, check=False,
    )
    if end.returncode != 0:
        yield end.stderr
        return
    listen = tomllib.loads(end.stdout)["admin"]["listen"]
    if listen != f"0.0.0.0:{final(files, 'EXPOSE')}":
        yield f"it listens on {listen}, and exposes {final(files, 'EXPOSE')}"


def has_one_version(files):
    version = cargo(files)["version"]
    chart = yaml.safe_load(files["charts/deletion-worker/Chart.yaml"])
    name = cargo(files)["name"]
    [locked] = re.findall(rf'^name = "{name}"\nversion = "(.*)"', files["Cargo.lock"], re.MULTILINE)
    tags = set(re.findall(r"image: .*\bdeletion-worker:([\w.]+)", files["docker-compose.yml"]))
    found = {"Chart.yaml": chart["version"], "appVersion": chart["appVersion"], "Cargo.lock": locked}
    found |= {"docker-compose.yml": tag for tag in tags}
    # Until the first release everything is unreleased.
    released = re.findall(r"^## \[(\d[^\]]*)\]", files["CHANGELOG.md"], re.MULTILINE)
    found |= {"CHANGELOG.md": newest for newest in released[:1]}
    for where, other in found.items():
        if other != version:
            yield f"{where} has {other}, Cargo.toml {version}"
    if not re.search(rf"^## \[(Unreleased|{re.escape(version)})\]", files["CHANGELOG.md"], re.MULTILINE):
        yield "CHANGELOG.md says nothing of it"


RULES = {
    rule.__name__: rule
    for rule in (
        is_linted,
        needs_no_download_to_be_read,
        runs_as_nobody,
        asks_itself_for_its_health,
        is_the_worker,
        has_base_images_to_choose,
        is_built_from_the_lock_file,
        is_static,
        brings_root_certificates,
        copies_what_there_is,
        sends_nothing_else_to_the_builder,
        says_what_it_is,
        is_reached_from_outside,
        has_one_version,
    )
}

FAULTS = [
    Fault("is_linted", "Dockerfile", "WORKDIR /build", "WORKDIR build"),
    Fault("needs_no_download_to_be_read", "Dockerfile", "ARG BUILD_IMAGE", "# syntax=docker/dockerfile:1\nARG BUILD_IMAGE"),
    Fault("runs_as_nobody", "Dockerfile", "USER 65532:65532\n", ""),
    Fault("runs_as_nobody", "Dockerfile", "USER 65532:65532", "USER 1000:1000"),
    Fault("asks_itself_for_its_health", "Dockerfile", "HEALTHCHECK --interval", "# HEALTHCHECK --interval"),
    Fault("is_the_worker", "Dockerfile", 'ENTRYPOINT ["/deletion-worker"]', 'ENTRYPOINT ["/deletion-worker", "run"]'),
    Fault("has_base_images_to_choose", "Dockerfile", "rust:1.91-slim", "rust:1.90-slim"),
    Fault("has_base_images_to_choose", "Cargo.toml", 'rust-version = "1.91"', 'rust-version = "1.92"'),
    Fault("has_base_images_to_choose", "Dockerfile", "rust:1.91-slim-trixie", "rust:slim"),
    Fault("has_base_images_to_choose", "Dockerfile", "FROM ${RUN_IMAGE}", "FROM debian:13-slim"),
    Fault("is_built_from_the_lock_file", "Dockerfile", "--release --locked", "--release"),
    Fault("is_static", "Dockerfile", "+crt-static", "-crt-static"),
    Fault("brings_root_certificates", "Dockerfile", "COPY --from=build /etc/ssl", "# COPY --from=build /etc/ssl"),
    Fault("copies_what_there_is", "Dockerfile", "Cargo.lock ./", "Cargo.lock rust-toolchain.toml ./"),
    Fault("copies_what_there_is", ".dockerignore", "!Cargo.lock\n", ""),
    Fault("sends_nothing_else_to_the_builder", ".dockerignore", "!src", "!src\n!.git"),
    Fault("sends_nothing_else_to_the_builder", ".dockerignore", "*\n", "target\n"),
    Fault("says_what_it_is", "Cargo.toml", 'license = "Apache-2.0 OR MIT"', 'license = "MIT"'),
    Fault("is_reached_from_outside", "Dockerfile", "LISTEN=0.0.0.0:9090", "LISTEN=127.0.0.1:9090"),
    Fault("is_reached_from_outside", "Dockerfile", "ADMIN__LISTEN", "ADMIN__LISTENS"),
    Fault("is_reached_from_outside", "Dockerfile", "EXPOSE 9090", "EXPOSE 9091"),
    Fault("has_one_version", "charts/deletion-worker/Chart.yaml", 'appVersion: "0.1.0"', 'appVersion: "0.2.0"'),
    Fault("has_one_version", "docker-compose.yml", "deletion-worker:0.1.0", "deletion-worker:latest"),
    Fault("has_one_version", "CHANGELOG.md", "## [Unreleased]", "## [0.2.0]"),
]


@pytest.fixture(scope="module")
def files():
    return read()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_image(rule, files):
    assert not list(rule(files))


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_noticed(fault, files):
    assert broken(RULES, fault, files, slow={"is_linted"}) == {fault.rule}


def test_every_rule_can_be_broken():
    assert {fault.rule for fault in FAULTS} == set(RULES)
