"""Requests as real clients write them: -1 for unset, floats for integers, empty strings, what asks for nothing."""

from __future__ import annotations

from typing import Any

import pytest
from http_server import Served, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
HELLO = [{"role": "user", "content": "Hello"}]


def history(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [*HELLO, *messages, *HELLO], "max_tokens": 2}


def call(**fields: Any) -> dict[str, Any]:
    return {"id": "x", "function": {"name": "f", "arguments": "{}"}, **fields}


ACCEPTED = [
    *(
        (CHAT, {"messages": HELLO, "max_tokens": 2, **fields})
        for fields in (
            {"seed": -1},
            {"top_logprobs": 0},
            {"stream_options": {"include_usage": True}},
            {"n": 1.0, "top_k": 40.0, "min_tokens": 1.0, "seed": 7.0},
            {"stop": ""},
            {"stop": ["", "zq"]},
            {"metadata": {"a": 1, "b": {"c": None}}},
            {"model": ""},
            *({"reasoning_effort": effort} for effort in ("none", "minimal", "low", "medium", "high", "xhigh", "max")),
            {"thinking_token_budget": 100},
            {"chat_template_kwargs": {"enable_thinking": True}},
        )
    ),
    (CHAT, history({"role": "assistant", "content": None, "tool_calls": [call()]}, {"role": "tool", "content": None})),
    (CHAT, history({"role": "assistant", "tool_calls": [call(function={"name": "f", "arguments": "{'a': broken"})]})),
    (CHAT, history({"role": "assistant", "tool_calls": [call(function={"name": "f", "arguments": "[1]"})]})),
    (COMPLETIONS, {"prompt": "Hello", "max_tokens": 2.0, "seed": -1, "model": "", "stop": ""}),
    (RESPONSES, {"input": "Hello", "max_output_tokens": 2.0, "seed": -1, "model": "", "metadata": {"a": 1}}),
    (RESPONSES, {"input": "Hello", "max_output_tokens": 2, "reasoning": {"effort": "xhigh"}, "stream_options": {}}),
    (MESSAGES, {"messages": HELLO, "max_tokens": 2.0, "model": "", "seed": -1}),
    (MESSAGES, {"messages": HELLO, "max_tokens": 9, "thinking": {"type": "enabled", "budget_tokens": 5}}),
]


@pytest.mark.parametrize(("path", "body"), ACCEPTED, ids=str)
async def test_what_asks_for_nothing_that_is_missing_is_accepted(served: Served, path: str, body: dict[str, Any]):
    reply = await served.http.post(path, json=body)
    assert reply.status_code == 200, reply.text


async def test_max_tokens_is_cut_to_what_the_context_leaves(tmp_path):
    async with serving(tmp_path, fake={"context_length": 64}) as server:
        for wanted in (-1, 63, 32_000, 2**70):
            usage = (await server.chat(max_tokens=wanted, ignore_eos=True)).json()["usage"]
            assert usage["total_tokens"] == 64
        usage = (await server.complete(max_tokens=10**6, ignore_eos=True)).json()["usage"]
        assert usage["total_tokens"] == 64
        body = {"input": "Hello", "max_output_tokens": 10**6}
        assert (await server.http.post(RESPONSES, json=body)).json()["usage"]["total_tokens"] <= 64
        body = {"messages": HELLO, "max_tokens": 10**6}
        assert (await server.http.post(MESSAGES, json=body)).json()["usage"]["output_tokens"] < 64


async def test_a_seed_of_minus_one_is_none(served: Served):
    answers = {(await served.complete(seed=-1, max_tokens=30)).json()["choices"][0]["text"] for _ in range(3)}
    assert len(answers) == 3


async def test_broken_arguments_reach_the_model_as_they_are(served: Served):
    broken = "{'city': Paris"
    body = {
        "messages": [*HELLO, {"role": "assistant", "tool_calls": [call(function={"name": "f", "arguments": broken})]}]
    }
    tokens = (await served.http.post("/tokenize", json=body)).json()["tokens"]
    text = (await served.http.post("/detokenize", json={"tokens": tokens})).json()["prompt"]
    assert broken in text
