"""The workflows, by the linters and by rules of our own. Nothing here reaches GitHub: that they run is seen there only."""

import json
import re
import subprocess

import pytest
import yaml

import schemas
from chart import ROOT
from faulty import Fault, broken

CI, RELEASE, DEPENDABOT = ".github/workflows/ci.yml", ".github/workflows/release.yml", ".github/dependabot.yml"
FILES = [CI, RELEASE, DEPENDABOT, ".ci/run", "Makefile", "docker-compose.yml"]


def read():
    return {name: (ROOT / name).read_text() for name in FILES}


def workflows(files):
    return {name: yaml.safe_load(files[name]) for name in (CI, RELEASE)}


def jobs(files):
    """Each job as (where, job)."""
    for name, workflow in workflows(files).items():
        for job, content in workflow["jobs"].items():
            yield f"{name}: {job}", content


def steps(files):
    for where, job in jobs(files):
        for step in job.get("steps", []):
            yield f"{where}: {step.get('name') or step.get('id') or step.get('uses') or step['run']}", step


def written(files, tmp):
    """A directory with the files, as the linters want them."""
    for name in (CI, RELEASE, DEPENDABOT):
        path = tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[name])
    return tmp


def fits_the_schemas(files, _):
    for name, schema in {CI: "github-workflows", RELEASE: "github-workflows", DEPENDABOT: "dependabot"}.items():
        yield from schemas.errors(schema, yaml.safe_load(files[name]))


def passes_actionlint(files, tmp):
    """With shellcheck on the scripts in it."""
    end = run(written(files, tmp), "actionlint", "-no-color", "-shellcheck", "shellcheck", CI, RELEASE)
    if end.returncode != 0:
        yield end.stdout + end.stderr


def passes_zizmor(files, tmp):
    options = ["--offline", "--no-progress", "--persona", "pedantic", "--format", "json"]
    end = run(written(files, tmp), "zizmor", *options, ".github")
    if not end.stdout:
        yield end.stderr
        return
    for finding in json.loads(end.stdout):
        if not finding["ignored"]:
            yield f"{finding['ident']}: {finding['desc']}"


def pins_actions_by_commit(files, _):
    found = re.findall(r"uses: *(\S+) *(?:# *(.*))?", files[CI] + files[RELEASE])
    commits = {}
    for action, comment in found:
        if action.startswith("./"):
            continue
        name, _, commit = action.partition("@")
        if not re.fullmatch(r"[0-9a-f]{40}", commit) or not re.fullmatch(r"v\d+\.\d+\.\d+", comment):
            yield f"{action} # {comment}"
        if commits.setdefault(name, (commit, comment)) != (commit, comment):
            yield f"{name} at two commits"


def permits_nothing_but_by_job(files, _):
    for name, workflow in workflows(files).items():
        if workflow.get("permissions") != {}:
            yield f"{name}: {workflow.get('permissions')}"
    for where, job in jobs(files):
        permissions = job.get("permissions", {})
        if permissions.get("contents") not in ("read", "write"):
            yield f"{where}: {permissions}"
        if "write" in permissions.values() and where.startswith(CI):
            yield f"{where} may write"


def ends_in_time(files, _):
    for where, job in jobs(files):
        if "uses" not in job and not job.get("timeout-minutes"):
            yield where


def runs_once_at_a_time(files, _):
    for name, workflow in workflows(files).items():
        if not workflow.get("concurrency", {}).get("group"):
            yield name


def puts_nothing_foreign_into_scripts(files, _):
    """Values reach a script as variables: what stands between ${{ and }} would be read as its source."""
    for where, step in steps(files):
        if "${{" in step.get("run", ""):
            yield where


def keeps_no_credentials(files, _):
    for where, step in steps(files):
        if "actions/checkout" in step.get("uses", "") and step.get("with", {}).get("persist-credentials") is not False:
            yield where


def checks_what_everybody_checks(files, _):
    """CI calls .ci/run, which calls the targets that the README names; the release calls CI."""
    if ".ci/run" not in [step.get("run") for _, step in steps(files)]:
        yield "no step is .ci/run"
    for target in ("lint", "doc", "test", "test-deploy"):
        if f"\nstep make {target}\n" not in files[".ci/run"] or f"\n{target}: " not in files["Makefile"]:
            yield f".ci/run has no make {target}"
    release = workflows(files)[RELEASE]["jobs"]
    checking = [name for name, job in release.items() if job.get("uses") == f"./{CI}"]
    for name, job in release.items():
        if job.get("permissions", {}).get("packages") == "write" and name != "publish":
            if not set(checking) & set(job.get("needs", [])):
                yield f"{name} doesn't wait for the checks"
    if "build" not in release["publish"]["needs"]:
        yield "publish doesn't wait for build"


def signs_and_verifies(files, _):
    text = files[RELEASE]
    for kind in ("image", "chart", "files"):
        sign, verify = {
            "image": ('cosign sign --yes "$IMAGE@$DIGEST"', 'cosign verify "$IMAGE@$DIGEST"'),
            "chart": ('cosign sign --yes "$CHART"', 'cosign verify "$CHART"'),
            "files": ("cosign sign-blob --yes --bundle SHA256SUMS", "cosign verify-blob --bundle SHA256SUMS"),
        }[kind]
        if sign not in text or verify not in text:
            yield f"{kind}: not signed and verified"
    if text.count('--certificate-identity "$IDENTITY" --certificate-oidc-issuer "$ISSUER"') != 3:
        yield "verified, but not whose signature it is"


