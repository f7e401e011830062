"""Servers for the page: a whole front with the fake model in a process of its own, which tests kill and start again.

As a program (`python page_server.py FOLDER KIND PORT`) it prints its URL when it is up and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from patience import wait_until
from processes import children, is_stopped
from running_server import running_server
from scrapes import blocks_in_use, samples
from tiny_checkpoints import R1_TEMPLATE, tiny_vocabulary

from antiphon.api_keys import read_api_keys
from antiphon.degrade_rules import DEFAULT_LADDER, parse_rules

PATIENCE = 120.0  # seconds; only a machine that stands still takes that long
KEY = "a-key-for-tests"
_HELPERS = (Path(__file__).parent, Path(__file__).parents[2] / "helpers")
_PACE = 0.01  # seconds between looks

# Where a model waits for the test (`PageServer.go_on`), if it `pauses`. A browser may be too slow to see in time what
# an answer shows for some seconds.
PAUSE = "@"

# Room for hours, so that what a test stops has not ended before.
ENDLESS: dict[str, Any] = {"context_length": 1 << 20, "block_size": 1024}

# The user's words between two tokens of their own, so that a model that echoes them knows where they are.
ECHO_TEMPLATE = (
    "{%- for m in messages -%}"
    "{%- if m['role'] == 'user' -%}{{- '<｜User｜>' + m['content'] -}}"
    "{%- elif m['role'] == 'assistant' -%}{{- '<｜Assistant｜>' + m['content'] + '<｜end▁of▁sentence｜>' -}}"
    "{%- else -%}{{- m['content'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}{%- endif -%}"
)
THINKING_TEMPLATE = R1_TEMPLATE


@dataclass(frozen=True)
class Kind:
    """A kind of server. Its model says `script` over and over; if that is empty, what it is asked; if None, letters."""

    script: str | None = ""
    thinks: bool = False
    pauses: bool = False  # wherever it writes `PAUSE`
    fake: dict[str, Any] = field(default_factory=dict)  # FakeSettings
    keys: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    max_num_sequences: int = 16
    wait: bool = True  # until the model is loaded
    degrade: str = DEFAULT_LADDER
    settings: dict[str, Any] = field(default_factory=dict)  # ServerConfig

    def arguments(self) -> dict[str, Any]:
        """For `running_server`."""
        fake = {"context_length": 8192} | self.fake
        if self.pauses:
            fake["stop_on"] = _token(PAUSE)
        if self.script == "":
            fake["echo"] = [_token("<｜User｜>"), _token("<｜Assistant｜>")]
        return {
            "template": THINKING_TEMPLATE if self.thinks else ECHO_TEMPLATE,
            "script": self.script or "",
            "fake": fake,
            "max_num_sequences": self.max_num_sequences,
            "api_keys": read_api_keys(self.keys),
            "wait": self.wait,
            "grammars": True,
            "host": self.host,
            **self.settings,
            "degrade": parse_rules(self.degrade),
        }


class PageServer:
    """A server process. Its address stays the same when it is killed and started again."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self._folder, self._kind = folder, kind
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.start()

    def start(self) -> None:
        """Start it, and return when it answers."""
        assert self._process is None
        kind = json.dumps(asdict(self._kind))
        command = [sys.executable, __file__, str(self._folder), kind, str(self._port)]
        path = os.pathsep.join(map(str, _HELPERS))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the server did not start"
        self._port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """End it as its own signals would."""
        if self._process:
            self._process.communicate()  # the end of its input
            self._process = None

    def kill(self) -> None:
        """Kill it and everything it started, now."""
        assert self._process is not None
        family = [self._process.pid, *children(self._process.pid)]
        for pid in family:
            with suppress(ProcessLookupError):  # the others end with the first
                os.kill(pid, signal.SIGKILL)
        self._process.communicate()
        self._process = None

    def kill_engine(self) -> None:
        """Kill the engine alone."""
        os.kill(self._engine(), signal.SIGKILL)

    @contextmanager
    def engine_stopped(self) -> Iterator[None]:
        """Stop the engine for the time of the block, also while it loads the model."""
        wait_until(lambda: bool(self._engines()), "no engine was started")
        engine = self._engine()
        os.kill(engine, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(engine, signal.SIGCONT)

    def go_on(self) -> None:
        """Let the engine write on, once it has come to a pause."""
        wait_until(lambda: any(map(is_stopped, self._engines())), "the engine came to no pause")
        self.continue_engine()

    def continue_engine(self) -> None:
        """Continue the engine if it is stopped."""
        os.kill(self._engine(), signal.SIGCONT)

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics."""
        headers = {"Authorization": f"Bearer {self._kind.keys[0]}"} if self._kind.keys else {}
        return samples(httpx2.get(f"{self.url}/metrics", headers=headers, timeout=PATIENCE, trust_env=False).text)

    def metric(self, name: str) -> float:
        """One sample; 0 if it is not there yet."""
        return self.metrics().get(f"antiphon_{name}", 0.0)

    async def until(self, condition: Callable[[dict[str, float]], bool], complaint: str) -> dict[str, float]:
        """Wait for /metrics to be so, and return it."""
        deadline = time.monotonic() + PATIENCE
        while not condition(now := await asyncio.to_thread(self.metrics)):
            assert time.monotonic() < deadline, f"{complaint}: {now}"
            await asyncio.sleep(_PACE)
        return now

    async def until_idle(self) -> dict[str, float]:
        """Wait until nobody is served."""
        return await self.until(
            lambda now: not now.get("antiphon_requests_running") and not blocks_in_use(now),
            "the server never fell idle",
        )

    def _engine(self) -> int:
        (engine,) = self._engines()
        return engine

    def _engines(self) -> list[int]:
        assert self._process is not None
        return [pid for pid in children(self._process.pid) if _runs(pid, b"antiphon.engine.worker")]


def _token(text: str) -> int:
    return tiny_vocabulary()[0].index(text)


def _runs(pid: int, what: bytes) -> bool:
    return what in Path(f"/proc/{pid}/cmdline").read_bytes()


async def _main(folder: Path, kind: Kind, port: int) -> None:
    async with running_server(folder, port=port, **kind.arguments()) as server:
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), Kind(**json.loads(sys.argv[2])), int(sys.argv[3])))
