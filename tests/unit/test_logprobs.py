"""Log-probabilities as `/v1/completions` writes them."""

from __future__ import annotations

from typing import cast

from antiphon.api.logprobs import rivals_by_text
from antiphon.request import TokenLogprobs
from antiphon.text import Tokenizer


class _TwoIdsOneText:
    """A vocabulary in which tokens 1 and 2 are both a line break, as a byte token and a piece can be."""

    def id_to_bytes(self, token_id: int) -> bytes:
        return {0: b"a", 1: b"\n", 2: b"\n"}[token_id]


_TOKENIZER = cast(Tokenizer, _TwoIdsOneText())


def test_of_tokens_with_the_same_text_the_likeliest_counts():
    """Else a harness would take the scored token for the likeliest."""
    scores = TokenLogprobs(-3.0, [1], [-0.1])
    assert rivals_by_text(_TOKENIZER, 2, scores) == {"\n": -0.1}
    assert rivals_by_text(_TOKENIZER, 0, TokenLogprobs(-4.0, [1, 2], [-0.1, -3.0])) == {"\n": -0.1, "a": -4.0}


def test_the_scored_token_is_among_the_likeliest_and_impossible_ones_are_numbers():
    scores = TokenLogprobs(float("-inf"), [1], [0.0])
    assert rivals_by_text(_TOKENIZER, 0, scores) == {"\n": 0.0, "a": -9999.0}
