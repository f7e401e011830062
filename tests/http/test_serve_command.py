"""`antiphon serve` as a person or a script runs it: a real process, real signals, a terminal."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from command_processes import ANTIPHON, ESCAPES, Terminal, ending, serve
from patience import PATIENCE
from pipes_full import full_pipe
from processes import children
from rich.console import Console
from tiny_checkpoints import metadata, write_gguf

from antiphon.commands.serving import _ready_or_stopped
from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.errors import EngineDied


def test_what_looks_wrong_is_said_once_at_start(tmp_path):
    with serve(str(write_gguf(tmp_path / "r1.gguf", metadata()))) as (process, _):
        process.send_signal(signal.SIGTERM)
        _, text = ending(process)
    assert text.count("note: ") == 2
    assert "both put <｜begin▁of▁sentence｜> first; one is kept" in text
    assert "advises no temperature" in text


def test_the_line_to_paste_works(model):
    with serve(model) as (process, url):
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
        assert (
            httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE, trust_env=False).status_code == 200
        )
        assert httpx2.get(f"{url}/v1/models", timeout=PATIENCE, trust_env=False).json()["data"][0]["id"] == "small"
        process.send_signal(signal.SIGTERM)
        status, text = ending(process)
    assert status == 0
    assert "KV cache" in text
    assert "Serving small on" in text
    assert "Traceback" not in text


def test_a_signal_drains_and_a_second_one_stops_at_once(model):
    with serve(model, "--drain-timeout", "1000") as (process, url):
        body = {"prompt": "x", "max_tokens": 400, "stream": True, "ignore_eos": True, "temperature": 0}
        with httpx2.stream("POST", f"{url}/v1/completions", json=body, timeout=PATIENCE, trust_env=False) as reply:
            process.send_signal(signal.SIGINT)
            assert reply.read().endswith(b"data: [DONE]\n\n")
        assert ending(process)[0] == 0
    with serve(model, "--drain-timeout", "1000") as (process, url):
        endless = {"prompt": "x", "n": 16, "max_tokens": 490, "stream": True, "ignore_eos": True}
        with httpx2.stream("POST", f"{url}/v1/completions", json=endless, timeout=PATIENCE, trust_env=False) as reply:
            next(reply.iter_raw())
            os.kill(process.pid, signal.SIGSTOP)  # both signals wait for it, however slow this machine is
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGCONT)
            status, text = ending(process)
    assert status == 0
    assert "Traceback" not in text


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]], ids=["one", "two"])
def test_a_background_response_ends_with_the_server_and_says_so(model, monkeypatch, signals):
    """One signal: after the drain's time; two: at once. Nothing is left over for the interpreter to complain of."""
    monkeypatch.setenv("PYTHONDEVMODE", "1")  # it names tasks and coroutines that were dropped
    limit = "0.5" if len(signals) == 1 else "1000"
    options = ["--drain-timeout", limit, "--access-log", "json", "--hang-timeout", "1000"]
    with serve(model, *options) as (process, url):
        os.kill(engine_of(process), signal.SIGSTOP)  # or the answers would be complete before the signal
        body = {"input": "x", "background": True, "seed": 1}
        with httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            ids = [client.post("/v1/responses", json=body).json()["id"] for _ in range(2)]
            assert client.get(f"/v1/responses/{ids[0]}").json()["status"] in ("queued", "in_progress")
            with client.stream("GET", f"/v1/responses/{ids[0]}", params={"stream": "true"}) as reply:
                lines = reply.iter_lines()
                assert next(lines) == "event: response.created"
                for number in signals:
                    process.send_signal(number)
                if len(signals) == 1:
                    names = [line for line in lines if line.startswith("event: ")]
                    assert names[-1] == "event: response.failed"
        out, text = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert out.count('"outcome":"failed"') == 2
    for complaint in ("Traceback", "never awaited", "was destroyed", "never retrieved"):
        assert complaint not in text


