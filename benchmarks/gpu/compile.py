"""Compiles every kernel that a step of R1's shape launches, for GPUs that need not be here, and looks at the result.

    python benchmarks/gpu/compile.py 80 86 89 90 gfx942:linear [--json] [--report FILE]

For each kernel: registers, bytes spilled to memory, shared memory, tensor instructions, and what would change its bits:
multiplications and additions that may be contracted (PTX without a rounding mode), approximate instructions, flushed
denormals. The exit status is 1 if any kernel breaks a rule (`faults`). Launches are recorded from the real program with
tensors that have no memory; nothing runs. AMD's targets are compiled and not looked at: no claim is made for them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # decided when Triton is imported

import numpy as np
import torch
import triton
from shapes import R1
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from antiphon import _native
from antiphon.ops.triton.device import TYPES, Device
from antiphon.ops.triton.program import Program
from antiphon.request import SamplingParams
from antiphon.step import SampleSpec, ScheduledSequence

MOST_REGISTERS = 255
MOST_SHARED = 99 << 10  # bytes a block, on the smallest of the targets (8.6 and 8.9)
PRODUCTS = ("linear", "linear_silu_mul", "correct_panels", "attend")
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_TYPES = {"float32": "*fp32", "float16": "*fp16", "int32": "*i32", "int8": "*i8", "int16": "*i16", "uint8": "*u8"}


@dataclass(frozen=True)
class Launch:
    """A kernel as it was launched, by what its compilation depends on."""

    kernel: Any
    signature: tuple[tuple[str, str], ...]  # argument → Triton's type
    divisible: tuple[str, ...]  # arguments that are multiples of 16
    constants: tuple[tuple[str, Any], ...]
    warps: int
    stages: int
    grid: tuple[int, ...] = field(default=(), compare=False)  # does not matter to the compiler

    @property
    def name(self) -> str:
        return str(self.kernel.fn.__name__)

    @property
    def num_programs(self) -> int:
        return math.prod(self.grid)

    def __str__(self) -> str:
        shown = {key: value for key, value in self.constants if key in ("BITS", "BYTE_ROWS", "TOKENS", "ROWS", "PAIRS")}
        constants = dict(self.constants)
        wide = " wide" if constants.get("WIDE", constants.get("PLANES") == 2) else ""
        return f"{self.name} {' '.join(f'{key}={value}' for key, value in shown.items())}".strip() + wide


class RecordingDevice(Device):
    """Tensors without memory, and launches that are noted instead of done."""

    def __init__(self) -> None:
        super().__init__("interpreter")  # asks no driver
        self.name, self.is_interpreter = "cuda:0", False
        self.launches: list[Launch] = []

    def zeros(self, shape: Sequence[int], type: str) -> torch.Tensor:
        return torch.empty(tuple(shape), dtype=TYPES[type], device="meta")

    def upload(self, array: Any) -> torch.Tensor:
        return torch.empty(array.shape, dtype=TYPES[str(array.dtype)], device="meta")

    def fill(self, tensor: torch.Tensor, array: Any) -> None: ...

    def pinned(self, size: int, type: str) -> torch.Tensor:
        return torch.zeros(size, dtype=TYPES[type])

    def send(self, tensor: torch.Tensor, pinned: torch.Tensor, count: int) -> None: ...

    def fetch(self, pinned: torch.Tensor, tensor: torch.Tensor, count: int) -> None: ...

    def download(self, tensor: torch.Tensor) -> Any:
        return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    def launch(
        self, kernel: Any, grid: Sequence[int], *arguments: Any, warps: int = 4, stages: int = 3, **constants: Any
    ) -> None:
        if not all(grid):
            return
        named = dict(zip(kernel.arg_names, arguments, strict=False))
        signature = tuple((name, _type_of(value)) for name, value in named.items())
        divisible = tuple(
            name
            for parameter, (name, value) in zip(kernel.params, named.items(), strict=False)
            if not isinstance(value, int | float) or (value in _multiples(value) and not parameter.do_not_specialize)
        )
        self.launches.append(Launch(kernel, signature, divisible, tuple(constants.items()), warps, stages, tuple(grid)))


def _type_of(value: Any) -> str:
    if isinstance(value, float):
        return "fp32"
    return "i32" if isinstance(value, int) else _TYPES[str(value.dtype).removeprefix("torch.")]


def _multiples(value: float) -> tuple[float, ...]:
    return (value,) if isinstance(value, int) and value % 16 == 0 else ()


GREEDY, DRAWN = SamplingParams(temperature=0.0), SamplingParams(temperature=1.0, top_p=0.9)


def recorded_launches(
    rows: int,
    type: str,
    *,
    prefill: bool = False,
    context: int = 600,
    sampling: SamplingParams = GREEDY,
    wide: bool = False,
) -> list[Launch]:
    """The launches of one layer of R1's shape, of its head and of the draw, for a step of so many rows.

    Decoding: each row is a sequence with `context` tokens before it. Prefill: the rows are the tokens of one prompt.
    `wide`: with a small model's activations.
    """
    device, host = RecordingDevice(), _native.Device("auto", 2)
    program = Program(device, host, R1.program_shape(num_layers=1, max_tokens=512, max_sequences=256, num_blocks=512))
    R1.record(program, host, type, num_layers=1, head_rows=64, wide=wide)  # a head's rows are not compiled in
    spec = SampleSpec(sampling, 0, 0)
    if prefill:
        plan = [ScheduledSequence(0, [0] * rows, 0, list(range(-(-rows // 32))), (spec,))]
    else:
        blocks = list(range(context // 32 + 1))
        plan = [ScheduledSequence(i, [0], context, blocks, (spec,)) for i in range(rows)]
    program.run(plan, [_native.SampleRequest(_native.SequenceSampling(temperature=0.0), 0) for _ in plan])
    return device.launches


@dataclass
class Compiled:
    """What a kernel was compiled to. `registers` and `spilled` (bytes) are a thread's."""

    target: str
    kernel: str
    registers: int = 0
    spilled: int = 0
    shared: int = 0
    tensor_instructions: int = 0
    inexact: list[str] = field(default_factory=list)  # instructions whose results may differ from the CPU's
    error: str = ""

    def faults(self) -> list[str]:
        """The rules that it breaks."""
        found = [self.error] if self.error else []
        found += [f"{self.spilled} bytes a thread are spilled"] if self.spilled else []
        found += [f"{self.shared} bytes of shared memory"] if self.shared > MOST_SHARED else []
        found += [f"inexact: {', '.join(sorted(set(self.inexact)))}"] if self.inexact else []
        if not self.error and self.target.isdigit() and self.kernel.split()[0] in PRODUCTS:
            found += [] if self.tensor_instructions else ["no tensor instruction"]
        return found


