"""That the checks can fail: each fault of faults.py, in a copy of the chart, is found."""

import shutil

import pytest

import agreement
import checks
import shipping
from chart import CHART
from faults import FAULTS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found(fault, tmp_path):
    copy = tmp_path / "deletion-worker"
    shutil.copytree(CHART, copy)
    fault.apply(copy)
    found = fault.check(copy)
    assert any(fault.said in each for each in found), f"not found, but: {found}"


def test_each_check_has_a_fault_that_it_finds():
    biting = {getattr(fault.check, "func", fault.check) for fault in FAULTS}
    every = checks.CHECKS + agreement.CHECKS + shipping.CHECKS
    assert [check.__name__ for check in every if check not in biting] == []
