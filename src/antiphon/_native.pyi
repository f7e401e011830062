"""Antiphon's native kernels and the program that replays them."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


GROUP: int = 32

BLOCK_TOKENS: int = 32

def instruction_sets() -> list[str]:
    """Instruction sets this machine can run, best first."""

def sine_cosine(angle: float) -> tuple[float, float]:
    """Of an angle in radians, at most 2^25; as in the rotary tables."""

def natural_logarithm(x: float) -> float:
    """Of a positive, finite, normal number; as in log-probabilities."""

def fused_multiply_add(a: float, b: float, c: float) -> float:
    """
    a * b + c of float32 numbers, rounded once; as the plain C++ kernels compute it.
    """

def rotary_tables(frequencies: Sequence[float], factor: float, positions: int) -> tuple[Annotated[NDArray[numpy.float32], dict(shape=(None, None))], Annotated[NDArray[numpy.float32], dict(shape=(None, None))]]:
    """
    Cosines and sines of the angles of positions 0, 1, …, times `factor`, each float32 [positions, frequencies]; frequencies in radians a position.
    """

def half_to_float(bits: int) -> float: ...

def float_to_half(value: float) -> int: ...

class SequenceSampling:
    """
    How the tokens of one sequence are drawn; the fields are those of request.SamplingParams. Registered once, then told of each token that penalties count.
    """

    def __init__(self, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, repetition_penalty: float = 1.0, presence_penalty: float = 0.0, frequency_penalty: float = 0.0, seed: int = 0, choice_index: int = 0, num_logprobs: int = -1, logit_bias: Mapping[int, float] = {}) -> None: ...

    def count(self, token_ids: Sequence[int], generated: bool) -> None:
        """Count tokens that the sequence knows from now on."""

    @property
    def top_k(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def repetition_penalty(self) -> float: ...

    @property
    def token_counts(self) -> dict[int, int]:
        """The known tokens, and how often each was generated."""

class SampleRequest:
    """How to draw one token of a sequence."""

    def __init__(self, sampling: SequenceSampling, position: int, masked_token_ids: Sequence[int] = [], logit_bias: Mapping[int, float] = {}, token_bitmask: bytes = ...) -> None:
        """
        `logit_bias` replaces that of the sequence for the same tokens. `token_bitmask`: bytes with a bit for each token, the lowest first: whether it may be drawn; empty: every token may.
        """

class SampleOutcome:
    """A drawn token, or token_id -1 and why none could be drawn."""

    @property
    def token_id(self) -> int: ...

    @property
    def error(self) -> str | None: ...

    @property
    def logprob(self) -> float: ...

    @property
    def top_token_ids(self) -> list[int]: ...

    @property
    def top_logprobs(self) -> list[float]: ...

def uniform_draw(seed: int, choice_index: int, position: int) -> float:
    """The random number of one draw, in [0, 1)."""

def sample_rows(device: Device, logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')], requests: Sequence[SampleRequest]) -> list[SampleOutcome]:
    """
    Draw a token from each row of logits, float32 [at least len(requests), vocabulary], which penalties and masks change. Releases the lock.
    """

class StoredMatrix:
    """A matrix as a checkpoint stores it; keeps the buffer alive."""

    def __init__(self, buffer: object, type: str, rows: int, columns: int) -> None: ...

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    def dequantize(self, out: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')]) -> None:
        """Write all values to `out`, float32 [rows, columns]."""

    def dequantize_rows(self, rows: Sequence[int], out: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')]) -> None:
        """
        Write the values of some rows to the first rows of `out`, float32 [at least len(rows), columns].
        """

    @property
    def has_codes(self) -> bool:
        """Whether `codes` can be called: not for floats."""

    def codes(self) -> tuple[Annotated[NDArray[numpy.int8], dict(shape=(None, None))], Annotated[NDArray[numpy.float32], dict(shape=(None, None))], Annotated[NDArray[numpy.float32], dict(shape=(None, None))]]:
        """
        Codes, int8 [rows, columns], and for each 16 of them a scale and a minimum, float32 [rows, columns / 16]: a value is scale * code + minimum.
        """

class PackedMatrix:
    """A weight matrix in the kernels' layout."""

    @property
    def num_bytes(self) -> int: ...

    @property
    def format(self) -> str: ...

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    @property
    def zero_point(self) -> int: ...

    @property
    def codes(self) -> Annotated[NDArray[numpy.uint8], dict(shape=(None,), writable=False)]:
        """
        The codes of all panels, uint8, in the order of native/kernels.h (PackedView).
        """

    @property
    def scales(self) -> Annotated[NDArray[numpy.uint16], dict(shape=(None,), writable=False)]:
        """The scales as bits of half precision, uint16 [panels * groups * 32]."""

    @property
    def mins(self) -> Annotated[NDArray[numpy.uint16], dict(shape=(None,), writable=False)]:
        """The mins, like the scales; empty where the format has none."""

    def row_energies(self, first_row: int, count: int, factors: Sequence[float]) -> list[float]:
        """
        The sum of (weight * factor)² of each of `count` rows; `factors`: one for each column.
        """

