"""``send``: every line of the input is a message."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any

import trio
from tqdm import tqdm

from .._errors import ConnectFailed, DeliveryFailed
from .._instruments import Instrument
from .._messages import ProducerStatistics, Undelivered
from .._producer import Producer, open_producer
from ._lines import Format, Parsed, as_line

#: How many bytes are read at a time. Memory stays the same, however long the input is.
_READ_AT_ONCE = 1 << 16

#: What suits a pipe, unless the settings say otherwise.
_DEFAULTS = {"delivery_threshold": 500, "delivery_interval": 0.05}


class BadLine(Exception):
    """A line is no message; the text says which line, and why."""


@dataclass
class Sending:
    """One run of the command.

    Attributes:
        source: the input.
        name: of the input, for error messages.
        skip_bad_lines: a line that is no message is reported and left out, instead of ending the run.
        undelivered: takes messages that were not delivered, as lines.
        longest_line: in bytes; a longer one ends the run in any case, so that memory has a bound.
    """

    topic: str
    source: Any  # binary, and buffered
    name: str
    form: Format
    skip_bad_lines: bool
    undelivered: IO[str]
    longest_line: int
    skipped: int = 0
    failed: bool = False
    interrupted: bool = False

    def put_aside(self, undelivered: Undelivered) -> None:
        maybe = ", but may have been" if undelivered.maybe_written else ""
        _say(f"not delivered{maybe}: {undelivered.cause}")
        print(as_line(undelivered.message), file=self.undelivered, flush=True)

    async def read_all(self, send: Callable[..., Any]) -> None:
        """Send what there is, up to a bad line or a Ctrl-C."""
        try:
            await self._read(send)
        except KeyboardInterrupt:
            self.interrupted = True
            _say("Ctrl-C: reading no more, delivering what was read; once more to give up")
        except BadLine as error:
            self.failed = True
            _say(f"{error}; what stands before it is sent (--on-bad-line=skip goes on)")

    async def _read(self, send: Callable[..., Any]) -> None:
        """Send each line as soon as it is there; a pipe may be slow."""
        number = 0
        rest = bytearray()
        while data := await self._read_some():
            *lines, last = data.split(b"\n")
            for line in lines:
                number += 1
                await self._send_line(send, number, bytes(rest + line).removesuffix(b"\r"))
                rest.clear()
            rest += last
            if len(rest) > self.longest_line:
                text = f"longer than {self.longest_line} bytes, which no message can be"
                raise BadLine(f"{self.name}, line {number + 1}: {text}")
        if rest:
            await self._send_line(send, number + 1, bytes(rest))

    async def _read_some(self) -> bytes:
        """Read in a thread. Ctrl-C leaves that thread behind."""
        data: bytes = await trio.to_thread.run_sync(self.source.read1, _READ_AT_ONCE, abandon_on_cancel=True)
        return data

    async def _send_line(self, send: Callable[..., Any], number: int, line: bytes) -> None:
        try:
            parsed: Parsed = self.form.parse(line)
            value, key, headers, partition, timestamp_ms = parsed
            await send(
                self.topic, value, key=key, headers=headers, partition=partition, timestamp_ms=timestamp_ms
            )
        except (ValueError, TypeError) as error:
            text = f"{self.name}, line {number}: {error}"
            if not self.skip_bad_lines:
                raise BadLine(text) from None
            self.skipped += 1
            _say(text)


class _Progress(Instrument):
    """Moves the bar, if there is one, when a batch is acknowledged; and keeps the counts."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self.counts: ProducerStatistics

    def closed(self, *, producer: Producer[Any, Any]) -> None:
        self.counts = producer.statistics()

    def ack_messages(self, *, message_count: int, **_: object) -> None:
        if self._bar is not None:
            self._bar.update(message_count)


def send(sending: Sending, settings: dict[str, Any]) -> int:
    """Run it; returns the exit code."""
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(unit=" msg", unit_scale=True)) if _is_terminal() else None
        try:
            return trio.run(_send, sending, settings, bar)
        except KeyboardInterrupt:  # a second one, or before anything was sent
            _say("interrupted")
            return 130


async def _send(sending: Sending, settings: dict[str, Any], bar: Any) -> int:
    started = time.monotonic()
    progress = _Progress(bar)
    options: dict[str, Any] = {**_DEFAULTS, **settings, "instruments": (progress,)}
    try:
        async with open_producer(**options, on_undelivered=sending.put_aside) as producer:
            await sending.read_all(producer.send)
    except ConnectFailed as error:
        _say(str(error))
        return 3
    except DeliveryFailed:
        pass  # what `put_aside` could not write; it is counted below
    now, seconds = progress.counts, max(time.monotonic() - started, 1e-9)
    _say(
        f"{now.delivered} delivered to {sending.topic} in {seconds:.2f} s ({now.delivered / seconds:.0f}/s)"
        + (f", {now.undelivered} not delivered" if now.undelivered else "")
        + (f", {sending.skipped} lines skipped" if sending.skipped else "")
    )
    if sending.interrupted:
        return 130
    return 1 if now.undelivered or sending.failed else 0


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
