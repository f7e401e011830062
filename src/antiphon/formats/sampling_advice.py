"""The publisher's advice on sampling, whatever the format calls its fields, within what a request may ask for.

Owns the ranges of that advice. It promises that what it returns can stand in for a request's own fields, which are
checked at the edge and not again: advice that a request could not give would reach the engine unchecked.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from antiphon.formats.fields import Fields

MAX_TOP_K = (1 << 31) - 1
# As in `http.schemas`, which a test compares; formats stand alone and cannot ask there.
RANGES = {
    "temperature": (0.0, 2.0),
    "top_p": (sys.float_info.min, 1.0),  # above zero
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
}


def sampling_advice(fields: Fields, names: Mapping[str, str]) -> dict[str, float | int]:
    """The advice in `fields`, by our names; `names` says what theirs are.

    Raises CheckpointError for advice that no request could give.
    """
    advice: dict[str, float | int] = {
        ours: fields.number(names[ours], least=least, most=most)
        for ours, (least, most) in RANGES.items()
        if fields.has(names[ours])
    }
    if fields.has(names["top_k"]):
        # Publishers write -1 as well as 0 where they mean none.
        advice["top_k"] = max(0, fields.integer(names["top_k"], least=-1, most=MAX_TOP_K))
    return advice
