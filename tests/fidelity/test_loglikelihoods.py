"""The log-likelihoods that evaluation harnesses compute from `/v1/completions`, against float32 arithmetic.

The requests are those of `lm-eval`'s `local-completions`; tests/e2e/clients runs the harness itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from loglikelihoods import TOLERANCE, Likelihood, true_likelihoods
from patience import PATIENCE
from real_server import RealServer, real_server

pytestmark = [pytest.mark.model, pytest.mark.slow]


@pytest.fixture(scope="module")
def truths(demo_model: Path) -> list[Likelihood]:
    return true_likelihoods(demo_model)


@pytest.fixture(scope="module")
def server(demo_model: Path) -> Iterator[RealServer]:
    with real_server(demo_model) as started:
        yield started


def scored(server: RealServer, truths: list[Likelihood], *, as_text: bool) -> list[dict[str, Any]]:
    """The log-probabilities of every choice of one request that scores several continuations."""
    prompts = [truth.context + truth.continuation if as_text else truth.token_ids for truth in truths]
    body = {"model": server.model, "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234}
    reply = httpx2.post(f"{server.url}/v1/completions", json=body | {"echo": True}, timeout=PATIENCE, trust_env=False)
    assert reply.status_code == 200, reply.text
    return [choice["logprobs"] for choice in sorted(reply.json()["choices"], key=lambda choice: choice["index"])]


@pytest.mark.parametrize("as_text", [False, True], ids=["token ids", "text"])
def test_a_harness_finds_the_likelihoods_of_float32(server: RealServer, truths: list[Likelihood], as_text: bool):
    for start in range(0, len(truths), 8):
        batch = truths[start : start + 8]
        for truth, logprobs in zip(batch, scored(server, batch, as_text=as_text), strict=True):
            lists = [logprobs[name] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")]
            # One entry more than the prompt has tokens, even where the drawn one ends the sequence: a harness
            # takes the last away.
            assert [len(each) for each in lists] == [len(truth.token_ids) + 1] * 4
            own = logprobs["token_logprobs"][truth.num_context_tokens : -1]
            tops = logprobs["top_logprobs"][truth.num_context_tokens : -1]
            assert sum(own) == pytest.approx(truth.loglikelihood, abs=TOLERANCE)
            if truth.margin > TOLERANCE:
                is_greedy = all(each == max(top.values()) for each, top in zip(own, tops, strict=True))
                assert is_greedy == truth.is_greedy


def test_among_the_questions_one_answer_is_greedy_and_one_ends_its_sequence(truths: list[Likelihood]):
    """Else the test above would not see the faults that it looks for."""
    assert any(truth.is_greedy and truth.margin > TOLERANCE for truth in truths)
    assert any(truth.continuation.endswith("<|im_end|>") for truth in truths)
    assert any(truth.continuation.strip() == "The capital of France is Paris." for truth in truths)
