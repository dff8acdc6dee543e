"""Every option of `open_producer`: what it may be, what it becomes, and what its errors say."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import json
import logging
import math
import os
import pickle
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kafka
import kafka.codec
import pytest
import trustme
from kafka.net.sasl import get_sasl_mechanism
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.partitioner import DefaultPartitioner, StickyPartitioner
from kafka.serializer import JsonSerializer, Serializer

import trio_kprod
from trio_kprod._instruments import Instrument
from trio_kprod._settings import _checks, _config, _options, _security
from trio_kprod._settings._config import ClientConfig, Settings, make_settings
from trio_kprod._settings._other_clients import OTHERS
from trio_kprod.testing import MemoryBroker, open_memory_producer

LOGIN = {"sasl_plain_username": "ada", "sasl_plain_password": "s3cret"}
PLAIN = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", **LOGIN}


def configured(**client_config: Any) -> Settings:
    """Settings made of options with kafka-python's names."""
    return make_settings(client_config=client_config)


async def async_function(*_: Any) -> None:
    raise AssertionError("must not be called")


class AsyncCallable:
    async def __call__(self, _: Any) -> None:
        raise AssertionError("must not be called")


# ---------------------------------------------------------------------------------------------------------
# Defaults and names


def test_defaults() -> None:
    """Without arguments the settings are the documented defaults, times in seconds."""
    settings = make_settings()
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    assert given == {
        "bootstrap_servers": (("localhost", 9092),),
        "max_queue_size": 1000,
        "max_buffer_size": 20_000,
        "max_buffer_bytes": 64 * 1024 * 1024,
        "delivery_threshold": 0,
        "delivery_interval": 0.0,
        "delivery_timeout": math.inf,
        "topic_timeout": 60.0,
        "max_retries": -1,
        "retry_backoff": 0.1,
        "connect_timeout": 30.0,
        "shutdown_timeout": 20.0,
        "own_thread": True,
        "key_serializer": None,
        "value_serializer": None,
        "instruments": (),
        "on_undelivered": None,
        "logger": logging.getLogger("trio_kprod"),
        "client_id": "trio_kprod",
        "acks": -1,
        "compression": 0,
        "compression_level": None,
        "batch_size": 524_288,
        "max_request_size": 1_048_576,
        "partitioner": None,
        "request_timeout": 30.0,
        "metadata_max_age": 300.0,
        "connections_max_idle": 540.0,
        "reconnect_backoff": 0.05,
        "reconnect_backoff_max": 1.0,
        "connection_setup_timeout": 10.0,
        "receive_message_max_bytes": 100_000_000,
        "allow_auto_create_topics": True,
        "receive_buffer_bytes": None,
        "send_buffer_bytes": None,
        "socket_options": ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),),
        "security_protocol": "PLAINTEXT",
        "ssl_context": None,
        "ssl_check_hostname": False,
        "client_certificate": None,
        "sasl_mechanism": None,
        "sasl_options": {},
        "proxy_url": None,
    }
    assert settings.idempotent


def test_client_config_names_what_the_tables_check() -> None:
    """The typed names and the checked names are the same."""
    assert ClientConfig.__optional_keys__ == {*_config._CONFIG, *_security.OPTIONS}
    assert ClientConfig.__required_keys__ == frozenset()


def test_every_option_of_kafka_python_is_accepted_or_explained() -> None:
    """No name that `KafkaProducer` takes falls through to "unknown setting"."""
    ours = {*ClientConfig.__optional_keys__, *OTHERS, *_config.NAMED, "bootstrap_servers"}
    assert set(kafka.KafkaProducer.DEFAULT_CONFIG) <= ours
    assert not set(OTHERS) & {*ClientConfig.__optional_keys__, *_config.NAMED, "bootstrap_servers"}


def test_defaults_are_kafka_pythons_unless_said_otherwise() -> None:
    """What a user leaves out behaves as with `KafkaProducer`, but for the documented exceptions."""
    theirs = kafka.KafkaProducer.DEFAULT_CONFIG
    ours = {name: option.default for name, option in _config._CONFIG.items()}
    ours |= {name: default for name, (default, _) in _security.OPTIONS.items()}
    differing = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    assert differing == {"acks", "batch_size", "partitioner", "reconnect_backoff_max_ms"}  # -1 is "all"


def test_open_producer_takes_the_same_options_with_the_same_defaults() -> None:
    """The documented signature and the one that is checked cannot drift apart."""
    theirs = trio_kprod.open_producer.__kwdefaults__
    assert theirs == {name: option.default for name, option in _config.NAMED.items()}
    [servers] = trio_kprod.open_producer.__defaults__ or ()
    assert servers == inspect.signature(make_settings).parameters["bootstrap_servers"].default


