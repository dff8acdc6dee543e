"""``send``: every line of the input is a message."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

import trio
from tqdm import tqdm

from .._errors import ConnectFailed, DeliveryFailed
from .._instruments import Instrument
from .._messages import Undelivered
from .._producer import open_producer
from ._lines import Format, Parsed, as_line

#: How many bytes are read at a time. Memory stays the same, however long the input is.
_READ_AT_ONCE = 1 << 16

#: Where nothing else is said: what a pipe wants.
_DEFAULTS = {"delivery_threshold": 500, "delivery_interval": 0.05}


class BadLine(Exception):
    """A line is no message; the text says which line, and why."""


@dataclass
class Sending:
    """One run of the command.

    Attributes:
        source: what is read.
        name: what it is called in messages.
        skip_bad_lines: a line that is no message is told and left out, instead of ending the run.
        undelivered: where messages go that were not delivered, as lines.
    """

    topic: str
    source: IO[bytes]
    name: str
    form: Format
    skip_bad_lines: bool
    undelivered: IO[str]
    accepted: int = 0
    skipped: int = 0
    lost: int = 0
    interrupted: bool = False
    bar: Any = field(default=None)

    def put_aside(self, undelivered: Undelivered) -> None:
        self.lost += 1
        maybe = ", but may have been" if undelivered.maybe_written else ""
        _say(f"not delivered{maybe}: {undelivered.cause}")
        print(as_line(undelivered.message), file=self.undelivered, flush=True)

    async def read(self, send: Callable[..., Any]) -> None:
        """Send each line; reading happens in a thread, which a Ctrl-C leaves where it is."""
        number = 0
        while lines := await trio.to_thread.run_sync(
            self.source.readlines, _READ_AT_ONCE, abandon_on_cancel=True
        ):
            for line in lines:
                number += 1
                await self._send_line(send, number, line.rstrip(b"\r\n"))

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
        else:
            self.accepted += 1


class _Progress(Instrument):
    """Moves the bar when a batch is acknowledged."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def ack_messages(self, *, message_count: int, **_: object) -> None:
        self._bar.update(message_count)


def send(sending: Sending, settings: dict[str, Any]) -> int:
    """Run it; returns the exit code."""
    with ExitStack() as stack:
        shown = sys.stderr.isatty()
        bar = sending.bar = stack.enter_context(tqdm(unit=" msg", unit_scale=True, disable=not shown))
        try:
            return trio.run(_send, sending, settings, bar)
        except KeyboardInterrupt:  # a second one, or before anything was sent
            _say("interrupted")
            return 130


async def _send(sending: Sending, settings: dict[str, Any], bar: Any) -> int:
    started = time.monotonic()
    code = 0
    try:
        async with open_producer(
            **{
                **_DEFAULTS,
                **settings,
                "on_undelivered": sending.put_aside,
                "instruments": (_Progress(bar),),
            }
        ) as producer:
            try:
                await sending.read(producer.send)
            except KeyboardInterrupt:
                sending.interrupted = True
                _say("Ctrl-C: reading no more, delivering what was read; once more to give up")
            except BadLine as error:
                _say(f"{error}; what stands before it is sent (--on-bad-line=skip goes on)")
                code = 1
    except ConnectFailed as error:
        _say(str(error))
        return 3
    except DeliveryFailed as error:
        sending.lost += len(error.undelivered) + error.omitted
    now = producer.statistics()
    seconds = max(time.monotonic() - started, 1e-9)
    text = (
        f"{now.delivered} delivered to {sending.topic} in {seconds:.2f} s ({now.delivered / seconds:.0f}/s)"
    )
    text += f", {now.undelivered} not delivered" if now.undelivered else ""
    _say(text + (f", {sending.skipped} lines skipped" if sending.skipped else ""))
    if sending.interrupted:
        return 130
    return 1 if now.undelivered or code else 0


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
