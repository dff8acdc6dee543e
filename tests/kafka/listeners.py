"""Where a node listens: protocols, log-ins and certificates, each on a loopback port of its own."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import socket
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

USER, PASSWORD = "alice", "alice's secret"

_COMMON = "org.apache.kafka.common.security"
_LOGIN = {
    "PLAIN": f'{_COMMON}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
    "SCRAM-SHA-256": f"{_COMMON}.scram.ScramLoginModule required;",
    "SCRAM-SHA-512": f"{_COMMON}.scram.ScramLoginModule required;",
    # Tokens without a signature, which any client can make. The broker's own is never used.
    "OAUTHBEARER": f"{_COMMON}.oauthbearer.OAuthBearerLoginModule required"
    ' unsecuredLoginStringClaim_sub="kafka";',
}


class Listener(NamedTuple):
    """One listener of a node.

    Attributes:
        protocol: its security protocol.
        settings: those that are its own (without prefix).
        advertised: the ``host:port`` that clients are told, if it is to be another than where it is.
    """

    protocol: str = "PLAINTEXT"
    settings: Mapping[str, str] = MappingProxyType({})
    advertised: str | None = None


def sasl(*mechanisms: str, **settings: str) -> Listener:
    """Log-ins of `USER` by `PASSWORD`, or with OAUTHBEARER by a token that nobody has signed.

    In `settings`, such as ``connections_max_reauth_ms``, ``_`` stands for Kafka's ``.``.
    """
    return Listener(
        "SASL_PLAINTEXT",
        {
            "sasl.enabled.mechanisms": ",".join(mechanisms),
            **{f"{one.lower()}.sasl.jaas.config": _LOGIN[one] for one in mechanisms},
            **dotted(settings),
        },
    )


def unsigned_token(user: str = USER, lasts: float = 3600) -> str:
    """A token for a listener with OAUTHBEARER: a JWT without a signature, good for `lasts` seconds."""
    now = time.time()
    # A token that is issued now may come from the future, by Kafka's rounding.
    parts = ({"alg": "none"}, {"sub": user, "iat": now - 60, "exp": now + lasts})
    return "".join(
        base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") + "." for one in parts
    )


def tls(pem: Path, clients: Path | None = None, **settings: str) -> Listener:
    """TLS by a private key (PKCS 8) with its certificate, and only for clients that have one themselves.

    Args:
        pem (Path): the key and the certificate.
        clients (Path | None): the authority of the clients' certificates; None asks for no certificate.
        **settings: more of the listener's, with ``_`` for Kafka's ``.``.
    """
    mutual = {
        "ssl.client.auth": "required",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(clients),
    }
    return Listener(
        "SSL",
        {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(pem),
            **(mutual if clients else {}),
            **dotted(settings),
        },
    )


def sasl_over(secure: Listener, login: Listener) -> Listener:
    """The log-ins of `login` over the TLS of `secure`."""
    return Listener("SASL_SSL", {**secure.settings, **login.settings})


def dotted(settings: Mapping[str, str]) -> dict[str, str]:
    """Kafka's names for `settings`: ``_`` stands for its ``.``, save in a name that has a dot already."""
    return {name if "." in name else name.replace("_", "."): value for name, value in settings.items()}


def listener_settings(
    listeners: Mapping[str, Listener],
    own_ports: Mapping[str, int],
    ports: Mapping[str, int],
    hidden: str | None,
) -> dict[str, str]:
    """A node's settings for `listeners`, and for a plain one named `hidden` that clients are not told of.

    It listens on `own_ports`; others reach it on `ports`. Only where these differ, other nodes are told of
    the hidden one, which Kafka allows from 3.9 on (KIP-853).
    """
    protocols = {name: listener.protocol for name, listener in listeners.items()}
    inside = {hidden: "PLAINTEXT"} if hidden else {}
    told = any(ports[name] != own_ports[name] for name in inside)
    elsewhere = {name: listener.advertised for name, listener in listeners.items() if listener.advertised}
    return {
        "listeners": _urls([*listeners, *inside], _addresses(own_ports)),
        "advertised.listeners": _urls(
            [*listeners, *(inside if told else ())], {**_addresses(ports), **elsewhere}
        ),
        "listener.security.protocol.map": ",".join(
            f"{name}:{protocol}" for name, protocol in {**protocols, **inside}.items()
        ),
        **{
            f"listener.name.{name.lower()}.{setting}": value
            for name, listener in listeners.items()
            for setting, value in listener.settings.items()
        },
    }


def _addresses(ports: Mapping[str, int]) -> dict[str, str]:
    return {name: f"127.0.0.1:{port}" for name, port in ports.items()}


def _urls(names: Collection[str], addresses: Mapping[str, str]) -> str:
    return ",".join(f"{name}://{addresses[name]}" for name in names)


def free_ports(names: Collection[str], nodes: int) -> list[dict[str, int]]:
    """For each of so many nodes, a port that nobody listens on for each of `names`.

    They are below the range from which the system takes the ports of outgoing connections (32768 on
    Linux): a client that keeps trying a port of that range while its broker is down may in the end be
    connected to itself, and then the broker cannot come back.
    """
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < nodes * len(names):
            listener = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):  # taken: try another
                listener.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
                found.append(listener.getsockname()[1])
    numbers = iter(found)
    return [{name: next(numbers) for name in names} for _ in range(nodes)]
