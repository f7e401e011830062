"""`antiphon chat` as a person or a script runs it: a real process, real signals, a terminal."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
from command_processes import ANTIPHON, Terminal, serve
from patience import PATIENCE
from typer.testing import CliRunner

from antiphon.cli import app
from antiphon.commands.conversation import server_url
from antiphon.errors import AntiphonError, ConfigError


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
