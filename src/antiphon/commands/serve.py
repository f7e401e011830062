"""`antiphon serve`: its options, and how they are read again while it runs. The server itself is in `serving`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, cast

import typer

from antiphon.api_keys import first_admin_key, read_admin_keys, read_api_keys
from antiphon.commands.aliases import AliasCommand
from antiphon.commands.completion import one_of
from antiphon.commands.config_file import use_config_file
from antiphon.commands.pull import ModelArgument
from antiphon.config import (
    ACCESS_LOGS,
    ACTIVATION_TYPES,
    FAIRNESS,
    HUBS,
    INSTRUCTION_SETS,
    KV_CACHE_TYPES,
    LOG_LEVELS,
    METRICS_ALIASES,
    QUANTIZATIONS,
    SCHEDULING_POLICIES,
    SHARE_EQUAL_REQUESTS,
    SPECULATION,
    SYSTEM_PROMPTS,
    TOOL_CALL_PARSERS,
    EngineConfig,
    ServerConfig,
    listed,
)
from antiphon.degrade_rules import DEFAULT_LADDER, parse_rules
from antiphon.engine.remote.address import parse_engines
from antiphon.engine_secret import read_engine_secret
from antiphon.errors import ConfigError
from antiphon.peers import read_peers

# The defaults, from where they are defined.
_ENGINE, _SERVER = EngineConfig(model=""), ServerConfig()

_NETWORK, _MODEL, _LOAD, _MACHINE = "Network", "Model", "Load", "Machine"


_ARGUMENTS = "antiphon.arguments"

Settings = tuple[EngineConfig, ServerConfig]


class ServeCommand(AliasCommand):
    """Runs a server with the settings that `serve` returns."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # click's, wherever typer keeps it
        """Parse as usual, and keep the arguments to parse them again."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> None:  # noqa: ANN401
        """Serve until stopped."""
        from antiphon.commands.serving import run

        engine, server = cast(Settings, super().invoke(ctx))
        run(engine, server, reread=partial(self.read, ctx.info_name, ctx.meta[_ARGUMENTS]))

    def read(self, name: str, arguments: list[str]) -> Settings:
        """The settings as they are now: a command line and the environment, with the files' present contents.

        Raises:
            ConfigError: they are not valid any more.
        """
        try:
            with self.make_context(name, list(arguments)) as context:
                return cast(Settings, super().invoke(context))
        except typer.BadParameter as error:
            raise ConfigError(error.format_message()) from None


def _option(panel: str, help_text: str, default: str | bool = True) -> Any:  # noqa: ANN401  # as typer declares its own
    """An option in a panel of the help, which mentions the environment once for all of them. `default`: in words."""
    return typer.Option(help=help_text, rich_help_panel=panel, show_envvar=False, show_default=default)


def _choice(panel: str, values: tuple[str, ...], meaning: str = "") -> Any:  # noqa: ANN401
    """An option that has one of these values."""
    listed_values = f"{', '.join(values[:-1])} or {values[-1]}"
    help_text = f"{listed_values}: {meaning}" if meaning else f"{listed_values}."
    return typer.Option(help=help_text, rich_help_panel=panel, show_envvar=False, autocompletion=one_of(values))


def serve(
    model: ModelArgument,
    config: Annotated[
        str,
        typer.Option(
            help="A TOML file of these options, as in port = 8080; model = names the model.",
            rich_help_panel=_NETWORK,
            show_envvar=False,
            is_eager=True,  # its values are the defaults of the others
            callback=use_config_file,
        ),
    ] = "",
    host: Annotated[str, _option(_NETWORK, "Address to listen on.")] = _SERVER.host,
    port: Annotated[int, _option(_NETWORK, "Port to listen on; 0: any free one.")] = _SERVER.port,
    ssl_certfile: Annotated[str, _option(_NETWORK, "Certificate chain in PEM: serve HTTPS.")] = _SERVER.ssl_certfile,
    ssl_keyfile: Annotated[
        str, _option(_NETWORK, "Private key in PEM, if it is not in the certificate's file.")
    ] = _SERVER.ssl_keyfile,
    api_key: Annotated[
        list[str] | None,
        _option(_NETWORK, "A key that requests must carry; may be given several times. A file is safer."),
    ] = None,
    api_key_file: Annotated[str, _option(_NETWORK, "A file of keys, one a line: [NAME:] KEY [limits].")] = "",
    admin_key: Annotated[
        list[str] | None,
        _option(_NETWORK, "A key for the admin routes; may be given several times. A file is safer."),
    ] = None,
    admin_key_file: Annotated[
        str, _option(_NETWORK, "A file of keys for the admin routes, one a line: [NAME:] KEY.")
    ] = "",
    peer: Annotated[
        list[str] | None,
        _option(
            _NETWORK,
            "URL of another server of the same clients; limits count its use too, and what it stores is found.",
        ),
    ] = None,
    requests_per_minute: Annotated[
        int, _option(_NETWORK, "Requests each key may make in a minute; 0: no limit.")
    ] = _SERVER.requests_per_minute,
    tokens_per_minute: Annotated[
        int, _option(_NETWORK, "Tokens, of prompts and answers, each key may use in a minute; 0: no limit.")
    ] = _SERVER.tokens_per_minute,
    model_name: Annotated[str, _option(_MODEL, "Model name shown to clients.", "the file's name")] = "",
    hub: Annotated[str, _choice(_MODEL, HUBS, "where to find models given by name.")] = _SERVER.hub,
    offline: Annotated[
        bool, typer.Option("--offline", help="Download nothing.", rich_help_panel=_MODEL, show_envvar=False)
    ] = _SERVER.offline,
    context_length: Annotated[
        int, _option(_MODEL, "Tokens in one conversation; 0: the model's limit, as far as memory allows.")
    ] = _ENGINE.context_length,
    quantization: Annotated[
        str, _choice(_MODEL, QUANTIZATIONS, "quantize float weights to 4 or 8 bits while loading.")
    ] = _ENGINE.quantization,
    kv_cache_type: Annotated[
        str, _choice(_MODEL, KV_CACHE_TYPES, "type of the KV cache; f16 takes twice the memory.")
    ] = _ENGINE.kv_cache_type,
    activations: Annotated[
        str, _choice(_MODEL, ACTIVATION_TYPES, "int16 is more accurate, int8 up to twice as fast.")
    ] = _ENGINE.activations,
    kv_cache_tokens: Annotated[
        int, _option(_MODEL, "Size of the KV cache in tokens, for all conversations; 0: what free memory allows.")
    ] = _ENGINE.kv_cache_tokens,
    system_prompt: Annotated[
        str,
        _choice(_MODEL, SYSTEM_PROMPTS, "fold moves it into the user's message, as advised for R1."),
    ] = _SERVER.system_prompt,
    tool_call_parser: Annotated[
        str, _choice(_MODEL, TOOL_CALL_PARSERS, "the format of tool calls; none: no tools.")
    ] = _SERVER.tool_call_parser,
    strict_fields: Annotated[
        bool, _option(_MODEL, "Refuse requests with unknown fields instead of ignoring these fields.")
    ] = _SERVER.strict_fields,
    loop_guard: Annotated[
        bool, _option(_MODEL, "End a thought that repeats itself; requests may override this.")
    ] = _SERVER.loop_guard,
    max_num_seqs: Annotated[int, _option(_LOAD, "Answers computed at the same time.")] = _ENGINE.max_num_sequences,
    max_batch_tokens: Annotated[int, _option(_LOAD, "Tokens computed in one step.")] = _ENGINE.max_batch_tokens,
    prefill_chunk: Annotated[
        int, _option(_LOAD, "Maximum tokens of one prompt in a step; 0: no limit of its own.")
    ] = _ENGINE.prefill_chunk,
    target_step_seconds: Annotated[
        float, _option(_LOAD, "Split long prompts so that a step takes no longer; 0: no target.")
    ] = _ENGINE.target_step_seconds,
    prefix_caching: Annotated[
        bool, _option(_LOAD, "Compute the beginning that prompts share only once.")
    ] = _ENGINE.prefix_caching,
    speculation: Annotated[
        str, _choice(_LOAD, SPECULATION, "auto drafts next tokens from text that repeats. Answers are the same.")
    ] = _ENGINE.speculation,
    prefix_cache_per_key: Annotated[
        bool, _option(_LOAD, "Share such beginnings only among requests with the same API key.")
    ] = _SERVER.prefix_cache_per_key,
    scheduling_policy: Annotated[
        str, _choice(_LOAD, SCHEDULING_POLICIES, "first come first served, or by the requests' priority, lowest first.")
    ] = _SERVER.scheduling_policy,
    share_equal_requests: Annotated[
        str,
        _choice(_LOAD, SHARE_EQUAL_REQUESTS, "whose equal requests are computed once, if they run at the same time."),
    ] = _SERVER.share_equal_requests,
    fairness: Annotated[
        str,
        _choice(_LOAD, FAIRNESS, "who gets equal service: each API key, without keys each client address, or nobody."),
    ] = _SERVER.fairness,
    max_queued_requests: Annotated[
        int, _option(_LOAD, "Answers running and waiting; more are refused with 503.")
    ] = _SERVER.max_queued_requests,
    max_wait: Annotated[
        float, _option(_LOAD, "Seconds that a request waits for its first token, else it is refused; 0: no limit.")
    ] = _SERVER.max_wait,
    degrade: Annotated[
        str, _option(_LOAD, "Lower limits for new requests under load, step by step; off: never.")
    ] = DEFAULT_LADDER,
    degrade_stay: Annotated[
        float, _option(_LOAD, "Seconds that a step of --degrade lasts at least.")
    ] = _SERVER.degrade_stay,
    max_unread_tokens: Annotated[
        int, _option(_LOAD, "Tokens of an answer that may wait for a slow client before the answer is aborted.")
    ] = _SERVER.max_unread_tokens,
    max_stored_responses: Annotated[
        int, _option(_LOAD, "Responses of /v1/responses kept in memory to continue from; 0: none.")
    ] = _SERVER.max_stored_responses,
    max_stored_bytes: Annotated[
        int, _option(_LOAD, "Memory for stored responses, in bytes.")
    ] = _SERVER.max_stored_bytes,
    allowed_origins: Annotated[
        str, _option(_NETWORK, "Origins whose web pages may use the server (CORS); * for all.")
    ] = "",
    allowed_hosts: Annotated[
        str, _option(_NETWORK, "Host names the server answers to, beside local ones on a loopback address.")
    ] = "",
    page: Annotated[bool, _option(_NETWORK, "Serve the chat page at /.")] = _SERVER.page,
    status: Annotated[bool, _option(_NETWORK, "Serve /v1/status: how busy the server is.")] = _SERVER.status,
    metrics_aliases: Annotated[
        str, _choice(_NETWORK, METRICS_ALIASES, "also name the metrics as another server does.")
    ] = _SERVER.metrics_aliases,
    public_metrics: Annotated[bool, _option(_NETWORK, "Answer /metrics without an API key.")] = _SERVER.public_metrics,
    max_body_bytes: Annotated[int, _option(_NETWORK, "Maximum size of a request body.")] = _SERVER.max_body_bytes,
    max_connections: Annotated[int, _option(_NETWORK, "Maximum open connections.")] = _SERVER.max_connections,
    network_timeout: Annotated[
        float, _option(_NETWORK, "Seconds for a request to arrive, and for a client to continue reading.")
    ] = _SERVER.network_timeout,
    keep_alive_timeout: Annotated[
        float, _option(_NETWORK, "Seconds that a connection may be idle.")
    ] = _SERVER.keep_alive_timeout,
    engines: Annotated[
        str,
        _option(
            _MACHINE,
            "Engines side by side: how many here (0: one for each GPU or NUMA node), devices as in cuda:0,cpu, and "
            "hosts of others.",
        ),
    ] = str(_ENGINE.engines),
    engine_secret_file: Annotated[
        str, _option(_MACHINE, "A file with the secret that hosts of engines know too (antiphon engine-host).")
    ] = "",
    engine_secret: Annotated[
        str, typer.Option(help="The secret itself.", hidden=True, envvar="ANTIPHON_ENGINE_SECRET")
    ] = "",
    engine_ssl_cafile: Annotated[
        str, _option(_MACHINE, "Authorities in PEM that hosts with tls:// addresses must have a certificate of.")
    ] = "",
    max_engines: Annotated[
        int, _option(_MACHINE, "Add engines under load, up to this number in all; 0: never.")
    ] = _SERVER.max_engines,
    autoscale_target_wait: Annotated[
        float, _option(_MACHINE, "Seconds that a new request may wait for an engine before engines are added.")
    ] = _SERVER.autoscale_target_wait,
    upscale_delay: Annotated[
        float, _option(_MACHINE, "Seconds for which the wait must be longer than that.")
    ] = _SERVER.upscale_delay,
    downscale_delay: Annotated[
        float, _option(_MACHINE, "Seconds for which fewer engines must be enough before one is removed.")
    ] = _SERVER.downscale_delay,
    threads: Annotated[
        int,
        _option(_MACHINE, "Threads of each engine; 0: one for each physical core that it has, within the CPU quota."),
    ] = _ENGINE.threads,
    device: Annotated[
        str,
        _option(
            _MACHINE, "Where to compute: cpu, cuda (all NVIDIA GPUs), cuda:N (one), or auto: GPUs if there are any."
        ),
    ] = _ENGINE.device,
    enforce_eager: Annotated[
        bool, _option(_MACHINE, "Launch a GPU's kernels one by one, without CUDA graphs: slower. Answers are the same.")
    ] = _ENGINE.enforce_eager,
    instruction_set: Annotated[
        str, _choice(_MACHINE, INSTRUCTION_SETS, "force a set of kernels.")
    ] = _ENGINE.instruction_set,
    drain_timeout: Annotated[
        float, _option(_MACHINE, "Seconds that running answers get to finish after Ctrl-C or SIGTERM.")
    ] = _SERVER.drain_timeout,
    hang_timeout: Annotated[
        float, _option(_MACHINE, "Seconds without progress after which the engine is restarted.")
    ] = _SERVER.hang_timeout,
    breaker_failures: Annotated[
        int, _option(_MACHINE, "Failures of the engine after which new requests are refused for a while; 0: never.")
    ] = _SERVER.breaker_failures,
    breaker_failure_rate: Annotated[
        float, _option(_MACHINE, "Minimum share of failures among all outcomes for that.")
    ] = _SERVER.breaker_failure_rate,
    breaker_window: Annotated[
        float, _option(_MACHINE, "Seconds for which failures and other outcomes count.")
    ] = _SERVER.breaker_window,
    breaker_delay: Annotated[
        float, _option(_MACHINE, "Seconds until one request may try whether the engine works again.")
    ] = _SERVER.breaker_delay,
    log_level: Annotated[str, _choice(_MACHINE, LOG_LEVELS)] = _SERVER.log_level,
    access_log: Annotated[
        str, _choice(_MACHINE, ACCESS_LOGS, "one line for each request on stdout; auto: text on a terminal, else JSON.")
    ] = _SERVER.access_log,
    otlp_traces_endpoint: Annotated[
        str, _option(_MACHINE, "Send traces of requests to this OpenTelemetry collector (OTLP over HTTP).")
    ] = _SERVER.otlp_traces_endpoint,
    fake_engine: Annotated[
        bool, typer.Option("--fake-engine", hidden=True, help="Random tokens at full speed, to measure the front.")
    ] = False,
) -> Settings:
    """Serve MODEL to many people at once, over OpenAI's API.

    MODEL is a GGUF file, a Hugging Face folder, or a name: demo, deepseek-r1:1.5b, owner/repo, owner/repo:Q8_0. Instead
    of MODEL, -hf (--hf-repo), with or without --hf-file, and -m (--model) work too. Each option can also come from the
    environment, --port from ANTIPHON_PORT, or from a file: --config antiphon.toml. The names that vLLM and llama.cpp
    have for an option are listed with it; flags of theirs that have no meaning here are accepted with a note.

    \b
    Examples:
      antiphon serve demo
      antiphon serve deepseek-r1:1.5b
      antiphon serve model.gguf --host 0.0.0.0 --port 8080
      antiphon serve model.gguf --max-num-seqs 16 --context-length 4096
    """
    asked = parse_engines(engines)
    engine = EngineConfig(
        model=model,
        context_length=context_length,
        max_num_sequences=max_num_seqs,
        max_batch_tokens=max_batch_tokens,
        quantization=quantization,
        kv_cache_type=kv_cache_type,
        activations=activations,
        kv_cache_tokens=kv_cache_tokens,
        prefix_caching=prefix_caching,
        speculation=speculation,
        prefill_chunk=prefill_chunk,
        target_step_seconds=target_step_seconds,
        engines=asked.number,
        devices=asked.devices,
        remote_engines=asked.addresses,
        threads=threads,
        instruction_set=instruction_set,
        device=device,
        enforce_eager=enforce_eager,
        fake=fake_engine,
    )
    server = ServerConfig(
        hub=hub,
        offline=offline,
        host=host,
        port=port,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
        allowed_origins=listed("--allowed-origins", allowed_origins),
        allowed_hosts=listed("--allowed-hosts", allowed_hosts),
        max_connections=max_connections,
        network_timeout=network_timeout,
        keep_alive_timeout=keep_alive_timeout,
        api_keys=read_api_keys(api_key or (), api_key_file),
        admin_keys=read_admin_keys(admin_key or (), admin_key_file),
        peers=read_peers(peer or ()),
        peer_key=first_admin_key(",".join(admin_key or ()), admin_key_file) if peer else "",
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        model_name=model_name,
        prefix_cache_per_key=prefix_cache_per_key,
        scheduling_policy=scheduling_policy,
        share_equal_requests=share_equal_requests,
        fairness=fairness,
        max_queued_requests=max_queued_requests,
        max_wait=max_wait,
        degrade=parse_rules(degrade),
        degrade_stay=degrade_stay,
        max_body_bytes=max_body_bytes,
        max_unread_tokens=max_unread_tokens,
        max_stored_responses=max_stored_responses,
        max_stored_bytes=max_stored_bytes,
        system_prompt=system_prompt,
        tool_call_parser=tool_call_parser,
        strict_fields=strict_fields,
        page=page,
        status=status,
        metrics_aliases=metrics_aliases,
        public_metrics=public_metrics,
        loop_guard=loop_guard,
        drain_timeout=drain_timeout,
        hang_timeout=hang_timeout,
        max_engines=max_engines,
        autoscale_target_wait=autoscale_target_wait,
        upscale_delay=upscale_delay,
        downscale_delay=downscale_delay,
        breaker_failures=breaker_failures,
        breaker_failure_rate=breaker_failure_rate,
        breaker_window=breaker_window,
        breaker_delay=breaker_delay,
        log_level=log_level,
        access_log=_access_log(access_log),
        otlp_traces_endpoint=otlp_traces_endpoint,
        engine_secret=read_engine_secret(engine_secret, engine_secret_file),
        engine_ssl_cafile=engine_ssl_cafile,
    )
    from antiphon.engine.fleet.autoscaling import check_scaling

    check_scaling(engine, server)
    return engine, server


def _access_log(value: str) -> str:
    """The setting; what used to switch it on and off still does, since scripts have it in their environment."""
    return {"1": "auto", "true": "auto", "0": "off", "false": "off"}.get(value.lower(), value)
