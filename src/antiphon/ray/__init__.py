"""Engines on a Ray cluster. Needs `antiphon[ray]`.

Ray finds nodes with room, starts an actor there for each engine, and ends it. The actor runs an engine host
(`engine_host`), and the server talks to it directly, so no token passes through Ray. `driver` and `host_actor` are the
only files here that import Ray, and they run in processes of their own: the server's process does not depend on Ray.

`antiphon.ray:app` is the application for Ray Serve. It is in `antiphon.ray_serve`, and imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module


def __getattr__(name: str) -> object:
    if name == "app":
        return import_module("antiphon.ray_serve.application").app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
