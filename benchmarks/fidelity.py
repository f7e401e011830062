#!/usr/bin/env python3
"""How far our arithmetic is from float32 over the same weights: mean KL divergence, likeliest token, perplexity.

    python benchmarks/fidelity.py MODEL.gguf
    python benchmarks/fidelity.py MODEL.gguf --kv-cache-type int8 f16 --activations auto int8 --windows 24

The judge is `transformers` in float32 on the GGUF file's own weights, dequantized by the `gguf` package, so that what
is measured is our rounding (activations, K/V cache, repacked weights) and not the checkpoint's. Each window of the text
is a sequence of its own, without a beginning-of-sequence token; our engine computes it token by token, as it decodes,
with several windows side by side. KL(float32 ‖ ours) is in nats, averaged over every position of every window;
perplexity is of each next token within its window. Needs the extra `fidelity`.

The text, unless `--text` names another: paragraphs of the Python language reference as every CPython carries them in
`pydoc_data.topics`, those of plain prose only (no code, no markup). Prints a table, and JSON on the last line.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from prose import prose
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from antiphon.checkpoint import Checkpoint
from antiphon.config import ACTIVATION_TYPES, INSTRUCTION_SETS, KV_CACHE_TYPES, EngineConfig
from antiphon.formats import open_checkpoint
from antiphon.loading.assembly import planned_for_this_machine
from antiphon.request import SamplingParams
from antiphon.runtime.cpu import CpuRunner, create_runner
from antiphon.step import SampleSpec, ScheduledSequence, StepPlan
from antiphon.text import TextModel

SIDE_BY_SIDE = 8  # windows computed at once; the judge's log-probabilities of all of them are held in memory
_GREEDY = SampleSpec(SamplingParams(temperature=0.0), choice_index=0, position=0)
_JUDGES = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
_OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass
class Distance:
    """How far one set of settings is from the judge, summed over the positions seen so far."""

    divergences: list[torch.Tensor] = field(default_factory=list)  # [windows] each
    agreements: int = 0  # positions where both find the same token likeliest
    surprise: float = 0.0  # of the text, to us, in nats
    judge_surprise: float = 0.0
    predicted: int = 0  # tokens of the text that had a position before them in their window

    def observe(self, judge: torch.Tensor, ours: torch.Tensor, following: torch.Tensor | None) -> None:
        """One position of several windows: log-probabilities [windows, vocabulary], next tokens [windows]."""
        self.divergences.append((judge.exp() * (judge - ours)).sum(-1, dtype=torch.float64))
        self.agreements += int((judge.argmax(-1) == ours.argmax(-1)).sum())
        if following is not None:
            self.surprise -= float(ours.gather(-1, following[:, None]).sum(dtype=torch.float64))
            self.judge_surprise -= float(judge.gather(-1, following[:, None]).sum(dtype=torch.float64))
            self.predicted += len(following)

    def report(self) -> dict[str, float]:
        divergences = torch.cat(self.divergences)
        perplexity, judge_perplexity = (math.exp(s / self.predicted) for s in (self.surprise, self.judge_surprise))
        return {
            "mean_kl": float(divergences.mean()),
            "p99_kl": float(divergences.quantile(0.99)),
            "same_top_token": self.agreements / len(divergences),
            "perplexity": perplexity,
            "judge_perplexity": judge_perplexity,
            "perplexity_ratio": perplexity / judge_perplexity,
        }


def cut_windows(checkpoint: Checkpoint, text: str, count: int, length: int) -> torch.Tensor:
    """The first `count` windows of `length` tokens of a text, [count, length]."""
    model = TextModel.from_checkpoint(checkpoint)
    try:
        token_ids = model.tokenizer.encode(text)
    finally:
        model.close()
    if len(token_ids) < count * length:
        raise SystemExit(f"the text has {len(token_ids)} tokens; {count} windows of {length} need {count * length}")
    return torch.tensor(token_ids[: count * length]).view(count, length)


def load_judge(checkpoint: Checkpoint) -> PreTrainedModel:
    """The checkpoint's GGUF file as a float32 model of `transformers`."""
    settings = checkpoint.settings
    names = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "vocab_size", "rms_norm_eps", "rope_theta", "max_position_embeddings", "tie_word_embeddings",
    )  # fmt: skip
    config, model_class = _JUDGES[checkpoint.architecture]
    model: PreTrainedModel = model_class(config(**{name: settings[name] for name in names})).float().eval()
    weights = {}
    for tensor in gguf.GGUFReader(checkpoint.path).tensors:
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
        weights[_judges_name(tensor.name)] = _judges_order(tensor.name, values, checkpoint)
    if settings["tie_word_embeddings"]:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights)
    return model