def test_help_and_completion_list_every_setting() -> None:
    """Not only those that the function names itself: notebooks complete by the signature of the object."""
    listed = inspect.signature(trio_kprod.open_producer).parameters
    assert set(listed) == {"bootstrap_servers", *_config.NAMED, *ClientConfig.__optional_keys__}
    assert {name: listed[name].default for name in _security.OPTIONS} == {
        name: default for name, (default, _) in _security.OPTIONS.items()
    }
    assert {name: listed[name].default for name in _config._CONFIG} == {
        name: option.default for name, option in _config._CONFIG.items()
    }
    assert "compression_level: int | None = None" in str(inspect.signature(trio_kprod.open_producer))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("compresion_type", r"unknown setting 'compresion_type': did you mean 'compression_type'\?"),
        ("compression.type", r"did you mean 'compression_type'\?"),
        ("max_queue_sise", r"did you mean 'max_queue_size'\?"),
        ("bootstrap_server", r"did you mean 'bootstrap_servers'\?"),
        ("zzz", r"unknown setting 'zzz'$"),
        ("linger_ms", r"linger_ms has no meaning here: use delivery_interval \(seconds\)"),
        ("linger.ms", r"^linger.ms has no meaning here: use delivery_interval .*settings_from translates"),
        ("lingr_ms", r"^unknown setting 'lingr_ms'; linger_ms has no meaning here: use delivery_interval"),
        ("retries", r"use max_retries"),
        ("transactional_id", r"transactions are not supported"),
        ("enable_idempotence", r"follows from acks"),
        ("api_version", r"negotiated"),
        ("socks5_proxy", r"use proxy_url"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    """A name that is not known is a TypeError with the nearest known one, or with what to use instead."""
    with pytest.raises(TypeError, match=message):
        configured(**{name: 1})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        # librdkafka and Java
        ("bootstrap.servers", r"unknown setting 'bootstrap.servers': did you mean 'bootstrap_servers'\?"),
        ("metadata.broker.list", r"use bootstrap_servers"),
        ("sasl.password", r"use sasl_plain_password; trio_kprod.settings_from translates"),
        ("sasl_password", r"use sasl_plain_password$"),
        ("message.timeout.ms", r"use delivery_timeout \(seconds\)"),
        ("delivery.timeout.ms", r"use delivery_timeout \(seconds\)"),
        ("queue.buffering.max.messages", r"use max_buffer_size"),
        ("queue.buffering.max.kbytes", r"use max_buffer_bytes \(bytes\)"),
        ("queue_buffering_max_ms", r"use delivery_interval \(seconds\)"),
        ("ssl.ca.location", r"use ssl_cafile"),
        ("enable.idempotence", r"follows from acks"),
        (
            "max.in.flight.requests.per.connection",
            r"order and idempotence decide how many are sent at once$",
        ),
        ("statistics.interval.ms", r"use producer.statistics\(\) and instruments$"),
        ("error_cb", r"has no meaning here: opening, flush and the end of the block raise"),
        ("dr_cb", r"use `await send_and_wait`, on_undelivered"),
        ("on_delivery", r"use `await send_and_wait`, on_undelivered"),
        ("compression.level", r"did you mean 'compression_level'\?"),
        ("sasl.jaas.config", r"use sasl_plain_username and sasl_plain_password"),
        ("sasl.oauthbearer.token.endpoint.url", r"use sasl_oauth_token_provider"),
        ("group.id", r"it is for consumers"),
        ("Linger.MS", r"^Linger.MS has no meaning here: use delivery_interval"),
        # aiokafka
        ("max_batch_size", r"use batch_size"),
        ("loop", r"trio does the input and output"),
        # ruby-kafka
        ("seed_brokers", r"use bootstrap_servers"),
        ("required_acks", r"use acks"),
        ("max_buffer_bytesize", r"use max_buffer_bytes"),
        ("compression_codec", r"use compression_type"),
        ("ssl_ca_cert_file_path", r"use ssl_cafile"),
        ("sasl_scram_username", r"use sasl_plain_username"),
    ],
)
def test_names_of_other_clients(name: str, message: str) -> None:
    """The error says what to write, whether the name has dots or underscores."""
    with pytest.raises(TypeError, match=message):
        configured(**{name: 1})


# ---------------------------------------------------------------------------------------------------------
# Several at once


def problems(**options: Any) -> list[str]:
    """What the one error says, line by line."""
    with pytest.raises(trio_kprod.SettingsError) as caught:
        make_settings(**options)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{len(lines)} settings are wrong:"
    assert [f"  {problem}" for problem in caught.value.problems] == lines
    return [line.strip() for line in lines]


LINGER = (
    "use delivery_interval (seconds) and delivery_threshold (messages); "
    "trio_kprod.settings_from translates the names of other clients"
)
PROTOCOLS = "use 'SASL_SSL' or 'SASL_PLAINTEXT'"


def test_everything_that_is_wrong_is_told_at_once() -> None:
    """Names, values, contradictions, security and addresses, each as if it were the only one."""
    assert problems(
        bootstrap_servers="kafka:port",
        max_retries=-2,
        delivery_threshold=11,
        max_buffer_size=10,
        client_config={
            "linger.ms": 5,
            "retries": 3,
            "compresion_type": "gzip",
            "acks": 2,
            "allow_auto_create_topics": "yes",
            "sasl_plain_username": "ada",
            "ssl_cafile": "ca.pem",
        },
    ) == [
        "linger.ms has no meaning here: " + LINGER,
        "retries has no meaning here: use max_retries (-1: no limit)",
        "unknown setting 'compresion_type': did you mean 'compression_type'?",
        "max_retries must be an integer of at least -1, got -2",
        "acks must be one of 0, 1, -1, 'all', got 2",
        "allow_auto_create_topics must be True or False, got 'yes' (str)",
        "delivery_threshold (11) must not be larger than max_buffer_size (10)",
        "ssl_cafile has no effect with security_protocol='PLAINTEXT': use 'SSL' or 'SASL_SSL'",
        "sasl_plain_username has no effect with security_protocol='PLAINTEXT': " + PROTOCOLS,
        "bootstrap_servers must be 'host:port', 'host' or '[IPv6 address]:port', got 'kafka:port'",
    ]


def test_what_is_wrong_in_itself_makes_no_contradiction() -> None:
    """No problem is told that only follows from another one."""
    assert problems(
        bootstrap_servers="SSL://kafka:1",
        delivery_threshold=50_000,
        max_buffer_size="100000",
        max_buffer_bytes=None,
        client_config={
            "max_request_size": "1",
            "batch_size": 600_000,
            "reconnect_backoff_ms": "2000",
            "compression_type": "gzp",
            "compression_level": 3,
            "security_protocol": "SLS",
            "ssl_cafile": "/nowhere",
        },
    ) == [
        "max_buffer_size must be an integer of at least 1, got '100000' (str)",
        "max_buffer_bytes must be an integer of at least 1, got None (NoneType)",
        "compression_type must be one of None, 'gzip', 'snappy', 'lz4', 'zstd', got 'gzp'",
        "max_request_size must be an integer of at least 1 and at most 2147483647, got '1' (str)",
        "reconnect_backoff_ms must be a number of milliseconds above 0, and finite, got '2000' (str)",
        "security_protocol must be one of 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL', got 'SLS'",
    ]


def test_all_of_a_login_and_of_tls_that_is_wrong_is_told(files: SimpleNamespace) -> None:
    """What is missing, what has no effect, and each file."""
    told = problems(
        client_config={
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "sasl_kerberos_domain_name": "example.org",
            "ssl_cafile": "/nowhere/ca.pem",
            "ssl_certfile": files.text,
            "ssl_crlfile": "/nowhere/crl.pem",
            "ssl_ciphers": "NONSENSE",
        }
    )
    assert [line.partition("=")[0].partition(" ")[0] for line in told] == [
        "ssl_cafile", "ssl_certfile", "ssl_crlfile", "ssl_ciphers",
        "sasl_mechanism", "sasl_mechanism", "sasl_kerberos_domain_name",
    ]  # fmt: skip
    told = problems(
        client_config={
            "security_protocol": "SSL",
            "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
            "ssl_cafile": "ca.pem",
            "ssl_check_hostname": False,
        }
    )
    assert [line.partition(" must")[0].partition(" has")[0] for line in told] == [
        "ssl_check_hostname", "ssl_cafile", "ssl_context",
    ]  # fmt: skip


def test_several_wrong_settings_can_be_caught_as_before() -> None:
    """Whatever they are, the error is a TypeError, a ValueError and this package's own."""
    for error in (TypeError, ValueError, trio_kprod.SettingsError, trio_kprod.ProducerError):
        with pytest.raises(error):
            configured(acks=2, batch_size=-1)
    with pytest.raises(trio_kprod.SettingsError) as caught:
        configured(acks=2, client_id=7)
    assert [type(problem) for problem in caught.value.problems] == [TypeError, ValueError]
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


