"""`antiphon quantize`: a model in fewer bits, and what that did to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.commands.pull import HubOption, OfflineOption
from antiphon.config import ServerConfig

if TYPE_CHECKING:
    from rich.console import Console

    from antiphon.checkpoint import Checkpoint
    from antiphon.quantizer.comparison import Comparison
    from antiphon.quantizer.model import Plan

_DEFAULTS = ServerConfig()


def quantize(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="A GGUF file, a Hugging Face folder, or a name.")],
    out: Annotated[Path, typer.Argument(help="What to write: a GGUF file from one, a folder from a folder.")],
    type: Annotated[
        str, typer.Option("--type", help="q4_1 (5 bits a weight, best of 4-bit codes), q4_0 (4.5) or q8_0 (8.5).")
    ] = "q4_1",
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A text like those the model will see: what matters on it is kept better."),
    ] = None,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Also take matrices that are quantized already.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
    threads: Annotated[int, typer.Option(help="Threads that compute; 0: one for each physical core.")] = 0,
    hub: HubOption = _DEFAULTS.hub,
    offline: OfflineOption = _DEFAULTS.offline,
) -> None:
    """Write MODEL in 4 or 8 bits to OUT, which serves like any other model.

    The levels of each 32 weights are searched for the least error. The output matrix, the embedding and matrices that
    stand out by their error get 8 bits. With a text, columns that matter on it weigh more, and the report says what
    became of the answers: KL divergence and perplexity on the text's last part, which is not used otherwise.

    [bold]Examples[/bold]

      antiphon quantize DeepSeek-R1-Distill-Qwen-1.5B/ r1-w4/ --calibrate book.txt

      antiphon quantize model-F16.gguf model-Q4_0.gguf --type q4_0
    """
    from rich.console import Console

    from antiphon.formats import open_checkpoint
    from antiphon.loading.model import resolve_model
    from antiphon.quantizer.job import Job

    console = Console(stderr=True, highlight=False)
    found = resolve_model(source, console, hub=hub, offline=offline)
    job = Job.prepare(
        open_checkpoint(found.path), out, type.upper(), text=calibrate, force=force, requantize=allow_requantize
    )
    with _steps(console) as step:
        plan = job.run(step, threads)
        comparison = job.compare(step)
    _report(console, job.checkpoint, plan, comparison, out)


@contextmanager
def _steps(console: Console) -> Iterator[Callable[[str, float], None]]:
    """Shows what is being done and how far it has come."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=1.0)

        def step(what: str, fraction: float) -> None:
            progress.update(bar, description=what, completed=fraction)

        yield step


def _report(console: Console, checkpoint: Checkpoint, plan: Plan, comparison: Comparison | None, out: Path) -> None:
    from rich.table import Table

    from antiphon.commands.tables import megabytes, weights_by_type
    from antiphon.formats import open_checkpoint

    written = open_checkpoint(out)
    table = Table("matrices", "from", "to", "relative error, mean", "worst")
    for (kind, before, after), errors in sorted(_by_kind(checkpoint, plan).items()):
        mean, worst = sum(errors) / len(errors), max(errors)
        table.add_row(f"{len(errors)} {kind}", before, after, f"{mean:.2e}", f"{worst:.2e}")
    console.print(table)
    for name in plan.kept_finer:
        console.print(f"{name} stood out and is kept in {plan.types[name]}", markup=False)
    sizes = [
        sum(size for _, _, size in weights_by_type(each.tensors.values()).values()) for each in (checkpoint, written)
    ]
    weights = sum(tensor.num_elements for tensor in written.tensors.values())
    console.print(f"{megabytes(sizes[0])} → {megabytes(sizes[1])}, {8 * sizes[1] / weights:.2f} bits a weight")
    if comparison:
        console.print(
            f"on {comparison.tokens:,} tokens: mean KL divergence {comparison.mean_kl:.4f}, same likeliest token "
            f"{comparison.same_top_token:.1%}, perplexity {comparison.perplexity_before:.3f} → "
            f"{comparison.perplexity_after:.3f}"
        )
    typer.echo(out)


def _by_kind(checkpoint: Checkpoint, plan: Plan) -> dict[tuple[str, str, str], list[float]]:
    """(kind of matrix, old type, new type) → relative errors; a kind is a name without its layer's number."""
    kinds: dict[tuple[str, str, str], list[float]] = {}
    for name, error in plan.errors.items():
        kind = ".".join(part for part in name.removesuffix(".weight").split(".") if not part.isdigit())
        kinds.setdefault((kind, checkpoint.tensors[name].type, plan.types[name]), []).append(error)
    return kinds
