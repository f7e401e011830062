"""From the options of `antiphon bench` to what a load test needs: stages, settings, server, prompts.

Every value is checked before anything is sent; an error names the option.
"""

from __future__ import annotations

import json
import math
import ssl
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from antiphon.bench.arrivals import Arrivals, ThinkTime
from antiphon.bench.load import Habits
from antiphon.bench.prompts import FilePrompts, Prompts, built_in
from antiphon.bench.retries import Policy
from antiphon.bench.run import Settings
from antiphon.bench.server import Endpoint, Sampling, Server, Target, default_max_tokens
from antiphon.bench.stages import Stage, stages
from antiphon.commands.server_address import server_url
from antiphon.errors import ConfigError

# These do not change what is measured, so a run may be resumed with other values.
_FREE = ("url", "model", "api_key", "output", "resume", "name", "header")


@dataclass(frozen=True)
class Options:
    """The options of the command line, as they were typed."""

    url: str
    users: str | None
    ramp: str | None
    ramp_seconds: float
    hold_seconds: float
    rate: str | None
    arrivals: str
    burstiness: float | None
    requests: int
    seconds: float
    rounds: int
    think_time: str
    warm_up: float
    warmups: int
    drain: float
    prompts: str
    input_tokens: int
    output_tokens: int
    max_tokens: int
    temperature: float
    seed: int
    endpoint: str
    stream: bool
    extra_body: str
    model: str
    api_key: str
    header: list[str] | None
    insecure: bool
    ca_file: Path | None
    timeout: float
    retries: str
    max_lag: float
    metrics_url: str
    pid: int
    check_same: bool
    same_requests: int
    shared: bool
    goodput: list[str] | None
    slo: list[str] | None
    mean_limit: float
    find_knee: bool
    output: Path | None
    resume: bool
    name: str

    def shown(self) -> dict[str, str]:
        """Those that were given and change what is measured."""
        given = {name: value for name, value in asdict(self).items() if name not in _FREE}
        shown = {name: str(value) for name, value in given.items() if value not in (None, "", False, 0)}
        lists = {"goodput": " ".join(self.goodput or []), "slo": "; ".join(self.slo or [])}
        return shown | {name: text for name, text in lists.items() if text}


def planned_stages(options: Options) -> list[Stage]:
    """The stages that the options ask for. Raises ConfigError as `stages` does."""
    endless = options.rate is not None and options.rate.lower() in ("inf", "infinity")  # vLLM's default: all at once
    users = options.users or (str(options.requests) if endless and options.requests else None)
    return stages(
        users=None if options.rate and not endless else users,
        ramp=options.ramp,
        rate=None if endless else options.rate,
        ramp_seconds=options.ramp_seconds,
        hold_seconds=options.hold_seconds,
        requests=options.requests,
        seconds=options.seconds,
        warm_up=options.warm_up,
        rounds=options.rounds,
    )


def settings_of(options: Options) -> Settings:
    """How the client behaves. Raises ConfigError for values that are not valid."""
    for flag, value in (("--timeout", options.timeout), ("--max-lag", options.max_lag)):
        if not 0 < value < math.inf:
            raise ConfigError(f"{flag} is {value:g}; it must be above 0")
    return Settings(
        timeout=options.timeout,
        retries=cast(Policy, _one_of("--retries", options.retries, ("none", "openai"))),
        habits=_habits(options),
        pid=options.pid,
        check_same=options.check_same,
        same_requests=options.same_requests,
        shared=options.shared,
        max_lag=options.max_lag / 1000,
        warmups=options.warmups,
        seed=options.seed,
    )


def _habits(options: Options) -> Habits:
    burstiness = options.burstiness
    arrivals = options.arrivals or ("gamma" if burstiness is not None else "poisson")
    _one_of("--arrivals", arrivals, ("poisson", "gamma", "constant"))
    if burstiness is not None and (arrivals != "gamma" or not 0 < burstiness < math.inf):
        raise ConfigError(f"--burstiness is {burstiness:g}; it must be above 0, and needs --arrivals gamma")
    if options.rate is None and (options.arrivals or burstiness is not None):
        raise ConfigError("--arrivals and --burstiness need --rate")
    most = 0
    if options.rate and options.users:
        if not options.users.isdigit() or not int(options.users):
            raise ConfigError(
                f"--users is {options.users!r}; with --rate it must be a number, the maximum of concurrent requests"
            )
        most = int(options.users)
    return Habits(
        cast(Arrivals, arrivals),
        1.0 if burstiness is None else burstiness,
        ThinkTime.parse(options.think_time),
        most,
        options.drain,
        options.seed,
    )


def server_of(options: Options) -> Server:
    """The server, with what each request asks for. Raises ConfigError for values that are not valid."""
    if options.output_tokens and options.max_tokens:
        raise ConfigError("give --output-tokens or --max-tokens, not both")
    prompts = "" if options.input_tokens else options.prompts
    sampling = Sampling(
        cast(Endpoint, _one_of("--endpoint", options.endpoint, ("chat", "completions"))),
        options.output_tokens or options.max_tokens or default_max_tokens(prompts or "chat"),
        options.output_tokens > 0,
        options.temperature,
        options.seed if options.temperature > 0 else None,
        options.stream,
        _extra(options.extra_body),
    )
    url = _without_user("URL", server_url(options.url))
    target = Target(
        url,
        options.name,
        options.model,
        _header_value("--api-key", options.api_key),
        _headers(options.header or []),
        options.metrics_url and _metrics_url(options.metrics_url),
        _tls(options),
    )
    return Server(target, sampling, options.timeout)


async def prompts_of(options: Options, server: Server) -> Prompts:
    """The prompts, which may be sized by the server's counting. Raises ConfigError or AntiphonError."""
    if options.input_tokens:
        return await server.sized_prompts(options.input_tokens, options.seed)
    return built_in(options.prompts, options.seed) or FilePrompts(Path(options.prompts))


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ConfigError(f"{option} is {value!r}, which is not one of {', '.join(choices)}")
    return value


def _extra(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"--extra-body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError('--extra-body must be a JSON object, as {"top_p": 0.9}')
    return found


def _headers(given: list[str]) -> dict[str, str]:
    headers = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip().replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"--header is {each!r}; a header is 'Name: value'")
        headers[name.strip()] = _header_value("--header", value.strip())
    return headers


def _header_value(option: str, value: str) -> str:
    if not value.isascii() or not (value.isprintable() or not value):
        raise ConfigError(f"{option} has characters that cannot be in a header")
    return value


def _metrics_url(typed: str) -> str:
    server_url(typed, "--metrics-url")  # or ConfigError
    return _without_user("--metrics-url", typed if "://" in typed else f"http://{typed}")


def _without_user(option: str, url: str) -> str:
    """The URL, which is written into the results, so it must not have a password in it."""
    if "@" in urlsplit(url).netloc:
        raise ConfigError(f"{option} has a user name in it; use --header 'Authorization: Basic …' instead")
    return url


def _tls(options: Options) -> ssl.SSLContext | None:
    if not options.insecure and options.ca_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--ca-file {options.ca_file} cannot be read: {error}") from None
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
