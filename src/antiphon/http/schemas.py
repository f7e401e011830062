"""What clients may send: OpenAI's request shapes, with the extra sampling fields that vLLM and llama.cpp users know.

Owns names, types and ranges of every request field, as far as they need no model to check; `sampling` and the endpoint
files check the rest. It promises that no field is ignored silently: a field has an effect, is listed here as accepted
without one, or is refused by name. It must not know engines, tokenizers or HTTP.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from antiphon.http.limits import (
    MAX_CHOICES,
    MAX_LOGIT_BIASES,
    MAX_LOGPROBS,
    MAX_MESSAGES,
    MAX_METADATA,
    MAX_STOP_LENGTH,
    MAX_STOP_TOKEN_IDS,
    MAX_STOPS,
)
from antiphon.http.shape import Schema, conflict
from antiphon.http.structured import StructuredRequest, check_company
from antiphon.http.tagged import known_types
from antiphon.http.tools import ToolRequest
from antiphon.text.tool_shapes import is_json_object

_MIN_SEED, _MAX_SEED = -(1 << 63), (1 << 64) - 1
_MIN_PRIORITY, _MAX_PRIORITY = -(1 << 31), (1 << 31) - 1
_MAX_TOP_K = (1 << 31) - 1  # the engine holds it in 32 bits
# The engine divides logits by it; much closer to zero they would leave the range of its 32-bit floats.
_MIN_REPETITION_PENALTY = 0.01

_without_effect = Field(description="Accepted for compatibility; has no effect here.")
Accepted = Annotated[Any, _without_effect]
# A wrong type is a mistake that would show only where the field has an effect; better that it shows here.
AcceptedText = Annotated[str | None, _without_effect]
AcceptedFlag = Annotated[bool | None, _without_effect]
AcceptedMap = Annotated[Annotated[dict[str, str], MaxLen(MAX_METADATA)] | None, _without_effect]


def refused(*harmless: object) -> AfterValidator:
    """Refuses a field of OpenAI's that has no effect here yet, unless its value asks for nothing."""

    def check(value: object, info: ValidationInfo) -> object:
        if value is None or value in harmless:
            return value
        message = "'{field}' is not supported by this server; leave it out."
        raise PydanticCustomError("unsupported", message, {"field": info.field_name})

    return AfterValidator(check)


def is_refused(field: FieldInfo) -> bool:
    """Whether a field is one that `refused` refuses."""
    return (field.description or "").startswith("Refused")


def is_ignored(field: FieldInfo) -> bool:
    """Whether a field is accepted without effect."""
    return bool(field.description == _without_effect.description)


# The defaults that clients spell out without meaning anything by them are let through.
Refused = Annotated[Any, refused([], {}, False, "none"), Field(description="Refused unless empty.")]
RefusedBestOf = Annotated[Any, refused(1), Field(description="Refused but for 1.")]
RefusedText = Annotated[Any, refused(""), Field(description="Refused unless empty.")]
RefusedModalities = Annotated[Any, refused(["text"]), Field(description='Refused but for ["text"].')]

StopString = Annotated[str, MinLen(1), MaxLen(MAX_STOP_LENGTH)]
TokenId = Annotated[int, Ge(0)]


class StreamOptions(Schema):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = Field(None, description="With include_usage: in every chunk, so far.")
    include_obfuscation: AcceptedFlag = None

    @model_validator(mode="after")
    def _continuous_usage_is_usage(self) -> StreamOptions:
        if self.continuous_usage_stats and not self.include_usage:
            message = "'continuous_usage_stats' is only allowed when 'include_usage' is true."
            raise conflict("continuous_usage_stats", message)
        return self


