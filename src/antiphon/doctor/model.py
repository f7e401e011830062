"""Checks of a model: can its files be read, is it complete and of a known kind, does it fit, is its text side sound.

The model is opened once for all checks. A check that needs what an earlier one could not open reports nothing: the
earlier one has said why. Nothing is downloaded, and no weights are loaded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from antiphon.checkpoint import Checkpoint
from antiphon.config import EngineConfig
from antiphon.doctor import storage
from antiphon.doctor.examination import Check
from antiphon.doctor.findings import Finding, note, ok, problem, warning
from antiphon.doctor.host import Host
from antiphon.doctor.memory import amount
from antiphon.errors import AntiphonError, CheckpointError, ConfigError, HubError, InvalidRequest
from antiphon.footprint import users_that_fit
from antiphon.formats import open_checkpoint
from antiphon.loading.model import Found, findings, resolve_model
from antiphon.machine import default_engines, see_memory
from antiphon.memory_plan import plan_engines
from antiphon.models.dense import check_tensors
from antiphon.terminal import console_on
from antiphon.text import TextModel

_CONVERSATION = 2048  # tokens
_FEW_USERS = 4
_SAMPLES = ("Hello, world!", "Grüße, 東京 — Ελληνικά", "def f(x):\n    return x ** 2\n", "∑ 😀 नमस्ते")
_USER, _ASSISTANT = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}
_SYSTEM = {"role": "system", "content": "Be brief."}
# Conversations that clients send, and what to do about a template that refuses them.
_CONVERSATIONS: Sequence[tuple[str, list[dict[str, str]], str]] = (
    ("a system message", [_SYSTEM, _USER], "antiphon serve MODEL --system-prompt fold"),
    ("a second question", [_USER, _ASSISTANT, _USER], "send one question in a request, or use /v1/completions"),
)


class Model:
    """One model under examination."""

    def __init__(self, name: str, hub: str, host: Host) -> None:
        """`name` as it is typed for `antiphon serve`."""
        self._name = name
        self._hub = hub
        self._host = host

    def checks(self) -> list[Check]:
        """All checks of this model, in order."""
        return [
            Check("model", "files", self.files),
            Check("model", "kind", self.kind),
            Check("model", "memory", self.memory),
            Check("model", "file system", self.file_system),
            Check("model", "disk", self.disk),
            Check("model", "tokenizer", self.tokenizer),
            Check("model", "chat template", self.chat_template),
        ]

    def files(self) -> Iterator[Finding]:
        """Whether the model is here, and every file of it can be read."""
        if (found := self._attempt(lambda: self._found)) is None:
            yield self._not_here()
            return
        paths = _files_of(found.path)
        for path in paths:
            if (finding := _leads_nowhere(path) or _unreadable(path)) is not None:
                yield finding
                return
        size = sum(path.stat().st_size for path in paths)
        yield ok(f"{found.path}: {len(paths)} {'file' if len(paths) == 1 else 'files'}, {amount(size)}")

    def kind(self) -> Iterator[Finding]:
        """Whether the files are complete, and of an architecture and types that can be served."""
        if self._attempt(lambda: self._found) is None:
            return
        try:
            checkpoint = self._checkpoint
            check_tensors(checkpoint)
        except ConfigError as error:  # the disk or the network does not answer now
            yield problem(error.message, why="The model cannot be loaded now.", fix="dmesg | tail  # and try again")
        except AntiphonError as error:
            yield problem(
                error.message,
                why="The model cannot be served. A file that is cut off or damaged is the usual reason after a copy.",
                fix=f"antiphon pull {self._name} --verify  # compares checksums; if you copied the file, compare "
                "both with sha256sum",
            )
        else:
            kind = f", quantized by {checkpoint.quantized_by}" if checkpoint.quantized_by else ""
            yield ok(f"{checkpoint.architecture}, {checkpoint.format}{kind}, {len(checkpoint.tensors)} tensors")

    def memory(self) -> Iterator[Finding]:
        """Whether weights and KV cache fit, and for how many users."""
        if (checkpoint := self._attempt(lambda: self._checkpoint)) is None:
            return
        free = see_memory(self._host.root).free
        most = default_engines(self._host.processors)
        plan = plan_engines(checkpoint, EngineConfig(""), free, most)
        weights = amount(plan.weights.resident)
        if plan.problem:
            yield problem(
                f"{plan.problem}: the weights take {weights}, {amount(free)} are free",
                why="The server does not start.",
                fix="antiphon quantize MODEL OUT --type q4_1  # smaller weights; or give it more memory: docker update "
                "--memory",
            )
            return
        users = users_that_fit(plan.kv_cache_tokens, _CONVERSATION)
        fits = (
            f"weights {weights}, KV cache {plan.kv_cache_tokens:,} tokens: {users:,} conversations of "
            f"{_CONVERSATION:,} tokens at once"
        )
        if users < _FEW_USERS:
            yield warning(
                fits,
                why="More users wait, and long conversations are computed again after they made room for others.",
                fix="antiphon inspect MODEL  # shows what takes the memory; then antiphon quantize, or more memory",
            )
        else:
            yield ok(fits)
        if plan.context_length < plan.full_context_length:
            yield note(
                f"memory limits the context to {plan.context_length:,} of {plan.full_context_length:,} tokens",
                why="Longer prompts are refused with context_length_exceeded.",
                fix="antiphon inspect MODEL  # shows the tokens that more memory would allow",
            )

    def file_system(self) -> Iterator[Finding]:
        """Whether the files are on a disk of this machine."""
        if (found := self._attempt(lambda: self._found)) is not None:
            yield from storage.file_system(found.path, self._host)

    def disk(self) -> Iterator[Finding]:
        """How fast the largest file can be read."""
        found = self._attempt(lambda: self._found)
        paths = [path for path in _files_of(found.path) if path.is_file() and not _unreadable(path)] if found else []
        if paths:
            yield from storage.reading_speed(max(paths, key=lambda path: path.stat().st_size))

    def tokenizer(self) -> Iterator[Finding]:
        """Whether the tokenizer can be used, and gives back what it is given."""
        if self._attempt(lambda: self._checkpoint) is None:
            return
        try:
            tokenizer = self._text.tokenizer
        except CheckpointError as error:
            yield problem(
                error.message,
                why="Text cannot become tokens, so the model cannot be served.",
                fix="antiphon pull MODEL  # another upload of it, in which the tokenizer is complete",
            )
            return
        changed = [sample for sample in _SAMPLES if tokenizer.text_of(tokenizer.encode_inside(sample)) != sample]
        if changed:
            yield warning(
                f"the tokenizer does not give back {', '.join(map(repr, changed))}",
                why="Texts like this reach the model changed, or come out of it changed.",
                fix="antiphon pull MODEL  # another upload of it",
            )
        else:
            yield ok(f"{tokenizer.vocab_size:,} tokens; what is encoded comes back as it was")

    def chat_template(self) -> Iterator[Finding]:
        """What looks wrong in the template and in the advised sampling, and conversations that are refused."""
        if (text := self._attempt(lambda: self._text)) is None:
            return
        try:
            found = [_from_lint(each) for each in findings(text, self._checkpoint)]
            if text.template is not None and not any(each.level == "problem" for each in found):
                found += _refused_conversations(text)
        finally:
            text.close()
        yield from found or [ok("conversations become prompts as the publisher meant them")]

    def speed(self, threads: int) -> Iterator[Finding]:
        """Its steps against the machine's limits; takes half a minute. `threads` as in `antiphon serve --threads`."""
        from antiphon.doctor.speed import model_speed

        if self._attempt(lambda: self._checkpoint) is not None:
            yield from model_speed(self._found.path, threads)

    def _attempt(self, see: Any) -> Any:  # noqa: ANN401  # whatever it returns
        """What `see` returns; None if it cannot be had, which another check has reported."""
        try:
            return see()
        except AntiphonError:
            return None

    def _not_here(self) -> Finding:
        try:
            _ = self._found
        except HubError as error:
            return problem(
                error.message,
                why="The first start downloads the model, which takes long, or fails on a machine without a network.",
                fix=f"antiphon pull {self._name}",
            )
        except AntiphonError as error:
            return problem(
                error.message,
                why="There is nothing to serve. In a container, only folders that are mounted can be seen.",
                fix="docker run -v /path/to/models:/models:ro …  # elsewhere: check the path; of a name: antiphon pull",
            )
        raise AssertionError("it was found the second time")

    @cached_property
    def _found(self) -> Found:
        return resolve_model(self._name, console_on(stderr=True, quiet=True), hub=self._hub, offline=True)

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        return open_checkpoint(self._found.path)

    @cached_property
    def _text(self) -> TextModel:
        return TextModel.from_checkpoint(self._checkpoint)


