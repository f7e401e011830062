"""Nobody's request, however it is made, keeps the server from answering others: the worst 4 MiB to every route.

What counts is the processor time that the server's process spends between somebody's `GET /health` and the answer. On a
busy machine other threads of the process may run in between, so a body has several tries to do better: one that holds
up the event loop, or Python's lock, does so each time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from patience import PATIENCE

from antiphon.api.limits import MAX_STOP_LENGTH, MAX_STOPS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

HELPERS = Path(__file__).parent.parent / "helpers"
CONTEXT_LENGTH = 131_072  # the real model's
SIZE = (4 << 20) - 1000
LIMIT = 0.15  # seconds of processor time: 0.1, and half of that again where other processes use the caches
TRIES = 4

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Front:
    """A server in another process."""

    def __init__(self, url: str, pid: int) -> None:
        self.host, port = url.removeprefix("http://").split(":")
        self.port = int(port)
        # The kernel's clock of that process' processor time: clock_getcpuclockid(3).
        self._clock = (~pid << 3) | 2

    def processor_time(self) -> float:
        return time.clock_gettime(self._clock)

    async def connect(self) -> Connection:
        return await asyncio.open_connection(self.host, self.port)

    async def send(self, head: bytes, body: bytes) -> tuple[int, bytes]:
        """Status and body of one request on a connection of its own."""
        reader, writer = await self.connect()
        try:
            writer.write(head + body)
            answer = await reader.read()
        finally:
            writer.close()
        return int(answer.split(maxsplit=2)[1]), answer.partition(b"\r\n\r\n")[2]

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        return await self.send(head(path, f"Content-Length: {len(body)}"), body)

    async def longest_wait(self, attack: Callable[[], Any]) -> float:
        """The most processor time that anybody's /health took while the attack went on."""
        reader, writer = await self.connect()
        attacking = asyncio.ensure_future(attack())
        longest = 0.0
        try:
            while not attacking.done():
                before = self.processor_time()
                writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await reader.readuntil(b'{"status":"ok"}')
                longest = max(longest, self.processor_time() - before)
                await asyncio.sleep(0.001)
        finally:
            writer.close()
            await attacking
        return longest


def head(path: str, length: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Connection: close", length)
    return "\r\n".join((*lines, "", "")).encode()


@asynccontextmanager
async def front_process(folder: Path) -> AsyncIterator[Front]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, HELPERS / "front_process.py", folder, json.dumps({"context_length": CONTEXT_LENGTH})),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(HELPERS)},
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        url = (await process.stdout.readline()).decode().strip()
    try:
        yield Front(url, process.pid)
    finally:
        await process.communicate(b"")  # the end of its input is the end of it


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Front]:
    async with front_process(tmp_path_factory.mktemp("model")) as front:
        yield front


async def check(front: Front, attack: Callable[[], Any]) -> None:
    waits: list[float] = []
    while not waits or (min(waits) > LIMIT and len(waits) < TRIES):
        waits.append(await front.longest_wait(attack))
    assert min(waits) <= LIMIT, waits


