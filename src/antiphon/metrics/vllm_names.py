"""The same values under vLLM's names, for dashboards and tools that were made for vLLM (`--metrics-aliases vllm`).

Among them is all that the endpoint picker of Kubernetes' Gateway API inference extension reads: queue length, running
requests, use of the KV cache, size of its blocks, and LoRA adapters (of which there are none). The names are those of
vLLM's documentation, "Production Metrics"; some that it gave up are among them, since dashboards still have them. What
vLLM measures and this server does not is missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import Metric

from antiphon.metrics.families import PREFIX

VLLM = "vllm:"
_KEPT = ("engine", "le")  # the labels that vLLM has too; over the others the values are added up


@dataclass(frozen=True, slots=True)
class Alias:
    """A metric of vLLM's that has the values of one of ours."""

    name: str  # both without prefix, counters without _total
    source: str
    text: str


ALIASES = (
    Alias("num_requests_running", "sequences_running", "Requests that the engine is computing."),
    Alias("num_requests_waiting", "sequences_waiting", "Requests waiting in the engine."),
    Alias("kv_cache_usage_perc", "kv_cache_usage_ratio", "Share of the KV cache in use, 0 to 1."),
    Alias("gpu_cache_usage_perc", "kv_cache_usage_ratio", "The earlier name of kv_cache_usage_perc."),
    Alias("prefix_cache_queries", "prefix_cache_queries", "Prompt tokens looked up in the prefix cache."),
    Alias("prefix_cache_hits", "prefix_cache_hits", "Prompt tokens found in the prefix cache."),
    Alias("num_preemptions", "preemptions", "Preempted requests."),
    Alias("prompt_tokens", "prompt_tokens", "Prompt tokens."),
    Alias("prompt_tokens_cached", "prompt_tokens_cached", "Prompt tokens from the prefix cache."),
    Alias("generation_tokens", "generated_tokens", "Generated tokens."),
    Alias("time_to_first_token_seconds", "time_to_first_token_seconds", "Time to the first token."),
    Alias("inter_token_latency_seconds", "inter_token_latency_seconds", "Time between two tokens."),
    Alias(
        "time_per_output_token_seconds",
        "inter_token_latency_seconds",
        "The earlier name of inter_token_latency_seconds.",
    ),
    Alias(
        "request_time_per_output_token_seconds", "time_per_output_token_seconds", "Mean time per token of a request."
    ),
    Alias("e2e_request_latency_seconds", "request_duration_seconds", "Time from arrival to end of a request."),
    Alias("request_queue_time_seconds", "queue_wait_seconds", "Time that a request waited."),
    Alias("request_prompt_tokens", "request_prompt_tokens", "Prompt tokens of a request."),
    Alias("request_generation_tokens", "request_generated_tokens", "Generated tokens of a request."),
)
# Reason → the families whose samples count as it, and one of their labels and its values, or nothing.
_REASONS: Mapping[str, tuple[str, tuple[str, tuple[str, ...]] | None]] = {
    "stop": ("choices_finished", ("finish_reason", ("stop", "tool_calls"))),
    "length": ("choices_finished", ("finish_reason", ("length",))),
    "abort": ("requests_aborted", None),
    "error": ("requests_failed", None),
}


def vllm_families(families: Iterable[Metric], model: str) -> Iterator[Metric]:
    """vLLM's metrics with the values in `families`, which are one scrape; `model` is the label `model_name`."""
    found = {family.name.removeprefix(PREFIX): family for family in families}
    for alias in ALIASES:
        yield _renamed(found[alias.source], alias, model)
    yield _request_success(found, model)
    yield _cache_config(found)
    yield _lora()


def _renamed(family: Metric, alias: Alias, model: str) -> Metric:
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for sample in family.samples:
        labels = tuple((name, sample.labels[name]) for name in _KEPT if name in sample.labels)
        series = (sample.name.removeprefix(family.name), labels)
        values[series] = values.get(series, 0.0) + sample.value
    renamed = Metric(VLLM + alias.name, alias.text, family.type)
    for (suffix, labels), value in values.items():
        renamed.add_sample(renamed.name + suffix, {"model_name": model, **dict(labels)}, value)
    return renamed


def _request_success(found: Mapping[str, Metric], model: str) -> Metric:
    family = Metric(f"{VLLM}request_success", "Requests that ended, by reason; each choice counts.", "counter")
    for reason, (source, condition) in _REASONS.items():
        total = sum(
            sample.value
            for sample in found[source].samples
            if condition is None or sample.labels[condition[0]] in condition[1]
        )
        family.add_sample(f"{family.name}_total", {"model_name": model, "finished_reason": reason}, total)
    return family


def _cache_config(found: Mapping[str, Metric]) -> Metric:
    """Sizes as labels, as vLLM has them."""
    family = Metric(f"{VLLM}cache_config_info", "Always 1; the labels say how large the KV cache is.", "gauge")
    (block,) = (sample.value for sample in found["kv_block_tokens"].samples)
    blocks: dict[str, float] = {}
    for sample in found["kv_blocks"].samples:
        engine = sample.labels["engine"]
        blocks[engine] = blocks.get(engine, 0.0) + sample.value
    for engine, count in blocks.items():
        labels = {"engine": engine, "block_size": str(int(block)), "num_gpu_blocks": str(int(count))}
        family.add_sample(family.name, labels, 1.0)
    return family


def _lora() -> Metric:
    """No adapters; the value is the time of the scrape, from which a reader sees the latest series."""
    family = Metric(f"{VLLM}lora_requests_info", "LoRA adapters: none. The value is the present time.", "gauge")
    labels = {"max_lora": "0", "running_lora_adapters": "", "waiting_lora_adapters": ""}
    family.add_sample(family.name, labels, time.time())
    return family
