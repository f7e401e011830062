"""What Kubernetes' Pod Security Standards forbid a pod at the level "restricted".

After <https://kubernetes.io/docs/concepts/security/pod-security-standards/>, the controls of "baseline" included. The
API server checks the same in a namespace with the label `pod-security.kubernetes.io/enforce: restricted`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_HOST = ("hostNetwork", "hostPID", "hostIPC")
_PROFILES = ({"type": "RuntimeDefault"}, {"type": "Localhost"})


def violations(spec: dict[str, Any]) -> list[str]:
    """What is wrong with the specification of a pod; empty: nothing."""
    found = [name for name in _HOST if spec.get(name)]
    found += [f"volume {each['name']}" for each in spec.get("volumes", ()) if not each.keys() - {"name"} <= _VOLUMES]
    pod = spec.get("securityContext", {})
    found += [
        f"pod: {name}" for name in ("sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile") if name in pod
    ]
    for each in (*spec.get("initContainers", ()), *spec["containers"], *spec.get("ephemeralContainers", ())):
        found += [f"{each['name']}: {fault}" for fault in _of_container(each, pod)]
    return found


def _of_container(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    effective = pod | own
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if own.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "capabilities are not dropped"
    if set(own.get("capabilities", {}).get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    if effective.get("runAsNonRoot") is not True or effective.get("runAsUser") == 0:
        yield "may run as root"
    if effective.get("seccompProfile") not in _PROFILES:
        yield "no seccomp profile"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name, {})
        if any(action.get("host") for action in probe.values() if isinstance(action, dict)):
            yield f"{name} asks another host"
