"""llama.cpp's grammar language, GBNF, in Lark: the library's translator, with what it gets wrong put right first.

Letters that are written as escapes, or that would mean something in a regular expression, are put in so that the
translator leaves them alone: `\\u` and `\\U`, which it drops digits of, line ends inside quotes, and `&` and `~` in a
character class. Whether the grammar can be read at all is asked of the text as it was sent, so errors quote that.
"""

from __future__ import annotations

import re

from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from antiphon.grammar.nouns import GrammarError

_ROOT = re.compile(r"(?m)^\s*root\s*::=")
# Comments, literals and character classes, one after another.
_PARTS = re.compile(r'#[^\r\n]*|"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]', re.DOTALL)
_CODES = re.compile(r"\\(\\|x[89A-Fa-f][0-9A-Fa-f]|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})")
_TAKEN = re.compile(r"Rule '(.*)' already exists")
_CONTROL = re.compile(r"[\x00-\x1f]")
# A letter of a class, and perhaps the one that a range from it ends at.
_RANGE = re.compile(r"(\\x[0-9A-Fa-f]{2}|\\.|[^\\])(?:-(\\x[0-9A-Fa-f]{2}|\\.|[^\\]))?", re.DOTALL)
_SIGNS = frozenset("&~-^")  # of a character class in a regular expression


def is_gbnf(text: str) -> bool:
    """Whether a grammar is written in GBNF and not in Lark."""
    return _ROOT.search(text) is not None


def to_lark(text: str) -> str:
    """A GBNF grammar in Lark. Raises GrammarError, quoting the text, where it cannot be read."""
    try:
        gbnf_to_lark(text)
    except GbnfToLarkError as error:
        raise GrammarError(f"the GBNF grammar cannot be read: {error}") from None
    except Exception as error:  # it raises bare Exceptions too
        reason = _TAKEN.sub(r"two of its rules would be named '\1' in Lark, where 'root' is 'start'", str(error))
        raise GrammarError(f"the GBNF grammar cannot be used: {reason}") from None
    return str(gbnf_to_lark(_PARTS.sub(lambda part: _plain(part.group()), text)))


def _plain(part: str) -> str:
    """A comment as it is; a literal or a class with its escapes as the translator understands them."""
    if part.startswith("#"):
        return part
    part = _CODES.sub(_letter, part)
    if part.startswith("["):
        start = "[^" if part.startswith("[^") else "["
        part = start + _RANGE.sub(_range, part[len(start) : -1]) + "]"
    return _CONTROL.sub(lambda letter: _hex(letter.group()), part)


def _letter(escape: re.Match[str]) -> str:
    """The letter that an escape names, or an escape that every part of the translation keeps."""
    if escape[1] == "\\":
        return escape.group()
    code = int(escape[1][1:], 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise GrammarError(f"the GBNF grammar cannot be used: {escape.group()} is no character")
    return _hex(chr(code)) if code < 0x80 else chr(code)


def _range(match: re.Match[str]) -> str:
    """A letter or a range of a class, with what would be a sign there as an escape."""
    ends = [end if end not in _SIGNS else _hex(end) for end in match.groups() if end is not None]
    return "-".join(ends)


def _hex(letter: str) -> str:
    return f"\\x{ord(letter):02x}"
