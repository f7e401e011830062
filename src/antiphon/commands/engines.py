"""`antiphon engines`: lists the engines of a running server, and adds, removes, drains and restarts them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from antiphon.api_keys import first_admin_key
from antiphon.commands.server_address import DEFAULT_URL, server_url
from antiphon.errors import AntiphonError
from antiphon.terminal import console_on, printable

if TYPE_CHECKING:
    from antiphon.commands.admin_client import AdminClient

Json = dict[str, Any]

UrlOption = Annotated[str, typer.Option("--url", envvar="ANTIPHON_URL", help="Address of the server.")]
AdminKeyFileOption = Annotated[
    str,
    typer.Option(
        "--admin-key-file",
        envvar="ANTIPHON_ADMIN_KEY_FILE",
        help="A file whose first key is an admin key of the server; without it, ANTIPHON_ADMIN_KEY is used.",
    ),
]
AdminKeyOption = Annotated[
    str, typer.Option("--admin-key", envvar="ANTIPHON_ADMIN_KEY", hidden=True, help="The key itself.")
]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_FINGERPRINT_DIGITS = 8  # as many as a table has room for; JSON has all

IdArgument = Annotated[int, typer.Argument(metavar="ID", help="The engine's id, as listed.", min=0)]

engines = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)


@engines.callback(invoke_without_command=True)
def engines_of_server(
    context: typer.Context,
    url: UrlOption = DEFAULT_URL,
    admin_key_file: AdminKeyFileOption = "",
    admin_key: AdminKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the engines of a running server, or change them while it serves. No answer is cut.

    The server needs an admin key (antiphon serve --admin-key-file FILE).

    [bold]Examples[/bold]

      antiphon engines

      antiphon engines add

      antiphon engines restart --all --url http://10.0.0.5:8000
    """
    if context.invoked_subcommand is None:
        list_engines(url, admin_key_file, admin_key, as_json)