def test_one_wrong_setting_is_told_by_a_plain_error() -> None:
    """Neither a list of one nor a class of its own."""
    for wrong, kind in (({"acks": 2}, ValueError), ({"acks": None}, TypeError), ({"akcs": 1}, TypeError)):
        with pytest.raises(kind) as caught:
            configured(**wrong)
        assert type(caught.value) is kind


def test_an_error_about_a_file_keeps_its_cause() -> None:
    with pytest.raises(trio_kprod.SettingsError) as caught:
        configured(security_protocol="SSL", ssl_cafile="/nowhere", acks=2)
    assert isinstance(caught.value.problems[1].__cause__, FileNotFoundError)


def test_open_producer_tells_all_at_the_call() -> None:
    with pytest.raises(trio_kprod.SettingsError, match="2 settings are wrong"):
        trio_kprod.open_producer(max_queue_size=0, max_buffer_size=0)


# ---------------------------------------------------------------------------------------------------------
# Numbers

COUNTS: dict[str, Any] = {  # name: its least value
    "max_queue_size": 1,
    "max_buffer_size": 1,
    "max_buffer_bytes": 1,
    "delivery_threshold": 0,
    "max_retries": -1,
}
TIMES = {  # name: (may be 0, may be infinite)
    "delivery_interval": (True, True),
    "delivery_timeout": (False, True),
    "topic_timeout": (False, True),
    "retry_backoff": (True, False),
    "connect_timeout": (False, True),
    "shutdown_timeout": (True, False),
}
SIZES = ["max_request_size", "receive_message_max_bytes", "receive_buffer_bytes", "send_buffer_bytes"]
MILLISECONDS = {  # name: (field, may be infinite)
    "request_timeout_ms": ("request_timeout", False),
    "metadata_max_age_ms": ("metadata_max_age", True),
    "connections_max_idle_ms": ("connections_max_idle", True),
    "reconnect_backoff_ms": ("reconnect_backoff", False),
    "reconnect_backoff_max_ms": ("reconnect_backoff_max", False),
    "socket_connection_setup_timeout_ms": ("connection_setup_timeout", False),
}


def named(name: str, value: Any) -> Any:
    """The setting that comes of an option with a name of its own."""
    options: dict[str, Any] = {name: value}
    return getattr(make_settings(**options), name)


@pytest.mark.parametrize(("name", "least"), COUNTS.items())
def test_counts(name: str, least: int) -> None:
    """A count is an integer of at least its minimum; a float, a bool and a string are refused."""
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least {least}, got {least - 1}"):
        named(name, least - 1)
    for wrong in (1.5, 1000.0, True, "10", None, math.inf):
        with pytest.raises(TypeError, match=f"^{name} must be an integer"):
            named(name, wrong)


def test_least_counts() -> None:
    """The smallest of each work together."""
    settings = make_settings(**COUNTS)
    assert {name: getattr(settings, name) for name in COUNTS} == COUNTS


def test_the_largest_request_is_at_most_half_of_the_buffer() -> None:
    """The default yields, and that of the batches with it."""
    settings = make_settings(max_buffer_bytes=2001)
    assert (settings.max_request_size, settings.batch_size) == (1000, 1000)
    settings = make_settings(max_buffer_bytes=2000, client_config={"max_request_size": 1000})
    assert settings.max_request_size == 1000


@pytest.mark.parametrize(("name", "zero", "infinite"), [(name, *rule) for name, rule in TIMES.items()])
def test_times(name: str, zero: bool, infinite: bool) -> None:
    """A time is a number of seconds; NaN, negative ones, bools and strings are refused."""
    assert named(name, 2) == 2.0
    for value, fine in ((0, zero), (math.inf, infinite)):
        if fine:
            assert named(name, value) == value
        else:
            with pytest.raises(ValueError, match=f"^{name} must be "):
                named(name, value)
    for bad in (-0.1, -1, math.nan, -math.inf):
        with pytest.raises(ValueError, match=f"^{name} must be a number of seconds .*, got {bad}"):
            named(name, bad)
    for wrong in ("1", True, None, b"1", [1]):
        with pytest.raises(TypeError, match=f"^{name} must be a number of seconds"):
            named(name, wrong)


def test_integer_too_large_for_a_float_is_for_ever() -> None:
    """An absurd integer does not escape as an OverflowError."""
    assert make_settings(delivery_interval=10**400).delivery_interval == math.inf


def test_infinite_shutdown_timeout_says_what_to_do_instead() -> None:
    """Leaving the scope always ends; who wants to wait for ever calls flush."""
    with pytest.raises(ValueError, match=r"shutdown_timeout must be finite.*await producer.flush\(\)"):
        make_settings(shutdown_timeout=math.inf)


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    """A size is a positive 32-bit integer."""
    assert getattr(configured(**{name: 200_000}), name) == 200_000
    for bad in (0, -1, 2**31):
        with pytest.raises(ValueError, match=f"^{name} must be an integer of at least 1 and at most"):
            configured(**{name: bad})
    with pytest.raises(TypeError, match=f"^{name} must be an integer"):
        configured(**{name: 1.0})


@pytest.mark.parametrize(
    ("name", "field", "infinite"), [(name, *rule) for name, rule in MILLISECONDS.items()]
)
def test_milliseconds_become_seconds(name: str, field: str, infinite: bool) -> None:
    """kafka-python's times keep their unit outside and lose it inside."""
    assert getattr(configured(**{name: 750}), field) == 0.75
    for bad in (0, -1, math.nan):
        with pytest.raises(ValueError, match=f"^{name} must be a number of milliseconds above 0"):
            configured(**{name: bad})
    if infinite:
        assert getattr(configured(**{name: math.inf}), field) == math.inf
    else:
        with pytest.raises(ValueError, match=f"^{name} must be .* finite"):
            configured(**{name: math.inf})


def test_request_timeout_fits_kafkas_protocol() -> None:
    """It travels in each request as a 32-bit number of milliseconds."""
    with pytest.raises(ValueError, match=r"request_timeout_ms must be .*at most 2147483647"):
        configured(request_timeout_ms=2**31)


def test_batch_size_zero_means_no_batching() -> None:
    """Kafka's meaning of 0, as the smallest batch."""
    assert configured(batch_size=0).batch_size == 1


