"""Engines on a real Ray cluster of several nodes: they come, go, die and scale, and no answer changes or ends early."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import yaml
from fronts import expected, read, until
from loads import ask, fake_config
from patience import PATIENCE
from processes import is_gone, run_briefly
from ray_cluster import RayCluster, command_line, descendants, ray_cluster

from antiphon.commands.engine_places import EnginePlaces
from antiphon.config import ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.engine.fleet.launching import LaunchError

SERVE_FILE = Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml"

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with ray_cluster(tmp_path_factory.mktemp("ray"), 2, 1) as running:
        yield running


@asynccontextmanager
async def client_on(
    cluster: RayCluster, engines: int, *, server: ServerConfig | None = None, **engine: object
) -> AsyncIterator[EngineClient]:
    """A client with so many engines on the cluster, which are ready. Afterwards nothing of them is left."""
    server = server or ServerConfig(hang_timeout=PATIENCE)  # a busy machine makes nobody hang
    places = EnginePlaces(lambda: server)
    address = f"ray://{cluster.address}?num_cpus=1"
    config = replace(fake_config(**engine), remote_engines=(address,) * engines)
    client = EngineClient(config, server, launchers=places.launchers)
    await client.start()
    try:
        await client.wait_ready()
        yield client
    finally:
        hosts = [*cluster.processes("antiphon.ray.host_process"), *cluster.processes("antiphon.engine.worker")]
        await client.drain(0)
        await client.stop()
        await places.close()
        await until(lambda: all(map(is_gone, hosts)))
        assert not cluster.processes("antiphon")


def ready(client: EngineClient) -> int:
    return sum(engine.state is EngineState.READY for engine in client.engines())


class Users:
    """People who send one request after the other, and know what must come."""

    def __init__(self, client: EngineClient, count: int, max_tokens: int) -> None:
        self._client = client
        self._max_tokens = max_tokens
        self._is_over = False
        self._tasks = [asyncio.create_task(self._user(number)) for number in range(count)]

    async def _user(self, number: int) -> int:
        """Returns the number of answers."""
        for turn in range(1000):
            prompt, limit = [number + 1, turn + 1], self._max_tokens
            request = ask(f"u{number}-{turn}", prompt, temperature=0.6, seed=number, max_tokens=limit)
            assert await read(self._client.generate(request)) == expected(request)
            if self._is_over:
                break
        return turn + 1

    async def leave(self) -> None:
        """Let everybody read their last answer. Raises if any answer was not what it is alone."""
        self._is_over = True
        assert min(await asyncio.gather(*self._tasks)) >= 1


async def test_streams_go_on_while_engines_are_added_removed_and_killed(cluster: RayCluster):
    async with client_on(cluster, 2, step_seconds=0.02) as client:
        users = Users(client, 32, max_tokens=200)
        await client.operations.add_engines(1, client.engines()[0].address or "")
        assert ready(client) == 3
        for name in ("antiphon.engine.worker", "ray::HostActor", "antiphon.ray.host_process"):
            os.kill(cluster.processes(name)[0], signal.SIGKILL)
            await until(lambda: ready(client) == 2)
            await until(lambda: ready(client) == 3)
        assert client.restarts == 3
        await client.operations.remove_engine(client.engines()[0].id)
        await users.leave()
        assert client.counters.finished == client.counters.accepted


async def test_engines_come_and_go_with_the_load(cluster: RayCluster):
    server = ServerConfig(max_engines=3, autoscale_target_wait=0.1, upscale_delay=1.0, downscale_delay=2.0)
    async with client_on(cluster, 1, server=server, max_num_sequences=2, step_seconds=0.01) as client:
        users = Users(client, 20, max_tokens=60)
        await until(lambda: ready(client) == 3)
        await users.leave()
        await until(lambda: ready(client) == len(client.engines()) == 1)


async def test_without_room_or_without_a_cluster_the_reason_is_said(cluster: RayCluster):
    places = EnginePlaces(ServerConfig)
    try:
        launcher = places.launchers(f"ray://{cluster.address}?num_cpus=50&placement_timeout=0.5")
        with pytest.raises(LaunchError, match=r"no node of the Ray cluster had 50 CPUs free within 0\.5 seconds"):
            await launcher.start(fake_config())
        assert not cluster.processes("HostActor")
        launcher = places.launchers("ray://127.0.0.1:1?num_cpus=1")
        with pytest.raises(LaunchError, match=r"no Ray cluster can be reached at '127\.0\.0\.1:1'"):
            await launcher.start(fake_config())
    finally:
        await places.close()


class RayServe:
    """`serve run` of the file in deploy/ray, with other arguments."""

    def __init__(self, folder: Path, cluster: RayCluster, **arguments: object) -> None:
        config = yaml.safe_load(SERVE_FILE.read_text())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config |= {"http_options": {"host": "127.0.0.1", "port": port}, "proxy_location": "HeadOnly"}
        (application,) = config["applications"]
        application["args"] |= {"engines": f"ray://{cluster.address}?num_cpus=1", "max_engines": 2} | arguments
        self._config, self._log = folder / "serve.yaml", folder / "serve.log"
        self._config.write_text(yaml.safe_dump(config))
        self._address = cluster.address
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self) -> RayServe:
        self._start()
        return self

    def _start(self) -> None:
        with self._log.open("a") as log:
            program = Path(sys.executable).with_name("serve")
            arguments = [program, "run", self._config, "--address", self._address]
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log, process_group=0)

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    async def wait_ready(self, client: httpx2.AsyncClient) -> None:
        starts = 1
        async with asyncio.timeout(5 * PATIENCE):
            while True:
                if self._process.poll() is not None:  # it gives up when Serve's proxy needs a minute to start
                    starts += 1
                    assert starts <= 3, self._log.read_text()
                    self._start()
                with suppress(httpx2.TransportError):
                    if (await client.get("/ready")).status_code == 200:
                        return
                await asyncio.sleep(0.3)


async def text_of(client: httpx2.AsyncClient, number: int, begun: asyncio.Event | None = None) -> str:
    """A streamed answer; `begun` is set when its first text has come."""
    body = {"prompt": f"Number {number}:", "max_tokens": 4000, "seed": number, "stream": True, "ignore_eos": True}
    text, is_complete = "", False
    async with client.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                is_complete = True
            elif line.startswith("data: "):
                text += json.loads(line[6:])["choices"][0]["text"]
                if begun:
                    begun.set()
    assert is_complete
    return text


async def test_ray_serve_passes_everything_on_and_no_stream_ends_with_an_engine(
    cluster: RayCluster, tmp_path: Path, demo_model: Path
):
    arguments = {"model": str(demo_model), "fake_engine": True, "max_queued_requests": 20, "hang_timeout": 300}
    with RayServe(tmp_path, cluster, **arguments) as server:
        async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            await server.wait_ready(client)
            alone = [await text_of(client, number) for number in range(4)]
            begun = [asyncio.Event() for _ in alone]
            together = [asyncio.create_task(text_of(client, *each)) for each in enumerate(begun)]
            async with asyncio.timeout(PATIENCE):
                while not all(each.is_set() for each in begun):
                    run_briefly(cluster.processes("antiphon.engine.worker"))
                    await asyncio.sleep(0.1)
            assert not all(each.done() for each in together)
            killed, *others = cluster.processes("antiphon.engine.worker")
            os.kill(killed, signal.SIGKILL)
            for pid in others:  # there are some if it took long
                os.kill(pid, signal.SIGCONT)
            assert await asyncio.gather(*together) == alone
            assert "antiphon_engine_restarts_total 1.0" in (await client.get("/metrics")).text

            engines = cluster.processes("antiphon.engine.worker")
            for pid in engines:
                os.kill(pid, signal.SIGSTOP)
            full = {"prompt": ["x"] * 20, "max_tokens": 100_000, "stream": True, "ignore_eos": True}
            filling = asyncio.create_task(client.post("/v1/completions", json=full))
            await until_shown(client, 'antiphon_requests_running{endpoint="completions"} 1.0')
            refused = await client.post("/v1/completions", json={"prompt": "x", "max_tokens": 1})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "server_overloaded"
            assert int(refused.headers["retry-after"]) > 0
            filling.cancel()  # the client leaves, which the front is told
            await until_shown(client, 'antiphon_requests_aborted_total{endpoint="completions"} 1.0')
            for pid in engines:
                os.kill(pid, signal.SIGCONT)


async def until_shown(client: httpx2.AsyncClient, metric: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while metric not in (await client.get("/metrics")).text:  # noqa: ASYNC110  # what is waited for need not know of it
            await asyncio.sleep(0.1)


async def test_streams_go_on_when_a_node_or_the_driver_is_gone(cluster: RayCluster):
    async with client_on(cluster, 3, step_seconds=0.02) as client:
        users = Users(client, 8, max_tokens=200)
        cluster.kill_node()  # where one engine runs
        await until(lambda: ready(client) == 2)
        drivers = [pid for pid in descendants(os.getpid()) if "antiphon.ray.driver" in command_line(pid)]
        os.kill(drivers[0], signal.SIGKILL)  # Ray ends all of its actors
        await until(lambda: ready(client) == 0)
        await until(lambda: ready(client) == 2)
        await users.leave()
