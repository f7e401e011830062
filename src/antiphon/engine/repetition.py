"""Notices that a sequence has begun to repeat itself, beyond doubt.

The sign is an end that is periodic, token for token: the same run of up to MAX_PERIOD tokens at least MIN_REPEATS times
and over MIN_TOKENS tokens. People who think aloud repeat a step once or twice, and tables have short runs of one
symbol; nobody says the same hundred tokens four times. Small models at low temperature do, and then for ever: once a
run fills the context that the next tokens hang on, nothing in it calls for an end. What is said anew in other words is
not noticed.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_PERIOD = 128  # tokens
MIN_REPEATS = 4
MIN_TOKENS = 128  # so a single token must come that many times
CHECK_EVERY = 16  # tokens; looking at each one would find a loop a little earlier, at many times the cost


def is_loop(token_ids: Sequence[int]) -> bool:
    """Whether the tokens end in a loop; looked for at every CHECK_EVERY-th token only, so ask after each."""
    if len(token_ids) < MIN_TOKENS or len(token_ids) % CHECK_EVERY:
        return False
    end = token_ids[-MIN_REPEATS * MAX_PERIOD :]
    return any(_has_period(end, period) for period in range(1, MAX_PERIOD + 1))


def _has_period(token_ids: Sequence[int], period: int) -> bool:
    """Whether the last tokens, as many as are asked for, equal those a period before them."""
    length = max(MIN_REPEATS * period, MIN_TOKENS)
    if length > len(token_ids) or token_ids[-1] != token_ids[-1 - period]:  # the second settles nearly all
        return False
    return token_ids[period - length :] == token_ids[-length:-period]