# ---------------------------------------------------------------------------------------------------------
# Contradictions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"delivery_threshold": 11, "max_buffer_size": 10},
            r"delivery_threshold \(11\) must not be larger than max_buffer_size \(10\)",
        ),
        (
            {"max_buffer_bytes": 1999, "client_config": {"max_request_size": 1000}},
            r"max_request_size \(1000\) must not be larger than half of max_buffer_bytes \(1999\).*: use",
        ),
        (
            {"client_config": {"batch_size": 2_000_000}},
            r"batch_size \(2000000\) must not be larger than max_request_size \(1048576\)",
        ),
        (
            {"client_config": {"reconnect_backoff_ms": 200, "reconnect_backoff_max_ms": 100}},
            r"reconnect_backoff_ms \(200.0\) must not be larger than reconnect_backoff_max_ms \(100.0\)",
        ),
    ],
)
def test_contradictions(options: dict[str, Any], message: str) -> None:
    """Two options that cannot both hold are a ValueError that names both with their values."""
    with pytest.raises(ValueError, match=message):
        make_settings(**options)


def test_defaults_yield_to_what_was_given() -> None:
    """Giving one option is no contradiction to the default of another that follows it."""
    assert configured(max_request_size=5000).batch_size == 5000
    assert configured(reconnect_backoff_ms=4000).reconnect_backoff_max == 4.0


# ---------------------------------------------------------------------------------------------------------
# Enumerations and flags


@pytest.mark.parametrize(("given", "acks"), [(0, 0), (1, 1), (-1, -1), ("all", -1)])
def test_acks(given: Any, acks: int) -> None:
    """`acks` as in Kafka; idempotence follows from it."""
    settings = configured(acks=given)
    assert (settings.acks, settings.idempotent) == (acks, acks == -1)


@pytest.mark.parametrize(
    ("given", "error"), [(2, ValueError), ("0", ValueError), (True, TypeError), (None, TypeError)]
)
def test_wrong_acks(given: Any, error: type[Exception]) -> None:
    """Nothing else is taken for one of them, True for 1 least of all."""
    with pytest.raises(error, match=r"^acks must be one of 0, 1, -1, 'all', got "):
        configured(acks=given)


@pytest.mark.parametrize(
    ("codec", "number"), [(None, 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)]
)
def test_compression(codec: str | None, number: int) -> None:
    """Codecs become Kafka's numbers."""
    assert configured(compression_type=codec).compression == number


@pytest.mark.parametrize(
    ("given", "error"), [("brotli", ValueError), ("", ValueError), (1, TypeError), ([], TypeError)]
)
def test_wrong_compression(given: Any, error: type[Exception]) -> None:
    """The error lists the codecs."""
    with pytest.raises(
        error, match=r"^compression_type must be one of None, 'gzip', 'snappy', 'lz4', 'zstd'"
    ):
        configured(compression_type=given)


