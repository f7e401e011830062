"""`antiphon inspect`: describes a model and the memory that serving it takes, without loading its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from antiphon.commands.completion import one_of
from antiphon.commands.pull import HubOption, ModelArgument, OfflineOption
from antiphon.config import KV_CACHE_TYPES, QUANTIZATIONS, EngineConfig, ServerConfig
from antiphon.errors import ConfigError
from antiphon.terminal import console_on, print_note, printable

if TYPE_CHECKING:
    from antiphon.checkpoint import Checkpoint
    from antiphon.machine import Machine
    from antiphon.memory_plan import MemoryPlan

_DEFAULTS = ServerConfig()
_LENGTHS = (1024, 4096, 8192, 16384, 32768)


def inspect(
    model: ModelArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")] = False,
    quantization: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(QUANTIZATIONS)}: how float weights would be quantized.",
            autocompletion=one_of(QUANTIZATIONS),
        ),
    ] = "auto",
    device: Annotated[
        str, typer.Option(help="Plan for this device: cpu, or cuda:N, which need not be here if --memory is given.")
    ] = "cpu",
    memory: Annotated[str, typer.Option(help="Plan for this much memory, such as 24GiB; default: what is free.")] = "",
    hub: HubOption = _DEFAULTS.hub,
    offline: OfflineOption = _DEFAULTS.offline,
) -> None:
    """Describe MODEL: its type and size, the memory it needs, and how many users fit this machine.

    [bold]Examples[/bold]

      antiphon inspect model.gguf

      antiphon inspect demo --json

      antiphon inspect deepseek-r1:1.5b --device cuda:0 --memory 24GiB
    """
    from antiphon.formats import open_checkpoint
    from antiphon.loading.model import resolve_model

    found = resolve_model(model, console_on(stderr=True), hub=hub, offline=offline)
    checkpoint = open_checkpoint(found.path)
    if found.typed:  # a folder in a cache has a commit for its name
        checkpoint = replace(checkpoint, name=found.name)
    report = describe(checkpoint, quantization, device, _bytes_of(memory) if memory else None)
    if as_json:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(report, f"on {device} with {memory}" if memory else "here" if device == "cpu" else f"on {device}")


def _bytes_of(size: str) -> int:
    """A size such as 24GiB, 500MB or 8g in bytes; raises ConfigError for anything else."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?) ?([kmgt]?)(i?b)?", size.strip().lower())
    if not found:
        raise ConfigError(f"--memory is {size[:100]!r}; it must be a size such as 24GiB")
    is_decimal = found[3] == "b" and bool(found[2])
    return int(float(found[1]) * (1000 if is_decimal else 1024) ** " kmgt".index(found[2] or " "))


def _memory_of(device: str, memory: int | None, free: int) -> int:
    """Bytes to plan for: `memory`, or what is free on the device."""
    from antiphon.machine.gpu import gpu_memory

    if memory is not None:
        return memory
    return gpu_memory(device) if device.startswith("cuda") else free


def describe(
    checkpoint: Checkpoint, quantization: str = "auto", device: str = "cpu", memory: int | None = None
) -> dict[str, Any]:
    """Everything `inspect` reports about a checkpoint; sizes in bytes, those in memory after `quantization`.

    `memory`: bytes that the device has; None: what is free on it.
    """
    from antiphon.commands.tables import weights_by_type
    from antiphon.loading.model import generation_defaults
    from antiphon.machine import see_machine

    machine = see_machine()
    tensors = checkpoint.tensors.values()
    plans, free = _plans(checkpoint, EngineConfig("", quantization=quantization, device=device), memory, machine)
    plan = plans[0]
    return {
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "name": checkpoint.name,
        "architecture": checkpoint.architecture,
        "quantized_by": checkpoint.quantized_by,
        "settings": dict(checkpoint.settings),
        "parameters": sum(tensor.num_elements for tensor in tensors),
        "tensors": {
            kind: {"count": count, "weights": size, "bytes": num_bytes}
            for kind, (count, size, num_bytes) in weights_by_type(tensors).items()
        },
        "quantization": {"name": plan.quantization.name, "reason": plan.quantization.reason},
        "memory": _memory(plan, free),
        "kv_cache": _kv_cache(plans, int(checkpoint.settings["max_position_embeddings"])),
        "machine": machine.report(),
        "plan": {
            "engines": plan.num_engines,
            "quantization": plan.quantization.name,
            "kv_cache_type": plan.kv_cache_type,
            "kv_cache_tokens": plan.kv_cache_tokens,
            "kv_cache_bytes": plan.kv_cache_bytes,
            "context_length": plan.context_length,
            "problem": plan.problem,
        },
        "chat_template": checkpoint.chat_template is not None,
        "generation_defaults": dict(generation_defaults(checkpoint)),
        "findings": _findings(checkpoint),
    }


