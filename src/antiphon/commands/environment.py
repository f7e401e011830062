"""A command whose options can come from the environment or a file, and whose errors say so where they did.

Owns the way from a bad value back to its source. It promises that a value from ANTIPHON_PORT is never blamed on --port,
which nobody typed, that an error names an option as it was typed, also under another server's name for it, and that a
list from the environment is split by the option's own rule alone.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer
from typer.core import TyperCommand

from antiphon.errors import ConfigError

_FLAG = re.compile(r"--[a-z][a-z0-9-]*")
_A_MODEL = "It is a GGUF file, a Hugging Face folder, or a name: demo, deepseek-r1:1.5b, owner/repo"
TYPED_NAMES = "antiphon.typed_names"  # in the context's meta: our names of options → those that were typed


class EnvironmentCommand(TyperCommand):
    """A command that blames a bad value on the environment variable, or the file, that it came from."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  # typer's own
        super().__init__(*arguments, **options)
        self.help = _flowing(self.help or "")
        for parameter in self.params:
            if getattr(parameter, "multiple", False):
                # Otherwise blanks part the items, so that "a b" would silently become two of them.
                parameter.split_envvar_value = _whole  # type: ignore[assignment]  # a method, of this one

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # click's, wherever typer keeps it
        """Parse as usual; an error about a value from the environment names the variable."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            if error.param is not None and error.param.name == "model" and not error.message:  # it is missing
                error.message = _A_MODEL
            if error.param is not None and (variable := _source(ctx, error.param)):
                error.param_hint = variable if " in " in variable else f"the environment variable {variable}"
            elif error.param is not None and error.param.opts[0] in (typed := ctx.meta.get(TYPED_NAMES, {})):
                error.param_hint = typed[error.param.opts[0]]
            raise
        except ConfigError as error:
            raise ConfigError(_blamed(ctx, error.message)) from None

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run the command; an error about a setting from the environment names the variable."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise ConfigError(_blamed(ctx, error.message)) from None


def _flowing(text: str) -> str:
    """`text` with the lines of each paragraph joined: typer's help keeps the line breaks of all but the first."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(each if each.startswith("\b") else each.replace("\n", " ") for each in paragraphs)


def _blamed(ctx: Any, message: str) -> str:  # noqa: ANN401
    """The message, with each flag as it was typed, or the environment variable or place in a file it came from."""
    typed = ctx.meta.get(TYPED_NAMES, {})
    flags = {flag: parameter for parameter in ctx.command.params for flag in parameter.opts}

    def name(found: re.Match[str]) -> str:
        parameter = flags.get(found[0])
        return (parameter and _source(ctx, parameter)) or typed.get(found[0], found[0])

    return _FLAG.sub(name, message)


def _source(ctx: Any, parameter: Any) -> str:  # noqa: ANN401
    """The environment variable or the place in a file that a value came from; empty where it came from elsewhere."""
    source = ctx.get_parameter_source(parameter.name)
    if source is not None and source.name == "DEFAULT_MAP":
        return f"{parameter.name.replace('_', '-')} in {ctx.params.get('config', 'the file')}"
    if source is None or source.name != "ENVIRONMENT":
        return ""
    return str(parameter.envvar or f"{ctx.auto_envvar_prefix}_{parameter.name.upper()}")


def _whole(text: str) -> list[str]:
    return [text]
