"""Servers that a comparison starts: they stand still when they are told to, and never outlive it."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path

import pytest

from antiphon.commands.started_servers import family, is_command, running, started
from antiphon.errors import AntiphonError, ConfigError

PATIENCE = 120.0
# A process with a child, neither of which ends by itself; it ignores the gentle signal if it is told to.
SCRIPT = """
import signal, subprocess, sys, time
if sys.argv[2:]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("port", sys.argv[1], flush=True)
time.sleep(600)
"""
COMMAND = f"{shlex.quote(sys.executable)} -c {shlex.quote(SCRIPT)} {{port}}"


def state(pid: int) -> str:
    """As in /proc: T is stopped; empty if there is none, or only what its parent has not asked after."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
    return "" if found == "Z" else found


async def all_are(pids: list[int], *wanted: str) -> None:
    """Wait until all processes have one of these states; a signal takes its time."""
    async with asyncio.timeout(PATIENCE):
        while not all(state(pid) in wanted for pid in pids):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def printed(log: Path) -> None:
    if "port" not in await asyncio.to_thread(log.read_text):
        raise AntiphonError("not yet")


async def test_all_processes_of_a_server_stand_still_outside_its_turns_and_end_with_it(tmp_path: Path):
    log = tmp_path / "logs" / "a.log"
    async with started(COMMAND, log) as server:
        await server.until_ready(lambda: printed(log))
        assert log.read_text() == f"port {server.url.rpartition(':')[2]}\n"
        pids = family(server.process.pid)
        assert len(pids) == 2
        server.pause()
        await all_are(pids, "T")
        async with running(server):
            await all_are(pids, "S", "R")
        await all_are(pids, "T")
    await all_are(pids, "")
    assert server.process.returncode == -15  # a stopped process is let go on, so that it can end in good order


async def test_a_server_that_ignores_the_gentle_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("antiphon.commands.started_servers._END_SECONDS", 0.1)
    log = tmp_path / "a.log"
    async with started(f"{COMMAND} stubborn", log) as server:
        await server.until_ready(lambda: printed(log))
        pids = family(server.process.pid)
    assert server.process.returncode == -9
    await all_are(pids, "")


async def test_a_server_that_ends_while_it_is_loading_is_reported_with_its_log(tmp_path: Path):
    async with started(f"{shlex.quote(sys.executable)} -c 'exit(3)' {{port}}", tmp_path / "a.log") as server:
        server.process.wait()
        with pytest.raises(AntiphonError, match=r"ended with status 3; see .*a\.log"):
            await server.until_ready(lambda: printed(tmp_path / "a.log"))


@pytest.mark.parametrize("command", ["/does/not/exist {port}", "'unclosed {port}", "/ {port}"])
async def test_a_command_that_cannot_be_run_is_named(tmp_path: Path, command: str):
    with pytest.raises(ConfigError, match="cannot be started"):
        async with started(command, tmp_path / "a.log"):
            pass


async def test_without_a_server_of_ours_there_is_nothing_to_stop():
    async with running(None):
        pass
    assert is_command("serve --port {port}")
    assert not is_command("127.0.0.1:8000")
    assert os.getpid() in family(os.getpid())
