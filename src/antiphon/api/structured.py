"""Structured answers: the fields that set the format of an answer, and the grammar they describe.

Owns OpenAI's `response_format`, vLLM's `structured_outputs`, the older `guided_*` and llama.cpp's names. A request has
at most one grammar. Fields that would keep an answer from following it are refused by name. The checker decides whether
a grammar can be used.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from annotated_types import MaxLen, MinLen
from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from antiphon.api.limits import MAX_GRAMMAR_CHOICES
from antiphon.api.schema import Schema, conflict, known_types
from antiphon.errors import InvalidRequest
from antiphon.grammar.checker import GrammarChecker
from antiphon.request import Grammar, GrammarKind
from antiphon.strict_json import decode_json

Pattern = Annotated[str, MinLen(1)]
Choices = Annotated[list[Annotated[str, MinLen(1)]], MinLen(1), MaxLen(MAX_GRAMMAR_CHOICES)]
AnySchema = dict[str, Any] | Annotated[str, MinLen(1)]  # a JSON Schema, or one written as text


class TextFormat(Schema):
    type: Literal["text"]


class JsonObjectFormat(Schema):
    type: Literal["json_object"]
    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="A JSON Schema (an addition of llama.cpp)."
    )


class NamedSchema(Schema):
    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema_: dict[str, Any] = Field(alias="schema", description="A JSON Schema.")
    description: str | None = None
    strict: bool | None = Field(None, description="False: unsupported keywords are ignored instead of refused.")


class JsonSchemaFormat(Schema):
    type: Literal["json_schema"]
    json_schema: NamedSchema | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="Replaces json_schema, as in llama.cpp.")

    @model_validator(mode="after")
    def _one_schema(self) -> JsonSchemaFormat:
        if (self.json_schema is None) == (self.schema_ is None):
            raise PydanticCustomError("missing", "Field required", {"param": "json_schema"})
        return self


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat,
    Field(discriminator="type"),
    known_types("A format", "text", "json_object", "json_schema"),
]


class StructuredOutputs(Schema):
    """vLLM's `structured_outputs`; exactly one field must be set."""

    json_: AnySchema | None = Field(None, alias="json")
    regex: Pattern | None = None
    choice: Choices | None = None
    grammar: Pattern | None = None

    @model_validator(mode="after")
    def _one_is_asked_for(self) -> StructuredOutputs:
        if sum(value is not None for value in (self.json_, self.regex, self.choice, self.grammar)) != 1:
            raise conflict("", "'structured_outputs' needs exactly one of 'json', 'regex', 'choice' and 'grammar'.")
        return self


class StructuredRequest(Schema):
    """The fields for structured answers, shared by all requests that generate text."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: AnySchema | None = Field(None, description="An older name of structured_outputs.json.")
    guided_regex: Pattern | None = Field(None, description="An older name of structured_outputs.regex.")
    guided_choice: Choices | None = Field(None, description="An older name of structured_outputs.choice.")
    guided_grammar: Pattern | None = Field(None, description="An older name of structured_outputs.grammar.")
    json_schema: AnySchema | None = Field(None, description="llama.cpp's name of structured_outputs.json.")
    grammar: Pattern | None = Field(None, description="llama.cpp's name of structured_outputs.grammar.")

    @model_validator(mode="after")
    def _one_grammar_at_most(self) -> StructuredRequest:
        fields = self.grammar_fields
        if len(fields) > 1:
            raise conflict(
                fields[1], f"'{fields[0]}' and '{fields[1]}' both set the answer's format; send one of them."
            )
        return self

    @property
    def grammar_fields(self) -> list[str]:
        """The fields of this request that set the answer's format."""
        names = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice")
        others = ("guided_grammar", "json_schema", "grammar")
        sent = [name for name in (*names, *others) if getattr(self, name) is not None]
        return [name for name in sent if not isinstance(getattr(self, name), TextFormat)]

    @property
    def requested_grammar(self) -> tuple[Grammar, str] | None:
        """The grammar of the answer and the name of its field.

        Raises:
            InvalidRequest: a schema sent as text is not a JSON Schema.
        """
        format = self.response_format
        if isinstance(format, JsonObjectFormat | JsonSchemaFormat) and format.schema_ is not None:
            return _of_schema(format.schema_), "response_format.schema"
        if isinstance(format, JsonObjectFormat):
            return _of_schema({"type": "object"}), "response_format"
        if isinstance(format, JsonSchemaFormat):
            named = format.json_schema
            assert named is not None, "one of the two is set"
            schema = leniently(named.schema_) if named.strict is False else named.schema_
            return _of_schema(schema), "response_format.json_schema.schema"
        if self.json_schema is not None:
            return _of_json(self.json_schema, "json_schema"), "json_schema"
        if self.grammar is not None:
            return Grammar(GrammarKind.LARK, self.grammar), "grammar"
        for prefix, sent in (("structured_outputs.", self.structured_outputs), ("guided_", self._guided)):
            if sent is not None and sent.json_ is not None:
                return _of_json(sent.json_, f"{prefix}json"), f"{prefix}json"
            if sent is not None and sent.regex is not None:
                return Grammar(GrammarKind.REGEX, sent.regex), f"{prefix}regex"
            if sent is not None and sent.choice is not None:
                return Grammar(GrammarKind.CHOICE, msgspec.json.encode(sent.choice).decode()), f"{prefix}choice"
            if sent is not None and sent.grammar is not None:
                return Grammar(GrammarKind.LARK, sent.grammar), f"{prefix}grammar"
        return None

    @property
    def _guided(self) -> StructuredOutputs | None:
        """The `guided_*` fields as `structured_outputs`."""
        names = ("json", "regex", "choice", "grammar")
        sent = {name: getattr(self, f"guided_{name}") for name in names}
        return StructuredOutputs(**sent) if any(value is not None for value in sent.values()) else None


async def checked_grammar(request: StructuredRequest, checker: GrammarChecker) -> Grammar | None:
    """The request's grammar in the engine's form.

    Raises:
        InvalidRequest: the grammar cannot be used. The error names the field.
    """
    requested = request.requested_grammar
    return await checker.check(*requested) if requested else None


def check_company(fields: list[str], company: dict[str, bool]) -> None:
    """Raise PydanticCustomError if a field cannot be combined with a grammar.

    Args:
        fields: the fields that set the answer's format.
        company: the names of other fields, and whether each is set.
    """
    clashing = [name for name, asks in company.items() if asks]
    if fields and clashing:
        message = f"'{clashing[0]}' cannot be combined with '{fields[0]}', which determines when the answer ends."
        raise conflict(clashing[0], message)


def _of_json(value: dict[str, Any] | str, param: str) -> Grammar:
    schema = value
    if isinstance(value, str):
        try:
            schema = decode_json(value.encode())
        except InvalidRequest:
            raise InvalidRequest(f"'{param}' is a string that does not contain a JSON Schema.", param=param) from None
    if not isinstance(schema, dict):
        raise InvalidRequest(f"'{param}' must be a JSON Schema (an object).", param=param)
    return _of_schema(schema)


def leniently(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, marked so that unsupported keywords are ignored."""
    options = schema.get("x-guidance", {})
    return schema | {"x-guidance": options | {"lenient": True}} if isinstance(options, dict) else schema


def _of_schema(schema: dict[str, Any]) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, msgspec.json.encode(schema).decode())
