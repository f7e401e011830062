"""The stored parts of one quantized matrix, as `quantized_tensors` finds them and `quantized_blocks` unpacks them."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.checkpoint import Tensor


@dataclass(frozen=True, slots=True)
class Parts:
    """The stored parts of one matrix, with shapes, types and indices checked."""

    rows: int
    columns: int
    num_groups: int  # of a row
    codes: Tensor
    scales: Tensor
    zeros: Tensor | None = None
    group_of: Tensor | None = None  # the group of each column, if columns are not in the order of their groups
    others: tuple[Tensor, ...] = ()  # that add nothing to the above

    @property
    def groups(self) -> list[int] | None:
        return list(self.group_of.read().cast("i")) if self.group_of else None

    @property
    def all(self) -> list[Tensor]:
        return [part for part in (self.codes, self.scales, self.zeros, self.group_of) if part is not None]
