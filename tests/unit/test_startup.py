"""The lines a server greets with."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace

import pytest
from machines import FakeMachine
from tiny_checkpoints import metadata, write_gguf

from antiphon.api_keys import read_api_keys
from antiphon.commands.startup import (
    curl_line,
    cut_note,
    open_note,
    quantization_note,
    short_keys_note,
    startup_line,
)
from antiphon.engine.wire import Ready
from antiphon.formats import open_checkpoint
from antiphon.machine import see_machine
from antiphon.quantization import Quantization


@pytest.fixture
def checkpoint(tmp_path):
    return open_checkpoint(write_gguf(tmp_path / "m.gguf", metadata()))


def test_one_line_says_what_was_chosen(checkpoint, tmp_path):
    machine = FakeMachine(tmp_path / "machine")
    machine.memory(total=8 << 30, available=4 << 30)
    machine.cores([(cpu,) for cpu in range(max(os.sched_getaffinity(0)) + 1)])
    runner = {
        "instruction_set": "avx2",
        "threads": 2,
        "weight_format": "q4_0+q8_0",
        "weight_bytes": 1 << 20,
        "kv_cache_type": "int8",
    }
    info = Ready(runner, num_blocks=640, block_size=16, vocab_size=10, context_length=4096)
    assert startup_line(info, checkpoint, see_machine(2, machine.root)) == (
        "avx2 · 2 threads (as asked) · memory 4.0 of 8.0 GiB free · weights F32 as q4_0+q8_0, 1.0 MiB · "
        "context 4,096 tokens · "
        "KV cache int8 10,240 tokens = 10 users of 1,024"
    )
    elsewhere = startup_line(info, checkpoint, see_machine(2, machine.root), 0, 2)
    assert elsewhere.startswith("2 engines on other machines · weights ")
    both = startup_line(info, checkpoint, see_machine(2, machine.root), 1, 1)
    assert " · 1 engine on other machines · weights " in both
    assert both.endswith(" in each engine")
    of_two = startup_line(info, checkpoint, see_machine(2, machine.root), num_engines=2)
    assert "2 engines with 2 threads · " in of_two
    assert of_two.endswith("10 users of 1,024 in each engine")


def test_a_runner_that_says_little_of_itself(checkpoint):
    info = Ready({"runner": "fake"}, num_blocks=64, block_size=16, vocab_size=10, context_length=512)
    line = "fake engine · weights F32 · context 512 tokens · KV cache 1,024 tokens = 1 users of 1,024"
    assert startup_line(info, checkpoint, see_machine()) == line


@pytest.mark.parametrize(
    ("used", "says"), [(512, "the model's own limit is 512"), (256, "the size of the KV cache is 256")]
)
def test_a_context_shorter_than_asked_for_is_said(checkpoint, used, says):
    checkpoint = replace(checkpoint, settings={**checkpoint.settings, "max_position_embeddings": 512})
    info = Ready({}, num_blocks=64, block_size=16, vocab_size=10, context_length=used)
    assert says in cut_note(99999, info, checkpoint)
    assert cut_note(used, info, checkpoint) is None
    note = cut_note(0, info, checkpoint)
    assert note is None if used == 512 else note.startswith("the model's context is 512 tokens, but there is only")


def test_a_choice_of_precision_is_said_where_nobody_made_it():
    assert quantization_note("auto", Quantization("w8", "there is room")).endswith("served as w8: there is room")
    assert quantization_note("w4", Quantization("w4", "as asked")) is None
    assert quantization_note("auto", Quantization("", "quantized already")) is None
    assert quantization_note("w4", Quantization("", "quantized already")).endswith("has no effect: quantized already")


def test_the_line_to_paste_survives_any_name():
    words = shlex.split(curl_line("http://x:1", 'it\'s "odd"'))
    assert words[:2] == ["curl", "http://x:1/v1/chat/completions"]
    assert json.loads(words[-1])["model"] == 'it\'s "odd"'


def test_with_keys_the_line_to_try_has_the_shell_put_one_in():
    words = shlex.split(curl_line("http://x:1", "m", has_keys=True))
    assert words[words.index("-H") + 1] == "Authorization: Bearer $ANTIPHON_API_KEY"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_this_machine_alone_needs_no_key(host):
    assert open_note(host, has_keys=False) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "box"])  # noqa: S104  # not bound to
def test_an_address_that_others_reach_wants_keys(host):
    note = open_note(host, has_keys=False)
    assert note is not None
    assert "--api-key-file" in note
    assert open_note(host, has_keys=True) is None


def test_short_keys_are_named():
    assert short_keys_note(read_api_keys(["x" * 16])) is None
    one = short_keys_note(read_api_keys(["ann:secret", "y" * 16]))
    assert one is not None
    assert one.startswith("API key ann has fewer than 16 characters")
    assert "secret" not in one
    many = short_keys_note(read_api_keys(["a,b,c,d,e"]))
    assert many is not None
    assert many.startswith("API keys key-1, key-2, key-3 and 2 more have fewer")
