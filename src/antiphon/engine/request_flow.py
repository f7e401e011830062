"""The way of requests: accepted or refused, given to an engine, and let go when they end.

Here the parts meet that do not know each other. A new request passes them in this order: `sharing` says whether an
equal one is computed already, the dispatcher which engine it would get, and `admission` whether it is accepted. Then
the dispatcher gives it to that engine, and `expiry` ends it if its turn does not come in time. Its events go from the
engine through the accounts to its stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

from antiphon.engine.admission.admission import Admission
from antiphon.engine.fleet.engine_handle import EngineHandle
from antiphon.engine.fleet.fleet import Fleet
from antiphon.engine.fleet.operations import Operations
from antiphon.engine.fleet.view import EngineState
from antiphon.engine.fleet.workload import Workload
from antiphon.engine.requests.accounts import Accounts
from antiphon.engine.requests.admitted import Prediction
from antiphon.engine.requests.expiry import Expiry
from antiphon.engine.requests.sharing import Sharing, signature
from antiphon.engine.requests.stream import TokenStream
from antiphon.engine.requests.unfinished import Unfinished
from antiphon.errors import AntiphonError, ContextLengthExceeded, NotReady
from antiphon.request import FinishReason, GenerateRequest, Terms, TokenEvent


class RequestFlow:
    """Takes requests in and lets them go. `sharing` has those that others may follow."""

    def __init__(
        self,
        accounts: Accounts,
        admission: Admission,
        fleet: Fleet,
        operations: Operations,
        workload: Workload,
        state: Callable[[], EngineState],
    ) -> None:
        """`state`: of all engines together."""
        self.sharing = Sharing()
        self._accounts = accounts
        self._admission = admission
        self._fleet = fleet
        self._dispatcher = fleet.dispatcher
        self._operations = operations
        self._workload = workload
        self._state = state
        self._expiry = Expiry(self)

    # --- in

    def accept(
        self, requests: Sequence[GenerateRequest], terms: Terms, generation: int | None = None
    ) -> list[TokenStream]:
        """Accept requests that belong together, or refuse all of them; as `EngineClient.generate_all`."""
        counters = self._accounts.counters
        counters.received += len(requests)
        try:
            group = self._group(requests, terms, self._serving_generation(requests, generation))
            if len(group) == 1 and (leader := self._leader_of(group[0])):
                return [self._follow(group[0], leader)]
            engine, predicted = self._admit(group, terms)
        except AntiphonError:
            counters.refused += len(requests)
            raise
        self._begin(group, terms, predicted)
        self._dispatcher.place(group, engine)
        return [unfinished.stream for unfinished in group]

    def _serving_generation(self, requests: Sequence[GenerateRequest], generation: int | None) -> int:
        """The generation of engines that compute these requests.

        Raises NotReady, ContextLengthExceeded or EngineUnavailable if they cannot be computed here.
        """
        match self._state():
            case EngineState.LOADING:
                raise NotReady("The model is still loading.", retry_after=5.0)
            case EngineState.DRAINING | EngineState.STOPPED:
                raise NotReady("The server is shutting down.", retry_after=10.0)
            case EngineState.FAILED:
                raise NotReady("The engine failed and was given up; the server's log says why.", retry_after=30.0)
        wanted = self._fleet.generation.number if generation is None else generation
        number = self._operations.generation_serving(wanted)
        if number is None:
            raise NotReady("The model was replaced while the request was being read; please send it again.")
        info = self._fleet.generations[number].info
        limit = info.context_length if info else 0
        for request in requests:
            if len(request.prompt_token_ids) >= limit:
                raise ContextLengthExceeded(len(request.prompt_token_ids), limit)
        self._fleet.check_breakers(number)
        return number

    def _group(self, requests: Sequence[GenerateRequest], terms: Terms, generation: int) -> list[Unfinished]:
        group = []
        for request in requests:
            stream = TokenStream(request.request_id, self.abort)
            known = [*request.output_token_ids]
            group.append(Unfinished(request, stream, known, terms, generation=generation))
        for unfinished in group:
            unfinished.group = group
        return group

    def _admit(self, group: Sequence[Unfinished], terms: Terms) -> tuple[EngineHandle | None, Prediction]:
        """The engine that these requests would get, and what is predicted with it. Raises Overloaded."""
        engine = self._dispatcher.engine_for(group)
        load = self._workload.load_before(engine, self._fleet.num_taking(group[0].generation))
        return engine, self._admission.admit([each.request for each in group], terms, load)

    def _begin(self, group: Sequence[Unfinished], terms: Terms, predicted: Prediction) -> None:
        start_before = self._admission.start_before(terms, predicted)
        for unfinished in group:
            unfinished.predicted = predicted
            self._accounts.accept(unfinished)
            if start_before < inf:
                self._expiry.check_after(unfinished, start_before)
            unfinished.stream.predicted_wait = predicted.first_token
        if len(group) == 1:
            self.sharing.lead(group[0])

    # --- in, behind an equal one

    def _leader_of(self, unfinished: Unfinished) -> Unfinished | None:
        """The request that a new one can follow instead of being computed."""
        unfinished.signature = signature(unfinished.request, unfinished.terms, unfinished.generation)
        leader = self.sharing.leader_of(unfinished)
        return leader if leader and self._admission.has_place(unfinished.request) else None

    def _follow(self, unfinished: Unfinished, leader: Unfinished) -> TokenStream:
        """Accept a request that gets the events of an equal one: at once those that came, then each with it."""
        self._admission.admit_for_free(unfinished.request)
        self._accounts.accept(unfinished)
        self.sharing.follow(unfinished, leader)
        unfinished.stream.predicted_wait = leader.stream.predicted_wait
        if leader.stream.begun_at is not None:
            unfinished.stream.note_begun(time.monotonic())
        elif (patience := min(unfinished.terms.first_token, unfinished.terms.whole_answer)) < inf:
            self._expiry.check_after(unfinished, patience)
        unfinished.take_fingerprint_of(leader)
        if leader.stream.is_inexact:
            self._accounts.note_inexact(unfinished)
        for event in leader.events:
            self._accounts.deliver(unfinished, replace(event, request_id=unfinished.request.request_id))
        return unfinished.stream

    # --- out

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """End a request now; as `EngineClient.abort`."""
        if unfinished := self._accounts.unfinished.get(request_id):
            self._let_go(unfinished, is_answered=reason is not FinishReason.ABORT)
            self._accounts.deliver(unfinished, TokenEvent(request_id, finish_reason=reason))

    def note_first(self, unfinished: Unfinished, num_cached_tokens: int) -> None:
        """A request's first event has come; so many tokens of its prompt were cached."""
        if unfinished.leader is None:
            self._admission.note_first(unfinished, num_cached_tokens)

    def note_end(self, unfinished: Unfinished, reason: FinishReason) -> None:
        """A request has ended, and is no longer among the unfinished ones."""
        if unfinished.followers:  # it ended for itself alone
            self._dispatcher.hand_over(unfinished, self.sharing.succeed(unfinished))
        self.sharing.leave(unfinished)
        counts_for_all = not unfinished.is_handed_over  # it may have been part of every engine's forecast
        self._dispatcher.forget(unfinished)
        self._operations.note_end(unfinished.generation)
        self._admission.note_end(unfinished, reason)
        for engine in self._fleet.engines.values() if counts_for_all else ():
            engine.capacity.forget_forecast()

    def _let_go(self, unfinished: Unfinished, *, is_answered: bool = False) -> None:
        """Take a request from its engine, unless an equal one takes its place there."""
        if unfinished.followers:
            self._dispatcher.hand_over(unfinished, self.sharing.succeed(unfinished))
        self._dispatcher.withdraw(unfinished, is_answered=is_answered)

    # --- what `expiry` calls

    @property
    def longest_cycle(self) -> float:
        return self._fleet.longest_cycle

    def time_left(self, unfinished: Unfinished) -> float:
        if unfinished.leader:
            return unfinished.patience_left
        return self._admission.time_left(unfinished, self._workload.load_before(self._engine_of(unfinished)))

    def give_up(self, unfinished: Unfinished) -> None:
        engine = self._engine_of(unfinished)
        self._let_go(unfinished)
        load = self._workload.load_before(engine)
        others = [each for each in load.unfinished if each is not unfinished]
        self._accounts.fail(unfinished, self._admission.give_up(unfinished, replace(load, unfinished=others)))

    def _engine_of(self, unfinished: Unfinished) -> EngineHandle | None:
        return self._fleet.engines.get(unfinished.engine_id or 0)
