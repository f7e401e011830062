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
    digest: bytes = b""

    @property
    def is_retry(self) -> bool:
        """Whether the client says that it has sent the request before."""
        return bool(self.retry_count)

    def terms(self, job: Job) -> Terms:
        """The terms for `job`."""
        wait = min(self.max_wait, _or_inf(job.max_wait), _or_inf(job.timeout))
        if job.is_detached:
            return self._terms(wait, inf)
        whole = self.answer if job.is_streamed else min(self.answer, self.silence)
        return self._terms(min(wait, self.answer, self.silence), whole)

    def longest(self, *, may_be_detached: bool) -> Terms:
        """The longest terms that a request can have, whatever its fields say."""
        if may_be_detached:
            return self._terms(self.max_wait, inf)
        return self._terms(min(self.max_wait, self.answer, self.silence), self.answer)

    def _terms(self, first_token: float, whole_answer: float) -> Terms:
        return Terms(first_token, whole_answer, self.client, self.retry_count, self.digest)


def _or_inf(seconds: float | None) -> float:
    return inf if seconds is None else seconds
