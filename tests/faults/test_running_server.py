"""One server, started as a person starts it, and everything that may happen to it while it serves.

The tests share it. After each one a canary's answer, the accounts, the KV cache, and the numbers of descriptors and
threads must be as before.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from canaries import Canary, answer, post, streamed
from clocks import WallClock, wall_clock
from patience import wait_until
from processes import children, is_gone
from real_server import RealServer, real_server
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf

_LONG = {"max_tokens": 1500, "temperature": 0, "n": 2}
_FULL_AT = 4 << 20  # bytes
_DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Running:
    """The server, what watches it, and its wall clock."""

    server: RealServer
    canary: Canary
    clock: WallClock
    long_answer: str  # to a question with the fields `_LONG`
    pool: ThreadPoolExecutor

    def ask_for_long(self) -> Future[str]:
        """Begin to ask for the long answer; returns when its first token has come."""
        begun = threading.Event()
        asked = self.pool.submit(streamed, self.server, "Tell me all.", begun, **_LONG)
        asked.add_done_callback(lambda _: begun.set())
        begun.wait()
        return asked


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    described = {**metadata(template=CHATML_TEMPLATE), "qwen2.context_length": 4096}
    model = write_gguf(folder / "small.gguf", described)
    clock = wall_clock(folder)
    # Engines that die would otherwise shorten the next answers.
    options = ("--fake-engine", "--hang-timeout", "3", "--degrade", "off")
    with (
        real_server(model, *options, environment=clock.environment) as server,
        ThreadPoolExecutor(8) as pool,
    ):
        canary = Canary(server)
        yield Running(server, canary, clock, answer(server, "Tell me all.", **_LONG), pool)


@pytest.fixture
def running(shared: Running) -> Iterator[Running]:
    yield shared
    shared.canary.check()


def helper(running: Running, name: bytes) -> int:
    """The process id of the helper whose command line contains `name`."""
    family = children(running.server.process.pid)
    (pid,) = [pid for pid in family if name in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=lambda blow: blow.name)
@pytest.mark.parametrize("name", [b"engine.worker", b"render_worker", b"check_worker"], ids=bytes.decode)
def test_any_process_may_be_killed_or_stopped(running: Running, name: bytes, blow: signal.Signals):
    """What is being answered goes on, and what comes next is answered as if nothing had happened."""
    victim = helper(running, name)
    long_answer = running.ask_for_long()
    os.kill(victim, blow)
    choice = f"{name.decode()} {blow.name}"  # no grammar that was checked before
    assert answer(running.server, "Choose.", guided_choice=[choice]) == choice
    assert long_answer.result() == running.long_answer
    assert is_gone(victim)


def test_the_front_may_be_stopped_for_a_while(running: Running):
    """For longer than an engine may make no progress: that was not the engine's fault."""
    engine = running.server.engine_pid
    long_answer = running.ask_for_long()
    os.kill(running.server.process.pid, signal.SIGSTOP)
    time.sleep(4.0)
    os.kill(running.server.process.pid, signal.SIGCONT)
    assert long_answer.result() == running.long_answer
    assert running.server.engine_pid == engine


def test_engines_that_die_while_they_load_are_replaced_until_one_works(running: Running):
    long_answer = running.ask_for_long()
    for _ in range(2):
        with suppress(ValueError):  # between two engines
            os.kill(running.server.engine_pid, signal.SIGKILL)
        wait_until(lambda: _has_engine(running), "no engine came")
    assert long_answer.result() == running.long_answer


def _has_engine(running: Running) -> bool:
    with suppress(ValueError):
        return running.server.engine_pid > 0
    return False


@pytest.mark.parametrize("seconds", [3650 * _DAY, -3650 * _DAY], ids=["forward", "back"])
def test_the_wall_clock_may_be_set(running: Running, seconds: int):
    """By ten years, in the middle of an answer: whatever waits or has a deadline goes by another clock."""
    long_answer = running.ask_for_long()
    running.clock.set_ahead(seconds)
    try:
        body = {"prompt": "Hello", "max_tokens": 5, "timeout": 60, "max_wait": 60}
        reply = post(running.server, "/v1/completions", body)
        assert reply.status_code == 200
        assert abs(reply.json()["created"] - seconds - time.time()) < _DAY  # it does see that clock
        assert long_answer.result() == running.long_answer
        running.canary.check()
    finally:
        running.clock.set_ahead(0)


def test_a_log_that_nobody_reads_and_a_full_disk_hold_up_nobody(running: Running):
    """Standard output is a pipe that is full, standard error a file that may not grow any more."""
    server = running.server
    front, limits = server.process.pid, resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    os.lseek(server.log.fileno(), _FULL_AT, os.SEEK_SET)  # files that are shared with engines are much smaller
    resource.prlimit(front, resource.RLIMIT_FSIZE, (_FULL_AT, limits[1]))
    try:
        _fill(f"/proc/{front}/fd/1")
        long_answer = running.ask_for_long()
        os.kill(server.engine_pid, signal.SIGKILL)  # which is worth a message
        assert long_answer.result() == running.long_answer
        running.canary.check()
    finally:
        resource.prlimit(front, resource.RLIMIT_FSIZE, limits)
        assert server.process.stdout is not None
        _drain(server.process.stdout.fileno())
    os.kill(server.engine_pid, signal.SIGKILL)
    assert server.metrics()['antiphon_log_lines_dropped_total{log="messages"}'] > 0
    wait_until(lambda: b"dropped" in os.pread(server.log.fileno(), 4096, _FULL_AT), "no message after the full disk")


def _fill(path: str) -> None:
    """Write to a pipe until it takes no more."""
    pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"\n" * 4096)
    os.close(pipe)


def _drain(pipe: int) -> None:
    while select.select([pipe], [], [], 0.5)[0]:
        os.read(pipe, 1 << 16)
