"""Chooses engines for requests, with what `routing` needs to know of both.

Requests that belong together (`Unfinished.group`) go to one engine, so that their prompt is computed once. What an
engine owes is not counted for each decision (`owed`): with many requests, a decision costs little more than with few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from antiphon.engine.fleet.engine_handle import EngineHandle
from antiphon.engine.fleet.routing import Candidate, choose, prefix_digests
from antiphon.engine.requests.unfinished import Unfinished

_SAME_SPEED = 0.2  # speeds whose ratio to the mean differs less from 1 count as equal
_SLOWEST = 0.05  # of the mean; a slower engine counts as this fast
_GPU_SPEED = 20.0  # of a GPU engine, compared with a CPU engine, until it is measured

Estimate = Callable[[Unfinished], float]  # tokens that an engine would still have to compute for a request


class Placement:
    """One round of giving requests to engines, in which nothing else happens."""

    def __init__(self, engines: Iterable[EngineHandle], estimate: Estimate) -> None:
        self._engines = [engine for engine in engines if engine.takes_requests]
        self._estimate = estimate

    def engine_for(self, group: Sequence[Unfinished]) -> EngineHandle | None:
        """The engine for requests that belong together and have none; None: no engine can take them now."""
        suitable = [engine for engine in self._engines if engine.generation == group[0].generation]
        # Requests that were accepted go to an engine that keeps failing only if there is no other.
        suitable = [engine for engine in suitable if engine.retry_after is None] or suitable
        if len(suitable) < 2:
            return suitable[0] if suitable else None
        taken = {each.engine_id for each in group[0].group}  # by those of the group that have one already
        for engine in suitable:
            if engine.id in taken:
                return engine
        digests = digests_of(group[0])
        speeds = _speeds(suitable)
        candidates = [
            Candidate(engine.id, self._tokens_owed(engine), engine.prefixes.num_matching(digests), speed)
            for engine, speed in zip(suitable, speeds, strict=True)
        ]
        chosen = choose(candidates, sum(map(self._estimate, group)))
        return next(engine for engine in suitable if engine.id == chosen)

    def give(self, unfinished: Unfinished, engine: EngineHandle) -> None:
        """Hand a request over."""
        if len(self._engines) > 1:
            engine.owed.add(self._estimate(unfinished))
            engine.prefixes.note(digests_of(unfinished))
        engine.add(unfinished)

    def _tokens_owed(self, engine: EngineHandle) -> float:
        return engine.owed.count(engine.requests.values(), self._estimate)


def _speeds(engines: Sequence[EngineHandle]) -> list[float]:
    addresses = [engine.place.address for engine in engines]
    if len(set(addresses)) == 1:
        return [1.0] * len(engines)
    return relative_speeds(
        [(at, each.capacity.speed_of_steps) for at, each in zip(addresses, engines, strict=True)],
        {engine.place.address: _GPU_SPEED for engine in engines if engine.place.is_gpu},
    )


def relative_speeds(
    measured: Sequence[tuple[str, float | None]], assumed: Mapping[str, float] = MappingProxyType({})
) -> list[float]:
    """The speed of each engine compared with the mean of all places; 1: hardly different.

    `measured`: for each engine where it runs, and its speed as measured. Engines at one place count as equally fast:
    what is measured of them differs a little from step to step, which should not decide anything. `assumed`: how places
    of which nothing was measured compare with the others; 1 where there is no entry.
    """
    places: dict[str, list[float]] = {address: [] for address, _ in measured}
    for address, speed in measured:
        if speed is not None:
            places[address].append(speed)
    known = {address: sum(speeds) / len(speeds) for address, speeds in places.items() if speeds}
    unit = sum(speed / assumed.get(address, 1.0) for address, speed in known.items()) / len(known) if known else 1.0
    speeds = {address: known.get(address, unit * assumed.get(address, 1.0)) for address in places}
    mean = sum(speeds.values()) / len(speeds)
    ratios = [speeds[address] / mean for address, _ in measured]
    return [1.0 if abs(ratio - 1) < _SAME_SPEED else max(ratio, _SLOWEST) for ratio in ratios]


def digests_of(unfinished: Unfinished) -> list[bytes]:
    """The digests of a request's prompt; computed at the first call."""
    if unfinished.digests is None:
        request = unfinished.request
        unfinished.digests = prefix_digests(request.prompt_token_ids, request.cache_salt)
    return unfinished.digests
