"""Much more work than the server can do, sent by the stock client: nothing accepted is lost, and the counts agree."""

from __future__ import annotations

import asyncio
from collections import Counter

from http_server import serving, until
from openai import InternalServerError

PLACES, TOKENS = 2, 25


async def test_a_flood_of_stock_clients_loses_nothing_that_was_accepted(tmp_path):
    """Sixty clients at once, where two answers run at a time; each tries up to three times."""
    fake = {"step_seconds": 0.02, "eos_token_id": -1}
    async with serving(tmp_path, fake=fake, max_num_sequences=PLACES, max_wait=4.0) as server:
        await asyncio.gather(*(server.complete(max_tokens=TOKENS) for _ in range(12)))  # now it knows its speed
        client = server.openai.with_options(max_retries=2)
        outcomes: Counter[str] = Counter()
        codes: set[tuple[int, str | None]] = set()

        async def ask(number: int) -> None:
            try:
                answer = await client.completions.create(model="", prompt=f"Hello {number}", max_tokens=TOKENS)
                assert answer.usage.completion_tokens == TOKENS
                outcomes["answered"] += 1
            except InternalServerError as error:
                outcomes["refused"] += 1
                codes.add((error.status_code, error.code))

        await asyncio.gather(*(ask(number) for number in range(60)))
        await until(lambda: server.engine.counters.running == 0)
        metrics = await server.metrics()
        finished = metrics['antiphon_requests_finished_total{endpoint="completions"}']
        dropped = metrics['antiphon_shed_requests_total{reason="queue_timeout"}']
        assert metrics['antiphon_requests_accepted_total{endpoint="completions"}'] == finished + dropped
        assert outcomes["answered"] == finished - 12
        assert outcomes.total() == 60
        assert codes <= {(503, "server_overloaded")}
        assert metrics['antiphon_shed_requests_total{reason="predicted_wait"}'] >= 1
        assert metrics["antiphon_retries_seen_total"] >= 1
        assert metrics["antiphon_queue_wait_seconds_count"] == finished + dropped
        assert metrics["antiphon_time_to_first_answer_seconds_count"] == finished
        assert metrics["antiphon_tokens_owed"] == 0
        await server.check_accounts()
