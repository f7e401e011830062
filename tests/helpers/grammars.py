"""Helpers of the tests of structured answers: a small vocabulary, grammars in Lark, and what a matcher lets through."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf

from antiphon.formats import open_checkpoint
from antiphon.grammar import GrammarError, Vocabulary
from antiphon.grammar.lark import to_lark
from antiphon.grammar.matcher import Matcher, MatcherFactory
from antiphon.request import Grammar, GrammarKind
from antiphon.text import TextModel


@cache
def tiny_vocabulary() -> Vocabulary:
    """That of the tiny checkpoints, with the one end of sequence that the fake engines have."""
    with TemporaryDirectory() as folder:
        path = write_gguf(Path(folder, "tiny.gguf"), metadata(template=CHATML_TEMPLATE))
        text = TextModel.from_checkpoint(open_checkpoint(path))
    text.close()
    vocabulary = text.vocabulary
    assert vocabulary is not None
    return replace(vocabulary, eos_token_ids=vocabulary.eos_token_ids[:1])


@cache
def tiny_factory() -> MatcherFactory:
    return MatcherFactory(tiny_vocabulary())


def lark(kind: GrammarKind, text: str) -> Grammar:
    """As the front's check hands it on."""
    return Grammar(GrammarKind.LARK, to_lark(Grammar(kind, text)))


def json_grammar(schema: Any) -> Grammar:
    return lark(GrammarKind.JSON_SCHEMA, json.dumps(schema))


def matcher_of(grammar: Grammar) -> Matcher:
    """A new matcher over the tiny vocabulary."""
    return tiny_factory().compile(grammar.text)


def spelled(token_ids: list[int], *, errors: str = "strict") -> str:
    """The text of tokens; an end of sequence at the end is not part of it."""
    vocabulary = tiny_vocabulary()
    if token_ids and token_ids[-1] in vocabulary.eos_token_ids:
        token_ids = token_ids[:-1]
    return b"".join(vocabulary.tokens[id] for id in token_ids).decode(errors=errors)


def allowed(matcher: Matcher) -> set[bytes]:
    """What may come next, as texts."""
    bits = int.from_bytes(matcher.bitmask(), "little")
    return {token for id, token in enumerate(tiny_vocabulary().tokens) if bits >> id & 1}


def fits(grammar: Grammar, text: str) -> bool:
    """Whether an answer of exactly this text is complete."""
    matcher = matcher_of(grammar)
    vocabulary = tiny_vocabulary()
    single = {token: id for id, token in reversed(list(enumerate(vocabulary.tokens))) if len(token) == 1}
    try:
        for byte in text.encode():
            matcher.take(single[bytes([byte])])
    except GrammarError:
        return False
    return bool(int.from_bytes(matcher.bitmask(), "little") >> vocabulary.eos_token_ids[0] & 1)
