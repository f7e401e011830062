"""Checks a GPU within minutes: are its bits the CPU's, and how fast is it? Prints tables and JSON.

    python benchmarks/gpu/check.py [--device cuda:0] [--seconds 420] [--output check.json]

First identity: tiny models on the GPU and on the CPU, compared with ==. Then memory's bandwidth; products of R1's
widths beside torch's in bfloat16; whole steps of R1's shape (random weights, W4 and W8) for several users and contexts
beside what the bandwidth allows, greedy and, with the shortest context, sampled; and greedy steps by transformers in
bfloat16. Each part has a share of the time; what does not fit is left out and named. A part that fails is reported, and
the others run. `--quick` uses tiny sizes, and `--device interpreter` needs no GPU: together they test the script
itself. The exit status is 0 if bits were compared, none differs and no part failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PRODUCT_ROWS = (1, 8, 16, 64, 256, 2048)
USERS = (1, 8, 32, 128, 256)
CONTEXTS = (128, 1000)
Row = dict[str, Any]
# The second as the authors of R1 advise.
SAMPLINGS: dict[str, Row] = {"greedy": {"temperature": 0.0}, "sampled": {"temperature": 0.6, "top_p": 0.95}}


class Check:
    """Runs parts until their time is up, and keeps what they found."""

    def __init__(self, device: str, seconds: float, *, quick: bool = False) -> None:
        self.device = device
        self.is_real = device != "interpreter"
        self.is_quick = quick or not self.is_real
        self.end = time.monotonic() + seconds
        self.found: dict[str, Any] = {"device": device, "quick": self.is_quick, "left_out": [], "failed": {}}

    def run(self, name: str, part: Callable[[Check], Iterator[Row]], share: float) -> None:
        """Run a part with this share of the time that is left."""
        begin = time.monotonic()
        if begin > self.end:
            self.found["left_out"].append(name)
            return
        rows = self.found[name] = []
        end = begin + share * (self.end - begin)
        try:
            for row in part(self):
                rows.append(row)
                print(name, " ".join(f"{key}={value}" for key, value in row.items()), flush=True)
                if time.monotonic() > end:
                    self.found["left_out"].append(f"the rest of {name}")
                    break
        except Exception as error:  # what the other parts find is worth as much
            traceback.print_exc()
            self.found["failed"][name] = f"{type(error).__name__}: {error}"[:500]

    def seconds_of(self, work: Callable[[], Any], repeats: int = 10) -> float:
        """The median time of `work`, which launches and does not wait; the first two calls may compile."""
        for _ in range(2 if self.is_real else 0):
            work()
        times = []
        for _ in range(repeats if self.is_real else 1):
            self.wait()
            begin = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - begin)
        return sorted(times)[len(times) // 2]

    def wait(self) -> None:
        import torch

        if self.is_real:
            torch.cuda.synchronize(self.device)

    def is_sound(self) -> bool:
        compared = self.found.get("identity", [])
        return bool(compared) and all(row["equal"] for row in compared) and not self.found["failed"]


def identity(check: Check) -> Iterator[Row]:
    """Tiny models of every family and kind of weights, in steps that mix prompts and decoding."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))
    import numpy as np
    from tiny_models import cpu_runner, tiny_model

    from antiphon.config import EngineConfig
    from antiphon.models.spec import ModelSpec
    from antiphon.runtime.cpu import create_device
    from antiphon.runtime.gpu import GpuRunner

    models = [("llama", "Q8_0", "int16"), ("qwen2", "Q4_0", "int8"), ("qwen3", "Q4_1", "int8")]
    for architecture, type, activations in models[:1] if check.is_quick else models:
        checkpoint = tiny_model(architecture=architecture, type=type)
        cpu = cpu_runner(checkpoint, activations=activations, num_blocks=128, max_tokens=512, max_sequences=64)
        spec = ModelSpec.from_checkpoint(checkpoint)
        config = EngineConfig(
            "tiny",
            context_length=spec.context_length,
            kv_cache_tokens=128 * 32,
            max_num_sequences=64,
            activations=activations,
            device=check.device,
        )
        gpu = GpuRunner(config, create_device(config), checkpoint, spec, None, lambda fraction, phase: None)
        equal = [
            gpu.execute(plan) == cpu.execute(plan) and np.array_equal(gpu.logits(), cpu.logits())
            for plan in _identity_steps(is_quick=check.is_quick)
        ]
        yield {"model": architecture, "weights": type, "activations": activations, "equal": all(equal)}


