"""Thinking budgets over HTTP: under every name, whole and streamed, told in the reply, the usage and the metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from http_server import Served, events, joined, serving
from running_server import text_model
from tiny_checkpoints import CHATML_TEMPLATE, R1_TEMPLATE

from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.api.chat.thinking import EFFORTS, requested_thinking
from antiphon.errors import InvalidRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDLESS = "and so on, "  # over and over, which the loop guard would notice
QWEN3_TEMPLATE = CHATML_TEMPLATE + (
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def thinker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server whose model never stops thinking by itself."""
    async with serving(
        tmp_path_factory.mktemp("model"), template=R1_TEMPLATE, script=ENDLESS, loop_guard=False
    ) as server:
        yield server


def reasoning_tokens(reply: dict) -> int:
    return reply["usage"]["completion_tokens_details"]["reasoning_tokens"]


@pytest.mark.parametrize("field", ["thinking_token_budget", "max_thinking_tokens", "thinking_budget"])
async def test_a_budget(thinker: Served, field):
    reply = (await thinker.chat(max_tokens=60, **{field: 20})).json()
    (choice,) = reply["choices"]
    assert choice["thought_closed"] == "budget"
    assert choice["message"]["reasoning_content"].startswith(ENDLESS)
    assert choice["message"]["content"]
    assert "think>" not in str(choice["message"])
    assert 20 <= reasoning_tokens(reply) <= 22
    assert reply["usage"]["completion_tokens"] == 60


async def test_a_stream_says_the_same_and_tells_the_closing_once(thinker: Served):
    whole = (await thinker.chat(max_tokens=60, thinking_token_budget=20)).json()["choices"][0]
    chunks = events((await thinker.chat(max_tokens=60, thinking_token_budget=20, stream=True)).text)
    assert joined(chunks) == whole["message"]["content"]
    assert joined(chunks, "reasoning_content") == whole["message"]["reasoning_content"]
    told = [choice["thought_closed"] for chunk in chunks for choice in chunk["choices"] if "thought_closed" in choice]
    assert told == ["budget"]


async def test_an_effort_is_a_budget_and_a_number_wins(thinker: Served):
    budgets = [budget for budget in EFFORTS.values() if budget is not None]
    assert budgets == sorted(budgets)
    reply = (await thinker.chat(max_tokens=600, reasoning_effort="minimal")).json()
    assert EFFORTS["minimal"] <= reasoning_tokens(reply) <= EFFORTS["minimal"] + 2
    reply = (await thinker.chat(max_tokens=600, reasoning_effort="high", thinking_token_budget=9)).json()
    assert 9 <= reasoning_tokens(reply) <= 11


