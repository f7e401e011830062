"""A command whose options can come from the environment or a file, and whose errors say so where they did.

Owns the way from a bad value back to its source. It promises that a value from ANTIPHON_PORT is never blamed on --port,
which nobody typed, and that a list from the environment is split by the option's own rule alone.
"""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperCommand

from antiphon.errors import ConfigError

_FLAG = re.compile(r"--[a-z][a-z0-9-]*")


class EnvironmentCommand(TyperCommand):
    """A command that blames a bad value on the environment variable, or the file, that it came from."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  # typer's own
        super().__init__(*arguments, **options)
        for parameter in self.params:
            if getattr(parameter, "multiple", False):
                # Otherwise blanks part the items, so that "a b" would silently become two of them.
                parameter.split_envvar_value = _whole  # type: ignore[assignment]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # click's, wherever typer keeps it
        """Parse as usual; an error about a value from the environment names the variable."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            if error.param is not None and (variable := _source(ctx, error.param)):
                error.param_hint = variable if " in " in variable else f"the environment variable {variable}"
            raise
        except ConfigError as error:
            raise ConfigError(_blamed(ctx, error.message)) from None

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run the command; an error about a setting from the environment names the variable."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise ConfigError(_blamed(ctx, error.message)) from None


def _blamed(ctx: Any, message: str) -> str:  # noqa: ANN401
    """The message, with the variable or the place in a file in place of those flags whose values came from there."""
    flags = {flag: parameter for parameter in ctx.command.params for flag in parameter.opts}

    def name(found: re.Match[str]) -> str:
        parameter = flags.get(found[0])
        return (parameter and _source(ctx, parameter)) or found[0]

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
