"""Act-order: what to move so that the columns of a matrix that share a scale become neighbours, as our types want them.

GPTQ may quantize columns by their importance and group them in that order; `g_idx` then says the group of each. Sorted
by group, such a matrix is exact, if its input comes in the same order:

- what q, k and v multiply, and gate and up, and the head, is a norm's output, which the engine gives in any one order
  (`Tensor.column_order`); so all of them must share it, as they do when they were quantized on the same inputs;
- what down multiplies is made by gate and up: their rows take the order, and nobody else need know;
- what o multiplies is the attention's output, whose order is that of the heads: it stays as it is.
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
    """How one matrix is read; None: in its own order."""

    columns: Order | None = None  # sorted by group
    rows: Order | None = None
    from_engine: bool = False  # whether its input must be given in the order of its columns


def arrange(groups: Mapping[str, list[int] | None]) -> dict[str, Arrangement]:
    """An arrangement for each module; `groups`: the group of each of its columns, or None where they are in order."""
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
    """Whether columns that must share a scale in our types do not. Groups moved as a whole do no harm."""
    return any(len(set(indices[first : first + GROUP])) > 1 for first in range(0, len(indices), GROUP))


def _sorted_by_group(indices: list[int] | None) -> Order | None:
    """The columns in the order of their groups, if they need one and groups then fill whole groups of ours."""
    if indices is None or not is_scattered(indices) or any(size % GROUP for size in Counter(indices).values()):
        return None
    return tuple(sorted(range(len(indices)), key=indices.__getitem__))
