"""When a client tries again, and how long it waits: not at all, or as OpenAI's and Anthropic's official SDKs do.

Source: `_should_retry` and `_calculate_retry_timeout` of openai-python. It retries after 408, 409, 429, 5xx, lost
connections and time-outs; `x-should-retry` overrules this. It waits as long as `retry-after-ms` or `Retry-After` say,
up to two minutes, and does not retry where they say more. Without them it waits 0.5 s, doubled each time, up to 8 s,
less up to a quarter at random.
"""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping
from random import Random
from typing import Literal

from antiphon.bench.records import RequestRecord

Policy = Literal["none", "openai"]

_LONGEST = 120.0  # seconds
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
_JITTER = 0.25
_STATUSES = (408, 409, 429)
_SERVER_ERRORS = 500


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait, from either header; None if it does not say so."""
    for name, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / divisor
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) else None
    try:
        date = email.utils.parsedate_tz(headers.get("retry-after", ""))
        return None if date is None else float(email.utils.mktime_tz(date) - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """What `x-should-retry` says."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", ""))


def pause(attempt: RequestRecord, draw: Random) -> float | None:
    """Seconds until the next attempt, as the SDKs wait; None if they do not retry."""
    told = attempt.retry_after
    if not _is_retried(attempt):
        return None
    if told is not None and 0 < told <= _LONGEST:
        return told
    wait: float = min(_FIRST_PAUSE * 2**attempt.attempt, _LONGEST_PAUSE)
    return wait * (1 - _JITTER * draw.random())


def _is_retried(attempt: RequestRecord) -> bool:
    if attempt.status is None:
        return attempt.end in ("connection", "timeout")
    if attempt.end not in ("refused", "failed") or attempt.first_token is not None:
        return False  # an answer that began is never asked for again
    if attempt.retry_after is not None and attempt.retry_after > _LONGEST:
        return False
    if attempt.should_retry is not None:
        return attempt.should_retry
    return attempt.status in _STATUSES or attempt.status >= _SERVER_ERRORS
