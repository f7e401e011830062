"""What one engine can do, as measured: the cost of its steps, and how many sequences it runs at once.

Owns both for one engine, and the forecast of its work, which is made again when that work has changed. An engine that
is started after another died keeps the figures of its predecessor, since it runs on the same processors. Nothing here
decides anything; `admission` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from antiphon.config import EngineConfig
from antiphon.engine.admission.forecast import Forecast, Work
from antiphon.engine.admission.speed import Speed
from antiphon.engine.budget import StepBudget
from antiphon.engine.wire import EngineStats
from antiphon.request import TokenEvent

_TYPICAL_STEP = 32  # tokens: the size at which engines are compared


class Capacity:
    """The measured capacity of one engine.

    `costs` are those of whole cycles: a step and the time between it and the step before. `speed` is for people.
    """

    def __init__(self, engine: EngineConfig) -> None:
        self.costs = StepBudget(engine.max_batch_tokens, engine.target_step_seconds)
        self.speed = Speed(self.costs)
        self._max_places = min(engine.max_num_sequences, engine.max_batch_tokens)
        self.num_places = self._max_places  # sequences that run at once
        self._forecast: Forecast | None = None
        self._only_grows = False  # whether new requests may be added to it

    def observe(self, stats: EngineStats, events: Sequence[TokenEvent]) -> None:
        """Learn from a step's report."""
        self.forget_forecast()
        if stats.step_tokens:
            num_drawn = sum(event.token_id is not None for event in events)
            self.costs.observe(stats.step_tokens, stats.cycle_seconds)
            self.speed.observe(stats.step_tokens, num_drawn, stats.cycle_seconds)
        # While sequences wait, those that run are as many as there are places, or as the KV cache has room for.
        running = stats.running + sum(event.finish_reason is not None for event in events)
        self.num_places = min(self._max_places, max(1, running)) if stats.waiting else self._max_places

    @property
    def speed_of_steps(self) -> float | None:
        """Tokens per second in steps of a typical size; None: not measured yet."""
        seconds = self.costs.predict(_TYPICAL_STEP) if self.costs.is_known else 0.0
        return _TYPICAL_STEP / seconds if seconds > 0 else None

    def forget_forecast(self) -> None:
        """The engine's work has changed."""
        self._forecast = None

    def note_new_request(self) -> None:
        """There is a request that came after all others; `admission` adds it to the forecast if that is possible."""
        if not self._only_grows:
            self.forget_forecast()

    def forecast(self, works: Callable[[], Iterable[Work]], *, only_grows: bool = False) -> Forecast:
        """The forecast of the engine's work; `works` returns that work, and is called only if it has changed.

        `only_grows`: the caller adds the requests that came since; otherwise it is made again with them.
        """
        if self._forecast is None or only_grows is not self._only_grows:
            self._forecast, self._only_grows = Forecast(self.costs, self.num_places, works()), only_grows
        return self._forecast
