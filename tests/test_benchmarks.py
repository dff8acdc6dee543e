"""The benchmarks' own arithmetic, and that each way of driving a producer does what it says."""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import latency, smoke, throughput
from benchmarks.__main__ import NOTES, kept, write
from benchmarks.cost import FULL_SPEED
from benchmarks.growth import slope
from benchmarks.harness import plots, watch
from benchmarks.harness.command import Options
from benchmarks.harness.figures import ack_ms, middle, rate, ratio
from benchmarks.harness.job import Job, Round
from benchmarks.harness.results import DIRECTORY, Results
from benchmarks.harness.rows import KEYS, Rows
from benchmarks.harness.tables import Table
from benchmarks.harness.topics import Lent, Topics
from benchmarks.harness.turns import Case, RoundFailed, Turns, brief, can, make_job, run_job
from benchmarks.memory import full_cases
from benchmarks.page import page
from benchmarks.peers import PEERS, PYTHON_LOOPS, REFERENCE, Peer, is_installed
from benchmarks.recovery import recovered_after, waiting_at
from benchmarks.speed_page import lines as speed_lines
from benchmarks.targets import Target, other_idiom, table, targets
from tests.kafka.cluster import Kafka
from tests.kafka.jars import Unavailable
from trio_kprod.testing import Broker, open_broker

PROJECT = Path(__file__).parents[1]
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
    named = {name.replace("await_", "await "): rounds for name, rounds in taken.items()}
    results.found[throughput.BASE] = named
    results.tables.append(Table("Rates", ["producer"], [["ours"]]))
    results.plots.append("throughput.svg")
    return results


def test_results_are_read_as_they_were_kept(tmp_path: Path) -> None:
    results = found(aiokafka=[a_round(2.0, timeline=None, extra={"a": 1.0})])
    results.save(tmp_path)
    assert Results.load_from(tmp_path, "throughput") == results
    assert Results.load_from(tmp_path, "latency") is None


def test_what_is_kept_is_short(tmp_path: Path) -> None:
    """Six digits of each figure, no timeline, and nothing that was not measured."""
    results = found(aiokafka=[a_round(1 / 3, acks={"p50": 0.00123456789}, timeline=[(0.0, 1, 1)])])
    results.save(tmp_path)
    ((kept_round,),) = json.loads((tmp_path / "throughput.json").read_text("utf-8"))["found"][
        "100 B"
    ].values()
    assert kept_round == {
        "messages": 100,
        "seconds": 0.333333,
        "cpu_seconds": 0.166667,
        "peak_mib": 1.0,
        "acks": {"p50": 0.00123457},
    }


def test_a_target_says_how_well_it_is_met() -> None:
    more = Target("rate", lambda _: 0.0, bound=2, stretch=4)
    assert [more.verdict(value) for value in (1, 2, 4)] == ["MISSED", "met", "stretch met"]
    less = replace(more, bound=4, stretch=2, at_most=True)
    assert [less.verdict(value) for value in (5, 4, 2)] == ["MISSED", "met", "stretch met"]


def test_targets_are_told_from_results() -> None:
    """And what was not measured is said to be so."""
    results = found(send_nowait=[a_round(1.0)], await_send=[a_round(2.0)], KafkaProducer=[a_round(5.0)])
    rows = {row[0]: row[3:] for row in table({"throughput": results}).rows}
    assert rows["100 B, `send_nowait`: against KafkaProducer"] == ["5.00 x", "met"]
    assert rows["100 B, `send_nowait`: against aiokafka"] == ["not measured", ""]
    assert len(rows) == len(list(targets()))
    others = {row[0]: row[1] for row in other_idiom({"throughput": results}).rows}
    assert others["100 B, `await send`: against KafkaProducer"] == "2.50 x"


def test_the_page_has_every_part() -> None:
    text = page({"throughput": found(aiokafka=[a_round(1.0)])}, "results")
    for part in ("## Targets", "throughput: Python 3", "![Throughput](results/throughput.svg)", "**Rates**"):
        assert part in text
    for name in PEERS:
        assert f"| `{name}` |" in text


