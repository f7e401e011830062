"""The number of engines follows the load within its bounds, and does not swing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from fronts import expected, read, until
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import ask, fake_config
from property_tests import examples

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient, EngineState, EngineView
from antiphon.engine.fleet.autoscaler import Autoscaler
from antiphon.engine.fleet.autoscaling import Autoscaling, Demand, ScalingRules, check_scaling, scaling_rules
from antiphon.errors import AntiphonError, ConfigError, EngineDied, OperationInProgress

PLACES = 8
SECONDS_EACH = 4.0  # that a request needs


def rules(minimum: int = 1, maximum: int = 8, up: float = 5.0, down: float = 60.0) -> ScalingRules:
    return ScalingRules("ray://auto", minimum, maximum, target_wait=2.0, upscale_delay=up, downscale_delay=down)


@dataclass
class Machines:
    """Engines that become ready some seconds after they were asked for."""

    rules: ScalingRules
    loading_seconds: float = 10.0
    now: float = 0.0
    ready: int = 0
    loading: list[float] = field(default_factory=list)  # when each will be ready
    history: list[int] = field(default_factory=list)  # what was wanted, second by second

    def __post_init__(self) -> None:
        self.policy = Autoscaling(self.rules)
        self.ready = self.rules.minimum

    def demand(self, sequences: int) -> Demand:
        waiting = max(0, sequences - self.ready * PLACES)
        return Demand(waiting / (self.ready * PLACES) * SECONDS_EACH, sequences, PLACES)

    def run(self, sequences: int, seconds: int) -> list[int]:
        """What is wanted, in each second with so many sequences."""
        for _ in range(seconds):
            self.now += 1
            self.ready += sum(at <= self.now for at in self.loading)
            self.loading = [at for at in self.loading if at > self.now]
            present = self.ready + len(self.loading)
            wanted = self.policy.observe(self.now, self.demand(sequences), present, self.ready)
            assert self.rules.minimum <= wanted <= self.rules.maximum
            self.loading += [self.now + self.loading_seconds] * max(0, wanted - present)
            self.ready -= max(0, present - wanted)
            self.history.append(wanted)
        return self.history[-seconds:]


def test_engines_come_with_a_load_and_go_after_it():
    machines = Machines(rules(maximum=3))
    assert machines.run(sequences=2, seconds=100)[-1] == 1
    assert machines.run(sequences=60, seconds=100)[-1] == 3
    assert machines.run(sequences=1, seconds=300)[-1] == 1


def test_a_short_burst_adds_nothing():
    machines = Machines(rules())
    for _ in range(20):
        assert set(machines.run(sequences=60, seconds=4)) == {1}
        assert set(machines.run(sequences=0, seconds=1)) == {1}


def test_engines_that_load_are_waited_for():
    machines = Machines(rules(maximum=8), loading_seconds=1000)
    assert max(machines.run(sequences=10_000, seconds=500)) == 2  # twice those that are ready


def test_no_engine_is_removed_while_a_request_waits_or_the_others_would_be_full():
    policy = Autoscaling(rules(down=1))
    for second in range(100):
        busy = Demand(wait=0.5, sequences=1, places=PLACES)
        assert policy.observe(second, busy, present=2, ready=2) == 2
    for second in range(100, 200):
        full = Demand(wait=0.0, sequences=PLACES, places=PLACES)
        assert policy.observe(second, full, present=2, ready=2) == 2


def test_engines_outside_the_bounds_are_added_and_removed_at_once():
    policy = Autoscaling(rules(minimum=2, maximum=4))
    idle = Demand(0.0, 0, PLACES)
    assert policy.observe(0.0, idle, present=0, ready=0) == 2
    assert policy.observe(1.0, idle, present=1, ready=1) == 2
    assert policy.observe(2.0, idle, present=6, ready=6) == 4


def test_while_no_engine_is_ready_nothing_changes():
    policy = Autoscaling(rules())
    for second in range(100):
        assert policy.observe(second, Demand(1000.0, 1000, PLACES), present=1, ready=0) == 1


@settings(max_examples=examples(100))
@given(
    sequences=st.integers(0, 200),
    start=st.integers(1, 8),
    loading_seconds=st.integers(0, 60),
    up=st.integers(1, 30),
    down=st.integers(1, 60),
)
def test_under_a_constant_load_the_number_moves_in_one_direction_and_settles(
    sequences: int, start: int, loading_seconds: int, up: int, down: int
):
    machines = Machines(rules(up=up, down=down), loading_seconds=loading_seconds)
    machines.ready = start
    wanted = [start, *machines.run(sequences, seconds=700)]
    steps = [after - before for before, after in pairwise(wanted) if after != before]
    assert all(step > 0 for step in steps) or all(step == -1 for step in steps)
    assert len(set(machines.run(sequences, seconds=200))) == 1
    enough = sequences <= machines.ready * PLACES * (1 + 2.0 / SECONDS_EACH)
    assert enough or machines.ready == 8, "the wait is longer than its target"


@settings(max_examples=examples(100))
@given(
    loads=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), min_size=1, max_size=12),
    loading_seconds=st.integers(0, 30),
    up=st.integers(1, 10),
    down=st.integers(5, 60),
)
def test_whatever_the_load_changes_are_apart_and_bounded(
    loads: list[tuple[int, int]], loading_seconds: int, up: int, down: int
):
    machines = Machines(rules(minimum=2, maximum=6, up=up, down=down), loading_seconds=loading_seconds)
    for sequences, seconds in loads:
        machines.run(sequences, seconds)
    changed = [second for second, (one, two) in enumerate(pairwise(machines.history)) if one != two]
    assert all(later - earlier >= min(up, down) for earlier, later in pairwise(changed))
    assert all(two >= one - 1 and two <= 2 * one for one, two in pairwise(machines.history))


# --- from settings to rules


def test_engines_are_added_where_the_last_of_the_settings_run():
    engine = EngineConfig("m", engines=2, remote_engines=("tcp://a:1", "ray://auto", "ray://auto"))
    found = scaling_rules(engine, ServerConfig(max_engines=10, autoscale_target_wait=3.0))
    assert found is not None
    assert (found.address, found.minimum, found.maximum, found.target_wait) == ("ray://auto", 2, 7, 3.0)
    assert scaling_rules(engine, ServerConfig()) is None
    here = scaling_rules(EngineConfig("m"), ServerConfig(max_engines=4))
    assert here is not None
    assert (here.address, here.minimum, here.maximum) == ("", 1, 4)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"max_engines": -1}, "--max-engines is -1"),
        ({"max_engines": 65}, "it must be 0 to 64"),
        ({"max_engines": 4, "max_wait": 2.0}, "must be less"),
        ({"autoscale_target_wait": 0.0}, "--autoscale-target-wait is 0.0"),
        ({"upscale_delay": -1.0}, "--upscale-delay is -1.0"),
        ({"downscale_delay": float("nan")}, "--downscale-delay is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changed: dict[str, float], words: str):
    with pytest.raises(ConfigError, match=words):
        ServerConfig(**changed)  # type: ignore[arg-type]


def test_fewer_engines_at_most_than_at_first_are_refused():
    engine = EngineConfig("m", engines=3)
    check_scaling(engine, ServerConfig(max_engines=3))
    with pytest.raises(ConfigError, match="--max-engines is 2, and --engines asks for 3"):
        check_scaling(engine, ServerConfig(max_engines=2))


# --- the loop


class Engines:
    """Engines that exist in this test only."""

    generation = 1

    def __init__(self, *states: EngineState) -> None:
        self.views = [view(number, state) for number, state in enumerate(states, start=1)]
        self.wait = 0.0
        self.error: AntiphonError | None = None
        self.calls: list[tuple[str, int]] = []

    def scaling_rules(self) -> ScalingRules:
        return rules(minimum=1, maximum=3, up=1.0, down=1.0)

    def engines(self) -> Sequence[EngineView]:
        return self.views

    def demand(self) -> Demand:
        return Demand(self.wait, 0, PLACES)

    async def add_engines(self, count: int, address: str) -> None:
        self.calls.append(("add", count))
        assert address == "ray://auto"
        if self.error:
            raise self.error

    async def remove_engine(self, engine_id: int) -> None:
        self.calls.append(("remove", engine_id))


def view(number: int, state: EngineState, owed: float = 0.0, address: str = "ray://auto") -> EngineView:
    return EngineView(number, state, address, None, None, 1, 0, 0, owed, None, 0, None, None, 0, None)  # type: ignore[arg-type]


async def looks(engines: Engines, seconds: Sequence[float]) -> None:
    now = 0.0
    autoscaler = Autoscaler(engines, engines.scaling_rules, engines.demand, clock=lambda: now)
    for now in seconds:  # noqa: B007  # the clock reads it
        await autoscaler.look()


async def test_engines_are_added_while_requests_wait():
    engines = Engines(EngineState.READY)
    engines.wait = 5.0
    await looks(engines, [0.0, 0.5, 1.0])
    assert engines.calls == [("add", 1)]


async def test_the_engine_with_the_least_work_goes():
    engines = Engines()
    engines.views = [view(1, EngineState.READY, owed=5.0), view(2, EngineState.READY, owed=1.0)]
    await looks(engines, [0.0, 1.0])
    assert engines.calls == [("remove", 2)]


async def test_a_failed_engine_goes_first_and_drained_ones_and_those_elsewhere_do_not_count():
    engines = Engines(EngineState.READY, EngineState.FAILED, EngineState.DRAINED)
    engines.views.append(view(4, EngineState.READY, address="tcp://a:1"))
    await looks(engines, [0.0])
    assert engines.calls == [("remove", 2)]


async def test_after_a_failure_it_waits_longer_and_longer():
    engines = Engines(EngineState.READY)
    engines.wait, engines.error = 5.0, EngineDied("no place for it")
    await looks(engines, range(100))
    assert len(engines.calls) in range(4, 7)  # after 5, 10, 20, 40 seconds


async def test_an_operators_operation_goes_first():
    engines = Engines(EngineState.READY)
    engines.wait, engines.error = 5.0, OperationInProgress("engine 1 is being restarted")
    await looks(engines, range(20))
    assert len(engines.calls) == 10  # each time that the wait was too long for a second


# --- real engines


async def test_engines_come_and_go_with_the_load_and_every_answer_is_what_it_is_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("antiphon.engine.fleet.autoscaler._LOOK_SECONDS", 0.02)
    server = ServerConfig(
        max_engines=3, autoscale_target_wait=0.05, upscale_delay=0.05, downscale_delay=0.3, drain_timeout=1.0
    )
    client = EngineClient(fake_config(engines=1, max_num_sequences=2, step_seconds=0.01), server)
    await client.start()
    try:
        await client.wait_ready()
        load = Load(client)
        users = [asyncio.create_task(load.user(number)) for number in range(20)]
        await until(lambda: num_ready(client) == 3)
        assert client.engines_wanted == 3
        load.is_over = True  # so only what waits already can get to the engines that were added last
        await until(lambda: all(engine.running + engine.waiting for engine in client.engines()))
        await asyncio.gather(*users)
        await until(lambda: num_ready(client) == len(client.engines()) == 1)
        assert client.engines_wanted == 1
        client.apply(replace(server, max_engines=0))
        assert client.scaling_rules() is None
    finally:
        await client.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "autoscaler"]


class Load:
    """Users who send one request after the other, and know what must come."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client
        self.is_over = False

    async def user(self, number: int) -> None:
        for turn in range(1000):
            request = ask(f"u{number}-{turn}", [number + 1, turn + 1], temperature=0.6, seed=number, max_tokens=60)
            assert await read(self.client.generate(request)) == expected(request)
            if self.is_over:
                return


def num_ready(client: EngineClient) -> int:
    return sum(engine.state is EngineState.READY for engine in client.engines())
