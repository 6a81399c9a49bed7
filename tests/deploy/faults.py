"""Deliberate faults of the chart, each with the check that is there to find it."""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import agreement
import checks
import shipping
from refusals import mistakes_are_refused

TEMPLATES = "templates/"
DEPLOYMENT = TEMPLATES + "deployment.yaml"
HELPERS = TEMPLATES + "_helpers.tpl"
CONFIG = TEMPLATES + "_config.tpl"
POD = TEMPLATES + "_pod.tpl"
VALIDATE = TEMPLATES + "_validate.tpl"
VALUES = "values.yaml"
SCHEMA = "values.schema.json"
RUN_AS_NON_ROOT = r"\n +(## @param \w+.runAsNonRoot .*\n +)?runAsNonRoot: true"
SECCOMP = r"\n  seccompProfile:\n.*\n    type: RuntimeDefault"


class Fault(NamedTuple):
    """Who has to notice what fault, what of it has to be said, and how it is done to a copy of the chart."""

    check: Callable
    name: str
    said: str
    apply: Callable


def replace(file, pattern, by, count=0):
    """A fault: in `file`, what the pattern matches becomes `by`."""

    def apply(chart):
        path = chart / file
        text, times = re.subn(pattern, by, path.read_text(), count=count)
        assert times, f"{file} has nothing like {pattern}"
        path.write_text(text)

    return apply


def write(file, text):
    """A fault: a file that shouldn't be there."""
    return lambda chart: (chart / file).write_text(text)


def remove(file):
    """A fault: a file that should be there."""
    return lambda chart: (chart / file).unlink()


def ranges(section):
    """The check of ranges, for one section, as all of them take long."""
    return functools.partial(agreement.ranges_are_the_workers, section=section)