def test_what_is_written_by_hand_becomes_part_of_the_page(tmp_path: Path) -> None:
    """As what follows the targets; rebuilding the page keeps it."""
    assert "why it is slow\n## Machine" in page({}, "results", "## Missed\n\nwhy it is slow")
    write(tmp_path / "results")
    assert (tmp_path / "RESULTS.md").read_text("utf-8").startswith("# Benchmark results")


def test_every_missed_target_is_explained() -> None:
    """Of those that are kept here, by its name, in what is written by hand."""
    missed = [row[0] for row in table(kept(DIRECTORY)).rows if row[-1] == "MISSED"]
    explained = NOTES.read_text("utf-8") if NOTES.exists() else ""
    assert [name for name in missed if name not in explained] == []


@pytest.mark.skipif(not kept(DIRECTORY), reason="a source distribution goes without the figures")
def test_the_page_of_speed_has_the_figures_that_are_kept() -> None:
    """Wherever it breaks their lines."""
    text = " ".join((PROJECT / "docs" / "speed.md").read_text("utf-8").split())
    assert [line for line in speed_lines(kept(DIRECTORY)) if line not in text] == []


def test_the_page_of_speed_has_four_lines_of_figures() -> None:
    """Each from another command."""
    acks, late = {"p50": 0.001, "p99": 0.002}, {"p99": 0.004}
    names = ("send_nowait", *PYTHON_LOOPS, REFERENCE)
    rounds = {
        name: [a_round(2.0 if name == "send_nowait" else 8.0, acks=acks, lateness=late)] for name in names
    }
    memory = {case.name: {"send_nowait": [a_round(1.0, extra={"held": 10, "bytes": 23_000})]}
              for case in full_cases()}  # fmt: skip
    cases = {
        "throughput": {throughput.BASE: rounds},
        "latency": {latency.paced_at(1_000): rounds},
        "responsiveness": {FULL_SPEED: rounds},
        "cost": {FULL_SPEED: rounds},
        "memory": memory,
    }
    first, second, third, fourth = speed_lines(
        {name: Results(name, name, "", {}, 0.0, found=found) for name, found in cases.items()}
    )
    assert "`send_nowait`: 50 messages/s; 4.00 x `KafkaProducer`, 4.00 x `aiokafka`" in first
    assert "`send_nowait` 1.00 / 2.00; `KafkaProducer` 1.00 / 2.00" in second
    assert "`send_nowait` 4.0; `KafkaProducer` 4.0" in third
    assert "`send_nowait` 10000.0; `KafkaProducer` 40000.0" in fourth
    assert fourth.endswith("each message of 1,000 bytes takes 2,300 bytes of memory.")


@pytest.mark.skipif(not plots.can_plot(), reason="matplotlib is not installed")
def test_plots_are_drawn(tmp_path: Path) -> None:
    by_case = {case: dict.fromkeys((*PYTHON_LOOPS, REFERENCE), 1_000.0) for case in "abcd"}
    by_size = {"aiokafka": {1: 2.0, 10: 3.0}}
    plots.bars(tmp_path / "bars.svg", "Bars", "ms", by_case)
    plots.lines(tmp_path / "lines.svg", "Lines", "rate", "ms", by_size, log="xy")
    plots.headline(tmp_path / "headline.svg", "Headline", by_case["a"], [REFERENCE])
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
    monkeypatch.setattr("benchmarks.harness.turns.run_job", lambda *_: a_round(1.0))
    made = fake_topics(monkeypatch, [8, 112, 112 + 4 + written])
    assert turns.once(case, PEERS["aiokafka"]) == a_round(1.0)
    with pytest.raises(RoundFailed, match=f"100 messages sent, 0 failed, but {written} in the log"):
        turns.once(case, PEERS["aiokafka"])
    assert made == ["+topic-0", "-topic-0"]


def fake_topics(monkeypatch: pytest.MonkeyPatch, written: list[int]) -> list[str]:
    """Topics that hold what is listed, one after the other; tells which are made and removed."""
    told: list[str] = []

    def make(*_: object) -> list[str]:
        told.append(f"+topic-{len(told) // 2}")
        return [told[-1][1:]]

    monkeypatch.setattr(Topics, "make", make)
    monkeypatch.setattr(Topics, "delete", lambda _, names: told.extend(f"-{name}" for name in names))
    monkeypatch.setattr(Topics, "written", lambda *_: written.pop(0))
    return told


