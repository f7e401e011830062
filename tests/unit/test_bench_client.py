"""The client of load tests, against servers that do everything a server may do, and some things it may not."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from canned_servers import STREAM, canned, chunk, ending, event, part, whole
from certificates import certificate

from antiphon.bench.client import Client
from antiphon.bench.connection import BadResponse, CutOff, NoConnection, reason_of
from antiphon.bench.records import RequestRecord
from antiphon.bench.requests import Asker, Exchange, Request
from antiphon.bench.summary import error_kind

ANSWER = part("hm", "reasoning_content") + part("One ") + part("two.") + ending(3)


async def ask(
    url: str, *, patience: float = 60.0, policy: Any = "none", body: bytes = b'{"stream":true}'
) -> list[Exchange]:
    """All attempts of one request."""
    seen: list[Exchange] = []
    with Client(url) as client:
        await Asker(client, "/v1/chat/completions", timeout=patience, policy=policy).ask(
            Request(0, 0, body), seen.append
        )
    return seen


async def record_of(say: Any, **options: Any) -> RequestRecord:
    """The record of the only attempt of one request to a server that answers so."""
    async with canned(say) as server:
        (exchange,) = await ask(server.url, **options)
    return exchange.record


def saying(*pieces: bytes, cut: bool = False) -> Any:
    """A server that writes these bytes, each when the one before may have been read."""

    async def say(_: Any, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if cut:
            raise ConnectionError

    return say


async def test_every_time_of_a_request_is_in_order():
    record = await record_of(
        saying(STREAM, *(chunk(ANSWER[at : at + 7]) for at in range(0, len(ANSWER), 7)), b"0\r\n\r\n")
    )
    assert (record.end, record.status, record.finish_reason) == ("answered", 200, "stop")
    assert (record.prompt_tokens, record.thought_tokens, record.answer_tokens) == (10, 1, 2)
    times = [record.sent, record.first_byte, record.first_token, record.first_answer, record.last_token, record.ended]
    assert times == sorted(times)  # type: ignore[type-var]  # None would fail
    assert len(record.gaps_ms) == 2


@pytest.mark.parametrize(
    "framed",
    [
        STREAM + b"".join(chunk(bytes([byte])) for byte in ANSWER) + b"0\r\n\r\n",
        STREAM + chunk(ANSWER) + b"0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + ANSWER,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER,
        b"HTTP/1.1 100 Continue\r\n\r\n" + STREAM + chunk(ANSWER) + b"0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n" + ANSWER.replace(b"\n", b"\r\n"),
    ],
    ids=["a byte a chunk", "a trailer", "until the end", "a length", "informational", "HTTP/1.0 and CR LF"],
)
@pytest.mark.parametrize("width", [1, 100_000])
async def test_any_framing_gives_the_same_answer(framed, width):
    pieces = [framed[at : at + width] for at in range(0, len(framed), width)]
    async with canned(saying(*pieces, cut=b"chunked" not in framed and b"Length" not in framed)) as server:
        (exchange,) = await ask(server.url)
    assert exchange.record.end == "answered"
    assert (exchange.answer.thought, exchange.answer.text, exchange.answer.tokens) == ("hm", "One two.", (1, 2))


@pytest.mark.parametrize(
    ("pieces", "end", "code"),
    [
        ([], "connection", "connection"),
        ([STREAM], "cut", "cut"),
        ([STREAM, chunk(part("a"))], "cut", "cut"),
        ([STREAM, chunk(ANSWER)], "cut", "cut"),  # the events are complete, the response is not
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"], "cut", "cut"),
        ([STREAM, chunk(part("a")), b"0\r\n\r\n"], "cut", "cut"),  # the other way round
        ([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], "invalid", "invalid"),
        ([STREAM, b"zz\r\n"], "invalid", "invalid"),
        ([STREAM, chunk(b"data: <html>\n\n"), b"0\r\n\r\n"], "invalid", "invalid"),
        ([whole("200 OK", {"choices": 5})], "invalid", "invalid"),
        ([whole("200 OK", {})], "cut", "cut"),
    ],
)
async def test_a_server_that_fails_is_told_apart_from_one_that_answers(pieces, end, code):
    record = await record_of(saying(*pieces, cut=True))
    assert (record.end, record.code) == (end, code)
    assert record.message


@pytest.mark.parametrize(
    ("status", "end"),
    [("429 x", "refused"), ("503 x", "refused"), ("529 x", "refused"), ("500 x", "failed"), ("404 x", "failed")],
)
async def test_refusals_are_not_failures_and_have_their_code_and_time(status, end):
    error = {"error": {"message": "Too much work.", "code": "server_overloaded", "type": "server_error"}}
    record = await record_of(
        saying(whole(status, error, Retry_After="7", retry_after_ms="6500", x_should_retry="false"))
    )
    assert (record.end, record.code, record.message) == (end, "server_overloaded", "Too much work.")
    assert (record.retry_after, record.should_retry) == (6.5, False)
    plain = await record_of(saying(f"HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nfull".encode()))
    assert (plain.end, plain.code, plain.message, plain.retry_after) == (end, status[:3], "full", None)


async def test_an_error_in_a_stream_is_a_failure_with_its_code():
    error = event({"error": {"message": "The engine died.", "code": "engine_died"}})
    record = await record_of(saying(STREAM, chunk(part("a") + error), b"0\r\n\r\n"))
    assert (record.end, record.code, record.first_token is not None) == ("failed", "engine_died", True)


async def test_a_server_that_stalls_costs_no_more_than_the_clients_patience():
    async def stall(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(part("a")))
        await asyncio.sleep(3600)

    record = await record_of(stall, patience=0.2)
    assert (record.end, record.status, record.first_token is not None) == ("timeout", 200, True)


async def test_no_server_is_a_connection_error_with_a_reason():
    async with canned(saying()) as server:
        pass
    (exchange,) = await ask(server.url)
    assert (exchange.record.end, exchange.record.message) == ("connection", "Connection refused")


async def test_connections_are_used_again_and_replaced_if_the_server_closed_them():
    answers = 0

    async def say(_: Any, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        answers += 1
        writer.write(whole("200 OK", {"n": answers}))
        if answers == 2:
            raise ConnectionError  # after the answer: as a keep-alive that ran out

    async with canned(say) as server:
        with Client(server.url) as client:
            assert [(await client.ask("/x")).json()["n"] for _ in range(4)] == [1, 2, 3, 4]
            assert server.num_connections == 2
        with Client(server.url, keep_alive=False) as client:
            for _ in range(2):
                await client.ask("/x", {"a": 1})
        assert server.num_connections == 4
    assert [asked.headers.get("connection") for asked in server.asked] == [None] * 4 + ["close"] * 2


async def test_more_than_was_asked_for_is_never_taken_for_the_next_answer():
    async with canned(saying(whole("200 OK", {"n": 1}) + whole("200 OK", {"forged": True}))) as server:
        with Client(server.url) as client:
            assert [(await client.ask("/x")).json() for _ in range(3)] == [{"n": 1}] * 3
    assert server.num_connections == 3


async def test_what_went_wrong_with_a_connection_is_an_error_of_its_own():
    for pieces, error in (([], NoConnection), ([STREAM], CutOff), ([b"nonsense\r\n\r\n"], BadResponse)):
        async with canned(saying(*pieces, cut=True)) as server:
            with Client(server.url) as client, pytest.raises(error):
                await client.ask("/")


async def test_https_is_checked_and_a_key_is_sent(tmp_path: Path):
    chain, key = certificate(tmp_path)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(chain, key)
    seen: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(whole("200 OK", {"ok": True}))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=served)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/prefix"
    async with server:
        with Client(url, headers={"Authorization": "Bearer k"}, tls=ssl.create_default_context(cafile=chain)) as client:
            assert (await client.ask("/v1/models")).json() == {"ok": True}
        with Client(url) as client, pytest.raises(NoConnection, match="certificate"):
            await client.ask("/v1/models")
    assert seen[0].startswith(b"GET /prefix/v1/models HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer k\r\n" in seen[0]


async def test_a_refused_client_comes_back_when_it_was_told_to_and_the_record_says_so():
    async def say(_: Any, writer: asyncio.StreamWriter) -> None:
        first = len(server.asked) == 1
        full = whole("503 x", {"error": {"code": "server_overloaded"}}, retry_after_ms="30")
        writer.write(full if first else STREAM + chunk(ANSWER) + b"0\r\n\r\n")

    async with canned(say) as server:
        attempts = [exchange.record for exchange in await ask(server.url, policy="openai")]
    assert [(each.end, each.attempt, each.retry_after) for each in attempts] == [
        ("refused", 0, 0.03),
        ("answered", 1, None),
    ]
    assert attempts[1].waited is not None
    assert 0.03 <= attempts[1].waited <= attempts[1].sent - attempts[0].sent
    assert [asked.headers["x-stainless-retry-count"] for asked in server.asked] == ["0", "1"]


async def test_a_cancelled_request_is_recorded_and_its_connection_closed():
    asked, left = asyncio.Event(), asyncio.Event()

    async def stall(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        asked.set()
        with suppress(ConnectionError):
            while True:
                writer.write(chunk(part("a")))
                await writer.drain()
                await asyncio.sleep(0)
        left.set()

    seen: list[Exchange] = []
    async with canned(stall) as server:
        with Client(server.url) as client:
            asker = Asker(client, "/", timeout=60)
            task = asyncio.create_task(asker.ask(Request(0, 0, b"{}"), seen.append))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(left.wait(), 60)
    assert [exchange.record.end for exchange in seen] == ["cancelled"]


def test_a_name_that_nobody_knows_and_a_wrong_scheme_are_told_in_words() -> None:
    assert reason_of(socket.gaierror(-2, "Name or service not known")).startswith("the name is not known")
    wrong = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    wrong.reason = "WRONG_VERSION_NUMBER"
    assert "does the server speak HTTPS?" in reason_of(wrong)


def test_a_failure_without_a_code_of_its_own_is_named_once() -> None:
    assert error_kind(RequestRecord(0, 0, "connection", 0.0, 1.0, code="connection")) == "connection"
    assert error_kind(RequestRecord(0, 0, "refused", 0.0, 1.0, status=503, code="server_overloaded")) == (
        "refused 503 server_overloaded"
    )
