"""The server under test as the load test knows it: its address, its model, and which fields it accepts.

Before the load, a few requests find out what the server calls its model, whether it knows `ignore_eos` and
`stream_options`, and how many words make a prompt of the wanted size. What a request's body looks like is decided here.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from antiphon.bench.client import Client
from antiphon.bench.connection import BadResponse, CutOff, NoConnection
from antiphon.bench.prompts import MAX_TOKENS, Prompts, sized
from antiphon.bench.requests import Asker, Exchange, Request
from antiphon.bench.scrape import Scrape
from antiphon.errors import AntiphonError

Endpoint = Literal["chat", "completions"]
PATHS: dict[Endpoint, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_UNKNOWN_FIELD = (400, 422)
_OK = 200
_METRICS_SECONDS = 5.0  # for one scrape
_SIZES = (60, 240)  # words of the two prompts that a size is computed from


@dataclass(frozen=True)
class Target:
    """How to reach one server."""

    url: str  # without /v1
    name: str = ""
    model: str = ""  # empty: the first that it lists
    api_key: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    metrics_url: str = ""  # empty: /metrics of the same server
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True)
class Sampling:
    """What requests ask for beside their prompt."""

    endpoint: Endpoint = "chat"
    max_tokens: int = 0  # 0: the prompt set's
    is_exact: bool = False  # answers are to have exactly max_tokens
    temperature: float = 0.0
    seed: int | None = None  # of the first request; the next has the next
    stream: bool = True
    extra: dict[str, Any] = field(default_factory=dict)


class Server:
    """One server under test."""

    def __init__(self, target: Target, sampling: Sampling, timeout: float) -> None:
        self.target = target
        self.sampling = sampling
        self.model = target.model
        self.has_metrics = False
        headers = dict(target.headers)
        if target.api_key:
            headers["Authorization"] = f"Bearer {target.api_key}"
        self.client = Client(target.url, headers=headers, tls=target.tls)
        elsewhere = urlsplit(target.metrics_url or target.url)
        is_same = elsewhere.netloc == urlsplit(target.url).netloc  # others do not get the key
        self._metrics = Client(elsewhere.geturl(), headers=headers if is_same else {}, tls=target.tls)
        self._metrics_path = "" if target.metrics_url and elsewhere.path.strip("/") else "/metrics"
        self._timeout = timeout
        self._accepted = {"ignore_eos", "stream_options"}

    def close(self) -> None:
        """Close all connections."""
        self.client.close()
        self._metrics.close()

    def body(self, prompts: Prompts, stage: int, number: int) -> bytes:
        """The body of one request."""
        asked = prompts.body(stage, number)
        sampling = self.sampling
        fields: dict[str, Any] = {"model": self.model, "temperature": sampling.temperature, "stream": sampling.stream}
        if sampling.max_tokens:
            fields["max_tokens"] = sampling.max_tokens
        if sampling.seed is not None:
            fields["seed"] = sampling.seed + number
        if sampling.is_exact and "ignore_eos" in self._accepted:
            fields["ignore_eos"] = True
        if sampling.stream and "stream_options" in self._accepted:
            fields["stream_options"] = {"include_usage": True}
        return msgspec.json.encode({**fields, **sampling.extra, **self._of_endpoint(asked)})

    def _of_endpoint(self, asked: dict[str, Any]) -> dict[str, Any]:
        asked = {name: value for name, value in asked.items() if name not in ("model", "stream", "stream_options")}
        if self.sampling.endpoint == "completions" and "prompt" not in asked:
            asked["prompt"] = "\n\n".join(str(message.get("content", "")) for message in asked.pop("messages"))
        elif self.sampling.endpoint == "chat" and "messages" not in asked:
            asked["messages"] = [{"role": "user", "content": asked.pop("prompt")}]
        return asked

    async def prepare(self) -> None:
        """Find out the model and the fields that the server accepts.

        Raises:
            AntiphonError: the server cannot be reached or refuses a first, short request; with its words.
        """
        if not self.model:
            self.model = await self._first_model()
        first = await self._probe("Hello", 1)
        for name in ("ignore_eos", "stream_options"):
            if first.record.status in _UNKNOWN_FIELD and name in self._accepted:
                self._accepted.discard(name)
                first = await self._probe("Hello", 1)
        if first.record.end != "answered":
            record = first.record
            status = f"status {record.status}, " if record.status else ""
            raise AntiphonError(
                f"{self.target.url} did not answer the first request: {status}{record.message or record.end}"
            )
        self.has_metrics = await self.scrape() is not None

    async def _first_model(self) -> str:
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self.client.ask("/v1/models")
        except (NoConnection, CutOff, BadResponse) as error:
            raise AntiphonError(f"{self.target.url} cannot be reached: {error}") from None
        except TimeoutError:
            raise AntiphonError(f"{self.target.url} did not answer within {self._timeout:g} s") from None
        try:
            return str(reply.json()["data"][0]["id"])
        except (ValueError, LookupError, TypeError):
            how = (
                "Give the API key with --api-key."
                if reply.status in (401, 403)
                else "Check the address, or name the model with --model."
            )
            raise AntiphonError(f"{self.target.url} did not list its models (status {reply.status}). {how}") from None

    async def sized_prompts(self, tokens: int, seed: int) -> Prompts:
        """Prompts of about this many tokens, as the server counts them.

        Raises:
            AntiphonError: the server does not say how many tokens a prompt has, or the size is too small.
        """
        counts = []
        for words in _SIZES:
            prompts = sized(words, seed)
            record = (await self._asker().ask_once(Request(-1, words, self._short(prompts, words)))).record
            counts.append(record.prompt_tokens)
        per_word = (counts[1] - counts[0]) / (_SIZES[1] - _SIZES[0])
        if per_word <= 0:
            raise AntiphonError(
                "--input-tokens needs a server that counts a prompt's tokens in `usage`; this one does not"
            )
        fixed = counts[0] - per_word * _SIZES[0]
        words = round((tokens - fixed) / per_word)
        if words < 1:
            raise AntiphonError(
                f"--input-tokens is {tokens}; with the chat template, a prompt has at least {fixed + 1:.0f}"
            )
        return sized(words, seed)

    async def scrape(self) -> Scrape | None:
        """What the server's /metrics tells now; None if it has none that is known."""
        try:
            async with asyncio.timeout(_METRICS_SECONDS):
                reply = await self._metrics.ask(self._metrics_path)
        except (NoConnection, CutOff, BadResponse, TimeoutError):
            return None
        return Scrape.parse(reply.body.decode(errors="replace")) if reply.status == _OK else None

    def _asker(self) -> Asker:
        return Asker(self.client, PATHS[self.sampling.endpoint], timeout=self._timeout)

    async def _probe(self, content: str, max_tokens: int) -> Exchange:
        return await self._asker().ask_once(Request(-1, 0, self._with(content, max_tokens)))

    def _with(self, content: str, max_tokens: int) -> bytes:
        body = msgspec.json.decode(self.body(_Fixed(content), -1, 0))
        return msgspec.json.encode({**body, "max_tokens": max_tokens})

    def _short(self, prompts: Prompts, number: int) -> bytes:
        body = msgspec.json.decode(self.body(prompts, -1, number))
        return msgspec.json.encode({**body, "max_tokens": 1})


class _Fixed:
    """A prompt that is always the same."""

    def __init__(self, content: str) -> None:
        self._content = content

    def body(self, stage: int, number: int) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": self._content}]}


def default_max_tokens(prompts: str) -> int:
    """The limit of an answer for a built-in set; 0 for a file, whose lines may have their own."""
    return MAX_TOKENS.get(prompts, 0)
