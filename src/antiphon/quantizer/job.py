"""One run of `antiphon quantize`: every option and path is checked first, then the model is quantized and written.

If it fails, what was at the destination is still there, and nothing else is.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.errors import CheckpointError, ConfigError
from antiphon.formats import open_checkpoint
from antiphon.machine import default_threads
from antiphon.models.dense import check_tensors
from antiphon.ops.native import open_device
from antiphon.quantizer.comparison import Comparison, compare
from antiphon.quantizer.destination import check_destination
from antiphon.quantizer.folder import write_folder
from antiphon.quantizer.gguf_file import write_gguf
from antiphon.quantizer.importance import Importance, measure_importance
from antiphon.quantizer.model import Plan, Quantizer, planned_tensors
from antiphon.quantizer.types import TARGETS, first_types
from antiphon.replacing import replacing
from antiphon.text import TextModel

WINDOW = 256  # tokens of a text that are seen together
COMPARED = 4  # windows, the text's last
CALIBRATED = 32  # at most, of those before
MAX_TEXT_BYTES = 64 << 20
_HEADER_BYTES = 32 << 20  # metadata, tokenizer and the like, generously

Step = Callable[[str, float], None]  # called with what is being done, and the fraction of it that is done


@dataclass(frozen=True, slots=True)
class Job:
    """A checkpoint that is to be written to `out`."""

    checkpoint: Checkpoint
    out: Path
    target: str
    types: dict[str, str]
    windows: Sequence[Sequence[int]]  # of the text's tokens; none without a text
    force: bool = False  # replace a model that is at `out`

    @classmethod
    def prepare(
        cls,
        checkpoint: Checkpoint,
        out: Path,
        target: str,
        *,
        text: Path | None = None,
        force: bool = False,
        requantize: bool = False,
    ) -> Job:
        """Check every option before any work is done.

        Raises:
            ConfigError: an option has no valid value, `out` cannot be written, or the text is too short.
            CheckpointError: the model cannot be quantized.
        """
        if target not in TARGETS:
            raise ConfigError(f"--type is {target.lower()}; choose one of {', '.join(TARGETS).lower()}")
        check_tensors(checkpoint)
        types = first_types(checkpoint, target, requantize=requantize)
        check_destination(checkpoint, out, force=force)
        job = cls(checkpoint, out, target, types, _windows(checkpoint, text) if text else (), force)
        _check_room(job)
        return job

    def run(self, step: Step, threads: int = 0) -> Plan:
        """Quantize and write. Until all of it is written, whatever is at `out` is left as it is."""
        importance: Importance = {}
        if calibration := self.windows[:-COMPARED]:
            step("measuring activations on the text", 0.0)
            importance = measure_importance(self.checkpoint, calibration)
        device = open_device("auto", threads or default_threads())
        quantizer = Quantizer(self.checkpoint, device, importance)
        plan = quantizer.plan(self.types, self._counted(step, "measuring"))
        done = self._counted(step, "writing")
        try:
            with replacing(self.out, partial(check_destination, self.checkpoint, force=self.force)) as part:
                self._write(part, plan, quantizer.tensors(plan.types, done))
                self.checkpoint.files.check_unchanged()  # else OUT would be partly of one model, partly of another
        except OSError as error:
            raise CheckpointError(f"{self.out}: cannot be written ({error.strerror})") from None
        return plan

    def _write(self, part: Path, plan: Plan, tensors: Iterable[tuple[Tensor, memoryview]]) -> None:
        if self.checkpoint.format == "gguf":
            write_gguf(self.checkpoint, part, self.target, tensors)
        else:
            write_folder(self.checkpoint, part, planned_tensors(self.checkpoint, plan.types), tensors)

    def compare(self, step: Step) -> Comparison | None:
        """Compare what was written with the original; None without a text."""
        if not self.windows:
            return None
        step("comparing the answers", 0.0)
        return compare(self.checkpoint, open_checkpoint(self.out), self.windows[-COMPARED:])

    def _counted(self, step: Step, what: str) -> Callable[[str], None]:
        weights = {name: tensor.num_elements for name, tensor in self.checkpoint.tensors.items()}
        total, done = sum(weights.values()), 0

        def on_tensor(name: str) -> None:
            nonlocal done
            done += weights[name]
            step(what, done / total)

        return on_tensor


def _check_room(job: Job) -> None:
    needed = sum(tensor.num_bytes for tensor in planned_tensors(job.checkpoint, job.types)) + _HEADER_BYTES
    free = shutil.disk_usage(job.out.resolve().parent).free
    if needed > free:
        raise ConfigError(f"{job.out} needs {needed / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB left")


def _windows(checkpoint: Checkpoint, text: Path) -> Sequence[Sequence[int]]:
    """The text in windows of tokens: the last ones are for the comparison, those before for calibration."""
    try:
        if text.stat().st_size > MAX_TEXT_BYTES:
            raise ConfigError(f"--calibrate: {text} is larger than {MAX_TEXT_BYTES >> 20} MiB; use a part of it")
        content = text.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--calibrate: {text} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--calibrate: {text} is not UTF-8 text") from None
    model = TextModel.from_checkpoint(checkpoint)
    try:
        token_ids = model.tokenizer.encode(content)
    finally:
        model.close()
    windows = [token_ids[at : at + WINDOW] for at in range(0, len(token_ids) - WINDOW + 1, WINDOW)]
    if len(windows) <= COMPARED:
        least = (COMPARED + 1) * WINDOW
        raise ConfigError(f"--calibrate: {text} has {len(token_ids):,} tokens; at least {least:,} are needed")
    spread = windows[:-COMPARED]
    return [*spread[:: -(-len(spread) // CALIBRATED)], *windows[-COMPARED:]]  # from all over the text
