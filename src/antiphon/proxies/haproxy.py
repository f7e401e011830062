"""Writes a complete haproxy.cfg, for HAProxy 2.6 or later.

A request goes to the server with the fewest connections or, with prefix affinity, to the one that its conversation's
beginning belongs to, unless that one has more than its share. Servers are checked, and can be added and drained through
the runtime socket. Source of the keywords: HAProxy's configuration manual, https://docs.haproxy.org/2.6/.
"""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.errors import ConfigError
from antiphon.proxies import replies
from antiphon.proxies.addresses import Address
from antiphon.proxies.replies import OPERATOR_PATHS, OVERLOADED_STATUS_HEADER, RETRY_SECONDS, SHAPES, Reply
from antiphon.proxies.settings import HSTS, PRIVATE_NETWORKS, TLS_CIPHERS, ProxySettings

_BUFFER_BYTES = 64 << 10  # the part of a body that HAProxy can read, and can send a second time
_BOUND = 125  # percent of the mean load that a server may have before others get its prefixes
_CHECK = "check inter 2s fall 2 rise 1"
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'  # of JSON, without backtracking
_GROUPS = r"\1\2"
_ALGORITHMS = {"none": "balance leastconn", "prefix": "balance hash var(txn.prefix)"}


def haproxy_cfg(settings: ProxySettings) -> str:
    """The file's text.

    Raises:
        ConfigError: HAProxy cannot do what is asked for.
    """
    if settings.access_log:
        raise ConfigError("--access-log is for nginx; HAProxy writes its log to standard output")
    sections = [
        ("global", _global(settings)),
        ("defaults", _defaults(settings)),
        ("frontend clients", _frontend(settings)),
        ("backend antiphon", _backend(settings)),
        ("backend stored_responses", _stored(settings)),
    ]
    if settings.nameserver:
        sections.insert(2, ("resolvers names", _resolvers(settings.nameserver)))
    if settings.metrics_listen:
        sections.append(("frontend metrics", _metrics(settings.metrics_listen)))
    return "\n".join("\n".join([name, *(f"    {line}" for line in lines), ""]) for name, lines in sections)


def add_server_commands(settings: ProxySettings, name: str, address: Address) -> list[str]:
    """What to send to the runtime socket to add a server.

    Such a server does not take the file's defaults, and cannot be tracked, so it is checked in each section.
    """
    options = f"{_address(address)} {_CHECK} {_server_options(settings)}"
    sections = ("antiphon", "stored_responses")
    return [
        *(f"add server {section}/{name} {options}" for section in sections),
        *(f"enable {what} {section}/{name}" for section in sections for what in ("health", "server")),
    ]


def _server_options(settings: ProxySettings) -> str:
    return f"maxconn {settings.server_connections} pool-purge-delay {settings.idle_seconds}s"


def _global(settings: ProxySettings) -> Iterator[str]:
    folder = settings.runtime_dir or "/run/haproxy"
    yield "log stdout format raw local0 info"
    yield f"maxconn {settings.client_connections}"
    if settings.user:
        yield f"user {settings.user}"
    yield "# The runtime socket, to add and drain servers; `expose-fd listeners` lets a reload keep the ports open."
    yield f"stats socket {folder}/admin.sock mode 660 level admin expose-fd listeners"
    yield "# After a reload or SIGUSR1, streams of the old process may go on for this long."
    yield f"hard-stop-after {settings.drain_seconds:g}s"
    yield "# The part of a body that is read for affinity; a longer body is not sent to a second server."
    yield f"tune.bufsize {_BUFFER_BYTES}"
    if settings.certificate:
        yield "ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets"
        yield f"ssl-default-bind-ciphers {TLS_CIPHERS}"
        if _has_separate_key(settings):
            yield "ssl-load-extra-del-ext"


