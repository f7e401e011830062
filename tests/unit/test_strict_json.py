"""Strict JSON under caps: values are counted before they are made, and texts may hold whatever they like."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon import strict_json
from antiphon.errors import InvalidRequest
from antiphon.strict_json import MAX_JSON_CONTAINERS, MAX_JSON_FIELDS, MAX_JSON_TEXTS, MAX_JSON_VALUES, decode_json


def refusal(body: bytes) -> str:
    with pytest.raises(InvalidRequest) as error:
        decode_json(body)
    return error.value.message


def test_values_are_counted_to_the_last():
    numbers = b"[" + b"0," * (MAX_JSON_VALUES - 2) + b"0]"  # the list is a value too
    assert len(decode_json(numbers)) == MAX_JSON_VALUES - 1
    assert f"{MAX_JSON_VALUES:,}" in refusal(numbers[:-1] + b",0]")
    lists = b"[" + b"[ ]," * (MAX_JSON_CONTAINERS - 2) + b"[]]"
    assert len(decode_json(lists)) == MAX_JSON_CONTAINERS - 1
    assert f"{MAX_JSON_CONTAINERS:,}" in refusal(lists[:-1] + b",{}]")
    texts = b"[" + b'"",' * (MAX_JSON_TEXTS - 1) + rb'"\\"' + b"]"
    assert len(decode_json(texts)) == MAX_JSON_TEXTS
    assert f"{MAX_JSON_TEXTS:,}" in refusal(texts[:-1] + b',""]')


def test_a_long_text_may_hold_any_number_of_brackets_commas_and_quotes():
    text = '[{,"\\' * 200_000
    assert decode_json(json.dumps({"prompt": text}).encode()) == {"prompt": text}


def test_an_object_with_too_many_fields_is_refused_wherever_it_is():
    for template in ("%s", '{"logit_bias": %s}', "[[%s]]"):
        fields = json.dumps({str(number): 0 for number in range(MAX_JSON_FIELDS)})
        decode_json((template % fields).encode())
        assert "4,096" in refusal((template % (fields[:-1] + ', "more": 0}')).encode())


@pytest.mark.parametrize("unit", [b"[]", b"{}", b'""', b'{"":[]}', rb'"\\"', rb'"\""', b"0", b"[[[]]]"])
def test_nothing_is_made_of_a_body_that_holds_too_much(monkeypatch: pytest.MonkeyPatch, unit: bytes):
    class Nothing:
        def decode(self, body: bytes) -> Any:
            raise AssertionError("it was read")

    monkeypatch.setattr(strict_json, "_decoder", Nothing())
    body = b"[" + b",".join([unit] * ((4 << 20) // (len(unit) + 1) - 1)) + b"]"
    assert "too many" in refusal(body)


VALUES = st.recursive(
    st.none() | st.integers() | st.text('[]{},:"\\ a'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('[]{},:"\\ a'), inner),
)


def num_values(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(num_values, inner))


@given(VALUES, st.sampled_from([None, 1]))
def test_the_count_is_exact(value: Any, indent: int | None):
    body = json.dumps(value, indent=indent).encode()
    exact = num_values(value)
    assert decode_json(body, max_values=exact) == value
    with pytest.raises(InvalidRequest, match="too many values"):
        decode_json(body, max_values=exact - 1)
