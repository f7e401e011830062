"""An engine's process as the front holds it."""

from __future__ import annotations

import signal
import subprocess

from loads import fake_config

from antiphon.engine.fleet.process import EngineProcess


async def test_killing_an_engine_leaves_its_exit_status_to_asyncio(monkeypatch):
    """If it has just died, asyncio would find no status and report 255 ("Unknown child process")."""
    engine = await EngineProcess.start(fake_config())

    def collect(process: subprocess.Popen[bytes]) -> None:
        raise AssertionError("the exit status was collected")

    monkeypatch.setattr(subprocess.Popen, "poll", collect)
    engine.kill()
    assert (await engine.wait()).status == -signal.SIGKILL
    engine.kill()  # does nothing
