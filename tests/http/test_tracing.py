"""Traces of requests, as a collector gets them over OTLP."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from http_server import Served, events, serving, until
from patience import PATIENCE, wait_until
from real_server import real_server
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf
from trace_receiver import ReceivedSpan, TraceReceiver, receiving

from antiphon.api_keys import read_api_keys
from antiphon.config import ServerConfig
from antiphon.errors import ConfigError
from antiphon.http.edge.access_log import Line, access_logger
from antiphon.tracing import open_tracer, settings
from antiphon.tracing.otel import OtelTracer

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
STAGES = ["receive", "prepare", "queue", "prefill", "decode"]
SLACK = 2e-6  # seconds: times of day are rounded when they are written as floats


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")  # milliseconds until a batch is sent


@pytest.fixture
def receiver() -> Iterator[TraceReceiver]:
    with receiving() as collector:
        yield collector


@asynccontextmanager
async def traced(folder: Any, url: str, **options: Any) -> AsyncIterator[Served]:
    """A server with traces."""
    tracer = open_tracer(url, "1.2.3")
    assert tracer is not None
    try:
        async with serving(folder, tracer=tracer, **options) as served:
            yield served
    finally:
        await asyncio.to_thread(tracer.close)


async def root_of(receiver: TraceReceiver, route: str = "/v1/chat/completions", count: int = 1) -> ReceivedSpan:
    """The last root span of a route, once so many have come."""
    name = f"POST {route}"
    await until(lambda: len(receiver.named(name)) == count)
    return receiver.named(name)[-1]


def check_tree(receiver: TraceReceiver, root: ReceivedSpan, stages: list[str] = STAGES) -> dict[str, ReceivedSpan]:
    """The stages are all there, one after the other without a gap, inside the root span."""
    children = receiver.children(root)
    assert sorted(children) == sorted(stages)
    in_order = [children[name] for name in stages]
    assert abs(in_order[0].begun_at - root.begun_at) < SLACK
    for before, after in pairwise(in_order):
        assert abs(before.ended_at - after.begun_at) < SLACK
    assert in_order[-1].ended_at <= root.ended_at + SLACK
    assert all(each.trace_id == root.trace_id and each.seconds >= 0 for each in in_order)
    return children


async def test_a_request_is_a_tree_of_spans_whose_times_are_those_of_the_answer(tmp_path, receiver):
    keys = read_api_keys(["ann:sk-the-key"])
    before = time.time()
    async with traced(tmp_path, receiver.url, api_keys=keys, fake={"step_seconds": 0.002}) as served:
        headers = {**SAMPLED, "authorization": "Bearer sk-the-key", "x-request-id": "req-7"}
        body = {"messages": [{"role": "user", "content": "SECRET"}], "max_tokens": 8, "stop": ["PRIVATE"]}
        response = await served.http.post("/v1/chat/completions", json=body, headers=headers)
        answer = response.json()
        root = await root_of(receiver)
    children = check_tree(receiver, root)
    prepare = children["prepare"]
    render, tokenize = (receiver.children(prepare)[name] for name in ("render", "tokenize"))
    assert prepare.begun_at <= render.begun_at <= render.ended_at == tokenize.begun_at
    assert tokenize.begun_at <= tokenize.ended_at <= prepare.ended_at
    assert (root.trace_id, root.parent_id, root.trace_state) == (TRACE, PARENT, SAMPLED["tracestate"])
    assert response.headers["traceparent"] == f"00-{TRACE}-{root.span_id}-01"
    assert (root.kind, root.status) == (2, 0)  # a server's span; the status is unset
    assert before <= root.begun_at + SLACK
    assert root.ended_at <= time.time()
    timings, attributes = answer["timings"], root.attributes
    assert children["queue"].seconds == pytest.approx(timings["queue_ms"] / 1000, abs=0.001)
    # An engine may report a start that is before the request was accepted; the span begins when it was accepted.
    prefill, reported = children["prefill"].seconds, timings["prompt_ms"] / 1000
    assert prefill == pytest.approx(reported, abs=0.001) or (children["queue"].seconds < 1e-6 and prefill < reported)
    assert children["decode"].seconds == pytest.approx(timings["predicted_ms"] / 1000, abs=0.001)
    assert attributes["gen_ai.latency.time_in_model_decode"] == pytest.approx(children["decode"].seconds, abs=SLACK)
    first = children["decode"].begun_at - root.begun_at
    assert attributes["gen_ai.latency.time_to_first_token"] == pytest.approx(first, abs=SLACK)
    assert attributes["gen_ai.response.time_to_first_chunk"] == attributes["gen_ai.latency.time_to_first_token"]
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "antiphon",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.id": answer["id"],
        "gen_ai.request.max_tokens": 8,
        "gen_ai.request.stream": False,
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": answer["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "antiphon.request.id": "req-7",
        "antiphon.key": "ann",
        "antiphon.outcome": "finished",
        "antiphon.engine": 1,
    }
    assert {name: attributes.get(name) for name in told} == told
    assert [name for name, _, _ in root.events] == ["first_answer_token", "first_token"]
    assert root.resource["service.name"] == "antiphon"
    assert root.resource["service.version"] == "1.2.3"
    everything = repr(receiver.spans)
    assert not [secret for secret in ("SECRET", "PRIVATE", "sk-the-key") if secret in everything]


async def test_thoughts_streams_and_deaths_are_events(tmp_path, receiver):
    """The engine is killed in the middle of a stream with a thought; the stream goes on, and the trace shows it."""
    template = CHATML_TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}"
    script = "thinking" * 10 + "</think>" + "answer" * 20
    async with traced(tmp_path, receiver.url, template=template, script=script, fake={"step_seconds": 0.02}) as served:
        killed, parts = False, []
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 150, "stream": True}
        async with served.http.stream("POST", "/v1/chat/completions", json=body) as response:
            async for chunk in response.aiter_text():
                parts.append(chunk)
                if not killed and '"reasoning_content"' in chunk:
                    os.kill(served.engine.engine_pid, signal.SIGKILL)
                    killed = True
        assert killed
        assert events("".join(parts))[-1]["choices"][0]["finish_reason"] == "length"
        root = await root_of(receiver)
    check_tree(receiver, root)
    assert root.status == 0
    found = {name: (at, attributes) for name, at, attributes in root.events}
    assert set(found) == {"first_token", "engine_died", "resumed", "first_answer_token"}
    assert found["first_token"][0] < found["engine_died"][0] < found["resumed"][0] < root.ended_at
    assert found["engine_died"][1] == {"antiphon.engine": 1, "antiphon.choice": 0}
    assert root.attributes["gen_ai.usage.reasoning.output_tokens"] > 0


async def test_refusals_and_batches(tmp_path, receiver):
    async with traced(tmp_path, receiver.url, max_queued_requests=2, fake={"step_seconds": 0.01}) as served:
        assert (await served.chat(n=3)).status_code == 400
        refused = await root_of(receiver)
        check_tree(receiver, refused, ["receive", "prepare"])
        assert (refused.status, refused.attributes["antiphon.outcome"]) == (0, "refused")
        assert refused.attributes["error.type"] == "invalid_request_error"
        running = [asyncio.create_task(served.chat(max_tokens=4000)) for _ in range(2)]
        await served.until_metric('antiphon_requests_running{endpoint="chat"}', 2)
        assert (await served.chat()).status_code == 503
        refused = await root_of(receiver, count=2)
        assert (refused.status, refused.attributes["error.type"]) == (2, "server_overloaded")
        assert refused.attributes["http.response.status_code"] == 503
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        left = await root_of(receiver, count=4)
        assert left.attributes["antiphon.outcome"] == "aborted"
        items = [{"prompt": "a", "max_tokens": 3}, {"prompt": "b", "max_tokens": 3}]
        assert (await served.http.post("/generate-batch", json=items)).status_code == 200
        root = await root_of(receiver, "/generate-batch")
        works = receiver.named("item", root)
        assert [work.attributes["gen_ai.usage.output_tokens"] for work in works] == [3, 3]
        assert all({"prepare", "queue", "prefill", "decode"} == set(receiver.children(work)) for work in works)
        assert all(root.begun_at <= work.begun_at <= work.ended_at <= root.ended_at for work in works)
        assert (await served.http.get("/v1/models")).headers.get("traceparent") is None  # it generates nothing


async def test_a_trace_that_is_not_sampled_exports_nothing_but_has_its_id(tmp_path, receiver):
    lines: list[Line] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.args[0])  # type: ignore[method-assign,index,union-attr]
    access_logger.addHandler(handler)
    access_logger.setLevel(logging.INFO)
    try:
        async with traced(tmp_path, receiver.url) as served:
            body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
            response = await served.http.post("/v1/chat/completions", json=body, headers=UNSAMPLED)
            assert response.headers["traceparent"].startswith(f"00-{TRACE}-")
            assert response.headers["traceparent"].endswith("-00")
            for invalid in ("ff-x", "00-" + "0" * 32 + "-" + PARENT + "-01", "é"):  # these begin a trace of their own
                sent = {"traceparent": invalid.encode()}
                response = await served.http.post("/v1/chat/completions", json=body, headers=sent)
            await until(lambda: len(receiver.named("POST /v1/chat/completions")) == 3)
        assert TRACE not in {span.trace_id for span in receiver.spans}
        assert lines[0].trace_id == TRACE
        assert lines[-1].trace_id == response.headers["traceparent"].split("-")[1]
        assert json.loads(str(lines[0]))["trace_id"] == TRACE
    finally:
        access_logger.removeHandler(handler)
        access_logger.setLevel(logging.NOTSET)


async def test_the_trace_of_a_background_response_ends_with_its_answer(tmp_path, receiver):
    async with traced(tmp_path, receiver.url, fake={"step_seconds": 0.005}) as served:
        body = {"input": "Hi", "background": True, "max_output_tokens": 20}
        response = await served.http.post("/v1/responses", json=body)
        assert response.json()["status"] == "queued"
        root = await root_of(receiver, "/v1/responses")
    children = check_tree(receiver, root)
    assert root.attributes["antiphon.outcome"] == "finished"
    assert children["decode"].seconds > 0.05


@pytest.mark.parametrize("trouble", ["gone", "broken", "slow"])
async def test_a_collector_in_trouble_costs_requests_nothing(tmp_path, receiver, monkeypatch, caplog, trouble):
    """What it cannot take is dropped and counted; the requests are answered, and the server ends in bounded time."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1" if trouble == "gone" else "60")
    monkeypatch.setattr("antiphon.tracing.otel.FLUSH_SECONDS", 0.2)
    url = "http://127.0.0.1:1" if trouble == "gone" else receiver.url
    if trouble == "slow":
        receiver.held.clear()
    receiver.answer = 400
    dropped = "antiphon_trace_spans_dropped_total"
    reason = "queue_full" if trouble == "slow" else "export_failed"
    with caplog.at_level(logging.INFO, "antiphon"):
        async with traced(tmp_path, url) as served:
            answers = [await served.chat(max_tokens=2) for _ in range(12)]  # 72 spans
            assert {answer.status_code for answer in answers} == {200}
            async with asyncio.timeout(PATIENCE):
                while not (await served.metrics())[f'{dropped}{{reason="{reason}"}}']:
                    await served.chat(max_tokens=2)
            assert (await served.metrics())["antiphon_trace_spans_exported_total"] == 0
            await served.check_accounts()
    warnings = [record.message for record in caplog.records if "traces cannot be exported" in record.message]
    assert len(warnings) == (trouble != "slow")
    if trouble == "broken":
        assert "400" in warnings[0]


