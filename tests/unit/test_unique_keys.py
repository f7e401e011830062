"""Keys that an object already has are not written again, where the grammar leaves their names open."""

from __future__ import annotations

import json

import pytest
from grammars import json_grammar, matcher_of, spelled, tiny_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import EngineInMemory, ask
from property_tests import examples

from antiphon.grammar.json_schema import has_open_keys
from antiphon.grammar.lark import to_lark
from antiphon.grammar.unique_keys import OPEN_KEYS, Keys, KeyTokens, without
from antiphon.request import FinishReason, Grammar, GrammarKind

TOKENS = [b'"', b'a"', b'ab"', b'"a"', b', "a": ', b'{"a"', b"a", b'\\"', b'a\\"', b'"ab":', b' "a', b'a": "a"']
ANY_OBJECT = {"type": "object"}
OF_LETTERS = {"type": "object", "patternProperties": {"^[a-c]+$": {"const": 1}}, "additionalProperties": False}


def repeating(text: str) -> set[bytes]:
    keys = Keys(KeyTokens(TOKENS))
    keys.take(text.encode())
    copied = keys.copy().repeating()
    assert copied == keys.repeating()
    return {TOKENS[id] for id in copied}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ('{"', set()),
        ('{"a', set()),
        ('{"a": 1, "', {b'a"', b'a": "a"'}),
        ('{"a": 1, "a', {b'"', b'"a"', b'"ab":', b' "a'} - {b' "a'}),
        ('{"ab": 1, "a', set()),
        ('{"ab": 1, "', {b'ab"'}),
        ('{"a": 1', {b'"a"', b', "a": '}),
        ('{"a": "', set()),  # a value may be the same as a key
        ('{"a": {"', set()),  # another object
        ('{"a": {"b": 1}, "', {b'a"', b'a": "a"'}),
        ('{"a": [{"a": 1}, {"', set()),
        ('{"a": ["', set()),
        ('{"a": [", \\", {"], "', {b'a"', b'a": "a"'}),
        ('<tool_call>\n{"name": "look", "arguments": {"a": 1, "', {b'a"', b'a": "a"'}),
        ('{"a": 1}\n{"', set()),
        ('"{" {"', set()),
    ],
)
def test_the_tokens_that_would_end_a_key_as_one_that_is_there(text, tokens):
    assert repeating(text) == tokens


@given(st.lists(st.text('ab"\\,:{ é'), max_size=6), st.text('ab"\\,:{ é'))
@settings(max_examples=examples(200))
def test_keys_are_those_of_the_object(names, last):
    written = json.dumps(dict.fromkeys(names, 1), ensure_ascii=False)
    rest = json.dumps(last, ensure_ascii=False)[1:]
    keys = Keys(KeyTokens([rest.encode()]))
    keys.take((written[:-1] + ', "').encode() if names else b'{"')
    assert bool(keys.repeating()) == (last in names and "\\" not in rest)


def test_a_mask_is_never_emptied():
    mask = bytes([0b0101, 0, 0, 0])
    assert without(mask, [0]) == bytes([0b0100, 0, 0, 0])
    assert without(mask, [0, 2]) == mask


@pytest.mark.parametrize(
    ("schema", "is_open"),
    [
        (True, True),
        ({}, True),
        (ANY_OBJECT, True),
        ({"type": "string"}, False),
        ({"type": ["null", "object"]}, True),
        ({"type": "object", "additionalProperties": False}, False),
        ({"type": "object", "additionalProperties": {"type": "string"}}, True),
        ({"type": "object", "additionalProperties": False, "patternProperties": {"^a": False}}, True),
        ({"type": "object", "additionalProperties": False, "patternProperties": {"^a$": False}}, False),
        ({"type": "array"}, False),
        ({"type": "array", "items": ANY_OBJECT}, True),
        ({"anyOf": [{"type": "string"}, ANY_OBJECT]}, True),
        ({"anyOf": [{"type": "string"}]}, False),
        ({"type": "object", "anyOf": [{"required": ["a"]}]}, True),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "additionalProperties": False}}}, False),
        ({"$ref": "#/$defs/a", "$defs": {"a": ANY_OBJECT}}, True),
        ({"enum": [{}]}, False),
    ],
)
def test_schemas_that_name_every_key_cost_nothing(schema, is_open):
    assert has_open_keys(schema) == is_open
    if schema is not True:
        assert (OPEN_KEYS in json_grammar(schema).text) == is_open


def test_only_what_is_json_is_followed():
    arguments = {"type": "object", "additionalProperties": {"type": "integer"}}
    call = {"before": ["<"], "arguments": arguments, "behind": [">"]}
    spelled = {"calls": [call], "most": 1, "between": [], "opening": [], "closing": []}

    def is_followed(otherwise: str | None) -> bool:
        text = json.dumps(spelled | {"otherwise": otherwise})
        return OPEN_KEYS in to_lark(Grammar(GrammarKind.TOOL_CALLS, text))

    assert is_followed(None)
    assert is_followed(json_grammar({"type": "string"}).text)
    assert not is_followed('start: "a"')
    assert OPEN_KEYS not in to_lark(Grammar(GrammarKind.LARK, 'start: %json {"type": "object"}'))


@pytest.mark.parametrize(
    "schema",
    [
        OF_LETTERS,
        OF_LETTERS | {"minProperties": 4},
        {"type": "array", "minItems": 2, "items": OF_LETTERS},
    ],
)
def test_no_key_comes_twice_whatever_is_drawn(schema):
    vocabulary = tiny_vocabulary()
    engine = EngineInMemory(vocab_size=len(vocabulary.tokens), eos_token_id=vocabulary.eos_token_ids[0])
    num_keys = 0
    for seed in range(30):
        answer = engine.expected(
            ask("a", [7, 8], grammar=json_grammar(schema), temperature=1.0, seed=seed, max_tokens=400)
        )
        if answer.finish_reason is not FinishReason.STOP:
            continue
        for pairs in objects_in(spelled(answer.token_ids)):
            assert len({key for key, _ in pairs}) == len(pairs)
            num_keys += len(pairs)
    assert num_keys > 20


def objects_in(text: str) -> list[list[tuple[str, object]]]:
    """The members of every object in some JSON."""
    found: list[list[tuple[str, object]]] = []
    json.loads(text, object_pairs_hook=found.append)
    return found


def test_where_no_other_key_is_left_one_may_come_twice():
    """Rather than fail, as the grammar's comma was written already."""
    matcher = matcher_of(
        json_grammar({"type": "object", "patternProperties": {"^a?b$": {"const": 1}}, "additionalProperties": False})
    )
    vocabulary = tiny_vocabulary()
    single = {token: id for id, token in reversed(list(enumerate(vocabulary.tokens))) if len(token) == 1}
    for byte in b'{"ab":1,"ab"':
        mask = int.from_bytes(matcher.bitmask(), "little")
        assert mask >> single[bytes([byte])] & 1
        matcher.take(single[bytes([byte])])
