"""Who asks a simulated fleet, and what they see: conversations of several keys, with retries and patience.

Conversations begin at random (Poisson). Each belongs to a key, has one of a few system prompts, and a random number of
turns: a turn's prompt is everything said before and a new message. Lengths are lognormal, the numbers of turns
geometric. A client that is refused tries again when the server says so, as OpenAI's clients do, and gives up after
`retries`. All numbers come from `seed`.

Import this module only after `virtual_time.install`.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass, field
from itertools import count

from fleet_simulation import SimulatedClient

from antiphon.errors import AntiphonError, Overloaded
from antiphon.request import Arrival, GenerateRequest, SamplingParams, Terms, TokenEvent

_LONGEST_PAUSE = 60.0  # seconds; a client that would have to wait longer gives up


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is asked of one engine; a fleet gets it times its engines. Lengths are means, in tokens."""

    rate: float = 0.5  # requests a second, of each engine, if nobody is refused
    turns: float = 4.0  # of a conversation, on average
    pause: float = 8.0  # seconds between an answer and the next message, on average
    message: float = 60.0
    answer: float = 200.0
    longest_answer: int = 1024
    spread: float = 0.8  # sigma of the logarithm of these lengths
    system_prompt: int = 400
    num_system_prompts: int = 20
    num_keys: int = 20
    heavy_share: float = 0.3  # of the conversations: those of one key; the others share the rest
    patience: float = 30.0  # seconds for the first token
    retries: int = 2
    token_seconds: float = 0.1  # roughly: how many conversations there are at the beginning follows from it
    seed: int = 1


@dataclass(slots=True)
class Seen:
    """One request as its client saw it. Times are simulated seconds."""

    key: str
    sent: float  # for the first time
    prompt_tokens: int
    wanted_tokens: int  # of the answer
    refusals: int = 0
    tokens: list[int] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)  # of its tokens
    cached_tokens: int = 0
    error: str = ""

    @property
    def is_complete(self) -> bool:
        return len(self.tokens) == self.wanted_tokens

    @property
    def first_token(self) -> float:
        """Seconds from the first attempt to the first token."""
        return self.arrivals[0] - self.sent


class Users:
    """All conversations of a simulation."""

    def __init__(self, client: SimulatedClient, traffic: Traffic, num_engines: int) -> None:
        self.seen: list[Seen] = []
        self.streams: dict[str, Seen] = {}  # those that are accepted and have not ended, by the request's id
        self._client = client
        self._traffic = traffic
        self._num_engines = num_engines
        self._draw = random.Random(traffic.seed)  # noqa: S311  # a simulation's
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._prompts = [self._words(traffic.system_prompt) for _ in range(traffic.num_system_prompts)]
        self._popularity = [1 / rank for rank in range(1, traffic.num_system_prompts + 1)]

    async def run(self, seconds: float) -> None:
        """Begin conversations for so long; those that have not ended then are cut off.

        As many as there would be in the long run begin at once, in the middle of their conversation.
        """
        traffic, ends = self._traffic, time.monotonic() + seconds
        per_second = traffic.rate * self._num_engines / traffic.turns
        turn = traffic.pause + traffic.token_seconds * traffic.answer  # seconds
        for _ in range(round(traffic.rate * self._num_engines * turn)):
            self._begin(self._draw.uniform(0.0, turn))
        while (pause := self._draw.expovariate(per_second)) + time.monotonic() < ends:
            await asyncio.sleep(pause)
            self._begin(0.0)
        await asyncio.sleep(ends - time.monotonic())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, after: float) -> None:
        task = asyncio.create_task(self._converse(after))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, after: float) -> None:
        draw, traffic = self._draw, self._traffic
        await asyncio.sleep(after)
        key = "heavy" if draw.random() < traffic.heavy_share else f"key {draw.randrange(1, traffic.num_keys)}"
        known = list(draw.choices(self._prompts, self._popularity)[0])
        while True:
            known += self._words(self._length(traffic.message))
            wanted = min(self._length(traffic.answer), traffic.longest_answer)
            if len(known) + wanted >= (self._client.info.context_length if self._client.info else 0):
                return
            seen = Seen(key, time.monotonic(), len(known), wanted)
            self.seen.append(seen)
            await self._ask(seen, known)
            if not seen.is_complete or draw.random() < 1 / traffic.turns:
                return
            known += seen.tokens
            await asyncio.sleep(draw.expovariate(1 / traffic.pause))

    async def _ask(self, seen: Seen, prompt: list[int]) -> None:
        """Ask, again if the server refuses, and take the whole answer."""
        sampling = SamplingParams(seed=seen.wanted_tokens, max_tokens=self._traffic.longest_answer)
        for attempt in range(self._traffic.retries + 1):
            request = GenerateRequest(f"r{next(self._numbers)}", list(prompt), sampling, fairness_id=seen.key)
            terms = Terms(first_token=self._traffic.patience, client=seen.key, retry_count=attempt)
            try:
                await self._take(seen, request, terms)
                return
            except Overloaded as refusal:
                seen.refusals += 1
                pause = refusal.retry_after
                if pause is None or pause > _LONGEST_PAUSE or attempt == self._traffic.retries:
                    return
                await asyncio.sleep(pause)
            except AntiphonError as error:
                seen.error = type(error).__name__
                return

    async def _take(self, seen: Seen, request: GenerateRequest, terms: Terms) -> None:
        self._client.check_early(Arrival(4 * len(request.prompt_token_ids), seen.key), terms)
        stream = self._client.generate(request, terms)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def listen(event: TokenEvent | AntiphonError) -> None:
            if isinstance(event, AntiphonError):
                ended.set_exception(event)
                return
            if event.token_id is not None:
                seen.cached_tokens = seen.cached_tokens or event.num_cached_tokens
                seen.tokens.append(event.token_id)
                seen.arrivals.append(time.monotonic())
            if event.finish_reason and not ended.done():
                ended.set_result(None)

        self.streams[request.request_id] = seen
        try:
            stream.listen(listen)
            await ended
        finally:
            del self.streams[request.request_id]
            stream.close()

    def _words(self, length: int) -> list[int]:
        return [self._draw.randrange(1, 50_000) for _ in range(length)]

    def _length(self, mean: float) -> int:
        """A lognormal length of this mean, at least 1."""
        spread = self._traffic.spread
        return max(1, round(self._draw.lognormvariate(math.log(mean) - spread**2 / 2, spread)))
