"""The alert rules: each fires when it should and not when it comes close, and what is wrong with one is noticed."""

import pytest

import alerts
import chart

RENDERED = alerts.render()
RULES = alerts.rules(RENDERED)
CASES = alerts.cases(RULES)
# Faults that change nothing.
HARMLESS = {}

def test_promtool_has_nothing_against_them(tmp_path):
    assert alerts.check(RENDERED, tmp_path) == ""


def test_every_alert_has_cases_of_both_kinds():
    assert list(CASES) == list(RULES)
    for alert, its_cases in CASES.items():
        assert any("firing" in case for case in its_cases), f"{alert}: nothing makes it fire"
        assert any("silent" in case for case in its_cases), f"{alert}: nothing comes close"


@pytest.mark.parametrize("alert", RULES)
def test_it_fires_when_it_should_and_any_fault_in_it_is_noticed(alert, tmp_path):
    faults = dict(alerts.mutants(RULES[alert]))
    its_cases = CASES[alert] + alerts.of_others(alert, CASES[alert])
    failed = alerts.judge({"as it is": RULES[alert], **faults}, its_cases, tmp_path)
    assert "as it is" not in failed, failed["as it is"]
    assert not faults.keys() - failed.keys() - HARMLESS.get(alert, set())
