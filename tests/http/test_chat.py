"""Chat completions: the shapes, whole and streamed, through the official client and bare HTTP."""

from __future__ import annotations

import asyncio

import pytest
from http_server import Served, events, joined, serving
from running_server import MODEL
from tiny_checkpoints import R1_TEMPLATE

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_whole_answer(served: Served):
    reply = await served.chat(max_tokens=12, temperature=0)
    body = reply.json()
    assert reply.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == MODEL
    (choice,) = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] is None
    usage = body["usage"]
    assert usage["completion_tokens"] == 12
    assert usage["total_tokens"] == usage["prompt_tokens"] + 12
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 0}


async def test_a_stream_says_the_same(served: Served):
    whole = (await served.chat(max_tokens=20, seed=7)).json()
    reply = await served.chat(max_tokens=20, seed=7, stream=True, stream_options={"include_usage": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-accel-buffering"] == "no"
    chunks = events(reply.text)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert joined(chunks) == whole["choices"][0]["message"]["content"]
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert [reason for reason in reasons if reason] == ["length"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 20
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


async def test_usage_is_absent_from_a_stream_unless_asked_for(served: Served):
    chunks = events((await served.chat(max_tokens=3, stream=True)).text)
    assert not any("usage" in chunk for chunk in chunks)


async def test_the_official_client(served: Served):
    messages = [{"role": "user", "content": "Hello"}]
    whole = await served.openai.chat.completions.create(model=MODEL, messages=messages, max_tokens=9, temperature=0)
    stream = await served.openai.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=9, temperature=0, stream=True
    )
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == whole.choices[0].message.content
    assert [model.id async for model in served.openai.models.list()] == [MODEL]


async def test_log_probabilities(served: Served):
    reply = (await served.chat(max_tokens=4, logprobs=True, top_logprobs=3)).json()
    entries = reply["choices"][0]["logprobs"]["content"]
    assert len(entries) == 4
    for entry in entries:
        assert bytes(entry["bytes"]).decode(errors="replace") == entry["token"]
        assert entry["logprob"] <= 0
        assert len(entry["top_logprobs"]) == 3
    assert "".join(entry["token"] for entry in entries) == reply["choices"][0]["message"]["content"]
    bare = (await served.chat(max_tokens=2, logprobs=True)).json()
    assert [entry["top_logprobs"] for entry in bare["choices"][0]["logprobs"]["content"]] == [[], []]
    chunks = events((await served.chat(max_tokens=4, logprobs=True, top_logprobs=1, stream=True)).text)
    scored = [choice["logprobs"]["content"] for c in chunks for choice in c["choices"] if choice["logprobs"]]
    assert sum(map(len, scored)) == 4


async def test_several_choices_share_a_prompt_and_differ(served: Served):
    reply = (await served.chat(n=3, max_tokens=16, seed=1)).json()
    texts = [choice["message"]["content"] for choice in reply["choices"]]
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert reply["usage"]["completion_tokens"] == 48
    assert reply["usage"]["prompt_tokens"] == (await served.chat(max_tokens=1)).json()["usage"]["prompt_tokens"]
    chunks = events((await served.chat(n=3, max_tokens=16, seed=1, stream=True)).text)
    assert [joined(chunks, index=index) for index in range(3)] == texts


async def test_a_seed_repeats_an_answer_and_none_does_not(served: Served):
    async def text(**fields):
        return (await served.chat(max_tokens=24, **fields)).json()["choices"][0]["message"]["content"]

    assert await text(seed=3) == await text(seed=3)
    assert await text(seed=-3) != await text(seed=3)
    assert await text() != await text()


async def test_all_roles_and_content_parts(served: Served):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "And kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "Ann"},
        {"role": "assistant", "content": "c", "reasoning_content": "hm", "refusal": None, "annotations": []},
        {"role": "assistant", "content": None, "reasoning": "hm"},
        {"role": "tool", "content": "42", "tool_call_id": "x"},
    ]
    reply = await served.http.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 2})
    assert reply.status_code == 200, reply.text
    same = [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]
    prompt_tokens = reply.json()["usage"]["prompt_tokens"]
    reply = await served.http.post("/v1/chat/completions", json={"messages": same, "max_tokens": 2})
    assert reply.json()["usage"]["prompt_tokens"] == prompt_tokens


async def test_system_prompts_can_be_folded_into_the_users_turn(tmp_path):
    def body(*turns: tuple[str, str]) -> dict:
        messages = [{"role": role, "content": content} for role, content in turns]
        return {"messages": messages, "max_tokens": 16, "seed": 1}

    apart = body(("developer", "Be brief."), ("user", "Hello"))
    together = body(("user", "Be brief.\n\nHello"))
    for setting, same in (("keep", False), ("fold", True)):
        async with serving(tmp_path, system_prompt=setting) as server:
            replies = [(await server.http.post("/v1/chat/completions", json=each)).json() for each in (apart, together)]
        first, second = [(reply["choices"][0]["message"], reply["usage"]["prompt_tokens"]) for reply in replies]
        assert (first == second) is same


async def test_fields_without_effect_are_accepted(served: Served):
    fields = {
        "user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "parallel_tool_calls": True,
        "tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "top_k": -1, "stop": None,
    }  # fmt: skip
    assert (await served.chat(max_tokens=1, **fields)).status_code == 200


