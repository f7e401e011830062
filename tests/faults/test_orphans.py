"""A front that is killed leaves no engine and no helper behind, whatever state they are in."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest
from fronts import until
from patience import PATIENCE
from processes import is_gone

FRONT = """
import asyncio, sys
sys.path[:0] = {path!r}
from fronts import running_client
from loads import ask

async def main():
    async with running_client(step_seconds=0.01) as client:
        stream = client.generate(ask("a", [1], max_tokens=4000))
        await anext(stream)
        print(client.engine_pid, flush=True)
        async for _ in stream:
            pass

asyncio.run(main())
"""


@pytest.mark.parametrize("engine_stopped", [False, True], ids=["engine runs", "engine is stopped"])
async def test_no_orphan_when_the_front_is_killed(engine_stopped):
    front = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FRONT.format(path=sys.path), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        engine_pid = int(await front.stdout.readline())
    if engine_stopped:
        os.kill(engine_pid, signal.SIGSTOP)
    front.kill()
    await front.wait()
    await until(lambda: is_gone(engine_pid))


async def test_interrupt_and_terminate_are_left_to_the_front():
    front = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FRONT.format(path=sys.path), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        engine_pid = int(await front.stdout.readline())
    for polite in (signal.SIGINT, signal.SIGTERM):
        os.kill(engine_pid, polite)
    await asyncio.sleep(0.5)
    assert not is_gone(engine_pid)
    front.kill()
    await front.wait()
    await until(lambda: is_gone(engine_pid))


HELPER = """
import sys, time
from antiphon.text.template import ChatTemplate

template = ChatTemplate("ok")
print(template._worker._process.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("helper_stopped", [False, True], ids=["helper runs", "helper is stopped"])
async def test_no_helper_is_left_when_the_front_is_killed(helper_stopped):
    """A stopped helper does not see that its pipe has ended."""
    front = await asyncio.create_subprocess_exec(sys.executable, "-c", HELPER, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE):
        helper_pid = int(await front.stdout.readline())
    if helper_stopped:
        os.kill(helper_pid, signal.SIGSTOP)
    front.kill()
    await front.wait()
    await until(lambda: is_gone(helper_pid))
