"""What a person means by MODEL: a GGUF file, a Hugging Face folder, or a name on a hub."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from rich.console import Console
from rich.markup import escape

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
    """The model that somebody meant."""

    path: Path  # a GGUF file or a Hugging Face folder
    name: str  # what clients call it, unless told otherwise
    typed: str = ""  # the name that was typed, where it was one and not a path


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
        with console.status(f"{what} the demo model in {escape(str(path.parent))} …"):
            path = fetch_demo(verify=verify)
    return Found(path, path.stem, typed=_DEMO)


def _instead(model: str, path: Path) -> str:
    """What would work, and what may have been meant."""
    beside: list[str] = []
    with suppress(OSError):  # of a folder that may not be read
        beside = [str(path.parent / each.name) for each in path.parent.iterdir()]
    near = [*near_names(model), *get_close_matches(str(path), beside, n=3, cutoff=0.8)]
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"; a model on a hub is called owner/repo, owner/repo:TYPE or one of the short names of the README.{meant}"


def _looks_like_a_model(path: Path) -> bool:
    """Whether what happens to be called `demo` can be meant; `./demo` always means the path."""
    if path.is_dir():
        return (path / "config.json").is_file()
    try:
        with path.open("rb") as file:
            return file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC
    except OSError:
        return False


def generation_defaults(checkpoint: Checkpoint) -> Mapping[str, float | int]:
    """What a request that names no temperature and the like gets: what the checkpoint advises, if it does.

    The demo model's file advises nothing, and a model so small rambles when tokens are drawn at OpenAI's default
    temperature of 1: it answers with the likeliest ones instead.
    """
    return dict(_DEMO_SAMPLING) if _is_unadvised_demo(checkpoint) else checkpoint.generation_defaults


def findings(text: TextModel, checkpoint: Checkpoint) -> list[Finding]:
    """What looks wrong in the model's text side, and what is done in place of advice that it lacks."""
    found = [Finding(note.wrong, note.done) for note in checkpoint.notes]
    found += lint(text, generation_defaults(checkpoint))
    if _is_unadvised_demo(checkpoint):
        found.append(Finding("the demo model advises no temperature", "0 is used where a request names none"))
    return found


def _is_unadvised_demo(checkpoint: Checkpoint) -> bool:
    return not checkpoint.generation_defaults and is_demo(checkpoint.path)
