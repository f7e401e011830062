"""What this machine can do at best: how fast it reads memory and multiplies, measured beside what is compared with it.

On a machine that is shared with others, the rate of memory has been seen to fall from 55 GB/s to 34 within a second and
to stay there, for old and new pages and for buffers of 64 MiB to 2 GiB alike, while products in registers kept their
rate. So a limit is only valid for the moment: each run is compared with what was measured just before and just after
it, and medians are taken of these shares.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

from antiphon.ops.native import open_roofline

if TYPE_CHECKING:
    from antiphon._native import Device

Rates = dict[str, float]  # "bytes" read from memory and "products" of 8-bit integers, per second
BUFFER_BYTES = 512 << 20  # much more than any cache
SECONDS = 0.02  # for which products are measured


class Limits:
    """The rates of one device, each time they were measured."""

    def __init__(self, device: Device, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._roofline = open_roofline(device, buffer_bytes)
        self._seen = [self._measure()]

    def _measure(self) -> Rates:
        return {
            "bytes": self._roofline.bytes_per_second(),
            "products": self._roofline.products_per_second(SECONDS),
        }

    def around(self, run: Callable[[], object]) -> Rates:
        """Call `run`; returns the rates meanwhile: the means of those measured before and after it."""
        run()
        before, after = self._seen[-1], self._measure()
        self._seen.append(after)
        return {name: (before[name] + after[name]) / 2 for name in after}

    def medians(self) -> Rates:
        """The median of each rate."""
        return {name: statistics.median(rates[name] for rates in self._seen) for name in self._seen[0]}

    def ranges(self) -> dict[str, list[float]]:
        """The tenth and the ninetieth percentile of each rate: how much the machine drifted."""
        tenths = {name: statistics.quantiles([rates[name] for rates in self._seen], n=10) for name in self._seen[0]}
        return {name: [cuts[0], cuts[-1]] for name, cuts in tenths.items()}

    def __str__(self) -> str:
        rates, ranges = self.medians(), self.ranges()
        memory, products = ([x / 1e9 for x in (rates[name], *ranges[name])] for name in ("bytes", "products"))
        return (
            f"memory {memory[0]:.1f} GB/s ({memory[1]:.1f} to {memory[2]:.1f} in the middle 80% of the time), "
            f"{products[0]:.0f} GMAC/s ({products[1]:.0f} to {products[2]:.0f})"
        )
