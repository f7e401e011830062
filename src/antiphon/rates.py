"""How much a key may ask in a minute: requests and tokens, each a token bucket.

Owns the buckets. A bucket holds a minute's worth and fills evenly, so nobody waits for a full minute to turn. It
promises that what is refused costs its sender nothing of the tokens, and its server nothing at all; that tokens are set
aside before a request runs and settled by what it used, once, however it ends; and that headers tell the same numbers
that decide. What generates is a POST, so POSTs are counted, whatever comes of them. It must not know what a key is but
its name; empty stands for everyone, where the server has no keys.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from antiphon.api_keys import ApiKey
from antiphon.errors import InvalidRequest, RateLimited

# Of an answer that may become long, no more than this part of a minute's tokens is set aside: most end much sooner.
_ANSWER_SHARE = 4

Clock = Callable[[], float]  # seconds


class Bucket:
    """So many a minute. It may be in debt, after an answer that was longer than what was set aside for it."""

    def __init__(self, per_minute: int, clock: Clock = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._filled_at = clock()

    @property
    def level(self) -> float:
        """What is there now."""
        now = self._clock()
        self._level = min(self.per_minute, self._level + (now - self._filled_at) * self.per_minute / 60)
        self._filled_at = now
        return self._level

    def take(self, amount: int) -> float:
        """Take `amount` and return 0; where there is less, take nothing and return the seconds until it is there."""
        missing = amount - self.level
        if missing > 0:
            return missing * 60 / self.per_minute
        self._level -= amount
        return 0.0

    def settle(self, reserved: int, used: int) -> None:
        """Give back what was taken and not used, or take what was used beyond it."""
        self._level = min(self.per_minute, self.level + reserved - used)

    def headers(self, what: str) -> list[tuple[bytes, bytes]]:
        """OpenAI's three headers: the limit, what is left of it, how long until all of it is there again."""
        level = self.level
        told = {
            "limit": str(self.per_minute),
            "remaining": str(max(0, math.floor(level))),
            "reset": _duration((self.per_minute - level) * 60 / self.per_minute),
        }
        return [(f"x-ratelimit-{name}-{what}".encode(), value.encode()) for name, value in told.items()]


@dataclass(slots=True)
class Reservation:
    """Tokens that were set aside for one request."""

    bucket: Bucket | None = None  # None: nobody counts
    tokens: int = 0

    def settle(self, used: int) -> None:
        """Charge what was really used; later calls change nothing."""
        if self.bucket is not None:
            self.bucket.settle(self.tokens, used)
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
        """The numbers are for each key that has none of its own; 0 is no limit."""

        def buckets(limits: Mapping[str, int]) -> dict[str, Bucket]:
            return {name: Bucket(limit, clock) for name, limit in limits.items() if limit}

        requests = {key.name: key.requests_per_minute for key in keys} or {"": None}
        tokens = {key.name: key.tokens_per_minute for key in keys} or {"": None}
        self._requests = buckets({key: _own(limit, requests_per_minute) for key, limit in requests.items()})
        self._tokens = buckets({key: _own(limit, tokens_per_minute) for key, limit in tokens.items()})

    def __bool__(self) -> bool:
        return bool(self._requests or self._tokens)

    def take_request(self, key: str) -> None:
        """Count one request, or refuse it. Raises RateLimited."""
        bucket = self._requests.get(key)
        if bucket is not None and (seconds := bucket.take(1)):
            raise RateLimited("requests", _sentence(key, f"{bucket.per_minute:,} requests", seconds), seconds)

    def reserve(self, key: str, prompt: int, answer: int) -> Reservation:
        """Set tokens aside for a prompt and the longest answer to it.

        Raises:
            RateLimited: they are not there now.
            InvalidRequest: the prompt alone is more than a minute's worth, so they never will be.
        """
        bucket = self._tokens.get(key)
        if bucket is None:
            return Reservation()
        limit = bucket.per_minute
        if prompt > limit:
            raise InvalidRequest(f"The prompt has {prompt:,} tokens, and {limit:,} a minute are allowed; shorten it.")
        tokens = min(prompt + min(answer, limit // _ANSWER_SHARE), limit)
        if seconds := bucket.take(tokens):
            asked = f"{limit:,} tokens, and this request may need {tokens:,}"
            raise RateLimited("tokens", _sentence(key, asked, seconds), seconds)
        return Reservation(bucket, tokens)

    def headers(self, key: str) -> list[tuple[bytes, bytes]]:
        """What a client is told of its limits."""
        buckets = (("requests", self._requests.get(key)), ("tokens", self._tokens.get(key)))
        return [header for what, bucket in buckets if bucket is not None for header in bucket.headers(what)]


def _own(limit: int | None, common: int) -> int:
    return common if limit is None else limit


def _sentence(key: str, limit: str, seconds: float) -> str:
    whose = f"The key {key!r}" if key else "This server"
    return f"{whose} is at its limit of {limit} a minute. Try again in {_duration(seconds)}."


def _duration(seconds: float) -> str:
    """As OpenAI writes it: 17ms, 8s, 2m59s; rounded up, so that waiting that long is enough."""
    if 0 < seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
