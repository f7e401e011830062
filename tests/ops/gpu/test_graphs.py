"""Decoding steps are padded to a bucket, captured and replayed; the answers are those of steps that are not.

In the interpreter, a graph is the list of launches that a GPU would capture.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

pytest.importorskip("triton")

from hypothesis import given
from hypothesis import strategies as st
from tiny_models import cpu_runner, gpu_runner, scheduled, tiny_model

from antiphon.ops.triton.device import CaptureFailed, Device
from antiphon.ops.triton.graphs import BUCKET_ROWS, Bucket, Buckets, Graphs
from antiphon.request import SamplingParams
from antiphon.step import SampleSpec, StepPlan

DRAWN = SamplingParams(temperature=0.9, seed=4)


class NotingDevice(Device):
    """The interpreter, noting what is launched, captured and replayed; nothing runs."""

    def __init__(self) -> None:
        super().__init__("interpreter")
        self.noted: list[str] = []
        self.fails = False

    def launch(self, kernel: Any, grid: Any, *arguments: Any, **constants: Any) -> None:
        self.noted.append(kernel)

    def capture(self, body: Any) -> Any:
        if self.fails:
            raise CaptureFailed("CUDA error: out of memory")
        body()
        self.noted.append("captured")
        return ["graph"]

    def replay(self, recording: Any) -> None:
        self.noted.append("replayed")


@given(rows=st.integers(1, 300), items=st.integers(0, 3000), most=st.integers(1, 300))
def test_a_bucket_is_the_smallest_that_holds_the_step(rows: int, items: int, most: int) -> None:
    buckets, max_items = Buckets(most, 4096), 4096
    assert buckets.rows[-1] == min(most, 256)
    assert set(buckets.rows[:-1]) <= set(BUCKET_ROWS)
    found = buckets.of(rows, items)
    if found is None:
        assert rows > min(most, 256)
        return
    assert rows <= found.rows <= most
    assert all(fewer < rows for fewer in buckets.rows if fewer < found.rows)
    assert items <= found.items <= max_items
    assert found.items < 2 * max(items, found.rows)


def test_work_items_are_padded_to_few_sizes_and_never_beyond_the_buffer() -> None:
    buckets = Buckets(64, 100)
    assert [buckets.of(3, items) for items in (3, 5, 17, 90)] == [Bucket(4, n) for n in (4, 8, 32, 100)]
    assert buckets.of(65, 65) is None


def test_a_graph_is_captured_at_its_second_use_and_the_longest_unused_is_dropped() -> None:
    device = NotingDevice()
    graphs = Graphs(device, most=2)

    def use(key: str) -> list[str]:
        device.noted.clear()
        graphs.run(key, lambda: device.launch(key, (1,)))
        return list(device.noted)

    assert [use("a"), use("a"), use("a")] == [["a"], ["a", "captured", "replayed"], ["replayed"]]
    assert [use("b"), use("a"), use("c")] == [["b"], ["replayed"], ["c"]]  # "b" is dropped
    assert [use("a"), use("b")] == [["replayed"], ["b"]]


def test_a_graph_that_cannot_be_captured_is_reported_once_and_its_kernels_are_launched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    device = NotingDevice()
    graphs = Graphs(device, most=9)

    def use(key: str) -> list[str]:
        device.noted.clear()
        graphs.run(key, lambda: device.launch(key, (1,)))
        return list(device.noted)

    use("a"), use("a"), use("b")
    device.fails = True
    assert [use("b"), use("b"), use("a"), use("c"), use("c")] == [["b"], ["b"], ["replayed"], ["c"], ["c"]]
    (warning,) = caplog.messages
    assert "could not be captured (CUDA error: out of memory)" in warning
    assert "--enforce-eager" in warning


def test_a_failed_capture_says_why_and_leaves_the_stream_that_was_current(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    chosen: list[str] = []
    graph = MagicMock()
    graph.return_value.__exit__ = MagicMock(side_effect=RuntimeError("CUDA error: operation failed\nMore"))
    for name, value in {
        "current_stream": lambda device: "before",
        "set_stream": chosen.append,
        "CUDAGraph": MagicMock(),
        "device": MagicMock(),
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    with pytest.raises(CaptureFailed, match=r"^CUDA error: operation failed$"):
        Device("cuda:0").capture(lambda: None)
    assert chosen == ["before"]


def test_what_a_graph_cannot_hold_fails_while_it_is_captured() -> None:
    device = Device("interpreter")
    tensor, pinned = device.zeros((4,), "int32"), device.pinned(4, "int32")
    for body in (
        lambda: device.send(tensor, pinned, 4),
        lambda: device.fetch(pinned, tensor, 4),
        lambda: device.fill(tensor, np.ones(4, np.int32)),
        lambda: device.download(tensor),
        lambda: device.upload(np.ones(4, np.int32)),
        lambda: device.zeros((4,), "int32"),
    ):
        with pytest.raises(RuntimeError, match="while a graph is captured"):
            device.capture(body)  # type: ignore[arg-type]
    device.send(tensor, pinned, 4)


def identity(argument: Any) -> Any:
    """What two launches must have equal: a tensor's memory, a number's value."""
    return argument.data_ptr() if hasattr(argument, "data_ptr") else argument


TABLES = {0: [9] * 8 + [0], 1: [1], 2: [2], 3: [3], 4: [4], 5: [9]}  # the first begins with eight times the last's 32


def step(lengths: dict[int, int], tokens: dict[int, list[int]], sample: SampleSpec | None) -> StepPlan:
    """The next tokens of sequences that have so many, in this order."""
    sequences = []
    for id, token_ids in tokens.items():
        sequences.append(scheduled(token_ids, TABLES[id], start=lengths[id], id=id, sample=sample))
        lengths[id] += len(token_ids)
    return StepPlan(sequences)


def test_decoding_steps_of_a_bucket_have_equal_launches_and_the_cpu_s_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three sequences, four others, three again: launched, captured, replayed. One has two segments, so two items."""
    checkpoint = tiny_model(type="Q4_0", num_hidden_layers=1)
    cpu, gpu = cpu_runner(checkpoint, max_sequences=32), gpu_runner(checkpoint, max_sequences=32)
    lengths, rng = {0: 256} | dict.fromkeys(range(1, 6), 0), np.random.default_rng(5)
    prompts = {5: 32, 0: 2, 1: 9, 2: 12, 3: 8, 4: 1}
    plan = step(lengths, {id: rng.integers(0, 330, count).tolist() for id, count in prompts.items()}, None)
    cpu.execute(plan)
    gpu.execute(plan)
    device, noted = gpu._device, list[Any]()
    launch = device.launch

    def note(kernel: Any, grid: Any, *arguments: Any, **constants: Any) -> None:
        noted.append((kernel.fn.__name__, tuple(grid), tuple(map(identity, arguments)), constants))
        launch(kernel, grid, *arguments, **constants)

    monkeypatch.setattr(device, "launch", note)
    launches = []
    for number, ids in enumerate(((0, 1, 2), (4, 3, 2, 1), (3, 0, 4))):
        tokens = {id: rng.integers(0, 330, 1).tolist() for id in ids}
        plan = step(lengths, tokens, SampleSpec(DRAWN, 0, number))
        noted.clear()
        assert gpu.execute(plan) == cpu.execute(plan)
        assert np.array_equal(gpu.logits(), cpu.logits())
        assert gpu._program._inputs.bucket == Bucket(4, 4)
        launches.append(list(noted))
    assert len(launches[0]) > 9
    assert launches[1] == launches[0]
    assert launches[2] == []


