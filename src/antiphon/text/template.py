"""A checkpoint's chat template: messages in, the text of the prompt out. Knows nothing of tokens.

The template runs in a process of its own (`render_worker`), where time and memory are limited. This file owns that
process, starts another one when it dies, and turns what went wrong into errors for the sender of the messages.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from antiphon.errors import CheckpointError, InvalidRequest, NotReady
from antiphon.helper_process import HelperLost, HelperProcess

MAX_SOURCE = 512 << 10  # characters; published templates have up to about 20,000
TIME_LIMIT = 1.0  # seconds of CPU time for one rendering; ordinary ones take about a millisecond
WALL_SHARE = 20  # times that by the clock, since a worker may wait for its turn on a busy machine
_WORKER = str(Path(__file__).with_name("render_worker.py"))


class ChatTemplate:
    """One template, compiled. Blocking and safe to call from any thread; renderings take turns.

    Raises CheckpointError at construction when the source is no template or is longer than MAX_SOURCE.
    """

    def __init__(
        self, source: str, *, bos_token: str = "", eos_token: str = "", time_limit: float = TIME_LIMIT
    ) -> None:
        if len(source) > MAX_SOURCE:
            raise CheckpointError(f"the chat template has {len(source)} characters; the most is {MAX_SOURCE}")
        self.source = source
        self._special = {"bos_token": bos_token, "eos_token": eos_token}
        self._time_limit = time_limit
        self._lock = threading.Lock()
        self._worker = self._start()

    @property
    def process_id(self) -> int:
        """The id of the process that renders; it may have ended."""
        return self._worker.pid

    def render(self, messages: list[dict[str, Any]], **variables: object) -> str:
        """The prompt's text; the template decides what `variables` (add_generation_prompt, tools …) mean.

        Raises:
            InvalidRequest: the template refuses the messages, fails on them, or takes too much time or memory.
            NotReady: its process was killed or stopped more than once, or cannot be started now.
        """
        with self._lock:
            reply = self._ask({**variables, **self._special, "messages": messages})
        if reply is None:
            raise InvalidRequest(
                f"Rendering these messages with the model's chat template took more than {self._time_limit:g} s or "
                "too much memory, and was stopped.",
                param="messages",
            )
        if "raised" in reply:
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {reply['raised']}", param="messages"
            )
        if "error" in reply:
            raise InvalidRequest(
                f"The model's chat template cannot render these messages: {reply['error']}", param="messages"
            )
        return str(reply["text"])

    def close(self) -> None:
        """Stop the worker; a later rendering would start another."""
        self._worker.close()

    def _ask(self, variables: dict[str, object]) -> dict[str, Any] | None:
        """The worker's reply. If it is lost, another one is asked, once."""
        for _ in range(2):
            if self._worker.ended:
                self._restart()
            with suppress(HelperLost):
                return self._worker.ask(variables, patience=WALL_SHARE * self._time_limit)
        raise NotReady("The process that renders chat templates was killed or stopped twice. Try again.")

    def _restart(self) -> None:
        self._worker.close()
        try:
            self._worker = self._start()
        except (CheckpointError, OSError):  # it compiled before, so it is this machine that has no room for it now
            raise NotReady("The process that renders chat templates could not be started. Try again.") from None

    def _start(self) -> HelperProcess:
        worker = HelperProcess(_WORKER)
        try:
            reply = worker.ask({"source": self.source, "time_limit": self._time_limit})
        except HelperLost as error:
            raise CheckpointError(f"the chat template cannot be used: {error}") from None
        if reply is None or "error" in reply:
            worker.close()
            reason = reply["error"] if reply else "it takes too long to compile"
            raise CheckpointError(f"the chat template cannot be used: {reason}")
        return worker
