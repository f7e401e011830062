"""What every API needs to serve a request: the model's text side, the engine, the settings, the metrics.

Owns nothing that changes but a small pool of threads for long texts. It promises that turning a long prompt into tokens
never blocks the event loop. It must not know any API's shapes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from antiphon import __version__
from antiphon.api.response_store import ResponseStore
from antiphon.api.served_model import ModelFacts, ServedModel
from antiphon.config import ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.errors import InvalidRequest, ModelNotFound, NotReady
from antiphon.metrics import EngineFigures, Metrics
from antiphon.rates import Rates

# Shorter texts take about a millisecond; handing them to a thread would cost more than it spares.
_INLINE_CHARACTERS = 8192

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Context:
    """Passed to everything that serves a request."""

    model: ServedModel
    engine: EngineClient
    settings: ServerConfig
    metrics: Metrics
    rates: Rates
    responses: ResponseStore
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=2, thread_name_prefix="text")
    )

    def facts(self) -> ModelFacts:
        """The model's numbers; NotReady until the first engine has told them.

        They stay known between two engines: requests are taken then, and wait for the next.
        """
        info = self.engine.info
        if info is None:
            raise NotReady(f"The server cannot take requests now: the engine is {self.engine.state}.", retry_after=5.0)
        return ModelFacts(info.context_length, info.vocab_size)

    def priority(self, wish: int | None) -> int:
        """The priority that a request gets; only where the server goes by it may a request name one."""
        if wish and self.settings.scheduling_policy != "priority":
            raise InvalidRequest(
                "This server takes requests first come, first served (--scheduling-policy fcfs); leave out 'priority'.",
                param="priority",
            )
        return wish or 0

    def check_model(self, name: str | None) -> None:
        """Refuse a request for a model that is not served here."""
        if name is not None and name != self.model.name and name not in self.model.aliases:
            raise ModelNotFound(
                f"The model {name[:100]!r} does not exist here; this server has {self.model.name!r}.", param="model"
            )

    async def in_thread(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` on text where it holds nobody up."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, lambda: work(*args, **kwargs))

    async def encode(self, text: str, *, add_special_tokens: bool = True, limit: int | None = None) -> list[int]:
        """A raw prompt's token ids, with what the model wants to begin a text with unless that is not wanted. One that
        is certain to have `limit` tokens is refused before it costs anything.
        """
        if limit is not None:
            self.model.text.tokenizer.check_room(text, limit, param="prompt")
        encode = self.model.text.encode_prompt if add_special_tokens else self.model.text.tokenizer.encode_with_control
        if len(text) <= _INLINE_CHARACTERS:
            return encode(text, param="prompt")
        return await self.in_thread(encode, text, param="prompt")


def create_context(model: ServedModel, engine: EngineClient, settings: ServerConfig) -> Context:
    """What serves `model` from `engine`, with its own metrics; the engine may still be loading."""
    keys = settings.api_keys
    metrics = Metrics(__version__, model.name, lambda: _engine_figures(engine), [key.name for key in keys])
    rates = Rates(keys, settings.requests_per_minute, settings.tokens_per_minute)
    responses = ResponseStore(settings.max_stored_responses, settings.max_stored_bytes)
    return Context(model, engine, settings, metrics, rates, responses)


def _engine_figures(engine: EngineClient) -> EngineFigures:
    """What the engine's client knows, in the metrics' words."""
    stats = engine.stats
    return EngineFigures(
        ready=engine.is_ready,
        restarts=engine.restarts,
        running=stats.running,
        waiting=stats.waiting,
        blocks_free=stats.blocks_free,
        blocks_cached=stats.blocks_cached,
        blocks_in_use=stats.blocks_in_use,
        steps=stats.step,
        step_seconds=stats.step_seconds,
        step_tokens=stats.step_tokens,
        computed_tokens=stats.num_computed_tokens,
        prefix_queries=stats.num_prefix_queries,
        prefix_hits=stats.num_prefix_hits,
        preemptions=stats.num_preemptions,
    )
