"""Engines behind an engine host serve as local ones do, and what is not a host, or not a front, is refused in words."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import closing, suppress
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from engine_hosts import SECRET, client_of, host_here
from fronts import expected, long_requests, read, until
from loads import ask, fake_config
from patience import PATIENCE
from processor_time import processor_time

from antiphon.config import ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.engine.fleet.launchers import free_memory_of_hosts
from antiphon.engine.remote import handshake
from antiphon.engine.remote.address import parse_address
from antiphon.engine.remote.channel import Kind, Sealer
from antiphon.engine.remote.connecting import connect
from antiphon.engine.remote.handshake import HELLO_BYTES, Hello, keys_of
from antiphon.engine.wire import MAX_FRAME_BYTES
from antiphon.errors import ConfigError, EngineDied, NotEnoughMemory
from antiphon.machine.gpu import Gpu


async def raw(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(address)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def ends(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side ends the connection."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def test_answers_are_what_they_are_alone_and_engines_show_where_they_are():
    async with host_here() as address, client_of(address, address, here=1) as client:
        await client.wait_ready()
        assert [engine.address for engine in client.engines()] == [None, address, address]
        assert [engine.pid is None for engine in client.engines()] == [False, True, True]
        requests = long_requests(24)
        answers = await asyncio.gather(*(read(client.generate(request)) for request in requests))
        assert answers == [expected(request) for request in requests]
        assert all(client.stats_of(engine.id).num_computed_tokens for engine in client.engines())


async def test_a_request_that_kills_its_engine_is_known_and_ends_after_two_of_them():
    async with host_here() as address, client_of(address, address, address, die_on=200, step_seconds=0.01) as client:
        await client.wait_ready()
        with pytest.raises(EngineDied, match="twice"):
            await read(client.generate(ask("poison", [1, 200])))
        assert sorted(engine.restarts for engine in client.engines()) == [0, 1, 1]
        (request,) = long_requests(1)
        assert await read(client.generate(request)) == expected(request)


async def test_an_engine_that_hangs_is_replaced_and_its_request_is_known():
    async with host_here() as address, client_of(address, hang_on=200, hang_timeout=0.6) as client:
        await client.wait_ready()
        with pytest.raises(EngineDied, match="twice"):
            await read(client.generate(ask("poison", [1, 200])))
        (request,) = long_requests(1)
        assert await read(client.generate(request)) == expected(request)


@pytest.mark.parametrize(("theirs", "says"), [("another secret, just as long", "refuses this server's secret")])
async def test_a_front_with_another_secret_is_refused_in_words(theirs, says):
    async with host_here() as address, client_of(address, secret=theirs) as client:
        with pytest.raises(ConfigError, match=says):
            await client.wait_ready()


async def test_a_host_that_only_pretends_to_know_the_secret_gets_nothing():
    """It repeats what the front sends, or makes its proof from another secret."""
    received = bytearray()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            front = Hello.decode(await reader.readexactly(HELLO_BYTES))
            host = Hello.fresh()
            writer.write(host.encode())
            await reader.readexactly(32)
            writer.write(keys_of("another secret, just as long", front, host).host_proof)
            received.extend(await ends(reader))

    async with await asyncio.start_server(pretend, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with client_of(f"tcp://127.0.0.1:{port}") as client:
            with pytest.raises(ConfigError, match="does not know this server's secret"):
                await client.wait_ready()
    assert not received


async def test_other_versions_of_the_protocol_are_named_on_both_sides(monkeypatch, caplog):
    async with host_here() as address:
        reader, writer = await raw(address)
        writer.write(Hello(handshake.PROTOCOL_VERSION + 1, b"n" * 32).encode())
        answer = Hello.decode(await ends(reader))
        assert answer.version == handshake.PROTOCOL_VERSION
        writer.close()
        await until(lambda: f"it speaks version {handshake.PROTOCOL_VERSION + 1}" in caplog.text)

    async def older(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await reader.readexactly(HELLO_BYTES)
            writer.write(Hello(0, b"n" * 32).encode())
            await ends(reader)

    async with await asyncio.start_server(older, "127.0.0.1", 0) as server:
        with pytest.raises(ConnectionError, match=r"version 0 .* speaks version 1; use the same version"):
            await connect(parse_address(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"), SECRET)


async def test_another_version_of_the_package_is_an_error_in_words(monkeypatch):
    monkeypatch.setattr("antiphon.engine_host.session.__version__", "0.0.1")
    async with host_here() as address, client_of(address) as client:
        with pytest.raises(ConfigError, match=r"it runs Antiphon 0\.0\.1, and this server"):
            await client.wait_ready()


async def test_garbage_costs_a_closed_connection_and_fronts_are_served_meanwhile():
    async with host_here() as address:
        before = processor_time()
        silent = [await raw(address) for _ in range(40)]  # more than may be open before they prove themselves
        for data in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3, bytes(100), os.urandom(100)):
            reader, writer = await raw(address)
            writer.write(data)
            assert await ends(reader) == b""
            writer.close()
        async with client_of(address) as client:
            await client.wait_ready()
            (request,) = long_requests(1)
            assert await read(client.generate(request)) == expected(request)
        for reader, _ in silent[:8]:  # the oldest went first, long before their time was over
            assert await ends(reader) == b""
        for _, writer in silent:
            writer.close()
        assert processor_time() - before < 5


async def proved(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Sealer]:
    """A connection whose front has proved itself, without what a channel does for it."""
    reader, writer = await raw(address)
    ours = Hello.fresh()
    writer.write(ours.encode())
    keys = keys_of(SECRET, ours, Hello.decode(await reader.readexactly(HELLO_BYTES)))
    writer.write(keys.front_proof)
    await reader.readexactly(32)
    return reader, writer, Sealer(keys.from_front)


@pytest.mark.parametrize("fault", ["changed", "repeated", "too long", "no message", "not begin"])
async def test_frames_of_a_front_that_are_not_as_they_should_be_end_its_connection(fault, caplog):
    async with host_here() as address:
        reader, writer, sealer = await proved(address)
        if fault == "changed":
            frame = bytearray(sealer.seal(Kind.CONTROL, b"x"))
            frame[5] ^= 1
            writer.write(frame)
        elif fault == "repeated":
            frame = sealer.seal(Kind.CONTROL, b"\x81\xa4type\xa9Heartbeat")
            writer.write(frame + frame)
        elif fault == "too long":
            writer.write((MAX_FRAME_BYTES + 1).to_bytes(4, "little") + b"\1")
        else:
            writer.write(sealer.seal(Kind.CONTROL, b"\xc1" if fault == "no message" else b"\x81\xa4type\xa4Kill"))
        await ends(reader)
        writer.close()
        await until(lambda: "refused: " in caplog.text)


async def test_a_captured_connection_cannot_be_played_again(caplog):
    """Who recorded a front's bytes sends them to the same host again: the nonce of the host is another one."""
    recorded = bytearray()
    async with host_here() as address:
        parts = urlsplit(address)

        async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            to_host = await asyncio.open_connection(parts.hostname, parts.port)

            async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, keep: bool) -> None:
                with closing(target), suppress(ConnectionError):
                    while data := await source.read(4096):
                        if keep:
                            recorded.extend(data)
                        target.write(data)

            await asyncio.gather(copy(reader, to_host[1], keep=True), copy(to_host[0], writer, keep=False))

        async with await asyncio.start_server(record, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with client_of(f"tcp://127.0.0.1:{port}") as client:
                await client.wait_ready()
        reader, writer = await raw(address)
        writer.write(recorded)
        assert len(await ends(reader)) == HELLO_BYTES  # it says hello, as to everyone, and nothing else
        writer.close()
        assert "it has another secret" in caplog.text


async def test_a_host_that_is_not_there_yet_is_waited_for_and_others_serve_meanwhile():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = f"tcp://127.0.0.1:{taken.getsockname()[1]}"  # nobody listens
        async with host_here() as address, client_of(away, address) as client:
            async with asyncio.timeout(PATIENCE):
                await client.wait_ready()
            assert [engine.state for engine in client.engines()] == [EngineState.LOADING, EngineState.READY]
            assert client.trouble == "its machine cannot be reached (Connection refused)"
            (request,) = long_requests(1)
            assert await read(client.generate(request)) == expected(request)
            with pytest.raises(EngineDied, match="cannot be reached"):
                await client.operations.add_engine(away)
            assert len(client.engines()) == 2


async def test_a_host_says_how_much_memory_it_has_and_refuses_more():
    async with host_here(free_memory=3 << 30) as address:
        server = ServerConfig(engine_secret=SECRET)
        assert await free_memory_of_hosts([address], server) == 3 << 30
        assert await free_memory_of_hosts([address, address, "tcp://127.0.0.1:1"], server) == 3 << 29
        assert await free_memory_of_hosts(["tcp://127.0.0.1:1"], server) is None
        config = replace(fake_config(), memory_bytes=2 << 30, remote_engines=(address, address))
        client = EngineClient(config, server)
        await client.start()
        with pytest.raises(NotEnoughMemory, match=r"need 2\.0 GiB .* its host has"):
            await client.wait_ready()
        await client.stop()


GPUS = [Gpu("NVIDIA A100", (8, 0), 80 << 30, free << 30, "570.1") for free in (20, 70, 30)]
GPUS[2] = replace(GPUS[2], capability=(7, 5))  # too old


@pytest.fixture
def with_packages(monkeypatch):
    monkeypatch.setattr("antiphon.machine.gpu._missing_packages", list)


async def test_the_plan_for_engines_on_gpus_of_a_host_is_made_for_the_memory_of_these_gpus(with_packages):
    server = ServerConfig(engine_secret=SECRET)
    async with host_here(gpus=GPUS) as address, host_here() as without:
        for addresses, device, expected_gib in (
            ([address], "cuda", 70),
            ([address, address], "cuda", 20),
            ([address], "cuda:0", 20),
        ):
            assert await free_memory_of_hosts(addresses, server, device) == expected_gib << 30
        with pytest.raises(ConfigError, match=r"3 engines on cuda there; .* have no engine: cuda:0, cuda:1$"):
            await free_memory_of_hosts([address] * 3, server, "cuda")
        with pytest.raises(ConfigError, match=r"1 engine on cuda there; .*: none$"):
            await free_memory_of_hosts([address, without], server, "cuda")


async def test_each_engine_of_a_host_gets_a_gpu_of_its_own_with_room_for_it(with_packages):
    sizes = {"device": "cuda", "gpu_bytes": 15 << 30, "memory_bytes": 1 << 60, "host_bytes": 2 << 30}
    async with host_here(gpus=GPUS, free_memory=7 << 30) as address:
        async with client_of(address, **sizes) as client:
            await client.wait_ready()
            assert await free_memory_of_hosts([address], ServerConfig(engine_secret=SECRET), "cuda") == 20 << 30
            assert await client.operations.add_engine(address) == 2
            with pytest.raises(NotEnoughMemory, match=r"engine on each GPU that can be used \(cuda:0, cuda:1\)"):
                await client.operations.add_engine(address)
            assert len(client.engines()) == 2
        async with client_of(address, **sizes | {"gpu_bytes": 71 << 30}) as client:
            with pytest.raises(
                NotEnoughMemory, match=r"need 71\.0 GiB of a GPU's memory, and cuda:1 .* 70\.0 GiB free"
            ):
                await client.wait_ready()
    async with host_here(gpus=GPUS, free_memory=1 << 30) as address, client_of(address, **sizes) as client:
        with pytest.raises(NotEnoughMemory, match=r"need 2\.0 GiB of memory, and its host has 1\.0 GiB"):
            await client.wait_ready()
    async with host_here() as address, client_of(address, **sizes) as client:
        with pytest.raises(ConfigError, match="there is no NVIDIA GPU"):
            await client.wait_ready()


async def test_a_secret_is_needed():
    with pytest.raises(ConfigError, match="need --engine-secret-file"):
        async with client_of("tcp://127.0.0.1:1", secret=""):
            pass


async def test_a_front_that_falls_silent_loses_its_engine(caplog):
    async with host_here(front_patience=0.5) as address:
        channel = await connect(parse_address(address), SECRET)
        from antiphon import __version__
        from antiphon.engine.remote.messages import Begin, Ended, Welcome, decode_from_host, encode_control

        begin = Begin(__version__, fake_config(), None, {}, 0.1)
        channel.send(Kind.CONTROL, encode_control(begin))
        said = [decode_from_host(payload) async for kind, payload in channel.frames() if kind is Kind.CONTROL]
        assert isinstance(said[0], Welcome)
        assert isinstance(said[-1], Ended)
        assert said[-1].status == -signal.SIGKILL
        assert "silent for" in caplog.text
        await channel.close()
