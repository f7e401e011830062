"""The wire: what goes in comes out, however the bytes are cut; what is no message is refused."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loads import ask, fake_config
from open_files import many_files_open

from antiphon.engine.wire import (
    MAX_FRAME_BYTES,
    Abort,
    AddRequest,
    Configure,
    Connection,
    EngineStats,
    Fatal,
    FatalKind,
    Loading,
    Ready,
    Shutdown,
    StepReport,
    WireError,
    decoder_from_engine,
    decoder_to_engine,
    encode,
)
from antiphon.request import FinishReason, RequestProgress, ThinkingLimit, ThoughtClosed, TokenEvent, TokenLogprobs

THINKING = ThinkingLimit(9, (1, 2), ((2,), (3, 4)), sentence_end_token_ids=(5,))
REQUEST = ask(
    "a", [1, 2], seed=2**64 - 1, logit_bias={5: -100.0}, stop_token_ids=(7,), temperature=0.6, thinking=THINKING
)
TO_ENGINE = [Configure(fake_config(script=(1, 2))), AddRequest(REQUEST), Abort("a"), Shutdown()]
EVENTS = [
    TokenEvent("a", 3, TokenLogprobs(-0.25, [3, 4], [-0.25, -float("inf")]), num_cached_tokens=16),
    TokenEvent("a", 4, thought_closed=ThoughtClosed.BUDGET),
    TokenEvent("a", finish_reason=FinishReason.ERROR, error="not a number"),
]
FROM_ENGINE = [
    Loading(0.5, "packing"),
    Ready({"threads": 2, "kernel": "avx2", "seconds": 0.5}, 8, 16, 256, 128),
    StepReport(EVENTS, EngineStats(running=1, step=7), ["a"], [RequestProgress("b", 2), RequestProgress("a", 0, 9, 4)]),
    Fatal(FatalKind.CHECKPOINT, "model.gguf: cut short"),
]


@given(cuts=st.lists(st.integers(1, 40), min_size=1))
def test_messages_survive_any_cutting(cuts):
    for messages, decoder in ((TO_ENGINE, decoder_to_engine()), (FROM_ENGINE, decoder_from_engine())):
        stream, received, cut = b"".join(map(encode, messages)), [], 0
        while stream:
            size = cuts[cut % len(cuts)]
            received += decoder.feed(stream[:size])
            stream, cut = stream[size:], cut + 1
        assert received == messages


def test_an_oversized_frame_is_refused_by_its_header():
    with pytest.raises(WireError, match="over the cap"):
        list(decoder_to_engine().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "little")))


def test_an_oversized_message_is_never_sent():
    with pytest.raises(WireError, match="Fatal of"):
        encode(Fatal(FatalKind.INTERNAL, "x" * MAX_FRAME_BYTES))


@given(st.binary(max_size=64))
def test_garbage_is_refused_or_waited_for(data):
    try:
        messages = list(decoder_from_engine().feed(data))
    except WireError:
        return
    assert messages == []


def test_a_message_of_the_other_direction_is_refused():
    with pytest.raises(WireError, match="not a message"):
        list(decoder_from_engine().feed(encode(Shutdown())))


def test_a_field_of_the_wrong_type_is_refused():
    frame = encode(Abort("abc")).replace(b"\xa3abc", b"\x01\x00\x00\x00"[:1])
    frame = (len(frame) - 4).to_bytes(4, "little") + frame[4:]
    with pytest.raises(WireError, match="not a message"):
        list(decoder_to_engine().feed(frame))


def test_a_connection_takes_what_is_there_and_says_when_the_front_is_gone():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(theirs)
        assert list(connection.receive(wait=False)) == []
        ours.sendall(b"".join(map(encode, TO_ENGINE)))
        assert list(connection.receive(wait=True)) == TO_ENGINE
        connection.send(FROM_ENGINE[0])
        assert list(decoder_from_engine().feed(ours.recv(1000))) == FROM_ENGINE[:1]
        ours.close()
        with pytest.raises(EOFError):
            list(connection.receive(wait=True))


def test_a_connection_works_with_descriptors_beyond_those_that_select_can_wait_for():
    """1,024 and above, as in a program that has many files open already."""
    ours, theirs = socket.socketpair()
    with many_files_open(), ours, theirs, socket.socket(fileno=os.dup(theirs.fileno())) as high:
        assert high.fileno() >= 1024
        connection = Connection(high)
        ours.sendall(b"".join(map(encode, TO_ENGINE)))
        assert list(connection.receive(wait=True)) == TO_ENGINE
        bell = os.eventfd(1)
        with open(bell, "rb", buffering=0) as readable:
            assert readable.fileno() >= 1024
            assert list(connection.receive(wait=True, or_until=readable)) == []
