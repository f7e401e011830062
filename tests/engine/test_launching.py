"""Engines in several places: each is started, and started again, where the settings and the operator say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from fronts import expected, long_requests, read, until
from loads import fake_config

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.engine.fleet.launching import HERE, Launcher, LaunchError, RunningEngine
from antiphon.engine.fleet.process import LocalLauncher
from antiphon.errors import ConfigError, EngineDied
from antiphon.grammar import Vocabulary


class Elsewhere:
    """A launcher whose engines run on this machine, as if it were another one."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.configs: list[EngineConfig] = []
        self.error: Exception | None = None

    async def start(self, config: EngineConfig, vocabulary: Vocabulary | None = None) -> RunningEngine:
        self.configs.append(config)
        if self.error:
            raise self.error
        return await LocalLauncher().start(config, vocabulary)


class Places:
    def __init__(self) -> None:
        self.others = {f"tcp://{name}:1": Elsewhere(f"tcp://{name}:1") for name in ("east", "west")}

    def __call__(self, address: str) -> Launcher:
        if address == HERE:
            return LocalLauncher()
        if address not in self.others:
            raise ConfigError(f"there is nothing at {address}")
        return self.others[address]


@asynccontextmanager
async def client_of(places: Places, config: EngineConfig) -> AsyncIterator[EngineClient]:
    client = EngineClient(config, ServerConfig(), launchers=places)
    await client.start()
    try:
        yield client
    finally:
        await client.drain(0)
        await client.stop()


async def test_engines_run_where_the_settings_say():
    places = Places()
    config = replace(fake_config(threads=3), engines=1, remote_engines=tuple(places.others))
    async with client_of(places, config) as client:
        await client.wait_ready()
        assert [engine.address for engine in client.engines()] == [None, *places.others]
        for place in places.others.values():  # which decides by itself on which cores its engines run
            assert [(each.cpus, each.threads) for each in place.configs] == [((), 3)]
        for request in long_requests(6):
            assert await read(client.generate(request)) == expected(request)


async def test_with_engines_elsewhere_there_need_be_none_here():
    places = Places()
    async with client_of(places, replace(fake_config(), remote_engines=("tcp://east:1",))) as client:
        await client.wait_ready()
        assert [engine.address for engine in client.engines()] == ["tcp://east:1"]


async def test_an_operator_adds_and_restarts_engines_anywhere_and_memory_is_only_counted_here():
    places = Places()
    config = replace(fake_config(), memory_bytes=1 << 60, remote_engines=("tcp://east:1",))  # which no machine has
    async with client_of(places, config) as client:
        await client.wait_ready()
        added = await client.operations.add_engine("tcp://west:1")
        assert [engine.address for engine in client.engines()] == ["tcp://east:1", "tcp://west:1"]
        restarted = await client.operations.restart_engine(added)
        assert [(each.id, each.address) for each in client.engines()] == [
            (1, "tcp://east:1"),
            (restarted, "tcp://west:1"),
        ]
        with pytest.raises(ConfigError, match="GiB are free"):
            await client.operations.add_engine(HERE)
        with pytest.raises(ConfigError, match="nothing at tcp://north:1"):
            await client.operations.add_engine("tcp://north:1")
        assert len(client.engines()) == 2


async def test_an_engine_that_cannot_be_started_for_now_is_tried_again_in_its_place():
    places = Places()
    east = places.others["tcp://east:1"]
    async with client_of(places, replace(fake_config(), remote_engines=(east.address,))) as client:
        east.error = LaunchError("its machine does not answer")
        await until(lambda: len(east.configs) == 2)
        assert client.trouble == "its machine does not answer"
        east.error = None
        await client.wait_ready()
        assert client.engines()[0].state is EngineState.READY


async def test_an_engine_that_never_could_be_started_is_an_error_in_words():
    places = Places()
    east = places.others["tcp://east:1"]
    async with client_of(places, replace(fake_config(), remote_engines=(east.address,))) as client:
        east.error = ConfigError("it has another version")
        with pytest.raises(ConfigError, match="another version"):
            await client.wait_ready()
        assert len(east.configs) == 1
    east.error = LaunchError("its machine does not answer")
    async with client_of(places, replace(fake_config(), remote_engines=(east.address,))) as client:
        with pytest.raises(EngineDied, match="does not answer"):
            await client.wait_ready()