@pytest.mark.parametrize("codec", ["snappy", "lz4", "zstd"])
def test_codec_without_its_library(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what to install."""
    monkeypatch.setattr(kafka.codec, f"has_{codec}", lambda: False)
    with pytest.raises(ModuleNotFoundError, match=rf"compression_type='{codec}'.*trio_kprod\[compression\]"):
        configured(compression_type=codec)


@pytest.mark.parametrize(("codec", "least", "most"), [("gzip", 1, 9), ("lz4", 0, 17), ("zstd", -131_072, 22)])
def test_compression_levels(codec: str, least: int, most: int) -> None:
    """Each codec has its own range; None is the codec's default."""
    for level in (least, most, None):
        settings = configured(compression_type=codec, compression_level=level)
        assert settings.compression_level == level
    for level in (least - 1, most + 1):
        with pytest.raises(
            ValueError,
            match=f"^compression_level must be from {least} to {most} with compression_type='{codec}', got ",
        ):
            configured(compression_type=codec, compression_level=level)
    for wrong in (True, 1.0, "1"):
        with pytest.raises(TypeError, match=r"^compression_level must be an integer, got "):
            configured(compression_type=codec, compression_level=wrong)


def test_zlibs_own_level_has_a_number() -> None:
    """As in Java and librdkafka. zstd has a level of that number, and lz4 none."""
    assert configured(compression_type="gzip", compression_level=-1).compression_level == -1
    with pytest.raises(ValueError, match=r"^compression_level must be from 0 to 17 "):
        configured(compression_type="lz4", compression_level=-1)


@pytest.mark.parametrize("codec", [None, "snappy"])
def test_compression_level_without_effect(codec: str | None) -> None:
    """Without a codec, or with one that has no levels, it is a mistake."""
    with pytest.raises(
        ValueError, match=rf"^compression_level has no effect with compression_type={codec!r}"
    ):
        configured(compression_type=codec, compression_level=1)


def test_level_of_lz4_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other packages that kafka-python takes for lz4 have no such level."""
    assert configured(compression_type="lz4", compression_level=3)
    monkeypatch.setattr(_options.importlib.util, "find_spec", lambda _: None)  # type: ignore[attr-defined]
    with pytest.raises(ModuleNotFoundError, match=r"^compression_level with compression_type='lz4' needs"):
        configured(compression_type="lz4", compression_level=3)


async def test_a_higher_level_makes_less_to_send() -> None:
    """The setting reaches the batch that is sent."""
    sizes: list[int] = []

    class Sizes(Instrument):
        def compress(self, *, compressed_bytes: int, **_: object) -> None:
            sizes.append(compressed_bytes)

    for level in (1, 9):
        async with open_memory_producer(
            MemoryBroker(), instruments=(Sizes(),), compression_type="gzip", compression_level=level
        ) as producer:
            for number in range(500):
                producer.send_nowait("t", b"%d" % (number * 7919), partition=0)
    assert len(sizes) == 2
    assert sizes[0] > sizes[1]


@pytest.mark.parametrize("name", ["allow_auto_create_topics", "ssl_check_hostname"])
def test_flags(name: str) -> None:
    """A flag is a bool: "false" in a string would be true."""
    for wrong in ("false", 0, None):
        with pytest.raises(TypeError, match=f"^{name} must be True or False, got "):
            configured(**{name: wrong})


def test_client_id() -> None:
    """None is the default, as in kafka-python; an empty one is refused."""
    assert configured(client_id=None).client_id == "trio_kprod"
    assert configured(client_id="mine").client_id == "mine"
    with pytest.raises(ValueError, match=r"client_id must be a string that is not empty"):
        configured(client_id="")
    with pytest.raises(TypeError, match=r"client_id must be a string, got 7 \(int\)"):
        configured(client_id=7)
    assert configured(client_id="x" * 32_767).client_id == "x" * 32_767
    for wrong in ("x" * 32_768, "\u00e9" * 16_384, "lone \ud800"):
        with pytest.raises(ValueError, match="client_id must be at most 32767 bytes of UTF-8"):
            configured(client_id=wrong)


def test_socket_options() -> None:
    """A list of triples of integers."""
    given = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)]
    assert configured(socket_options=given).socket_options == ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),)
    for wrong in (None, 5, [5], [(1, 2)], [(1, 2, "3")], "abc"):
        with pytest.raises(TypeError, match=r"^socket_options must be a list of tuples of three integers"):
            configured(socket_options=wrong)


# ---------------------------------------------------------------------------------------------------------
# Addresses


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("broker", [("broker", 9092)]),
        ("broker:1", [("broker", 1)]),
        (" a:1 , b:65535 ", [("a", 1), ("b", 65535)]),
        (["a:1", "b,c:3"], [("a", 1), ("b", 9092), ("c", 3)]),
        ((name for name in ("a", "b")), [("a", 9092), ("b", 9092)]),
        ("b:2,a:1,b:2", [("b", 2), ("a", 1)]),
        ("10.0.0.1:9093", [("10.0.0.1", 9093)]),
        ("::1", [("::1", 9092)]),
        ("[::1]", [("::1", 9092)]),
        ("[::1]:9093", [("::1", 9093)]),
        ("[fe80::1%eth0]:9093", [("fe80::1%eth0", 9093)]),
        ("my_kafka-1.example.org:9092", [("my_kafka-1.example.org", 9092)]),
        ("PLAINTEXT://broker:9092", [("broker", 9092)]),
        ("EXTERNAL://broker:9092", [("broker", 9092)]),
        ("bücher.example:1", [("bücher.example", 1)]),
        ("a:1,", [("a", 1)]),
        (",a:1, ,b:2,", [("a", 1), ("b", 2)]),
        (["", "a:1", " ", "b:2,"], [("a", 1), ("b", 2)]),
    ],
)
def test_addresses(given: Any, expected: list[tuple[str, int]]) -> None:
    """Addresses are read as kafka-python reads them, in the order given, each once."""
    assert make_settings(given).bootstrap_servers == tuple(expected)


@pytest.mark.parametrize(
    "given",
    [
        ":9092", "broker:", "a:1,:2", "broker:abc", "broker:0", "broker:65536",
        "broker:70000", "broker:-1", "broker:9092:9093", "bro ker:1", "broker: 1", "http://broker:1", "a/b",
        "user@broker:1", "[::1", "[::1]9092", "[broker]:1", "[]:1", "a..b:1", "x" * 64 + ":1",
        "broker:\N{ARABIC-INDIC DIGIT THREE}", "broker\x00:1",
    ],
)  # fmt: skip
def test_wrong_addresses(given: Any) -> None:
    """Whatever is no address is a ValueError that shows it."""
    with pytest.raises(ValueError, match=r"^bootstrap_servers must be "):
        make_settings(given)


@pytest.mark.parametrize(
    "given", [None, 9092, b"broker:9092", [b"broker:9092"], ("broker", 9092), [("broker", 9092)]]
)
def test_addresses_of_a_wrong_type(given: Any) -> None:
    """Addresses are strings."""
    with pytest.raises(TypeError, match=r"^bootstrap_servers must be 'host:port'"):
        make_settings(given)


@pytest.mark.parametrize("given", [[], "", " ", ",", " , ", "\n", [""], ["", ","]])
def test_no_addresses(given: Any) -> None:
    """Empty entries are skipped, but one address there must be."""
    with pytest.raises(ValueError, match="bootstrap_servers must name at least one address"):
        make_settings(given)


def test_address_that_contradicts_the_security_protocol() -> None:
    """An address copied with its listener's protocol must not be connected to in another."""
    with pytest.raises(ValueError, match="'SSL://broker:1', but security_protocol is 'PLAINTEXT'"):
        make_settings("SSL://broker:1")


# ---------------------------------------------------------------------------------------------------------
# Callables


def test_plain_serializer() -> None:
    """A function of the object becomes one of topic and object."""
    settings = make_settings(
        key_serializer=str.encode, value_serializer=lambda value: json.dumps(value).encode()
    )
    assert settings.key_serializer is not None
    assert settings.value_serializer is not None
    assert settings.key_serializer("topic", "k") == b"k"
    assert settings.value_serializer("topic", [1]) == b"[1]"


def test_type_as_serializer() -> None:
    """A type that makes bytes is a function like any other."""
    serializer = make_settings(value_serializer=bytes).value_serializer
    assert serializer is not None
    assert serializer("topic", [1, 2]) == b"\x01\x02"


def test_kafka_python_serializer() -> None:
    """kafka-python's own serializers work, without a warning."""

    class Json(Serializer):  # type: ignore[misc]  # kafka-python has no types
        def serialize(self, topic: str, headers: Any, data: Any) -> bytes:
            return json.dumps(data).encode()

    serializer = make_settings(value_serializer=Json()).value_serializer
    assert serializer is not None
    assert serializer("topic", {"a": 1}) == b'{"a": 1}'


def test_serializers_get_topic_headers_and_data() -> None:
    """An object's `serialize` is called with as many arguments as it takes."""

    class Three:
        def serialize(self, topic: str, headers: Any, data: Any) -> bytes:
            return repr((topic, headers, data)).encode()

    class Two:
        def serialize(self, topic: str, data: Any) -> bytes:
            return repr((topic, data)).encode()

    settings = make_settings(key_serializer=Three(), value_serializer=Two())
    assert settings.key_serializer is not None
    assert settings.value_serializer is not None
    assert settings.key_serializer("t", 1) == b"('t', (), 1)"
    assert settings.value_serializer("t", 1) == b"('t', 1)"


@pytest.mark.parametrize("name", ["key_serializer", "value_serializer"])
@pytest.mark.parametrize(
    "wrong",
    [
        "utf-8",
        7,
        JsonSerializer,
        async_function,
        AsyncCallable(),
        functools.partial(async_function, 1),
        lambda: b"",
        lambda _a, _b: b"",
        SimpleNamespace(serialize=async_function),
        SimpleNamespace(serialize=lambda _: b""),
    ],
)  # fmt: skip
def test_wrong_serializers(name: str, wrong: Any) -> None:
    """What cannot be called with one object, or only makes a coroutine, is refused at once."""
    with pytest.raises(TypeError, match=f"^{name}(.serialize)? must be "):
        named(name, wrong)


def test_partitioners() -> None:
    """kafka-python's partitioners, as classes or instances, and functions of the older style."""

    def older(_key: bytes | None, _all: list[int], available: list[int]) -> int:
        return available[0]

    sticky = StickyPartitioner()
    assert configured(partitioner=sticky).partitioner is sticky
    assert isinstance(configured(partitioner=DefaultPartitioner).partitioner, DefaultPartitioner)
    assert configured(partitioner=older).partitioner is older


@pytest.mark.parametrize(
    "wrong",
    ["murmur2", b"x", 1, int, async_function, lambda _key: 0, SimpleNamespace(partition=lambda _key: 0),
     SimpleNamespace(partition=async_function)],
)  # fmt: skip
def test_wrong_partitioners(wrong: Any) -> None:
    """A name, a function of other arguments, or an async one is refused."""
    with pytest.raises(TypeError, match=r"^partitioner(.partition)? must be "):
        configured(partitioner=wrong)


def test_an_attribute_with_the_name_of_a_hook_is_refused() -> None:
    """It would be called, and its instrument be told nothing any more."""

    class Counting(trio_kprod.Instrument):
        def __init__(self) -> None:
            self.undelivered = 0  # type: ignore[assignment, method-assign]

    with pytest.raises(
        TypeError, match=r"^instruments\[0\]\.undelivered must be a method, because .* got 0$"
    ):
        make_settings(instruments=(Counting(),))


def test_on_undelivered() -> None:
    """It is called without await, so an async function is refused, and so is what is no function."""
    seen: list[Any] = []
    assert make_settings(on_undelivered=seen.append).on_undelivered == seen.append
    with pytest.raises(
        TypeError, match=r"on_undelivered must be a plain function: it is called without await"
    ):
        make_settings(on_undelivered=async_function)
    with pytest.raises(TypeError, match=r"on_undelivered must be a function, got 'print'"):
        make_settings(on_undelivered="print")
    with pytest.raises(TypeError, match=r"on_undelivered must be a function that can be called with 1 arg"):
        make_settings(on_undelivered=lambda: None)


def test_a_function_that_hides_its_arguments_is_taken_at_its_word() -> None:
    """Some built-in functions have no signature to ask for."""
    assert _checks.accepts(bytes, 7)


def test_logger() -> None:
    """A logger or an adapter of one."""
    mine = logging.getLogger("mine")
    adapter = logging.LoggerAdapter(mine, {})
    assert make_settings(logger=mine).logger is mine
    assert make_settings(logger=adapter).logger is adapter
    with pytest.raises(
        TypeError, match=r"logger must be a logging.Logger or a logging.LoggerAdapter, got 'x'"
    ):
        make_settings(logger="x")


def test_instruments() -> None:
    """Any iterable of instruments is kept as a tuple."""
    one, two = Instrument(), Instrument()
    assert make_settings(instruments=iter([one, two])).instruments == (one, two)


def test_wrong_instruments() -> None:
    """A single instrument, a class, another object and an async hook are told apart in the error."""

    class Async(Instrument):
        async def connected(self, **_: Any) -> None:  # type: ignore[override]
            raise AssertionError("must not be called")

    with pytest.raises(TypeError, match=r"instruments must be a tuple of instruments: write \(<"):
        make_settings(instruments=Instrument())
    with pytest.raises(TypeError, match=r"instruments must be a tuple of instruments, got 1"):
        make_settings(instruments=1)
    with pytest.raises(TypeError, match=r"instruments\[1\] must be an instance of a class derived from"):
        make_settings(instruments=(Instrument(), Instrument))
    with pytest.raises(TypeError, match=r"instruments\[0\].connected must be a plain method"):
        make_settings(instruments=(Async(),))


# ---------------------------------------------------------------------------------------------------------
# TLS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A certificate authority and a client certificate with its key, as files."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    certificate = ca.issue_cert("client.example")
    other = ca.issue_cert("other.example")
    paths = {
        name: folder / f"{name}.pem" for name in ("ca", "certificate", "key", "both", "other_key", "text")
    }
    ca.cert_pem.write_to_path(paths["ca"])
    certificate.cert_chain_pems[0].write_to_path(paths["certificate"])
    certificate.private_key_pem.write_to_path(paths["key"])
    certificate.private_key_and_cert_chain_pem.write_to_path(paths["both"])
    other.private_key_pem.write_to_path(paths["other_key"])
    paths["text"].write_text("not PEM")
    return SimpleNamespace(folder=folder, **{name: str(path) for name, path in paths.items()})


def encrypt(source: str, password: bytes, target: Path) -> str:
    """A copy of the private key that needs a password."""
    from cryptography.hazmat.primitives import serialization as keys

    key = keys.load_pem_private_key(Path(source).read_bytes(), None)
    scheme = keys.BestAvailableEncryption(password)
    target.write_bytes(key.private_bytes(keys.Encoding.PEM, keys.PrivateFormat.PKCS8, scheme))
    return str(target)


def tls(**options: Any) -> ssl.SSLContext:
    context = configured(security_protocol="SSL", **options).ssl_context
    assert context is not None
    return context


def test_tls_verifies_by_default() -> None:
    """Without options the system's authorities and the host's name are checked."""
    settings = configured(security_protocol="SSL")
    assert settings.ssl_context is not None
    assert settings.ssl_context.verify_mode is ssl.CERT_REQUIRED
    assert settings.ssl_context.check_hostname
    assert settings.ssl_check_hostname


def test_tls_without_the_name_still_verifies_the_certificate() -> None:
    """`ssl_check_hostname` switches off no more than it says."""
    settings = configured(security_protocol="SSL", ssl_check_hostname=False)
    assert settings.ssl_context is not None
    assert settings.ssl_context.verify_mode is ssl.CERT_REQUIRED
    assert not settings.ssl_check_hostname


def test_tls_files(files: SimpleNamespace) -> None:
    """Authority, certificate, key and ciphers are loaded, from paths of either kind."""
    context = tls(
        ssl_cafile=Path(files.ca),
        ssl_certfile=files.certificate,
        ssl_keyfile=files.key,
        ssl_ciphers="ECDHE+AESGCM",
    )
    assert len(context.get_ca_certs()) == 1
    assert tls(ssl_certfile=files.both)


@pytest.mark.parametrize("password", ["pass", b"pass"])
def test_encrypted_key(files: SimpleNamespace, password: str | bytes) -> None:
    """The password opens the key."""
    key = encrypt(files.key, b"pass", files.folder / "encrypted.pem")
    assert tls(ssl_certfile=files.certificate, ssl_keyfile=key, ssl_password=password)


def test_encrypted_key_without_password_does_not_ask_on_the_terminal(files: SimpleNamespace) -> None:
    """OpenSSL's own way would block the program."""
    key = encrypt(files.key, b"pass", files.folder / "encrypted.pem")
    with pytest.raises(ValueError, match=r"encrypted.pem' is encrypted: give ssl_password"):
        tls(ssl_certfile=files.certificate, ssl_keyfile=key)


def test_wrong_password_is_not_shown(files: SimpleNamespace) -> None:
    """The error names the file and the option, and keeps the secret."""
    key = encrypt(files.key, b"pass", files.folder / "encrypted.pem")
    with pytest.raises(ValueError, match="ssl_password") as caught:
        tls(ssl_certfile=files.certificate, ssl_keyfile=key, ssl_password="wr0ng")
    expected = f"ssl_keyfile={key!r} cannot be used: ssl_password does not open its private key"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("certificate", "key", "culprit", "fault"),
    [
        ("text", "key", "ssl_certfile={certificate!r}", "it has no certificate in PEM"),
        ("key", "key", "ssl_certfile={certificate!r}", "it has no certificate in PEM"),
        ("certificate", "text", "ssl_keyfile={key!r}", "it has no private key in PEM"),
        (
            "certificate",
            None,
            "ssl_certfile={certificate!r}",
            "it has no private key in PEM: if the key is in another file, give ssl_keyfile",
        ),
        (
            "certificate",
            "other_key",
            "ssl_keyfile={key!r}",
            "its private key belongs to another certificate than ssl_certfile has",
        ),
        (
            "certificate",
            "damaged",
            "ssl_certfile={certificate!r} with ssl_keyfile={key!r}",
            "one of them is damaged",
        ),
    ],
)
def test_what_is_wrong_with_our_certificate(
    certificate: str, key: str | None, culprit: str, fault: str, files: SimpleNamespace
) -> None:
    """Of each of these OpenSSL says "PEM lib" or less."""
    damaged = files.folder / "damaged.pem"
    damaged.write_bytes(Path(files.key).read_bytes()[:90] + b"\n-----END EC PRIVATE KEY-----\n")
    paths = {**vars(files), "damaged": str(damaged)}
    names = {"certificate": paths[certificate], "key": paths[key] if key else None}
    with pytest.raises(ValueError, match="cannot be used") as caught:
        tls(ssl_certfile=names["certificate"], ssl_keyfile=names["key"])
    assert str(caught.value) == f"{culprit.format(**names)} cannot be used: {fault}"


