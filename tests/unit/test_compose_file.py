"""deploy/compose.yaml: valid, every service restricted, and its parts fit together."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
FILE = ROOT / "deploy" / "compose.yaml"
GPU_FILE = ROOT / "deploy" / "compose.gpu.yaml"
GPU_ARGUMENTS = ["BASE=docker.io/nvidia/cuda:13.0.2-base-ubuntu24.04", "EXTRAS=gpu"]
COMPOSE = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROFILES = ("one", "several")
GENERATED = "/var/lib/antiphon"  # where the volume of generated files is mounted


def of_profile(profile: str) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in SERVICES.items() if profile in service["profiles"]}


def merged(*files: Path, profile: str = "several") -> dict[str, dict[str, Any]]:
    """The services of several files together, as Podman Compose merges them. It asks for Podman's version only."""
    options = [option for file in files for option in ("--file", str(file))]
    podman = ("--podman-path", "/bin/echo")
    command = [TOOLS / "podman-compose", *podman, *options, "--profile", profile, "config"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "deploy")
    return yaml.safe_load(found.stdout)["services"]


def is_ours(service: dict[str, Any]) -> bool:
    return "antiphon" in service["image"]


def test_the_files_keep_to_composes_specification():
    check = [TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", FILE, GPU_FILE]
    finished = subprocess.run(check, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_restricted_and_bounded(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert is_ours(service) or "test" in service["healthcheck"]  # our image has its own
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys()
    assert not re.search(r"\.sock\b", str(service))
    writes_files = service["command"][0] in ("monitoring", "proxy-config") if "command" in service else False
    assert service["restart"] == ("no" if writes_files else "unless-stopped")


@pytest.mark.parametrize("profile", PROFILES)
def test_only_the_api_is_open_to_other_machines_and_at_one_place(profile: str):
    ports = [port for service in of_profile(profile).values() for port in service.get("ports", ())]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == ["${PORT:-8000}:8000"]
    assert len({port.rpartition(":")[0] for port in ports}) == len(ports)


@pytest.mark.parametrize("profile", PROFILES)
def test_whatever_a_service_needs_is_in_each_of_its_profiles(profile: str):
    services = of_profile(profile)
    for service in services.values():
        assert service.get("depends_on", {}).keys() <= services.keys()
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
        named = {volume.split(":")[0] for volume in service.get("volumes", ()) if volume[0] not in "./$"}
        assert named <= COMPOSE["volumes"].keys()
        if GENERATED in str(service.get("command", ())) and not is_ours(service):
            assert "service_completed_successfully" in str(service["depends_on"])


def test_servers_get_longer_to_stop_than_their_answers_get():
    servers = {name: service for name, service in SERVICES.items() if service.get("command", [""])[0] == "serve"}
    assert set(servers) == {"server", "server-1", "server-2"}
    for service in servers.values():
        assert int(service["stop_grace_period"].removesuffix("s")) > 30  # --drain-timeout


@pytest.mark.parametrize("profile", PROFILES)
def test_our_commands_write_the_files_that_the_other_services_read(profile: str, tmp_path: Path):
    services = of_profile(profile)
    for service in services.values():
        if is_ours(service) and service["command"][0] != "serve":
            command = [part.replace(GENERATED, str(tmp_path)) for part in service["command"]]
            subprocess.run([sys.executable, "-m", "antiphon", *command], check=True, capture_output=True)
    texts = [str(service.get("command", "")) + str(service.get("environment", "")) for service in services.values()]
    readers = [text for text, service in zip(texts, services.values(), strict=True) if not is_ours(service)]
    read = [path for text in readers for path in re.findall(rf"{GENERATED}([\w/.-]+)", text)]
    assert len(read) == (4 if profile == "several" else 3)
    assert all((tmp_path / path.lstrip("/")).exists() for path in read)

    scraped = yaml.safe_load((tmp_path / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    (targets,) = [
        static["targets"] for job in scraped for static in job["static_configs"] if job["job_name"] == "antiphon"
    ]
    servers = [name for name, service in services.items() if service.get("command", [""])[0] == "serve"]
    assert targets == [f"{name}:8000" for name in servers]
    if profile == "several":
        assert re.findall(r"^ *server s\d+ (\S+)$", (tmp_path / "haproxy.cfg").read_text(), re.M) == targets


def test_with_the_file_for_gpus_each_server_has_one_and_is_otherwise_the_same():
    """Only servers change: the programs that write files need no GPU, and not its image."""
    plain, with_gpus = merged(FILE), merged(FILE, GPU_FILE)
    assert plain.keys() == with_gpus.keys()
    servers = [name for name, service in plain.items() if service.get("command", [""])[0] == "serve"]
    ids = []
    for name, service in plain.items():
        changed = with_gpus[name]
        if name not in servers:
            assert changed == service
            continue
        (device,) = changed.pop("deploy")["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        ids += device["device_ids"]
        assert changed.pop("image") != service.pop("image")
        assert changed.pop("build") == {**service.pop("build"), "args": GPU_ARGUMENTS}
        environment = changed.pop("environment")
        assert {**service.pop("environment"), "ANTIPHON_DEVICE": "cuda"} == environment
        assert (service.pop("mem_limit"), changed.pop("mem_limit")) == ("4g", "8g")
        assert changed == service
    assert ids == ["0", "1"]
