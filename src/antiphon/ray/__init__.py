"""Engines on a Ray cluster. Needs `antiphon[ray]`.

Ray finds nodes with room, starts an actor there for each engine, and ends it. The actor runs an engine host
(`engine_host`), and the server talks to it directly, so no token passes through Ray. `driver` and `host_actor` are the
only files here that import Ray, and they run in processes of their own: the server's process does not depend on Ray.
"""
