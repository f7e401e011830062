"""What llguidance says of a grammar, in words for its sender.

The library speaks of what it was given, which is a translation; of its own options; and sometimes of its own faults.
None of that helps the sender: what is left speaks of the sender's text alone.
"""

from __future__ import annotations

import re

LONGEST = 300  # characters
TOO_COMPLEX = "the grammar is too complex to be followed"
NOTHING_FITS = "there is no text that it allows"

_PLACE = re.compile(r"^(?:at )?\d+\(\d+\): ")
# Around the reason: the sender's whole expression, the library's steps, and lines of the translation.
_REGEX = re.compile(r'invalid regex ".*" \(in regex\): ', re.DOTALL)
_PARSED = re.compile(r"(^|invalid regex: )regex parse error:\n.*\nerror: ", re.DOTALL)
_BEFORE = re.compile(r"^(at \d+\(\d+\): )?failed to compile JSON schema: ")
_AFTER = re.compile(r"\n +\d+ \| .*", re.DOTALL)
_TOKEN_TWICE = re.compile(r' \(at ".*" \(.*\)\)$', re.DOTALL)
_REWORDED = [
    (re.compile(r"(?s).*\b(?:too many (?:expressions|items|states)|fuel)\b.*"), TOO_COMPLEX),  # its limits
    (re.compile(r"Unimplemented keys: \[(.*)\]"), r"unsupported schema keywords: \1"),
    (
        re.compile(r"oneOf constraints are not supported\..*"),
        "'oneOf' is supported only where no two of its schemas can fit at once; use 'anyOf'",
    ),
    (re.compile(r"Expected f64 for '(\w+)', got "), r"'\1' must be a number, not "),
    (re.compile(r"Expected positive integer for '(\w+)', got "), r"'\1' must be a whole number, 0 or more, not "),
    (re.compile(r"Pointer '(.*)' does not exist"), r"'$ref' names '#\1', which does not exist"),
    (
        re.compile(r"patternProperty regexes /(.*)/ and /(.*)/ are not disjoint"),
        r"'patternProperties' has '\1' and '\2', which can match the same name; that is not supported",
    ),
    (re.compile(r"Failed to generate regex for (?:integer|float) range: .*"), "no number can be held to these bounds"),
    (re.compile(r"Value for 'multipleOf' has too many digits: .*"), "'multipleOf' has too many digits"),
    (re.compile(r"lookarounds not supported yet; .*"), "word boundaries and line anchors inside are not supported"),
    (
        re.compile(r"\blexer error$"),
        "an unfinished string, or a character that Lark does not use",
    ),
]


def in_plain_words(message: str) -> str:
    """The library's message for the sender of the grammar, without details of faults inside the library."""
    if message.startswith("panic") or "<backtrace>" in message:
        return TOO_COMPLEX
    message = _PARSED.sub(r"\1", _REGEX.sub("invalid regex: ", _BEFORE.sub("", message)))
    message = _TOKEN_TWICE.sub("", _AFTER.sub("", message).partition("<non-verbose/>")[0].strip())
    # What it says where no text is left: a recursion without an end, a character class without a member.
    if message == "NoExtensionBias":
        return NOTHING_FITS
    for pattern, words in _REWORDED:
        message = pattern.sub(words, message)
    return message if len(message) <= LONGEST else f"{message[:LONGEST]} …"


def without_place(message: str) -> str:
    """Without a line and column, which would be those of a translation."""
    return _PLACE.sub("", message)
