"""What benchmarks count as the work of a step."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_folders import write_random_gguf

from antiphon.doctor.least import CORRECTED_LOGITS, Model, Work
from antiphon.footprint import kv_bytes_per_token
from antiphon.formats import open_checkpoint

PEAKS = {"bytes": 100.0, "products": 1000.0}


def test_a_part_is_bound_by_what_takes_longer() -> None:
    assert (Work(200, 1000).seconds(PEAKS), Work(200, 1000).binds(PEAKS)) == (2.0, "memory")
    assert (Work(100, 3000).seconds(PEAKS), Work(100, 3000).binds(PEAKS)) == (3.0, "products")


def test_weights_are_read_once_and_multiplied_by_every_row(tmp_path: Path) -> None:
    path = write_random_gguf(tmp_path / "tiny.gguf", "qwen2", type="Q8_0")
    model = Model.of(path, "int8", wide=False)
    settings = open_checkpoint(path).settings
    one, many = model.step(1, 100, 1), model.step(4, 100, 3)
    rows = settings["vocab_size"] + min(settings["vocab_size"], CORRECTED_LOGITS)
    assert one["head"].products == rows * settings["hidden_size"]
    assert many["linear"] == Work(one["linear"].bytes, 12 * one["linear"].products)
    assert many["head"] == Work(one["head"].bytes, 4 * one["head"].products)
    assert one["linear"].bytes == one["linear"].products * 8.5 / 8


@pytest.mark.parametrize("tied", [False, True])
def test_the_head_is_read_whether_it_is_a_matrix_of_its_own_or_the_embedding(tmp_path: Path, tied: bool) -> None:
    path = write_random_gguf(tmp_path / "tiny.gguf", "qwen2", type="Q8_0", tie_word_embeddings=tied)
    settings = open_checkpoint(path).settings
    head = Model.of(path, "int8", wide=False).step(1, 100, 1)["head"]
    assert head.bytes == settings["vocab_size"] * settings["hidden_size"] * 8.5 / 8


def test_attention_reads_the_context_of_every_user(tmp_path: Path) -> None:
    path = write_random_gguf(tmp_path / "tiny.gguf", "qwen2", type="Q8_0")
    model = Model.of(path, "int8", wide=False)
    settings = open_checkpoint(path).settings
    per_key = 2 * settings["num_hidden_layers"] * settings["num_attention_heads"] * settings["head_dim"]
    attention = model.step(users=3, context=10, tokens=2)["attention"]
    assert attention.bytes == 3 * 10 * kv_bytes_per_token(settings, "int8")
    assert attention.products == 3 * (11 + 12) * per_key
