"""What commands mean by MODEL: a GGUF file, a Hugging Face folder, or a name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from antiphon.checkpoint import Checkpoint
from antiphon.demo import FILE_BYTES, demo_path, fetch_demo, is_demo
from antiphon.errors import CheckpointError
from antiphon.text import TextModel
from antiphon.text.lint import Finding, lint

_GGUF_MAGIC = b"GGUF"
_DEMO_SAMPLING = {"temperature": 0.0}
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+|:[\w.-]+)?")


def resolve_model(model: str, console: Console) -> Path:
    """The file or folder that `model` means, brought first where that is needed; CheckpointError if there is none."""
    path = Path(model).expanduser()
    if path.exists() and (model != "demo" or _looks_like_a_model(path)):
        return path
    if model == "demo":
        if demo_path().exists():
            return fetch_demo()
        with console.status(f"Bringing the demo model ({FILE_BYTES // 1_000_000} MB) into {demo_path().parent} …"):
            return fetch_demo()
    if _HUB_NAME.fullmatch(model) and not model.endswith((".gguf", ".safetensors")):
        raise CheckpointError(
            f"there is no file or folder {model!r}, and names on a hub are not understood yet. Download the model "
            "first and give its path; the one name known is 'demo'."
        )
    raise CheckpointError(f"there is no file or folder {model!r}")


def _looks_like_a_model(path: Path) -> bool:
    """Whether what happens to be called `demo` can be meant; `./demo` always means the path."""
    if path.is_dir():
        return (path / "config.json").is_file()
    with path.open("rb") as file:
        return file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC


def generation_defaults(checkpoint: Checkpoint) -> Mapping[str, float | int]:
    """What a request that names no temperature and the like gets: what the checkpoint advises, if it does.

    The demo model's file advises nothing, and a model so small rambles when tokens are drawn at OpenAI's default
    temperature of 1: it answers with the likeliest ones instead.
    """
    return dict(_DEMO_SAMPLING) if _is_unadvised_demo(checkpoint) else checkpoint.generation_defaults


def findings(text: TextModel, checkpoint: Checkpoint) -> list[Finding]:
    """What looks wrong in the model's text side, and what is done in place of advice that it lacks."""
    found = lint(text, generation_defaults(checkpoint))
    if _is_unadvised_demo(checkpoint):
        found.append(Finding("the demo model advises no temperature", "0 is used where a request names none"))
    return found


def _is_unadvised_demo(checkpoint: Checkpoint) -> bool:
    return not checkpoint.generation_defaults and is_demo(checkpoint.path)
