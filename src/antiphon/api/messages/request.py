"""The bodies of `/v1/messages` and `/v1/messages/count_tokens`.

Owns names, types and ranges. Every known field has an effect, is listed as accepted without effect, or is refused by
name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import ConfigDict, Field, model_validator

from antiphon.api.fields import (
    Accepted,
    AcceptedText,
    DegradeWish,
    Integer,
    MaxWait,
    ModelName,
    Refused,
    Seed,
    StopString,
    Timeout,
    TopK,
)
from antiphon.api.ignored import known_tools
from antiphon.api.limits import MAX_MESSAGES, MAX_STOPS
from antiphon.api.schema import Checked, Schema, conflict, known_types

# --- blocks


class Block(Checked):
    """A block. Unknown fields are accepted, since clients send blocks of answers back with further fields."""

    model_config = ConfigDict(strict=True, extra="ignore")


class TextBlock(Block):
    type: Literal["text"]
    text: str


class ThinkingBlock(Block):
    """An earlier thought; its signature is ignored."""

    type: Literal["thinking"]
    thinking: str


class RedactedThinkingBlock(Block):
    """An encrypted thought; accepted without effect."""

    type: Literal["redacted_thinking"]


class ToolUseBlock(Block):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(Block):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[Annotated[TextBlock, known_types("Content of a tool result", "text")]] | None = None

    @property
    def text(self) -> str:
        """The tool's result as one string."""
        return text_of(self.content or "")


UserBlock = Annotated[
    TextBlock | ToolResultBlock, Field(discriminator="type"), known_types("A block", "text", "tool_result")
]
AssistantBlock = Annotated[
    TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock,
    Field(discriminator="type"),
    known_types("A block", "text", "thinking", "redacted_thinking", "tool_use"),
]
SystemBlock = Annotated[TextBlock, known_types("A block", "text")]


def text_of(content: str | list[TextBlock]) -> str:
    """The text of content that consists of text only, as one string."""
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


# --- messages, tools, thinking


class UserMessage(Schema):
    role: Literal["user"]
    content: str | list[UserBlock]


class AssistantMessage(Schema):
    role: Literal["assistant"]
    content: str | list[AssistantBlock]


class Tool(Schema):
    name: str
    input_schema: dict[str, Any] = Field(description="A JSON Schema.")
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: Accepted = None
    eager_input_streaming: Accepted = None
    input_examples: Refused = None
    defer_loading: Refused = None


class ToolChoice(Schema):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = Field(None, description="With type tool: the tool's name.")
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _a_tool_has_a_name(self) -> ToolChoice:
        if (self.type == "tool") != (self.name is not None):
            raise conflict("name", "'tool_choice.name' is only allowed with type 'tool', which requires it.")
        return self


class ThinkingEnabled(Schema):
    type: Literal["enabled"]
    budget_tokens: Annotated[Integer, Ge(1)]
    display: Literal["summarized"] | None = None


class ThinkingAdaptive(Schema):
    type: Literal["adaptive"]
    display: Literal["summarized"] | None = None


class ThinkingDisabled(Schema):
    type: Literal["disabled"]


Thinking = Annotated[
    ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled,
    Field(discriminator="type"),
    known_types("Thinking", "enabled", "adaptive", "disabled"),
]


class OutputFormat(Schema):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Schema):
    format: Annotated[OutputFormat, known_types("A format", "json_schema")] | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="xhigh and max: as much as max_tokens allows."
    )


class Metadata(Schema):
    user_id: AcceptedText = None


# --- requests


class ConversationRequest(Schema):
    """The fields that both routes share: those that determine the prompt."""

    messages: Annotated[
        list[Annotated[UserMessage | AssistantMessage, Field(discriminator="role")]], MinLen(1), MaxLen(MAX_MESSAGES)
    ]
    model: ModelName = None
    system: str | list[SystemBlock] | None = None
    tools: (
        Annotated[list[Annotated[Tool, known_types("A tool", "custom", default="custom")]], known_tools("custom")]
        | None
    ) = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Accepted = None


class CountTokensRequest(ConversationRequest):
    """The body of `POST /v1/messages/count_tokens`."""


class MessagesRequest(ConversationRequest):
    """The body of `POST /v1/messages`."""

    max_tokens: Annotated[Integer, Ge(1)]
    stream: bool | None = None
    stop_sequences: Annotated[list[StopString], MaxLen(MAX_STOPS)] | None = None
    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    top_k: TopK | None = Field(None, description="0 or -1 switches it off.")
    seed: Seed = Field(None, description="An addition to Anthropic's fields.")

    max_wait: MaxWait = None
    timeout: Timeout = None
    degrade: DegradeWish = None

    metadata: Metadata | None = None
    service_tier: AcceptedText = None
    container: Refused = None
    context_management: Refused = None
    mcp_servers: Refused = None
    inference_geo: AcceptedText = None

    @model_validator(mode="after")
    def _the_thought_leaves_room(self) -> MessagesRequest:
        if isinstance(self.thinking, ThinkingEnabled) and self.thinking.budget_tokens >= self.max_tokens:
            raise conflict("max_tokens", "'max_tokens' must be greater than 'thinking.budget_tokens'.")
        return self
