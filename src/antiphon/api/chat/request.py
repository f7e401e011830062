"""The body of `POST /v1/chat/completions`: OpenAI's fields, and fields that vLLM and llama.cpp users know."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import (
    ConfigDict,
    Field,
    model_validator,
)

from antiphon.api.fields import (
    Accepted,
    AcceptedFlag,
    AcceptedMap,
    AcceptedText,
    Integer,
    Refused,
    RefusedModalities,
    TokenLimit,
    refused,
)
from antiphon.api.generation_request import GenerationRequest
from antiphon.api.limits import MAX_LOGPROBS, MAX_MESSAGES
from antiphon.api.schema import Checked, Schema, conflict, known_types
from antiphon.api.structured import check_company
from antiphon.api.tools import ToolRequest


class ChatTemplateKwargs(Schema):
    """Variables that a request may set for the chat template. Published templates use some of them."""

    enable_thinking: bool | None = None
    thinking: bool | None = Field(None, description="The same under DeepSeek's name.")
    preserve_thinking: bool | None = None
    clear_thinking: bool | None = None
    tools_in_user_message: bool | None = None
    date_string: Annotated[str, MaxLen(100)] | None = None

    @property
    def wants_thinking(self) -> bool | None:
        """Whether to think, under either name."""
        return self.thinking if self.enable_thinking is None else self.enable_thinking

    @property
    def variables(self) -> dict[str, bool | str]:
        """The variables that only the template uses."""
        return self.model_dump(exclude_none=True, exclude={"enable_thinking", "thinking"})


class TextPart(Checked):
    model_config = ConfigDict(strict=True)

    type: Literal["text"]
    text: str


class CalledFunction(Checked):
    model_config = ConfigDict(strict=True, extra="ignore")

    name: Annotated[str, MinLen(1)]
    arguments: str = Field(description="A JSON object as text, or empty. Other text is shown to the model unchanged.")


class ToolCall(Checked):
    """A call in an earlier answer."""

    model_config = ConfigDict(strict=True, extra="ignore")

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Schema):
    """One message. Further fields of answers are accepted, since clients send answers back."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Annotated[TextPart, known_types("Content", "text")]] | None = None
    reasoning_content: str | None = Field(None, description="An earlier answer's thought.")
    reasoning: str | None = Field(None, description="The same under its other name.")
    name: Accepted = None
    tool_call_id: str | None = Field(None, description="With role tool: the call that returned this result.")
    tool_calls: list[Annotated[ToolCall, known_types("A tool call", "function", default="function")]] | None = None
    function_call: Refused = None
    refusal: Accepted = None
    annotations: Accepted = None
    audio: Accepted = None
    provider_specific_fields: Accepted = None
    cache_control: Accepted = None

    @model_validator(mode="after")
    def _content_is_needed(self) -> ChatMessage:
        if self.content is None and self.role not in ("assistant", "tool"):
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


ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ReasoningWish(Schema):
    """The `reasoning` field of OpenRouter and of OpenAI's Responses API."""

    effort: ReasoningEffort | None = None
    max_tokens: TokenLimit = None
    enabled: bool | None = None
    exclude: Annotated[Any, refused(False), Field(description="Refused unless false.")] = None
    summary: AcceptedText = None


