"""The arithmetic of memory, on numbers that can be checked by hand."""

from __future__ import annotations

from antiphon import footprint
from antiphon.checkpoint import Tensor

# DeepSeek-R1-Distill-Qwen-1.5B's attention.
R1 = {"num_hidden_layers": 28, "num_key_value_heads": 2, "head_dim": 128}


def tensor(name: str, kind: str, *shape: int) -> Tensor:
    return Tensor(name, shape, kind, lambda: memoryview(b""))


def test_kv_bytes_per_token():
    assert footprint.kv_bytes_per_token(R1, "f16") == 28 * 2 * 2 * 2 * 128
    assert footprint.kv_bytes_per_token(R1, "int8") == 28 * 2 * (128 + 4 * 2 + 128 + 2)


def test_a_small_embedding_is_copied():
    tensors = [
        tensor("token_embd.weight", "Q4_0", 1000, 64),
        tensor("output.weight", "Q8_0", 1000, 64),
        tensor("blk.0.attn_q.weight", "Q4_1", 64, 64),
        tensor("output_norm.weight", "F32", 64),
    ]
    weights = footprint.weight_bytes(tensors, tied=False)
    assert weights.embedding == 64_000 // 32 * 18
    assert weights.w4 == 64 * 64 * 5 / 8  # codes, scales and minima
    assert weights.w8 == 64_000 * 8.5 / 8  # codes and scales
    assert weights.vectors == 256
    assert weights.mapped_embedding == 0
    assert weights.resident == weights.w4 + weights.w8 + weights.vectors + weights.embedding


def test_a_large_embedding_stays_in_the_file():
    large = tensor("token_embd.weight", "F16", 1 << 20, 256)
    weights = footprint.weight_bytes([large], tied=False)
    assert large.num_bytes > footprint.MAX_COPIED_EMBEDDING
    assert (weights.mapped_embedding, weights.embedding, weights.resident) == (large.num_bytes, 0, 0)


def test_a_tied_embedding_is_packed_once_and_copied_for_its_rows():
    tensors = [tensor("model.embed_tokens.weight", "BF16", 1000, 64), tensor("lm_head.weight", "BF16", 1000, 64)]
    weights = footprint.weight_bytes(tensors, tied=True)
    assert (weights.w8, weights.embedding) == (64_000 * 8.5 / 8, 64_000 * 2)


def test_users_are_counted_in_whole_blocks():
    block = footprint.KV_BLOCK_SIZE
    assert footprint.users_that_fit(10 * block, block) == 10
    assert footprint.users_that_fit(10 * block, block + 1) == 5
    assert footprint.users_that_fit(0, 1024) == 0


def test_capacity_leaves_room_for_the_rest():
    weights = footprint.WeightBytes(w4=100 << 20, w8=0, vectors=0, embedding=0, mapped_embedding=1 << 40)
    capacity = footprint.kv_capacity(1 << 30, weights, 1000)
    assert capacity % footprint.KV_BLOCK_SIZE == 0
    assert capacity * 1000 < (1 << 30) - (100 << 20) - footprint.PROCESS_BYTES
    assert footprint.kv_capacity(1 << 20, weights, 1000) == 0
