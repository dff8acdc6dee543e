"""The checks of single options that no general check fits: addresses, callables, codecs, sockets.

Like those of `_checks`, each is called as ``check(name, given)`` and returns what the package works with.
Only here and in `_security` is kafka-python imported, and only when an option needs it.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from .._instruments import Instrument, overridden
from ._checks import (
    accepts,
    duration,
    function,
    instance_of,
    integer,
    is_async,
    one_of,
    secret,
    shown,
    text,
    wrong_type,
    wrong_value,
)
from ._security import PROTOCOLS

DEFAULT_PORT = 9092

#: Frame lengths and the timeouts in requests are 32-bit integers in Kafka's protocol.
INT32 = 2**31 - 1
#: Lengths of strings are 16-bit integers.
INT16 = 2**15 - 1

Serializer = Callable[[str, Any], "bytes | None"]

# ---------------------------------------------------------------------------------------------------------
# Addresses


def addresses(given: Any, protocol: str) -> tuple[tuple[str, int], ...]:
    """Every address in the order given, each once. Empty entries, as in ``"a:1,"``, are skipped.

    `protocol` is empty if it is not known, because the one that was given is wrong.
    """
    allowed = "'host:port', several joined by commas, or an iterable of such strings"
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise wrong_type("bootstrap_servers", given, allowed)
    found: dict[tuple[str, int], None] = {}
    for item in [given] if isinstance(given, str) else given:
        if not isinstance(item, str):
            raise wrong_type("bootstrap_servers", item, allowed)
        parts = [part.strip() for part in item.split(",")]
        found.update((_address(part, protocol), None) for part in parts if part)
    if not found:
        raise ValueError(f"bootstrap_servers must name at least one address, got {shown(given)}")
    return tuple(found)


_ADDRESS = re.compile(
    r"(?:(?P<listener>[A-Z0-9_]+)://)?(?P<host>\[[^\[\]]+\]|[\w.-]+)(?::(?P<port>[0-9]{1,5}))?"
)


def _address(given: str, protocol: str) -> tuple[str, int]:
    if _is_ipv6(given):
        return given, DEFAULT_PORT
    match = _ADDRESS.fullmatch(given)
    if match is None:
        raise wrong_value("bootstrap_servers", given, "'host:port', 'host' or '[IPv6 address]:port'")
    host, port = match["host"], int(match["port"] or DEFAULT_PORT)
    if host.startswith("["):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise wrong_value("bootstrap_servers", given, "an IPv6 address inside the brackets")
    if not 1 <= port <= 65535:
        raise wrong_value("bootstrap_servers", given, "'host:port' with a port from 1 to 65535")
    if not _is_name(host):
        raise wrong_value("bootstrap_servers", given, "a host name that can be looked up")
    # Kafka writes listeners as PROTOCOL://host:port or NAME://host:port; only a protocol can contradict.
    if protocol and match["listener"] in PROTOCOLS and match["listener"] != protocol:
        raise ValueError(f"bootstrap_servers names {given!r}, but security_protocol is {protocol!r}")
    return host, port


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _is_name(host: str) -> bool:
    # The resolver does this first, and its error for a bad name, such as an empty label, is no OSError.
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


# ---------------------------------------------------------------------------------------------------------
# Callables


def serializer(name: str, given: Any) -> Serializer:
    """A plain ``f(object)``, or kafka-python's Serializer, as ``f(topic, object)``."""
    method = getattr(given, "serialize", None)
    if not callable(method):
        plain = function(1)(name, given)
        return lambda _topic, data: plain(data)
    if isinstance(given, type):
        raise wrong_type(name, given, f"an instance: {given.__name__}()")
    if accepts(method, 3):
        # kafka-python's own signature. The headers are given as a tuple, so that a serializer that wants to
        # add one fails loudly: it would not be sent.
        serialize = function(3)(f"{name}.serialize", method)
        return lambda topic, data: serialize(topic, (), data)
    older = function(2)(f"{name}.serialize", method)  # that of kafka-python before 3
    return lambda topic, data: older(topic, data)


def partitioner(name: str, given: Any) -> Any:
    """A kafka-python Partitioner, or such a class, or the older ``f(key, all_partitions, available)``."""
    allowed = "a kafka.partitioner.Partitioner, or f(key, all_partitions, available_partitions)"
    if isinstance(given, type) and hasattr(given, "partition"):
        given = given()
    if isinstance(given, (type, str, bytes)):  # text has a method `partition`, too
        raise wrong_type(name, given, allowed)
    if hasattr(given, "partition"):
        function(6)(f"{name}.partition", given.partition)
    elif not callable(given):
        raise wrong_type(name, given, allowed)
    else:
        function(3)(name, given)
    return given


