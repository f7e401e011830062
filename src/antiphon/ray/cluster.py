"""A Ray cluster as the server sees it: places for engine hosts, and nodes. Talks to the `driver`; imports no Ray.

Owns the driver's process. It starts when it is first needed, and again after it has ended. When it ends, Ray ends its
actors, their engines' connections end too, and the supervisors ask for other places.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from typing import TypeVar

import msgspec

from antiphon.engine.fleet.launching import LaunchError
from antiphon.engine.remote.address import HostAddress
from antiphon.engine.remote.ray_address import RayAddress
from antiphon.errors import ConfigError
from antiphon.helper_process import kill_first_without_memory
from antiphon.ray.messages import (
    Answer,
    Ask,
    Connected,
    Found,
    FromDriver,
    Node,
    Nodes,
    NotConnected,
    Place,
    Placed,
    Refused,
    Release,
    decode_from_driver,
    encode_line,
)

_CONNECT_SECONDS = 120.0  # for a driver to import Ray and to find the cluster
_ANSWER_SECONDS = 60.0
_END_SECONDS = 5.0
_SLACK = 60.0  # seconds for an answer after the driver's own time-out
_LONGEST_LINE = 1 << 20
_AWAY = "the Ray cluster cannot be reached"

logger = logging.getLogger(__name__)

A = TypeVar("A", bound=Answer)


def check_installed() -> None:
    """Raises ConfigError if Ray is not installed."""
    if find_spec("ray") is None:
        raise ConfigError("engines on Ray need more packages: pip install 'antiphon[ray]'")


@dataclass(frozen=True, slots=True)
class HostOnRay:
    """An engine host that an actor runs."""

    address: HostAddress
    secret: str
    node: str  # its id in Ray
    ask_id: int  # names the actor to the driver


class RayCluster:
    """One cluster, for one server."""

    def __init__(self, cluster: str, hub: str = "huggingface", *, offline: bool = False) -> None:
        """`cluster`: as in the address; `hub`, `offline`: where hosts look for a model that is given by name."""
        self._cluster = cluster
        self._hub = hub
        self._offline = offline
        self._ids = count(1)
        self._driver: _Driver | None = None
        self._starting = asyncio.Lock()

    async def place(self, address: RayAddress, memory_bytes: int) -> HostOnRay:
        """Start an engine host on a node with room for an engine. `release` it when the engine has ended.

        `memory_bytes`: that the engine takes; 0: not known.

        Raises:
            LaunchError: there is no such node, or no cluster.
        """
        driver = await self._connected()
        ask = Place(
            next(self._ids),
            address.num_cpus,
            address.memory_bytes or memory_bytes,
            dict(address.resources),
            address.placement_timeout,
            self._hub,
            self._offline,
        )
        try:
            placed = await driver.ask(ask, Placed, address.placement_timeout + _SLACK)
        except BaseException:
            driver.say(Release(ask.ask_id))
            raise
        return HostOnRay(HostAddress(placed.host, placed.port, False), placed.secret, placed.node, ask.ask_id)

    def release(self, host: HostOnRay) -> None:
        """End an engine host, and its actor. Its driver may have ended, and the actor with it."""
        if self._driver:
            self._driver.say(Release(host.ask_id))

    async def nodes(self) -> list[Node]:
        """The nodes that are alive. Raises LaunchError if there is no cluster."""
        driver = await self._connected()
        return (await driver.ask(Nodes(next(self._ids)), Found, _ANSWER_SECONDS)).nodes

    async def close(self) -> None:
        """End the driver, and with it all actors."""
        if self._driver:
            await self._driver.close()
            self._driver = None

    async def _connected(self) -> _Driver:
        async with self._starting:
            if self._driver and self._driver.has_ended:
                await self.close()
            if self._driver is None:
                self._driver = await _Driver.start(self._cluster)
            return self._driver


class _Driver:
    """The driver's process, and the questions that it has not answered.

    The process is started without the event loop's help, since the loop may be one that cannot (in Ray Serve).
    """

    def __init__(
        self, process: subprocess.Popen[bytes], lines: asyncio.StreamReader, write: asyncio.WriteTransport
    ) -> None:
        self._process = process
        self._lines = lines
        self._write = write
        self._open: dict[int, asyncio.Future[Answer]] = {}
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, cluster: str) -> _Driver:
        """Start a driver and wait until it has found the cluster. Raises LaunchError."""
        try:
            process = subprocess.Popen(  # noqa: S603, ASYNC220  # which takes a few milliseconds
                [sys.executable, "-P", "-m", "antiphon.ray.driver", cluster, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                process_group=0,  # Ctrl-C on a terminal is for the server alone
                env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
            )
        except OSError as error:
            raise LaunchError(f"no process could be started for Ray ({error.strerror})") from error
        kill_first_without_memory(process.pid)
        loop, lines = asyncio.get_running_loop(), asyncio.StreamReader(limit=_LONGEST_LINE)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), process.stdout)
        write, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin)
        driver = cls(process, lines, write)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                first = await driver._message()
        except BaseException as error:
            await driver.close()
            if isinstance(error, TimeoutError):
                raise LaunchError(f"{_AWAY}: no answer in time", is_away=True) from None
            raise
        if not isinstance(first, Connected):
            await driver.close()
            reason = first.reason if isinstance(first, NotConnected) else f"{_AWAY}, and the server's log says why"
            raise LaunchError(reason, is_away=True)
        driver._reading = asyncio.create_task(driver._take_answers(), name="ray-driver")
        return driver

    @property
    def has_ended(self) -> bool:
        return self._reading is None or self._reading.done()

    async def ask(self, ask: Ask, expected: type[A], seconds: float) -> A:
        """The answer. Raises LaunchError if there is none, or it is a refusal."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._open[ask.ask_id] = future
        try:
            self.say(ask)
            async with asyncio.timeout(seconds):
                answer = await future
        except TimeoutError:
            raise LaunchError(f"{_AWAY}: no answer in time", is_away=True) from None
        finally:
            self._open.pop(ask.ask_id, None)
        if isinstance(answer, Refused):
            raise LaunchError(answer.reason, is_away=True)
        assert isinstance(answer, expected)
        return answer

    def say(self, ask: Ask) -> None:
        """Send a line; it is lost if the driver has ended."""
        if not self.has_ended and not self._write.is_closing():
            self._write.write(encode_line(ask))

    async def close(self) -> None:
        """End the process: by the end of its pipe, then by a signal."""
        self._write.close()
        try:
            await asyncio.to_thread(self._process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        if self._reading:
            await asyncio.wait({self._reading})

    async def _take_answers(self) -> None:
        """Give answers to those who wait for them, until the driver ends."""
        try:
            while (message := await self._message()) is not None:
                if isinstance(message, Answer) and (future := self._open.get(message.ask_id)) and not future.done():
                    future.set_result(message)
        finally:
            logger.info("the Ray driver has ended")
            for future in self._open.values():
                if not future.done():
                    future.set_exception(LaunchError(_AWAY, is_away=True))

    async def _message(self) -> FromDriver | None:
        """The next message; None: the driver has ended, or does not say what it should."""
        with suppress(OSError, ValueError, msgspec.DecodeError):  # a line that is too long is a ValueError
            if line := await self._lines.readline():
                return decode_from_driver(line)
        return None
