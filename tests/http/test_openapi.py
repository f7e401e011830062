"""What `/openapi.json` says is what is there: every route, example and answer; and nothing it allows breaks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema_rs
import pytest
from fastapi.routing import iter_route_contexts
from http_server import Served, serving
from hypothesis import HealthCheck, Phase, given, settings

from antiphon.http.docs_page import docs_page
from antiphon.http.reference import REFERENCE

_EXAMPLES = 8  # of each operation


async def document(server: Served) -> dict[str, Any]:
    return (await server.http.get("/openapi.json")).json()


def refs(node: Any) -> list[str]:
    """Every `$ref` below a node."""
    if isinstance(node, list):
        return [ref for each in node for ref in refs(each)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [ref for each in node.values() for ref in refs(each)]


async def test_every_route_is_described_and_nothing_else_is(tmp_path):
    async with serving(tmp_path, page=False) as server:  # the page's files are no part of the API
        told = await document(server)
        described = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
        routes = iter_route_contexts(server.server.app.routes)
        there = {(method, route.path_format) for route in routes for method in route.methods or ()}
        plain = {"/openapi.json", "/docs"}
        assert described == {route for route in there if route[0] != "HEAD" and route[1] not in plain} == set(REFERENCE)
        for ref in refs(told):
            assert ref.rpartition("/")[2] in told["components"]["schemas"], ref


async def test_the_page_shows_every_route_and_loads_nothing(tmp_path):
    async with serving(tmp_path) as server:
        reply = await server.http.get("/docs")
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        for method, path in REFERENCE:
            assert f"{method} {path}</code></h2>" in reply.text
        for field in ("reasoning_effort", "thinking_token_budget", "stop_sequences", "previous_response_id"):
            assert f"<code>{field}</code>" in reply.text
        for word in ("<script", "<link", "<img", "src=", "http://", "https://", "url(", "@import"):
            assert word not in reply.text
        assert reply.text.count("<pre>") >= 12


def test_what_the_document_says_is_escaped():
    evil = "<script>alert('x')</script>"
    answers = {"200": {"description": evil, "content": {"a/b": {"schema": {"type": evil}}}}}
    operation = {"description": evil, "responses": answers}
    info = {"title": evil, "version": evil, "summary": evil}
    assert "<script" not in docs_page({"info": info, "paths": {f"/{evil}": {"get": operation}}})


async def test_every_example_can_be_sent_as_it_is(tmp_path):
    async with serving(tmp_path, fake={"eos_odds": 3}) as server:
        told = await document(server)
        sent = 0
        for path, methods in told["paths"].items():
            body = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in body.get("examples", {}).values():
                reply = await server.http.post(path, json=example["value"])
                assert reply.status_code == 200, (path, reply.text)
                sent += 1
        assert sent >= 12


async def test_nothing_that_is_described_breaks_the_server_or_its_word(tmp_path):
    """Schemathesis over all of it, the same requests in every run."""
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    conformance = (
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    )
    async with serving(tmp_path, grammars=True, fake={"eos_odds": 3, "context_length": 256}) as server:
        schema = schemathesis.openapi.from_dict(await document(server))

        def run() -> list[str]:
            seen = []
            for result in schema.get_all_operations():
                operation = result.ok()
                seen.append(f"{operation.method.upper()} {operation.path}")

                @given(case=operation.as_strategy())
                @settings(
                    max_examples=_EXAMPLES,
                    derandomize=True,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                def hold(case: Any) -> None:
                    reply = case.call(base_url=server.url)
                    case.validate_response(reply, checks=(not_a_server_error, *conformance))

                hold()
            return seen

        assert len(await asyncio.to_thread(run)) == len(REFERENCE)
        await server.check_accounts()
        assert server.engine.restarts == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
async def test_each_event_of_a_stream_is_as_described(tmp_path, path):
    async with serving(tmp_path, fake={"eos_odds": 9}) as server:
        told = await document(server)
        operation = told["paths"][path]["post"]
        example = operation["requestBody"]["content"]["application/json"]["examples"]["streamed"]["value"]
        event = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]
        schema = event["properties"]["data"]["anyOf"][1]
        text = (await server.http.post(path, json=example)).text
        events = [line[6:] for line in text.split("\n") if line.startswith("data: {")]
        assert events
        for event in events:
            whole = {**schema["contentSchema"], "components": told["components"]}
            jsonschema_rs.validate(whole, json.loads(event))
