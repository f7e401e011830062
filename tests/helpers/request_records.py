"""Records of a load test's requests, made up."""

from __future__ import annotations

from typing import Any

from antiphon.bench.records import RequestRecord


def answered(number: int, prompt: int = 10, thought: int = 0, answer: int = 5) -> RequestRecord:
    """A request that was answered, with so many tokens."""
    return RequestRecord(
        0, number, "answered", 0, 1, status=200, prompt_tokens=prompt, thought_tokens=thought, answer_tokens=answer
    )


def attempt(end: str = "refused", status: int | None = 503, **fields: Any) -> RequestRecord:
    """A request that ended in another way."""
    return RequestRecord(0, 0, end, 0.0, 1.0, status=status, **fields)  # type: ignore[arg-type]
