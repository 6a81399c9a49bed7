"""That each rule of pod_security.py can fail, and that what the standard allows passes."""

import pytest
import yaml

import pod_security
from chart import merged

RESTRICTED = """
securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
"""
CONTAINER = """
name: a
securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""

# What is laid over the pod, what over its container, and what is said of it.
REFUSED = [
    ("hostNetwork: true", "", "hostNetwork"),
    ("hostPID: true", "", "hostPID"),
    ("hostIPC: true", "", "hostIPC"),
    ("volumes: [{name: v, hostPath: {path: /}}]", "", "volume v"),
    ("volumes: [{name: v, nfs: {server: a, path: /}}]", "", "volume v"),
    ("securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}", "", "sysctl kernel.msgmax"),
    ("securityContext: {runAsNonRoot: false}", "", "runAsNonRoot is false"),
    ("securityContext: {runAsNonRoot: null}", "", "runAsNonRoot is not true"),
    ("securityContext: {runAsUser: 0}", "", "runAsUser is root"),
    ("securityContext: {seccompProfile: {type: Unconfined}}", "", "seccompProfile is Unconfined"),
    ("securityContext: {seLinuxOptions: {type: spc_t}}", "", "seLinuxOptions"),
    ("securityContext: {seLinuxOptions: {user: root}}", "", "seLinuxOptions"),
    ("securityContext: {appArmorProfile: {type: Unconfined}}", "", "appArmorProfile"),
    ("securityContext: {windowsOptions: {hostProcess: true}}", "", "hostProcess"),
    ("", "securityContext: {privileged: true}", "privileged"),
    ("", "securityContext: {allowPrivilegeEscalation: null}", "allowPrivilegeEscalation"),
    ("", "securityContext: {runAsNonRoot: false}", "runAsNonRoot is not true"),
    ("", "securityContext: {runAsUser: 0}", "runAsUser is root"),
    ("", "securityContext: {seccompProfile: {type: Unconfined}}", "seccompProfile is not set"),
    ("", "securityContext: {capabilities: {drop: [NET_RAW]}}", "ALL is not dropped"),
    ("", "securityContext: {capabilities: {add: [NET_ADMIN]}}", "some are added"),
    ("", "securityContext: {procMount: Unmasked}", "procMount"),
    ("", "ports: [{containerPort: 1, hostPort: 1}]", "hostPort"),
    ("", "livenessProbe: {httpGet: {port: 1, host: a}}", "names a host"),
    ("", "lifecycle: {preStop: {tcpSocket: {port: 1, host: a}}}", "names a host"),
]

ALLOWED = [
    ("", ""),
    ("volumes: [{name: v, secret: {secretName: a}}, {name: w, emptyDir: {}}]", ""),
    ("securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '1'}], runAsUser: 1}", ""),
    ("securityContext: {seccompProfile: {type: Localhost, localhostProfile: a}}", ""),
    ("securityContext: {seLinuxOptions: {type: container_t, level: 's0:c1'}}", ""),
    ("", "securityContext: {capabilities: {add: [NET_BIND_SERVICE]}}"),
    ("", "livenessProbe: {httpGet: {port: 1, path: /}}"),
]


def faults(pod, container, kind="containers", annotations=None):
    laid = [yaml.safe_load(text) or {} for text in (RESTRICTED, pod, CONTAINER, container)]
    return pod_security.faults({**merged(*laid[:2]), kind: [merged(*laid[2:])]}, annotations)


@pytest.mark.parametrize(("pod", "container", "said"), REFUSED)
def test_the_profile_refuses(pod, container, said):
    assert said in "\n".join(faults(pod, container))


@pytest.mark.parametrize(("pod", "container"), ALLOWED)
def test_the_profile_allows(pod, container):
    assert faults(pod, container) == []


@pytest.mark.parametrize("kind", ["initContainers", "ephemeralContainers"])
def test_it_holds_for_every_kind_of_container(kind):
    assert faults("", "securityContext: {privileged: true}", kind) == ["a: privileged"]


def test_apparmor_may_not_be_annotated_away():
    key = "container.apparmor.security.beta.kubernetes.io/a"
    assert faults("", "", annotations={key: "unconfined"}) == [f"annotation {key}"]
    assert faults("", "", annotations={key: "localhost/own"}) == []
