"""`antiphon serve` and `antiphon chat` as a person or a script runs them: real processes, real signals, a terminal."""

from __future__ import annotations

import asyncio
import gc
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from http_server import PATIENCE
from pipes_full import full_pipe
from real_server import children
from rich.console import Console
from tiny_checkpoints import CHATML_TEMPLATE, metadata, write_gguf

from antiphon.commands.serving import _ready_or_stopped
from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.errors import EngineDied

ANTIPHON = [sys.executable, "-m", "antiphon"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_gguf(tmp_path / "small.gguf", metadata(template=CHATML_TEMPLATE)))


@contextmanager
def serve(model: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process that is ready, and its address, taken from the line that it offers for pasting."""
    command = [*ANTIPHON, "serve", model, "--fake-engine", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("curl http://127.0.0.1:")
            yield process, line.split()[1].removesuffix("/v1/chat/completions")
        finally:
            process.kill()


def ending(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and stderr of a process that is about to end."""
    _, text = process.communicate(timeout=PATIENCE)
    return process.returncode, text


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
        assert httpx2.post(f"{url}/v1/chat/completions", json=body, trust_env=False).status_code == 200
        assert httpx2.get(f"{url}/v1/models", trust_env=False).json()["data"][0]["id"] == "small"
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
        assert httpx2.get(f"{url}/v1/models", headers=asking, trust_env=False).status_code == 200
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


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
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
    assert status == 0
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
        client.engine_given_up(EngineDied("It could not be started."))
    waiting.cancel()
    serving.cancel()
    await asyncio.gather(waiting, serving, return_exceptions=True)
    await client.stop()
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize("ending_of_url", ["", "/", "/v1", "/v1/"])
def test_chat_understands_the_address_that_other_clients_are_given(model, ending_of_url):
    with serve(model) as (_, url):
        ask = [*ANTIPHON, "chat", "--url", url + ending_of_url, "--max-tokens", "2"]
        reply = subprocess.run(ask, input="Hello\n", capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert reply.returncode == 0, reply.stderr


def test_a_question_through_a_pipe_is_answered_plainly(model):
    with serve(model) as (_, url):
        ask = [*ANTIPHON, "chat", "--url", url, "--max-tokens", "20", "--temperature", "0"]
        reply = subprocess.run(ask, input="Hello\n", capture_output=True, text=True, timeout=PATIENCE, check=True)
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20, "temperature": 0}
        answer = httpx2.post(f"{url}/v1/chat/completions", json=body, trust_env=False).json()
    assert reply.stdout == answer["choices"][0]["message"]["content"] + "\n"
    assert reply.stderr == ""


def test_an_empty_pipe_and_a_refused_question_are_errors(model):
    with serve(model) as (_, url):
        ask = [*ANTIPHON, "chat", "--url", url]
        for options, question, says in (([], "", "empty"), (["--temperature", "9"], "Hello", "temperature")):
            reply = subprocess.run([*ask, *options], input=question, capture_output=True, text=True, check=False)
            assert reply.returncode == 1
            assert reply.stderr.startswith("error: ")
            assert says in reply.stderr


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [*ANTIPHON, *arguments])  # noqa: S606
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> None:
        """Read on until `text` has come since the last wait."""
        while text not in self.seen:
            readable, _, _ = select.select([self._fd], [], [], PATIENCE)
            assert readable, self.seen
            self.seen += os.read(self._fd, 65536).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def end(self) -> int:
        """The exit status, once it ends by itself."""
        while True:
            try:
                if not os.read(self._fd, 65536):
                    break
            except OSError:  # Linux says so when the other side is gone
                break
        _, status = os.waitpid(self.pid, 0)
        os.close(self._fd)
        return os.waitstatus_to_exitcode(status)


def test_a_conversation_on_a_terminal(model):
    with serve(model) as (_, url):
        terminal = Terminal("chat", "--url", url, "--max-tokens", "5")
        terminal.wait_for("> ")
        terminal.type("/help\n")
        terminal.wait_for("/system")
        terminal.wait_for("> ")
        terminal.type("/system Be brief.\n")
        terminal.wait_for("told: Be brief.")
        terminal.wait_for("> ")
        terminal.type("one \\\n")
        terminal.wait_for("… ")
        terminal.type("two\n")
        terminal.wait_for("> ")
        terminal.type("/new\n")
        terminal.wait_for("new conversation")
        terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.end() == 0
        served = httpx2.get(f"{url}/metrics", trust_env=False).text
        assert 'antiphon_requests_finished_total{endpoint="chat"} 1.0' in served


class Endless(BaseHTTPRequestHandler):
    """A model that does not stop talking until its client has gone."""

    gone = threading.Event()

    def do_GET(self) -> None:
        self._begin()
        self.wfile.write(b'{"data": [{"id": "talker"}]}')

    def do_POST(self) -> None:
        self._begin()
        try:
            while True:
                self.wfile.write(b'data: {"choices": [{"delta": {"content": "bla "}}]}\n\n')
                time.sleep(0.001)
        except ConnectionError:
            self.gone.set()

    def _begin(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_ctrl_c_stops_an_answer_and_not_the_conversation():
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        terminal = Terminal("chat", "--url", f"http://127.0.0.1:{server.server_port}")
        for _ in range(2):
            terminal.wait_for("> ")
            terminal.type("Hello\n")
            terminal.wait_for("bla bla")
            terminal.type("\x03")
            assert Endless.gone.wait(PATIENCE)
            Endless.gone.clear()
        terminal.wait_for("> ")
        terminal.type("half a question\x03")
        terminal.wait_for("Ctrl-D leaves")
        terminal.type("\x04")
        assert terminal.end() == 0
        server.shutdown()
