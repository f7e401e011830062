"""The handshake and the frames between a front and an engine host: what is not genuine is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.engine.remote.address import parse_address, parse_engines
from antiphon.engine.remote.channel import Kind, Opener, Sealer
from antiphon.engine.remote.handshake import HELLO_BYTES, PROTOCOL_VERSION, HandshakeError, Hello, is_proof, keys_of
from antiphon.engine.wire import MAX_FRAME_BYTES, WireError
from antiphon.errors import ConfigError

KEY = b"k" * 32
SECRET = "a secret of more than sixteen"  # noqa: S105
FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=200)), max_size=8)


@given(FRAMES, st.data())
def test_frames_arrive_as_they_were_sent_wherever_the_stream_is_cut(frames, data):
    sealer, opener = Sealer(KEY), Opener(KEY)
    stream = b"".join(sealer.seal(*frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    parts = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [frame for part in parts for frame in opener.feed(part)] == frames


@given(FRAMES.filter(bool), st.data())
def test_a_changed_bit_is_noticed_before_anything_of_its_frame_is_used(frames, data):
    sealed = [Sealer(KEY)]
    stream = bytearray(b"".join(sealed[0].seal(*frame) for frame in frames))
    bit = data.draw(st.integers(0, 8 * len(stream) - 1))
    stream[bit // 8] ^= 1 << bit % 8
    got = []
    opener = Opener(KEY)
    try:
        got += opener.feed(bytes(stream) + bytes(300))  # a length that grew still finds enough bytes to be checked
    except WireError:
        pass
    else:
        assert len(got) < len(frames)  # it waits for a longer frame, which will not be genuine
    assert got == frames[: len(got)]
    assert len(got) < len(frames)


@pytest.mark.parametrize("change", ["repeated", "left out", "reordered"])
def test_a_genuine_frame_in_the_wrong_place_is_refused(change):
    sealer = Sealer(KEY)
    first, second, third = (sealer.seal(Kind.ENGINE, bytes([n])) for n in range(3))
    stream = {"repeated": first + first, "left out": first + third, "reordered": second + first}[change]
    with pytest.raises(WireError, match="changed on its way"):
        list(Opener(KEY).feed(stream))


def test_a_frame_of_the_other_direction_or_of_another_connection_is_refused():
    front, host = Hello.fresh(), Hello.fresh()
    keys, others = keys_of(SECRET, front, host), keys_of(SECRET, front, Hello.fresh())
    frame = Sealer(keys.from_front).seal(Kind.ENGINE, b"x")
    assert list(Opener(keys.from_front).feed(frame)) == [(Kind.ENGINE, b"x")]
    for key in (keys.from_host, others.from_front):
        with pytest.raises(WireError):
            list(Opener(key).feed(frame))


def test_a_frame_that_is_too_long_is_refused_when_its_header_arrives():
    with pytest.raises(WireError, match="over the cap"):
        list(Opener(KEY).feed((MAX_FRAME_BYTES + 1).to_bytes(4, "little") + b"\0"))
    with pytest.raises(WireError, match="over the cap"):
        Sealer(KEY).seal(Kind.ENGINE, bytes(MAX_FRAME_BYTES + 1))


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(WireError, match="kind 7"):
        list(Opener(KEY).feed(Sealer(KEY).seal(7, b"")))  # type: ignore[arg-type]


def test_proofs_and_keys_differ_with_the_secret_the_side_the_nonces_and_the_versions():
    front, host = Hello.fresh(), Hello.fresh()
    keys = keys_of(SECRET, front, host)
    assert len({keys.front_proof, keys.host_proof, keys.from_front, keys.from_host}) == 4
    assert is_proof(keys.front_proof, keys_of(SECRET, front, host).front_proof)
    changed = [
        keys_of(SECRET + ".", front, host),
        keys_of(SECRET, Hello.fresh(), host),
        keys_of(SECRET, front, Hello.fresh()),
        keys_of(SECRET, host, front),
        keys_of(SECRET, Hello(PROTOCOL_VERSION + 1, front.nonce), host),
    ]
    for other in changed:
        assert not is_proof(other.front_proof, keys.front_proof)
        assert not is_proof(other.host_proof, keys.host_proof)
        assert not {other.from_front, other.from_host} & {keys.from_front, keys.from_host}


def test_what_is_no_hello_is_refused():
    assert Hello.decode(Hello(9, b"n" * 32).encode()) == Hello(9, b"n" * 32)
    with pytest.raises(HandshakeError, match="does not speak"):
        Hello.decode(b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept"[:HELLO_BYTES].ljust(HELLO_BYTES))
    with pytest.raises(HandshakeError, match="instead of"):
        Hello.decode(b"")


def test_addresses_of_hosts():
    assert str(parse_address("tcp://Example.org:9")) == "tcp://example.org:9"
    assert str(parse_address("tls://[::1]")) == "tls://[::1]:8010"
    for text in ("10.0.0.5:8010", "http://a:1", "tcp://", "tcp://a:0", "tcp://a:99999", "tcp://a:1/x", "tcp://u@a:1"):
        with pytest.raises(ConfigError, match="such as tcp://"):
            parse_address(text)


def test_engines_are_a_number_and_devices_here_and_addresses_elsewhere():
    assert parse_engines("2") == (2, (), ())
    assert parse_engines("tcp://a:1, tcp://b:2") == (0, (), ("tcp://a:1", "tcp://b:2"))
    assert parse_engines("tcp://a:1,2,tcp://a:1") == (2, (), ("tcp://a:1", "tcp://a:1"))
    assert parse_engines("cuda:1, cpu,cpu") == (0, ("cuda:1", "cpu", "cpu"), ())
    assert parse_engines("cuda,2,tcp://a:1") == (2, ("cuda",), ("tcp://a:1",))
    for text in ("two", "1,2", "1,localhost:8010", "", "cuda:", "gpu", "auto"):
        with pytest.raises(ConfigError, match="--engines"):
            parse_engines(text)
