"""Predicts how long a decoding step of R1's shape takes on GPUs that need not be here. No GPU has confirmed it.

    python benchmarks/gpu/step_time.py [--json FILE] [--gpus A40,H100]

For each kernel that a step launches, the compiled code (compile.py) and the sizes of its inputs give lower bounds of
its time: bytes over the memory's bandwidth, bytes that programs read over the cache's, instructions over what the
schedulers issue, tensor operations over what the tensor cores do, and the wait of one program: each turn of its inner
loop waits for what that turn loads, unless the load was issued turns before (cp.async). The largest bound is the
prediction; a step is their sum, and a pause between launches. "roofline": only the bytes of weights and KV cache, which
every step must read.

Kernels without a loop over weights or KV blocks (norms, RoPE, folding, choosing panels) count with their pause and one
wait. Nothing of the host is in it: neither launches without a graph nor drawing tokens.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine_code import Code, code_of
from shapes import R1

if TYPE_CHECKING:  # it turns Triton's interpreter off, so it is imported where something is compiled
    from compile import Launch

# Assumptions, in seconds. Published microbenchmarks measure 0.4 to 0.8 µs for a load from DRAM, and about a microsecond
# between dependent kernels of a CUDA graph.
LOAD_LATENCY = 0.6e-6
PAUSE = 1.0e-6
CACHE_BYTES_PER_CLOCK = 32  # that an SM gets from the second-level cache
CYCLES_PER_INSTRUCTION = 3  # of one warp whose instructions wait for each other
# Published sizes of an SM of compute capability 8.0 to 9.0.
REGISTERS, WARPS, SCHEDULERS = 65_536, 48, 4
SHARED = 100 << 10  # bytes; data center GPUs have more

USERS, CONTEXTS, TYPES = (1, 8, 32, 128, 256), (128, 1000), ("Q4_0", "Q8_0")
WEIGHT_BYTES = {4: 18 / 32, 8: 34 / 32}  # a weight: codes and a float16 scale a group of 32


@dataclass(frozen=True)
class Gpu:
    """Limits as the vendor publishes them; `bandwidth`, bytes a second: for H100 and H200 as others measured it."""

    name: str
    target: str  # compute capability, as Triton writes it
    multiprocessors: int
    hertz: float
    bandwidth: float
    int8_operations: float  # a second, dense


GPUS = (
    Gpu("A40", "86", 84, 1.74e9, 0.696e12, 299e12),
    Gpu("RTX 4090", "89", 128, 2.52e9, 1.008e12, 660e12),
    Gpu("H100 SXM", "90", 132, 1.83e9, 3.0e12, 1979e12),
    Gpu("H200", "90", 132, 1.83e9, 4.3e12, 1979e12),
)


@dataclass(frozen=True)
class Cost:
    """A launch's lower bounds, in seconds."""

    kernel: str
    memory: float
    issue: float
    tensor: float
    wait: float
    cache: float = 0.0

    @property
    def seconds(self) -> float:
        return max(self.memory, self.issue, self.tensor, self.wait, self.cache)

    @property
    def bound(self) -> str:
        return max(("memory", "issue", "tensor", "wait", "cache"), key=lambda name: float(getattr(self, name)))


def cost(launch: Launch, rows: int, context: int, gpu: Gpu) -> Cost:
    """The bounds of one launch in a step of `rows` users with `context` tokens each."""
    memory = _bytes(launch, rows, context) / gpu.bandwidth
    tensor = _operations(launch, rows, context) / gpu.int8_operations
    turns = _turns(launch, context)
    if not turns:
        return Cost(launch.name, memory=memory, issue=0.0, tensor=tensor, wait=LOAD_LATENCY)
    code = code_of(launch, gpu.target)
    issued = launch.num_programs * launch.warps * code.loop.instructions * turns
    waves = math.ceil(launch.num_programs / (gpu.multiprocessors * _resident(launch, code)))
    # A turn waits for what it loads; copies were issued turns before, as many as the pipeline is deep.
    depth = max(1, int(dict(launch.constants)["STAGES"]) - 1)
    latency = LOAD_LATENCY if code.loop.loads or not code.loop.copies else LOAD_LATENCY / depth
    turn = latency + code.loop.instructions * CYCLES_PER_INSTRUCTION / gpu.hertz
    return Cost(
        launch.name,
        memory=memory,
        issue=issued / (gpu.multiprocessors * gpu.hertz * SCHEDULERS),
        tensor=tensor,
        wait=waves * turns * turn,
        cache=_read_by_programs(launch) / (gpu.multiprocessors * gpu.hertz * CACHE_BYTES_PER_CLOCK),
    )