@pytest.mark.parametrize("name", ["ssl_cafile", "ssl_certfile", "ssl_crlfile"])
def test_tls_files_that_cannot_be_used(name: str, files: SimpleNamespace) -> None:
    """A missing file, a directory and one without PEM are named with their option."""
    for filename, reason in (
        ("missing", "No such file"),
        ("", "Is a directory|Permission denied"),
        ("text.pem", ""),
    ):
        path = files.folder / filename
        with pytest.raises(ValueError, match=f"^{name}='{path}'.* cannot be used: .*({reason})"):
            tls(**{name: path})


def test_missing_key_file_is_named(files: SimpleNamespace) -> None:
    """It is the key that is missing, not the certificate."""
    with pytest.raises(ValueError, match=r"^ssl_keyfile='nowhere' cannot be used: No such file"):
        tls(ssl_certfile=files.certificate, ssl_keyfile="nowhere")


def test_revocation_list_is_used(files: SimpleNamespace) -> None:
    """With a revocation list the peer's certificate must be covered by it."""
    crl = files.folder / "crl.pem"
    crl.write_bytes(_empty_revocation_list())
    assert tls(ssl_crlfile=crl).verify_flags & ssl.VERIFY_CRL_CHECK_LEAF


def _empty_revocation_list() -> bytes:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    day = datetime.datetime(2020, 1, 1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    builder = x509.CertificateRevocationListBuilder(name, day, day)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def test_own_context_is_used_as_it_is() -> None:
    """Nothing is changed on a context that was given."""
    context = ssl.create_default_context()
    context.check_hostname = False
    settings = configured(security_protocol="SASL_SSL", sasl_mechanism="PLAIN", **LOGIN, ssl_context=context)
    assert settings.ssl_context is context
    assert not settings.ssl_check_hostname


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ssl_cafile": "ca.pem"}, r"ssl_cafile has no effect with security_protocol='PLAINTEXT': use 'SSL'"),
        ({"security_protocol": "SSL", "ssl_context": ssl.create_default_context(), "ssl_cafile": "x"},
         "ssl_cafile has no effect beside ssl_context"),
        ({"security_protocol": "SSL", "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)},
         "ssl_context must be one for clients"),
        ({"security_protocol": "SSL", "ssl_keyfile": "k.pem"}, "ssl_keyfile has no effect without ssl_cert"),
        ({"security_protocol": "SSL", "ssl_password": "x"}, "ssl_password has no effect without ssl_cert"),
        ({"security_protocol": "SSL", "ssl_ciphers": "NONSENSE"}, "ssl_ciphers='NONSENSE': OpenSSL knows"),
        ({"security_protocol": "ssl"}, "security_protocol must be one of 'PLAINTEXT', 'SSL', 'SASL"),
        ({"security_protocol": "TLS"}, "security_protocol must be one of"),
    ],
)  # fmt: skip
def test_tls_contradictions(options: dict[str, Any], message: str) -> None:
    """An option that would be ignored is an error, and a mistyped protocol is not PLAINTEXT."""
    with pytest.raises(ValueError, match=message):
        configured(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"security_protocol": None}, "security_protocol must be one of"),
        ({"ssl_context": "default"}, "ssl_context must be a ssl.SSLContext, got 'default'"),
        ({"ssl_cafile": 5}, "ssl_cafile must be the path of a file, got 5"),
        ({"ssl_password": 5}, "ssl_password must be a string"),
    ],
)
def test_tls_options_of_a_wrong_type(options: dict[str, Any], message: str) -> None:
    """Each names itself and what it may be."""
    with pytest.raises(TypeError, match=message):
        configured(**options)


