"""The prompts of a load test: built-in sets, random words of a given length, or those of a file.

Every request has a number, and its prompt depends on the seed, the stage and this number alone, so that two servers are
asked the same. Prompts that are made here differ from each other from their first words on, so that no cache holds
them; only `shared-prefix` begins with the same system prompt, to measure what a cache is good for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Protocol

from antiphon.errors import ConfigError

Body = dict[str, Any]

_TOPICS = (
    "a river", "an old clock", "the first snow", "the moon", "a small bakery", "a night train", "honey", "a lighthouse",
    "a chess game", "the desert", "a piano", "volcanoes", "tea", "a bridge", "bicycles", "glass", "whales", "a library",
)  # fmt: skip
_QUESTIONS = (
    "Tell me something about {topic} that few people know.",
    "Write four lines of a poem about {topic}.",
    "How would you explain {topic} to a child of six?",
    "What are the three most important facts about {topic}?",
    "Give me a title and a first sentence for a story about {topic}.",
    "What do {topic} and {other} have in common?",
)
_WORDS = (
    "time", "year", "people", "way", "day", "man", "thing", "world", "life", "hand", "part", "child", "eye", "place",
    "work", "week", "case", "point", "company", "number", "group", "problem", "fact", "water", "room", "mother",
    "area", "money", "story", "month", "lot", "right", "study", "book", "word", "business", "issue", "side", "kind",
    "head", "house", "service", "friend", "father", "power", "hour", "game", "line", "end", "member", "law", "car",
    "city", "name", "team", "minute", "idea", "body", "back", "parent", "face", "level", "office", "door", "health",
    "person", "art", "war", "history", "party", "result", "change", "morning", "reason", "research", "girl", "guy",
    "moment", "air", "teacher",
)  # fmt: skip
_SENTENCES = (
    "In the {n1}th week the team moved {n2} boxes from the {w1} to the {w2}.",
    "The {w1} was repaired at a cost of {n2}00 crowns, which the {w2} paid.",
    "Of the {n1} people who were asked, {n2} preferred the old {w1}.",
    "Nobody could explain why the {w1} had been closed before the {w2}.",
    "A new rule about every {w1} begins on day {n1} of the next month.",
    "The {w1} of the {w2} will be measured again after {n2} days.",
)
_RULES = 60  # sentences of the shared system prompt: about 1,000 tokens
_DOCUMENT = 80  # sentences of a document: about 1,500 tokens


class Prompts(Protocol):
    """A source of prompts."""

    def body(self, stage: int, number: int) -> Body:
        """The fields of a request that say what is asked: `messages` or `prompt`, perhaps others."""


class MadePrompts:
    """Prompts that a function makes of a generator of its own for each request."""

    def __init__(self, make: Callable[[Random], list[dict[str, str]]], seed: int) -> None:
        self._make = make
        self._seed = seed

    def body(self, stage: int, number: int) -> Body:
        """A chat."""
        return {"messages": self._make(Random(f"{self._seed}/{stage}/{number}"))}  # noqa: S311  # no secret


class FilePrompts:
    """Prompts of a file, one after another, from the beginning again when they are used up."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be read or is empty, or a line is not a prompt.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            sets = "" if path.exists() else f"; it is neither a file nor one of {', '.join(SETS)}"
            raise ConfigError(f"--prompts {path} cannot be read: {reason}{sets}") from None
        if text.lstrip().startswith("["):
            self._bodies = _share_gpt(text, f"--prompts {path}")
        else:
            lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
            self._bodies = [_body_of(line, f"--prompts {path}, line {number}") for number, line in lines]
        if not self._bodies:
            raise ConfigError(f"--prompts {path} has no prompts; write one a line, as text or JSON")

    def body(self, stage: int, number: int) -> Body:
        """The prompt of this number. Each stage begins with the first, so that stages are comparable."""
        return self._bodies[number % len(self._bodies)]


def built_in(name: str, seed: int) -> Prompts | None:
    """The built-in set of this name; None if there is none."""
    make = _SETS.get(name)
    return MadePrompts(make, seed) if make else None


def sized(words: int, seed: int) -> Prompts:
    """Prompts of this number of words."""
    return MadePrompts(lambda draw: _user(f"{_mark(draw)}: {' '.join(draw.choices(_WORDS, k=words))}"), seed)


def _body_of(line: str, where: str) -> Body:
    if not line.lstrip().startswith("{"):
        return {"messages": _user(line)}
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON: {error}") from None
    found = found.get("body", found)  # a line of OpenAI's batch format
    if isinstance(found, dict) and isinstance(found.get("messages"), list):
        return found
    if isinstance(found, dict) and isinstance(found.get("prompt"), str):
        return found
    raise ConfigError(f'{where} is not a prompt; a line is text, or an object with "messages" or "prompt"')


def _share_gpt(text: str, where: str) -> list[Body]:
    """The first question of each conversation in a file of ShareGPT's form, which vLLM's benchmark reads too."""
    try:
        found = json.loads(text)
        turns = [entry["conversations"][0] for entry in found if entry["conversations"]]
        return [{"messages": _user(str(turn["value"]))} for turn in turns if turn["from"] in ("human", "user")]
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{where} begins with [, but is not ShareGPT's list of conversations: {error!r}") from None


def _user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def _mark(draw: Random) -> str:
    """The first words of a prompt, which no other one has."""
    return f"Note {draw.randrange(1 << 32):08x}"


def _sentences(draw: Random, number: int) -> str:
    return " ".join(
        draw.choice(_SENTENCES).format(
            n1=draw.randint(2, 90), n2=draw.randint(2, 900), w1=draw.choice(_WORDS), w2=draw.choice(_WORDS)
        )
        for _ in range(number)
    )


def _chat(draw: Random) -> list[dict[str, str]]:
    topic, other = draw.sample(_TOPICS, 2)
    return _user(f"{_mark(draw)}. {draw.choice(_QUESTIONS).format(topic=topic, other=other)}")


def _documents(draw: Random) -> list[dict[str, str]]:
    return _user(f"{_mark(draw)}\n\n{_sentences(draw, _DOCUMENT)}\n\nSummarize this report in three sentences.")


def _shared_prefix(draw: Random) -> list[dict[str, str]]:
    rules = _sentences(Random(0), _RULES)  # noqa: S311
    return [{"role": "system", "content": f"You answer questions by these notes.\n\n{rules}"}, *_chat(draw)]


def _math(draw: Random) -> list[dict[str, str]]:
    a, b, c = draw.randint(12, 99), draw.randint(12, 99), draw.randint(3, 9)
    task = draw.choice(
        (
            f"What is {a} * {b} - {c * 7}?",
            f"A train goes {a} km in {c} hours, then {b} km in 2 hours. What is its average speed?",
            f"{c} shelves have {a} books each. {b} books are lent. How many are left?",
            f"Solve for x: {c}x + {a} = {a + b * c}.",
            f"What is the remainder of {a * 1000 + b} divided by {c}?",
        )
    )
    return _user(f"{_mark(draw)}. {task} Think step by step, and give the result in \\boxed{{}}.")


_SETS: dict[str, Callable[[Random], list[dict[str, str]]]] = {
    "chat": _chat,
    "documents": _documents,
    "shared-prefix": _shared_prefix,
    "math": _math,
}
SETS = tuple(_SETS)
# Tokens of an answer at most, where nothing else is asked for.
MAX_TOKENS = {"chat": 128, "documents": 128, "shared-prefix": 128, "math": 1024}
