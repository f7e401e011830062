"""SIGHUP: it asks to read the settings again, except where a terminal was closed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

_PROGRAM = """
import asyncio, sys
from antiphon.http.server import StopSignals

async def main():
    done = asyncio.Event()
    def tell(what):
        print(what, flush=True)
        if what == "stop":
            done.set()
    with StopSignals() as signals:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        signals.call(lambda: tell("stop"))
        signals.call_to_reload(lambda: tell("reload"))
        print("serving", flush=True)
        await done.wait()

asyncio.run(main())
"""


class Program:
    """A process that handles the signals of a server, with a terminal of its own."""

    def __init__(self, *before: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*before, sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: _take_terminal(theirs),  # no threads run here
        )
        os.close(theirs)
        assert self.next() == "ready"

    def begin(self) -> None:
        """Let it take signals as a server that is ready does."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def next(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def close_terminal(self) -> None:
        os.close(self._ours)


def _take_terminal(terminal: int) -> None:
    import fcntl
    import termios

    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may have been started by nohup
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


@pytest.fixture
def end() -> object:
    """Ends what a test starts."""
    started: list[Program] = []
    yield started.append
    for program in started:
        program.process.kill()
        program.process.communicate()


def test_a_hangup_reloads_and_one_that_comes_early_is_kept(end):
    program = Program()
    end(program)
    program.process.send_signal(signal.SIGHUP)
    program.begin()
    assert {program.next(), program.next()} == {"reload", "serving"}  # it may be handled a moment later
    program.process.send_signal(signal.SIGHUP)
    assert program.next() == "reload"
    program.process.send_signal(signal.SIGTERM)
    assert program.next() == "stop"
    program.close_terminal()


@pytest.mark.parametrize(("before", "does"), [((), "stop"), (("nohup",), "reload")])
def test_a_closed_terminal_stops_a_server_that_was_started_in_it_unless_by_nohup(end, before, does):
    program = Program(*before)
    end(program)
    program.begin()
    assert program.next() == "serving"
    program.close_terminal()
    assert program.next() == does
