"""The application for `serve run antiphon.ray:app` and `serve deploy`: a front as a deployment, with engines on Ray.

Serve's proxies receive HTTP and pass it on to a front, which is the same ASGI application that `antiphon serve` runs.
Serve starts the front, checks that it lives, and starts another one if it does not. Each replica has its own engines.
The arguments are the options of `antiphon serve`, by their names in a file of settings (`max_num_seqs: 16`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from ray import serve
from ray.serve import Application

from antiphon.ray_serve.front import Front
from antiphon.ray_serve.settings import command_line, read_settings

_DRAIN_MARGIN = 10.0  # seconds for the end of a front, beside the time that answers get


def app(arguments: Mapping[str, Any]) -> Application:
    """Build the application. Ray Serve calls this with the arguments of the command line, or `args` of its file.

    Raises:
        ConfigError: an argument is no option of `antiphon serve`, or its value is not valid.
    """
    typed = command_line(arguments)
    _, server = read_settings(typed)

    def build() -> Front:
        """Runs in the replica."""
        return Front(typed)

    deployment: Any = serve.deployment(
        name="Antiphon",
        # The front decides how much is accepted; whatever is beyond that must reach it to be refused in words.
        max_ongoing_requests=4 * server.max_queued_requests,
        graceful_shutdown_timeout_s=math.ceil(server.drain_timeout + _DRAIN_MARGIN),
    )(serve.ingress(build)())
    return cast(Application, deployment.bind())