def _judges_name(name: str) -> str:
    if name == "output.weight":
        return "lm_head.weight"
    if name in _OUTER:
        return _OUTER[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{_INNER[part]}.{kind}"


def _judges_order(name: str, values: torch.Tensor, checkpoint: Checkpoint) -> torch.Tensor:
    """GGUF interleaves the rotated halves of Llama's queries and keys; here they lie one after the other."""
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(name.split(".")[-2])
    if checkpoint.architecture != "llama" or heads is None:
        return values
    rows = values.view(checkpoint.settings[heads], -1, 2, *values.shape[1:])  # [heads, head_dim / 2, 2, …]
    return rows.transpose(1, 2).reshape(values.shape)


def measure(path: Path, windows: torch.Tensor, setups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each of `setups`, which are fields of EngineConfig; all see the same windows and the same judge."""
    judge = load_judge(open_checkpoint(path))
    runners = [_runner(path, windows.shape[1], setup) for setup in setups]
    distances = [Distance() for _ in setups]
    for start in range(0, len(windows), SIDE_BY_SIDE):
        group = windows[start : start + SIDE_BY_SIDE]
        with torch.inference_mode():
            truth = torch.stack([judge(window[None]).logits[0].log_softmax(-1) for window in group])
        for runner, distance in zip(runners, distances, strict=True):
            follow(runner, group, [(truth, distance)])
        print(f"{start + len(group)} of {len(windows)} windows", file=sys.stderr)
    return [
        {**setup, **_chosen(runner), **distance.report()}
        for setup, runner, distance in zip(setups, runners, distances, strict=True)
    ]


def _runner(path: Path, length: int, setup: dict[str, Any]) -> CpuRunner:
    capacity = SIDE_BY_SIDE * -(-length // CpuRunner.block_size) * CpuRunner.block_size
    config = EngineConfig(model=str(path), max_num_sequences=SIDE_BY_SIDE, kv_cache_tokens=capacity, **setup)
    return create_runner(planned_for_this_machine(config))


def _chosen(runner: CpuRunner) -> dict[str, Any]:
    """What the settings came to."""
    about = runner.describe()
    return {name: about[name] for name in ("instruction_set", "weight_format", "activations", "kv_cache_type")}


def follow(runner: CpuRunner, group: torch.Tensor, judged: list[tuple[torch.Tensor, Distance]]) -> None:
    """Decode the windows of a group [windows, length] side by side and compare each position with each truth."""
    length = group.shape[1]
    blocks = -(-length // runner.block_size)
    for at in range(length):
        sequences = [
            ScheduledSequence(n, [int(window[at])], at, list(range(n * blocks, (n + 1) * blocks)), (_GREEDY,))
            for n, window in enumerate(group)
        ]
        runner.execute(StepPlan(sequences))
        ours = torch.from_numpy(runner.logits()).log_softmax(-1)
        for truth, distance in judged:
            distance.observe(truth[:, at], ours, group[:, at + 1] if at + 1 < length else None)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for people."""
    lines = [
        "| instruction set | weights | activations | KV | mean KL | 99 % KL | same top | perplexity | float32's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['instruction_set']} | {row['weight_format']} | {row['activations']} | {row['kv_cache_type']} "
            f"| {row['mean_kl']:.5f} | {row['p99_kl']:.4f} | {row['same_top_token']:.2%} "
            f"| {row['perplexity']:.3f} | {row['judge_perplexity']:.3f} ({row['perplexity_ratio'] - 1:+.2%}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--window-length", type=int, default=512, help="tokens")
    parser.add_argument("--text", type=Path, help="another text, UTF-8")
    parser.add_argument("--kv-cache-type", nargs="+", choices=KV_CACHE_TYPES, default=["int8"])
    parser.add_argument("--activations", nargs="+", choices=ACTIVATION_TYPES, default=["auto"])
    parser.add_argument("--instruction-set", nargs="+", choices=INSTRUCTION_SETS, default=["auto"])
    chosen = parser.parse_args()
    text = chosen.text.read_text(encoding="utf-8") if chosen.text else prose()
    windows = cut_windows(open_checkpoint(chosen.model), text, chosen.windows, chosen.window_length)
    setups = [
        {"kv_cache_type": kv, "activations": activations, "instruction_set": isa}
        for kv, activations, isa in product(chosen.kv_cache_type, chosen.activations, chosen.instruction_set)
    ]
    rows = measure(chosen.model, windows, setups)
    print(table(rows))
    about = {"model": chosen.model.name, "text": chosen.text.name if chosen.text else "pydoc_data.topics"}
    about |= {"windows": chosen.windows, "window_length": chosen.window_length, "python": sys.version.split()[0]}
    print(json.dumps({**about, "rows": rows}))


if __name__ == "__main__":
    main()
