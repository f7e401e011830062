"""Which type each tensor of a checkpoint is written in.

Matrices between embedding and output matrix get the target's type, these two get 8 bits, and vectors are unchanged. A
matrix that loses much more than the others in 4 bits gets 8 bits as well; the loss of each is measured.
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
SENSITIVE = 2.0  # times the median relative error; above it a matrix gets 8 bits


def first_types(checkpoint: Checkpoint, target: str, *, requantize: bool = False) -> dict[str, str]:
    """Tensor → type, before anything is measured.

    Raises:
        CheckpointError: a matrix is quantized already and `requantize` is not set, or its columns are in act-order,
            which the written file could not express.
    """
    types = {}
    for name, tensor in checkpoint.tensors.items():
        if not _is_divisible(tensor):
            types[name] = tensor.type
            continue
        if tensor.column_order is not None:
            raise CheckpointError(
                f"{checkpoint.path}: tensor {name} is quantized in act-order, which cannot be quantized again; use "
                "the original in F16 or BF16"
            )
        if tensor.type not in (*FLOATS, FINE) and not requantize:
            raise CheckpointError(
                f"{checkpoint.path}: tensor {name} is in {tensor.type} already, and quantizing it "
                "again loses accuracy twice; use the original in F16, BF16 or Q8_0, or --allow-requantize"
            )
        types[name] = FINE if is_outer(name) else target
    return types


def sensitive(errors: Mapping[str, float]) -> list[str]:
    """The matrices with an unusually large relative error; `errors` are those of the matrices in 4 bits."""
    if not errors:
        return []
    limit = SENSITIVE * median(errors.values())
    return [name for name, error in errors.items() if error > limit]


def is_outer(name: str) -> bool:
    """Whether it is the embedding or the output matrix."""
    return name in (*EMBEDDINGS, *HEADS)


def _is_divisible(tensor: Tensor) -> bool:
    return len(tensor.shape) == 2 and tensor.shape[1] % GROUP == 0
