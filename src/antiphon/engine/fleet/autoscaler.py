"""Adds and removes engines at one address, as many as `autoscaling` says.

Owns the loop that looks at the load and changes the number of engines through `operations`, so no stream is lost: an
added engine gets requests when it is ready, and the requests of one that is removed move to others first. An operation
of an operator goes first. An engine that cannot be added is tried again at growing intervals.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from antiphon.engine.fleet.autoscaling import Autoscaling, Demand, ScalingRules
from antiphon.engine.fleet.launching import HERE
from antiphon.engine.fleet.view import EngineState, EngineView
from antiphon.errors import AntiphonError, OperationInProgress

_LOOK_SECONDS = 1.0
_LEAST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0  # seconds after a failure

logger = logging.getLogger(__name__)


class ScalingOperations(Protocol):
    """What an autoscaler needs of `Operations`."""

    @property
    def generation(self) -> int: ...

    def engines(self) -> Sequence[EngineView]: ...

    async def add_engines(self, count: int, address: str) -> object: ...

    async def remove_engine(self, engine_id: int) -> None: ...


class Autoscaler:
    """Keeps the engines at one address as many as the load needs, while there are rules."""

    def __init__(
        self,
        operations: ScalingOperations,
        rules: Callable[[], ScalingRules | None],
        demand: Callable[[], Demand],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rules`: those that apply now, or None; `demand`: the load now."""
        self._operations = operations
        self._rules = rules
        self._demand = demand
        self._clock = clock
        self._policy: Autoscaling | None = None
        self._pause = 0.0  # seconds after the latest failure
        self._paused_until = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def num_added(self) -> int:
        """The number of engines that there should be beyond those that the settings ask for."""
        return self._policy.wanted - self._policy.rules.minimum if self._policy else 0

    def start(self) -> None:
        """Look at the load from now on, if there are rules. Call it again when there may be others."""
        if self._take_rules() and not self._task:
            self._task = asyncio.create_task(self._run(), name="autoscaler")

    def cancel(self) -> None:
        """Change nothing from now on; engines that are being added are given up."""
        if self._task:
            self._task.cancel()

    async def stop(self) -> None:
        """As `cancel`, and wait until they are gone."""
        self.cancel()
        if self._task:
            await asyncio.wait({self._task})

    def _take_rules(self) -> Autoscaling | None:
        rules = self._rules()
        if rules is None:
            self._policy = None
        elif self._policy is None or self._policy.rules.address != rules.address:
            self._policy = Autoscaling(rules)
        else:
            self._policy.rules = rules
        return self._policy

    async def look(self) -> None:
        """Look at the load once, and change the number of engines if it is time."""
        if not (policy := self._take_rules()):
            return
        address = policy.rules.address
        mine = self._engines(address)
        alive = [engine for engine in mine if engine.state is not EngineState.FAILED]
        ready = sum(engine.state is EngineState.READY for engine in alive)
        wanted = policy.observe(self._clock(), self._demand(), len(alive), ready)
        if (wanted == len(alive) == len(mine)) or self._clock() < self._paused_until:
            return
        try:
            if len(alive) < len(mine):
                await self._remove_one(mine)
            else:
                await self._change(address, mine, wanted)
        except OperationInProgress:
            return
        except AntiphonError as error:
            self._pause = min(_LONGEST_PAUSE, max(_LEAST_PAUSE, 2 * self._pause))
            self._paused_until = self._clock() + self._pause
            logger.warning("autoscaling failed, and tries again in %.0f seconds: %s", self._pause, error.message)
        else:
            self._pause = 0.0

    async def _change(self, address: str, mine: Sequence[EngineView], wanted: int) -> None:
        logger.info("autoscaling: %d engines at %s, %d wanted", len(mine), address or "this machine", wanted)
        if wanted > len(mine):
            await self._operations.add_engines(wanted - len(mine), address)
        else:
            await self._remove_one(mine)

    async def _remove_one(self, mine: Sequence[EngineView]) -> None:
        """One that cannot serve, else the one whose requests cost least to move."""
        spare = min(mine, key=lambda each: (each.state is EngineState.READY, each.tokens_owed))
        await self._operations.remove_engine(spare.id)

    def _engines(self, address: str) -> list[EngineView]:
        """The engines at this address, without those that an operator drains."""
        return [
            each
            for each in self._operations.engines()
            if (each.address or HERE) == address
            and each.generation == self._operations.generation
            and each.state not in (EngineState.DRAINING, EngineState.DRAINED)
        ]

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except Exception:
                logger.exception("unexpected error in the autoscaler, which continues")
