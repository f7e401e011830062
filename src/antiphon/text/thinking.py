"""The token ids with which a thought opens, closes or pauses, for an engine that knows token ids only.

In models trained to think a tag is a token of its own. In others, and when a model writes one letter by letter, it is a
run of ordinary tokens, and the first and last may include text around the tag. The likely spellings are found by
encoding the tag with different text before and behind it.
"""

from __future__ import annotations

from itertools import accumulate, product

from antiphon.request import ThinkingLimit
from antiphon.text.prompt import THINK_CLOSE, THINK_OPEN
from antiphon.text.tokenizer import Tokenizer

# Text around tags, and what ends a sentence: a mark, perhaps a bracket or quotation mark, perhaps a line break.
_BEFORE, _AFTER = ("", "\n", ".", ".\n", " "), ("", "\n", "\n\n")
_MARKS, _BRACKETS = (".", "!", "?", "。", "！", "？"), ("", ")", '"', "**")


class ThoughtTokens:
    """The tokens around thoughts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._begin = _spellings(tokenizer, THINK_OPEN)
        self._end = _spellings(tokenizer, THINK_CLOSE)
        self._closing = (*tokenizer.encode_inside("\n"), *self._end[0], *tokenizer.encode_inside("\n\n"))
        self._sentence_ends = _sentence_ends(tokenizer)

    @property
    def num_closing_tokens(self) -> int:
        """The tokens that closing a thought takes."""
        return len(self._closing)

    def limit(self, budget: int, *, starts_in_thought: bool, loop_guard: bool = True) -> ThinkingLimit:
        """A limit of `budget` tokens, for an output that begins inside the thought or may open one itself."""
        return ThinkingLimit(
            budget=budget,
            closing_token_ids=self._closing,
            end_token_ids=self._end,
            begin_token_ids=() if starts_in_thought else self._begin,
            sentence_end_token_ids=self._sentence_ends,
            loop_guard=loop_guard,
        )


def _spellings(tokenizer: Tokenizer, tag: str) -> tuple[tuple[int, ...], ...]:
    """The tag's own token, if it has one, then the ordinary tokens that spell it, alone and with text around it."""
    own = tokenizer.control_token_id(tag)
    found: list[tuple[int, ...]] = [] if own is None else [(own,)]
    for before, after in product(_BEFORE, _AFTER):
        token_ids = tokenizer.encode_inside(before + tag + after)
        found.append(_covering(tokenizer, token_ids, len(before), len(before + tag)))
    return tuple(dict.fromkeys(found))


def _covering(tokenizer: Tokenizer, token_ids: list[int], start: int, end: int) -> tuple[int, ...]:
    """The tokens that contain any of the bytes from `start` to `end`."""
    ends = list(accumulate(len(tokenizer.id_to_bytes(id)) for id in token_ids))
    starts = [0, *ends]
    return tuple(id for id, low, high in zip(token_ids, starts, ends, strict=False) if high > start and low < end)


def _sentence_ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that end a sentence or a line. None contains a word, so there are few."""
    texts = ["\n", "\n\n", *(mark + bracket + after for mark, bracket, after in product(_MARKS, _BRACKETS, _AFTER))]
    encoded = [tokenizer.encode_inside(text) for text in texts]
    return tuple(dict.fromkeys(ids[0] for ids in encoded if len(ids) == 1))
