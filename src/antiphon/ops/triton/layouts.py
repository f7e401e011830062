"""Weights as the kernels read them, made from the native packing; the layouts are described in `products`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon import _native
from antiphon.ops.triton.device import Device, Tensor

PANEL, GROUP = 32, 32


@dataclass(frozen=True, slots=True)
class DeviceMatrix:
    """A packed matrix on the device, of `rows` channels padded to `num_channels`."""

    rows: int
    columns: int
    num_channels: int
    bits: int  # 4 or 8
    low_start: int  # times the sum of a group's activations, these start its integer sums
    high_start: int
    codes: Tensor
    scales: Tensor
    mins: Tensor  # without mins: the scales, so that there is an address to pass
    has_mins: bool

    @property
    def num_groups(self) -> int:
        return self.columns // GROUP

    def arguments(self) -> tuple[Any, ...]:
        """What every product's kernel takes of it, in order."""
        return self.codes, self.scales, self.mins, self.num_channels

    def constants(self) -> dict[str, Any]:
        """The same, for what is compiled in."""
        return {
            "GROUPS": self.num_groups,
            "BITS": self.bits,
            "LOW_START": self.low_start,
            "HIGH_START": self.high_start,
            "HAS_MINS": self.has_mins,
        }


def upload_matrix(device: Device, packed: _native.PackedMatrix) -> DeviceMatrix:
    """Copy a packed matrix to the device, in the kernels' layout."""
    bits = 4 if packed.format == "W4" else 8
    groups = packed.columns // GROUP
    panels = len(packed.scales) // (groups * PANEL)
    codes = _codes(packed.codes, panels, groups, bits)  # [groups, channels, 32]
    codes = _padded(codes, packed.zero_point)
    zero = packed.zero_point
    if bits == 8:
        stored = (codes ^ 128).view(np.int8)
        low_start = high_start = 128 - zero
    else:
        pairs = codes.reshape(groups, -1, 2, PANEL, GROUP)
        stored = (pairs[:, :, 0] | (pairs[:, :, 1] ^ 8) << 4).reshape(groups, -1, GROUP)
        low_start, high_start = -zero, 16 * (8 - zero)
    scales = device.upload(_halves(packed.scales, panels, groups))
    mins = device.upload(_halves(packed.mins, panels, groups)) if len(packed.mins) else scales
    return DeviceMatrix(
        rows=packed.rows,
        columns=packed.columns,
        num_channels=codes.shape[1],
        bits=bits,
        low_start=low_start,
        high_start=high_start,
        codes=device.upload(stored),
        scales=scales,
        mins=mins,
        has_mins=len(packed.mins) > 0,
    )


def _codes(raw: npt.NDArray[np.uint8], panels: int, groups: int, bits: int) -> npt.NDArray[np.uint8]:
    """The codes that native/kernels.h (PackedView) keeps in lines, as [groups, channels, 32]."""
    lines = raw.reshape(panels, groups, 2, bits, 16, 4)  # [.., half of the channels, line, channel, k % 4]
    ordered = lines.transpose(1, 0, 2, 4, 3, 5)  # [groups, panels, half, channel, line, k % 4]
    ordered = ordered.reshape(groups, panels * PANEL, bits * 4)
    if bits == 8:
        return ordered
    return np.concatenate([ordered & 15, ordered >> 4], axis=2)


def _padded(codes: npt.NDArray[np.uint8], value: int) -> npt.NDArray[np.uint8]:
    """With channels up to a whole pair of panels."""
    missing = -codes.shape[1] % (2 * PANEL)
    return np.pad(codes, ((0, 0), (0, missing), (0, 0)), constant_values=value) if missing else codes


def _halves(bits: npt.NDArray[np.uint16], panels: int, groups: int) -> npt.NDArray[np.float16]:
    """Scales or mins [panels][groups][32] as [groups, channels], padded with zeros."""
    ordered = bits.reshape(panels, groups, PANEL).transpose(1, 0, 2).reshape(groups, panels * PANEL)
    missing = -ordered.shape[1] % (2 * PANEL)
    return np.ascontiguousarray(np.pad(ordered, ((0, 0), (0, missing)))).view(np.float16)
