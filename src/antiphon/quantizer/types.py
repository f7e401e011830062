"""Which type each tensor of a checkpoint is written in.

Matrices between embedding and head take the target's type, embedding and head 8 bits, vectors stay as they are. A
matrix that loses much more than the others in 4 bits gets 8 as well; how much each loses is measured, not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.errors import CheckpointError
from antiphon.footprint import EMBEDDINGS, HEADS
from antiphon.quantization import FLOATS

TARGETS = ("Q4_1", "Q4_0", "Q8_0")
FINE = "Q8_0"
GROUP = 32
SENSITIVE = 2.0  # times the middle matrix' relative error, from which on one is kept in 8 bits


def first_types(checkpoint: Checkpoint, target: str, *, requantize: bool = False) -> dict[str, str]:
    """Tensor → type, before anything is measured.

    Raises:
        CheckpointError: a matrix is quantized already, and `requantize` does not say that this is meant; or its
            columns are in act-order, which no file that is written could say.
    """
    types = {}
    for name, tensor in checkpoint.tensors.items():
        if not _is_divisible(tensor):
            types[name] = tensor.type
            continue
        if tensor.column_order is not None:
            raise CheckpointError(
                f"{checkpoint.path}: tensor {name} is quantized in act-order, which cannot be quantized again; take "
                "the original in F16 or BF16"
            )
        if tensor.type not in (*FLOATS, FINE) and not requantize:
            raise CheckpointError(
                f"{checkpoint.path}: tensor {name} is in {tensor.type} already, and quantizing again what was "
                "quantized loses twice; take the original in F16, BF16 or Q8_0, or give --allow-requantize"
            )
        types[name] = FINE if is_outer(name) else target
    return types


def sensitive(errors: Mapping[str, float]) -> list[str]:
    """Those whose relative error stands out; `errors` of the matrices in 4 bits."""
    if not errors:
        return []
    limit = SENSITIVE * median(errors.values())
    return [name for name, error in errors.items() if error > limit]


def is_outer(name: str) -> bool:
    """Whether it is the embedding or the head."""
    return name in (*EMBEDDINGS, *HEADS)


def _is_divisible(tensor: Tensor) -> bool:
    return len(tensor.shape) == 2 and tensor.shape[1] % GROUP == 0
