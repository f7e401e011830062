#!/usr/bin/env python3
"""Prompts whose answers repeat text, and some whose answers do not: to measure what drafts are worth.

    python benchmarks/draft_prompts.py code > code.jsonl
    antiphon serve demo --port 8001 --speculation auto &
    antiphon serve demo --port 8002 &
    antiphon bench compare 127.0.0.1:8001 127.0.0.1:8002 --prompts code.jsonl --users 1

`code`: copy a function with one change. `page`: quote a page and sum it up. `schema`: fill a JSON Schema. `prose`: free
text about something. The texts are real: functions and documentation that every CPython carries.
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import textwrap
from collections.abc import Iterator
from random import Random
from typing import Any

from prose import prose
from questions import QUESTIONS
from schemas import is_recursive, random_schema

MODULES = (statistics, textwrap, json.decoder, argparse, inspect)
FUNCTION_LINES = range(8, 30)


def functions() -> Iterator[str]:
    """The sources of functions of CPython's library, in a fixed order."""
    for module in MODULES:
        for _, function in sorted(inspect.getmembers(module, inspect.isfunction)):
            if function.__module__ == module.__name__:
                source = inspect.getsource(function)
                if len(source.splitlines()) in FUNCTION_LINES:
                    yield source


def pages() -> Iterator[str]:
    """Passages of plain English."""
    paragraphs = prose().split("\n\n")
    for start in range(0, len(paragraphs) - 3, 3):
        yield "\n\n".join(paragraphs[start : start + 3])


def _chat(content: str, max_tokens: int, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": max_tokens, **fields}


def bodies(kind: str) -> Iterator[dict[str, Any]]:
    """Requests of a kind."""
    match kind:
        case "code":
            for source in functions():
                asked = (
                    f"Rename the first parameter to `value` and give back the whole function:\n\n```python\n{source}```"
                )
                yield _chat(asked, 300)
        case "page":
            for page in pages():
                yield _chat(
                    f"{page}\n\nFirst quote this text word for word, then say in a sentence what it is about.", 300
                )
        case "schema":
            for seed in (seed for seed in range(200) if not is_recursive(seed)):
                schema = {"name": "data", "schema": random_schema(seed)}
                yield _chat("Fill in some data.", 300, response_format={"type": "json_schema", "json_schema": schema})
        case _:
            for question in QUESTIONS:
                yield _chat(question, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description="Prompts to measure drafts with, a line of JSON each.")
    parser.add_argument("kind", choices=["code", "page", "schema", "prose"])
    parser.add_argument("--count", type=int, default=40)
    arguments = parser.parse_args()
    found = list(bodies(arguments.kind))
    Random(0).shuffle(found)  # noqa: S311  # a fixed order
    for body in found[: arguments.count]:
        print(json.dumps(body))


if __name__ == "__main__":
    main()
