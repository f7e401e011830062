"""How much each column of each matrix matters: the mean square of its input, measured on a text.

An error in a weight reaches the matrix's output multiplied by the input of its column, so this is the weight of the
squared error (as in activation-aware methods; ggml calls a file of such numbers an importance matrix).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from antiphon.checkpoint import Checkpoint
from antiphon.ops.reference_types import Array
from antiphon.quantizer.streamed import compute

Importance = Mapping[str, npt.NDArray[np.float32]]  # tensor → [columns]


def measure_importance(checkpoint: Checkpoint, windows: Sequence[Sequence[int]]) -> Importance:
    """Of every matrix that the model multiplies."""
    found: dict[str, npt.NDArray[np.float32]] = {}

    def observe(name: str, x: Array) -> None:
        found[name] = np.mean(x.astype(np.float64) ** 2, axis=0).astype(np.float32)

    compute(checkpoint, windows, observe)
    return found