def builds_for_both_platforms(files, _):
    matrix = workflows(files)[RELEASE]["jobs"]["build"]["strategy"]["matrix"]["include"]
    if {entry["arch"] for entry in matrix} != {"amd64", "arm64"}:
        yield str(matrix)


def has_one_rabbitmq(files, _):
    """The cluster's is the one of the compose file."""
    tags = {tag for text in files.values() for tag in re.findall(r"\brabbitmq:(\d\S*-management)", text)}
    if len(tags) != 1 or "rabbitmq:" not in files[CI]:
        yield str(tags)


def keeps_everything_up_to_date(files, _):
    updates = {(entry["package-ecosystem"], entry["directory"]) for entry in yaml.safe_load(files[DEPENDABOT])["updates"]}
    wanted = {
        ("cargo", "/"),
        ("github-actions", "/"),
        ("docker", "/"),
        ("docker-compose", "/"),
        ("pip", "/tests/deploy"),
    }
    if wanted - updates:
        yield str(wanted - updates)


def run(directory, *command):
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


RULES = {
    rule.__name__: rule
    for rule in (
        fits_the_schemas,
        passes_actionlint,
        passes_zizmor,
        pins_actions_by_commit,
        permits_nothing_but_by_job,
        ends_in_time,
        runs_once_at_a_time,
        puts_nothing_foreign_into_scripts,
        keeps_no_credentials,
        checks_what_everybody_checks,
        signs_and_verifies,
        builds_for_both_platforms,
        has_one_rabbitmq,
        keeps_everything_up_to_date,
    )
}

CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
CONCURRENCY = re.search(r"^concurrency:\n(?:  .*\n)+", read()[RELEASE], re.MULTILINE)[0]
LINTERS = {"passes_actionlint", "passes_zizmor"}
FAULTS = [
    Fault("fits_the_schemas", DEPENDABOT, "interval: weekly", "interval: now and then"),
    Fault("fits_the_schemas", CI, "cancel-in-progress:", "cancel-running:"),
    Fault("passes_actionlint", CI, "runs-on: ubuntu-24.04", "runs-on: ubuntu-25.13"),
    Fault("passes_actionlint", RELEASE, "steps.image.outputs.digest", "steps.images.outputs.digest"),
    Fault("passes_actionlint", RELEASE, 'cosign sign --yes "$CHART"', 'cosign sign --yes "$CHART" $IDENTITY'),
    Fault("passes_zizmor", CI, "pull_request:", "pull_request_target:"),
    Fault("pins_actions_by_commit", CI, CHECKOUT, "actions/checkout@v7"),
    Fault("pins_actions_by_commit", CI, CHECKOUT, CHECKOUT.replace(" # v7.0.1", "")),
    Fault("pins_actions_by_commit", CI, "3d3c42e", "4d3c42e"),
    Fault("permits_nothing_but_by_job", CI, "permissions: {}", "permissions: write-all"),
    Fault("permits_nothing_but_by_job", CI, "      contents: read", "      contents: write"),
    Fault("ends_in_time", RELEASE, "    timeout-minutes: 30\n", ""),
    Fault("runs_once_at_a_time", RELEASE, CONCURRENCY, ""),
    Fault(
        "puts_nothing_foreign_into_scripts", CI,
        "      - run: .ci/run", "      - run: .ci/run\n      - run: echo ${{ github.event.pull_request.title }}",
    ),
    Fault("puts_nothing_foreign_into_scripts", RELEASE, '--title "$VERSION"', '--title "${{ github.ref_name }}"'),
    Fault("keeps_no_credentials", CI, "persist-credentials: false", "persist-credentials: true"),
    Fault("checks_what_everybody_checks", CI, "run: .ci/run", "run: make test"),
    Fault("checks_what_everybody_checks", ".ci/run", "step make test-deploy\n", ""),
    Fault("checks_what_everybody_checks", RELEASE, "needs: [check, version]", "needs: [version]"),
    Fault("signs_and_verifies", RELEASE, 'cosign verify "$IMAGE@$DIGEST"', 'cosign tree "$IMAGE@$DIGEST"'),
    Fault("signs_and_verifies", RELEASE, '--certificate-identity "$IDENTITY"', "--certificate-identity-regexp '.*'"),
    Fault("builds_for_both_platforms", RELEASE, "arch: arm64", "arch: amd64"),
    Fault("has_one_rabbitmq", CI, "rabbitmq:4.0.9-management", "rabbitmq:3.13-management"),
    Fault("keeps_everything_up_to_date", DEPENDABOT, "package-ecosystem: docker-compose", "package-ecosystem: docker"),
]


@pytest.fixture(scope="module")
def files():
    return read()


def bound(tmp):
    """The rules, with a directory to write to."""
    return {name: lambda files, rule=rule: rule(files, tmp) for name, rule in RULES.items()}


@pytest.mark.parametrize("rule", RULES)
def test_the_workflows(rule, files, tmp_path):
    assert not list(bound(tmp_path)[rule](files))


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_noticed(fault, files, tmp_path):
    assert broken(bound(tmp_path), fault, files, slow=LINTERS) == {fault.rule}


def test_every_rule_can_be_broken():
    assert {fault.rule for fault in FAULTS} == set(RULES)