def _defaults(settings: ProxySettings) -> Iterator[str]:
    yield "mode http"
    yield "log global"
    yield "option dontlognull"
    yield "option log-health-checks"
    yield "timeout connect 3s"
    yield f"timeout http-request {_milliseconds(settings.network_timeout)}"
    yield f"timeout http-keep-alive {_milliseconds(settings.keep_alive_timeout)}"
    yield f"timeout client {_milliseconds(settings.network_timeout)}"
    yield "# Streams are never silent for more than ten seconds, but a whole answer arrives at once."
    yield f"timeout server {_milliseconds(settings.answer_timeout)}"
    yield "# Servers have queues of their own; this one is for connections beyond their limit."
    yield "timeout queue 10s"
    yield "option abortonclose  # a client that leaves frees its place at the server"
    yield "option idle-close-on-response  # a reload answers a request that is on its way"


def _resolvers(nameserver: Address) -> Iterator[str]:
    yield "# Names of servers are looked up every second: a container that is replaced has another address."
    yield f"nameserver first {_address(nameserver)}"
    yield "hold valid 1s"
    yield "accepted_payload_size 8192"


def _lookup(settings: ProxySettings, backend: Address) -> str:
    """The options of a server whose name is looked up again, and which need not be known at the start."""
    return " resolvers names resolve-prefer ipv4 init-addr none" if settings.nameserver and backend.is_name else ""


def _frontend(settings: ProxySettings) -> Iterator[str]:
    for address in settings.listen:
        yield f"bind {_address(address)}{' v6only' if address.is_ipv6 else ''}{_tls(settings)}"
    yield "# No query strings and no headers: they may contain prompts and keys."
    yield (
        'log-format "%ci %HM %[var(txn.sent_path)] %ST %Ta ms, first byte %Tr ms, waited %Tw ms, %b/%s, '
        'retries %rc, %ts %[var(txn.id)]"'
    )
    yield "option http-buffer-request  # the beginning of the body decides where a request goes"
    yield "http-request set-var(txn.sent_path) path"
    yield "http-request set-var(txn.path) path,url_dec"
    yield "# A client's own request id is kept."
    yield "http-request set-var(txn.id) req.hdr(x-request-id)"
    yield "http-request set-var(txn.id) uuid unless { var(txn.id) -m found }"
    yield "http-request set-header X-Request-Id %[var(txn.id)]"
    yield "# Replaced, not extended: what a client claims is not believed."
    yield "http-request del-header X-Forwarded-For"
    yield "http-request set-header X-Forwarded-For %[src] if { src -m found }"
    yield f"http-request set-header X-Forwarded-Proto {'https' if settings.certificate else 'http'}"
    yield "# Also in /v1/messages, which has 529 for it: HAProxy tries another server after 503 only."
    yield f"http-request set-header {OVERLOADED_STATUS_HEADER} 503"
    yield f"http-after-response set-status 529 if {{ res.hdr({OVERLOADED_STATUS_HEADER}) -m str 529 }}"
    yield f"http-after-response del-header {OVERLOADED_STATUS_HEADER}"
    yield from _host_names(settings)
    yield from _path(settings)
    yield from _replies(settings)
    yield from _affinity(settings)
    yield "# A stored response is in the memory of one server, so they are asked one after the other."
    yield "acl is_stored var(txn.path) -m reg ^(/v1)?/responses/"
    yield "acl is_create var(txn.path) -m str /v1/responses /responses"
    yield "use_backend stored_responses if is_stored"
    yield "use_backend stored_responses if is_create { req.body,json_query('$.previous_response_id') -m found }"
    yield "default_backend antiphon"


def _host_names(settings: ProxySettings) -> Iterator[str]:
    if not settings.server_names:
        return
    yield "http-request set-var(txn.host) req.hdr(host),host_only,lower"
    exact = [name for name in settings.server_names if not name.startswith("*")]
    domains = [name[1:] for name in settings.server_names if name.startswith("*")]
    conditions = [f"!{{ var(txn.host) -m str {' '.join(exact)} }}"] if exact else []
    conditions += [f"!{{ var(txn.host) -m end {' '.join(domains)} }}"] if domains else []
    yield f"http-request {_return(replies.unknown_host())} if {' '.join(conditions)}"


