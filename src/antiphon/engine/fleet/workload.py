"""How much work the engines have, and so what a new request has to wait for.

Adds up what `accounts` knows of requests and the fleet of engines, for `admission`, metrics and autoscaling. Owns
nothing but these views of others' state, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.engine.admission.admission import Admission, Load
from antiphon.engine.admission.capacity import Capacity
from antiphon.engine.fleet.autoscaling import Demand
from antiphon.engine.fleet.engine_handle import EngineHandle
from antiphon.engine.fleet.fleet import Fleet
from antiphon.engine.requests.accounts import Accounts
from antiphon.engine.requests.unfinished import Unfinished


class Workload:
    """The unfinished requests, as work of the engines that have them or will get them."""

    def __init__(self, fleet: Fleet, accounts: Accounts, admission: Admission) -> None:
        self._fleet = fleet
        self._accounts = accounts
        self._admission = admission
        self._nobody = Capacity(fleet.generation.config)  # of no engine, while there is none

    @property
    def tokens_owed(self) -> float:
        """Tokens still to be computed for all unfinished requests: of prompts, and expected ones of answers."""
        return sum(map(self.estimate, self._accounts.unfinished.values()))

    def estimate(self, unfinished: Unfinished) -> float:
        """Tokens still to be computed for one request; none if it follows another one."""
        return 0.0 if unfinished.leader else self._admission.tokens_owed_of(unfinished, self._context_length)

    def load_before(self, engine: EngineHandle | None, num_engines: int = 1) -> Load:
        """What a new request has to wait for that this engine would get; None: it has to wait for an engine.

        Requests that have no engine may all get the one that the new request gets. `num_engines`: those that take
        requests.
        """
        some_wait_for_an_engine = self._fleet.dispatcher.is_placing
        if engine and engine.takes_requests and not some_wait_for_an_engine:
            return Load(engine.capacity, engine.requests.values(), self._context_length, num_engines, only_grows=True)
        capacity = engine.capacity if engine else next((each.capacity for each in self._fleet.serving), self._nobody)
        engine_ids = (None, engine.id if engine else None)
        computed = (each for each in self._accounts.unfinished.values() if each.leader is None)
        mine = [each for each in computed if each.engine_id in engine_ids]
        return Load(capacity, mine, self._context_length, max(1, num_engines))

    def loads(self) -> Iterator[Load]:
        """What a new request has to wait for, with each engine that it may get."""
        engines: list[EngineHandle | None] = [*self._fleet.taking]
        return (self.load_before(engine, len(engines)) for engine in engines or [None])

    def demand(self) -> Demand:
        """What the engines that take new requests have to do, for autoscaling."""
        engines = self._fleet.taking
        return Demand(
            wait=min((self._admission.wait_after_all(self.load_before(each)) for each in engines), default=0.0),
            sequences=sum(each.leader is None for each in self._accounts.unfinished.values()),
            places=min((each.capacity.num_places for each in engines), default=1),
        )

    @property
    def _context_length(self) -> int:
        return self._fleet.info.context_length if self._fleet.info else 0
