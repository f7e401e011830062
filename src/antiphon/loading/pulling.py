"""What the user sees while a model is downloaded: a progress bar on a terminal, a line elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from antiphon.hub import ModelName
from antiphon.hub.selection import HubFile


class PullProgress:
    """Implements `hub.Watcher`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar: TaskID | None = None

    def begin(self, name: ModelName, files: Sequence[HubFile], missing: int) -> None:
        """Announce the download; the bar starts where an earlier try stopped."""
        total = sum(file.size for file in files)
        what = f"{len(files)} files" if len(files) > 1 else files[0].path.rpartition("/")[2]
        console = self._progress.console
        # Making links takes no time worth a message.
        if missing:
            console.print(f"Downloading {name}: {what}, {missing / 1e6:,.0f} MB", markup=False, soft_wrap=True)
        self._bar = self._progress.add_task(name.repo.rpartition("/")[2], total=total, completed=total - missing)

    def gained(self, count: int) -> None:
        """Move the bar."""
        assert self._bar is not None
        self._progress.advance(self._bar, count)

    def note(self, text: str) -> None:
        """Print a note above the bar."""
        self._progress.console.print(f"note: {text}", style="yellow", markup=False, soft_wrap=True)


@contextmanager
def pull_progress(console: Console) -> Iterator[PullProgress]:
    """A watcher for one pull; its bar disappears afterwards."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield PullProgress(progress)
