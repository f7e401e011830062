"""The line in which a person types to a model: editing, history, several lines, pasted text of any length.

Owns the keys and the history file; prompt_toolkit does the rest. Enter sends; after a backslash, inside three quotes,
or with Alt held, it starts a new line. Line feeds in pasted text never send anything. What was typed is kept in a file
that only its owner can read; where it cannot be written, the history lasts as long as the conversation.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

from antiphon.config import chat_history_path

FENCE = '"""'
_PROMPT, _MORE = "> ", "… "


class Prompt:
    """Reads what a person types, on a terminal."""

    def __init__(self, commands: Mapping[str, str]) -> None:
        """`commands`: those that Tab completes, each with its explanation."""
        self._session: PromptSession[str] = PromptSession(
            message=_PROMPT,
            multiline=True,
            prompt_continuation=_continuation,
            history=_history(chat_history_path()),
            key_bindings=_bindings(),
            completer=_CommandCompleter(commands),
            complete_while_typing=False,
            # The terminal, even where standard output goes to a file.
            output=create_output(always_prefer_tty=True),
        )

    async def read(self) -> str | None:
        """What was typed; None at Ctrl-D.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        try:
            return without_fences(await self._session.prompt_async())
        except EOFError:
            return None


def is_open(text: str) -> bool:
    """Whether `text` begins with a line of three quotes and does not end with one."""
    lines = [line.strip() for line in text.split("\n")]
    return lines[0] == FENCE and (len(lines) == 1 or lines[-1] != FENCE)


def without_fences(text: str) -> str:
    """`text` without a first and last line of three quotes."""
    lines = text.split("\n")
    if len(lines) > 1 and lines[0].strip() == lines[-1].strip() == FENCE:
        return "\n".join(lines[1:-1])
    return text


class PrivateHistory(FileHistory):
    """A history file that only its owner can read; a disk that is full or read-only costs the history, nothing else."""

    def load_history_strings(self) -> Iterable[str]:
        with suppress(OSError):
            return list(super().load_history_strings())
        return []

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            os.close(os.open(self.filename, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600))
            super().store_string(string.encode("utf-8", "replace").decode())


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    return PrivateHistory(str(path))


def _continuation(width: int, line_number: int, is_soft_wrap: int) -> StyleAndTextTuples:
    return [("", (" " if is_soft_wrap else _MORE).rjust(width))]


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.is_cursor_at_the_end and buffer.text.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def start_a_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


class _CommandCompleter(Completer):
    """Completes the command that a line begins with."""

    def __init__(self, commands: Mapping[str, str]) -> None:
        self._commands = commands

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        typed = document.text_before_cursor
        for name, explanation in self._commands.items():
            if typed.startswith("/") and name.startswith(typed):
                yield Completion(name, start_position=-len(typed), display_meta=explanation)
