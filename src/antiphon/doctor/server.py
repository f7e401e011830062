"""Checks of a running server: its version, its key, whether it is ready, how busy it is, who can read its metrics."""

from __future__ import annotations

from collections.abc import Iterator

from antiphon import __version__
from antiphon.doctor.findings import Finding, note, ok, problem, warning
from antiphon.doctor.visit import Visit, error_message, json_of

_REFUSED = (401, 403)


def version(visit: Visit) -> Iterator[Finding]:
    """What kind of server it is."""
    reply = visit.get("/version")
    if reply is None:
        return
    name = str(json_of(reply).get("version") or "")
    if reply.status_code == 401:
        yield ok("the version is not shown without a key")
    elif not visit.is_antiphon:
        yield note(
            "this is not an Antiphon server, or an old one",
            why="Some checks are for Antiphon only.",
            fix=f"curl -i {visit.url}/version",
        )
    elif name != __version__:
        yield note(
            f"the server is Antiphon {name}, this is {__version__}",
            why="What this version checks may not apply to that one.",
            fix=f"pip install antiphon=={name}  # here, or upgrade the server",
        )
    else:
        yield ok(f"Antiphon {name}")


def key(visit: Visit) -> Iterator[Finding]:
    """Whether a key is needed, and whether the given one is accepted."""
    if (bare := visit.get("/v1/models", with_key=False)) is None:
        return
    if bare.status_code == 200:
        yield _open_to_all(visit)
    elif bare.status_code not in _REFUSED:
        yield note(
            f"/v1/models is answered with status {bare.status_code}",
            why="OpenAI's clients ask for it to find the name of the model.",
            fix=f"curl -i {visit.url}/v1/models  # is there an API of OpenAI's kind at this address, or below a path?",
        )
    elif not visit.key:
        yield problem(
            "a key is needed",
            why="Without one only /health and /ready can be checked.",
            fix=f"ANTIPHON_API_KEY=… antiphon doctor {visit.url}",
        )
    elif (reply := visit.get("/v1/models")) is not None and reply.status_code == 200:
        yield ok("a key is needed, and this one is accepted")
    else:
        yield problem(
            "the key is refused",
            why="Clients with this key get a 401. The server reads its keys at the start and when it is reloaded.",
            fix="antiphon reload  # after a change of the file of keys; and compare the key with the file",
        )


def _open_to_all(visit: Visit) -> Finding:
    if visit.is_local and not visit.proxy_name:
        return ok("no key is needed, on this machine")
    return warning(
        "no key is needed",
        why="Everyone who reaches this address can use the model and see everybody's load.",
        fix="antiphon serve MODEL --api-key-file keys  # openssl rand -hex 24 makes a key",
    )


def ready(visit: Visit) -> Iterator[Finding]:
    """Whether the server accepts work, and if not why."""
    if (reply := visit.get("/ready")) is None:
        return
    if reply.status_code == 200:
        yield ok("the model is ready")
        return
    if not visit.is_antiphon:
        return  # which has its own idea of this path
    message = error_message(reply)
    yield problem(
        f"the server is not ready: {message or f'status {reply.status_code} without a reason'}",
        why="Requests are refused, or wait." if message else "A proxy answers in place of the server.",
        fix="antiphon engines  # shows each engine; the server's log says why one has died",
    )
    if message and "retry-after" not in reply.headers:
        yield warning(
            "the header Retry-After is missing from the refusal",
            why="The server sends it, so something removes it. Clients then retry too early, and all at once.",
            fix="proxy_pass_header Retry-After;  # nginx; and look for proxy_hide_header",
        )


def load(visit: Visit) -> Iterator[Finding]:
    """How busy it is, and what the server itself reports."""
    reply = visit.get("/v1/status")
    state = json_of(reply) if reply is not None and reply.status_code == 200 else {}
    if "degrade_level" not in state:
        return
    waiting, running = state.get("waiting"), state.get("running")
    if state["degrade_level"]:
        yield note(
            f"the server is degraded to level {state['degrade_level']}: {running} answers running, {waiting} waiting",
            why="New answers get shorter thoughts and lengths, so that fewer requests are refused.",
            fix="antiphon engines  # shows the load; then more cores, or another server behind a proxy",
        )
    else:
        yield ok(f"{running} answers running, {waiting} waiting")
    lost = [each["id"] for each in state.get("engines", ()) if each.get("state") in ("failed", "restarting")]
    if lost:
        yield warning(
            f"{len(lost)} of {len(state['engines'])} engines do not work: {', '.join(map(str, lost))}",
            why="The others do their work, more slowly.",
            fix="antiphon engines restart --all  # the server's log says why one has died",
        )


def metrics(visit: Visit) -> Iterator[Finding]:
    """Whether everybody can read the metrics."""
    reply = visit.get("/metrics", with_key=False)
    if reply is None:
        return
    if reply.status_code != 200:
        yield ok("metrics cannot be read without a key through this address")
    elif visit.is_local and not visit.proxy_name:
        yield ok("metrics can be read, on this machine")
    else:
        yield warning(
            "everybody can read /metrics through this address",
            why="They show how much everyone uses, the names of keys, and the server's machine.",
            fix="location /metrics { deny all; }  # nginx; or keys, without --public-metrics: --api-key-file keys",
        )
