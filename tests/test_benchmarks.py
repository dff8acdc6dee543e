"""The benchmarks' own arithmetic, and that each way of driving a producer does what it says."""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import latency, peers as peers_module, smoke, speed_page, throughput
from benchmarks.__main__ import NOTES, kept, write
from benchmarks.cost import FULL_SPEED
from benchmarks.growth import slope
from benchmarks.harness import plots, watch
from benchmarks.harness.command import Bench, Options
from benchmarks.harness.figures import CPU, RATE, Found, Spread, ack, late, ratio, summary
from benchmarks.harness.job import Job, Round
from benchmarks.harness.results import DIRECTORY, SAMPLES, Results, save_samples, summaries
from benchmarks.harness.rows import KEYS, Rows
from benchmarks.harness.tables import Table
from benchmarks.harness.topics import Lent, Topics
from benchmarks.harness.turns import Case, RoundFailed, Turns, brief, can, make_job, run_job
from benchmarks.memory import BYTES, full_cases
from benchmarks.page import page
from benchmarks.peers import (
    DEFAULT,
    GZIP_LEVEL,
    MODES,
    PEERS,
    PYTHON_LOOPS,
    REFERENCE,
    Peer,
    environment,
    is_installed,
    ours,
    pick,
)
from benchmarks.recovery import recovered_after, waiting_at
from benchmarks.targets import LOOPS, PURE, Target, kept_targets, missed, table, targets
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


def test_of_each_figure_the_median_and_the_ends_are_told() -> None:
    """Of every round; four digits are enough."""
    rounds = [
        a_round(
            seconds, acks={"p50": seconds / 10}, lateness={"p99": seconds / 100}, extra={"held": seconds / 3}
        )
        for seconds in (1.0, 4.0, 2.0)
    ]
    row = summary(rounds)
    assert row[RATE] == (50.0, 25.0, 100.0)
    assert row[CPU] == (10_000.0, 5_000.0, 20_000.0)
    assert row[ack("p50")] == (200.0, 100.0, 400.0)
    assert row[late("p99")] == (20.0, 10.0, 40.0)
    assert row["held"] == (0.6667, 0.3333, 1.333)
    assert row["held"].range(1) == "0.3 to 1.3"
    assert RATE not in summary([a_round(1.0, messages=0)])


def test_a_ratio_is_that_of_the_medians() -> None:
    taken = {name: summary([a_round(seconds)]) for name, seconds in (("ours", 1.0), ("theirs", 4.0))}
    assert ratio(taken, "ours", "theirs") == 4.0
    assert ratio(taken, "ours", "theirs", CPU) == 0.25


def test_a_smoke_test_s_ratio_is_taken_round_by_round() -> None:
    """A round in which the machine was slow for both says as much as any other."""
    our_rounds = [a_round(1.0), a_round(10.0), a_round(1.0)]
    their_rounds = [a_round(2.0), a_round(20.0), a_round(3.0)]
    assert smoke.ratio(our_rounds, their_rounds) == 2.0
    with pytest.raises(ValueError, match="zip"):
        smoke.ratio(our_rounds, their_rounds[:2])


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
    topics, values, keys, headers = zip(*rows, strict=True)
    assert topics[:3] == ("a", "b", "a")
    assert list(values) == rows.values
    assert len(set(keys)) == min(KEYS, JOB.messages)
    assert set(headers) == {None}
    assert next(iter(Rows(replace(JOB, messages=2))))[2] is None


def test_unique_keys_are_uuids_none_of_which_comes_again() -> None:
    keys = Rows(replace(JOB, unique_keys=True)).keys
    assert keys is not None
    assert len(set(keys)) == JOB.messages
    assert all(str(uuid.UUID(key.decode())).encode() == key for key in keys)


def test_each_message_has_two_headers_one_of_them_its_own() -> None:
    rows = Rows(replace(JOB, headers=True))
    assert not rows.plain
    traces, kinds = zip(*(headers or [] for *_, headers in rows), strict=True)
    assert len(set(traces)) == JOB.messages
    assert len(set(kinds)) == 1


