"""A canary: what must be as before, whatever has happened to a server in between."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
from patience import PATIENCE, wait_until
from real_server import TLS, RealServer

# Pools of threads start theirs when there is something to do: two for short texts, two for long, one for grammars, and
# one that waits for each engine.
_LAZY_THREADS = 6


class Canary:
    """The answer and the resources of a server that is well; `check` compares."""

    def __init__(self, server: RealServer) -> None:
        self._server = server
        with ThreadPoolExecutor(8) as pool:  # so that what starts with the first requests has started
            list(pool.map(lambda _: self._ask(), range(8)))
        answer(server, "Choose.", guided_choice=["a", "b"])
        self._text = self._ask()
        server.wait_idle()
        self._descriptors = self._open_descriptors()
        for _ in range(20):  # a connection may be closed a moment later
            self._descriptors = list(map(min, self._descriptors, self._open_descriptors()))
            time.sleep(0.01)
        self._threads = [_threads(pid) for pid in self._pids]

    def check(self) -> None:
        """The same text; nobody is served, no KV block is in use, the accounts close; no descriptor or thread more."""
        assert self._ask() == self._text
        self._server.wait_idle()
        wait_until(
            lambda: all(now <= then for now, then in zip(self._open_descriptors(), self._descriptors, strict=True)),
            f"descriptors are left open: {self._descriptors} before",
        )
        threads = [_threads(pid) for pid in self._pids]
        assert threads[0] <= self._threads[0] + _LAZY_THREADS
        assert threads[1] <= self._threads[1]  # a new engine starts the thread for grammars when there is one

    @property
    def _pids(self) -> tuple[int, int]:
        return self._server.process.pid, self._server.engine_pid

    def _open_descriptors(self) -> list[int]:
        return [_descriptors(pid) for pid in self._pids]

    def _ask(self) -> str:
        return answer(self._server, "Are you well?", max_tokens=40, seed=7)


def post(server: RealServer, path: str, body: dict[str, Any]) -> httpx2.Response:
    """Send a request over a connection of its own."""
    return httpx2.post(f"{server.url}{path}", json=body, timeout=PATIENCE, trust_env=False, verify=TLS)


def answer(server: RealServer, question: str, **fields: Any) -> str:
    """Ask one question over a connection of its own, and return the text."""
    reply = post(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": question}], **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]


def streamed(server: RealServer, question: str, begun: threading.Event, **fields: Any) -> str:
    """The same as a stream; `begun` is set when the first token has come."""
    text = []
    body = {"messages": [{"role": "user", "content": question}], "stream": True, **fields}
    url = f"{server.url}/v1/chat/completions"
    with httpx2.stream("POST", url, json=body, timeout=PATIENCE, trust_env=False, verify=TLS) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                assert "error" not in chunk, chunk
                for choice in chunk["choices"]:
                    if choice["index"] == 0 and choice["delta"].get("content"):
                        text.append(choice["delta"]["content"])
                        begun.set()
    return "".join(text)


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))
