"""What docs/api.md says of OpenAI's fields is what the installed client and our schemas say."""

from __future__ import annotations

import pytest
from compatibility import DOCUMENT, SIDES, verdict, with_table
from pydantic import ValidationError

from antiphon.api.chat.request import ChatCompletionRequest
from antiphon.api.completions.request import CompletionRequest

LEAST = {
    ChatCompletionRequest: {"messages": [{"role": "user", "content": "Hello"}]},
    CompletionRequest: {"prompt": "Hello"},
}
FIELDS = [(schema, name) for schema, names in SIDES.items() for name in sorted(names)]


def faults(schema, name, value) -> set[str]:
    """The kinds of fault that a field's value is refused for."""
    try:
        schema.model_validate(LEAST[schema] | {name: value})
    except ValidationError as error:
        return {each["type"] for each in error.errors() if each["loc"] == (name,)}
    return set()


def test_the_table_is_in_step():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_table(text) == text, "run `make tables`"


@pytest.mark.parametrize(("schema", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_what_the_table_says_is_what_happens(schema, name):
    said = verdict(schema, name)
    nonsense = {"no": ["such", "value"]}
    if "unknown_parameter" in said:
        assert faults(schema, name, nonsense) == {"extra_forbidden"}
    elif "unsupported_parameter" in said:
        assert faults(schema, name, nonsense) == {"unsupported"}
        assert faults(schema, name, None) == set()
    else:
        assert not faults(schema, name, nonsense) & {"unsupported", "extra_forbidden"}


def test_no_field_of_openais_is_unknown():
    """Each was thought about: at the least it is refused by name, with a word on what is let through."""
    assert [name for schema, name in FIELDS if "unknown" in verdict(schema, name)] == []
