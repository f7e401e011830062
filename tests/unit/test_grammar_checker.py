"""The check of grammars: what it lets through compiles, what it stops is stopped soon, and it stays up."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from typing import Any

import pytest
from grammars import allowed, lark, matcher_of, tiny_vocabulary
from open_files import no_descriptor_left
from processes import children, is_gone

from antiphon.errors import InvalidRequest, NotReady
from antiphon.grammar import GrammarError
from antiphon.grammar.checker import MAX_GRAMMAR, MAX_REMEMBERED, GrammarChecker
from antiphon.grammar.messages import TOO_COMPLEX, in_plain_words
from antiphon.request import Grammar, GrammarKind

LONG = Grammar(GrammarKind.LARK, "start: " + '"a" ' * 20_000)
SHORT = Grammar(GrammarKind.REGEX, "[ab]c")


async def test_what_passes_is_lark_that_compiles():
    checker = GrammarChecker(tiny_vocabulary())
    checked = await checker.check(SHORT, "guided_regex")
    assert checked.kind is GrammarKind.LARK
    assert allowed(matcher_of(checked)) >= {b"a", b"b"}
    assert all(token[:1] in (b"a", b"b") for token in allowed(matcher_of(checked)))
    checker.close()


async def test_a_check_that_takes_too_long_is_stopped_and_the_next_goes_on():
    checker = GrammarChecker(tiny_vocabulary(), time_limit=0.01)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=r"more than 0\.01 s or too much memory, and was stopped") as refusal:
            await checker.check(LONG, "guided_grammar")
        assert refusal.value.param == "guided_grammar"
    assert await checker.check(SHORT, "guided_regex")
    checker.close()


async def test_a_process_that_died_is_replaced():
    checker = GrammarChecker(tiny_vocabulary())
    await checker.check(SHORT, "guided_regex")
    checker.close()
    assert await checker.check(Grammar(GrammarKind.REGEX, "x"), "guided_regex")
    checker.close()


async def test_many_at_once_and_more_than_are_remembered():
    checker = GrammarChecker(tiny_vocabulary())
    several = [Grammar(GrammarKind.REGEX, f"a{{{n + 1}}}") for n in range(MAX_REMEMBERED + 5)]
    checked = await asyncio.gather(*(checker.check(grammar, "r") for grammar in several))
    assert len({grammar.text for grammar in checked}) == len(several)
    assert await checker.check(several[0], "r") == checked[0]
    checker.close()


async def test_sizes_and_models_that_cannot_end():
    with pytest.raises(InvalidRequest, match=str(MAX_GRAMMAR)):
        await GrammarChecker(tiny_vocabulary()).check(Grammar(GrammarKind.REGEX, "a" * (MAX_GRAMMAR + 1)), "r")
    with pytest.raises(InvalidRequest, match="no end-of-sequence token"):
        await GrammarChecker(None).check(SHORT, "r")


def test_special_tokens_match_no_text():
    matcher = matcher_of(lark(GrammarKind.REGEX, r"(?s:.*)"))
    special = {tiny_vocabulary().tokens[id] for id in tiny_vocabulary().special_token_ids}
    ends = {tiny_vocabulary().tokens[id] for id in tiny_vocabulary().eos_token_ids}
    assert allowed(matcher) & special == ends


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (GrammarKind.LARK, 'start: "a"\nx: (', r"2\(5\): Expected token"),
        (GrammarKind.JSON_SCHEMA, '{"minimum": 5, "maximum": 3, "type": "integer"}', "Unsatisfiable"),
        (GrammarKind.REGEX, "(?<=a)b" + "x" * 2000, "^invalid regex: look-around"),
        (GrammarKind.LARK, 'A: "x"\nstart: A\n\n\nc: (', r"^5\(5\): Expected token '\)', found '\\n'$"),
        (GrammarKind.LARK, 'start: "a', "an unfinished string"),
    ],
)
def test_messages_name_the_fault_and_nothing_of_ours(kind, text, message):
    with pytest.raises(GrammarError) as fault:
        matcher_of(lark(kind, text))
    assert re.search(message, str(fault.value).removeprefix("at 1(8): "), re.DOTALL)
    assert "llguidance" not in str(fault.value)
    assert len(str(fault.value)) < 310


@pytest.mark.parametrize(
    "message",
    [
        "lexer error: too many expressions constructed",
        "Current row has too many items; limit=50000; try avoiding single-byte/short lexemes",
        "initial lexer configuration (grammar) too big (limit for this grammar: 1000000); out of fuel",
        "panic at src/earley/parser.rs",
    ],
)
def test_the_librarys_limits_are_one_reason(message):
    assert in_plain_words(message) == TOO_COMPLEX


def schema(**keywords: Any) -> str:
    return json.dumps(keywords)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (
            GrammarKind.LARK,
            'root ::= "a" [\\u00e0-\\uD800]',
            r"the GBNF grammar cannot be used: \uD800 is no character",
        ),
        (GrammarKind.LARK, 'root ::= a{3,1}\na ::= "x"', "range end must be >= start, got (3, 1)"),
        (GrammarKind.LARK, 'root ::= "a" b', "the GBNF grammar cannot be used: Rule 'b' not found"),
        (
            GrammarKind.LARK,
            'root ::= start\nstart ::= "q"',
            "the GBNF grammar cannot be used: two of its rules would be named 'start' in Lark, where 'root' is 'start'",
        ),
        (
            GrammarKind.REGEX,
            "(?=a)b",
            "invalid regex: look-around, including look-ahead and look-behind, is not supported",
        ),
        (GrammarKind.REGEX, "[a", "invalid regex: unclosed character class"),
        (
            GrammarKind.JSON_SCHEMA,
            schema(oneOf=[{"type": "integer"}, {"type": "number"}]),
            "'oneOf' is supported only where no two of its schemas can fit at once; use 'anyOf'",
        ),
        (GrammarKind.JSON_SCHEMA, schema(minimum="a"), "'minimum' must be a number, not \"a\""),
        (GrammarKind.JSON_SCHEMA, schema(maxItems=-1), "'maxItems' must be a whole number, 0 or more, not -1"),
        (GrammarKind.JSON_SCHEMA, '{"$ref": "#/x"}', "'$ref' names '#/x', which does not exist"),
        (
            GrammarKind.JSON_SCHEMA,
            schema(type="string", pattern=r"^(?=.*\d).{8,}$"),
            r"the expression '^(?=.*\d).{8,}$' in 'pattern' cannot be used: look-around, including look-ahead and "
            "look-behind, is not supported",
        ),
        (
            GrammarKind.JSON_SCHEMA,
            schema(type="object", patternProperties={"^a": {}, "b$": {}}),
            "'patternProperties' has '^a' and 'b$', which can match the same name; that is not supported",
        ),
        (
            GrammarKind.JSON_SCHEMA,
            schema(type="number", minimum=1e300),
            "'minimum' is 1e+300, and no number beyond 9.22e+18 can be promised",
        ),
        (GrammarKind.JSON_SCHEMA, schema(minLength=10**12), "'minLength' is 1000000000000, and no text can be so long"),
        (GrammarKind.JSON_SCHEMA, schema(type="integer", multipleOf=10**20), "'multipleOf' has too many digits"),
    ],
)
async def test_what_is_wrong_is_said_of_the_senders_text(kind, text, message):
    checker = GrammarChecker(tiny_vocabulary())
    with pytest.raises(InvalidRequest) as refusal:
        await checker.check(Grammar(kind, text), "field")
    checker.close()
    assert str(refusal.value) == f"Invalid value for 'field': {message}."


def processes(checker: GrammarChecker) -> list[int]:
    """The ids of the checking process and of the children it has now."""
    assert checker._process is not None
    return [checker._process._process.pid, *children(checker._process._process.pid)]


@pytest.mark.parametrize("blow", [signal.SIGSTOP, signal.SIGKILL], ids=lambda blow: blow.name)
@pytest.mark.parametrize("victim", ["process", "child"])
async def test_a_check_that_is_stopped_or_killed_from_outside_is_done_again(blow, victim):
    """Neither is the grammar's fault, and what a grammar is refused for is remembered."""
    checker = GrammarChecker(tiny_vocabulary(), time_limit=10.0)
    await checker.check(SHORT, "guided_regex")
    (first,) = processes(checker)
    checking = asyncio.create_task(checker.check(LONG, "guided_grammar"))
    async with asyncio.timeout(60):
        while len(family := processes(checker)) < 2:  # noqa: ASYNC110  # another process's state
            await asyncio.sleep(0)
    os.kill(first if victim == "process" else family[1], blow)
    assert (await checking).kind is GrammarKind.LARK
    checker.close()
    assert all(map(is_gone, family))


async def test_a_process_that_cannot_be_started_is_no_fault_of_the_grammar():
    checker = GrammarChecker(tiny_vocabulary())
    with no_descriptor_left(), pytest.raises(NotReady, match="could not be started"):
        await checker.check(SHORT, "guided_regex")
    assert await checker.check(SHORT, "guided_regex")
    checker.close()
