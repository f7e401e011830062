"""How much a program of each kernel computes. A matter of speed alone: every choice gives the same bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

MOST_SMALL = 256  # rows that are multiplied 8 or 16 at a time
TILE_ROWS = (1, 16, MOST_SMALL + 1)  # a number of rows for each of a GPU's tiles


def next_power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


@dataclass(frozen=True, slots=True)
class Tile:
    """Of a product. `byte_rows`: pairs of channels, a power of two from 16 on; `tokens`: a power of two from 8 on."""

    byte_rows: int
    tokens: int
    stages: int = 3  # of the pipeline that loads weights
    warps: int = 4
    eights: bool = False  # eight groups in a turn of the loop, shared among the warps: for few tokens

    def constants(self) -> dict[str, int | bool]:
        return {
            "BYTE_ROWS": self.byte_rows,
            "TOKENS": self.tokens,
            "STAGES": self.stages,
            "EIGHTS": self.eights,
            "warps": self.warps,
        }


class Tiles(Protocol):
    """The choices for a device."""

    def product(self, rows: int, byte_rows: int, *, whole_panels: bool) -> Tile:
        """For a product of this number of rows and pairs of channels; whole panels are 32 byte rows or more."""
        ...

    def rows(self, rows: int) -> int:
        """Rows that share a program of the kernels that look at a row alone."""
        ...

    def corrected_panels(self) -> int:
        """Panels of the head that share a program."""
        ...

    def whole_runs(self, count: int) -> int:
        """Of `count` runs of 1,024 logits, those that a program loads at once."""
        ...

    def sampling_units(self, count: int) -> int:
        """Of `count` runs of 1,024 logits, those that a program walks over, 16 logits of each at a time."""
        ...


class GpuTiles:
    """Products of up to 256 rows wait for memory: small tiles keep all multiprocessors loading.

    With more rows, programs would read weights from the second-level cache too often.
    """

    def product(self, rows: int, byte_rows: int, *, whole_panels: bool) -> Tile:
        least = 32 if whole_panels else 16
        if rows <= 8:
            return Tile(least, 8, stages=4, eights=True)
        if rows <= MOST_SMALL:
            return Tile(least, 16, stages=4, warps=8 if whole_panels else 4, eights=True)
        return Tile(64, 64)

    def rows(self, rows: int) -> int:
        return 1

    def corrected_panels(self) -> int:
        return 1

    def whole_runs(self, count: int) -> int:
        return 1

    def sampling_units(self, count: int) -> int:
        return 16


class InterpreterTiles:
    """As few programs as possible: each costs the interpreter milliseconds, however little it computes."""

    def product(self, rows: int, byte_rows: int, *, whole_panels: bool) -> Tile:
        channels, tokens = min(max(32, next_power_of_two(byte_rows)), 512), min(max(8, next_power_of_two(rows)), 64)
        return Tile(channels, tokens, eights=True)

    def rows(self, rows: int) -> int:
        return min(next_power_of_two(rows), 64)

    def corrected_panels(self) -> int:
        return 64

    def whole_runs(self, count: int) -> int:
        return min(next_power_of_two(count), 64)

    def sampling_units(self, count: int) -> int:
        return min(next_power_of_two(count), 64)
