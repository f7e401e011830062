"""Runs `antiphon` in processes of its own, as a person or a script does: on pipes, and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patience import PATIENCE

ANTIPHON = [sys.executable, "-m", "antiphon"]


@contextmanager
def serve(model: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process that is ready, and its address, taken from the line that it offers for pasting."""
    command = [*ANTIPHON, "serve", model, "--fake-engine", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("curl http://127.0.0.1:")
            yield process, line.split()[1].removesuffix("/v1/chat/completions")
        finally:
            process.kill()


def ending(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and stderr of a process that is about to end."""
    _, text = process.communicate(timeout=PATIENCE)
    return process.returncode, text


class Terminal:
    """A command on a terminal of its own, with a history of its own."""

    def __init__(self, *arguments: str, history: Path | str = "off") -> None:
        environment = os.environ | {
            "ANTIPHON_CHAT_HISTORY": str(history),
            "PROMPT_TOOLKIT_NO_CPR": "1",  # nobody here answers where the cursor is
            "TERM": "xterm",
            "COLUMNS": "100",
        }
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [*ANTIPHON, *arguments], environment)  # noqa: S606
        self.seen = self.raw = ""
        self._num_prompts = 0

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def paste(self, text: str) -> None:
        """As a terminal does that brackets what is pasted; a long text is taken piece by piece."""
        data = f"\x1b[200~{text}\x1b[201~".encode()
        while data:
            _, writable, _ = select.select([], [self._fd], [], 0.01)
            data = data[os.write(self._fd, data[:512]) :] if writable else data
            self._read(0)

    def wait_for(self, text: str) -> None:
        """Read on until `text` has come since the last wait, colours and the like aside."""
        while text not in self.seen:
            assert self._read(PATIENCE), self.seen[-2000:]
        self.seen = self.seen.partition(text)[2]

    def wait_for_prompt(self) -> None:
        """Read on until the next line to type in is there: the terminal is then asked to bracket what is pasted."""
        while self.raw.count("\x1b[?2004h") == self._num_prompts:
            assert self._read(PATIENCE), self.seen[-2000:]
        self._num_prompts += 1
        self.seen = ""

    def end(self) -> int:
        """The exit status, once it ends by itself."""
        while self._read(PATIENCE):
            pass
        deadline = time.monotonic() + PATIENCE
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)  # so that it is a failure here, and not a wait for ever
            time.sleep(0.01)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._fd)
        return os.waitstatus_to_exitcode(status)

    def _read(self, timeout: float) -> bool:
        readable, _, _ = select.select([self._fd], [], [], timeout)
        try:
            data = os.read(self._fd, 65536) if readable else b""
        except OSError:  # Linux says so when the other side is gone
            data = b""
        self.raw += data.decode(errors="replace")
        self.seen = ESCAPES.sub("", self.seen + data.decode(errors="replace"))
        return bool(data)


ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>][A-Z0-9]?|\r")
