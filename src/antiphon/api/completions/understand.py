"""Turns a completions request into a Job. A list of prompts is one request with the choices of all prompts in order.

Thought and answer are not separated: the text contains both, as the model wrote them.
"""

from __future__ import annotations

from antiphon.api.completions.request import CompletionRequest
from antiphon.api.context import Context
from antiphon.api.job import Job, Prompt
from antiphon.api.limits import MAX_PROMPTS, MAX_SEQUENCES
from antiphon.api.sampling import check_prompt_length, check_token_ids, sampling_params
from antiphon.api.structured import checked_grammar
from antiphon.api.usage import new_id
from antiphon.errors import InvalidRequest
from antiphon.request import ServiceTier

DEFAULT_MAX_TOKENS = 16  # OpenAI's default, for this endpoint only


async def understand(context: Context, body: CompletionRequest) -> Job:
    """The request as a Job. Raises AntiphonError if it cannot be served."""
    context.check_model(body.model)
    facts, priority = context.facts(), context.priority(body.priority)
    n = body.n or 1
    tier = ServiceTier.FLEX if body.service_tier == ServiceTier.FLEX else ServiceTier.DEFAULT
    load = context.degrading.load_for(tier)  # before the work of tokenizing
    grammar = await checked_grammar(body, context.model.text.grammars)
    prompts, degraded = [], None
    for token_ids in await _prompts(context, body, n, facts.context_length):
        check_token_ids(token_ids, facts.vocab_size, "prompt")
        check_prompt_length(len(token_ids), facts.context_length, "prompt")
        asked = sampling_params(
            body,
            facts,
            context.model.generation_defaults,
            num_prompt_tokens=len(token_ids),
            default_max_tokens=DEFAULT_MAX_TOKENS,
            grammar=grammar,
        )
        sampling = load.capped(asked)
        degraded = load.changes(asked, sampling) or degraded
        prompts.append(Prompt(token_ids, sampling, num_scored_tokens=_num_scored_tokens(body, token_ids)))
    context.degrading.check_allowed(degraded, body.degrade)
    return Job(
        new_id("cmpl"),
        prompts,
        body.stops,
        n,
        splits_thought=False,
        priority=priority,
        service_tier=tier,
        cache_salt=body.cache_salt or "",
        is_streamed=bool(body.stream),
        max_wait=body.max_wait,
        timeout=body.timeout,
        load=load,
        degraded=degraded,
        reports_progress=bool(body.return_progress),
    )


def prompts_of(body: CompletionRequest) -> list[str] | list[list[int]]:
    """The prompts of a request as a list."""
    sent = body.prompt
    single = isinstance(sent, str) or (sent and isinstance(sent[0], int))
    return [sent] if single else sent  # type: ignore[return-value]  # of one kind, as the schema made sure


def _num_scored_tokens(body: CompletionRequest, token_ids: list[int]) -> int:
    """How many of a prompt's last tokens to score.

    If log-probabilities are requested, all tokens of an echoed prompt are scored except the first. If nothing is
    generated, at least one is scored, since the engine needs some work.
    """
    if body.echo and body.logprobs is not None:
        return len(token_ids) - 1
    return min(1, len(token_ids) - 1) if body.max_tokens == 0 else 0


async def _prompts(context: Context, body: CompletionRequest, n: int, limit: int) -> list[list[int]]:
    """The token ids of every prompt. Raises ContextLengthExceeded for a text that has `limit` of them."""
    several = prompts_of(body)
    if not several or not all(several):
        raise InvalidRequest("'prompt' is empty; there must be at least one token to continue.", param="prompt")
    if len(several) > MAX_PROMPTS or len(several) * n > MAX_SEQUENCES:
        raise InvalidRequest(
            f"'prompt' has {len(several)} prompts and 'n' is {n}; the maximum is {MAX_PROMPTS} prompts and "
            f"{MAX_SEQUENCES} choices in one request.",
            param="prompt",
        )
    texts = [prompt for prompt in several if isinstance(prompt, str)]
    if texts:
        return await context.encode(texts, limit=limit)
    return [list(prompt) for prompt in several if not isinstance(prompt, str)]
