"""What every API needs to serve a request: the model's text side, the engine, the settings, the metrics.

It promises that work on a long request never blocks the event loop: validating it, turning its text into tokens. It
must not know any API's shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

from antiphon import __version__
from antiphon.api.response_store import ResponseStore
from antiphon.api.schema import Schema
from antiphon.api.served_model import ModelFacts, ServedModel
from antiphon.api.threads import LONG_CHARACTERS, TextThreads, is_long
from antiphon.api.validation import validate
from antiphon.config import ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.errors import ContextLengthExceeded, InvalidRequest, ModelNotFound, NotReady
from antiphon.metrics import EngineFigures, Metrics
from antiphon.rates import Rates

# Shorter texts take about a millisecond; handing them to a thread would cost more than it saves.
_INLINE_CHARACTERS = 8192

COUNTABLE_CONTEXTS = 4

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Schema)


@dataclass(frozen=True, slots=True)
class Context:
    """Passed to everything that serves a request."""

    model: ServedModel
    engine: EngineClient
    settings: ServerConfig
    metrics: Metrics
    rates: Rates
    responses: ResponseStore
    threads: TextThreads
    key: str = ""  # the name of the API key that the request came with; empty where none is asked for

    def of_key(self, key: str) -> Context:
        """The same for a request that came with this key."""
        return replace(self, key=key) if key else self

    def facts(self) -> ModelFacts:
        """The model's numbers; NotReady until the first engine has reported them.

        They stay known between two engines: requests are accepted then, and wait for the next engine.
        """
        info = self.engine.info
        if info is None:
            raise NotReady(f"The server cannot take requests now: the engine is {self.engine.state}.", retry_after=5.0)
        return ModelFacts(info.context_length, info.vocab_size)

    @property
    def countable_tokens(self) -> int:
        """The most tokens of one text that are counted or spelled out without being generated from. More than the
        context has, since texts are also counted to be cut to size.
        """
        return COUNTABLE_CONTEXTS * self.facts().context_length

    def priority(self, wish: int | None) -> int:
        """The priority that a request gets. Raises InvalidRequest where a request may not choose one."""
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

    async def in_thread(self, is_long: bool, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` on text in a thread. Raises Overloaded where too much long work of the same key waits already."""
        if is_long:
            return await self.threads.run_long(self.key, work, *args, **kwargs)
        return await self.threads.run(work, *args, **kwargs)

    async def if_long(self, is_long: bool, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` in a thread if it is long, else at once. Raises as `in_thread`."""
        return await self.in_thread(True, work, *args, **kwargs) if is_long else work(*args, **kwargs)

    async def reread(self, model: type[M], fields: dict[str, Any]) -> M:
        """A request that was validated, as a request of another API: a `model`. Raises as `validated`."""
        return await self.if_long(is_long(fields), validate, model, fields)

    async def validated(self, model: type[M], fields: dict[str, Any]) -> M:
        """A request's fields as a `model`. Raises as `validate` and `in_thread`."""
        return await self.if_long(is_long(fields), validate, model, fields, strict=self.settings.strict_fields)

    async def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int) -> list[list[int]]:
        """The token ids of raw prompts, with what the model wants to begin a text with unless that is not wanted.

        Raises:
            ContextLengthExceeded: one has `limit` tokens or more. Where that is certain it is not encoded, else not to
                its end.
            Overloaded: as `in_thread`.
        """
        length = sum(map(len, texts))
        if length <= _INLINE_CHARACTERS:
            return self._encode(texts, add_special_tokens, limit)
        return await self.in_thread(length > LONG_CHARACTERS, self._encode, texts, add_special_tokens, limit)

    def _encode(self, texts: Sequence[str], add_special_tokens: bool, limit: int) -> list[list[int]]:
        text_model = self.model.text
        encode = text_model.encode_prompt if add_special_tokens else text_model.tokenizer.encode_with_control
        for text in texts:
            text_model.tokenizer.check_room(text, limit, param="prompt")
        prompts = []
        for text in texts:
            is_whole = len(text) <= LONG_CHARACTERS  # a short text is counted to its end, for a better message
            token_ids = encode(text, param="prompt", limit=None if is_whole else limit)
            if len(token_ids) >= limit:
                raise ContextLengthExceeded(len(token_ids), limit, param="prompt", at_least=not is_whole)
            prompts.append(token_ids)
        return prompts


def create_context(model: ServedModel, engine: EngineClient, settings: ServerConfig) -> Context:
    """What serves `model` from `engine`, with its own metrics; the engine may still be loading."""
    keys = settings.api_keys
    metrics = Metrics(__version__, model.name, lambda: _engine_figures(engine), [key.name for key in keys])
    rates = Rates(keys, settings.requests_per_minute, settings.tokens_per_minute)
    # A conversation goes on as if all of it had been sent, so it may be as long as a body.
    responses = ResponseStore(settings.max_stored_responses, settings.max_stored_bytes, settings.max_body_bytes)
    threads = TextThreads(settings.max_queued_requests)
    return Context(model, engine, settings, metrics, rates, responses, threads)


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
