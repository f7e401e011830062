"""An engine whose messages nobody reads says why it ends, and ends."""

from __future__ import annotations

import subprocess
import sys

from patience import PATIENCE
from pipes_full import full_pipe

# The front's own messages are printed; the engine writes to standard error, which nobody reads.
SCRIPT = """
import asyncio, logging, sys
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
from fronts import read, running_client
from loads import ask
from antiphon.errors import EngineDied

async def main():
    async with running_client(raise_on=200, hang_timeout=20.0) as client:
        try:
            await read(client.generate(ask("poison", [1, 200])))
        except EngineDied:
            pass
        answer = await read(client.generate(ask("after", [1, 2])))
        print(len(answer.token_ids), "tokens")

asyncio.run(main())
"""


def test_an_engine_whose_messages_nobody_reads_ends_by_itself():
    with full_pipe() as (_, write_end, fill):
        fill()
        command = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{SCRIPT}"]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=write_end, text=True, timeout=2 * PATIENCE)
    assert result.returncode == 0
    assert "8 tokens" in result.stdout
    assert result.stdout.count("engine 1 died: ") == 2
    assert "no progress" not in result.stdout  # it would be killed for that if it waited to be read
