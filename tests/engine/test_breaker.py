"""The engine's breaker: when it opens, how it closes, and that its counts are exact."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from antiphon.engine.fleet.breaker import LONGEST_DELAY, Breaker, BreakerSettings, BreakerState
from antiphon.engine.requests.admitted import Permit
from antiphon.errors import EngineUnavailable

CLOSED, HALF_OPEN, OPEN = BreakerState


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def breaker_of(clock: Clock, **settings: float) -> Breaker:
    return Breaker(BreakerSettings(**settings), clock)  # type: ignore[arg-type]


def opened(clock: Clock, **settings: float) -> Breaker:
    """A breaker that has just opened."""
    breaker = breaker_of(clock, **settings)
    for _ in range(3):
        breaker.engine_failed()
    assert breaker.state is OPEN
    return breaker


def admitted(breaker: Breaker, *, is_ready: bool = True) -> Permit:
    """A new request's permit; raises EngineUnavailable if it is refused."""
    breaker.check(is_ready=is_ready)
    return breaker.begin()


def test_two_deaths_do_not_open_it_and_a_third_in_a_row_does():
    breaker = breaker_of(Clock())
    for expected in (CLOSED, CLOSED, OPEN):
        breaker.engine_failed()
        assert breaker.state is expected
    assert breaker.num_opened == 1


def test_deaths_among_many_answers_do_not_open_it():
    breaker = breaker_of(Clock())
    for _ in range(20):
        for _ in range(2):
            breaker.succeeded(admitted(breaker))
        breaker.engine_failed()
    assert breaker.state is CLOSED
    assert breaker.outcomes == (40, 20)


def test_failures_that_are_long_ago_do_not_count():
    clock = Clock()
    breaker = breaker_of(clock, window=120.0)
    for _ in range(10):
        breaker.engine_failed()
        clock.now += 70.0
    assert breaker.state is CLOSED


def test_requests_that_fail_open_it_and_those_that_are_aborted_do_not():
    breaker = breaker_of(Clock())
    for _ in range(10):
        breaker.abandoned(admitted(breaker))
    assert breaker.outcomes == (0, 0)
    for _ in range(3):
        breaker.failed(admitted(breaker))
    assert breaker.state is OPEN


def test_it_never_opens_where_it_is_off():
    breaker = breaker_of(Clock(), failures=0)
    for _ in range(100):
        breaker.engine_failed()
        breaker.failed(admitted(breaker))
    assert (breaker.state, breaker.num_opened) == (CLOSED, 0)


def test_what_is_refused_is_told_when_it_may_be_accepted():
    clock = Clock()
    breaker = opened(clock, delay=5.0)
    clock.now += 1.5
    with pytest.raises(EngineUnavailable) as refusal:
        admitted(breaker)
    error = refusal.value
    assert (error.retry_after, error.code, error.reason, error.http_status) == (
        3.5,
        "engine_unavailable",
        "breaker",
        503,
    )
    clock.now += error.retry_after
    assert admitted(breaker).is_probe


def test_exactly_one_request_is_the_probe():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 5.0
    probe = admitted(breaker)
    for _ in range(10):
        with pytest.raises(EngineUnavailable):
            admitted(breaker)
    breaker.succeeded(probe)
    assert breaker.state is CLOSED
    assert not admitted(breaker).is_probe


def test_a_probe_that_leaves_makes_room_for_another():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 5.0
    breaker.abandoned(admitted(breaker))
    assert breaker.state is HALF_OPEN
    assert admitted(breaker).is_probe


def test_what_an_open_breakers_engine_still_gets_decides_nothing():
    """Requests that were accepted earlier, and moved to it."""
    clock = Clock()
    breaker = opened(clock)
    moved = [breaker.begin() for _ in range(3)]
    clock.now += 5.0
    probe = admitted(breaker)
    moved.append(breaker.begin())
    breaker.succeeded(moved[0])
    breaker.failed(moved[1])
    breaker.abandoned(moved[2])
    breaker.failed(moved[3])
    assert breaker.state is HALF_OPEN
    breaker.succeeded(probe)
    assert (breaker.state, breaker.num_opened) == (CLOSED, 1)


def test_there_is_no_probe_while_the_engine_is_not_ready():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 5.0
    with pytest.raises(EngineUnavailable) as refusal:
        admitted(breaker, is_ready=False)
    assert refusal.value.retry_after is not None
    assert admitted(breaker).is_probe


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_a_minute():
    clock = Clock()
    breaker = opened(clock, delay=5.0)
    delays = []
    for _ in range(6):
        retry_after = breaker.retry_after()
        assert retry_after is not None
        delays.append(retry_after)
        clock.now += retry_after
        breaker.failed(admitted(breaker))
    assert delays == [5.0, 10.0, 20.0, 40.0, LONGEST_DELAY, LONGEST_DELAY]
    assert breaker.num_opened == 7


@pytest.mark.parametrize(("quiet", "delay"), [(10.0, 10.0), (500.0, 5.0)], ids=["soon", "late"])
def test_it_stays_open_for_longer_if_it_opens_again_soon(quiet, delay):
    clock = Clock()
    breaker = opened(clock, delay=5.0, window=120.0)
    clock.now += 5.0
    breaker.succeeded(admitted(breaker))
    clock.now += quiet
    for _ in range(3):
        breaker.engine_failed()
    assert breaker.retry_after() == delay


