"""Each example as a reader runs it: in a process of its own, on the embedded broker."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

import trio_kprod
from trio_kprod.testing import Broker, open_broker

EXAMPLES = Path(__file__).parent.parent / "examples"

#: Seconds until an example that has not ended is an error; they take one or two.
PATIENCE = 60.0


def command(name: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """What to start, and its environment: with the package that is tested, not another one installed."""
    package = str(Path(trio_kprod.__file__).parent.parent)
    return [sys.executable, str(EXAMPLES / name), *arguments], {**os.environ, "PYTHONPATH": package}


def run(name: str, *arguments: str) -> str:
    """What an example prints; it must end well, and print no traceback."""
    args, env = command(name, *arguments)
    ended = subprocess.run(
        args, env=env, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_opens_with_one_line_of_intent(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert docstring is not None
    assert len(docstring.splitlines()) == 1


# ---------------------------------------------------------------------------------------------------------
# quickstart


def test_the_quickstart_reads_back_what_it_sent() -> None:
    told, heading, *records = run("quickstart.py").splitlines()
    assert re.fullmatch(r"5 messages delivered to trio-kprod-[0-9a-f]{8}", told)
    assert heading == "in the log:"
    assert records == [
        f"  partition 0, offset {number}: b'quickstart' b'message {number}'" for number in range(5)
    ]


def test_the_quickstart_finds_its_own_messages_in_a_topic_that_is_in_use() -> None:
    """The second run shows what it sent itself, not what was there."""
    with open_broker(topics={"used": 3}) as broker:
        arguments = ["--bootstrap-servers", broker.bootstrap_servers, "--topic", "used"]
        run("quickstart.py", *arguments)
        _, _, *records = run("quickstart.py", *arguments).splitlines()
        (partition,) = {record.partition for record in broker.records("used")}
    assert records == [
        f"  partition {partition}, offset {5 + number}: b'quickstart' b'message {number}'"
        for number in range(5)
    ]


# ---------------------------------------------------------------------------------------------------------
# receipts, backpressure, failures


def test_receipts_say_what_became_of_each_message() -> None:
    """One of them is refused, and the block ends without an error, as its receipt has told."""
    told, *orders = run("receipts.py").splitlines()
    assert told == "4 orders sent, 0 of them have an outcome"
    assert [line.strip() for line in orders] == [
        "a lamp: partition 0, offset 0",
        "a chair: not in Kafka, " + orders[1].partition("Kafka, ")[2],
        "a desk: partition 0, offset 1",
        "a shelf: partition 0, offset 2",
    ]
    assert "INVALID_RECORD (87)" in orders[1]


def test_backpressure_shows_three_policies() -> None:
    drop_new, wait, drop_old = run("backpressure.py").splitlines()
    assert "drop_new: 100 readings, 10 delivered; 90 were refused" in drop_new
    assert "BufferOverflow" in drop_new
    assert "wait: 100 readings, 100 delivered; none was refused" in wait
    assert "drop_old: 100 readings, 10 delivered; 90 were forgotten" in drop_old
    assert drop_old.endswith("'reading 90'")


def test_failures_says_who_is_told_what() -> None:
    printed = run("failures.py")
    refused, unreachable, gone = re.split("^(?:Nobody|The broker).*\n", printed, flags=re.MULTILINE)
    assert "1 message not delivered" in refused
    assert "INVALID_RECORD (87)" in refused
    assert "b'bad' maybe_written=False Refused" in refused
    assert "delivered: 2" in refused
    assert re.search(r"ConnectFailed: .*127\.0\.0\.1:\d+: .*refused", unreachable)
    assert "2 messages not delivered, 1 of them perhaps written" in gone
    assert "b'first' maybe_written=True DeliveryAborted" in gone
    assert "b'second' maybe_written=False DeliveryAborted" in gone
    assert "in the log: [b'first']" in gone


# ---------------------------------------------------------------------------------------------------------
# load_file


@pytest.fixture
def lines() -> list[bytes]:
    """More than queue, buffer and two requests hold: reading stops when no more than those are answered."""
    pytest.importorskip("tqdm")
    return [b"line %d" % number for number in range(100_000)]


def test_load_file_sends_a_message_per_line(tmp_path: Path, lines: list[bytes]) -> None:
    """Whatever the ends of the lines, an empty one in between, and no end of the last."""
    lines[1] = b""
    path = tmp_path / "lines.txt"
    path.write_bytes(b"\r\n".join(lines[:10]) + b"\n" + b"\n".join(lines[10:]))
    with open_broker() as broker:
        printed = run(
            "load_file.py", str(path), "--bootstrap-servers", broker.bootstrap_servers, "--topic", "t"
        )
        assert [record.value for record in broker.records("t")] == lines
    assert re.fullmatch(r"100000 of 100000 lines delivered to t in \d+\.\d\d s: \d+/s\n", printed)


@contextmanager
def stalled_load(broker: Broker, path: Path) -> Iterator[subprocess.Popen[str]]:
    """The loader of a file, after the broker has acknowledged some of it and then fallen silent."""
    broker.silence("Produce", skip=2)
    args, env = command(
        "load_file.py", str(path), "--bootstrap-servers", broker.bootstrap_servers, "--topic", "t"
    )
    with subprocess.Popen(
        args, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        killer = threading.Timer(PATIENCE, process.kill)
        killer.start()
        try:
            broker.wait_requests("Produce", 3, timeout=PATIENCE)
            yield process
        finally:
            killer.cancel()
            killer.join()
            process.kill()


def interrupt(process: subprocess.Popen[str]) -> None:
    """Press Ctrl-C, and wait until that was noticed."""
    process.send_signal(signal.SIGINT)
    errors: IO[str] | None = process.stderr
    assert errors is not None
    assert any("Ctrl-C: reading no more" in line for line in errors)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_load_file_delivers_what_it_read_before_ctrl_c(tmp_path: Path, lines: list[bytes]) -> None:
    """And says how much that is."""
    path = tmp_path / "lines.txt"
    path.write_bytes(b"\n".join(lines))
    with open_broker() as broker, stalled_load(broker, path) as process:
        interrupt(process)
        broker.resume()
        printed, _ = process.communicate(timeout=PATIENCE)
        records = broker.records("t")
    assert process.returncode == 1
    assert 0 < len(records) < len(lines)
    assert [record.value for record in records] == lines[: len(records)]
    assert printed.startswith(f"{len(records)} of 100000 lines delivered to t")
    assert printed.endswith(f"they are lines 1 to {len(records)}; nothing of the rest was sent\n")
