"""A server in virtual time: the admission in front of the real scheduler on the fake runner, without processes."""

from __future__ import annotations

from loads import EngineInMemory, ask

from antiphon.config import EngineConfig
from antiphon.engine.admission.admission import Admission, Load
from antiphon.engine.admission.capacity import Capacity
from antiphon.engine.requests.admitted import Prediction
from antiphon.engine.requests.stream import TokenStream
from antiphon.engine.requests.unfinished import Unfinished
from antiphon.engine.wire import EngineStats
from antiphon.errors import Overloaded
from antiphon.request import GenerateRequest, Terms


class VirtualServer:
    """The admission in front of the real scheduler on the fake runner, with a clock of its own.

    A step takes `step_seconds`, and `token_seconds` for each of its tokens. It may be one of `num_engines`. Newcomers
    are added to the forecast if it `only_grows`; otherwise it is made again for each of them.
    """

    def __init__(
        self,
        *,
        places: int,
        step_seconds: float = 0.05,
        token_seconds: float = 0.0,
        max_requests: int = 10_000,
        num_engines: int = 1,
        only_grows: bool = True,
    ) -> None:
        self.now = 0.0
        self.step_seconds = step_seconds
        self.token_seconds = token_seconds
        self.num_engines = num_engines
        self.only_grows = only_grows
        self.engine = EngineInMemory(max_num_sequences=places, target_step_seconds=0.0, kv_cache_tokens=1 << 16)
        self.engine.scheduler.check = lambda: None  # type: ignore[method-assign]  # slow, and tested elsewhere
        config = EngineConfig(model="", max_num_sequences=places, target_step_seconds=0.0)
        self.admission = Admission(max_requests, lambda: self.now)
        self.capacity = Capacity(config)
        self.unfinished: dict[str, Unfinished] = {}
        self.predicted: dict[str, Prediction] = {}
        self.accepted_at: dict[str, float] = {}
        self.begun_at: dict[str, float] = {}
        self.first_token_at: dict[str, float] = {}
        self.ended_at: dict[str, float] = {}
        self.context_length = self.engine.context_length
        self._num_events = 0

    @property
    def load(self) -> Load:
        requests = self.unfinished.values()
        return Load(self.capacity, requests, self.context_length, self.num_engines, only_grows=self.only_grows)

    def offer(self, request: GenerateRequest, terms: Terms) -> Overloaded | None:
        """Send a request; returns why it was refused."""
        try:
            predicted = self.admission.admit([request], terms, self.load)
        except Overloaded as refusal:
            return refusal
        stream = TokenStream(request.request_id, lambda *_: None)
        self.unfinished[request.request_id] = Unfinished(request, stream, [], terms)
        self.predicted[request.request_id] = predicted
        self.accepted_at[request.request_id] = self.now
        self.engine.scheduler.add(request)
        return None

    def warm_up(self, num_requests: int = 60) -> None:
        """Answer some requests of 30 tokens, so that steps and lengths are known."""
        for number in range(num_requests):
            assert self.offer(ask(f"warm{number}", [number, 0, 1], max_tokens=30), Terms()) is None
        while self.unfinished:
            self.step()

    def step(self) -> None:
        plan = self.engine.step()
        seconds = self.step_seconds + self.token_seconds * plan.num_tokens
        began, self.now = self.now, self.now + seconds
        events = self.engine.answers.events[self._num_events :]
        self._num_events += len(events)
        stats = EngineStats(
            running=self.engine.scheduler.num_running,
            waiting=self.engine.scheduler.num_waiting,
            cycle_seconds=seconds,
            step_tokens=plan.num_tokens,
        )
        self.capacity.observe(stats, events)
        for request_id in self.engine.scheduler.begun:
            self.begun_at[request_id] = began
            self.unfinished[request_id].stream.note_begun(self.now)
        for event in events:
            self.first_token_at.setdefault(event.request_id, self.now)
            self.unfinished[event.request_id].take(event)
            if event.finish_reason:
                self.ended_at[event.request_id] = self.now
                self.admission.note_end(self.unfinished.pop(event.request_id), event.finish_reason)
                self.capacity.forget_forecast()
