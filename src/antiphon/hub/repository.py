"""What a hub must offer so that `pull` can use it, and what `pull` reports while it runs. Interfaces only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from antiphon.hub.names import ModelName
from antiphon.hub.selection import HubFile


class Repository(Protocol):
    """One repository at one revision, on a hub and in its local cache."""

    label: str  # the hub's name
    cache_setting: str  # the environment variable that moves the cache

    @property
    def is_offline(self) -> bool:
        """Whether the environment forbids network access to this hub."""

    def list_remote(self) -> Sequence[HubFile]:
        """List the files on the hub. Raises HubUnreachable if it does not answer, HubError if it refuses."""

    def list_cached(self) -> Sequence[HubFile]:
        """List the files of the revision in the cache, as far as that is known without the network."""

    @property
    def folder(self) -> Path:
        """The folder that holds, or will hold, the files last listed."""

    def missing_bytes(self, file: HubFile, *, verify: bool) -> int | None:
        """How many bytes of a file must still be downloaded; None if it is complete and in place.

        A file of another size than the hub's is damaged and counts as missing. With `verify`, so is one with another
        checksum; that reads the whole file.
        """

    def download(self, file: HubFile, watcher: Watcher) -> None:
        """Download a file into place and check it. Resumes an interrupted download, replaces a damaged file."""

    def finish(self) -> None:
        """Called once all files are in place."""


class Watcher(Protocol):
    """Receives progress."""

    def begin(self, name: ModelName, files: Sequence[HubFile], missing: int) -> None:
        """`missing` bytes are about to be downloaded."""

    def gained(self, count: int) -> None:
        """`count` bytes arrived. Negative if bytes that were there had to be dropped."""

    def note(self, text: str) -> None:
        """Something that the user should know."""
