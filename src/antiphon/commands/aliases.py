"""The names that people who come from vLLM and llama.cpp type, understood as ours.

A table and a command class that rewrites what was typed before it is parsed, and whose help shows them beside our own.
Names such as `-np` could not be declared as options at all, since a single dash stands for one letter there.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

# What may be typed → what it means.
ALIASES = {
    "--served-model-name": "--model-name",  # vLLM
    "--alias": "--model-name",  # llama.cpp
    "-a": "--model-name",
    "--max-model-len": "--context-length",
    "--ctx-size": "--context-length",
    "-c": "--context-length",
    "--max-num-batched-tokens": "--max-batch-tokens",
    "--batch-size": "--max-batch-tokens",
    "-b": "--max-batch-tokens",
    "--parallel": "--max-num-seqs",
    "-np": "--max-num-seqs",
    "-t": "--threads",
    "-q": "--quantization",  # vLLM
    "--kv-cache-dtype": "--kv-cache-type",
    "--cache-type-k": "--kv-cache-type",
    "-ctk": "--kv-cache-type",
    "--enable-prefix-caching": "--prefix-caching",
    "--no-enable-prefix-caching": "--no-prefix-caching",
    "--long-prefill-token-threshold": "--prefill-chunk",
    "--ubatch-size": "--prefill-chunk",
    "-ub": "--prefill-chunk",
    "--ssl-cert-file": "--ssl-certfile",  # llama.cpp
    "--ssl-key-file": "--ssl-keyfile",
    "--timeout": "--network-timeout",
    "-to": "--network-timeout",
    "--timeout-keep-alive": "--keep-alive-timeout",  # uvicorn
}
# What their values are called elsewhere.
VALUES = {
    "--kv-cache-type": {"q8_0": "int8", "fp16": "f16", "float16": "f16"},
    "--tool-call-parser": {"deepseek_v3": "deepseek", "deepseek_v31": "deepseek"},
}
# What these ask for is so in any case.
NEEDLESS = ("--enable-auto-tool-choice", "--jinja")

# What llama.cpp's and vLLM's users name the model with → which part of its name that is.
MODEL_FLAGS = {
    "-hf": "repo",
    "-hfr": "repo",
    "--hf-repo": "repo",
    "-hff": "file",
    "--hf-file": "file",
    "-m": "repo",
    "--model": "repo",
}

# What vLLM's `run-batch` names its files with.
FILE_FLAGS = {"-i": "in", "--input-file": "in", "-o": "out", "--output-file": "out"}

_NAME_COLUMN = 26  # characters; a longer name stands on a line of its own


def translate(arguments: list[str]) -> list[str]:
    """`arguments` with every alias replaced by our own name, `--flag value` and `--flag=value` alike."""
    translated: list[str] = []
    flag = ""
    for position, argument in enumerate(arguments):
        if argument == "--":
            return translated + arguments[position:]
        if argument.startswith("-"):
            name, equals, value = argument.partition("=")
            if name in NEEDLESS:
                continue
            flag = ALIASES.get(name, name)
            translated.append(flag + equals + VALUES.get(flag, {}).get(value, value))
        else:
            translated.append(VALUES.get(flag, {}).get(argument, argument))
            flag = ""
    return translated


def translate_model(arguments: list[str], *, last: bool = False) -> list[str]:
    """`arguments` with flags that name the model made into MODEL, which comes first or last: `-hf REPO --hf-file FILE`
    is REPO/FILE.
    """
    given: dict[str, str] = {}
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if argument == "--":
            others += [argument, *rest]
        elif flag in MODEL_FLAGS:
            given[MODEL_FLAGS[flag]] = value if equals else next(rest, "")
        else:
            others.append(argument)
    if given.get("file"):  # it overrules a type behind the repository
        given["repo"] = f"{given.get('repo', '').partition(':')[0]}/{given['file']}"
    if not given.get("repo"):
        return others
    return [*others, given["repo"]] if last else [given["repo"], *others]


def translate_files(arguments: list[str]) -> list[str]:
    """`arguments` with flags that name files, both of them, made into IN and OUT, which come first."""
    given: dict[str, str] = {}
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if argument == "--":
            others += [argument, *rest]
        elif flag in FILE_FLAGS:
            given[FILE_FLAGS[flag]] = value if equals else next(rest, "")
        else:
            others.append(argument)
    if len(given) == 1:
        raise typer.BadParameter("give both files by flags, -i IN -o OUT, or both without")
    return [given["in"], given["out"], *others] if given else others


class ModelCommand(TyperCommand):
    """A command whose MODEL may also be given by a flag."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # click's, wherever typer keeps it
        """Translate, then parse as ever."""
        return super().parse_args(ctx, translate_model(args))


class AliasCommand(ModelCommand):
    """A command that understands the aliases."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Translate, then parse as ever."""
        return super().parse_args(ctx, translate(args))

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Plain lists in place of typer's boxes, whose columns cut long names on a terminal of 80."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        for panel, rows in self._panels(ctx).items():
            with formatter.section(panel):
                formatter.write_dl(rows, col_max=_NAME_COLUMN)

    def _panels(self, ctx: Any) -> dict[str, list[tuple[str, str]]]:  # noqa: ANN401
        """Names and explanations of all options that may be seen, by panel."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False):
                panel = getattr(parameter, "rich_help_panel", None) or "Options"
                panels.setdefault(panel, []).append(_row(parameter))
        return panels


class BatchCommand(AliasCommand):
    """A command of two files and a MODEL, each of which may also be given by a flag, as vLLM's `run-batch` has them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Put files given by flags first and the model last, then parse as ever."""
        return super().parse_args(ctx, translate_files(translate_model(args, last=True)))


def _row(option: Any) -> tuple[str, str]:  # noqa: ANN401
    """An option's names with its aliases, and what it means with its default."""
    names = [*option.opts, *option.secondary_opts]
    # Beside the names, since only there lines are not broken at hyphens. What switches off is clear from the rest.
    names += [alias for alias, meaning in ALIASES.items() if meaning in option.opts]
    default = option.default
    if isinstance(default, bool):
        default = "on" if default else ""  # off goes without saying
    parts = [option.help or ""]
    if default not in (None, ""):
        parts.append(f"[default: {default}]")
    return ", ".join(names), " ".join(parts)
