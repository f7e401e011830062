"""Somebody who watches a model being brought, and remembers what was said."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from antiphon.errors import HubError
from antiphon.hub import ModelName, Pulled, parse_name, pull
from antiphon.hub.selection import HubFile


class Watch:
    """Fulfils `hub.Watcher`."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.missing = self.came = 0
        self.notes: list[str] = []

    def begin(self, name: ModelName, files: Sequence[HubFile], missing: int) -> None:
        self.files, self.missing = [file.path for file in files], missing

    def gained(self, count: int) -> None:
        self.came += count

    def note(self, text: str) -> None:
        self.notes.append(text)


def get(typed: str, watch: Watch | None = None, *, offline: bool = False, verify: bool = False) -> Pulled:
    """Pull by name."""
    name = parse_name(typed, "huggingface")
    assert name is not None
    return pull(name, offline=offline, verify=verify, watcher=watch or Watch())


def refusal(typed: str, *, offline: bool = False, verify: bool = False) -> str:
    """Why a name cannot be pulled."""
    with pytest.raises(HubError) as error:
        get(typed, offline=offline, verify=verify)
    return error.value.message
