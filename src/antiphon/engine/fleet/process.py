"""One engine process, seen from the front: starts it, sends and reads messages, kills it and waits for its end.

Owns the process, its socket and the shared memory, from the start to the release of the last resource. `messages` ends
when the process does, however it dies, and nothing is left behind after `wait`. The supervisor decides when a process
is started or killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, suppress

from antiphon.config import EngineConfig
from antiphon.engine.fleet.launching import HERE, EngineEnd, LaunchError
from antiphon.engine.progress import Progress
from antiphon.engine.wire import (
    Configure,
    FrameSplitter,
    FromEngine,
    Message,
    decoder_from_engine,
    encode,
    frame_of,
)
from antiphon.grammar import Vocabulary
from antiphon.helper_process import kill_first_without_memory
from antiphon.machine import Starvation

_READ_BYTES = 1 << 16
_STDERR = 2  # file descriptor


class LocalLauncher:
    """Starts engines as processes of this machine."""

    @property
    def address(self) -> str:
        return HERE

    async def start(self, config: EngineConfig, vocabulary: Vocabulary | None = None) -> EngineProcess:
        """Start a process. Raises LaunchError if the system has no process, descriptor or memory for it."""
        try:
            return await EngineProcess.start(config, vocabulary)
        except OSError as error:
            raise LaunchError(f"no process could be started for it ({error.strerror})") from error


class EngineProcess:
    """An engine that runs as a process of this machine.

    Call `start` in the main thread: the engine dies with the thread that started it.
    """

    def __init__(
        self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, progress: Progress
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._progress = progress
        self._starvation = Starvation(process.pid)

    @classmethod
    async def start(cls, config: EngineConfig, vocabulary: Vocabulary | None = None) -> EngineProcess:
        """Start an engine, and send it its configuration and the vocabulary for grammars.

        Raises:
            OSError: the system has no process, descriptor or memory for it; nothing is left behind.
        """
        with ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs:
                progress = Progress.create()
                undo.callback(progress.close)
                process = await _spawn(theirs.fileno(), progress.fd, [file.fd for file in config.files])
            undo.callback(process.kill)
            kill_first_without_memory(process.pid)  # now: while it imports its modules, this process is larger
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            undo.pop_all()
        engine = cls(process, reader, writer, progress)
        engine.send(Configure(config, vocabulary))
        return engine

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def progress(self) -> int:
        """The counter's value; it changes while the engine makes progress."""
        return self._progress.value

    def starved_seconds(self) -> float:
        """How long it had no processor to run on, since this was asked last."""
        return self._starvation.seconds()

    @property
    def working_on(self) -> frozenset[str]:
        """Ids of the requests that it is working on."""
        return self._progress.working_on

    def send(self, message: Message) -> None:
        """Queue a message. If the engine is dead, the message is lost, and `messages` ends soon after."""
        self._writer.write(encode(message))

    async def pass_on(self, payload: bytes) -> None:
        """Send an encoded message, and wait until the engine has read enough of what was queued.

        Raises ConnectionError if the engine is gone, and WireError if the message is too long.
        """
        self._writer.write(frame_of(payload))
        await self._writer.drain()

    async def messages(self) -> AsyncIterator[FromEngine]:
        """The engine's messages, until it is gone."""
        decoder = decoder_from_engine()
        async for payload in self.payloads():
            yield decoder.decode(payload)

    async def payloads(self) -> AsyncIterator[bytes]:
        """The same, encoded."""
        splitter = FrameSplitter()
        with suppress(ConnectionResetError, BrokenPipeError):
            while data := await self._reader.read(_READ_BYTES):
                for payload in splitter.feed(data):
                    yield payload

    def kill(self) -> None:
        """Send SIGKILL; this works on a stopped process too."""
        # Not `Process.kill`: if the process has just ended, that collects its status, and asyncio then reports 255.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> EngineEnd:
        """Wait until the process is gone and release everything."""
        status = await self._process.wait()
        working_on = self._progress.working_on
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
        self._progress.close()
        return EngineEnd(status, working_on)


async def _spawn(fd: int, progress_fd: int, model_fds: Sequence[int]) -> Process:
    arguments = ["--fd", str(fd), "--progress-fd", str(progress_fd), "--parent", str(os.getpid())]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "antiphon.engine.worker", *arguments,
        pass_fds=(fd, progress_fd, *model_fds), stdin=DEVNULL, stdout=_STDERR,
        process_group=0,  # Ctrl-C on a terminal is for the front alone; Python dies of it while it is starting
    )  # fmt: skip
