"""What `/v1/responses` has besides OpenAI's fields: continuing, thinking, penalties, stops, progress, timings."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from http_server import Served, events, joined, named_events, serving
from patience import PATIENCE
from tiny_checkpoints import R1_TEMPLATE

URL = "/v1/responses"
IT_IS = {"role": "assistant", "content": "It is "}
HI = {"role": "user", "content": "Hi"}
PARIS = "Let me see.\n\nYes, so.\n</think>\n\nParis it is.<｜end▁of▁sentence｜>"


async def ask(served: Served, input: Any = "Hi", **fields: Any) -> Any:
    reply = await served.http.post(URL, json={"input": input, "seed": 1, **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


async def told(served: Served, input: Any = "Hi", **fields: Any) -> list[tuple[str, Any]]:
    reply = await served.http.post(URL, json={"input": input, "seed": 1, "stream": True, **fields})
    assert reply.status_code == 200, reply.text
    return named_events(reply.text)


def text_of(response: Any, kind: str) -> str:
    return "".join(part["text"] for item in response["output"] if item["type"] == kind for part in item["content"])


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


async def spelled(served: Served, messages: list[Any], **fields: Any) -> int:
    reply = await served.http.post("/tokenize", json={"messages": messages, **fields})
    return reply.json()["count"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_thought_goes_on_inside_itself(tmp_path, stream):
    async with serving(tmp_path, template=R1_TEMPLATE, script="so.\n</think>\n\nParis.<｜end▁of▁sentence｜>") as served:
        fields = {"continue_final_message": True}
        response = (
            (await told(served, [HI, thought("Let me ")], **fields))[-1][1]["response"]
            if stream
            else await ask(served, [HI, thought("Let me ")], **fields)
        )
        assert (text_of(response, "reasoning"), text_of(response, "message")) == ("so.", "Paris.")
        chat = [HI, {"role": "assistant", "reasoning_content": "Let me "}]
        assert response["usage"]["input_tokens"] == await spelled(served, chat, continue_final_message=True)


async def test_an_answer_goes_on_inside_itself(tmp_path):
    async with serving(tmp_path) as served:
        for items in ([HI, IT_IS], [HI, thought("Hm."), IT_IS]):
            response = await ask(served, items, continue_final_message=True, max_output_tokens=4)
            chat = {"messages": [HI, IT_IS], "continue_final_message": True, "max_tokens": 4, "seed": 1}
            if len(items) == 2:
                reply = (await served.http.post("/v1/chat/completions", json=chat)).json()
                assert text_of(response, "message") == reply["choices"][0]["message"]["content"]
            assert response["output"][-1]["type"] == "message"


async def test_what_is_continued_and_what_continues_it_are_one_turn_later(tmp_path):
    async with serving(tmp_path, template=R1_TEMPLATE, script=PARIS) as served:
        for begun, sent, kinds in (
            ([thought("Hm, ")], ["user", "reasoning"], ["user", "reasoning", "assistant"]),
            ([thought("Hm."), IT_IS], ["user", "reasoning", "assistant"], ["user", "reasoning", "assistant"]),
            ([IT_IS], ["user", "assistant"], ["user", "assistant"]),
        ):
            first = await ask(served, [HI, *begun], continue_final_message=True, max_output_tokens=200)
            second = await ask(served, "And?", previous_response_id=first["id"], max_output_tokens=5)
            url = f"{URL}/{second['id']}/input_items"
            listed = (await served.http.get(url, params={"order": "asc"})).json()["data"]
            assert [item.get("role", item["type"]) for item in listed] == [*kinds, "user"]
            whole = begun[-1].get("content", "") if begun[-1].get("role") else ""
            assert listed[-2]["content"][0]["text"] == whole + text_of(first, "message")
            if len(begun) == 1 and begun[0].get("type"):
                assert listed[1]["content"][0]["text"] == "Hm, " + text_of(first, "reasoning")
            asked = (await served.http.get(f"{URL}/{first['id']}/input_items", params={"order": "asc"})).json()["data"]
            assert [item.get("role", item["type"]) for item in asked] == sent
            assert "".join(part["text"] for part in asked[-1]["content"]) in ("Hm, ", "It is ")


@pytest.mark.parametrize("where", ["thought", "answer"])
async def test_the_parts_of_a_text_that_was_cut_anywhere_are_the_text(tmp_path, where):
    """The blank lines at a cut are neither lost nor doubled, whether the cut is before or behind them."""
    async with serving(tmp_path, template=R1_TEMPLATE, script="\n\nNext paragraph.") as served:
        begun = thought("First.") if where == "thought" else {"role": "assistant", "content": "First."}
        kind = "reasoning" if where == "thought" else "message"
        response = await ask(served, [HI, begun], continue_final_message=True, max_output_tokens=10, loop_guard=False)
        assert text_of(response, kind).startswith("\n\nNext")
        message = {"role": "assistant", ("reasoning_content" if where == "thought" else "content"): "First."}
        body = {"messages": [HI, message], "continue_final_message": True, "max_tokens": 10, "loop_guard": False}
        reply = (await served.http.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"]
        assert reply["reasoning_content" if where == "thought" else "content"].startswith("\n\nNext")


async def test_what_cannot_be_continued_is_refused(tmp_path):
    async with serving(tmp_path) as served:
        for input in ("Hi", [HI], [HI, {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}]):
            reply = await served.http.post(URL, json={"input": input, "continue_final_message": True})
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "continue_final_message")


async def test_the_thought_is_limited_by_every_field(tmp_path):
    async with serving(tmp_path, template=R1_TEMPLATE, script="and so on, ", loop_guard=False) as served:
        for fields in ({"thinking_token_budget": 20}, {"max_thinking_tokens": 20}, {"thinking_budget": 20}):
            response = await ask(served, max_output_tokens=60, **fields)
            assert response["thought_closed"] == "budget"
            assert 20 <= response["usage"]["output_tokens_details"]["reasoning_tokens"] <= 22
            last = (await told(served, max_output_tokens=60, **fields))[-1][1]["response"]
            assert last["thought_closed"] == "budget"
        none = await ask(served, max_output_tokens=20, enable_thinking=False)
        assert [item["type"] for item in none["output"]] == ["message"]
        assert "thought_closed" not in none
        differ = {"input": "Hi", "thinking_token_budget": 1, "max_thinking_tokens": 2}
        refused = await served.http.post(URL, json=differ)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "thinking_token_budget")


@pytest.mark.parametrize(
    "fields",
    [{"stop": ["b"]}, {"repetition_penalty": 5.0}, {"presence_penalty": 2.0}, {"frequency_penalty": 2.0}],
    ids=str,
)
async def test_penalties_and_stops_do_as_in_chat(tmp_path, fields):
    async with serving(tmp_path) as served:
        response = await ask(served, max_output_tokens=40, **fields)
        reply = (await served.chat("Hi", max_tokens=40, seed=1, **fields)).json()
        assert text_of(response, "message") == reply["choices"][0]["message"]["content"]
        assert (response["status"] == "completed") == (reply["choices"][0]["finish_reason"] == "stop")


@pytest.mark.parametrize("background", [False, True])
async def test_thought_and_answer_have_the_log_probabilities_of_their_own_tokens(tmp_path, background):
    include = ["message.output_text.logprobs", "reasoning.reasoning_text.logprobs"]
    fields = {"top_logprobs": 1, "max_output_tokens": 200, "background": background}
    async with serving(tmp_path, template=R1_TEMPLATE, script=PARIS) as served:
        found = await told(served, include=include, **fields)
        response = found[-1][1]["response"]
        thought, answer = (item["content"][0]["logprobs"] for item in response["output"])
        usage = response["usage"]
        num_thought = usage["output_tokens_details"]["reasoning_tokens"]
        assert (len(thought), len(answer)) == (num_thought, usage["output_tokens"] - num_thought - 1)
        assert "".join(each["token"] for each in thought).startswith("Let me see.\n\nYes, so.\n")
        assert "".join(each["token"] for each in answer).endswith("Paris it is.")
        for kind, whole in (("reasoning_text", thought), ("output_text", answer)):
            deltas = [payload for name, payload in found if name == f"response.{kind}.delta"]
            assert [each for payload in deltas for each in payload.get("logprobs", ())] == whole
        again = await served.http.get(f"{URL}/{response['id']}", params={"stream": "true"})
        assert named_events(again.text)[-1][1]["response"] == response
        if background:
            assert named_events(again.text) == found
        only = (await told(served, include=include[1:], **fields | {"top_logprobs": 0}))[-1][1]["response"]
        assert len(only["output"][0]["content"][0]["logprobs"]) == num_thought
        assert only["output"][1]["content"][0]["logprobs"] == []
        neither = (await told(served, **fields | {"top_logprobs": 0}))[-1][1]["response"]
        assert "logprobs" not in neither["output"][0]["content"][0]


async def test_every_ending_has_timings(tmp_path):
    async with serving(tmp_path, fake={"token_seconds": 0.005}) as served:
        whole = await ask(served, max_output_tokens=4)
        last = (await told(served, max_output_tokens=4))[-1][1]["response"]
        begun = await ask(served, background=True)
        assert "timings" not in begun
        cancelled = (await served.http.post(f"{URL}/{begun['id']}/cancel")).json()
        for response in (whole, last):
            assert response["timings"]["predicted_n"] == response["usage"]["output_tokens"] == 4
            assert response["timings"]["prompt_ms"] > 0
        assert cancelled["timings"]["predicted_n"] == cancelled["usage"]["output_tokens"]
        first = (await told(served, max_output_tokens=4))[0][1]["response"]
        assert "timings" not in first


@pytest.mark.parametrize("background", [False, True])
async def test_a_stream_says_how_far_it_is_and_counts_its_tokens(tmp_path, background):
    async with serving(tmp_path, script="abc", prefill_chunk=64) as served:
        fields = {"max_output_tokens": 12, "background": background}
        found = await told(served, "Hello " * 100, return_progress=True, **fields)
        progress = [payload["prompt_progress"] for name, payload in found if name == "response.progress"]
        assert progress[-1]["processed"] == progress[-1]["total"] == found[-1][1]["response"]["usage"]["input_tokens"]
        counts = [payload["num_tokens"] for name, payload in found if name.endswith(".delta")]
        assert counts == sorted(counts)
        assert counts[-1] == 12
        names = [name for name, _ in found]
        assert names.index("response.in_progress") < names.index("response.progress")
        assert names.index("response.progress") < names.index("response.output_item.added")
        assert [payload["sequence_number"] for _, payload in found] == list(range(len(found)))
        plain = await told(served, "Hello " * 100, **fields)
        assert "response.progress" not in [name for name, _ in plain]
        assert not [payload for _, payload in plain if "num_tokens" in payload]
        if background:
            reply = await served.http.get(f"{URL}/{found[0][1]['response']['id']}", params={"stream": "true"})
            assert named_events(reply.text) == found


async def test_a_background_response_says_its_place_before_it_is_in_progress(tmp_path):
    async with serving(tmp_path, max_num_sequences=1, fake={"step_seconds": 0.02}) as served:
        holds = await ask(served, background=True)
        fields = {"return_progress": True, "max_output_tokens": 3, "background": True}
        waits = asyncio.create_task(told(served, **fields))
        async with asyncio.timeout(PATIENCE):
            while not served.engine.stats.waiting:  # noqa: ASYNC110  # another process's state
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # the place is told four times a second
        await served.http.post(f"{URL}/{holds['id']}/cancel")
        found = await waits
        kinds = ["queue" if "queue" in payload else name for name, payload in found]
        assert kinds[:4] == ["response.created", "response.queued", "queue", "response.in_progress"]
        assert found[2][1]["queue"] == {"position": 1}
        assert [payload["response"]["status"] for _, payload in found[:4] if "response" in payload] == [
            "queued",
            "queued",
            "in_progress",
        ]


async def answer_now(served: Served, api: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Think for a while, then close the thought and answer; the thought, the first reply and the last one."""
    if api == "responses":
        begun = await ask(served, "Hi " * 40, background=True)
        async with asyncio.timeout(PATIENCE):
            while len(text_of(now := (await served.http.get(f"{URL}/{begun['id']}")).json(), "reasoning")) < 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        stopped = (await served.http.post(f"{URL}/{begun['id']}/cancel")).json()
        assert text_of(stopped, "reasoning").startswith(text_of(now, "reasoning"))
        (so_far,) = stopped["output"]
        asked = [{"role": "user", "content": "Hi " * 40}, so_far]
        fields = {"continue_final_message": True, "thinking_token_budget": 0, "max_output_tokens": 30}
        return text_of(stopped, "reasoning"), stopped, await ask(served, asked, **fields)
    body = {"messages": [{"role": "user", "content": "Hi " * 40}], "stream": True, "seed": 1}
    received = ""
    async with served.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        async for chunk in reply.aiter_text():
            received += chunk
            if received.count("reasoning_content") > 60:
                break
    whole = received[: received.rindex("\n\n")] + "\n\ndata: [DONE]\n\n"
    so_far = joined(events(whole), "reasoning_content")
    body["messages"] += [{"role": "assistant", "reasoning_content": so_far}]
    body |= {"stream": False, "continue_final_message": True, "thinking_token_budget": 0, "max_tokens": 30}
    return so_far, {}, (await served.http.post("/v1/chat/completions", json=body)).json()


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_answer_now_keeps_the_thought_and_costs_little(tmp_path, api):
    """As docs/api.md describes it."""
    fake = {"token_seconds": 0.002}
    async with serving(tmp_path, template=R1_TEMPLATE, script="and so on, ", loop_guard=False, fake=fake) as served:
        so_far, _, reply = await answer_now(served, api)
        assert len(so_far) > 50
        if api == "responses":
            assert [item["type"] for item in reply["output"]] == ["message"]
            assert text_of(reply, "message").startswith("so on, and so on, ")
            assert reply["thought_closed"] == "budget"
            num_prompt, num_cached = reply["usage"]["input_tokens"], reply["timings"]["cache_n"]
        else:
            message = reply["choices"][0]["message"]
            assert message["reasoning_content"] == ""
            assert message["content"].startswith("so on, and so on, ")
            assert reply["choices"][0]["thought_closed"] == "budget"
            num_prompt, num_cached = reply["usage"]["prompt_tokens"], reply["timings"]["cache_n"]
        prompt = await spelled(served, [{"role": "user", "content": "Hi " * 40}])
        assert num_prompt > prompt + 40
        assert num_prompt - num_cached <= 32, "all but the last blocks of prompt and thought are in the prefix cache"
