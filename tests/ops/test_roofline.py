"""The machine's limits, as benchmarks measure them."""

from __future__ import annotations

import pytest

from antiphon import _native


@pytest.mark.parametrize("name", _native.instruction_sets())
def test_every_instruction_set_has_a_peak(name: str) -> None:
    roofline = _native.Roofline(_native.Device(name, 1), 1 << 20)
    peak = max(roofline.products_per_second(0.005) for _ in range(5))
    assert peak > 1e8
    if name != "scalar":
        scalar = _native.Roofline(_native.Device("scalar", 1), 1 << 20)
        assert peak > 3 * max(scalar.products_per_second(0.005) for _ in range(5))


def test_memory_is_read_no_slower_when_it_lies_in_the_cache() -> None:
    device = _native.Device("auto", 1)
    cached, large = _native.Roofline(device, 1 << 20), _native.Roofline(device, 128 << 20)
    assert max(cached.bytes_per_second() for _ in range(20)) > 1.1 * max(large.bytes_per_second() for _ in range(3))
