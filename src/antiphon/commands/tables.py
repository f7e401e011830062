"""Figures as people read them, for the commands that show some."""

from __future__ import annotations

from collections.abc import Iterable

from antiphon.checkpoint import Tensor


def weights_by_type(tensors: Iterable[Tensor]) -> dict[str, tuple[int, int, int]]:
    """Storage type → number of tensors, weights and bytes; the one with most bytes first."""
    found: dict[str, tuple[int, int, int]] = {}
    for tensor in tensors:
        count, weights, size = found.get(tensor.type, (0, 0, 0))
        found[tensor.type] = (count + 1, weights + tensor.num_elements, size + tensor.num_bytes)
    return dict(sorted(found.items(), key=lambda item: -item[1][2]))


def megabytes(size: int) -> str:
    """Bytes in the unit that a memory is sold in."""
    return f"{size / (1 << 30):.2f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"
