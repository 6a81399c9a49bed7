"""The chart: what holds for all of it (checks.py), and what each part does."""

import os

import pytest

import agreement
import checks
import kinds
import shipping
from chart import CHART, cases, objects, one


def test_the_readme_is_written():
    """With UPDATE_DOCS=1 the tables of the chart's README are written first."""
    if os.environ.get("UPDATE_DOCS"):
        ran = shipping.generate_readme(CHART, CHART / "README.md")
        assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    "check", checks.CHECKS + agreement.CHECKS + shipping.CHECKS, ids=lambda check: check.__name__
)
def test_chart(check):
    faults = check(CHART)
    assert not faults, "\n" + "\n".join(faults)


OPERATORS = sorted(
    {
        (each["apiVersion"], each["kind"])
        for values in cases().values()
        for each in objects(values)
        if not kinds.is_core(each)
    }
)


@pytest.mark.parametrize(("version", "kind"), OPERATORS)
def test_objects_of_operators_fit_their_definitions(version, kind):
    """Against the operators' own definitions, which say more than the types that are published."""
    found = [
        each
        for values in cases().values()
        for each in objects(values)
        if (each["apiVersion"], each["kind"]) == (version, kind)
    ]
    if not kinds.definition(found[0]):
        instead = (
            "checked against published types instead"
            if kinds.is_modelled(found[0])
            else "NOT CHECKED: no package has its types"
        )
        pytest.skip(
            f"{kind} ({version}): {instead}; set CRD_DIR to a folder with its CustomResourceDefinition"
        )
    faults = [fault for each in found for fault in kinds.definition_faults(each)]
    assert not faults, "\n".join(faults)


def test_every_minor_version_since_the_oldest_is_checked():
    minors = [minor for major, minor in kinds.versions() if major == 1]
    assert minors == list(range(kinds.OLDEST[1], minors[-1] + 1))
    assert len(minors) >= 10


@pytest.mark.parametrize("case", ["keda", "keda-shared"])
def test_kedas_trigger_has_the_parameters_that_keda_knows(case):
    known = kinds.scaler("rabbitmq")
    if known is None:
        pytest.skip("NOT CHECKED: set CRD_DIR to a folder with KEDA's schema/generated/scalers-schema.json")
    (trigger,) = one("ScaledObject", cases()[case])["spec"]["triggers"]
    given = {name: "metadataVariableReadable" for name in trigger["metadata"]}
    references = one("TriggerAuthentication", cases()[case])["spec"]["secretTargetRef"]
    given |= {each["parameter"]: "triggerAuthenticationVariableReadable" for each in references}
    assert [name for name, how in given.items() if not known.get(name, {}).get(how)] == []
    assert [
        name
        for name, each in known.items()
        if not each.get("optional") and "default" not in each and name not in given
    ] == []
