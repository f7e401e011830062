"""How far a request is before its first token, put together from the reports on its prompts.

Owns the sum over the prompts of one request. A request waits until the engine has begun with one of its prompts; from
then on, what counts is how many of all its tokens have been read. Also writes this in the shapes of streams.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from antiphon.api.pieces import Progress
from antiphon.api.shapes import PromptProgressShape, QueueShape
from antiphon.request import RequestProgress


class PromptProgress:
    """The latest reports on the prompts of one request."""

    def __init__(self, prompt_lengths: Sequence[int]) -> None:
        self._total = sum(prompt_lengths)
        self._reports: dict[int, RequestProgress] = {}
        self._has_news = False

    def hear(self, prompt_index: int, report: RequestProgress) -> None:
        """Take a report; it replaces earlier ones on the same prompt."""
        self._reports[prompt_index] = report
        self._has_news = True

    def take(self, begun_at: float | None) -> Progress | None:
        """The state, if anything was reported since the last call. `begun_at`: of the request, time.monotonic()."""
        if not self._has_news:
            return None
        self._has_news = False
        reports = self._reports.values()
        waits = all(report.position for report in reports)
        return Progress(
            position=min(report.position for report in reports) if waits else None,
            total=self._total,
            cached=sum(report.num_cached_tokens for report in reports),
            processed=sum(report.num_computed_tokens for report in reports),
            seconds=0.0 if begun_at is None else time.monotonic() - begun_at,
        )


def queue_of(progress: Progress | None) -> QueueShape | UnsetType:
    """The `queue` of a chunk; UNSET if the request has begun."""
    return UNSET if progress is None or progress.position is None else QueueShape(progress.position)


def prompt_progress_of(progress: Progress | None) -> PromptProgressShape | UnsetType:
    """The `prompt_progress` of a chunk; UNSET while the request waits."""
    if progress is None or progress.position is not None:
        return UNSET
    time_ms = round(progress.seconds * 1000, 3)
    return PromptProgressShape(progress.total, progress.cached, progress.processed, time_ms)
