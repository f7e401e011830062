"""Engine hosts in processes of their own are killed, stopped and cut off; every answer is what it is alone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from certificates import certificate
from engine_hosts import SECRET, HostProcess, client_of, host_process
from fronts import expected, long_requests, read, until
from loads import ask
from patience import PATIENCE
from processes import is_gone, starved

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.errors import ConfigError


@asynccontextmanager
async def streaming(client: EngineClient, prefix: str = "") -> AsyncIterator[None]:
    """32 answers are being streamed at the beginning of the block; each ends as it would have alone."""
    requests = [replace(each, request_id=prefix + each.request_id) for each in long_requests(32)]
    begun: set[str] = set()
    client.subscribe(lambda event: begun.add(event.request_id))
    reading = [asyncio.create_task(read(client.generate(request))) for request in requests]
    await until(lambda: len(begun) == len(requests))
    yield
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*reading) == [expected(request) for request in requests]
    assert client.counters.failed == client.counters.aborted == 0


@asynccontextmanager
async def two_hosts(**settings: object) -> AsyncIterator[tuple[EngineClient, HostProcess, HostProcess]]:
    """A client with an engine on each of two hosts, both ready."""
    async with (
        host_process() as first,
        host_process() as second,
        client_of(first.address, second.address, step_seconds=0.01, **settings) as client,
    ):
        await client.wait_ready()
        assert len(first.engine_pids) == len(second.engine_pids) == 1
        yield client, first, second


async def test_streams_outlive_engines_and_hosts_that_are_killed_or_stopped():
    """A blow after the other at the first engine; each time it is ready again before the next."""
    async with two_hosts(hang_timeout=1.0) as (client, first, _):
        for victim, blow in (("engine", signal.SIGKILL), ("engine", signal.SIGSTOP), ("host", signal.SIGSTOP)):
            (engine,) = first.engine_pids
            async with streaming(client, f"{victim}-{blow}-"):
                os.kill(engine if victim == "engine" else first.pid, blow)
                await until(lambda: client.engines()[0].state is EngineState.RESTARTING)
                assert client.is_ready
            first.kill(signal.SIGCONT)
            await until(lambda: is_gone(engine))  # noqa: B023  # also where its host heard of nothing meanwhile
            await until(lambda: client.engines()[0].state is EngineState.READY)
        assert client.restarts == 3


async def test_an_engine_that_gets_no_processor_on_its_machine_is_not_hung():
    request = ask("starved", [1], max_tokens=20)
    async with host_process() as host, client_of(host.address, hang_timeout=1.0) as client:
        await client.wait_ready()
        (engine,) = host.engine_pids
        with starved(engine):
            reading = asyncio.create_task(read(client.generate(request)))
            await asyncio.sleep(6)
        assert await reading == expected(request)
        assert client.restarts == 0


async def test_streams_outlive_a_host_that_dies_or_is_stopped_by_its_operator(caplog):
    async with two_hosts() as (client, first, second):
        (engine,) = first.engine_pids
        async with streaming(client, "killed-"):
            first.kill()
            await until(lambda: is_gone(engine))
            await until(lambda: client.engines()[0].state is EngineState.RESTARTING)
            assert client.is_ready
        port = str(urlsplit(first.address).port)
        async with host_process("--port", port):  # it is back, at the same address
            await until(lambda: client.engines()[0].state is EngineState.READY)
            assert client.restarts == 1
            async with streaming(client, "stopped-"):
                second.kill(signal.SIGTERM)
                assert await second.process.wait() == 0
            assert "its host is being stopped" in caplog.text


async def test_streams_outlive_a_cut_connection_and_the_host_ends_the_engine():
    async with host_process() as host:
        parts = urlsplit(host.address)
        open_ends: list[asyncio.StreamWriter] = []

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = await asyncio.open_connection(parts.hostname, parts.port)
            open_ends.extend((writer, there[1]))

            async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                with closing(target), suppress(ConnectionError):
                    while data := await source.read(1 << 16):
                        target.write(data)

            await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

        async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
            address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with client_of(address, host.address, step_seconds=0.01) as client:
                await client.wait_ready()
                engines = host.engine_pids
                async with streaming(client):
                    for writer in open_ends:
                        writer.transport.abort()
                    await until(lambda: sum(map(is_gone, engines)) == 1)
                await until(lambda: all(engine.state is EngineState.READY for engine in client.engines()))


async def test_engines_of_other_machines_are_added_and_removed_under_streams():
    async with host_process() as host, client_of(here=1, step_seconds=0.01) as client:
        await client.wait_ready()
        async with streaming(client):
            added = await client.operations.add_engine(host.address)
            await client.operations.remove_engine(1)
            assert [engine.address for engine in client.engines()] == [host.address]
            restarted = await client.operations.restart_engine(added)
            assert [engine.id for engine in client.engines()] == [restarted]
        assert len(host.engine_pids) == 1
    # host_process has checked that nothing is left


async def test_connections_are_encrypted_where_the_address_says_so(tmp_path):
    cert, key = certificate(tmp_path)
    async with host_process("--ssl-certfile", str(cert), "--ssl-keyfile", str(key)) as host:
        assert host.address.startswith("tls://")
        address = f"tls://localhost:{urlsplit(host.address).port}"
        config = EngineConfig("", fake=True, remote_engines=(address,))
        for cafile, problem in ((str(cert), ""), ("", "its certificate cannot be trusted")):
            client = EngineClient(config, ServerConfig(engine_secret=SECRET, engine_ssl_cafile=cafile))
            await client.start()
            try:
                if problem:
                    with pytest.raises(ConfigError, match=problem):
                        await client.wait_ready()
                else:
                    await client.wait_ready()
                    (request,) = long_requests(1)
                    assert (await read(client.generate(request))).token_ids
            finally:
                await client.stop()
