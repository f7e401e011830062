"""What is printed for a person: consoles, errors and notes. A leaf.

Owns the rule that text from outside (a path, a name on a hub, a model's answer) is printed as it is: it is never read
as markup, and control characters in it are shown and not sent to the terminal. Rich's own markup is for our own words.
"""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def console_on(*, stderr: bool, **options: Any) -> Console:  # noqa: ANN401  # Rich's own
    """A console that takes every text as it is: no markup, no emoji codes, no highlighting."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, **options)


def printable(text: str) -> str:
    """`text` with control characters other than line feeds and tabs, and those that turn the writing direction,
    spelled out: an escape sequence in a file's name is `\\x1b[2J`.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def print_error(message: str) -> None:
    """Print an error to stderr, on one line unless the message itself has several."""
    console_on(stderr=True).print(Text.assemble(("error:", "bold red"), " ", printable(message)), soft_wrap=True)


def print_note(console: Console, message: str) -> None:
    """Print something that a person should know, and that is no error."""
    console.print(Text.assemble("note: ", printable(message), style="yellow"), soft_wrap=True)
