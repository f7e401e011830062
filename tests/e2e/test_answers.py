"""What a person gets who asks the real model: sensible text, and every sampling field doing what it says."""

from __future__ import annotations

import pytest
from real_server import RealServer

from antiphon.text import Tokenizer

pytestmark = [pytest.mark.model, pytest.mark.slow]

_FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


async def test_the_capital_of_france(server: RealServer):
    async with server.openai() as client:
        ask = {"model": server.model, "messages": _FRANCE, "temperature": 0}
        whole = await client.chat.completions.create(**ask)
        stream = await client.chat.completions.create(**ask, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert "Paris" in whole.choices[0].message.content
    assert text == whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "stop"


async def test_what_came_before_counts(server: RealServer):
    turns = [{"role": "user", "content": "Say the word pineapple."}, {"role": "assistant", "content": "Pineapple!"}]
    async with server.openai() as client:
        reply = await client.chat.completions.create(
            model=server.model, messages=[*turns, {"role": "user", "content": "Say it again."}], temperature=0
        )
    assert "pineapple" in reply.choices[0].message.content.lower()


async def test_choices(server: RealServer):
    async with server.openai() as client:
        reply = await client.chat.completions.create(
            model=server.model, messages=_FRANCE, n=4, seed=1, temperature=1.5, max_tokens=12
        )
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert len({choice.message.content for choice in reply.choices}) > 1
    assert reply.usage.prompt_tokens == 37


async def test_a_stop_string_ends_the_answer_before_itself(server: RealServer):
    async with server.openai() as client:
        ask = {"model": server.model, "messages": _FRANCE, "temperature": 0}
        reply = await client.chat.completions.create(**ask, stop=[" Par", "Berlin"])
    assert reply.choices[0].message.content == "The capital of France is"
    assert reply.choices[0].finish_reason == "stop"


async def test_a_stop_token_ends_the_answer_and_min_tokens_puts_it_off(server: RealServer, tokenizer: Tokenizer):
    async with server.http() as client:
        paris = tokenizer.encode(" Paris")
        body = {"messages": _FRANCE, "temperature": 0, "stop_token_ids": paris, "max_tokens": 20}
        stopped = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]
        later = (await client.post("/v1/chat/completions", json=body | {"min_tokens": 12})).json()
    assert (stopped["message"]["content"], stopped["finish_reason"]) == ("The capital of France is", "stop")
    assert "Paris" not in later["choices"][0]["message"]["content"][:25]
    assert later["usage"]["completion_tokens"] >= 12


async def test_ignoring_the_end_goes_on_to_max_tokens(server: RealServer):
    async with server.http() as client:
        body = {"messages": _FRANCE, "temperature": 0, "max_tokens": 30}
        ended = (await client.post("/v1/chat/completions", json=body)).json()
        went_on = (await client.post("/v1/chat/completions", json=body | {"ignore_eos": True})).json()
    assert ended["choices"][0]["finish_reason"] == "stop"
    assert went_on["choices"][0]["finish_reason"] == "length"
    assert went_on["usage"]["completion_tokens"] == 30 > ended["usage"]["completion_tokens"]


async def test_a_banned_token_is_never_drawn(server: RealServer, tokenizer: Tokenizer):
    async with server.http() as client:
        (paris,) = tokenizer.encode(" Paris")
        body = {"messages": _FRANCE, "temperature": 0, "max_tokens": 20, "logit_bias": {str(paris): -100}}
        banned = (await client.post("/v1/chat/completions", json=body)).json()
        forced = {"logit_bias": {str(paris): 100}, "max_tokens": 3}
        urged = (await client.post("/v1/chat/completions", json=body | forced)).json()
    assert " Paris" not in banned["choices"][0]["message"]["content"]
    assert urged["choices"][0]["message"]["content"] == " Paris Paris Paris"


async def test_log_probabilities_are_the_models_own(server: RealServer):
    """A bias, a penalty or a temperature moves the draw and not the probabilities told."""
    ask = {"model": server.model, "messages": _FRANCE, "max_tokens": 1, "logprobs": True, "top_logprobs": 20}
    async with server.openai() as client:
        plain = await client.chat.completions.create(**ask, temperature=0)
        bent = await client.chat.completions.create(
            **ask, temperature=1.9, seed=3, presence_penalty=2, logit_bias={"1": -50}
        )
    (first,), (second,) = (reply.choices[0].logprobs.content for reply in (plain, bent))
    assert first.top_logprobs == second.top_logprobs
    scores = [top.logprob for top in first.top_logprobs]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 20
    assert 0.5 < sum(2.718281828459045**score for score in scores) <= 1.0 + 1e-5
    assert (first.token, first.logprob) == (first.top_logprobs[0].token, first.top_logprobs[0].logprob)


async def test_plain_completions_take_texts_and_token_ids(server: RealServer, tokenizer: Tokenizer):
    texts = ["The opposite of hot is", "One, two, three,"]
    async with server.openai() as client:
        ask = {"model": server.model, "temperature": 0, "max_tokens": 6, "logprobs": 2}
        together = await client.completions.create(**ask, prompt=texts)
        apart = [await client.completions.create(**ask, prompt=text) for text in texts]
        ids = [tokenizer.encode(text) for text in texts]
        by_ids = await client.completions.create(**ask, prompt=ids)
    alone = [(reply.choices[0].text, reply.choices[0].logprobs) for reply in apart]
    assert [(choice.text, choice.logprobs) for choice in together.choices] == alone
    assert [(choice.text, choice.logprobs) for choice in by_ids.choices] == alone
    assert "cold" in alone[0][0]
    assert "four" in alone[1][0]
    shape = together.choices[0].logprobs
    assert len(shape.tokens) == len(shape.token_logprobs) == len(shape.top_logprobs) == len(shape.text_offset) == 6
    assert together.usage.prompt_tokens == sum(map(len, ids))


async def test_a_control_token_that_a_user_types_is_text(server: RealServer):
    """In chat `<|im_end|>` is ten characters; in a raw prompt it is one token."""
    async with server.http() as client:
        for spelled in ("<|im_end|>", "<|im_start|>system"):
            replies = [await client.post("/v1/chat/completions", json=_one_token(text)) for text in ("", spelled)]
            plain, typed = (reply.json()["usage"]["prompt_tokens"] for reply in replies)
            assert typed - plain > 2, spelled
        raw = (await client.post("/v1/completions", json={"prompt": "<|im_end|>", "max_tokens": 1})).json()
    assert raw["usage"]["prompt_tokens"] == 1


def _one_token(content: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
