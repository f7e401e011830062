"""What the user gives as MODEL: a GGUF file, a Hugging Face folder, or a name on a hub."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from rich.console import Console
from rich.text import Text

from antiphon.checkpoint import Checkpoint
from antiphon.config import HUBS
from antiphon.demo import FILE_BYTES, demo_path, fetch_demo, is_demo
from antiphon.errors import CheckpointError
from antiphon.formats.fields import shown
from antiphon.hub import near_names, parse_name, pull
from antiphon.loading.pulling import pull_progress
from antiphon.text import TextModel
from antiphon.text.lint import Finding, lint

_GGUF_MAGIC = b"GGUF"
_DEMO_SAMPLING = {"temperature": 0.0}
_DEMO = "demo"
_FILE_ENDINGS = (".gguf", ".safetensors")


@dataclass(frozen=True, slots=True)
class Found:
    """The model that was meant."""

    path: Path  # a GGUF file or a Hugging Face folder
    name: str  # shown to clients, unless another is set
    typed: str = ""  # the name that was typed; empty for a path


def resolve_model(
    model: str, console: Console, *, hub: str = HUBS[0], offline: bool = False, verify: bool = False
) -> Found:
    """The file or folder that `model` means, downloaded first where needed. A path takes precedence over a name.

    `verify` compares the checksums of downloaded files with the hub's, and downloads damaged ones again.

    Raises:
        CheckpointError: there is no such file or folder, and it is not a name either.
        HubError: it is the name of a model that cannot be had.
    """
    path = Path(model).expanduser()
    if _exists(path) and (model != _DEMO or _looks_like_a_model(path)):
        # What a checkpoint calls itself inside is often a training run's name.
        return Found(path, path.stem if path.is_file() else path.resolve().name)
    if model == _DEMO:
        return _demo(console, offline=offline, verify=verify)
    name = None if model.endswith(_FILE_ENDINGS) and model.count("/") < 2 else parse_name(model, hub)
    if name is None:
        raise CheckpointError(f"there is no file or folder {shown(model)}{_instead(model, path)}")
    with pull_progress(console) as watcher:
        pulled = pull(name, offline=offline, verify=verify, watcher=watcher)
    return Found(pulled.path, pulled.name, typed=model)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise CheckpointError(f"{shown(str(path))} cannot be opened: {error.strerror}") from None


def _demo(console: Console, *, offline: bool, verify: bool) -> Found:
    path = demo_path()
    here = _exists(path)
    if offline and not here:
        raise CheckpointError(f"the demo model is not at {path}, and nothing is downloaded while offline")
    if here and not verify:
        path = fetch_demo()
    else:
        what = "Checking" if here else f"Downloading ({FILE_BYTES // 1_000_000} MB)"
        with console.status(Text(f"{what} the demo model in {path.parent} …")):
            path = fetch_demo(verify=verify)
    return Found(path, path.stem, typed=_DEMO)


def _instead(model: str, path: Path) -> str:
    """What would work, with similar names."""
    beside: list[str] = []
    with suppress(OSError):  # of a folder that may not be read
        beside = [str(path.parent / each.name) for each in path.parent.iterdir()]
    near = [*near_names(model), *get_close_matches(str(path), beside, n=3, cutoff=0.8)]
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    return (
        f"; a model on a hub is named owner/repo, owner/repo:TYPE or by a short name, such as deepseek-r1:1.5b.{meant}"
    )


def _looks_like_a_model(path: Path) -> bool:
    """Whether a file or folder that happens to be called `demo` is a model; `./demo` always means the path."""
    if path.is_dir():
        return (path / "config.json").is_file()
    try:
        with path.open("rb") as file:
            return file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC
    except OSError:
        return False


def generation_defaults(checkpoint: Checkpoint) -> Mapping[str, float | int]:
    """The sampling parameters of a request that sets none: what the checkpoint recommends, if it does.

    The demo model's file recommends nothing, and at OpenAI's default temperature of 1 such a small model rambles, so it
    gets a temperature of 0.
    """
    return dict(_DEMO_SAMPLING) if _is_unadvised_demo(checkpoint) else checkpoint.generation_defaults


def findings(text: TextModel, checkpoint: Checkpoint) -> list[Finding]:
    """What looks wrong in the checkpoint and its text side, and what is done about it."""
    found = [Finding(note.wrong, note.done) for note in checkpoint.notes]
    found += lint(text, generation_defaults(checkpoint))
    if _is_unadvised_demo(checkpoint):
        found.append(
            Finding(
                "the demo model advises no temperature",
                "0 is used where a request names none",
                why="At OpenAI's default of 1 such a small model rambles.",
                fix="none is needed; send a temperature in requests to have another",
            )
        )
    return found


def _is_unadvised_demo(checkpoint: Checkpoint) -> bool:
    return not checkpoint.generation_defaults and is_demo(checkpoint.path)
