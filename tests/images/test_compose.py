"""deploy/compose.yaml, run by Podman Compose: two servers behind HAProxy, and Prometheus reads both.

Other programs are Debian's, in images of our own, since no registry is asked here; Grafana is not among them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from containers import ROOT, build_stand_in, need, podman_program, run, unused_port
from patience import PATIENCE, wait_until
from real_server import TLS

_KEY = "0123456789abcdef0123456789abcdef"
_STARTED = ("server-1", "server-2", "haproxy", "prometheus-several", "alertmanager-several")
_PORTS = ("PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT")


@pytest.mark.slow
def test_two_servers_behind_haproxy_are_watched_and_every_health_check_passes(
    image: str, demo_model: Path, tmp_path: Path
):
    need("podman-compose", "/usr/lib/podman/aardvark-dns")
    with composed(image, demo_model, tmp_path) as ports:
        wait_until(lambda: get(ports["PORT"], "/ready") == "ready", "HAProxy found no server")
        reply = httpx2.post(
            f"http://127.0.0.1:{ports['PORT']}/v1/completions",
            json={"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0},
            headers={"Authorization": f"Bearer {_KEY}"},
            timeout=PATIENCE,
            trust_env=False,
            verify=TLS,
        )
        assert "Paris" in reply.json()["choices"][0]["text"]
        assert get(ports["PORT"], "/metrics") == "404"  # for operators, who reach the servers themselves
        wait_until(
            lambda: up(ports["PROMETHEUS_PORT"]) == {"server-1:8000", "server-2:8000"}, "a server is not scraped"
        )
        for name in _STARTED:
            run(str(tmp_path / "podman"), "healthcheck", "run", f"antiphon_{name}_1", cwd=tmp_path)


@contextmanager
def composed(image: str, model: Path, folder: Path) -> Iterator[dict[str, int]]:
    """The profile `several`, without Grafana, for the time of the block; the ports of this machine that it has."""
    shutil.copy(ROOT / "deploy" / "compose.yaml", folder)
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    for name, text in (("metrics-key", _KEY), ("api-keys", f"metrics: {_KEY}"), ("grafana-password", "unused")):
        (secrets / name).write_text(text + "\n")
    podman_program(folder)
    ports = {name: unused_port() for name in _PORTS}
    variables = {name: str(port) for name, port in ports.items()} | {
        "ANTIPHON_IMAGE": image,
        "ANTIPHON_MODEL": f"/models/{model.name}",
        "MODELS": str(model.parent),
        "ANTIPHON_CPUS": "1",
        "ANTIPHON_MEMORY": "1g",
        "HAPROXY_IMAGE": build_stand_in("haproxy", "haproxy"),
        "PROMETHEUS_IMAGE": build_stand_in("prometheus", "prometheus", "/prometheus"),
        "ALERTMANAGER_IMAGE": build_stand_in("prometheus-alertmanager", "prometheus-alertmanager", "/alertmanager"),
    }
    environment = {**os.environ, **variables, "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    compose = ("podman-compose", "--profile", "several")
    try:
        run(*compose, "up", "--no-build", "--detach", *_STARTED, cwd=folder, env=environment)
        yield ports
    finally:
        run(*compose, "down", "--volumes", cwd=folder, env=environment)


def get(port: int, path: str) -> str:
    """The status that an answer in JSON names, or else its HTTP status."""
    try:
        reply = httpx2.get(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE, trust_env=False, verify=TLS)
        return str(reply.json().get("status", reply.status_code))
    except (httpx2.HTTPError, ValueError):
        return ""


def up(port: int) -> set[str]:
    """The servers that Prometheus could read."""
    url = f"http://127.0.0.1:{port}/api/v1/query"
    try:
        reply = httpx2.get(url, params={"query": "up == 1"}, timeout=PATIENCE, trust_env=False, verify=TLS)
    except httpx2.HTTPError:
        return set()
    return {each["metric"]["instance"] for each in reply.json()["data"]["result"]}
