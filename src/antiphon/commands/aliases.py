"""Names of options in vLLM and llama.cpp, accepted in place of ours.

A table, and command classes that rewrite the arguments before they are parsed and list these names in the help. Names
such as `-np` cannot be declared as options, since a single dash is followed by one letter there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import typer

from antiphon.commands.environment import TYPED_NAMES, EnvironmentCommand
from antiphon.commands.foreign_flags import without_foreign_flags
from antiphon.config import ACCESS_LOGS, EngineConfig
from antiphon.terminal import console_on, print_note

# A name elsewhere → ours.
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
    "--data-parallel-size": "--engines",  # vLLM
    "-dp": "--engines",
    "-dev": "--device",  # llama.cpp
    "-q": "--quantization",  # vLLM
    "--kv-cache-dtype": "--kv-cache-type",
    "--cache-type-k": "--kv-cache-type",
    "-ctk": "--kv-cache-type",
    "--cache-type-v": "--kv-cache-type",  # keys and values have one type here, so both must say the same
    "-ctv": "--kv-cache-type",
    "--enable-prefix-caching": "--prefix-caching",
    "--no-enable-prefix-caching": "--no-prefix-caching",
    "--cache-prompt": "--prefix-caching",  # llama.cpp
    "--no-cache-prompt": "--no-prefix-caching",
    "--spec-type": "--speculation",  # llama.cpp
    "--spec-method": "--speculation",  # vLLM
    "--long-prefill-token-threshold": "--prefill-chunk",
    "--ubatch-size": "--prefill-chunk",
    "-ub": "--prefill-chunk",
    "--ssl-cert-file": "--ssl-certfile",  # llama.cpp
    "--ssl-key-file": "--ssl-keyfile",
    "--timeout": "--network-timeout",
    "-to": "--network-timeout",
    "--webui": "--page",  # llama.cpp
    "--no-webui": "--no-page",
    "--ui": "--page",
    "--no-ui": "--no-page",
    "--timeout-keep-alive": "--keep-alive-timeout",  # uvicorn
}
# A value elsewhere → ours.
_STORED_SO = ("awq", "awq_marlin", "gptq", "gptq_marlin", "compressed-tensors", "gguf")  # found in the model's files
# llama.cpp's, of which it takes several, and vLLM's.
_DRAFTS_FROM_TEXT = r"ngram(-(cache|simple|mod|map-k|map-k4v)|_gpu)?|suffix"
_BY_PATTERN = {
    "--speculation": (rf"({_DRAFTS_FROM_TEXT})(,({_DRAFTS_FROM_TEXT}))*", "auto"),
    "--device": (r"CUDA(\d{1,3})", r"cuda:\1"),  # llama.cpp
}
VALUES = {
    "--device": {"none": "cpu"},  # llama.cpp
    "--kv-cache-type": {"q8_0": "int8", "auto": "int8", "fp16": "f16", "float16": "f16"},
    "--max-num-seqs": {"-1": str(EngineConfig(model="").max_num_sequences)},  # llama.cpp: chosen by itself
    "--quantization": dict.fromkeys(_STORED_SO, "auto"),
    "--speculation": {"none": "off"},  # llama.cpp
    "--threads": {"-1": "0"},  # llama.cpp
    "--tool-call-parser": {"deepseek_v3": "deepseek", "deepseek_v31": "deepseek"},
}
# Switches elsewhere → our option and its value.
_ACCESS_LOG = "--access-log"
SWITCHES = dict.fromkeys(("--no-access-log", "--disable-uvicorn-access-log"), (_ACCESS_LOG, "off"))

# Flags that name the model in llama.cpp and vLLM → the part of its name that they give.
MODEL_FLAGS = {
    "-hf": "repo",
    "-hfr": "repo",
    "--hf-repo": "repo",
    "-hff": "file",
    "--hf-file": "file",
    "-m": "repo",
    "--model": "repo",
}

# Flags that name the files of vLLM's `run-batch`.
FILE_FLAGS = {"-i": "in", "--input-file": "in", "-o": "out", "--output-file": "out"}

_NUMBER = re.compile(r"-\d+(\.\d+)?")  # a negative one, which is a value although it begins with a dash
_NAME_COLUMN = 26  # characters; a longer name is on a line of its own


def translate(arguments: list[str]) -> list[str]:
    """`arguments` with every alias replaced by our own name, `--flag value` and `--flag=value` alike.

    Raises:
        typer.BadParameter: keys and values of the KV cache are to have different types.
    """
    translated: list[str] = []
    given: dict[str, str] = {}  # by the names that were typed
    typed = flag = ""
    for position, argument in enumerate(arguments):
        if argument == "--":
            return translated + arguments[position:]
        if argument in SWITCHES:
            translated += SWITCHES[argument]
            typed = flag = ""
        elif argument.startswith("-") and not (flag and _NUMBER.fullmatch(argument)):
            typed, equals, value = argument.partition("=")
            flag = ALIASES.get(typed, typed)
            given[typed] = _own_value(flag, value)
            translated.append(flag + equals + given[typed])
            if argument == _ACCESS_LOG and not _is_access_log(arguments[position + 1 : position + 2]):
                translated.append(ACCESS_LOGS[0])
        else:
            given[typed] = _own_value(flag, argument)
            translated.append(given[typed])
            typed = flag = ""
    _check_cache_types(given)
    return translated


def _own_value(flag: str, value: str) -> str:
    """A value of one of our options, in our own words."""
    if flag in _BY_PATTERN:
        pattern, own = _BY_PATTERN[flag]
        if found := re.fullmatch(pattern, value):
            return found.expand(own)
    return VALUES.get(flag, {}).get(value, value)


def with_dashes(arguments: list[str]) -> list[str]:
    """`arguments` with dashes for underscores in names, as in `--max_model_len`, which vLLM accepts."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [_dashed(each) if each.startswith("--") else each for each in arguments[:end]] + arguments[end:]


