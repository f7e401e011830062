"""Writes a complete nginx.conf, for nginx 1.22 or later.

A request goes to the server with the fewest connections. Each refusal of a server reaches the client as it is, after
one other server was tried. Source of the directives: https://nginx.org/en/docs/dirindex.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from antiphon.errors import ConfigError
from antiphon.proxies import replies
from antiphon.proxies.addresses import Address
from antiphon.proxies.replies import OPERATOR_PATHS, OVERLOADED_STATUS_HEADER, RETRY_SECONDS, SHAPES, Reply
from antiphon.proxies.settings import HSTS, PRIVATE_NETWORKS, TLS_CIPHERS, ProxySettings

_STORED = ("v1/responses", "responses")  # what is below is in the memory of one server
_LOG_FIELDS = {
    "time": "$time_iso8601",
    "id": "$antiphon_request_id",
    "address": "$remote_addr",
    "method": "$request_method",
    "path": "$uri",
    "status": "$status",
    "seconds": "$request_time",
    "servers": "$upstream_addr",
    "server_statuses": "$upstream_status",
    "first_byte_seconds": "$upstream_header_time",
}


def nginx_conf(settings: ProxySettings) -> str:
    """The file's text.

    Raises:
        ConfigError: nginx cannot do what is asked for.
    """
    if settings.affinity == "prefix":
        raise ConfigError("--affinity prefix needs HAProxy: nginx does not read request bodies")
    if settings.nameserver:
        raise ConfigError("--nameserver needs HAProxy: nginx looks names up when it starts and at each reload")
    lines = [*_main(settings), "", "http {", *_indented(_http(settings)), "}"]
    return "\n".join(lines) + "\n"


def _main(settings: ProxySettings) -> Iterator[str]:
    connections = 2 * settings.client_connections + 64  # a client's and a server's for each request
    if settings.user:
        yield f"user {settings.user};"
    yield "worker_processes auto;"
    yield "# After a reload or `nginx -s quit`, streams of the old workers may go on for this long."
    yield f"worker_shutdown_timeout {settings.drain_seconds:g}s;"
    yield f"worker_rlimit_nofile {2 * connections};"
    yield f"pid {settings.runtime_dir or '/run'}/nginx.pid;"
    yield "# Lower levels quote whole request lines, and the query of /generate may contain a prompt."
    yield "error_log stderr crit;"
    yield ""
    yield f"events {{ worker_connections {connections}; }}"


def _http(settings: ProxySettings) -> Iterator[str]:
    yield from _basics(settings)
    yield ""
    yield from _upstream(settings)
    yield ""
    yield from _maps(settings)
    if settings.server_names:
        yield ""
        yield from _default_server(settings)
    yield ""
    yield from _block("server", _server(settings))
    if settings.metrics_listen:
        yield ""
        yield from _block("server", _metrics_server(settings.metrics_listen))


def _basics(settings: ProxySettings) -> Iterator[str]:
    timeout = f"{settings.network_timeout:g}s"
    yield "server_tokens off;"
    yield "default_type application/json;"
    yield "gzip off;  # it would hold back the events of a stream until a block is full"
    yield "# The servers' own limits: nothing that they accept is refused here."
    yield f"client_max_body_size {settings.max_body_bytes};"
    yield "large_client_header_buffers 4 16k;"
    yield f"client_header_timeout {timeout};"
    yield f"client_body_timeout {timeout};"
    yield f"send_timeout {timeout};"
    yield f"keepalive_timeout {settings.keep_alive_timeout:g}s;"
    yield "client_body_buffer_size 256k;  # longer bodies are written to temporary files"
    if folder := settings.runtime_dir:
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            yield f"{name}_temp_path {folder}/{name};"
    if settings.access_log:
        fields = ",".join(f'"{name}":"{value}"' for name, value in _LOG_FIELDS.items())
        yield "# No query strings and no headers: they may contain prompts and keys."
        yield f"log_format antiphon escape=json '{{{fields}}}';"
        yield f"access_log {settings.access_log} antiphon;"
    else:
        yield "access_log off;  # the servers have one"


def _upstream(settings: ProxySettings) -> Iterator[str]:
    yield "upstream antiphon {"
    yield "    zone antiphon_servers 1m;  # all workers count together"
    yield "    least_conn;"
    yield "    # max_fails=0: else a server that refuses because it is full would be taken for dead, and clients"
    yield "    # would get 502 from then on."
    for backend in settings.backends:
        yield f"    server {backend.text} max_fails=0 max_conns={settings.server_connections};"
    yield "    keepalive 64;"
    yield "    keepalive_requests 100000;"
    yield "    # Less than the servers' --keep-alive-timeout: nginx closes an idle connection before the server does."
    yield f"    keepalive_timeout {settings.idle_seconds}s;"
    yield "}"


def _maps(settings: ProxySettings) -> Iterator[str]:
    yield "# A client's own request id is kept."
    yield "map $http_x_request_id $antiphon_request_id {"
    yield '    default "$http_x_request_id";'
    yield '    "" "$request_id";'
    yield "}"
    for reply in (replies.unavailable(), replies.too_large(settings.max_body_bytes)):
        yield ""
        yield f"map $uri ${_variable(reply)} {{"
        yield f"    default {_quoted(reply.body())};"
        for shape, (paths, _) in SHAPES.items():
            for path in paths:
                pattern = f"^{re.escape(settings.path.rstrip('/') + path)}(/|$)"
                yield f"    ~{pattern} {_quoted(reply.body(shape))};"
        yield "}"


def _server(settings: ProxySettings) -> Iterator[str]:
    for address in settings.listen:
        yield from _listen(address, settings, "")
    if settings.server_names:
        yield f"server_name {' '.join(settings.server_names)};"
    yield from _tls(settings)
    yield ""
    yield from _proxying(settings)
    yield ""
    yield from _error_pages(settings)
    yield ""
    yield from _locations(settings)


def _listen(address: Address, settings: ProxySettings, more: str) -> Iterator[str]:
    yield f"listen {address.text}{' ssl http2' if settings.certificate else ''}{more};"


def _tls(settings: ProxySettings) -> Iterator[str]:
    if not settings.certificate:
        return
    yield f"ssl_certificate {settings.certificate};"
    yield f"ssl_certificate_key {settings.key or settings.certificate};"
    yield "ssl_protocols TLSv1.2 TLSv1.3;"
    yield f"ssl_ciphers {TLS_CIPHERS};"
    yield "ssl_prefer_server_ciphers off;"
    yield "ssl_session_cache shared:antiphon_tls:10m;"
    yield "ssl_session_timeout 1d;"
    yield "ssl_session_tickets off;"
    yield _hsts()


def _hsts() -> str:
    return f"add_header Strict-Transport-Security {HSTS} always;"


def _proxying(settings: ProxySettings) -> Iterator[str]:
    yield "proxy_http_version 1.1;"
    yield 'proxy_set_header Connection "";  # keeps connections to the servers open'
    yield "proxy_set_header Host $host;"
    yield "proxy_set_header X-Request-Id $antiphon_request_id;"
    yield "# Replaced, not extended: what a client claims is not believed."
    yield "proxy_set_header X-Forwarded-For $remote_addr;"
    yield "proxy_set_header X-Forwarded-Proto $scheme;"
    yield "# Also in /v1/messages, which has 529 for it: nginx tries another server after 503 only."
    yield f"proxy_set_header {OVERLOADED_STATUS_HEADER} 503;"
    yield "proxy_buffering off;  # each event of a stream is passed on at once"
    yield "proxy_connect_timeout 3s;"
    yield f"proxy_send_timeout {settings.network_timeout:g}s;"
    yield "# Streams are never silent for more than ten seconds, but a whole answer arrives at once."
    yield f"proxy_read_timeout {settings.answer_timeout:g}s;"
    yield "# One other server is tried if a server is full (503), cannot be reached or dies before its answer begins."
    yield "# A key that is over its rate (429) is over it everywhere. Generating changes nothing, so POST is repeated."
    yield "proxy_next_upstream error timeout http_503 non_idempotent;"
    yield "proxy_next_upstream_tries 2;"
    yield "# Not after an answer took too long: the next one would, too."
    yield f"proxy_next_upstream_timeout {settings.answer_timeout:g}s;"


def _error_pages(settings: ProxySettings) -> Iterator[str]:
    yield "# What nginx refuses itself looks like an error of the servers."
    for reply in (replies.unavailable(), replies.too_large(settings.max_body_bytes)):
        yield from _error_page(reply, f"@{reply.name}", f"${_variable(reply)}", settings)
    yield "# These requests may have no path that could be kept."
    for reply in _unread(settings):
        yield from _error_page(reply, f"/.antiphon/{reply.name}", _quoted(reply.body()), settings)


def _error_page(reply: Reply, location: str, body: str, settings: ProxySettings) -> Iterator[str]:
    is_named = location.startswith("@")
    yield f"error_page {' '.join(map(str, reply.statuses))} = {location};"
    yield f"location {'' if is_named else '= '}{location} {{"
    if not is_named:
        yield "    internal;"
    if reply.error.retry_after is not None:
        if settings.certificate:
            yield f"    {_hsts()}"
        yield f"    add_header Retry-After {RETRY_SECONDS} always;"
        yield f"    add_header retry-after-ms {1000 * RETRY_SECONDS} always;"
    yield f"    return {reply.status} {body};"
    yield "}"


def _locations(settings: ProxySettings) -> Iterator[str]:
    base = settings.path
    rewrite = "" if base == "/" else f"rewrite ^{re.escape(base.rstrip('/'))}(/.*)$ $1 break; "
    yield "# For operators, who reach the servers themselves."
    for path in OPERATOR_PATHS:
        for kind, end in (("=", ""), ("^~", "/")):
            closed = _quoted(replies.closed().body())
            yield f"location {kind} {base.rstrip('/')}{path}{end} {{ return 404 {closed}; }}"
    yield "# A stored response is in the memory of one server: the others answer 404, and the next one is asked."
    for path in _STORED:
        yield f"location ^~ {base}{path} {{"
        yield f"    {rewrite}proxy_pass http://antiphon;"
        yield "    proxy_next_upstream error timeout http_503 http_404 non_idempotent;"
        yield f"    proxy_next_upstream_tries {max(2, len(settings.backends))};"
        yield "}"
    yield f"location {base} {{ {rewrite}proxy_pass http://antiphon; }}"
    if base != "/":
        yield f"location / {{ return 404 {_quoted(replies.closed().body())}; }}"


def _default_server(settings: ProxySettings) -> Iterator[str]:
    """For requests with another name: other sites' names may point to this address."""

    def lines() -> Iterator[str]:
        for address in settings.listen:
            yield from _listen(address, settings, " default_server")
        yield from _tls(settings)
        yield f"return 400 {_quoted(replies.unknown_host().body())};"

    yield from _block("server", lines())


def _metrics_server(address: Address) -> Iterator[str]:
    yield "# nginx's own figures, for nginx-prometheus-exporter. Keep this address away from clients."
    yield f"listen {address.text};"
    yield "location = /nginx_status {"
    yield "    stub_status;"
    for network in PRIVATE_NETWORKS:
        yield f"    allow {network};"
    yield "    deny all;"
    yield "}"
    yield "location / { return 404; }"


def _unread(settings: ProxySettings) -> Iterator[Reply]:
    """The errors of requests that were not read as a whole."""
    yield replies.bad_request()
    yield replies.head_is_long()
    yield replies.late(settings.network_timeout)
    if settings.certificate:
        yield replies.needs_https()


def _variable(reply: Reply) -> str:
    return f"antiphon_{reply.name}"


def _block(name: str, lines: Iterator[str]) -> Iterator[str]:
    yield f"{name} {{"
    yield from _indented(lines)
    yield "}"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"    {line}" if line else "" for line in lines)


def _quoted(text: str) -> str:
    """`text` as one word. nginx has no way to write a dollar sign."""
    assert "$" not in text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