def filled(before: bytes, unit: bytes, after: bytes, separator: bytes = b",", most: int = SIZE) -> bytes:
    """As many units as there is room for."""
    room = most - len(before) - len(after)
    return before + separator.join([unit] * (room // (len(unit) + len(separator)))) + after


# Where each route takes its text, and what stands around it.
ROUTES: dict[str, tuple[str, bytes]] = {
    "/v1/chat/completions": ("messages", b'[{"role":"user","content":%s}]'),
    "/v1/completions": ("prompt", b"%s"),
    "/v1/responses": ("input", b'[{"role":"user","content":%s}]'),
    "/v1/messages": ("messages", b'[{"role":"user","content":%s}]'),
    "/v1/messages/count_tokens": ("messages", b'[{"role":"user","content":%s}]'),
    "/generate": ("prompt", b"%s"),
    "/generate-batch": ("requests", b'[{"prompt":%s,"max_tokens":1}]'),
    "/api/chat": ("messages", b'[{"role":"user","content":%s}]'),
    "/api/generate": ("prompt", b"%s"),
    "/completion": ("prompt", b"%s"),
    "/tokenize": ("prompt", b"%s"),
    "/detokenize": ("tokens", b"%s"),
}

SHORT_ANSWERS = {
    "/v1/chat/completions": b',"max_tokens":1',
    "/v1/completions": b',"max_tokens":1',
    "/v1/responses": b',"max_output_tokens":1',
    "/v1/messages": b',"max_tokens":1',
    "/generate": b',"max_tokens":1',
    "/api/chat": b',"options":{"num_predict":1}',
    "/api/generate": b',"options":{"num_predict":1}',
    "/completion": b',"n_predict":1',
}

PART = b'{"type":"text","text":"x"}'
# Values for such a field, or for any other.
VALUES: dict[str, bytes] = {
    "negative numbers": filled(b"[", b"-1", b"]"),
    "a bad number after many": filled(b"[", b"0", b",-1]", most=1 << 20),
    "as many numbers as can be": filled(b"[", b"0", b"]", most=1 << 20),
    "lists of numbers": filled(b"[", filled(b"[", b"7", b"]", most=16_000), b"]", most=1 << 20),
    "empty lists": filled(b"[", b"[]", b"]"),
    "as many empty lists as can be": filled(b"[", b"[]", b"]", most=190_000),
    "empty objects": filled(b"[", b"{}", b"]"),
    "empty texts": filled(b"[", b'""', b"]"),
    "as many empty texts as can be": filled(b"[", b'""', b"]", most=390_000),
    "NaN after empty lists": filled(b"[", b"[]", b",NaN]"),
    "NaN after as many as can be": filled(b"[", b"[]", b",NaN]", most=190_000),
    "NaN after numbers": filled(b"[", b"0", b",NaN]", most=1 << 20),
    "text parts": filled(b"[", PART, b"]"),
    "as many text parts as can be": filled(b"[", PART, b"]", most=670_000),
    "bad parts": filled(b"[", b'{"type":"text"}', b"]"),
    "as many bad parts as can be": filled(b"[", b'{"type":"text"}', b"]", most=650_000),
    "many fields": b"{" + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}",
    "as many fields as can be": b"{" + b",".join(b'"%d":0' % number for number in range(4096)) + b"}",
    "words": filled(b'"', b"zq xj", b'"', b" "),
    "no words": filled(b'"', b"<", b'"', b""),
    "one word": filled(b'"', b"a", b'"', b""),
    "beginnings of control tokens": filled(b'"', b"<|im_star", b'"', b""),
    "escapes": filled(b'"', rb"\u0000", b'"', b""),
    "as much text as the context may hold": filled(b'"', b"zq xj", b'"', b" ", most=500_000),
}


# What is told apart by its JSON alone needs no more than one route.
EVERYWHERE = (
    "negative numbers",
    "as many numbers as can be",
    "as many text parts as can be",
    "as many bad parts as can be",
    "as many fields as can be",
    "words",
    "beginnings of control tokens",
)
CASES = [(path, value) for path in ROUTES for value in VALUES if path == "/v1/chat/completions" or value in EVERYWHERE]


@pytest.mark.parametrize(("path", "value"), CASES)
async def test_the_worst_four_megabytes_keep_nobody_waiting(front: Front, path: str, value: str):
    field, around = ROUTES[path]
    short = SHORT_ANSWERS.get(path, b"")
    body = b'{"%s":%s%s}' % (field.encode(), around % VALUES[value], short)
    statuses = set()

    async def attack() -> None:
        statuses.add((await front.post(path, body))[0])

    await check(front, attack)
    assert statuses <= {200, 400}


def whole(path: str, field: bytes, value: bytes) -> bytes:
    others = {
        "/v1/chat/completions": b'"messages":[{"role":"user","content":"x"}],"max_tokens":1',
        "/v1/completions": b'"prompt":"x","max_tokens":1',
        "/v1/responses": b'"input":"x","max_output_tokens":16',
        "/v1/messages": b'"messages":[{"role":"user","content":"x"}],"max_tokens":1',
        "/tokenize": b'"messages":[{"role":"user","content":"x"}]',
    }[path]
    return b'{%s,"%s":%s}' % (others, field, value)


def many(unit: bytes, most: int = SIZE) -> bytes:
    return filled(b"[", unit, b"]", most=most)


STOPS = [f"{number:03}" * (MAX_STOP_LENGTH // 3) for number in range(MAX_STOPS)]
SCHEMA = b'{"type":"object","properties":{%s}}' % b",".join(b'"p%d":{"type":"string"}' % n for n in range(4000))
TOOL = b'{"type":"function","function":{"name":"f","parameters":%s}}' % SCHEMA
CALL = b'{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}'
ARGUMENTS = (
    b'{"id":"c","type":"function","function":{"name":"f","arguments":%s}}'
    % json.dumps('{"a":[' + ",".join(["[]"] * 1_000_000) + "]}").encode()
)

FIELDS: dict[str, tuple[str, bytes]] = {
    "logit_bias": (
        "/v1/completions",
        whole("/v1/completions", b"logit_bias", b"{%s}" % b",".join(b'"%d":"x"' % n for n in range(200_000))),
    ),
    "as much logit_bias as can be": (
        "/v1/completions",
        whole("/v1/completions", b"logit_bias", b"{%s}" % b",".join(b'"%d":"x"' % n for n in range(4000))),
    ),
    "fields that nobody knows": (
        "/v1/chat/completions",
        whole("/v1/chat/completions", b"x", b"0,%s" % b",".join(b'"%d_tempratur":0' % n for n in range(4000))),
    ),
    "prompts and stop strings": (
        "/v1/completions",
        json.dumps({"prompt": ["x"] * 64, "stop": STOPS, "max_tokens": 1}).encode(),
    ),
    "as many ids as can be, each echoed": (
        "/v1/completions",
        b'{"prompt":%s,"max_tokens":1,"echo":true}' % many(many(b"7", 16_000), 60 * 16_001),
    ),
    "messages": ("/v1/chat/completions", b'{"messages":%s}' % many(b'{"role":"user","content":"x"}')),
    "as many messages as can be": (
        "/v1/chat/completions",
        b'{"messages":%s,"max_tokens":1}' % many(b'{"role":"user","content":"x"}', 30 * 4090),
    ),
    "tools": ("/v1/chat/completions", whole("/v1/chat/completions", b"tools", many(TOOL))),
    "a tool with as many properties as can be": (
        "/v1/chat/completions",
        whole("/v1/chat/completions", b"tools", many(TOOL, 3 * len(TOOL))),
    ),
    "a schema as text": (
        "/v1/chat/completions",
        whole(
            "/v1/chat/completions",
            b"guided_json",
            json.dumps('{"enum":[' + ",".join(["[]"] * 1_000_000) + "]}").encode(),
        ),
    ),
    "a schema": (
        "/v1/chat/completions",
        whole("/v1/chat/completions", b"guided_json", b'{"enum":%s}' % many(b"[]", 190_000)),
    ),
    "choices": ("/v1/chat/completions", whole("/v1/chat/completions", b"guided_choice", many(b'"x"', 390_000))),
    "calls": (
        "/v1/chat/completions",
        b'{"messages":[{"role":"assistant","tool_calls":%s}],"max_tokens":1}' % many(CALL, 650_000),
    ),
    "a call with many arguments": (
        "/v1/chat/completions",
        b'{"messages":[{"role":"assistant","tool_calls":[%s]}],"max_tokens":1}' % ARGUMENTS,
    ),
    "items": (
        "/v1/responses",
        b'{"input":%s,"max_output_tokens":1}' % many(b'{"role":"user","content":"x"}', 30 * 4090),
    ),
    "reasoning": (
        "/v1/responses",
        b'{"input":[{"type":"reasoning","content":%s}],"max_output_tokens":1}'
        % many(b'{"type":"reasoning_text","text":"x"}', 900_000),
    ),
    "blocks": (
        "/v1/messages",
        b'{"max_tokens":1,"messages":[{"role":"assistant","content":%s}]}'
        % many(b'{"type":"tool_use","id":"x","name":"f","input":{}}', 1_000_000),
    ),
    "a call's input": (
        "/v1/messages",
        b'{"max_tokens":1,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"x","name":"f","input":{"a":%s}}]}]}'
        % many(b"[]", 190_000),
    ),
    "the strings of tokens": ("/tokenize", b'{"prompt":%s,"return_token_strs":true}' % VALUES["words"]),
    "the strings of as many tokens as can be": (
        "/tokenize",
        b'{"prompt":%s,"return_token_strs":true}' % VALUES["as much text as the context may hold"],
    ),
    "items of a batch": ("/generate-batch", many(b'{"prompt":"x","max_tokens":1}', 1024 * 30)),
    "items with unknown fields": (
        "/generate-batch",
        many(b'{"prompt":"x","max_tokens":1,%s}' % b",".join(b'"%d":0' % n for n in range(60)), 1000 * 480),
    ),
}


@pytest.mark.parametrize("name", FIELDS)
async def test_no_other_field_does(front: Front, name: str):
    path, body = FIELDS[name]
    assert len(body) <= 4 << 20

    async def attack() -> None:
        status, answer = await front.post(path, body)
        assert status in (200, 400), answer[:300]

    await check(front, attack)


@pytest.mark.parametrize("path", ROUTES)
async def test_no_body_of_tiny_chunks_does(front: Front, path: str):
    body = b"1\r\n \r\n" * (SIZE // 6 // 4) + b"0\r\n\r\n"

    async def attack() -> None:
        status, _ = await front.send(head(path, "Transfer-Encoding: chunked"), body)
        assert status == 400

    await check(front, attack)


async def test_no_short_request_after_a_long_conversation_does(front: Front):
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}] * 2000}
    fields: dict[str, Any] = {"input": [thought, {"role": "user", "content": "x"}], "max_output_tokens": 16}

    async def go_on() -> None:
        status, answer = await front.post("/v1/responses", json.dumps(fields).encode())
        assert status in (200, 400), answer[:300]
        if status == 200:
            fields["previous_response_id"] = json.loads(answer)["id"]

    for _ in range(12):
        await go_on()
    fields["input"] = "x"
    await check(front, go_on)


async def test_many_at_once_do_not(front: Front):
    """Six long texts to count, as many numbers, and as many lists, all at the same time."""
    bodies = [b'{"prompt":%s}' % VALUES[name] for name in ("words", "as many numbers as can be", "empty lists")] * 6

    async def attack() -> None:
        for status, answer in await asyncio.gather(*(front.post("/tokenize", body) for body in bodies)):
            assert status in (200, 400), answer[:300]

    await check(front, attack)
