"""The accepted requests that have not ended, and how many requests there were of each kind.

Owns the counts, the unfinished requests and those who listen to all events. At every moment, received = refused +
accepted, and accepted = finished + aborted + failed + running. Each accepted request ends with exactly one terminal
event. Which engine computes a request is the fleet's business, and which requests are accepted is `admission`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from antiphon.engine.requests.unfinished import Unfinished
from antiphon.engine.service import ServiceCounts
from antiphon.errors import AntiphonError, EngineError
from antiphon.request import FinishReason, TokenEvent

Listener = Callable[[TokenEvent], None]


@dataclass(slots=True)
class Counters:
    """Numbers of requests since the client was created. All but `running` only grow."""

    received: int = 0
    refused: int = 0
    accepted: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0
    running: int = 0  # accepted and not ended, whether being computed or waiting


class AccountsOwner(Protocol):
    """What is called at the first event and at the end of each request."""

    def request_answered(self, unfinished: Unfinished, num_cached_tokens: int) -> None:
        """The first event has come; so many tokens of the prompt were found in the prefix cache."""
        ...

    def request_ended(self, unfinished: Unfinished, reason: FinishReason) -> None:
        """The request has ended and is no longer among the unfinished ones."""
        ...


class Accounts:
    """Follows every accepted request to its end."""

    def __init__(self, owner: AccountsOwner) -> None:
        self.counters = Counters()
        self.service = ServiceCounts()  # that clients have had
        self.unfinished: dict[str, Unfinished] = {}  # in order of arrival
        self.num_inexact = 0  # requests that engines with different arithmetic have computed
        self._owner = owner
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with every event of every request, after counting it. It must be fast and not raise."""
        self._listeners.append(listener)

    def accept(self, unfinished: Unfinished) -> None:
        """Begin the account of a request that was accepted."""
        request_id = unfinished.request.request_id
        assert request_id not in self.unfinished, f"request {request_id} runs already"
        self.counters.accepted += 1
        self.counters.running += 1
        self.unfinished[request_id] = unfinished

    def deliver(self, unfinished: Unfinished, event: TokenEvent, error: AntiphonError | None = None) -> None:
        """Count an event, and pass it to the stream and the listeners. The last event ends the request.

        `error` is what the stream raises, if the reason is FinishReason.ERROR.
        """
        if not (unfinished.output_token_ids or unfinished.num_scored_tokens or event.finish_reason):
            self._owner.request_answered(unfinished, event.num_cached_tokens)
            self._count_service(unfinished, num_input=unfinished.num_tokens - event.num_cached_tokens)
        if event.token_id is not None:
            self._count_service(unfinished, num_output=1)
        unfinished.take(event)
        if event.finish_reason:
            self._settle(unfinished, event.finish_reason)
        if event.finish_reason is FinishReason.ERROR:
            unfinished.stream.push(error or EngineError(event.error or "The engine failed this request."))
        else:
            unfinished.stream.push(event)
        for listener in self._listeners:
            listener(event)

    def deliver_to_all(self, unfinished: Unfinished, event: TokenEvent, error: AntiphonError | None = None) -> None:
        """Deliver an event of a request that is computed, to it and to those that follow it."""
        if not unfinished.followers and event.request_id == unfinished.request.request_id:
            self.deliver(unfinished, event, error)
            return
        readers = unfinished.readers
        if event.finish_reason:
            unfinished.followers = []  # they end with it, so none takes its place
        for reader in readers:
            request_id = reader.request.request_id
            if request_id in self.unfinished:  # else its reader has just left
                own = event if event.request_id == request_id else replace(event, request_id=request_id)
                self.deliver(reader, own, error)

    def note_inexact(self, unfinished: Unfinished) -> None:
        """Note that a request continues with other arithmetic than before, and those that follow it."""
        for reader in unfinished.readers:
            self.num_inexact += not reader.stream.is_inexact
            reader.stream.is_inexact = True

    def fail_all(self, unfinished: Unfinished, error: AntiphonError) -> None:
        """End a request that is computed, and those that follow it, with an error."""
        event = TokenEvent(unfinished.request.request_id, finish_reason=FinishReason.ERROR, error=error.message)
        self.deliver_to_all(unfinished, event, error)

    def fail(self, unfinished: Unfinished, error: AntiphonError) -> None:
        """End a request with an error."""
        event = TokenEvent(unfinished.request.request_id, finish_reason=FinishReason.ERROR, error=error.message)
        self.deliver(unfinished, event, error)

    def _count_service(self, unfinished: Unfinished, *, num_input: int = 0, num_output: int = 0) -> None:
        if unfinished.leader is None:  # else it is computed for another request, to which it counts
            client = unfinished.request.fairness_id
            self.service.add(client, num_input=max(0, num_input), num_output=num_output)

    def _settle(self, unfinished: Unfinished, reason: FinishReason) -> None:
        del self.unfinished[unfinished.request.request_id]
        self.counters.running -= 1
        match reason:
            case FinishReason.ABORT:
                self.counters.aborted += 1
            case FinishReason.ERROR:
                self.counters.failed += 1
            case _:
                self.counters.finished += 1
        if unfinished.expiry:
            unfinished.expiry.cancel()
        self._owner.request_ended(unfinished, reason)
