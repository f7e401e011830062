"""The names of spans' attributes, and the attributes of a request.

The names are those of OpenTelemetry's semantic conventions for generative AI and for HTTP. Latencies also have vLLM's
names, so that dashboards built for vLLM work. What neither has begins with `antiphon.`. No attribute contains a prompt,
an answer, a stop string or a key.

Sources: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ and
https://opentelemetry.io/docs/specs/semconv/http/http-spans/, both of 2026; vLLM's `vllm/tracing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from antiphon.request import SamplingParams

Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value]

OPERATION, PROVIDER = "gen_ai.operation.name", "gen_ai.provider.name"
REQUEST_MODEL, RESPONSE_MODEL = "gen_ai.request.model", "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHED_TOKENS, REASONING_TOKENS = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.reasoning.output_tokens"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"  # seconds, as are the latencies
TIME_TO_FIRST_TOKEN = "gen_ai.latency.time_to_first_token"  # noqa: S105
TIME_IN_QUEUE = "gen_ai.latency.time_in_queue"
TIME_IN_PREFILL = "gen_ai.latency.time_in_model_prefill"
TIME_IN_DECODE = "gen_ai.latency.time_in_model_decode"
END_TO_END = "gen_ai.latency.e2e"
HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS = "http.request.method", "http.route", "http.response.status_code"
URL_SCHEME = "url.scheme"
ERROR_TYPE = "error.type"
REQUEST_ID, KEY, ENDPOINT, OUTCOME = "antiphon.request.id", "antiphon.key", "antiphon.endpoint", "antiphon.outcome"
IS_RETRY = "antiphon.request.is_retry"
PREDICTED_WAIT, DEGRADE_LEVEL = "antiphon.predicted_wait", "antiphon.degrade_level"
ENGINE, CHOICE, REASON = "antiphon.engine", "antiphon.choice", "antiphon.reason"

# Endpoints, as the metrics name them, that continue a text; the others answer a conversation.
_TEXT_COMPLETIONS = ("completions", "llama_completion", "ollama_generate")


def endpoint_attributes(endpoint: str) -> dict[str, Value]:
    """What is known of a generation from its endpoint, as the metrics name it."""
    operation = "text_completion" if endpoint in _TEXT_COMPLETIONS else "chat"
    return {ENDPOINT: endpoint, OPERATION: operation, PROVIDER: "antiphon"}


def request_attributes(
    model: str, request_id: str, sampling: SamplingParams, *, num_choices: int, num_prompts: int, is_streamed: bool
) -> dict[str, Value]:
    """What an accepted request asks for. The sampling parameters are those in effect, defaults included."""
    attributes: dict[str, Value] = {
        REQUEST_MODEL: model,
        RESPONSE_MODEL: model,
        "gen_ai.request.id": request_id,  # vLLM's name; the id of the answer in OpenAI's APIs
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k,
        "gen_ai.request.presence_penalty": sampling.presence_penalty,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
        "gen_ai.request.choice.count": num_choices,
        "gen_ai.request.stream": is_streamed,
    }
    if num_prompts > 1:
        attributes["antiphon.request.prompt.count"] = num_prompts
    return attributes
