"""Seeded Qwen2 models with key biases as large as published ones, and the KL divergence of our answers from float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tiny_models import cpu_runner, scheduled, tensor, tiny_model

from antiphon.checkpoint import Checkpoint
from antiphon.ops.reference import dequantize
from antiphon.runtime.cpu import CpuRunner
from antiphon.runtime.reference import ReferenceRunner
from antiphon.step import StepPlan

LAYERS, DIM, SLOW_PAIRS = 3, 128, np.arange(40, 64)  # pairs whose angles hardly change within the prompt
PROMPT = np.random.default_rng(5).integers(0, 330, 100).tolist()


def biased_model(length: float, num_pairs: int = 4) -> Checkpoint:
    """One KV head of 128 a layer; its bias has this length more, in so many pairs of slow dimensions."""
    checkpoint = tiny_model(
        seed=1,
        architecture="qwen2",
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=LAYERS,
        num_key_value_heads=1,
        head_dim=DIM,
        rope_theta=1e6,
    )
    rng, tensors = np.random.default_rng(101), dict(checkpoint.tensors)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}.self_attn.k_proj.bias"
        bias = dequantize(tensors[name]).copy()
        pairs = rng.choice(SLOW_PAIRS, num_pairs, replace=False)
        values = rng.standard_normal(2 * num_pairs)
        bias[[*pairs, *pairs + DIM // 2]] += (values * length / np.linalg.norm(values)).astype(np.float32)
        tensors[name] = tensor(name, bias)
    return replace(checkpoint, tensors=tensors)


def log_probabilities(runner: CpuRunner | ReferenceRunner) -> np.ndarray:
    """Of every token after each of the prompt's, [tokens, vocabulary]."""
    rows = []
    for position, token_id in enumerate(PROMPT):
        runner.execute(StepPlan([scheduled([token_id], [0, 1, 2, 3], start=position)]))
        row = runner.logits()[0].astype(np.float64)
        rows.append(row - row.max() - np.log(np.exp(row - row.max()).sum()))
    return np.array(rows)


def mean_divergence(checkpoint: Checkpoint, activations: str, kv: str = "int8") -> float:
    truth = log_probabilities(ReferenceRunner(checkpoint))
    ours = log_probabilities(cpu_runner(checkpoint, activations=activations, kv=kv))
    return float((np.exp(truth) * (truth - ours)).sum(axis=1).mean())
