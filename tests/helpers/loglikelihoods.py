"""The questions that evaluation harnesses are tried with, and what float32 arithmetic answers.

A harness asks how likely each continuation of a context is. It tokenizes context and continuation as one text and the
context alone, and takes the tokens beyond the latter's count for the continuation, as `lm-eval` does. The judge is
`transformers` in float32 over the model file's own weights (benchmarks/fidelity.py). Needs the extra `fidelity`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from antiphon.formats import open_checkpoint
from antiphon.text import TextModel

if TYPE_CHECKING:
    import torch

QUESTIONS = Path(__file__).parents[1] / "e2e" / "clients" / "tasks" / "questions.jsonl"
# In nats, for a whole continuation of up to 12 tokens: the rounding of activations and of the K/V cache.
TOLERANCE = 0.25


@dataclass(frozen=True)
class Likelihood:
    """How likely one continuation is."""

    context: str
    continuation: str
    token_ids: list[int]  # of both
    num_context_tokens: int
    loglikelihood: float  # nats, summed over the continuation's tokens
    is_greedy: bool  # each of its tokens is the likeliest
    margin: float  # nats: the least distance of a token from its strongest rival, so how sure `is_greedy` is


def questions() -> list[tuple[str, str]]:
    """Every context with every continuation of it, in the file's order."""
    rows = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    return [(row["context"], choice) for row in rows for choice in row["choices"]]


def true_likelihoods(model: Path) -> list[Likelihood]:
    """What float32 arithmetic says of `questions()`."""
    from fidelity import load_judge

    checkpoint = open_checkpoint(model)
    judge, text = load_judge(checkpoint), TextModel.from_checkpoint(checkpoint)
    try:
        return [_likelihood(judge, text, *pair) for pair in questions()]
    finally:
        text.close()


def _likelihood(judge: torch.nn.Module, text: TextModel, context: str, continuation: str) -> Likelihood:
    import torch

    spaces = len(context) - len(context.rstrip())  # a harness lets the continuation begin with them
    context, continuation = context[: len(context) - spaces], context[len(context) - spaces :] + continuation
    token_ids, start = text.encode_prompt(context + continuation), len(text.encode_prompt(context))
    with torch.inference_mode():
        rows = judge(torch.tensor([token_ids[:-1]])).logits[0].log_softmax(-1)[start - 1 :]
    own = rows.gather(-1, torch.tensor(token_ids[start:])[:, None])[:, 0]
    rivals = rows.scatter(-1, torch.tensor(token_ids[start:])[:, None], -torch.inf).max(-1).values
    return Likelihood(
        context,
        continuation,
        token_ids,
        start,
        float(own.sum()),
        bool((own > rivals).all()),
        float((own - rivals).abs().min()),
    )
