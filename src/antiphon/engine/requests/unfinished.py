"""An accepted request that has not ended: what another engine needs to continue it, and when it is not tried again.

Owns the tokens that were received, so that an engine can continue after them, and the number of engines that died
while they had the request. A request that two engines were working on when they died is refused, because it may be
what kills them. `accounts` owns these objects; the fleet decides which engine has them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from antiphon.engine.requests.admitted import Permit, Prediction
from antiphon.engine.requests.answer_parts import AnswerParts
from antiphon.engine.requests.stream import TokenStream
from antiphon.errors import EngineDied
from antiphon.request import GenerateRequest, Terms, TokenEvent

_MAX_DEATHS = 2  # of engines that were working on a request; it is not tried again after so many
_MAX_FRUITLESS_DEATHS = 8  # in a row that no request explains, with not one token between them


@dataclass(slots=True, eq=False)
class Unfinished:
    """One request between its acceptance and its end."""

    request: GenerateRequest
    stream: TokenStream
    output_token_ids: list[int]  # received so far
    terms: Terms = field(default_factory=Terms)
    predicted: Prediction = field(default_factory=Prediction)  # when it was accepted
    parts: AnswerParts = field(init=False)  # how much of its thought and answer was received
    accepted_at: float = field(default_factory=time.monotonic)
    expiry: asyncio.TimerHandle | None = None  # ends it if its turn has not come by then
    num_scored_tokens: int = 0  # of the prompt, received so far
    is_computed: bool = False  # whether the engine that has it has computed all known tokens but the last
    generation: int = 0  # of the engines that may compute it
    engine_id: int | None = None  # the engine that has it; None: it waits for one
    group: Sequence[Unfinished] = ()  # requests that arrived as one, with this one; they share an engine
    digests: list[bytes] | None = None  # of the prompt's prefixes, for `routing`; None: not computed yet
    permit: Permit = field(default_factory=Permit)  # of the breaker of the engine that has it
    num_withdrawals: int = 0  # how often it was taken from an engine that was alive
    wire_name: str = ""  # what `wire_id` begins with: the id of the request that was given to an engine first
    signature: bytes = b""  # equal for requests that may share their computation; empty: it shares with none
    leader: Unfinished | None = None  # the equal request that is computed, whose events this one gets
    followers: list[Unfinished] = field(default_factory=list)  # those that get this one's events
    events: list[TokenEvent] = field(default_factory=list)  # received so far, for followers to come
    fingerprint: str | None = None  # of the engine that its last token came from; empty: that engine has none
    num_deaths: int = 0  # of engines that were working on it
    num_fruitless_deaths: int = 0  # of engines that had it, for which no request is known to be the reason

    def __post_init__(self) -> None:
        self.wire_name = self.request.request_id
        self.parts = AnswerParts(self.request.sampling.thinking, self.output_token_ids)

    @property
    def age(self) -> float:
        """Seconds since it was accepted."""
        return time.monotonic() - self.accepted_at

    @property
    def patience_left(self) -> float:
        """Seconds that its client still waits."""
        return min(self.terms.first_token, self.terms.whole_answer) - self.age

    @property
    def has_begun(self) -> bool:
        """Whether an engine has begun with it, or with a request that arrived as one with it."""
        every = (self, *self.group)
        return any(each.output_token_ids or each.stream.begun_at is not None for each in every)

    @property
    def is_handed_over(self) -> bool:
        """Whether an engine has it."""
        return self.engine_id is not None

    @property
    def wire_id(self) -> str:
        """Its id in messages to engines.

        It is a new one after every withdrawal, so that late events of an engine that had the request before are not
        taken for those of the engine that has it now, which may be the same one.
        """
        return f"{self.wire_name}#{self.num_withdrawals}" if self.num_withdrawals else self.wire_name

    @property
    def readers(self) -> list[Unfinished]:
        """This request and all that follow it."""
        return [self, *self.followers]

    def take_place_of(self, other: Unfinished) -> None:
        """Become what the engine has instead of an equal request."""
        self.engine_id, other.engine_id = other.engine_id, None
        self.is_computed = other.is_computed
        self.permit, other.permit = other.permit, Permit()
        self.wire_name, self.num_withdrawals = other.wire_name, other.num_withdrawals
        self.num_deaths, self.num_fruitless_deaths = other.num_deaths, other.num_fruitless_deaths

    def take_fingerprint_of(self, other: Unfinished) -> None:
        """Note that the tokens of an equal request, which this one gets, came from that request's engine."""
        self.fingerprint, self.stream.system_fingerprint = other.fingerprint, other.stream.system_fingerprint

    def continues_inexactly(self, fingerprint: str) -> bool:
        """Whether it continues with other arithmetic than before, on an engine with this fingerprint."""
        return bool(self.fingerprint and fingerprint) and fingerprint != self.fingerprint

    @property
    def num_tokens(self) -> int:
        """Known tokens."""
        return len(self.request.prompt_token_ids) + len(self.output_token_ids)

    def take(self, event: TokenEvent) -> None:
        """Follow the request by an event."""
        self.num_fruitless_deaths = 0
        self.is_computed = True
        self.num_scored_tokens += event.is_prompt
        if self.signature:
            self.events.append(event)
        if event.token_id is not None:
            self.output_token_ids.append(event.token_id)
            self.parts.take(event.token_id, event.thought_closed)

    def for_engine(self) -> GenerateRequest:
        """The request as an engine gets it: with the tokens that earlier engines produced."""
        left = self.request.num_scored_tokens - self.num_scored_tokens
        return replace(
            self.request,
            request_id=self.wire_id,
            output_token_ids=self.output_token_ids,
            num_scored_tokens=left,
        )

    def note_death(self, working_on: frozenset[str]) -> EngineDied | None:
        """Count the death of the engine that had it, which was working on these wire ids.

        Returns why the request is not tried again, if so.
        """
        if self.wire_id in working_on:
            self.num_deaths += 1
        elif not working_on:
            self.num_fruitless_deaths += 1
        if self.num_deaths >= _MAX_DEATHS:
            return EngineDied("The engine died twice while working on this request, so it is not tried again.")
        if self.num_fruitless_deaths >= _MAX_FRUITLESS_DEATHS:
            return EngineDied(f"The engine died {_MAX_FRUITLESS_DEATHS} times before this request got any further.")
        return None
