"""Compiles the grammars of arriving requests beside the engine's steps, never within one.

Owns the thread that compiles. Every sequence gets a matcher of its own, since copies of one share the memory of the
library's lexer and its cap, and one sequence's answer could become another's error. Each request comes out once, with a
matcher or with the reason why there is none, unless it was dropped; and a file descriptor becomes readable when one
does.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from antiphon.grammar import GrammarError, Vocabulary
from antiphon.grammar.matcher import Matcher, MatcherFactory
from antiphon.request import GenerateRequest, GrammarKind

logger = logging.getLogger(__name__)


class Compilation:
    """Turns requests with a grammar into requests with a matcher."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._factory = MatcherFactory(vocabulary)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")
        self._waiting: dict[str, Future[Matcher]] = {}
        self._ready: deque[tuple[GenerateRequest, Future[Matcher]]] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Readable when something is ready."""
        return self._bell

    @property
    def request_ids(self) -> Iterable[str]:
        """Requests that are not ready yet."""
        return self._waiting.keys()

    def add(self, request: GenerateRequest) -> None:
        """Compile the grammar of `request`."""
        grammar = request.sampling.grammar
        assert grammar is not None
        assert grammar.kind is GrammarKind.LARK, "the front's check translates every other kind"
        future = self._thread.submit(self._factory.compile, grammar.text)
        self._waiting[request.request_id] = future
        future.add_done_callback(lambda future: self._finish(request, future))

    def drop(self, request_id: str) -> None:
        """Forget a request that is not ready yet; other ids are ignored."""
        if future := self._waiting.pop(request_id, None):
            future.cancel()

    def take_ready(self) -> list[tuple[GenerateRequest, Matcher | str]]:
        """What became ready since the last call: a matcher, or why there is none."""
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return []
        ready = [self._ready.popleft() for _ in range(len(self._ready))]
        return [(request, _outcome(future)) for request, future in ready if self._waiting.pop(request.request_id, None)]

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)
        os.close(self._bell)

    def _finish(self, request: GenerateRequest, future: Future[Matcher]) -> None:
        """In the thread, or in the caller's where the request was dropped."""
        if not future.cancelled():
            self._ready.append((request, future))
            os.eventfd_write(self._bell, 1)


def _outcome(future: Future[Matcher]) -> Matcher | str:
    try:
        return future.result()
    except GrammarError as error:
        return f"The grammar of this request cannot be used: {error}."
    except Exception:
        logger.exception("a grammar that the front let through cannot be compiled")
        return "The grammar of this request cannot be used."
