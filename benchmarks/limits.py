"""What a machine can do at best, measured again beside every figure that is told as a share of it.

On a host that others use too, the rate of memory has been seen to go from 55 GB/s to 34 from one second to the next and
to stay there, for old pages and new ones and for buffers of 64 MiB to 2 GiB alike, while products in registers kept
their rate. A limit is good for its own moment only: shares are taken run by run, each by what was measured just before
and just after, and medians are of shares.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from antiphon import _native

Rates = dict[str, float]  # "bytes" read from memory and "products" of 8-bit integers, a second
SECONDS = 0.02  # to try products for


class Limits:
    """The rates of one device, each time they were measured."""

    def __init__(self, device: _native.Device) -> None:
        self._roofline = _native.Roofline(device)
        self._seen = [self._measure()]

    def _measure(self) -> Rates:
        return {
            "bytes": self._roofline.bytes_per_second(),
            "products": self._roofline.products_per_second(SECONDS),
        }

    def around(self, run: Callable[[], object]) -> Rates:
        """Run it; returns the rates meanwhile: between those measured last and those measured now."""
        run()
        before, after = self._seen[-1], self._measure()
        self._seen.append(after)
        return {name: (before[name] + after[name]) / 2 for name in after}

    def medians(self) -> Rates:
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