def build(launch: Launch, target: str) -> Any:
    """What Triton's compiler makes of it for "90" (NVIDIA's compute capability 9.0) or for an AMD architecture."""
    constants = {name: value for name, value in launch.constants if name in launch.kernel.arg_names}
    signature = dict(launch.signature) | dict.fromkeys(constants, "constexpr")
    names = launch.kernel.arg_names
    hints = {(names.index(name),): [["tt.divisibility", 16]] for name in launch.divisible}
    source = ASTSource(
        fn=launch.kernel, signature={name: signature[name] for name in names}, constexprs=constants, attrs=hints
    )
    gpu = GPUTarget("cuda", int(target), 32) if target.isdigit() else GPUTarget("hip", target, 64)
    options = {"num_warps": launch.warps, "num_stages": launch.stages, "enable_fp_fusion": False}
    return triton.compile(source, target=gpu, options=options)


def compile_launch(launch: Launch, target: str) -> Compiled:
    """Compile it and look at the result."""
    result = Compiled(target, str(launch))
    try:
        compiled = build(launch, target)
    except Exception as error:  # Triton's own kinds
        result.error = f"{type(error).__name__}: {str(error)[-300:]}"
        return result
    result.shared = compiled.metadata.shared
    if target.isdigit():
        _look_at(compiled, result)
    return result


