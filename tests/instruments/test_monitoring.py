"""The dashboard and the alert rules speak of metrics, labels and values that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import trio_kprod
from trio_kprod.instruments.prometheus import PrometheusInstrument

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
RULES = MONITORING / "prometheus-alerts.yml"
DASHBOARD = MONITORING / "grafana-dashboard.json"

if not MONITORING.is_dir():
    pytest.skip("no docs beside the tests", allow_module_level=True)


def scrape() -> dict[str, dict[str, set[str]]]:
    """The values of every label of every series, after each thing has happened once."""
    registry = CollectorRegistry()
    watch = PrometheusInstrument(client_id="orders", registry=registry)
    error = trio_kprod.ConnectionLost("gone")
    watch.produce_messages(max_buffer_size=1, max_queue_size=1)
    watch.buffer_overflow(topic="t")
    watch.ack_messages(topic="t", message_count=1, delay=1.0)
    watch.undelivered(topic="t", message_count=1, cause=error, maybe_written=True)
    watch.topic_error(topic="t", error=error)
    watch.error(error=error)
    watch.request(broker="b:1", api="Produce", request_bytes=1, response_bytes=1, duration=1.0, error=error)
    watch.compress(uncompressed_bytes=1, compressed_bytes=1)
    watch.connected(broker="b:1")
    watch.disconnected(broker="b:1", error=error)
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


SCRAPE = scrape()


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return found


def queries() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]


def rules() -> Iterator[str]:
    """Each expression, as YAML folds it."""
    text = re.sub(r">-\n\s+", "", RULES.read_text("utf-8"))
    for part in text.split("- alert:")[1:]:
        yield part.partition("expr:")[2].partition("labels:")[0]


@pytest.mark.parametrize("expression", [*queries(), *rules()])
def test_metrics_and_labels_exist(expression: str) -> None:
    """In a scrape; so do the values that labels are compared with."""
    names = re.findall(r"trio_kprod_\w+", expression)
    assert names
    for name, selectors in re.findall(r"(trio_kprod_\w+)(?:\{([^}]*)\})?", expression):
        assert name in SCRAPE
        for label, value in re.findall(r'(\w+)[!=~]+"([^"]*)"', selectors):
            assert label in SCRAPE[name]
            assert value.startswith("$") or value in SCRAPE[name][label]
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
    for label in grouped - {"instance"}:  # which Prometheus adds
        assert all(label in SCRAPE[name] for name in names), label


def test_every_metric_that_users_should_see_is_shown() -> None:
    """Each family is on the dashboard, but for what only helps to look closer."""
    shown = " ".join(queries())
    unseen = {re.sub(r"_(bucket|sum|count|created|total)$", "", name) for name in SCRAPE if name not in shown}
    seen = {name for name in unseen if name in shown}
    assert unseen - seen == {
        "trio_kprod_compressed_bytes",
        "trio_kprod_connections",
        "trio_kprod_delivered_bytes",
        "trio_kprod_errors",
        "trio_kprod_throttles",
        "trio_kprod_uncompressed_bytes",
        "trio_kprod_unsettled_bytes",
    }


def test_the_dashboard_can_be_imported() -> None:
    """Ids are unique, panels do not overlap, and each says what it shows, from a source that is chosen."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["datasource"]["uid"] == "${datasource}"
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_every_alert_says_what_it_means() -> None:
    """With a severity, a summary and a description, under a name of its own."""
    alerts = RULES.read_text("utf-8").split("- alert: ")[1:]
    assert len({alert.splitlines()[0] for alert in alerts}) == len(alerts) >= 5
    for alert in alerts:
        for part in ("expr: ", "severity: ", "summary: ", "description: "):
            assert part in alert
