"""`/v1/messages`: blocks in and out, events in order, errors in Anthropic's shape."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from http_server import Served, named_events, serving
from running_server import MODEL
from tiny_checkpoints import R1_TEMPLATE

from antiphon.http import sse

pytestmark = pytest.mark.asyncio(loop_scope="module")

URL = "/v1/messages"
THINKS = {"template": R1_TEMPLATE, "script": "Let me see.</think>\n\nParis.<｜end▁of▁sentence｜>"}


async def ask(served: Served, content: Any = "Hello", **fields: Any) -> httpx2.Response:
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 8, "seed": 1, **fields}
    return await served.http.post(URL, json=body)


async def test_a_whole_message(served: Served):
    reply = await ask(served, system="Be brief.", temperature=0.5, metadata={"user_id": "x"})
    body = reply.json()
    assert reply.status_code == 200
    assert (body["type"], body["role"], body["model"]) == ("message", "assistant", MODEL)
    (block,) = body["content"]
    assert block["type"] == "text"
    assert block["text"]
    assert (body["stop_reason"], body["stop_sequence"]) == ("max_tokens", None)
    assert body["usage"]["output_tokens"] == 8


async def test_the_prompt_is_that_of_the_same_chat(served: Served):
    chat = await served.chat("Hello", max_tokens=8, seed=1)
    expected = chat.json()["choices"][0]["message"]["content"]
    cached = {"cache_control": {"type": "ephemeral"}}
    for content in ("Hello", [{"type": "text", "text": "Hello", **cached}]):
        assert (await ask(served, content)).json()["content"][0]["text"] == expected


async def test_tokens_from_the_cache_are_counted_apart(served: Served):
    prompt = "A prompt of some length, so that there are whole blocks of it. " * 3
    first, second = [(await ask(served, prompt)).json()["usage"] for _ in range(2)]
    assert second["cache_read_input_tokens"] > 0
    total = first["input_tokens"] + first["cache_read_input_tokens"]
    assert second["input_tokens"] + second["cache_read_input_tokens"] == total


async def test_events_come_in_order_and_add_up_to_the_whole(served: Served):
    whole = (await ask(served)).json()
    events = named_events((await ask(served, stream=True)).text)
    names = [name for name, _ in events]
    deltas = names.count("content_block_delta")
    assert names == [
        "message_start",
        "ping",
        "content_block_start",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    text = "".join(event["delta"]["text"] for name, event in events if name == "content_block_delta")
    assert text == whole["content"][0]["text"]
    stop = events[-2][1]
    assert stop["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert stop["usage"]["output_tokens"] == 8
    assert events[0][1]["message"]["usage"]["input_tokens"] > 0


async def test_a_thought_is_a_block_of_its_own_and_can_be_left_out(tmp_path):
    async with serving(tmp_path, **THINKS) as served:
        whole = (await ask(served, max_tokens=200)).json()
        thought, answer = whole["content"]
        assert thought["thinking"].strip() == "Let me see."
        assert answer["text"].strip() == "Paris."
        assert whole["stop_reason"] == "end_turn"
        assert 0 < whole["usage"]["output_tokens_details"]["thinking_tokens"] < whole["usage"]["output_tokens"]
        events = named_events((await ask(served, max_tokens=200, stream=True)).text)
        starts = [event["content_block"]["type"] for name, event in events if name == "content_block_start"]
        assert starts == ["thinking", "text"]
        kinds = [event["delta"]["type"] for name, event in events if name == "content_block_delta"]
        assert list(dict.fromkeys(kinds)) == ["thinking_delta", "text_delta"]
        budget = {"type": "enabled", "budget_tokens": 1}
        short = (await ask(served, max_tokens=200, thinking=budget)).json()
        assert len(short["content"][0]["thinking"]) < len(thought["thinking"])
        sent_back = [
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": whole["content"]},
            {"role": "user", "content": "Really?"},
        ]
        assert (await ask(served, messages=sent_back)).status_code == 200


async def test_a_stop_sequence_is_named(tmp_path):
    async with serving(tmp_path, script="one two three four. ") as served:
        fields = {"stop_sequences": ["zero", "three"], "max_tokens": 100}
        whole = (await ask(served, **fields)).json()
        assert whole["content"][0]["text"] == "one two "
        assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", "three")
        events = named_events((await ask(served, stream=True, **fields)).text)
        assert events[-2][1]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "three"}


async def test_tokens_are_counted_as_they_are_charged(served: Served):
    body = {"messages": [{"role": "user", "content": "Hello"}], "system": "Be brief."}
    counted = (await served.http.post(f"{URL}/count_tokens", json=body)).json()
    usage = (await served.http.post(URL, json=body | {"max_tokens": 1})).json()["usage"]
    assert counted == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}


async def test_silence_is_filled_with_pings(tmp_path, monkeypatch):
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.05)
    async with serving(tmp_path, fake={"step_seconds": 0.5}) as served:
        events = named_events((await ask(served, stream=True, max_tokens=2)).text)
        before = [name for name, _ in events[: [name for name, _ in events].index("content_block_start")]]
        assert before.count("ping") > 1
        assert events[-1][0] == "message_stop"


def turn(*blocks: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": role, "content": list(blocks)}]}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages[0]"),
    (turn({"type": "image", "source": {}}), "messages[1].content[0].type: A block of type 'image'"),
    (turn({"type": "tool_result"}), "messages[1].content[0].tool_use_id"),
    (turn({"type": "tool_result", "tool_use_id": "x", "content": [{"type": "image"}]}), "content[0].content[0].type"),
    (turn({"type": "tool_use", "id": "x", "name": "f"}, role="assistant"), "messages[1].content[0].input"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": 8}}, "greater than 'thinking.budget_tokens'"),
    ({"thinking": {"type": "sometimes"}}, "'sometimes'"),
    ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
]


@pytest.mark.parametrize(("fields", "said"), REFUSED, ids=lambda value: str(value)[:40])
async def test_what_is_wrong_is_told_in_anthropics_shape(served: Served, fields, said):
    reply = await ask(served, **fields)
    body = reply.json()
    assert reply.status_code == 400
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert said in body["error"]["message"]


async def test_errors_from_outside_the_route_have_its_shape_too(served: Served):
    wrong_method = await served.http.get(URL)
    assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "POST")
    unknown = await served.http.post(f"{URL}/batches", json={})
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "not_found_error")
    no_json = await served.http.post(URL, content=b"{", headers={"content-type": "application/json"})
    assert no_json.json()["error"]["type"] == "invalid_request_error"
    model = await ask(served, model="claude")
    assert (model.status_code, model.json()["error"]["type"]) == (404, "not_found_error")


async def test_headers_of_anthropics_clients_change_nothing(served: Served):
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "x-1", "x-api-key": "unused"}
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    assert (await served.http.post(f"{URL}?beta=true", json=body, headers=headers)).status_code == 200


async def test_a_failure_in_a_stream_is_its_last_event(tmp_path):
    async with serving(tmp_path, fake={"token_seconds": 0.01}) as served:
        asking = asyncio.create_task(ask(served, stream=True, max_tokens=3000))
        await served.until_metric('antiphon_requests_running{endpoint="messages"}', 1)
        await served.engine.drain(0)
        await served.engine.stop()
        name, payload = named_events((await asking).text)[-1]
        assert (name, payload["error"]["type"]) == ("error", "overloaded_error")


async def test_a_client_that_leaves_a_stream_aborts_it(tmp_path):
    async with serving(tmp_path, fake={"token_seconds": 0.01}) as served:
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3000, "stream": True}
        async with served.http.stream("POST", URL, json=body) as reply:
            async for line in reply.aiter_lines():
                if line == "event: content_block_delta":
                    break
        await served.until_metric('antiphon_requests_aborted_total{endpoint="messages"}', 1)
        await served.check_accounts()


async def test_a_last_assistant_message_is_continued(served: Served):
    prefill = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Well, "}]
    counted = (await served.http.post(f"{URL}/count_tokens", json={"messages": prefill})).json()["input_tokens"]
    chat = {"messages": prefill, "continue_final_message": True}
    assert counted == (await served.http.post("/tokenize", json=chat)).json()["count"]
    answered = (await served.http.post(URL, json={"messages": prefill, "max_tokens": 5, "seed": 1})).json()
    expected = await served.http.post("/v1/chat/completions", json={**chat, "max_tokens": 5, "seed": 1})
    assert answered["content"][0]["text"] == expected.json()["choices"][0]["message"]["content"]


async def test_the_first_and_the_last_event_agree_on_the_input(served: Served):
    content = "The same beginning, which is long enough to be found in the cache. " * 4
    for _ in range(2):  # the second time most of it is cached
        events = named_events((await ask(served, content, stream=True)).text)
        start = next(payload["message"]["usage"] for name, payload in events if name == "message_start")
        end = next(payload["usage"] for name, payload in events if name == "message_delta")
        for name in ("input_tokens", "cache_read_input_tokens"):
            assert start[name] == end[name]
    assert end["cache_read_input_tokens"] > 0
