"""What errors of TLS mean that depend on OpenSSL's version, or on what goes wrong on the other side."""

from __future__ import annotations

import ssl

import pytest

from trio_kprod._client._diagnosis import of_tls


def tls_error(reason: str | None) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}]\nin words")
    error.reason = reason  # type: ignore[assignment]
    return error


@pytest.mark.parametrize(
    ("reason", "what", "fatal", "lasting"),
    [
        ("WRONG_VERSION_NUMBER", "the response is no TLS: ", False, True),
        ("RECORD_LAYER_FAILURE", "the response is no TLS: ", False, True),
        ("PACKET_LENGTH_TOO_LONG", "the response is no TLS: ", False, True),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "the broker refuses our versions of TLS: ", False, True),
        ("UNSUPPORTED_PROTOCOL", "this client refuses the broker's version of TLS: ", False, True),
        ("NO_PROTOCOLS_AVAILABLE", "this client has no version of TLS to offer: ", False, True),
        ("TLSV1_ALERT_INSUFFICIENT_SECURITY", "the broker refuses our ciphers: ", False, True),
        ("TLSV1_ALERT_UNKNOWN_CA", "the broker wants a certificate of ours: ", True, False),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "the broker wants a certificate of ours: ", True, False),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "the broker wants a certificate of ours: ", True, False),
        ("TLSV1_ALERT_INTERNAL_ERROR", "", False, False),
        ("TLSV1_ALERT_USER_CANCELLED", "", False, False),
        ("TLSV1_UNRECOGNIZED_NAME", "", False, True),
        (None, "", False, True),
    ],
)
def test_who_refused_whom(reason: str | None, what: str, fatal: bool, lasting: bool) -> None:
    """OpenSSL's words come last, in one line. A server that is in trouble itself may be well soon."""
    found = of_tls(tls_error(reason), "SSL", None)
    assert found.what == f"{what}[SSL: {reason}] in words"
    assert (found.fatal, found.lasting) == (fatal, lasting)
    assert bool(found.advice) == bool(what)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (3, "ssl_crlfile has no list"),
        (9, "is not valid yet"),
        (10, "has expired: renew it"),
        (12, "the list in ssl_crlfile has expired"),
        (18, "give the authority"),
        (23, "has been revoked"),
        (62, "for another name"),
        (64, "for another address"),
    ],
)
def test_what_to_do_about_their_certificate(code: int, advice: str) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    found = of_tls(error, "SSL", None)
    assert found.what.startswith("this client refuses the broker's certificate: ")
    assert advice in found.advice
    assert found.fatal
