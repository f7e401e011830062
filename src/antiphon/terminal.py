"""Printing for users: consoles, errors and notes. A leaf.

Text from outside (a path, a name on a hub, a model's answer) is printed literally. It is never interpreted as Rich
markup, and its control characters are escaped.
"""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def console_on(*, stderr: bool, **options: Any) -> Console:  # noqa: ANN401  # Rich's own
    """A console that prints text literally: no markup, no emoji codes, no highlighting."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, **options)


def printable(text: str) -> str:
    """`text` with control characters escaped, except line feeds and tabs: an escape sequence becomes `\\x1b[2J`.

    Characters that change the writing direction are escaped too.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def print_error(message: str) -> None:
    """Print an error to stderr, on one line unless the message itself has several."""
    console_on(stderr=True).print(Text.assemble(("error:", "bold red"), " ", printable(message)), soft_wrap=True)


def print_note(console: Console, message: str) -> None:
    """Print a note: something the user should know that is not an error."""
    console.print(Text.assemble("note: ", printable(message), style="yellow"), soft_wrap=True)
