"""Cuts a long text into slices whose tokens, put together, are the tokens of the whole text.

Owns the places where that holds. Byte-level BPE merges bytes within words only, and every expression in
`byte_level.PRE_TOKENIZERS`, like those of `KNOWN_EXPRESSIONS`, ends a word between a letter and a single space, or one
of three CJK punctuation marks, that another letter follows. So a text that turns out too long need not be encoded to
its end, and no single call into the tokenizer's library takes long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

SLICE = 64 << 10  # characters; a slice goes on to the next place to cut
_WINDOW = 256 << 10  # characters that are searched at once: other threads wait meanwhile

_LETTER = "[a-z\u4e00-\u9fff]"
_PLACE = re.compile(f"{_LETTER}(?=[ \u3001\u3002\uff0c]{_LETTER})")
# Expressions in published tokenizer.json files.
KNOWN_EXPRESSIONS = frozenset(
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    for numbers in (r"\p{N}", r"\p{N}{1,3}")
)


def slices(text: str) -> Iterator[str]:
    """`text` in slices of at least SLICE characters, but for the last."""
    begin = 0
    while len(text) - begin > SLICE:
        end = _next_place(text, begin + SLICE)
        if end is None:
            break
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _next_place(text: str, begin: int) -> int | None:
    """The first place to cut after the character at `begin`."""
    for start in range(begin, len(text), _WINDOW):
        # A place is seen by three characters, so windows overlap by two.
        place = _PLACE.search(text, start, start + _WINDOW + 2)
        if place is not None:
            return place.end()
    return None


def can_be_sliced(tree: dict[str, Any]) -> bool:
    """Whether the steps of a tokenizer.json are such that `slices` holds."""
    normalizer = tree.get("normalizer")
    if normalizer and normalizer["type"] != "NFC":
        return False
    return all(map(_ends_words, _steps(tree.get("pre_tokenizer"))))


def _steps(step: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    if not step:
        return []
    if step["type"] == "Sequence":
        return [inner for each in step["pretokenizers"] for inner in _steps(each)]
    return [step]


def _ends_words(step: dict[str, Any]) -> bool:
    match step["type"]:
        case "Split":
            isolated = str(step.get("behavior")).lower() == "isolated" and not step.get("invert")
            return isolated and step["pattern"].get("Regex") in KNOWN_EXPRESSIONS
        case "ByteLevel":
            return not step.get("add_prefix_space", True)
        case kind:
            return bool(kind == "Digits")
