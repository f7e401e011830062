"""The real model made to think: its own file, but for a template that ends inside a thought.

It was never taught to close one, and has no token for the tag; so thoughts here end by the server's hand, and the tag
is a run of ordinary tokens, drawn by the compiled sampler like any other.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from patience import wait_until
from real_server import RealServer, asked_at_once, real_server

pytestmark = [pytest.mark.model, pytest.mark.slow]

_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'].split('</think>')[-1] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
_FILTERS: list[dict[str, Any]] = [{}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1, "repetition_penalty": 1.2}]
QUESTIONS = [
    {
        "content": f"Tell me about the number {n}.",
        "thinking_token_budget": 5 * n,
        "seed": n,
        "temperature": 0.3 * (n % 3),
        "ignore_eos": True,  # all answers are as long as they may be
        **_FILTERS[n % 4],
    }
    for n in range(6)
]


@pytest.fixture(scope="module")
def thinking_model(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo model in which this template stands in the place of its own, byte for byte as long."""
    data = demo_model.read_bytes()
    start = data.index(b"{% for message in messages %}")
    length = int.from_bytes(data[start - 8 : start], "little")
    template = _TEMPLATE.encode()
    padding = b"{#" + b" " * (length - len(template) - 4) + b"#}"
    path = tmp_path_factory.mktemp("thinking") / "thinker.gguf"
    path.write_bytes(data[:start] + template + padding + data[start + length :])
    return path


@pytest.fixture(scope="module")
def thinker(thinking_model: Path) -> Iterator[RealServer]:
    with real_server(thinking_model) as started:
        yield started


async def ask(
    client: httpx2.AsyncClient, content: str = "Tell me a long story about a cat.", **fields: Any
) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 80, **fields}
    reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def reasoning_tokens(reply: dict[str, Any]) -> int:
    return reply["usage"]["completion_tokens_details"]["reasoning_tokens"]


async def test_a_budget_and_an_answer(thinker: RealServer):
    async with thinker.http() as client:
        reply = await ask(client, thinking_token_budget=30)
        whole = await ask(client)
        none = await ask(client, enable_thinking=False)
    (choice,) = reply["choices"]
    assert choice["thought_closed"] == "budget"
    assert choice["message"]["reasoning_content"]
    assert choice["message"]["content"]
    assert "think>" not in str(choice["message"])
    assert 27 <= reasoning_tokens(reply) <= 30 + 4  # the last tenth of the budget, and the tokens of the tag
    assert 50 <= reasoning_tokens(whole) < 60  # a quarter of max_tokens is the answer's
    assert whole["choices"][0]["message"]["content"]
    assert reasoning_tokens(none) == 0
    assert "thought_closed" not in none["choices"][0]


async def test_a_thought_that_goes_round_in_circles(thinker: RealServer):
    """As small models do who take the likeliest token each time: this one says the same of cats over and over."""
    async with thinker.http() as client:
        guarded = await ask(client, max_tokens=400)
        unguarded = await ask(client, max_tokens=400, loop_guard=False)
    assert guarded["choices"][0]["thought_closed"] == "loop"
    assert unguarded["choices"][0]["thought_closed"] == "budget"
    assert reasoning_tokens(guarded) < reasoning_tokens(unguarded) - 50
    thoughts = [reply["choices"][0]["message"]["reasoning_content"] for reply in (guarded, unguarded)]
    assert thoughts[1].startswith(thoughts[0])


