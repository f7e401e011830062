"""Notices that a sequence repeats itself.

The sign is a periodic end, token for token: the same run of up to MAX_PERIOD tokens at least MIN_REPEATS times and over
at least MIN_TOKENS tokens. Thinking aloud repeats a step once or twice, and tables have short runs of one symbol, but
no useful text says the same hundred tokens four times. Small models at low temperature do, and then never stop: once a
repeated run fills the context that the next tokens depend on, nothing in it suggests an end. Repetition in other words
is not noticed.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_PERIOD = 128  # tokens
MIN_REPEATS = 4
MIN_TOKENS = 128  # so a single token must come that many times
CHECK_EVERY = 16  # tokens; checking at each one would find a loop a little earlier, at many times the cost
WINDOW = MIN_REPEATS * MAX_PERIOD  # tokens: nothing before the last so many is looked at


def is_loop(token_ids: Sequence[int], num_tokens: int | None = None) -> bool:
    """Whether the tokens end in a loop; checked at every CHECK_EVERY-th token only, so call this after each one.

    `token_ids` are all tokens, or, where `num_tokens` says how many there are, at least the last WINDOW of them.
    """
    num_tokens = len(token_ids) if num_tokens is None else num_tokens
    if num_tokens < MIN_TOKENS or num_tokens % CHECK_EVERY:
        return False
    end = token_ids[-WINDOW:]
    return any(_has_period(end, period) for period in range(1, MAX_PERIOD + 1))


def _has_period(token_ids: Sequence[int], period: int) -> bool:
    """Whether the last tokens, as many as are required, equal those a period before them."""
    length = max(MIN_REPEATS * period, MIN_TOKENS)
    if length > len(token_ids) or token_ids[-1] != token_ids[-1 - period]:  # the second settles nearly all
        return False
    return token_ids[period - length :] == token_ids[-length:-period]
