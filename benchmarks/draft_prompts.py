#!/usr/bin/env python3
"""Prompts to measure drafts with: three kinds whose answers repeat text, and one whose answers do not.

    python benchmarks/draft_prompts.py code --count 3

`code`: rename a parameter of a function and answer with the whole function. `page`: summarize a page. `schema`: fill a
JSON Schema from a letter. `prose`: answer a question. The functions and pages come from CPython's library and
documentation. The letters are made from lists of words. Prompts for code and schemas start with an example, as is
common for such tasks. With an example, SmolLM2-135M can do them, and copies what a larger model would copy.
benchmarks/drafts.py uses these prompts.
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

MODULES = (statistics, textwrap, json.decoder, argparse, inspect)
Message = dict[str, str]
EXAMPLE = '''def area(x):
    """Return the area of a square.

    The side x must not be negative.
    """
    if x < 0:
        raise ValueError("a side cannot be negative")
    return x * x
'''
SUMMARIZE = (  # the wording in SmolLM2's training data
    "Provide a concise, objective summary of the input text in up to three sentences, focusing on key actions and "
    "intentions without using second or third person pronouns."
)
KINDS = ("code", "page", "schema", "prose")
FUNCTION_LINES = range(8, 30)


def functions() -> Iterator[tuple[str, str]]:
    """Sources of functions of CPython's library and the name of the first parameter, in a fixed order."""
    for module in MODULES:
        for _, function in sorted(inspect.getmembers(module, inspect.isfunction)):
            if function.__module__ == module.__name__:
                source, names = inspect.getsource(function), [*inspect.signature(function).parameters]
                if len(source.splitlines()) in FUNCTION_LINES and names:
                    yield source, names[0]


def pages() -> Iterator[str]:
    """Passages of plain English."""
    paragraphs = prose().split("\n\n")
    for start in range(0, len(paragraphs) - 3, 3):
        yield "\n\n".join(paragraphs[start : start + 3])


def letters() -> Iterator[str]:
    """Orders by letter, from lists of names and goods, in a fixed order."""
    for seed in range(60):
        draw = Random(seed)  # noqa: S311  # a fixed order
        name, street, city = (draw.choice(words) for words in (NAMES, STREETS, CITIES))
        goods = draw.sample(GOODS, 3)
        counts = [draw.randint(2, 40) for _ in goods]
        wished = ", ".join(f"{count} {good}" for count, good in zip(counts, goods, strict=True))
        yield (
            f"Dear Sir or Madam,\n\nplease send me {wished}. The parcel goes to {name}, {draw.randint(1, 150)} "
            f"{street}, {draw.randint(10000, 99999)} {city}. I need everything by {draw.choice(DAYS)}. "
            f"If anything is not there, write to {name.split()[0].lower()}@example.org.\n\nYours sincerely,\n{name}"
        )


NAMES = ("Margaret Holloway", "Jonathan Whitfield", "Ana Beatriz Carvalho", "Tomasz Wisniewski", "Priya Raghunathan")
STREETS = ("Orchard Lane", "Station Road", "Kingfisher Avenue", "Old Mill Street", "Harbour View")
CITIES = ("Springfield", "Brookhaven", "Northampton", "Cedar Rapids", "Wellington")
DAYS = ("Monday, 3 March", "Friday, 14 June", "the end of September", "Wednesday, 20 November")
GOODS = (
    "boxes of blue ballpoint pens", "reams of recycled paper", "bottles of black ink", "wooden rulers",
    "spiral notebooks with squared pages", "packets of coloured chalk", "folders with elastic bands",
)  # fmt: skip
_TEXT, _NUMBER = {"type": "string", "maxLength": 60}, {"type": "integer", "minimum": 1, "maximum": 99999}
EXAMPLE_LETTER = (
    "Hello,\n\nI would like 12 red pencils, 3 large erasers and 150 sheets of tracing paper, sent to Ruth Okafor, 17 "
    "Linden Close, 20145 Ashford, before the 5th of May. My address for questions is ruth@example.org.\n\nRuth Okafor"
)
EXAMPLE_ORDER: dict[str, Any] = {
    "customer": {"name": "Ruth Okafor", "email": "ruth@example.org"},
    "address": {"number": 17, "street": "Linden Close", "postal_code": 20145, "city": "Ashford"},
    "wanted_by": "the 5th of May",
    "items": [
        {"quantity": 12, "description": "red pencils"},
        {"quantity": 3, "description": "large erasers"},
        {"quantity": 150, "description": "sheets of tracing paper"},
    ],
}
ORDER: dict[str, Any] = {
    "customer": {"name": _TEXT, "email": _TEXT},
    "address": {"number": _NUMBER, "street": _TEXT, "postal_code": _NUMBER, "city": _TEXT},
    "wanted_by": _TEXT,
}


def order_schema() -> dict[str, Any]:
    """The schema of an order, which is filled from a letter."""
    item = _object({"quantity": _NUMBER, "description": _TEXT})
    parts = {name: _object(part) if "type" not in part else part for name, part in ORDER.items()}
    return _object({**parts, "items": {"type": "array", "items": item, "minItems": 3, "maxItems": 3}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def bodies(kind: str) -> Iterator[dict[str, Any]]:
    """Requests of a kind."""
    match kind:
        case "code":
            example = [asked_to_rename(EXAMPLE, "x"), answered(code(EXAMPLE.replace("x", "given")))]
            for source, name in functions():
                yield _chat([*example, asked_to_rename(source, name)], 400)
        case "page":
            for page in pages():
                yield _chat([{"role": "system", "content": SUMMARIZE}, asked(page)], 200)
        case "schema":
            schema = {"name": "order", "schema": order_schema()}
            example = [asked_for_json(EXAMPLE_LETTER), answered(json.dumps(EXAMPLE_ORDER))]
            for letter in letters():
                wished = [*example, asked_for_json(letter)]
                yield _chat(wished, 300, response_format={"type": "json_schema", "json_schema": schema})
        case _:
            for question in QUESTIONS:
                yield _chat([asked(question)], 200)


def asked_to_rename(source: str, name: str) -> Message:
    return asked(f"Rename the parameter `{name}` to `given` and answer with the whole function:\n\n{code(source)}")


def asked_for_json(letter: str) -> Message:
    return asked(f"{letter}\n\nWrite this order as JSON.")


def code(source: str) -> str:
    return f"```python\n{source}```"


def asked(content: str) -> Message:
    return {"role": "user", "content": content}


def answered(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _chat(messages: list[Message], max_tokens: int, **fields: Any) -> dict[str, Any]:
    return {"messages": messages, "max_tokens": max_tokens, **fields}


def chosen(kind: str, count: int) -> list[dict[str, Any]]:
    """`count` different requests of a kind. They are the same every time."""
    found = list(bodies(kind))
    Random(0).shuffle(found)  # noqa: S311  # a fixed order
    return found[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description="Print prompts to measure drafts with, one line of JSON each.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=40)
    arguments = parser.parse_args()
    for body in chosen(arguments.kind, arguments.count):
        print(json.dumps(body))


if __name__ == "__main__":
    main()