def test_json_values_are_json_of_about_300_bytes() -> None:
    values = Rows(replace(JOB, json=True)).values
    assert [json.loads(value)["id"] for value in values] == list(range(JOB.messages))
    assert {round(len(value), -2) for value in values} == {300}


# -- who is compared ---------------------------------------------------------------------------------------


def test_everybody_is_durable_and_idempotent() -> None:
    """Ours is by default; the others are told to be."""
    for peer in PEERS.values():
        if not peer.is_ours:
            for settings in (peer.fast, peer.prompt):
                assert settings["acks"] == "all"
                assert settings.get("enable_idempotence", settings.get("enable.idempotence")) is True


def test_a_producer_is_left_out_of_what_it_cannot_do() -> None:
    headers = Case("", make_job(task="flood", headers=True))
    assert [peer.name for peer in pick(PEERS.values()) if not can(peer, headers)] == [
        "send_many",
        "send_and_wait",
        "AIOProducer",
    ]
    waited = Case("", make_job(task="waited"))
    able = [peer.way for peer in PEERS.values() if peer.is_ours and can(peer, waited)]
    assert able == ["send_and_wait"] * len(MODES)


def test_a_mode_is_a_setting_and_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the process in which the round runs, whatever ours has."""
    monkeypatch.setenv("TRIO_KPROD_PURE", "0")
    modes = [PEERS[ours("send_nowait", mode)] for mode in MODES]
    assert [
        (peer.fast.get("own_thread", True), environment(peer).get("TRIO_KPROD_PURE")) for peer in modes
    ] == [
        (True, "1"),
        (False, "1"),
        (True, None),
        (False, None),
    ]
    assert all(peer.fast.get("own_thread") == peer.prompt.get("own_thread") for peer in modes)


def test_only_some_ways_of_sending_have_every_mode() -> None:
    names = [peer.name for peer in pick(PEERS.values(), ["await send"])]
    assert names == [
        "send_nowait",
        *(ours("await send", mode) for mode in MODES),
        "send_many",
        "send_and_wait",
        *PYTHON_LOOPS,
        REFERENCE,
    ]


def test_gzip_has_the_same_level_for_all_that_can_be_told() -> None:
    """Only for gzip; the table says who cannot."""
    gzip = next(case for case in throughput.cases() if case.name == throughput.JSON_GZIP)
    turns = Turns(Kafka("nowhere:1"), rounds=1)
    told = {name for name, peer in PEERS.items() if GZIP_LEVEL in turns.fitted(gzip, peer).settings.values()}
    assert set(PEERS) - told == {"KafkaProducer", "aiokafka"}
    zstd = gzip._replace(job=replace(gzip.job, compression="zstd"))
    assert turns.fitted(zstd, PEERS[REFERENCE]).settings == PEERS[REFERENCE].fast
    taken = {name: summary([a_round(1.0)]) for name in ("send_nowait", "aiokafka")}
    assert throughput.table(gzip.name, taken).title.endswith(
        "(level 6; 9 for aiokafka, which cannot be told)"
    )


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
    named = {name.replace("await_", "await "): rounds for name, rounds in taken.items()}
    cases = summaries({throughput.BASE: named})
    return Results("throughput", "python -m benchmarks.throughput", {"Python": "3"}, 0.5, 1, cases)


def test_results_are_read_as_they_were_kept(tmp_path: Path) -> None:
    results = found(aiokafka=[a_round(2.0, extra={"a": 1.0})])
    results.save(tmp_path)
    assert Results.load_from(tmp_path, "throughput") == results
    assert Results.load_from(tmp_path, "latency") is None


def test_what_is_kept_is_short(tmp_path: Path) -> None:
    """A line for each producer in each case, with the median, the lowest and the highest of each figure."""
    found(aiokafka=[a_round(1 / 3, timeline=[(0.0, 1, 1)]), a_round(1.0)]).save(tmp_path)
    _, line = (tmp_path / "throughput.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line) == {
        "case": "100 B",
        "producer": "aiokafka",
        RATE: [200.0, 100.0, 300.0],
        CPU: [3333.0, 1667.0, 5000.0],
        "peak MiB": [1.0, 1.0, 1.0],
        "failed": [0.0, 0.0, 0.0],
    }


def test_every_round_is_kept_where_git_does_not_look(tmp_path: Path) -> None:
    save_samples(tmp_path, "throughput", {"100 B": {"aiokafka": [a_round(1.0), a_round(2.0)]}})
    samples = json.loads((tmp_path / SAMPLES / "throughput.json").read_text("utf-8"))
    assert [Round(**one) for one in samples["100 B"]["aiokafka"]] == [a_round(1.0), a_round(2.0)]
    ignored = (PROJECT / ".gitignore").read_text("utf-8").splitlines()
    assert f"benchmarks/{DIRECTORY.name}/{SAMPLES}/" in ignored


def test_a_target_says_how_well_it_is_met() -> None:
    more = Target("rate", lambda *_: 0.0, bound=2, stretch=4)
    assert [more.verdict(value) for value in (1, 2, 4)] == ["MISSED", "met", "stretch"]
    less = replace(more, bound=4, stretch=2, at_most=True)
    assert [less.verdict(value) for value in (5, 4, 2)] == ["MISSED", "met", "stretch"]


def test_a_target_is_one_of_some_modes_and_told_of_others() -> None:
    """Its figure without a verdict there, and nothing elsewhere."""
    target = Target("rate", lambda _, mode: mode.faster, 1.1, 2, LOOPS, [DEFAULT])
    assert target.row({}) == ["rate", ">= 1.1 x", ">= 2 x", "1.00 x", "1.20 x, met", "", "2.00 x, stretch"]


def test_targets_are_told_from_results() -> None:
    """And what was not measured is said to be so."""
    taken = {
        "send_nowait": [a_round(1.0)],
        "send_nowait, own loop": [a_round(0.5)],
        "await send": [a_round(0.3)],
        "KafkaProducer": [a_round(5.0)],
        "aiokafka": [a_round(1.5)],
    }
    every = {"throughput": found(**taken)}
    rows = {row[0]: row[3:] for row in table(every).rows}
    nothing = "not measured"
    assert rows["100 B, pure: against KafkaProducer"] == ["5.00 x, MISSED", "10.00 x, stretch", "", ""]
    assert rows["100 B, pure: against AIOProducer"] == [nothing, nothing, "", ""]
    assert rows["`await send` 100 B: against aiokafka"] == ["5.00 x, stretch", nothing, nothing, nothing]
    assert len(rows) == len(list(targets()))
    assert missed(every)[:2] == ["100 B, pure: against KafkaProducer", "100 B, pure: against aiokafka"]


def test_latencies_are_against_the_best_of_the_others() -> None:
    """The one with the least, of those in Python."""
    name = ours("send_nowait", LOOPS[0])
    times = {name: 0.3, "KafkaProducer": 0.9, "aiokafka": 0.2, REFERENCE: 0.1}
    rounds = {peer: [a_round(1.0, acks={"p50": each, "p99": each})] for peer, each in times.items()}
    results = Results("latency", "", {}, 0.0, 1, summaries({latency.paced_at(1_000): rounds}))
    rows = {row[0]: row for row in table({"latency": results}).rows}
    row = rows["acknowledged p50 at 1,000/s, own loop: against the best Python peer"]
    assert row[1:5] == ["<= 1 x", "<= 0.9 x", "not measured", "1.50 x, MISSED"]


def test_targets_have_names_of_their_own() -> None:
    """By which what is written by hand explains them."""
    names = [target.name for target in (*targets(), *kept_targets())]
    assert len(set(names)) == len(names)


def test_the_page_has_every_part(tmp_path: Path) -> None:
    (tmp_path / "throughput.svg").touch()
    text = page({"throughput": found(aiokafka=[a_round(1.0)])}, tmp_path)
    picture = f"![Throughput]({tmp_path.name}/throughput.svg)"
    for part in (
        "## Targets",
        "throughput: Python 3",
        picture,
        "**100 B**",
        "throughput` took 0 s with 1 rounds",
    ):
        assert part in text
    for peer in PEERS.values():
        assert (f"| `{peer.name}` |" in text) == (peer.mode == DEFAULT)


def test_the_page_lists_what_is_missed(tmp_path: Path) -> None:
    results = found(send_nowait=[a_round(1.0)], aiokafka=[a_round(1.0)])
    assert "\n- 100 B, pure: against aiokafka\n" in page({"throughput": results}, tmp_path)


def test_what_is_written_by_hand_becomes_part_of_the_page(tmp_path: Path) -> None:
    """As what follows the targets; rebuilding the page keeps it."""
    assert "why it is slow\n## Machine" in page({}, tmp_path, "## Missed\n\nwhy it is slow")
    write(tmp_path / "results")
    assert (tmp_path / "RESULTS.md").read_text("utf-8").startswith("# Benchmark results")


def test_every_missed_target_is_explained() -> None:
    """Of those that are kept here, by its name, in what is written by hand."""
    explained = " ".join(NOTES.read_text("utf-8").split()) if NOTES.exists() else ""
    assert [name for name in missed(kept(DIRECTORY)) if name not in explained] == []


@pytest.mark.skipif(not kept(DIRECTORY), reason="a source distribution goes without the figures")
def test_the_page_of_results_is_made_of_what_is_kept() -> None:
    """And of the notes that are there now."""
    made = page(kept(DIRECTORY), DIRECTORY, NOTES.read_text("utf-8"))
    assert (PROJECT / "benchmarks" / "RESULTS.md").read_text("utf-8") == made


@pytest.mark.skipif(not kept(DIRECTORY), reason="a source distribution goes without the figures")
@pytest.mark.parametrize(
    ("file", "made"), [(speed_page.PAGE, speed_page.for_page), (speed_page.README, speed_page.for_readme)]
)
def test_the_documents_have_the_figures_that_are_kept(
    file: Path, made: Callable[[Mapping[str, Results]], str]
) -> None:
    """As `python -m benchmarks --docs` puts them there."""
    assert f"{speed_page.BEGIN}\n\n{made(kept(DIRECTORY))}\n\n{speed_page.END}" in file.read_text("utf-8")


def every_result() -> dict[str, Results]:
    """Ours in the default mode and compiled, beside the others, which take four times as long."""
    acks, lateness = {"p50": 0.001, "p99": 0.002}, {"p99": 0.004}
    names = ("send_nowait", "send_nowait, compiled", "await send", "send_and_wait", *PYTHON_LOOPS, REFERENCE)
    rounds = {
        name: [a_round(8.0 if name in (*PYTHON_LOOPS, REFERENCE) else 2.0, acks=acks, lateness=lateness)]
        for name in names
    }
    full = {"send_nowait": {BYTES: Spread(2_300.0, 2_200.0, 2_400.0)}}
    cases: dict[str, Found] = {
        "throughput": summaries({throughput.BASE: rounds}),
        "latency": summaries({latency.paced_at(1_000): rounds, latency.awaited_by(1): rounds}),
        "responsiveness": summaries({FULL_SPEED: rounds}),
        "memory": {case.name: dict(full) for case in full_cases()},
    }
    return {name: Results(name, "", {}, 0.0, 1, each) for name, each in cases.items()}


def test_the_page_of_speed_has_a_line_for_each_mode_that_was_measured() -> None:
    """And one for each of the others; what was not measured has a dash."""
    text = speed_page.for_page(every_result())
    assert "| trio_kprod, own thread | 0 k | 0 k | - | - | - | - |" in text
    assert "| trio_kprod, own thread | 10000.0 µs | 1.00 ms | 1.00 / 2.00 ms | - | 4.0 ms |" in text
    assert "| trio_kprod, own thread, compiled | 0 k | - | - |" in text
    assert "own loop" not in text
    assert "| `KafkaProducer` | 0 k | - | - |" in text
    assert "| `aiokafka` | 0 k | 0 k | - |" in text
    assert text.endswith("each message of 1,000 bytes takes 2,300 bytes of memory.")


def test_the_readme_compares_the_default_and_the_compiled() -> None:
    text = " ".join(speed_page.for_readme(every_result()).split())
    assert "By default: 50 messages of 100 bytes a second; 4 x `KafkaProducer`, 4 x `aiokafka`" in text
    assert "Compiled (`trio_kprod[speedups]`): 50 messages" in text


def test_figures_are_put_in_the_place_of_those_that_were_there(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"# How fast\n\n{speed_page.BEGIN}\nold\n{speed_page.END}\n\nAll is well.\n", "utf-8")
    speed_page.put(file, "new")
    expected = f"# How fast\n\n{speed_page.BEGIN}\n\nnew\n\n{speed_page.END}\n\nAll is well.\n"
    assert file.read_text("utf-8") == expected


@pytest.mark.skipif(not plots.can_plot(), reason="matplotlib is not installed")
def test_plots_are_drawn(tmp_path: Path) -> None:
    by_case = {case: dict.fromkeys((*PYTHON_LOOPS, REFERENCE), 1_000.0) for case in "abcd"}
    by_size = {"aiokafka": {1: 2.0, 10: 3.0}}
    plots.bars(tmp_path / "bars.svg", "Bars", "ms", by_case)
    plots.lines(tmp_path / "lines.svg", "Lines", "rate", "ms", by_size, log="xy")
    kinds = {name: "ours" if name == REFERENCE else "theirs" for name in by_case["a"]}
    plots.headline(tmp_path / "headline.svg", "Headline", by_case["a"], kinds)
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
    """Its exit status, and the rounds it compared, if these are our speeds in the rounds."""
    order: list[str] = []
    compared = iter(factors)

    def once(_: Turns, case: Case, peer: Peer) -> Round:
        if case.name != throughput.BASE:
            return a_round(1.0)
        order.append(peer.name)
        return a_round(1.0 if peer.name == smoke.BASELINE else 1 / next(compared))

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


def test_smoke_tries_each_mode_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In what is not alike; one that fails there fails the whole."""
    tried: list[tuple[str, str]] = []

    def once(_: Turns, case: Case, peer: Peer) -> Round:
        tried.append((case.name, peer.name))
        if case.name == throughput.JSON_GZIP and peer.name == "send_nowait, compiled":
            raise RoundFailed("exit status 1")
        return a_round(5.0 if peer.name == smoke.BASELINE else 1.0)

    monkeypatch.setattr(Turns, "once", once)
    monkeypatch.setattr(peers_module, "_is_compiled", lambda: True)
    monkeypatch.setattr("sys.argv", ["smoke", "--rounds", "1", "--bootstrap-servers", "nowhere:1"])
    with pytest.raises(
        SystemExit, match="send_nowait, compiled is missing in JSON 300 B, gzip: exit status 1"
    ):
        smoke.main()
    assert tried[2:] == [(case, mode) for case in smoke.TRIED for mode in smoke.OUR_MODES]


