"""A text to measure models on: plain English that every CPython carries, so that nothing has to be brought."""

from __future__ import annotations

import re

_SHORTEST = 80  # characters of a paragraph
_PLAIN = re.compile(r"[A-Za-z0-9 ,.;:'\"()!?/’“”—–-]+")
_CODE = re.compile(r"::|>>>|\.\.\.|\(\)|[a-z]\.[a-z]")


def prose() -> str:
    """Paragraphs of plain English that every CPython carries, each once, in a fixed order."""
    from pydoc_data import topics

    paragraphs = (" ".join(part.split()) for _, text in sorted(topics.topics.items()) for part in text.split("\n\n"))
    plain = [p for p in paragraphs if len(p) >= _SHORTEST and _PLAIN.fullmatch(p) and not _CODE.search(p)]
    return "\n\n".join(dict.fromkeys(plain))
