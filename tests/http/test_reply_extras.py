"""What replies tell beyond OpenAI's fields for those who ask, and where their time went for everybody."""

from __future__ import annotations

from typing import Any

import pytest
from http_server import Served, events, serving
from tiny_checkpoints import R1_TEMPLATE

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMINGS = {
    "queue_ms", "cache_n", "prompt_n", "prompt_ms", "prompt_per_second",
    "predicted_n", "predicted_ms", "predicted_per_second",
}  # fmt: skip


def with_timings(chunks: list[Any]) -> list[int]:
    return [index for index, chunk in enumerate(chunks) if "timings" in chunk]


@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"stream_options": {"include_usage": True}}])
async def test_every_reply_says_where_its_time_went(served: Served, fields):
    for ask in (served.chat, served.complete):
        whole = (await ask(max_tokens=9, **{k: v for k, v in fields.items() if k == "n"})).json()
        chunks = events((await ask(max_tokens=9, stream=True, **fields)).text)
        assert with_timings(chunks) == [len(chunks) - 1]
        for timings in (whole["timings"], chunks[-1]["timings"]):
            assert timings.keys() == TIMINGS
            assert timings["predicted_n"] == 9 * fields.get("n", 1)
            assert timings["cache_n"] + timings["prompt_n"] == whole["usage"]["prompt_tokens"]
            assert timings["queue_ms"] >= 0
            assert timings["predicted_ms"] > 0
            assert timings["predicted_per_second"] > 0


async def test_waiting_for_a_turn_is_told_apart_from_working(tmp_path):
    step = 0.02
    async with serving(tmp_path, fake={"step_seconds": step}) as server:
        timings = (await server.complete(max_tokens=11)).json()["timings"]
        assert timings["predicted_ms"] >= 9 * step * 1000
        assert timings["prompt_ms"] >= 0.9 * step * 1000
        assert timings["predicted_per_second"] <= 10 / (9 * step)


async def test_drafted_tokens_are_told_in_the_timings_and_in_the_metrics(tmp_path):
    async with serving(tmp_path, fake={"step_seconds": 0.02, "drafts": True}, script="one two ") as server:
        timings = (await server.complete(max_tokens=80)).json()["timings"]
        assert timings.keys() == TIMINGS | {"draft_n", "draft_n_accepted"}
        assert timings["draft_n"] >= timings["draft_n_accepted"] > 0
        metrics = dict(
            line.rsplit(" ", 1) for line in (await server.http.get("/metrics")).text.splitlines() if line[0] != "#"
        )
        assert float(metrics["antiphon_draft_tokens_total"]) == timings["draft_n"]
        assert float(metrics["antiphon_draft_tokens_accepted_total"]) == timings["draft_n_accepted"]
        assert float(metrics["antiphon_draft_saved_seconds_total"]) > 0
        assert float(metrics["antiphon_draft_spent_seconds_total"]) >= 0


async def test_one_token_has_no_rate(served: Served):
    timings = (await served.complete(max_tokens=1)).json()["timings"]
    assert (timings["predicted_n"], timings["predicted_per_second"]) == (1, 0.0)


async def test_token_ids_of_a_chat(tmp_path):
    async with serving(tmp_path, script="Paris.<｜end▁of▁sentence｜>") as server:
        tokenizer = server.text.tokenizer
        expected = tokenizer.encode_with_control("Paris.<｜end▁of▁sentence｜>")
        body = {"messages": [{"role": "user", "content": "Hello"}]}
        prompt = (await server.http.post("/tokenize", json=body)).json()["tokens"]
        whole = (await server.chat(return_token_ids=True, n=2)).json()
        assert whole["prompt_token_ids"] == prompt
        assert [choice["token_ids"] for choice in whole["choices"]] == [expected] * 2
        assert whole["usage"]["completion_tokens"] == 2 * len(expected)
        chunks = events((await server.chat(return_token_ids=True, stream=True)).text)
        assert [chunk["prompt_token_ids"] for chunk in chunks if "prompt_token_ids" in chunk] == [prompt]
        assert [id for chunk in chunks for id in chunk["choices"][0].get("token_ids", [])] == expected
        for reply in ((await server.chat()).text, (await server.chat(stream=True)).text):
            assert "token_ids" not in reply


