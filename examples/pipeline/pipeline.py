"""Send the lines of all files in a directory, and remember how far Kafka has them: a restart goes on there.

    python examples/pipeline/pipeline.py logs/             # what is there, then end
    python examples/pipeline/pipeline.py logs/ --follow    # and what comes later

Files are read in the order of their names, and may grow. After each chunk the program waits until Kafka has
acknowledged it, then writes the position into the file `.positions.json` of the directory. So a kill -9 at
any moment loses nothing; at the next start at most one chunk is sent a second time.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from tqdm import tqdm

import trio_kprod
from trio_kprod.testing import open_broker

_CHUNK = 1 << 16
_POSITIONS = ".positions.json"


class Positions:
    """How many bytes of each file Kafka has."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _POSITIONS
        self._bytes: dict[str, int] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def of(self, file: Path) -> int:
        return self._bytes.get(file.name, 0)

    def move(self, file: Path, position: int) -> None:
        """On the disk when this returns; a crash leaves the old position or the new one, never half of it."""
        self._bytes[file.name] = position
        new = self._path.with_suffix(".new")
        with new.open("w") as written:
            json.dump(self._bytes, written)
            written.flush()
            os.fsync(written.fileno())
        new.replace(self._path)


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))


def complete_lines(file: Path, position: int) -> tuple[list[bytes], int]:
    """About a chunk of whole lines from there, and where they end. The last line may still be growing."""
    with file.open("rb") as opened:
        opened.seek(position)
        lines = [line for line in opened.readlines(_CHUNK) if line.endswith(b"\n")]
    return lines, position + sum(map(len, lines))


class Pipeline:
    """One directory on its way to one topic."""

    def __init__(self, directory: Path, producer: trio_kprod.Producer[bytes, bytes], topic: str) -> None:
        self._directory = directory
        self._positions = Positions(directory)
        self._producer = producer
        self._topic = topic

    def left(self) -> int:
        """How many bytes are not sent yet."""
        return sum(file.stat().st_size - self._positions.of(file) for file in files(self._directory))

    async def run(self, bar: tqdm[Any]) -> None:
        """Send what is there."""
        for file in await trio.to_thread.run_sync(files, self._directory):
            while await self._send_chunk(file, bar):
                pass

    async def _send_chunk(self, file: Path, bar: tqdm[Any]) -> bool:
        position = self._positions.of(file)
        lines, end = await trio.to_thread.run_sync(complete_lines, file, position)
        if not lines:
            return False
        await self._producer.send_many(self._topic, without_ends(lines))
        await self._producer.flush()  # raises if Kafka has not acknowledged one of them
        await trio.to_thread.run_sync(self._positions.move, file, end)
        bar.update(end - position)
        return True


def without_ends(lines: list[bytes]) -> Iterator[bytes]:
    return (line.rstrip(b"\r\n") for line in lines)


@asynccontextmanager
async def some_kafka(bootstrap_servers: str | None) -> AsyncIterator[str]:
    if bootstrap_servers is not None:
        yield bootstrap_servers
    else:
        async with open_broker() as broker:
            yield broker.bootstrap_servers


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT[,...]", help="default: an embedded broker")
    parser.add_argument("--topic", default="pipeline")
    parser.add_argument("--follow", action="store_true", help="go on with what comes later, until Ctrl-C")
    options = parser.parse_args()
    async with (
        some_kafka(options.bootstrap_servers) as servers,
        trio_kprod.open_producer(servers) as producer,
    ):
        pipeline = Pipeline(options.directory, producer, options.topic)
        with tqdm(total=pipeline.left(), unit="B", unit_scale=True) as bar:
            await pipeline.run(bar)
            while options.follow:
                await trio.sleep(0.5)
                await pipeline.run(bar)
    print(f"{producer.statistics().delivered} lines delivered to {options.topic}")


if __name__ == "__main__":
    trio.run(main)
