"""What every endpoint shares: the served model's text side, the engine, the settings, the metrics.

Owns nothing that changes but a small pool of threads for long texts. It promises that turning a long prompt into tokens
never holds up the streams of others. It must not know any endpoint's shapes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from fastapi import Request

from antiphon.config import ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.errors import InvalidRequest, ModelNotFound, NotReady
from antiphon.http.authentication import key_name
from antiphon.http.openai_responses.store import ResponseStore
from antiphon.http.rates import Rates
from antiphon.metrics import Metrics, RequestAccount
from antiphon.text import TextModel

# Shorter texts take about a millisecond; handing them to a thread would cost more than it spares.
_INLINE_CHARACTERS = 8192

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model as clients know it."""

    name: str
    text: TextModel
    # temperature, top_p, top_k … that the publisher advises, for requests that name none
    generation_defaults: Mapping[str, float | int] = field(default_factory=dict)
    aliases: frozenset[str] = frozenset()  # other names that requests may use
    created: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the engine says of the model it runs."""

    context_length: int  # tokens, prompt and answer
    vocab_size: int


@dataclass(frozen=True, slots=True)
class Front:
    """Handed to every endpoint through the application's state."""

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

    def account(self, request: Request, endpoint: str) -> RequestAccount:
        """The account of a generation that `request` asks for; the access log tells what became of it."""
        account = self.metrics.request(endpoint, key_name(request.scope))
        request.scope.setdefault("state", {}).setdefault("accounts", []).append(account)
        return account

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


def front_of(request: Request) -> Front:
    """The front that serves this request."""
    front = request.app.state.front
    assert isinstance(front, Front)
    return front