def test_options_with_their_default_contradict_nothing() -> None:
    """Code that passes every option on, set or not, works."""
    defaults = {name: default for name, (default, _) in _security.OPTIONS.items()}
    assert configured(**defaults).ssl_context is None


# ---------------------------------------------------------------------------------------------------------
# SASL


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_sasl_options_suit_kafka_pythons_mechanisms(mechanism: str) -> None:
    """What the settings hold is what the mechanism's class takes."""
    settings = configured(**{**PLAIN, "security_protocol": "SASL_SSL", "sasl_mechanism": mechanism})
    assert settings.sasl_mechanism == mechanism
    assert get_sasl_mechanism(mechanism)(host="broker", **settings.sasl_options).auth_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**LOGIN}, "sasl_plain_username has no effect with security_protocol='PLAINTEXT': use 'SASL_SSL'"),
        ({"sasl_mechanism": "PLAIN"}, "sasl_mechanism has no effect with security_protocol='PLAINTEXT'"),
        ({"security_protocol": "SASL_SSL", **LOGIN}, r"sasl_mechanism must be one of 'AWS.*, got None"),
        ({**PLAIN, "sasl_mechanism": "plain"}, r"sasl_mechanism must be one of .*'PLAIN', .*, got 'plain'"),
        ({**PLAIN, "sasl_plain_username": None}, "sasl_mechanism='PLAIN' needs sasl_plain_username"),
        ({**PLAIN, "sasl_plain_password": None}, "sasl_mechanism='PLAIN' needs sasl_plain_password"),
        ({**PLAIN, "sasl_plain_password": ""}, "sasl_plain_password must not be empty"),
        ({**PLAIN, "sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": None}, "'SCRAM-SHA-512' needs"),
        ({**PLAIN, "sasl_kerberos_service_name": "k"}, "sasl_kerberos_service_name has no effect with"),
        ({**PLAIN, "sasl_mechanism": "OAUTHBEARER"}, "'OAUTHBEARER' needs sasl_oauth_token_provider"),
        ({"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "AWS_MSK_IAM"}, "needs security_prot"),
    ],
)  # fmt: skip
def test_sasl_contradictions(options: dict[str, Any], message: str) -> None:
    """What is missing or would be ignored is named, before a broker asks for it."""
    with pytest.raises(ValueError, match=message):
        configured(**options)


