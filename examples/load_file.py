"""Stream a file into a topic, a message per line, with a progress bar of what Kafka has acknowledged."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import trio
from _common import arguments, some_kafka
from tqdm import tqdm

import trio_kprod


class Progress(trio_kprod.Instrument):
    """Moves the bar when a batch is acknowledged, not when its messages are merely accepted."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def ack_messages(self, *, message_count: int, **_: object) -> None:
        self._bar.update(message_count)


@contextmanager
def opened(path: str | None) -> Iterator[tuple[IO[bytes], int]]:
    """The file, or a sample that is gone afterwards, and how many lines it has."""
    with tempfile.TemporaryFile() if path is None else open(path, "rb") as file:
        if path is None:
            file.writelines(b"line %d of a sample\n" % number for number in range(200_000))
        file.seek(0)
        total = sum(1 for _ in file)
        file.seek(0)
        yield file, total


async def load(file: IO[bytes], producer: trio_kprod.Producer, topic: str) -> None:
    """Read on as fast as Kafka takes it: a file of any size goes through a queue of 1000 messages."""
    while lines := await trio.to_thread.run_sync(file.readlines, 1 << 16):
        await producer.send_many(topic, (line.rstrip(b"\r\n") for line in lines))


async def load_until_ctrl_c(file: IO[bytes], total: int, servers: str, topic: str) -> bool:
    """Load the file and say what was delivered, however that ends; whether it is all of it."""
    failed: BaseException | None = None
    with tqdm(total=total, unit=" msg", unit_scale=True) as bar:
        try:
            async with trio_kprod.open_producer(
                servers, delivery_threshold=500, instruments=(Progress(bar),)
            ) as producer:
                try:
                    await load(file, producer, topic)
                except KeyboardInterrupt:
                    # The end of the block delivers what was accepted; a second Ctrl-C cuts that short.
                    bar.write("Ctrl-C: reading no more, delivering what was read", file=sys.stderr)
        except (trio_kprod.DeliveryFailed, KeyboardInterrupt) as error:
            failed = error
        seconds = bar.format_dict["elapsed"]
    print(f"{bar.n} of {total} lines delivered to {topic} in {seconds:.2f} s: {bar.n / seconds:.0f}/s")
    if failed is not None:
        print(f"not all that was read is delivered: {str(failed) or 'interrupted'}")
    elif bar.n < total:
        print(f"they are lines 1 to {bar.n}; nothing of the rest was sent")
    return failed is None and bool(bar.n == total)


async def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("file", nargs="?", help="default: a temporary sample")
    options = parser.parse_args()
    with opened(options.file) as (file, total):
        async with some_kafka(options.bootstrap_servers) as servers:
            if not await load_until_ctrl_c(file, total, servers, options.topic):
                sys.exit(1)


if __name__ == "__main__":
    try:
        trio.run(main)
    except KeyboardInterrupt:
        sys.exit("interrupted before anything was sent")
