"""What the page does below its views, against a real server that refuses every field it does not know.

The tests themselves are in web/src/state/server.real.test.ts; they run in Node.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest
from page_server import Kind, PageServer
from programs import WEB, npm

SCRIPT = "Let me think about it. I add and I add.</think>\n\nThe answer is **42**.<｜end▁of▁sentence｜>"


def test_requests_streams_and_answers_agree_with_a_real_server(start_own: Callable[[Kind], PageServer]):
    server = start_own(Kind(script=SCRIPT, thinks=True, fake={"step_seconds": 0.02}, settings={"strict_fields": True}))
    command = [npm(), "--prefix", str(WEB), "exec", "--", "vitest", "run", "src/state/server.real.test.ts"]
    environment = os.environ | {"VITE_ANTIPHON_URL": f"{server.url}/"}
    done = subprocess.run(command, cwd=WEB, env=environment, capture_output=True, text=True)
    if done.returncode or "skipped" in done.stdout:
        pytest.fail(f"{done.stdout}\n{done.stderr}", pytrace=False)