def test_smoke_fails_where_a_producer_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(_: Turns, __: Case, peer: Peer) -> Round:
        raise RoundFailed("it did not get ready")

    monkeypatch.setattr(Turns, "once", once)
    monkeypatch.setattr("sys.argv", ["smoke", "--bootstrap-servers", "nowhere:1"])
    with pytest.raises(SystemExit, match="KafkaProducer is missing in 100 B: it did not get ready"):
        smoke.main()


@pytest.mark.parametrize(
    ("arguments", "is_kept"),
    [([], True), (["--rounds", "2"], False), (["--quick"], False), (["--peers", "aiokafka"], False)],
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

    def no_cluster(**_: object) -> Kafka:
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


@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_not_installed_is_left_out_and_said(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line for each package."""
    monkeypatch.setattr(peers_module, "_is_compiled", lambda: compiled)
    names = [ours("send_nowait", mode) for mode in MODES]
    options = Options(1, quick=True, bootstrap_servers=None, peers=names, cases=(), results=None)
    running = Bench(throughput.COMMAND, options, Kafka("nowhere:1"))
    left_out = names[len(PURE) :]
    assert [peer.name for peer in running.peers] == (names if compiled else names[: len(PURE)])
    text = f"Left out, as trio_kprod_speedups is not installed: `{left_out[0]}`; `{left_out[1]}`."
    assert running.results.notes == ([] if compiled else [text])
