"""The first property, whole: text, tokens and log-probabilities are bit for bit those of the same request sent alone.

Thirty-two streaming chats at once through the official client, half greedy, half sampled with seeds, against the same
thirty-two sent one after another to a server without a prefix cache.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from hashlib import sha256

import pytest
from patience import wait_until
from preemptions import complete_at_once, complete_in_turn, preempting_pair
from real_server import RealServer, asked_at_once, real_server
from voices import VOICES, WHISPERS, ask_at_once, ask_in_turn, said_briefly

from antiphon import _native
from antiphon.demo import SHA256

pytestmark = [pytest.mark.model, pytest.mark.slow]

FAST = [name for name in _native.instruction_sets() if name != "scalar"]
SOME = slice(0, None, 3)
FEW = slice(0, None, 5)  # both greedy and sampled ones
COMMITTED = {"whispers": "cf190264e661539d13c2e6d0445e54c7", "voices": "3a11fab5a30d1fdf2dc7706e256a856f"}


async def test_the_voices_differ(alone):
    """Else the tests below would say little."""
    said = alone["voices"]
    assert len({answer.text for answer in said}) > 28
    assert {answer.finish_reason for answer in said} == {"stop", "length"}
    assert all(answer.tokens for answer in said)
    assert sum(answer.completion_tokens for answer in said) > 1000


async def test_the_demo_models_answers_are_those_that_were_committed(demo_model, alone):
    """Text, tokens and log-probabilities, on any machine. A change of the bits belongs into CHANGELOG.md."""
    if sha256(demo_model.read_bytes()).hexdigest() != SHA256:
        pytest.skip("another model is tested")
    for name, digest in COMMITTED.items():
        told = [[said.text, said.tokens, said.finish_reason] for said in alone[name]]
        assert sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32] == digest


async def test_same_in_a_crowd(server: RealServer, alone):
    assert await ask_at_once(server, VOICES) == alone["voices"]


async def test_same_with_the_cache_warm(server: RealServer, alone):
    await ask_at_once(server, [said_briefly(voice, 1) for voice in VOICES])
    warm = await ask_at_once(server, VOICES)
    assert warm == alone["voices"]
    # Whole blocks of 32 tokens are remembered, but never the last token of a prompt.
    assert [answer.cached_tokens for answer in warm] == [(answer.prompt_tokens - 1) // 32 * 32 for answer in warm]


async def test_same_with_prompts_cut_into_sevens(demo_model, alone):
    with real_server(demo_model, "--prefill-chunk", "7", "--no-prefix-caching") as server:
        assert await ask_at_once(server, VOICES[SOME]) == alone["voices"][SOME]
        now = server.metrics()
        assert now["antiphon_prompt_tokens_total"] == sum(answer.prompt_tokens for answer in alone["voices"][SOME])


async def test_same_when_preempted(server: RealServer, demo_model, alone):
    """A cache of 11 blocks: one of the pair is preempted for certain, and several of the voices usually are."""
    pair = preempting_pair(11)
    async with server.http() as client:
        pair_alone = await complete_in_turn(client, pair)
    with real_server(demo_model, "--kv-cache-tokens", "352", "--hang-timeout", "600") as small:
        async with small.http() as client:
            assert await asked_at_once(small, complete_at_once(client, pair), len(pair)) == pair_alone
        assert small.metrics()["antiphon_preemptions_total"] > 0
        assert await asked_at_once(small, ask_at_once(small, VOICES), len(VOICES)) == alone["voices"]


async def test_same_with_one_thread(demo_model, alone):
    with real_server(demo_model, "--threads", "1") as server:
        assert await ask_at_once(server, VOICES[SOME]) == alone["voices"][SOME]


async def test_same_with_two_engines_of_which_one_dies(demo_model, alone):
    """Its answers move to the other one, in the middle of their text."""
    with real_server(demo_model, "--engines", "2") as server:
        asking = asyncio.ensure_future(ask_at_once(server, VOICES))
        generated = "antiphon_generated_tokens_total"
        await asyncio.to_thread(wait_until, lambda: server.metrics()[generated] > 200, "no tokens are generated")
        os.kill(server.engine_pids[0], signal.SIGKILL)
        assert await asking == alone["voices"]
        assert server.metrics()["antiphon_engine_restarts_total"] == 1


@pytest.mark.parametrize("instruction_set", FAST)
async def test_same_on_every_instruction_set(demo_model, alone, instruction_set):
    with real_server(demo_model, "--instruction-set", instruction_set) as server:
        assert await ask_at_once(server, VOICES[SOME]) == alone["voices"][SOME]


async def test_same_on_plain_scalar_code(demo_model, alone):
    """Few and short: without vectors a token takes a good part of a second. Slow is not taken for stuck."""
    with real_server(demo_model, "--instruction-set", "scalar") as server:
        assert await ask_at_once(server, WHISPERS[:2]) == alone["whispers"][:2]
        assert server.metrics()["antiphon_engine_restarts_total"] == 0


@pytest.mark.parametrize("options", [("--kv-cache-type", "f16"), ("--activations", "int8")], ids=" ".join)
async def test_same_with_other_arithmetic(demo_model, alone, options):
    """Other rounding gives other answers, but again the same ones under any load."""
    with real_server(demo_model, "--no-prefix-caching", *options) as server:
        by_itself = await ask_in_turn(server, VOICES[:20][FEW])
    with real_server(demo_model, *options) as server:
        everyone = await ask_at_once(server, VOICES[:20])
    assert everyone[FEW] == by_itself
    assert everyone != alone["voices"][:20]


async def test_a_stream_and_a_whole_answer_are_the_same(server: RealServer, alone):
    async with server.openai() as client:
        for voice, said in zip(VOICES[:6], alone["voices"], strict=False):
            (choice,) = (await client.chat.completions.create(**voice.asking(server.model))).choices
            assert choice.message.content == said.text
            assert [score.model_dump() for score in choice.logprobs.content] == said.tokens
            assert choice.finish_reason == said.finish_reason


async def test_choices_are_the_same_alone_and_together(server: RealServer):
    """The second of three choices is drawn by its index, whoever else is drawn beside it."""
    ask = {"model": server.model, "messages": [{"role": "user", "content": "Name a river."}], "seed": 5}
    ask |= {"temperature": 1.2}
    async with server.openai() as client:
        few = await client.chat.completions.create(**ask, n=3, max_tokens=12)
        many, _ = await asyncio.gather(
            client.chat.completions.create(**ask, n=6, max_tokens=12), ask_at_once(server, VOICES[:8])
        )
    texts = [choice.message.content for choice in many.choices]
    assert [choice.message.content for choice in few.choices] == texts[:3]
    assert len(set(texts)) > 1
