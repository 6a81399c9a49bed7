"""The runbook: a section for each alert, and commands, metrics, keys, panels and words of /status that exist."""

import pytest

import runbook

TEXT = runbook.FILE.read_text()
# What is written in place of what, and what has to be said of it.
FAULTS = {
    "a section renamed": (
        "### DeletionWorkerFlapping",
        "### DeletionWorkerFlaps",
        "DeletionWorkerFlapping: no section",
    ),
    "a section of no alert": (
        "## RabbitMQ\n",
        "## RabbitMQ\n\n### DeletionWorkerSlow\n",
        "DeletionWorkerSlow: no such alert",
    ),
    "a section twice": ("## RabbitMQ\n", "## RabbitMQ\n\n### DeletionWorkerDown\n", "DeletionWorkerDown: twice"),
    "a section without advice": (
        "**Do** let it start elsewhere",
        "Let it start elsewhere",
        "InstanceDisconnected: says nothing",
    ),
    "a broken anchor": ("(#deletionworkerstalled)", "(#deletionworkerstall)", "leads nowhere"),
    "a page that isn't there": ("(dead-letters.md)", "(deadletters.md)", "leads nowhere"),
    "a flag that isn't there": ("--rate 50", "--speed 50", "replay --reason retries_exhausted --speed 50"),
    "a task that isn't there": ("dead-letters export >", "dead-letters dump >", "dead-letters dump"),
    "a time it doesn't take": ("--after 2h --limit", "--after two --limit", "--after two"),
    "a metric renamed": ("`deletion_worker_ids_pending`", "`deletion_worker_ids_waiting`", "no such metric"),
    "a panel renamed": ('"Own rate" and', '"The rate" and', "The rate: no such panel"),
    "a key renamed": ("`amqp.heartbeat`", "`amqp.heart_beat`", "amqp.heart_beat: no such key"),
    "a key of the endpoint": ("`endpoint.requests_per_second`", "`endpoint.calls_per_second`", "endpoint.calls_per_second"),
    "a word of /status": ("`broker.because`", "`broker.reason`", "broker.reason: not in /status"),
    "a command of RabbitMQ's": (
        "rabbitmqctl list_consumers",
        "rabbitmqctl show_consumers",
        "show_consumers: no such command",
    ),
    "a placeholder": ("rollout undo deployment/W`", "rollout undo deployment NAME`", "NAME: nobody says"),
}


def test_nothing_is_wrong_with_it():
    assert runbook.faults(TEXT) == []


def test_there_is_something_to_check():
    assert len(runbook.command_lines(TEXT)) >= 8
    assert len(list(runbook.of_sections(""))) >= 24


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(fault):
    old, new, said = FAULTS[fault]
    assert old in TEXT
    found = runbook.faults(TEXT.replace(old, new, 1))
    assert any(said in text for text in found), found
