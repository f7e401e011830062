"""A Hugging Face folder is served the same way as a GGUF file: random weights, real shapes, names and template."""

from __future__ import annotations

import asyncio

import pytest
from quantized_folders import Scheme, write_quantized_folder
from real_server import real_server
from tiny_folders import CLASSES, write_random_folder

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("architecture", CLASSES)
@pytest.mark.parametrize("quantization", ["w4", "w8", "act-order"])
async def test_a_folder_is_served(tmp_path, architecture, quantization):
    folder = tmp_path / "tiny-r1"
    if quantization == "act-order":  # what is stored in codes is served so, the rest in 8 bits
        scheme = Scheme("gptq", group_size=32, symmetric=True, act_order=True)
        write_quantized_folder(folder, scheme, architecture)
        quantization = "w8"
    else:
        write_random_folder(folder, architecture)
    with real_server(folder, "--kv-cache-tokens", "8192", "--quantization", quantization) as server:
        assert server.model == "tiny-r1"
        async with server.openai() as client:

            async def ask(number: int) -> object:
                reply = await client.chat.completions.create(
                    model=server.model,
                    messages=[{"role": "user", "content": f"Question {number}: " + "why? " * number * 5}],
                    max_tokens=24,
                    seed=number,
                    logprobs=True,
                    top_logprobs=3,
                )
                return reply.choices[0].model_dump(), reply.usage.prompt_tokens

            alone = [await ask(number) for number in range(8)]
            assert await asyncio.gather(*map(ask, range(8))) == alone
        choice, prompt_tokens = alone[3]
        # R1's template ends inside the thought, so what noise says is thought first.
        assert choice["message"]["reasoning_content"] == choice["message"]["reasoning"] != ""
        assert len(choice["logprobs"]["content"]) == 24
        assert prompt_tokens > 15
