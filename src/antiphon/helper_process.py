"""Runs work in a separate process, which answers questions one at a time as lines of JSON. A leaf.

If the work takes too much time or memory, the kernel kills the process and the caller gets None.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import weakref
from collections.abc import Mapping
from typing import Any

import msgspec


class HelperProcess:
    """A running helper and the two pipes to it. Ends with `close`, with this object, or with this process."""

    def __init__(self, *arguments: str) -> None:
        """`arguments` for Python: a script, or `-m` and a module."""
        # -P: do not import modules from the script's folder, which contains our own modules.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-X", "utf8", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C on a terminal is for this process alone
        )
        self._finalizer = weakref.finalize(self, _stop, self._process)

    @property
    def pid(self) -> int:
        """The process's id; it may have ended."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        return not self._finalizer.alive or self._process.poll() is not None

    def ask(self, question: Mapping[str, object]) -> dict[str, Any] | None:
        """The helper's reply. If the helper dies, close this object and return None."""
        try:
            line = msgspec.json.encode(question) + b"\n"
        except UnicodeEncodeError:  # half a character
            line = json.dumps(question).encode() + b"\n"
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer.endswith(b"\n"):
            self.close()
            return None
        try:
            return msgspec.json.decode(answer, type=dict[str, Any])
        except msgspec.DecodeError:  # half a character, which a template may have made
            reply: dict[str, Any] = json.loads(answer)
            return reply

    def close(self) -> None:
        self._finalizer()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # an unread question
                pipe.close()