class Device:
    """
    Threads and the kernels of one instruction set ('auto': the best there is).
    """

    def __init__(self, instruction_set: str, threads: int, progress: Annotated[NDArray[numpy.uint64], dict(shape=(1), order='C', device='cpu')] | None = None) -> None:
        """
        `progress`: one number that grows with every piece of work done. RuntimeError: threads could not be started.
        """

    def pack(self, parts: Sequence[StoredMatrix], interleave: bool = False) -> PackedMatrix:
        """
        Pack stored matrices, rows one after the other, or two in alternate panels of 32 rows.
        """

    def quantize(self, matrix: StoredMatrix, type: str, importance: Sequence[float] = []) -> tuple[Annotated[NDArray[numpy.uint8], dict(shape=(None,))], float, float]:
        """
        The matrix as blocks of Q4_0, Q4_1 or Q8_0, the importance-weighted sum of its squared errors, and that of its squared weights. `importance`: one number for each column.
        """

    def require_finite(self, matrix: StoredMatrix) -> None:
        """Raise ValueError unless every value is finite."""

    @property
    def instruction_set(self) -> str: ...

    @property
    def threads(self) -> int: ...

class SequenceInput:
    """What a step computes of one sequence."""

    def __init__(self, token_ids: Sequence[int], first_position: int, block_table: Sequence[int], samples: Sequence[SampleRequest]) -> None:
        """`samples`: how to draw what follows each of the last tokens, in order."""

class ProgramShape:
    """Every size a program needs to know."""

    def __init__(self, *, max_tokens: int, max_sequences: int, vocabulary: int, num_layers: int, num_heads: int, num_kv_heads: int, head_dim: int, context_length: int, num_blocks: int, kv_type: str, rope_frequencies: Sequence[float], rope_attention_factor: float = 1.0) -> None: ...

class Program:
    """A recorded model; see native/program.h."""

    def __init__(self, device: Device, shape: ProgramShape, progress: Annotated[NDArray[numpy.uint64], dict(shape=(1), order='C', device='cpu')] | None) -> None: ...

    def float_buffer(self, width: int, sampled: bool) -> int: ...

    def quantized_buffer(self, width: int, sampled: bool, wide: bool) -> int: ...

    def embed(self, table: StoredMatrix, out: int) -> None: ...

    def reorder(self, source: int, order: Sequence[int], out: int) -> None:
        """Columns in another order: column i of out is column order[i]."""

    def rms_norm(self, source: int, weight: Sequence[float], epsilon: float, out: int) -> None: ...

    def linear(self, source: int, matrix: PackedMatrix, bias: Sequence[float], out: int, accumulate: bool, first_column: int = 0) -> None: ...

    def linear_silu_mul(self, source: int, matrix: PackedMatrix, out: int) -> None: ...

    def attention(self, qkv: int, layer: int, out: int, query_norm: Sequence[float], key_norm: Sequence[float], epsilon: float, key_bias: Sequence[float] = []) -> None:
        """
        Causal attention. The norms of query and key heads are empty in models without them. `key_bias`, [num_kv_heads * head_dim] or empty: what the keys in `qkv` lack and the scores are to have.
        """

    def select_rows(self, source: int, out: int) -> None: ...

    def logits(self, source: int, matrix: PackedMatrix) -> None: ...

    def run(self, sequences: Sequence[SequenceInput]) -> list[SampleOutcome]:
        """One step; an outcome for each sample, in order. Releases the lock."""

    def last_logits(self, vocabulary: int) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
        """
        The logits of the last step's last sampled rows, float32 [at most max_sequences, vocabulary].
        """

    @property
    def last_seconds(self) -> dict[str, float]:
        """What each part of the last step took, in seconds."""

    @property
    def last_loops(self) -> list[tuple[str, int]]:
        """
        The parallel loops of the last step, in order: the part of the step, and the number of tasks.
        """

    @property
    def head_dim(self) -> int: ...

    @property
    def num_kv_heads(self) -> int: ...

    @property
    def has_int8_kv(self) -> bool: ...

    @property
    def block_bytes(self) -> int: ...

class Roofline:
    """What this machine can do at best, measured; for benchmarks."""

    def __init__(self, device: Device, num_bytes: int = 536870912) -> None: ...

    def bytes_per_second(self) -> float:
        """The rate of one pass over num_bytes of memory, all threads."""

    def products_per_second(self, seconds: float = 0.05) -> float:
        """
        Products of 8-bit integers, added up in registers by the device's instruction set, all threads.
        """

    def seconds_per_loop(self) -> float:
        """What handing over from one parallel loop to the next takes."""
