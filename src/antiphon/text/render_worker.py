"""The process that renders chat templates, and nothing else: a template is code from the author of the checkpoint.

Jinja2's immutable sandbox keeps a template from reaching Python's insides, but not from running forever or filling the
memory, and no thread of ours could stop it in C code (`'x' * 10**10`). A process can be stopped: the kernel ends this
one when a rendering has used its CPU time, refuses memory beyond a cap, and the end of the pipe ends it with the front.

Templates find what `transformers` gives them: `tojson` with its arguments, `raise_exception`, `strftime_now`, loop
controls and the tag `generation`.

Speaks JSON, one line each way: first {"source", "time_limit"} → {} or {"error"}; then, per rendering, the template's
variables → {"text"}, {"error"} or, where the template refuses the messages on purpose, {"raised"}. `template` runs it
as a script; it imports hardly anything of ours, so it starts fast and stays small.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from antiphon.parent_death import die_with_parent

# All but ASCII and the noncharacters with which `prompt` marks texts: escaped, those could not be taken out again.
_NOT_ASCII = re.compile(r"[^\x00-\x7f\ufdd0-\ufdef]+")
MAX_RENDERED = 16 << 20  # characters
MAX_MEMORY = 1 << 30  # bytes of address space


class Raised(Exception):
    """The template called raise_exception: it does not accept these messages."""


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    # Ctrl-C and a service manager's stop reach the whole process group; the front alone decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    setup = json.loads(sys.stdin.readline())
    time_limit: float = setup["time_limit"]
    reply, template = _limited(time_limit, lambda: ({}, environment().from_string(setup["source"])))
    _send(reply)
    for line in sys.stdin:
        reply, _ = _limited(time_limit, lambda line=line: (_render(template, json.loads(line)), None))
        _send(reply)


class GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}`: what the model writes, which training marks and a prompt just shows."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("show"), [], [], body).set_lineno(line)

    def show(self, caller: Callable[[], str]) -> str:
        return caller()


def environment() -> ImmutableSandboxedEnvironment:
    """The environment that published chat templates are written for."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return environment


def _render(template: Template, variables: dict[str, Any]) -> dict[str, str]:
    pieces, length = [], 0
    for piece in template.generate(**variables):
        length += len(piece)
        if length > MAX_RENDERED:
            return {"error": f"the rendered text is longer than {MAX_RENDERED} characters"}
        pieces.append(piece)
    return {"text": "".join(pieces)}


def _limited(seconds: float, work: Any) -> tuple[dict[str, str], Any]:  # noqa: ANN401
    """Do some work under a limit of CPU time, past which SIGPROF's default action ends this process."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return work()  # type: ignore[no-any-return]
    except Raised as error:
        return {"raised": str(error)}, None
    except MemoryError:
        return {"error": "it needs too much memory"}, None
    except Exception as error:  # whatever a stranger's code may raise
        return {"error": f"{type(error).__name__}: {error}"[:500]}, None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _raise_exception(message: object) -> NoReturn:
    raise Raised(str(message))


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja2's own filter escapes HTML and sorts keys, neither of which a model was trained on."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return _NOT_ASCII.sub(lambda found: json.dumps(found.group())[1:-1], text) if ensure_ascii else text


def _send(reply: dict[str, str]) -> None:
    try:  # escaped, a long text would take its reader several times as long
        line = json.dumps(reply, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a character
        line = json.dumps(reply).encode()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