def instruments(name: str, given: Any) -> tuple[Instrument, ...]:
    if isinstance(given, Instrument):
        raise TypeError(f"{name} must be a tuple of instruments: write ({shown(given)},)")
    if not isinstance(given, Iterable):
        raise wrong_type(name, given, "a tuple of instruments")
    return tuple(_instrument(f"{name}[{index}]", one) for index, one in enumerate(given))


def _instrument(name: str, given: Any) -> Instrument:
    if not isinstance(given, Instrument):
        raise wrong_type(name, given, "an instance of a class derived from trio_kprod.Instrument")
    for hook, call in overridden(given).items():
        if not callable(call):
            raise TypeError(f"{name}.{hook} must be a method, because {hook} is a hook, got {shown(call)}")
        if is_async(call):
            raise TypeError(f"{name}.{hook} must be a plain method: it is called without await, but is async")
    return given


def logger(name: str, given: Any) -> Any:
    if given is None:
        return logging.getLogger("trio_kprod")
    return instance_of(logging.Logger, logging.LoggerAdapter)(name, given)


# ---------------------------------------------------------------------------------------------------------
# Options with a value of their own kind


def client_id(name: str, given: Any) -> str:
    # One name for all producers of this package: brokers keep quotas and metrics by it.
    checked = "trio_kprod" if given is None else text(name, given)
    if _utf8_size(checked) > INT16:
        raise wrong_value(name, given, f"at most {INT16} bytes of UTF-8 (which has no lone surrogates)")
    return checked


def _utf8_size(given: str) -> float:
    try:
        return len(given.encode())
    except UnicodeEncodeError:
        return math.inf


_CODECS = {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}  # Kafka's numbers


def compression(name: str, given: Any) -> int:
    codec: int = one_of(_CODECS)(name, given)
    if given is not None:
        from kafka import codec as codecs

        if not getattr(codecs, f"has_{given}")():
            raise ModuleNotFoundError(
                f"{name}={given!r} needs a package that is not installed: install trio_kprod[compression]"
            )
    return codec


#: The levels of each codec that has any, as KIP-390 has them. zstd's negative ones are faster and compress
#: less. For liblz4 0, 1 and 2 are the same, and so are 12 to 17; its own level is 0.
_LEVELS = {"gzip": (1, 9), "lz4": (0, 17), "zstd": (-131_072, 22)}
_ZLIBS_OWN = -1


def check_level(level: int, codec: str | None) -> None:
    name = "compression_level"
    if codec not in _LEVELS:
        raise ValueError(f"{name} has no effect with compression_type={codec!r}: use 'gzip', 'lz4' or 'zstd'")
    least, most = _LEVELS[codec]
    if not least <= level <= most and (codec, level) != ("gzip", _ZLIBS_OWN):
        allowed = f"from {least} to {most} with compression_type={codec!r}"
        raise wrong_value(name, level, allowed)
    if codec == "lz4" and importlib.util.find_spec("lz4") is None:
        # kafka-python also takes older packages for lz4, each with its own way to give a level.
        raise ModuleNotFoundError(
            f"{name} with compression_type='lz4' needs a package that is not installed: "
            "install trio_kprod[compression]",
            name="lz4",
        )


def batch_size(name: str, given: Any) -> int:
    # Kafka's 0 means no batching; so does a batch that is full with one byte.
    return max(1, integer(0, INT32)(name, given))


def shutdown_timeout(name: str, given: Any) -> float:
    if given == math.inf:
        raise ValueError(
            f"{name} must be finite, got {given!r}: the block always ends. To wait without a limit, "
            "`await producer.flush()` at the end of the block; this can be cancelled"
        )
    return duration(zero=True)(name, given)


def socket_options(name: str, given: Any) -> tuple[tuple[int, int, int], ...]:
    if not isinstance(given, Iterable):
        raise wrong_type(name, given, _SOCKET_OPTIONS)
    return tuple(_socket_option(name, one) for one in given)


_SOCKET_OPTIONS = "a list of tuples of three integers (level, option, value), as socket.setsockopt takes"


def _socket_option(name: str, given: Any) -> tuple[int, int, int]:
    if not isinstance(given, Sequence) or len(given) != 3 or not all(isinstance(one, int) for one in given):
        raise wrong_type(name, given, _SOCKET_OPTIONS)
    level, option, value = given
    return int(level), int(option), int(value)


_PROXY_SCHEMES = ("socks5", "socks5h", "http")


def proxy_url(name: str, given: Any) -> str:
    # A proxy's URL may hold a password, so it is not shown.
    url = secret(name, given)
    if not _is_proxy(url):
        raise ValueError(f"{name} must be like 'socks5://host:port' (or socks5h, or http)")
    if importlib.util.find_spec("python_socks") is None:
        raise ModuleNotFoundError(
            f"{name} needs a package that is not installed: install trio_kprod[proxy]", name="python_socks"
        )
    return url


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and bool(parts.port)
    except ValueError:  # a port that is no number, brackets that do not close
        return False
