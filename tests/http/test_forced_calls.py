"""Calls that a request demands: `tool_choice` required or a named function, in every shape, API and company."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from http_server import Served, events, joined, named_events, serving
from running_server import MODEL
from schemas import problem
from tiny_checkpoints import R1_TEMPLATE

WHERE = {"type": "object", "properties": {"where": {"enum": ["up", "down"]}}, "required": ["where"]}
COUNT = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"]}
SCHEMAS = {"look": WHERE, "look_up": COUNT, "wait": {"type": "object", "properties": {}, "additionalProperties": False}}


def tool(name: str, parameters: Any = None, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **fields}}


TOOLS = [tool("look", WHERE), tool("look_up", COUNT), tool("wait")]
NAMED = {"type": "function", "function": {"name": "look_up"}}
WARM = {"tools": TOOLS, "temperature": 1.0, "max_tokens": 1500, "enable_thinking": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forced")


@pytest.fixture
async def served(folder: Path) -> AsyncIterator[Served]:
    async with serving(folder, grammars=True) as server:
        yield server
        await server.check_accounts()


def calls_of(choice: dict[str, Any]) -> list[tuple[str, str]]:
    """The calls of a choice that is nothing else, each fit for its tool."""
    assert choice["finish_reason"] == "tool_calls", choice
    assert choice["message"]["content"] is None
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in choice["message"]["tool_calls"]]
    assert [problem(SCHEMAS[name], arguments) for name, arguments in calls] == [None] * len(calls)
    return calls


async def test_required_is_one_call_or_several_of_any_tool(served):
    seen = set()
    numbers = set()
    for seed in range(8):
        reply = await served.chat(**WARM, tool_choice="required", seed=seed, n=2)
        for choice in reply.json()["choices"]:
            calls = calls_of(choice)
            seen |= {name for name, _ in calls}
            numbers.add(len(calls))
    assert seen == SCHEMAS.keys()
    assert min(numbers) == 1
    assert max(numbers) > 1


async def test_a_named_function_is_called_once(served):
    for seed in range(4):
        reply = await served.chat(**WARM, tool_choice=NAMED, seed=seed)
        ((name, _),) = calls_of(reply.json()["choices"][0])
        assert name == "look_up"


async def test_without_parallel_calls_there_is_one(served):
    for seed in range(4):
        reply = await served.chat(**WARM, tool_choice="required", parallel_tool_calls=False, seed=seed)
        assert len(calls_of(reply.json()["choices"][0])) == 1


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


async def test_some_of_the_tools(served):
    seen = set()
    for seed in range(6):
        reply = await served.chat(**WARM, tool_choice=allowed("required", "look", "wait"), seed=seed)
        seen |= {name for name, _ in calls_of(reply.json()["choices"][0])}
    assert seen == {"look", "wait"}
    free = await served.chat(**WARM | {"max_tokens": 20}, tool_choice=allowed("auto", "look"))
    assert free.json()["choices"][0]["finish_reason"] == "length"
    assert free.json()["usage"]["prompt_tokens"] == reply.json()["usage"]["prompt_tokens"]
    flat = [{"type": "function", **each["function"]} for each in TOOLS]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "wait"}]}
    body = {"input": "Hello", "tools": flat, "tool_choice": choice, "reasoning": {"effort": "none"}}
    answer = (await served.http.post("/v1/responses", json=body)).json()
    assert {item["name"] for item in answer["output"]} == {"wait"}


async def test_streamed_and_whole_are_the_same(served):
    asked = {**WARM, "tool_choice": "required", "seed": 3}
    whole = (await served.chat(**asked)).json()["choices"][0]
    chunks = events((await served.chat(**asked, stream=True)).text)
    assert joined(chunks) == ""
    arguments: dict[int, str] = {}
    for chunk in chunks:
        for delta in chunk["choices"][0]["delta"].get("tool_calls", []):
            arguments[delta["index"]] = arguments.get(delta["index"], "") + delta["function"]["arguments"]
    assert list(arguments.values()) == [text for _, text in calls_of(whole)]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "tool_calls"


def just(**constants: Any) -> dict[str, Any]:
    """A schema that one object alone fits."""
    properties = {name: {"const": value} for name, value in constants.items()}
    return {"type": "object", "properties": properties, "required": list(constants), "additionalProperties": False}


LETTERS = list("abcdefghijklmnopqrstuvwxyz")
LISTED = just(list=LETTERS)


async def test_arguments_are_streamed_as_they_are_written(folder):
    async with serving(folder, grammars=True, fake={"step_seconds": 0.005}) as served:
        asked = {**WARM, "tool_choice": NAMED, "seed": 1, "tools": [tool("look_up", LISTED)]}
        chunks = events((await served.chat(**asked, stream=True)).text)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    deltas = [delta["function"] for choice in choices for delta in choice["delta"].get("tool_calls", [])]
    assert json.loads("".join(delta["arguments"] for delta in deltas)) == {"list": LETTERS}
    assert deltas[0]["name"] == "look_up"
    assert len(deltas) > 3  # several tokens may share a chunk, but not all of them
    assert all(delta["arguments"] for delta in deltas[1:])


async def several_calls(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    """A request that is answered with several calls, and its answer."""
    for seed in range(40):
        asked = {**WARM, "tool_choice": "required", "seed": seed}
        whole = (await served.chat(**asked)).json()
        if len(calls_of(whole["choices"][0])) > 1:
            return asked, whole
    raise AssertionError("none of forty answers had more than one call")


async def test_a_call_that_is_cut_off_is_a_part_of_a_call(served):
    asked, whole = await several_calls(served)
    calls = calls_of(whole["choices"][0])
    seen = set()
    for max_tokens in range(1, whole["usage"]["completion_tokens"] - 1):
        choice = (await served.chat(**asked | {"max_tokens": max_tokens})).json()["choices"][0]
        assert choice["finish_reason"] == "length"
        assert not choice["message"]["content"]
        functions = [call["function"] for call in choice["message"].get("tool_calls", [])]
        made = [(each["name"], each["arguments"]) for each in functions]
        assert made[:-1] == calls[: max(0, len(made) - 1)]
        assert all(calls[len(made) - 1][1].startswith(arguments) for _, arguments in made[-1:])
        seen.add((len(made), made != calls[: len(made)]))
    assert {(0, False), (1, True), (1, False), (2, True)} <= seen


async def test_a_response_that_is_cut_off_has_an_incomplete_call(served):
    flat = [{"type": "function", "name": "look_up", "parameters": LISTED}]
    body = {"input": "Hello", "tools": flat, "tool_choice": "required", "temperature": 1.0, "seed": 2}
    body |= {"parallel_tool_calls": False, "reasoning": {"effort": "none"}}
    whole = (await served.http.post("/v1/responses", json=body)).json()
    for fewer in range(1, whole["usage"]["output_tokens"], 4):
        limit = {"max_output_tokens": whole["usage"]["output_tokens"] - fewer}
        cut = (await served.http.post("/v1/responses", json=body | limit)).json()
        assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        (item,) = cut["output"]
        if item["type"] == "message":  # the name was not certain yet
            assert item["content"][0]["text"] == ""
            continue
        assert item["name"] == "look_up"
        arguments = whole["output"][0]["arguments"]
        assert arguments.startswith(item["arguments"])
        assert item["status"] == ("completed" if item["arguments"] == arguments else "incomplete")
        told = named_events((await served.http.post("/v1/responses", json=body | limit | {"stream": True})).text)
        done = [event["item"] for name, event in told if name == "response.output_item.done"]
        assert [(each["status"], each["arguments"]) for each in done] == [(item["status"], item["arguments"])]


async def test_a_message_that_is_cut_off_has_a_part_of_a_call(served):
    body = {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 55,
        "tools": [{"name": "look_up", "input_schema": LISTED}],
        "tool_choice": {"type": "any"},
        "thinking": {"type": "disabled"},
    }
    cut = (await served.http.post("/v1/messages", json=body)).json()
    assert cut["stop_reason"] == "max_tokens"
    assert [(block["type"], block["name"]) for block in cut["content"]] == [("tool_use", "look_up")]
    assert cut["content"][0]["input"]["_incomplete"].startswith('{"list":')


async def test_an_answer_ends_at_a_call_that_repeats_an_earlier_one(served):
    """The only call there is: small models would make it until they are stopped."""
    written = set()
    for seed in range(6):
        asked = WARM | {"tools": [tool("wait")], "tool_choice": "required", "return_token_ids": True, "seed": seed}
        choice = (await served.chat(**asked)).json()["choices"][0]
        assert calls_of(choice) == [("wait", "{}")]
        written.add(b"".join(map(served.text.tokenizer.id_to_bytes, choice["token_ids"])).count(b"wait"))
    assert written <= {1, 2}
    assert 2 in written
    for seed in range(8):
        for choice in (await served.chat(**WARM, tool_choice="required", seed=seed)).json()["choices"]:
            assert len(set(calls_of(choice))) == len(calls_of(choice))
    await served.until_metric('antiphon_requests_running{endpoint="chat"}', 0)


@pytest.mark.parametrize("shape", ["hermes", "deepseek"])
async def test_an_argument_may_hold_tags(folder, shape):
    tags = ["</tool_call>", "\n</tool_call>\n<tool_call>", '"}}\n</tool_call>', "\n```<｜tool▁call▁end｜>"]
    async with serving(folder, grammars=True, tool_call_parser=shape) as served:
        reply = await served.chat(**WARM | {"tools": [tool("look", just(tags=tags))]}, tool_choice="required", seed=1)
        choice = reply.json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        calls = [(call["function"]["name"], call["function"]["arguments"]) for call in choice["message"]["tool_calls"]]
        assert [(name, json.loads(arguments)) for name, arguments in calls] == [("look", {"tags": tags})] * len(calls)


@pytest.mark.parametrize("stop", ["\n", "<", "look", '"', "}", "arguments"])
async def test_a_stop_string_does_not_end_a_forced_answer(served, stop):
    asked = {**WARM, "tool_choice": "required", "seed": 3}
    plain = (await served.chat(**asked)).json()["choices"][0]
    assert calls_of((await served.chat(**asked, stop=[stop])).json()["choices"][0]) == calls_of(plain)


async def test_a_thought_goes_before(folder):
    async with serving(folder, template=R1_TEMPLATE, script="I shall.</think>\n\nSo.", grammars=True) as served:
        reply = await served.chat(tools=TOOLS, tool_choice=NAMED, max_tokens=300)
        choice = reply.json()["choices"][0]
        assert choice["message"]["reasoning_content"] == "I shall."
        assert [name for name, _ in calls_of(choice)] == ["look_up"]
        closed = (
            await served.chat(tools=TOOLS, tool_choice="required", thinking_token_budget=2, max_tokens=300)
        ).json()
        assert closed["choices"][0]["thought_closed"] == "budget"
        assert calls_of(closed["choices"][0])


async def test_deepseeks_shape(folder):
    async with serving(folder, grammars=True, tool_call_parser="deepseek") as served:
        for seed in range(3):
            reply = await served.chat(**WARM, tool_choice="required", seed=seed)
            assert calls_of(reply.json()["choices"][0])
        raw = (await served.chat(**WARM, tool_choice=NAMED, seed=1, return_token_ids=True)).json()["choices"][0]
        text = b"".join(map(served.text.tokenizer.id_to_bytes, raw["token_ids"])).decode()
        assert "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look_up\n```json\n{" in text


async def test_a_tag_that_is_a_token_of_its_own_comes_as_that_token(served):
    reply = await served.chat(**WARM, tool_choice=NAMED, seed=1, return_token_ids=True)
    token_ids = reply.json()["choices"][0]["token_ids"]
    assert token_ids.count(served.text.tokenizer.control_token_id("<tool_call>")) == 1


async def test_a_form_or_calls(served):
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": COUNT | {"additionalProperties": False}}}
    kinds = set()
    for seed in range(12):
        reply = await served.chat(**WARM, response_format=form, seed=seed)
        choice = reply.json()["choices"][0]
        kinds.add(choice["finish_reason"])
        if choice["finish_reason"] == "tool_calls":
            assert calls_of(choice)
        else:
            assert problem(COUNT, choice["message"]["content"]) is None
    assert kinds == {"stop", "tool_calls"}
    forced = await served.chat(**WARM, response_format=form, tool_choice="required", seed=1)
    assert calls_of(forced.json()["choices"][0])
    choice = await served.chat(**WARM, structured_outputs={"choice": ["yes"]}, seed=1)
    assert choice.json()["choices"][0]["finish_reason"] in ("tool_calls", "stop")


async def test_of_a_form_or_calls_what_is_cut_off_shows_no_markup(served):
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": COUNT | {"additionalProperties": False}}}
    kinds = set()
    for seed in range(6):
        for max_tokens in (20, 40, 60):
            reply = await served.chat(**WARM | {"max_tokens": max_tokens}, response_format=form, seed=seed)
            message = reply.json()["choices"][0]["message"]
            kinds |= {"calls"} if message.get("tool_calls") else {"text"} if message["content"] else set()
            assert "tool" not in (message["content"] or "")
    assert kinds == {"calls", "text"}


async def test_responses_and_messages(served):
    asked = {"temperature": 1.0, "seed": 2}
    none = {"reasoning": {"effort": "none"}}
    flat = [{"type": "function", **each["function"]} for each in TOOLS]
    body = {"input": "Hello", "tools": flat, "tool_choice": {"type": "function", "name": "look_up"}, **none, **asked}
    whole = (await served.http.post("/v1/responses", json=body)).json()
    assert [(item["type"], item["name"]) for item in whole["output"]] == [("function_call", "look_up")]
    body["tool_choice"] = "required"
    streamed = named_events((await served.http.post("/v1/responses", json=body | {"stream": True})).text)
    assert "response.function_call_arguments.done" in dict(streamed)
    assert "response.output_text.delta" not in dict(streamed)
    blocks = [{"name": name, "input_schema": schema} for name, schema in SCHEMAS.items()]
    said = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1500, "tools": blocks, **asked}
    said["thinking"] = {"type": "disabled"}
    for choice in ({"type": "any"}, {"type": "tool", "name": "look"}):
        answer = (await served.http.post("/v1/messages", json=said | {"tool_choice": choice})).json()
        assert answer["stop_reason"] == "tool_use"
        assert {block["type"] for block in answer["content"]} == {"tool_use"}
        assert all(problem(SCHEMAS[block["name"]], json.dumps(block["input"])) is None for block in answer["content"])


async def test_the_official_client(served):
    answer = await served.openai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello"}],
        tools=TOOLS,
        tool_choice="required",
        temperature=1.0,
        seed=5,
        reasoning_effort="none",
    )
    assert answer.choices[0].message.tool_calls


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"tool_choice": {"type": "function", "function": {"name": "fly"}}}, "tool_choice", "not in 'tools'"),
    ({"tool_choice": allowed("auto", "look", "fly")}, "tool_choice", "not in 'tools'"),
    ({"tool_choice": "required", "min_tokens": 3}, "min_tokens", "cannot be combined with 'tool_choice'"),
    ({"tool_choice": NAMED, "ignore_eos": True}, "ignore_eos", "cannot be combined with 'tool_choice'"),
    ({"tools": [tool("f", {"type": "string"})], "tool_choice": "required"},
     "tools[0].function.parameters", "type must be 'object'"),
    ({"tools": [tool("g"), tool("f", {"type": "object", "properties": {"x": {"type": "foo"}}})],
      "tool_choice": {"type": "function", "function": {"name": "f"}}},
     "tools[1].function.parameters", "Invalid type: foo"),
    ({"tools": [tool("g"), tool("f", {"not": {}}, strict=True)], "tool_choice": "required"},
     "tools", 'keywords: "not"'),
    ({"tools": [tool("f", {"properties": {"x": {}}, "required": [[1]]})], "tool_choice": "required"},
     "tools[0].function.parameters", "required"),
]  # fmt: skip


async def test_what_is_refused_and_how(served):
    for fields, param, message in REFUSED:
        reply = await served.chat(**{"tools": TOOLS, **fields})
        assert reply.status_code == 400, reply.text
        error = reply.json()["error"]
        assert error["param"] == param, error
        assert message in error["message"], error
    lenient = [tool("f", {"type": "object", "properties": {"x": {"enum": ["a"], "not": {}}}, "required": ["x"]})]
    reply = await served.chat(tools=lenient, tool_choice="required", parallel_tool_calls=False, temperature=1.0)
    assert (
        reply.json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"].replace(" ", "") == '{"x":"a"}'
    )
