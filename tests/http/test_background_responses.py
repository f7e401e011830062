"""`background: true`: the answer goes on without its client, and anybody with its id and key follows or ends it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import pytest
from http_server import Served, named_events, serving, until
from patience import PATIENCE
from tiny_checkpoints import R1_TEMPLATE

from antiphon.api_keys import read_api_keys
from antiphon.http import sse

URL = "/v1/responses"
RUNNING = 'antiphon_requests_running{endpoint="responses"}'
SLOW = {"token_seconds": 0.005}  # an answer that a test can catch while it runs
THOUGHT = "Let me see, let me see.</think>\n\nParis it is.<｜end▁of▁sentence｜>"


async def begin(served: Served, input: Any = "Hello", headers: dict[str, str] | None = None, **fields: Any) -> Any:
    body = {"input": input, "max_output_tokens": 12, "seed": 1, "background": True, **fields}
    reply = await served.http.post(URL, json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def state(served: Served, id: str) -> Any:
    return (await served.http.get(f"{URL}/{id}")).json()


async def ended(served: Served, id: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        while (now := await state(served, id))["status"] in ("queued", "in_progress"):  # noqa: ASYNC110  # another task's state
            await asyncio.sleep(0.01)
    return now


def text_of(response: Any) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content", ()))


async def replay(served: Served, id: str, after: int | None = None) -> bytes:
    query = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    reply = await served.http.get(f"{URL}/{id}", params=query)
    assert reply.headers["content-type"].startswith("text/event-stream")
    return reply.content


async def streamed(served: Served, **fields: Any) -> bytes:
    body = {"input": "Hello", "max_output_tokens": 12, "seed": 1, "background": True, "stream": True, **fields}
    return (await served.http.post(URL, json=body)).content


def parts(stream: bytes) -> list[bytes]:
    """The events of a stream, framed as they were sent; keep-alive comments are left out."""
    return [part for part in stream.split(b"\n\n") if part and not part.startswith(b":")]


async def leave_after(served: Served, num_events: int, **fields: Any) -> tuple[str, list[bytes]]:
    """Begin a streamed background response and close the connection; its id, and the events that had come."""
    body = {"input": "Hello", "seed": 1, "background": True, "stream": True, **fields}
    received = b""
    async with served.http.stream("POST", URL, json=body) as reply:
        async for chunk in reply.aiter_raw():
            received += chunk
            if received.count(b"\n\n") >= num_events:
                break
    whole = received[: received.rindex(b"\n\n")]
    return json.loads(parts(whole)[0].partition(b"data: ")[2])["response"]["id"], parts(whole)


async def test_the_reply_comes_at_once_and_the_answer_later(tmp_path):
    async with serving(tmp_path, fake=SLOW) as served:
        begun = await begin(served)
        assert (begun["status"], begun["background"], begun["output"], begun["usage"]) == ("queued", True, [], None)
        over = await ended(served, begun["id"])
        usual = (await served.http.post(URL, json={"input": "Hello", "max_output_tokens": 12, "seed": 1})).json()
        assert over["status"] == usual["status"] == "incomplete"
        assert text_of(over) == text_of(usual)
        assert over["usage"]["output_tokens"] == 12
        assert over["id"] == begun["id"]


async def test_the_state_of_a_running_response_has_the_text_so_far(tmp_path):
    async with serving(tmp_path, fake=SLOW) as served:
        id = (await begin(served, max_output_tokens=60))["id"]
        async with asyncio.timeout(PATIENCE):
            while not text_of(now := await state(served, id)):  # noqa: ASYNC110  # the same
                await asyncio.sleep(0.01)
        assert (now["status"], now["usage"], now["output"][0]["status"]) == ("in_progress", None, "in_progress")
        assert text_of(await ended(served, id)).startswith(text_of(now))


async def test_an_answer_goes_on_when_its_client_leaves(tmp_path):
    async with serving(tmp_path, fake=SLOW) as served:
        id, received = await leave_after(served, 6, max_output_tokens=80)
        assert (await state(served, id))["status"] == "in_progress"
        rest = parts(await replay(served, id, len(received) - 1))
        names = [name for name, _ in named_events("\n\n".join(part.decode() for part in received + rest))]
        assert names[:3] == ["response.created", "response.queued", "response.in_progress"]
        assert names[-1] == "response.incomplete"
        assert [json.loads(part.partition(b"data: ")[2])["sequence_number"] for part in received + rest] == list(
            range(len(names))
        )
        assert received + rest == parts(await replay(served, id))
        assert text_of(await state(served, id))


@pytest.mark.parametrize("fields", [{}, {"include": ["message.output_text.logprobs"], "top_logprobs": 2}], ids=str)
async def test_every_reader_gets_the_same_bytes_at_any_time(tmp_path, fields):
    script = THOUGHT.replace(
        "Paris it is.", 'Well, é 👋 "\\. <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    )
    async with serving(tmp_path, template=R1_TEMPLATE, script=script, fake=SLOW, tool_call_parser="hermes") as served:
        tools = [{"type": "function", "name": "f", "parameters": {"type": "object", "minimum": 10**18}}]
        first = asyncio.create_task(
            streamed(served, max_output_tokens=300, tools=tools, temperature=1, metadata={"a": "b"}, **fields)
        )
        await served.until_metric(RUNNING, 1)
        (id,) = served.server.app.state.context.responses._running
        others = [asyncio.create_task(replay(served, id, after)) for after in (None, 0, 2, 7)]
        sent = await first
        kinds = {item["type"] for item in (await state(served, id))["output"]}
        assert kinds == {"reasoning", "message", "function_call"}
        assert len(parts(sent)) > 20
        for after, other in zip((None, 0, 2, 7), others, strict=True):
            assert parts(await other) == parts(sent)[0 if after is None else after + 1 :]
        for after in (None, 0, 5, len(parts(sent)) - 2, len(parts(sent)) - 1, 10**6):
            assert await replay(served, id, after) == b"".join(
                part + b"\n\n" for part in parts(sent)[0 if after is None else after + 1 :]
            )


async def test_the_last_event_has_the_stored_response_which_can_be_continued(tmp_path):
    async with serving(tmp_path) as served:
        last = named_events((await streamed(served)).decode())[-1][1]["response"]
        assert last == await state(served, last["id"])
        later = await begin(served, "And you?", previous_response_id=last["id"])
        assert (await ended(served, later["id"]))["previous_response_id"] == last["id"]
        listed = (await served.http.get(f"{URL}/{later['id']}/input_items", params={"order": "asc"})).json()
        assert [item["role"] for item in listed["data"]] == ["user", "assistant", "user"]


async def test_cancel_frees_the_sequence_at_once_and_keeps_the_text(tmp_path):
    async with serving(tmp_path, fake=SLOW) as served:
        id, received = await leave_after(served, 8, max_output_tokens=2000)
        reader = asyncio.create_task(replay(served, id))
        reply = await served.http.post(f"{URL}/{id}/cancel")
        cancelled = reply.json()
        assert (reply.status_code, cancelled["status"]) == (200, "cancelled")
        assert served.engine.counters.running == 0
        assert text_of(cancelled)
        assert cancelled["usage"]["output_tokens"] > 0
        assert cancelled["output"][-1]["status"] == "incomplete"
        assert (await served.http.post(f"{URL}/{id}/cancel")).json() == cancelled == await state(served, id)
        seen = parts(await reader)
        assert seen[: len(received)] == received
        name, payload = named_events(seen[-1].decode())[0]
        assert (name, payload["response"]) == ("response.incomplete", cancelled)
        await served.until_metric("antiphon_sequences_running", 0)
        assert (await served.metrics())['antiphon_requests_aborted_total{endpoint="responses"}'] == 1
        await served.check_accounts()
        assert (await ended(served, (await begin(served, "More", previous_response_id=id))["id"]))["output"]


async def test_a_response_that_waits_can_be_cancelled_too(tmp_path):
    async with serving(tmp_path, fake=SLOW, max_num_sequences=1) as served:
        first = await begin(served, max_output_tokens=2000)
        second = await begin(served, max_output_tokens=2000)
        assert (await state(served, second["id"]))["status"] == "queued"
        cancelled = (await served.http.post(f"{URL}/{second['id']}/cancel")).json()
        assert (cancelled["status"], cancelled["output"]) == ("cancelled", [])
        assert served.engine.counters.running == 1
        names = [name for name, _ in named_events((await replay(served, second["id"])).decode())]
        assert names == ["response.created", "response.queued", "response.incomplete"]
        await served.http.post(f"{URL}/{first['id']}/cancel")


async def test_cancelling_what_has_ended_returns_it_and_what_never_ran_there_is_refused(tmp_path):
    async with serving(tmp_path) as served:
        over = await ended(served, (await begin(served))["id"])
        assert (await served.http.post(f"{URL}/{over['id']}/cancel")).json() == over
        usual = (await served.http.post(URL, json={"input": "Hello", "max_output_tokens": 4})).json()
        refused = await served.http.post(f"{URL}/{usual['id']}/cancel")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "response_id")
        assert "'background': true" in refused.json()["error"]["message"]
        assert (await served.http.post(f"{URL}/resp_none/cancel")).status_code == 404


async def test_deleting_a_running_response_cancels_it(tmp_path):
    async with serving(tmp_path, fake=SLOW) as served:
        id, _ = await leave_after(served, 6, max_output_tokens=2000)
        reader = asyncio.create_task(replay(served, id))
        await until(lambda: not reader.done())
        await state(served, id)  # the reader is connected by now, or finds nothing
        assert (await served.http.delete(f"{URL}/{id}")).json()["deleted"] is True
        assert served.engine.counters.running == 0
        assert (await served.http.get(f"{URL}/{id}")).status_code == 404
        assert len(served.server.app.state.context.responses) == 0
        assert served.server.app.state.context.responses.num_bytes == 0
        await reader


async def test_a_running_response_cannot_be_continued_yet(tmp_path):
    async with serving(tmp_path, fake=SLOW) as served:
        id = (await begin(served, max_output_tokens=2000))["id"]
        refused = await served.http.post(URL, json={"input": "And?", "previous_response_id": id})
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (400, "previous_response_id")
        assert "still being generated" in error["message"]
        listed = (await served.http.get(f"{URL}/{id}/input_items")).json()
        assert [item["content"][0]["text"] for item in listed["data"]] == ["Hello"]
        await served.http.post(f"{URL}/{id}/cancel")


async def test_a_key_does_not_see_the_responses_of_another(tmp_path):
    keys = read_api_keys(["ann:key-of-ann-0123456789", "bob:key-of-bob-0123456789"])
    ann, bob = ({"authorization": f"Bearer key-of-{name}-0123456789"} for name in ("ann", "bob"))
    async with serving(tmp_path, fake=SLOW, api_keys=keys) as served:
        running = (await begin(served, headers=ann, max_output_tokens=2000))["id"]
        body = {"input": "Hello", "max_output_tokens": 4}
        stored = (await served.http.post(URL, json=body, headers=ann)).json()["id"]
        for id in (running, stored):
            for method, path in (("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")):
                assert (await served.http.request(method, f"{URL}/{id}{path}", headers=bob)).status_code == 404
            later = await served.http.post(URL, json=body | {"previous_response_id": id}, headers=bob)
            assert later.status_code == 404
            assert (await served.http.get(f"{URL}/{id}", headers=ann)).status_code == 200
        assert (await served.http.post(f"{URL}/{running}/cancel", headers=ann)).json()["status"] == "cancelled"
        later = await served.http.post(URL, json=body | {"previous_response_id": stored}, headers=ann)
        assert later.status_code == 200


async def test_a_failure_is_kept_with_the_text_before_it(tmp_path):
    async with serving(tmp_path, fake=SLOW) as served:
        id, received = await leave_after(served, 8, max_output_tokens=3000)
        reader = asyncio.create_task(replay(served, id))
        await state(served, id)
        await served.engine.drain(0)
        await served.engine.stop()
        over = await ended(served, id)
        assert (over["status"], over["error"]["code"]) == ("failed", "not_ready")
        assert text_of(over)
        seen = parts(await reader)
        assert seen[: len(received)] == received
        assert named_events(seen[-1].decode())[0][1]["response"] == over
        await served.until_metric(RUNNING, 0)
        await served.check_accounts()


async def test_a_reader_who_reads_nothing_holds_up_nobody(tmp_path):
    async with serving(tmp_path, max_unread_tokens=5) as served:
        body = {"input": "Hello", "max_output_tokens": 3000, "background": True, "stream": True}
        async with served.http.stream("POST", URL, json=body) as reply:
            (id,) = served.server.app.state.context.responses._running
            over = await ended(served, id)
            assert over["usage"]["output_tokens"] == 3000
            assert named_events((await reply.aread()).decode())[-1][1]["response"] == over


async def test_readers_get_comments_in_a_long_silence(tmp_path, monkeypatch):
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.05)
    async with serving(tmp_path, fake={"step_seconds": 0.4}) as served:
        id = (await begin(served, max_output_tokens=3))["id"]
        assert b": still at it\n\n" in await replay(served, id)
        assert b": still at it\n\n" not in await replay(served, id)


async def test_draining_waits_for_background_responses(tmp_path):
    async with serving(tmp_path, fake=SLOW) as served:
        id = (await begin(served, max_output_tokens=40))["id"]
        assert await served.engine.drain(PATIENCE)
        assert (await ended(served, id))["usage"]["output_tokens"] == 40


async def test_an_answer_survives_its_engine(tmp_path):
    async with serving(tmp_path, fake=SLOW) as served:
        usual = (await served.http.post(URL, json={"input": "Hello", "max_output_tokens": 60, "seed": 1})).json()
        id, received = await leave_after(served, 8, max_output_tokens=60)
        assert served.engine.engine_pid
        os.kill(served.engine.engine_pid, signal.SIGKILL)
        over = await ended(served, id)
        assert text_of(over) == text_of(usual)
        assert served.engine.restarts == 1
        assert parts(await replay(served, id))[: len(received)] == received


async def test_the_running_ones_are_bounded_in_number(tmp_path):
    async with serving(tmp_path, fake=SLOW, max_queued_requests=2) as served:
        ids = [(await begin(served, max_output_tokens=2000))["id"] for _ in range(2)]
        body = {"input": "Hello", "background": True}
        refused = await served.http.post(URL, json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_overloaded")
        store = served.server.app.state.context.responses
        assert set(store._reserved) == set(ids)
        for id in ids:
            await served.http.post(f"{URL}/{id}/cancel")


async def test_the_running_ones_are_bounded_in_bytes(tmp_path):
    async with serving(tmp_path, fake=SLOW, max_stored_bytes=40_000) as served:
        id = (await begin(served, max_output_tokens=100))["id"]
        refused = await served.http.post(URL, json={"input": "Hello", "background": True, "max_output_tokens": 100})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_overloaded")
        assert int(refused.headers["retry-after"]) > 0
        never = await served.http.post(URL, json={"input": "Hello", "background": True})
        assert (never.status_code, never.json()["error"]["param"]) == (400, "background")
        assert "--max-stored-bytes" in never.json()["error"]["message"]
        await ended(served, id)
        assert (await begin(served, max_output_tokens=100))["id"]
        await served.check_accounts()


async def test_a_response_that_outgrows_the_memory_ends_and_says_so(tmp_path):
    many = {"include": ["message.output_text.logprobs"], "top_logprobs": 20}
    async with serving(tmp_path, max_stored_bytes=120_000) as served:
        over = await ended(served, (await begin(served, max_output_tokens=1500, **many))["id"])
        assert (over["status"], over["error"]["code"]) == ("failed", "server_overloaded")
        assert "--max-stored-bytes" in over["error"]["message"]
        assert 0 < over["usage"]["output_tokens"] < 1500
        assert text_of(over)
        assert served.engine.counters.running == 0
        await served.until_metric('antiphon_requests_failed_total{endpoint="responses"}', 1)
        await served.check_accounts()


async def test_a_server_that_stores_nothing_says_so(tmp_path):
    async with serving(tmp_path, max_stored_responses=0) as served:
        refused = await served.http.post(URL, json={"input": "Hello", "background": True})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "background")
        assert "--max-stored-responses" in refused.json()["error"]["message"]


async def test_the_official_client_can_do_all_of_it(tmp_path):
    async with serving(tmp_path, fake=SLOW) as served:
        responses = served.openai.responses
        async with await responses.create(model="", input="Hello", background=True, stream=True) as stream:
            async for event in stream:
                if event.sequence_number == 5:
                    break
        assert event.type == "response.output_text.delta"
        first = [
            each
            async for each in await responses.create(
                model="", input="x", background=True, stream=True, max_output_tokens=9
            )
        ]
        assert [each.sequence_number for each in first] == list(range(len(first)))
        id = first[0].response.id
        again = [each async for each in await responses.retrieve(id, stream=True, starting_after=3)]
        assert again == first[4:]
        assert (await responses.retrieve(id)).output_text == first[-1].response.output_text
        async with responses.stream(model="", input="Hello", background=True, max_output_tokens=9) as helper:
            kinds = [each.type async for each in helper]
        assert kinds[-1] == "response.incomplete"
        async with responses.stream(response_id=id, starting_after=3) as helper:
            assert [each.sequence_number async for each in helper] == [each.sequence_number for each in first[4:]]
        extended = {"return_progress": True}
        told = [
            each
            async for each in await responses.create(
                model="", input="x", background=True, stream=True, max_output_tokens=3, extra_body=extended
            )
        ]
        assert "response.progress" in [each.type for each in told]
        running = await responses.create(model="", input="Hello", background=True)
        assert running.status in ("queued", "in_progress")
        assert (await responses.cancel(running.id)).status == "cancelled"
        assert (await responses.retrieve(running.id)).status == "cancelled"
        await responses.delete(running.id)
        for other in list(served.server.app.state.context.responses._running):
            assert (await responses.cancel(other)).status == "cancelled"
