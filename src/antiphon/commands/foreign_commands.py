"""Commands of Ollama and vLLM that have another name here: typing one is an error that says ours."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

# A command elsewhere → ours.
FOREIGN_COMMANDS = {
    "run": "antiphon chat MODEL",  # Ollama
    "list": "antiphon models",
    "ls": "antiphon models",
    "show": "antiphon inspect MODEL",
    "rm": "antiphon models remove MODEL",
    "ps": "antiphon engines",
    "start": "antiphon serve MODEL",
    "run-batch": "antiphon batch IN OUT MODEL",  # vLLM
}


class CommandGroup(TyperGroup):
    """Commands, of which some are known under other names."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401  # click's, wherever typer keeps it
        """Find the command as usual, but name ours for one of another program."""
        if args and args[0] not in self.commands and (ours := FOREIGN_COMMANDS.get(args[0])):
            ctx.fail(f"There is no command {args[0]!r} here. Use: {ours}")
        return super().resolve_command(ctx, args)
