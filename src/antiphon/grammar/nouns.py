"""The vocabulary that grammars are followed with, and the error for a bad grammar. Plain data, without the library."""

from __future__ import annotations

from dataclasses import dataclass


class GrammarError(ValueError):
    """What is wrong with a grammar, in words for its sender."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The bytes that each token of one model stands for."""

    tokens: list[bytes]  # in id order
    special_token_ids: list[int]  # control tokens, which no text of a grammar ever matches
    eos_token_ids: list[int]  # at least one; they end an answer once its grammar is complete
