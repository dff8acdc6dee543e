"""No password and no token is told: not in logs, errors, reprs or statistics."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography.hazmat.primitives import serialization as keys

import trio_kprod
from tests.overheard import Overheard, overhearing
from trio_kprod._settings import make_settings
from trio_kprod.testing import open_broker

SECRET, WRONG = "correct horse battery", "mallory's guess"

SASL = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class Tokens:
    def token(self) -> str:
        return SECRET


def login(mechanism: str, password: str) -> dict[str, Any]:
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "ada",
        "sasl_plain_password": password,
    }


async def failure(servers: str, options: dict[str, Any]) -> BaseException:
    with trio.fail_after(20), pytest.raises(trio_kprod.ConnectFailed) as caught:
        async with trio_kprod.open_producer(servers, **options):
            pytest.fail("must not be entered")
    return caught.value


@pytest.mark.parametrize("mechanism", SASL)
async def test_passwords(mechanism: str, caplog: pytest.LogCaptureFixture) -> None:
    """Right and wrong ones, at listeners that want them, and at one that wants none."""
    with (
        overhearing(caplog) as heard,
        open_broker(sasl_users={"ada": SECRET}) as broker,
        open_broker() as other,
    ):
        async with trio_kprod.open_producer(broker.bootstrap_servers, **login(mechanism, SECRET)) as producer:
            await producer.send_and_wait("t", b"x")
            heard.producer(producer)
        heard.error(await failure(broker.bootstrap_servers, login(mechanism, WRONG)))
        heard.error(await failure(other.bootstrap_servers, login(mechanism, WRONG)))
        unknown = {**login(mechanism, WRONG), "sasl_plain_username": "eve"}
        heard.error(await failure(broker.bootstrap_servers, unknown))
    assert heard.has_any_of([SECRET, WRONG]) == []


async def test_tokens(caplog: pytest.LogCaptureFixture) -> None:
    options = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauth_token_provider": Tokens(),
    }
    with overhearing(caplog) as heard, open_broker(sasl_users={"ada": "other"}) as broker:
        heard.error(await failure(broker.bootstrap_servers, options))
    assert heard.has_any_of([SECRET]) == []


def test_settings(tmp_path: Path) -> None:
    """Those that are right, and errors of those that are wrong, which show what was given of others."""
    issued = trustme.CA().issue_cert("me")
    key = keys.load_pem_private_key(issued.private_key_pem.bytes(), None)
    scheme = keys.BestAvailableEncryption(SECRET.encode())
    encrypted = key.private_bytes(keys.Encoding.PEM, keys.PrivateFormat.PKCS8, scheme)
    path = tmp_path / "me.pem"
    path.write_bytes(encrypted + b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    tls = {"security_protocol": "SSL", "ssl_certfile": str(path)}
    heard = Overheard()
    heard.texts.append(("settings", repr(make_settings(client_config={**tls, "ssl_password": SECRET}))))
    heard.texts.append(("settings", repr(make_settings(client_config=login("PLAIN", SECRET)))))
    for wrong in (
        {**tls, "ssl_password": WRONG},
        {"ssl_password": WRONG},
        {**login("PLAIN", WRONG), "security_protocol": "PLAINTEXT"},
        {**login("plain", WRONG)},
        {**login("PLAIN", WRONG), "sasl_plain_username": None},
    ):
        with pytest.raises(ValueError) as caught:
            make_settings(client_config=wrong)
        heard.error(caught.value)
    assert heard.has_any_of([SECRET, WRONG]) == []


async def test_this_would_be_heard(caplog: pytest.LogCaptureFixture) -> None:
    """Where these tests listen."""
    logger = logging.getLogger("somebody.else")
    with overhearing(caplog) as heard, open_broker() as broker:
        logger.debug("the password is %r", SECRET)
        try:
            raise ValueError("no") from KeyError(SECRET)
        except ValueError as error:
            logger.debug("failed", exc_info=True)
            heard.error(error)
        async with trio_kprod.open_producer(broker.bootstrap_servers, client_id=WRONG) as producer:
            heard.producer(producer)
    assert {where for where, _ in heard.has_any_of([SECRET])} == {"the log", "error"}
    assert "a Settings" in {where for where, _ in heard.has_any_of([WRONG])}
    encoded = Overheard()
    encoded.texts.append(("the log", "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5"))
    assert encoded.has_any_of([SECRET])
