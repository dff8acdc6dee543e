"""Settings of a command: an option outranks the file, and the file outranks the environment."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from .._errors import ProducerError
from .._settings import Settings, make_settings, plain, settings_from

#: The one variable that is read.
VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"


def settings(servers: str | None, file: str | None, pairs: Iterable[str]) -> dict[str, Any]:
    """The arguments of `open_producer`; raises `click.UsageError` where a setting is wrong."""
    given = [("bootstrap.servers", os.environ.get(VARIABLE, ""))]
    if file is not None:
        given += _read_properties(file)
    given += [_split(pair, f"-X {pair}") for pair in pairs]
    given.append(("bootstrap.servers", servers or ""))
    try:
        arguments = dict(settings_from(_last_of_each(given)))
        checked(arguments)
    except (ProducerError, TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    return arguments


def checked(arguments: dict[str, Any]) -> Settings:
    return make_settings(**arguments)


def _last_of_each(given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of settings with the same name, the last one that is not empty."""
    by_name = {plain(name): (name, value) for name, value in given if value}
    return dict(by_name.values())


def _read_properties(path: str) -> list[tuple[str, str]]:
    """Kafka's own format: ``name=value`` lines; ``#`` begins a comment."""
    text = Path(path).read_text("utf-8")
    lines = [line.strip() for line in text.splitlines()]
    return [_split(line, f"{path}: {line}") for line in lines if line and not line.startswith("#")]


def _split(pair: str, where: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not equals or not name.strip():
        raise click.UsageError(f"{where}: must be name=value")
    return name.strip(), value.strip()
