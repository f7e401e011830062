"""Gives each unfinished request to an engine, and takes it back.

Owns the decision which engine has a request. A request that has no engine, because none is ready or because its engine
died, gets another one as soon as one can take it. Requests get engines in order of arrival. The tokens that were
received go with a request, so its stream continues. `placement` chooses the engine; the fleet owns the engines, and
`accounts` the requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from antiphon.engine.fleet.engine_handle import EngineHandle
from antiphon.engine.fleet.placement import Estimate, Placement
from antiphon.engine.fleet.routing import prefix_digests
from antiphon.engine.requests.accounts import Accounts
from antiphon.engine.requests.unfinished import Unfinished

_TOKENS_AT_ONCE = 100_000  # given to engines before other tasks of the event loop run, which takes some milliseconds


class Dispatcher:
    """Matches the requests of `accounts` with the fleet's engines."""

    def __init__(self, engines: Mapping[int, EngineHandle], accounts: Accounts, estimate: Estimate) -> None:
        """`engines`: those of the fleet, by id, at any time."""
        self._engines = engines
        self._accounts = accounts
        self._estimate = estimate
        self._is_placing = False  # a round of giving requests to engines goes on in a later turn of the event loop

    @property
    def is_placing(self) -> bool:
        """Whether requests wait for their turn to get an engine, though engines take requests."""
        return self._is_placing

    def engine_for(self, group: Sequence[Unfinished]) -> EngineHandle | None:
        """The engine that would get these requests, which belong together; None if they would have to wait for one."""
        return self._placement().engine_for(group)

    def place(self, group: Sequence[Unfinished], engine: EngineHandle | None) -> None:
        """Give new requests that belong together to their engine, as `engine_for` has just chosen it.

        They wait if it is None, or if others have waited longer for an engine.
        """
        if engine and not self._is_placing:
            placement = self._placement()
            for unfinished in group:
                placement.give(unfinished, engine)

    def place_waiting(self) -> None:
        """Give engines the requests that wait for one, without blocking the event loop."""
        if not self._is_placing:
            self._place_some()

    def _place_some(self) -> None:
        self._is_placing = False
        placement = self._placement()
        num_tokens = 0
        for unfinished in self._accounts.unfinished.values():
            if unfinished.engine_id is not None or unfinished.leader:
                continue
            if not (engine := placement.engine_for([unfinished])):
                continue
            if num_tokens > _TOKENS_AT_ONCE:
                self._is_placing = True
                asyncio.get_running_loop().call_soon(self._place_some)
                return
            placement.give(unfinished, engine)
            num_tokens += unfinished.num_tokens

    def spread_waiting(self, engines: Iterable[EngineHandle]) -> None:
        """Choose again for requests that these engines have and have not begun, since there are more engines now."""
        for engine in engines:
            for unfinished in list(engine.requests.values()):
                if not unfinished.has_begun:
                    _take_back(unfinished, engine)
        self.place_waiting()

    def move_requests(self, engine: EngineHandle) -> None:
        """Take all requests from an engine, and give them to others."""
        for unfinished in list(engine.requests.values()):
            _take_back(unfinished, engine)
        self.place_waiting()

    def withdraw(self, unfinished: Unfinished, *, is_answered: bool = False) -> None:
        """Take a request from the engine that has it, if any; `is_answered` as for `EngineHandle.withdraw`."""
        if unfinished.engine_id is not None:
            self._engines[unfinished.engine_id].withdraw(unfinished, is_answered=is_answered)

    def hand_over(self, unfinished: Unfinished, heir: Unfinished) -> None:
        """Let an equal request take the place of another, at its engine or among those that wait for one."""
        if unfinished.engine_id is not None:
            self._engines[unfinished.engine_id].hand_over(unfinished, heir)
        else:
            heir.take_place_of(unfinished)

    def forget(self, unfinished: Unfinished) -> None:
        """Note that a request has ended."""
        if unfinished.engine_id is not None:
            engine = self._engines[unfinished.engine_id]
            engine.forget(unfinished)
            if len(self._engines) > 1:  # the next turn of a conversation begins with all of this
                known = [*unfinished.request.prompt_token_ids, *unfinished.output_token_ids]
                engine.prefixes.note(prefix_digests(known, unfinished.request.cache_salt))

    def _placement(self) -> Placement:
        return Placement(self._engines.values(), self._estimate)


def _take_back(unfinished: Unfinished, engine: EngineHandle) -> None:
    unfinished.stream.note_engine("moved", engine.id)
    engine.withdraw(unfinished)
