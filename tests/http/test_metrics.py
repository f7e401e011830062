"""What a scrape of a running server says of its connections, processes and responses."""

from __future__ import annotations

import asyncio

from http_server import serving, until


async def test_a_scrape_describes_the_server(tmp_path):
    async with serving(tmp_path, max_connections=50) as server:
        answer = (await server.chat(max_tokens=5)).json()
        assert (await server.chat(model="another")).status_code == 404
        assert (await server.http.get("/nowhere")).status_code == 404
        assert (await server.http.request("PROPFIND", "/health")).status_code == 405
        body = {"input": "Hello", "max_output_tokens": 16}
        assert (await server.http.post("/v1/responses", json=body)).status_code == 200
        now = await server.metrics()
        assert now["antiphon_stored_responses"] == 1
        assert 0 < now["antiphon_stored_responses_bytes"] < now["antiphon_stored_responses_limit_bytes"]
        assert now["antiphon_connections_open"] >= 1
        assert now["antiphon_connections_limit"] == 50
        assert now["antiphon_connections_accepted_total"] >= now["antiphon_connections_open"]
        assert now["antiphon_connections_refused_total"] == now["antiphon_connections_evicted_total"] == 0
        for process, engine in (("front", ""), ("engine", "1"), ("renderer", "")):
            assert now[f'antiphon_process_resident_memory_bytes{{engine="{engine}",process="{process}"}}'] > 1e6
        chat = 'antiphon_http_responses_total{method="POST",route="/v1/chat/completions",status="%d"}'
        assert [now[chat % status] for status in (200, 404)] == [1, 1]
        assert now['antiphon_http_responses_total{method="GET",route="other",status="404"}'] == 1
        assert now['antiphon_http_responses_total{method="other",route="/health",status="405"}'] == 1
        assert now['antiphon_choices_finished_total{finish_reason="length"}'] == 2
        assert now["antiphon_request_prompt_tokens_sum"] == 2 * answer["usage"]["prompt_tokens"]
        assert now["antiphon_request_generated_tokens_sum"] == 5 + 16
        assert now["antiphon_time_per_output_token_seconds_count"] == 2
        assert now["antiphon_kv_cache_usage_ratio"] == 0


async def test_a_client_that_leaves_before_the_response_is_counted(tmp_path):
    async with serving(tmp_path, fake={"step_seconds": 0.02, "eos_token_id": -1}) as server:
        asking = asyncio.create_task(server.chat(max_tokens=4000))
        await until(lambda: server.engine.stats.running == 1)
        asking.cancel()
        await server.until_metric(
            'antiphon_http_responses_total{method="POST",route="/v1/chat/completions",status="499"}', 1
        )


async def test_a_retry_is_counted_however_it_ends(tmp_path):
    async with serving(tmp_path) as server:
        headers = {"x-stainless-retry-count": "1"}
        for body in ({"prompt": "Hello", "max_tokens": 2}, {"prompt": "Hello", "max_tokens": "many"}):
            await server.http.post("/v1/completions", json=body, headers=headers)
        await server.http.post("/v1/completions", json=body, headers={"x-stainless-retry-count": "0"})
        assert (await server.metrics())["antiphon_retries_seen_total"] == 2
