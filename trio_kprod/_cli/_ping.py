"""``ping``: what works on the way to Kafka, and what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import trio

from .._client import Finding, Probe
from .._errors import ProducerError
from .._producer import open_producer
from ._configuring import checked


def ping(
    settings: dict[str, Any], topic: str | None, *, send: bool, as_json: bool, echo: Callable[[str], object]
) -> int:
    """Look, and tell each finding. Returns the exit code: 0 if everything works, 3 if not."""
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        echo(json.dumps(asdict(finding)) if as_json else shown(finding))

    trio.run(_ping, settings, topic, send, tell)
    return 0 if all(finding.ok for finding in findings) else 3


def shown(finding: Finding) -> str:
    mark = "\N{CHECK MARK}" if finding.ok else "\N{BALLOT X}"
    line = f"{mark} {finding.where}  {finding.step}: {finding.text}"
    return f"{line}\n    \N{RIGHTWARDS ARROW} {finding.advice}" if finding.advice else line


async def _ping(
    settings: dict[str, Any], topic: str | None, send: bool, tell: Callable[[Finding], object]
) -> None:
    works = True

    def note(finding: Finding) -> None:
        nonlocal works
        works = works and finding.ok
        tell(finding)

    await Probe(checked(settings), note).run(topic)
    if send and works and topic is not None:
        await _send(settings, topic, tell)


async def _send(settings: dict[str, Any], topic: str, tell: Callable[[Finding], object]) -> None:
    where = f"topic {topic!r}"
    options: dict[str, Any] = {**settings, "allow_auto_create_topics": False, "delivery_timeout": 10}
    try:
        async with open_producer(**options) as producer:
            record = await producer.send_and_wait(topic, b"trio_kprod ping")
    except ProducerError as error:
        tell(Finding(where, "send", False, str(error)))
    else:
        tell(Finding(where, "send", True, f"in partition {record.partition} at offset {record.offset}"))
