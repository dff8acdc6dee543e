"""How much an input makes us do, and hold: counted, not timed.

Work is lines of Python that are executed, and bytes that kafka-python copies aside to read tagged fields.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from kafka.protocol.schemas.fields.codecs import TaggedFields

#: What a frame may cost at most: in all, and for each byte. A decoder takes some lines for a field, which may
#: be as short as a byte; and a few bytes become an object of some hundred.
LINES, LINES_A_BYTE = 20_000, 60
COPIED, COPIED_A_BYTE = 200_000, 1000
MEMORY, MEMORY_A_BYTE = 300_000, 120


class Work:
    """Lines executed and bytes copied so far."""

    def __init__(self) -> None:
        self.lines = 0
        self.copied = 0

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.lines += 1
        return self.trace

    def check(self, size: int) -> None:
        """That it is bounded by the size of the input."""
        assert self.lines <= LINES + LINES_A_BYTE * size, f"{self.lines} lines for {size} bytes"
        assert self.copied <= COPIED + COPIED_A_BYTE * size, f"{self.copied} bytes copied for {size} bytes"


@contextmanager
def counting() -> Generator[Work]:
    """A block in which work is counted; it takes some ten times as long."""
    work = Work()
    decode = TaggedFields.decode

    def counted(fields: Any, data: Any, version: Any = None) -> Any:
        if data.tell() == 0:  # a copy of the rest of the frame, made for these fields
            work.copied += data.getbuffer().nbytes
        return decode(fields, data, version=version)

    before = sys.gettrace()
    TaggedFields.decode = counted
    sys.settrace(work.trace)
    try:
        yield work
    finally:
        sys.settrace(before)
        TaggedFields.decode = decode


def peak_of(function: Callable[[], object]) -> int:
    """The most bytes that were allocated at a time while it ran."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def check_memory(peak: int, size: int) -> None:
    assert peak <= MEMORY + MEMORY_A_BYTE * size, f"{peak} bytes allocated for {size} bytes"
