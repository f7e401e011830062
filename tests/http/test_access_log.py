"""A line for each request, whatever becomes of it, and nothing in it that is nobody's business."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from http_server import serving, until
from patience import PATIENCE

from antiphon.api_keys import read_api_keys
from antiphon.http.edge.access_log import Line, TextFormatter, access_logger

SECRETS = ("sk-the-key", "PROMPT", "sk-wrong")
FIELDS = [
    "time",
    "id",
    "key",
    "method",
    "route",
    "status",
    "duration",
    "time_to_first_token",
    "prompt_tokens",
    "completion_tokens",
    "outcome",
    "degraded",
    "trace_id",
]


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.raw: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.raw.append(record.getMessage())

    def of(self, request_id: str) -> dict[str, Any]:
        (line,) = [line for line in map(json.loads, self.raw) if line["id"] == request_id]
        assert list(line) == FIELDS
        return line

    async def wait_for(self, request_id: str) -> dict[str, Any]:
        await until(lambda: any(json.loads(line)["id"] == request_id for line in self.raw))
        return self.of(request_id)


@pytest.fixture
def lines():
    handler = Lines()
    access_logger.addHandler(handler)
    access_logger.setLevel(logging.INFO)
    yield handler
    access_logger.removeHandler(handler)
    access_logger.setLevel(logging.NOTSET)


def named(request_id: str) -> dict[str, str]:
    return {"x-request-id": request_id, "authorization": "Bearer sk-the-key"}


CHAT = {"messages": [{"role": "user", "content": "PROMPT"}]}


async def test_every_request_has_its_line(tmp_path, lines):
    keys = read_api_keys(["ann:sk-the-key"])
    asked = [
        ("chat", "POST", "/v1/chat/completions", CHAT | {"max_tokens": 5}, 200, "finished"),
        ("stream", "POST", "/v1/chat/completions", CHAT | {"max_tokens": 5, "stream": True}, 200, "finished"),
        ("anthropic", "POST", "/v1/messages", CHAT | {"max_tokens": 5}, 200, "finished"),
        ("query", "POST", "/generate?prompt=PROMPT&max_tokens=5", None, 200, "finished"),
        ("batch", "POST", "/generate-batch", [{"prompt": "PROMPT", "max_tokens": 5}, {}], 200, "refused"),
        ("bad", "POST", "/v1/chat/completions", CHAT | {"n": "PROMPT"}, 400, "refused"),
        ("look", "GET", "/v1/models/tiny?key=sk-the-key", None, 200, None),
        ("lost", "GET", "/PROMPT", None, 404, None),
        ("method", "GET", "/v1/completions", None, 405, None),
    ]
    async with serving(tmp_path, api_keys=keys) as server:
        for name, method, path, body, status, outcome in asked:
            reply = await server.http.request(method, path, json=body, headers=named(name))
            assert reply.status_code == status
            line = await lines.wait_for(name)
            assert (line["key"], line["method"], line["status"], line["outcome"]) == ("ann", method, status, outcome)
            assert 0 <= line["duration"] < PATIENCE
            assert line["time"].endswith("Z")
            if outcome == "finished":
                assert line["completion_tokens"] == 5
                assert line["prompt_tokens"] > 0
                assert 0 < line["time_to_first_token"] <= line["duration"]
        reply = await server.http.get("/v1/models", headers={"x-request-id": "no-key", "x-api-key": "sk-wrong"})
        line = await lines.wait_for("no-key")
        assert (line["status"], line["key"], line["route"]) == (401, None, None)
    assert lines.of("look")["route"] == "/v1/models/{name:path}"
    assert lines.of("query")["route"] == "/generate"
    assert lines.of("lost")["route"] is None
    assert lines.of("batch")["completion_tokens"] == 5
    assert not [line for line in lines.raw if any(secret in line for secret in SECRETS)]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_has_its_line_at_once(tmp_path, lines, stream):
    async with serving(tmp_path, fake={"step_seconds": 0.02}) as server:
        body = {"prompt": "x", "max_tokens": 4000, "stream": stream}
        if stream:
            async with server.http.stream("POST", "/v1/completions", json=body, headers=named("gone")) as reply:
                await anext(reply.aiter_lines())
        else:
            asking = asyncio.create_task(server.http.post("/v1/completions", json=body, headers=named("gone")))
            await until(lambda: server.engine.counters.running == 1)
            asking.cancel()
        line = await lines.wait_for("gone")
        assert line["status"] == (200 if stream else 499)
        assert line["outcome"] == "aborted"
        assert line["duration"] < PATIENCE


async def test_a_background_response_has_one_line_when_it_ends(tmp_path, lines):
    async with serving(tmp_path, fake={"step_seconds": 0.005}) as server:
        body = {"input": "PROMPT", "max_output_tokens": 20, "background": True}
        begun = (await server.http.post("/v1/responses", json=body, headers=named("background"))).json()
        assert not [line for line in lines.raw if json.loads(line)["id"] == "background"]
        line = await lines.wait_for("background")
        assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/responses", 200)
        assert (line["completion_tokens"], line["outcome"]) == (20, "finished")
        assert 0 < line["time_to_first_token"] <= line["duration"]
        body |= {"max_output_tokens": 3000, "stream": True}
        async with server.http.stream("POST", "/v1/responses", json=body, headers=named("left")) as reply:
            first = json.loads([line async for line in _some(reply, 2)][1].removeprefix("data: "))
        await server.http.get(f"/v1/responses/{first['response']['id']}", headers=named("look"))
        assert (await lines.wait_for("look"))["outcome"] is None
        assert not [line for line in lines.raw if json.loads(line)["id"] == "left"]
        await server.http.post(f"/v1/responses/{first['response']['id']}/cancel")
        line = await lines.wait_for("left")
        assert (line["status"], line["outcome"]) == (200, "aborted")
        assert begun["id"] != first["response"]["id"]


async def _some(reply, count):
    async for line in reply.aiter_lines():
        yield line
        count -= 1
        if not count:
            return


async def test_an_engine_that_fails_is_told(tmp_path, lines):
    async with serving(tmp_path, fake={"fail_on": 77}) as server:
        for name, stream in (("whole", False), ("stream", True)):
            body = {"prompt": [77, 1], "stream": stream}
            await server.http.post("/v1/completions", json=body, headers=named(name))
            line = await lines.wait_for(name)
            assert (line["status"], line["outcome"]) == (200 if stream else 500, "failed")


def test_a_person_gets_one_short_line():
    fields = {"time": "2025-06-01T08:30:00.512Z", "id": "req-1", "method": "POST", "route": "/v1/chat/completions"}
    done = Line(
        **fields,
        key="ann",
        status=200,
        duration=4.2171,
        time_to_first_token=0.2103,
        prompt_tokens=1037,
        completion_tokens=256,
        outcome="finished",
    )
    gone = Line(
        **fields | {"method": "GET", "route": None},
        key=None,
        status=499,
        duration=0.004,
        time_to_first_token=None,
        prompt_tokens=0,
        completion_tokens=0,
        outcome="aborted",
        degraded=2,
    )
    told = [TextFormatter().format(logging.makeLogRecord({"msg": "%s", "args": (line,)})) for line in (done, gone)]
    assert [line.partition(" ")[2] for line in told] == [
        "200 POST /v1/chat/completions  1,037 + 256 tokens  4.22 s  first token 0.21 s  ann",
        "499 GET (no such route)  0.00 s  aborted  degraded (level 2)",
    ]
    assert json.loads(str(done))["completion_tokens"] == 256
    assert max(map(len, told)) < 100
