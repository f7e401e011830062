"""An accepted request that has not ended: what the next engine must know of it, and when it is not tried again.

Owns the tokens that were received, so that an engine can go on after them, and the number of engines that died of it,
or may have: one that two engines were working on when they died is refused, for it may be what kills them. The client
owns these, and nothing else sees them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from antiphon.engine.answer_parts import AnswerParts
from antiphon.engine.stream import TokenStream
from antiphon.errors import EngineDied
from antiphon.request import GenerateRequest, Terms, TokenEvent

_MAX_DEATHS = 2  # of engines that were working on a request; it is not tried again after so many
_MAX_FRUITLESS_DEATHS = 8  # in a row that no request explains, with not one token between them


@dataclass(slots=True)
class Unfinished:
    """One request between its acceptance and its end."""

    request: GenerateRequest
    stream: TokenStream
    output_token_ids: list[int]  # received so far
    terms: Terms = field(default_factory=Terms)
    parts: AnswerParts = field(init=False)  # how much of its thought and answer was received
    expiry: asyncio.TimerHandle | None = None  # ends it if its turn has not come by then
    num_scored_tokens: int = 0  # of the prompt, likewise
    is_handed_over: bool = False  # to the engine that is alive
    num_deaths: int = 0  # of engines that were working on it
    num_fruitless_deaths: int = 0  # of engines that had it, for which no request is known to be the reason

    def __post_init__(self) -> None:
        self.parts = AnswerParts(self.request.sampling.thinking, self.output_token_ids)

    @property
    def num_tokens(self) -> int:
        """Known tokens."""
        return len(self.request.prompt_token_ids) + len(self.output_token_ids)

    def take(self, event: TokenEvent) -> None:
        """Follow the request by an event."""
        self.num_fruitless_deaths = 0
        self.num_scored_tokens += event.is_prompt
        if event.token_id is not None:
            self.output_token_ids.append(event.token_id)
            self.parts.take(event.token_id, event.thought_closed)

    def hand_over(self) -> GenerateRequest:
        """The request as the next engine gets it: with what earlier ones already produced."""
        self.is_handed_over = True
        left = self.request.num_scored_tokens - self.num_scored_tokens
        return replace(self.request, output_token_ids=self.output_token_ids, num_scored_tokens=left)

    def note_death(self, working_on: frozenset[str]) -> EngineDied | None:
        """The engine that had the request died while it worked on those; returns why it is not tried again, if so."""
        self.is_handed_over = False
        if self.request.request_id in working_on:
            self.num_deaths += 1
        elif not working_on:
            self.num_fruitless_deaths += 1
        if self.num_deaths >= _MAX_DEATHS:
            return EngineDied("The engine died twice while working on this request, so it is not tried again.")
        if self.num_fruitless_deaths >= _MAX_FRUITLESS_DEATHS:
            return EngineDied(f"The engine died {_MAX_FRUITLESS_DEATHS} times before this request got any further.")
        return None
