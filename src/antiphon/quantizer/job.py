"""One run of `antiphon quantize`: everything checked before the work, the work, and nothing left behind if it fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from antiphon import _native
from antiphon.checkpoint import Checkpoint
from antiphon.errors import CheckpointError, ConfigError
from antiphon.formats import open_checkpoint
from antiphon.machine import default_threads
from antiphon.models.dense import check_tensors
from antiphon.quantizer.comparison import Comparison, compare
from antiphon.quantizer.folder import write_folder
from antiphon.quantizer.gguf_file import write_gguf
from antiphon.quantizer.importance import Importance, measure_importance
from antiphon.quantizer.model import Plan, Quantizer, planned_tensors
from antiphon.quantizer.types import TARGETS, first_types
from antiphon.text import TextModel

WINDOW = 256  # tokens of a text that are seen together
COMPARED = 4  # windows, the text's last
CALIBRATED = 32  # at most, of those before
MAX_TEXT_BYTES = 64 << 20
_HEADER_BYTES = 32 << 20  # metadata, tokenizer and the like, generously

Step = Callable[[str, float], None]  # what is being done, and which fraction of it is


@dataclass(frozen=True, slots=True)
class Job:
    """A checkpoint on its way to `out`."""

    checkpoint: Checkpoint
    out: Path
    target: str
    types: dict[str, str]
    windows: Sequence[Sequence[int]]  # of the text's tokens; none without a text

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
        """Everything that can be known to be wrong is found here.

        Raises:
            ConfigError: an option that cannot be, a place that cannot be written to, a text that is too short.
            CheckpointError: the model cannot be quantized.
        """
        if target not in TARGETS:
            raise ConfigError(f"--type is {target.lower()}; choose one of {', '.join(TARGETS).lower()}")
        check_tensors(checkpoint)
        types = first_types(checkpoint, target, requantize=requantize)
        _check_place(checkpoint, out, force=force)
        job = cls(checkpoint, out, target, types, _windows(checkpoint, text) if text else ())
        _check_room(job)
        return job

    def run(self, step: Step, threads: int = 0) -> Plan:
        """Quantize and write; `out` is there when all of it is, and untouched before."""
        importance: Importance = {}
        if calibration := self.windows[:-COMPARED]:
            step("looking at what matters on the text", 0.0)
            importance = measure_importance(self.checkpoint, calibration)
        device = _native.Device("auto", threads or default_threads())
        quantizer = Quantizer(self.checkpoint, device, importance)
        plan = quantizer.plan(self.types, self._counted(step, "measuring"))
        done = self._counted(step, "writing")
        with _part_of(self.out) as part:
            tensors = quantizer.tensors(plan.types, done)
            if self.checkpoint.format == "gguf":
                write_gguf(self.checkpoint, part, self.target, tensors)
            else:
                write_folder(self.checkpoint, part, planned_tensors(self.checkpoint, plan.types), tensors)
            self.checkpoint.files.check_unchanged()  # else OUT would be partly of one model, partly of another
        return plan

    def compare(self, step: Step) -> Comparison | None:
        """What was written against what it was made of; None without a text."""
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


def _check_place(checkpoint: Checkpoint, out: Path, *, force: bool) -> None:
    is_gguf = checkpoint.format == "gguf"
    if is_gguf != (out.suffix == ".gguf"):
        wanted = (
            "a GGUF file, so OUT must end in .gguf" if is_gguf else "a folder, so OUT must be one, not a .gguf file"
        )
        raise ConfigError(f"{checkpoint.path} is {wanted}")
    if not out.resolve().parent.is_dir():
        raise ConfigError(f"{out.parent}: there is no such folder to write to")
    if out.exists() and out.resolve() == checkpoint.path.resolve():
        raise ConfigError(f"{out} is the model itself; write to another place")
    if out.exists() and not force:
        raise ConfigError(f"{out} is there already; --force writes over it")
    if out.exists() and out.is_dir() and not (out / "config.json").is_file():
        raise ConfigError(f"{out} is there and is no model, so it is not written over, --force or not")


def _check_room(job: Job) -> None:
    needed = sum(tensor.num_bytes for tensor in planned_tensors(job.checkpoint, job.types)) + _HEADER_BYTES
    free = shutil.disk_usage(job.out.resolve().parent).free
    if needed > free:
        raise ConfigError(f"{job.out} needs {needed / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB left")


def _windows(checkpoint: Checkpoint, text: Path) -> Sequence[Sequence[int]]:
    """The text in windows of tokens: the last ones to compare on, those before to calibrate with."""
    try:
        if text.stat().st_size > MAX_TEXT_BYTES:
            raise ConfigError(f"--calibrate: {text} is larger than {MAX_TEXT_BYTES >> 20} MiB; a part of it will do")
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


@contextmanager
def _part_of(out: Path) -> Iterator[Path]:
    """Where to write what becomes `out` at the end of the block; gone if that fails."""
    part = out.with_name(f".{out.name}.part-{os.getpid()}")
    try:
        yield part
        if out.is_dir():
            shutil.rmtree(out)
        part.replace(out)
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written ({error.strerror})") from None
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        part.unlink(missing_ok=True)
