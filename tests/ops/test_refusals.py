"""What the engine refuses, and that what goes wrong in one sequence stays there."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_programs import OpBench, identity, one_token_each, show
from tiny_models import TYPES, cpu_runner, encode, scheduled, stored, tensor, tiny_model

from antiphon import _native
from antiphon.checkpoint import TENSOR_TYPES, Checkpoint
from antiphon.errors import CheckpointError
from antiphon.runtime.reference import ReferenceRunner
from antiphon.step import ScheduledSequence, StepPlan

NAN_HALF = b"\x00\x7e"
SPOILABLE = [
    "model.embed_tokens.weight",
    "lm_head.weight",
    "model.layers.1.self_attn.k_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
]


def spoilt(checkpoint: Checkpoint, name: str, bad: float) -> Checkpoint:
    """The checkpoint with one value, or one block's scale, that is not finite."""
    old = checkpoint.tensors[name]
    data = bytearray(old.read())
    block_bytes = TENSOR_TYPES[old.type][0]
    at = len(data) // 2 // block_bytes * block_bytes
    value = encode(np.array([bad], np.float32), old.type if old.type in ("F32", "BF16") else "F16")
    data[at : at + len(value)] = value
    tensors = {**checkpoint.tensors, name: stored(name, old.shape, old.type, bytes(data))}
    return replace(checkpoint, tensors=tensors)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("name", SPOILABLE)
def test_weights_that_are_not_finite_are_refused_by_name(name: str, type: str, bad: float) -> None:
    checkpoint = spoilt(tiny_model(type=type), name, bad)
    for load in (cpu_runner, ReferenceRunner):
        with pytest.raises(CheckpointError, match=name):
            load(checkpoint)


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.self_attn.q_proj.bias"])
def test_vectors_that_are_not_finite_are_refused_by_name(name: str) -> None:
    with pytest.raises(CheckpointError, match=name):
        cpu_runner(spoilt(tiny_model(architecture="qwen2"), name, float("nan")))


def test_a_scale_too_large_for_a_shared_form_is_refused() -> None:
    """Q8_0 beside Q4_1 needs a minimum of -128 scales, which half precision may not hold."""
    device = _native.Device("auto", 1)
    huge = _native.StoredMatrix(np.float16(600).tobytes() + bytes(range(32)), "Q8_0", 1, 32)
    small = _native.StoredMatrix(encode(np.ones((1, 32), np.float32), "Q4_1"), "Q4_1", 1, 32)
    device.pack([huge])
    with pytest.raises(ValueError, match="finite"):
        device.pack([huge, small])


@pytest.mark.parametrize(
    ("rows", "columns", "size"),
    [
        (0, 32, 0),
        (1, 0, 0),
        (-1, 32, 0),
        (1, 33, 132),
        (1, 31, 124),
        (2, 32, 128),
        (1 << 31, 1 << 31, 0),
        (1 << 62, 32, 0),
    ],
)
def test_matrices_that_their_bytes_do_not_hold_are_refused(rows: int, columns: int, size: int) -> None:
    with pytest.raises(ValueError, match="matrix"):
        _native.StoredMatrix(bytes(size), "F32", rows, columns)


@pytest.mark.parametrize("sizes", [(31, 31), (32, 0), (0, 32), (64, 64)])
def test_norms_that_do_not_fit_the_heads_are_refused(sizes: tuple[int, int]) -> None:
    bench = OpBench(np.ones((1, 96), np.float32), 96)
    query_norm, key_norm = ([1.0] * size for size in sizes)

    def model(ops, x):
        qkv = ops.linear(ops.rms_norm(x, [1.0] * 96), ops.matrix([identity(96, 96)]))
        return ops.attention(qkv, 0, (query_norm, key_norm))

    with pytest.raises(ValueError, match="norms of query and key heads"):
        bench.native(model, one_token_each(1))


@pytest.mark.parametrize("order", [(0,) * 31, (*range(31), 32), (*range(31), -1), (*range(31), 1 << 40)])
def test_an_order_of_columns_that_are_not_there_is_refused(order: tuple[int, ...]) -> None:
    bench = OpBench(np.ones((1, 32), np.float32), 32)

    def model(ops, x):
        return ops.logits(
            ops.rms_norm(ops.sampled_rows(x), [1.0] * 32), ops.matrix([replace(identity(32, 32), column_order=order)])
        )

    with pytest.raises((ValueError, TypeError)):
        bench.native(model, one_token_each(1))


def test_parts_whose_columns_differ_in_order_are_refused() -> None:
    parts = [identity(32, 32), replace(identity(32, 32), column_order=tuple(range(32)))]
    with pytest.raises(CheckpointError, match="their columns differ in order"):
        OpBench(np.ones((1, 32), np.float32), 64).native(lambda ops, x: ops.matrix(parts), one_token_each(1))


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_an_attention_factor_that_cannot_be_is_refused(factor: float) -> None:
    bench = OpBench(np.ones((1, 32), np.float32), 32)
    bench.attention_factor = factor
    with pytest.raises(ValueError, match="attention factor"):
        bench.native(lambda ops, x: None, one_token_each(1))


