"""Misuse is answered precisely: a clear 4xx that names the field, before any work, and a neighbour is untouched."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from http_server import Served

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_HI = [{"role": "user", "content": "Hello"}]
_JSON = {"content-type": "application/json"}


def chat(**fields: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": _HI, **fields}


def complete(**fields: Any) -> tuple[str, dict[str, Any]]:
    return COMPLETIONS, {"prompt": "Hello", **fields}


def _tool(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def _call(arguments: Any) -> dict[str, Any]:
    return {"id": "x", "type": "function", "function": {"name": "f", "arguments": arguments}}


_NAMED = {"type": "function", "function": {"name": "f"}}


def message(**fields: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": [*_HI, fields]}


# What is sent, which field must be blamed, and something the message must say.
FIELDS: list[tuple[tuple[str, dict[str, Any]], str | None, str]] = [
    ((CHAT, {}), "messages", "Missing required parameter"),
    ((CHAT, {"messages": []}), "messages", "at least 1"),
    ((CHAT, {"messages": "Hello"}), "messages", "list"),
    ((CHAT, {"messages": ["Hello"]}), "messages[0]", "valid dictionary"),
    (message(role="wizard", content="x"), "messages[1].role", "'user'"),
    (message(role="user"), "messages[1].content", "needs 'content'"),
    (message(role="user", content=None), "messages[1].content", "needs 'content'"),
    (message(role="user", content=5), "messages[1].content", "valid string or should be a valid list"),
    (message(role="user", content=[{"type": "text"}]), "messages[1].content[0].text", "Missing"),
    (message(role="user", content=[{"type": "image_url", "image_url": {}}]), "messages[1].content[0].type", "'text'"),
    (message(role="assistant", tool_calls=[{"id": "x"}]), "messages[1].tool_calls[0].function", "Missing"),
    (message(role="assistant", tool_calls=[_call({})]), "messages[1].tool_calls[0].function.arguments", "string"),
    (message(role="assistant", tool_calls=[{"type": "custom"}]), "messages[1].tool_calls[0].type", "'custom'"),
    (message(role="user", content="x", tool_calls=[_call("{}")]), "messages[1].tool_calls", "role 'assistant'"),
    ((COMPLETIONS, {}), "prompt", "Missing required parameter"),
    (complete(prompt=[]), "prompt", "empty"),
    (complete(prompt=""), "prompt", "empty"),
    (complete(prompt=["a", ""]), "prompt", "empty"),
    (complete(prompt=[[]]), "prompt", "empty"),
    (complete(prompt=["a", 5]), "prompt[1]", "string"),
    (complete(prompt=[1.5]), "prompt[0]", "integer"),
    (complete(prompt=[True]), "prompt[0]", "integer"),
    (complete(prompt=[-1]), "prompt[0]", "greater than or equal to 0"),
    (complete(prompt=[10**6]), "prompt", "not in the vocabulary"),
    (complete(prompt=[10**40]), "prompt", "41 digits"),
    (complete(prompt=["a"] * 65), "prompt", "65 prompts"),
    (complete(prompt=["a"] * 5, n=16), "prompt", "64 choices"),
    (complete(suffix="x"), "suffix", "not supported"),
    (complete(best_of=3), "best_of", "not supported"),
    (complete(logprobs=21), "logprobs", "less than or equal to 20"),
    (complete(logprobs=True), "logprobs", "integer"),
    *((chat(max_tokens=value), "max_tokens", "1") for value in (0, -2)),
    (chat(max_tokens=1.5), "max_tokens", "integer"),
    (chat(max_tokens="5"), "max_tokens", "integer"),
    (chat(max_tokens=True), "max_tokens", "integer"),
    (chat(max_completion_tokens=0), "max_completion_tokens", "greater"),
    (chat(max_completion_tokens=3, max_tokens=4), "max_tokens", "differ"),
    (chat(max_tokens=4, min_tokens=5), "min_tokens", "at most 4 tokens"),
    (chat(min_tokens=-1), "min_tokens", "greater"),
    (chat(temperature=-0.1), "temperature", "greater than or equal to 0"),
    (chat(temperature=2.1), "temperature", "less than or equal to 2"),
    (chat(temperature=10**400), "temperature", ""),
    (chat(temperature="hot"), "temperature", "number"),
    (chat(temperature=True), "temperature", "number"),
    (chat(temperature=[1]), "temperature", "number"),
    (chat(top_p=0), "top_p", "greater than 0"),
    (chat(top_p=1.1), "top_p", "less than or equal to 1"),
    (chat(top_k=-2), "top_k", "greater"),
    (chat(top_k=0.5), "top_k", "integer"),
    (chat(min_p=-0.5), "min_p", "greater"),
    (chat(top_k=2**31), "top_k", "less than or equal to 2147483647"),
    (chat(repetition_penalty=0), "repetition_penalty", "greater than or equal to 0.01"),
    (chat(repetition_penalty=1e-45), "repetition_penalty", "greater than or equal to 0.01"),
    (chat(repetition_penalty=10.5), "repetition_penalty", "less than or equal to 10"),
    (chat(presence_penalty=-3), "presence_penalty", "greater"),
    (chat(frequency_penalty=3), "frequency_penalty", "less"),
    (chat(seed=2**64), "seed", "less"),
    (chat(seed="1"), "seed", "integer"),
    (chat(n=0), "n", "greater"),
    (chat(n=17), "n", "less than or equal to 16"),
    (chat(n="2"), "n", "integer"),
    (chat(stop=["x"] * 17), "stop", "at most 16"),
    (chat(stop="x" * 257), "stop", "at most 256"),
    (chat(stop=[5]), "stop[0]", "string"),
    (chat(stop_token_ids=[10**6]), "stop_token_ids", "not in the vocabulary"),
    (chat(stop_token_ids=[-1]), "stop_token_ids[0]", "greater"),
    (chat(stop_token_ids=[1] * 65), "stop_token_ids", "at most 64"),
    (chat(logit_bias={"1000000": 1}), "logit_bias", "not in the vocabulary"),
    (chat(logit_bias={"-1": 1}), "logit_bias", "not a token id"),
    (chat(logit_bias={"word": 1}), "logit_bias", "not a token id"),
    (chat(logit_bias={"१": 1}), "logit_bias", "not a token id"),
    (chat(logit_bias={"9" * 30: 1}), "logit_bias", "not a token id"),
    (chat(logit_bias={"1": 101}), "logit_bias.1", "less"),
    (chat(logit_bias={"1": "x"}), "logit_bias.1", "number"),
    (chat(logit_bias=[1]), "logit_bias", "dictionary"),
    (chat(logit_bias={str(i): 0 for i in range(1025)}), "logit_bias", "at most 1024"),
    (chat(logit_bias={"05": 1, "5": 2}), "logit_bias", "Token id 5 appears in 'logit_bias' more than once"),
    (chat(user=5), "user", "string"),
    (complete(user=["me"]), "user", "string"),
    (chat(metadata="x"), "metadata", "dictionary"),
    (chat(metadata={str(i): "x" for i in range(17)}), "metadata", "at most 16"),
    (chat(store="yes"), "store", "boolean"),
    (chat(parallel_tool_calls=1), "parallel_tool_calls", "boolean"),
    *(
        (chat(**{name: {}}), name, "string")
        for name in (
            "service_tier",
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_retention",
            "verbosity",
        )
    ),
    (chat(stream=True, stream_options={"include_obfuscation": 1}), "stream_options.include_obfuscation", "boolean"),
    (chat(logprobs=1), "logprobs", "boolean"),
    (chat(top_logprobs=3), "top_logprobs", "'logprobs' is true"),
    (chat(logprobs=True, top_logprobs=21), "top_logprobs", "less"),
    (chat(stream="yes"), "stream", "boolean"),
    (
        chat(stream=True, stream_options={"continuous_usage_stats": True}),
        "stream_options.continuous_usage_stats",
        "'include_usage' is",
    ),
    (chat(return_token_ids=1), "return_token_ids", "boolean"),
    (chat(continue_final_message=True), "continue_final_message", "role 'assistant'"),
    (chat(continue_final_message=True, add_generation_prompt=True), "continue_final_message", "cannot both"),
    (chat(chat_template_kwargs={"date_string": 5}), "chat_template_kwargs.date_string", "string"),
    (complete(max_tokens=0), "max_tokens", "'echo' is true"),
    (complete(max_tokens=-2, echo=True), "max_tokens", "greater"),
    (complete(echo="yes"), "echo", "boolean"),
    (chat(tools=[{"type": "function"}]), "tools[0].function", "Missing"),
    (chat(tools=[_tool("")]), "tools[0].function.name", "pattern"),
    (chat(tools=[_tool("a b")]), "tools[0].function.name", "pattern"),
    (chat(tools=[_tool("f", parameters="x")]), "tools[0].function.parameters", "dictionary"),
    (chat(tools=[_tool("f"), _tool("f")]), "tools", "more than one function named 'f'"),
    (chat(tools=[_tool(f"f{i}") for i in range(129)]), "tools", "at most 128"),
    (chat(tool_choice="required"), "tool_choice", "'tools' are specified"),
    (chat(tool_choice="perhaps"), "tool_choice", "'auto'"),
    (chat(tools=[_tool("g")], tool_choice=_NAMED), "tool_choice", "not in 'tools'"),
    (chat(tools=[_tool("f")], tool_choice={"type": "custom"}), "tool_choice.type", "'custom'"),
    (chat(functions=[{}]), "functions", "not supported"),
    (chat(response_format={"type": "xml"}), "response_format.type", "'json_schema'"),
    (chat(modalities=["audio"]), "modalities", "not supported"),
    (chat(reasoning_effort="huge"), "reasoning_effort", "'none', 'minimal', 'low', 'medium', 'high', 'xhigh' or 'max'"),
    (chat(thinking_token_budget=-1), "thinking_token_budget", "greater"),
    (chat(thinking_token_budget=5, max_thinking_tokens=6), "thinking_token_budget", "differ"),
    (
        chat(max_thinking_tokens=5, thinking_budget=6),
        "max_thinking_tokens",
        "'max_thinking_tokens' and 'thinking_budget'",
    ),
    (chat(max_thinking_tokens=1.5), "max_thinking_tokens", "integer"),
    (chat(n=2, vote=True, stream=True), "vote", "'stream' is true"),
    (chat(vote="yes"), "vote", "boolean"),
    (chat(loop_guard=1), "loop_guard", "boolean"),
    (chat(enable_thinking="no"), "enable_thinking", "boolean"),
    (
        chat(enable_thinking=False, chat_template_kwargs={"enable_thinking": True}),
        "enable_thinking",
        "'chat_template_kwargs.enable_thinking' differ",
    ),
    (chat(model=5), "model", "string"),
]


@pytest.mark.parametrize(("sent", "param", "says"), FIELDS, ids=lambda value: str(value)[:60])
async def test_a_bad_field_is_named(served: Served, sent, param, says):
    path, body = sent
    before = served.engine.counters.received
    reply = await served.http.post(path, json=body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param, error
    assert says in error["message"], error
    assert len(error["message"]) < 500
    assert served.engine.counters.received == before, "the engine heard of it"


# Bodies that no well-behaved client can make.
RAW: list[tuple[bytes, str]] = [
    (b"", "JSON"),
    (b"{", "JSON"),
    (b'{"messages": [}', "JSON"),
    (b"[]", "must be a JSON object"),
    (b"null", "must be a JSON object"),
    (b'"x"', "must be a JSON object"),
    (b'{"messages": []} {}', "trailing"),
    (b'{"prompt": "x", "temperature": NaN}', "JSON"),
    (b'{"prompt": "x", "temperature": Infinity}', "JSON"),
    (b'{"prompt": "x", "temperature": -Infinity}', "JSON"),
    (b'{"prompt": "x", "temperature": 1e999}', "JSON"),
    (b'{"prompt": "\\ud800"}', "surrogates"),
    (b'{"prompt": "\\udc00x"}', "surrogates"),
    (b'{"prompt": "\\ud800\\u0041"}', "surrogates"),
    (b'{"prompt": "\xff"}', "UTF-8"),
    (b'{"prompt": "\xed\xa0\x80"}', "UTF-8"),
    (b'{"prompt": ' + b"[" * 70 + b"]" * 70 + b"}", "nested too deeply"),
    (b'{"prompt": ' + b"[" * 60_000 + b"]" * 60_000 + b"}", "nested too deeply"),
    (b"[" * 60_000, "nested too deeply"),
    (b'{"a":' * 60_000 + b"1" + b"}" * 60_000, "nested too deeply"),
    (b'{"prompt": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "too many objects and lists"),
    (b'{"prompt": [' + b"[]," * 200_000 + b"NaN]}", "too many objects and lists"),
    (b'{"prompt": [' + b"0," * 600_000 + b"0]}", "too many values"),
    (b"{" + b",".join(b'"%d":0' % number for number in range(5000)) + b"}", "5,000 fields"),
    (b'{"prompt": "x", "max_tokens": ' + b"9" * 5000 + b"}", "JSON"),
]


@pytest.mark.parametrize(("body", "says"), RAW, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_bad_body_is_explained(served: Served, path: str, body: bytes, says: str):
    reply = await served.http.post(path, content=body, headers=_JSON)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert says in error["message"]


# One field's fault, which JSON's own decoder would tell without the field, or wrongly.
FAULTS: list[tuple[bytes, str | None, str]] = [
    (b'{"prompt": "x", "temperature": NaN}', "temperature", "NaN is not a number in JSON"),
    (b'{"prompt": "x", "temperature": -Infinity}', "temperature", "-Infinity is not a number"),
    (b'{"prompt": "x", "temperature": 1e400}', "temperature", "too large"),
    (b'{"prompt": "x", "temperature": -1e400}', "temperature", "too large"),
    (b'{"prompt": "x", "max_tokens": ' + b"9" * 5000 + b"}", "max_tokens", "5000 digits"),
    (b'{"logit_bias": {"5": NaN}}', "logit_bias.5", "NaN"),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "messages[0].content", "must come in pairs"),
    (b'{"\\ud800": 1}', None, "must come in pairs"),
    (b'{"metadata": {"\\udfff": NaN}}', "metadata", "must come in pairs"),
    (b'{"' + b"x" * 500 + b'": NaN}', "x" * 100, "NaN"),
    (b"NaN", None, "NaN"),
]


@pytest.mark.parametrize(("body", "param", "says"), FAULTS, ids=lambda value: str(value)[:40])
async def test_a_field_that_is_no_json_is_named(served: Served, body: bytes, param: str | None, says: str):
    reply = await served.http.post(COMPLETIONS, content=body, headers=_JSON)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["param"] == param, error
    assert says in error["message"]
    assert "truncated" not in error["message"]
    assert len(error["message"]) < 500


async def test_a_prompt_beyond_the_context_is_told_both_lengths(served: Served):
    assert served.engine.info is not None
    limit = served.engine.info.context_length
    before = served.engine.counters.received
    for path, body, param in (
        (COMPLETIONS, {"prompt": [65] * limit}, "prompt"),
        (COMPLETIONS, {"prompt": "zq " * 2 * limit}, "prompt"),
        (COMPLETIONS, {"prompt": ["Hello", "zq " * 1_000_000]}, "prompt"),
        (CHAT, {"messages": [{"role": "user", "content": "zq " * 2 * limit}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "zq " * 1_000_000}]}, "messages"),
    ):
        reply = await served.http.post(path, json=body)
        error = reply.json()["error"]
        assert reply.status_code == 400
        assert error["code"] == "context_length_exceeded"
        assert error["param"] == param
        assert f"{limit} tokens" in error["message"]
        assert "the prompt has" in error["message"]
    assert served.engine.counters.received == before


async def test_an_unknown_model(served: Served):
    for path, body in (chat(model="gpt-4"), complete(model="gpt-4")):
        reply = await served.http.post(path, json=body)
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "model_not_found"
        assert reply.json()["error"]["param"] == "model"
        assert "'tiny'" in reply.json()["error"]["message"]


async def test_a_body_over_its_cap_announced_or_not(served: Served):
    size = 5 << 20

    async def chunks():
        for _ in range(size >> 16):
            yield b" " * (1 << 16)

    for content in (b" " * size, chunks()):
        reply = await served.http.post(CHAT, content=content, headers=_JSON)
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    "headers",
    [{}, {"content-type": "text/plain"}, {"content-type": "multipart/form-data"}, _JSON | {"content-encoding": "gzip"}],
)
async def test_a_wrong_content_type(served: Served, headers):
    reply = await served.http.post(CHAT, content=b"{}", headers=headers)
    assert reply.status_code == 415
    assert reply.json()["error"]["type"] == "invalid_request_error"


async def test_content_type_may_carry_a_charset(served: Served):
    body = b'{"prompt": "x", "max_tokens": 1}'
    headers = {"content-type": "application/JSON; charset=utf-8"}
    assert (await served.http.post(COMPLETIONS, content=body, headers=headers)).status_code == 200


async def test_unknown_routes_and_wrong_methods(served: Served):
    reply = await served.http.get("/v2/chat")
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "unknown_url"
    assert "GET /v2/chat" in reply.json()["error"]["message"]
    reply = await served.http.get(CHAT)
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"
    assert reply.json()["error"]["type"] == "invalid_request_error"


async def test_bad_input_touches_nobody_else(served: Served):
    """A neighbour's stream, tokens and log-probabilities, is the same with and without all of the above beside it."""
    fields = {"max_tokens": 400, "seed": 11, "logprobs": True, "top_logprobs": 2}

    async def neighbour() -> Any:
        return (await served.chat("A patient neighbour", **fields)).json()["choices"]

    async def nuisance() -> None:
        for (path, body), _, _ in FIELDS:
            assert (await served.http.post(path, json=body)).status_code == 400
        for raw, _ in RAW:
            assert (await served.http.post(CHAT, content=raw, headers=_JSON)).status_code == 400

    alone = await neighbour()
    beside, _ = await asyncio.gather(neighbour(), nuisance())
    assert beside == alone
    await served.check_accounts()


async def test_refusals_are_counted_by_code(served: Served):
    before = await served.metrics()
    await served.http.post(*chat(n=0)[:1], json=chat(n=0)[1])
    await served.http.post(CHAT, json=chat(model="x")[1])
    after = await served.metrics()

    def grown(code: str) -> float:
        name = f'antiphon_requests_refused_total{{code="{code}",endpoint="chat"}}'
        return after.get(name, 0) - before.get(name, 0)

    assert grown("invalid_request_error") == 1
    assert grown("model_not_found") == 1


async def test_request_ids_come_back(served: Served):
    reply = await served.http.get("/health", headers={"x-request-id": "mine-1"})
    assert reply.headers["x-request-id"] == "mine-1"
    for bad in ("a b", "x" * 200, ""):
        reply = await served.http.get("/health", headers={"x-request-id": bad})
        assert reply.headers["x-request-id"].startswith("req-")