def _resident(launch: Launch, code: Code) -> int:
    """Programs that an SM runs at once."""
    by_registers = REGISTERS // (max(code.registers, 24) * 32 * launch.warps)
    by_shared = SHARED // (code.shared + 1024)  # of which the driver takes one KiB
    return max(1, min(by_registers, by_shared, WARPS // launch.warps, 24))


def _turns(launch: Launch, context: int) -> int:
    """Turns of the main loop in one program: of one or eight groups of a product, or of a KV block of a segment."""
    constants = dict(launch.constants)
    if launch.name in ("linear", "linear_silu_mul", "correct_panels"):
        return math.ceil(int(constants["GROUPS"]) / (8 if constants["EIGHTS"] else 1))
    return min(8, context // 32 + 1) if launch.name == "attend" else 0


def _channels(launch: Launch) -> int:
    """Output channels that a launch multiplies, padding included."""
    constants = dict(launch.constants)
    if launch.name == "correct_panels":
        return int(constants["PANELS"]) * 32 * launch.grid[0]
    return 2 * int(constants["BYTE_ROWS"]) * launch.grid[0]


def _bytes(launch: Launch, rows: int, context: int) -> float:
    """From and to memory; what programs read again comes from the cache."""
    constants = dict(launch.constants)
    if launch.name == "attend":
        return rows * (context + 1) * kv_bytes() / R1.layers
    if launch.name not in ("linear", "linear_silu_mul", "correct_panels"):
        return 0.0
    columns, channels = 32 * int(constants["GROUPS"]), _channels(launch)
    weights = channels * columns * WEIGHT_BYTES[int(constants["BITS"])]
    if launch.name == "correct_panels":  # the users' panels differ, and at most the whole head is read
        return min(rows * weights, R1.vocabulary * columns * WEIGHT_BYTES[int(constants["BITS"])])
    outputs = rows * channels * 4 * (2 if constants.get("ACCUMULATE") else 1)
    return weights + rows * _activation_bytes(constants) + outputs


def _read_by_programs(launch: Launch) -> float:
    """Bytes of weights and activations that the programs of a product read, most of them from the cache."""
    constants = dict(launch.constants)
    if launch.name not in ("linear", "linear_silu_mul"):
        return 0.0
    columns = 32 * int(constants["GROUPS"])
    weights = 2 * int(constants["BYTE_ROWS"]) * columns * WEIGHT_BYTES[int(constants["BITS"])]
    return launch.num_programs * (weights + int(constants["TOKENS"]) * _activation_bytes(constants))


def _operations(launch: Launch, rows: int, context: int) -> float:
    """Of the tensor cores, padding included."""
    constants = dict(launch.constants)
    if launch.name == "attend":  # queries times K and weights times V, in two planes each
        return launch.num_programs * 2 * 2 * 2 * int(constants["ROWS"]) * 32 * R1.dim * _turns(launch, context)
    if launch.name not in ("linear", "linear_silu_mul", "correct_panels"):
        return 0.0
    tokens = int(constants["TOKENS"]) * launch.grid[1]
    return 2.0 * _channels(launch) * 32 * int(constants["GROUPS"]) * tokens * _planes(constants)


def _planes(constants: Mapping[str, Any]) -> int:
    """Planes of activations that a product multiplies."""
    return 2 if constants.get("WIDE", constants.get("PLANES") == 2) else 1


def _activation_bytes(constants: Mapping[str, Any]) -> float:
    """Bytes of one token's activations: codes, and a scale and a sum for each 32 of them."""
    return 32 * int(constants["GROUPS"]) * (_planes(constants) + 0.25)


def kv_bytes() -> int:
    """Of one token, in all layers."""
    return R1.layers * R1.kv_heads * (2 * R1.dim + 2 * (R1.dim // 32 + 1))


def step_costs(rows: int, context: int, type: str, gpu: Gpu) -> list[tuple[Cost, int]]:
    """The launches of a step, each with the number of its repetitions."""
    launches = _launches(rows, type, context)
    names = [launch.name for launch in launches]
    layer, head = names.index("rms_norm"), names.index("take")  # the first of a layer, and the first after it
    costs = []
    for number, launch in enumerate(launches):
        if number > head and launch.name == "linear":  # it was recorded with a small vocabulary
            launch = replace(launch, grid=(_head_tiles(launch), *launch.grid[1:]))
        costs.append((cost(launch, rows, context, gpu), R1.layers if layer <= number < head else 1))
    return costs


@cache
def _launches(rows: int, type: str, context: int) -> list[Launch]:
    from compile import recorded_launches

    return recorded_launches(rows, type, context=context)


def _head_tiles(launch: Launch) -> int:
    return math.ceil(R1.vocabulary / (2 * int(dict(launch.constants)["BYTE_ROWS"])))


def weight_bytes(type: str) -> float:
    """That a step reads: all matrices but the embedding; the head has 8 bits, as float checkpoints are served."""
    width = (R1.heads + 2 * R1.kv_heads) * R1.dim
    of_a_layer = R1.hidden * (width + R1.heads * R1.dim + 3 * R1.inner)
    bits = 4 if type == "Q4_0" else 8
    return R1.layers * of_a_layer * WEIGHT_BYTES[bits] + R1.hidden * R1.vocabulary * WEIGHT_BYTES[8]


def prediction(rows: int, context: int, type: str, gpu: Gpu) -> dict[str, Any]:
    """A step's time on one GPU, in milliseconds, and what bounds it."""
    costs = step_costs(rows, context, type, gpu)
    launches = sum(times for _, times in costs)
    seconds = sum(each.seconds * times for each, times in costs) + launches * PAUSE
    shares, kernels = {"pauses": launches * PAUSE}, dict[str, float]()
    for each, times in costs:
        shares[each.bound] = shares.get(each.bound, 0.0) + each.seconds * times
        kernels[each.kernel] = kernels.get(each.kernel, 0.0) + (each.seconds + PAUSE) * times
    moved = weight_bytes(type) + rows * context * kv_bytes()
    return {
        "gpu": gpu.name,
        "weights": "W4" if type == "Q4_0" else "W8",
        "users": rows,
        "context": context,
        "launches": launches,
        "roofline_ms": round(moved / gpu.bandwidth * 1e3, 2),
        "predicted_ms": round(seconds * 1e3, 2),
        "tokens_per_second": round(rows / seconds),
        "bounds": {name: round(share / seconds, 2) for name, share in _largest_first(shares)},
        "kernels_ms": {name: round(each * 1e3, 3) for name, each in _largest_first(kernels)},
    }


def _largest_first(numbers: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(numbers.items(), key=lambda item: -item[1])


def table(found: Sequence[dict[str, Any]], weights: str) -> str:
    """Milliseconds by users and context, "roofline / predicted" on each GPU; Markdown."""
    names = list(dict.fromkeys(row["gpu"] for row in found))
    lines = [f"| users × tokens | {' | '.join(names)} |", f"|{'---|' * (1 + len(names))}"]
    rows: dict[tuple[int, int], list[str]] = {}
    for row in found:
        if row["weights"] == weights:
            cell = f"{row['roofline_ms']:.2f} / {row['predicted_ms']:.1f}"
            rows.setdefault((row["users"], row["context"]), []).append(cell)
    lines += [f"| {users} × {context:,} | {' | '.join(cells)} |" for (users, context), cells in rows.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    parser.add_argument("--gpus", default="", help="some of them, such as A40,H200")
    parser.add_argument("--users", type=lambda text: [int(part) for part in text.split(",")], default=USERS)
    parser.add_argument("--types", type=lambda text: text.split(","), default=TYPES, help="of: Q4_0,Q8_0")
    arguments = parser.parse_args()
    chosen = [gpu for gpu in GPUS if not arguments.gpus or gpu.name.split()[0] in arguments.gpus.split(",")]
    cases = product(chosen, arguments.types, arguments.users, CONTEXTS)
    found = [prediction(users, context, type, gpu) for gpu, type, users, context in cases]
    for weights in dict.fromkeys(row["weights"] for row in found):
        print(f"{weights}, ms a step: roofline / predicted\n\n{table(found, weights)}\n")
    if arguments.json:
        assumptions = {
            "load_latency_seconds": LOAD_LATENCY,
            "pause_seconds": PAUSE,
            "cycles_per_instruction": CYCLES_PER_INSTRUCTION,
            "cache_bytes_per_clock": CACHE_BYTES_PER_CLOCK,
            "gpus": [asdict(gpu) for gpu in chosen],
        }
        report = {"confirmed_on_a_gpu": False, "assumptions": assumptions, "steps": found}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
