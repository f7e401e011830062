"""A whole front in a process of its own, for tests that measure what it costs: prints its URL, ends with its input.

python front_process.py FOLDER '{"context_length": 131072}'
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from pathlib import Path

from http_server import serving


async def main(folder: Path, fake: dict[str, int]) -> None:
    async with serving(folder, fake=fake) as server:
        gc.freeze()  # as `antiphon serve` does
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
