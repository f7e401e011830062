"""`antiphon serve`: its options. What happens then is in `serving`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from antiphon.api_keys import read_api_keys
from antiphon.config import (
    ACTIVATION_TYPES,
    HUBS,
    INSTRUCTION_SETS,
    KV_CACHE_TYPES,
    LOG_LEVELS,
    QUANTIZATIONS,
    SCHEDULING_POLICIES,
    SYSTEM_PROMPTS,
    TOOL_CALL_PARSERS,
    EngineConfig,
    ServerConfig,
    listed,
)

# The defaults, read from where they are set.
_ENGINE, _SERVER = EngineConfig(model=""), ServerConfig()

_NETWORK, _MODEL, _LOAD, _MACHINE = "Network", "Model", "How many, how long", "Machine"


def _option(panel: str, help_text: str) -> Any:  # noqa: ANN401  # as typer declares its own
    """An option in a panel of the help; the first page tells of the environment once for all of them."""
    return typer.Option(help=help_text, rich_help_panel=panel, show_envvar=False)


def serve(
    model: Annotated[str, typer.Argument(help="A GGUF file, a Hugging Face folder, or a name on a hub.")],
    host: Annotated[str, _option(_NETWORK, "Address to listen on.")] = _SERVER.host,
    port: Annotated[int, _option(_NETWORK, "Port; 0 takes any free one.")] = _SERVER.port,
    ssl_certfile: Annotated[str, _option(_NETWORK, "Certificates, in PEM: serve HTTPS.")] = _SERVER.ssl_certfile,
    ssl_keyfile: Annotated[
        str, _option(_NETWORK, "Their key, in PEM, where it is in a file of its own.")
    ] = _SERVER.ssl_keyfile,
    api_key: Annotated[
        list[str] | None,
        _option(_NETWORK, "A key that requests must carry; may be given several times. Better a file."),
    ] = None,
    api_key_file: Annotated[
        str, _option(_NETWORK, "A file with one key a line: [NAME:] KEY, and limits of its own.")
    ] = "",
    requests_per_minute: Annotated[
        int, _option(_NETWORK, "Requests that each key may make in a minute; 0: no limit.")
    ] = _SERVER.requests_per_minute,
    tokens_per_minute: Annotated[
        int, _option(_NETWORK, "Tokens, prompts and answers, that each key may use in a minute; 0: no limit.")
    ] = _SERVER.tokens_per_minute,
    model_name: Annotated[str, _option(_MODEL, "Name for clients; else its own.")] = "",
    hub: Annotated[str, _option(_MODEL, f"Where models given by name are: {' or '.join(HUBS)}.")] = _SERVER.hub,
    offline: Annotated[
        bool, typer.Option("--offline", help="Bring nothing.", rich_help_panel=_MODEL, show_envvar=False)
    ] = _SERVER.offline,
    context_length: Annotated[
        int, _option(_MODEL, "Tokens one conversation may have; 0: the model's own, as far as memory allows.")
    ] = _ENGINE.context_length,
    quantization: Annotated[
        str, _option(_MODEL, f"{', '.join(QUANTIZATIONS)}: what float weights become while they are loaded.")
    ] = _ENGINE.quantization,
    kv_cache_type: Annotated[str, _option(_MODEL, f"{' or '.join(KV_CACHE_TYPES)}.")] = _ENGINE.kv_cache_type,
    activations: Annotated[
        str, _option(_MODEL, f"{', '.join(ACTIVATION_TYPES)}: int16 is exacter, int8 up to twice as fast.")
    ] = _ENGINE.activations,
    kv_cache_tokens: Annotated[
        int, _option(_MODEL, "Tokens that all conversations may have together; 0: what free memory allows.")
    ] = _ENGINE.kv_cache_tokens,
    system_prompt: Annotated[
        str,
        _option(_MODEL, f"{' or '.join(SYSTEM_PROMPTS)}: fold puts it into the user's turn, as R1 is said to like."),
    ] = _SERVER.system_prompt,
    tool_call_parser: Annotated[
        str, _option(_MODEL, f"{', '.join(TOOL_CALL_PARSERS)}: how the model writes tool calls; none: no tools.")
    ] = _SERVER.tool_call_parser,
    strict_fields: Annotated[
        bool, _option(_MODEL, "Refuse requests with unknown fields instead of ignoring these fields.")
    ] = _SERVER.strict_fields,
    loop_guard: Annotated[
        bool, _option(_MODEL, "Close a thought that repeats itself; requests may say otherwise.")
    ] = _SERVER.loop_guard,
    max_num_seqs: Annotated[int, _option(_LOAD, "Answers computed at once.")] = _ENGINE.max_num_sequences,
    max_batch_tokens: Annotated[int, _option(_LOAD, "Tokens computed in one step.")] = _ENGINE.max_batch_tokens,
    prefill_chunk: Annotated[
        int, _option(_LOAD, "Most tokens of one prompt in a step; 0: no cap of its own.")
    ] = _ENGINE.prefill_chunk,
    target_step_seconds: Annotated[
        float, _option(_LOAD, "Long prompts are cut so that a step takes no longer; 0: no target.")
    ] = _ENGINE.target_step_seconds,
    prefix_caching: Annotated[
        bool, _option(_LOAD, "Compute a beginning that prompts share only once.")
    ] = _ENGINE.prefix_caching,
    prefix_cache_per_key: Annotated[
        bool, _option(_LOAD, "Share such beginnings only among requests with the same API key.")
    ] = _SERVER.prefix_cache_per_key,
    scheduling_policy: Annotated[
        str, _option(_LOAD, f"{' or '.join(SCHEDULING_POLICIES)}: by a request's own priority, lower first.")
    ] = _SERVER.scheduling_policy,
    max_queued_requests: Annotated[
        int, _option(_LOAD, "Answers running and waiting; one more is refused with 429.")
    ] = _SERVER.max_queued_requests,
    max_unread_tokens: Annotated[
        int, _option(_LOAD, "Tokens of an answer that may wait for a slow reader before it is aborted.")
    ] = _SERVER.max_unread_tokens,
    max_stored_responses: Annotated[
        int, _option(_LOAD, "Responses of /v1/responses kept in memory to go on from; 0: none.")
    ] = _SERVER.max_stored_responses,
    max_stored_bytes: Annotated[int, _option(_LOAD, "Bytes of memory that these may take.")] = _SERVER.max_stored_bytes,
    allowed_origins: Annotated[
        str, _option(_NETWORK, "Whose pages' scripts may ask, as a browser names them; * for all.")
    ] = "",
    allowed_hosts: Annotated[str, _option(_NETWORK, "Names that the server answers to; all if none is given.")] = "",
    max_body_bytes: Annotated[int, _option(_NETWORK, "Largest request body.")] = _SERVER.max_body_bytes,
    max_connections: Annotated[int, _option(_NETWORK, "Connections held at once.")] = _SERVER.max_connections,
    network_timeout: Annotated[
        float, _option(_NETWORK, "Seconds for a request to arrive, and for an answer to be taken.")
    ] = _SERVER.network_timeout,
    keep_alive_timeout: Annotated[
        float, _option(_NETWORK, "Seconds that a connection may be idle.")
    ] = _SERVER.keep_alive_timeout,
    threads: Annotated[
        int,
        _option(
            _MACHINE, "Threads that compute; 0: one for each physical core of one NUMA node, within the CPU quota."
        ),
    ] = _ENGINE.threads,
    instruction_set: Annotated[str, _option(_MACHINE, f"{', '.join(INSTRUCTION_SETS)}.")] = _ENGINE.instruction_set,
    drain_timeout: Annotated[
        float, _option(_MACHINE, "Seconds that running answers get after SIGTERM.")
    ] = _SERVER.drain_timeout,
    hang_timeout: Annotated[
        float, _option(_MACHINE, "Seconds without progress after which the engine is replaced.")
    ] = _SERVER.hang_timeout,
    log_level: Annotated[str, _option(_MACHINE, f"{', '.join(LOG_LEVELS)}.")] = _SERVER.log_level,
    access_log: Annotated[
        bool, _option(_MACHINE, "Write a line of JSON for each request to standard output.")
    ] = _SERVER.access_log,
    fake_engine: Annotated[
        bool, typer.Option("--fake-engine", hidden=True, help="Nonsense at full speed, to measure the front.")
    ] = False,
) -> None:
    """Serve MODEL to many people at once, over OpenAI's API.

    MODEL is a GGUF file, a Hugging Face folder, or a name: demo, deepseek-r1:1.5b, owner/repo, owner/repo:Q8_0. In its
    place, -hf (--hf-repo), with or without --hf-file, and -m (--model) work too. Each option may also come from the
    environment, --port as ANTIPHON_PORT. What vLLM and llama.cpp call an option works too, and stands beside it.

    \b
    Examples:
      antiphon serve demo
      antiphon serve deepseek-r1:1.5b
      antiphon serve model.gguf --host 0.0.0.0 --port 8080
      antiphon serve model.gguf --max-num-seqs 16 --context-length 4096
    """
    from antiphon.commands.serving import run

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
        prefill_chunk=prefill_chunk,
        target_step_seconds=target_step_seconds,
        threads=threads,
        instruction_set=instruction_set,
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
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        model_name=model_name,
        prefix_cache_per_key=prefix_cache_per_key,
        scheduling_policy=scheduling_policy,
        max_queued_requests=max_queued_requests,
        max_body_bytes=max_body_bytes,
        max_unread_tokens=max_unread_tokens,
        max_stored_responses=max_stored_responses,
        max_stored_bytes=max_stored_bytes,
        system_prompt=system_prompt,
        tool_call_parser=tool_call_parser,
        strict_fields=strict_fields,
        loop_guard=loop_guard,
        drain_timeout=drain_timeout,
        hang_timeout=hang_timeout,
        log_level=log_level,
        access_log=access_log,
    )
    run(engine, server)