def _identity_steps(*, is_quick: bool) -> Iterator[Any]:
    """A prompt in chunks, decoding beside another prompt, and as many sequences as each tile is chosen for."""
    import numpy as np
    from tiny_models import scheduled

    from antiphon.request import SamplingParams
    from antiphon.step import SampleSpec, StepPlan

    sampled = SampleSpec(SamplingParams(**SAMPLINGS["sampled"], seed=7), 0, 0)
    prompt = np.random.default_rng(1).integers(0, 330, 400).tolist()
    blocks = list(range(12))
    if not is_quick:
        yield StepPlan([scheduled(prompt[:300], blocks, sample=None)])
    yield StepPlan(
        [scheduled(prompt[300:302], blocks, start=300), scheduled(prompt[:40], [20, 21], id=1, sample=sampled)]
    )
    if is_quick:
        return
    yield StepPlan([scheduled(prompt[302:303], blocks, start=302)])
    for count in (9, 17, 33, 64):
        yield StepPlan([scheduled(prompt[i : i + 1], [30 + i], id=100 * count + i) for i in range(count)])


def bandwidth(check: Check) -> Iterator[Row]:
    """Bytes a second of a copy within the device's memory, read and written counted."""
    import torch

    size = 1 << 20 if check.is_quick else 1 << 30
    device = torch.device(check.device if check.is_real else "cpu")
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    seconds = check.seconds_of(lambda: target.copy_(source))
    check.found["bytes_per_second"] = 2 * size / seconds
    name = torch.cuda.get_device_name(device) if check.is_real else "interpreter"
    yield {"name": name, "torch": torch.__version__, "gigabytes_per_second": round(2 * size / seconds / 1e9, 1)}


