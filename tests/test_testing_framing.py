"""How the proxy tells frames: of Kafka, of TLS, of anything else, however they are cut in pieces."""

from __future__ import annotations

import struct

import pytest

from trio_kprod.testing._framing import Frame, Framing, Piece, framings

PRODUCE, METADATA, UNKNOWN = 0, 3, 99


def request(key: int, correlation_id: int, body: bytes = b"") -> bytes:
    return struct.pack(">ihhi", 8 + len(body), key, 9, correlation_id) + body


def answer(correlation_id: int, body: bytes = b"") -> bytes:
    return struct.pack(">ii", 4 + len(body), correlation_id) + body


def record(kind: int, body: bytes) -> bytes:
    """One record of TLS 1.2 or 1.3."""
    return struct.pack(">BHH", kind, 0x0303, len(body)) + body


def fed(framing: Framing, data: bytes, step: int) -> list[Piece]:
    """What comes out of bytes that arrive `step` at a time, up to the end of the stream."""
    pieces: list[Piece] = []
    for start in range(0, len(data), step):
        pieces += framing.feed(data[start : start + step])
    return [*pieces, *framing.rest()]


def frames(pieces: list[Piece]) -> list[Frame]:
    """The frames that the pieces belong to, once it is certain that none of their bytes is missing."""
    found: list[Frame] = []
    expected = 0
    for piece in pieces:
        assert piece.start == expected
        if piece.start == 0:
            found.append(piece.frame)
        assert piece.frame == found[-1]
        expected = (piece.start + len(piece.data)) % piece.frame.size
    return found


def joined(pieces: list[Piece]) -> bytes:
    return b"".join(piece.data for piece in pieces)


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_requests_and_their_answers_have_names(step: int) -> None:
    requests, answers = framings()
    asked = request(PRODUCE, 1, b"x" * 20) + request(METADATA, 2) + request(UNKNOWN, 3, b"y")
    pieces = fed(requests, asked, step)
    assert joined(pieces) == asked
    assert frames(pieces) == [Frame(32, "Produce"), Frame(12, "Metadata"), Frame(13, None)]

    answered = answer(2, b"z" * 30) + answer(1) + answer(3) + answer(4)
    pieces = fed(answers, answered, step)
    assert joined(pieces) == answered
    assert frames(pieces) == [Frame(38, "Metadata"), Frame(8, "Produce"), Frame(8, None), Frame(8, None)]


@pytest.mark.parametrize("step", [1, 4, 1000])
def test_records_of_tls_are_frames(step: int) -> None:
    data = record(22, b"hello") + record(20, b"\x01") + record(23, b"x" * 300)
    pieces = fed(framings()[0], data, step)
    assert joined(pieces) == data
    assert frames(pieces) == [Frame(10), Frame(6), Frame(305)]


def test_a_short_frame_has_no_name() -> None:
    pieces = fed(framings()[0], struct.pack(">i", 3) + b"abc" + struct.pack(">i", 0), 1000)
    assert frames(pieces) == [Frame(7), Frame(4)]


def test_of_other_protocols_what_arrives_at_once_is_a_frame() -> None:
    framing, _ = framings()
    assert [*framing.feed(b"GET /")] == [Piece(Frame(5), 0, b"GET /")]
    # What looks like a length stays what it is.
    assert [*framing.feed(b"\0\0")] == [Piece(Frame(2), 0, b"\0\0")]


def test_nothing_is_held_back_of_what_is_known() -> None:
    framing, _ = framings()
    assert [*framing.feed(request(PRODUCE, 1, b"x" * 100)[:11])] == []
    assert joined([*framing.feed(b"\1")]) == request(PRODUCE, 1, b"x" * 100)[:11] + b"\1"
    assert joined([*framing.feed(b"x")]) == b"x"


def test_the_beginning_of_a_frame_comes_out_at_the_end() -> None:
    framing, _ = framings()
    assert [*framing.feed(b"\0\0\0")] == []
    assert [*framing.rest()] == [Piece(Frame(3), 0, b"\0\0\0")]
    assert [*framing.rest()] == []