@pytest.mark.parametrize(("mechanism", "package"), [("GSSAPI", "gssapi"), ("AWS_MSK_IAM", "botocore")])
def test_sasl_mechanism_without_its_package(
    mechanism: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the package."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setitem(
        _security._MECHANISMS, mechanism, _security._MECHANISMS[mechanism]._replace(module=package)
    )
    with pytest.raises(
        ModuleNotFoundError, match=f"sasl_mechanism='{mechanism}' needs the package {package}"
    ):
        configured(security_protocol="SASL_SSL", sasl_mechanism=mechanism)


def test_kerberos(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's name has kafka-python's default."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: SimpleNamespace())
    settings = configured(
        security_protocol="SASL_SSL", sasl_mechanism="GSSAPI", sasl_kerberos_domain_name="example.org"
    )
    assert settings.sasl_options == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "GSSAPI",
        "sasl_kerberos_service_name": "kafka",
        "sasl_kerberos_domain_name": "example.org",
    }


def test_mechanism_that_was_registered_with_kafka_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options are its own business."""
    monkeypatch.setitem(kafka.net.sasl.SASL_MECHANISMS, "MINE", object)
    settings = configured(**{**PLAIN, "sasl_mechanism": "MINE"})
    assert settings.sasl_mechanism == "MINE"


def oauth(provider: Any) -> Settings:
    return configured(
        security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", sasl_oauth_token_provider=provider
    )


def test_token_provider_of_kafka_python_is_kept() -> None:
    """A subclass of kafka-python's base class is passed on as it is."""

    class Provider(AbstractTokenProvider):  # type: ignore[misc]
        def token(self) -> str:
            return "t"

    provider = Provider()
    assert oauth(provider).sasl_options["sasl_oauth_token_provider"] is provider


@pytest.mark.parametrize("extensions", [{}, {"logicalCluster": "lkc-1"}])
def test_token_provider_of_any_class(extensions: dict[str, str]) -> None:
    """Whatever has `token` will do, with `extensions` if it has that too."""
    provider = SimpleNamespace(token=lambda: "t0ken")
    if extensions:
        provider.extensions = lambda: extensions
    sent = get_sasl_mechanism("OAUTHBEARER")(**oauth(provider).sasl_options).auth_bytes()
    assert sent.startswith(b"n,,\x01auth=Bearer t0ken")
    assert (b"logicalCluster=lkc-1" in sent) == bool(extensions)


@pytest.mark.parametrize(
    "wrong", ["token", object(), AbstractTokenProvider, SimpleNamespace(token=async_function)]
)
def test_wrong_token_providers(wrong: Any) -> None:
    """A string, a class and an async method are refused."""
    with pytest.raises(
        TypeError, match=r"sasl_oauth_token_provider must be an object with a method token\(\)"
    ):
        oauth(wrong)


def recipes() -> list[str]:
    """The fragments of the page on security that open a producer."""
    page = (Path(__file__).parents[1] / "docs" / "security.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "open_producer(" in block and "trio.run" not in block]


@pytest.mark.parametrize("recipe", recipes())
def test_recipes_pass_the_checks(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page says for each cloud service is accepted as it stands there."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: SimpleNamespace() if name == "botocore" else find_spec(name)
    )
    signer = SimpleNamespace(MSKAuthTokenProvider=SimpleNamespace(generate_auth_token=lambda _: ("t", 0)))
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", signer)
    for name in re.findall(r'os.environ\["(\w+)"\]', recipe):
        monkeypatch.setenv(name, "x")
    recipe = recipe.replace('cafile="/etc/kafka/ca.pem"', "")
    names: dict[str, Any] = {"os": os, "ssl": ssl, "trio_kprod": trio_kprod, "servers": "kafka:9093"}
    exec(compile(recipe, "security.md", "exec", dont_inherit=True), names)
    assert names["producer"]._settings.security_protocol in ("SSL", "SASL_SSL")


# ---------------------------------------------------------------------------------------------------------
# Secrets and the proxy


def test_secrets_are_not_printed() -> None:
    """Settings get logged, and errors get pasted into tickets."""
    settings = configured(**PLAIN, proxy_url="socks5://ada:s3cret@proxy:1080")
    assert "s3cret" not in repr(settings)
    for wrong in (
        "s3cret@proxy",
        "ftp://ada:s3cret@proxy:1",
        "socks5://ada:s3cret@proxy",
        "http://[s3cret:1",
    ):
        with pytest.raises(ValueError, match=r"^proxy_url must be like 'socks5://host:port'") as caught:
            configured(proxy_url=wrong)
        assert "s3cret" not in str(caught.value)
    for name in ("proxy_url", "sasl_plain_password", "ssl_password"):
        with pytest.raises(TypeError, match=f"^{name} must be a string") as wrong_kind:
            configured(**{name: ["s3cret"]})
        assert "s3cret" not in str(wrong_kind.value)


@pytest.mark.parametrize("url", ["socks5://proxy:1080", "socks5h://u:p@proxy:1080", "http://[::1]:3128"])
def test_proxy(url: str) -> None:
    """kafka-python's schemes."""
    assert configured(proxy_url=url).proxy_url == url


def test_proxy_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what to install."""
    monkeypatch.setattr(_options.importlib.util, "find_spec", lambda _: None)  # type: ignore[attr-defined]
    with pytest.raises(ModuleNotFoundError, match=r"proxy_url.*trio_kprod\[proxy\]"):
        configured(proxy_url="socks5://proxy:1080")


def test_long_values_are_cut_in_errors() -> None:
    """A megabyte by mistake does not become a megabyte of error."""
    with pytest.raises(ValueError, match=r"^bootstrap_servers must be") as caught:
        make_settings("?" * 1_000_000)
    assert len(str(caught.value)) < 300


def test_nothing_is_connected_to() -> None:
    """Making settings opens no socket: in a process where that is impossible it works all the same."""
    code = """
import socket
def refuse(*_, **__): raise AssertionError("a socket was made")
socket.socket.__init__ = refuse
socket.getaddrinfo = refuse
from trio_kprod._settings._config import make_settings
make_settings("broker.invalid:1", client_config={"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN",
              "sasl_plain_username": "u", "sasl_plain_password": "p", "compression_type": "gzip"})
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(_config.__file__).parents[2])
