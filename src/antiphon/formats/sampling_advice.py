"""The sampling parameters that a checkpoint recommends, limited to what a request may set.

They stand in for a request's own fields, which are checked at the edge and not again, so a value that no request could
have must not come out of here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from antiphon.checkpoint import Note
from antiphon.errors import CheckpointError
from antiphon.formats.fields import Fields

MAX_TOP_K = (1 << 31) - 1
# As in `api.fields`, which a test compares; formats may not import it.
RANGES = {
    "temperature": (0.0, 2.0),
    "top_p": (sys.float_info.min, 1.0),  # above zero
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
}


def sampling_advice(fields: Fields, names: Mapping[str, str]) -> tuple[dict[str, float | int], list[Note]]:
    """The recommended parameters, by our names, and notes on values that no request could have, which are ignored.

    `names`: our name → theirs.
    """
    advice: dict[str, float | int] = {}
    notes = []
    for ours, theirs in names.items():
        if not fields.has(theirs):
            continue
        try:
            advice[ours] = _value(fields, ours, theirs)
        except CheckpointError as error:
            notes.append(Note(error.message, "this advice is ignored"))
    return advice, notes


def _value(fields: Fields, ours: str, theirs: str) -> float | int:
    if ours == "top_k":
        # Publishers write -1 as well as 0 where they mean none.
        return max(0, fields.integer(theirs, least=-1, most=MAX_TOP_K))
    least, most = RANGES[ours]
    return fields.number(theirs, least=least, most=most)
