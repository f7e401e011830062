"""Servers that `antiphon bench compare` starts itself, from commands with `{port}`.

A server that is not measured is paused (SIGSTOP), so that it takes no processor time from the other one. However the
comparison ends, its servers end with it; if it is killed, the kernel kills them.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from antiphon.errors import AntiphonError, ConfigError
from antiphon.parent_death import die_with_parent

_PLACE = "{port}"
_START_SECONDS = 900.0  # a large model may be converted first
_POLL_SECONDS = 0.5
_SETTLE_SECONDS = 0.5  # for what a server does about the time that it lost, such as closing connections
_END_SECONDS = 20.0
T = TypeVar("T")


def is_command(text: str) -> bool:
    """Whether it is a command that starts a server, and not an address or a folder."""
    return _PLACE in text


@dataclass
class StartedServer:
    """A running server."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    async def until_ready(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of `attempt`, which is repeated while the server is loading.

        Raises:
            AntiphonError: the server ended, or is still not ready after 15 minutes.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                return await attempt()
            except AntiphonError as error:
                status = self.process.poll()
                if status is not None:
                    raise AntiphonError(f"the server ended with status {status}; see {self.log}") from None
                if time.monotonic() > deadline:
                    raise AntiphonError(f"the server is not ready: {error.message}; see {self.log}") from None
            await asyncio.sleep(_POLL_SECONDS)

    def pause(self) -> None:
        """Stop all its processes until `resume` is called."""
        self._signal(signal.SIGSTOP)

    async def resume(self) -> None:
        """Let them run again."""
        self._signal(signal.SIGCONT)
        await asyncio.sleep(_SETTLE_SECONDS)

    async def end(self) -> None:
        """Ask it to end, and kill what is left of its processes after 20 seconds."""
        everyone = family(self.process.pid)
        self._signal(signal.SIGCONT)
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self.process.wait, _END_SECONDS)
        for pid in everyone if self.process.poll() is None else everyone[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(self.process.wait)

    def _signal(self, number: signal.Signals) -> None:
        for pid in family(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@asynccontextmanager
async def started(command: str, log: Path) -> AsyncIterator[StartedServer]:
    """Start a server with a free port of 127.0.0.1; what it prints goes to `log`. It is not ready yet.

    Raises:
        ConfigError: the command cannot be run.
    """
    server = _start(command, log)
    try:
        yield server
    finally:
        await server.end()


def _start(command: str, log: Path) -> StartedServer:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log.parent.mkdir(parents=True, exist_ok=True)
    parent = os.getpid()
    try:
        words = shlex.split(command.replace(_PLACE, str(port)))
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  # the user's own command
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is ours
                preexec_fn=lambda: die_with_parent(parent),
            )
    except (OSError, ValueError) as error:
        raise ConfigError(f"the server cannot be started: {error}; the command was {command}") from None
    return StartedServer(f"http://127.0.0.1:{port}", log, process)


@asynccontextmanager
async def running(server: StartedServer | None) -> AsyncIterator[None]:
    """Lets a paused server run in the block. None: it was not started here, and is never paused."""
    if server is None:
        yield
        return
    await server.resume()
    try:
        yield
    finally:
        server.pause()


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for each in found:
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):
                found += [int(word) for word in path.read_text().split()]
    return found