def test_a_server_sends_its_traces_also_after_a_reload_and_at_its_end(tmp_path, receiver):
    """As a person starts it: the flag, two requests with a reload between them, and SIGTERM before they were sent."""
    model = write_gguf(tmp_path / "tiny.gguf", metadata(template=CHATML_TEMPLATE))
    config = tmp_path / "antiphon.toml"
    config.write_text("max-wait = 100")
    environment = {
        "OTEL_SERVICE_NAME": "essays",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=a",
        "OTEL_BSP_SCHEDULE_DELAY": "60000",
    }
    options = ("--config", str(config), "--fake-engine", "--otlp-traces-endpoint", receiver.url)
    with real_server(model, *options, environment=environment) as server:

        async def ask() -> str:
            async with server.http() as http:
                body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
                return (await http.post("/v1/chat/completions", json=body)).headers["traceparent"]

        headers = [asyncio.run(ask())]
        config.write_text("max-wait = 200\notlp-traces-endpoint = 'http://127.0.0.1:1'")  # the command line has it too
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded: max-wait: 100 → 200" in server.messages, "nothing was reloaded")
        headers.append(asyncio.run(ask()))
        assert receiver.spans == []
    roots = receiver.named("POST /v1/chat/completions")
    for root in roots:
        check_tree(receiver, root)
        assert (root.resource["service.name"], receiver.headers["x-tenant"]) == ("essays", "a")
    assert [header[:52] for header in headers] == [f"00-{root.trace_id}-{root.span_id}" for root in roots]


