"""Figures for people to read, shared by the commands that print tables."""

from __future__ import annotations

from collections.abc import Iterable

from antiphon.checkpoint import Tensor


def weights_by_type(tensors: Iterable[Tensor]) -> dict[str, tuple[int, int, int]]:
    """Storage type → number of tensors, weights and bytes in the file; most bytes first."""
    found: dict[str, tuple[int, int, int]] = {}
    for tensor in tensors:
        name = f"{tensor.source.scheme} as {tensor.type}" if tensor.source else tensor.type
        num_bytes = tensor.source.num_bytes if tensor.source else tensor.num_bytes
        count, weights, size = found.get(name, (0, 0, 0))
        found[name] = (count + 1, weights + tensor.num_elements, size + num_bytes)
    return dict(sorted(found.items(), key=lambda item: -item[1][2]))


def megabytes(size: int) -> str:
    """Bytes in MiB or GiB."""
    return f"{size / (1 << 30):.2f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"
