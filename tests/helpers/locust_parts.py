"""Prints what parts of a locustfile do, as JSON. A process of its own: importing locust patches Python's sockets."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

TIMES = (0.0, 30.0, 59.9, 60.0, 179.9, 180.0)
RETRY_HEADERS = (
    {"retry-after": "3"},
    {"retry-after": "1", "retry-after-ms": "120"},
    {},
    {"retry-after": "Thu, 01 Jan 2015 00:00:00 GMT"},
)


def load(path: str) -> ModuleType:
    importlib.import_module("locust")  # first, as locust itself does: it has to patch sockets before others use them
    spec = importlib.util.spec_from_file_location("locustfile", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ticks(file: ModuleType) -> list[Any]:
    """The shape at some seconds of the test."""
    shape = file.Gradient()
    options = SimpleNamespace(ramp="1..20", ramp_seconds=60.0, hold_seconds=120.0)
    shape.runner = SimpleNamespace(environment=SimpleNamespace(parsed_options=options))
    found = []
    for now in TIMES:
        shape.get_run_time = lambda now=now: now
        found.append(shape.tick())
    return found


def read(file: ModuleType, *chunks: tuple[str, str]) -> tuple[float, float | None, float | None]:
    """The times of an answer whose chunks come a second apart."""

    class Timed(file.Answer):  # type: ignore[name-defined,misc]
        seconds = 0
        age = property(lambda self: self.seconds)

    answer = Timed(0.0)
    for answer.seconds, (field, text) in enumerate(chunks, 1):
        answer.add(json.dumps({"choices": [{"delta": {field: text}, "finish_reason": None}]}))
    answer.add(json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    answer.add(json.dumps({"choices": [], "usage": {"completion_tokens": 5}}))
    answer.add("[DONE]")
    answer.check()
    return answer.first_token_after, answer.first_answer_after, answer.time_per_token


def content(*texts: str) -> list[tuple[str, str]]:
    return [("content", text) for text in texts]


def main(path: str) -> None:
    file = load(path)
    separate = (("reasoning_content", "a"), ("reasoning_content", "b"), *content("c", "d"))
    result = {
        "ticks": ticks(file),
        "separate": read(file, *separate),
        "inside": read(file, *content("<think>", "a", "b</thi", "nk>", "\n\n", "c")),
        "none": read(file, *content("a", "b")),
        "only a thought": read(file, ("reasoning", "a"), ("reasoning", "b")),
        "waits": [file._retry_after(headers) for headers in RETRY_HEADERS],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
