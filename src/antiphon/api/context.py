"""The objects that every API needs to serve a request: the model's text side, the engine, the settings, the metrics.

Long work on a request (validating it, tokenizing its text) never blocks the event loop. This module does not know any
API's format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

from antiphon import __version__
from antiphon.api.deadlines import Deadlines
from antiphon.api.degrading import Degrading
from antiphon.api.figures import child_processes, engines_report
from antiphon.api.gpus import GpuWatch
from antiphon.api.response_store import ResponseStore
from antiphon.api.schema import Schema
from antiphon.api.served_model import ModelFacts, ServedModel
from antiphon.api.threads import LONG_CHARACTERS, TextThreads, is_long
from antiphon.api.validation import validate
from antiphon.config import ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.errors import ContextLengthExceeded, InvalidRequest, ModelNotFound, NotReady
from antiphon.metrics import Metrics
from antiphon.peers import PeerLedger
from antiphon.rates import Rates
from antiphon.tracing import Tracer

# Shorter texts take about a millisecond; using a thread would cost more than it saves.
_INLINE_CHARACTERS = 8192

COUNTABLE_CONTEXTS = 4
NO_DEADLINES = Deadlines()

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
    degrading: Degrading
    gpus: GpuWatch
    peers: PeerLedger
    tracer: Tracer | None = None  # None: no traces
    generation: int | None = None  # of the engines that serve the model; None: the present one
    key: str = ""  # the name of the request's API key; empty if the server has no keys
    fairness_id: str = ""  # who shares one fair share with this request
    deadlines: Deadlines = NO_DEADLINES

    def of_client(self, key: str, address: str, deadlines: Deadlines) -> Context:
        """A copy for a request with this key, or without keys, from this address."""
        fairness_id = {"key": key, "address": key or address, "none": ""}[self.settings.fairness]
        return replace(self, key=key, fairness_id=fairness_id, deadlines=deadlines)

    def renewed(self, model: ServedModel, settings: ServerConfig) -> Context:
        """A context with another model or other settings, which keeps stored responses, metrics and what keys used.

        `take_over` must be called when it comes into use.
        """
        rates = self.rates.renewed(settings.api_keys, settings.requests_per_minute, settings.tokens_per_minute)
        return replace(self, model=model, settings=settings, rates=rates)

    def take_over(self) -> None:
        """Apply the settings to what is shared with the context before."""
        settings = self.settings
        self.metrics.set_model(self.model.name, lambda: child_processes(self.model, self.engine))
        self.metrics.vllm_names = settings.metrics_aliases == "vllm"
        self.metrics.begin_keys([key.name for key in settings.api_keys])
        self.responses.set_limits(settings.max_stored_responses, settings.max_stored_bytes, settings.max_body_bytes)
        self.threads.max_waiting = settings.max_queued_requests
        self.degrading.configure(settings.degrade, settings.degrade_stay)

    @property
    def fairness_weight(self) -> int:
        """The weight of this client's fair share."""
        return next((key.weight for key in self.settings.api_keys if key.name == self.fairness_id), 1)

    @property
    def shares_with(self) -> str | None:
        """Whose equal requests may be computed together with this one's."""
        return {"key": self.key, "all": "", "off": None}[self.settings.share_equal_requests]

    def facts(self) -> ModelFacts:
        """The model's numbers. Raises NotReady until the first engine has reported them.

        They are also available between two engines: requests are accepted then, and wait for the next engine.
        """
        info = self.engine.info_of(self.generation)
        if info is None:
            raise NotReady(f"The server cannot accept requests: the engine is {self.engine.state}.", retry_after=5.0)
        return ModelFacts(info.context_length, info.vocab_size)

    def check_load(self) -> None:
        """Raise NotReady, EngineUnavailable or Overloaded if every request is refused now, whatever it asks for."""
        self.facts()
        self.engine.check_breakers()
        self.degrading.check_open()

    @property
    def countable_tokens(self) -> int:
        """The maximum number of tokens for `/tokenize` and `/detokenize`.

        It is larger than the context, since clients count texts in order to shorten them.
        """
        return COUNTABLE_CONTEXTS * self.facts().context_length

    def priority(self, requested: int | None) -> int:
        """The priority of a request. Raises InvalidRequest if requests may not choose one."""
        if requested and self.settings.scheduling_policy != "priority":
            raise InvalidRequest(
                "This server runs requests in order of arrival (--scheduling-policy fcfs); leave out 'priority'.",
                param="priority",
            )
        return requested or 0

    def check_model(self, name: str | None) -> None:
        """Raise ModelNotFound unless the request names the served model or none."""
        if name is not None and name != self.model.name and name not in self.model.aliases:
            raise ModelNotFound(
                f"The model {name[:100]!r} does not exist; this server has {self.model.name!r}.", param="model"
            )

    async def in_thread(self, is_long: bool, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` on text in a thread. Raises Overloaded if too much long work of the same key is waiting."""
        if is_long:
            return await self.threads.run_long(self.key, work, *args, **kwargs)
        return await self.threads.run(work, *args, **kwargs)

    async def if_long(self, is_long: bool, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` in a thread if it is long, else directly. Raises the same errors as `in_thread`."""
        return await self.in_thread(True, work, *args, **kwargs) if is_long else work(*args, **kwargs)

    async def reread(self, model: type[M], fields: dict[str, Any]) -> M:
        """A validated request as a request of another API (`model`). Raises the same errors as `validated`."""
        return await self.if_long(is_long(fields), validate, model, fields)

    async def validated(self, model: type[M], fields: dict[str, Any]) -> M:
        """A request's fields as a `model`. Raises the same errors as `validate` and `in_thread`."""
        return await self.if_long(is_long(fields), validate, model, fields, strict=self.settings.strict_fields)

    async def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int) -> list[list[int]]:
        """The token ids of raw prompts, with the model's beginning-of-text token unless it is switched off.

        Raises:
            ContextLengthExceeded: a prompt has `limit` tokens or more. It is not encoded to its end, and not at all if
                its length already shows that.
            Overloaded: as for `in_thread`.
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


def create_context(
    model: ServedModel,
    engine: EngineClient,
    settings: ServerConfig,
    *,
    memory_reserve: int = 0,
    tracer: Tracer | None = None,
) -> Context:
    """What serves `model` from `engine`, with its own metrics; the engine may still be loading.

    `memory_reserve`: bytes of the machine's memory that the plan leaves free; 0: not known. `tracer`: exports traces;
    None: there are none.
    """
    keys = settings.api_keys
    metrics = Metrics(
        __version__,
        model.name,
        lambda: engines_report(engine),
        [key.name for key in keys],
        lambda: child_processes(model, engine),
        vllm_names=settings.metrics_aliases == "vllm",
    )
    rates = Rates(keys, settings.requests_per_minute, settings.tokens_per_minute)
    # Continuing a conversation is like sending all of it, so it may be as long as a body.
    responses = ResponseStore(settings.max_stored_responses, settings.max_stored_bytes, settings.max_body_bytes)
    metrics.watch_stored_responses(lambda: len(responses), lambda: responses.num_bytes, lambda: responses.max_bytes)
    threads = TextThreads(settings.max_queued_requests)
    gpus = GpuWatch(engine.gpus)
    metrics.watch_gpus(gpus.figures)
    degrading = Degrading(
        engine, settings.degrade, settings.degrade_stay, metrics, threads, gpus, memory_reserve=memory_reserve
    )
    if tracer is not None:
        metrics.watch_traces(tracer.figures)
    return Context(model, engine, settings, metrics, rates, responses, threads, degrading, gpus, PeerLedger(), tracer)
