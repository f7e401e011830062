"""`return_progress`: what a stream says before its first token, and that streams without it are as they were."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from http_server import Served, events, joined, serving
from patience import PATIENCE
from running_server import text_model
from tiny_checkpoints import CHATML_TEMPLATE

from antiphon.api.choice import Choice
from antiphon.api.generation import Generation
from antiphon.api.job import Prompt
from antiphon.api.pieces import Piece, Progress
from antiphon.engine.requests.stream import TokenStream
from antiphon.errors import InvalidRequest
from antiphon.metrics import Metrics
from antiphon.offline.calls import _sent
from antiphon.request import FinishReason, RequestProgress, SamplingParams, TokenEvent

ROUTES = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello " * 100}], "max_tokens": 4},
    "/v1/completions": {"prompt": "Hello " * 100, "max_tokens": 4},
    "/completion": {"prompt": "Hello " * 100, "n_predict": 4},
}


async def stream(server: Served, path: str, **fields: Any) -> str:
    reply = await server.http.post(path, json=ROUTES[path] | {"stream": True, "seed": 1, **fields})
    assert reply.status_code == 200, reply.text
    return reply.text


def chunks_of(path: str, text: str) -> list[Any]:
    return events(text if path != "/completion" else text + "data: [DONE]\n\n")


def without_times(text: str) -> str:
    """A stream without what differs from one request to the next."""
    text = re.sub(r'"(id|created)":("[^"]*"|\d+)', "", text)
    return re.sub(r'"(\w+_ms|\w+_per_second)":[\d.]+', "", text)


def text_of(chunks: list[Any]) -> str:
    if "content" in chunks[-1]:
        return "".join(chunk["content"] for chunk in chunks)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content", "") for choice in choices)


@pytest.mark.parametrize("path", ROUTES)
async def test_a_stream_says_how_much_of_the_prompt_is_read(tmp_path, path):
    async with serving(tmp_path, script="abc", prefill_chunk=64) as server:
        chunks = chunks_of(path, await stream(server, path, return_progress=True))
        plain = chunks_of(path, await stream(server, path))
        progress = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
        total = progress[0]["total"]
        counts = [each["processed"] for each in progress]  # a reader who is slow misses some
        assert counts == sorted({*range(64, total, 64), total} & set(counts))
        assert counts[-1] == total
        assert {each["cache"] for each in progress} == {0}
        assert {each["total"] for each in progress} == {total}
        assert [each["time_ms"] for each in progress] == sorted(each["time_ms"] for each in progress)
        assert all(
            not chunk.get("choices") and not chunk.get("content") for chunk in chunks if "prompt_progress" in chunk
        )
        assert text_of(chunks) == text_of(plain) != ""


async def test_what_the_prefix_cache_had_counts_as_read(tmp_path):
    async with serving(tmp_path) as server:
        await stream(server, "/v1/chat/completions")
        chunks = events(await stream(server, "/v1/chat/completions", return_progress=True))
        (progress,) = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
        assert progress["processed"] == progress["total"]
        assert progress["total"] - 32 <= progress["cache"] < progress["total"]
        assert chunks[-1]["timings"]["cache_n"] == progress["cache"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_stream_without_the_field_has_the_same_bytes_and_a_whole_answer_ignores_it(tmp_path, path):
    once = {"max_tokens": 1}  # more tokens may share a chunk
    async with serving(tmp_path, script="abc", prefill_chunk=64) as server:
        bytes_of = [
            without_times(await stream(server, path, cache_salt=salt, **once, **fields))
            for salt, fields in (("a", {}), ("b", {"return_progress": False}), ("c", {"return_progress": True}))
        ]
        assert bytes_of[0] == bytes_of[1]
        kept = [part for part in bytes_of[2].split("\n\n") if "prompt_progress" not in part and '"queue"' not in part]
        assert "\n\n".join(kept) == bytes_of[0] != bytes_of[2]
        whole = await server.http.post(path, json=ROUTES[path] | {"return_progress": True})
        assert whole.status_code == 200
        assert "prompt_progress" not in whole.text


async def test_a_waiting_stream_says_its_place_and_then_its_prompt(tmp_path):
    async with serving(tmp_path, max_num_sequences=1, fake={"step_seconds": 0.05}) as server:
        holds = asyncio.create_task(server.chat("Hi", max_tokens=1000))
        async with asyncio.timeout(PATIENCE):
            while not server.engine.stats.running:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        fields = {"stream": True, "return_progress": True, "max_tokens": 2, "stream_options": {"include_usage": True}}
        heard: dict[str, list[Any]] = {"a": [], "b": []}
        waiting = asyncio.Event()

        async def listen(name: str) -> None:
            body = {"messages": [{"role": "user", "content": name}], **fields}
            async with server.http.stream("POST", "/v1/chat/completions", json=body) as reply:
                async for line in reply.aiter_lines():
                    if line.startswith("data: {"):
                        heard[name].append(json.loads(line[6:]))
                    if heard["b"] and "queue" in heard["b"][-1]:
                        waiting.set()

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            group.create_task(listen("a"))
            while not server.engine.stats.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            group.create_task(listen("b"))
            await waiting.wait()
            holds.cancel()
        assert [chunk["queue"]["position"] for chunk in heard["a"] if "queue" in chunk] == [1]
        assert [chunk["queue"]["position"] for chunk in heard["b"] if "queue" in chunk] in ([2], [2, 1])
        for chunks in heard.values():
            kinds = ["queue" if "queue" in each else "read" if "prompt_progress" in each else "" for each in chunks]
            assert kinds[0] == ""
            assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
            assert [kind for kind in kinds if kind] == sorted(kind for kind in kinds if kind)
            assert kinds.index("read") < len(kinds) - 1
            assert all(chunk["choices"] == [] and chunk["usage"] is None for chunk in chunks[:-1] if "queue" in chunk)
            assert joined(chunks)


async def test_many_prompts_are_one_progress(tmp_path):
    async with serving(tmp_path, prefill_chunk=64) as server:
        body = {"prompt": ["Hello " * 50, "World " * 80], "n": 2, "max_tokens": 3, "stream": True}
        reply = await server.http.post("/v1/completions", json=body | {"return_progress": True})
        chunks = events(reply.text)
        progress = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
        lengths = [
            len(server.text.encode_prompt("Hello " * 50, param="prompt", limit=None)),
            len(server.text.encode_prompt("World " * 80, param="prompt", limit=None)),
        ]
        assert {each["total"] for each in progress} == {sum(lengths)}
        assert progress[-1]["processed"] == sum(lengths)
        assert {choice["index"] for chunk in chunks for choice in chunk["choices"]} == {0, 1, 2, 3}


async def test_progress_goes_before_the_token_it_came_with_and_a_slow_reader_gets_the_latest(tmp_path):
    text = text_model(tmp_path, CHATML_TEMPLATE)
    account = Metrics("0", "m").request("chat")
    account.accept()
    events_of_engine = TokenStream("r", lambda *how: None)
    choice = Choice(0, events_of_engine, text.stream(), account)
    async with Generation([choice], [Prompt([1] * 9, SamplingParams())], account, max_unread_tokens=9) as generation:
        items = aiter(generation.with_progress())
        for position in (3, 2):
            events_of_engine.push_progress(RequestProgress("r", position))
            assert await anext(items) == Progress(position, 9, 0, 0, 0.0)
        for report in (RequestProgress("r", 1), RequestProgress("r", 0, 4, 2), RequestProgress("r", 0, 9, 2)):
            events_of_engine.push_progress(report)
        events_of_engine.push(TokenEvent("r", text.tokenizer.encode("x")[0]))
        events_of_engine.push(TokenEvent("r", finish_reason=FinishReason.LENGTH))
        rest = [item async for item in items]
    text.close()
    assert [type(item) for item in rest] == [Progress, Piece]
    assert rest[0] == Progress(None, 9, 2, 9, 0.0)


def test_progress_is_refused_where_nothing_is_sent_meanwhile():
    with pytest.raises(InvalidRequest, match="'return_progress' is only supported over HTTP"):
        _sent({"return_progress": True})
