"""The settings: every option of `open_producer`, checked and converted before any connection.

`make_settings` checks all of them. Two tables say what each option may be: `NAMED` has the options that stand
in the signature of `open_producer`, `_CONFIG` those with the names of kafka-python. A third table says which
option may not be larger than which. Times that arrive in milliseconds leave in seconds.

Everything that is wrong is found before anything is told: see `_problems`.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import math
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypedDict, get_type_hints

from .._instruments import Instrument
from .._messages import Undelivered
from . import _options
from ._checks import Check, duration, flag, function, integer, one_of, optional, whole
from ._options import INT32, Serializer
from ._other_clients import OTHERS, other, plain
from ._problems import Problems
from ._security import OPTIONS as SECURITY, make_security


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """All options in the form that the package uses: times in seconds, enumerations as numbers."""

    bootstrap_servers: tuple[tuple[str, int], ...]
    max_queue_size: int
    max_buffer_size: int
    max_buffer_bytes: int
    delivery_threshold: int
    delivery_interval: float
    delivery_timeout: float
    topic_timeout: float
    max_retries: int
    retry_backoff: float
    connect_timeout: float
    shutdown_timeout: float
    own_thread: bool
    key_serializer: Serializer | None
    value_serializer: Serializer | None
    instruments: tuple[Instrument, ...]
    on_undelivered: Callable[[Undelivered], object] | None
    logger: logging.Logger | logging.LoggerAdapter[Any]
    client_id: str
    acks: int
    compression: int
    compression_level: int | None
    batch_size: int
    max_request_size: int
    partitioner: Any
    request_timeout: float
    metadata_max_age: float
    connections_max_idle: float
    reconnect_backoff: float
    reconnect_backoff_max: float
    connection_setup_timeout: float
    receive_message_max_bytes: int
    allow_auto_create_topics: bool
    receive_buffer_bytes: int | None
    send_buffer_bytes: int | None
    socket_options: tuple[tuple[int, int, int], ...]
    security_protocol: str
    ssl_context: ssl.SSLContext | None
    ssl_check_hostname: bool
    client_certificate: str | None
    sasl_mechanism: str | None
    # These two may hold passwords, and settings get printed.
    sasl_options: Mapping[str, Any] = field(repr=False)
    proxy_url: str | None = field(repr=False)

    @property
    def idempotent(self) -> bool:
        return self.acks == -1


class ClientConfig(TypedDict, total=False):
    """The settings of `open_producer` that any Kafka client has.

    They have the names and units of kafka-python's `KafkaProducer`, which has no `compression_level`.
    """

    client_id: str | None
    acks: Literal[0, 1, -1, "all"]
    compression_type: Literal["gzip", "snappy", "lz4", "zstd"] | None
    compression_level: int | None
    batch_size: int
    max_request_size: int
    partitioner: Any  # a kafka.partitioner.Partitioner, or f(key_bytes, all_partitions, available_partitions)
    request_timeout_ms: float
    metadata_max_age_ms: float
    connections_max_idle_ms: float
    reconnect_backoff_ms: float
    reconnect_backoff_max_ms: float
    socket_connection_setup_timeout_ms: float
    receive_message_max_bytes: int
    allow_auto_create_topics: bool
    receive_buffer_bytes: int | None
    send_buffer_bytes: int | None
    socket_options: Sequence[tuple[int, int, int]]
    proxy_url: str | None
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    ssl_context: ssl.SSLContext | None
    ssl_check_hostname: bool
    ssl_cafile: str | os.PathLike[str] | None
    ssl_certfile: str | os.PathLike[str] | None
    ssl_keyfile: str | os.PathLike[str] | None
    ssl_password: str | bytes | None
    ssl_crlfile: str | os.PathLike[str] | None
    ssl_ciphers: str | None
    sasl_mechanism: str | None
    sasl_plain_username: str | None
    sasl_plain_password: str | None
    sasl_kerberos_name: Any  # str or gssapi.Name
    sasl_kerberos_service_name: str
    sasl_kerberos_domain_name: str | None
    sasl_oauth_token_provider: (
        Any  # anything with token() -> str, such as kafka-python's AbstractTokenProvider
    )


class NamedSettings(ClientConfig, total=False):
    """The same, and those other options whose values are numbers or flags."""

    max_queue_size: int
    max_buffer_size: int
    max_buffer_bytes: int
    delivery_threshold: int
    delivery_interval: float
    delivery_timeout: float
    topic_timeout: float
    max_retries: int
    retry_backoff: float
    connect_timeout: float
    shutdown_timeout: float
    own_thread: bool


class ProducerSettings(NamedSettings, total=False):
    """What `settings_from` returns: arguments for `open_producer`.

    Serializers, `instruments`, `on_undelivered` and `logger` are not among them: they are objects of the
    program, and are given to `open_producer` itself.
    """

    bootstrap_servers: str | Iterable[str]


def make_settings(
    bootstrap_servers: str | Iterable[str] = "localhost:9092",
    *,
    client_config: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> Settings:
    """Check everything and convert it. This makes no connection, but reads the files for TLS.

    Args:
        bootstrap_servers, options, client_config: as `open_producer` gets them. What is left out has its
            default, and `options` may hold those of `client_config` as well.

    Raises:
        TypeError: an argument is of the wrong kind, or a name is not known.
        ValueError: a wrong value, a file that cannot be used, or two options that contradict each other.
        ModuleNotFoundError: an option needs a package that is not installed.
        SettingsError: several of these.
    """
    given = {**options, **client_config}
    problems = Problems()
    _refuse_unknown(given, problems)
    values = _checked(given, problems)
    _settle_contradictions(values, given, problems)
    security = make_security(given, problems)
    with problems.kept():
        servers = _options.addresses(bootstrap_servers, security.security_protocol)
    problems.tell()
    for name, option in _CONFIG.items():
        values[option.field or name.removesuffix("_ms")] = values.pop(name)
    return Settings(bootstrap_servers=servers, **values, **security._asdict())


def _checked(given: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """The options as the package keeps them. Those that are wrong are missing."""
    values: dict[str, Any] = {}
    for name, option in _TABLE.items():
        with problems.kept():
            values[name] = option.check(name, given.get(name, option.default))
    return values


# ---------------------------------------------------------------------------------------------------------
# The tables


class _Option(NamedTuple):
    default: Any
    check: Check
    field: str | None = None  # of `Settings`, if that is not the option's name without its unit


#: The options that stand in the signature of `open_producer`, with the same defaults.
NAMED: Mapping[str, _Option] = {
    "max_queue_size": _Option(1000, integer(1)),
    "max_buffer_size": _Option(20_000, integer(1)),
    "max_buffer_bytes": _Option(64 * 1024 * 1024, integer(1)),
    "delivery_threshold": _Option(0, integer(0)),
    # math.inf is accepted, as an interval that never passes: easier to configure than a special case.
    "delivery_interval": _Option(0, duration(zero=True, infinite=True)),
    "delivery_timeout": _Option(math.inf, duration(infinite=True)),
    "topic_timeout": _Option(60, duration(infinite=True)),
    "max_retries": _Option(-1, integer(-1)),
    "retry_backoff": _Option(0.1, duration(zero=True)),
    # math.inf is accepted: opening can be cancelled, so a service may wait for its Kafka to come up.
    "connect_timeout": _Option(30, duration(infinite=True)),
    "shutdown_timeout": _Option(20, _options.shutdown_timeout),
    "own_thread": _Option(True, flag),
    "key_serializer": _Option(None, optional(_options.serializer)),
    "value_serializer": _Option(None, optional(_options.serializer)),
    "instruments": _Option((), _options.instruments),
    "on_undelivered": _Option(None, optional(function(1))),
    "logger": _Option(None, _options.logger),
}

_milliseconds = duration("milliseconds")

#: The options with kafka-python's names, except those of `_security`. Defaults are kafka-python's, except
#: where a comment says why not.
_CONFIG: Mapping[str, _Option] = {
    "client_id": _Option(None, _options.client_id),
    "acks": _Option("all", one_of({0: 0, 1: 1, -1: -1, "all": -1})),
    "compression_type": _Option(None, _options.compression, "compression"),
    "compression_level": _Option(None, optional(whole)),
    # By measurement; kafka-python's 16384 holds 150 messages of 100 bytes, and every batch has its cost.
    "batch_size": _Option(524_288, _options.batch_size),
    "max_request_size": _Option(1_048_576, integer(1, INT32)),
    "partitioner": _Option(None, optional(_options.partitioner)),
    "request_timeout_ms": _Option(30_000, duration("milliseconds", most=INT32)),
    "metadata_max_age_ms": _Option(300_000, duration("milliseconds", infinite=True)),
    "connections_max_idle_ms": _Option(540_000, duration("milliseconds", infinite=True)),
    "reconnect_backoff_ms": _Option(50, _milliseconds),
    # As Java; kafka-python's 30 s delays every message by that much once a broker is back.
    "reconnect_backoff_max_ms": _Option(1_000, _milliseconds),
    "socket_connection_setup_timeout_ms": _Option(10_000, _milliseconds, "connection_setup_timeout"),
    "receive_message_max_bytes": _Option(100_000_000, integer(1, INT32)),
    "allow_auto_create_topics": _Option(True, flag),
    "receive_buffer_bytes": _Option(None, optional(integer(1, INT32))),
    "send_buffer_bytes": _Option(None, optional(integer(1, INT32))),
    "socket_options": _Option([(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)], _options.socket_options),
    "proxy_url": _Option(None, optional(_options.proxy_url)),
}

_TABLE: Mapping[str, _Option] = {**NAMED, **_CONFIG}

_KNOWN = (*ClientConfig.__optional_keys__, *NAMED)

#: Which option may not be larger than which.
_AT_MOST = (
    ("delivery_threshold", "max_buffer_size"),
    ("batch_size", "max_request_size"),
    ("reconnect_backoff_ms", "reconnect_backoff_max_ms"),
)


def _refuse_unknown(given: Mapping[str, Any], problems: Problems) -> None:
    wrong = [name for name in given if name not in _KNOWN]
    translatable = (name for name in wrong if "." in name and _is_translatable(plain(name)))
    hinted = next(translatable, None)  # said once, however many there are
    for name in wrong:
        problems.add(unknown(name, plain(name), hint=name == hinted))


def _is_translatable(plain_name: str) -> bool:
    foreign = other(plain_name)
    return plain_name in _KNOWN or (foreign is not None and foreign.translate is not None)


def unknown(name: str, plain_name: str, *, hint: bool = False) -> TypeError:
    """The error for a name that is no setting: what to write instead, as far as that can be guessed."""
    more = "; trio_kprod.settings_from translates the names of other clients" if hint else ""
    foreign = other(plain_name)
    if foreign is not None:
        return TypeError(f"{name} has no meaning here: {foreign.instead}{more}")
    nearest = difflib.get_close_matches(plain_name, [*_KNOWN, *OTHERS, "bootstrap_servers"], n=1)
    if not nearest:
        return TypeError(f"unknown setting {name!r}")
    if nearest[0] in OTHERS:
        instead = OTHERS[nearest[0]].instead
        return TypeError(f"unknown setting {name!r}; {nearest[0]} has no meaning here: {instead}")
    return TypeError(f"unknown setting {name!r}: did you mean {nearest[0]!r}?{more}")


# ---------------------------------------------------------------------------------------------------------
# What help() and completion show


def show_client_settings(function: Callable[..., Any]) -> None:
    """Let the signature of a function list the settings that it takes as ``**client_config``.

    Type checkers know them from `ClientConfig`; `help`, notebooks and the completion of IPython read the
    signature of the object.
    """
    signature = inspect.signature(function)
    types = get_type_hints(ClientConfig)
    defaults = {name: option.default for name, option in _CONFIG.items()}
    defaults |= {name: default for name, (default, _) in SECURITY.items()}
    listed = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    listed += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[name])
        for name, default in defaults.items()
    ]
    function.__signature__ = signature.replace(parameters=listed)  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------------------
# Contradictions


def _settle_contradictions(values: dict[str, Any], given: Mapping[str, Any], problems: Problems) -> None:
    """Three defaults adapt to what was given. Every other contradiction is an error.

    An option that is wrong in itself is missing in `values`, and contradicts nothing.
    """
    with problems.kept():
        _fit_largest_request(values, given)
    if "batch_size" not in given and "max_request_size" in values:
        values["batch_size"] = min(values["batch_size"], values["max_request_size"])
    if "reconnect_backoff_max_ms" not in given and "reconnect_backoff_ms" in values:
        values["reconnect_backoff_max_ms"] = max(
            values["reconnect_backoff_max_ms"], values["reconnect_backoff_ms"]
        )
    for small, large in _AT_MOST:
        if small in values and large in values and values[small] > values[large]:
            low, high = _as_given(small, values), _as_given(large, values)
            problems.add(ValueError(f"{small} ({low}) must not be larger than {large} ({high})"))
    if values.get("compression_level") is not None and "compression_type" in values:
        with problems.kept():
            _options.check_level(values["compression_level"], given.get("compression_type"))


def _fit_largest_request(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    if "max_buffer_bytes" not in values or "max_request_size" not in values:
        return
    half = values["max_buffer_bytes"] // 2
    if "max_request_size" not in given:
        values["max_request_size"] = max(1, min(values["max_request_size"], half))
    elif values["max_request_size"] > half:
        # Topics that make no progress may hold half of the buffer: the largest message fits beside them.
        raise ValueError(
            f"max_request_size ({values['max_request_size']}) must not be larger than half of "
            f"max_buffer_bytes ({values['max_buffer_bytes']}), so that a message of any size finds room "
            "beside topics that make no progress: use a larger max_buffer_bytes or a smaller max_request_size"
        )


def _as_given(name: str, values: Mapping[str, Any]) -> Any:
    return values[name] * 1000 if name.endswith("_ms") else values[name]