def test_without_traces_the_sdk_and_the_exporter_are_not_imported():
    """FastAPI itself imports OpenTelemetry's API."""
    code = (
        "import sys, antiphon.commands.serving, antiphon.http.app\n"
        "from antiphon.tracing import open_tracer\n"
        "assert open_tracer('', '1') is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


class TestWhereTracesGo:
    def test_a_typed_url_without_a_path_gets_that_of_otlp(self):
        assert settings.endpoint_of("http://a:4318") == "http://a:4318/v1/traces"
        assert settings.endpoint_of("http://a:4318/") == "http://a:4318/v1/traces"
        assert settings.endpoint_of("https://a/otlp/v1/traces") == "https://a/otlp/v1/traces"

    def test_the_environment_is_read_as_the_standard_says(self, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318/")
        assert settings.endpoint_of("") == "http://base:4318/v1/traces"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces/in")
        assert settings.endpoint_of("") == "http://traces/in"
        assert settings.endpoint_of("http://typed/x") == "http://typed/x"
        for name, value in (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")):
            with monkeypatch.context() as patch:
                patch.setenv(name, value)
                assert open_tracer("", "1") is None

    def test_a_protocol_that_is_not_available_is_refused(self, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        with pytest.raises(ConfigError, match="http/protobuf"):
            open_tracer("http://a:4317", "1")

    def test_without_the_extra_the_flag_is_refused_and_the_environment_ignored(self, monkeypatch, caplog):
        monkeypatch.setattr(settings, "_is_installed", lambda: False)
        with pytest.raises(ConfigError, match=r"pip install 'antiphon\[otel\]'"):
            open_tracer("http://a:4318", "1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318")
        with caplog.at_level(logging.WARNING):
            assert open_tracer("", "1") is None
        assert "antiphon[otel]" in caplog.text

    @pytest.mark.parametrize(
        ("name", "value"), [("OTEL_BSP_SCHEDULE_DELAY", "0"), ("OTEL_ATTRIBUTE_COUNT_LIMIT", "-1")]
    )
    def test_a_variable_that_is_not_valid_is_an_error_of_the_settings(self, monkeypatch, name, value):
        monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match=r"OTEL_\*"):
            open_tracer("http://127.0.0.1:4318", "1")

    def test_the_port_of_grpc_is_doubted(self, caplog):
        with caplog.at_level(logging.WARNING):
            tracer = open_tracer("http://127.0.0.1:4317", "1")
        assert tracer is not None
        tracer.close()
        assert "4318" in caplog.text

    @pytest.mark.parametrize(
        "url", ["grpc://a:4317", "localhost:4318", "http://", "http://a?b", "http://a:99999", "http://a b"]
    )
    def test_what_is_no_url_of_http_is_refused(self, url):
        with pytest.raises(ConfigError, match="--otlp-traces-endpoint"):
            ServerConfig(otlp_traces_endpoint=url)

    def test_the_sampler_of_the_environment_decides(self, monkeypatch):
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        tracer = OtelTracer("http://127.0.0.1:1/v1/traces", "1")
        assert not tracer.begin("POST /", SAMPLED, time.monotonic(), {}).is_recording
        tracer.close()
