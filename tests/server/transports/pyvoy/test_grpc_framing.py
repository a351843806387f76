"""gRPC's layer over HTTP/2: frames, compression, timeouts, statuses."""

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from horngate_server.core.errors import InvalidRequest, MessageTooLarge, NotImplementedHere
from horngate_server.core.rpc import Status
from horngate_server.transports.pyvoy import grpc_framing


@pytest.mark.parametrize(
    ("content_type", "is_grpc"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/grpc-web-text", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_grpc_is_told_from_what_is_named_like_it(content_type: bytes, *, is_grpc: bool) -> None:
    """A codec or a parameter may follow; gRPC-Web is another protocol."""
    assert grpc_framing.is_grpc(content_type) is is_grpc


@given(st.one_of(st.binary(max_size=100), st.integers(4000, 5000).map(bytes)))
def test_a_framed_message_comes_back_whole(message: bytes) -> None:
    """Whatever the message, its frame holds it, uncompressed."""
    read, compressed = grpc_framing.unframe(grpc_framing.frame(message), len(message))
    assert bytes(read) == message
    assert not compressed


@given(st.binary(max_size=100), st.integers(grpc_framing.PREFIX_BYTES, 120))
def test_a_frame_in_pieces_is_the_same_frame(message: bytes, piece_bytes: int) -> None:
    """Every piece but the last has the size that was asked for."""
    pieces = list(grpc_framing.frame_in_pieces(message, piece_bytes))
    assert b"".join(pieces) == grpc_framing.frame(message)
    assert all(len(piece) == piece_bytes for piece in pieces[:-1])
    assert 0 < len(pieces[-1]) <= piece_bytes


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0\0\0", id="half-a-prefix"),
        pytest.param(b"\0\0\0\0\5abc", id="too-short"),
        pytest.param(b"\0\0\0\0\1abc", id="too-long"),
        pytest.param(b"\2\0\0\0\1a", id="unknown-flag"),
    ],
)
def test_a_body_that_is_not_one_frame_is_refused(body: bytes) -> None:
    """Cut, padded or mislabelled frames are the caller's error, and the answer says what was expected."""
    with pytest.raises(InvalidRequest, match="expected one gRPC frame"):
        grpc_framing.unframe(body, 100)


def test_a_message_of_the_limits_size_passes_and_not_a_byte_more() -> None:
    """The frame's own bytes do not count."""
    assert grpc_framing.unframe(grpc_framing.frame(bytes(10)), 10) == (bytes(10), False)
    with pytest.raises(MessageTooLarge, match="11 bytes; expected at most 10"):
        grpc_framing.unframe(grpc_framing.frame(bytes(11)), 10)


@pytest.mark.parametrize(("encoding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_compressed_messages_are_expanded_up_to_the_limit_and_not_a_byte_beyond(
    encoding: bytes, pack: Callable[[bytes], bytes]
) -> None:
    """A message of the limit's size passes; one byte more is cut off, and so is a bomb, without being expanded."""
    assert grpc_framing.expand(pack(bytes(1000)), encoding, 1000) == bytes(1000)
    for size in (1001, 10**8):
        with pytest.raises(MessageTooLarge, match="more than 1000 bytes"):
            grpc_framing.expand(pack(bytes(size)), encoding, 1000)


@pytest.mark.parametrize(
    ("message", "encoding", "error", "said"),
    [
        pytest.param(b"x", b"", InvalidRequest, "expected grpc-encoding to say how", id="unsaid"),
        pytest.param(b"x", b"identity", InvalidRequest, "expected grpc-encoding to say how", id="identity"),
        pytest.param(b"x", b"snappy", NotImplementedHere, "snappy; expected gzip or deflate", id="unknown"),
        pytest.param(b"xyz", b"gzip", InvalidRequest, "not compressed with gzip", id="garbage"),
        pytest.param(gzip.compress(b"abc")[:-4], b"gzip", InvalidRequest, "cut short", id="cut"),
    ],
)
def test_what_cannot_be_expanded_is_refused_with_the_reason(
    message: bytes, encoding: bytes, error: type[Exception], said: str
) -> None:
    """A wrong or missing encoding, garbage and half a stream each get their own error."""
    with pytest.raises(error, match=said):
        grpc_framing.expand(message, encoding, 1000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"2H", 7200.0), (b"3M", 180.0), (b"5S", 5.0), (b"250m", 0.25), (b"99999999u", 99.999999), (b"1n", 1e-9)],
)
def test_timeouts_are_read_in_every_unit(text: bytes, seconds: float) -> None:
    """Hours to nanoseconds, up to eight digits."""
    assert grpc_framing.timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"5", b"S", b"-1S", b"1.5S", b"123456789S", b"5s"])
def test_a_timeout_that_is_none_is_refused(text: bytes) -> None:
    """Anything else is the caller's error."""
    with pytest.raises(InvalidRequest, match="grpc-timeout"):
        grpc_framing.timeout(text)


def test_a_status_travels_as_headers_with_its_text_quoted_and_its_binaries_in_base64() -> None:
    """Only printable ASCII reaches a header; the percent sign itself is quoted."""
    status = Status(8, "RESOURCE_EXHAUSTED", "100 % voll: größer\n", (("a-bin", b"\0\1\2\3"), ("b", "text")))
    assert grpc_framing.trailers(status) == [
        (b"grpc-status", b"8"),
        (b"grpc-message", b"100 %25 voll: gr%C3%B6%C3%9Fer%0A"),
        (b"a-bin", b"AAECAw"),
        (b"b", b"text"),
    ]
