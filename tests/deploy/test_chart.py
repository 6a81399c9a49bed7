"""The chart: what holds for all of it (checks.py), and what each part does."""

import os

import pytest

import checks
import kinds
from chart import CHART, cases, objects


def test_the_readme_is_written():
    """With UPDATE_DOCS=1 the tables of the chart's README are written first."""
    if os.environ.get("UPDATE_DOCS"):
        ran = checks.generate_readme(CHART, CHART / "README.md")
        assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_chart(check):
    faults = check(CHART)
    assert not faults, "\n" + "\n".join(faults)
