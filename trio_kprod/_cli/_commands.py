"""What users type: commands, options, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from io import UnsupportedOperation
from typing import Any, TextIO, TypeVar

import click

from .._speedups import speedups_in_use
from .._version import __version__
from . import _ping, _send
from ._configuring import VARIABLE, checked, settings
from ._lines import Format

_FILE = click.Path(exists=True, dir_okay=False)

#: No line is longer than the largest message times this: JSON may write a byte as ``\u0000``.
_JSON_GROWTH = 8

_F = TypeVar("_F", bound=Callable[..., Any])


def _connection_options(command: _F) -> _F:
    options = (
        click.option(
            "-b", "--bootstrap-servers", "servers", metavar="HOST:PORT[,...]",
            help=f"Where Kafka is. Default: the file's, then {VARIABLE}'s, then localhost:9092.",
        ),
        click.option(
            "--config", "file", type=_FILE,
            help="name=value lines, as Kafka's producer.properties.",
        ),
        click.option(
            "-X", "pairs", multiple=True, metavar="NAME=VALUE",
            help="A setting, by our name or that of librdkafka or Java. May be repeated.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    f"{__version__} ({'with speedups' if speedups_in_use() else 'pure Python'})", prog_name="trio_kprod"
)
def main() -> None:
    """Send messages to Kafka, or find out why that does not work."""


@main.command()
@click.argument("topic")
@click.option("-f", "--file", "path", type=_FILE, help="Default: standard input.")
@click.option("--json", "as_json", is_flag=True, help="Lines are objects: value, key, headers, partition, …")
@click.option("--base64", "base64", is_flag=True, help="In JSON, values and keys are base64.")
@click.option("--key-separator", metavar="TEXT", help="The text between key and value of a plain line.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--partition", type=click.IntRange(0), help="For all lines that name none.")
@click.option("--on-bad-line", type=click.Choice(["fail", "skip"]), default="fail", show_default=True)
@click.option(
    "--undelivered", metavar="FILE", help="Where undelivered messages go, to be sent with --json --base64."
)
@_connection_options
def send(
    topic: str,
    path: str | None,
    as_json: bool,
    base64: bool,
    key_separator: str | None,
    headers: tuple[str, ...],
    partition: int | None,
    on_bad_line: str,
    undelivered: str | None,
    servers: str | None,
    file: str | None,
    pairs: tuple[str, ...],
) -> None:
    """Send each line of the input to TOPIC.

    Exit code: 0, all delivered; 1, some were not, or a line was bad; 2, wrong usage; 3, no connection;
    130, Ctrl-C (what was read by then is delivered first).
    """
    if base64 and not as_json:
        raise click.UsageError("--base64 goes with --json")
    if as_json and key_separator is not None:
        raise click.UsageError("--key-separator is for plain lines: with --json, keys are in the objects")
    if path is not None and undelivered is not None and _same_file(path, undelivered):
        raise click.UsageError("--undelivered must be another file than --file: it is emptied first")
    form = Format(as_json, base64, key_separator, tuple(map(_header, headers)), partition)
    options = settings(servers, file, pairs)
    longest = _JSON_GROWTH * checked(options).max_request_size
    with ExitStack() as stack:
        aside = sys.stdout if undelivered is None else stack.enter_context(_written(undelivered))
        source = _standard_input() if path is None else stack.enter_context(open(path, "rb"))
        name = path or "standard input"
        sending = _send.Sending(topic, source, name, form, on_bad_line == "skip", aside, longest)
        sys.exit(_send.send(sending, options))


@main.command()
@click.argument("topic", required=False)
@click.option("--send", "also_send", is_flag=True, help="Send a real message to TOPIC.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each step.")
@_connection_options
def ping(
    topic: str | None,
    also_send: bool,
    as_json: bool,
    servers: str | None,
    file: str | None,
    pairs: tuple[str, ...],
) -> None:
    """Look at each step of the way to Kafka: DNS, TCP, TLS, SASL, the brokers' own addresses, TOPIC.

    Exit code: 0, everything works; 2, wrong usage; 3, something does not.
    """
    if also_send and topic is None:
        raise click.UsageError("--send needs a TOPIC")
    options = settings(servers, file, pairs)
    sys.exit(_ping.ping(options, topic, send=also_send, as_json=as_json, echo=click.echo))


def _header(pair: str) -> tuple[str, bytes]:
    name, equals, value = pair.partition("=")
    if not equals:
        raise click.UsageError(f"--header {pair}: must be NAME=VALUE")
    return name, value.encode()


def _same_file(one: str, other: str) -> bool:
    """Whether both are one file, also by another name: a link, a relative path."""
    return os.path.exists(other) and os.path.samefile(one, other)


def _written(path: str) -> TextIO:
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"--undelivered: {error}") from None


def _standard_input() -> Any:
    """Not `sys.stdin` itself: Python aborts at its end if a thread still reads that."""
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except UnsupportedOperation:  # it was replaced by something that is no file
        return sys.stdin.buffer
