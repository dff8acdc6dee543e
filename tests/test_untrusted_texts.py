"""What brokers say is escaped wherever it is shown, and what messages hold is shown nowhere."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import trio
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.protocol.producer import ProduceResponse

import trio_kprod
from tests.scripted_cluster import Asked, Script, ScriptedCluster, framed, open_on
from tests.scripted_peer import Peer, client_of
from tests.test_hostile_broker import altered, altered_bytes, brokers, each_partition
from tests.test_sasl import PLAIN, failure, next_token, reply
from trio_kprod._cli._ping import ping
from trio_kprod._client._protocol import ClusterMetadata
from trio_kprod._errors import printable
from trio_kprod.testing import open_broker

#: A colour, a line that looks like one of ours, the end of a line for others, what turns text around.
NASTY = "no\x1b[31m\r\n2026-11-28 CRITICAL all is lost\u2028\x00\x07\x9b1m\u202etxt.exe\u2066"

CANARY = b"canary-5b1d"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain, \u00e4 and \u2603", "plain, \u00e4 and \u2603"),
        ("two\nlines\r\n\tand a tab", "two lines and a tab"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u202eturned", r"\u202eturned"),
        ("\ud800alone", r"\ud800alone"),
        ("\U000e0001tag", r"\U000e0001tag"),
        ("x" * 30_000, "x" * 1000),
        ("\x1b" * 1000, "\\x1b" * 250),
    ],
)
def test_what_does_not_print_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def assert_clean(texts: list[str]) -> None:
    for text in texts:
        assert text.isprintable(), text


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Each line of the log, with the last line of each traceback."""
    lines = [record.getMessage() for record in caplog.records]
    for record in caplog.records:
        if record.exc_info and record.exc_info[1]:
            lines += chained(record.exc_info[1])
    return lines


def chained(error: BaseException | None) -> list[str]:
    """The text of an error, and those of all that it came from."""
    texts = []
    while error is not None:
        texts += [*map(str.rstrip, traceback.format_exception_only(error)), repr(error)]
        error = error.__cause__ or error.__context__
    return texts


def record_errors(response: Any) -> None:
    for topic in response.responses:
        for one in topic.partition_responses:
            one.error_code, one.base_offset = 87, -1
            one.record_errors = [
                ProduceResponse.TopicProduceResponse.PartitionProduceResponse.BatchIndexAndErrorMessage(
                    version=response.API_VERSION, batch_index=0, batch_index_error_message=NASTY
                )
            ]


PRODUCE_CHANGES: dict[str, Callable[[Any], object]] = {
    "refused": each_partition(error_code=44, base_offset=-1, error_message=NASTY),
    "refused for a record": record_errors,
    "refused for a while": each_partition(error_code=19, base_offset=-1, error_message=NASTY),
    "unknown code": each_partition(error_code=999, base_offset=-1, error_message=NASTY),
}