@pytest.mark.parametrize("max_tokens", [12, 40, 400, 4000])
async def test_without_a_budget_there_is_room_for_an_answer(thinker: Served, max_tokens):
    reply = (await thinker.chat(max_tokens=max_tokens)).json()
    reserve = min(max_tokens // 4, 512)
    assert max_tokens - reserve - 12 < reasoning_tokens(reply) < max_tokens - reserve
    assert reply["choices"][0]["message"]["content"]
    assert reply["choices"][0]["thought_closed"] == "budget"
    greedy = (await thinker.chat(max_tokens=max_tokens, thinking_token_budget=10**6)).json()
    assert reasoning_tokens(greedy) == reasoning_tokens(reply)


async def test_where_there_is_no_room_for_both_the_thought_has_it(thinker: Served):
    reply = (await thinker.chat(max_tokens=2)).json()
    assert reasoning_tokens(reply) == 2
    assert "thought_closed" not in reply["choices"][0]


@pytest.mark.parametrize(
    "fields",
    [
        {"enable_thinking": False},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning_effort": "none"},
        {"thinking_token_budget": 0},
        {"enable_thinking": False, "thinking_token_budget": 50},
    ],
    ids=str,
)
async def test_no_thought_at_all(thinker: Served, fields):
    reply = (await thinker.chat(max_tokens=20, **fields)).json()
    message = reply["choices"][0]["message"]
    assert message["content"].startswith(ENDLESS)
    assert message["reasoning_content"] == ""
    assert reasoning_tokens(reply) == 0
    assert "thought_closed" not in reply["choices"][0]


@pytest.mark.parametrize("template", [R1_TEMPLATE, CHATML_TEMPLATE, QWEN3_TEMPLATE], ids=["r1", "chatml", "qwen3"])
async def test_the_prompt_ends_behind_an_empty_thought(tmp_path, template):
    text = text_model(tmp_path, template)
    try:
        prompt = text.chat_prompt([{"role": "user", "content": "x"}], close_thought=True, enable_thinking=False)
    finally:
        text.close()
    tokenizer = text.tokenizer
    assert not prompt.starts_in_thought
    ending = tokenizer.encode_with_control("<think>\n\n</think>\n\n")
    assert prompt.token_ids[-len(ending) :] == ending
    assert prompt.token_ids.count(tokenizer.control_token_id("<think>")) == 1


async def test_a_thought_that_ends_by_itself_is_not_told_of(tmp_path):
    script = "Let me see.\n</think>\n\nParis.<｜end▁of▁sentence｜>"
    async with serving(tmp_path, template=R1_TEMPLATE, script=script) as server:
        for fields in ({}, {"thinking_token_budget": 100}, {"reasoning_effort": "low"}, {"enable_thinking": True}):
            choice = (await server.chat(**fields)).json()["choices"][0]
            assert choice["message"]["content"] == "Paris."
            assert "thought_closed" not in choice


async def test_each_choice_has_the_budget_for_itself_and_is_counted(thinker: Served):
    before = (await thinker.metrics()).get('antiphon_thoughts_closed_total{reason="budget"}', 0)
    reply = (await thinker.chat(n=3, max_tokens=60, thinking_token_budget=20)).json()
    assert [choice["thought_closed"] for choice in reply["choices"]] == ["budget"] * 3
    await thinker.until_metric('antiphon_thoughts_closed_total{reason="budget"}', before + 3)
    await thinker.check_accounts()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"enable_thinking": True}, "enable_thinking"),
        ({"reasoning_effort": "none"}, None),
        ({"enable_thinking": False}, None),
        ({"thinking_token_budget": 0}, None),
    ],
    ids=str,
)
async def test_a_model_that_does_not_think_is_not_asked_to(fields, param):
    body = ChatCompletionRequest.model_validate({"messages": [{"role": "user", "content": "x"}], **fields})
    if param is None:
        assert requested_thinking(body, thinks=False).is_closed
        return
    with pytest.raises(InvalidRequest, match="does not think") as refused:
        requested_thinking(body, thinks=False)
    assert refused.value.param == param


@pytest.mark.parametrize("effort", EFFORTS)
async def test_an_effort_or_a_budget_is_no_wish_for_a_thought(effort):
    for fields in ({"reasoning_effort": effort}, {"thinking_token_budget": 5}, {"max_thinking_tokens": 5}):
        body = ChatCompletionRequest.model_validate({"messages": [{"role": "user", "content": "x"}], **fields})
        requested_thinking(body, thinks=False)


async def test_a_thought_in_circles_is_closed_told_and_counted(tmp_path):
    async with serving(tmp_path, template=R1_TEMPLATE, script=ENDLESS) as server:
        reply = (await server.chat(max_tokens=400)).json()
        assert reply["choices"][0]["thought_closed"] == "loop"
        assert reasoning_tokens(reply) < 200
        assert reply["choices"][0]["message"]["content"].count(ENDLESS) > 20
        unguarded = (await server.chat(max_tokens=400, loop_guard=False)).json()
        assert unguarded["choices"][0]["thought_closed"] == "budget"
        assert reasoning_tokens(unguarded) > 280
        await server.until_metric('antiphon_thoughts_closed_total{reason="loop"}', 1)


async def test_the_guard_can_be_off_for_all_but_those_who_ask_for_it(thinker: Served):
    assert (await thinker.chat(max_tokens=400)).json()["choices"][0]["thought_closed"] == "budget"
    assert (await thinker.chat(max_tokens=400, loop_guard=True)).json()["choices"][0]["thought_closed"] == "loop"
