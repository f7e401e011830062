"""`antiphon doctor`: its options, and how findings are printed. The checks are in `antiphon.doctor`."""

from __future__ import annotations

import json
import re
import textwrap
import time
from collections.abc import Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from antiphon import __version__
from antiphon.commands.completion import model_names
from antiphon.commands.pull import HubOption
from antiphon.commands.server_address import server_url
from antiphon.config import ServerConfig
from antiphon.errors import ConfigError
from antiphon.terminal import console_on, printable

if TYPE_CHECKING:
    from antiphon.doctor.examination import Check
    from antiphon.doctor.findings import Result

_DEFAULTS = ServerConfig()
_ADDRESS = re.compile(r"(localhost|\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:.]+\])(:\d+)?(/.*)?")
# Variables that are read elsewhere than in the options of `serve` and `batch`.
_OTHER_VARIABLES = ("CACHE", "CHAT_HISTORY", "URL", "ADMIN_KEY", "COMPLETE")
_OF_TESTS = ("DEMO_MODEL", "SKIP_NOTHING", "PAGE_PATIENCE", "TESTS", "CLIENTS")
_SIGNS = {"ok": ("✓", "green"), "note": ("i", "cyan"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}


def doctor(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL|URL",
            help="A model to check as well, or the address of a running server to check instead of this machine.",
            autocompletion=model_names,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    speed: Annotated[
        bool,
        typer.Option("--speed", help="Measure this machine, and MODEL against what it allows; takes a minute."),
    ] = False,
    host: Annotated[
        str, typer.Option(envvar="ANTIPHON_HOST", help="Address that a server would listen on.", show_envvar=False)
    ] = _DEFAULTS.host,
    port: Annotated[
        int, typer.Option(envvar="ANTIPHON_PORT", help="Port that a server would listen on.", show_envvar=False)
    ] = _DEFAULTS.port,
    threads: Annotated[
        int, typer.Option("--threads", "-t", envvar="ANTIPHON_THREADS", help="As in serve.", show_envvar=False)
    ] = 0,
    max_connections: Annotated[
        int, typer.Option(envvar="ANTIPHON_MAX_CONNECTIONS", help="As in serve.", show_envvar=False)
    ] = _DEFAULTS.max_connections,
    api_key: Annotated[
        str, typer.Option(envvar="ANTIPHON_API_KEY", help="API key to send to the server at URL.", show_envvar=False)
    ] = "",
    hub: HubOption = _DEFAULTS.hub,
) -> None:
    """Look for what keeps this machine, a MODEL or a running server from working well, and say how to fix it.

    Nothing is changed or downloaded. The exit code is 1 if there is a problem; notes and warnings leave it 0.

    [bold]Examples[/bold]

      antiphon doctor

      antiphon doctor deepseek-r1:1.5b

      antiphon doctor https://chat.example.org
    """
    from antiphon.doctor.checks import Intentions
    from antiphon.doctor.examination import examine

    ServerConfig(host=host, port=port, max_connections=max_connections)  # or ConfigError
    if threads < 0:
        raise ConfigError(f"--threads is {threads}; it must be at least 0")
    wanted = Intentions(host, port, threads, max_connections, variables=_variables(context))
    started = time.monotonic()
    show = None if as_json else _Printer()
    results = []
    for result in examine(_checks(target, wanted, hub=hub, api_key=api_key, speed=speed)):
        results.append(result)
        if show:
            show(result)
    if show:
        show.end(results)
    else:
        typer.echo(json.dumps(_report(target, results, time.monotonic() - started), indent=2, ensure_ascii=False))
    if any(result.finding.level == "problem" for result in results):
        raise typer.Exit(1)


def _is_address(target: str) -> bool:
    """Whether a URL was typed and not the name of a model, such as "deepseek-r1:1.5b"."""
    return target.startswith(("http://", "https://")) or _ADDRESS.fullmatch(target) is not None


def _checks(target: str | None, wanted: Any, *, hub: str, api_key: str, speed: bool) -> list[Check]:  # noqa: ANN401  # imported only when it runs
    from antiphon.doctor.checks import machine_checks, server_checks
    from antiphon.doctor.host import Host
    from antiphon.doctor.visit import Visit

    if target is not None and _is_address(target):
        if speed:
            raise ConfigError(f"--speed measures this machine, not {target}; antiphon bench measures a server")
        return server_checks(Visit(server_url(target, "URL"), api_key))
    checks = machine_checks(Host(), wanted)
    if target is not None:
        from antiphon.doctor.model import Model

        model = Model(target, hub, Host())
        checks += model.checks()
    if speed:
        from antiphon.doctor.examination import Check
        from antiphon.doctor.speed import CHECK_SECONDS, machine_speed

        checks.append(Check("speed", "machine", partial(machine_speed, wanted.threads), CHECK_SECONDS))
        if target is not None:
            checks.append(Check("speed", "model", partial(model.speed, wanted.threads), CHECK_SECONDS))
    return checks


def _variables(context: typer.Context) -> Collection[str]:
    """The names of all variables of the environment that are read."""
    command: Any = context.find_root().command
    names = {
        parameter.name
        for name in ("serve", "batch")
        for parameter in command.commands[name].params
        if parameter.param_type_name == "option"
    }
    return {f"ANTIPHON_{name.upper()}" for name in (*names, *_OTHER_VARIABLES, *_OF_TESTS)}


def _report(target: str | None, results: Iterable[Result], seconds: float) -> dict[str, Any]:
    from antiphon.doctor.findings import count_levels

    results = list(results)
    return {
        "version": __version__,
        "target": target,
        "seconds": round(seconds, 3),
        "counts": count_levels(results),
        "findings": [result.as_json() for result in results],
    }


_HEADINGS = {"gpu": "GPU"}  # those that are not just the subject's name


class _Printer:
    """Prints each finding as soon as there is one, under its subject; an `ok` takes one line."""

    def __init__(self) -> None:
        self._console = console_on(stderr=False)
        self._subject = ""

    def __call__(self, result: Result) -> None:
        from rich.text import Text

        console, finding = self._console, result.finding
        if result.subject != self._subject:
            self._subject = result.subject
            console.print(Text(_HEADINGS.get(result.subject, result.subject.capitalize()), style="bold"))
        sign, style = _SIGNS[finding.level.value]
        console.print(Text.assemble("  ", (sign, style), " ", printable(finding.what)), soft_wrap=True)
        if finding.why:
            console.print(Text(_indented(printable(finding.why), console.width), style="dim"), soft_wrap=True)
            console.print(Text.assemble("    fix: ", (printable(finding.fix), "bold")), soft_wrap=True)

    def end(self, results: list[Result]) -> None:
        """Print how many findings of each level there are."""
        from antiphon.doctor.findings import count_levels

        self._console.print(_summary(count_levels(results)))


def _indented(text: str, width: int) -> str:
    return textwrap.fill(text, max(width, 40), initial_indent="    ", subsequent_indent="    ")


def _summary(counts: dict[str, int]) -> str:
    parts = [_counted(counts[level], level) for level in ("problem", "warning", "note")]
    return f"\n{', '.join(parts)}; {counts['ok']} passed."


def _counted(count: int, name: str) -> str:
    return f"{count} {name if count == 1 else name + 's'}"
