"""What a GPU that is at hand for minutes is asked: are the bits the CPU's, and how fast is it? JSON and a table.

    python benchmarks/gpu/check.py [--device cuda:0] [--seconds 400] [--output check.json]

First identity: tiny models on the GPU and on the CPU, compared with ==. Then products of R1's widths beside torch's in
bf16, and whole steps of R1's shape (random weights, W4 and W8) for several users and contexts beside what the memory's
bandwidth allows. What there is no time for is left out and named. `--device interpreter` tries the script itself, with
a tiny shape. The exit status is 0 if bits were compared and none differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PRODUCT_ROWS = (1, 8, 16, 64, 256, 2048)
USERS = (1, 8, 32, 128, 256)
CONTEXTS = (128, 1000)


class Check:
    """Runs parts until the time is up, and keeps what they found."""

    def __init__(self, device: str, seconds: float) -> None:
        self.device = device
        self.is_real = device != "interpreter"
        self.end = time.monotonic() + seconds
        self.found: dict[str, Any] = {"device": device, "left_out": []}

    def run(self, name: str, part: Callable[[Check], Iterator[dict[str, Any]]]) -> None:
        rows: list[dict[str, Any]] = []
        self.found[name] = rows
        for row in part(self):
            rows.append(row)
            print(name, " ".join(f"{key}={value}" for key, value in row.items()), flush=True)
            if time.monotonic() > self.end:
                self.found["left_out"].append(f"the rest of {name}")
                return

    def seconds_of(self, work: Callable[[], Any], repeats: int = 10) -> float:
        """The median time of `work`, which launches and does not wait; the first two calls may compile."""
        work()
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


def identity(check: Check) -> Iterator[dict[str, Any]]:
    """Tiny models of every family and weight format, in steps that mix prompts and decoding."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))
    import numpy as np
    from tiny_models import cpu_runner, scheduled, tiny_model

    from antiphon.config import EngineConfig
    from antiphon.models.spec import ModelSpec
    from antiphon.runtime.cpu import create_device
    from antiphon.runtime.gpu import GpuRunner
    from antiphon.step import StepPlan

    models = [("llama", "Q8_0", "int16"), ("qwen2", "Q4_0", "int8"), ("qwen3", "Q4_1", "int8")]
    prompt = np.random.default_rng(1).integers(0, 330, 400).tolist()
    plans = [
        StepPlan([scheduled(prompt[:300], list(range(12)), sample=None)]),
        StepPlan([scheduled(prompt[300:302], list(range(12)), start=300), scheduled(prompt[:40], [20, 21], id=1)]),
        StepPlan([scheduled(prompt[302:303], list(range(12)), start=302)]),
    ]
    for architecture, type, activations in models if check.is_real else models[:1]:
        checkpoint = tiny_model(architecture=architecture, type=type)
        cpu = cpu_runner(checkpoint, activations=activations, max_tokens=512)
        spec = ModelSpec.from_checkpoint(checkpoint)
        config = EngineConfig(
            "tiny",
            context_length=spec.context_length,
            kv_cache_tokens=2048,
            max_num_sequences=32,
            activations=activations,
            device=check.device,
        )
        gpu = GpuRunner(config, create_device(config), checkpoint, spec, None, lambda fraction, phase: None)
        equal = []
        for plan in plans if check.is_real else plans[1:2]:
            equal.append(gpu.execute(plan) == cpu.execute(plan) and np.array_equal(gpu.logits(), cpu.logits()))
        yield {"model": architecture, "weights": type, "activations": activations, "equal": all(equal)}


def bandwidth(check: Check) -> Iterator[dict[str, Any]]:
    """Bytes a second of a copy within the device's memory, read and written counted."""
    import torch

    size = 1 << 30 if check.is_real else 1 << 20
    device = torch.device(check.device if check.is_real else "cpu")
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    seconds = check.seconds_of(lambda: target.copy_(source))
    check.found["bytes_per_second"] = 2 * size / seconds
    name = torch.cuda.get_device_name(device) if check.is_real else "interpreter"
    yield {"name": name, "gigabytes_per_second": round(2 * size / seconds / 1e9, 1)}