def engine_of(process: subprocess.Popen[str]) -> int:
    (pid,) = [
        pid for pid in children(process.pid) if b"antiphon.engine.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return pid


def test_a_log_that_nobody_reads_stops_nobody(model):
    """Standard error is a pipe that is full, and the server has something to say."""
    with full_pipe() as (read_end, write_end, fill):
        command = [*ANTIPHON, "serve", model, "--fake-engine", "--port", "0", "--no-access-log"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=write_end, text=True) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().split()[1].removesuffix("/v1/chat/completions")
                fill()
                with httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
                    for _ in range(2):  # each is a warning of the server's
                        first = engine_of(process)
                        os.kill(first, signal.SIGKILL)
                        wait_for(lambda: client.get("/ready").status_code == 503)
                        wait_for(lambda: client.get("/ready").status_code == 200)
                        assert engine_of(process) != first
                    reply = client.post("/v1/completions", json={"prompt": "x", "max_tokens": 5, "ignore_eos": True})
                    assert reply.json()["usage"]["completion_tokens"] == 5
                    process.send_signal(signal.SIGTERM)  # and this a message
                    assert process.wait(PATIENCE) == 0
            finally:
                process.kill()
        os.close(write_end)
        assert set(os.read(read_end, 1 << 20)[-100:]) == {ord("x")}, "the pipe was not full"


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for something that must come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_requests_for_a_websocket_and_nonsense_leave_nothing_in_the_log(model):
    with serve(model) as (process, url):
        asking = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        assert httpx2.get(f"{url}/v1/models", headers=asking, timeout=PATIENCE, trust_env=False).status_code == 200
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            connection.sendall(b"this is no HTTP\r\n\r\n")
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400")
        process.send_signal(signal.SIGTERM)
        _, text = ending(process)
    assert "Unsupported upgrade" not in text
    assert "uvicorn" not in text
    assert "Invalid HTTP" not in text
    assert "draining" in text  # the log does work


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Wait until somebody listens there: the server has begun, its engine is not there yet."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.mark.parametrize(
    ("number", "delay", "ignored"),
    [
        (signal.SIGINT, 0.0, False),
        (signal.SIGTERM, 0.0, True),
        (signal.SIGINT, 0.1, True),
        (signal.SIGTERM, 0.1, False),
        (signal.SIGINT, 0.4, False),
        (signal.SIGTERM, 0.4, True),
    ],
)
def test_a_server_told_to_stop_while_it_is_loading_ends_quietly(model, number, delay, ignored):
    """From the moment its port is open, however its parent left the signal: a shell's background ignores SIGINT."""
    port = free_port()
    command = [*ANTIPHON, "serve", model, "--fake-engine", "--port", str(port)]
    if ignored:
        command = ["/bin/sh", "-c", f'trap "" {number.name[3:]}; exec "$@"', "sh", *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_port(port)
        time.sleep(delay)
        process.send_signal(number)
        try:
            status, text = ending(process)
        finally:
            process.kill()
    was_loading = "Serving" not in text
    assert status == (130 if number is signal.SIGINT and was_loading else 0)
    assert ("stopped before the model was loaded" in text) == was_loading
    assert "Traceback" not in text
    assert "never retrieved" not in text
    assert "Serving" not in text.partition("draining")[2]


@pytest.mark.parametrize("failed", [False, True])
async def test_nobody_complains_of_an_engine_no_longer_waited_for(failed):
    """Ctrl-C in a conversation whose server is loading: the task that waited for the engine is gone with it."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    client = EngineClient(EngineConfig(model="", fake=True), ServerConfig())  # never started, so never ready
    serving = asyncio.create_task(asyncio.sleep(PATIENCE))
    waiting = asyncio.create_task(_ready_or_stopped(client, serving, Console(stderr=True)))
    await asyncio.sleep(0.1)
    if failed:
        client.fleet_failed(EngineDied("It could not be started."))
    waiting.cancel()
    serving.cancel()
    await asyncio.gather(waiting, serving, return_exceptions=True)
    await client.stop()
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize("command", ["serve", "chat"])
def test_ctrl_c_while_the_engine_starts_is_clean(model, command, tmp_path):
    """The terminal sends the signal to every process of its group: none of them may die with a traceback."""
    (tmp_path / "sitecustomize.py").write_text(
        # A slow start, so that Ctrl-C comes while the engine's Python is still importing.
        "import sys, time\nif any('engine.worker' in each for each in sys.orig_argv): time.sleep(3)\n"
    )
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        options = ["--fake-engine", "--port", "0"] if command == "serve" else []
        terminal = Terminal(command, model, *options)
    finally:
        del os.environ["PYTHONPATH"]
    terminal.wait_for("starting the engine")
    time.sleep(0.3)
    terminal.type("\x03")
    assert terminal.end() == 130
    for word in ("Traceback", "Fatal", "KeyboardInterrupt", "error:"):
        assert word not in terminal.raw
    if command == "serve":
        assert "stopped before the model was loaded" in terminal.raw


def test_on_a_terminal_a_request_is_one_short_line_that_does_not_tear_the_progress_bar(model, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\nif any('engine.worker' in each for each in sys.orig_argv): time.sleep(2)\n"
    )
    port = free_port()
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        terminal = Terminal("serve", model, "--fake-engine", "--port", str(port))
    finally:
        del os.environ["PYTHONPATH"]
    terminal.wait_for("starting the engine")  # the bar is there, and HTTP is answered
    assert httpx2.get(f"http://127.0.0.1:{port}/ready", timeout=PATIENCE, trust_env=False).status_code == 503
    terminal.wait_for(" 503 GET /ready  0.")
    terminal.wait_for("curl http")
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    assert httpx2.post(url, json=body, timeout=PATIENCE, trust_env=False).status_code == 200
    terminal.wait_for(" 200 POST /v1/chat/completions  ")
    terminal.wait_for(" + 5 tokens  ")
    terminal.type("\x03")
    assert terminal.end() == 0
    (line,) = [line for line in ESCAPES.sub("", terminal.raw.replace("\r", "\n")).split("\n") if "GET /ready" in line]
    assert re.fullmatch(r"\d\d:\d\d:\d\d 503 GET /ready  \d+\.\d\d s", line)  # nothing of the bar is in it
    assert '"route"' not in terminal.raw


@pytest.mark.parametrize(
    ("options", "begins"), [((), '{"time"'), (("--access-log", "text"), ""), (("--no-access-log",), None)]
)
def test_elsewhere_the_access_log_is_json_unless_text_is_asked_for(model, options, begins):
    with serve(model, *options) as (process, url):
        assert httpx2.get(f"{url}/v1/models", timeout=PATIENCE, trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE)
    lines = [line for line in out.splitlines() if "/v1/models" in line]
    if begins is None:
        assert lines == []
    else:
        assert len(lines) == 1
        assert lines[0].startswith(begins)
        assert (" 200 GET /v1/models  " in lines[0]) == (begins == "")


def test_a_log_that_nobody_reads_stops_no_request(model):
    """More than a pipe holds, on standard output and on standard error."""
    with serve(model, "--log-level", "debug") as (process, url):
        with httpx2.Client(base_url=url, trust_env=False, timeout=PATIENCE) as client:
            for _ in range(400):
                assert client.get("/v1/models/" + "x" * 200).status_code == 404
        process.send_signal(signal.SIGTERM)
        assert ending(process)[0] == 0


def test_short_keys_are_warned_of_at_start(model):
    with serve(model, "--api-key", "ann:secret") as (process, _):
        process.send_signal(signal.SIGTERM)
        _, text = ending(process)
    assert "note: API key ann has fewer than 16 characters" in text
    assert "secret" not in text
