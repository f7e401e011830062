"""`antiphon completion`: the script that makes a shell complete commands, options, their values and model names.

Owns the script for bash and what is offered for values; the scripts for zsh and fish are Typer's. Nothing is installed:
people's startup files are theirs, and they add one line to them, or put the script where their shell looks for such.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from typer.completion import completion_init, get_completion_script  # type: ignore[attr-defined]  # its own, re-exported

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_ANTIPHON_COMPLETE"

# Typer's takes bash's own words, which end at each colon and equals sign; names of models have colons.
_BASH = """\
_antiphon_completion() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$' \\t\\n'
    local words=( $line ) word="${line##*[[:space:]]}" at prefix
    at=$(( ${#words[@]} - 1 ))
    [[ -n $word ]] || at=${#words[@]}
    IFS=$'\\n'
    COMPREPLY=( $( COMP_WORDS="$line" COMP_CWORD=$at _ANTIPHON_COMPLETE=complete_bash "$1" 2>/dev/null ) )
    if [[ $word == *[:=]* ]]; then
        prefix="${word%"${word##*[:=]}"}"
        COMPREPLY=( "${COMPREPLY[@]#"$prefix"}" )
    fi
}
complete -o default -F _antiphon_completion antiphon
"""


def completion(
    shell: Annotated[
        str,
        typer.Argument(metavar="SHELL", help=f"{', '.join(SHELLS)}.", autocompletion=lambda: list(SHELLS)),
    ],
) -> None:
    """Print a script that completes commands, options and model names in SHELL.

    [bold]Examples[/bold]

      echo 'source <(antiphon completion bash)' >> ~/.bashrc

      echo 'source <(antiphon completion zsh)' >> ~/.zshrc

      antiphon completion fish > ~/.config/fish/completions/antiphon.fish
    """
    if shell not in SHELLS:
        raise typer.BadParameter(f"{shell!r} is not one of {', '.join(SHELLS)}", param_hint="SHELL")
    if shell == "bash":
        typer.echo(_BASH, nl=False)
    else:
        typer.echo(get_completion_script(prog_name="antiphon", complete_var=_VARIABLE, shell=shell))


def set_up_completion() -> None:
    """Make this process able to answer a shell, if it was started by one of the scripts."""
    if _VARIABLE in os.environ:
        completion_init()


def one_of(values: tuple[str, ...]) -> Callable[[], list[str]]:
    """Offers these values."""
    return lambda: list(values)


def model_names(incomplete: str) -> list[str]:
    """Offers short names, and repositories that were downloaded from Hugging Face; files are the shell's business."""
    from antiphon.hub.names import SHORT_NAMES

    names = [*SHORT_NAMES, *_downloaded()]
    return [name for name in names if name.startswith(incomplete)]


def _downloaded() -> list[str]:
    """Repositories in Hugging Face's cache, found without its library, which takes too long to import for this."""
    environment = os.environ
    home = Path(environment.get("HF_HOME") or Path(environment.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"))
    folder = Path(environment.get("HF_HUB_CACHE") or home / "hub").expanduser()
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return []
    return [name.removeprefix("models--").replace("--", "/", 1) for name in names if name.startswith("models--")]