def products(check: Check) -> Iterator[dict[str, Any]]:
    """One product of R1's gate and up widths, by rows, beside torch.mm in bf16."""
    import numpy as np
    import torch
    from shapes import BLOCK_BYTES, R1, TINY

    from antiphon import _native
    from antiphon.ops.triton.device import Device
    from antiphon.ops.triton.layouts import upload_matrix
    from antiphon.ops.triton.program import Program
    from antiphon.ops.triton.tiles import GpuTiles

    shape = R1 if check.is_real else TINY
    device, host = Device(check.device), _native.Device("auto", 2)
    most = max(PRODUCT_ROWS) if check.is_real else 16
    program = Program(
        device,
        host,
        shape.program_shape(num_layers=1, max_tokens=most, max_sequences=1, num_blocks=16),
        tiles=GpuTiles(),
    )
    x = program._quantized[program.quantized_buffer(shape.hidden, False, 1)]
    out = device.zeros((most, 2 * shape.inner), "float32")
    for type in ("Q4_0", "Q8_0"):
        raw = np.random.default_rng(2).integers(
            0, 256, (2 * shape.inner * shape.hidden // 32, BLOCK_BYTES[type]), dtype=np.uint8
        )
        raw[:, :2] = np.array([0.002], np.float16).view(np.uint8)
        matrix = host.pack([_native.StoredMatrix(raw.tobytes(), type, 2 * shape.inner, shape.hidden)])
        weights = upload_matrix(device, matrix)
        for rows in PRODUCT_ROWS if check.is_real else (1, 16):
            program._num_tokens = rows
            seconds = check.seconds_of(lambda: program._linear(x, weights, 1, None, out, 2 * shape.inner))  # noqa: B023
            row = {"weights": type, "rows": rows, "microseconds": round(seconds * 1e6, 1)}
            if check.is_real:
                a = torch.zeros((rows, shape.hidden), dtype=torch.bfloat16, device=check.device)
                b = torch.zeros((shape.hidden, 2 * shape.inner), dtype=torch.bfloat16, device=check.device)
                row["bf16_microseconds"] = round(check.seconds_of(lambda: torch.mm(a, b)) * 1e6, 1)  # noqa: B023
            yield row


def steps(check: Check) -> Iterator[dict[str, Any]]:
    """Whole decoding steps, sampling on the host included, beside the time that reading weights and KV takes."""
    from shapes import R1, TINY

    from antiphon import _native
    from antiphon.ops.triton.device import Device
    from antiphon.ops.triton.program import Program
    from antiphon.request import SamplingParams
    from antiphon.step import SampleSpec, ScheduledSequence

    shape, users, contexts = (R1, USERS, CONTEXTS) if check.is_real else (TINY, (2,), (64,))
    spec = SampleSpec(SamplingParams(temperature=0.0), 0, 0)
    blocks = -(-(max(contexts) + 1) // 32)
    for type in ("Q4_0", "Q8_0"):
        device, host = Device(check.device), _native.Device("auto", 8)
        program = Program(
            device,
            host,
            shape.program_shape(
                num_layers=shape.layers, max_tokens=256, max_sequences=256, num_blocks=max(users) * blocks
            ),
        )
        weight_bytes = shape.record(program, host, type, num_layers=shape.layers, head_rows=shape.vocabulary)
        for count in users:
            for context in contexts:
                tables = [list(range(i * blocks, (i + 1) * blocks)) for i in range(count)]
                plan = [ScheduledSequence(i, [i % 64], context, tables[i], (spec,)) for i in range(count)]
                sampling = _native.SequenceSampling(temperature=0.0)
                requests = [_native.SampleRequest(sampling, 0) for _ in plan]
                seconds = check.seconds_of(lambda: program.run(plan, requests), repeats=5)  # noqa: B023
                moved = weight_bytes + count * context * program.block_bytes // 32
                least = moved / check.found["bytes_per_second"]
                yield {
                    "weights": type,
                    "users": count,
                    "context": context,
                    "milliseconds": round(seconds * 1e3, 3),
                    "tokens_per_second": round(count / seconds),
                    "share_of_bandwidth": round(least / seconds, 3),
                }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=400.0, help="after which what is left is left out")
    parser.add_argument("--output", type=Path, help="a file for the JSON")
    arguments = parser.parse_args()
    if arguments.device == "interpreter":
        from antiphon.ops.triton.interpreter import use_interpreter

        use_interpreter()
    check = Check(arguments.device, arguments.seconds)
    for name, part in (("identity", identity), ("bandwidth", bandwidth), ("products", products), ("steps", steps)):
        if time.monotonic() < check.end:
            check.run(name, part)
        else:
            check.found["left_out"].append(name)
    if arguments.output:
        arguments.output.write_text(json.dumps(check.found, indent=1) + "\n")
    print(json.dumps(check.found))
    compared = check.found.get("identity", [])
    return int(not compared or not all(row["equal"] for row in compared))


if __name__ == "__main__":
    sys.exit(main())