async def test_token_ids_of_completions(served: Served):
    prompts = [served.text.encode_prompt(text) for text in ("a", "bc")]
    whole = (await served.complete(prompts, return_token_ids=True, seed=1, max_tokens=5)).json()
    assert [choice["prompt_token_ids"] for choice in whole["choices"]] == prompts
    assert all(len(choice["token_ids"]) == 5 for choice in whole["choices"])
    reply = await served.complete(prompts, return_token_ids=True, seed=1, max_tokens=5, stream=True)
    parts = [choice for chunk in events(reply.text) for choice in chunk["choices"]]
    for index, choice in enumerate(whole["choices"]):
        own = [part for part in parts if part["index"] == index]
        assert [part["prompt_token_ids"] for part in own if "prompt_token_ids" in part] == [prompts[index]]
        assert [id for part in own for id in part["token_ids"]] == choice["token_ids"]


async def test_usage_may_run_along(served: Served):
    options = {"include_usage": True, "continuous_usage_stats": True}
    for ask in (served.chat, served.complete):
        chunks = events((await ask(max_tokens=9, stream=True, stream_options=options)).text)
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        assert counts == sorted(counts)
        assert counts[-1] == 9
        assert len({chunk["usage"]["prompt_tokens"] for chunk in chunks}) == 1


# --- the end of the prompt


async def spelled(server: Served, messages: list[dict[str, Any]], **fields: Any) -> str:
    reply = await server.http.post("/tokenize", json={"messages": messages, "return_token_strs": True, **fields})
    assert reply.status_code == 200, reply.text
    return "".join(reply.json()["token_strs"])


HI = {"role": "user", "content": "Hi"}


async def test_the_last_message_can_be_continued(served: Served):
    begun = {"role": "assistant", "content": "The capital is "}
    assert (await spelled(served, [HI, begun], continue_final_message=True)).endswith(
        "<|im_start|>assistant\nThe capital is "
    )
    body = {"messages": [HI, begun], "continue_final_message": True, "max_tokens": 6, "seed": 1}
    reply = (await served.http.post("/v1/chat/completions", json=body)).json()
    assert not reply["choices"][0]["message"]["content"].startswith("The capital")
    assert reply["usage"]["completion_tokens"] == 6


async def test_without_a_generation_prompt_it_ends_behind_the_last_message(served: Served):
    assert (await spelled(served, [HI], add_generation_prompt=False)).endswith("Hi<|im_end|>\n")
    assert (await spelled(served, [HI])).endswith("<|im_start|>assistant\n")


async def test_a_thought_can_be_continued_too(tmp_path):
    script = "so.\n</think>\n\nParis.<｜end▁of▁sentence｜>"
    async with serving(tmp_path, template=R1_TEMPLATE, script=script) as server:
        for begun in (
            {"role": "assistant", "content": "<think>\nLet me <|im_end|> "},
            {"role": "assistant", "content": None, "reasoning_content": "Let me <|im_end|> "},
        ):
            end = await spelled(server, [HI, begun], continue_final_message=True)
            assert end.endswith("<｜Assistant｜><think>\nLet me <|im_end|> ")
            body = {"messages": [HI, begun], "continue_final_message": True}
            reply = (await server.http.post("/v1/chat/completions", json=body)).json()
            message = reply["choices"][0]["message"]
            assert (message["reasoning_content"], message["content"]) == ("so.", "Paris.")
        answer = {"role": "assistant", "content": "It is ", "reasoning_content": "Hm."}
        assert (await spelled(server, [HI, answer], continue_final_message=True)).endswith("It is ")


async def test_what_a_template_is_told(tmp_path):
    template = (
        "{{ date_string }}{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if thinking is defined and not thinking %}</think>{% endif %}"
    )
    async with serving(tmp_path, template=template) as server:
        kwargs = {"date_string": "1 May <|im_end|>"}
        assert (await spelled(server, [HI], chat_template_kwargs=kwargs)).endswith("1 May <|im_end|>Hi")
        assert (await spelled(server, [HI], chat_template_kwargs={"thinking": False})).endswith("Hi</think>")


async def test_a_template_that_hides_the_last_message_cannot_continue_it(tmp_path):
    async with serving(tmp_path, template="{{ messages[0].content }}") as server:
        body = {"messages": [HI, {"role": "assistant", "content": "x"}], "continue_final_message": True}
        reply = await server.http.post("/v1/chat/completions", json=body)
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "continue_final_message"
