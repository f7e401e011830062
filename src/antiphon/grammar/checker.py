"""Whether a grammar can be followed: the front's check, before the engine gets it.

Owns the process that checks (`check_worker`), a cache of its results, and the thread that waits for it: a grammar that
is being checked, or one that runs away and is stopped, delays other new grammars only. What passes is Lark that
compiles under the limits which the engine has too.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from antiphon.errors import InvalidRequest, NotReady
from antiphon.grammar.nouns import Vocabulary
from antiphon.helper_process import HelperLost, HelperProcess
from antiphon.request import Grammar, GrammarKind

MAX_GRAMMAR = 128 << 10  # characters
MAX_REMEMBERED = 64  # grammars, good and bad; each may be twice as long
TIME_LIMIT = 0.25  # seconds of CPU time for one; ordinary ones take a few milliseconds


class GrammarChecker:
    """Checks the grammars of one model; the process starts with the first. For one event loop."""

    def __init__(self, vocabulary: Vocabulary | None, *, time_limit: float = TIME_LIMIT) -> None:
        self.vocabulary = vocabulary
        self._time_limit = time_limit
        self._process: HelperProcess | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")
        self._remembered: OrderedDict[Grammar, Grammar | str] = OrderedDict()  # Lark, or what is wrong

    @property
    def process_id(self) -> int | None:
        """The id of the process that checks; it may have ended. None before the first grammar."""
        process = self._process
        return process.pid if process else None

    async def check(self, grammar: Grammar, param: str) -> Grammar:
        """`grammar` in Lark.

        Raises:
            InvalidRequest: it cannot be followed, or this model cannot follow any; names `param`.
            NotReady: the process was killed or stopped more than once, or cannot be started now.
        """
        if self.vocabulary is None:
            raise InvalidRequest(
                f"This model has no end-of-sequence token to end a structured answer with; leave out '{param}'.",
                param=param,
            )
        if len(grammar.text) > MAX_GRAMMAR:
            raise InvalidRequest(
                f"'{param}' has {len(grammar.text)} characters; the most is {MAX_GRAMMAR}.", param=param
            )
        if grammar not in self._remembered:
            verdict = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, grammar)
            self._remembered[grammar] = verdict
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(grammar)
        verdict = self._remembered[grammar]
        if isinstance(verdict, str):
            raise InvalidRequest(f"Invalid value for '{param}': {verdict}.", param=param)
        return verdict

    def close(self) -> None:
        """End the process; a later check would start another."""
        if self._process is not None:
            self._process.close()

    def _ask(self, grammar: Grammar) -> Grammar | str:
        """The verdict; in the thread. If the process is lost, another one is asked, once."""
        for _ in range(2):
            try:
                reply = self._started().ask({"kind": grammar.kind, "text": grammar.text})
            except HelperLost:
                continue
            if reply is None or "killed" not in reply:
                return self._verdict(reply)
        raise NotReady("The process that checks grammars was killed or stopped twice. Try again.")

    def _verdict(self, reply: dict[str, Any] | None) -> Grammar | str:
        if reply is None or "stopped" in reply:
            return f"checking it took more than {self._time_limit:g} s or too much memory, and was stopped"
        if "error" in reply:
            return str(reply["error"]).rstrip(".")
        return Grammar(GrammarKind.LARK, reply["lark"])

    def _started(self) -> HelperProcess:
        if self._process is None or self._process.ended:
            assert self.vocabulary is not None
            try:
                self._process = HelperProcess("-m", "antiphon.grammar.check_worker")
            except OSError as error:
                reason = f"The process that checks grammars could not be started ({error.strerror}). Try again."
                raise NotReady(reason) from None
            setup = {
                "tokens": [token.decode("latin-1") for token in self.vocabulary.tokens],
                "special_token_ids": self.vocabulary.special_token_ids,
                "eos_token_ids": self.vocabulary.eos_token_ids,
                "time_limit": self._time_limit,
            }
            if self._process.ask(setup) is None:
                raise NotReady("The process that checks grammars ended while it was starting. Try again.")
        return self._process