def _path(settings: ProxySettings) -> Iterator[str]:
    """Requests below the path become requests below `/`."""
    if settings.path == "/":
        return
    prefix = settings.path.rstrip("/")
    pattern = prefix.replace(".", "\\.")
    yield f"http-request {_return(replies.closed())} unless {{ path -m beg {settings.path} }}"
    yield f"http-request replace-path ^{pattern}(/.*) \\1"
    yield "http-request set-var(txn.path) path,url_dec"


def _replies(settings: ProxySettings) -> Iterator[str]:
    yield "# For operators, who reach the servers themselves."
    paths = " ".join(OPERATOR_PATHS)
    below = " ".join(f"{path}/" for path in OPERATOR_PATHS)
    yield f"acl is_operators var(txn.path) -m str {paths}"
    yield f"acl is_operators var(txn.path) -m beg {below}"
    yield f"http-request {_return(replies.closed())} if is_operators"
    yield "# What HAProxy refuses itself looks like an error of the servers."
    too_large, unavailable = replies.too_large(settings.max_body_bytes), replies.unavailable()
    for shape, (paths_of_shape, _) in SHAPES.items():
        condition = _is_below(paths_of_shape)
        yield f"http-request set-var(txn.unavailable) str({_escaped_argument(unavailable.body(shape))}){condition}"
    for shape, (paths_of_shape, _) in reversed(SHAPES.items()):
        also = f" {{ var(txn.path) -m reg {_pattern(paths_of_shape)} }}" if paths_of_shape else ""
        yield f"http-request {_return(too_large, shape)} if {{ req.body_size gt {settings.max_body_bytes} }}{also}"
    headers = f"hdr Retry-After {RETRY_SECONDS} hdr retry-after-ms {1000 * RETRY_SECONDS}"
    for status in unavailable.statuses:
        yield f"http-error status {status} content-type application/json lf-string %[var(txn.unavailable)] {headers}"
    if settings.certificate:
        yield f"http-after-response set-header Strict-Transport-Security {HSTS}"
    yield "http-after-response set-status 503 if { status 502 504 }"
    for reply in (replies.bad_request(), replies.late(settings.network_timeout)):
        yield f"http-error status {reply.status} content-type application/json string {_quoted(reply.body())}"


def _affinity(settings: ProxySettings) -> Iterator[str]:
    if settings.affinity != "prefix":
        return
    yield "# What a conversation begins with decides which server it goes to: the first message and, where that is"
    yield "# a system prompt, which many conversations share, the second one too."
    for field in ("messages[0].content", "messages[0].content[0].text", "prompt", "input", "input[0].content"):
        yield f"http-request set-var(txn.prefix) {_query(field)} unless {{ var(txn.prefix) -m found }}"
    yield f"http-request set-var(txn.second) {_query('messages[1].content')}"
    yield f"http-request set-var(txn.role) {_query('messages[0].role')}"
    yield "acl is_shared var(txn.role) -m str system developer"
    yield (
        "http-request set-var(txn.prefix) var(txn.prefix),concat(,txn.second) "
        "if is_shared { var(txn.prefix) -m found } { var(txn.second) -m found }"
    )
    yield "# HAProxy does not decode the escapes of other scripts, as \\u4e2d; then the text is used as it was sent."
    for name in ("prefix", "second"):
        yield f"http-request set-var(txn.prefix) req.body,{_contents(2)} if is_shared !{{ var(txn.{name}) -m found }}"
    yield f"http-request set-var(txn.prefix) req.body,{_contents(1)} unless {{ var(txn.prefix) -m found }}"


def _query(field: str) -> str:
    return f"req.body,json_query('$.{field}')"


def _contents(count: int) -> str:
    """A converter from a body to the contents of its first messages, or to itself if it does not have as many."""
    found = "".join(rf'.*?"(?:content|text)"\s*:\s*({_STRING})' for _ in range(count))
    pattern = rf'(?s)^.*?"messages"\s*:\s*\[{found}.*$'
    return f"regsub({_escaped_argument(pattern)},{_escaped_argument(_GROUPS[: 2 * count])})"


