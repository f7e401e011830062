"""`antiphon doctor URL`: real servers, directly, over TLS, and behind real proxies that do what proxies do."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import pytest_asyncio
from careless_nginx import careless_nginx
from certificates import certificate
from http_server import Served, serving
from hypothesis import given
from hypothesis import strategies as st
from reverse_proxies import PROXIES, proxied
from typer.testing import CliRunner

from antiphon.api_keys import read_api_keys
from antiphon.cli import app
from antiphon.doctor.checks import server_checks
from antiphon.doctor.connection import judge_certificate, judge_skew
from antiphon.doctor.examination import examine
from antiphon.doctor.findings import Finding, Level
from antiphon.doctor.streaming import Stream, judge, read_stream
from antiphon.doctor.visit import Visit

STEP = 0.07  # seconds: a token's time, so that 32 of them take long enough to see them arrive
Findings = dict[str, list[Finding]]  # check → what it found


def examined(url: str, *names: str, key: str = "", trust: ssl.SSLContext | None = None) -> Findings:
    """The findings of these checks, or of all; no check may fail."""
    visit = Visit(url, key, trust)
    found: Findings = {}
    for result in examine([each for each in server_checks(visit) if each.name in names or not names]):
        assert "failed" not in result.finding.what, result.finding.what
        found.setdefault(result.check, []).append(result.finding)
    visit.close()
    return found


async def visited(url: str, *names: str, **settings: object) -> Findings:
    """The same, in a thread, while the server runs in this one's event loop."""
    return await asyncio.to_thread(examined, url, *names, **settings)


def bad(findings: Findings) -> list[Finding]:
    """Whatever is not ok, but for the latency, which depends on how busy this machine is."""
    found = [each for name, some in findings.items() if name != "latency" for each in some]
    return [each for each in found if each.level is not Level.OK]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server that takes its time for each token."""
    fake = {"step_seconds": STEP}
    async with serving(tmp_path_factory.mktemp("slow"), fake=fake) as server:
        yield server


@pytest.mark.asyncio(loop_scope="module")
async def test_of_a_server_that_is_well_nothing_bad_is_said(slow):
    found = await visited(slow.url)
    assert bad(found) == []
    assert found["streams"][0].what.startswith("a stream arrives in pieces: 3")
    assert found["ready"][0].what == "the model is ready"
    assert found["metrics"][0].what == "metrics can be read, on this machine"
    assert "version" in found


@pytest.mark.asyncio(loop_scope="module")
async def test_a_proxy_that_buffers_is_found_by_when_the_events_arrive(slow, tmp_path):
    with careless_nginx(slow.url, tmp_path, "proxy_ignore_headers X-Accel-Buffering;") as url:
        found = await visited(url)
    (streams,) = found["streams"]
    assert streams.level is Level.WARNING
    assert streams.what.startswith("a stream does not arrive as it is generated: ")
    assert streams.fix.startswith("proxy_buffering off;")
    assert "1.5 MiB is refused before it reaches the server" in found["large bodies"][0].what
    assert found["kind"][0].what.startswith("answers come through nginx")
    assert "everybody can read /metrics" in found["metrics"][0].what
    assert "no key is needed" in found["key"][0].what


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", PROXIES)
async def test_of_a_proxy_that_antiphon_configures_nothing_bad_is_said(slow, tmp_path, kind):
    with proxied(kind, [slow.url], tmp_path) as proxy:
        await asyncio.to_thread(proxy.wait_ready)
        found = await visited(proxy.url, "streams", "large bodies", "HTTP", "metrics")
    assert bad(found) == []
    assert found["streams"][0].what.startswith("a stream arrives in pieces: ")


@pytest.mark.asyncio(loop_scope="module")
async def test_compressed_streams_and_closed_connections_are_told(slow, tmp_path):
    directives = "proxy_buffering off; gzip on; gzip_proxied any; gzip_types text/event-stream; keepalive_timeout 0;"
    with careless_nginx(slow.url, tmp_path, directives) as url:
        found = await visited(url, "streams", "HTTP")
    assert "the stream is compressed (gzip)" in found["streams"][0].what
    assert "connections are closed after each answer" in found["HTTP"][0].what


async def test_a_server_that_loads_is_a_problem_and_says_why(tmp_path):
    async with serving(tmp_path, wait=False, fake={"load_seconds": 3600.0}) as server:
        (found,) = bad(await visited(server.url))
        assert found.level is Level.PROBLEM
        assert found.what == "the server is not ready: The engine is loading."
        with careless_nginx(server.url, tmp_path, "proxy_hide_header Retry-After;") as url:
            behind = await visited(url, "ready")
    assert "Retry-After is missing" in behind["ready"][1].what


async def test_keys(tmp_path):
    async with serving(tmp_path, api_keys=read_api_keys(["right-key-0123456789"])) as server:
        without = await visited(server.url, "key", "metrics", "streams")
        wrong = await visited(server.url, "key", key="wrong-key")
        right = await visited(server.url, "key", "version", "streams", key="right-key-0123456789")
    assert without["key"][0].what == "a key is needed"
    assert without["metrics"][0].what == "metrics cannot be read without a key through this address"
    assert "streams" not in without
    assert wrong["key"][0].what == "the key is refused"
    assert bad(right) == []
    assert right["streams"]


async def test_certificates(tmp_path):
    cert, key = certificate(tmp_path)  # valid for a day
    async with serving(tmp_path, ssl_certfile=str(cert), ssl_keyfile=str(key)) as server:
        port = server.url.rpartition(":")[2]
        trust = ssl.create_default_context(cafile=str(cert))
        trusted = await visited(f"https://localhost:{port}", "reachable", "TLS", trust=trust)
        untrusted = await visited(f"https://localhost:{port}", "reachable", "TLS", "ready")
        plain = await visited(f"http://localhost:{port}", "reachable")
    assert trusted["reachable"][0].level is Level.OK
    assert trusted["TLS"][0].what == "the certificate is valid for 1.0 more days"
    assert "the certificate of localhost is not accepted: self-signed" in untrusted["reachable"][0].what
    assert set(untrusted) == {"reachable"}
    assert plain["reachable"][0].level is Level.PROBLEM


@pytest.mark.parametrize(
    ("days", "level"), [(-1.0, "warning"), (13.0, "warning"), (15.0, "ok"), (None, "ok")]
)  # fmt: skip
def test_a_certificate_that_ends_soon(days, level):
    (found,) = judge_certificate(days, "TLSv1.3")
    assert found.level == level


@pytest.mark.parametrize(("seconds", "level"), [(0.9, "ok"), (-3600.0, "note"), (3600.0, "note")])
def test_clocks_that_differ(seconds, level):
    (found,) = judge_skew(seconds)
    assert found.level == level


def test_what_does_not_answer_is_a_problem_and_nothing_else_is_asked(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    found = examined(url)
    assert set(found) == {"reachable", "TLS"}
    assert "nothing listens" in found["reachable"][0].what
    assert "is not known here" in examined("http://nonesuch.invalid", "reachable")["reachable"][0].what
    with careless_nginx(url, tmp_path) as proxy:
        found = examined(proxy)
    assert found["reachable"][0].what == "/health is answered with status 502"


class _Other(BaseHTTPRequestHandler):
    """A server that is not Antiphon: it knows one path, which leads elsewhere."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(301 if self.path == "/old/health" else 404)
        self.send_header("Location", "https://chat.example.org/health")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, format: str, *_arguments: object) -> None:
        """Say nothing."""