FAULTS = [
    Fault(
        checks.pods_are_restricted,
        "root is let in",
        "runAsNonRoot is not true",
        replace(VALUES, RUN_AS_NON_ROOT, ""),
    ),
    Fault(
        checks.pods_are_restricted,
        "uid 0",
        "runAsUser is root",
        replace(VALUES, "runAsUser: 65532", "runAsUser: 0"),
    ),
    Fault(
        checks.pods_are_restricted,
        "capabilities are kept",
        "ALL is not dropped",
        replace(VALUES, r"drop: \[ALL\]", "drop: [NET_RAW]"),
    ),
    Fault(
        checks.pods_are_restricted,
        "a capability is added",
        "some are added",
        replace(VALUES, r"(    )drop: \[ALL\]", r"\1drop: [ALL]\n\1add: [SYS_TIME]"),
    ),
    Fault(
        checks.pods_are_restricted,
        "privileges may grow",
        "allowPrivilegeEscalation",
        replace(VALUES, "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
    ),
    Fault(
        checks.pods_are_restricted,
        "no seccomp profile",
        "seccompProfile is not set",
        replace(VALUES, SECCOMP, ""),
    ),
    Fault(
        checks.pods_are_restricted,
        "a writable root",
        "readOnlyRootFilesystem",
        replace(VALUES, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    ),
    Fault(
        checks.pods_are_restricted,
        "a volume of the host",
        "volume config",
        replace(
            POD, "- name: config\n  configMap:\n    name: .*", "- name: config\n  hostPath: {path: /etc}"
        ),
    ),
    Fault(
        checks.pods_are_restricted,
        "the host's network",
        "hostNetwork",
        replace(POD, "enableServiceLinks: false", "enableServiceLinks: false\nhostNetwork: true"),
    ),
    Fault(
        checks.pods_are_restricted,
        "a port of the host",
        "hostPort",
        replace(DEPLOYMENT, "protocol: TCP", "hostPort: 9090"),
    ),
    Fault(
        checks.pods_are_restricted,
        "a token of Kubernetes",
        "automountServiceAccountToken",
        replace(POD, "automountServiceAccountToken: false\n", ""),
    ),
    Fault(
        checks.pods_are_restricted,
        "Services as variables",
        "enableServiceLinks",
        replace(POD, "enableServiceLinks: false\n", ""),
    ),
    Fault(
        checks.pods_are_restricted,
        "CPU is limited",
        "CPU is limited",
        replace(VALUES, "  limits:\n", "  limits:\n    cpu: 1\n"),
    ),
    Fault(
        checks.pods_are_restricted,
        "memory is not limited",
        "memory is not limited",
        replace(VALUES, "memory: 256Mi", "memory: null"),
    ),
    Fault(
        checks.pods_are_restricted,
        "a secret by subPath",
        "subPath",
        replace(POD, "(mountPath: /etc/deletion-worker/\\{\\{ .name \\}\\})", r"\1\n  subPath: x"),
    ),
    Fault(
        checks.pods_are_restricted,
        "a secret as a variable",
        "a secret is a variable",
        replace(
            DEPLOYMENT,
            "(            )- name: DELETION_WORKER_CONFIG",
            r"\1- name: A\n\1  valueFrom: {secretKeyRef: {name: a, key: b}}\n\1- name: B",
        ),
    ),
    Fault(
        checks.kubernetes_takes_it,
        "a misspelt field",
        "enableServiceLink",
        replace(POD, "enableServiceLinks", "enableServiceLink"),
    ),
    Fault(
        checks.kubernetes_takes_it,
        "a number as text",
        "'2' is not of type",
        replace(DEPLOYMENT, r"replicas: \{\{ int .Values.replicaCount \}\}", 'replicas: "2"'),
    ),
    Fault(
        checks.kubernetes_takes_it,
        "a field that 1.27 doesn't know",
        "on (1, 27)",
        replace(TEMPLATES + "service.yaml", "type: ClusterIP", "trafficDistribution: PreferClose"),
    ),
    Fault(
        checks.kubernetes_takes_it,
        "an API that is gone",
        "find schema",
        replace(TEMPLATES + "pdb.yaml", "policy/v1", "policy/v1beta1"),
    ),
    Fault(
        checks.operators_take_it,
        "a misspelt field of a PodMonitor",
        "scrapeTimout",
        replace(TEMPLATES + "_monitor.tpl", "scrapeTimeout:", "scrapeTimout:"),
    ),
    Fault(
        checks.operators_take_it,
        "a misspelt field of a ServiceMonitor",
        "endpoint",
        replace(TEMPLATES + "servicemonitor.yaml", "  endpoints:", "  endpoint:"),
    ),
    Fault(
        checks.operators_take_it,
        "a misspelt field of a ScaledObject",
        "coolDownPeriod",
        replace(TEMPLATES + "keda.yaml", "cooldownPeriod:", "coolDownPeriod:"),
    ),
    Fault(
        checks.operators_take_it,
        "a number as text in a ScaledObject",
        "'number'",
        replace(TEMPLATES + "keda.yaml", r"\{\{ int .maxReplicaCount \}\}", '"2"'),
    ),
    Fault(
        checks.operators_take_it,
        "a number in a trigger",
        "'string'",
        replace(TEMPLATES + "keda.yaml", r"int64 \| quote", "int64"),
    ),
    Fault(
        checks.operators_take_it,
        "a misspelt field of a TriggerAuthentication",
        "secretTargetRefs",
        replace(TEMPLATES + "keda.yaml", "secretTargetRef", "secretTargetRefs"),
    ),
    Fault(
        checks.lint_is_silent,
        "lint's warnings",
        "type",
        replace("Chart.yaml", "type: application", "type: app"),
    ),
    Fault(
        checks.cases_render,
        "YAML that isn't",
        "mapping values",
        replace(TEMPLATES + "service.yaml", "  type: ClusterIP", "  type: ClusterIP: x"),
    ),
    Fault(
        checks.cases_render,
        "a template that fails",
        "service.yaml",
        replace(TEMPLATES + "service.yaml", "int .Values.metrics.port", "int .Values.metrics.port.x"),
    ),
    Fault(
        checks.every_template_is_rendered,
        "a template without a case",
        "templates/never.yaml",
        write(TEMPLATES + "never.yaml", "{{ if .Values.enabled }}\na: b\n{{ end }}\n"),
    ),
    Fault(
        checks.every_template_is_rendered,
        "a case that is gone",
        "servicemonitor.yaml",
        remove("ci/servicemonitor-values.yaml"),
    ),
    Fault(
        checks.objects_are_labelled_and_namespaced,
        "no namespace",
        "Service: no namespace",
        replace(HELPERS, r"namespace: \{\{ .root.Release.Namespace \| quote \}\}\n", ""),
    ),
    Fault(
        checks.objects_are_labelled_and_namespaced,
        "no common labels",
        "no common label",
        replace(HELPERS, r"merge \$own .Values.commonLabels", "merge $own"),
    ),
    Fault(
        checks.objects_are_labelled_and_namespaced,
        "no common annotations",
        "no common annotation",
        replace(HELPERS, r" .root.Values.commonAnnotations", ""),
    ),
    Fault(
        checks.names_fit, "names that are too long", "-test-ready", replace(HELPERS, "trunc 50", "trunc 60")
    ),
    Fault(
        checks.names_fit,
        "names that end with a dash",
        'fff-" can',
        replace(HELPERS, r' \| trimSuffix "-"', ""),
    ),
    Fault(
        checks.texts_stay_texts,
        "a namespace that is a number",
        "456",
        replace(HELPERS, r"Release.Namespace \| quote", "Release.Namespace"),
    ),
    Fault(
        checks.texts_stay_texts,
        "a Secret's name that is a number",
        "123",
        replace(POD, r"index . 1 \| quote", "index . 1"),
    ),
    Fault(
        checks.texts_stay_texts,
        "a Secret's key that is a number",
        "'string'",
        replace(TEMPLATES + "keda.yaml", r".passwordKey \| quote", ".passwordKey"),
    ),
    Fault(
        checks.releases_keep_apart,
        "one name for every release",
        "share",
        replace(HELPERS, r'printf "%s-%s" .Release.Name \$name', "$name"),
    ),
    Fault(
        checks.releases_keep_apart,
        "a selector of every release",
        "selects",
        replace(HELPERS, "app.kubernetes.io/instance: .*\n", "", count=1),
    ),
    Fault(
        checks.releases_keep_apart,
        "the test's pod as a worker",
        "Service selects",
        replace(HELPERS, 'replace "component: worker" "component: test"', 'replace "a" "a"'),
    ),
    Fault(
        checks.everything_selects_the_workers,
        "a Service that finds nobody",
        "Service",
        replace(
            TEMPLATES + "service.yaml",
            r'"deletion-worker.selectorLabels" . \| nindent',
            '"deletion-worker.testLabels" . | nindent',
        ),
    ),
    Fault(
        checks.everything_selects_the_workers,
        "a PodMonitor that finds nobody",
        "PodMonitor",
        replace(TEMPLATES + "podmonitor.yaml", "selectorLabels", "labels"),
    ),
    Fault(
        checks.everything_selects_the_workers,
        "a spread of nobody",
        "topologySpreadConstraints",
        replace(DEPLOYMENT, r"\{\{- \$constraint = merge .*\n", "\n"),
    ),
    Fault(
        checks.an_upgrade_keeps_selectors_and_pods,
        "a selector with the chart's version",
        "selector changes with the chart's version",
        replace(
            HELPERS,
            r"(app.kubernetes.io/component: worker\n)",
            r"\1helm.sh/chart: {{ .Chart.Version }}\n",
            count=1,
        ),
    ),
    Fault(
        checks.an_upgrade_keeps_selectors_and_pods,
        "pods with the chart's version",
        "pods change",
        replace(
            DEPLOYMENT,
            r'\(include "deletion-worker.selectorLabels" . \| fromYaml\) .Values.podLabels',
            '(include "deletion-worker.labels" . | fromYaml) .Values.podLabels',
        ),
    ),
    Fault(
        checks.an_upgrade_keeps_selectors_and_pods,
        "a configuration that restarts nothing",
        "restarts nothing",
        replace(DEPLOYMENT, "checksum/config: .*", "a: b"),
    ),
    Fault(
        checks.it_renders_the_same_everywhere,
        "the time of day",
        "now",
        replace(DEPLOYMENT, r"checksum/config: .*", r"at: {{ now | quote }}"),
    ),
    Fault(
        checks.it_renders_the_same_everywhere,
        "a password of its own",
        "secret.yaml differs",
        replace(TEMPLATES + "secret.yaml", r"token: .*", r"token: {{ randAlphaNum 9 }}"),
    ),
    Fault(
        checks.it_renders_the_same_everywhere,
        "a look at the cluster",
        "lookup",
        write(TEMPLATES + "x.yaml", '{{ lookup "v1" "Secret" "a" "b" }}'),
    ),
    Fault(
        checks.it_renders_the_same_everywhere,
        "a gate",
        ".Capabilities",
        write(TEMPLATES + "x.yaml", '{{ .Capabilities.APIVersions.Has "v1" }}'),
    ),
    Fault(
        checks.it_renders_the_same_everywhere,
        "a first installation that differs",
        "differs",
        replace(DEPLOYMENT, "args: .*", "args: [run, {{ .Release.IsInstall | quote }}]"),
    ),
    Fault(
        checks.replicas_are_left_to_autoscalers,
        "replicas beside KEDA",
        "keda",
        replace(DEPLOYMENT, "or .Values.keda.enabled", "or false"),
    ),
    Fault(
        checks.replicas_are_left_to_autoscalers,
        "replicas of nobody's",
        "default",
        replace(DEPLOYMENT, " +replicas: .*", ""),
    ),
    Fault(
        checks.the_grace_is_derived,
        "a grace that is fixed",
        "1m30s: 40 s, not 105",
        replace(DEPLOYMENT, "terminationGracePeriodSeconds: .*", "terminationGracePeriodSeconds: 40"),
    ),
    Fault(
        checks.the_grace_is_derived,
        "no time to give back",
        "25s: 25 s, not 40",
        replace(CONFIG, r"int\) 15", "int) 0"),
    ),
    Fault(
        checks.the_grace_is_derived,
        "minutes taken for milliseconds",
        "2 min 1 sec",
        replace(CONFIG, '"ms" "msec" "millis"', '"ms" "msec" "millis" "min"'),
    ),
    Fault(
        checks.the_grace_is_derived,
        "a grace rounded down",
        "1500ms",
        replace(CONFIG, r"ceil \| int", "floor | int"),
    ),
    Fault(
        checks.the_grace_is_derived,
        "a shorter grace that is taken",
        "are accepted",
        replace(VALIDATE, r"lt \(int \$given\) \$least", "lt (int $given) 0"),
    ),
    Fault(
        agreement.keys_and_defaults_are_the_workers,
        "a key under another name",
        "batch.lingers: the worker has no such key",
        replace(VALUES, "linger", "lingers"),
    ),
    Fault(
        agreement.keys_and_defaults_are_the_workers,
        "a key that is left out",
        "retry.max_strikes: not in values.yaml",
        replace(VALUES, "    max_strikes: 8\n", ""),
    ),
    Fault(
        agreement.keys_and_defaults_are_the_workers,
        "a default that drifted",
        "shutdown.grace: '30s', not '25s'",
        replace(VALUES, "grace: 25s", "grace: 30s"),
    ),
    Fault(
        agreement.keys_and_defaults_are_the_workers,
        "a default of one API",
        "batch.max_ids: 500, not None",
        replace(VALUES, "max_ids: null", "max_ids: 500"),
    ),
    Fault(
        agreement.keys_and_defaults_are_the_workers,
        "a key of the chart's own",
        "log.format: is set by the chart",
        replace(VALUES, "    level: info\n", "    level: info\n    format: json\n"),
    ),
    Fault(
        ranges("endpoint.max_concurrency"),
        "a wider range of numbers",
        "max_concurrency=1025: taken",
        replace(SCHEMA, '"maximum": 1024', '"maximum": 1025'),
    ),
    Fault(
        ranges("amqp.prefetch"),
        "a narrower range",
        "prefetch=65535: refused",
        replace(SCHEMA, '"maximum": 65535}\\]', '"maximum": 65534}]'),
    ),
    Fault(
        ranges("batch.linger"),
        "a wider range of durations",
        "linger='3600001ms': taken",
        replace(VALIDATE, '"linger" 0 3600000', '"linger" 0 7200000'),
    ),
    Fault(
        ranges("amqp.declare"),
        "a choice that is missing",
        "declare='skip': refused",
        replace(SCHEMA, ', "skip"', ""),
    ),
    Fault(
        ranges("amqp.queue_type"),
        "a choice too many",
        "queue_type='x': taken",
        replace(SCHEMA, '"quorum", "classic"', '"quorum", "classic", "x"'),
    ),
    Fault(
        ranges("worker"),
        "a type too many",
        "dry_run='true': taken",
        replace(SCHEMA, '"dry_run": {"type": "boolean"}', '"dry_run": {}'),
    ),
    Fault(
        ranges("dead_letter"),
        "bytes taken for characters",
        "ä': taken",
        replace(VALIDATE, r"gt \(len \(default .*\)\) 255", "gt 0 255"),
    ),
    Fault(
        agreement.unknown_keys_are_refused,
        "an open section",
        "config.retry: an unknown key is taken",
        replace(SCHEMA, r'("retry": \{\n +"type": "object",\n +"additionalProperties": )false', r"\1true"),
    ),
    Fault(
        agreement.unknown_keys_are_refused,
        "an open schema",
        "the root: an unknown key is taken",
        replace(SCHEMA, '"additionalProperties": false', '"additionalProperties": true', count=1),
    ),
    Fault(
        agreement.unknown_keys_are_refused,
        "a closed part of Kubernetes",
        "updateStrategy: an unknown key is refused",
        replace(
            SCHEMA,
            r'("updateStrategy": )\{.*?\}',
            r'\1{"type": "object", "propertyNames": {"pattern": "^[^u]"}}',
        ),
    ),
    Fault(
        agreement.unknown_keys_are_refused,
        "a value that the schema doesn't know",
        "metric: only in",
        replace(VALUES, "metrics:\n", "metric: {}\nmetrics:\n"),
    ),
    Fault(shipping.it_works_as_a_subchart, "no global", "global", replace(SCHEMA, '"global": .*\n', "")),
    Fault(
        shipping.it_works_as_a_subchart,
        "no enabled",
        "enabled",
        replace(SCHEMA, '"enabled": {"type": "boolean"},\n    "name', '"name'),
    ),
    Fault(
        shipping.it_works_as_a_subchart,
        "a global registry that is ignored",
        "global.imageRegistry",
        replace(
            HELPERS,
            r"default .Values.image.registry \$global.imageRegistry",
            "default .Values.image.registry nil",
        ),
    ),
    Fault(
        agreement.the_worker_takes_the_configuration,
        "a file that isn't mounted",
        "token/tokens is not mounted",
        replace(CONFIG, "token/token", "token/tokens"),
    ),
    Fault(
        agreement.the_worker_takes_the_configuration,
        "a Secret under another path",
        "urls",
        replace(
            POD,
            r'\(dict "urls" \$.Values.amqp.existingSecretKey\)',
            '(dict "url" $.Values.amqp.existingSecretKey)',
        ),
    ),
    Fault(
        agreement.the_worker_takes_the_configuration,
        "TOML that isn't",
        "default:",
        replace(CONFIG, r"toJson \$value", "toString $value"),
    ),
    Fault(
        agreement.the_worker_takes_the_configuration,
        "a format that isn't",
        "log.format",
        replace(CONFIG, '"format" "json"', '"format" "xml"'),
    ),
    Fault(
        agreement.the_worker_takes_the_configuration,
        "another port",
        "listens elsewhere",
        replace(DEPLOYMENT, r"(metrics.address) \(int .Values.metrics.port\)", r"\1 9091"),
    ),
    Fault(
        agreement.the_worker_takes_the_configuration,
        "the image's own port",
        "listens elsewhere",
        replace(DEPLOYMENT, r"DELETION_WORKER__ADMIN__LISTEN", "SOMETHING_ELSE"),
    ),
    Fault(
        shipping.the_examples_work,
        "an example that doesn't work",
        "maxReplicas",
        replace("README.md", "maxReplicaCount: 4", "maxReplicas: 4"),
    ),
    Fault(
        shipping.the_examples_work,
        "a value that is named wrongly",
        "NOTES.txt: podMonitor.enable is no value",
        replace(TEMPLATES + "NOTES.txt", "podMonitor.enabled=true", "podMonitor.enable=true"),
    ),
    Fault(
        shipping.the_package_is_complete,
        "a bare tests/ in .helmignore",
        "templates/tests/ready.yaml: not packaged",
        replace(".helmignore", "/tests/", "tests/"),
    ),
    Fault(
        shipping.the_package_is_complete,
        "cases in the package",
        "ci/default-values.yaml: packaged",
        replace(".helmignore", "/ci/\n", ""),
    ),
    Fault(
        shipping.the_readme_is_generated,
        "a description that changed",
        "out of date",
        replace(VALUES, "Replaces the chart's name", "Supplants the chart's name"),
    ),
    Fault(
        shipping.the_readme_is_generated,
        "a value without description",
        "metrics.port",
        replace(VALUES, "## @param metrics.port .*\n", "\n"),
    ),
    Fault(
        shipping.the_readme_is_generated,
        "a description without value",
        "metrics.prot",
        replace(VALUES, "## @param metrics.port ", "## @param metrics.prot x\n  ## @param metrics.port "),
    ),
    Fault(
        shipping.the_metadata_is_true,
        "another version",
        "appVersion",
        replace("Chart.yaml", 'appVersion: "0.1.0"', 'appVersion: "0.1.1"'),
    ),
    Fault(
        shipping.the_metadata_is_true,
        "another image",
        "the image is",
        replace("Chart.yaml", "image: deletion-worker:", "image: worker:"),
    ),
    Fault(
        shipping.the_metadata_is_true,
        "another licence",
        "licence",
        replace("Chart.yaml", "Apache-2.0 OR MIT", "MIT"),
    ),
    Fault(
        shipping.the_metadata_is_true,
        "an older Kubernetes",
        "kubeVersion",
        replace("Chart.yaml", ">=1.27.0-0", ">=1.26.0-0"),
    ),
    Fault(
        mistakes_are_refused,
        "nothing is validated",
        "prefetch: 9}",
        replace(DEPLOYMENT, "^.*validate.*\n", ""),
    ),
    Fault(
        mistakes_are_refused,
        "a small prefetch",
        "prefetch: 499}}: taken",
        replace(VALIDATE, r"lt \(int \$config.amqp.prefetch\) \$ids", "false"),
    ),
    Fault(
        mistakes_are_refused,
        "two monitors",
        "podMonitor: {enabled: true}",
        replace(VALIDATE, "if and .Values.podMonitor.enabled", "if and false"),
    ),
    Fault(
        mistakes_are_refused,
        "no token",
        "token: {existingSecret: ''}: taken",
        replace(
            VALIDATE,
            "else if not .or .include .deletion-worker.hasToken. .. .Values.config.worker.dry_run.",
            "else if false",
        ),
    ),
    Fault(
        mistakes_are_refused,
        "idle replicas",
        "maxReplicaCount: 3}: taken",
        replace(VALIDATE, r"maxReplicaCount\) 2", "maxReplicaCount) 9"),
    ),
    Fault(
        mistakes_are_refused,
        "too many IDs for v1.2",
        "api: v1.2}}: taken",
        replace(CONFIG, "ternary 100 500", "ternary 500 500"),
    ),
    Fault(
        mistakes_are_refused,
        "a reason without its key",
        "refused, but without",
        replace(VALIDATE, '"pdb: exactly', '"exactly'),
    ),
]
