"""What only these tests need: a Kafka that may be broken, one with three nodes, one with TLS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.conftest import mark_kafka, without_kafka
from tests.kafka.cluster import Cluster
from tests.kafka.history import History
from tests.kafka.jars import Unavailable
from tests.kafka.listeners import sasl, tls


def pytest_itemcollected(item: pytest.Item) -> None:
    """Everything in this directory is about a real Kafka."""
    mark_kafka(item)


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """One node of our own, apart from the one all other tests share."""
    yield from own()


@pytest.fixture
def breakable(own_cluster: Cluster) -> Iterator[Cluster]:
    """A node that a test may kill or freeze; it runs again before the next one."""
    yield own_cluster
    own_cluster.restore()


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Cluster]:
    """Three nodes, of which a test may kill or freeze one."""
    yield from own(3)


@pytest.fixture
def history(request: pytest.FixtureRequest) -> History:
    """Under the name of the test."""
    return History(request.node.name)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The certificate authority of the node with TLS."""
    return trustme.CA()


@pytest.fixture(scope="module")
def secured(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node that also listens with TLS and with SASL."""
    pem = key_and_certificate(authority, tmp_path_factory.mktemp("tls") / "kafka.pem")
    yield from own(listeners={"TLS": tls(pem), "SASL": sasl("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")})


def own(nodes: int = 1, **options: Any) -> Iterator[Cluster]:
    """A `Cluster` with these options, for a fixture; skips, saying why, where there is none to be had."""
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        pytest.skip("KAFKA_BOOTSTRAP_SERVERS names someone else's Kafka, which is not ours to break")
    try:
        cluster = Cluster(nodes, **options)
    except Unavailable as error:
        without_kafka(str(error))
    with cluster:
        yield cluster


def key_and_certificate(
    authority: trustme.CA, path: Path, *names: str, not_after: datetime | None = None
) -> Path:
    """Write one PEM file as Kafka reads it: the key must be PKCS 8, which trustme's is not."""
    issued = authority.issue_cert(*(names or ("127.0.0.1", "localhost")), not_after=not_after)
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    )
    return path