def products(check: Check) -> Iterator[Row]:
    """One product of R1's gate and up widths, by rows, beside torch.mm in bfloat16."""
    import numpy as np
    import torch
    from shapes import BLOCK_BYTES, R1, TINY

    from antiphon import _native
    from antiphon.ops.triton.device import Device
    from antiphon.ops.triton.layouts import upload_matrix
    from antiphon.ops.triton.program import Program
    from antiphon.ops.triton.tiles import GpuTiles

    shape, row_counts = (TINY, (16,)) if check.is_quick else (R1, PRODUCT_ROWS)
    device, host = Device(check.device), _native.Device("auto", 2)
    most = max(row_counts)
    program_shape = shape.program_shape(num_layers=1, max_tokens=most, max_sequences=1, num_blocks=16)
    program = Program(device, host, program_shape, tiles=GpuTiles())
    x = program._quantized[program.quantized_buffer(shape.hidden, False, False)]
    channels = 2 * shape.inner
    out = device.zeros((most, channels), "float32")
    for type in ("Q4_0", "Q8_0"):
        raw = np.random.default_rng(2).integers(
            0, 256, (channels * shape.hidden // 32, BLOCK_BYTES[type]), dtype=np.uint8
        )
        raw[:, :2] = np.array([0.002], np.float16).view(np.uint8)
        weights = upload_matrix(device, host.pack([_native.StoredMatrix(raw.tobytes(), type, channels, shape.hidden)]))
        for rows in row_counts:
            program._inputs.num_tokens = rows
            seconds = check.seconds_of(lambda: program._linear(x, weights, None, out, channels))  # noqa: B023
            a, b = (
                torch.zeros(size, dtype=torch.bfloat16, device=check.device if check.is_real else "cpu")
                for size in ((rows, shape.hidden), (shape.hidden, channels))
            )
            bf16 = check.seconds_of(lambda: torch.mm(a, b))  # noqa: B023
            microseconds = {"microseconds": round(seconds * 1e6, 1), "bf16_microseconds": round(bf16 * 1e6, 1)}
            yield {"weights": type, "rows": rows, **microseconds}


def steps(check: Check) -> Iterator[Row]:
    """Whole decoding steps, sampling included, beside the time that reading weights and KV cache takes."""
    from shapes import R1, TINY

    from antiphon import _native
    from antiphon.ops.triton.device import Device
    from antiphon.ops.triton.program import Program

    shape, users, contexts = (TINY, (2,), (64,)) if check.is_quick else (R1, USERS, CONTEXTS)
    # What drawing takes does not depend on the context.
    kinds = [(context, "greedy") for context in contexts] + [(contexts[0], "sampled")]
    blocks = max(contexts) // 32 + 1
    sizes = shape.program_shape(
        num_layers=shape.layers, max_tokens=256, max_sequences=256, num_blocks=max(users) * blocks
    )
    for type in ("Q4_0", "Q8_0"):
        device, host = Device(check.device), _native.Device("auto", 8)
        program = Program(device, host, sizes)
        weight_bytes = shape.record(program, host, type, num_layers=shape.layers, head_rows=shape.vocabulary)
        for count in users:
            for context, sampling in kinds:
                plan, requests = _step(count, context, blocks, sampling)
                seconds = check.seconds_of(lambda: program.run(plan, requests), repeats=5)  # noqa: B023
                moved = weight_bytes + count * context * program.block_bytes // 32
                roofline = moved / check.found["bytes_per_second"]
                yield {
                    "weights": type,
                    "sampling": sampling,
                    **step_row(count, context, seconds),
                    "roofline_milliseconds": round(roofline * 1e3, 3),
                    "share_of_bandwidth": round(roofline / seconds, 3),
                }


def _step(users: int, context: int, blocks: int, sampling: str) -> tuple[list[Any], list[Any]]:
    """A decoding step of so many sequences, with `blocks` blocks each, and how to draw its tokens."""
    from antiphon import _native
    from antiphon.request import SamplingParams
    from antiphon.step import SampleSpec, ScheduledSequence

    sequences, requests = [], []
    for i in range(users):
        table = list(range(i * blocks, (i + 1) * blocks))
        spec = SampleSpec(SamplingParams(**SAMPLINGS[sampling], seed=i), 0, 0)
        sequences.append(ScheduledSequence(i, [i % 64], context, table, (spec,)))
        requests.append(_native.SampleRequest(_native.SequenceSampling(**SAMPLINGS[sampling], seed=i), 0))
    return sequences, requests


def step_row(users: int, context: int, seconds: float) -> Row:
    """What every kind of step reports."""
    return {
        "users": users,
        "context": context,
        "milliseconds": round(seconds * 1e3, 3),
        "tokens_per_second": round(users / seconds, 1),
    }


def memory(check: Check) -> Iterator[Row]:
    """What the process takes on the device beside PyTorch's tensors: the plan estimates it (`gpu_footprint`)."""
    import torch

    from antiphon.gpu_footprint import CONTEXT_BYTES

    row: Row = {"planned_context_bytes": CONTEXT_BYTES}
    if check.is_real:
        free, total = torch.cuda.mem_get_info(check.device)
        reserved = torch.cuda.memory_reserved(check.device)
        row |= {"used_bytes": total - free, "pytorch_bytes": reserved, "others_bytes": total - free - reserved}
    yield row


def with_transformers(check: Check) -> Iterator[Row]:
    from shapes import R1, TINY
    from with_transformers import decoding_steps

    shape, users, contexts = (TINY, (2,), (64,)) if check.is_quick else (R1, USERS, CONTEXTS)
    for count, context, kind, seconds in decoding_steps(shape, users, contexts, check.device, check.seconds_of):
        yield {"kind": kind, **step_row(count, context, seconds)}


# Each with its share of the time that is left when it begins.
PARTS: tuple[tuple[str, Callable[[Check], Iterator[Row]], float], ...] = (
    ("identity", identity, 0.5),
    ("bandwidth", bandwidth, 0.1),
    ("products", products, 0.3),
    ("steps", steps, 0.6),
    ("memory", memory, 0.1),
    ("transformers", with_transformers, 1.0),
)


def tables(found: Mapping[str, Any]) -> str:
    """What was found; Markdown."""
    parts = []
    for name, _, _ in PARTS:
        if rows := found.get(name):
            columns = list(dict.fromkeys(key for row in rows for key in row))
            lines = [_line(columns), _line(["---"] * len(columns))]
            parts.append(
                "\n".join([f"{name}:", "", *lines, *(_line([row.get(key, "") for key in columns]) for row in rows)])
            )
    for title, which in (("left out", found["left_out"]), ("failed", found["failed"])):
        parts += [f"{title}: {', '.join(which)}"] if which else []
    return "\n\n".join(parts)


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; always so with --device interpreter")
    parser.add_argument("--seconds", type=float, default=420.0, help="after which what is left is left out")
    parser.add_argument("--output", type=Path, help="a file for the JSON")
    arguments = parser.parse_args()
    if arguments.device == "interpreter":
        from antiphon.ops.triton.interpreter import use_interpreter

        use_interpreter()
    check = Check(arguments.device, arguments.seconds, quick=arguments.quick)
    for name, part, share in PARTS:
        check.run(name, part, share)
        if arguments.output:  # after each: the machine may be gone before the last
            arguments.output.write_text(json.dumps(check.found, indent=1) + "\n")
    print(tables(check.found), json.dumps(check.found), sep="\n\n")
    return int(not check.is_sound())


if __name__ == "__main__":
    sys.exit(main())
