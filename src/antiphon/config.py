"""Every setting, frozen and validated. Apart from the command line's options, only this module reads the environment.

A setting comes from the command line, else from `ANTIPHON_<NAME>`, else from the default here. `commands` builds these;
`EngineConfig` is sent to the engine process, so it holds plain data only.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from antiphon.api_keys import ApiKey, check_different
from antiphon.degrade_rules import DEFAULT_RULES, DegradeRules
from antiphon.errors import ConfigError
from antiphon.model_files import ModelFile

INSTRUCTION_SETS = ("auto", "scalar", "avx2", "avxvnni", "avx512", "amx")
KV_CACHE_TYPES = ("int8", "f16")
QUANTIZATIONS = ("auto", "w4", "w8")
ACTIVATION_TYPES = ("auto", "int8", "int16")
SYSTEM_PROMPTS = ("keep", "fold")
SCHEDULING_POLICIES = ("fcfs", "priority")
SPECULATION = ("off", "auto")
SHARE_EQUAL_REQUESTS = ("key", "all", "off")
FAIRNESS = ("key", "address", "none")  # whose requests share one fair share
TOOL_CALL_PARSERS = ("auto", "hermes", "deepseek", "none")
HUBS = ("huggingface", "modelscope")
MAX_ENGINES = 64  # more than any machine has NUMA nodes; each engine has its own copy of the weights
MAX_THREADS = 1024  # more than any machine has cores; each thread takes memory
METRICS_ALIASES = ("none", "vllm")  # other servers whose names /metrics has too
ACCESS_LOGS = ("auto", "json", "text", "off")  # auto: text on a terminal, JSON elsewhere
LOG_LEVELS = ("debug", "info", "warning", "error")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_.:-]+")  # IPv6 without brackets


@dataclass(frozen=True, slots=True)
class FakeSettings:
    """The settings of the fake runner, with faults on request; a token id of -1 never matches."""

    vocab_size: int = 256
    block_size: int = 16  # tokens
    context_length: int = 4096
    eos_token_id: int = -1
    eos_odds: int = 0  # the end-of-sequence token is sampled once in this many tokens; 0: never
    script: tuple[int, ...] = ()  # every answer repeats these instead of sampled tokens
    echo: tuple[int, int] = (-1, -1)  # every answer is the prompt's last part between these two tokens, and ends
    load_seconds: float = 0.0  # loading takes this
    step_seconds: float = 0.0  # a step takes this, and
    token_seconds: float = 0.0  # this for each computed token
    die_on: int = -1  # computing this token kills the process
    hang_on: int = -1  # … hangs
    raise_on: int = -1  # … raises
    fail_on: int = -1  # … fails the sequence's row, as not-a-number would
    stop_on: int = -1  # drawing this token stops the process, as SIGSTOP does, until SIGCONT
    refuse_to_load: str = ""  # a CheckpointError with this message
    drafts: bool = False  # drafts are verified; a step costs the same with them, so they would multiply its speed
    looks_ahead: bool = False  # a step is taken before the last one is collected
    own_arithmetic: bool = False  # each process says that it computes other bits than all others
    gpu: str = ""  # the UUID of a GPU that it pretends to use as cuda:0; empty: none
    gpu_memory: tuple[int, int] = (0, 0)  # of that GPU, as the engine reports it: bytes used, and all


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The settings of an engine process."""

    model: str  # a GGUF file or a Hugging Face folder
    typed_model: str = ""  # the same as it was typed, perhaps a name: what other machines look for
    files: tuple[ModelFile, ...] = ()  # of the model, for the engine to inherit; none: it opens them itself
    context_length: int = 0  # tokens in a sequence; 0: the model's limit, as far as the KV cache allows
    max_num_sequences: int = 64  # running at the same time
    max_batch_tokens: int = 512  # tokens computed in one step, prefill chunks included
    kv_cache_type: str = "int8"  # or "f16"
    kv_cache_tokens: int = 0  # size of the KV cache; 0: what free memory allows
    quantization: str = "auto"  # of float weights: "w4", "w8"; auto: w8 if it leaves room for conversations
    # Precision in matrix products: "int8", "int16" (more accurate, twice the work); auto: by size.
    activations: str = "auto"
    prefix_caching: bool = True
    speculation: str = "auto"  # drafts of next tokens, verified several in a step
    prefill_chunk: int = 0  # maximum tokens of one prompt in a step; 0: no limit of its own
    engines: int = 0  # processes on this machine that serve the model side by side; 0: see `num_local_engines`
    devices: tuple[str, ...] = ()  # of more engines on this machine, one each: "cpu", "cuda:N", "interpreter"
    remote_engines: tuple[str, ...] = ()  # an address for each engine on another machine, as in tcp://10.0.0.5:9000
    threads: int = 0  # of each engine; 0: as antiphon.machine.choose_threads decides
    cpus: tuple[int, ...] = ()  # logical CPUs that the engine stays on, chosen by the front; none: it chooses a node
    # What one engine takes, as planned, on any machine; 0: not known.
    memory_bytes: int = 0  # main memory, on the CPU
    gpu_bytes: int = 0  # a GPU's memory, on a GPU
    host_bytes: int = 0  # main memory, on a GPU
    memory_reserve: int = 0  # bytes of each GPU that stay free, as planned; 0: not known, or no GPU was planned for
    instruction_set: str = "auto"
    enforce_eager: bool = False  # launch a GPU's kernels one by one, without CUDA graphs
    device: str = "cpu"  # or "cuda:N", or "interpreter": the GPU's kernels, slowly, without a GPU; auto: a GPU if any
    target_step_seconds: float = 0.25  # prompts are split so that a step takes no longer; 0: no target
    fake: bool = False  # a runner without a model, for tests and for measuring the front
    fake_settings: FakeSettings = field(default_factory=FakeSettings)

    @property
    def num_local_engines(self) -> int:
        """The number of engines on this machine. With engines on other machines there may be none here."""
        return len(self.local_devices)

    @property
    def local_devices(self) -> tuple[str, ...]:
        """The device of each engine on this machine; "" stands for `device`."""
        is_named = self.devices or self.remote_engines
        return ("",) * (self.engines or (0 if is_named else 1)) + self.devices

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the option."""
        self._check_sizes()
        self._check_choices()
        self._check_devices()

    def _check_sizes(self) -> None:
        _at_least("--context-length", self.context_length, 0)
        if self.context_length == 1:
            raise ConfigError("--context-length is 1; a prompt and its answer need at least 2 (0: the model's own)")
        _at_least("--max-num-seqs", self.max_num_sequences, 1)
        _at_least("--max-batch-tokens", self.max_batch_tokens, 1)
        _at_least("--kv-cache-tokens", self.kv_cache_tokens, 0)
        _at_least("--prefill-chunk", self.prefill_chunk, 0)
        _at_least("--threads", self.threads, 0)
        _at_least("--engines", self.engines, 0)
        if self.engines + len(self.devices) > MAX_ENGINES:
            raise ConfigError(f"--engines is {self.engines + len(self.devices)}; it must be at most {MAX_ENGINES}")
        if self.threads > MAX_THREADS:
            raise ConfigError(f"--threads is {self.threads}; it must be at most {MAX_THREADS:,}")
        _zero_or_above("--target-step-seconds", self.target_step_seconds)

    def _check_choices(self) -> None:
        _one_of("--speculation", self.speculation, SPECULATION, " (no draft model is used)")
        _one_of("--kv-cache-type", self.kv_cache_type, KV_CACHE_TYPES)
        _one_of("--quantization", self.quantization, QUANTIZATIONS)
        _one_of("--activations", self.activations, ACTIVATION_TYPES)
        _one_of("--instruction-set", self.instruction_set, INSTRUCTION_SETS)

    def _check_devices(self) -> None:
        if self.device != "auto" and not is_device(self.device):
            raise ConfigError(f"--device is {self.device[:100]!r}; it must be auto, cpu, cuda or cuda:N")
        for device in (self.device, *self.devices):
            if device not in ("auto", "cpu") and self.kv_cache_type != "int8":
                raise ConfigError(f"--kv-cache-type {self.kv_cache_type} is for the CPU; {device} needs int8")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The settings of the server process."""

    hub: str = "huggingface"  # where to find models given by name
    offline: bool = False  # download nothing
    host: str = "127.0.0.1"
    port: int = 8000
    ssl_certfile: str = ""  # PEM; empty: plain HTTP
    ssl_keyfile: str = ""  # empty: the key is in the certificate's file
    max_connections: int = 1000
    network_timeout: float = 60.0  # seconds for headers or a body to arrive, and for a client to continue reading
    keep_alive_timeout: float = 30.0  # seconds that a connection may be idle between two requests
    allowed_origins: tuple[str, ...] = ()  # origins whose web pages may use the server (CORS)
    allowed_hosts: tuple[str, ...] = ()  # accepted Host headers; none: any
    api_keys: tuple[ApiKey, ...] = ()  # a request must carry one of these; none: no key is needed
    admin_keys: tuple[ApiKey, ...] = ()  # a request to an admin route must carry one of these; none: no such routes
    peers: tuple[str, ...] = ()  # URLs of other servers of the same clients: limits and shares count what is used there
    peer_key: str = field(default="", repr=False)  # an admin key of theirs
    requests_per_minute: int = 0  # of each key without a limit of its own, or of all without keys; 0: no limit
    tokens_per_minute: int = 0  # the same for tokens
    model_name: str = ""  # shown to clients; empty: the file's name
    prefix_cache_per_key: bool = False  # share cached prefixes only among requests with the same API key
    scheduling_policy: str = "fcfs"  # first come, first served, or "priority": by the priority of requests
    share_equal_requests: str = "key"  # whose are computed once: those of one "key", of "all", or "off": of nobody
    fairness: str = "key"  # equal service for each API key, without keys for each "address"; "none": no shares
    max_queued_requests: int = 256  # accepted and not finished; more are refused with 503
    max_wait: float = 300.0  # seconds for the first token; requests that would wait longer are refused; 0: no limit
    degrade: DegradeRules = DEFAULT_RULES  # limits of new requests under load; no steps: none
    degrade_stay: float = 10.0  # seconds that a level of load lasts at least
    max_body_bytes: int = 4 << 20
    max_stored_responses: int = 1024  # of /v1/responses, kept in memory; 0: none
    max_stored_bytes: int = 64 << 20  # for stored responses
    max_unread_tokens: int = 8192  # of one answer, waiting for a slow client; with one more it is aborted
    strict_fields: bool = False  # refuse unknown fields instead of ignoring and naming them
    system_prompt: str = "keep"  # or "fold" it into the user message that follows
    tool_call_parser: str = "auto"  # the format of tool calls; auto: the template's; none: no tools
    page: bool = True  # serve the chat page at /
    status: bool = True  # serve /v1/status
    metrics_aliases: str = "none"  # also name metrics as this server does
    public_metrics: bool = False  # answer /metrics without an API key
    loop_guard: bool = True  # end a thought that repeats itself, unless the request says otherwise
    drain_timeout: float = 30.0  # seconds for running requests to finish after SIGTERM
    hang_timeout: float = 5.0  # seconds without progress, though it had a processor, after which an engine is restarted
    max_engines: int = 0  # in all, that autoscaling may add; 0: the number of engines does not change
    autoscale_target_wait: float = 2.0  # seconds that a new request may wait before an engine begins with it
    upscale_delay: float = 5.0  # seconds for which the wait must be longer before engines are added
    downscale_delay: float = 300.0  # seconds for which fewer engines must be enough before one is removed
    breaker_failures: int = 3  # of the engine within the window, to refuse new requests for a while; 0: never
    breaker_failure_rate: float = 0.5  # the least share of failures among the window's outcomes for that
    breaker_window: float = 120.0  # seconds
    breaker_delay: float = 5.0  # seconds without new requests, before one may try whether the engine works again
    log_level: str = "info"
    access_log: str = "auto"  # a line for each request on standard output, or "off"
    otlp_traces_endpoint: str = ""  # URL of an OpenTelemetry collector; empty: as the environment's OTEL_* say
    engine_secret: str = field(default="", repr=False)  # shared with engine hosts; empty: none can be used
    engine_ssl_cafile: str = ""  # PEM; the authorities of hosts with tls:// addresses; empty: those the system trusts

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the option."""
        self._check_addresses()
        self._check_keys()
        self._check_limits()
        self._check_times()
        self._check_choices()

    def _check_addresses(self) -> None:
        _at_least("--port", self.port, 0)
        if self.port > 65535:
            raise ConfigError(f"--port is {self.port}; the highest port is 65535")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ConfigError("--ssl-keyfile needs --ssl-certfile, the certificate for the key")
        for origin in self.allowed_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ConfigError(f"--allowed-origins has {origin!r}; an origin is * or like https://host:8000")
        for host in self.allowed_hosts:
            if not _HOST.fullmatch(host):
                raise ConfigError(
                    f"--allowed-hosts has {host!r}; a host is like example.org, *.example.org or 10.0.0.1"
                )
        if self.otlp_traces_endpoint and not _is_http_url(self.otlp_traces_endpoint):
            raise ConfigError(
                f"--otlp-traces-endpoint is {self.otlp_traces_endpoint!r}; it must be a URL of OTLP over HTTP, like "
                "http://localhost:4318/v1/traces"
            )

    def _check_keys(self) -> None:
        check_different(self.api_keys, self.admin_keys)
        if self.peers and not (self.peer_key and self.admin_keys):
            raise ConfigError(
                "--peer needs --admin-key-file: servers tell each other what was used if asked with an admin key"
            )

    def _check_limits(self) -> None:
        _at_least("--requests-per-minute", self.requests_per_minute, 0)
        _at_least("--tokens-per-minute", self.tokens_per_minute, 0)
        _at_least("--max-connections", self.max_connections, 1)
        _at_least("--max-queued-requests", self.max_queued_requests, 1)
        _at_least("--max-body-bytes", self.max_body_bytes, 1)
        _at_least("--max-stored-responses", self.max_stored_responses, 0)
        _at_least("--max-stored-bytes", self.max_stored_bytes, 0)
        _at_least("--max-unread-tokens", self.max_unread_tokens, 1)
        _at_least("--breaker-failures", self.breaker_failures, 0)
        if not 0 < self.breaker_failure_rate <= 1:
            raise ConfigError(
                f"--breaker-failure-rate is {self.breaker_failure_rate}; it must be above 0 and at most 1"
            )
        if not 0 <= self.max_engines <= MAX_ENGINES:
            raise ConfigError(f"--max-engines is {self.max_engines}; it must be 0 to {MAX_ENGINES}")

    def _check_times(self) -> None:
        _above_zero("--network-timeout", self.network_timeout)
        _above_zero("--keep-alive-timeout", self.keep_alive_timeout)
        _above_zero("--drain-timeout", self.drain_timeout)
        _above_zero("--hang-timeout", self.hang_timeout)
        _above_zero("--breaker-window", self.breaker_window)
        _above_zero("--breaker-delay", self.breaker_delay)
        _above_zero("--autoscale-target-wait", self.autoscale_target_wait)
        _above_zero("--upscale-delay", self.upscale_delay)
        _above_zero("--downscale-delay", self.downscale_delay)
        if not 0 < self.degrade_stay < float("inf"):
            raise ConfigError(f"--degrade-stay is {self.degrade_stay}; it must be above 0 seconds")
        _zero_or_above("--max-wait", self.max_wait)
        if self.max_engines and 0 < self.max_wait <= self.autoscale_target_wait:
            raise ConfigError(
                f"--autoscale-target-wait is {self.autoscale_target_wait}, and --max-wait {self.max_wait}; it must be "
                "less, since requests that would wait longer than --max-wait are refused"
            )

    def _check_choices(self) -> None:
        _one_of("--hub", self.hub, HUBS)
        _one_of("--scheduling-policy", self.scheduling_policy, SCHEDULING_POLICIES)
        _one_of("--fairness", self.fairness, FAIRNESS)
        _one_of("--share-equal-requests", self.share_equal_requests, SHARE_EQUAL_REQUESTS)
        _one_of("--system-prompt", self.system_prompt, SYSTEM_PROMPTS)
        _one_of("--tool-call-parser", self.tool_call_parser, TOOL_CALL_PARSERS)
        _one_of("--log-level", self.log_level, LOG_LEVELS)
        _one_of("--metrics-aliases", self.metrics_aliases, METRICS_ALIASES)
        _one_of("--access-log", self.access_log, ACCESS_LOGS)


def listed(flag: str, text: str) -> tuple[str, ...]:
    """A list as it was typed: separated by commas, or in JSON, as vLLM expects it."""
    if not text.lstrip().startswith("["):
        return tuple(filter(None, (part.strip() for part in text.split(","))))
    try:
        items = json.loads(text)
    except ValueError:
        items = None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ConfigError(f'{flag} is {text!r}; write a,b or ["a", "b"]')
    return tuple(items)


def is_device(name: str) -> bool:
    """Whether this names a device that engines can run on; "cuda" stands for all GPUs."""
    return re.fullmatch(r"cpu|interpreter|cuda(:\d{1,3})?", name) is not None


def environment(name: str, default: str = "") -> str:
    """The environment variable ANTIPHON_<NAME>."""
    return os.environ.get(f"ANTIPHON_{name}", default)


def cache_folder() -> Path:
    """The folder of downloaded files: ANTIPHON_CACHE, else `antiphon` in the user's cache folder."""
    chosen = environment("CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "antiphon"


def chat_history_path() -> Path | None:
    """The history file of `antiphon chat`: ANTIPHON_CHAT_HISTORY (`off`: none), else in the user's state folder."""
    chosen = environment("CHAT_HISTORY")
    if chosen == "off":
        return None
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "antiphon" / "chat_history"


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or above 65535
        return False
    return is_url and not (parts.query or parts.fragment or re.search(r"\s", text))


def _at_least(flag: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{flag} is {value}; it must be at least {least}")


def _zero_or_above(flag: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{flag} is {value}; it must be 0 or above")


def _above_zero(flag: str, seconds: float) -> None:
    if not seconds > 0:
        raise ConfigError(f"{flag} is {seconds}; it must be above 0 seconds")


def _one_of(flag: str, value: str, allowed: tuple[str, ...], hint: str = "") -> None:
    if value not in allowed:
        raise ConfigError(f"{flag} is {value!r}; choose one of {', '.join(allowed)}{hint}")
