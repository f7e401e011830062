"""Boxed answers: found among any braces, compared by what matters, in time that grows with the text and no faster."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.text.boxed import boxed_answer, normalized


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So it is \boxed{42}.", "42"),
        (r"\boxed{1}, no: \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {x}", "x"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a \} b}", r"a \} b"),
        (r"\boxed{5} and then \boxed{cut sh", "5"),
        (r"a { brace and \boxed{5}", "5"),
        (r"a } brace and \boxed{5}", "5"),
        (r"\boxed{\text{one \boxed{1} two}}", "1"),
        ("\\boxed{two\nlines}", "two\nlines"),
        (r"\boxed{}", ""),
        (r"\\boxed{no command}", None),
        (r"boxed{5}", None),
        (r"\boxed 5", None),
        (r"\boxed{{5}", None),
        ("\\", None),
        ("", None),
    ],
)
def test_what_is_in_the_last_box(text, answer):
    assert boxed_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        ("42", "42"),
        (" 42 ", "42"),
        ("$42$", "42"),
        ("42.", "42"),
        ("$ 42. $", "42"),
        ("$$.5$$", ".5"),
        ("a\n  b", "a b"),
    ],
)
def test_what_does_not_matter(answer, same):
    assert normalized(answer) == same


@given(st.text(alphabet="\\\\{} abox", max_size=60), st.text(alphabet="xyz", max_size=9))
def test_a_whole_box_at_the_end_is_always_found(before, content):
    before = before if len(before) - len(before.rstrip("\\")) & 1 == 0 else before + " "
    assert boxed_answer(before + "\\boxed{" + content + "}") == content


@pytest.mark.parametrize("unit", ["\\boxed{", "{", "}", "\\", "\\boxed " + " " * 20])
def test_time_is_linear(unit):
    text = unit * (1_000_000 // len(unit))
    started = time.process_time()
    boxed_answer(text)
    assert time.process_time() - started < 5.0
