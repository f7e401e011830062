"""Which files of a repository are needed, and which of them is the model to open.

Owns that choice, for a hub's listing and for a cache alike. Files that may hold code or pickles (`*.py`, `*.bin`,
`*.pt`) are never chosen, a model in parts is chosen with all of them, and for a repository without a model that can be
loaded the error lists what it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath

from antiphon.errors import HubError
from antiphon.hub.names import DEFAULT_TYPE, ModelName

# What is read of a Hugging Face folder beside the weights.
_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_PART = re.compile(r"(?P<model>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
_NO_MODELS = re.compile(r"(?:mmproj|imatrix|ggml-vocab)|[._-](?:mmproj|imatrix)\b", re.IGNORECASE)
_SHOWN = 12  # names in a message


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository."""

    path: str
    size: int = 0  # bytes
    digest: str | None = None  # sha256 or, for small files, git's sha1 of the blob; in hexadecimal


@dataclass(frozen=True, slots=True)
class Selection:
    """The files that are needed, and the one to open: a GGUF file, or the folder itself ("")."""

    files: tuple[HubFile, ...]
    opens: str


def select(files: Iterable[HubFile], name: ModelName) -> Selection:
    """What `name` means among `files`; raises HubError, listing what there is, if that is nothing or ambiguous."""
    by_path = {file.path: file for file in files if _stays_inside(PurePosixPath(file.path))}
    models = [path for path in by_path if path.lower().endswith(".gguf") and not _NO_MODELS.search(path)]
    if name.file:
        chosen = _named(name, models)
    elif name.type:
        chosen = _of_type(name, name.type, models)
    elif {_SINGLE, _INDEX} & by_path.keys():
        return _folder(name, by_path)
    else:
        chosen = _the_one(name, models, by_path)
    parts = _parts(chosen)
    _check_whole(name, parts, by_path)
    return Selection(tuple(by_path[part] for part in parts), opens=parts[0])


def _stays_inside(path: PurePosixPath) -> bool:
    """Whether a path stays inside the folder that it is put into, and can be printed on a terminal."""
    return not path.is_absolute() and ".." not in path.parts and str(path).isprintable()


def _folder(name: ModelName, by_path: dict[str, HubFile]) -> Selection:
    if "config.json" not in by_path:
        raise HubError(f"{name.repo} has safetensors but no config.json, so it cannot be loaded")
    shards = [_SINGLE] if _SINGLE in by_path else [_INDEX, *sorted(filter(_SHARD.fullmatch, by_path))]
    _check_whole(name, _parts(shards[-1]), by_path)
    wanted = [path for path in (*_SMALL_FILES, *shards) if path in by_path]
    return Selection(tuple(by_path[path] for path in wanted), opens="")


def _named(name: ModelName, models: Sequence[str]) -> str:
    assert name.file is not None
    fitting = [path for path in models if path == name.file] or [
        path for path in models if PurePosixPath(path).name.lower() == name.file.lower()
    ]
    if len(fitting) == 1:
        return fitting[0]
    near = get_close_matches(name.file, models, n=3, cutoff=0.5) or _heads(models)
    raise HubError(f"{name.repo} has no file {name.file!r}{_listed('; there are', near)}")


def _of_type(name: ModelName, kind: str, models: Sequence[str]) -> str:
    """The file whose name ends in the type. Of `X-Q4_K_M` and `X-UD-Q4_K_M`, `Q4_K_M` means the first."""
    ending = re.compile(rf"(?:^|[-._/]){re.escape(kind)}$", re.IGNORECASE)
    heads = _heads(models)
    fitting = [path for path in heads if ending.search(_stem(path))]
    if not fitting:
        raise HubError(
            f"{name.repo} has no GGUF file of type {kind!r}{_listed('; there are', _types(heads))}"
            if heads
            else f"{name.repo} has no GGUF files, so no type of one can be chosen; leave out {':' + kind!r}"
        )
    shortest = min(len(_stem(path)) for path in fitting)
    best = [path for path in fitting if len(_stem(path)) == shortest]
    if len(best) > 1:
        raise HubError(f"{name} could be {_listed('any of', best)}; name the file: {name.repo}/{best[0]}")
    return best[0]


def _the_one(name: ModelName, models: Sequence[str], by_path: dict[str, HubFile]) -> str:
    """The only GGUF file, or the one of the default type."""
    heads = _heads(models)
    if not heads:
        raise HubError(
            f"{name.repo} has no model that can be loaded: neither {_SINGLE} (or shards with their index) nor a GGUF "
            f"file{_listed('; it has', sorted(by_path))}"
        )
    if len(heads) == 1:
        return heads[0]
    if DEFAULT_TYPE in (types := _types(heads)):
        return _of_type(name, DEFAULT_TYPE, models)
    raise HubError(f"{name.repo} has several models{_listed('; choose one, as', [f'{name.repo}:{t}' for t in types])}")


def _parts(path: str) -> list[str]:
    """The paths of all parts of the model that `path` is, or is a part of."""
    part = _PART.fullmatch(path)
    if part is None:
        return [path]
    count = int(part["count"])
    return [f"{part['model']}-{number:05d}-of-{count:05d}{part['suffix']}" for number in range(1, count + 1)]


def _check_whole(name: ModelName, parts: Sequence[str], by_path: dict[str, HubFile]) -> None:
    missing = [part for part in parts if part not in by_path]
    if missing:
        raise HubError(f"{name.repo} lacks {len(missing)} of the model's {len(parts)} parts: {missing[0]}")


def _heads(models: Sequence[str]) -> list[str]:
    """One path for each model: a split one's first part."""
    return [path for path in sorted(models) if path == _parts(path)[0]]


def _stem(path: str) -> str:
    return model_of_parts(path).removesuffix(".gguf").removesuffix(".GGUF")


def model_of_parts(path: str) -> str:
    """A path without the number of its part."""
    part = _PART.fullmatch(path)
    return part["model"] if part else path


def _types(heads: Sequence[str]) -> list[str]:
    """What comes after the beginning that all names share, from its last separator on."""
    stems = [_stem(path).rpartition("/")[2] for path in heads]
    shared = 0
    while len(stems) > 1 and len({stem[: shared + 1] for stem in stems}) == 1 and shared < min(map(len, stems)):
        shared += 1
    begin = max((stems[0].rfind(separator, 0, shared) for separator in "-."), default=-1) + 1
    return [stem[begin:] for stem in stems]


def _listed(words: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{words} {', '.join(names[:_SHOWN])}{more}"
