"""The benchmarks' own arithmetic, and that each way of driving a producer does what it says."""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import latency, throughput
from benchmarks.growth import slope
from benchmarks.harness import plots, watch
from benchmarks.harness.figures import ack_ms, middle, rate, ratio
from benchmarks.harness.job import Job, Round
from benchmarks.harness.results import Results
from benchmarks.harness.rows import KEYS, Rows
from benchmarks.harness.tables import Table
from benchmarks.harness.topics import Topics
from benchmarks.harness.turns import Case, RoundFailed, Turns, brief, can, make_job, run_job
from benchmarks.page import page
from benchmarks.peers import PEERS, PYTHON_LOOPS, REFERENCE, Peer, is_installed
from benchmarks.recovery import recovered_after, waiting_at
from benchmarks.targets import Target, table, targets
from tests.kafka.cluster import Kafka
from trio_kprod.testing import Broker, open_broker

JOB = Job(peer="send_nowait", task="flood", servers="", topics=["events"], messages=1000)


def a_round(seconds: float, **more: object) -> Round:
    return replace(Round(messages=100, seconds=seconds, cpu_seconds=seconds / 2, peak_mib=1.0), **more)  # type: ignore[arg-type]


# -- figures -----------------------------------------------------------------------------------------------


def test_percentiles_are_found_values_by_nearest_rank() -> None:
    assert watch.percentiles([float(number) for number in range(100, 0, -1)]) == {
        "p50": 50.0,
        "p99": 99.0,
        "p99.9": 100.0,
        "max": 100.0,
    }
    assert set(watch.percentiles([3.0]).values()) == {3.0}


def test_rates_and_costs_are_those_of_the_middle_round() -> None:
    rounds = [a_round(1.0), a_round(4.0), a_round(2.0)]
    assert middle(rounds, rate) == 50.0
    assert rounds[0].cpu_us == 5000.0
    acks = [a_round(1.0, acks={"p50": seconds}) for seconds in (0.1, 0.3, 0.2)]
    assert middle(acks, ack_ms("p50")) == pytest.approx(200.0)


def test_a_ratio_is_taken_round_by_round() -> None:
    """A round in which the machine was slow for both says as much as any other."""
    ours = [a_round(1.0), a_round(10.0), a_round(1.0)]
    theirs = [a_round(2.0), a_round(20.0), a_round(3.0)]
    assert ratio(ours, theirs) == 2.0
    with pytest.raises(ValueError, match="zip"):
        ratio(ours, theirs[:2])


def test_a_timeline_counts_what_was_sent_and_what_was_settled() -> None:
    (_, *first), *_, (end, *last) = watch.timeline([0.01, 0.02, 0.26], [0.03, 0.27, 0.41])
    assert first == [2, 1]
    assert last == [3, 3]
    assert end == pytest.approx(0.45)


def test_recovery_ends_when_what_was_sent_before_is_settled() -> None:
    line = [(0.0, 10, 10), (1.0, 20, 10), (2.0, 30, 10), (3.0, 40, 25), (4.0, 50, 30), (5.0, 60, 60)]
    assert waiting_at(line, 1.5) == 20
    assert recovered_after(line, 2.0) == 2.0
    assert recovered_after([(0.0, 10, 10), (2.0, 30, 30)], 2.0) == 0.0
    assert recovered_after([(0.0, 10, 10), (2.0, 30, 30)], 3.0) == 0.0


def test_growth_is_told_for_each_power_of_ten() -> None:
    assert slope({1: 2.0, 10: 2.0, 100: 4.0, 1000: 8.0}) == 2.0


def test_a_pacer_catches_up_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5.0]
    monkeypatch.setattr(watch, "perf_counter", lambda: now[0])
    pacer = watch.Pacer(rate=10, messages=5)
    assert pacer.due() == range(1)
    assert pacer.due() == range(1, 1)
    assert pacer.pause() == pytest.approx(0.1)
    now[0] += 0.35
    assert pacer.due() == range(1, 4)
    now[0] += 100
    assert pacer.due() == range(4, 5)
    assert pacer.done
    assert pacer.pause() == 0.0


# -- what is sent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 100, 1_000])
def test_values_have_their_size_and_differ(size: int) -> None:
    rows = Rows(replace(JOB, size=size))
    assert {len(value) for value in rows.values} == {size}
    assert len(set(rows.values)) == JOB.messages
    assert rows.plain


