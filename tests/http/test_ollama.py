"""Ollama's API, driven by its own Python client and by what its documentation shows."""

from __future__ import annotations

import json
from typing import Any

import ollama
import pytest
from http_server import Served, serving
from running_server import MODEL
from tiny_checkpoints import R1_TEMPLATE

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = [{"role": "user", "content": "Hello"}]
FEW = {"num_predict": 8, "seed": 1}


_clients: list[ollama.AsyncClient] = []


def client(served: Served) -> ollama.AsyncClient:
    _clients.append(ollama.AsyncClient(host=served.url))
    return _clients[-1]


@pytest.fixture(autouse=True)
async def close_clients():
    yield
    while _clients:
        await _clients.pop()._client.aclose()


async def test_a_chat_is_answered_as_by_openais_api(served: Served):
    expected = (await served.chat("Hello", max_tokens=8, seed=1)).json()
    said = await client(served).chat(MODEL, HELLO, options=FEW)
    assert said.message.content == expected["choices"][0]["message"]["content"]
    assert (said.done, said.done_reason) == (True, "length")
    assert said.prompt_eval_count == expected["usage"]["prompt_tokens"]
    assert said.eval_count == 8
    assert said.total_duration >= said.eval_duration >= 0


async def test_a_stream_says_the_same_and_ends_with_its_figures(served: Served):
    whole = await client(served).chat(MODEL, HELLO, options=FEW)
    parts = [part async for part in await client(served).chat(MODEL, HELLO, options=FEW, stream=True)]
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == 8


async def test_streams_are_lines_of_json_by_default_and_need_no_media_type(served: Served):
    reply = await served.http.post("/api/chat", content=json.dumps({"messages": HELLO, "options": FEW}))
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert lines[-1]["done"] is True
    assert {line["model"] for line in lines} == {MODEL}


async def test_a_prompt_is_asked_or_continued_as_it_stands(served: Served):
    asked = await client(served).generate(MODEL, "Hello", options=FEW)
    assert asked.response == (await client(served).chat(MODEL, HELLO, options=FEW)).message.content
    raw = await client(served).generate(MODEL, "Hello", raw=True, options=FEW)
    assert raw.response == (await served.complete("Hello", max_tokens=8, seed=1)).json()["choices"][0]["text"]


async def test_a_model_is_loaded_by_asking_nothing(served: Served):
    for path, body in (("/api/chat", {"model": MODEL}), ("/api/generate", {"model": f"{MODEL}:latest"})):
        reply = (await served.http.post(path, json=body)).json()
        assert (reply["done"], reply["done_reason"]) == (True, "load")


async def test_a_thought_is_told_apart_and_can_be_switched_off(tmp_path):
    async with serving(
        tmp_path, template=R1_TEMPLATE, script="I see.</think>\n\nParis.<｜end▁of▁sentence｜>"
    ) as server:
        said = await client(server).chat(MODEL, HELLO, think=True)
        assert (said.message.thinking.strip(), said.message.content) == ("I see.", "Paris.")
        closed = await client(server).chat(MODEL, HELLO, think=False, options={"num_predict": 20})
        assert not closed.message.thinking
        low = await client(server).chat(MODEL, HELLO, think="low")
        assert low.message.content == "Paris."


async def test_tools_are_called_with_objects_for_arguments(tmp_path):
    def add(a: int, b: int) -> int:
        """Adds two numbers.

        Args:
            a: one of them
            b: the other
        """
        return a + b

    script = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call><｜end▁of▁sentence｜>'
    async with serving(tmp_path, script=script, tool_call_parser="hermes") as server:
        said = await client(server).chat(MODEL, HELLO, tools=[add])
        (call,) = said.message.tool_calls
        assert (call.function.name, dict(call.function.arguments)) == ("add", {"a": 1, "b": 2})
        result = {"role": "tool", "content": "3", "tool_name": "add"}
        after = await client(server).chat(MODEL, [*HELLO, said.message, result], tools=[add])
        assert after.done_reason == "stop"
        parts = [part async for part in await client(server).chat(MODEL, HELLO, tools=[add], stream=True)]
        assert [call.function.name for part in parts for call in part.message.tool_calls or ()] == ["add"]


async def test_a_format_is_kept_to(tmp_path):
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    async with serving(tmp_path, grammars=True) as server:
        for format in ("json", schema):
            said = await client(server).chat(MODEL, HELLO, format=format, options={"num_predict": 400, "seed": 1})
            if said.done_reason == "stop":
                answer: Any = json.loads(said.message.content)
                assert isinstance(answer, dict)
                assert format == "json" or answer["city"] in ("Paris", "Rome")


async def test_what_there_is(served: Served):
    (listed,) = (await client(served).list()).models
    (loaded,) = (await client(served).ps()).models
    assert (listed.model, loaded.model) == (MODEL, MODEL)
    assert loaded.context_length == 4096
    shown = await client(served).show(MODEL)
    assert shown.template == served.text.template.source
    assert "completion" in shown.capabilities
    assert (await served.http.get("/api/version")).json()["version"]


async def test_what_is_wrong_is_told_in_ollamas_shape(served: Served):
    with pytest.raises(ollama.ResponseError) as refused:
        await client(served).chat("another", HELLO)
    assert refused.value.status_code == 404
    for body in (
        {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]},
        {"messages": HELLO, "options": {"temperature": 5}},
        {"messages": HELLO, "options": {"mirostat": 2}},
        {"messages": "x"},
    ):
        reply = await served.http.post("/api/chat", json=body)
        assert reply.status_code == 400
        assert reply.json().keys() == {"error"}
    assert (await served.http.get("/api/nothing")).json().keys() == {"error"}
