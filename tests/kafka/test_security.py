"""TLS and SASL against a real Kafka: delivered with the right credentials, refused at once with others."""

from __future__ import annotations

import pytest
import trustme

import trio_kprod
from tests.kafka.cluster import Cluster
from tests.kafka.helpers import assert_once_in_order, produce_numbers
from tests.kafka.listeners import PASSWORD, USER

MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


async def test_tls(secured: Cluster, authority: trustme.CA) -> None:
    topic = secured.new_topic()
    with authority.cert_pem.tempfile() as cafile:
        await produce_numbers(
            secured.servers("TLS"), topic, range(5_000), security_protocol="SSL", ssl_cafile=cafile
        )
    assert_once_in_order(secured.read(topic), range(5_000))


async def test_a_certificate_nobody_trusts(secured: Cluster) -> None:
    with (
        trustme.CA().cert_pem.tempfile() as cafile,
        pytest.raises(trio_kprod.ConnectFailed, match="certificate"),
    ):
        await produce_numbers(secured.servers("TLS"), "topic", [], security_protocol="SSL", ssl_cafile=cafile)


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_sasl(secured: Cluster, mechanism: str) -> None:
    topic = secured.new_topic()
    await _produce_with(secured, mechanism, PASSWORD, topic)
    assert_once_in_order(secured.read(topic), range(5_000))


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_wrong_password(secured: Cluster, mechanism: str) -> None:
    with pytest.raises(trio_kprod.ConnectFailed, match=r"(?i)authentication"):
        await _produce_with(secured, mechanism, "wrong", "topic")


async def _produce_with(cluster: Cluster, mechanism: str, password: str, topic: str) -> None:
    await produce_numbers(
        cluster.servers("SASL"),
        topic,
        range(5_000),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism=mechanism,
        sasl_plain_username=USER,
        sasl_plain_password=password,
    )
