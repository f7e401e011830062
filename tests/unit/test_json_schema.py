"""Schemas that the library cannot follow as they stand: what is made of them, and that nothing forbidden fits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from grammars import fits, json_grammar, lark, matcher_of
from hypothesis import given, settings
from hypothesis import strategies as st
from property_tests import examples

from antiphon.grammar import GrammarError
from antiphon.request import GrammarKind

INT64, UINT64 = 2**63 - 1, 2**64 - 1


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer", "minimum": -INT64 - 1, "maximum": INT64}, ["0", "-9223372036854774784"], [str(INT64 + 1)]),
        ({"type": "integer", "minimum": 0, "maximum": UINT64}, ["0", "9223372036854774784"], ["-1", str(UINT64 + 1)]),
        (
            {"type": "integer", "exclusiveMinimum": -(2**63), "exclusiveMaximum": 2**63},
            ["7"],
            [str(2**63), str(-(2**63))],
        ),
        ({"type": "integer", "minimum": 10**18}, [str(10**18), str(9 * 10**18)], [str(10**18 - 1), "1"]),
        ({"type": "integer", "maximum": -(10**18)}, [str(-(10**18))], [str(1 - 10**18), "1"]),
        ({"type": "integer", "maximum": 10**400}, ["5"], ["5.5"]),
        ({"type": "integer", "maximum": 2**53 + 3}, [str(2**53 + 2)], [str(2**53 + 4)]),
        ({"type": "integer", "minimum": -(2**53) - 3}, [str(-(2**53) - 2)], [str(-(2**53) - 4)]),
        ({"type": "number", "minimum": -1.7e308, "maximum": 1.7e308}, ["0.5", "-1000000", "9"], ["x"]),
        ({"type": "number", "minimum": 0, "maximum": 1e20}, ["0", "1234567.5"], ["-1", "1e21"]),
        ({"type": "number", "minimum": 1e-300}, ["0.5", "3"], ["0", "-1", "0.0"]),
        ({"type": "number", "exclusiveMinimum": -1e-300, "maximum": 1}, ["0", "1"], ["-0.1", "1.1"]),
        ({"type": "number", "maximum": -1e-200}, ["-0.5"], ["0", "1"]),
        ({"type": ["number", "null"], "maximum": 1e300, "exclusiveMaximum": 1e-300}, ["0", "-4", "null"], ["1"]),
        ({"type": "string", "minimum": 1e300}, ['"a"'], ["1"]),
        ({"type": "string", "maxLength": 2**63}, ['"abc"'], ["1"]),
        ({"type": "array", "maxItems": 2.0, "items": {"type": "integer"}}, ["[1,2]"], ["[1,2,3]"]),
        ({"type": "array", "maxItems": 1e30}, ["[1]"], ["1"]),
        ({"properties": {"a": {"items": {"type": "integer", "minimum": -(2**63)}}}}, ['{"a":[1]}'], ['{"a":["x"]}']),
    ],
)
def test_bounds_and_sizes_that_the_library_cannot_hold(schema, good, bad):
    assert [text for text in good if not fits(json_grammar(schema), text)] == []
    assert [text for text in bad if fits(json_grammar(schema), text)] == []


NUMBERS = st.sampled_from([0, 1, 1e-60, 1e-300, 2**53 + 1, 10**17, 10**18, INT64, UINT64, 1e19, 1e300, 0.1, 3.5, 12345])
SIGNED = st.tuples(NUMBERS, st.sampled_from([1, -1])).map(lambda pair: pair[0] * pair[1])
KEYWORDS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]
TRIED = ["0", "1", "-1", "0.5", "12345", "-12345", str(10**17), str(-(10**17)), str(9 * 10**18), str(-9 * 10**18)]


@given(st.dictionaries(st.sampled_from(KEYWORDS), SIGNED, min_size=1), st.sampled_from(["integer", "number"]))
@settings(max_examples=examples(150))
def test_whatever_the_bounds_nothing_outside_them_fits(bounds, kind):
    try:
        grammar = json_grammar({"type": kind, **bounds})
        matcher_of(grammar)
    except GrammarError:  # none fits, or none that can be written out
        return
    for text in filter(lambda text: fits(grammar, text), TRIED):
        value = json.loads(text)
        assert value >= bounds.get("minimum", value), (text, bounds)
        assert value <= bounds.get("maximum", value), (text, bounds)
        assert value > bounds.get("exclusiveMinimum", value - 1), (text, bounds)
        assert value < bounds.get("exclusiveMaximum", value + 1), (text, bounds)


def named(pattern: str, **keywords: Any) -> dict[str, Any]:
    return {"type": "object", "patternProperties": {pattern: {"type": "integer"}}, **keywords}


@pytest.mark.parametrize("pattern", ["^a$", "^(a|b-1)$", "^(?:b-1|a)$"])
def test_a_name_that_a_pattern_lists_comes_once(pattern):
    grammar = json_grammar(named(pattern, additionalProperties=False))
    assert fits(grammar, '{"a":1}')
    assert fits(grammar, "{}")
    assert not fits(grammar, '{"a":1,"a":2}')
    assert not fits(grammar, '{"a":"x"}')
    assert not fits(grammar, '{"c":1}')


def test_a_name_that_a_pattern_lists_fits_both():
    grammar = json_grammar(named("^a$", properties={"a": {"minimum": 5}}, required=["a"], additionalProperties=False))
    assert fits(grammar, '{"a":7}')
    assert not any(fits(grammar, text) for text in ('{"a":1}', '{"a":7.5}', "{}", '{"a":7,"a":8}'))


def test_other_patterns_stay():
    grammar = json_grammar(named("^a[0-9]?$", additionalProperties=False))
    assert fits(grammar, '{"a1":1,"a":2}')
    assert not fits(grammar, '{"a11":1}')


LOOKS = {"type": "string", "pattern": "^(?=.*[0-9])[a-z0-9]{2}$"}
LENIENT = {"x-guidance": {"lenient": True}}


def test_in_a_lenient_schema_what_cannot_be_kept_has_no_effect():
    for schema in (LOOKS, {"minLength": 10**12, "type": "string"}):
        with pytest.raises(GrammarError):
            matcher_of(json_grammar(schema))
        assert fits(json_grammar(schema | LENIENT), '"xyz"')
        inner = {"type": "object", "properties": {"s": schema}, "required": ["s"], "additionalProperties": False}
        assert fits(json_grammar(inner | LENIENT), '{"s":"xyz"}')
        assert not fits(json_grammar(inner | LENIENT), '{"s":1}')
    assert fits(json_grammar(named("^(?=a)", **LENIENT)), '{"a":"any"}')
    assert fits(json_grammar({"type": "number", "minimum": 1e300} | LENIENT), "5")


def shape(kind: str, **properties: Any) -> dict[str, Any]:
    properties = {"kind": {"const": kind}, **properties}
    return {"type": "object", "properties": properties, "required": ["kind"], "additionalProperties": False}


def test_one_of_objects_that_a_property_tells_apart():
    definitions = {"Cat": shape("cat", lives={"type": "integer"}), "Dog": shape("dog")}
    union = {
        "$defs": definitions,
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
        "discriminator": {"propertyName": "kind", "mapping": {}},
    }
    for grammar in (json_grammar(union), json_grammar({"items": union, "type": "array", "$defs": definitions})):
        texts = ['{"kind":"cat","lives":9}', '{"kind":"dog"}', '{"kind":"cow"}', '{"kind":"dog","lives":1}']
        wrapped = texts if grammar == json_grammar(union) else [f"[{text}]" for text in texts]
        assert [fits(grammar, text) for text in wrapped] == [True, True, False, False]
    for branch in (shape("cat"), {"type": "object"}, {"$ref": "#/$defs/Nothing"}, {"$ref": "#"}):
        with pytest.raises(GrammarError, match=r"oneOf|does not exist|circular"):
            matcher_of(json_grammar(union | {"oneOf": [{"$ref": "#/$defs/Cat"}, branch]}))


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (r'root ::= "\u00e9" [\u00e0-\u00ff]+', ["éà", "éÿé"], ["éz", "e"]),
        (r'root ::= "\U0001F600"', ["😀"], ["1F600", "U0001F600"]),
        (r"root ::= [\U0001F600-\U0001F64F]", ["😀", "🙏"], ["é", "a"]),
        (r'root ::= "\u0041" [\u0061-\u007A] "\u005C\u0022"', ['Ab\\"'], ["AB"]),
        (r'root ::= "\\u0041"', ["\\u0041"], ["A"]),
        (r'root ::= "\xe9"', ["é"], ["e"]),
        ("root ::= [&&~]+ # [\\u0041", ["&~&"], ["a"]),
        ("root ::= [+--]", ["+", ",", "-"], [".", "*"]),
        ("root ::= [--0]", ["-", ".", "/", "0"], [",", "1"]),
        ("root ::= [a-]", ["a", "-"], ["b"]),
        ("root ::= [-a^]", ["a", "-", "^"], ["b"]),
        (r"root ::= [\]\[\\]", ["[", "]", "\\"], ["a"]),
        (r"root ::= [\x26-\x28~]", ["&", "'", "(", "~"], [")", "x"]),
        ('root ::= "a\nb"', ["a\nb"], ["ab"]),
        (r"root ::= [^\u0061-\u007a]", ["A", "é"], ["b"]),
    ],
)
def test_letters_in_gbnf(grammar, good, bad):
    made = lark(GrammarKind.LARK, grammar)
    assert [text for text in good if not fits(made, text)] == []
    assert [text for text in bad if fits(made, text)] == []