@engines.command(name="list")
def list_engines(
    url: UrlOption = DEFAULT_URL,
    admin_key_file: AdminKeyFileOption = "",
    admin_key: AdminKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the engines with their state and load."""
    with connected(url, admin_key_file, admin_key) as client:
        found = client.engines()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _print(found)


@engines.command()
def add(
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="A host, as in tcp://10.0.0.5:8010, or a device of the server, as in cuda:1."
        ),
    ] = "",
    url: UrlOption = DEFAULT_URL,
    admin_key_file: AdminKeyFileOption = "",
    admin_key: AdminKeyOption = "",
    no_wait: NoWaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start another engine, with the model and settings of the others. It needs memory for the weights once more."""
    path = f"/engines?address={quote(address, safe='')}" if address else "/engines"
    _operate(("POST", path), "engine {engine} is ready", (url, admin_key_file, admin_key), no_wait, as_json)


@engines.command()
def remove(
    engine: IdArgument,
    url: UrlOption = DEFAULT_URL,
    admin_key_file: AdminKeyFileOption = "",
    admin_key: AdminKeyOption = "",
    no_wait: NoWaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stop an engine. Its answers continue on another one."""
    request = "DELETE", f"/engines/{engine}"
    _operate(request, "engine {engine} is removed", (url, admin_key_file, admin_key), no_wait, as_json)


@engines.command()
def drain(
    engine: IdArgument,
    url: UrlOption = DEFAULT_URL,
    admin_key_file: AdminKeyFileOption = "",
    admin_key: AdminKeyOption = "",
    no_wait: NoWaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give an engine no more work, and keep it loaded. Its answers continue on another one."""
    request = "POST", f"/engines/{engine}/drain"
    _operate(request, "engine {engine} has no more work", (url, admin_key_file, admin_key), no_wait, as_json)


@engines.command()
def resume(
    engine: IdArgument,
    url: UrlOption = DEFAULT_URL,
    admin_key_file: AdminKeyFileOption = "",
    admin_key: AdminKeyOption = "",
    no_wait: NoWaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a drained engine work again."""
    request = "POST", f"/engines/{engine}/resume"
    _operate(request, "engine {engine} gets work again", (url, admin_key_file, admin_key), no_wait, as_json)


@engines.command()
def restart(
    engine: Annotated[int | None, typer.Argument(metavar="ID", help="The engine's id, as listed.", min=0)] = None,
    every: Annotated[bool, typer.Option("--all", help="Restart all engines, one after the other.")] = False,
    url: UrlOption = DEFAULT_URL,
    admin_key_file: AdminKeyFileOption = "",
    admin_key: AdminKeyOption = "",
    no_wait: NoWaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Replace the process of an engine, or of all. Their answers continue."""
    if (engine is None) is not every:
        raise typer.BadParameter("give the ID of an engine, or --all", param_hint="ID")
    path = "/engines/restart" if every else f"/engines/{engine}/restart"
    done = "all engines were restarted" if every else "engine {engine} was restarted"
    _operate(("POST", path), done, (url, admin_key_file, admin_key), no_wait, as_json)


@contextmanager
def connected(url: str, admin_key_file: str, admin_key: str) -> Iterator[AdminClient]:
    """A client for the server and key that were given."""
    from antiphon.commands.admin_client import admin_client

    with admin_client(server_url(url), first_admin_key(admin_key, admin_key_file)) as client:
        yield client


def awaited(client: AdminClient, operation: Json) -> Json:
    """The record of an operation after its end; on a terminal progress is shown meanwhile."""
    console = console_on(stderr=True)
    with console.status(operation["kind"].replace("_", " ")) as status:
        return client.wait(operation, lambda found: status.update(_progress(operation["kind"], found)))


def _operate(request: tuple[str, str], done: str, server: tuple[str, str, str], no_wait: bool, as_json: bool) -> None:
    with connected(*server) as client:
        operation = client.operate(*request)
        if not no_wait:
            operation = awaited(client, operation)
    if as_json:
        typer.echo(json.dumps(operation, indent=2))
    if operation["status"] == "failed":
        raise AntiphonError(operation["error"]["message"].rstrip("."))
    if not as_json:
        running = f"{operation['kind'].replace('_', ' ')} has begun; `antiphon engines` shows how far it is"
        typer.echo(running if operation["status"] == "running" else done.format(engine=operation["engine"]), err=True)


def _progress(kind: str, found: Json) -> str:
    """What is shown while an operation runs."""
    loading = [engine for engine in found["data"] if engine["loading_fraction"] is not None]
    what = kind.replace("_", " ")
    if not loading:
        return what
    engine = loading[-1]
    return f"{what}: engine {engine['id']}, {engine['loading_phase']} {engine['loading_fraction']:.0%}"


def _print(found: Json) -> None:
    from rich.table import Table
    from rich.text import Text

    columns = (
        "id",
        "state",
        "address",
        "pid",
        "threads",
        "running",
        "waiting",
        "owed",
        "KV",
        "restarts",
        "",
    )
    table = Table(*columns, box=None, pad_edge=False)
    for column in (0, 3, 4, 5, 6, 7, 8, 9):
        table.columns[column].justify = "right"
    table.columns[2].overflow = "fold"  # an address is copied, so it is shown whole
    for engine in found["data"]:
        usage = engine["kv_cache_usage"]
        table.add_row(
            str(engine["id"]),
            engine["state"],
            printable(engine["address"] or "here"),
            str(engine["pid"] or "-"),
            str(engine["threads"] or "-"),
            str(engine["running"]),
            str(engine["waiting"]),
            f"{engine['tokens_owed']:,}",
            "-" if usage is None else f"{usage:.0%}",
            str(engine["restarts"]),
            Text(_note(engine)),
        )
    console_on(stderr=False).print(table)
    for line in _arithmetics(found["data"]):
        typer.echo(line)
    operation = found["operation"]
    if operation is not None and operation["status"] == "running":
        typer.echo(f"{operation['kind'].replace('_', ' ')} is running", err=True)


def _arithmetics(engines: list[Json]) -> Iterator[str]:
    """What each engine computes with, if they differ: an answer that moves to another may then go on differently."""
    known: dict[int, str] = {each["id"]: each["fingerprint"] for each in engines if each.get("fingerprint")}
    if len(set(known.values())) < 2:
        return
    yield "The arithmetic of these engines differs, so answers that move between them may go on with other words:"
    for engine in engines:
        if engine["id"] in known:
            parts = (engine.get("instruction_set"), known[engine["id"]][:_FINGERPRINT_DIGITS])
            yield printable(f"  {engine['id']}  {' '.join(part for part in parts if part)}")


def _note(engine: Json) -> str:
    if engine["loading_fraction"] is not None:
        return f"{engine['loading_phase']} {engine['loading_fraction']:.0%}"
    return printable(engine["trouble"] or "")
