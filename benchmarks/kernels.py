#!/usr/bin/env python3
"""The matrix products alone: what each shape costs for so many rows, beside what this machine can do at best.

    python benchmarks/kernels.py [--instruction-sets avx512,avx2] [--formats W4,W8] [--json OUT]

The shapes are those of DeepSeek-R1-Distill-Qwen-1.5B, each as the model's program has it: gate and up are one matrix
under SiLU·up, and the head's activations have a low plane, which is multiplied by its likeliest rows. A program
multiplies by several matrices of a shape in turn, together much larger than any cache, as the layers of a model are.
Weights are seeded noise.

*GB/s* is the rate at which weights are read; its share is of what one pass over memory reaches, all threads. *GMAC/s*
counts products of 8-bit integers; its share is of a loop of the instruction set's dot product that stays in registers.
Both limits are measured again before and after every run, and each share is of these. Whichever share is
larger tells what binds a product. Figures are medians of `--repeats` runs after one that is not counted.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from record import record

from antiphon import _native
from antiphon.doctor.least import CORRECTED_LOGITS
from antiphon.doctor.roofline import Limits, Rates
from antiphon.machine import default_threads

TYPES = {"W4": "Q4_0", "W8": "Q8_0"}  # a stored type that becomes the format
STREAMED = 160 << 20  # bytes of all matrices of a shape together, at least
VOCABULARY = 256  # of programs without a head


@dataclass(frozen=True)
class Shape:
    """A matrix of the model; `part` is where the program's clock counts it."""

    name: str
    columns: int
    outputs: int
    part: str = "linear"

    @property
    def is_head(self) -> bool:
        return self.part == "head"

    @property
    def products(self) -> int:
        """Of one row."""
        return self.columns * (self.outputs + min(self.outputs, CORRECTED_LOGITS) * self.is_head)


SHAPES = [
    Shape("qkv", 1536, 2048),
    Shape("o", 1536, 1536),
    Shape("gate_up", 1536, 17920),
    Shape("down", 8960, 1536),
    Shape("head", 1536, 151936, "head"),
]


@dataclass
class Product:
    """One shape in one format, for several numbers of rows."""

    shape: Shape
    format: str
    program: _native.Program
    copies: int
    bytes: int  # of one matrix
    runs: dict[int, list[tuple[float, Rates]]] = field(default_factory=dict)  # by rows: seconds of one matrix, limits

    def run(self, rows: int, limits: Limits) -> None:
        batch = _batch(self.shape, rows)
        rates = limits.around(lambda: self.program.run(batch))
        seconds = self.program.last_seconds[self.shape.part] / self.copies
        self.runs.setdefault(rows, []).append((seconds, rates))


