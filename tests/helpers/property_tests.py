"""How many examples a property test runs: as many as it says, or more where the Hypothesis profile asks for more."""

from __future__ import annotations

from hypothesis import settings

_USUAL = 100  # Hypothesis' own default, and the profile "repeatable"'s


def examples(number: int) -> int:
    """`number` in an ordinary run; ten times as many under the profile "search", which has ten times the default.

    Use as `@settings(max_examples=examples(400))`: a bare number would be the same in a search.
    """
    return max(1, number * settings.default.max_examples // _USUAL)
