"""The tables of the page are what the instruments do."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

import trio_kprod
from trio_kprod.instruments import logs
from trio_kprod.instruments.opentelemetry import OpenTelemetryMetrics
from trio_kprod.instruments.prometheus import PrometheusInstrument
from trio_kprod.instruments.statsd import StatsdInstrument

from .test_monitoring import RULES, SCRAPE

PAGE = Path(__file__).parents[2] / "docs" / "metrics-and-traces.md"

if not PAGE.is_file():
    pytest.skip("no docs beside the tests", allow_module_level=True)


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables under a heading whose first column is code."""
    text = re.split(rf"^#+ {heading}\n", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1]
    text = re.split(r"^#", text, flags=re.MULTILINE)[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_every_metric_of_prometheus() -> None:
    """With its type and its labels, and which are polled: those are there at once."""
    registry = CollectorRegistry()
    PrometheusInstrument(registry=registry)
    families = {family.name: family for family in registry.collect()}
    polled = {name for name, family in families.items() if family.samples}
    listed: dict[str, tuple[str, set[str]]] = {}
    for name, kind, unit, more, meaning in rows("Every metric"):
        plain = name.strip("`").removesuffix("_total")
        listed[plain] = (kind, set(re.findall(r"\w+", more)))
        assert meaning
        assert not re.search(r"_(bytes|seconds|messages)$", plain) or unit in ("bytes", "s", "messages")
    assert set(listed) == set(families)
    for name, (kind, labels) in listed.items():
        assert kind == families[name].type + (", polled" if name in polled else "")
        (series,) = {name, f"{name}_total", f"{name}_sum"} & set(SCRAPE)
        assert labels | {"client_id"} == set(SCRAPE[series])


def test_every_metric_of_opentelemetry() -> None:
    """With its type and unit."""
    reader = InMemoryMetricReader()
    watch = OpenTelemetryMetrics(meter_provider=MeterProvider([reader]))
    watch.ack_messages(topic="t", message_count=1, delay=1.0)
    watch.buffer_overflow(topic="t")
    watch.throttled(broker="b:1", duration=1.0)
    data = reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    units = {"By": "bytes", "{message}": "messages", "{call}": "calls", "s": "s"}
    found = {metric.name: units[metric.unit or ""] for metric in scope.metrics}
    listed = {row[0].strip("`"): row[2] for row in rows("OpenTelemetry") if len(row) == 4 and "." in row[0]}
    assert listed == found


def test_every_metric_of_statsd(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its plain name."""
    sent: set[str] = set()

    class Client:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

        def increment(self, name: str, *_: Any, **__: Any) -> None:
            sent.add(name)

        timing = histogram = increment

    error = trio_kprod.ConnectionLost("gone")
    message = trio_kprod.Message("TOPIC", b"", None, (), None, 0, 36)
    for datadog in (False, True):
        watch = StatsdInstrument(client_id="CLIENT", client=Client(), datadog=datadog)  # type: ignore[arg-type]
        watch.accepted(message=message)
        watch.produce_messages(
            message_count=1, buffer_size=1, max_buffer_size=1, queue_size=1, max_queue_size=1
        )
        watch.buffer_overflow(topic="TOPIC")
        watch.drop_messages(message_count=1)
        watch.deliver_messages(delivered_message_count=1, attempts=1, duration=1.0, error=error)
        watch.ack_messages(topic="TOPIC", message_count=1, delay=1.0)
        watch.topic_error(topic="TOPIC")
        watch.request(
            broker="BROKER:1", api="API", request_bytes=1, response_bytes=1, duration=1.0, error=error
        )
        if not datadog:
            plain = {name.replace(".api.", ".API.") for name in sent}
    listed: set[str] = set()
    for first, *_ in rows("statsd and Datadog"):
        name, *others = re.findall(r"`([^`]+)`", first)
        listed.add(name)
        listed |= {name.rpartition(".")[0] + other for other in others}
    assert listed - {"producer.produce.message_size.sum"} == plain
    assert "producer.produce.message_size.sum" in sent


def test_every_event() -> None:
    """That `LoggingInstrument` logs."""
    code = inspect.getsource(logs.LoggingInstrument)
    logged = set(re.findall(r'_log\("\w+", "(\w+)"', code)) | set(re.findall(r'_seldom\("(\w+)"', code))
    assert {row[0].strip("`") for row in rows("Logs")} == logged


def test_every_alert() -> None:
    """With the time that it takes."""
    text = RULES.read_text("utf-8")
    assert [row[0].strip("`") for row in rows("Dashboard and alerts")] == re.findall(r"alert: (\w+)", text)