def _plans(
    checkpoint: Checkpoint, config: EngineConfig, memory: int | None, machine: Machine
) -> tuple[list[MemoryPlan], int]:
    """A plan for each type of KV cache, of which the first is that of `serve`, and the bytes that were planned for."""
    from antiphon.machine import default_engines
    from antiphon.machine.gpu import choose_device
    from antiphon.memory_plan import plan_engines

    if memory is None or config.device == "auto":  # a device that is not here is not looked for
        config = replace(config, device=choose_device(config.device))
    free = _memory_of(config.device, memory, machine.memory.free)
    is_cpu = config.device == "cpu"
    most = default_engines(machine.processors) if is_cpu else 1
    kinds = KV_CACHE_TYPES if is_cpu else ("int8",)
    return [plan_engines(checkpoint, replace(config, kv_cache_type=kind), free, most) for kind in kinds], free


def _memory(plan: MemoryPlan, free: int) -> dict[str, int]:
    from antiphon import footprint, gpu_footprint

    weights = plan.weights
    return {
        "w4": weights.w4,
        "w8": weights.w8,
        "vectors": weights.vectors,
        "resident": weights.resident + (plan.gpu.table - weights.embedding if plan.gpu is not None else 0),
        "embedding": weights.embedding,
        "embedding_in_page_cache": weights.mapped_embedding,
        "processes": footprint.PROCESS_BYTES if plan.gpu is None else gpu_footprint.HOST_BYTES,
        "free": free,
        **_on_device(plan),
    }


def _kv_cache(plans: Sequence[MemoryPlan], longest: int) -> dict[str, Any]:
    """For each type of KV cache what it takes, and how many users fit; `longest`: the model's tokens of context."""
    from antiphon.footprint import users_that_fit

    lengths = [length for length in _LENGTHS if length <= longest]
    return {
        plan.kv_cache_type: {
            "bytes_per_token": plan.kv_bytes_per_token,
            "capacity_tokens": plan.kv_capacity,
            "default_tokens": plan.kv_cache_tokens,
            "users_by_length": {length: users_that_fit(plan.kv_capacity, length) for length in lengths},
        }
        for plan in plans
    }


def _on_device(plan: MemoryPlan) -> dict[str, int]:
    """What an engine on a GPU takes there beside weights and KV cache, and what stays free."""
    from antiphon.gpu_footprint import CONTEXT_BYTES

    if plan.gpu is None:
        return {}
    return {
        "table": plan.gpu.table,
        "step_buffers": plan.gpu.step(plan.context_length),
        "context": CONTEXT_BYTES,
        "margin": max(0, plan.available - plan.engine_bytes),
    }


def _findings(checkpoint: Checkpoint) -> list[dict[str, str]]:
    """What looks wrong in the model's tensors, template or advice, and what would be done about it."""
    return [*_tensor_findings(checkpoint), *_text_findings(checkpoint)]


_REFUSED = "it cannot be served"


def _tensor_findings(checkpoint: Checkpoint) -> Iterator[dict[str, str]]:
    from antiphon.errors import CheckpointError
    from antiphon.models.dense import check_tensors

    try:
        check_tensors(checkpoint)
    except CheckpointError as error:
        yield {"wrong": error.message, "done": _REFUSED}


def _text_findings(checkpoint: Checkpoint) -> Iterator[dict[str, str]]:
    from antiphon.errors import CheckpointError
    from antiphon.loading.model import findings
    from antiphon.text import TextModel

    try:
        text = TextModel.from_checkpoint(checkpoint)
    except CheckpointError as error:
        yield {"wrong": error.message, "done": _REFUSED}
        return
    try:
        for finding in findings(text, checkpoint):
            yield {"wrong": finding.wrong, "done": finding.done}
    finally:
        text.close()


