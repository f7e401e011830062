"""What a load test shows while it runs: a bar with live figures on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter, deque
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from antiphon.bench.records import RequestRecord
from antiphon.bench.stages import Stage

_LINE_SECONDS = 10.0  # between lines that are no bar
_WINDOW = 10.0  # seconds of requests that live figures are about
_TROUBLES = ("refused", "failed", "timeout", "cut", "connection", "invalid")


class Live:
    """Shows one run. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            refresh_per_second=2,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._stage: Stage | None = None
        self._ends: Counter[str] = Counter()
        self._recent: deque[tuple[float, RequestRecord]] = deque()
        self._began = self._shown = time.monotonic()

    def begin(self, stage: Stage, position: str) -> None:
        """A stage begins; `position` is which of how many."""
        self._stage = stage
        self._ends.clear()
        self._recent.clear()
        self._began = self._shown = time.monotonic()
        self._start(f"{position} {stage.label}", stage.planned_seconds or stage.requests)

    def begin_check(self, what: str, total: int) -> None:
        """Something else begins that takes `total` steps."""
        self._stage = None
        self._start(what, total)

    def _start(self, description: str, total: float) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(description, total=total or None, figures="")

    def advance(self, done: int) -> None:
        """So many steps of the check are done."""
        if self._task is not None:
            self._bar.update(self._task, completed=done)

    def take(self, record: RequestRecord) -> None:
        """An attempt has ended."""
        self._ends[record.end] += 1
        self._recent.append((time.monotonic(), record))

    def tick(self, users: int) -> None:
        """Show the figures of now; called about once a second."""
        stage, now = self._stage, time.monotonic()
        if stage is None or self._task is None:
            return
        while self._recent and self._recent[0][0] < now - _WINDOW:
            self._recent.popleft()
        figures = self._figures(users, min(_WINDOW, now - self._began))
        done = now - self._began if stage.planned_seconds else sum(self._ends.values())
        self._bar.update(self._task, completed=min(done, self._bar.tasks[0].total or done), figures=figures)
        if not self._console.is_terminal and now - self._shown >= _LINE_SECONDS:
            self._shown = now
            self._console.print(f"{stage.label}, {now - self._began:.0f} s: {figures}", soft_wrap=True)

    def _figures(self, users: int, seconds: float) -> str:
        answered = [record for _, record in self._recent if record.end == "answered"]
        tokens = sum(record.thought_tokens + record.answer_tokens for record in answered)
        firsts = sorted(record.first_token - record.sent for record in answered if record.first_token is not None)
        parts = [f"{users} at once", f"{self._ends['answered']:,} answered"]
        parts += [f"{self._ends[end]:,} {end}" for end in _TROUBLES if self._ends[end]]
        if firsts:
            parts.append(f"first token {firsts[len(firsts) // 2]:.2f} s")
        if seconds:
            parts.append(f"{tokens / seconds:,.0f} tokens/s")
        return ", ".join(parts)

    def __enter__(self) -> Live:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