class GenerationRequest(StructuredRequest):
    """What chat and plain completions have in common."""

    model: str | None = Field(None, description="The served model's name; may be left out, as there is one.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Ge(1), Le(MAX_CHOICES)] | None = None

    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    top_k: Annotated[int, Ge(-1), Le(_MAX_TOP_K)] | None = Field(None, description="0 or -1 switches it off.")
    min_p: Annotated[float, Ge(0), Le(1)] | None = None
    seed: Annotated[int, Ge(_MIN_SEED), Le(_MAX_SEED)] | None = None
    repetition_penalty: Annotated[float, Ge(_MIN_REPETITION_PENALTY), Le(10)] | None = None
    presence_penalty: Annotated[float, Ge(-2), Le(2)] | None = None
    frequency_penalty: Annotated[float, Ge(-2), Le(2)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Ge(-100), Le(100)]], MaxLen(MAX_LOGIT_BIASES)] | None = None

    max_tokens: Annotated[int, Ge(1)] | None = None
    min_tokens: Annotated[int, Ge(0)] | None = None
    ignore_eos: bool | None = None
    stop: StopString | Annotated[list[StopString], MaxLen(MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], MaxLen(MAX_STOP_TOKEN_IDS)] | None = None

    return_token_ids: bool | None = Field(None, description="Also tell the ids of the prompt's and answer's tokens.")
    priority: Annotated[int, Ge(_MIN_PRIORITY), Le(_MAX_PRIORITY)] | None = Field(None, description="Lower goes first.")
    user: AcceptedText = None

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise conflict("stream_options", "'stream_options' is only allowed when 'stream' is true.")
        return self

    @model_validator(mode="after")
    def _a_grammar_ends_the_answer(self) -> GenerationRequest:
        check_company(self.grammar_fields, {"min_tokens": bool(self.min_tokens), "ignore_eos": bool(self.ignore_eos)})
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that tells the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether every chunk of a stream tells the usage so far."""
        return self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)

    @property
    def stops(self) -> list[str]:
        """The stop strings, however they were sent."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class ChatTemplateKwargs(Schema):
    """What a request may tell the chat template; published templates know these, each a few of them."""

    enable_thinking: bool | None = None
    thinking: bool | None = Field(None, description="The same under DeepSeek's name.")
    preserve_thinking: bool | None = None
    clear_thinking: bool | None = None
    tools_in_user_message: bool | None = None
    date_string: Annotated[str, MaxLen(100)] | None = None

    @property
    def wants_thinking(self) -> bool | None:
        """Whether there shall be a thought, under either name."""
        return self.thinking if self.enable_thinking is None else self.enable_thinking

    @property
    def variables(self) -> dict[str, bool | str]:
        """What is the template's alone to understand."""
        return self.model_dump(exclude_none=True, exclude={"enable_thinking", "thinking"})


class TextPart(BaseModel):
    model_config = ConfigDict(strict=True)

    type: Literal["text"]
    text: str


