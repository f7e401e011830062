"""The server as a person starts it: `antiphon serve MODEL` in a process of its own, talked to over HTTP alone.

Every server that a test starts here is also checked when it is let go: once nobody is served the accounts in /metrics
close and no block is in use, and after SIGTERM neither it nor any process it started is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx2
from openai import AsyncOpenAI
from patience import PATIENCE, wait_until
from processes import children, is_gone
from scrapes import blocks_in_use, check_accounts, check_idle, samples

TLS = ssl.create_default_context()  # not used over plain HTTP; making one for each request takes long
_ENGINE = b"antiphon.engine.worker"
T = TypeVar("T")


@dataclass(frozen=True)
class RealServer:
    """A server process that is ready."""

    process: subprocess.Popen[str]
    url: str
    model: str  # its name to clients
    log: IO[str]  # its standard error
    tls: ssl.SSLContext = TLS  # how clients check its certificate

    def openai(self) -> AsyncOpenAI:
        """The official client; use as an async context manager, within one event loop."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=PATIENCE)

    def http(self) -> httpx2.AsyncClient:
        """A bare client; use as an async context manager."""
        return httpx2.AsyncClient(base_url=self.url, timeout=PATIENCE, trust_env=False)

    def metrics(self) -> dict[str, float]:
        return samples(httpx2.get(f"{self.url}/metrics", timeout=PATIENCE, trust_env=False, verify=self.tls).text)

    def wait_idle(self) -> dict[str, float]:
        """Wait until nobody is served, check that the accounts close, return the scrape."""
        wait_until(lambda: _is_idle(self.metrics()), "the server never fell idle")
        now = self.metrics()
        check_idle(now)
        check_accounts(now)
        return now

    @property
    def engine_pid(self) -> int:
        """The only engine that is alive."""
        (pid,) = self.engine_pids
        return pid

    @property
    def engine_pids(self) -> list[int]:
        """The engines that are alive."""
        return [pid for pid in children(self.process.pid) if _ENGINE in _command_line(pid)]

    @property
    def messages(self) -> str:
        """What it has written to standard error so far."""
        return os.pread(self.log.fileno(), 1 << 24, 0).decode()

    @property
    def family(self) -> list[int]:
        """Process ids of the server and of all that it started."""
        return [self.process.pid, *children(self.process.pid)]


@contextmanager
def real_server(
    model: Path | str,
    *options: str,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = ("-m", "antiphon"),
    tls: ssl.SSLContext = TLS,
) -> Iterator[RealServer]:
    """A ready server on a free port, its address taken from the line that it offers for pasting.

    `environment`: more variables for it; `program`: what Python runs instead of the installed command; `tls`: how
    clients check its certificate.
    """
    command = [sys.executable, *program, "serve", str(model), "--port", "0", *options]
    with tempfile.TemporaryFile("w+") as log:
        variables = {**os.environ, **(environment or {})}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=variables)
        family: list[int] = []
        try:
            server = _when_ready(process, log, tls)
            family = server.family
            yield server
            if process.poll() is None:
                server.wait_idle()
                family = server.family
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0, _text(log)
        finally:
            process.kill()
            process.communicate()
        wait_until(lambda: all(map(is_gone, family)), "a process is left over")
        assert "Traceback" not in _text(log), _text(log)


async def asked_at_once(server: RealServer, asking: Coroutine[Any, Any, T], count: int) -> T:
    """Stop the engine until the front has accepted all `count` requests of `asking`; the engine then gets all at once.

    For tests that need requests to overlap: how fast the front is has no say in it. Give the server a long
    `--hang-timeout`, so that a slow front's engine is not taken for one that hangs.
    """
    engine = server.engine_pid
    os.kill(engine, signal.SIGSTOP)
    try:
        task = asyncio.ensure_future(asking)
        accepted = "antiphon_requests_running"
        await asyncio.to_thread(
            wait_until, lambda: task.done() or server.metrics().get(accepted, 0) == count, "not all are accepted"
        )
    finally:
        os.kill(engine, signal.SIGCONT)
    return await task


def _when_ready(process: subprocess.Popen[str], log: IO[str], tls: ssl.SSLContext) -> RealServer:
    assert process.stdout is not None
    line = process.stdout.readline()
    while line.startswith('{"time":'):  # the access log: somebody asked before it was ready
        line = process.stdout.readline()
    assert line.startswith(("curl http://127.0.0.1:", "curl https://127.0.0.1:")), _text(log)
    url = line.split()[1].removesuffix("/v1/chat/completions")
    model = httpx2.get(f"{url}/v1/models", timeout=PATIENCE, trust_env=False, verify=tls).json()["data"][0]["id"]
    return RealServer(process, url, model, log, tls)


def _is_idle(now: dict[str, float]) -> bool:
    return not (now.get("antiphon_requests_running", 0.0) or blocks_in_use(now))


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _text(log: IO[str]) -> str:
    log.seek(0)
    return log.read()
