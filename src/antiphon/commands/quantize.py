"""`antiphon quantize`: converts a model to fewer bits and reports what that changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.commands.completion import model_names, one_of
from antiphon.commands.pull import HubOption, OfflineOption
from antiphon.config import ServerConfig
from antiphon.terminal import console_on, printable

if TYPE_CHECKING:
    from rich.console import Console

    from antiphon.checkpoint import Checkpoint
    from antiphon.quantizer.comparison import Comparison
    from antiphon.quantizer.model import Plan

_DEFAULTS = ServerConfig()


def quantize(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A GGUF file, a Hugging Face folder, or a name.", autocompletion=model_names
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="What to write: a .gguf file if MODEL is one, else a folder.")
    ],
    type: Annotated[
        str,
        typer.Option(
            "--type",
            help="q4_1 (5 bits a weight, the more accurate of the two 4-bit types), q4_0 (4.5) or q8_0 (8.5).",
            autocompletion=one_of(("q4_1", "q4_0", "q8_0")),
        ),
    ] = "q4_1",
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A text to calibrate on, similar to what the model will see."),
    ] = None,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Also quantize matrices that are quantized already.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the model at OUT.")] = False,
    threads: Annotated[int, typer.Option(help="Compute threads; 0: one for each physical core.")] = 0,
    hub: HubOption = _DEFAULTS.hub,
    offline: OfflineOption = _DEFAULTS.offline,
) -> None:
    """Convert MODEL to 4 or 8 bits and write it to OUT, which can be served like any other model.

    For each 32 weights the levels with the least error are searched. The output matrix, the embedding and matrices with
    an unusually large error get 8 bits. With a text, columns are weighted by their activations on it, and the report
    includes KL divergence and perplexity on the last part of the text, which is not used for calibration.

    [bold]Examples[/bold]

      antiphon quantize DeepSeek-R1-Distill-Qwen-1.5B/ r1-w4/ --calibrate book.txt

      antiphon quantize model-F16.gguf model-Q4_0.gguf --type q4_0
    """
    from antiphon.formats import open_checkpoint
    from antiphon.loading.model import resolve_model
    from antiphon.quantizer.job import Job

    console = console_on(stderr=True)
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
    """Show what is being done, and how much of it is done."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=1.0)

        def step(what: str, fraction: float) -> None:
            progress.update(bar, description=what, completed=fraction)

        yield step


def _report(console: Console, checkpoint: Checkpoint, plan: Plan, comparison: Comparison | None, out: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from antiphon.commands.tables import megabytes, weights_by_type
    from antiphon.formats import open_checkpoint

    written = open_checkpoint(out)
    table = Table("matrices", "from", "to", "relative error, mean", "worst")
    for (kind, before, after), errors in sorted(_by_kind(checkpoint, plan).items()):
        mean, worst = sum(errors) / len(errors), max(errors)
        table.add_row(Text(printable(f"{len(errors)} {kind}")), before, after, f"{mean:.2e}", f"{worst:.2e}")
    console.print(table)
    for name in plan.kept_finer:
        console.print(f"{printable(name)} has a large error and gets {plan.types[name]}")
    sizes = [
        sum(size for _, _, size in weights_by_type(each.tensors.values()).values()) for each in (checkpoint, written)
    ]
    weights = sum(tensor.num_elements for tensor in written.tensors.values())
    console.print(f"{megabytes(sizes[0])} → {megabytes(sizes[1])}, {8 * sizes[1] / weights:.2f} bits a weight")
    if comparison:
        console.print(
            f"on {comparison.tokens:,} tokens: mean KL divergence {comparison.mean_kl:.4f}, same most likely token "
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
