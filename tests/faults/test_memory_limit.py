"""A control group's limit on memory is lowered while a server in it serves, as an operator or a neighbour may do."""

from __future__ import annotations

import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from canaries import Canary, answer, streamed
from control_groups import MemoryGroup, memory_group
from patience import wait_until
from real_server import real_server
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf

_LONG = {"max_tokens": 1500, "temperature": 0}
# Bytes. The fake engine is smaller than the front, unlike one with a model, and what is too little for it may be too
# little for the front. So each engine takes as much as a small model from its first moment on.
_MODEL = 96 << 20
_TOO_LITTLE = 64 << 20
_LIKE_A_MODEL = f"""
import sys
if "antiphon.engine.worker" in sys.orig_argv:
    model = b"x" * {_MODEL}
"""


def test_engines_are_killed_until_there_is_memory_again_and_answers_go_on(tmp_path: Path):
    described = {**metadata(template=CHATML_TEMPLATE), "qwen2.context_length": 4096}
    model = write_gguf(tmp_path / "small.gguf", described)
    with memory_group() as group, ExitStack() as stack:
        with group.entered():
            # Engines that die would otherwise shorten the next answers, or open the breaker.
            options = ("--fake-engine", "--degrade", "off", "--breaker-failures", "0")
            (tmp_path / "sitecustomize.py").write_text(_LIKE_A_MODEL)
            server = stack.enter_context(real_server(model, *options, environment={"PYTHONPATH": str(tmp_path)}))
        pool, begun = stack.enter_context(ThreadPoolExecutor()), threading.Event()
        canary, long_answer = Canary(server), answer(server, "Tell me all.", **_LONG)
        asked = pool.submit(streamed, server, "Tell me all.", begun, **_LONG)
        begun.wait()
        limit = group.usage - _anonymous_bytes(server.engine_pid) + _TOO_LITTLE
        os.kill(server.process.pid, signal.SIGSTOP)  # so that the next engine is not there before the limit
        os.kill(server.engine_pid, signal.SIGKILL)
        wait_until(lambda: _is_limited(group, limit), "the limit could not be lowered")
        os.kill(server.process.pid, signal.SIGCONT)
        wait_until(lambda: group.num_killed >= 2 or server.process.poll() is not None, "the kernel killed no engine")
        assert server.process.poll() is None, "the kernel killed the server before its engine"
        assert not asked.done()
        group.limit(None)
        assert asked.result() == long_answer
        assert server.process.poll() is None
        canary.check()


def _is_limited(group: MemoryGroup, limit: int) -> bool:
    with suppress(OSError):  # the dead engine's memory is not free yet
        group.limit(limit)
        return True
    return False


def _anonymous_bytes(pid: int) -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) << 10
