"""Threads that cannot be started, what moves the progress counter, and how much memory a KV pool takes."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_models import tensor

from antiphon import _native
from antiphon.ops.native import NativeLoader, open_device

# Address space for the stacks of a few threads more, and not for those of 400.
TOO_MANY_THREADS = """
import resource
from antiphon.errors import ConfigError
from antiphon.ops.native import open_device

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, resource.RLIM_INFINITY))
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
try:
    open_device("auto", 400)
except ConfigError as error:
    print(error.message)
print(open_device("auto", 3).threads)
"""


def test_threads_that_cannot_be_started_are_an_error_and_not_an_abort() -> None:
    """The threads that did start are ended, so that another try can have them."""
    child = subprocess.run(
        [sys.executable, "-c", TOO_MANY_THREADS], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert child.returncode == 0, child.stderr
    message, threads = child.stdout.splitlines()
    assert message.startswith("--threads 400: only ")
    assert "of 400 threads could be started" in message
    assert threads == "3"


def counter() -> np.ndarray:
    return np.zeros(1, np.uint64)


def test_every_embedded_row_moves_the_counter() -> None:
    """The table is in the file: on a slow disk each row may be a page fault that takes long."""
    progress, tokens = counter(), 40
    program = embedding_program(progress)
    program.run([_native.SequenceInput([0], 0, [0], [])])
    before = int(progress[0])
    program.run([_native.SequenceInput([7] * tokens, 0, [0, 1], [])])
    assert progress[0] - before >= tokens


def embedding_program(progress: np.ndarray) -> _native.Program:
    shape = _native.ProgramShape(
        max_tokens=64,
        max_sequences=1,
        vocabulary=32,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=32,
        context_length=64,
        num_blocks=2,
        kv_type="int8",
        rope_frequencies=[1.0] * 16,
    )
    program = _native.Program(_native.Device("auto", 1), shape, progress)
    table = _native.StoredMatrix(np.ones((32, 64), np.float32), "F32", 32, 64)
    program.embed(table, program.float_buffer(64, False))
    return program


def test_loading_moves_the_counter_within_a_matrix() -> None:
    """Each panel of 32 rows, each row of a table and each 16 rows that are quantized."""
    progress = counter()
    loader = NativeLoader(open_device("auto", 1, memoryview(progress)))
    weights = tensor("weights", np.ones((320, 64), np.float32))
    loader.matrix([weights])
    assert progress[0] >= 10
    progress[0] = 0
    loader.table(weights)
    assert progress[0] >= 320
    progress[0] = 0
    loader.device.quantize(_native.StoredMatrix(np.ones((320, 64), np.float32), "F32", 320, 64), "Q4_1")
    assert progress[0] >= 20


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_token_in_the_kv_pool_takes_little_memory_however_large_the_pool_is() -> None:
    """A block's layers are neighbours. Were they in different huge pages, a token would take 2 MiB of each layer."""
    shape = _native.ProgramShape(
        max_tokens=1,
        max_sequences=1,
        vocabulary=32,
        num_layers=60,
        num_heads=1,
        num_kv_heads=1,
        head_dim=64,
        context_length=32 * 1000,
        num_blocks=1000,
        kv_type="int8",
        rope_frequencies=[1.0] * 32,
    )
    program = _native.Program(_native.Device("auto", 1), shape, None)
    table = _native.StoredMatrix(np.ones((32, 192), np.float32), "F32", 32, 192)
    qkv, out = program.float_buffer(192, False), program.quantized_buffer(64, False, False)
    for layer in range(60):
        program.embed(table, qkv)
        program.attention(qkv, layer, out, [], [], 1e-6)
    before = resident_bytes()
    program.run([_native.SequenceInput([3], 0, [500], [])])
    assert resident_bytes() - before < 8 << 20


@pytest.mark.parametrize("frequency", [1025.0, -1025.0, math.inf, math.nan])
def test_rotary_angles_beyond_what_the_tables_are_computed_for_are_refused(frequency: float) -> None:
    """The largest angle is 2^25 radians."""

    def program(frequencies: list[float]) -> _native.Program:
        shape = _native.ProgramShape(
            max_tokens=1,
            max_sequences=1,
            vocabulary=32,
            num_layers=1,
            num_heads=1,
            num_kv_heads=1,
            head_dim=32,
            context_length=32768,
            num_blocks=1,
            kv_type="int8",
            rope_frequencies=frequencies,
        )
        return _native.Program(_native.Device("auto", 1), shape, None)

    program([1.0] * 15 + [1024.0])
    with pytest.raises(ValueError, match=r"rotary frequency must turn at most 2\^25 radians"):
        program([1.0] * 15 + [frequency])
