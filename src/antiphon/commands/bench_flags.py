"""Names that vLLM's and guidellm's users type for a load test, translated to those of `antiphon bench`.

Most are declared beside our own (`commands/bench.py`). Here are those that no option can be declared for: the address
as a flag, and flags that have no effect here.
"""

from __future__ import annotations

from collections.abc import Iterator

import typer

_URL_FLAGS = ("--url", "--base-url", "--target")  # ours elsewhere, vLLM's, guidellm's
_VALUES = {
    "--endpoint": {
        "/v1/chat/completions": "chat",
        "/v1/completions": "completions",
    },
}
# Flags with a value, and without one, that have no effect.
_WITH_VALUE = (
    "--backend", "--dataset-name", "--tokenizer", "--tokenizer-mode", "--percentile-metrics", "--metric-percentiles",
    "--random-prefix-len", "--random-range-ratio", "--ready-check-timeout-sec", "--endpoint-type", "--rate-type",
)  # fmt: skip
_SWITCHES = ("--save-result", "--save-detailed", "--disable-tqdm", "--ignore-eos", "--trust-remote-code", "--streaming")


def translate(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments in our own names, and the flags among them that have no effect.

    Raises:
        typer.BadParameter: a flag lacks its value, or the address is given twice over.
    """
    kept: list[str] = []
    ignored: list[str] = []
    address: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name in (*_URL_FLAGS, "--host", "--port", *_WITH_VALUE, *_VALUES) and not equals:
            value = _next(rest, name)
        if name in _URL_FLAGS:
            address["url"] = value
        elif name in ("--host", "--port"):
            address[name] = value
        elif name in _WITH_VALUE or argument in _SWITCHES:
            ignored.append(name)
        elif name in _VALUES:
            kept += [name, _VALUES[name].get(value, value)]
        else:
            kept.append(argument)
    return [*kept, *_url(address)], ignored


def _next(rest: Iterator[str], name: str) -> str:
    value = next(rest, None)
    if value is None:
        raise typer.BadParameter("it needs a value", param_hint=name)
    return value


def _url(address: dict[str, str]) -> list[str]:
    if "url" in address:
        if len(address) > 1:
            raise typer.BadParameter("give the address by --url, or by --host and --port", param_hint="--url")
        return [address["url"]]
    if not address:
        return []
    return [f"http://{address.get('--host', '127.0.0.1')}:{address.get('--port', '8000')}"]