BAD_PLANS = {
    "block beyond the pool": [scheduled([1], [64])],
    "block below zero": [scheduled([1], [-1])],
    "a later block that does not exist": [scheduled([1], [0, 9_999])],
    "no block": [scheduled([1], [])],
    "too few blocks": [scheduled([1] * 33, [0])],
    "token beyond the vocabulary": [scheduled([330], [0])],
    "token below zero": [scheduled([5, -1], [0])],
    "position beyond the context": [scheduled([1], list(range(17)), start=512)],
    "position that would overflow": [scheduled([1], [0], start=2**63 - 1)],
    "position below zero": [scheduled([1], [0], start=-1)],
    "no tokens": [scheduled([], [0])],
    "more tokens than a step may have": [scheduled([1] * 100, [0, 1, 2, 3]), scheduled([1] * 61, [4, 5])],
    "more sequences than a step may have": [scheduled([1], [i]) for i in range(33)],
}


@pytest.mark.parametrize("plan", BAD_PLANS.values(), ids=BAD_PLANS.keys())
def test_bad_plans_are_refused_and_change_nothing(plan: list[ScheduledSequence]) -> None:
    runner = cpu_runner(tiny_model())
    runner.execute(StepPlan([scheduled([1, 2, 3], [60])]))
    expected = runner.execute(StepPlan([scheduled([4], [60], start=3)]))
    with pytest.raises(ValueError, match=r"\w"):
        runner.execute(StepPlan([scheduled([9], [61]), *plan]))
    assert runner.execute(StepPlan([scheduled([4], [60], start=3)])) == expected


WILD = cpu_runner(tiny_model())
INT32 = st.integers(-2, 400) | st.integers(-(2**31), 2**31 - 1)


@given(
    st.lists(INT32, max_size=3), st.integers(-2, 600) | st.integers(-(2**63), 2**63 - 1), st.lists(INT32, max_size=3)
)
def test_wild_plans_are_refused_or_run(token_ids: list[int], start: int, blocks: list[int]) -> None:
    try:
        WILD.execute(StepPlan([scheduled(token_ids, blocks, start=start)]))
    except ValueError:
        return
    assert all(0 <= token_id < 330 for token_id in token_ids)
    assert all(0 <= block < 64 for block in blocks)
    assert 0 <= start < 512


class Poison:
    """Attention over a table in which one row's K or V is not finite."""

    def __init__(self, kv: str, place: str, bad: float) -> None:
        self.kv = kv
        width = 3 * 32
        rows = np.random.default_rng(3).standard_normal((100, width)).astype(np.float32) * np.float32(1e-3)
        self.clean = OpBench(rows, 100, num_blocks=8)
        rows = rows.copy()
        rows[50, {"q": 5, "k": 40, "v": 70}[place]] = bad
        self.bench = OpBench(rows, 100, num_blocks=8)

    @staticmethod
    def model(ops, x):
        qkv = ops.linear(
            ops.rms_norm(x, ops.vector(tensor("w", np.ones(96, np.float32)))), ops.matrix([identity(96, 96)])
        )
        return show(ops, ops.add(x, ops.linear(ops.attention(qkv, 0), ops.matrix([identity(96, 32)]))), 96, 100)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kv", ["int8", "f16"])
def test_what_is_not_finite_stays_in_its_sequence(instruction_set: str, kv: str, bad: float) -> None:
    """Not in neighbours, not in who reuses its blocks, not in who shares the blocks that were full before it."""
    poison = Poison(kv, "k", bad)
    ill = list(range(10, 60))  # token 50 is at position 40, in the second block
    neighbour = scheduled(list(range(60, 95)), [4, 5], id=1)
    together = StepPlan([scheduled(ill, [0, 1]), neighbour])
    heir = StepPlan([scheduled(list(range(60, 95)), [1, 0], id=2)])
    sharer = StepPlan([scheduled(list(range(42, 45)), [0, 2], start=32, id=3)])

    def native(bench: OpBench, plan: StepPlan, *before: StepPlan) -> np.ndarray:
        return bench.native(poison.model, plan, instruction_set, kv=kv, before=before)

    rows = native(poison.bench, together)
    healthy = native(poison.clean, together)
    assert np.isnan(rows[0]).any()
    assert (rows[1] == healthy[1]).all()
    assert (native(poison.bench, heir, together) == healthy[1]).all()
    assert (native(poison.bench, sharer, together) == native(poison.clean, sharer, together)).all()


@pytest.mark.parametrize("kv", ["int8", "f16"])
def test_an_ill_token_leaves_the_full_block_before_it_sound(
    instruction_set: str, kv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions 29 to 36 share a tile of attention; 34 is ill; block 0 ends at 31, and somebody shares it."""
    monkeypatch.setattr("antiphon.ops.native.MAX_COPIED_EMBEDDING", -1)  # so that a row can be spoilt after loading
    model = tiny_model()
    name = "model.embed_tokens.weight"
    data = bytearray(model.tensors[name].read())
    embedding = replace(model.tensors[name], read=lambda: memoryview(data))
    runner = cpu_runner(replace(model, tensors={**model.tensors, name: embedding}), instruction_set, kv=kv)
    tokens = list(range(40))
    row_bytes = len(data) // 330
    data[34 * row_bytes : 34 * row_bytes + 2] = NAN_HALF
    runner.execute(StepPlan([scheduled(tokens[:5], [0, 1], sample=None)]))
    assert runner.execute(StepPlan([scheduled(tokens[5:], [0, 1], start=5)])).sampled[0].error
    runner.execute(StepPlan([scheduled([200, 201], [0, 2], start=32)]))
    shared = runner.logits().copy()
    runner.execute(StepPlan([scheduled([*tokens[:32], 200, 201], [3, 4])]))
    assert (shared == runner.logits()).all()
