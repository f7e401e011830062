"""The bodies and queries of `/v1/responses` and the routes below it.

Owns names, types and ranges. Every known field has an effect, is listed as accepted without effect, or is refused by
name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, model_validator

from antiphon.api.chat.request import ReasoningEffort
from antiphon.api.fields import (
    AcceptedFlag,
    AcceptedMap,
    AcceptedText,
    DegradeWish,
    Integer,
    MaxWait,
    ModelName,
    Penalty,
    Refused,
    RepetitionPenalty,
    Seed,
    ServiceTierName,
    StopString,
    Timeout,
    TokenLimit,
    TopK,
    refused,
)
from antiphon.api.generation_request import StreamOptions
from antiphon.api.ignored import known_tools
from antiphon.api.limits import MAX_CACHE_SALT, MAX_LOGPROBS, MAX_MESSAGES, MAX_STOPS, MAX_TOOLS
from antiphon.api.schema import Checked, Schema, conflict, known_types


class Sent(Checked):
    """A part or item. Unknown fields are accepted, since clients send items of answers back with further fields."""

    model_config = ConfigDict(strict=True, extra="ignore")


# --- parts


class InputText(Sent):
    type: Literal["input_text", "text"]
    text: str


class OutputText(Sent):
    type: Literal["output_text"]
    text: str


class RefusalText(Sent):
    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        """The refusal; the model sees it as text."""
        return self.refusal


class ReasoningText(Sent):
    type: Literal["reasoning_text", "summary_text"]
    text: str


MessagePart = Annotated[
    InputText | OutputText | RefusalText,
    Field(discriminator="type"),
    known_types("Content", "input_text", "output_text", "text", "refusal"),
]
OutputPart = Annotated[InputText, known_types("Output", "input_text", "text")]


# --- items


class InputMessage(Sent):
    type: Literal["message"]
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[MessagePart]

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class FunctionCall(Sent):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class FunctionCallOutput(Sent):
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[OutputPart]

    @property
    def text(self) -> str:
        """The function's result as one string."""
        return self.output if isinstance(self.output, str) else "\n".join(part.text for part in self.output)


class Reasoning(Sent):
    """An earlier thought; it belongs to the answer or call after it."""

    type: Literal["reasoning"]
    content: list[ReasoningText] | None = None
    summary: list[ReasoningText] | None = None

    @property
    def text(self) -> str:
        """The thought or, without one, its summary."""
        return "\n".join(part.text for part in self.content or self.summary or ())


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[Reasoning, Tag("reasoning")],
    Discriminator("type"),
    known_types("An item", "message", "function_call", "function_call_output", "reasoning", default="message"),
]


sent_items = TypeAdapter(list[InputItem])  # reads and writes items as JSON


# --- tools and formats


class FunctionTool(Schema):
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="A JSON Schema.")
    strict: bool | None = None


class NamedFunction(Schema):
    type: Literal["function"]
    name: str


class AllowedFunctions(Schema):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[Annotated[NamedFunction, known_types("A tool", "function")]], MinLen(1), MaxLen(MAX_TOOLS)]


ToolChoice = Annotated[
    NamedFunction | AllowedFunctions,
    Field(discriminator="type"),
    known_types("A tool choice", "function", "allowed_tools"),
]


class TextFormat(Schema):
    type: Literal["text"]


class JsonObjectFormat(Schema):
    type: Literal["json_object"]


class JsonSchemaFormat(Schema):
    type: Literal["json_schema"]
    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextConfig(Schema):
    format: (
        Annotated[
            TextFormat | JsonObjectFormat | JsonSchemaFormat,
            Field(discriminator="type"),
            known_types("A format", "text", "json_object", "json_schema"),
        ]
        | None
    ) = None
    verbosity: AcceptedText = None


class ReasoningConfig(Schema):
    effort: ReasoningEffort | None = None
    summary: AcceptedText = None
    generate_summary: AcceptedText = None


