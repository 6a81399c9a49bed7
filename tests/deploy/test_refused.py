"""Values that would not work are refused before anything is installed, with the key and the reason."""

import pytest
import yaml

from chart import LEAST, Refused, merged, render
from refusals import REFUSED, faults


@pytest.mark.parametrize(("values", "reason"), REFUSED, ids=[values for values, _ in REFUSED])
def test_it_is_refused(values, reason):
    assert faults(values, reason) == []


def test_all_mistakes_are_told_at_once():
    config = {"amqp": {"prefetch": 1}, "retry": {"initial": "2m"}}
    values = {"config": config, "pdb": {"minAvailable": 1}, "terminationGracePeriodSeconds": 1}
    with pytest.raises(Refused) as refusal:
        render(values)
    keys = ["amqp.existingSecret", "token.existingSecret", "config.amqp.prefetch", "config.retry.initial"]
    for key in [*keys, "terminationGracePeriodSeconds", "pdb"]:
        assert f"\n  * {key}: " in str(refusal.value)


@pytest.mark.parametrize(
    "values",
    [
        "amqp: {existingSecret: '', urls: ['amqp://user:s3cret@a b']}",
        "amqp: {existingSecret: '', urls: ['http://user:s3cret@a']}",
        "token: {existingSecret: '', value: 's3cret '}",
        "config: {endpoint: {url: 'https://user:s3cret@a'}}",
        "keda: {enabled: true, existingSecret: a, host: 'https://user:s3cret@a'}",
    ],
)
def test_a_refusal_shows_no_secret(values):
    with pytest.raises(Refused) as refusal:
        render(merged(LEAST, yaml.safe_load(values)))
    assert "s3cret" not in str(refusal.value)


def test_a_release_whose_name_is_no_name_of_a_service_is_refused():
    with pytest.raises(Refused, match="fullnameOverride: needed"):
        render(LEAST, name="1st")
    render({**LEAST, "fullnameOverride": "first"}, name="1st")


@pytest.mark.parametrize(
    "values",
    [
        "config: {worker: {dry_run: true}}\ntoken: {existingSecret: ''}",
        "terminationGracePeriodSeconds: 40",
        "config: {amqp: {prefetch: 500}}",
        "config: {amqp: {prefetch: 100}, endpoint: {api: v1.2, namespace: a}}",
        "config: {batch: {max_ids: null, linger: null}, retry: {max: null}}",
        "keda: {enabled: true, host: 'http://a', existingSecret: c, minReplicaCount: 0, maxReplicaCount: 2}",
        "pdb: {enabled: false, minAvailable: 1}",
        "replicaCount: 0",
        "{global: {anything: 1}, enabled: true}",
    ],
)
def test_what_comes_close_is_taken(values):
    assert render(merged(LEAST, yaml.safe_load(values)))
