"""The embedding table on the device.

A quantized table becomes int8 codes with float32 scales and, where there are some, minima, for groups of 32 values or
16; a table of floats becomes float16, bfloat16 or float32, the narrowest that holds every value exactly. So a row has
the values that the native program reads from the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon import _native
from antiphon.ops.triton.device import Device, Tensor
from antiphon.ops.triton.embedding import BFLOATS, CODES, FLOATS, HALVES, embed
from antiphon.ops.triton.tiles import next_power_of_two

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class DeviceTable:
    """An embedding of `columns` values a token."""

    columns: int
    kind: int
    values: Tensor
    scales: Tensor  # where the kind or the type has none: `values`, so that there is an address to pass
    mins: Tensor
    group: int
    has_mins: bool

    def arguments(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.values, self.scales, self.mins

    def constants(self) -> dict[str, Any]:
        return {"KIND": self.kind, "GROUP": self.group, "HAS_MINS": self.has_mins}


def upload_table(device: Device, table: _native.StoredMatrix) -> DeviceTable:
    """Copy a table to the device. Raises MemoryError where it has no room."""
    return _upload_codes(device, table) if table.has_codes else _upload_floats(device, table)


def _upload_codes(device: Device, table: _native.StoredMatrix) -> DeviceTable:
    codes, scales, mins = table.codes()
    if _are_pairs(scales) and _are_pairs(mins):
        scales, mins, group = scales[:, ::2], mins[:, ::2], 32
    else:
        group = 16
    values, has_mins = device.upload(codes), bool(mins.any())
    return DeviceTable(
        table.columns, CODES.value, values, device.upload(scales), device.upload(mins) if has_mins else values,
        group, has_mins,
    )  # fmt: skip


def _are_pairs(values: npt.NDArray[np.float32]) -> bool:
    return bool((values[:, ::2] == values[:, 1::2]).all())


def _upload_floats(device: Device, table: _native.StoredMatrix) -> DeviceTable:
    as_half = as_bfloat = True
    for _, rows in _chunks(table):
        with np.errstate(over="ignore"):
            as_half = as_half and bool((rows.astype(np.float16).astype(np.float32) == rows).all())
        as_bfloat = as_bfloat and not (rows.view(np.uint32) & 0xFFFF).any()
    kind, type = (HALVES, "float16") if as_half else (BFLOATS, "int16") if as_bfloat else (FLOATS, "float32")
    values = device.zeros((table.rows, table.columns), type)
    for first, rows in _chunks(table):
        if as_half:
            converted: npt.NDArray[Any] = rows.astype(np.float16)
        else:
            converted = (rows.view(np.uint32) >> 16).astype(np.uint16).view(np.int16) if as_bfloat else rows
        device.fill(values[first : first + len(rows)], converted)
    return DeviceTable(table.columns, kind.value, values, values, values, 32, False)


def _chunks(table: _native.StoredMatrix) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """(the first row, rows in float32) of the whole table."""
    buffer = np.empty((min(table.rows, _ROWS_AT_ONCE), table.columns), np.float32)
    for first in range(0, table.rows, _ROWS_AT_ONCE):
        numbers = range(first, min(first + _ROWS_AT_ONCE, table.rows))
        table.dequantize_rows(numbers, buffer)
        yield first, buffer[: len(numbers)]


def launch_embed(device: Device, table: DeviceTable, rows: int, tokens: Tensor, drawn: Tensor, out: Tensor) -> None:
    """Launch `embed` for this number of rows."""
    at_once = min(1024, next_power_of_two(table.columns))
    device.launch(
        embed, (rows,), tokens, drawn, *table.arguments(), out, WIDTH=table.columns, **table.constants(),
        AT_ONCE=at_once,
    )  # fmt: skip
