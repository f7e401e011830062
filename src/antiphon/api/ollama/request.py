"""The bodies of Ollama's API, as its clients send them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import BeforeValidator, Field

from antiphon.api.fields import Accepted, Integer, Refused, StopString, refused
from antiphon.api.ignored import known_tools
from antiphon.api.limits import MAX_MESSAGES, MAX_STOPS, MAX_TOOLS
from antiphon.api.schema import Schema, known_types
from antiphon.api.tools import Tool


def _unless_below_zero(value: object) -> object:
    """-1 is "no limit", and -2 "what the context leaves", which is the same here."""
    return None if value in (-1, -2) and not isinstance(value, bool) else value


class Options(Schema):
    """Sampling. What Ollama's runner alone has an effect on is accepted without one."""

    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_k: Annotated[Integer, Ge(0), Le((1 << 31) - 1)] | None = None
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    min_p: Annotated[float, Ge(0), Le(1)] | None = None
    seed: Annotated[Integer | None, BeforeValidator(lambda seed: None if seed == -1 else seed)] = None
    num_predict: Annotated[Annotated[Integer, Ge(1)] | None, BeforeValidator(_unless_below_zero)] = Field(
        None, description="-1 and -2: what the context leaves."
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
    mirostat: Annotated[Any, refused(0), Field(description="Refused but for 0.")] = None
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
    tool_name: str | None = Field(None, description="Of role tool: the function that this is the result of.")
    tool_call_id: str | None = None
    images: Refused = None


class GenerationRequest(Schema):
    """What both endpoints have in common."""

    model: str = ""
    stream: bool | None = Field(None, description="True by default.")
    think: bool | Literal["low", "medium", "high"] | None = None
    format: Literal["json", ""] | dict[str, Any] | None = Field(None, description='"json", or a JSON Schema.')
    options: Options | None = None
    keep_alive: Accepted = None
    logprobs: Annotated[Any, refused(False), Field(description="Refused but for false.")] = None
    top_logprobs: Annotated[Any, refused(0), Field(description="Refused but for 0.")] = None
    truncate: Accepted = None
    shift: Accepted = None

    @property
    def is_streamed(self) -> bool:
        """Ollama streams unless it is told not to."""
        return self.stream is not False


class OllamaChatRequest(GenerationRequest):
    """The body of `POST /api/chat`; without messages it only loads the model, which is loaded."""

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
    """The body of `POST /api/generate`; without a prompt it only loads the model, which is loaded."""

    prompt: str = ""
    system: str | None = None
    raw: bool | None = Field(None, description="True: no chat template; the prompt is continued as it stands.")
    template: Annotated[Any, refused(""), Field(description="Refused unless empty.")] = None
    suffix: Annotated[Any, refused(""), Field(description="Refused unless empty.")] = None
    images: Refused = None
    context: Accepted = None


class OllamaShowRequest(Schema):
    """The body of `POST /api/show`."""

    model: str = ""
    name: str = Field("", description="An older name of model.")
    verbose: Accepted = None
