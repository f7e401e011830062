"""Pieces of an answer become items (OpenAI) and blocks (Anthropic), one after the other, in events that add up."""

from __future__ import annotations

import msgspec

from antiphon.api.messages.blocks import Content
from antiphon.api.pieces import Piece, ToolCallDelta
from antiphon.api.responses.items import Output

# A thought, a word, and two calls whose arguments come in parts.
PIECES = [
    Piece(0, reasoning="Hm, "),
    Piece(0, reasoning="so."),
    Piece(0, content="Let me look."),
    Piece(0, tool_calls=[ToolCallDelta(0, "call_a", "look", "")]),
    Piece(0, tool_calls=[ToolCallDelta(0, arguments='{"where":'), ToolCallDelta(0, arguments='"up"}')]),
    Piece(0, tool_calls=[ToolCallDelta(1, "call_b", "look", '{"where":"down"}')]),
    Piece(0, finish_reason="tool_calls"),
]


def told(events):
    return [msgspec.to_builtins(event) for event in events]


def responses(pieces, status="completed"):
    output = Output()
    events = [event for piece in pieces for event in told(output.push(piece, []))]
    return events + told(output.close(status)), msgspec.to_builtins(output.items)


def messages(pieces):
    content = Content()
    events = [event for piece in pieces for event in told(content.push(piece))]
    return events + told(content.close()), msgspec.to_builtins(content.blocks)


def test_items_follow_each_other():
    events, items = responses(PIECES)
    assert [item["type"] for item in items] == ["reasoning", "message", "function_call", "function_call"]
    assert [item["status"] for item in items] == ["completed"] * 4
    assert items[0]["content"][0]["text"] == "Hm, so."
    assert [(item["call_id"], item["arguments"]) for item in items[2:]] == [
        ("call_a", '{"where":"up"}'),
        ("call_b", '{"where":"down"}'),
    ]
    assert [event["type"].removeprefix("response.") for event in events if event["output_index"] == 2] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    indices = [event["output_index"] for event in events]
    assert indices == sorted(indices)
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == items


def test_the_item_that_was_cut_off_is_incomplete_and_those_before_it_are_not():
    _, items = responses(PIECES[:-2], "incomplete")
    assert [item["status"] for item in items] == ["completed", "completed", "incomplete"]


def test_an_answer_of_nothing_is_an_empty_message():
    events, items = responses([Piece(0, finish_reason="stop")])
    assert items[0]["content"][0]["text"] == ""
    assert events[0]["type"] == "response.output_item.added"
    assert messages([Piece(0, finish_reason="stop")])[1] == [{"type": "text", "text": ""}]


def test_blocks_follow_each_other():
    events, blocks = messages(PIECES)
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use", "tool_use"]
    assert blocks[0]["thinking"] == "Hm, so."
    assert [(block["id"], block["input"]) for block in blocks[2:]] == [
        ("call_a", {"where": "up"}),
        ("call_b", {"where": "down"}),
    ]
    kinds = [(event["type"], event["index"]) for event in events]
    assert kinds[-6:] == [
        ("content_block_delta", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
        ("content_block_start", 3),
        ("content_block_delta", 3),
        ("content_block_stop", 3),
    ]
    start = next(event for event in events if event["type"] == "content_block_start" and event["index"] == 2)
    assert start["content_block"] == {"type": "tool_use", "id": "call_a", "name": "look", "input": {}}


def test_arguments_that_were_cut_off_are_not_lost():
    _, blocks = messages([*PIECES[:4], Piece(0, tool_calls=[ToolCallDelta(0, arguments='{"where":')])])
    assert blocks[-1]["input"] == {"_incomplete": '{"where":'}
