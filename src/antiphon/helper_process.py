"""Runs work in a separate process, which answers questions one at a time as lines of JSON. A leaf.

If the work takes too much CPU time or memory, the kernel ends the process and the caller gets None. If something else
ends the process, or it does not answer because it was stopped, the caller gets HelperLost and may ask another one. The
process and its children are one process group, and are killed together. They end with the caller (`parent_death`).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

PATIENCE = 60.0  # seconds by the clock for an answer; a limit of CPU time ends the work much earlier
_LOOK_SECONDS = 0.25  # how often a silent helper is looked at
_READ_BYTES = 1 << 16
_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGQUIT}
_OOM_SCORE_ADJUSTMENT = 500  # of 1000: killed before everything that uses less than half of the memory more


class HelperLost(OSError):
    """A helper was killed from outside, or does not answer. What it was asked is not the reason."""


class HelperProcess:
    """A running helper and the two pipes to it. Ends with `close`, with this object, or with this process."""

    def __init__(self, *arguments: str) -> None:
        """`arguments` for Python: a script, or `-m` and a module; the id of this process is added to them.

        The helper must call `die_with_parent` with it. It ends with the thread that starts it.

        Raises:
            OSError: no process can be started.
        """
        # -P: do not import modules from the script's folder, which contains our own modules.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-X", "utf8", *arguments, str(os.getpid())],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C on a terminal is for this process alone
        )
        self._finalizer = weakref.finalize(self, _stop, self._process)
        kill_first_without_memory(self._process.pid)
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)  # a stopped process reads nothing

    @property
    def pid(self) -> int:
        """The process's id; it may have ended."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        return not self._finalizer.alive or _has_ended(self._process)

    def ask(self, question: Mapping[str, object], *, patience: float = PATIENCE) -> dict[str, Any] | None:
        """The helper's reply, or None if the question was too much for it; then this object is closed.

        `patience` is in seconds.

        Raises:
            HelperLost: the helper was killed, was stopped, or did not answer in time; this object is closed.
        """
        try:
            line = msgspec.json.encode(question) + b"\n"
        except UnicodeEncodeError:  # half a character
            line = json.dumps(question).encode() + b"\n"
        try:
            answer = self._exchange(line, patience)
        except HelperLost:
            self.close()
            raise
        if not answer:
            self.close()
            if self._process.returncode in _FROM_OUTSIDE:
                raise HelperLost(f"a helper process was killed by signal {-self._process.returncode}")
            return None
        try:
            return msgspec.json.decode(answer, type=dict[str, Any])
        except msgspec.DecodeError:  # half a character, which a template may have made
            reply: dict[str, Any] = json.loads(answer)
            return reply

    def close(self) -> None:
        self._finalizer()

    def _exchange(self, line: bytes, patience: float) -> bytes:
        """Send a line and return the line that answers it, or nothing if the helper has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        stdin, stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        left, answer, deadline = memoryview(line), bytearray(), time.monotonic() + patience
        poll = select.poll()
        poll.register(stdin, select.POLLOUT)
        poll.register(stdout, select.POLLIN)
        while not answer.endswith(b"\n"):
            ready = [descriptor for descriptor, _ in poll.poll(_LOOK_SECONDS * 1000)]
            if stdout in ready:
                data = os.read(stdout, _READ_BYTES)
                if not data:
                    return b""
                answer += data
            elif stdin in ready:
                try:
                    left = left[os.write(stdin, left) :]
                except BrokenPipeError:
                    return b""
                if not left:
                    poll.unregister(stdin)
            elif _has_ended(self._process):  # a child of its may still hold the pipe
                return b""
            elif time.monotonic() > deadline or _is_stopped(self._process.pid):
                raise HelperLost("a helper process does not answer")
        return bytes(answer)


def kill_first_without_memory(pid: int) -> None:
    """Have the kernel kill this process, not the one that holds the clients' connections, when memory runs out."""
    with contextlib.suppress(OSError):  # it has ended, or this system does not allow it
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(_OOM_SCORE_ADJUSTMENT))


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has ended. It stays a zombie, so that its process group keeps its number."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _is_stopped(pid: int) -> bool:
    """Whether a process, or one of its children, was stopped by a signal."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return False
    return state == "T" or any(_is_stopped(int(child)) for child in children)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a helper with its children; nothing happens to the exit status of one that has ended already."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # an unread question
                pipe.close()
