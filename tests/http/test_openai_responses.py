"""`/v1/responses`: items in and out, events in order, conversations that go on from a response by its id."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from http_server import Served, named_events, serving
from running_server import MODEL
from tiny_checkpoints import R1_TEMPLATE

pytestmark = pytest.mark.asyncio(loop_scope="module")

URL = "/v1/responses"


async def ask(served: Served, input: Any = "Hello", **fields: Any) -> httpx2.Response:
    return await served.http.post(URL, json={"input": input, "max_output_tokens": 8, "seed": 1, **fields})


def text_of(response: dict[str, Any]) -> str:
    (message,) = [item for item in response["output"] if item["type"] == "message"]
    return message["content"][0]["text"]


async def test_a_whole_response(served: Served):
    reply = await ask(served, instructions="Be brief.", metadata={"a": "b"}, temperature=0.5)
    body = reply.json()
    assert reply.status_code == 200
    assert (body["object"], body["model"], body["status"]) == ("response", MODEL, "incomplete")
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    (item,) = body["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "incomplete")
    assert item["content"][0]["text"]
    usage = body["usage"]
    assert usage["output_tokens"] == 8
    assert usage["total_tokens"] == usage["input_tokens"] + 8
    echoed = {name: body[name] for name in ("instructions", "metadata", "temperature", "store", "error")}
    asked = {"instructions": "Be brief.", "metadata": {"a": "b"}, "temperature": 0.5, "store": True, "error": None}
    assert echoed == asked


async def test_the_prompt_is_that_of_the_same_chat(served: Served):
    chat = await served.chat("Hello", max_tokens=8, seed=1)
    expected = chat.json()["choices"][0]["message"]["content"]
    parts = [{"type": "input_text", "text": "Hello"}]
    for input in ("Hello", [{"role": "user", "content": "Hello"}], [{"role": "user", "content": parts}]):
        assert text_of((await ask(served, input)).json()) == expected


async def test_events_come_in_order_and_add_up_to_the_whole(served: Served):
    whole = (await ask(served)).json()
    reply = await ask(served, stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = named_events(reply.text)
    assert [payload["sequence_number"] for _, payload in events] == list(range(len(events)))
    names = [name for name, _ in events]
    deltas = names.count("response.output_text.delta")
    assert names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    last = events[-1][1]["response"]
    assert text_of(last) == text_of(whole)
    assert "".join(event["delta"] for name, event in events if name.endswith("text.delta")) == text_of(whole)
    assert last["usage"]["output_tokens"] == 8
    assert events[0][1]["response"]["status"] == "in_progress"
    assert events[2][1]["item"]["id"] == last["output"][0]["id"]


async def test_a_thought_is_an_item_of_its_own(tmp_path):
    async with serving(
        tmp_path, template=R1_TEMPLATE, script="Let me see.</think>\n\nParis.<｜end▁of▁sentence｜>"
    ) as served:
        fields = {"max_output_tokens": 200}
        whole = (await ask(served, **fields)).json()
        assert whole["status"] == "completed"
        thought, answer = whole["output"]
        assert thought["type"] == "reasoning"
        assert thought["content"][0]["text"].strip() == "Let me see."
        assert answer["content"][0]["text"].strip() == "Paris."
        assert 0 < whole["usage"]["output_tokens_details"]["reasoning_tokens"] < whole["usage"]["output_tokens"]
        names = [name for name, _ in named_events((await ask(served, stream=True, **fields)).text)]
        kinds = list(dict.fromkeys(name for name in names if name.endswith(("delta", "done"))))
        assert kinds == [
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_text.delta",
            "response.output_text.done",
        ]
        assert names[-1] == "response.completed"
        again = await ask(served, "And now?", previous_response_id=whole["id"], **fields)
        assert again.status_code == 200


async def test_log_probabilities_on_request(served: Served):
    reply = await ask(served, include=["message.output_text.logprobs"], top_logprobs=2)
    (item,) = reply.json()["output"]
    logprobs = item["content"][0]["logprobs"]
    assert len(logprobs) == 8
    assert len(logprobs[0]["top_logprobs"]) == 2


async def test_a_conversation_goes_on_from_a_response_as_if_all_of_it_had_been_sent(served: Served):
    first = (await ask(served, instructions="Only for the first turn.")).json()
    second = (await ask(served, "And you?", previous_response_id=first["id"])).json()
    sent = [
        {"role": "user", "content": "Hello"},
        *first["output"],
        {"role": "user", "content": "And you?"},
    ]
    spelled_out = (await ask(served, sent)).json()
    assert text_of(spelled_out) == text_of(second)
    assert second["usage"]["input_tokens"] == spelled_out["usage"]["input_tokens"]
    third = (await ask(served, "Well", previous_response_id=second["id"])).json()
    assert third["usage"]["input_tokens"] > second["usage"]["input_tokens"]
    assert third["previous_response_id"] == second["id"]


async def test_a_streamed_response_can_be_gone_on_from_too(served: Served):
    last = named_events((await ask(served, stream=True)).text)[-1][1]["response"]
    assert (await ask(served, "And you?", previous_response_id=last["id"])).status_code == 200


async def test_a_kept_response_is_given_as_it_was_and_forgotten_on_request(served: Served):
    body = (await ask(served)).json()
    url = f"{URL}/{body['id']}"
    assert (await served.http.get(url)).json() == body
    deleted = await served.http.delete(url)
    assert deleted.json() == {"object": "response", "id": body["id"], "deleted": True}
    for reply in (await served.http.get(url), await served.http.delete(url)):
        assert reply.status_code == 404
        assert reply.json()["error"]["param"] == "response_id"


async def test_store_false_keeps_nothing(served: Served):
    body = (await ask(served, store=False)).json()
    assert body["store"] is False
    assert (await served.http.get(f"{URL}/{body['id']}")).status_code == 404


async def test_an_unknown_previous_response_is_404_and_says_what_would_work(served: Served):
    reply = await ask(served, previous_response_id="resp_gone")
    error = reply.json()["error"]
    assert reply.status_code == 404
    assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")
    assert "Send the whole conversation as 'input'" in error["message"]


async def test_a_server_may_keep_none(tmp_path):
    async with serving(tmp_path, max_stored_responses=0) as served:
        body = (await ask(served)).json()
        assert body["store"] is False
        assert (await ask(served, previous_response_id=body["id"])).status_code == 404


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"input": ""}, "input", "at least 1"),
    ({"input": []}, "input", "at least 1"),
    ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role", "'user'"),
    ({"input": [{"role": "user"}]}, "input[0].content", "Missing"),
    ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type", "Missing"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type", "'input_image'"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "'item_reference'"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id", "Missing"),
    ({"tool_choice": {"type": "file_search"}}, "tool_choice.type", "'file_search'"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format.type", "'grammar'"),
    ({"background": True, "store": False}, "background", "only allowed when the response is stored"),
    ({"conversation": "c"}, "conversation", "not supported"),
    ({"prompt": {"id": "p"}}, "prompt", "not supported"),
    ({"truncation": "auto"}, "truncation", "not supported"),
    ({"model": "other"}, "model", "does not exist"),
    ({"thinking_token_budget": -1}, "thinking_token_budget", "greater than or equal to 0"),
    ({"reasoning": {"effort": "extreme"}}, "reasoning.effort", "'medium'"),
    ({"input": "word " * 5000}, "input", "context length"),
]


@pytest.mark.parametrize(("fields", "param", "said"), REFUSED, ids=lambda value: str(value)[:40])
async def test_what_is_wrong_is_named_as_it_was_sent(served: Served, fields, param, said):
    reply = await served.http.post(URL, json={"input": "Hello"} | fields)
    error = reply.json()["error"]
    assert reply.status_code == (404 if param == "model" else 400)
    assert error["param"] == param
    assert said in error["message"]


async def test_what_clients_send_by_habit_is_taken(served: Served):
    fields = {
        "include": ["reasoning.encrypted_content"],
        "truncation": "disabled",
        "background": False,
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "service_tier": "auto",
        "prompt_cache_key": "x",
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "reasoning": {"effort": None, "summary": "auto"},
    }
    reply = await ask(served, **fields)
    assert reply.status_code == 200, reply.text


async def test_a_failure_in_a_stream_is_its_last_event(tmp_path):
    async with serving(tmp_path, fake={"token_seconds": 0.01}) as served:
        asking = asyncio.create_task(ask(served, stream=True, max_output_tokens=3000))
        await served.until_metric('antiphon_requests_running{endpoint="responses"}', 1)
        await served.engine.drain(0)
        await served.engine.stop()
        events = named_events((await asking).text)
        name, payload = events[-1]
        assert name == "response.failed"
        assert payload["response"]["error"]["code"] == "not_ready"
        assert [payload["sequence_number"] for _, payload in events] == list(range(len(events)))


async def test_requests_are_in_the_accounts(served: Served):
    await ask(served)
    await served.until_metric('antiphon_requests_running{endpoint="responses"}', 0)
    assert (await served.metrics())['antiphon_requests_finished_total{endpoint="responses"}'] >= 1
    await served.check_accounts()


async def test_a_stored_response_is_streamed_again(served: Served):
    stored = (await ask(served)).json()
    url = f"{URL}/{stored['id']}"
    reply = await served.http.get(url, params={"stream": "true"})
    assert reply.headers["content-type"].startswith("text/event-stream")
    replayed = named_events(reply.text)
    assert [payload["sequence_number"] for _, payload in replayed] == list(range(len(replayed)))
    streamed = named_events((await ask(served, stream=True)).text)
    kinds = list(dict.fromkeys(name for name, _ in streamed))
    assert list(dict.fromkeys(name for name, _ in replayed)) == kinds
    assert replayed[-1][1]["response"] == stored
    rest = named_events((await served.http.get(url, params={"stream": "true", "starting_after": 3})).text)
    assert rest == replayed[4:]
    for query, param in (({"starting_after": "1"}, "starting_after"), ({"stream": "perhaps"}, "stream")):
        refused = await served.http.get(url, params=query)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_thoughts_and_calls_are_streamed_again(tmp_path):
    script = '<think>so</think>well<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    async with serving(tmp_path, template=R1_TEMPLATE, script=script, tool_call_parser="hermes") as server:
        tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
        stored = (await ask(server, tools=tools, max_output_tokens=200)).json()
        assert {item["type"] for item in stored["output"]} == {"reasoning", "message", "function_call"}
        reply = await server.http.get(f"{URL}/{stored['id']}", params={"stream": "true"})
        done = [payload["item"] for name, payload in named_events(reply.text) if name == "response.output_item.done"]
        assert done == stored["output"]


async def test_what_a_response_answered_can_be_listed(served: Served):
    first = (await ask(served, "one")).json()
    second = (await ask(served, [{"role": "user", "content": "two"}], previous_response_id=first["id"])).json()
    url = f"{URL}/{second['id']}/input_items"
    listed = (await served.http.get(url, params={"order": "asc"})).json()
    assert [item["role"] for item in listed["data"]] == ["user", "assistant", "user"]
    assert [item["content"][0]["text"] for item in listed["data"][::2]] == ["one", "two"]
    assert (listed["has_more"], listed["first_id"]) == (False, listed["data"][0]["id"])
    pages, after = [], {}
    while True:
        page = (await served.http.get(url, params={"limit": 1, **after})).json()
        pages += page["data"]
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert pages == listed["data"][::-1]
    refused = await served.http.get(url, params={"after": "item_x"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "after")
    official = await served.openai.responses.input_items.list(second["id"])
    assert len(official.data) == 3


async def test_input_tokens_are_counted(served: Served):
    counted = await served.http.post(f"{URL}/input_tokens", json={"input": "Hello", "instructions": "Be brief."})
    answered = (await ask(served, instructions="Be brief.")).json()
    assert counted.json() == {"object": "response.input_tokens", "input_tokens": answered["usage"]["input_tokens"]}


async def test_instructions_and_the_first_system_items_are_one_message(tmp_path):
    # R1's template shows the last system message alone.
    async with serving(tmp_path, template=R1_TEMPLATE, system_prompt="keep") as server:
        items = [{"role": role, "content": role.upper()} for role in ("system", "developer", "user")]

        async def count(**fields):
            return (await server.http.post(f"{URL}/input_tokens", json=fields)).json()["input_tokens"]

        both = await count(input=items, instructions="INSTRUCTED")
        assert both == await count(input=items[2:], instructions="INSTRUCTED\n\nSYSTEM\n\nDEVELOPER")
