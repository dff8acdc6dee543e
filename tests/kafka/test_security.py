"""TLS and SASL against a real Kafka: what is right delivers, what is wrong is told at once with what to do.

Each client tries each kind of port. All of it is on one node with a listener of each kind.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

import trio_kprod
from tests.kafka.cluster import PATIENCE, Cluster
from tests.kafka.conftest import own
from tests.kafka.helpers import produce_with_kafka_python
from tests.kafka.history import History
from tests.kafka.listeners import PASSWORD, USER, sasl, sasl_over, tls, unsigned_token
from tests.kafka.load import send_some
from tests.overheard import overhearing

#: How many messages a client that may deliver sends.
MESSAGES = 500

#: After how many seconds a listener with SASL wants a new proof.
SESSION = 3

WRONG_ONE, NO_TOKEN = "mallory's guess", "not-a-token"

PAST = datetime(2020, 1, 1, tzinfo=timezone.utc)

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


class Files(NamedTuple):
    """Certificates: that of the authority, and of another; ours, one of the other's, one that has expired."""

    authority: str
    other_authority: str
    ours: str
    others: str
    expired: str


class Tokens:
    """Gives tokens that nobody has signed, or raises."""

    def __init__(self, token: str | None = None, error: Exception | None = None) -> None:
        self.given: list[str] = []
        self._token = token
        self._error = error

    def token(self) -> str:
        if self._error is not None:
            raise self._error
        self.given.append(self._token or unsigned_token())
        return self.given[-1]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The certificate authority of the node with TLS."""
    return trustme.CA()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Files:
    folder = tmp_path_factory.mktemp("clients")
    other = trustme.CA()
    blobs = {
        "authority": authority.cert_pem,
        "other_authority": other.cert_pem,
        "ours": authority.issue_cert("orders.example").private_key_and_cert_chain_pem,
        "others": other.issue_cert("orders.example").private_key_and_cert_chain_pem,
        "expired": authority.issue_cert("orders.example", not_after=PAST).private_key_and_cert_chain_pem,
    }
    for name, blob in blobs.items():
        blob.write_to_path(folder / f"{name}.pem")
    return Files(**{name: str(folder / f"{name}.pem") for name in blobs})


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA, files: Files
) -> Iterator[Cluster]:
    """One node that listens in every way."""
    folder = tmp_path_factory.mktemp("node")
    pem = key_and_certificate(authority, folder / "node.pem")
    expired = key_and_certificate(authority, folder / "expired.pem", not_after=PAST)
    elsewhere = key_and_certificate(authority, folder / "elsewhere.pem", "elsewhere.example")
    login = sasl(*MECHANISMS, connections_max_reauth_ms=str(SESSION * 1000))
    listeners = {
        "SSL": tls(pem),
        "MUTUAL": tls(pem, Path(files.authority)),
        "MUTUAL12": tls(pem, Path(files.authority), ssl_enabled_protocols="TLSv1.2"),
        "TLS12": tls(
            pem,
            ssl_enabled_protocols="TLSv1.2",
            ssl_cipher_suites="TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ),
        "TLS13": tls(pem, ssl_enabled_protocols="TLSv1.3"),
        "EXPIRED": tls(expired),
        "ELSEWHERE": tls(elsewhere),
        "SASL_PLAINTEXT": login,
        "SASL_SSL": sasl_over(tls(pem), login),
        "SCRAM_ONLY": sasl("SCRAM-SHA-256"),
    }
    yield from own(listeners=listeners)


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


def client(protocol: str, files: Files, mechanism: str = "PLAIN", password: str = PASSWORD) -> dict[str, Any]:
    """The settings of a client that does everything right."""
    options: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        options["ssl_cafile"] = files.authority
    if protocol.startswith("SASL_"):
        options["sasl_mechanism"] = mechanism
        if mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = Tokens()
        else:
            options |= {"sasl_plain_username": USER, "sasl_plain_password": password}
    return options


# ---------------------------------------------------------------------------------------------------------
# What is right

RIGHT: list[tuple[str, str, dict[str, Any]]] = [
    ("PLAINTEXT", "PLAINTEXT", {}),
    ("SSL", "SSL", {}),
    ("SSL", "TLS12", {}),
    ("SSL", "TLS13", {}),
    ("SSL", "MUTUAL", {"ssl_certfile": "ours"}),
    ("SSL", "MUTUAL12", {"ssl_certfile": "ours"}),
    *(("SASL_PLAINTEXT", "SASL_PLAINTEXT", {"mechanism": one}) for one in MECHANISMS),
    *(("SASL_SSL", "SASL_SSL", {"mechanism": one}) for one in MECHANISMS),
]


@pytest.mark.parametrize(
    ("protocol", "port", "more"), RIGHT, ids=[f"{port}-{'-'.join(more.values())}" for _, port, more in RIGHT]
)
async def test_what_is_right_delivers(
    protocol: str, port: str, more: dict[str, Any], cluster: Cluster, files: Files
) -> None:
    options = client(protocol, files, more.get("mechanism", "PLAIN"))
    if "ssl_certfile" in more:
        options["ssl_certfile"] = getattr(files, more["ssl_certfile"])
    topic = cluster.new_topic(partitions=2)
    history = History(f"{port} {more.get('mechanism', '')}".strip())
    async with history.open_producer(cluster.servers(port), **options) as producer:
        await send_some(history, producer, topic, MESSAGES)
    history.check(cluster, topic)


@pytest.mark.parametrize(
    ("protocol", "mechanism"), [("SSL", ""), *(("SASL_PLAINTEXT", one) for one in MECHANISMS[:3])]
)
def test_another_client_delivers(protocol: str, mechanism: str, cluster: Cluster, files: Files) -> None:
    """What is told to be wrong below is not wrong with the broker."""
    topic = cluster.new_topic()
    settings = client(protocol, files, mechanism)
    produce_with_kafka_python(cluster.servers(protocol), topic, 1, **settings)
    assert cluster.end_offsets(topic) == {0: 1}


class Connections(trio_kprod.Instrument):
    def __init__(self) -> None:
        self.made = 0
        self.lost: list[BaseException | None] = []

    def connected(self, *, broker: str) -> None:
        self.made += 1

    def disconnected(self, *, broker: str, error: BaseException | None) -> None:
        self.lost.append(error)


async def test_a_new_proof_every_three_seconds(cluster: Cluster, files: Files) -> None:
    """By a new token, on connections that stay; with and without TLS at the same time."""
    history, topic = History("a new proof every 3 s"), cluster.new_topic(partitions=2)
    seen = [Connections(), Connections()]

    async def deliver(protocol: str, watch: Connections) -> None:
        options = client(protocol, files, "OAUTHBEARER")
        tokens = options["sasl_oauth_token_provider"]
        async with history.open_producer(
            cluster.servers(protocol), instruments=[watch], delivery_threshold=1, **options
        ) as producer:
            with trio.fail_after(PATIENCE):
                while len(tokens.given) < 6:  # two connections, twice again each
                    await history.send(producer, topic, b"key")
                    await trio.sleep(0.01)
            assert not watch.lost
        assert len(set(tokens.given)) > 2

    async with trio.open_nursery() as nursery:
        for protocol, watch in zip(("SASL_PLAINTEXT", "SASL_SSL"), seen, strict=True):
            nursery.start_soon(deliver, protocol, watch)
    assert [watch.made for watch in seen] == [2, 2]
    history.check(cluster, topic)


# ---------------------------------------------------------------------------------------------------------
# What is wrong

TLS_PORT = "the port responds with a TLS alert; this is a TLS port: use security_protocol="
NO_TLS = "this port speaks Kafka's protocol without TLS; use a port that speaks TLS, or security_protocol="
LOGIN = "this listener wants SASL, and offers: "
NO_LOGIN = "this listener takes no SASL, or not now; use a listener that does, or security_protocol="
REFUSED = "authentication: authentication failed: "
CREDENTIALS = "; are sasl_plain_username and sasl_plain_password right"
THEIR_CERTIFICATE = "TLS handshake: this client refuses the broker's certificate: "
VERSIONS = "TLS handshake: the broker refuses our versions of TLS: "
CIPHERS = "TLS handshake: the broker refuses our ciphers: "
AUTHORITY = "; give the authority that signed the broker's certificate: ssl_cafile"


class Wrong(NamedTuple):
    """A client, the port it connects to, what differs from a good one, and parts of what is to be told."""

    protocol: str
    port: str
    told: tuple[str, ...]
    more: dict[str, Any]


def wrong(protocol: str, port: str, *told: str, **more: Any) -> Wrong:
    return Wrong(protocol, port, told, more)


WRONG = [
    wrong("PLAINTEXT", "SSL", TLS_PORT + "'SSL' or 'SASL_SSL'"),
    wrong("PLAINTEXT", "MUTUAL", TLS_PORT + "'SSL' or 'SASL_SSL'"),
    wrong("PLAINTEXT", "SASL_PLAINTEXT", LOGIN, *MECHANISMS, "use security_protocol='SASL_PLAINTEXT'"),
    wrong("PLAINTEXT", "SASL_SSL", TLS_PORT + "'SSL' or 'SASL_SSL'"),
    wrong("SSL", "PLAINTEXT", NO_TLS + "'PLAINTEXT' or 'SASL_PLAINTEXT'"),
    wrong("SSL", "SASL_PLAINTEXT", NO_TLS + "'PLAINTEXT' or 'SASL_PLAINTEXT'"),
    wrong("SSL", "SASL_SSL", LOGIN, *MECHANISMS, "use security_protocol='SASL_SSL'"),
    wrong("SASL_PLAINTEXT", "PLAINTEXT", NO_LOGIN + "'PLAINTEXT'"),
    wrong("SASL_PLAINTEXT", "SSL", TLS_PORT + "'SASL_SSL'"),
    wrong("SASL_PLAINTEXT", "SASL_SSL", TLS_PORT + "'SASL_SSL'"),
    wrong("SASL_SSL", "PLAINTEXT", NO_TLS + "'SASL_PLAINTEXT'"),
    wrong("SASL_SSL", "SSL", NO_LOGIN + "'SSL'"),
    wrong("SASL_SSL", "SASL_PLAINTEXT", NO_TLS + "'SASL_PLAINTEXT'"),
    *(
        wrong(port, port, f"SASL {one} {REFUSED}", CREDENTIALS, mechanism=one, password=WRONG_ONE)
        for port in ("SASL_PLAINTEXT", "SASL_SSL")
        for one in MECHANISMS[:3]
    ),
    *(
        wrong(port, port, REFUSED, "; is the token of sasl_oauth_token_provider valid", **given)
        for port in ("SASL_PLAINTEXT", "SASL_SSL")
        for given in ({"token": "expired"}, {"token": "unreadable"})
    ),
    wrong("SASL_SSL", "SASL_SSL", "sasl_oauth_token_provider raised OSError: down", token="raises"),
    wrong(
        "SASL_PLAINTEXT",
        "SCRAM_ONLY",
        "the broker does not support the mechanism PLAIN; it offers: SCRAM-SHA-256; set sasl_mechanism",
    ),
    wrong("SSL", "SSL", THEIR_CERTIFICATE, AUTHORITY, ssl_cafile="other_authority"),
    wrong("SASL_SSL", "SASL_SSL", THEIR_CERTIFICATE, AUTHORITY, ssl_cafile="other_authority"),
    wrong("SSL", "EXPIRED", THEIR_CERTIFICATE, "; the broker's certificate has expired: renew it"),
    wrong("SSL", "ELSEWHERE", THEIR_CERTIFICATE, "; the certificate is for another address: use a name"),
    *(
        wrong("SSL", port, f"TLS handshake: {what}", advice, **given)
        for port in ("MUTUAL", "MUTUAL12")
        for what, advice, given in (
            ("the broker wants a certificate of ours: ", "; give one that the broker trusts: ssl_cert", {}),
            ("the broker refuses our certificate (ssl_certfile='", "trust the", {"ssl_certfile": "others"}),
            ("the broker refuses our certificate (ssl_certfile='", "has it exp", {"ssl_certfile": "expired"}),
        )
    ),
    wrong("SSL", "TLS12", VERSIONS, "ssl.enabled.protocols", minimum_version=ssl.TLSVersion.TLSv1_3),
    wrong("SSL", "TLS13", VERSIONS, "ssl.enabled.protocols", maximum_version=ssl.TLSVersion.TLSv1_2),
    wrong("SSL", "TLS12", CIPHERS, "ssl.cipher.suites", ssl_ciphers="ECDHE+CHACHA20"),
]


def _wrong_client(case: Wrong, files: Files) -> dict[str, Any]:
    more = dict(case.more)
    token = more.pop("token", None)
    mechanism = more.pop("mechanism", "PLAIN") if token is None else "OAUTHBEARER"
    options = client(case.protocol, files, mechanism, more.pop("password", PASSWORD))
    if token is not None:
        options["sasl_oauth_token_provider"] = {
            "expired": Tokens(unsigned_token(lasts=-60)),
            "unreadable": Tokens(NO_TOKEN),
            "raises": Tokens(error=OSError("down")),
        }[token]
    for name in ("ssl_cafile", "ssl_certfile"):
        if name in more:
            options[name] = getattr(files, more.pop(name))
    if "ssl_ciphers" in more:
        options["ssl_ciphers"] = more.pop("ssl_ciphers")
    elif more:
        del options["ssl_cafile"]
        options["ssl_context"] = context = ssl.create_default_context(cafile=files.authority)
        for name, value in more.items():
            setattr(context, name, value)
    return options


def _name(case: Wrong) -> str:
    return "-".join([case.protocol, case.port, *(str(value) for value in case.more.values())])


async def _told(case: Wrong, cluster: Cluster, files: Files) -> trio_kprod.ConnectFailed:
    options, servers = _wrong_client(case, files), cluster.servers(case.port)
    with trio.fail_after(20), pytest.raises(trio_kprod.ConnectFailed) as caught:
        async with trio_kprod.open_producer(servers, connect_timeout=60, **options):
            pytest.fail("must not be entered")
    return caught.value


@pytest.mark.parametrize("case", WRONG, ids=_name)
async def test_what_is_wrong_is_told_at_once(case: Wrong, cluster: Cluster, files: Files) -> None:
    """In one line, with the cause and what to do, and long before `connect_timeout`."""
    text = str(await _told(case, cluster, files))
    assert text.startswith("cannot connect: ")
    assert "\n" not in text
    for part in case.told:
        assert part in text


async def test_no_secret_is_told(cluster: Cluster, files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is logged from DEBUG on, every error, and the repr of every object of the package."""
    secrets = [PASSWORD, WRONG_ONE, NO_TOKEN]
    history, topic = History("no secret is told"), cluster.new_topic()
    with overhearing(caplog) as heard:
        for mechanism in MECHANISMS:
            for protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
                options = client(protocol, files, mechanism)
                async with trio_kprod.open_producer(cluster.servers(protocol), **options) as producer:
                    await history.send(producer, topic)
                    await producer.flush()
                    if protocol == "SASL_SSL":
                        heard.producer(producer)
                    if mechanism == "OAUTHBEARER":
                        secrets += options["sasl_oauth_token_provider"].given

        async def hear(case: Wrong) -> None:
            heard.error(await _told(case, cluster, files))

        async with trio.open_nursery() as nursery:
            for case in WRONG:
                nursery.start_soon(hear, case)
    assert len(heard.texts) > 500
    assert heard.has_any_of(secrets) == []
    history.check(cluster, topic)
