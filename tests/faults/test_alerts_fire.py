"""Every alert fires under its fault, and clears after it: a real server, Prometheus and Alertmanager.

The rules are those that people get, but an hour lasts 36 seconds: every window, every `for` and every interval is a
hundredth, but for the window of restarts, which must contain a start. Some thresholds are lower, so that a small load
exceeds them. The faults are real: an engine is killed, the front is stopped, connections are opened, control groups are
limited, a disk is full. Only a defect that the server must not have, lost ends of requests, is built into it
(`faulty_server.py`), and the GPU is made up (`fake_nvml.py`).
"""

from __future__ import annotations

import asyncio
import datetime
import os
import random
import re
import resource
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import faulty_server
import httpx2
from alert_chain import AlertChain, alert_chain
from certificates import certificate
from fake_nvml import GPU, FakeNvml, build
from machine_limits import MadeUpLimits, RealLimits, machine_limits
from patience import PATIENCE, wait_until
from real_server import RealServer, real_server
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf

from antiphon.monitoring import alertmanager
from antiphon.monitoring.alert import Thresholds
from antiphon.monitoring.alerts import alerts, rules

SCALE = 0.01
CONNECTIONS = 60
THRESHOLDS = Thresholds(
    first_token_share=0.97,
    first_token_seconds=0.5,
    min_bad_requests=5,
    min_requests=3,
    server_restarts=1,
    kv_cache_share=0.8,
    preemptions=2,
    event_loop_lag_seconds=0.25,
    scrape_seconds=0.1,
)
EVERY = {alert.name: alert for members in alerts().values() for alert in members}
OPTIONS = (
    *("--fake-engine", "--max-num-seqs", "4", "--kv-cache-tokens", "256", "--max-wait", "10"),
    *("--max-connections", str(CONNECTIONS), "--hang-timeout", "3", "--degrade-stay", "1"),
    *("--breaker-delay", "1", "--breaker-window", "15", "--breaker-failures", "2", "--breaker-failure-rate", "0.2"),
    *("--degrade", "wait>50%: thinking_budget=64"),
)
_FULL_AT = 4 << 20  # bytes; files that the front shares with engines are smaller


