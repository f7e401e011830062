"""A conversation in a terminal, or through a pipe, with any server that speaks OpenAI's API.

Owns the turns so far and what a person may type. It promises that Ctrl-C ends the answer and not the conversation, that
a broken-off answer stays part of it as far as it came, and that a pipe sees the answer alone. It is an ordinary client:
where it runs a server of its own, it still talks to it over HTTP.
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

from antiphon.commands.serving import running
from antiphon.config import EngineConfig, ServerConfig
from antiphon.errors import AntiphonError
from antiphon.loading.model import Found

_TIMEOUT = httpx2.Timeout(10.0, read=None)  # a long prompt on a slow machine may take minutes to its first token
_HELP = """\
/new            forget the conversation
/system TEXT    tell the model TEXT before it; nothing to see or forget what it was told
/help           this
Several lines: end a line with a backslash, or write them between two lines of \"\"\".
Ctrl-C stops an answer, Ctrl-D leaves."""
_FENCE = '"""'
_PROMPT, _MORE = "> ", "… "


@dataclass(slots=True)
class Wishes:
    """What the command line asked for; sampling as advised where nothing was."""

    system: str = ""
    temperature: float | None = None
    max_tokens: int | None = None

    def body(self) -> dict[str, Any]:
        """The fields of a request that were asked for."""
        fields = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(slots=True)
class Conversation:
    """The turns so far, and the server they are had with."""

    client: httpx2.AsyncClient
    model: str
    wishes: Wishes
    turns: list[dict[str, str]] = field(default_factory=list)

    async def ask(self, question: str, console: Console, *, show_thought: bool) -> None:
        """Print the answer to `question` as it comes, and keep both, also when cancelled half way."""
        self.turns.append({"role": "user", "content": question})
        answer: list[str] = []
        thinking = False
        try:
            async for thought, text in self._stream():
                if thought and show_thought:
                    thinking = True
                    _write(console, thought, style="dim")
                if text:
                    if thinking:
                        console.print("\n")
                        thinking = False
                    _write(console, text)
                answer.append(text)
        except AntiphonError:
            self.turns.pop()
            raise
        except BaseException:
            self._keep(answer)
            raise
        self._keep(answer)

    def _keep(self, answer: list[str]) -> None:
        self.turns.append({"role": "assistant", "content": "".join(answer)})

    async def _stream(self) -> AsyncIterator[tuple[str, str]]:
        system = [{"role": "system", "content": self.wishes.system}] if self.wishes.system else []
        body = {"model": self.model, "messages": system + self.turns, "stream": True, **self.wishes.body()}
        async with self.client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                raise _refusal(response.status_code, await response.aread())
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield _pieces(json.loads(line[6:]))


async def talk_with_own_server(found: Found, console: Console, wishes: Wishes) -> None:
    """Serve a model on a free port for as long as the conversation lasts."""
    settings = ServerConfig(port=0, drain_timeout=1.0)
    async with running(found, EngineConfig(model=""), settings, console) as server:
        await talk_to(server.url, wishes)


async def talk_to(url: str, wishes: Wishes, api_key: str = "") -> None:
    """Have a conversation with the server at `url`; the `/v1` that other clients want at its end may be there."""
    url = url.rstrip("/").removesuffix("/v1")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False) as client:
        try:
            model = await _served_model(client)
            conversation = Conversation(client, model, wishes)
            if sys.stdin.isatty():
                await _converse(conversation, Console(highlight=False))
            else:
                await _answer_pipe(conversation)
        except httpx2.HTTPError as error:
            raise AntiphonError(
                f"cannot talk to {url} ({type(error).__name__}). Is a server running? `antiphon serve demo` starts one."
            ) from None
        except (ValueError, KeyError, IndexError):
            raise AntiphonError(f"what answers at {url} does not speak OpenAI's API") from None


async def _answer_pipe(conversation: Conversation) -> None:
    question = (await asyncio.to_thread(sys.stdin.read)).strip()
    if not question:
        raise AntiphonError("there is no question: standard input is empty")
    console = Console(highlight=False, no_color=True)
    await conversation.ask(question, console, show_thought=False)
    console.print()


async def _converse(conversation: Conversation, console: Console) -> None:
    console.print(
        f"[bold]{conversation.model}[/bold] on {conversation.client.base_url}. /help says more; Ctrl-D leaves."
    )
    loop = asyncio.get_running_loop()
    answering: asyncio.Task[None] | None = None

    def interrupt() -> None:
        if answering is not None:
            answering.cancel()
        else:  # the terminal has dropped what was typed so far
            console.print("\n(Ctrl-D leaves)")
            console.print(_PROMPT, end="")

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        while (question := await _read_question(console)) is not None:
            if question.startswith("/"):
                _obey(question, conversation, console)
            elif question:
                answering = asyncio.create_task(conversation.ask(question, console, show_thought=True))
                with suppress(asyncio.CancelledError):
                    await _shown(answering, console)
                answering = None
                console.print()
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _shown(answering: asyncio.Task[None], console: Console) -> None:
    """Wait for an answer; a refusal is shown and the conversation goes on."""
    try:
        await answering
    except AntiphonError as error:
        console.print("[red]" + "refused:" + "[/red]", error.message, markup=True, soft_wrap=True)


async def _read_question(console: Console) -> str | None:
    """What was typed, joined if it is several lines; None at the end."""
    lines: list[str] = []
    fenced = False
    while True:
        try:
            line = await asyncio.to_thread(input, _MORE if lines or fenced else _PROMPT)
        except EOFError:
            console.print()
            return None
        if line.strip() == _FENCE:
            if fenced:
                return "\n".join(lines)
            fenced = True
        elif fenced:
            lines.append(line)
        elif line.endswith("\\"):
            lines.append(line[:-1])
        else:
            return "\n".join([*lines, line]).strip()


def _obey(command: str, conversation: Conversation, console: Console) -> None:
    name, _, rest = command.partition(" ")
    if name == "/new":
        conversation.turns.clear()
        console.print("A new conversation.")
    elif name == "/system":
        conversation.wishes.system = rest.strip()
        console.print(f"The model is told: {rest.strip() or 'nothing'}", markup=False)
    else:
        console.print(_HELP, markup=False)


async def _served_model(client: httpx2.AsyncClient) -> str:
    response = await client.get("/v1/models")
    if response.status_code != 200:
        raise _refusal(response.status_code, response.content)
    return str(response.json()["data"][0]["id"])


def _pieces(chunk: dict[str, Any]) -> tuple[str, str]:
    """A chunk's thought and text; an error event is raised."""
    if "error" in chunk:
        raise AntiphonError(str(chunk["error"].get("message")))
    if not chunk["choices"]:
        return "", ""
    delta = chunk["choices"][0]["delta"]
    return delta.get("reasoning_content") or delta.get("reasoning") or "", delta.get("content") or ""


def _refusal(status: int, body: bytes) -> AntiphonError:
    try:
        return AntiphonError(str(json.loads(body)["error"]["message"]))
    except (ValueError, KeyError, TypeError):
        return AntiphonError(f"the server answered with status {status}")


def _write(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, end="", markup=False, highlight=False, soft_wrap=True)
