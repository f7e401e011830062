"""Decoding steps of a Qwen2 model with random weights by transformers, in bfloat16, to compare with ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from shapes import ModelShape
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM, StaticCache

MOST_CALLS = 32  # of a step, to warm up, to capture it and to measure it
Timer = Callable[[Callable[[], Any]], float]  # the median seconds of what it calls


def decoding_steps(
    shape: ModelShape, users: Sequence[int], contexts: Sequence[int], device: str, seconds_of: Timer
) -> Iterator[tuple[int, int, str, float]]:
    """(users, context, kind, seconds) of a step.

    Kinds: "eager", as `generate` does by default; "static", with a cache that is allocated at once; and on a GPU, if
    that works, "captured": the same in a CUDA graph.
    """
    place = torch.device("cpu" if device == "interpreter" else device)
    config, model = _model(shape, place)
    for count in users:
        for context in contexts:
            tokens = torch.zeros((count, 1), dtype=torch.long, device=place)
            yield count, context, "eager", seconds_of(_eager_step(model, tokens, context))
            step = _static_step(model, config, tokens, context)
            if place.type == "cpu":
                yield count, context, "static", seconds_of(step)
                continue
            try:
                yield count, context, "captured", seconds_of(_captured(step, place))
            except RuntimeError as error:  # an operation that cannot be captured
                print("transformers: not captured:", str(error).splitlines()[0])
            torch.cuda.empty_cache()


def _model(shape: ModelShape, place: torch.device) -> tuple[Any, Any]:
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.dim,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
        dtype=torch.bfloat16,
    )
    torch.manual_seed(0)
    with place:
        return config, Qwen2ForCausalLM(config).to(torch.bfloat16).eval()


def _eager_step(model: Any, tokens: torch.Tensor, context: int) -> Callable[[], Any]:
    """A step after which its token is removed from the cache, so that all have the same context."""
    cache = DynamicCache()

    def forward(input_ids: torch.Tensor) -> Any:
        with torch.inference_mode():
            return model(input_ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits.argmax(-1)

    def step() -> None:
        forward(tokens)
        cache.crop(-1)

    forward(tokens.expand(-1, context))
    assert cache.get_seq_length() == context
    return step


def _static_step(model: Any, config: Any, tokens: torch.Tensor, context: int) -> Callable[[], Any]:
    """A step with a cache that is allocated at once. It masks what it does not hold yet, and multiplies it all."""
    cache = StaticCache(config=config, max_cache_len=context + MOST_CALLS)  # each call adds a token
    position = torch.full(tokens.shape, context, device=tokens.device)

    def step() -> Any:
        arguments = {"past_key_values": cache, "position_ids": position, "use_cache": True, "logits_to_keep": 1}
        with torch.inference_mode():
            return model(tokens, **arguments).logits.argmax(-1)

    return step


def _captured(step: Callable[[], Any], place: torch.device) -> Callable[[], Any]:
    with torch.cuda.device(place):
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            step()  # allocates the cache, and chooses kernels
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    return lambda: graph.replay()