def insecure() -> ssl.SSLContext:
    """For clients of a server with a certificate of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


TLS = insecure()


class Load:
    """Clients in a thread that send one request after the other, each with a connection of its own."""

    def __init__(self, server: RealServer, *bodies: dict[str, Any], pause: float = 0.2) -> None:
        """`pause`: seconds between two requests of a client."""
        self._server, self._bodies, self._pause = server, bodies, pause

    def __enter__(self) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*map(self._ask, self._bodies))

    async def _ask(self, body: dict[str, Any]) -> None:
        async with httpx2.AsyncClient(base_url=self._server.url, verify=TLS, timeout=PATIENCE, trust_env=False) as http:
            while not self._end.is_set():
                with suppress(httpx2.HTTPError):  # the server may be gone
                    await http.post("/v1/completions", json={"prompt": "Hello", **body})
                await asyncio.sleep(self._pause)


@contextmanager
def overload(server: RealServer) -> Iterator[None]:
    """More than the engine can do within the time that clients wait."""
    with Load(server, *[{"max_tokens": 120}] * 36, pause=0.5):
        yield


@contextmanager
def stalling_engine(server: RealServer) -> Iterator[None]:
    """The engine is stopped again and again, too shortly to be given up, while clients wait for less than that."""
    engine, end = server.engine_pid, threading.Event()
    thread = threading.Thread(target=_stutter, args=(engine, end, 1.5, (0.5, 0.5)))
    with Load(server, *[{"max_tokens": 5, "max_wait": 0.5}] * 4):
        thread.start()
        yield
        end.set()
        thread.join()


@contextmanager
def dying_engines(server: RealServer) -> Iterator[None]:
    """Each engine is killed as soon as it is there, while clients ask."""
    end = threading.Event()

    def kill() -> None:
        while not end.wait(0.02):
            for pid in server.engine_pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    with Load(server, *[{"max_tokens": 5, "max_wait": 2.0}] * 4):
        killer.start()
        yield
        end.set()
        killer.join()


@contextmanager
def stuttering(server: RealServer) -> Iterator[None]:
    """The front is stopped for most of the time, as on a machine that has no time for it."""
    end = threading.Event()
    thread = threading.Thread(target=_stutter, args=(server.process.pid, end, 0.45, (0.1, 0.5)))
    thread.start()
    yield
    end.set()
    thread.join()


def _stutter(pid: int, end: threading.Event, stopped: float, running: tuple[float, float]) -> None:
    """It runs for times that differ, as any timer in it would else come at the same moment of each round."""
    choices = random.Random(0)  # noqa: S311
    while not end.wait(choices.uniform(*running)):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(stopped)
        os.kill(pid, signal.SIGCONT)


@contextmanager
def many_connections(server: RealServer) -> Iterator[None]:
    """Connections that send nothing, not even a handshake, for more than there is room."""
    with ExitStack() as stack:
        for _ in range(2 * CONNECTIONS):
            stack.enter_context(socket.create_connection(_address(server), timeout=PATIENCE))
        yield


@contextmanager
def busy_connections(server: RealServer, chain: AlertChain) -> Iterator[None]:
    """As many readers of an answer as there is room for; then more, for a moment, which are refused."""
    with (
        httpx2.Client(base_url=server.url, verify=TLS, timeout=PATIENCE, trust_env=False) as http,
        ExitStack() as stack,
    ):
        body = {"input": "Hello", "background": True, "max_output_tokens": 200}
        answer = http.post("/v1/responses", json=body).raise_for_status().json()["id"]
        os.kill(server.engine_pid, signal.SIGSTOP)  # else the answer would be complete too soon
        for _ in range(CONNECTIONS - 4):  # one is Prometheus'
            stack.enter_context(_reader(server, answer))
        chain.wait_fired({"AntiphonConnectionsNearLimit"})
        with ExitStack() as more:
            for _ in range(8):
                with suppress(OSError):  # it may be closed at once
                    more.enter_context(_reader(server, answer))
        yield
        http.post(f"/v1/responses/{answer}/cancel").raise_for_status()


def _reader(server: RealServer, answer: str) -> ssl.SSLSocket:
    """A connection that has begun to read an answer."""
    connection = TLS.wrap_socket(socket.create_connection(_address(server), timeout=PATIENCE))
    connection.sendall(f"GET /v1/responses/{answer}?stream=true HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    connection.recv(1)
    return connection


def _address(server: RealServer) -> tuple[str, int]:
    host, port = server.url.removeprefix("https://").split(":")
    return host, int(port)


@contextmanager
def few_descriptors(server: RealServer) -> Iterator[None]:
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    num_open = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (int(num_open / 0.85), before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextmanager
def full_disk(server: RealServer) -> Iterator[None]:
    """The file of messages may not grow, and there is something to say."""
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    os.lseek(server.log.fileno(), _FULL_AT, os.SEEK_SET)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (_FULL_AT, before[1]))
    try:
        os.kill(pid, signal.SIGHUP)
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def little_memory(limits: RealLimits | MadeUpLimits) -> Iterator[None]:
    """The limit follows what is used, also if the kernel kills an engine because of it."""
    end = threading.Event()

    def follow() -> None:
        while not end.wait(0.5):
            limits.use_memory(0.965)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        limits.use_memory(None)


@contextmanager
def small_quota(server: RealServer, limits: RealLimits | MadeUpLimits) -> Iterator[None]:
    limits.quota(0.2)
    try:
        with Load(server, *[{"max_tokens": 1}] * 4, pause=0.0):
            yield
    finally:
        limits.quota(None)


@contextmanager
def hot_and_full_gpu(driver: FakeNvml) -> Iterator[None]:
    """Another program takes all that is left of its memory."""
    driver.set(used=1 << 50, temperature=94)
    yield
    driver.set(used=0, temperature=60)


@contextmanager
def lost_ends(server: RealServer, flag: Path) -> Iterator[None]:
    flag.touch()
    wait_until(lambda: _is_answered(server), "no request was answered")  # an engine may just be replaced
    yield
    flag.unlink()


def _is_answered(server: RealServer) -> bool:
    body = {"prompt": "Hello", "max_tokens": 1}
    reply = httpx2.post(f"{server.url}/v1/completions", json=body, verify=TLS, timeout=PATIENCE, trust_env=False)
    return reply.is_success


def named(*names: str) -> set[str]:
    found = {f"Antiphon{name}" for name in names}
    assert found <= EVERY.keys()
    return found


def quick_rules() -> dict[str, Any]:
    """The rules, a hundred times as quick. A restart is seen for a minute: a busy machine starts no server in 9 s."""
    found = rules(THRESHOLDS, time_scale=SCALE)
    (restarts,) = (
        rule for group in found["groups"] for rule in group["rules"] if rule.get("alert") == "AntiphonServerRestarts"
    )
    assert "[9s]" in restarts["expr"]
    restarts["expr"] = restarts["expr"].replace("[9s]", "[1m]")
    return found


def test_every_alert_fires_under_its_fault_and_clears_after_it(tmp_path: Path):
    model = write_gguf(tmp_path / "tiny.gguf", {**metadata(template=CHATML_TEMPLATE), "qwen2.context_length": 4096})
    (tmp_path / "later").mkdir()
    now = datetime.datetime.now(datetime.UTC)
    cert, key = certificate(tmp_path, not_after=now + datetime.timedelta(days=1))
    flag = tmp_path / "lose-ends"
    driver = FakeNvml(tmp_path / "gpu")
    driver.set(used=0, total=1 << 50)
    with ExitStack() as stack:
        limits = stack.enter_context(machine_limits(tmp_path / "machine"))
        environment = {"STEP_SECONDS": "0.02", "LOSE_ENDS": str(flag), "GPU": GPU, **limits.environment}
        environment |= {"LD_LIBRARY_PATH": str(build(tmp_path).parent), **driver.environment}

        def start(*options: str) -> ExitStack:
            nonlocal server
            started = ExitStack()
            files = ("--ssl-certfile", str(cert), "--ssl-keyfile", str(key))
            with limits.entered():
                server = started.enter_context(
                    real_server(
                        model,
                        *OPTIONS,
                        *files,
                        *options,
                        environment=environment,
                        tls=TLS,
                        program=[faulty_server.__file__],
                    )
                )
            return started

        server: RealServer
        first = stack.enter_context(start())
        address = server.url.removeprefix("https://")
        chain = stack.enter_context(
            alert_chain(
                tmp_path,
                quick_rules(),
                alertmanager.config(time_scale=SCALE),
                address,
                "500ms",
            )
        )

        with overload(server):
            chain.wait_fired(named("CertificateExpiresSoon", "CertificateExpiring"))
            later = certificate(tmp_path / "later", not_after=now + datetime.timedelta(days=365))
            later[0].replace(cert)
            later[1].replace(key)
            os.kill(server.process.pid, signal.SIGHUP)
            chain.wait_fired(
                named("Degraded", "PredictedWaitHigh", "RequestsShed", "KVCacheFull", "Preemptions")
                | named("FirstTokenFastBurn", "FirstTokenSlowBurn")
            )
        server.wait_idle()
        with stalling_engine(server):
            chain.wait_fired(named("DeadlinesMissed"))
        with dying_engines(server):
            chain.wait_fired(
                named("NoEngineReady", "EngineNotReady", "EngineRestarts", "BreakerOpened")
                | named("AvailabilityFastBurn", "AvailabilitySlowBurn")
            )
        wait_until(lambda: server.metrics()["antiphon_engine_ready"] == 1, "no engine came")
        with full_disk(server):
            chain.wait_fired(named("LogLinesDropped"))
        with little_memory(limits), few_descriptors(server):
            chain.wait_fired(named("MemoryNearLimit", "FileDescriptorsNearLimit"))
        with many_connections(server):
            chain.wait_fired(named("ConnectionsEvicted"))
        with busy_connections(server, chain):
            chain.wait_fired(named("ConnectionsRefused"))
        with stuttering(server):
            chain.wait_fired(named("EventLoopLag", "ScrapeSlow"))
        with small_quota(server, limits):
            chain.wait_fired(named("CPUThrottled"))
        with hot_and_full_gpu(driver):
            chain.wait_fired(named("GPUMemoryNearLimit", "GPUHot"))
        with lost_ends(server, flag):
            chain.wait_fired(named("AccountsOpen"))
        server.process.kill()
        server.process.wait(PATIENCE)
        first.close()
        chain.wait_fired(named("ServerDown"))
        stack.enter_context(start("--port", address.rpartition(":")[2]))
        chain.wait_fired(named("ServerRestarts"))
        with Load(server, {"max_tokens": 1}):
            chain.wait_cleared(set(EVERY))
    check_messages(chain)


def check_messages(chain: AlertChain) -> None:
    """What people read, and what was kept from them while a more important alert fired."""
    assert chain.received.texts.keys() == EVERY.keys()
    for name, texts in chain.received.texts.items():
        assert texts["runbook_url"].endswith(f"#{EVERY[name].anchor}")
        for text in (texts["summary"], texts["description"]):
            assert not re.search(r"[{}]|%!|<no value>|<error|NaN|Inf", text), text
    causes = {name for name, alert in EVERY.items() if alert.is_cause}
    assert chain.suppressed & causes
    assert chain.suppressed <= causes | named("CertificateExpiring")
