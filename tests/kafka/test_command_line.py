"""The command line, as a process, with a real Kafka."""

from __future__ import annotations

import subprocess
import sys

from tests.kafka.cluster import Kafka


def run(kafka: Kafka, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trio_kprod", *arguments, "-b", kafka.bootstrap_servers]
    return subprocess.run(command, input=given, capture_output=True, text=True, encoding="utf-8", timeout=60)


def test_lines_arrive_and_ping_finds_nothing_wrong(kafka: Kafka) -> None:
    topic = kafka.new_topic()
    sent = run(kafka, "send", topic, "--key-separator", ":", given="a:one\nb:two\n")
    assert sent.returncode == 0, sent.stderr
    assert [(record.key, record.value) for record in kafka.read(topic)] == [(b"a", b"one"), (b"b", b"two")]
    pinged = run(kafka, "ping", topic, "--send")
    assert pinged.returncode == 0, pinged.stdout + pinged.stderr
    assert "offset 2" in pinged.stdout


def test_ping_says_that_a_topic_is_missing(kafka: Kafka) -> None:
    pinged = run(kafka, "ping", "nobody-made-this")
    assert pinged.returncode == 3, pinged.stdout + pinged.stderr
    assert "nobody-made-this" in pinged.stdout.splitlines()[-2]
