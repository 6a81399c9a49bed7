"""Values that would not work, and what has to be said of them: the key, and the reason."""

import yaml

from chart import CHART, LEAST, Refused, merged, render

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
    (
        "config: {dead_letter: {exchange: deletions}}",
        "config.dead_letter.exchange: the same as amqp.exchange",
    ),
    ("config: {endpoint: {namespace: a}}", "config.endpoint.namespace: v1.0 has no namespaces"),
    ("config: {endpoint: {url: 'https://a/?unique_id=b'}}", "config.endpoint.url: is not like"),
    ("config: {endpoint: {success_codes: ['0429']}}", "/config/endpoint/success_codes/0"),
    ("config: {endpoint: {success_codes: [0]}}", "/config/endpoint/success_codes/0"),
    # Durations.
    ("config: {batch: {linger: 61m}}", 'config.batch.linger: "61m" is out of range'),
    ("config: {amqp: {heartbeat: 1500ms}}", 'config.amqp.heartbeat: "1500ms" is not a multiple'),
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
    (
        "extraEnv: [{name: DELETION_WORKER__SHUTDOWN__GRACE, value: 1h}]",
        "extraEnv: DELETION_WORKER__SHUTDOWN__GRACE",
    ),
    (
        "extraEnv: [{name: DELETION_WORKER__ENDPOINT__TOKEN, value: a}]",
        "extraEnv: DELETION_WORKER__ENDPOINT__TOKEN",
    ),
    # Life cycle.
    (
        "terminationGracePeriodSeconds: 39",
        "terminationGracePeriodSeconds: 39 would kill the worker while it drains",
    ),
    ("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 0 would kill"),
    ("{terminationGracePeriodSeconds: 60, config: {shutdown: {grace: 1m}}}", "needs at least 75"),
    ("replicaCount: -1", "/replicaCount"),
    ("pdb: {minAvailable: 1}", "pdb: exactly one of"),
    ("pdb: {maxUnavailable: null}", "pdb: exactly one of"),
    ("pdb: {maxUnavailable: 101%}", "/pdb/maxUnavailable"),
    # Monitors and scaling.
    ("{podMonitor: {enabled: true}, serviceMonitor: {enabled: true}}", "podMonitor and serviceMonitor: both"),
    (
        "{service: {enabled: false}, serviceMonitor: {enabled: true}}",
        "serviceMonitor.enabled: needs service.enabled",
    ),
    ("keda: {enabled: true, existingSecret: a}", "keda.host: required"),
    ("keda: {enabled: true, host: 'http://a'}", "keda.existingSecret: required"),
    ("keda: {enabled: true, host: 'http://a', hostKey: b, existingSecret: c}", "keda: both host and hostKey"),
    ("keda: {enabled: true, host: 'http://u:p@a', existingSecret: c}", "keda.host: is not like"),
    ("keda: {enabled: true, host: 'amqp://a', existingSecret: c}", "keda.host: is not like"),
    (
        "keda: {enabled: true, host: 'http://a', existingSecret: c, maxReplicaCount: 3}",
        "keda.maxReplicaCount: 3, but",
    ),
    (
        "keda: {enabled: true, host: 'http://a', existingSecret: c, minReplicaCount: 3}",
        "keda.minReplicaCount: more than",
    ),
    # Kubernetes' limits.
    ("fullnameOverride: 1st", "fullnameOverride: needed"),
    ("fullnameOverride: Deletions", "/fullnameOverride"),
    ("metrics: {port: 80}", "/metrics/port"),
    ("metrics: {address: 127.0.0.1}", "/metrics/address"),
    ("image: {digest: sha256:abc}", "/image/digest"),
    ("image: {tag: 'a b'}", "/image/tag"),
    ("commonLabels: {a: '-'}", "/commonLabels/a"),
    ("podAnnotations: {a: true}", "/podAnnotations/a"),
    ("livenessProbe: {httpGet: {path: /readyz}}", "httpGet"),
]


def faults(values, reason, chart=CHART):
    """What is wrong with how these values, laid over the least ones, are refused."""
    try:
        render(merged(LEAST, yaml.safe_load(values)), chart=chart)
    except Refused as error:
        # The schema writes paths with slashes or dots, depending on Helm's version.
        is_told = reason.strip("/").replace("/", ".") in str(error).replace("/", ".")
        return [] if is_told else [f"{values}: refused, but without {reason!r}: {error}"]
    return [f"{values}: taken"]


def mistakes_are_refused(chart):
    """A check as in checks.py."""
    return [fault for values, reason in REFUSED for fault in faults(values, reason, chart)]
