"""How a server lives with its clients: some leave, some send nonsense, some stay; and how it ends."""

from __future__ import annotations

import asyncio
import signal

import httpx2
import pytest
from patience import PATIENCE, wait_until
from processes import is_gone
from real_server import RealServer, real_server
from scrapes import check_accounts
from voices import VOICES, ask

pytestmark = [pytest.mark.model, pytest.mark.slow]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_TALK = {"messages": [{"role": "user", "content": "Count from one to a thousand."}], "ignore_eos": True}
NEIGHBOUR = 4  # a voice with much to say


async def test_cancel_is_prompt(server: RealServer):
    """A closed connection ends its sequence, long before its last token, and frees its blocks.

    In how many steps of the engine is counted in tests/http/test_life.py, where the engine can be stopped meanwhile.
    """
    server.wait_idle()
    before = server.metrics()
    async with server.http() as client:
        async with client.stream("POST", CHAT, json={**_TALK, "max_tokens": 4000, "stream": True}) as reply:
            lines = reply.aiter_lines()
            while '"content":"' not in (line := await anext(lines)) or '"role"' in line:
                pass
            held = server.metrics()
            assert held['antiphon_kv_blocks{engine="1",state="in_use"}'] > 0
        after = server.wait_idle()
    assert after["antiphon_requests_aborted_total"] == before.get("antiphon_requests_aborted_total", 0) + 1
    assert after["antiphon_steps_total"] - held["antiphon_steps_total"] < 1000


async def test_who_leaves_does_not_disturb_who_stays(server: RealServer, alone):
    async with server.openai() as client, server.http() as bare:
        staying = asyncio.create_task(ask(client, server.model, VOICES[NEIGHBOUR]))
        for choices in (1, 3, 8):
            waiting = asyncio.create_task(bare.post(CHAT, json={**_TALK, "max_tokens": 4000, "n": choices}))
            await asyncio.sleep(0.2)
            waiting.cancel()
        assert await staying == alone["voices"][NEIGHBOUR]
    server.wait_idle()


def _chat(**fields: object) -> tuple[str, dict[str, object]]:
    return CHAT, {"messages": [{"role": "user", "content": "Hello"}], **fields}


# What is sent, which field must be blamed, and what the message must say.
BAD = [
    ((CHAT, {"messages": []}), "messages", "at least 1"),
    ((CHAT, {"messages": [{"role": "user", "content": 5}]}), "messages[0].content", "string"),
    ((COMPLETIONS, {"prompt": "word " * 9000}), "prompt", "9001|9000"),
    ((COMPLETIONS, {"prompt": "word " * 9000}), "prompt", "8192"),
    (_chat(messages=[{"role": "user", "content": "word " * 9000}]), "messages", "8192"),
    (_chat(max_tokens=0), "max_tokens", "1"),
    (_chat(max_tokens=-2), "max_tokens", "1"),  # -1 means "not set"
    (_chat(max_tokens=1.5), "max_tokens", "integer"),
    (_chat(temperature=-1), "temperature", "0"),
    (_chat(top_p=-0.5), "top_p", "0"),
    (_chat(repetition_penalty=-1), "repetition_penalty", "0"),
    (_chat(n=1000), "n", "16"),
    (_chat(stop=["x"] * 1000), "stop", "16"),
    (_chat(stop_token_ids=[49152]), "stop_token_ids", "49151"),
    (_chat(logit_bias={"49152": 1}), "logit_bias", "49151"),
    (_chat(model="another"), "model", "SmolLM2"),
    (_chat(seed="one"), "seed", "integer"),
]
RAW = [
    b"",
    b"{",
    b'{"messages": [',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"messages": [{"role": "user", "content": "\xff"}]}',
    b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    b'{"messages": [{"role": "user", "content": "x"}], "top_p": Infinity}',
    b'{"messages": [{"role": "user", "content": "x"}], "min_p": -Infinity}',
    b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
]


async def test_bad_input_touches_nobody_else(server: RealServer, alone):
    """Each a clear 4xx that names the field, before any work; and a neighbour's stream is bit for bit the same."""
    async with server.openai() as client, server.http() as bare:
        neighbour = asyncio.create_task(ask(client, server.model, VOICES[NEIGHBOUR]))
        for (path, body), param, says in BAD:
            reply = await bare.post(path, json=body)
            assert reply.status_code == (404 if param == "model" else 400), reply.text
            error = reply.json()["error"]
            assert error["param"] == param, error
            assert any(word in error["message"] for word in says.split("|")), error
        for raw in RAW:
            reply = await bare.post(CHAT, content=raw, headers={"content-type": "application/json"})
            assert reply.status_code == 400, raw[:60]
            assert reply.json()["error"]["message"], raw[:60]
        assert await neighbour == alone["voices"][NEIGHBOUR]
    server.wait_idle()


async def test_the_accounts_close_over_all_ways_to_end(demo_model):
    with real_server(demo_model) as server:
        async with server.http() as client:
            ok = [client.post(CHAT, json={**_TALK, "max_tokens": 5}) for _ in range(3)]
            stopped = client.post(COMPLETIONS, json={"prompt": "One, two,", "temperature": 0, "stop": "three"})
            refused = [client.post(CHAT, json={}), client.post(COMPLETIONS, json={"prompt": "x", "n": 0})]
            leaving = asyncio.create_task(client.post(CHAT, json={**_TALK, "max_tokens": 2000, "n": 2}))
            replies = await asyncio.gather(*ok, stopped, *refused)
            check_accounts(server.metrics())
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        assert [reply.status_code for reply in replies] == [200] * 4 + [400] * 2
        now = server.wait_idle()
        counts = ("received", "refused", "accepted", "finished", "aborted", "failed")
        found = [now.get(f"antiphon_requests_{count}_total", 0) for count in counts]
        assert found == [7, 2, 5, 4, 1, 0]
        free, cached = (now[f'antiphon_kv_blocks{{engine="1",state="{state}"}}'] for state in ("free", "cached"))
        assert (free + cached) * 32 == 131_072


async def test_a_first_signal_drains(demo_model):
    with real_server(demo_model) as server:
        async with server.http() as client:
            body = {**_TALK, "max_tokens": 60, "stream": True}
            async with client.stream("POST", CHAT, json=body) as reply:
                lines = reply.aiter_lines()
                await anext(lines)
                server.process.send_signal(signal.SIGTERM)
                rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert '"finish_reason":"length"' in rest[-2]
        assert server.process.wait(PATIENCE) == 0


def _status(url: str) -> int:
    return httpx2.get(url, timeout=PATIENCE, trust_env=False).status_code


async def test_a_second_signal_stops_at_once(demo_model):
    with real_server(demo_model, "--drain-timeout", "1000") as server:
        family = server.family
        assert len(family) >= 3  # front, engine, the templates' worker
        async with server.http() as client:
            body = {**_TALK, "max_tokens": 8000, "stream": True}
            async with client.stream("POST", CHAT, json=body) as reply:
                await anext(reply.aiter_lines())
                server.process.send_signal(signal.SIGTERM)
                wait_until(lambda: _status(f"{server.url}/ready") == 503, "it does not drain")
                server.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0  # before the drain's limit
        wait_until(lambda: all(map(is_gone, family)), "a process is left over")
