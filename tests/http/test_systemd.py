"""The server under systemd: what it reports on a real notification socket, and when it stops reporting."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from patience import PATIENCE
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf

from antiphon.commands.service_status import reported
from antiphon.config import EngineConfig, FakeSettings, ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.systemd import Systemd

UNIT = Path(__file__).parents[2] / "deploy" / "antiphon.service"


class Manager:
    """systemd's side of the socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE)
        self.environment = {"NOTIFY_SOCKET": str(path)}

    def next(self) -> str:
        return self._socket.recv(4096).decode()

    def until(self, wanted: str) -> list[str]:
        """The messages up to one that begins so."""
        seen = [self.next()]
        while not seen[-1].startswith(wanted):
            seen.append(self.next())
        return seen

    def drain(self) -> list[str]:
        """What has been sent and not read."""
        self._socket.setblocking(False)
        seen = []
        try:
            while True:
                seen.append(self.next())
        except BlockingIOError:
            return seen
        finally:
            self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


@contextmanager
def service(manager: Manager, tmp_path: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    model = write_gguf(tmp_path / "small.gguf", metadata(template=CHATML_TEMPLATE))
    command = [sys.executable, "-m", "antiphon", "serve", str(model), "--fake-engine", "--port", "0"]
    environment = os.environ | manager.environment | variables
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_service_reports_that_it_loads_is_ready_and_stops(manager, tmp_path):
    with service(manager, tmp_path) as process:
        before = manager.until("READY=1")
        assert before[0].startswith("STATUS=loading the model")
        assert manager.until("STATUS=serving")[-1] == "STATUS=serving, 0 requests unfinished"
        process.send_signal(signal.SIGTERM)
        assert "STOPPING=1" in manager.until("STOPPING=1")
        assert process.wait(PATIENCE) == 0
    assert not [message for message in manager.drain() if message.startswith("READY")]


def test_a_service_reports_that_it_reloads_and_when_that_is_done(manager, tmp_path):
    with service(manager, tmp_path) as process:
        manager.until("STATUS=serving")
        began = time.monotonic_ns() // 1000
        process.send_signal(signal.SIGHUP)
        reloading = manager.until("RELOADING=1")[-1]
        assert began <= int(reloading.partition("\nMONOTONIC_USEC=")[2]) <= time.monotonic_ns() // 1000
        manager.until("READY=1")


def test_the_watchdog_hears_from_a_living_server_and_not_from_a_stopped_one(manager, tmp_path):
    with service(manager, tmp_path, WATCHDOG_USEC="300000") as process:
        manager.until("READY=1")
        for _ in range(3):
            manager.until("WATCHDOG=1")
        process.send_signal(signal.SIGSTOP)
        # A message may have been sent between the signal and the stop; after it there are no more.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        manager.drain()
        manager._socket.settimeout(1.0)
        with pytest.raises(TimeoutError):
            manager.next()
        manager._socket.settimeout(PATIENCE)
        process.send_signal(signal.SIGCONT)
        manager.until("WATCHDOG=1")


def test_a_watchdog_meant_for_another_process_is_none_of_ours(tmp_path):
    environment = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert Systemd(environment).watchdog_seconds is None
    assert environment == {}  # child processes do not inherit them


async def test_a_server_whose_engine_was_given_up_lets_the_watchdog_run_out(manager):
    fake = FakeSettings(refuse_to_load="the file is damaged")
    client = EngineClient(EngineConfig(model="", fake=True, fake_settings=fake), ServerConfig())
    systemd = Systemd(manager.environment | {"WATCHDOG_USEC": "90000"})
    async with reported(client, systemd):
        await client.start()
        seen = await asyncio.to_thread(manager.until, "STATUS=the engine failed and was given up")
        assert client.state is EngineState.FAILED
        await asyncio.sleep(0.2)  # several times the watchdog's interval
        assert "WATCHDOG=1" not in manager.drain()
    assert "READY=1" not in seen
    await client.stop()


def test_without_systemd_nothing_is_sent_and_a_manager_that_is_gone_harms_nothing(tmp_path):
    silent = Systemd({})
    assert not silent.listens
    silent.ready()
    orphan = Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    orphan.ready()
    orphan.status("x")


def test_a_name_in_the_abstract_namespace(tmp_path):
    name = f"antiphon-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        Systemd({"NOTIFY_SOCKET": "@" + name}).status("two\nlines")
        assert listener.recv(100) == b"STATUS=two lines"  # a line break would begin another message


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path):
    program = tmp_path / "antiphon"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "antiphon.service"
    unit.write_text(UNIT.read_text().replace("/opt/antiphon/bin/antiphon", str(program)))
    checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
