"""The names that people who come from vLLM and llama.cpp type, understood as ours.

A table and a command class that rewrites what was typed before it is parsed; help shows our own names only. Names such
as `-np` could not be declared as options at all, since a single dash stands for one letter there.
"""

from __future__ import annotations

from typing import Any

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
    "--kv-cache-dtype": "--kv-cache-type",
    "--cache-type-k": "--kv-cache-type",
    "-ctk": "--kv-cache-type",
    "--enable-prefix-caching": "--prefix-caching",
    "--no-enable-prefix-caching": "--no-prefix-caching",
    "--long-prefill-token-threshold": "--prefill-chunk",
    "--ubatch-size": "--prefill-chunk",
    "-ub": "--prefill-chunk",
}
# What their values are called elsewhere.
VALUES = {"--kv-cache-type": {"q8_0": "int8", "fp16": "f16", "float16": "f16"}}


def translate(arguments: list[str]) -> list[str]:
    """`arguments` with every alias replaced by our own name, `--flag value` and `--flag=value` alike."""
    translated: list[str] = []
    flag = ""
    for position, argument in enumerate(arguments):
        if argument == "--":
            return translated + arguments[position:]
        if argument.startswith("-"):
            name, equals, value = argument.partition("=")
            flag = ALIASES.get(name, name)
            translated.append(flag + equals + VALUES.get(flag, {}).get(value, value))
        else:
            translated.append(VALUES.get(flag, {}).get(argument, argument))
            flag = ""
    return translated


class AliasCommand(TyperCommand):
    """A command that understands the aliases."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # click's, wherever typer keeps it
        """Translate, then parse as ever."""
        return super().parse_args(ctx, translate(args))