def _backend(settings: ProxySettings) -> Iterator[str]:
    yield _ALGORITHMS[settings.affinity]
    if settings.affinity == "prefix":
        yield "hash-type consistent  # a server that is added or removed moves few conversations"
        yield f"hash-balance-factor {_BOUND}  # no server has more than {_BOUND} % of the mean load"
    yield "# One other server is tried if a server is full (503), cannot be reached or dies before its answer begins."
    yield "# A key that is over its rate (429) is over it everywhere. Generating changes nothing, so POST is repeated."
    yield "retries 1"
    yield "retry-on conn-failure empty-response 503"
    yield from _passing_on()
    yield from _checks()
    yield "# maxconn: further requests wait here, as the server would close their connections."
    yield f"default-server {_CHECK} {_server_options(settings)}"
    for number, backend in enumerate(settings.backends, 1):
        yield f"server s{number} {_address(backend)}{_lookup(settings, backend)}"


def _stored(settings: ProxySettings) -> Iterator[str]:
    yield "balance roundrobin"
    yield f"retries {2 * len(settings.backends)}"
    yield "retry-on conn-failure empty-response 404 503"
    yield from _passing_on()
    yield from _checks()
    yield f"default-server {_server_options(settings)}"
    for number, backend in enumerate(settings.backends, 1):
        yield f"server s{number} {_address(backend)} track antiphon/s{number}{_lookup(settings, backend)}"


def _checks() -> Iterator[str]:
    yield "# A server that loads a model, stops, or has no engine is not ready, and gets nothing new."
    yield "option httpchk"
    yield "http-check send meth GET uri /ready ver HTTP/1.1 hdr Host localhost"
    yield "http-check expect status 200"


def _passing_on() -> Iterator[str]:
    yield "option redispatch 1  # each further try is at another server"
    yield "http-reuse always  # if the server has just closed an idle connection, the request is sent again"


def _metrics(address: Address) -> Iterator[str]:
    yield "# HAProxy's own figures, for Prometheus. Keep this address away from clients."
    yield f"bind {_address(address)}"
    yield "no log"
    yield f"http-request return status 404 unless {{ src {' '.join(PRIVATE_NETWORKS)} }}"
    yield "http-request use-service prometheus-exporter if { path /metrics }"
    yield "http-request return status 404"


def _tls(settings: ProxySettings) -> str:
    return f" ssl crt {settings.certificate} alpn h2,http/1.1" if settings.certificate else ""


def _has_separate_key(settings: ProxySettings) -> bool:
    """Whether HAProxy finds the key beside the certificate; False if it is in the same file.

    Raises:
        ConfigError: it would not find the key.
    """
    if settings.key in ("", settings.certificate):
        return False
    stem, dot, _ = settings.certificate.rpartition(".")
    if settings.key == f"{settings.certificate}.key":
        return False
    if dot and settings.key == f"{stem}.key":
        return True
    raise ConfigError(
        f"--key is {settings.key!r}; HAProxy reads the key from the certificate's file, or from "
        f"{settings.certificate}.key. To make one file: cat {settings.certificate} {settings.key} > FILE"
    )


def _address(address: Address) -> str:
    return f"unix@{address.path}" if address.path else address.text


def _milliseconds(seconds: float) -> str:
    return f"{round(1000 * seconds)}ms"


def _return(reply: Reply, shape: str = "openai") -> str:
    return f"return status {reply.status} content-type application/json string {_quoted(reply.body(shape))}"


def _is_below(paths: tuple[str, ...]) -> str:
    return f" if {{ var(txn.path) -m reg {_pattern(paths)} }}" if paths else ""


def _pattern(paths: tuple[str, ...]) -> str:
    return f"^({'|'.join(paths)})(/|$)"


def _quoted(text: str) -> str:
    """`text` as one word: nothing but a single quote has a meaning inside single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"


def _escaped_argument(text: str) -> str:
    """`text` as the argument of a converter or a sample, which is parsed once more inside the word."""
    return _quoted('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
