"""`/generate` and `/generate-batch`: the plain ones; what is wrong with one item of a batch is its own affair."""

from __future__ import annotations

import asyncio

import pytest
from http_server import Served, serving
from tiny_checkpoints import R1_TEMPLATE

pytestmark = pytest.mark.asyncio(loop_scope="module")

GENERATE, BATCH = "/generate", "/generate-batch"


async def test_a_prompt_is_asked_as_a_person_would_in_a_chat(served: Served):
    fields = {"max_tokens": 8, "seed": 1, "temperature": 0.7}
    chat = (await served.chat("Hello", **fields)).json()
    body = (await served.http.post(GENERATE, json={"prompt": "Hello", **fields})).json()
    assert body["response"] == chat["choices"][0]["message"]["content"]
    assert body["finish_reason"] == "length"
    assert (body["prompt_tokens"], body["completion_tokens"]) == (chat["usage"]["prompt_tokens"], 8)
    assert body["latency_ms"] > 0
    assert "reasoning" not in body


async def test_the_query_will_do(served: Served):
    fields = {"prompt": "Hello & goodbye", "max_tokens": 8, "seed": 1, "temperature": 0.7}
    as_json = (await served.http.post(GENERATE, json=fields)).json()
    as_query = (await served.http.post(GENERATE, params=fields)).json()
    assert as_query["response"] == as_json["response"]


async def test_a_thought_is_apart_from_the_response(tmp_path):
    async with serving(tmp_path, template=R1_TEMPLATE, script="Hm.</think>\n\nParis.<｜end▁of▁sentence｜>") as served:
        body = (await served.http.post(GENERATE, json={"prompt": "Where?", "max_tokens": 100})).json()
        assert body["response"].strip() == "Paris."
        assert body["reasoning"].strip() == "Hm."


@pytest.mark.parametrize(
    ("sent", "param", "said"),
    [
        ({"json": {}}, "prompt", "Missing"),
        ({"json": {"prompt": ""}}, "prompt", "at least 1"),
        ({"json": {"prompt": "x", "max_tokens": "5"}}, "max_tokens", "integer"),
        ({"json": {"prompt": "x", "stream": True}}, "stream", "Unknown"),
        ({"json": {"prompt": "word " * 5000}}, "prompt", "context length"),
        ({"params": {"prompt": "x", "max_tokens": "many"}}, "max_tokens", "integer"),
        ({"params": [("prompt", "x"), ("prompt", "y")]}, None, "more than once"),
        ({"params": {"prompt": "x"}, "json": {"prompt": "y"}}, None, "not in both"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_wrong_is_named(served: Served, sent, param, said):
    reply = await served.http.post(GENERATE, **sent)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, param)
    assert said in error["message"]


async def test_nothing_sent_is_no_json(served: Served):
    assert (await served.http.post(GENERATE)).status_code == 415


async def test_results_come_in_order_each_as_if_asked_alone(served: Served):
    items = [{"id": f"q{n}", "prompt": f"Question {n}", "max_tokens": 3 + n, "seed": n} for n in range(9)]
    reply = (await served.http.post(BATCH, json={"requests": items})).json()
    assert [result["request_id"] for result in reply["results"]] == [item["id"] for item in items]
    for item, result in zip(items, reply["results"], strict=True):
        alone = {name: value for name, value in item.items() if name != "id"}
        assert result["response"] == (await served.http.post(GENERATE, json=alone)).json()["response"]
        assert result["completion_tokens"] == item["max_tokens"]


async def test_an_item_that_is_wrong_spoils_no_other(served: Served):
    items = [
        {"id": "good", "prompt": "Hello", "max_tokens": 2},
        {"id": "typo", "promt": "Hello"},
        {"id": 7, "prompt": "Hello", "max_tokens": 0},
        "Hello",
        {"prompt": "Hello", "max_tokens": 2},
    ]
    reply = await served.http.post(BATCH, json=items)
    assert reply.status_code == 200
    results = reply.json()["results"]
    assert [result["request_id"] for result in results] == ["good", "typo", 7, 3, 4]
    assert [result.get("error", {}).get("param") for result in results] == [None, "prompt", "max_tokens", None, None]
    assert ["response" in result for result in results] == [True, False, False, False, True]


@pytest.mark.parametrize("body", [{}, {"requests": []}, {"requests": "x"}, [], 5, [{"prompt": "x"}] * 1025])
async def test_what_is_no_batch_is_refused_whole(served: Served, body):
    reply = await served.http.post(BATCH, json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "requests")


async def test_a_field_beside_the_items_is_refused(served: Served):
    reply = await served.http.post(BATCH, json={"requests": [{"prompt": "x"}], "max_tokens": 5})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "max_tokens")


async def test_a_batch_longer_than_the_queue_waits_its_turn_and_leaves_room_for_others(tmp_path):
    async with serving(tmp_path, max_queued_requests=8, fake={"token_seconds": 0.002}) as served:
        batch = [{"prompt": f"Question {n}", "max_tokens": 30} for n in range(20)]
        asking = asyncio.create_task(served.http.post(BATCH, json=batch))
        running = 'antiphon_requests_running{endpoint="generate_batch"}'
        await served.until_metric(running, 2)
        assert (await served.chat(max_tokens=1)).status_code == 200
        results = (await asking).json()["results"]
        assert not [result for result in results if "error" in result]
        await served.until_metric('antiphon_requests_finished_total{endpoint="generate_batch"}', 20)
        await served.check_accounts()


async def test_a_client_that_leaves_ends_all_of_its_batch(tmp_path):
    async with serving(tmp_path, fake={"token_seconds": 0.01}) as served:
        batch = [{"prompt": "Hello", "max_tokens": 3000}] * 3
        asking = asyncio.create_task(served.http.post(BATCH, json=batch))
        await served.until_metric('antiphon_requests_running{endpoint="generate_batch"}', 3)
        asking.cancel()
        await served.until_metric('antiphon_requests_aborted_total{endpoint="generate_batch"}', 3)
        await served.check_accounts()
