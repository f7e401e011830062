"""`antiphon serve` and `antiphon chat` as a person or a script runs them: real processes, real signals, a terminal."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pty
import re
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
from typer.testing import CliRunner

from antiphon.cli import app
from antiphon.commands.conversation import server_url
from antiphon.commands.serving import _ready_or_stopped
from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.errors import AntiphonError, ConfigError, EngineDied

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


def test_a_question_through_a_pipe_is_answered_plainly(model):
    with serve(model) as (_, url):
        ask = [*ANTIPHON, "chat", "--url", url, "--max-tokens", "20", "--temperature", "0"]
        reply = subprocess.run(ask, input="Hello\n", capture_output=True, text=True, timeout=PATIENCE, check=True)
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20, "temperature": 0}
        answer = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE, trust_env=False).json()
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
    """A command on a terminal of its own, with a history of its own."""

    def __init__(self, *arguments: str, history: Path | str = "off") -> None:
        environment = os.environ | {
            "ANTIPHON_CHAT_HISTORY": str(history),
            "PROMPT_TOOLKIT_NO_CPR": "1",  # nobody here answers where the cursor is
            "TERM": "xterm",
            "COLUMNS": "100",
        }
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [*ANTIPHON, *arguments], environment)  # noqa: S606
        self.seen = self.raw = ""
        self._num_prompts = 0

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def paste(self, text: str) -> None:
        """As a terminal does that brackets what is pasted; a long text is taken piece by piece."""
        data = f"\x1b[200~{text}\x1b[201~".encode()
        while data:
            _, writable, _ = select.select([], [self._fd], [], 0.01)
            data = data[os.write(self._fd, data[:512]) :] if writable else data
            self._read(0)

    def wait_for(self, text: str) -> None:
        """Read on until `text` has come since the last wait, colours and the like aside."""
        while text not in self.seen:
            assert self._read(PATIENCE), self.seen[-2000:]
        self.seen = self.seen.partition(text)[2]

    def wait_for_prompt(self) -> None:
        """Read on until the next line to type in is there: the terminal is then asked to bracket what is pasted."""
        while self.raw.count("\x1b[?2004h") == self._num_prompts:
            assert self._read(PATIENCE), self.seen[-2000:]
        self._num_prompts += 1
        self.seen = ""

    def end(self) -> int:
        """The exit status, once it ends by itself."""
        while self._read(PATIENCE):
            pass
        deadline = time.monotonic() + PATIENCE
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)  # so that it is a failure here, and not a wait for ever
            time.sleep(0.01)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._fd)
        return os.waitstatus_to_exitcode(status)

    def _read(self, timeout: float) -> bool:
        readable, _, _ = select.select([self._fd], [], [], timeout)
        try:
            data = os.read(self._fd, 65536) if readable else b""
        except OSError:  # Linux says so when the other side is gone
            data = b""
        self.raw += data.decode(errors="replace")
        self.seen = _ESCAPES.sub("", self.seen + data.decode(errors="replace"))
        return bool(data)


_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>][A-Z0-9]?|\r")


class Listening(BaseHTTPRequestHandler):
    """A model that says back what it was told, in JSON, and keeps all of it."""

    asked: list[list[dict[str, str]]]
    keys: list[str | None]
    key = ""

    def do_GET(self) -> None:
        self.keys.append(self.headers["Authorization"])
        if self.key and self.headers["Authorization"] != f"Bearer {self.key}":
            self._send(401, b'{"error": {"message": "Wrong API key."}}')
        else:
            self._send(200, b'{"data": [{"id": "[bold]echo[/x]"}]}')

    def do_POST(self) -> None:
        messages = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
        self.asked.append(messages)
        chunk = {"choices": [{"delta": {"content": f"answer {len(self.asked)} [/b]\t\x1b[2J:smile:"}}]}
        self._send(200, f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def listening(key: str = "") -> Iterator[tuple[str, type[Listening]]]:
    """An address without a scheme, and who listens there."""
    handler = type("Handler", (Listening,), {"asked": [], "keys": [], "key": key})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", handler
        server.shutdown()


def test_a_conversation_on_a_terminal(model):
    with serve(model) as (_, url):
        terminal = Terminal("chat", "--url", url, "--max-tokens", "5")
        terminal.wait_for_prompt()
        terminal.type("/help\r")
        terminal.wait_for("/system")
        terminal.wait_for_prompt()
        terminal.type("/system Be brief.\r")
        terminal.wait_for("System prompt: Be brief.")
        terminal.wait_for_prompt()
        terminal.type("one \\\r")
        terminal.wait_for("…")
        terminal.type("two\r")
        terminal.wait_for_prompt()
        terminal.type("/new\r")
        terminal.wait_for("new conversation")
        terminal.wait_for_prompt()
        terminal.type("\x04")
        assert terminal.end() == 0
        served = httpx2.get(f"{url}/metrics", timeout=PATIENCE, trust_env=False).text
        assert 'antiphon_requests_finished_total{endpoint="chat"} 1.0' in served


def test_what_is_typed_can_be_edited_recalled_and_have_several_lines(tmp_path):
    history = tmp_path / "state" / "history"
    with listening() as (address, handler):
        terminal = Terminal("chat", "--url", address, history=history)
        terminal.wait_for_prompt()
        terminal.type("helo\x1b[Dl\r")  # arrow left, and the missing letter
        terminal.wait_for("answer 1")
        terminal.wait_for_prompt()
        terminal.type("first\x1b\rsecond\r")  # Alt-Enter
        terminal.wait_for("answer 2")
        terminal.wait_for_prompt()
        terminal.type('"""\rthird\r\rfourth\r"""\r')
        terminal.wait_for("answer 3")
        terminal.wait_for_prompt()
        terminal.type("/exit\r")
        assert terminal.end() == 0
        again = Terminal("chat", "--url", address, history=history)
        again.wait_for_prompt()
        again.type("\x1b[A\x1b[A")  # arrow up: /exit, then the last question
        again.wait_for("fourth")
        again.type("\r")
        again.wait_for("answer 4")
        again.wait_for_prompt()
        again.type("\x04")
        assert again.end() == 0
    asked = [messages[-1]["content"] for messages in handler.asked]
    assert asked == ["hello", "first\nsecond", "third\n\nfourth", "third\n\nfourth"]
    assert [len(messages) for messages in handler.asked] == [1, 3, 5, 1]
    assert history.stat().st_mode & 0o777 == 0o600


def test_a_pasted_text_is_one_question_however_long_and_of_however_many_lines():
    text = "\n".join(f"line {number} " + "x" * 80 for number in range(150))
    assert len(text) > 10_000
    with listening() as (address, handler):
        terminal = Terminal("chat", "--url", address)
        terminal.wait_for_prompt()
        terminal.paste(text)
        terminal.type("\r")
        terminal.wait_for("answer 1")
        terminal.wait_for_prompt()
        one_line = "y" * 12_000
        terminal.paste(one_line)
        terminal.type("\r")
        terminal.wait_for("answer 2")
        terminal.wait_for_prompt()
        terminal.type("\x04")
        assert terminal.end() == 0
    assert [messages[-1]["content"] for messages in handler.asked] == [text, one_line]


def test_a_command_that_is_not_known_is_named_and_asks_nothing():
    with listening() as (address, handler):
        terminal = Terminal("chat", "--url", address)
        terminal.wait_for("[bold]echo[/x]")  # the model's name, as it is
        terminal.wait_for_prompt()
        terminal.type("/nwe [x]\r")
        terminal.wait_for("There is no command /nwe; there are /new, /system, /help, /exit.")
        terminal.wait_for_prompt()
        terminal.type(" /etc/passwd is what?\r")  # a blank before it makes it a question
        terminal.wait_for("answer 1 [/b]")
        terminal.wait_for(r"\x1b[2J:smile:")  # shown, and not obeyed
        terminal.wait_for_prompt()
        terminal.type("/he\t")  # Tab completes
        terminal.wait_for("/help")
        terminal.type("\r")
        terminal.wait_for("Ctrl-D leaves")
        terminal.wait_for_prompt()
        terminal.type("/quit\r")
        assert terminal.end() == 0
    assert [messages[-1]["content"] for messages in handler.asked] == ["/etc/passwd is what?"]


def test_a_pipe_gets_the_answer_byte_for_byte():
    with listening() as (address, _):
        ask = [*ANTIPHON, "chat", "--url", address]
        reply = subprocess.run(ask, input=b"Hello\n", capture_output=True, timeout=PATIENCE, check=True)
        assert reply.stdout == b"answer 1 [/b]\t\x1b[2J:smile:\n"
        assert CliRunner().invoke(app, ask[3:], input="Hello").stdout_bytes == reply.stdout.replace(b"1", b"2", 1)
        refused = CliRunner().invoke(app, ask[3:], input=b"\xff\n").exception
        assert str(refused) == "the question on standard input is not UTF-8 text"


def test_a_server_that_wants_a_key_is_told_apart_and_the_option_named():
    with listening("sk-right") as (address, handler):
        for options, says in (
            ([], "Wrong API key. Give the server's key, without a name, with --api-key or ANTIPHON_API_KEY."),
            (["--api-key", "sk-wrong"], "with --api-key"),
            (["--api-key", "sk-\x7f"], "--api-key has characters that a key cannot have"),
            (["--api-key", "sk-right"], ""),
        ):
            result = CliRunner().invoke(app, ["chat", "--url", address, *options], input="Hello")
            assert isinstance(result.exception, AntiphonError) == bool(says)
            assert says in str(result.exception)
    assert handler.keys == [None, "Bearer sk-wrong", "Bearer sk-right"]


@pytest.mark.parametrize("typed", ["ftp://x", "http://", ":8000", "http://[x", "http://x:port", "", "x:0"])
def test_what_cannot_be_an_address_is_refused(typed):
    with pytest.raises(ConfigError, match=re.escape(f"--url is {typed!r}; an address is like")):
        server_url(typed)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("box/v1/", "http://box"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("https://x/prefix/v1/chat/completions", "https://x/prefix"),
    ],
)
def test_an_address_may_be_short_or_what_other_clients_are_given(typed, meant):
    assert server_url(typed) == meant


def test_a_model_on_the_command_line_goes_before_a_server_in_the_environment(monkeypatch):
    monkeypatch.setenv("ANTIPHON_URL", "http://127.0.0.1:9")
    failed = CliRunner().invoke(app, ["chat", "./no/such.gguf"]).exception
    assert "there is no file or folder" in str(failed)
    monkeypatch.setenv("ANTIPHON_URL", "ftp://x")
    assert str(CliRunner().invoke(app, ["chat"]).exception).startswith("ANTIPHON_URL is 'ftp://x'")


def test_a_connection_that_breaks_does_not_end_the_conversation():
    with listening() as (address, _):
        terminal = Terminal("chat", "--url", address)
        terminal.wait_for_prompt()
    terminal.type("Hello\r")
    terminal.wait_for("error: the connection to the server broke")
    terminal.wait_for_prompt()
    terminal.type("\x04")
    assert terminal.end() == 0


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
            terminal.wait_for_prompt()
            terminal.type("Hello\r")
            terminal.wait_for("bla bla")
            terminal.type("\x03")
            assert Endless.gone.wait(PATIENCE)
            Endless.gone.clear()
        terminal.wait_for_prompt()
        terminal.type("half a question\x03")
        terminal.wait_for("/exit leaves")
        terminal.wait_for_prompt()  # before it, Ctrl-D would be the terminal's and not the program's
        terminal.type("\x04")
        assert terminal.end() == 0
        server.shutdown()


# --- a server on a terminal


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
    (line,) = [line for line in _ESCAPES.sub("", terminal.raw.replace("\r", "\n")).split("\n") if "GET /ready" in line]
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