def test_rounds_share_topics_until_they_hold_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or until a case wants others; what was in them before is not counted."""
    made = fake_topics(monkeypatch, [8, 20, 8, 8])
    lent = Lent(Topics("nowhere:1"))
    assert lent.take(1, 4, 600_000_000) == lent.take(1, 4, 300_000_000) == ["topic-0"]
    assert lent.count() == 12
    assert lent.take(1, 4, 300_000_000) == ["topic-1"]
    assert lent.take(1, 1, 0) == ["topic-2"]
    lent.give_up()
    lent.give_up()
    assert made == ["+topic-0", "-topic-0", "+topic-1", "-topic-1", "+topic-2", "-topic-2"]


def test_a_round_that_harms_kafka_has_topics_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.harness.turns.run_job", lambda *_: a_round(1.0))
    made = fake_topics(monkeypatch, [8, 112])
    case = Case("outage", make_job(task="flood", messages=100), own_topics=True)
    Turns(Kafka("nowhere:1"), rounds=1).once(case, PEERS["aiokafka"])
    assert made == ["+topic-0", "-topic-0"]


# -- the smoke test ----------------------------------------------------------------------------------------


def run_smoke(monkeypatch: pytest.MonkeyPatch, *factors: float) -> tuple[object, list[str]]:
    """Its exit status, and the rounds it took, if we are so many times as fast in the rounds."""
    order: list[str] = []
    ours = iter(factors)

    def once(_: Turns, __: Case, peer: Peer) -> Round:
        order.append(peer.name)
        return a_round(1.0 if peer.name == smoke.BASELINE else 1 / next(ours))

    monkeypatch.setattr(Turns, "once", once)
    monkeypatch.setattr("sys.argv", ["smoke", "--rounds", "1", "--bootstrap-servers", "nowhere:1"])
    with pytest.raises(SystemExit) as ended:
        smoke.main()
    return ended.value.code, order


def test_smoke_passes_where_we_are_fast_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_smoke(monkeypatch, 3.0) == (False, ["KafkaProducer", "send_nowait"])


@pytest.mark.parametrize(("second", "failed"), [(4.5, False), (3.5, True)])
def test_smoke_looks_twice_before_it_fails(
    second: float, failed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And both count: their median is 3.25 and 2.75."""
    assert run_smoke(monkeypatch, 2.0, second) == (failed, ["KafkaProducer", "send_nowait"] * 2)


def test_smoke_fails_where_a_producer_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(_: Turns, __: Case, peer: Peer) -> Round:
        raise RoundFailed("it did not get ready")

    monkeypatch.setattr(Turns, "once", once)
    monkeypatch.setattr("sys.argv", ["smoke", "--bootstrap-servers", "nowhere:1"])
    with pytest.raises(SystemExit, match="KafkaProducer is missing in 100 B: it did not get ready"):
        smoke.main()


@pytest.mark.parametrize(
    ("arguments", "is_kept"),
    [([], True), (["--rounds", "4"], False), (["--quick"], False), (["--peers", "aiokafka"], False)],
)
def test_only_whole_runs_replace_what_is_kept(
    arguments: list[str], is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["throughput", *arguments])
    assert (Options.parse("").directory == DIRECTORY) == is_kept


@pytest.mark.parametrize("where", ["", "true"])
def test_smoke_fails_without_kafka_only_in_ci(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the tests against a real Kafka do."""

    def no_cluster() -> Kafka:
        raise Unavailable("no java on the PATH")

    monkeypatch.setattr("tests.kafka.cluster.Cluster", no_cluster)
    monkeypatch.setattr("sys.argv", ["smoke"])
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("CI", where)
    if where:
        with pytest.raises(SystemExit, match="no Apache Kafka: no java on the PATH"):
            smoke.main()
    else:
        smoke.main()
        assert capsys.readouterr().out == "skipped: no Apache Kafka: no java on the PATH\n"


def test_a_producer_that_is_not_installed_is_known() -> None:
    assert is_installed(PEERS["send_nowait"])
    assert not is_installed(PEERS["send_nowait"]._replace(package="no_such_package"))
    assert is_installed(PEERS["aiokafka"]) == (importlib.util.find_spec("aiokafka") is not None)
