"""Runs one stage: users that each send one request after another, or requests that are sent at a given rate.

Decides who sends what and when, and when a stage ends. With users (a closed loop) a slow server gets fewer requests.
With a rate (an open loop) it does not: each request is due at a time that is fixed before, and its latency counts from
then, so that a late client or a limit of concurrent requests counts as waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import takewhile
from math import inf
from random import Random
from typing import Any

from antiphon.bench.arrivals import NO_THINK_TIME, Arrivals, ThinkTime, due_times, ramp_starts
from antiphon.bench.requests import Asker, Exchange, Request
from antiphon.bench.stages import Stage

_PAUSE_AFTER_FAILURE = 1.0  # seconds that a user waits after anything but an answer


@dataclass(frozen=True)
class Habits:
    """How the requests of a stage are spaced and limited, apart from their number."""

    arrivals: Arrivals = "poisson"
    burstiness: float = 1.0
    think_time: ThinkTime = NO_THINK_TIME
    max_concurrency: int = 0  # requests at once of an open loop; 0: no limit
    drain: float = 30.0  # seconds after the stage's time in which answers may still end
    seed: int = 0


class Load:
    """One stage's requests. `body` gives the bytes of each by its number."""

    def __init__(
        self,
        stage: Stage,
        asker: Asker,
        body: Callable[[int], bytes],
        habits: Habits,
        take: Callable[[Exchange], None],
    ) -> None:
        self.stage = stage
        self.started = asker.now()
        self.sending_ended = self.started
        self.num_requests = 0
        self.users = 0  # present now
        self._asker = asker
        self._body = body
        self._habits = habits
        self._take = take
        self._draw = Random(f"{habits.seed}/{stage.number}")  # noqa: S311  # of arrivals and pauses
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None  # not of a request: the journal cannot be written, say
        self._permits = asyncio.Semaphore(habits.max_concurrency) if habits.max_concurrency else None
        self._limit = stage.requests or inf
        self._ends = self.started + (stage.planned_seconds or inf)

    async def run(self, stop: asyncio.Event) -> bool:
        """Run the stage to its end, or until `stop` is set; returns whether it was complete.

        Requests that have not ended by then are cancelled, and recorded as such.
        """
        self._start(self._arrivals() if self.stage.shape == "rate" else self._all_users())
        stopping = asyncio.create_task(stop.wait())
        try:
            await self._until_done(stopping, self._ends + self._habits.drain)
        finally:
            stopping.cancel()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._error is not None:
            raise self._error
        return not stop.is_set()

    async def _until_done(self, stopping: asyncio.Task[Any], deadline: float) -> None:
        while self._tasks and not stopping.done() and (left := deadline - self._asker.now()) > 0:
            timeout = None if left == inf else left
            await asyncio.wait({*self._tasks, stopping}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._error = self._error or error
            for other in self._tasks:
                other.cancel()

    # ---- Closed loop ----

    async def _all_users(self) -> None:
        stage = self.stage
        starts = [0.0] * stage.users
        if stage.shape == "ramp":
            starts = ramp_starts(stage.first_users, stage.users, stage.ramp_seconds)
        for user, start in enumerate(starts):
            await self._sleep_until(self.started + start)
            self.users += 1
            self._start(self._user(user))

    async def _user(self, user: int) -> None:
        try:
            while (number := self._next()) is not None:
                answered = await self._ask(
                    Request(self.stage.number, number, self._body(number), None, user, self.users)
                )
                wait = self._habits.think_time.draw(self._draw) + (0.0 if answered else _PAUSE_AFTER_FAILURE)
                if wait and self._asker.now() + wait < self._ends:
                    await asyncio.sleep(wait)
                elif wait:
                    return
        finally:
            self.users -= 1

    def _next(self) -> int | None:
        """The number of the next request; None if the stage's time or number of requests is used up."""
        if self.num_requests >= self._limit or self._asker.now() >= self._ends:
            return None
        self.num_requests += 1
        self.sending_ended = self._asker.now()
        return self.num_requests - 1

    async def _ask(self, request: Request) -> bool:
        """Whether the request was answered at last."""
        ends: list[str] = []

        def take(exchange: Exchange) -> None:
            ends.append(exchange.record.end)
            self._take(exchange)

        await self._asker.ask(request, take)
        return ends[-1] == "answered"

    # ---- Open loop ----

    async def _arrivals(self) -> None:
        habits, ends = self._habits, self._ends - self.started
        times = due_times(self.stage.rate, habits.arrivals, habits.burstiness, self._draw)
        for due in takewhile(lambda due: due < ends, times):
            await self._sleep_until(self.started + due)
            if self.num_requests >= self._limit:
                return
            number, self.num_requests = self.num_requests, self.num_requests + 1
            self._start(self._arrival(number, self.started + due))

    async def _arrival(self, number: int, due: float) -> None:
        if self._permits is not None:
            await self._permits.acquire()
        self.users += 1
        try:
            self.sending_ended = self._asker.now()
            await self._ask(Request(self.stage.number, number, self._body(number), due, number, self.users))
        finally:
            self.users -= 1
            if self._permits is not None:
                self._permits.release()

    async def _sleep_until(self, at: float) -> None:
        wait = at - self._asker.now()
        if wait > 0:
            await asyncio.sleep(wait)
