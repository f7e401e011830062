"""System messages folded into the user turns that follow them."""

from __future__ import annotations

import pytest

from antiphon.text.system_prompt import folded

NAMES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def turns(text: str) -> list[dict[str, str]]:
    return [
        {"role": NAMES[role], "content": content} for role, _, content in (t.partition(":") for t in text.split("|"))
    ]


@pytest.mark.parametrize(
    ("sent", "becomes"),
    [
        ("s:Be kind.|u:Hello", "u:Be kind.\n\nHello"),
        ("s:A|s:B|u:C|a:D|u:E", "u:A\n\nB\n\nC|a:D|u:E"),
        ("u:A|a:B|s:C|u:D", "u:A|a:B|u:C\n\nD"),
        ("s:A|a:B|u:C", "a:B|u:A\n\nC"),
        ("u:A|s:B", "u:A|s:B"),
        ("u:A|t:B|a:C", "u:A|t:B|a:C"),
    ],
)
def test_folding(sent, becomes):
    assert folded(turns(sent)) == turns(becomes)


def test_other_fields_stay_and_the_messages_sent_are_not_changed():
    sent = [{"role": "system", "content": "A"}, {"role": "user", "content": "B", "name": "Ann"}]
    assert folded(sent) == [{"role": "user", "content": "A\n\nB", "name": "Ann"}]
    assert sent[1]["content"] == "B"