def _print(report: dict[str, Any], where: str) -> None:
    """`where`: what the plan is for, in words; "here" is this machine as it is."""
    from rich.text import Text

    console = console_on(stderr=False)
    console.print(Text.assemble((printable(report["name"]), "bold"), "  ", printable(report["path"])))
    console.print(_shape_line(report))
    if report["quantized_by"]:
        console.print(f"quantized by {report['quantized_by']}")
    advice = ", ".join(f"{name} {value}" for name, value in report["generation_defaults"].items())
    console.print(
        f"chat template: {'yes' if report['chat_template'] else 'none'}; advised sampling: {advice or 'none'}"
    )
    quantization = report["quantization"]
    console.print(f"quantization: {quantization['name'] or 'none'} ({quantization['reason']})")
    if where == "here":
        console.print(f"threads: {report['machine']['threads']} ({report['machine']['threads_reason']})")
        for line in report["machine"]["seen"]:
            console.print(line, soft_wrap=True)
    console.print(_plan_line(report["plan"], where), soft_wrap=True)
    for finding in report["findings"]:
        print_note(console, f"{finding['wrong']}; {finding['done']}")
    for table in (_tensor_table(report), _memory_table(report), _user_table(report)):
        console.print()
        console.print(table)


def _shape_line(report: dict[str, Any]) -> str:
    settings = report["settings"]
    return (
        f"{report['architecture']}, {report['format']}, {report['parameters'] / 1e6:,.0f} M parameters: "
        f"{settings['num_hidden_layers']} layers of {settings['hidden_size']}, {settings['num_attention_heads']} heads "
        f"({settings['num_key_value_heads']} for K/V) of {settings['head_dim']}, "
        f"vocabulary {settings['vocab_size']:,}, context {settings['max_position_embeddings']:,}"
    )


def _plan_line(plan: dict[str, Any], where: str) -> str:
    from antiphon.commands.tables import megabytes

    if plan["problem"]:
        return f"it cannot be served {where}: {plan['problem']}"
    engines = f"{plan['engines']} engines, each with " if plan["engines"] > 1 else ""
    return (
        f"served {where}: {engines}context {plan['context_length']:,} tokens, KV cache {plan['kv_cache_type']} "
        f"{plan['kv_cache_tokens']:,} tokens, {megabytes(plan['kv_cache_bytes'])} when it is full"
    )


def _tensor_table(report: dict[str, Any]) -> Any:  # noqa: ANN401  # rich is imported only when it prints
    from rich.table import Table

    from antiphon.commands.tables import megabytes

    table = Table("In the file", "tensors", "weights", "size")
    for kind, row in report["tensors"].items():
        table.add_row(kind, str(row["count"]), f"{row['weights'] / 1e6:,.1f} M", megabytes(row["bytes"]))
    return table


def _memory_table(report: dict[str, Any]) -> Any:  # noqa: ANN401
    from rich.table import Table

    from antiphon.commands.tables import megabytes

    memory = report["memory"]
    of_the_machine = ", in main memory" if "step_buffers" in memory else ""
    table = Table("In memory", "size", "")
    table.add_row("matrices in 4 bits (W4)", megabytes(memory["w4"]), "")
    table.add_row("matrices in 8 bits (W8)", megabytes(memory["w8"]), "")
    table.add_row("norms, biases", megabytes(memory["vectors"]), "float32")
    if "step_buffers" in memory:
        table.add_row("embedding on the device", megabytes(memory["table"]), "codes, or floats of 16 bits")
        table.add_row("buffers of a step", megabytes(memory["step_buffers"]), "activations, attention, logits")
        table.add_row("CUDA, kernels", megabytes(memory["context"]), "approximately")
        table.add_row("stays free", megabytes(memory["margin"]), "with the default KV cache")
        table.add_section()
    if memory["embedding_in_page_cache"]:
        table.add_row("embedding", megabytes(memory["embedding_in_page_cache"]), "stays in the file, shared page cache")
    else:
        table.add_row("embedding", megabytes(memory["embedding"]), "copied as it is stored" + of_the_machine)
    table.add_row("the processes", megabytes(memory["processes"]), "approximately" + of_the_machine)
    for kind, row in report["kv_cache"].items():
        table.add_row(f"KV cache {kind}", f"{row['bytes_per_token']:,} bytes", "per token")
    return table


def _user_table(report: dict[str, Any]) -> Any:  # noqa: ANN401
    from rich.table import Table

    from antiphon.commands.tables import megabytes

    table = Table(
        "Users that fit",
        *report["kv_cache"],
        title=f"{megabytes(report['memory']['free'])} are free; --kv-cache-tokens sets how much of it to use",
        title_justify="left",
    )
    lengths = next(iter(report["kv_cache"].values()))["users_by_length"]
    for length in lengths:
        users = [f"{row['users_by_length'][length]:,}" for row in report["kv_cache"].values()]
        table.add_row(f"of {length:,} tokens", *users)
    table.add_section()
    table.add_row("maximum tokens", *(f"{row['capacity_tokens']:,}" for row in report["kv_cache"].values()))
    table.add_row("tokens by default", *(f"{row['default_tokens']:,}" for row in report["kv_cache"].values()))
    return table
