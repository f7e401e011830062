"""Fields that are not known here are ignored and named; with --strict-fields they are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from http_server import Served, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "f"}}


async def ignored(served: Served, path: str, body: dict[str, Any]) -> str:
    reply = await served.http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.headers.get("x-ignored-fields", "")


async def test_they_are_named_wherever_they_are(served: Served):
    chat, few = "/v1/chat/completions", {"max_tokens": 2}
    assert await ignored(served, chat, {"messages": HELLO, **few}) == ""
    assert await ignored(served, chat, {"messages": HELLO, **few, "temprature": 1}) == "temprature (temperature?)"
    assert await ignored(served, chat, {"messages": HELLO, **few, "zzz": {"a": [1]}}) == "zzz"
    said = await ignored(served, chat, {"messages": [{**HELLO[0], "mood": "good"}], **few})
    assert said == "messages[0].mood"
    tools = [TOOL, {**TOOL, "extra": 1, "function": {"name": "g", "schema": {}}}]
    assert await ignored(served, chat, {"messages": HELLO, **few, "tools": tools}) == (
        "tools[1].extra, tools[1].function.schema"
    )
    assert await ignored(served, "/v1/completions", {"prompt": "a", **few, "best_off": 1}) == "best_off (best_of?)"
    assert await ignored(served, "/v1/responses", {"input": "a", "max_output_tokens": 2, "x": 1}) == "x"
    assert await ignored(served, "/v1/messages", {"messages": HELLO, **few, "betas": []}) == "betas"
    assert await ignored(served, "/tokenize", {"prompt": "a", "x": 1}) == "x"
    assert await ignored(served, "/api/chat", {"messages": HELLO, "options": {"num_predict": 2, "numa2": 1}}) != ""


async def test_what_answers_carry_is_not_named_when_it_comes_back(served: Served):
    reply = (await served.chat(max_tokens=2)).json()["choices"][0]["message"]
    answered = {**reply, "annotations": [], "audio": None, "function_call": None}
    assert (
        await ignored(served, "/v1/chat/completions", {"messages": [*HELLO, answered, *HELLO], "max_tokens": 2}) == ""
    )


async def test_a_stream_names_them_too(served: Served):
    reply = await served.chat(stream=True, max_tokens=2, temprature=1)
    assert reply.headers["x-ignored-fields"] == "temprature (temperature?)"


async def test_tools_that_cannot_run_here_are_dropped(served: Served):
    body: dict[str, Any] = {
        "messages": HELLO,
        "max_tokens": 2,
        "tools": [{"type": "custom", "custom": {"name": "x"}}, TOOL],
    }
    assert await ignored(served, "/v1/chat/completions", body) == "tools[0] (custom)"
    kinds = ("web_search", "local_shell", "mcp", "file_search", "code_interpreter", "custom")
    tools: list[Any] = [{"type": kind, "name": "x"} for kind in kinds]
    tools.append({"type": "function", "name": "f"})
    said = await ignored(served, "/v1/responses", {"input": "a", "max_output_tokens": 2, "tools": tools})
    assert said == ", ".join(f"tools[{index}] ({kind})" for index, kind in enumerate(kinds))
    tools = [{"type": "web_search_20250305", "name": "web_search"}, {"name": "f", "input_schema": {"type": "object"}}]
    body = {"messages": HELLO, "max_tokens": 2, "tools": tools}
    assert await ignored(served, "/v1/messages", body) == "tools[0] (web_search_20250305)"


async def test_names_cannot_break_the_header_or_fill_the_log(served: Served, caplog):
    names = {f"x\r\nEvil: {'é' * 500}{index}": 1 for index in range(500)}
    said = await ignored(served, "/v1/chat/completions", {"messages": HELLO, "max_tokens": 2, **names})
    assert len(said) < 2000
    assert said.isascii()
    before = len(caplog.records)
    for _ in range(3):
        await ignored(served, "/v1/chat/completions", {"messages": HELLO, "max_tokens": 2, **names})
    assert len(caplog.records) - before <= 100


async def test_fields_that_would_change_the_answer_are_still_refused(served: Served):
    for fields in ({"audio": {"voice": "x"}}, {"modalities": ["audio"]}, {"functions": [{}]}, {"prediction": {"x": 1}}):
        assert (await served.chat(**fields)).status_code == 400
    assert (await served.chat([{"type": "image_url", "image_url": {"url": "x"}}])).status_code == 400


async def test_strict_fields_refuses_them(tmp_path):
    async with serving(tmp_path, strict_fields=True) as server:
        for fields, param in (
            ({"temprature": 1}, "temprature"),
            ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
            ({"stream_options": {"chunks": 1}}, "stream_options.chunks"),
            ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
            ({"x" * 500: 1}, "x" * 100),
        ):
            reply = await server.chat(**fields)
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text


async def test_other_names_of_fields(served: Served):
    plain = (await served.complete(max_tokens=20, seed=1, repetition_penalty=1.5)).json()["choices"]
    assert (await served.complete(max_tokens=20, seed=1, repeat_penalty=1.5)).json()["choices"] == plain
    refused = (await served.complete(repeat_penalty=50)).json()["error"]
    assert refused["param"] == "repeat_penalty"


# The first requests of two coding agents, as their public documentation describes them.
CLAUDE_CODE = {
    "model": "",
    "max_tokens": 32000,
    "stream": True,
    "metadata": {"user_id": "user_1_account__session_2"},
    "system": [
        {"type": "text", "text": "You are a coding agent.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
    ],
    "thinking": {"type": "enabled", "budget_tokens": 31999},
    "tools": [
        {
            "name": "Bash",
            "description": "Runs a command.",
            "input_schema": {
                "type": "object",
                "properties": {"command": {"type": "string"}},
                "required": ["command"],
                "additionalProperties": False,
                "$schema": "http://json-schema.org/draft-07/schema#",
            },
        },
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]}
    ],
    "context_management": None,
}
CODEX = {
    "model": "",
    "instructions": "You are a coding agent.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions/>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
    ],
    "tools": [
        {
            "type": "function",
            "name": "shell",
            "description": "Runs a command.",
            "strict": False,
            "parameters": {
                "type": "object",
                "properties": {"command": {"type": "array", "items": {"type": "string"}}},
                "required": ["command"],
                "additionalProperties": False,
            },
        },
        {"type": "local_shell"},
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Edits files.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x/"},
        },
        {"type": "web_search", "external_web_access": False},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "xhigh", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0199",
    "text": {"verbosity": "low"},
    "client_metadata": {"x": "y"},
}


@pytest.mark.parametrize(
    ("path", "body", "last"),
    [("/v1/messages?beta=true", CLAUDE_CODE, "message_stop"), ("/v1/responses", CODEX, "response.")],
    ids=["Claude Code", "Codex"],
)
async def test_coding_agents_get_an_answer(served: Served, path: str, body: dict[str, Any], last: str):
    reply = await served.http.post(path, json=body, headers={"anthropic-beta": "claude-code-20250219"})
    assert reply.status_code == 200, reply.text
    names = [line.removeprefix("event: ") for line in reply.text.splitlines() if line.startswith("event: ")]
    assert names[-1].startswith(last)
    assert json.dumps("error") not in names
