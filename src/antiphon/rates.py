"""Rate limits per API key: requests and tokens per minute, each as a token bucket.

A bucket holds one minute's amount and refills evenly, so no client has to wait for the next full minute. Tokens are
reserved before a request runs, and the reservation is settled once by what the request used, however it ends. A
refused request costs no tokens. The headers report the same numbers that the decision uses. Only POST requests are
counted, since all requests that generate are POSTs; they count whether they succeed or not. This module knows a key
only by its name. Without keys the name is empty and the limits apply to all clients together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from antiphon.api_keys import ApiKey
from antiphon.errors import InvalidRequest, RateLimited

# At most this fraction of a minute's tokens is reserved for an answer, since most answers end long before their limit.
_ANSWER_SHARE = 4

Clock = Callable[[], float]  # seconds


@dataclass(slots=True)
class Usage:
    """What a key has used here since the server started."""

    requests: int = 0
    tokens: int = 0  # with what is reserved now, so it also falls


class Bucket:
    """A token bucket. Its level is below zero after an answer that was longer than its reservation."""

    def __init__(self, per_minute: int, clock: Clock = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._filled_at = clock()

    @property
    def level(self) -> float:
        """The amount available now."""
        now = self._clock()
        self._level = min(self.per_minute, self._level + (now - self._filled_at) * self.per_minute / 60)
        self._filled_at = now
        return self._level

    def take(self, amount: int) -> float:
        """Take `amount` and return 0. If there is less, take nothing and return the seconds until there is enough."""
        missing = amount - self.level
        if missing > 0:
            return missing * 60 / self.per_minute
        self._level -= amount
        return 0.0

    def charge(self, amount: int) -> None:
        """Take `amount` that was used elsewhere, even if there is less; a negative one is given back."""
        self._level = min(self.per_minute, self.level - amount)

    def settle(self, reserved: int, used: int) -> None:
        """Return the unused part of a reservation, or take what was used in excess of it."""
        self._level = min(self.per_minute, self.level + reserved - used)

    def headers(self, what: str) -> list[tuple[bytes, bytes]]:
        """OpenAI's three headers: the limit, what remains, and the time until the bucket is full again."""
        level = self.level
        values = {
            "limit": str(self.per_minute),
            "remaining": str(max(0, math.floor(level))),
            "reset": _duration((self.per_minute - level) * 60 / self.per_minute),
        }
        return [(f"x-ratelimit-{name}-{what}".encode(), value.encode()) for name, value in values.items()]


@dataclass(slots=True)
class Reservation:
    """Tokens reserved for one request."""

    bucket: Bucket | None = None  # None: no limit
    tokens: int = 0
    usage: Usage | None = None  # of its key

    def settle(self, used: int) -> None:
        """Charge the tokens that were used; later calls have no effect."""
        if self.bucket is not None:
            self.bucket.settle(self.tokens, used)
            if self.usage is not None:
                self.usage.tokens += used - self.tokens
            self.bucket = None


class Rates:
    """The buckets of every key."""

    def __init__(
        self,
        keys: Sequence[ApiKey] = (),
        requests_per_minute: int = 0,
        tokens_per_minute: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        """The limits are for keys that have none of their own; 0 means no limit."""
        self._clock = clock
        self.usage: dict[str, Usage] = {}  # by key; only of those that have limits

        def buckets(limits: Mapping[str, int]) -> dict[str, Bucket]:
            return {name: Bucket(limit, clock) for name, limit in limits.items() if limit}

        requests = {key.name: key.requests_per_minute for key in keys} or {"": None}
        tokens = {key.name: key.tokens_per_minute for key in keys} or {"": None}
        self._requests = buckets({key: _own(limit, requests_per_minute) for key, limit in requests.items()})
        self._tokens = buckets({key: _own(limit, tokens_per_minute) for key, limit in tokens.items()})

    def renewed(self, keys: Sequence[ApiKey], requests_per_minute: int, tokens_per_minute: int) -> Rates:
        """The buckets for other keys and limits. A key whose limit is the same keeps what it has used."""
        new = Rates(keys, requests_per_minute, tokens_per_minute, self._clock)
        new.usage = self.usage  # running requests still add to it
        for mine, theirs in ((self._requests, new._requests), (self._tokens, new._tokens)):
            for key, bucket in mine.items():
                if key in theirs and theirs[key].per_minute == bucket.per_minute:
                    theirs[key] = bucket
        return new

    def __bool__(self) -> bool:
        return bool(self._requests or self._tokens)

    def take_request(self, key: str) -> None:
        """Count one request. Raises RateLimited if the key is over its limit."""
        bucket = self._requests.get(key)
        if bucket is not None and (seconds := bucket.take(1)):
            raise RateLimited("requests", _sentence(key, f"{bucket.per_minute:,} requests", seconds), seconds)
        if bucket is not None:
            self._usage_of(key).requests += 1

    def reserve(self, key: str, prompt: int, answer: int) -> Reservation:
        """Reserve tokens for a prompt and its longest possible answer.

        Raises:
            RateLimited: not enough tokens are available now.
            InvalidRequest: the prompt alone exceeds a minute's tokens, so waiting would not help.
        """
        bucket = self._tokens.get(key)
        if bucket is None:
            return Reservation()
        limit = bucket.per_minute
        if prompt > limit:
            raise InvalidRequest(
                f"The prompt has {prompt:,} tokens, but the limit is {limit:,} tokens a minute; shorten it."
            )
        tokens = min(prompt + min(answer, limit // _ANSWER_SHARE), limit)
        if seconds := bucket.take(tokens):
            asked = f"{limit:,} tokens, and this request may need {tokens:,}"
            raise RateLimited("tokens", _sentence(key, asked, seconds), seconds)
        usage = self._usage_of(key)
        usage.tokens += tokens
        return Reservation(bucket, tokens, usage)

    def charge(self, key: str, requests: int, tokens: int) -> None:
        """Count what a key has used at another server. It may get a bucket below zero, so that the key has to wait."""
        for amount, bucket in ((requests, self._requests.get(key)), (tokens, self._tokens.get(key))):
            if bucket is not None and amount:
                bucket.charge(amount)

    def _usage_of(self, key: str) -> Usage:
        return self.usage.setdefault(key, Usage())

    def headers(self, key: str) -> list[tuple[bytes, bytes]]:
        """The rate-limit headers for a client with this key."""
        buckets = (("requests", self._requests.get(key)), ("tokens", self._tokens.get(key)))
        return [header for what, bucket in buckets if bucket is not None for header in bucket.headers(what)]


def _own(limit: int | None, common: int) -> int:
    return common if limit is None else limit


def _sentence(key: str, limit: str, seconds: float) -> str:
    whose = f"The key {key!r}" if key else "This server"
    return f"{whose} is at its limit of {limit} a minute. Try again in {_duration(seconds)}."


def _duration(seconds: float) -> str:
    """A duration in OpenAI's notation (17ms, 8s, 2m59s), rounded up so that waiting that long is enough."""
    if 0 < seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
