"""Act-order: how to sort a matrix so that columns that share a scale become neighbours, as our types need them.

GPTQ may quantize columns in the order of their importance and group them in that order; `g_idx` then holds the group of
each column. Sorted by group, such a matrix is exact if its input comes in the same order:

- The input of q, k and v, of gate and up, and of the head is a norm's output, which the engine can permute
  (`Tensor.column_order`). Matrices of one input must share the order, as they do if they were quantized together.
- The input of down is the output of gate and up, so their rows are permuted.
- The input of o is the attention's output, in the order of the heads: it cannot be permuted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from antiphon.formats.quantization_config import GROUP

Order = tuple[int, ...]

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("lm_head",))
DOWN, ITS_MAKERS = "down_proj", ("gate_proj", "up_proj")


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How one matrix is read; None means in its own order."""

    columns: Order | None = None  # sorted by group
    rows: Order | None = None
    from_engine: bool = False  # whether the engine must permute its input like its columns


def arrange(groups: Mapping[str, list[int] | None]) -> dict[str, Arrangement]:
    """An arrangement for each module. `groups`: the group of each of its columns, or None if they are in order."""
    orders = {module: _sorted_by_group(indices) for module, indices in groups.items()}
    columns: dict[str, Order] = {}
    rows: dict[str, Order] = {}
    from_engine = set()
    for module, order in orders.items():
        parent, _, own = module.rpartition(".")
        family = [f"{parent}.{name}".lstrip(".") for names in SIBLINGS if own in names for name in names]
        makers = [f"{parent}.{name}" for name in ITS_MAKERS] if own == DOWN else []
        if order is None or not all(other in orders for other in (*family, *makers)):
            continue
        if family and all(orders[other] == order for other in family):
            columns[module] = order
            from_engine.add(module)
        if makers:
            columns[module] = order
            rows |= dict.fromkeys(makers, order)
    return {module: Arrangement(columns.get(module), rows.get(module), module in from_engine) for module in groups}


def is_scattered(indices: list[int]) -> bool:
    """Whether columns that share a scale in our types do not here. Groups moved as a whole do no harm."""
    return any(len(set(indices[first : first + GROUP])) > 1 for first in range(0, len(indices), GROUP))


def _sorted_by_group(indices: list[int] | None) -> Order | None:
    """The columns sorted by group, if they must be sorted and their groups then fill whole groups of ours."""
    if indices is None or not is_scattered(indices) or any(size % GROUP for size in Counter(indices).values()):
        return None
    return tuple(sorted(range(len(indices)), key=indices.__getitem__))