def test_without_graphs_nothing_is_padded_captured_or_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    eager = gpu_runner(tiny_model(num_hidden_layers=1), max_tokens=8, max_sequences=4, enforce_eager=True)
    inputs, calls = eager._program._inputs, list[str]()
    for name in ("capture", "replay"):
        monkeypatch.setattr(eager._device, name, lambda *_, name=name: calls.append(name))
    monkeypatch.setattr(eager._device, "launch", lambda *_, **__: calls.append("launched"))
    for _ in range(3):
        eager.submit(StepPlan([scheduled([1], [i], id=i) for i in range(3)]))
        assert (inputs.bucket, inputs.num_tokens) == (None, 3)
        eager.collect()
    assert set(calls) == {"launched"}


def test_padded_rows_leave_the_kv_cache_as_it_is() -> None:
    """They have no block: neither block 0 nor the last changes, which belong to others."""
    checkpoint = tiny_model(num_hidden_layers=1)
    gpu = gpu_runner(checkpoint, num_blocks=2, max_tokens=8, max_sequences=8)
    pool = gpu._program._attention._pool[0]
    for tensor in pool.tensors():
        tensor.fill_(7)
    gpu.execute(StepPlan([scheduled([5], [1], start=3, id=i) for i in range(3)]))
    k = gpu._device.download(pool.k).reshape(2, 2, 32, 32)  # [blocks, KV heads, tokens, head_dim]
    v = gpu._device.download(pool.v).reshape(2, 2, 32, 32)  # [blocks, KV heads, head_dim, tokens]
    assert (k[0] == 7).all()
    assert (v[0] == 7).all()
    assert (np.delete(k[1], 3, axis=1) == 7).all()
    assert (np.delete(v[1], 3, axis=2) == 7).all()
    assert not (k[1, :, 3] == 7).all()


def test_a_step_that_is_not_all_decoding_is_not_padded() -> None:
    gpu = gpu_runner(tiny_model(num_hidden_layers=1), max_tokens=16, max_sequences=4)
    inputs = gpu._program._inputs
    one, prompt, silent = scheduled([1], [0]), scheduled([1, 2], [1], id=1), scheduled([1], [2], id=2, sample=None)
    for sequences, bucket in (
        ([one], Bucket(1, 1)),
        ([one, silent, silent], Bucket(4, 4)),
        ([one, prompt], None),
        ([silent], None),
    ):
        inputs.take(sequences, {})
        assert inputs.bucket == bucket
        assert inputs.num_tokens == (bucket.rows if bucket else sum(len(each.token_ids) for each in sequences))
