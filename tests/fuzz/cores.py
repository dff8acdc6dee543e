"""The produce core, told whatever can be read of hostile responses: each message has one outcome."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from kafka.protocol.metadata import MetadataResponse
from kafka.protocol.producer import InitProducerIdResponse, ProduceResponse

from tests.core.helpers import Bench, message, metadata
from tests.fuzz.mutations import mutated
from tests.fuzz.samples import NUMBER, TOPICS, frame_of
from tests.fuzz.targets import Target
from tests.test_produce_codec import frame_of as frame_for, response
from trio_kprod._client._exchange import decode, decode_api
from trio_kprod._client._produce_codec import HIGHEST_VERSION, LOWEST_VERSION, ProduceExchange
from trio_kprod._client._protocol import cluster_metadata, producer_id
from trio_kprod._errors import ConnectionLost, DeliveryAborted
from trio_kprod._messages import VALUE

#: More steps than any pause can need in the time that passes.
_STORM = 3000

#: Kafka's error codes, those that mean that it is written more often.
_CODES = (*(0,) * 12, 2, 3, 5, 6, 7, 10, 17, 19, 20, 29, 32, 44, 45, 46, 47, 56, 87, 89, 100, -1, 999)


class _Story:
    """Some messages, and a cluster that answers with anything."""

    def __init__(self, seed: int) -> None:
        self._rng = rng = Random(seed)
        self._bench = Bench(
            ready=False,
            idempotent=rng.random() < 0.8,
            topic_timeout=5.0,
            delivery_timeout=rng.choice((3.0, 60.0, float("inf"))),
            max_retries=rng.choice((-1, 0, 3)),
        )
        self._accepted = 0

    def run(self) -> Counter[str]:
        bench, rng = self._bench, self._rng
        for _ in range(rng.randrange(5, 60)):
            rng.choice(
                (
                    self._submit,
                    self._answer,
                    self._answer,
                    self._inform,
                    self._connect,
                    self._connect,
                    self._wait,
                )
            )()
        bench.core.stop([], DeliveryAborted("the end"))
        bench.step()
        told = Counter(entry[VALUE] for one in bench.settled for entry in one.entries)
        assert told == Counter(b"%d" % number for number in range(self._accepted))
        return Counter("undelivered" if one.error else "delivered" for one in bench.settled)

    def _submit(self) -> None:
        rng = self._rng
        partition = rng.choice((None, 0, 1, 2, 9))
        names = [str(self._accepted + number) for number in range(rng.randrange(1, 6))]
        self._accepted += len(names)
        topic = rng.choice(TOPICS)
        now = self._bench.now
        self._bench.submit([message(one, topic=topic, partition=partition, accepted_at=now) for one in names])

    def _answer(self) -> None:
        """A request in flight gets a response, or its connection ends."""
        bench, rng = self._bench, self._rng
        if not bench.requests:
            return
        request = rng.choice(bench.requests)
        version = rng.randrange(LOWEST_VERSION, HIGHEST_VERSION + 1)
        exchange = ProduceExchange(request, version, -1, 1.0, lambda *_: None)
        exchange.correlation_id = NUMBER
        exchange.encode("fuzz")
        request.write_started = True
        frame = self._response(ProduceResponse, exchange.version)
        if rng.random() < 0.7:
            code, offset = rng.choice(_CODES), rng.choice((-1, 5, 10**12))
            frame = frame_for(response(request, exchange.version, error_code=code, base_offset=offset))
            frame = mutated(frame, rng) if rng.random() < 0.2 else frame
        try:
            _, outcome = decode(exchange, frame)
        except ConnectionLost:
            bench.lose(request.node)
        else:
            bench.requests.remove(request)
            bench.core.responded(request, outcome.responses)
            bench.step()

    def _inform(self) -> None:
        """What the core has asked for: metadata, or a producer id."""
        bench, rng = self._bench, self._rng
        if bench.asked:
            asked = bench.asked.pop(0)
            if rng.random() < 0.6:
                bench.core.metadata([metadata((1, 2, 1), name=name) for name in asked], asked)
                bench.step()
                return
            try:
                response = decode_api(MetadataResponse[12], self._response(MetadataResponse, 12))
                topics = cluster_metadata(response).topics
            except Exception:
                bench.core.metadata_failed(asked, ConnectionLost("nonsense"))
            else:
                bench.core.metadata(topics, asked)
        elif bench.ids_asked:
            bench.ids_asked -= 1
            try:
                frame = self._response(InitProducerIdResponse, 4)
                code, number = producer_id(decode_api(InitProducerIdResponse[4], frame))
            except Exception:
                code, number = 999, -1
            if code:
                bench.core.producer_id_failed(ConnectionLost("no"), final=rng.random() < 0.2)
            else:
                bench.core.producer_id(number)
        bench.step()

    def _response(self, response_class: Any, version: int) -> bytes:
        frame = frame_of(response_class, version, self._rng)
        return mutated(frame, self._rng) if self._rng.random() < 0.3 else frame

    def _connect(self) -> None:
        bench, rng = self._bench, self._rng
        nodes, bench.connects = bench.connects, []
        for node in nodes:
            if rng.random() < 0.8:
                bench.core.connected(node)
            else:
                bench.core.unreachable(node, ConnectionLost("no way"))
            bench.step()

    def _wait(self) -> None:
        bench = self._bench
        end = bench.now + self._rng.choice((0.0, 0.05, 1.0, 7.0))
        for _ in range(_STORM):
            if bench.core.deadline > end:
                break
            bench.now = max(bench.now, bench.core.deadline)
            bench.core.advance()
            bench.step()
        else:
            raise AssertionError("the core never rests")
        bench.now = end


def _draw(rng: Random) -> int:
    return rng.getrandbits(32)


def _check(seed: int) -> str:
    outcomes = _Story(seed).run()
    return "some delivered" if outcomes["delivered"] else "none delivered"


CORES = [Target("core", 20, _draw, _check, lambda _: 100_000, "loop")]