def _files_of(path: Path) -> list[Path]:
    """The model's files: the file itself, or those in the folder, but for hidden ones; links that lead nowhere too."""
    try:
        return sorted(each for each in path.iterdir() if not each.is_dir() and not each.name.startswith("."))
    except NotADirectoryError:
        return [path]
    except OSError:
        return [path]  # which cannot be read, as the check of files says


def _leads_nowhere(path: Path) -> Finding | None:
    """What is wrong with a link to a file that is not there, or None."""
    if path.exists() or not path.is_symlink():
        return None
    return problem(
        f"{path} is a link to {path.readlink()}, which is not here",
        why="The model cannot be loaded. Hugging Face's cache keeps files in blobs/ and links to them in snapshots/: a "
        "container that sees only a part of it has the links without the files.",
        fix="docker run -v ~/.cache/huggingface:/root/.cache/huggingface:ro …  # the whole cache; or cp -rL the folder",
    )


def _unreadable(path: Path) -> Finding | None:
    """Why a file may not be read, or None."""
    needed = os.R_OK | (os.X_OK if path.is_dir() else 0)
    if os.access(path, needed, effective_ids=True):
        return None
    state = path.stat()
    return problem(
        f"{path} cannot be read by user {os.geteuid()}: it belongs to user {state.st_uid}, mode "
        f"{stat.filemode(state.st_mode)}",
        why="The model cannot be loaded. In a container, the user is another than on the host, and SELinux may also "
        "deny it.",
        fix=f"chmod -R a+rX {path.parent if path.is_file() else path}  # SELinux: docker run -v /models:/models:ro,z …",
    )


def _from_lint(found: Any) -> Finding:  # noqa: ANN401  # text.lint.Finding, whose name is taken here
    refused = "refused" in found.done
    make = problem if refused else (note if "none is needed" in found.fix else warning)
    return make(
        f"{found.wrong}; {found.done}",
        why=found.why or "Answers may be worse than the model's own.",
        fix=found.fix or "antiphon pull MODEL  # another upload of it",
    )


def _refused_conversations(text: TextModel) -> Iterator[Finding]:
    for name, messages, fix in _CONVERSATIONS:
        try:
            text.chat_prompt(messages)
        except InvalidRequest as error:
            yield warning(
                f"the chat template refuses {name}: {error.message}",
                why="Clients that send it get a 400.",
                fix=fix,
            )
