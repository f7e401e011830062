"""Real engine hosts on 127.0.0.1, and clients whose engines run there."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fronts import until
from loads import fake_config
from processes import is_gone
from rich.console import Console

from antiphon.config import ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.engine_host.host import EngineHost, Machine, listen
from antiphon.engine_host.models import Models
from antiphon.machine.gpu import Gpu

SECRET = "a secret for tests, not for hosts"  # noqa: S105


@dataclass
class HostProcess:
    """`antiphon engine-host` in a process of its own."""

    address: str
    pid: int
    process: asyncio.subprocess.Process

    @property
    def engine_pids(self) -> list[int]:
        """The engines that it runs."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in children if not is_gone(int(pid))]

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)


@asynccontextmanager
async def host_process(*arguments: str, secret: str = SECRET) -> AsyncIterator[HostProcess]:
    """A host that listens. Afterwards neither it nor any of its engines is left."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antiphon", "engine-host", *(() if "--port" in arguments else ("--port", "0"))),
        *arguments,
        env=os.environ | {"ANTIPHON_ENGINE_SECRET": secret},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        seen = b""
        while not (found := re.search(rb"(t[cl][ps]://\S+:\d+)", seen)):
            line = await process.stderr.readline()
            assert line, seen.decode()
            seen += line
        drained = asyncio.create_task(process.stderr.read())
        host = HostProcess(found[1].decode(), process.pid, process)
        yield host
    finally:
        engines = [] if is_gone(process.pid) else HostProcess("", process.pid, process).engine_pids
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        await process.wait()
        await drained
    await until(lambda: all(map(is_gone, engines)))


@asynccontextmanager
async def host_here(
    secret: str = SECRET,
    *,
    front_patience: float = 30.0,
    free_memory: int = 1 << 40,
    only: str = "",
    gpus: Sequence[Gpu] = (),
) -> AsyncIterator[str]:
    """A host within this process, at the address that it yields; its engines are processes as usual."""
    listener = listen("127.0.0.1", 0)
    models = Models(Console(quiet=True), only=only, offline=True)
    machine = Machine(free_memory=lambda: free_memory, see_gpus=lambda: gpus)
    host = EngineHost(secret, models, machine, front_patience=front_patience)
    serving = asyncio.create_task(host.serve(listener))
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()


@asynccontextmanager
async def client_of(
    *addresses: str,
    here: int = 0,
    secret: str = SECRET,
    hang_timeout: float = 10.0,
    free_memory: Callable[[], int] = lambda: 1 << 40,
    **engine: object,
) -> AsyncIterator[EngineClient]:
    """A client with an engine at each of these addresses, which has been started and may not be ready yet."""
    config = replace(fake_config(**engine), engines=here, remote_engines=addresses)
    server = ServerConfig(engine_secret=secret, hang_timeout=hang_timeout)
    client = EngineClient(config, server, free_memory=free_memory)
    await client.start()
    try:
        yield client
    finally:
        await client.drain(0)
        await client.stop()
