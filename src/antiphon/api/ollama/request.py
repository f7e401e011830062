"""The request bodies of Ollama's API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import BeforeValidator, Field

from antiphon.api.fields import Accepted, DegradeWish, Integer, MaxWait, Refused, StopString, Timeout, refused
from antiphon.api.ignored import known_tools
from antiphon.api.limits import MAX_MESSAGES, MAX_STOPS, MAX_TOOLS
from antiphon.api.schema import Schema, known_types
from antiphon.api.tools import Tool


def _unless_below_zero(value: object) -> object:
    """-1 means no limit and -2 means as many as fit in the context, which is the same here."""
    return None if value in (-1, -2) and not isinstance(value, bool) else value


class Options(Schema):
    """Sampling options. Options that only affect Ollama's own runner are accepted without effect."""

    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_k: Annotated[Integer, Ge(0), Le((1 << 31) - 1)] | None = None
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    min_p: Annotated[float, Ge(0), Le(1)] | None = None
    seed: Annotated[Integer | None, BeforeValidator(lambda seed: None if seed == -1 else seed)] = None
    num_predict: Annotated[Annotated[Integer, Ge(1)] | None, BeforeValidator(_unless_below_zero)] = Field(
        None, description="-1 and -2: as many as fit in the context."
    )
    stop: Annotated[list[StopString], MaxLen(MAX_STOPS)] | StopString | None = None
    repeat_penalty: Annotated[float, Ge(0.01), Le(10)] | None = None
    presence_penalty: Annotated[float, Ge(-2), Le(2)] | None = None
    frequency_penalty: Annotated[float, Ge(-2), Le(2)] | None = None
    num_ctx: Accepted = None
    num_keep: Accepted = None
    num_batch: Accepted = None
    num_gpu: Accepted = None
    num_thread: Accepted = None
    main_gpu: Accepted = None
    use_mmap: Accepted = None
    numa: Accepted = None
    low_vram: Accepted = None
    repeat_last_n: Accepted = None
    typical_p: Accepted = None
    tfs_z: Accepted = None
    mirostat: Annotated[Any, refused(0), Field(description="Refused unless 0.")] = None
    mirostat_tau: Accepted = None
    mirostat_eta: Accepted = None
    penalize_newline: Accepted = None


class CalledFunction(Schema):
    name: Annotated[str, MinLen(1)]
    arguments: dict[str, Any] = Field(default_factory=dict)
    index: Accepted = None
    description: Accepted = None


class ToolCall(Schema):
    function: CalledFunction
    id: str | None = None
    type: Accepted = None


class Message(Schema):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = Field(None, description="With role tool: the function that returned this result.")
    tool_call_id: str | None = None
    images: Refused = None


class GenerationRequest(Schema):
    """The fields that both endpoints share."""

    model: str = ""
    stream: bool | None = Field(None, description="True by default.")
    think: bool | Literal["low", "medium", "high"] | None = None
    format: Literal["json", ""] | dict[str, Any] | None = Field(None, description='"json", or a JSON Schema.')
    options: Options | None = None
    max_wait: MaxWait = None
    timeout: Timeout = None
    degrade: DegradeWish = None
    keep_alive: Accepted = None
    logprobs: Annotated[Any, refused(False), Field(description="Refused unless false.")] = None
    top_logprobs: Annotated[Any, refused(0), Field(description="Refused unless 0.")] = None
    truncate: Accepted = None
    shift: Accepted = None

    @property
    def is_streamed(self) -> bool:
        """Whether to stream; Ollama's default is true."""
        return self.stream is not False


class OllamaChatRequest(GenerationRequest):
    """The body of `POST /api/chat`. Without messages it only loads the model, which is always loaded here."""

    messages: Annotated[list[Message], MaxLen(MAX_MESSAGES)] = Field(default_factory=list)
    tools: (
        Annotated[
            list[Annotated[Tool, known_types("A tool", "function", default="function")]],
            MaxLen(MAX_TOOLS),
            known_tools("function"),
        ]
        | None
    ) = None


class OllamaGenerateRequest(GenerationRequest):
    """The body of `POST /api/generate`. Without a prompt it only loads the model, which is always loaded here."""

    prompt: str = ""
    system: str | None = None
    raw: bool | None = Field(None, description="True: continue the prompt without the chat template.")
    template: Annotated[Any, refused(""), Field(description="Refused unless empty.")] = None
    suffix: Annotated[Any, refused(""), Field(description="Refused unless empty.")] = None
    images: Refused = None
    context: Accepted = None


class OllamaShowRequest(Schema):
    """The body of `POST /api/show`."""

    model: str = ""
    name: str = Field("", description="An older name of model.")
    verbose: Accepted = None
