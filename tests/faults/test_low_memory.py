"""An engine with real kernels dies, and for a while there is not enough memory for the next; nothing is lost."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from pathlib import Path

from fronts import read, until
from loads import ask
from patience import PATIENCE
from tiny_folders import write_random_folder

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.engine.fleet.process import EngineProcess
from antiphon.loading.assembly import planned_for_this_machine


def address_space(pid: int) -> int:
    """Bytes of memory that a process has mapped."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


async def test_the_engine_that_comes_when_there_is_memory_again_goes_on_as_the_first(tmp_path, monkeypatch):
    """Its context and its KV cache are those of the first, and so are the tokens."""
    path = write_random_folder(tmp_path / "m", "qwen2")
    # Large steps take more memory than an empty engine has, so that it cannot be had where less is allowed.
    config = EngineConfig(model=str(path), threads=1, max_batch_tokens=16_384, max_num_sequences=1024)
    client = EngineClient(planned_for_this_machine(config), ServerConfig(hang_timeout=30.0))
    await client.start()
    async with asyncio.timeout(PATIENCE):
        first = await client.wait_ready()
    allowed = address_space(client.engine_pid) * 3 // 4
    request = ask("a", [1, 2, 3], max_tokens=300, ignore_eos=True)
    undisturbed = await read(client.generate(ask("b", [1, 2, 3], max_tokens=300, ignore_eos=True)))
    start = EngineProcess.start

    async def start_with_less(*settings: object) -> EngineProcess:
        engine = await start(*settings)
        resource.prlimit(engine.pid, resource.RLIMIT_AS, (allowed, allowed))
        return engine

    num_events = []
    client.subscribe(num_events.append)
    reading = asyncio.create_task(read(client.generate(request)))
    await until(lambda: len(num_events) > 20)
    with monkeypatch.context() as patch:
        patch.setattr(EngineProcess, "start", start_with_less)
        os.kill(client.engine_pid, signal.SIGKILL)
        await until(lambda: client.restarts > 4)
        assert client.state is EngineState.RESTARTING
        assert client.trouble
    assert await reading == undisturbed
    assert client.info == first
    await client.stop()