def test_outcomes_from_before_it_opened_do_not_decide_the_probe():
    clock = Clock()
    breaker = breaker_of(clock)
    early = [admitted(breaker) for _ in range(4)]
    for _ in range(3):
        breaker.engine_failed()
    breaker.succeeded(early[0])
    assert breaker.state is OPEN
    clock.now += 5.0
    probe = admitted(breaker)
    breaker.succeeded(early[1])
    breaker.failed(early[2])
    breaker.abandoned(early[3])
    assert breaker.state is HALF_OPEN
    breaker.succeeded(probe)
    assert breaker.state is CLOSED
    assert breaker.outcomes == (0, 0)


class BreakerMachine(RuleBasedStateMachine):
    """Any order of requests, outcomes, deaths and times, against a list of everything that happened."""

    @initialize(
        failures=st.integers(0, 4), rate=st.sampled_from([0.01, 0.5, 1.0]), window=st.sampled_from([10.0, 100.0])
    )
    def begin(self, failures, rate, window):
        self.clock = Clock()
        self.settings = BreakerSettings(failures, rate, window, delay=5.0)
        self.breaker = Breaker(self.settings, self.clock)
        self.running: list[tuple[Permit, bool]] = []  # and whether its outcome counts
        self.history: list[tuple[int, bool]] = []  # slot of time, and whether it was a failure, in this period
        self.state, self.until, self.num_opened = CLOSED, 0.0, 0
        self.probe: Permit | None = None

    def now_open(self):
        self.num_opened += 1
        self.state = OPEN
        retry_after = self.breaker.retry_after()
        assert retry_after is not None
        assert retry_after + 1e-6 >= 5.0
        assert retry_after <= LONGEST_DELAY + 1e-6
        self.until = self.clock.now + retry_after
        self.new_period()

    def new_period(self):
        self.probe = None
        self.history.clear()
        self.running = [(permit, False) for permit, _ in self.running]

    def failure(self):
        if self.state is not CLOSED:
            self.now_open()
            return
        self.history.append((self.slot, True))
        successes, failures = self.counts
        if 0 < self.settings.failures <= failures and failures >= self.settings.failure_rate * (failures + successes):
            self.now_open()

    @property
    def slot(self):
        return int(self.clock.now // (self.settings.window / 10))

    @property
    def counts(self):
        recent = [is_failure for slot, is_failure in self.history if slot > self.slot - 10]
        return recent.count(False), recent.count(True)

    @rule(seconds=st.sampled_from([0.0, 0.125, 1.0, 5.0, 11.0, 60.0]))
    def wait(self, seconds):
        self.clock.now += seconds
        if self.state is OPEN and self.clock.now >= self.until:
            self.state = HALF_OPEN

    @rule(is_ready=st.booleans())
    def ask(self, is_ready):
        if not (self.state is CLOSED or (self.state is HALF_OPEN and self.probe is None and is_ready)):
            with pytest.raises(EngineUnavailable) as refusal:
                self.breaker.check(is_ready=is_ready)
            assert refusal.value.retry_after > 0
        else:
            self.breaker.check(is_ready=is_ready)
            self.give()

    @rule()
    def give(self):
        """Whatever the state, as requests that were accepted before are given to an engine."""
        permit = self.breaker.begin()
        assert permit.is_probe == (self.state is HALF_OPEN and self.probe is None)
        if permit.is_probe:
            self.probe = permit
        self.running.append((permit, self.state is CLOSED or permit.is_probe))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), outcome=st.sampled_from(["succeeded", "failed", "abandoned"]))
    def end(self, data, outcome):
        permit, counts = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        getattr(self.breaker, outcome)(permit)
        if not counts:
            return
        match outcome:
            case "failed":
                self.failure()
            case "abandoned":
                if permit is self.probe:
                    self.probe = None
            case _ if permit.is_probe:
                self.state = CLOSED
                self.new_period()
            case _:
                self.history.append((self.slot, False))

    @rule()
    def die(self):
        self.breaker.engine_failed()
        if self.state is not OPEN:
            self.failure()

    @invariant()
    def agrees(self):
        assert self.breaker.state is self.state
        assert self.breaker.num_opened == self.num_opened
        assert self.breaker.outcomes == self.counts
        assert (self.breaker.retry_after() is None) == (
            self.state is CLOSED or (self.state is HALF_OPEN and self.probe is None)
        )


TestBreaker = BreakerMachine.TestCase


def test_other_settings_hold_from_now_on():
    clock = Clock()
    breaker = breaker_of(clock, failures=2)
    breaker.failed(breaker.begin())
    breaker.configure(BreakerSettings(failures=0))
    breaker.failed(breaker.begin())
    assert breaker.state is CLOSED
    breaker.configure(BreakerSettings(failures=1, delay=7.0, window=60.0))  # another window: counted anew
    assert breaker.outcomes == (0, 0)
    breaker.failed(breaker.begin())
    assert (breaker.state, breaker.retry_after()) == (OPEN, 7.0)
