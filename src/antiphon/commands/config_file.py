"""Settings from a TOML file: `antiphon serve --config FILE`.

Each key is the name of an option of `serve` without the dashes in front, or `model`. The file's values take the place
of defaults, so the environment and the command line take precedence. Names and values that vLLM and llama.cpp use are
accepted like on the command line. An error names the file and the key.
"""

from __future__ import annotations

import difflib
import tomllib
from typing import Any

import typer

from antiphon.commands.aliases import ALIASES, translate
from antiphon.errors import ConfigError
from antiphon.small_files import read_small_file

_MAX_BYTES = 1 << 20
_MODEL = "model"
_ITSELF = "config"
_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def use_config_file(context: typer.Context, file: str) -> str:
    """A callback for the option: take the file's values as the defaults of the other options.

    Raises:
        ConfigError: the file cannot be read, or a key or a value in it is not valid.
    """
    if file and not context.resilient_parsing:
        context.default_map = read_config_file(file, _options(context))
    return file


def read_config_file(file: str, options: dict[str, Any]) -> dict[str, Any]:
    """The values in a file, by parameter. `options`: parameters by their names on the command line, without dashes.

    Raises:
        ConfigError: the file cannot be read, or a key or a value in it is not valid.
    """
    values: dict[str, Any] = {}
    for key, value in _table(file).items():
        name = _own_name(file, key, options)
        parameter = options[name]
        if parameter.name in values:
            raise ConfigError(f"{file}: {key} and another key are both {name}; keep one of them")
        values[parameter.name] = _checked(file, key, name, value, parameter)
    return values


def _options(context: typer.Context) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for parameter in context.command.params:
        if parameter.param_type_name == "argument":
            names[_MODEL] = parameter
        elif not getattr(parameter, "hidden", False):
            names |= {name.removeprefix("--"): parameter for name in parameter.opts}
    del names[_ITSELF]
    return names


def _table(file: str) -> dict[str, Any]:
    content = read_small_file("--config", file, _MAX_BYTES)
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigError(f"--config {file} is not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"--config {file} is not valid TOML: {error}") from None


def _own_name(file: str, key: str, options: dict[str, Any]) -> str:
    """Our name of an option that may be spelled with underscores, or as vLLM or llama.cpp do."""
    spelled = key.replace("_", "-")
    name = ALIASES.get(f"--{spelled}", f"--{spelled}").removeprefix("--")
    if name in options:
        return name
    known = [*options, *(alias[2:] for alias in ALIASES if alias.startswith("--") and ALIASES[alias][2:] in options)]
    near = difflib.get_close_matches(spelled, known, n=1)
    advice = f"did you mean {near[0]}?" if near else "the keys are the options of `antiphon serve`, without --"
    raise ConfigError(f"{file}: there is no setting {key[:100]!r}; {advice}")


def _checked(file: str, key: str, name: str, value: object, parameter: Any) -> Any:  # noqa: ANN401  # click's
    """The value as the option takes it."""
    kind = _kind(parameter)
    if isinstance(value, list):
        return _list(file, key, value, parameter)
    fits = isinstance(value, (int, float)) if kind is float else isinstance(value, kind)
    if not fits or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{file}: {key} must be {_NAMES[kind]}")
    if isinstance(value, str) and name != _MODEL:
        value = translate([f"--{name}={value}"])[0].partition("=")[2]
    return [value] if parameter.multiple else value


def _list(file: str, key: str, items: list[Any], parameter: Any) -> list[str] | str:  # noqa: ANN401
    """A list of strings, for an option that may be given several times or is separated by commas or semicolons."""
    name = key.replace("_", "-")
    if name == "degrade" and items and all(isinstance(item, str) for item in items):
        return ";".join(items)
    takes_list = parameter.multiple or name in ("allowed-origins", "allowed-hosts")
    if not takes_list or not all(isinstance(item, str) and "," not in item for item in items):
        what = "a list of strings without commas" if takes_list else _NAMES[_kind(parameter)]
        raise ConfigError(f"{file}: {key} must be {what}")
    return items if parameter.multiple else ",".join(items)


def _kind(parameter: Any) -> type:  # noqa: ANN401
    """The type of an option's values, which is that of its default."""
    kind = type(parameter.default)
    return kind if kind in (int, float, bool) else str
