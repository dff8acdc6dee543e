"""What is cut off is held until the network heals, and nothing else, shown with a peer that echoes."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.kafka.network import CLIENTS, INSIDE, Network
from tests.kafka.node import CONTROLLER


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1_000):
            self.request.sendall(data)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def node(network: Network) -> Iterator[dict[str, int]]:
    """The ports where others reach node 1, all of whose listeners are one that echoes."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        own = int(server.server_address[1])
        yield network.before(1, {INSIDE: own, CLIENTS: own, CONTROLLER: own, "PLAINTEXT": own})
        server.shutdown()


class Caller:
    """A connection whose requests have this client id."""

    def __init__(self, port: int, client_id: bytes) -> None:
        self._request = struct.pack(">ihhih", 10 + len(client_id), 18, 0, 1, len(client_id)) + client_id
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.ask()

    def ask(self) -> None:
        self._socket.sendall(self._request)

    def answered(self) -> bool:
        """Whether an answer has come, or comes in a tenth of a second."""
        self._socket.settimeout(0.1)
        try:
            return self._socket.recv(len(self._request)) == self._request
        except TimeoutError:
            return False

    def wait_for_answer(self) -> None:
        self._socket.settimeout(10)
        assert self._socket.recv(len(self._request)) == self._request

    def close(self) -> None:
        self._socket.close()


def test_other_listeners_are_reached_directly(network: Network) -> None:
    assert network.before(1, {"PLAINTEXT": 1234}) == {"PLAINTEXT": 1234}


@pytest.mark.parametrize("client_id", [b"broker-2-fetcher-0", b"raft-client-2", b"2"])
def test_a_node_that_is_isolated(network: Network, node: dict[str, int], client_id: bytes) -> None:
    """Others do not reach it, on old connections and new ones; it reaches itself, and clients reach it."""
    with closing(Caller(node[CONTROLLER], client_id)) as other:
        other.wait_for_answer()
        network.isolate(1)
        other.ask()
        with (
            closing(Caller(node[INSIDE], client_id)) as new,
            closing(Caller(node[CONTROLLER], b"raft-client-1")) as itself,
            closing(Caller(node[CLIENTS], b"2")) as client,
        ):
            itself.wait_for_answer()
            client.wait_for_answer()
            assert not other.answered()
            assert not new.answered()
            network.heal()
            other.wait_for_answer()
            new.wait_for_answer()


def test_a_node_that_is_hidden(network: Network, node: dict[str, int]) -> None:
    """Clients do not reach it, and other nodes do."""
    network.hide(1)
    with closing(Caller(node[CLIENTS], b"2")) as client, closing(Caller(node[INSIDE], b"2")) as other:
        other.wait_for_answer()
        assert not client.answered()
        network.heal()
        client.wait_for_answer()


def test_others_go_on_while_a_node_is_isolated(network: Network, node: dict[str, int]) -> None:
    network.isolate(2)
    with closing(Caller(node[INSIDE], b"broker-3-fetcher-0")) as other:
        other.wait_for_answer()
        network.heal()


def test_a_connection_that_ends_before_it_says_who_it_is(network: Network, node: dict[str, int]) -> None:
    socket.create_connection(("127.0.0.1", node[INSIDE])).close()
    with closing(Caller(node[INSIDE], b"2")) as other:
        other.wait_for_answer()