def test_another_kind_of_server_and_a_redirection_are_told():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        other, moved = examined(url), examined(f"{url}/old")
        server.shutdown()
    assert other["version"][0].what == "this is not an Antiphon server, or an old one"
    assert other["key"][0].what == "/v1/models is answered with status 404"
    assert not [each for each in bad(other) if each.level is Level.PROBLEM]
    (found,) = moved["reachable"]
    assert found.what == f"{url}/old sends clients on to https://chat.example.org"
    assert set(moved) == {"reachable", "TLS"}


class _Vllm(_Other):
    """Answers `/health` and `/version` as vLLM does."""

    def do_GET(self) -> None:
        body = b'{"version":"0.11.0"}' if self.path == "/version" else b""
        self.send_response(200 if self.path in ("/health", "/version") else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_server_that_has_a_version_too_is_not_taken_for_antiphon():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Vllm) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = examined(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert found["version"][0].what == "this is not an Antiphon server, or an old one"


def test_the_command_examines_an_address(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    result = CliRunner().invoke(app, ["doctor", address, "--json"])
    assert result.exit_code == 1
    assert json.loads(result.output)["counts"]["problem"] == 1


# --- the judgement on arrival times


def stream(arrivals: Iterable[float], generated: float | None = None, seconds: float | None = None) -> Stream:
    moments = list(arrivals)
    return Stream(moments, seconds if seconds is not None else max(moments, default=0.0), generated)


STEADY = [0.1 + index / 32 for index in range(32)]


@pytest.mark.parametrize(
    ("observed", "level"),
    [
        (stream(STEADY, 1.0), "ok"),
        (stream(STEADY), "ok"),
        (stream([1.1] * 32, 1.0), "warning"),  # all at the end
        (stream([1.1] * 32), "warning"),
        (stream([1.0 + index / 1000 for index in range(32)], 1.0), "warning"),  # one after the other, but late
        (stream([0.6] * 16 + [1.1] * 16), "warning"),  # in bursts, as when a proxy's buffer fills
        (stream([0.1 + index // 6 / 5 for index in range(32)], 1.0), "warning"),
        (stream([0.1 + index // 2 / 16 for index in range(32)], 1.0), "ok"),  # two at a time are no bursts
        (stream([5.0 + index / 32 for index in range(32)], 1.0), "ok"),  # waited, then streamed
        (stream([0.01] * 32, 0.01), "ok"),  # too fast to tell
        (stream([1.0] * 3, 1.0), "ok"),  # too few to tell
        (stream([]), "ok"),
    ],
)
def test_how_arrivals_are_judged(observed, level):
    (found,) = judge(observed)
    assert found.level == level


@given(st.lists(st.text(), max_size=20), st.data())
def test_events_are_counted_however_they_are_cut(texts, data):
    payloads = [{"choices": [{"delta": {"content": text}}]} for text in texts]
    payloads.append({"choices": [{"delta": {}}], "timings": {"predicted_ms": 1500.0}})
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in payloads) + b"data: [DONE]\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    chunks = [body[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    read = read_stream(chunks, sent=0.0)
    assert len(read.arrivals) == sum(map(bool, texts)) or read.seconds > 4  # by the clock of this machine
    assert read.generated_seconds in (1.5, None)