def _look_at(compiled: Any, result: Compiled) -> None:
    ptx = compiled.asm["ptx"]
    result.tensor_instructions = len(re.findall(r"\b(?:mma\.sync|wgmma\.mma_async)\S*", ptx))
    # Without a rounding mode, the assembler may contract them; .approx and .ftz round otherwise than the CPU.
    result.inexact = re.findall(
        r"^\s*(?:@%p\d+ )?((?:mul|add|sub)\.(?:ftz\.)?f(?:32|64)|\S+\.(?:approx|ftz)\S*)\s", ptx, re.M
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [_TOOLS / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    assert found, usage
    result.registers, result.spilled = int(found[1]), int(found[2]) + int(found[3])


def all_launches() -> list[Launch]:
    """Every kernel of decoding and of prefill, each once."""
    launches = [
        launch
        for wide, rows, type in product((False, True), (1, 64, 512), ("Q4_0", "Q8_0"))
        for launch in recorded_launches(rows, type, prefill=rows == 512, wide=wide)
    ]
    return list(dict.fromkeys(launches + recorded_launches(1, "Q4_0", sampling=DRAWN)))


def compiled_for(chosen: Sequence[tuple[str, Sequence[str]]]) -> Iterator[Compiled]:
    """For each target the kernels with one of these parts in their names; without parts, all."""
    launches = all_launches()
    for target, parts in chosen:
        for launch in launches:
            if not parts or any(part in str(launch) for part in parts):
                yield compile_launch(launch, target)


def report(results: Sequence[Compiled], launches: Mapping[str, int]) -> str:
    """A table of what was compiled; Markdown. Equal lines are written once: a kernel's variants often are."""
    lines = [
        "# The GPU's kernels, compiled",
        "",
        f"`python benchmarks/gpu/compile.py {' '.join(dict.fromkeys(each.target for each in results))}`, with Triton "
        f"{triton.__version__}. Nothing ran: no GPU is needed. Registers are a thread's, shared memory a program's.",
        "",
        "Launches of one layer and the head: " + ", ".join(f"{name} {count}" for name, count in launches.items()) + ".",
        "",
        "| target | kernel | registers | bytes spilled | shared memory | tensor instructions | inexact | faults |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in results:
        is_seen = each.target.isdigit()  # AMD's are compiled and not looked at
        shown = [each.registers, each.spilled, each.shared, each.tensor_instructions, len(each.inexact)]
        cells = shown if is_seen else ["", "", each.shared, "", ""]
        faults = "; ".join(each.faults()) or "none"
        lines.append(f"| {each.target} | {each.kernel} | {' | '.join(map(str, cells))} | {faults} |")
    return "\n".join([*lines[:8], *dict.fromkeys(lines[8:])]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", help="such as 90, gfx942, 80:attend or 86:linear BITS=4,fold")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write a table, Markdown")
    arguments = parser.parse_args()
    chosen = [
        (target, list(filter(None, parts.split(","))))
        for target, _, parts in (argument.partition(":") for argument in arguments.targets)
    ]
    results = []
    for result in compiled_for(chosen):
        results.append(result)
        if not arguments.json:
            faults = "; ".join(result.faults()) or "ok"
            print(
                f"{result.target:>6} {result.kernel:60} {result.registers:4} registers {result.shared:6} shared "
                f"{result.tensor_instructions:3} tensor  {faults}",
                flush=True,
            )
    launches = Counter(launch.name for launch in recorded_launches(64, "Q4_0"))
    if arguments.report:
        arguments.report.write_text(report(results, launches))
    if arguments.json:
        compiled = [asdict(result) | {"faults": result.faults()} for result in results]
        print(json.dumps({"launches": launches, "compiled": compiled}))
    else:
        print("launches of a layer and the head:", dict(launches))
    return int(any(result.faults() for result in results))


if __name__ == "__main__":
    sys.exit(main())