def build(device: _native.Device, shape: Shape, form: str, most_rows: int) -> Product:
    stored = noise(TYPES[form], shape.outputs, shape.columns)
    parts, interleave = [stored], False
    if shape.name == "gate_up":
        parts, interleave = [noise(TYPES[form], shape.outputs // 2, shape.columns)] * 2, True
    first = device.pack(parts, interleave)
    copies = -(-STREAMED // first.num_bytes)
    matrices = [first, *(device.pack(parts, interleave) for _ in range(copies - 1))]
    program = _native.Program(device, _program_shape(shape, most_rows), None)
    _record(program, shape, matrices)
    return Product(shape, form, program, copies, first.num_bytes)


def noise(type: str, rows: int, columns: int) -> _native.StoredMatrix:
    """Blocks of random codes with scales of about 0.01."""
    block = np.dtype([("scale", "<f2"), ("codes", "u1", 16 if type == "Q4_0" else 32)])
    blocks = np.zeros((rows, columns // 32), block)
    rng = np.random.default_rng(rows + columns)
    blocks["codes"] = rng.integers(0, 256, blocks["codes"].shape, np.uint8)
    blocks["scale"] = rng.uniform(0.005, 0.015, blocks.shape)
    return _native.StoredMatrix(blocks.tobytes(), type, rows, columns)


def _program_shape(shape: Shape, most_rows: int) -> _native.ProgramShape:
    return _native.ProgramShape(
        max_tokens=most_rows,
        max_sequences=most_rows,
        vocabulary=shape.outputs if shape.is_head else VOCABULARY,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=32,
        context_length=32,
        num_blocks=1,
        kv_type="int8",
        rope_frequencies=[1.0] * 16,
    )


def _record(program: _native.Program, shape: Shape, matrices: list[_native.PackedMatrix]) -> None:
    """Embed noise, norm it, and multiply it by every matrix."""
    x = program.float_buffer(shape.columns, False)
    rows = shape.outputs if shape.is_head else VOCABULARY
    program.embed(noise("Q8_0", rows, shape.columns), x)
    if shape.is_head:
        selected = program.float_buffer(shape.columns, True)
        program.select_rows(x, selected)
        x = selected
    normed = program.quantized_buffer(shape.columns, shape.is_head, False)
    program.rms_norm(x, [1.0] * shape.columns, 1e-6, normed)
    _multiply(shape)(program, normed, matrices)


def _multiply(shape: Shape) -> Callable[[_native.Program, int, list[_native.PackedMatrix]], None]:
    def plain(program: _native.Program, source: int, matrices: list[_native.PackedMatrix]) -> None:
        out = program.float_buffer(shape.outputs, False)
        for matrix in matrices:
            program.linear(source, matrix, [], out, accumulate=False)

    def silu(program: _native.Program, source: int, matrices: list[_native.PackedMatrix]) -> None:
        out = program.quantized_buffer(shape.outputs // 2, False, False)
        for matrix in matrices:
            program.linear_silu_mul(source, matrix, out)

    def head(program: _native.Program, source: int, matrices: list[_native.PackedMatrix]) -> None:
        for matrix in matrices:
            program.logits(source, matrix)

    return {"gate_up": silu, "head": head}.get(shape.name, plain)


def _batch(shape: Shape, rows: int) -> list[_native.SequenceInput]:
    """`rows` tokens; for the head a sequence each, which draws its likeliest token."""
    samples = [_native.SampleRequest(_native.SequenceSampling(temperature=0.0), 0)] if shape.is_head else []
    return [_native.SequenceInput([row % VOCABULARY], 0, [0], samples) for row in range(rows)]


def measure(device: _native.Device, wanted: argparse.Namespace) -> dict[str, Any]:
    """Every product of one instruction set, and its limits."""
    limits = Limits(device)
    rows_of = {shape: [n for n in wanted.rows if n <= 64 or not shape.is_head] for shape in wanted.shapes}
    products = []
    for form in wanted.formats:
        for shape in wanted.shapes:
            product = build(device, shape, form, max(rows_of[shape]))
            for _ in range(1 + wanted.repeats):
                for rows in rows_of[shape]:
                    product.run(rows, limits)
            product.program = None  # type: ignore[assignment]  # its matrices make room for the next
            products.append(product)
    return {
        "instruction_set": device.instruction_set,
        "limits": str(limits),
        "peaks": limits.medians(),
        "ranges": limits.ranges(),
        "cases": [case for product in products for case in figures(product)],
    }


def figures(product: Product) -> list[dict[str, Any]]:
    shape, cases = product.shape, []
    for rows, runs in product.runs.items():
        products = shape.products * rows
        counted = runs[1:]
        cases.append(
            {
                "shape": shape.name,
                "format": product.format,
                "rows": rows,
                "seconds": statistics.median(seconds for seconds, _ in counted),
                "bytes_per_second": statistics.median(product.bytes / seconds for seconds, _ in counted),
                "share_of_memory": statistics.median(product.bytes / seconds / at["bytes"] for seconds, at in counted),
                "products_per_second": statistics.median(products / seconds for seconds, _ in counted),
                "share_of_products": statistics.median(products / seconds / at["products"] for seconds, at in counted),
            }
        )
    return cases


def report(result: dict[str, Any]) -> None:
    print(f"\n{result['instruction_set']}: {result['limits']}\n")
    print("| format | shape | rows | ms | GB/s | of memory | GMAC/s | of peak |\n|---|---|---|---|---|---|---|---|")
    for case in result["cases"]:
        print(
            f"| {case['format']} | {case['shape']} | {case['rows']} | {case['seconds'] * 1e3:.3f} | "
            f"{case['bytes_per_second'] / 1e9:.1f} | {case['share_of_memory']:.0%} | "
            f"{case['products_per_second'] / 1e9:.0f} | {case['share_of_products']:.0%} |"
        )


def main() -> None:
    sets = [name for name in _native.instruction_sets() if name != "scalar"]
    names = [shape.name for shape in SHAPES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instruction-sets", default=",".join(sets), help="[all of this machine but scalar]")
    parser.add_argument("--formats", default=",".join(TYPES))
    parser.add_argument("--shapes", default=",".join(names))
    parser.add_argument("--rows", default="1,2,4,8,16,32,64,512")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: one for each physical core")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    arguments.formats = arguments.formats.split(",")
    arguments.shapes = [shape for shape in SHAPES if shape.name in arguments.shapes.split(",")]
    arguments.rows = [int(text) for text in arguments.rows.split(",")]
    results = []
    for name in arguments.instruction_sets.split(","):
        device = _native.Device(name, arguments.threads or default_threads())
        results.append(measure(device, arguments))
        report(results[-1])
    record("kernels", {"instruction_sets": results}, arguments.json)


if __name__ == "__main__":
    main()
