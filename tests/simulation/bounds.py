"""What may be sent when: the bounds that keep order and recognise duplicates, checked at each request.

It keeps books of its own, from what is sent, answered and told, and asks the core nothing.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from tests.simulation.cluster import Piece, Place
from tests.simulation.history import Broken
from tests.simulation.log import SEQUENCES, Sealed
from tests.simulation.setting import MESSAGE_SIZE
from trio_kprod._core._error_codes import PartitionResponse
from trio_kprod._core._shared import Rules
from trio_kprod._messages import BATCH_OVERHEAD

#: How often one batch may be sent over one connection in a second. Pauses double from 10 ms.
_SENT_IN_A_SECOND = 16

_IN_FLIGHT = 5  # a broker recognises duplicates among the last five batches


_Key = tuple[Place, int, int]  # a chain: its producer id and epoch in one partition


class _Flight(NamedTuple):
    sealed: Sealed
    node: int


class Bounds:
    """The books of one run; `told` are the values that have an outcome."""

    def __init__(self, rules: Rules, told: Container[bytes]) -> None:
        self._rules = rules
        self._told = told
        self._paces: dict[tuple[tuple[bytes, ...], int], list[float]] = {}
        self._flights: dict[Place, list[_Flight]] = {}
        # The chain (producer id, epoch) of which more than one batch may be in flight.
        self._trusted: dict[Place, tuple[int, int]] = {}
        # The batches of each chain, as first sent.
        self._chains: dict[_Key, list[Sealed]] = {}
        # Of each chain the last batch that overtook another: nothing before it may be sent again.
        self._overtaking: dict[_Key, Sealed] = {}

    def sent(self, node: int, pieces: Sequence[Piece], now: float = 0.0) -> None:
        places = [piece.place for piece in pieces]
        if len(set(places)) < len(places):
            raise Broken(f"twice in one request: {places}")
        if len(pieces) > 1 and sum(piece.sealed.size for piece in pieces) > self._rules.max_request_size:
            raise Broken(f"a request beyond max_request_size: {[piece.sealed.size for piece in pieces]}")
        for piece in pieces:
            self._check_size(piece.sealed)
            self._check_pace(node, piece.sealed, now)
            self._check_in_flight(node, piece)
            if self._rules.idempotent:
                self._check_window(piece)
            self._flights.setdefault(piece.place, []).append(_Flight(piece.sealed, node))

    def disconnected(self, node: int) -> None:
        """A batch may go to the next connection at once. The client paces connections, not the core."""
        self._paces = {key: times for key, times in self._paces.items() if key[1] != node}

    def _check_pace(self, node: int, sealed: Sealed, now: float) -> None:
        times = self._paces.setdefault((sealed.values, node), [])
        times[:] = [then for then in times if then > now - 1.0]
        times.append(now)
        if len(times) > _SENT_IN_A_SECOND:
            raise Broken(f"sent {len(times)} times in a second: {sealed}")

    def ended(
        self,
        pieces: Sequence[Piece],
        answers: Mapping[Place, PartitionResponse],
        *,
        write_started: bool = True,
    ) -> None:
        """Of a request there is an answer, or (no answer) there will be none."""
        for piece in pieces:
            flights = self._flights[piece.place]
            flights[:] = [flight for flight in flights if flight.sealed is not piece.sealed]
            if piece.sealed.values[0] in self._told:
                continue  # given up meanwhile: what becomes of it is no news
            answer = answers.get(piece.place)
            if answer is not None and answer.code == 0:
                if not self._others(piece):
                    self._trusted[piece.place] = piece.sealed.producer_id, piece.sealed.epoch
            elif write_started:
                self._trusted.pop(piece.place, None)

    def _others(self, piece: Piece) -> list[_Flight]:
        """What is in flight for the partition, and not given up."""
        return [one for one in self._flights.get(piece.place, ()) if one.sealed.values[0] not in self._told]

    def _check_size(self, sealed: Sealed) -> None:
        if len(sealed.values) > 1 and sealed.size > self._rules.batch_size:
            raise Broken(f"a batch beyond batch_size: {sealed}")
        if sealed.size < MESSAGE_SIZE * len(sealed.values) + BATCH_OVERHEAD:
            raise Broken(f"a batch without its overhead: {sealed}")

    def _check_in_flight(self, node: int, piece: Piece) -> None:
        others = self._others(piece)
        if not others:
            return
        sealed = piece.sealed
        if not self._rules.idempotent:
            raise Broken(f"two in flight without idempotence: {sealed} beside {others[0].sealed}")
        if self._trusted.get(piece.place) != (sealed.producer_id, sealed.epoch):
            raise Broken(f"two in flight before an acknowledgement: {sealed} beside {others[0].sealed}")
        if any(other.node != node for other in others):
            raise Broken(f"in flight to two brokers: {sealed} and {others[0].sealed}")
        if len(others) >= _IN_FLIGHT:
            raise Broken(f"the {len(others) + 1}th in flight: {sealed}")

    def _check_window(self, piece: Piece) -> None:
        """By distance: what is already appended counts until the client knows.

        Alone a batch may go further ahead, if what it overtakes was refused and is sealed again: under this
        chain nothing before it may be sent any more.
        """
        sealed = piece.sealed
        key = piece.place, sealed.producer_id, sealed.epoch
        last = self._overtaking.get(key)
        if last is not None and _distance(sealed, last) < 0:
            raise Broken(f"{sealed} again, and {last} has overtaken it")
        chain = self._chains.setdefault(key, [])
        place = _put(chain, sealed)
        ahead = chain[place - _IN_FLIGHT] if place >= _IN_FLIGHT else None
        if ahead is not None and ahead.values[0] not in self._told:
            if self._others(piece):
                raise Broken(f"{sealed} before {ahead} is settled")
            self._overtaking[key] = sealed


def _put(chain: list[Sealed], sealed: Sealed) -> int:
    """Put a batch into its place among the latest of its chain, instead of those that it is a part of, or
    consists of; return the place."""
    place = len(chain)
    while place and _distance(sealed, chain[place - 1]) < len(chain[place - 1].values):
        place -= 1
    end = place
    while end < len(chain) and _distance(chain[end], sealed) < len(sealed.values):
        end += 1
    chain[place:end] = [sealed]
    return place


def _distance(later: Sealed, earlier: Sealed) -> int:
    """By how many sequence numbers one begins after the other; less than 0 if it begins before it."""
    return (later.sequence - earlier.sequence + SEQUENCES // 2) % SEQUENCES - SEQUENCES // 2