async def test_a_repeated_prompt_comes_from_the_cache(served: Served):
    question = "The same long beginning for everybody. " * 8
    await served.chat(question, max_tokens=1)
    usage = (await served.chat(question, max_tokens=1)).json()["usage"]
    assert 0 < usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]


async def test_a_salt_keeps_a_prompt_out_of_the_cache_of_others(served: Served):
    question = "A long secret that nobody else shall guess. " * 8

    async def cached(**fields: str) -> int:
        usage = (await served.chat(question, max_tokens=1, **fields)).json()["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    assert await cached(cache_salt="mine") == 0
    assert await cached() == 0
    assert await cached(cache_salt="yours") == 0
    assert await cached(cache_salt="mine") > 0
    body = {"input": question, "max_output_tokens": 1, "cache_salt": "mine"}
    usage = (await served.http.post("/v1/responses", json=body)).json()["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] > 0
    for wrong in ("", "x" * 257):
        reply = await served.chat("Hi", cache_salt=wrong)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "cache_salt")


async def test_an_answer_ends_with_its_end_of_sequence(tmp_path):
    async with serving(tmp_path, script="Paris.<｜end▁of▁sentence｜>") as server:
        reply = (await server.chat(logprobs=True)).json()
        assert reply["choices"][0]["message"]["content"] == "Paris."
        assert reply["choices"][0]["finish_reason"] == "stop"
        tokens = [entry["token"] for entry in reply["choices"][0]["logprobs"]["content"]]
        assert "".join(tokens) == "Paris."
        assert reply["usage"]["completion_tokens"] == len(tokens) + 1
        long = (await server.chat(ignore_eos=True, max_tokens=40)).json()
        assert long["choices"][0]["message"]["content"].startswith("Paris.Paris.")
        assert long["choices"][0]["finish_reason"] == "length"
        dot = server.text.tokenizer.encode(".")
        cut = (await server.chat(stop_token_ids=dot)).json()
        assert cut["choices"][0]["message"]["content"] == "Paris"
        assert cut["choices"][0]["finish_reason"] == "stop"


async def test_stop_strings_end_the_answer_and_the_work(tmp_path):
    async with serving(tmp_path, script="one two three four. ") as server:
        for stop in ("three", ["zzz", "three"]):
            reply = (await server.chat(stop=stop, max_tokens=200)).json()
            assert reply["choices"][0]["message"]["content"] == "one two "
            assert reply["choices"][0]["finish_reason"] == "stop"
        chunks = events((await server.chat(stop="three", max_tokens=200, stream=True)).text)
        assert joined(chunks) == "one two "
        assert server.engine.counters.finished == 3
        assert server.engine.counters.aborted == 0
        late = (await server.chat(stop="three", min_tokens=30, max_tokens=200)).json()
        assert late["choices"][0]["message"]["content"].startswith("one two three four. one two ")
        await server.until_metric("antiphon_requests_finished_total", 4)


async def test_the_thought_goes_out_under_both_names(tmp_path):
    script = "Let me see.\n</think>\n\nParis.<｜end▁of▁sentence｜>"
    async with serving(tmp_path, template=R1_TEMPLATE, script=script) as server:
        reply = (await server.chat()).json()
        message = reply["choices"][0]["message"]
        assert message["content"].strip() == "Paris."
        assert message["reasoning_content"].strip() == "Let me see."
        assert message["reasoning"] == message["reasoning_content"]
        details = reply["usage"]["completion_tokens_details"]
        assert 0 < details["reasoning_tokens"] < reply["usage"]["completion_tokens"]
        chunks = events((await server.chat(stream=True)).text)
        assert joined(chunks) == message["content"]
        assert joined(chunks, "reasoning_content") == joined(chunks, "reasoning") == message["reasoning"]
        raw = (await server.complete("x", max_tokens=60)).json()["choices"][0]["text"]
        assert "</think>" in raw


async def test_advice_of_the_checkpoint_fills_in_what_a_request_leaves_out(tmp_path):
    async with serving(tmp_path, defaults={"temperature": 0.0}) as server:
        first, second = [(await server.chat(max_tokens=20)).json() for _ in range(2)]
        assert first["choices"][0]["message"]["content"] == second["choices"][0]["message"]["content"]
        warm = (await server.chat(max_tokens=20, temperature=1)).json()
        assert warm["choices"][0]["message"]["content"] != first["choices"][0]["message"]["content"]


async def test_many_streams_at_once_each_as_if_alone(served: Served):
    async def ask(number: int) -> str:
        reply = await served.chat(f"Question {number}", seed=number, max_tokens=30, stream=number % 2 == 0)
        if number % 2 == 0:
            return joined(events(reply.text))
        return reply.json()["choices"][0]["message"]["content"]

    alone = [await ask(number) for number in range(12)]
    assert await asyncio.gather(*map(ask, range(12))) == alone
    await served.check_accounts()


async def test_the_finish_reason_has_a_chunk_of_its_own(served: Served):
    for fields in ({}, {"n": 2}, {"logprobs": True}, {"return_token_ids": True}):
        chunks = events((await served.chat(max_tokens=9, stream=True, **fields)).text)
        ended = [choice for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
        assert len(ended) == fields.get("n", 1)
        assert all(choice["delta"] == {} and choice["logprobs"] is None for choice in ended)
