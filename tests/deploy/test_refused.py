"""Values that would not work are refused before anything is installed, with the key and the reason."""

import pytest
import yaml

from chart import LEAST, Refused, merged, render

# What is laid over the least values, as YAML; and what the refusal has to say.
REFUSED = [
    # Secrets.
    ("amqp: {existingSecret: ''}", "amqp.existingSecret: required"),
    ("amqp: {urls: ['amqp://a']}", "amqp: both existingSecret and urls are set"),
    ("token: {existingSecret: ''}", "token.existingSecret: required"),
    ("token: {value: abc}", "token: both existingSecret and value are set"),
    ("token: {existingSecret: '', value: 'ab '}", "token.value: begins or ends with white space"),
    ("amqp: {existingSecret: '', urls: ['http://a']}", "amqp.urls: item 0 is not like amqp://"),
    ("amqp: {existingSecret: '', urls: ['amqp://a', 'amqp://b,amqp://c']}", "amqp.urls: item 1 is not"),
    ("amqp: {existingSecret: Not_A_Name}", "/amqp/existingSecret"),
    ("amqp: {existingSecretKey: 'a/b'}", "/amqp/existingSecretKey"),
    # Sizes.
    ("config: {batch: {max_ids: 501}}", "/config/batch/max_ids"),
    ("config: {batch: {max_ids: 0}}", "/config/batch/max_ids"),
    ("config: {batch: {max_ids: 101}, endpoint: {api: v1.2}}", "config.batch.max_ids: 101, but v1.2"),
    ("config: {amqp: {prefetch: 499}}", "config.amqp.prefetch: 499 is too small for one full batch"),
    ("config: {amqp: {prefetch: 99}, endpoint: {api: v1.2}}", "config.amqp.prefetch: 99 is too small"),
    ("config: {amqp: {prefetch: 9}, batch: {max_ids: 10}}", "config.amqp.prefetch: 9 is too small"),
    ("config: {amqp: {delivery_limit: -1}}", "/config/amqp/delivery_limit"),
    # Names and places.
    ("config: {dead_letter: {queue: deletions}}", "config.dead_letter.queue: the same as amqp.queue"),
    ("config: {dead_letter: {exchange: deletions}}", "config.dead_letter.exchange: the same as amqp.exchange"),
    ("config: {endpoint: {namespace: a}}", "config.endpoint.namespace: v1.0 has no namespaces"),
    ("config: {endpoint: {url: 'https://a/?unique_id=b'}}", "config.endpoint.url: is not like"),
    ("config: {endpoint: {success_codes: ['0429']}}", "/config/endpoint/success_codes/0"),
    ("config: {endpoint: {success_codes: [0]}}", "/config/endpoint/success_codes/0"),
    # Durations.
    ("config: {batch: {linger: 61m}}", "config.batch.linger: \"61m\" is out of range"),
    ("config: {amqp: {heartbeat: 1500ms}}", "config.amqp.heartbeat: \"1500ms\" is not a multiple"),
    ("config: {retry: {initial: 2m}}", "config.retry.initial: longer than retry.max"),
    ("config: {health: {probe_initial: 2m}}", "config.health.probe_initial: longer than health.probe_max"),
    ("config: {endpoint: {timeout: 4s}}", "config.endpoint.connect_timeout: longer than endpoint.timeout"),
    ("config: {shutdown: {grace: 25}}", "/config/shutdown/grace"),
    ("config: {shutdown: {grace: soon}}", "/config/shutdown/grace"),
    ("config: {shutdown: {grace: null}}", "grace"),
    # Keys of the chart's own, and misspelt ones.
    ("config: {admin: {listen: '0.0.0.0:1'}}", "admin"),
    ("config: {endpoint: {token: abc}}", "token"),
    ("config: {batch: {maxIds: 5}}", "maxIds"),
    ("replicas: 3", "replicas"),
    ("extraEnv: [{name: DELETION_WORKER__SHUTDOWN__GRACE, value: 1h}]", "extraEnv: DELETION_WORKER__SHUTDOWN__GRACE"),
    ("extraEnv: [{name: DELETION_WORKER__ENDPOINT__TOKEN, value: a}]", "extraEnv: DELETION_WORKER__ENDPOINT__TOKEN"),
    # Life cycle.
    ("terminationGracePeriodSeconds: 39", "terminationGracePeriodSeconds: 39 would kill the worker while it drains"),
    ("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 0 would kill"),
    ("{terminationGracePeriodSeconds: 60, config: {shutdown: {grace: 1m}}}", "needs at least 75"),
    ("replicaCount: -1", "/replicaCount"),
    ("pdb: {minAvailable: 1}", "pdb: exactly one of"),
    ("pdb: {maxUnavailable: null}", "pdb: exactly one of"),
    ("pdb: {maxUnavailable: 101%}", "/pdb/maxUnavailable"),
    # Monitors and scaling.
    ("{podMonitor: {enabled: true}, serviceMonitor: {enabled: true}}", "podMonitor and serviceMonitor: both"),
    ("{service: {enabled: false}, serviceMonitor: {enabled: true}}", "serviceMonitor.enabled: needs service.enabled"),
    ("keda: {enabled: true, existingSecret: a}", "keda.host: required"),
    ("keda: {enabled: true, host: 'http://a'}", "keda.existingSecret: required"),
    ("keda: {enabled: true, host: 'http://a', hostKey: b, existingSecret: c}", "keda: both host and hostKey"),
    ("keda: {enabled: true, host: 'http://u:p@a', existingSecret: c}", "keda.host: is not like"),
    ("keda: {enabled: true, host: 'amqp://a', existingSecret: c}", "keda.host: is not like"),
    ("keda: {enabled: true, host: 'http://a', existingSecret: c, maxReplicaCount: 3}", "keda.maxReplicaCount: 3, but"),
    ("keda: {enabled: true, host: 'http://a', existingSecret: c, minReplicaCount: 3}", "keda.minReplicaCount: more than"),
    # Kubernetes' limits.
    ("fullnameOverride: 1st", "fullnameOverride: needed"),
    ("fullnameOverride: Deletions", "/fullnameOverride"),
    ("metrics: {port: 80}", "/metrics/port"),
    ("image: {digest: sha256:abc}", "/image/digest"),
    ("image: {tag: 'a b'}", "/image/tag"),
    ("commonLabels: {a: '-'}", "/commonLabels/a"),
    ("podAnnotations: {a: true}", "/podAnnotations/a"),
    ("livenessProbe: {httpGet: {path: /readyz}}", "httpGet"),
]


@pytest.mark.parametrize(("values", "reason"), REFUSED, ids=[values for values, _ in REFUSED])
def test_it_is_refused(values, reason):
    with pytest.raises(Refused) as refusal:
        render(merged(LEAST, yaml.safe_load(values)))
    # The schema writes paths with slashes or dots, depending on Helm's version.
    assert reason.strip("/").replace("/", ".") in str(refusal.value).replace("/", ".")


def test_all_mistakes_are_told_at_once():
    values = "{config: {amqp: {prefetch: 1}, retry: {initial: 2m}}, pdb: {minAvailable: 1}, terminationGracePeriodSeconds: 1}"
    with pytest.raises(Refused) as refusal:
        render(yaml.safe_load(values))
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
