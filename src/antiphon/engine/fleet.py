"""The engines of one model: starts and stops them, and gives each unfinished request to one of them.

Owns the engines and the decision which of them has a request. A request that has no engine, because none is ready or
because its engine died, waits for the next one that is ready. Requests get engines in order of arrival. The tokens that
were received go with a request, so its stream continues. `accounts` has the requests, and the client decides which
are accepted.

Everything here runs on one asyncio loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from antiphon.config import EngineConfig
from antiphon.engine.accounts import Accounts
from antiphon.engine.engine_handle import EngineHandle, Supervise
from antiphon.engine.unfinished import Unfinished
from antiphon.engine.view import EngineState
from antiphon.errors import AntiphonError

_TOKENS_AT_ONCE = 100_000  # given to engines before other tasks of the event loop run, which takes some milliseconds


class FleetOwner(Protocol):
    """The client, as its fleet sees it."""

    def fleet_ready(self) -> None:
        """The engines that were started first are ready."""
        ...

    def fleet_failed(self, error: AntiphonError) -> None:
        """No engine is left, and no other will be started."""
        ...


class Fleet:
    """The engines of one model. `engines` has those that were started and not removed, by id."""

    def __init__(self, config: EngineConfig, owner: FleetOwner, accounts: Accounts, supervise: Supervise) -> None:
        self.generation = 0
        self.engines: dict[int, EngineHandle] = {}
        self._config = config
        self._owner = owner
        self._accounts = accounts
        self._supervise = supervise
        self._next_id = 1
        self._is_placing = False  # a round of giving requests to engines goes on in a later turn of the event loop

    # --- what they are doing

    @property
    def state(self) -> EngineState:
        """The state of all engines together: READY if one is."""
        states = [engine.state for engine in self.engines.values()]
        for state in (EngineState.READY, EngineState.RESTARTING, EngineState.LOADING):
            if state in states:
                return state
        return EngineState.FAILED if states else EngineState.STOPPED

    # --- their lives

    def start(self) -> None:
        """Start the first engines."""
        self._start_engine()

    async def stop(self) -> None:
        """Stop all engines."""
        await asyncio.gather(*(engine.stop() for engine in self.engines.values()))

    def _start_engine(self) -> EngineHandle:
        engine = EngineHandle(self._next_id, self.generation, self._config, self, self._accounts, self._supervise)
        self._next_id += 1
        self.engines[engine.id] = engine
        engine.start()
        return engine

    # --- requests

    def place(self, group: Sequence[Unfinished]) -> None:
        """Give new requests that belong together to an engine, unless others have waited longer for one."""
        if not self._is_placing and (engine := self._choose(group[0])):
            for unfinished in group:
                engine.add(unfinished)

    def withdraw(self, unfinished: Unfinished) -> None:
        """Take a request from the engine that has it, if any."""
        if unfinished.engine_id is not None:
            self.engines[unfinished.engine_id].withdraw(unfinished)

    def forget(self, unfinished: Unfinished) -> None:
        """Note that a request has ended."""
        if unfinished.engine_id is not None:
            self.engines[unfinished.engine_id].forget(unfinished)

    def _place_waiting(self) -> None:
        """Give engines the requests that wait for one, without blocking the event loop."""
        if not self._is_placing:
            self._place_some()

    def _place_some(self) -> None:
        self._is_placing = False
        num_tokens = 0
        for unfinished in self._accounts.unfinished.values():
            if unfinished.engine_id is not None or not (engine := self._choose(unfinished)):
                continue
            if num_tokens > _TOKENS_AT_ONCE:
                self._is_placing = True
                asyncio.get_running_loop().call_soon(self._place_some)
                return
            engine.add(unfinished)
            num_tokens += unfinished.num_tokens

    def _choose(self, unfinished: Unfinished) -> EngineHandle | None:
        """The engine for a request; None if there is none now."""
        for engine in self.engines.values():
            if engine.is_connected and engine.generation == unfinished.generation:
                return engine
        return None

    # --- what its engines call

    def engine_ready(self, engine: EngineHandle) -> None:
        self._place_waiting()
        self._owner.fleet_ready()

    def engine_died(self, engine: EngineHandle) -> None:
        self._place_waiting()

    def engine_given_up(self, engine: EngineHandle) -> None:
        assert engine.error
        self._owner.fleet_failed(engine.error)