async def test_answer_now_keeps_the_thought_and_costs_little(thinker: RealServer):
    """A thought is cut in the middle, in the background; chat and responses give the same answer after it."""
    question = {"role": "user", "content": "Tell me a long story about a dog, in every detail. " * 8}
    rest = {"continue_final_message": True, "thinking_token_budget": 0, "temperature": 0}
    async with thinker.http() as client:
        body = {"input": [question], "background": True, "temperature": 0, "loop_guard": False}
        id = (await client.post("/v1/responses", json=body)).json()["id"]
        while not (now := (await client.get(f"/v1/responses/{id}")).json())["output"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        stopped = (await client.post(f"/v1/responses/{id}/cancel")).json()
        assert stopped["status"] == "cancelled"
        (thought,) = stopped["output"]
        assert (thought["type"], thought["status"]) == ("reasoning", "incomplete")
        (part,) = thought["content"]
        assert part["text"].startswith(now["output"][0]["content"][0]["text"])
        body = {"input": [question, thought], "max_output_tokens": 24, **rest}
        answer = (await client.post("/v1/responses", json=body)).json()
        message = {"role": "assistant", "reasoning_content": part["text"]}
        body = {"messages": [question, message], "max_tokens": 24, **rest}
        chat = (await client.post("/v1/chat/completions", json=body)).json()
    (item,) = answer["output"]
    assert item["content"][0]["text"]
    assert answer["thought_closed"] == chat["choices"][0]["thought_closed"] == "budget"
    assert item["content"][0]["text"] == chat["choices"][0]["message"]["content"]
    assert chat["choices"][0]["message"]["reasoning_content"] == ""
    prompt = stopped["usage"]["input_tokens"]
    assert answer["usage"]["input_tokens"] > prompt
    assert answer["timings"]["cache_n"] >= prompt // 32 * 32  # blocks of the KV cache; most of the thought is there too


async def test_a_vote_over_boxed_answers(thinker: RealServer):
    """It was not taught to box its answers either, so a grammar holds it to a box behind each thought."""
    boxed = {"regex": r"\\boxed\{[1-9]\}"}
    async with thinker.http() as client:
        reply = await ask(
            client, "Think of a number.", n=5, vote=True, seed=3, temperature=1.0, structured_outputs=boxed
        )
    said = [choice["message"]["content"] for choice in reply["choices"]]
    counts = {digit: said.count(rf"\boxed{{{digit}}}") for digit in "123456789"}
    assert reply["vote"]["counts"] == {digit: count for digit, count in counts.items() if count}
    assert sum(counts.values()) == 5
    assert reply["vote"]["count"] == counts[reply["vote"]["answer"]] == max(counts.values())
    assert reasoning_tokens(reply) > 5 * 40
    assert all(choice["message"]["reasoning_content"] for choice in reply["choices"])


def _said(reply: dict[str, Any]) -> list[Any]:
    return [reply["choices"], reply["usage"]["completion_tokens"], reasoning_tokens(reply)]


async def _ask_all(client: httpx2.AsyncClient) -> list[list[Any]]:
    asking = [ask(client, **question, max_tokens=48, logprobs=True, top_logprobs=2) for question in QUESTIONS]
    return [_said(reply) for reply in await asyncio.gather(*asking)]


async def test_alone_in_a_crowd_preempted_and_after_a_death_the_same(thinker: RealServer, thinking_model: Path):
    async with thinker.http() as client:
        alone = [
            _said(await ask(client, **question, max_tokens=48, logprobs=True, top_logprobs=2)) for question in QUESTIONS
        ]
        assert await _ask_all(client) == alone
    # Prompts have one block of 32 tokens, and 21 + 48 tokens have three. A cache of three holds two at first, and one
    # cannot end while the other has a block.
    assert {completion_tokens for _, completion_tokens, _ in alone} == {48}
    small = ("--kv-cache-tokens", "96", "--prefill-chunk", "7", "--hang-timeout", "600")
    with real_server(thinking_model, *small) as server:
        async with server.http() as client:
            assert await asked_at_once(server, _ask_all(client), len(QUESTIONS)) == alone
        assert server.metrics()["antiphon_preemptions_total"] > 0
        async with server.http() as client:
            asking = asyncio.create_task(_ask_all(client))
            closed = 'antiphon_thoughts_closed_total{reason="budget"}'
            await asyncio.to_thread(
                wait_until, lambda: server.metrics().get(closed, 0) >= 6 + 2, "no thought is closed"
            )
            os.kill(server.engine_pid, signal.SIGKILL)
            assert await asking == alone
        restarts = "antiphon_engine_restarts_total"
        wait_until(lambda: server.metrics()[restarts] == 1, "there is no new engine")
