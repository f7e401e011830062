"""Tools: offered in a request, called in its answer, answered in the next one; whole and streamed, in three APIs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from http_server import Served, events, joined, named_events, serving
from running_server import MODEL
from tiny_checkpoints import R1_TEMPLATE

pytestmark = pytest.mark.asyncio(loop_scope="module")

EOS = "<｜end▁of▁sentence｜>"
PARAMETERS = {"type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]}
LOOK = {"type": "function", "function": {"name": "look", "description": "Look around.", "parameters": PARAMETERS}}
ADD = {"type": "function", "function": {"name": "add"}}
UP, DOWN = '{"where": "up"}', '{"where": "down", "why": "é<"}'


def called(arguments: str, name: str = "look") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


TWO_CALLS = f"Let me look.\n{called(UP)}\n{called(DOWN)}{EOS}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server whose model says a few words and calls a tool twice."""
    async with serving(tmp_path_factory.mktemp("model"), script=TWO_CALLS) as server:
        yield server


def calls_of(message: dict[str, Any]) -> list[tuple[str, str]]:
    assert all(call["type"] == "function" and call["id"].startswith("call_") for call in message["tool_calls"])
    assert len({call["id"] for call in message["tool_calls"]}) == len(message["tool_calls"])
    return [(call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]


async def test_calls_in_a_whole_answer(two: Served):
    choice = (await two.chat(tools=[LOOK, ADD])).json()["choices"][0]
    assert choice["message"]["content"] == "Let me look."
    assert calls_of(choice["message"]) == [("look", UP), ("look", DOWN)]
    assert choice["finish_reason"] == "tool_calls"


async def test_a_stream_names_a_call_before_its_arguments(two: Served):
    chunks = events((await two.chat(tools=[LOOK], stream=True)).text)
    assert joined(chunks) == "Let me look."
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["tool_calls"]
    deltas = [delta for choice in choices for delta in choice["delta"].get("tool_calls", [])]
    heads = [delta for delta in deltas if "id" in delta]
    assert [(head["index"], head["type"], head["function"]) for head in heads] == [
        (0, "function", {"name": "look", "arguments": ""}),
        (1, "function", {"name": "look", "arguments": ""}),
    ]
    for index, arguments in ((0, UP), (1, DOWN)):
        parts = [delta for delta in deltas if delta["index"] == index]
        assert parts[0] in heads
        assert all("name" not in part["function"] for part in parts[1:])
        assert "".join(part["function"]["arguments"] for part in parts) == arguments


async def test_the_official_client_puts_a_streams_calls_together(two: Served):
    messages = [{"role": "user", "content": "Hello"}]
    async with two.openai.chat.completions.stream(model=MODEL, messages=messages, tools=[LOOK]) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert [(call.function.name, call.function.arguments) for call in calls] == [("look", UP), ("look", DOWN)]


async def test_each_choice_counts_its_own_calls(two: Served):
    chunks = events((await two.chat(tools=[LOOK], stream=True, n=2)).text)
    for index in range(2):
        choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        heads = [delta for choice in choices for delta in choice["delta"].get("tool_calls", []) if "id" in delta]
        assert [head["index"] for head in heads] == [0, 1]


async def test_without_parallel_calls_the_first_is_the_last(two: Served):
    choice = (await two.chat(tools=[LOOK], parallel_tool_calls=False, ignore_eos=True, max_tokens=400)).json()
    assert calls_of(choice["choices"][0]["message"]) == [("look", UP)]
    assert choice["choices"][0]["finish_reason"] == "tool_calls"
    assert choice["usage"]["completion_tokens"] < 400
    await two.until_metric('antiphon_requests_running{endpoint="chat"}', 0)
    await two.check_accounts()


@pytest.mark.parametrize("fields", [{}, {"tools": [LOOK], "tool_choice": "none"}, {"tools": []}])
async def test_where_no_tool_is_offered_a_call_is_text(two: Served, fields):
    reply = (await two.chat(**fields)).json()
    assert reply["choices"][0]["message"]["content"] == TWO_CALLS.removesuffix(EOS)
    assert "tool_calls" not in reply["choices"][0]["message"]
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"]["prompt_tokens"] == (await two.chat(max_tokens=1)).json()["usage"]["prompt_tokens"]


async def test_a_call_of_a_tool_that_was_not_offered_is_text(two: Served):
    choice = (await two.chat(tools=[ADD])).json()["choices"][0]
    assert choice["message"]["content"] == TWO_CALLS.removesuffix(EOS)
    assert choice["finish_reason"] == "stop"


async def test_a_call_that_is_cut_off_is_text(two: Served):
    whole = (await two.chat(tools=[LOOK])).json()["usage"]["completion_tokens"]
    reply = await two.chat(tools=[LOOK], max_tokens=whole - 6)
    choice = reply.json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert calls_of(choice["message"]) == [("look", UP)]
    told = choice["message"]["content"].removeprefix("Let me look.")
    assert told.strip().startswith("<tool_call>")
    assert called(DOWN).startswith(told.strip())
    chunks = events((await two.chat(tools=[LOOK], max_tokens=whole - 6, stream=True)).text)
    assert joined(chunks) == choice["message"]["content"]


async def test_tools_calls_and_results_are_in_the_prompt(two: Served):
    def tokens(reply) -> int:
        assert reply.status_code == 200, reply.text
        return reply.json()["usage"]["prompt_tokens"]

    bare, offered = tokens(await two.chat(max_tokens=1)), tokens(await two.chat(max_tokens=1, tools=[LOOK]))
    assert offered > bare
    answer = (await two.chat(tools=[LOOK])).json()["choices"][0]["message"]
    ids = [call["id"] for call in answer["tool_calls"]]
    results = [{"role": "tool", "tool_call_id": id, "content": "The sky"} for id in ids]
    body = {"messages": [{"role": "user", "content": "Hello"}, answer, *results], "tools": [LOOK]}
    whole = tokens(await two.http.post("/v1/chat/completions", json=body | {"max_tokens": 1}))
    assert whole > offered
    counted = await two.http.post("/tokenize", json=body)
    assert counted.json()["count"] == whole
    del answer["content"]  # as some clients send an answer of calls alone
    assert (await two.http.post("/v1/chat/completions", json=body | {"max_tokens": 1})).status_code == 200


async def test_a_thought_before_a_call(tmp_path):
    script = f"I shall look.\n</think>\n\n{called(UP)}{EOS}"
    async with serving(tmp_path, template=R1_TEMPLATE, script=script) as server:
        choice = (await server.chat(tools=[LOOK])).json()["choices"][0]
        assert choice["message"]["reasoning_content"] == "I shall look."
        assert choice["message"]["content"] is None
        assert calls_of(choice["message"]) == [("look", UP)]
        chunks = events((await server.chat(tools=[LOOK], stream=True)).text)
        assert joined(chunks, "reasoning_content") == "I shall look."
        assert joined(chunks) == ""


async def test_deepseeks_shape_by_setting(tmp_path):
    call = f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n{UP}\n```<｜tool▁call▁end｜>"
    script = f"<｜tool▁calls▁begin｜>{call}<｜tool▁calls▁end｜>{EOS}"
    async with serving(tmp_path, script=script, tool_call_parser="deepseek") as server:
        message = (await server.chat(tools=[LOOK])).json()["choices"][0]["message"]
        assert calls_of(message) == [("look", UP)]


async def test_tools_can_be_switched_off(tmp_path):
    async with serving(tmp_path, script=TWO_CALLS, tool_call_parser="none") as server:
        reply = await server.chat(tools=[LOOK])
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "tools"
        assert "--tool-call-parser" in reply.json()["error"]["message"]
        assert (await server.chat(tools=[LOOK], tool_choice="none")).status_code == 200


TAG = '{"where": "</tool_call>\\n<tool_call>", "why": "\\"</tool_call>"}'


async def whole_and_streamed(served: Served, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The answer, and the arguments of all calls as a stream has them."""
    whole = (await served.http.post(path, json=body)).json()
    text = (await served.http.post(path, json=body | {"stream": True})).text
    if path == "/v1/chat/completions":
        choices = [choice for chunk in events(text) for choice in chunk["choices"]]
        deltas = [delta for choice in choices for delta in choice["delta"].get("tool_calls", [])]
        return whole, "".join(delta["function"]["arguments"] for delta in deltas)
    told = named_events(text)
    if path == "/v1/responses":
        return whole, "".join(e["delta"] for name, e in told if name == "response.function_call_arguments.delta")
    return whole, "".join(e["delta"].get("partial_json", "") for name, e in told if name == "content_block_delta")


MESSAGE = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 400}
IN_EVERY_API = [
    ("/v1/chat/completions", MESSAGE | {"tools": [LOOK]}),
    ("/v1/responses", {"input": "Hello", "tools": [{"type": "function", **LOOK["function"]}]}),
    ("/v1/messages", MESSAGE | {"tools": [{"name": "look", "input_schema": PARAMETERS}]}),
]


@pytest.mark.parametrize(("path", "body"), IN_EVERY_API)
async def test_an_argument_may_hold_the_closing_tag(tmp_path, path, body):
    async with serving(tmp_path, script=f"So.\n{called(TAG)}\n{called(UP)}{EOS}") as server:
        whole, streamed = await whole_and_streamed(server, path, body)
    assert streamed == TAG + UP
    if path == "/v1/chat/completions":
        message = whole["choices"][0]["message"]
        assert (message["content"], calls_of(message)) == ("So.", [("look", TAG), ("look", UP)])
    elif path == "/v1/responses":
        assert [item.get("arguments") for item in whole["output"]] == [None, TAG, UP]
    else:
        assert [block.get("input") for block in whole["content"]] == [None, json.loads(TAG), json.loads(UP)]


async def test_parameters_are_arguments_and_no_near_miss_is_dropped(tmp_path):
    as_parameters = called(UP).replace("arguments", "parameters")
    near_miss = called(UP).replace("arguments", "args")
    async with serving(tmp_path, script=f"{as_parameters}\n{near_miss}{EOS}") as server:
        choice = (await server.chat(tools=[LOOK])).json()["choices"][0]
    assert calls_of(choice["message"]) == [("look", UP)]
    assert choice["message"]["content"].strip() == near_miss


@pytest.mark.parametrize("stop", ["\n", "tool_call", '"name"', "}", "</tool_call>", "up"])
async def test_a_stop_string_does_not_end_an_answer_inside_a_call(two: Served, stop):
    choice = (await two.chat(tools=[LOOK], stop=stop)).json()["choices"][0]
    assert choice["message"]["content"] == "Let me look."
    assert calls_of(choice["message"]) == [("look", UP), ("look", DOWN)]
    choice = (await two.chat(tools=[LOOK], stop=["me"])).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Let ", "stop")


# --- the other APIs


async def test_calls_are_items_of_a_response(two: Served):
    tool = {"type": "function", **LOOK["function"], "strict": True}
    body = {"input": "Hello", "tools": [tool]}
    whole = (await two.http.post("/v1/responses", json=body)).json()
    assert whole["status"] == "completed"
    message, *calls = whole["output"]
    assert message["content"][0]["text"] == "Let me look."
    assert [(call["type"], call["name"], call["arguments"]) for call in calls] == [
        ("function_call", "look", UP),
        ("function_call", "look", DOWN),
    ]
    streamed = named_events((await two.http.post("/v1/responses", json=body | {"stream": True})).text)
    done = [event["arguments"] for name, event in streamed if name == "response.function_call_arguments.done"]
    assert done == [UP, DOWN]
    results = [{"type": "function_call_output", "call_id": call["call_id"], "output": "The sky"} for call in calls]
    for history in (
        {"input": results, "previous_response_id": whole["id"]},
        {"input": [{"role": "user", "content": "Hello"}, *whole["output"], *results]},
    ):
        reply = await two.http.post("/v1/responses", json=body | history)
        assert reply.status_code == 200, reply.text
        assert reply.json()["usage"]["input_tokens"] > whole["usage"]["input_tokens"]


async def test_calls_are_blocks_of_a_message(two: Served):
    tool = {"name": "look", "input_schema": PARAMETERS}
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 400, "tools": [tool]}
    whole = (await two.http.post("/v1/messages", json=body)).json()
    assert whole["stop_reason"] == "tool_use"
    text, *calls = whole["content"]
    assert text == {"type": "text", "text": "Let me look."}
    assert [(call["type"], call["name"], call["input"]) for call in calls] == [
        ("tool_use", "look", json.loads(UP)),
        ("tool_use", "look", json.loads(DOWN)),
    ]
    streamed = named_events((await two.http.post("/v1/messages", json=body | {"stream": True})).text)
    deltas = [event["delta"] for name, event in streamed if name == "content_block_delta"]
    assert "".join(delta.get("partial_json", "") for delta in deltas) == UP + DOWN
    results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "The sky"} for call in calls]
    body["messages"] += [{"role": "assistant", "content": whole["content"]}, {"role": "user", "content": results}]
    reply = await two.http.post("/v1/messages", json=body)
    assert reply.status_code == 200, reply.text
    first, second = (each["usage"] for each in (whole, reply.json()))
    total = [usage["input_tokens"] + usage["cache_read_input_tokens"] for usage in (first, second)]
    assert total[1] > total[0]


async def test_a_fault_of_a_tool_is_told_in_each_apis_words(two: Served):
    tool = {"type": "function", "name": "a b"}
    reply = await two.http.post("/v1/responses", json={"input": "Hello", "tools": [tool]})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "tools[0].name")
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    tools = [{"name": "look", "input_schema": {}}] * 2
    reply = await two.http.post("/v1/messages", json=body | {"tools": tools})
    assert reply.status_code == 400
    assert "more than one function named 'look'" in reply.json()["error"]["message"]