def _dashed(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _is_access_log(following: list[str]) -> bool:
    """Whether what follows the option is its value; alone it means the default, as it does elsewhere."""
    return bool(following) and following[0] in ACCESS_LOGS


def _check_cache_types(given: dict[str, str]) -> None:
    """Keys and values of the KV cache have one type here."""
    of_values = {given[name] for name in ("--cache-type-v", "-ctv") if name in given}
    of_keys = {value for name, value in given.items() if ALIASES.get(name, name) == "--kv-cache-type"} - of_values
    if of_values and of_keys:
        raise typer.BadParameter("keys and values have one type; give the same for both", param_hint="--cache-type-v")


def translate_model(arguments: list[str], *, last: bool = False) -> list[str]:
    """`arguments` with the flags that name the model replaced by MODEL, which comes first or last. `-hf REPO --hf-file
    FILE` becomes REPO/FILE.
    """
    given, others = _taken_out(arguments, MODEL_FLAGS)
    if given.get("file"):  # instead of a type after the repository
        given["repo"] = f"{given.get('repo', '').partition(':')[0]}/{given['file']}"
    if not given.get("repo"):
        return others
    return [*others, given["repo"]] if last else [given["repo"], *others]


def translate_files(arguments: list[str]) -> list[str]:
    """`arguments` with the two flags that name files replaced by IN and OUT, which come first."""
    given, others = _taken_out(arguments, FILE_FLAGS)
    if len(given) == 1:
        raise typer.BadParameter("give both files by flags, -i IN -o OUT, or both without")
    return [given["in"], given["out"], *others] if given else others


def _taken_out(arguments: list[str], flags: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The values of some flags, by the names that `flags` has for them, and all other arguments."""
    given: dict[str, str] = {}
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if argument == "--":
            others += [argument, *rest]
        elif flag in flags:
            given[flags[flag]] = value if equals else next(rest, "")
        else:
            others.append(argument)
    return given, others


class ModelCommand(EnvironmentCommand):
    """A command whose MODEL may also be given by a flag."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # click's, wherever typer keeps it
        """Translate, then parse as usual."""
        return super().parse_args(ctx, translate_model(args))


class PlainHelpCommand(EnvironmentCommand):
    """A command of many options, whose help is plain lists: typer's boxes cut long names on narrow terminals."""

    aliases: Mapping[str, str] = {}  # names elsewhere → ours, that this command accepts

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  # click's, wherever typer keeps it
        """Write a list for each panel of options."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        for panel, rows in self._panels(ctx).items():
            with formatter.section(panel):
                formatter.write_dl(rows, col_max=_NAME_COLUMN)

    def _panels(self, ctx: Any) -> dict[str, list[tuple[str, str]]]:  # noqa: ANN401
        """Names and explanations of all visible options, by panel."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False):
                panel = getattr(parameter, "rich_help_panel", None) or "Options"
                panels.setdefault(panel, []).append(_row(parameter, self.aliases))
        return panels


class AliasCommand(PlainHelpCommand, ModelCommand):
    """A command that accepts the aliases, and flags of other servers that mean nothing here."""

    aliases = ALIASES

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Translate, then parse as usual; notes on flags without effect are printed once the rest is found good."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        args, notes = without_foreign_flags(with_dashes(args))
        ctx.meta[TYPED_NAMES] = {ALIASES[name]: name for each in args if (name := each.partition("=")[0]) in ALIASES}
        rest = super().parse_args(ctx, translate(args))
        for note in notes:
            print_note(console_on(stderr=True), note)
        return rest


class BatchCommand(AliasCommand):
    """A command of two files and a MODEL, each of which may also be given by a flag, as in vLLM's `run-batch`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Put files given by flags first and the model last, then parse as usual."""
        args = translate_model(args, last=True)
        if not ctx.resilient_parsing:  # which a shell asks for that completes a line that is not whole yet
            args = translate_files(args)
        return super().parse_args(ctx, args)


def _row(option: Any, aliases: Mapping[str, str]) -> tuple[str, str]:  # noqa: ANN401
    """An option's names with its aliases, and its explanation with its default."""
    names = [*option.opts, *option.secondary_opts]
    # In the column of names, since lines are broken at hyphens in the other.
    names += [alias for alias, meaning in aliases.items() if meaning in option.opts]
    default = option.default
    if isinstance(default, bool):
        default = "on" if default else ""  # off is obvious
    if isinstance(option.show_default, str):
        default = option.show_default
    elif option.show_default is False:
        default = None
    parts = [option.help or ""]
    if default not in (None, ""):
        parts.append(f"[default: {default}]")
    return ", ".join(names), " ".join(parts)