class ThinkingField(Schema):
    """Anthropic's `thinking` field."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: TokenLimit = None


# Names of the same field: vLLM's and two that others use.
THOUGHT_LIMITS = ("thinking_token_budget", "max_thinking_tokens", "thinking_budget")


class ChatCompletionRequest(GenerationRequest, ToolRequest):
    messages: Annotated[list[ChatMessage], MinLen(1), MaxLen(MAX_MESSAGES)]
    max_completion_tokens: TokenLimit = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Integer, Ge(0), Le(MAX_LOGPROBS)] | None = None

    thinking_token_budget: Annotated[Integer, Ge(0)] | None = Field(
        None, description="The maximum number of tokens of the thought."
    )
    max_thinking_tokens: Annotated[Integer, Ge(0)] | None = Field(None, description="The same under another name.")
    thinking_budget: Annotated[Integer, Ge(0)] | None = Field(None, description="The same under another name.")
    reasoning_effort: ReasoningEffort | None = Field(
        None, description="xhigh and max: as much as max_tokens allows. No effect on a model that does not think."
    )
    enable_thinking: bool | None = Field(None, description="False closes the thought before it begins.")
    reasoning: ReasoningWish | None = Field(
        None, description="Another form of reasoning_effort and thinking_token_budget."
    )
    thinking: ThinkingField | None = Field(
        None, description="Another form of enable_thinking and thinking_token_budget."
    )
    chat_template_kwargs: ChatTemplateKwargs | None = None
    loop_guard: bool | None = Field(None, description="Whether to close a thought that repeats itself.")

    add_generation_prompt: bool | None = Field(None, description="False: the prompt ends after the last message.")
    continue_final_message: bool | None = Field(
        None, description="Continue the last message, which must be the assistant's."
    )

    vote: bool | None = Field(None, description="Count the boxed answers of all choices.")

    metadata: AcceptedMap = None
    store: AcceptedFlag = None
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
    def _take_other_names(self) -> ChatCompletionRequest:
        """Apply other APIs' fields for thinking, unless chat's own fields are set."""
        if self.reasoning is not None:
            self.reasoning_effort = self.reasoning_effort or self.reasoning.effort
            if self.reasoning.enabled is False:
                self.reasoning_effort = "none"
        off = self.thinking is not None and self.thinking.type == "disabled"
        if off and self.enable_thinking is None:
            self.enable_thinking = False
        if self.thought_limit is None and self.thinking is not None:
            self.thinking_token_budget = self.thinking.budget_tokens
        if self.thought_limit is None and self.reasoning is not None:
            self.thinking_token_budget = self.reasoning.max_tokens
        return self

    @model_validator(mode="after")
    def _fields_agree(self) -> ChatCompletionRequest:
        if self.top_logprobs and not self.logprobs:
            raise conflict("top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true.")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise conflict("max_tokens", "'max_tokens' and 'max_completion_tokens' differ; send one of them.")
        if self.vote and self.stream:
            raise conflict("vote", "'vote' needs all choices complete, so it is not allowed when 'stream' is true.")
        given = [name for name in THOUGHT_LIMITS if getattr(self, name) is not None]
        if len({getattr(self, name) for name in given}) > 1:
            raise conflict(given[0], f"{' and '.join(map(repr, given))} differ; send one of them.")
        if self.continue_final_message and self.add_generation_prompt:
            message = "'continue_final_message' and 'add_generation_prompt' cannot both be true."
            raise conflict("continue_final_message", message)
        if self.enable_thinking is not None and self._template_thinking not in (None, self.enable_thinking):
            message = "'enable_thinking' and 'chat_template_kwargs.enable_thinking' differ; send one of them."
            raise conflict("enable_thinking", message)
        return self

    @model_validator(mode="after")
    def _a_call_ends_the_answer(self) -> ChatCompletionRequest:
        forced = ["tool_choice"] if self.must_call else []
        check_company(forced, {"min_tokens": bool(self.min_tokens), "ignore_eos": bool(self.ignore_eos)})
        return self

    @property
    def _template_thinking(self) -> bool | None:
        return self.chat_template_kwargs.wants_thinking if self.chat_template_kwargs else None

    @property
    def thought_limit(self) -> int | None:
        """The maximum number of tokens of the thought, under any of its names."""
        given = (getattr(self, name) for name in THOUGHT_LIMITS)
        return next((limit for limit in given if limit is not None), None)

    @property
    def wants_thinking(self) -> bool | None:
        """Whether the client wants a thought, under either name; None if it is not specified."""
        return self._template_thinking if self.enable_thinking is None else self.enable_thinking

    @property
    def token_limit(self) -> int | None:
        """The requested maximum number of tokens, under either name."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def num_logprobs(self) -> int | None:
        """`SamplingParams.num_logprobs`."""
        return (self.top_logprobs or 0) if self.logprobs else None