@pytest.mark.parametrize("name", PRODUCE_CHANGES)
async def test_texts_of_refusals(
    name: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cluster = ScriptedCluster(nodes=1)

    async def script(asked: Asked) -> bytes | None:
        return await altered(PRODUCE_CHANGES[name])(asked) if asked.api == "Produce" else None

    cluster.nodes[1].behave_like(script)
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_on(cluster, delivery_threshold=1, delivery_timeout=90) as producer:
            producer.send_nowait("t", b"x")
            await trio.sleep(100)
    error = caught.value
    assert any("CRITICAL all is lost" in text for text in said(caplog))
    assert_clean([*said(caplog), *chained(error), *chained(error.undelivered[0].cause)])


async def test_names_of_hosts(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no name of a host is nobody's address."""
    caplog.set_level(logging.DEBUG)
    cluster = ScriptedCluster()

    async def script(asked: Asked) -> bytes | None:
        if asked.api != "Metadata":
            return None
        return await altered(brokers((1, "node1", 9092), (2, NASTY, 9092), (3, "x" * 9000, 1)))(asked)

    cluster.nodes[1].behave_like(script)
    async with open_on(cluster, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"x", partition=0)
        producer.send_nowait("t", b"to nowhere", partition=1)
        await trio.sleep(10)
        cluster.nodes[1].behave_like(None)
        with trio.fail_after(5):
            await producer.flush()
    assert {address[0] for address in cluster.attempts} == {"node1", "node2"}
    assert_clean(said(caplog))


async def test_texts_of_a_log_in(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_kprod")

    async def refused(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("PLAIN")
        request, _ = await next_token(peer)
        await reply(peer, request, error=58, error_message=NASTY)
        await peer.until_closed()

    async def other_mechanisms(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake(NASTY, "x" * 9000, error=33)
        await peer.until_closed()

    async def failed(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("PLAIN")
        request, _ = await next_token(peer)
        await reply(peer, request, error=-1, error_message=NASTY)
        await peer.until_closed()

    for script in (refused, other_mechanisms, failed):
        async with client_of(script, **PLAIN) as client:
            error = await failure(client)
        assert "CRITICAL all is lost" in str(error)
        assert len(str(error)) < 1200
        assert_clean([*chained(error), *said(caplog)])


async def test_a_handshake_that_is_refused_like_a_password() -> None:
    """That response has no field for a text."""

    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake(error=58)
        await peer.until_closed()

    async with client_of(script, **PLAIN) as client:
        error = await failure(client)
    assert "authentication failed: the broker does not say why" in str(error)


class Token(AbstractTokenProvider):  # type: ignore[misc]
    def token(self) -> str:
        return "token"


async def test_what_a_token_was_refused_for(caplog: pytest.LogCaptureFixture) -> None:
    """kafka-python logs it as well, at DEBUG."""
    caplog.set_level(logging.DEBUG)

    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("OAUTHBEARER")
        request, _ = await next_token(peer)
        await reply(peer, request, NASTY.encode("utf-8", "surrogateescape"))
        request, data = await next_token(peer)
        assert data == b"\x01"
        await reply(peer, request, error=58, error_message=NASTY)
        await peer.until_closed()

    options = {"sasl_mechanism": "OAUTHBEARER", "sasl_options": {"sasl_oauth_token_provider": Token()}}
    async with client_of(script, **{**PLAIN, **options}) as client:
        error = await failure(client)
    assert "CRITICAL all is lost" in str(error)
    assert_clean([*chained(error), *said(caplog)])


async def test_a_response_that_cannot_be_decoded(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cluster = ScriptedCluster(nodes=1)

    async def script(asked: Asked) -> bytes | None:
        spoiled = altered_bytes(lambda frame: frame.replace(b"node1", b"\xff\x1b[m\n"))
        return await spoiled(asked) if asked.api == "Metadata" else None

    cluster.nodes[1].behave_like(script)
    with pytest.raises(trio_kprod.ConnectFailed) as caught:
        async with open_on(cluster, connect_timeout=2):
            pytest.fail("must not be entered")
    assert_clean([*said(caplog), *chained(caught.value)])


@pytest.mark.parametrize(
    "address", [("x" * 70, 9092), ("a..b", 9092), ("127.0.0.1", 70_000), ("127.0.0.1", 2**31 - 1), ("h", -1)]
)
def test_ping_goes_on_where_an_address_makes_no_sense(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    metadata = ClusterMetadata({9: address}, [])
    monkeypatch.setattr("trio_kprod._client._probe.cluster_metadata", lambda _: metadata)
    with open_broker() as broker:
        settings = {"bootstrap_servers": broker.bootstrap_servers}
        assert ping(settings, None, send=False, as_json=False, echo=lines.append) == 3
    assert f"{address[0]}:{address[1]}" in lines[-1]
    assert_clean([line for told in lines for line in told.split("\n    ")])


# ---------------------------------------------------------------------------------------------------------
# What messages hold


def holding(number: int) -> dict[str, Any]:
    return {"value": CANARY + b"value%d" % number, "key": CANARY, "headers": [("h", CANARY)]}


async def test_what_messages_hold_is_in_no_log_and_no_error(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Through refusals, lost connections, nonsense, time that is up, and more failures than can be kept."""
    caplog.set_level(logging.DEBUG)
    cluster = ScriptedCluster(nodes=1)
    node = cluster.nodes[1]
    shown: list[str] = []

    def refusing(code: int) -> Script:
        refuse = altered(each_partition(error_code=code, base_offset=-1))

        async def script(asked: Asked) -> bytes | None:
            return await refuse(asked) if asked.api == "Produce" else None

        return script

    async def nonsense(asked: Asked) -> bytes | None:
        return framed(asked.frame) if asked.api == "Produce" else None  # what we sent, as it is

    def partitioner(*_: Any) -> int:
        raise ValueError("no partition")

    for code in (44, 87, 10, 19, 7, 2, 999, 45, 47):
        node.behave_like(refusing(code))
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            async with _small(cluster) as producer:
                for number in range(9):
                    await producer.send("t", **holding(number))
                shown.append(repr(producer) + repr(producer.statistics()))
        shown += chained(caught.value) + chained(caught.value.undelivered[0].cause)
    node.behave_like(nonsense)
    troubles: list[dict[str, Any]] = [
        {"delivery_timeout": 2},
        {"partitioner": partitioner},
        {"shutdown_timeout": 1},
    ]
    for options in troubles:
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            async with _small(cluster, **options) as producer:
                receipt = producer.send_nowait("t", **holding(0))
                shown.append(repr(receipt))
                for number in range(8):
                    await producer.send("t", **holding(number))
        shown += chained(caught.value) + chained(caught.value.undelivered[0].cause)
    assert any("no room to keep it for telling" in text for text in said(caplog))
    assert not [text for text in [*said(caplog), *shown] if CANARY.decode() in text]


def _small(cluster: ScriptedCluster, **options: Any) -> Any:
    """A producer that keeps three failures at most."""
    values: dict[str, Any] = {"max_queue_size": 1, "max_buffer_size": 2, "delivery_timeout": 60}
    values.update(delivery_threshold=1, shutdown_timeout=120)
    return open_on(cluster, **{**values, **options})
