"""A conversation in a terminal, or through a pipe, with any server that speaks OpenAI's API.

Owns the turns so far and the commands that a person may type. It promises that Ctrl-C ends the answer and not the
conversation, that an answer which was cut off stays part of it as far as it came, that a pipe receives the answer
alone, byte for byte, and that nothing a server sends can control the terminal. It is an ordinary client: where it runs
a server of its own, it still talks to it over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
from rich.console import Console
from rich.text import Text

from antiphon.commands.prompt import FENCE, Prompt
from antiphon.commands.server_address import server_url
from antiphon.commands.serving import running
from antiphon.config import EngineConfig, ServerConfig
from antiphon.errors import AntiphonError, ConfigError
from antiphon.loading.model import Found
from antiphon.terminal import console_on, printable

_TIMEOUT = httpx2.Timeout(10.0, read=None)  # a long prompt on a slow machine may take minutes to its first token
_UNAUTHORIZED = 401
_MAX_NOTE = 200  # characters of a note that a server sends
_COMMANDS = {
    "/new": "forget the conversation and start a new one",
    "/system": "followed by TEXT: use it as the system prompt; alone: use none",
    "/help": "show this help",
    "/exit": "leave",
}
_OTHER_NAMES = {"/quit": "/exit", "/bye": "/exit", "/clear": "/new", "/?": "/help"}
_HELP = f"""\
{chr(10).join(f"{name:<16}{explanation}" for name, explanation in _COMMANDS.items())}
New line: Alt-Enter, a backslash before Enter, or a first line of {FENCE}, until another one.
To send a line that begins with a slash, put a blank before it.
Ctrl-C stops an answer; Ctrl-D leaves."""


@dataclass(slots=True)
class ChatOptions:
    """What the command line asks for; sampling as the model's files advise where it says nothing."""

    system: str = ""
    temperature: float | None = None
    max_tokens: int | None = None

    def body(self) -> dict[str, Any]:
        """The fields of a request."""
        fields = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(slots=True)
class Conversation:
    """The turns so far, and the server that answers."""

    client: httpx2.AsyncClient
    model: str
    options: ChatOptions
    turns: list[dict[str, str]] = field(default_factory=list)
    lowered: str = ""  # the limits of the last answer that the server lowered under load

    async def ask(self, question: str) -> AsyncIterator[tuple[str, str]]:
        """The pieces of thought and of answer as they come. Both turns are kept, also when cancelled half way."""
        self.turns.append({"role": "user", "content": _well_formed(question)})
        self.lowered = ""
        answer: list[str] = []
        try:
            async for thought, text in self._stream():
                answer.append(text)
                yield thought, text
        except (AntiphonError, httpx2.HTTPError):
            self.turns.pop()
            raise
        except BaseException:
            self._keep(answer)
            raise
        self._keep(answer)

    def _keep(self, answer: list[str]) -> None:
        self.turns.append({"role": "assistant", "content": "".join(answer)})

    async def _stream(self) -> AsyncIterator[tuple[str, str]]:
        system = [{"role": "system", "content": self.options.system}] if self.options.system else []
        body = {"model": self.model, "messages": system + self.turns, "stream": True, **self.options.body()}
        async with self.client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                raise _refusal(response.status_code, await response.aread())
            self.lowered = _lowered(response.headers.get("x-antiphon-degraded", ""))
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield _pieces(json.loads(line[6:]))


async def talk_with_own_server(found: Found, console: Console, options: ChatOptions) -> None:
    """Serve a model on a free port for as long as the conversation lasts."""
    settings = ServerConfig(port=0, drain_timeout=1.0)
    async with running(found, EngineConfig(model=""), settings, console) as server:
        await talk_to(server.url, options)


async def talk_to(url: str, options: ChatOptions, api_key: str = "") -> None:
    """Have a conversation with the server at `url`.

    Raises:
        ConfigError: the address or the key cannot be one.
        AntiphonError: there is no such server, it refuses to answer, or it does not speak OpenAI's API.
    """
    url = server_url(url)
    async with httpx2.AsyncClient(base_url=url, headers=_headers(api_key), timeout=_TIMEOUT, trust_env=False) as client:
        try:
            model = await _served_model(client)
            conversation = Conversation(client, model, options)
            if sys.stdin.isatty():
                await _converse(conversation, console_on(stderr=False))
            else:
                await _answer_pipe(conversation)
        except httpx2.HTTPError as error:
            raise AntiphonError(
                f"cannot talk to {url} ({type(error).__name__}). Is a server running? `antiphon serve demo` starts one."
            ) from None
        except (ValueError, KeyError, IndexError, TypeError):
            raise AntiphonError(f"the server at {url} does not speak OpenAI's API") from None


def _headers(api_key: str) -> dict[str, str]:
    if not api_key:
        return {}
    if not api_key.isascii() or not api_key.isprintable():
        raise ConfigError("--api-key has characters that a key cannot have; keys are printable ASCII")
    return {"Authorization": f"Bearer {api_key}"}


