"""The examples `pipeline` and `loadgen`, as programs."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import trio_kprod
from trio_kprod.testing import Broker, open_broker

EXAMPLES = Path(__file__).parent.parent / "examples"

#: Seconds until a program that has not ended is an error.
PATIENCE = 60.0


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(trio_kprod.__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / program), *arguments],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def pipeline(broker: Broker, directory: Path, *arguments: str) -> subprocess.Popen[str]:
    servers = ("--bootstrap-servers", broker.bootstrap_servers, "--topic", "t")
    return start("pipeline/pipeline.py", str(directory), *servers, *arguments)


@pytest.mark.parametrize("seed", range(3))
def test_a_pipeline_that_is_killed_goes_on_where_it_was(seed: int, tmp_path: Path) -> None:
    """Each line arrives, the first time in order, and no more than a chunk at each kill a second time."""
    dice = random.Random(seed)
    lines = [b"%08d" % number for number in range(100_000)]
    (tmp_path / "a").write_bytes(b"".join(line + b"\n" for line in lines[:60_000]))
    (tmp_path / "b").write_bytes(b"".join(line + b"\n" for line in lines[60_000:]))
    with open_broker(topics={"t": 1}) as broker:
        broker.delay("Produce", 0.005, times=None)
        arrived = 0
        for _ in range(3):
            process = pipeline(broker, tmp_path)
            arrived += dice.randrange(1, 25_000)
            broker.wait_records("t", arrived, timeout=PATIENCE)
            process.kill()
            process.communicate()
        broker.clear_faults()
        process = pipeline(broker, tmp_path)
        said, _ = process.communicate(timeout=PATIENCE)
        written = [record.value or b"" for record in broker.records("t")]
    assert process.returncode == 0
    assert re.fullmatch(r"\d+ lines delivered to t\n", said)
    assert list(dict.fromkeys(written)) == lines
    chunk = (1 << 16) // 9 + 1
    assert len(written) - len(lines) <= 3 * chunk
    assert max(Counter(written).values()) <= 4


def test_a_pipeline_follows_files_that_grow(tmp_path: Path) -> None:
    """A line is sent when it is complete; the second run has nothing to do."""
    (tmp_path / "a").write_text("one\ntw")
    with open_broker(topics={"t": 1}) as broker:
        process = pipeline(broker, tmp_path, "--follow")
        broker.wait_records("t", 1, timeout=PATIENCE)
        with (tmp_path / "a").open("a") as file:
            file.write("o\n")
        (tmp_path / "b").write_text("three\n")
        positions = tmp_path / ".positions.json"
        until = time.monotonic() + PATIENCE
        while not positions.exists() or json.loads(positions.read_text()) != {"a": 8, "b": 6}:
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        said, _ = pipeline(broker, tmp_path).communicate(timeout=PATIENCE)
        assert [record.value for record in broker.records("t")] == [b"one", b"two", b"three"]
    assert said == "0 lines delivered to t\n"


def test_the_load_generator_sends_at_the_rate_it_was_told() -> None:
    """And shows the latencies, of all messages."""
    process = start("loadgen/loadgen.py", "--rate", "2000", "--duration", "1")
    said, wrong = process.communicate(timeout=PATIENCE)
    assert (process.returncode, wrong) == (0, "")
    assert re.search(r"^2,000 +2,000 +0 +0\s*$", said, re.MULTILINE)
    assert "from due to acknowledged" in said
    assert re.search(r"p50 .* p99\.9 .* longest", said)
