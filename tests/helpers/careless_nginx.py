"""An nginx in front of a server, with its defaults and what a test adds: how it is set up by those who forget streams.

`antiphon proxy-config` writes better ones.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patience import wait_until
from programs import nginx

_CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 128; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {upstream};
      {directives}
    }}
  }}
}}
"""


@contextmanager
def careless_nginx(upstream: str, folder: Path, directives: str = "") -> Iterator[str]:
    """The URL of an nginx in front of `upstream`, with `directives` in its location."""
    program = nginx()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # its workers write into the test's folder
    fields = {"user": user, "folder": folder, "port": port, "upstream": upstream, "directives": directives}
    settings.write_text(_CONFIGURATION.format(**fields))
    command = [program, "-e", "stderr", "-p", str(folder), "-c", str(settings)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or _listens(port), "nginx does not listen")
        assert process.poll() is None, process.communicate()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
