"""How long a request's client waits: from the server's setting, the request's headers and its fields.

Owns the rules. A client that reads a whole answer must get all of it before it gives up, so what it waits for bytes
limits the whole answer. A stream sends something every few seconds, so there it only limits the first token. A client
of a response in the background does not wait at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from antiphon.api.job import Job
from antiphon.request import Terms


@dataclass(frozen=True, slots=True)
class Deadlines:
    """What is known before a request's body is read. All times are in seconds from its arrival."""

    max_wait: float = inf  # for the first token: the server's setting
    answer: float = inf  # for the whole answer, streamed or not
    silence: float = inf  # that the client waits for bytes
    client: str = ""  # see `Terms`
    retry_count: int | None = None

    @property
    def is_retry(self) -> bool:
        """Whether the client says that it has sent the request before."""
        return bool(self.retry_count)

    def terms(self, job: Job) -> Terms:
        """What the engine's client is asked for `job`."""
        wait = min(self.max_wait, _or_inf(job.max_wait), _or_inf(job.timeout))
        if job.is_detached:
            return Terms(wait, inf, self.client, self.retry_count)
        whole = self.answer if job.is_streamed else min(self.answer, self.silence)
        return Terms(min(wait, self.answer, self.silence), whole, self.client, self.retry_count)


def _or_inf(seconds: float | None) -> float:
    return inf if seconds is None else seconds