def test_rows_go_round_the_topics_with_their_keys() -> None:
    rows = Rows(replace(JOB, topics=["a", "b"], keyed=True))
    assert not rows.plain
    topics, values, keys = zip(*rows, strict=True)
    assert topics[:3] == ("a", "b", "a")
    assert list(values) == rows.values
    assert len(set(keys)) == min(KEYS, JOB.messages)
    assert next(iter(Rows(replace(JOB, messages=2))))[2] is None


def test_json_values_are_json() -> None:
    events = [json.loads(value) for value in Rows(replace(JOB, json=True)).values]
    assert [event["id"] for event in events] == list(range(JOB.messages))


# -- who is compared ---------------------------------------------------------------------------------------


def test_everybody_is_durable_and_idempotent() -> None:
    """Ours is by default; the others are told to be."""
    for peer in PEERS.values():
        if peer.family != "ours":
            for settings in (peer.fast, peer.prompt):
                assert settings["acks"] == "all"
                assert settings.get("enable_idempotence", settings.get("enable.idempotence")) is True


def test_a_producer_is_left_out_of_what_it_cannot_do() -> None:
    headers = Case("", make_job(task="flood", headers=True))
    assert [name for name, peer in PEERS.items() if not can(peer, headers)] == [
        "send_many",
        "send_and_wait",
        "AIOProducer",
    ]
    waited = Case("", make_job(task="waited"))
    ours = [name for name, peer in PEERS.items() if peer.family == "ours" and can(peer, waited)]
    assert ours == ["send_and_wait"]


def test_cases_have_names_of_their_own() -> None:
    names = [case.name for case in (*throughput.cases(), *latency.paced(), *latency.awaited())]
    assert len(set(names)) == len(names)


# -- what is printed and kept ------------------------------------------------------------------------------


def test_a_table_is_aligned_text_and_markdown() -> None:
    made = Table("Rates", ["producer", "messages/s"], [["ours", "1,000"], ["theirs", "9"]])
    assert made.text() == "Rates\nproducer  messages/s\nours           1,000\ntheirs             9\n"
    assert made.markdown().splitlines()[2:] == [
        "| producer | messages/s |",
        "| --- | ---: |",
        "| ours | 1,000 |",
        "| theirs | 9 |",
    ]


def found(**taken: list[Round]) -> Results:
    results = Results("throughput", "Throughput", "python -m benchmarks.throughput", {"Python": "3"}, 0.5)
    results.found[throughput.BASE] = {name.replace("_", " "): rounds for name, rounds in taken.items()}
    results.tables.append(Table("Rates", ["producer"], [["ours"]]))
    results.plots.append("throughput.svg")
    return results


def test_results_are_read_as_they_were_kept(tmp_path: Path) -> None:
    results = found(aiokafka=[a_round(2.0, timeline=None, extra={"a": 1.0})])
    results.save(tmp_path)
    assert Results.load_from(tmp_path, "throughput") == results
    assert Results.load_from(tmp_path, "latency") is None


def test_a_target_says_how_well_it_is_met() -> None:
    more = Target("rate", lambda _: 0.0, bound=2, stretch=4)
    assert [more.verdict(value) for value in (1, 2, 4)] == ["MISSED", "met", "stretch met"]
    less = replace(more, bound=4, stretch=2, at_most=True)
    assert [less.verdict(value) for value in (5, 4, 2)] == ["MISSED", "met", "stretch met"]


def test_targets_are_told_from_results() -> None:
    """And what was not measured is said to be so."""
    results = found(await_send=[a_round(1.0)], KafkaProducer=[a_round(5.0)])
    rows = {row[0]: row[3:] for row in table({"throughput": results}).rows}
    assert rows["100 B, `await send`: against KafkaProducer"] == ["5.00 x", "met"]
    assert rows["100 B, `await send`: against aiokafka"] == ["not measured", ""]
    assert len(rows) == len(list(targets()))


def test_the_page_has_every_part() -> None:
    text = page({"throughput": found(aiokafka=[a_round(1.0)])}, "results")
    for part in ("## Targets", "throughput: Python 3", "![Throughput](results/throughput.svg)", "**Rates**"):
        assert part in text
    for name in PEERS:
        assert f"| `{name}` |" in text