async def _answer_pipe(conversation: Conversation) -> None:
    question = _piped_question()
    async for _, text in conversation.ask(question):
        _write(text)
    _write("\n")
    _note_lowered(conversation, console_on(stderr=True))


def _piped_question() -> str:
    """All of standard input. It is read on this thread, since one that waits for input could not be ended."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        question = sys.stdin.buffer.read().decode().strip()
    except UnicodeDecodeError:
        raise AntiphonError("the question on standard input is not UTF-8 text") from None
    finally:
        signal.signal(signal.SIGINT, before)
    if not question:
        raise AntiphonError("there is no question: standard input is empty")
    return question


async def _converse(conversation: Conversation, console: Console) -> None:
    title = Text.assemble((printable(conversation.model), "bold"), f" on {conversation.client.base_url}. ")
    console.print(title + Text("/help lists the commands; Ctrl-D leaves."))
    prompt = Prompt(_COMMANDS)
    while True:
        try:
            question = await prompt.read()
        except KeyboardInterrupt:
            console.print("(Ctrl-D or /exit leaves)")
            continue
        if question is None:
            return
        if question.startswith("/"):
            if not _obey(question, conversation, console):
                return
        elif question := question.strip():
            await _answer(conversation, question, console)
            console.print()


async def _answer(conversation: Conversation, question: str, console: Console) -> None:
    """Print the answer as it comes. Ctrl-C ends it; an error is shown, and the conversation goes on."""
    answering = asyncio.create_task(_print_answer(conversation, question, console))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, answering.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await answering
    except AntiphonError as error:
        console.print(Text.assemble(("error: ", "red"), printable(error.message)), soft_wrap=True)
    except httpx2.HTTPError as error:
        text = f"the connection to the server broke ({type(error).__name__}); ask again once it is back"
        console.print(Text.assemble(("error: ", "red"), text), soft_wrap=True)
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _print_answer(conversation: Conversation, question: str, console: Console) -> None:
    thinking = False
    async for thought, text in conversation.ask(question):
        if thought:
            thinking = True
            console.print(Text(printable(thought), style="dim"), end="", soft_wrap=True)
        if text:
            if thinking:
                _write("\n\n")
                thinking = False
            _write(printable(text.replace("\r", "")))
    if conversation.lowered:
        _write("\n")
        _note_lowered(conversation, console)


def _note_lowered(conversation: Conversation, console: Console) -> None:
    """Say that the server lowered the limits of the answer, if it did."""
    if conversation.lowered:
        note = f"(The server is busy and limited this answer: {conversation.lowered})"
        console.print(Text(note, style="dim"), soft_wrap=True)


def _obey(command: str, conversation: Conversation, console: Console) -> bool:
    """Do what a line that begins with a slash says; whether the conversation goes on."""
    typed, _, rest = command.strip().partition(" ")
    name = _OTHER_NAMES.get(typed, typed)
    if name == "/exit":
        return False
    if name == "/new":
        conversation.turns.clear()
        console.print("A new conversation.")
    elif name == "/system":
        conversation.options.system = rest.strip()
        console.print(f"System prompt: {printable(rest.strip()) or 'none'}")
    elif name == "/help":
        console.print(_HELP)
    else:
        console.print(f"There is no command {printable(typed)}; there are {', '.join(_COMMANDS)}.")
    return True


async def _served_model(client: httpx2.AsyncClient) -> str:
    response = await client.get("/v1/models")
    if response.status_code != 200:
        raise _refusal(response.status_code, response.content)
    return str(response.json()["data"][0]["id"])


def _lowered(header: str) -> str:
    """The limits in a header like "level=2; max_tokens=512", without the level."""
    parts = [part.strip() for part in header.split(";")]
    return printable("; ".join(part for part in parts if not part.startswith("level=")))[:_MAX_NOTE]


def _pieces(chunk: dict[str, Any]) -> tuple[str, str]:
    """A chunk's thought and text; an error event is raised."""
    if "error" in chunk:
        raise AntiphonError(str(chunk["error"].get("message")))
    if not chunk["choices"]:
        return "", ""
    delta = chunk["choices"][0]["delta"]
    thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
    return _well_formed(thought), _well_formed(delta.get("content") or "")


def _well_formed(text: str) -> str:
    """`text` without half characters (surrogates), which bytes from a terminal may become and no server takes."""
    return text.encode("utf-8", "replace").decode()


def _refusal(status: int, body: bytes) -> AntiphonError:
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered with status {status}"
    if status == _UNAUTHORIZED:
        message = f"{message.rstrip('.')}. Give the server's key, without a name, with --api-key or ANTIPHON_API_KEY."
    return AntiphonError(message)


def _write(text: str) -> None:
    """Write to standard output, whatever its encoding, without waiting for the end of a line."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