class ResponseRequest(Schema):
    """The body of `POST /v1/responses`."""

    input: Annotated[str, MinLen(1)] | Annotated[list[InputItem], MinLen(1), MaxLen(MAX_MESSAGES)]
    model: ModelName = None
    instructions: str | None = Field(None, description="A system message at the beginning; not stored.")
    previous_response_id: str | None = Field(None, description="The stored response to continue.")
    store: bool | None = Field(None, description="Whether to store the response; default: true.")
    background: bool | None = Field(
        None, description="Generate the response even if the client disconnects. It must be stored."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    max_output_tokens: TokenLimit = None
    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    top_k: TopK | None = Field(None, description="0 or -1 switches it off.")
    min_p: Annotated[float, Ge(0), Le(1)] | None = None
    seed: Seed = None
    repetition_penalty: RepetitionPenalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stop: StopString | Annotated[list[StopString], MaxLen(MAX_STOPS)] | None = None
    top_logprobs: Annotated[Integer, Ge(0), Le(MAX_LOGPROBS)] | None = None
    include: (
        list[
            Literal["message.output_text.logprobs", "reasoning.reasoning_text.logprobs", "reasoning.encrypted_content"]
        ]
        | None
    ) = None

    tools: (
        Annotated[list[Annotated[FunctionTool, known_types("A tool", "function")]], known_tools("function")] | None
    ) = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    thinking_token_budget: Annotated[Integer, Ge(0)] | None = Field(
        None, description="The maximum number of tokens of the thought."
    )
    max_thinking_tokens: Annotated[Integer, Ge(0)] | None = Field(None, description="The same under another name.")
    thinking_budget: Annotated[Integer, Ge(0)] | None = Field(None, description="The same under another name.")
    enable_thinking: bool | None = Field(None, description="False closes the thought before it begins.")
    loop_guard: bool | None = Field(None, description="Whether to close a thought that repeats itself.")
    continue_final_message: bool | None = Field(
        None, description="Continue the last item, which must be a message of the assistant or a thought."
    )
    return_progress: bool | None = Field(
        None, description="In a stream: also send the progress before the first token, and count tokens in deltas."
    )

    max_wait: MaxWait = None
    timeout: Timeout = None
    degrade: DegradeWish = None
    cache_salt: Annotated[str, MinLen(1), MaxLen(MAX_CACHE_SALT)] | None = Field(
        None, description="The prefix cache is only shared with requests that have the same salt."
    )
    metadata: AcceptedMap = None
    user: AcceptedText = None
    service_tier: ServiceTierName = None
    safety_identifier: AcceptedText = None
    prompt_cache_key: AcceptedText = None
    prompt_cache_retention: AcceptedText = None
    max_tool_calls: Annotated[int | None, Field(description="Only applies to built-in tools; there are none here.")] = (
        None
    )

    truncation: Annotated[Any, refused("disabled"), Field(description="Refused unless disabled.")] = None
    conversation: Refused = None
    prompt: Refused = None
    context_management: Refused = None
    moderation: Refused = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether to return the log-probabilities of the answer."""
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())

    @property
    def wants_thought_logprobs(self) -> bool:
        """Whether to return the log-probabilities of the thought."""
        return "reasoning.reasoning_text.logprobs" in (self.include or ())


class InputTokensRequest(ResponseRequest):
    """The body of `POST /v1/responses/input_tokens`."""


class StoredResponseQuery(Schema):
    """The query of `GET /v1/responses/{response_id}`."""

    stream: bool | None = Field(None, description="True: return the response's events.")
    starting_after: Annotated[int, Ge(0)] | None = Field(
        None, description="With stream: only events after this number."
    )
    include: AcceptedText = None
    include_obfuscation: AcceptedFlag = None

    @model_validator(mode="after")
    def _only_events_have_numbers(self) -> StoredResponseQuery:
        if self.starting_after is not None and not self.stream:
            raise conflict("starting_after", "'starting_after' is only allowed when 'stream' is true.")
        return self


class InputItemsQuery(Schema):
    """The query of `GET /v1/responses/{response_id}/input_items`."""

    after: str | None = Field(None, description="Only list items after the one with this id.")
    limit: Annotated[int, Ge(1), Le(100)] = 20
    order: Literal["asc", "desc"] = Field("desc", description="desc: latest first.")
    include: AcceptedText = None