class CalledFunction(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    name: Annotated[str, MinLen(1)]
    arguments: str = Field(description="A JSON object, as text; empty for none.")

    @model_validator(mode="after")
    def _arguments_are_an_object(self) -> CalledFunction:
        self.arguments = self.arguments or "{}"
        if not is_json_object(self.arguments):
            raise conflict("arguments", "The 'arguments' of a tool call must be a JSON object, written as text.")
        return self


class ToolCall(BaseModel):
    """A call that an earlier answer made."""

    model_config = ConfigDict(strict=True, extra="ignore")

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(BaseModel):
    """One turn. Unknown fields are let through: clients send answers back with whatever else those carried."""

    model_config = ConfigDict(strict=True, extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Annotated[TextPart, known_types("Content", "text")]] | None = None
    reasoning_content: str | None = Field(None, description="An earlier answer's thought.")
    reasoning: str | None = Field(None, description="The same under its other name.")
    name: Accepted = None
    tool_call_id: str | None = Field(None, description="Of role tool: the call that this is the result of.")
    tool_calls: list[Annotated[ToolCall, known_types("A tool call", "function")]] | None = None
    function_call: Refused = None

    @model_validator(mode="after")
    def _content_is_needed(self) -> ChatMessage:
        if self.content is None and self.role != "assistant":
            raise conflict("content", f"A message of role '{self.role}' needs 'content'.")
        if self.tool_calls and self.role != "assistant":
            raise conflict("tool_calls", "'tool_calls' belongs to messages of role 'assistant'.")
        return self

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class ChatCompletionRequest(GenerationRequest, ToolRequest):
    messages: Annotated[list[ChatMessage], MinLen(1), MaxLen(MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Ge(1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Ge(0), Le(MAX_LOGPROBS)] | None = None

    thinking_token_budget: Annotated[int, Ge(0)] | None = Field(None, description="Tokens the thought may have.")
    max_thinking_tokens: Annotated[int, Ge(0)] | None = Field(None, description="The same under its other name.")
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    enable_thinking: bool | None = Field(None, description="False closes the thought before it begins.")
    chat_template_kwargs: ChatTemplateKwargs | None = None
    loop_guard: bool | None = Field(None, description="Whether a thought that repeats itself is closed.")

    add_generation_prompt: bool | None = Field(None, description="False: the prompt ends behind the last message.")
    continue_final_message: bool | None = Field(None, description="Go on inside the last message, an assistant's.")

    vote: bool | None = Field(None, description="Count the boxed answers of all choices.")

    metadata: AcceptedMap = None
    store: AcceptedFlag = None
    service_tier: AcceptedText = None
    safety_identifier: AcceptedText = None
    prompt_cache_key: AcceptedText = None
    prompt_cache_retention: AcceptedText = None
    prompt_cache_options: Accepted = None
    verbosity: AcceptedText = None

    functions: Refused = None
    function_call: Refused = None
    modalities: RefusedModalities = None
    audio: Refused = None
    moderation: Refused = None
    prediction: Refused = None
    web_search_options: Refused = None

    @model_validator(mode="after")
    def _fields_agree(self) -> ChatCompletionRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise conflict("top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true.")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise conflict("max_tokens", "'max_tokens' and 'max_completion_tokens' differ; send one of them.")
        if self.vote and self.stream:
            raise conflict("vote", "'vote' needs all choices complete, so it is not allowed when 'stream' is true.")
        budgets = {self.thinking_token_budget, self.max_thinking_tokens} - {None}
        if len(budgets) > 1:
            message = "'thinking_token_budget' and 'max_thinking_tokens' differ; send one of them."
            raise conflict("thinking_token_budget", message)
        if self.continue_final_message and self.add_generation_prompt:
            message = "'continue_final_message' and 'add_generation_prompt' cannot both be true."
            raise conflict("continue_final_message", message)
        if self.enable_thinking is not None and self._template_wish not in (None, self.enable_thinking):
            message = "'enable_thinking' and 'chat_template_kwargs.enable_thinking' differ; send one of them."
            raise conflict("enable_thinking", message)
        return self

    @model_validator(mode="after")
    def _a_call_ends_the_answer(self) -> ChatCompletionRequest:
        forced = ["tool_choice"] if self.must_call else []
        check_company(forced, {"min_tokens": bool(self.min_tokens), "ignore_eos": bool(self.ignore_eos)})
        return self

    @property
    def _template_wish(self) -> bool | None:
        return self.chat_template_kwargs.wants_thinking if self.chat_template_kwargs else None

    @property
    def thinking_budget(self) -> int | None:
        """The most tokens the sender wants the thought to have, under either name."""
        return self.max_thinking_tokens if self.thinking_token_budget is None else self.thinking_token_budget

    @property
    def wants_thinking(self) -> bool | None:
        """Whether the sender wants a thought, under either name; None where nothing was said."""
        return self._template_wish if self.enable_thinking is None else self.enable_thinking

    @property
    def token_limit(self) -> int | None:
        """How many tokens the sender wants at most, under either name."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def token_limit_name(self) -> str:
        """The name under which the sender said so."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    @property
    def num_logprobs(self) -> int | None:
        """`SamplingParams.num_logprobs`."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(GenerationRequest):
    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    logprobs: Annotated[int, Ge(0), Le(MAX_LOGPROBS)] | None = None

    max_tokens: Annotated[int, Ge(0)] | None = Field(None, description="0 with echo alone.")
    echo: bool | None = Field(None, description="Begin the text, and the log-probabilities, with the prompt.")
    suffix: RefusedText = None
    best_of: RefusedBestOf = None

    @model_validator(mode="after")
    def _nothing_to_generate_is_an_echo(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise conflict("max_tokens", "'max_tokens' is 0, which is only allowed when 'echo' is true.")
        return self

    @property
    def token_limit(self) -> int | None:
        """How many tokens the sender wants at most."""
        return self.max_tokens

    @property
    def token_limit_name(self) -> str:
        """The name under which the sender said so."""
        return "max_tokens"

    @property
    def num_logprobs(self) -> int | None:
        """`SamplingParams.num_logprobs`."""
        return self.logprobs
