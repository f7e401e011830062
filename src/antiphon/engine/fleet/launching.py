"""What the supervisor needs of an engine, wherever it runs: how to start one, talk to it, and end it. A leaf.

A `Launcher` starts engines in one place, for example as processes of this machine. A `RunningEngine` is one that was
started. The supervisor has the same rules for all of them: an engine that ends, hangs or cannot be started is replaced
by the next call of the same launcher.

The owner of the fleet has a `Launchers` function, which finds the launcher for an address. `HERE` is this machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from antiphon.config import EngineConfig
from antiphon.engine.wire import FromEngine, Message
from antiphon.grammar import Vocabulary

HERE = ""  # the address of this machine


class LaunchError(Exception):
    """An engine cannot be started at the moment. The text says why: a clause fit for the log and for clients.

    `is_away`: its machine cannot be reached, so nothing is wrong with the engine. It is tried again until it works.
    """

    def __init__(self, message: str, *, is_away: bool = False) -> None:
        super().__init__(message)
        self.is_away = is_away


@dataclass(frozen=True, slots=True)
class EngineEnd:
    """What is known of an engine that is gone."""

    status: int | None  # the exit status of its process, negative for a signal; None: not known
    working_on: frozenset[str]  # ids of the requests that it was working on
    reason: str = ""  # why it is gone, if that says more than the status: a clause, as in "the connection was lost"


class RunningEngine(Protocol):
    """An engine that was started."""

    @property
    def pid(self) -> int | None:
        """Its process on this machine; None: it runs elsewhere."""
        ...

    @property
    def progress(self) -> int:
        """A counter that changes while the engine makes progress."""
        ...

    def starved_seconds(self) -> float:
        """How long it had no processor to run on, as far as that is known, since this was asked last."""
        ...

    def send(self, message: Message) -> None:
        """Queue a message. If the engine is gone, the message is lost, and `messages` ends soon after.

        Raises WireError if the message is longer than a frame may be.
        """
        ...

    def messages(self) -> AsyncIterator[FromEngine]:
        """The engine's messages, until it is gone. Raises WireError if it breaks the protocol."""
        ...

    def kill(self) -> None:
        """End it at once, in whatever state it is. Idempotent."""
        ...

    async def wait(self) -> EngineEnd:
        """Wait until it is gone, and release everything that it used."""
        ...


class Launcher(Protocol):
    """Starts engines in one place."""

    @property
    def address(self) -> str:
        """The place, as it is written in `--engines`; `HERE` for this machine."""
        ...

    async def start(self, config: EngineConfig, vocabulary: Vocabulary | None = None) -> RunningEngine:
        """Start an engine, and send it its configuration and the vocabulary for grammars.

        Raises:
            LaunchError: it cannot be started at the moment; another try may work.
            AntiphonError: it cannot be started as it is configured, and another try will fail too.
        """
        ...


Launchers = Callable[[str], Launcher]  # address → its launcher; raises ConfigError if there is none for it


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine of a fleet runs."""

    launcher: Launcher
    seat: int | None = None  # the number of its share of this machine's cores; None: it has none
    device: str = ""  # of this machine, if one was named; "": as the settings say

    @property
    def is_here(self) -> bool:
        return self.launcher.address == HERE

    @property
    def is_gpu(self) -> bool:
        return self.device not in ("", "cpu")

    @property
    def address(self) -> str:
        """The place, as it is written in `--engines`; `HERE`: on this machine, and no device was named."""
        return self.launcher.address or self.device
