"""One request as a person wants it: sent, read, timed, perhaps sent again, and written down attempt by attempt."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from antiphon.bench.answers import Answer, BadAnswer, Incomplete, error_of
from antiphon.bench.client import Client
from antiphon.bench.connection import BadResponse, CutOff, NoConnection
from antiphon.bench.records import End, RequestRecord
from antiphon.bench.retries import Policy, pause, retry_after, should_retry

REFUSALS = (429, 503, 529)
_OK = 200
_MAX_ERROR = 1 << 16  # bytes of an error's body that are kept
_MAX_MESSAGE = 300  # characters


@dataclass(frozen=True)
class Request:
    """What is asked, and what is known of it before it is sent."""

    stage: int
    number: int
    body: bytes
    due: float | None = None
    user: int = 0
    users: int = 0

    @property
    def digest(self) -> str:
        """Equal bodies have equal digests."""
        return hashlib.blake2b(self.body, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Exchange:
    """An attempt: its record, and what was said."""

    request: Request
    record: RequestRecord
    answer: Answer


class Asker:
    """Asks one server. Times are in seconds since `origin`, on the monotonic clock."""

    def __init__(
        self,
        client: Client,
        path: str,
        *,
        timeout: float,
        policy: Policy = "none",
        most_retries: int = 2,
        origin: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._client = client
        self._path = path
        self._timeout = timeout
        self._policy = policy
        self._most_retries = most_retries
        self._origin = origin
        self._draw = Random(seed)  # noqa: S311  # of the pauses

    def now(self) -> float:
        """Seconds since the origin."""
        return time.monotonic() - self._origin

    async def ask(self, request: Request, take: Callable[[Exchange], None]) -> None:
        """Send the request, again where the policy says so, and give every attempt to `take`.

        A cancelled call gives the attempt under way too, as `cancelled`.
        """
        waited: float | None = None
        for attempt in range(self._most_retries + 1):
            exchange = await self._attempt(request, attempt, waited, take)
            wait = pause(exchange.record, self._draw) if self._policy == "openai" else None
            if wait is None or attempt == self._most_retries:
                return
            ended = exchange.record.ended
            await asyncio.sleep(wait)
            waited = self.now() - ended

    async def ask_once(self, request: Request) -> Exchange:
        """One attempt, whatever the policy."""
        return await self._attempt(request, 0, None, lambda _: None)

    async def _attempt(
        self, request: Request, attempt: int, waited: float | None, take: Callable[[Exchange], None]
    ) -> Exchange:
        reader = _Reader()
        sent = self.now()
        end, code, message = await self._send(request, reader, attempt)
        record = self._record(request, reader, (end, code, message), attempt, sent, waited)
        exchange = Exchange(request, record, reader.answer)
        take(exchange)
        if end == "cancelled":
            raise asyncio.CancelledError
        return exchange

    async def _send(self, request: Request, reader: _Reader, attempt: int) -> tuple[End, str, str]:
        """How the attempt ended: kind, code and message."""
        headers = {}
        if self._policy == "openai":  # as the SDKs say it
            headers = {"x-stainless-retry-count": str(attempt), "x-stainless-read-timeout": f"{self._timeout:g}"}
        try:
            async with asyncio.timeout(self._timeout):
                await self._client.send("POST", self._path, reader, request.body, headers)
            return reader.ended()
        except TimeoutError:
            return "timeout", "timeout", f"no complete answer within {self._timeout:g} s"
        except NoConnection as error:
            return "connection", "connection", str(error)
        except (CutOff, Incomplete) as error:
            return "cut", "cut", str(error)
        except (BadResponse, BadAnswer) as error:
            return "invalid", "invalid", str(error)
        except asyncio.CancelledError:
            return "cancelled", "", ""

    def _record(
        self,
        request: Request,
        reader: _Reader,
        ending: tuple[End, str, str],
        attempt: int,
        sent: float,
        waited: float | None,
    ) -> RequestRecord:
        end, code, message = ending
        answer = reader.answer
        thought_tokens, answer_tokens = answer.tokens
        return RequestRecord(
            request.stage,
            request.number,
            end,
            sent,
            self.now(),
            due=request.due,
            user=request.user,
            users=request.users,
            attempt=attempt,
            status=reader.status,
            code=code[:_MAX_MESSAGE],
            message=message[:_MAX_MESSAGE],
            first_byte=self._since(reader.first_byte),
            first_token=self._since(answer.first_token),
            first_answer=self._since(answer.first_answer),
            last_token=self._since(answer.last_token),
            gaps_ms=[round(gap * 1000, 3) for gap in answer.gaps],
            prompt_tokens=answer.prompt_tokens,
            cached_tokens=answer.cached_tokens,
            thought_tokens=thought_tokens,
            answer_tokens=answer_tokens,
            tokens_estimated=answer.tokens_estimated and answer.first_token is not None,
            split_estimated=answer.split_estimated,
            finish_reason=answer.finish_reason,
            degraded=answer.degraded is not None or "x-antiphon-degraded" in reader.headers,
            retry_after=retry_after(reader.headers) if reader.status and reader.status != _OK else None,
            should_retry=should_retry(reader.headers),
            waited=waited,
            prompt=request.digest,
            text=answer.digest if end == "answered" else "",
        )

    def _since(self, at: float | None) -> float | None:
        return None if at is None else at - self._origin


class _Reader:
    """Takes one response: an answer, or an error."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.first_byte: float | None = None
        self.answer = Answer(stream=True)
        self._error = b""
        self._last = 0.0

    def on_head(self, status: int, headers: dict[str, str], at: float) -> None:
        self.status, self.headers = status, headers
        self.first_byte = self._last = at
        if not headers.get("content-type", "").startswith("text/event-stream"):
            self.answer = Answer(stream=False)

    def on_data(self, data: bytes, at: float) -> None:
        self._last = at
        if self.status == _OK:
            self.answer.feed(data, at)
        elif len(self._error) < _MAX_ERROR:
            self._error += data[:_MAX_ERROR]

    def ended(self) -> tuple[End, str, str]:
        """How the complete response is to be called. Raises BadAnswer if it is none."""
        assert self.status is not None
        if self.status == _OK:
            self.answer.finish(self._last)
            return ("answered", "", "") if self.answer.error is None else ("failed", *self.answer.error)
        code, message = _error_of_body(self._error)
        return "refused" if self.status in REFUSALS else "failed", code or str(self.status), message


def _error_of_body(body: bytes) -> tuple[str, str]:
    try:
        decoded = json.loads(body)
    except ValueError:
        return "", body.decode(errors="replace")
    return error_of(decoded.get("error", decoded) if isinstance(decoded, dict) else decoded)
