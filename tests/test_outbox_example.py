"""The outbox example: killed at random moments, it loses nothing, keeps the order of each key, and counts."""

from __future__ import annotations

import importlib.util
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import trio_kprod
from trio_kprod.testing import Broker, MemoryBroker, open_broker, open_memory_producer

PROGRAM = Path(__file__).parent.parent / "examples" / "outbox" / "outbox.py"

#: Seconds until a program that has not ended is an error.
PATIENCE = 60.0

KEYS = 3


def start(broker: Broker, database: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(trio_kprod.__file__).parent.parent)}
    arguments = ["--bootstrap-servers", broker.bootstrap_servers, "--database", str(database), "--topic", "t"]
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def lines(round_: int) -> Iterator[str]:
    for number in range(10_000):
        yield f"{number % KEYS}={round_:03} {number:06}\n"


def feed(process: subprocess.Popen[str], round_: int) -> None:
    """Write until the program is dead."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        for line in lines(round_):
            process.stdin.write(line)
    with suppress(BrokenPipeError):  # it writes what is left
        process.stdin.close()


def kept_until_killed(process: subprocess.Popen[str], round_: int, kill_after: int) -> list[str]:
    """The lines that the program said were on the disk when it was killed."""
    feeder = threading.Thread(target=feed, args=(process, round_))
    feeder.start()
    assert process.stdout is not None
    for _ in range(kill_after):
        assert process.stdout.readline().startswith("kept ")
    process.kill()
    rest = process.stdout.read().splitlines()  # it may have said more before it died
    process.wait(PATIENCE)
    feeder.join(PATIENCE)
    process.stdout.close()
    count = kill_after + sum(line.startswith("kept ") for line in rest)
    return [line.strip() for line, _ in zip(lines(round_), range(count), strict=False)]


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_nothing_is_lost(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    kept: list[str] = []
    with open_broker(topics={"t": 2}) as broker:
        for round_ in range(4):
            broker.clear_faults()
            if dice.random() < 0.5:
                broker.delay("Produce", dice.choice([0.01, 0.1]), times=None)
            process = start(broker, tmp_path / "outbox.db")
            kept += kept_until_killed(process, round_, dice.randrange(1, 200))
        broker.clear_faults()
        process = start(broker, tmp_path / "outbox.db")
        said, _ = process.communicate("0=last\n", timeout=PATIENCE)
        records = broker.records("t")
    assert process.returncode == 0
    first, last = said.splitlines()
    assert first == "kept 1"
    sent_again = int(last.removeprefix("nothing is left: ").split()[0])
    written = Counter((record.key, record.value) for record in records)
    expected = {tuple(part.encode() for part in line.split("=")) for line in kept}
    assert expected <= set(written)
    assert written[b"0", b"last"] == 1
    assert sum(written.values()) - len(written) <= sent_again
    for key in range(KEYS):
        log = [record.value or b"" for record in records if record.key == b"%d" % key]
        firsts = list(dict.fromkeys(log))
        assert firsts == sorted(firsts)


def test_what_kafka_refuses_is_put_aside(tmp_path: Path) -> None:
    """It holds up nothing, and is told."""
    with open_broker(topics={"t": 1}) as broker:
        process = start(broker, tmp_path / "outbox.db")
        said, _ = process.communicate("a=1\n=2\nb=3\n", timeout=PATIENCE)
        assert [record.value for record in broker.records("t")] == [b"1", b"2", b"3"]
        assert said.splitlines()[-1] == (
            "nothing is left: 0 were sent again and may be there twice, 0 were refused"
        )
        broker.answer("Produce", error="INVALID_RECORD", record_errors=[(0, "no")])
        process = start(broker, tmp_path / "outbox.db")
        said, _ = process.communicate("a=4\n", timeout=PATIENCE)
    assert said.splitlines()[-1] == (
        "nothing is left: 0 were sent again and may be there twice, 1 were refused"
    )


# ---------------------------------------------------------------------------------------------------------
# Inside a program


def load_outbox() -> Any:
    """The module, which stands in no package."""
    spec = importlib.util.spec_from_file_location("outbox", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["outbox"] = module
    spec.loader.exec_module(module)
    return module


OUTBOX = load_outbox()


async def test_own_tables_and_messages_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    """What is known as the transactional outbox."""
    broker = MemoryBroker()
    path = str(tmp_path / "outbox.db")

    def pay(database: sqlite3.Connection) -> None:
        database.execute("CREATE TABLE paid (who TEXT PRIMARY KEY)")
        database.execute("INSERT INTO paid VALUES ('ada')")

    def pay_twice(database: sqlite3.Connection) -> None:
        database.execute("INSERT INTO paid VALUES ('bob')")
        database.execute("INSERT INTO paid VALUES ('ada')")

    async with (
        open_memory_producer(broker, delivery_threshold=1) as producer,
        OUTBOX.open_outbox(path, producer) as outbox,
    ):
        await outbox.keep([("paid", None, b"ada")], also=pay)
        with pytest.raises(sqlite3.IntegrityError):
            await outbox.keep([("paid", None, b"bob and ada")], also=pay_twice)
        await outbox.empty()
        assert await outbox.count("paid") == 1
    assert [record.value for record in broker.records("paid")] == [b"ada"]


async def test_it_is_not_empty_when_something_was_kept_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when the relay has looked just before."""
    broker = MemoryBroker()

    class Interrupted(OUTBOX.Outbox):  # type: ignore[misc, name-defined]
        async def _write(self, work: Any) -> Any:
            found = await super()._write(work)
            if work is OUTBOX._take and found == [] and not broker.records("t"):
                await self.keep([("t", None, b"just now")])
            return found

    monkeypatch.setattr(OUTBOX, "Outbox", Interrupted)
    async with (
        open_memory_producer(broker, delivery_threshold=1) as producer,
        OUTBOX.open_outbox(str(tmp_path / "outbox.db"), producer) as outbox,
    ):
        await outbox.empty()
        assert [record.value for record in broker.records("t")] == [b"just now"]
