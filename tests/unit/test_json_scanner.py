"""Where a JSON object ends, however it is cut, and how soon it shows that some text is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_tests import examples
from tiny_text import cut

from antiphon.text.json_scanner import JsonScanner

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


def scan(pieces: list[str]) -> tuple[JsonScanner, int]:
    """The scanner, and how many characters it took."""
    scanner, taken = JsonScanner(), 0
    for piece in pieces:
        read = scanner.feed(piece)
        taken += read
        if read < len(piece):
            break
    return scanner, taken


@given(
    st.dictionaries(st.text(), VALUES),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.lists(st.integers(0, 200)),
    st.text(),
)
@settings(max_examples=examples(200))
def test_an_object_ends_where_a_parser_says_so(value, indent, ascii_only, cuts, behind):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    scanner, taken = scan(cut(text + behind, cuts))
    assert (scanner.done, scanner.failed, taken) == (True, False, len(text))


@given(st.text('{}[]",:\\ \n\t-1eatrufls', max_size=30), st.lists(st.integers(0, 30)))
@settings(max_examples=examples(500))
def test_what_a_parser_accepts_is_accepted_and_cuts_make_no_difference(text, cuts):
    whole, pieces = scan([text]), scan(cut(text, cuts))
    assert (whole[0].done, whole[0].failed, whole[1]) == (pieces[0].done, pieces[0].failed, pieces[1])
    try:
        value, end = json.JSONDecoder().raw_decode(text.lstrip(" \t\r\n"))
    except ValueError:
        return
    if isinstance(value, dict):
        assert whole[0].done
        assert whole[1] == len(text) - len(text.lstrip(" \t\r\n")) + end


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("x", 0),
        ("[", 0),
        ('"a"', 0),
        ("{,", 1),
        ('{"a" 1', 5),
        ('{"a": }', 6),
        ('{"a": 1,}', 8),
        ('{"a": [1,]}', 9),
        ('{"a": [1}', 8),
        ('{"a": "\n"}', 7),
        ('{"a": "\\x"}', 8),
        ("{'a'", 1),
        ('{"a": 1 2', 8),
        ('{"a": (', 6),
    ],
)
def test_a_fault_shows_where_it_is(text, read):
    for pieces in ([text], list(text)):
        scanner, taken = scan(pieces)
        assert (scanner.failed, scanner.done, taken) == (True, False, read)
