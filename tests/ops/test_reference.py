"""The reference itself, against other people's arithmetic: ggml's Python reader and the published random numbers."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from tiny_models import TYPES, encode, stored

from antiphon import _native
from antiphon.checkpoint import TENSOR_TYPES
from antiphon.errors import CheckpointError
from antiphon.ops.reference import dequantize
from antiphon.ops.reference_sampler import philox4x32, uniform_reference


@pytest.mark.parametrize("type", TYPES)
def test_dequantizing_is_ggmls(type: str) -> None:
    values = np.random.default_rng(1).standard_normal((7, 96)).astype(np.float32)
    data = encode(values, type)
    ours = dequantize(stored("w", (7, 96), type, data))
    theirs = quants.dequantize(np.frombuffer(data, np.uint8).reshape(7, -1), GGMLQuantizationType[type])
    assert (ours == theirs).all()
    natively = np.empty_like(ours)
    _native.StoredMatrix(data, type, 7, 96).dequantize(natively)
    assert (ours == natively).all()


@pytest.mark.parametrize("type", TENSOR_TYPES)
def test_every_bit_pattern_means_the_same_to_both(type: str) -> None:
    size, block = TENSOR_TYPES[type]
    columns = max(32, block)
    data = np.random.default_rng(2).integers(0, 256, (50, size * columns // block), np.uint8)
    data = data[[_is_finite(row.tobytes(), type, columns) for row in data]]
    ours = dequantize(stored("w", (len(data), columns), type, data.tobytes()))
    natively = np.empty_like(ours)
    _native.StoredMatrix(data.tobytes(), type, len(data), columns).dequantize(natively)
    assert len(data) > 10
    assert (ours == natively).all()


def _is_finite(row: bytes, type: str, columns: int) -> bool:
    try:
        dequantize(stored("w", (1, columns), type, row))
    except CheckpointError:
        return False
    return True


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # kat_vectors of the authors' Random123 library, philox4x32 with 10 rounds
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_numbers(counter, key, expected) -> None:
    assert philox4x32(counter, key) == expected


def test_both_draw_the_same_numbers() -> None:
    rng = np.random.default_rng(3)
    for _ in range(500):
        seed, position = (int(x) for x in rng.integers(0, 2**64, 2, np.uint64, endpoint=False))
        choice = int(rng.integers(0, 2**32))
        assert _native.uniform_draw(seed, choice, position) == uniform_reference(seed, choice, position)
    for extreme in (0, 1, 2**32 - 1, 2**32, 2**64 - 1):
        assert _native.uniform_draw(extreme, 0, extreme) == uniform_reference(extreme, 0, extreme)
        assert 0 <= uniform_reference(extreme, 0, extreme) < 1
