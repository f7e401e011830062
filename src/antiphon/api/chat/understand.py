"""Turns a chat request into a Job: messages into a prompt, fields into sampling parameters.

All errors in a request are found here, before the engine gets it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.api.chat.request import ChatMessage as IncomingMessage
from antiphon.api.chat.thinking import requested_thinking
from antiphon.api.context import Context
from antiphon.api.job import Job, Prompt
from antiphon.api.sampling import check_prompt_length, sampling_params
from antiphon.api.threads import is_long
from antiphon.api.tools import answer_grammar, tool_reading
from antiphon.api.usage import new_id
from antiphon.errors import (
    InvalidRequest,
)
from antiphon.request import ServiceTier
from antiphon.text import ChatPrompt


async def understand(context: Context, body: ChatCompletionRequest) -> Job:
    """The request as a Job. Raises AntiphonError if it cannot be served."""
    facts, text, priority = context.facts(), context.model.text, context.priority(body.priority)
    requested = requested_thinking(body, thinks=text.thinks, loop_guard=context.settings.loop_guard)
    tier = ServiceTier.FLEX if body.service_tier == ServiceTier.FLEX else ServiceTier.DEFAULT
    load = context.degrading.load_for(tier)  # before the work of rendering
    prompt = await prompt_of(context, body, limit=facts.context_length)
    check_prompt_length(len(prompt.token_ids), facts.context_length, "messages")
    grammar = await answer_grammar(body, text)
    advice = context.model.generation_defaults
    asked = sampling_params(body, facts, advice, num_prompt_tokens=len(prompt.token_ids), grammar=grammar)
    sampling, budget = load.capped(asked), None
    if text.thought_tokens is not None:
        limit = partial(
            requested.limit, text.thought_tokens, sampling.max_tokens, starts_in_thought=prompt.starts_in_thought
        )
        thinking = limit(default=load.limits.thinking_budget if text.thinks else None)
        budget = thinking.budget if thinking.budget < limit().budget else None
        sampling = replace(sampling, thinking=thinking)
    degraded = load.changes(asked, sampling, budget)
    context.degrading.check_allowed(degraded, body.degrade)
    return Job(
        request_id=new_id("chatcmpl"),
        prompts=[
            Prompt(
                prompt.token_ids,
                sampling,
                prompt.starts_in_thought,
                continues=bool(body.continue_final_message),
                times=prompt.times,
            )
        ],
        stops=body.stops,
        n=body.n or 1,
        priority=priority,
        service_tier=tier,
        cache_salt=body.cache_salt or "",
        tools=tool_reading(body, text),
        is_streamed=bool(body.stream),
        max_wait=body.max_wait,
        timeout=body.timeout,
        load=load,
        degraded=degraded,
        reports_progress=bool(body.return_progress),
    )


async def prompt_of(context: Context, body: ChatCompletionRequest, *, limit: int | None = None) -> ChatPrompt:
    """The request's prompt in tokens. A text that must have `limit` tokens or more is refused without counting them."""
    context.check_model(body.model)
    text = context.model.text
    if body.offers_tools and not text.reads_tool_calls:
        message = "'tools' are switched off on this server (--tool-call-parser none); leave them out."
        raise InvalidRequest(message, param="tools")
    thinking = requested_thinking(body, thinks=text.thinks, loop_guard=context.settings.loop_guard)
    variables: dict[str, bool | str] = body.chat_template_kwargs.variables if body.chat_template_kwargs else {}
    if thinking.enabled is not None:
        variables |= {"enable_thinking": thinking.enabled, "thinking": thinking.enabled}
    # Always in a thread: rendering takes turns, so even a short conversation may have to wait for a long one.

    def render() -> ChatPrompt:
        return text.chat_prompt(
            [_turn(message) for message in body.messages],
            tools=[tool.model_dump(exclude_none=True) for tool in body.tools or ()] if body.offers_tools else (),
            fold_system=context.settings.system_prompt == "fold",
            add_generation_prompt=body.add_generation_prompt is not False,
            continue_final_message=bool(body.continue_final_message),
            close_thought=thinking.is_closed,
            limit=limit,
            **variables,
        )

    return await context.in_thread(is_long(body.messages, body.tools), render)


def _turn(message: IncomingMessage) -> dict[str, Any]:
    """A message as chat templates know it: plain text, `system` where newer clients say `developer`."""
    turn: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role, "content": message.text}
    thought = message.reasoning_content or message.reasoning
    if message.role == "assistant" and thought:
        turn["reasoning_content"] = thought
    if message.tool_calls:
        turn["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    if message.role == "tool" and message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    return turn
