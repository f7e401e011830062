"""deploy/kubernetes: what is rendered is valid, restricted, and complete in itself."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml
from custom_resources import SCHEMAS
from kubernetes import (
    COMPONENTS,
    FOLDER,
    OVERLAYS,
    ROOT,
    Object,
    container,
    of_kind,
    overlay,
    pods,
    referenced,
    render,
    server,
)
from pod_security import violations

from antiphon.config import EngineConfig

OLDEST, LATEST = "1.30", "1.37"  # of Kubernetes
DOCUMENT = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
SECRETS = {("Secret", name) for name in re.findall(r"create secret generic (\S+) --from-file", DOCUMENT)}


def rendered_in(folder: Path, **kustomization: object) -> list[Object]:
    """The objects of a kustomization.yaml in `folder`, which may say FOLDER for ours. Paths must be relative."""
    ours = os.path.relpath(FOLDER, folder.resolve())
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization).replace("FOLDER", ours))
    return render(folder)


@pytest.fixture(scope="module")
def image_volume(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """One server with its model from an image, in a namespace of another name."""
    folder = tmp_path_factory.mktemp("image")
    resources, components = ["FOLDER/overlays/single"], ["FOLDER/components/model-image"]
    return rendered_in(folder, resources=resources, components=components, namespace="elsewhere")


@pytest.fixture(scope="module")
def on_gpus(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """Several servers, each on a GPU."""
    folder = tmp_path_factory.mktemp("gpu")
    return rendered_in(folder, resources=["FOLDER/overlays/several"], components=["FOLDER/components/gpu"])


def faults(each: Object, version: str) -> list[str]:
    """What is wrong with an object, by its schema."""
    if schema := SCHEMAS.get(each["kind"]):
        return [error.message for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(each)]
    try:
        kubernetes_validate.validate(each, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error)]
    return []


@pytest.mark.parametrize("version", [OLDEST, LATEST])
def test_every_object_of_every_overlay_keeps_to_its_schema(version: str):
    assert f"schemas of {OLDEST} and {LATEST}" in DOCUMENT
    distinct = {json.dumps(each): each for name in OVERLAYS for each in overlay(name)}
    for each in distinct.values():
        assert not faults(each, version), each["metadata"]["name"]


def test_the_schemas_would_find_a_field_that_does_not_exist():
    for each in overlay("inference-gateway"):
        damaged = copy.deepcopy(each)
        damaged.get("spec", damaged)["nonsense"] = 1
        assert faults(damaged, LATEST), each["kind"]


def test_a_model_from_an_image_is_valid_and_leaves_no_volume_and_no_download(image_volume: list[Object]):
    for each in image_volume:
        assert not faults(each, LATEST), each["metadata"]["name"]
    assert not of_kind(image_volume, "Job")
    assert not of_kind(image_volume, "PersistentVolumeClaim")
    assert "antiphon-pull" not in of_kind(image_volume, "NetworkPolicy")
    (model,) = [each for name, each in of_kind(image_volume, "ConfigMap").items() if name.startswith("antiphon-model")]
    mounts = container(server(image_volume), "server")["volumeMounts"]
    (mount,) = [each["mountPath"] for each in mounts if each["name"] == "models"]
    assert model["data"]["model"].startswith(f"{mount}/")


@pytest.mark.parametrize("version", [OLDEST, LATEST])
def test_a_server_on_a_gpu_is_valid_restricted_and_asks_for_one(on_gpus: list[Object], version: str):
    for each in on_gpus:
        assert not faults(each, version), each["metadata"]["name"]
    pod = server(on_gpus)
    assert not violations(pod.spec)
    serving = container(pod, "server")
    assert serving["resources"]["requests"] == serving["resources"]["limits"]
    assert {*map(str, serving["resources"]["limits"])} == {"cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"}
    assert serving["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert serving["image"] == "registry.example.org/antiphon:0.1.0-gpu"
    assert [each["resources"] for each in pod.spec["initContainers"]] == [
        each["resources"] for each in server(overlay("several")).spec["initContainers"]
    ], "only the server gets a GPU"


def test_a_server_on_a_gpu_uses_it_and_can_write_the_kernels_that_it_compiles(on_gpus: list[Object]):
    pod = server(on_gpus)
    serving = container(pod, "server")
    values = {each["name"]: each.get("value") for each in serving["env"]}
    assert values.keys() - {each["name"] for each in container(server(overlay("several")), "server")["env"]} == {
        "ANTIPHON_DEVICE",
        "TRITON_CACHE_DIR",
    }
    assert EngineConfig("m", device=values["ANTIPHON_DEVICE"]).device == "cuda"
    (mount,) = [each for each in serving["volumeMounts"] if each["mountPath"] == values["TRITON_CACHE_DIR"]]
    assert not mount.get("readOnly")
    (volume,) = [each for each in pod.spec["volumes"] if each["name"] == mount["name"]]
    assert "emptyDir" in volume
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod.spec["tolerations"]


def test_an_overlay_can_have_another_namespace(image_volume: list[Object]):
    namespaced = [each for each in image_volume if each["kind"] != "Namespace"]
    assert {each["metadata"]["namespace"] for each in namespaced} == {"elsewhere"}
    assert list(of_kind(image_volume, "Namespace")) == ["elsewhere"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_is_restricted_and_the_namespace_refuses_others(name: str, image_volume: list[Object]):
    (namespace,) = of_kind(overlay(name), "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in [*pods(overlay(name)), *pods(image_volume)]:
        assert not violations(pod.spec), pod.owner
        assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in pod.containers)
        assert pod.spec["automountServiceAccountToken"] is (pod.owner == "antiphon-endpoint-picker")
        assert pod.spec["enableServiceLinks"] is False  # else a Service named antiphon sets ANTIPHON_PORT
    for account in of_kind(overlay(name), "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False


def test_the_policy_check_would_find_a_pod_that_is_not_restricted():
    spec = server(overlay("single")).spec
    for change in (
        {"hostNetwork": True},
        {"securityContext": {}},
        {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
        {"containers": [{**spec["containers"][0], "securityContext": {"privileged": True}}]},
    ):
        assert violations(spec | change), change


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_container_is_bounded_and_has_what_it_asked_for(name: str):
    for pod in pods(overlay(name)):
        for each in pod.containers:
            resources = each["resources"]
            assert resources["requests"] == resources["limits"], each["name"]  # quality of service: Guaranteed
            assert resources["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}
            assert re.fullmatch(r"[1-9]\d*", resources["limits"]["cpu"]), "not whole CPUs"
            image, _, tag = each["image"].rpartition(":")
            assert image
            assert re.search(r"\d", tag), "the image has no version"


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_that_is_named_exists(name: str):
    objects = overlay(name)
    there = {(each["kind"], each["metadata"]["name"]) for each in objects}
    for each in objects:
        for reference in referenced(each):
            assert reference in there | SECRETS, f"{each['metadata']['name']} names {reference}"
    for pod in pods(objects):
        volumes = {each["name"] for each in pod.spec["volumes"]}
        assert {mount["name"] for each in pod.containers for mount in each["volumeMounts"]} == volumes
    for each in of_kind(objects, "RoleBinding").values():
        assert {("ServiceAccount", subject["name"]) for subject in each["subjects"]} <= there
    for each in of_kind(objects, "HTTPRoute").values():
        assert {(to["kind"], to["name"]) for rule in each["spec"]["rules"] for to in rule["backendRefs"]} <= there


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_selects_pods_finds_some_and_ports_are_theirs(name: str):
    objects = overlay(name)
    for service in of_kind(objects, "Service").values():
        selected = [pod for pod in pods(objects) if pod.matches(service["spec"]["selector"])]
        assert len(selected) == 1
        for port in service["spec"]["ports"]:
            assert selected[0].ports()[port["targetPort"]] == port["port"]
    for kind in ("Deployment", "PodDisruptionBudget", "InferencePool"):
        for each in of_kind(objects, kind).values():
            labels = each["spec"]["selector"]["matchLabels"]
            selected = [pod for pod in pods(objects) if pod.matches(labels)]
            assert len(selected) == 1
            for port in each["spec"].get("targetPorts", ()):
                assert port["number"] in selected[0].ports().values()
    for each in of_kind(objects, "ServiceMonitor").values():
        selector = each["spec"]["selector"]["matchLabels"].items()
        services = [
            one for one in of_kind(objects, "Service").values() if selector <= one["metadata"]["labels"].items()
        ]
        assert [service["metadata"]["name"] for service in services] == ["antiphon"]
        assert each["spec"]["endpoints"][0]["port"] in {port["name"] for port in services[0]["spec"]["ports"]}
        assert services[0]["metadata"]["labels"][each["spec"]["jobLabel"]] == "antiphon"  # the job of the alerts


@pytest.mark.parametrize("name", OVERLAYS)
def test_nothing_may_be_sent_or_received_but_what_is_listed(name: str):
    objects = overlay(name)
    policies = of_kind(objects, "NetworkPolicy")
    deny = policies.pop("default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    senders, open_ports = set(), set()
    for policy in policies.values():
        (pod,) = [pod for pod in pods(objects) if pod.matches(policy["spec"]["podSelector"]["matchLabels"])]
        for rule in policy["spec"].get("ingress", ()):
            assert rule["from"]
            open_ports |= {(pod.owner, pod.ports()[port["port"]]) for port in rule["ports"]}
        for rule in policy["spec"].get("egress", ()):
            senders.add(pod.owner)
            assert rule["ports"]
    picker = name == "inference-gateway"
    assert senders == {"antiphon-pull"} | ({"antiphon-endpoint-picker"} if picker else set())
    assert open_ports == {("antiphon", 8000)} | ({("antiphon-endpoint-picker", 9002)} if picker else set())
    (https,) = [rule for rule in policies["antiphon-pull"]["spec"]["egress"] if "ipBlock" in rule["to"][0]]
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= {*https["to"][0]["ipBlock"]["except"]}


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_update_does_not_wait_for_a_volume_that_another_node_holds(name: str):
    objects = overlay(name)
    (modes,) = [each["spec"]["accessModes"] for each in of_kind(objects, "PersistentVolumeClaim").values()]
    deployment = of_kind(objects, "Deployment")["antiphon"]["spec"]
    if modes == ["ReadWriteOnce"]:
        assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    else:
        assert modes == ["ReadWriteMany"]
        assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_an_autoscaler_alone_decides_the_number_of_servers():
    for name in OVERLAYS:
        scaled = {
            each["spec"]["scaleTargetRef"]["name"]
            for each in of_kind(overlay(name), "HorizontalPodAutoscaler").values()
        }
        for deployment, each in of_kind(overlay(name), "Deployment").items():
            assert ("replicas" in each["spec"]) is (deployment not in scaled)


def test_the_overlay_in_the_document_works(tmp_path: Path):
    (example,) = [part for part in re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.S) if "kind: Kustomization" in part]
    (tmp_path / "antiphon.toml").write_text((FOLDER / "base" / "antiphon.toml").read_text())
    objects = rendered_in(tmp_path, **yaml.safe_load(example.replace("../antiphon/deploy/kubernetes", "FOLDER")))
    serving = container(server(objects), "server")
    assert serving["image"] == "registry.your-company.example/antiphon:0.1.0"
    assert serving["resources"]["limits"] == {"cpu": "8", "memory": "12Gi", "ephemeral-storage": "512Mi"}
    models = [each["data"]["model"] for name, each in of_kind(objects, "ConfigMap").items() if "model" in name]
    assert models == ["deepseek-r1:1.5b-q8_0"]
    assert not [fault for each in objects for fault in faults(each, LATEST)]


def test_every_overlay_and_component_is_described_and_so_is_every_label_that_gives_access():
    for name in (*OVERLAYS, *COMPONENTS):
        assert f"`{name}`" in DOCUMENT, name
    text = "\n".join(path.read_text() for path in FOLDER.rglob("*.yaml"))
    for label in re.findall(r"^ *(antiphon-\S+): \"true\"", text, re.M):
        assert f"{label}=true" in DOCUMENT
