"""Tools: the fields with which a request offers tools and requires calls, and their effect on its answers.

Builds the schema of a forced call's arguments from a tool's `parameters`. A forced answer consists of calls only, whose
arguments fit their tools' schemas. If a request has both tools and an answer format, an answer has that format or
consists of calls. `text` knows how calls are written.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import MaxLen, MinLen
from pydantic import Field, StringConstraints, model_validator

from antiphon.api.ignored import known_tools
from antiphon.api.limits import MAX_TOOLS
from antiphon.api.schema import Schema, conflict, known_types
from antiphon.api.structured import StructuredRequest, checked_grammar, leniently
from antiphon.errors import InvalidRequest
from antiphon.request import Grammar
from antiphon.text import TextModel, ToolReading

FunctionName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]

# Keywords with which a schema allows other properties, here or elsewhere.
_OPEN = {"additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames", "minProperties"}
_ELSEWHERE = {"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "dependentSchemas"}


class FunctionDefinition(Schema):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="A JSON Schema.")
    strict: bool | None = Field(
        None, description="True: unsupported keywords are refused if the call is forced. Otherwise they are ignored."
    )


class Tool(Schema):
    type: Literal["function"]
    function: FunctionDefinition


class ChosenFunction(Schema):
    name: str


class NamedTool(Schema):
    type: Literal["function"]
    function: ChosenFunction


class AllowedTools(Schema):
    mode: Literal["auto", "required"]
    tools: Annotated[list[Annotated[NamedTool, known_types("A tool", "function")]], MinLen(1), MaxLen(MAX_TOOLS)]


class AllowedChoice(Schema):
    """Allows calls of some tools only. All tools are in the prompt, so that prompts share the prefix cache."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Annotated[
    NamedTool | AllowedChoice,
    Field(discriminator="type"),
    known_types("A tool choice", "function", "allowed_tools"),
]


class ToolRequest(StructuredRequest):
    """The fields for tools."""

    tools: (
        Annotated[list[Annotated[Tool, known_types("A tool", "function")]], MaxLen(MAX_TOOLS), known_tools("function")]
        | None
    ) = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = Field(
        None, description="With required or a named tool, the answer consists of calls only."
    )
    parallel_tool_calls: bool | None = Field(None, description="False: the answer ends with its first call.")

    @model_validator(mode="after")
    def _tools_agree(self) -> ToolRequest:
        names = [tool.function.name for tool in self.tools or ()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise conflict(
                "tools", f"'tools' has more than one function named '{min(twice)}'; each needs its own name."
            )
        if self.must_call and not names:
            raise conflict("tool_choice", "'tool_choice' is only allowed when 'tools' are specified.")
        if not set(self._chosen_names or ()) <= set(names):
            raise conflict("tool_choice", "'tool_choice' names a function that is not in 'tools'.")
        return self

    @property
    def offers_tools(self) -> bool:
        """Whether the prompt contains tools, and answers are searched for calls."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def must_call(self) -> bool:
        """Whether the answer must consist of calls only."""
        if isinstance(self.tool_choice, AllowedChoice):
            return self.tool_choice.allowed_tools.mode == "required"
        return self.tool_choice == "required" or isinstance(self.tool_choice, NamedTool)

    @property
    def callable_tools(self) -> dict[int, FunctionDefinition]:
        """Index in `tools` → function, for the functions that may be called."""
        functions = {index: tool.function for index, tool in enumerate(self.tools or ())}
        chosen = self._chosen_names
        return {index: each for index, each in functions.items() if chosen is None or each.name in chosen}

    @property
    def _chosen_names(self) -> list[str] | None:
        """The functions that `tool_choice` names; None if it names none."""
        if isinstance(self.tool_choice, NamedTool):
            return [self.tool_choice.function.name]
        if isinstance(self.tool_choice, AllowedChoice):
            return [tool.function.name for tool in self.tool_choice.allowed_tools.tools]
        return None

    @property
    def may_call_again(self) -> bool:
        """Whether an answer may have more than one call."""
        return self.parallel_tool_calls is not False and not isinstance(self.tool_choice, NamedTool)


def tool_reading(request: ToolRequest, text: TextModel) -> ToolReading | None:
    """How to read calls in the request's answers; None if it offers no tools."""
    if not request.offers_tools:
        return None
    names = [tool.name for tool in request.callable_tools.values()]
    or_text = bool(request.grammar_fields) and not request.must_call
    forced = request.must_call or or_text
    return text.tool_reading(names, several=request.may_call_again, forced=forced, or_text=or_text)


async def answer_grammar(request: ToolRequest, text: TextModel) -> Grammar | None:
    """The grammar of the request's answers in the engine's form.

    Raises:
        InvalidRequest: the grammar cannot be used. The error names the field.
    """
    form = None if request.must_call else await checked_grammar(request, text.grammars)
    if not request.must_call and not (form and request.offers_tools):
        return form
    tools = request.callable_tools
    schemas = {tool.name: _arguments(tool, index) for index, tool in tools.items()}
    calls = text.tool_call_grammar(schemas, several=request.may_call_again, otherwise=form.text if form else None)
    return await text.grammars.check(calls, _param(min(tools)) if len(tools) == 1 else "tools")


def _arguments(tool: FunctionDefinition, index: int) -> dict[str, Any]:
    """The schema of a call's arguments, which are an object.

    Properties that the schema does not mention are forbidden, since small models would keep adding more.
    """
    schema = tool.parameters
    if schema is None:
        schema = {"properties": {}}  # no arguments, as in OpenAI's API
    if schema.get("type", "object") != "object":
        message = (
            f"Invalid value for '{_param(index)}': arguments are an object, so the schema's type must be 'object'."
        )
        raise InvalidRequest(message, param=_param(index))
    schema = schema | {"type": "object"}
    properties, required = schema.get("properties"), schema.get("required", [])
    if isinstance(properties, dict) and isinstance(required, list) and not schema.keys() & (_OPEN | _ELSEWHERE):
        schema["additionalProperties"] = not all(isinstance(name, str) and name in properties for name in required)
    return schema if tool.strict else leniently(schema)


def _param(index: int) -> str:
    return f"tools[{index}].function.parameters"
