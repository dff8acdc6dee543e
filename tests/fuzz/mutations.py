"""Bytes that are nearly right. Whatever is drawn comes from a `random.Random`, or from hypothesis' own."""

from __future__ import annotations

from random import Random

#: Numbers at the edges of what fits into one, two, four and eight bytes; counts and lengths among them.
_EDGES = tuple(
    number.to_bytes(size, "big", signed=True)
    for size in (1, 2, 4, 8)
    for number in (-(2 ** (8 * size - 1)), -2, -1, 0, 1, 2, 2 ** (8 * size - 1) - 1)
)

#: Varints: null, empty, short, of the largest 32 and 63 bits, longer than they need to be.
_VARINTS = (
    *(b"\x00", b"\x01", b"\x02", b"\x7f", b"\xff\x7f", b"\xff\xff\xff\xff\x0f", b"\xff" * 8 + b"\x7f"),
    *(b"\x80\x00", b"\x81\x80\x80\x00", b"\x80" * 30 + b"\x01"),
)

#: Tagged fields (KIP-482): none, an unknown one, one longer than the frame, known tags of our responses.
_TAGS = (
    *(b"\x01\x63\x00", b"\x01\x63\x03abc", b"\x01\x63\xff\xff\xff\xff\x07", b"\x02\x00\x00\x00\x00"),
    *(b"\x01\x00\x09" + b"\0\0\0\1\0\0\0\1\0", b"\x01\x00\x02\x01\x00", b"\xff\xff\xff\xff\x0f"),
)

#: What texts may hold: control characters, an escape sequence, what turns text around, bad UTF-8.
_TEXTS = (
    b"\n",
    b"\r\n",
    b"\x1b[31m",
    b"\0",
    "\u202e".encode(),
    "\u2028".encode(),
    b"\xff\xfe",
    b"\xed\xa0\x80",
)

_LONG = 5000

#: The header in front of a response: its correlation id.
_HEADER = 4


def mutated(data: bytes, rng: Random) -> bytes:
    """Some of the bytes changed; the header mostly not, as nobody would look behind a wrong one."""
    changed = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        low = 0 if rng.random() < 0.05 else min(_HEADER, len(changed))
        at = rng.randrange(low, len(changed) + 1)
        _change(changed, at, rng)
    return bytes(changed)


def _change(data: bytearray, at: int, rng: Random) -> None:
    kind = rng.randrange(12)
    if kind < 2:
        if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
    elif kind < 4:
        edge = rng.choice(_EDGES)
        data[at : at + len(edge)] = edge
    elif kind < 6:
        data[at : at + rng.randrange(3)] = rng.choice(_VARINTS)
    elif kind == 6:
        data[at : at + rng.randrange(2)] = rng.choice(_TAGS)
    elif kind == 7:
        del data[at:]
    elif kind == 8:
        del data[at : at + rng.randrange(1, 40)]
    elif kind == 9:  # a part again, perhaps many times
        data[at:at] = data[at : at + rng.randrange(1, 40)] * rng.choice((1, 1, 2, 50))
    elif kind == 10:
        data[at:at] = rng.choice(_TEXTS)
    elif rng.random() < 0.1:
        data[at:at] = rng.choice((b"\x80", b"\xff")) * rng.randrange(_LONG)
    else:
        data[at : at + rng.randrange(9)] = rng.randbytes(rng.randrange(9))
