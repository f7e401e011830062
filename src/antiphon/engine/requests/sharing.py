"""Equal requests are computed once.

A request whose tokens and settings are those of an unfinished one, and so its answer too, bit for bit, follows that
one: it gets all that the other has received, and then each event with it. It has an account of its own, and may leave
at any time. When the request that is computed leaves first, one of its followers takes its place at the engine, so
nothing is computed again. Above temperature zero the seed is among the settings: only requests that name the same seed
are equal.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

import msgspec

from antiphon.engine.requests.unfinished import Unfinished
from antiphon.request import GenerateRequest, Terms

_encoder = msgspec.msgpack.Encoder()


def signature(request: GenerateRequest, terms: Terms, generation: int) -> bytes:
    """What equal requests have in common; empty: the request is equal to none.

    Everything counts by which the answer is computed, and when; of the client only with whom it shares. What a request
    has received is kept for its followers, and log-probabilities would be a hundred times as much as tokens.
    """
    if terms.shares_with is None or request.sampling.num_logprobs is not None:
        return b""
    sampling = request.sampling
    seed = sampling.seed if sampling.temperature > 0 else 0  # at 0 it decides nothing
    sampling = replace(sampling, seed=seed, logit_bias=dict(sorted(sampling.logit_bias.items())))
    fields = (
        terms.shares_with,
        generation,
        request.prompt_token_ids,
        request.output_token_ids,
        sampling,
        request.choice_index,
        request.num_scored_tokens,
        request.cache_salt,
        request.priority,
        request.service_tier,
        request.reports_progress,
    )
    return blake2b(_encoder.encode(fields), digest_size=32).digest()


class Sharing:
    """The unfinished requests that others may follow, by signature."""

    def __init__(self) -> None:
        self._leaders: dict[bytes, Unfinished] = {}
        self.num_shared = 0  # requests that followed another

    def leader_of(self, unfinished: Unfinished) -> Unfinished | None:
        """The request that an equal new one can follow."""
        return self._leaders.get(unfinished.signature) if unfinished.signature else None

    def lead(self, unfinished: Unfinished) -> None:
        """Let others follow this request, which is computed."""
        if unfinished.signature:
            self._leaders[unfinished.signature] = unfinished

    def follow(self, follower: Unfinished, leader: Unfinished) -> None:
        """Let a request follow another; what the other has received is still to be delivered to it."""
        follower.leader = leader
        leader.followers.append(follower)
        self.num_shared += 1

    def leave(self, unfinished: Unfinished) -> None:
        """A request has ended."""
        if unfinished.leader:
            if unfinished in unfinished.leader.followers:
                unfinished.leader.followers.remove(unfinished)
            unfinished.leader = None
        elif self._leaders.get(unfinished.signature) is unfinished:
            del self._leaders[unfinished.signature]

    def succeed(self, leader: Unfinished) -> Unfinished:
        """Let the first follower lead the others; returns it. The caller gives it the leader's place at its engine."""
        heir, *others = leader.followers
        leader.followers, heir.leader, heir.followers = [], None, others
        for follower in others:
            follower.leader = heir
        self.lead(heir)
        return heir
