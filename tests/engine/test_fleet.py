"""Engines come, go, die, drain and are replaced in any order: every request gets its own tokens, and ends once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from loads import ask, fake_config

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient, EngineState
from antiphon.engine.fleet.engine_handle import EngineHandle
from antiphon.engine.fleet.owed import TokensOwed
from antiphon.engine.fleet.supervisor import EngineDeath, EngineOwner
from antiphon.engine.requests.stream import TokenStream
from antiphon.engine.requests.unfinished import Unfinished
from antiphon.engine.wire import Abort, AddRequest, EngineStats, Message, Ready, StepReport
from antiphon.errors import AntiphonError, ConfigError, EngineDied, NotReady
from antiphon.grammar import Vocabulary
from antiphon.request import Arrival, FinishReason, GenerateRequest, Terms, TokenEvent

LENGTH = 6  # tokens of each answer
ENGINES = st.integers(0, 7)


def answer(prompt: list[int], generation: int) -> list[int]:
    """What a request must get from the engines of one generation, and what late events must not add to."""
    return [prompt[0] * 100 + generation * 10 + n for n in range(LENGTH)]


class Process:
    """A supervisor with a process that exists in this test only; what it says waits until it is `delivered`."""

    def __init__(self, owner: EngineOwner, model: int) -> None:
        self.owner = owner
        self.model = model
        self.pid: int | None = 1
        self.ready = self.stopped = self.restarting = False
        self.requests: dict[str, GenerateRequest] = {}
        self.outbox: deque[StepReport] = deque()

    def start(self) -> None: ...

    def send(self, message: Message) -> None:
        assert self.ready
        match message:
            case AddRequest(request):
                assert request.request_id not in self.requests, "the engine has the request already"
                self.requests[request.request_id] = replace(request, output_token_ids=[*request.output_token_ids])
            case Abort(request_id):
                if self.requests.pop(request_id, None):
                    self.say([TokenEvent(request_id, finish_reason=FinishReason.ABORT)])

    def replace_process(self) -> None:
        self.restarting = True

    async def stop(self) -> None:
        self.stopped = True

    # --- what the test makes it do

    def become_ready(self) -> None:
        if not self.ready and not self.stopped:
            self.ready = True
            self.owner.engine_said(Ready({"runner": "none"}, 1000, 16, 256, 4096))

    def step(self) -> None:
        events = []
        for wire_id, request in list(self.requests.items()):
            tokens = answer(request.prompt_token_ids, self.model)
            at = len(request.output_token_ids)
            last = at == LENGTH - 1
            events.append(TokenEvent(wire_id, tokens[at], finish_reason=FinishReason.LENGTH if last else None))
            request.output_token_ids.append(tokens[at])
            if last:
                del self.requests[wire_id]
        if events:
            self.say(events)

    def say(self, events: list[TokenEvent]) -> None:
        stats = EngineStats(running=len(self.requests), step_seconds=0.1, cycle_seconds=0.1, step_tokens=len(events))
        self.outbox.append(StepReport(events, stats))

    def deliver(self) -> None:
        if self.outbox and not self.stopped:
            self.owner.engine_said(self.outbox.popleft())

    def die(self, *, at_work: bool) -> None:
        if self.ready and not self.stopped:
            working_on = frozenset(self.requests) if at_work and not self.restarting else frozenset[str]()
            self.ready = self.restarting = False
            self.requests.clear()
            self.outbox.clear()
            self.owner.engine_died(EngineDeath("killed", "killed", working_on))

    def give_up(self) -> None:
        if not self.ready and not self.stopped:
            self.stopped = True
            self.owner.engine_given_up(EngineDied("it could not be started again"))


class InMemory(EngineClient):
    """A client whose engines have no processes."""

    def __init__(self, config: EngineConfig) -> None:
        self.processes: list[Process] = []
        self.free = 10
        super().__init__(config, ServerConfig(drain_timeout=0.001), free_memory=lambda: self.free)

    def _supervise(self, config: EngineConfig, vocabulary: Vocabulary | None, engine: EngineHandle) -> Process:
        self.processes.append(Process(engine, config.fake_settings.vocab_size))
        return self.processes[-1]


class FleetMachine(RuleBasedStateMachine):
    """A client, and everything that may happen to its engines."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.client = self.loop.run_until_complete(self.started())
        self.streams: dict[str, tuple[GenerateRequest, int, TokenStream]] = {}
        self.received: dict[str, list[TokenEvent | AntiphonError]] = {}
        self.aborted: set[str] = set()
        self.operation: asyncio.Task[object] | None = None
        self.num_asked = 0

    async def started(self) -> InMemory:
        client = InMemory(self.config(1, 2))
        await client.start()
        return client

    @staticmethod
    def config(model: int, engines: int) -> EngineConfig:
        return fake_config(vocab_size=model, engines=engines, memory_bytes=5)

    def run(self) -> None:
        """Let tasks run as far as they can."""
        self.loop.run_until_complete(self.turns())
        if self.operation and self.operation.done():
            error = self.operation.exception()
            assert error is None or isinstance(error, ConfigError | EngineDied | NotReady), error
            self.operation = None

    async def turns(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def begin(self, operation: Coroutine[object, object, object]) -> None:
        async def begin() -> None:
            self.operation = asyncio.create_task(operation)

        self.loop.run_until_complete(begin())
        self.run()

    def process(self, number: int) -> Process:
        alive = [process for process in self.client.processes if not process.stopped]
        return alive[number % len(alive)]

    def engine_id(self, number: int) -> int:
        ids = list(self.client._fleet.engines)
        return ids[number % len(ids)]

    @property
    def is_failed(self) -> bool:
        return self.client.state is EngineState.FAILED

    @initialize()
    def load(self) -> None:
        for process in self.client.processes:
            process.become_ready()
        self.run()

    # --- requests

    @rule(num_choices=st.integers(1, 3), prompt=st.integers(1, 5), shares_with=st.sampled_from([None, "", "", "ann"]))
    def arrive(self, num_choices: int, prompt: int, shares_with: str | None) -> None:
        if self.is_failed:
            return
        self.num_asked += 1
        requests = [ask(f"r{self.num_asked}-{n}", [prompt] * 40, max_tokens=100) for n in range(num_choices)]

        async def generate() -> list[TokenStream]:
            return self.client.generate_all(requests, Terms(shares_with=shares_with))

        generation = self.client._fleet.generation.config.fake_settings.vocab_size
        for request, stream in zip(requests, self.loop.run_until_complete(generate()), strict=True):
            self.streams[request.request_id] = (request, generation, stream)
            self.received[request.request_id] = []
            stream.listen(self.received[request.request_id].append)

    @precondition(lambda self: self.streams)
    @rule(number=st.integers(0, 1000))
    def abort(self, number: int) -> None:
        request_id = list(self.streams)[number % len(self.streams)]
        self.aborted.add(request_id)
        self.client.abort(request_id)

    # --- engines

    @rule(number=ENGINES)
    def become_ready(self, number: int) -> None:
        self.process(number).become_ready()
        self.run()

    @rule(number=ENGINES, is_heard=st.booleans())
    def step(self, number: int, is_heard: bool) -> None:
        self.process(number).step()
        if is_heard:
            self.process(number).deliver()

    @rule()
    def deliver(self) -> None:
        for process in self.client.processes:
            process.deliver()
        self.run()

    @rule(number=ENGINES, at_work=st.booleans())
    def die(self, number: int, at_work: bool) -> None:
        self.process(number).die(at_work=at_work)
        self.run()

    @rule(number=ENGINES)
    def give_up(self, number: int) -> None:
        """Only while another engine is alive, or nothing would be left to test."""
        if sum(process.ready for process in self.client.processes if not process.stopped) > 1:
            self.process(number).give_up()
            self.run()

    # --- the operator

    @rule(free=st.sampled_from([0, 10, 100]))
    def memory(self, free: int) -> None:
        self.client.free = free

    @precondition(lambda self: not self.operation and not self.is_failed)
    @rule(numbers=st.lists(ENGINES, max_size=4))
    def move(self, numbers: list[int]) -> None:
        """Requests leave engines, and may come back, before anything is heard of them."""
        for number in numbers:
            engine_id = self.engine_id(number)
            self.begin(self.client.operations.drain_engine(engine_id))
            self.client.operations.resume_engine(engine_id)

    @precondition(lambda self: not self.operation and not self.is_failed)
    @rule(
        what=st.sampled_from(["add", "remove", "drain", "resume", "restart", "restart all", "replace", "other model"]),
        number=ENGINES,
    )
    def operate(self, what: str, number: int) -> None:
        client, engine_id = self.client, self.engine_id(number)
        model = client._fleet.generation.config.fake_settings.vocab_size
        match what:
            case "add":
                self.begin(client.operations.add_engine())
            case "remove":
                self.begin(client.operations.remove_engine(engine_id))
            case "drain":
                self.begin(client.operations.drain_engine(engine_id))
            case "resume":
                client.operations.resume_engine(engine_id)
            case "restart":
                self.begin(client.operations.restart_engine(engine_id))
            case "restart all":
                self.begin(client.operations.rolling_restart())
            case "replace":
                self.begin(client.operations.replace(self.config(model, 1 + number % 2)))
            case "other model":
                self.begin(client.operations.replace(self.config(model + 1, 1 + number % 2)))

    # --- what holds at every moment

    @invariant()
    def every_stream_has_its_own_tokens_in_order(self) -> None:
        for request_id, (request, generation, _) in self.streams.items():
            events = [each for each in self.received[request_id] if isinstance(each, TokenEvent)]
            tokens = [event.token_id for event in events if event.token_id is not None]
            assert tokens == answer(request.prompt_token_ids, generation)[: len(tokens)]
            assert all(event.request_id == request_id for event in events)
            if events and (reason := events[-1].finish_reason) and request_id not in self.aborted:
                assert (reason, len(tokens)) == (FinishReason.LENGTH, LENGTH)

    @invariant()
    def every_request_ends_once_and_the_accounts_close(self) -> None:
        counters = self.client.counters
        assert counters.received == counters.refused + counters.accepted
        assert counters.accepted == counters.finished + counters.aborted + counters.failed + counters.running
        num_ended = 0
        for events in self.received.values():
            ends = [each for each in events if isinstance(each, AntiphonError) or each.finish_reason]
            assert ends == events[-1:] or not ends
            num_ended += len(ends)
        assert num_ended == counters.finished + counters.aborted + counters.failed

    @invariant()
    def every_unfinished_request_is_at_the_engine_that_it_names_or_waits_for_one(self) -> None:
        client = self.client
        unfinished = client._accounts.unfinished.values()
        for engine in client._fleet.engines.values():
            theirs = [each for each in unfinished if each.engine_id == engine.id]
            assert {each.wire_id for each in theirs} == set(engine.requests)
            assert engine.is_connected or not theirs
            assert all(each.generation == engine.generation for each in theirs)
        able = {engine.generation for engine in client._fleet.engines.values() if engine.takes_requests}
        for each in unfinished:
            if each.engine_id is None and each.leader is None:
                assert each.generation not in able, "a request waits while there is an engine for it"
            assert each.generation in client._fleet.generations, "nobody will ever compute it"

    @invariant()
    def whoever_follows_another_follows_one_that_is_computed_and_equal(self) -> None:
        unfinished = self.client._accounts.unfinished
        for each in unfinished.values():
            assert len({id(follower) for follower in each.followers}) == len(each.followers)
            for follower in each.followers:
                assert follower.leader is each
                assert unfinished[follower.request.request_id] is follower
            if each.leader:
                assert each.engine_id is None
                assert not each.followers
                assert each in each.leader.followers
                assert unfinished[each.leader.request.request_id] is each.leader
                assert each.signature == each.leader.signature != b""
                assert each.output_token_ids == each.leader.output_token_ids
                assert each.generation == each.leader.generation
        for leader in self.client._requests.sharing._leaders.values():
            assert leader.leader is None
            assert leader.request.request_id in unfinished

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.loop.run_until_complete(self.client.stop())
            self.run()
            self.loop.close()
        assert all(process.stopped for process in self.client.processes)

    def finish(self) -> None:
        """When all engines work again, every request ends, and earlier generations are gone."""
        self.client.free = 100
        for engine in list(self.client._fleet.engines.values()):
            if engine.generation == self.client.generation:
                engine.is_drained = False
        self.client._fleet.dispatcher.place_waiting()
        for _ in range(100):
            for process in self.client.processes:
                if process.restarting:
                    process.die(at_work=False)
                process.become_ready()
                process.step()
                process.deliver()
            self.run()
            if not self.client.counters.running and not self.operation:
                break
        self.every_stream_has_its_own_tokens_in_order()
        self.every_request_ends_once_and_the_accounts_close()
        assert self.client.counters.running == 0
        assert self.operation is None
        assert len(self.client._fleet.generations) == 1 or self.is_failed


FleetMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_every_request_ends_once_with_its_own_tokens = FleetMachine.TestCase


def test_if_one_new_engine_cannot_be_started_none_of_them_stays():
    machine = FleetMachine()
    machine.load()
    machine.operate("replace", 1)
    ready, failing = machine.client.processes[2:]
    ready.become_ready()
    failing.give_up()
    machine.run()
    assert machine.operation is None
    assert ready.stopped
    assert [engine.generation for engine in machine.client.engines()] == [1, 1]
    machine.teardown()


async def with_requests(num_engines: int, num_requests: int) -> InMemory:
    """A client whose engines are ready, with requests of as many clients."""
    client = InMemory(FleetMachine.config(1, num_engines))
    await client.start()
    for process in client.processes:
        process.become_ready()
    for number in range(num_requests):
        client.generate(ask(f"r{number}", [number, 1, 2], client=f"client {number}"))
    return client


class Watched(dict[str, Unfinished]):
    """A dictionary that counts how often somebody goes through it."""

    num_reads = 0

    def values(self):
        self.num_reads += 1
        return super().values()


async def test_a_decision_goes_through_none_of_the_requests_that_engines_have(monkeypatch):
    client = await with_requests(4, 100)
    asked: list[str] = []

    def estimate(unfinished: Unfinished, context_length: int) -> float:
        asked.append(unfinished.request.request_id)
        return 1.0

    monkeypatch.setattr(client._admission, "tokens_owed_of", estimate)
    watched = Watched(client._accounts.unfinished)
    monkeypatch.setattr(client._accounts, "unfinished", watched)
    client.check_early(Arrival(num_bytes=100), Terms())
    client.generate(ask("new", [1000, 1, 2]))
    assert set(asked) == {"new"}
    assert watched.num_reads == 0


async def test_what_a_dead_engine_had_computed_is_owed_again():
    """Else all of its requests would go to one engine that knows their system prompt, and wait for each other there."""
    client = await with_requests(1, 0)
    (engine,) = client.processes
    client.generate(ask("long", [7] * 300, max_tokens=LENGTH))
    assert client.tokens_owed > 300
    engine.step()
    engine.deliver()
    assert client.tokens_owed <= LENGTH
    engine.die(at_work=False)
    assert client.tokens_owed > 301, "one token more is to be read"
    engine.become_ready()
    assert client.tokens_owed > 301
    engine.step()
    engine.deliver()
    assert client.tokens_owed <= LENGTH


async def test_an_engine_that_owes_nothing_any_more_gets_the_next_request():
    client = await with_requests(4, 40)
    third = client._fleet.engines[3]
    for wire_id in list(third.requests):
        client.abort(wire_id)
    client.generate(ask("next", [1000, 5, 6]))
    assert list(third.requests) == ["next"]


def test_what_is_owed_follows_the_steps_and_is_counted_again_after_32():
    owed, counts = TokensOwed(), []

    def estimate(request: object) -> float:
        counts.append(request)
        return 100.0

    def count() -> float:
        return owed.count(["one", "two"], estimate)  # type: ignore[list-item]  # only the estimate looks at them

    assert count() == 200
    owed.add(50)
    for _ in range(31):
        owed.note_step(2)
    assert count() == 188
    assert len(counts) == 2
    owed.note_step(2)
    assert count() == 200
    assert len(counts) == 4