@pytest.mark.skipif(not plots.can_plot(), reason="matplotlib is not installed")
def test_plots_are_drawn(tmp_path: Path) -> None:
    by_case = {case: dict.fromkeys((*PYTHON_LOOPS, REFERENCE), 1_000.0) for case in "abcd"}
    by_size = {"aiokafka": {1: 2.0, 10: 3.0}}
    plots.bars(tmp_path / "bars.svg", "Bars", "ms", by_case)
    plots.lines(tmp_path / "lines.svg", "Lines", "rate", "ms", by_size, log="xy")
    plots.panels(tmp_path / "panels.svg", "Panels", "us", {"topics": by_size, "partitions": by_size})
    for path in tmp_path.iterdir():
        assert "</svg>" in path.read_text("utf-8")


# -- driving -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with open_broker(partitions=2) as running:
        yield running


def drive(broker: Broker, peer: str, task: str, topic: str, **what: object) -> Round:
    job = make_job(task=task, messages=40, partitions=2, **what)
    settings = PEERS[peer].prompt
    job = replace(job, peer=peer, topics=[topic], servers=broker.bootstrap_servers, settings=settings)
    return run_job(job, lambda: None, lambda: None)


@pytest.mark.parametrize(
    ("peer", "task"),
    [
        ("send_nowait", "flood"),
        ("send_many", "flood"),
        ("await send", "paced"),
        ("send_and_wait", "waited"),
        ("KafkaProducer", "paced"),
    ],
)
def test_a_producer_sends_each_message_once(broker: Broker, peer: str, task: str) -> None:
    """After what warms it up; and each is acknowledged, where that is measured."""
    topic = f"sent-{uuid.uuid4().hex}"
    done = drive(broker, peer, task, topic, rate=1000.0, tasks=3, timer=task == "paced")
    warming, values = 2, {record.value for record in broker.records(topic)}
    assert len(broker.records(topic)) == done.messages + warming
    assert values >= set(Rows(make_job(task=task, messages=40)).values)
    assert (done.acks is not None) == (task != "flood")
    assert done.failed == 0


def test_a_producer_that_fails_is_left_out_and_the_others_go_on() -> None:
    order: list[str] = []

    def once(case: Case, peer: Peer) -> Round:
        order.append(peer.name)
        if peer.name == "aiokafka" and order.count("aiokafka") == 2:
            raise RoundFailed("9 messages sent, 0 failed, but 8 in the log")
        return a_round(1.0)

    turns = Turns(Kafka("nowhere:1"), rounds=3)
    peers = [PEERS[name] for name in ("send_nowait", "aiokafka")]
    taken = turns.take(Case("base", make_job(task="flood")), peers, once)
    assert order == ["send_nowait", "aiokafka", "send_nowait", "aiokafka", "send_nowait"]
    assert [(name, len(rounds)) for name, rounds in taken.items()] == [("send_nowait", 3)]
    assert turns.problems == ["aiokafka is missing in base: 9 messages sent, 0 failed, but 8 in the log"]


def test_a_round_is_told_in_one_line() -> None:
    """By what was looked at: a round that only fills a buffer has no rate."""
    assert brief(a_round(1.0)) == "100 msg/s, 5000.00 us/msg"
    acks = {"p50": 0.001, "p99": 0.002}
    assert brief(a_round(1.0, acks=acks)).endswith("ack p50 1.00 ms, p99 2.00 ms")
    assert brief(a_round(1.0, messages=0, extra={"held": 21_000.0})) == "held 21,000.0"


@pytest.mark.parametrize("written", [99, 101])
def test_a_round_fails_whose_messages_are_not_in_the_log_once(
    written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside them there is one in each partition that warmed up."""
    turns, case = Turns(Kafka("nowhere:1"), rounds=1), Case("base", make_job(task="flood", messages=100))
    monkeypatch.setattr(Topics, "make", lambda *_: ["topic"])
    monkeypatch.setattr(Topics, "delete", lambda *_: None)
    monkeypatch.setattr("benchmarks.harness.turns.run_job", lambda *_: a_round(1.0))
    monkeypatch.setattr(Topics, "written", lambda *_: 104)
    assert turns.once(case, PEERS["aiokafka"]) == a_round(1.0)
    monkeypatch.setattr(Topics, "written", lambda *_: written + 4)
    with pytest.raises(RoundFailed, match=f"100 messages sent, 0 failed, but {written} in the log"):
        turns.once(case, PEERS["aiokafka"])


def test_a_producer_that_is_not_installed_is_known() -> None:
    assert is_installed(PEERS["send_nowait"])
    assert not is_installed(PEERS["send_nowait"]._replace(package="no_such_package"))
    assert is_installed(PEERS["aiokafka"]) == (importlib.util.find_spec("aiokafka") is not None)
