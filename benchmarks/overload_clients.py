"""The clients of the overload benchmark, in a process of their own: `overload.py` starts it.

Owns how requests arrive, how each kind of client asks and tries again, and what is noted of it. A *request* is what a
person wants; an *attempt* is one HTTP request for it. Takes a `Load` as JSON, prints each request's `Seen` as a line.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from prose import prose

from antiphon.bench.client import Reply, ask, has_text

ONE_IN_LONG = 5  # one request in so many is long
WORDS = tuple(prose().split()[:3000])


@dataclass(frozen=True)
class Load:
    """What one process of clients does."""

    port: int
    model: str
    short: tuple[int, int, float]  # words of the prompt, tokens of the answer at most, patience in seconds
    long: tuple[int, int, float]
    rate: float = 0.0  # requests a second; 0: users ask one after another
    users: int = 0
    seconds: float = 30.0
    kind: str = "stock"
    pause: float = 1.0  # of naive clients
    tries: int = 1
    ends_within: float = 45.0  # seconds after the last arrival
    seed: int = 0

    def at(self, rate: float, seconds: float) -> Load:
        return replace(self, rate=rate, users=0, seconds=seconds)

    def with_users(self, users: int, seconds: float) -> Load:
        return replace(self, rate=0.0, users=users, seconds=seconds)

    def by(self, kind: str, pause: float, tries: int) -> Load:
        return replace(self, kind=kind, pause=pause, tries=tries)

    def part(self, number: int, of: int) -> Load:
        """The share of one process among several."""
        users = self.users // of + (number < self.users % of)
        return replace(self, rate=self.rate / of, users=users, seed=1000 * self.seed + number)


@dataclass
class Attempt:
    """One HTTP request. Times are in seconds since the load began."""

    sent: float
    status: int = 0  # 0: no answer came
    answered: float = 0.0  # when its head came
    retry_after: float | None = None  # seconds, as the answer says
    should_retry: str = ""  # what the header x-should-retry says


@dataclass
class Seen:
    """One request, from its arrival to its end."""

    due: float
    began: float  # later than `due` by what the client lagged
    is_long: bool
    patience: float
    attempts: list[Attempt] = field(default_factory=list)
    first: float | None = None  # when its first text came; of a whole answer, when it came
    ended: float = 0.0
    tokens: int = 0
    outcome: str = ""  # complete, refused, dropped (from the queue), impatient, cut (broke off), left (at the end)

    @classmethod
    def from_json(cls, line: bytes | str) -> Seen:
        fields = json.loads(line)
        return cls(**{**fields, "attempts": [Attempt(**each) for each in fields["attempts"]]})

    @property
    def waited(self) -> float | None:
        """From its last attempt to its first text."""
        return None if self.first is None else self.first - self.attempts[-1].sent

    @property
    def is_good(self) -> bool:
        return self.outcome == "complete" and self.waited is not None and self.waited <= self.patience


_SEEN: ContextVar[Seen] = ContextVar("seen")


class Clients:
    """All clients of this process."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.random = random.Random(load.seed)  # noqa: S311  # noise, no secret
        self.all: list[Seen] = []
        self._since = time.monotonic()
        self._openai: Any = None

    def now(self) -> float:
        return time.monotonic() - self._since

    async def run(self) -> None:
        if self.load.kind == "stock":
            self._openai = self._stock_client()
        self._since = time.monotonic()
        tasks = await (self._users() if self.load.users else self._arrivals())
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, self.load.seconds + self.load.ends_within - self.now()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._openai:
            await self._openai.close()
        for seen in self.all:
            if not seen.outcome:
                seen.outcome, seen.ended = "left", self.now()

    async def _arrivals(self) -> list[asyncio.Task[None]]:
        """Open loop: requests come at random, whatever became of the others."""
        tasks, due = [], 0.0
        while (due := due + self.random.expovariate(self.load.rate)) < self.load.seconds:
            await asyncio.sleep(max(0.0, due - self.now()))
            tasks.append(asyncio.create_task(self._one(due)))
        return tasks

    async def _users(self) -> list[asyncio.Task[None]]:
        """Closed loop: each asks again when it has its answer."""

        async def user() -> None:
            while self.now() < self.load.seconds:
                await self._one(self.now())

        return [asyncio.create_task(user()) for _ in range(self.load.users)]

    async def _one(self, due: float) -> None:
        is_long = self.random.randrange(ONE_IN_LONG) == 0
        words, tokens, patience = self.load.long if is_long else self.load.short
        seen = Seen(due, self.now(), is_long, patience)
        self.all.append(seen)
        text = " ".join(self.random.choice(WORDS) for _ in range(words))
        content = (
            f"Note {self.random.randrange(1 << 30):x}: {text}. Write {'a story' if is_long else 'a line'} about it."
        )
        body = {"model": self.load.model, "messages": [{"role": "user", "content": content}], "max_tokens": tokens}
        body |= {"temperature": 0, "stream": is_long}
        if is_long:
            body["stream_options"] = {"include_usage": True}
        seen.outcome = await (self._stock(seen, body) if self._openai else self._naive(seen, body))
        seen.ended = self.now()

    # ---- OpenAI's client ----

    def _stock_client(self) -> Any:
        import openai

        async def sent(request: Any) -> None:
            _SEEN.get().attempts.append(Attempt(self.now()))

        async def answered(response: Any) -> None:
            self._note(_SEEN.get().attempts[-1], response.status_code, response.headers)

        http = openai.DefaultAsyncHttpxClient(event_hooks={"request": [sent], "response": [answered]}, trust_env=False)
        return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{self.load.port}/v1", api_key="unused", http_client=http)

    async def _stock(self, seen: Seen, body: dict[str, Any]) -> str:
        """As a program would ask, but for the parsing of chunks, which costs more than the rest."""
        import openai

        _SEEN.set(seen)
        completions = self._openai.chat.completions.with_streaming_response
        try:
            async with completions.create(**body, timeout=seen.patience) as response:
                return self._ended(seen, [line async for line in self._lines(seen, response)])
        except openai.APITimeoutError:
            return "impatient"
        except openai.APIStatusError as error:
            return "refused" if error.status_code in (429, 503) else f"status {error.status_code}"
        except openai.APIConnectionError:
            return "cut"
        except Exception as error:  # httpx' own errors come out of a response that is being read
            return "impatient" if "Timeout" in type(error).__name__ else "cut"

    async def _lines(self, seen: Seen, response: Any) -> Any:
        async for line in response.iter_lines():
            if seen.first is None and (not seen.is_long or has_text(line.encode())):
                seen.first = self.now()
            yield line

    def _ended(self, seen: Seen, lines: list[str]) -> str:
        """What became of an answer whose body came to its end."""
        if seen.is_long:
            payloads = [line[6:] for line in lines if line.startswith("data: ")]
            if any("server_overloaded" in each for each in payloads[-3:]):
                return "dropped"  # in the queue, after it was accepted
            is_complete = payloads[-1:] == ["[DONE]"] and not any('"error"' in each for each in payloads[-3:])
            ending = next((each for each in reversed(payloads) if '"usage":{' in each), "{}")
        else:
            ending, is_complete = "".join(lines), True
        with suppress(ValueError, KeyError, TypeError):
            seen.tokens = json.loads(ending)["usage"]["completion_tokens"]
        if is_complete and seen.first is None:  # an empty answer
            seen.first = self.now()
        return "complete" if is_complete else "cut"

    # ---- A client that ignores what it is told ----

    async def _naive(self, seen: Seen, body: dict[str, Any]) -> str:
        outcome = "refused"
        for number in range(self.load.tries):
            if number:
                await asyncio.sleep(self.load.pause)
            seen.first = None
            seen.attempts.append(Attempt(self.now()))
            outcome = await self._try(seen, body)
            if outcome == "complete":
                break
        return outcome

    async def _try(self, seen: Seen, body: dict[str, Any]) -> str:
        attempt = seen.attempts[-1]
        headers = {"x-stainless-read-timeout": str(seen.patience)}
        try:
            # A stream that began is read to its end; what counts is when its first text came.
            async with asyncio.timeout(seen.patience + (60 if seen.is_long else 0)):
                reply = await ask(f"http://127.0.0.1:{self.load.port}", "/v1/chat/completions", body, headers)
        except TimeoutError:
            return "impatient"
        except (OSError, EOFError):
            return "cut"
        self._note(attempt, reply.status, reply.headers)
        if reply.status != 200:
            return "refused" if reply.status in (429, 503) else f"status {reply.status}"
        return self._read(seen, reply)

    def _read(self, seen: Seen, reply: Reply) -> str:
        at = reply.first_text if seen.is_long else reply.ended
        seen.first = None if at is None else at - self._since
        return self._ended(seen, reply.body.decode().split("\n"))

    def _note(self, attempt: Attempt, status: int, headers: Any) -> None:
        attempt.status, attempt.answered = status, self.now()
        after = headers.get("retry-after-ms")
        seconds = headers.get("retry-after")
        with suppress(TypeError, ValueError):
            attempt.retry_after = float(after) / 1000 if after else float(seconds)
        attempt.should_retry = headers.get("x-should-retry") or ""


def main() -> None:
    clients = Clients(Load(**json.loads(sys.argv[1])))
    asyncio.run(clients.run())
    for seen in clients.all:
        print(json.dumps(asdict(seen)))
