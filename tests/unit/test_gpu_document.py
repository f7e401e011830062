"""The tables of docs/gpu.md: what benchmarks/gpu_memory.py prints, and what `antiphon inspect` would say."""

from __future__ import annotations

from pathlib import Path

import gpu_memory
import pytest

from antiphon.commands.inspect import describe

DOCUMENT = Path(__file__).parents[2] / "docs" / "gpu.md"


@pytest.mark.parametrize("table", [gpu_memory.cards_table, gpu_memory.server_table])
def test_the_document_has_the_table_that_the_command_prints(table) -> None:
    assert table() in DOCUMENT.read_text(encoding="utf-8")


def test_inspect_says_the_same_for_a_gpu_that_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.commands.inspect._findings", lambda checkpoint: [])  # they read the tokenizer
    report = describe(gpu_memory.r1(), "w4", "cuda:0", 24 << 30)
    users = report["kv_cache"]["int8"]["users_by_length"][8192]
    (row,) = [line for line in gpu_memory.cards_table().splitlines() if line.startswith("| 24 GiB |")]
    assert row.split(" | ")[2] == f"{users:,}"
    memory, plan = report["memory"], report["plan"]
    parts = ("resident", "step_buffers", "context", "margin")
    assert sum(memory[part] for part in parts) + plan["kv_cache_bytes"] == memory["free"] == 24 << 30
