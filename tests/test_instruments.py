"""Instruments: who is told what, and what happens when one of them fails."""

from __future__ import annotations

import ast
import inspect
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trio_kprod
from trio_kprod._instruments import HOOKS, Instrument, Instruments, overridden

LOGGER = logging.getLogger("trio_kprod.tests")

#: Every hook with its payload: adding to one is fine, taking from one breaks its users.
PAYLOADS = {
    "opened": ["producer"],
    "closed": ["producer"],
    "sending": ["number", "topic", "value", "key", "headers", "partition", "timestamp_ms"],
    "accepted": ["number", "message"],
    "rejected": ["number", "error"],
    "settled": ["number", "message", "record", "undelivered"],
    "undelivered": ["topic", "partition", "message_count", "cause", "maybe_written"],
    "enqueue_message": ["topic", "queue_size", "max_queue_size"],
    "buffer_overflow": ["topic"],
    "error": ["error"],
    "drop_messages": ["message_count"],
    "produce_messages": [
        *("message_count", "message_bytes", "buffer_size", "max_buffer_size", "queue_size", "max_queue_size")
    ],
    "buffer_full": ["buffer_size", "max_buffer_size"],
    "topic_error": ["topic", "error"],
    "deliver_messages": ["message_count", "delivered_message_count", "attempts", "duration", "error"],
    "send_messages": ["broker", "message_count", "sent_message_count", "duration"],
    "ack_messages": ["topic", "partition", "base_offset", "message_count", "delay"],
    "compress": ["message_count", "uncompressed_bytes", "compressed_bytes"],
    "request": ["broker", "api", "request_bytes", "response_bytes", "duration", "error"],
    "throttled": ["broker", "duration"],
    "connected": ["broker"],
    "connect_failed": ["broker", "error"],
    "disconnected": ["broker", "error"],
}


class Recorder(Instrument):
    """Appends what it is told to a list it shares with others."""

    def __init__(self, record: list[Any], name: str = "") -> None:
        self.record = record
        self.name = name

    def connected(self, **payload: Any) -> None:
        self.record.append((self.name, "connected", payload))

    def error(self, **payload: Any) -> None:
        self.record.append((self.name, "error", payload))


class Failing(Recorder):
    """Raises in one hook, after recording the call."""

    def __init__(self, record: list[Any], name: str, raises: BaseException) -> None:
        super().__init__(record, name)
        self.raises = raises

    def connected(self, **payload: Any) -> None:
        super().connected(**payload)
        raise self.raises


def test_hooks_and_payloads() -> None:
    """The hooks are keyword-only, documented, and have the documented payloads."""
    assert set(HOOKS) == set(PAYLOADS)
    for name, payload in PAYLOADS.items():
        _, *parameters = inspect.signature(getattr(Instrument, name)).parameters.values()
        assert [parameter.name for parameter in parameters] == payload, name
        assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters), name
        assert inspect.getdoc(getattr(Instrument, name)), name


@pytest.mark.parametrize("hook", PAYLOADS)
def test_every_hook_does_nothing_by_default(hook: str) -> None:
    """An instrument may leave any hook alone, and may call its parent's."""
    assert getattr(Instrument(), hook)(**dict.fromkeys(PAYLOADS[hook])) is None


def test_nobody_to_tell() -> None:
    """Without instruments, or with one that overrides nothing, every hook is false."""
    for given in ((), (Instrument(),)):
        instruments = Instruments(given, LOGGER)
        assert not any(getattr(instruments, hook) for hook in HOOKS)


def test_told_in_the_order_given() -> None:
    """Each instrument gets the payload, the first one first; only overridden hooks are true."""
    record: list[Any] = []
    instruments = Instruments((Recorder(record, "a"), Instrument(), Recorder(record, "b")), LOGGER)
    assert instruments
    assert instruments.connected
    assert not instruments.disconnected
    instruments.tell("connected", broker="one:1")
    instruments.tell("disconnected", broker="one:1", error=None)
    assert record == [
        ("a", "connected", {"broker": "one:1"}),
        ("b", "connected", {"broker": "one:1"}),
    ]


def test_overridden_finds_inherited_static_and_instance_hooks() -> None:
    """It does not matter how a hook came to be."""

    class Base(Instrument):
        @staticmethod
        def connected(**_: Any) -> None:
            """Nothing."""

        @classmethod
        def compress(cls, **_: Any) -> None:
            """Nothing."""

    class Derived(Base):
        pass

    derived = Derived()
    derived.request = lambda **_: None  # type: ignore[method-assign]
    assert set(overridden(derived)) == {"connected", "compress", "request"}


def test_failing_instrument_is_logged_and_told_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    """Its other hooks stop as well; the other instruments go on, in the same call and later."""
    record: list[Any] = []
    failing = Failing(record, "bad", ValueError("out of order"))
    instruments = Instruments((failing, Recorder(record, "good")), LOGGER)
    instruments.tell("connected", broker="one:1")
    instruments.tell("connected", broker="two:2")
    instruments.tell("error", error=OSError())
    assert [(name, hook) for name, hook, _ in record] == [
        ("bad", "connected"),
        ("good", "connected"),
        ("good", "connected"),
        ("good", "error"),
    ]
    (logged,) = caplog.records
    assert (logged.name, logged.levelname) == ("trio_kprod.tests", "ERROR")
    assert "Failing" in logged.message
    assert "connected" in logged.message
    assert logged.exc_info is not None
    assert logged.exc_info[1] is failing.raises


def test_last_instrument_disabled_makes_all_hooks_false(caplog: pytest.LogCaptureFixture) -> None:
    """From then on the hot paths cost nothing again."""
    instruments = Instruments((Failing([], "bad", ValueError()),), LOGGER)
    instruments.tell("connected", broker="one:1")
    assert not any(getattr(instruments, hook) for hook in HOOKS)
    assert not instruments.error
    assert len(caplog.records) == 1


def test_wrong_signature_disables_only_that_instrument(caplog: pytest.LogCaptureFixture) -> None:
    """A hook that does not take its payload fails like any other."""

    class Old(Instrument):
        def connected(self, *, host: str) -> None:  # type: ignore[override]
            raise AssertionError(host)

    record: list[Any] = []
    Instruments((Old(), Recorder(record)), LOGGER).tell("connected", broker="one:1")
    assert len(record) == 1
    assert "unexpected keyword argument 'broker'" in caplog.text


def test_instrument_disabled_meanwhile_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """A hook that causes another event may disable an instrument whose turn has not come yet."""
    record: list[Any] = []

    class Nesting(Instrument):
        def connected(self, **_: Any) -> None:
            instruments.tell("disconnected", broker="inner", error=None)

    class Fragile(Recorder):
        def disconnected(self, **_: Any) -> None:
            raise ValueError("broken")

    instruments = Instruments((Nesting(), Fragile(record)), LOGGER)
    instruments.tell("connected", broker="outer")
    assert record == []
    assert len(caplog.records) == 1


def test_unhashable_and_equal_instruments_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    """Instruments are known by identity, whatever their `__eq__` says."""

    class Equal(Failing):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Recorder)

        __hash__ = None  # type: ignore[assignment]

    record: list[Any] = []
    instruments = Instruments((Equal(record, "bad", ValueError()), Recorder(record, "good")), LOGGER)
    instruments.tell("connected", broker="one:1")
    instruments.tell("connected", broker="two:2")
    assert [name for name, _, _ in record] == ["bad", "good", "good"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("raises", [GeneratorExit(), SystemExit(1)])
def test_also_what_is_no_exception_is_logged(raises: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """There is no program in the background for it to end. A real Ctrl-C waits for the hook to end."""
    record: list[Any] = []
    instruments = Instruments((Failing(record, "bad", raises),), LOGGER)
    for _ in range(2):
        instruments.tell("connected", broker="one:1")
    assert len(record) == 1
    assert caplog.text.count("it is told nothing any more") == 1


# ---------------------------------------------------------------------------------------------------------
# The package's side of the bargain


def told() -> Iterator[tuple[str, str, set[str | None]]]:
    """Every place that tells a hook, as (place, hook, names of the payload); None stands for ``**more``."""
    for path in sorted(Path(trio_kprod.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                hook = node.args[0]
                if node.func.attr in ("tell", "ask", "observe") and isinstance(hook, ast.Constant):
                    yield f"{path.name}:{node.lineno}", str(hook.value), payload_names(node)


def payload_names(call: ast.Call) -> set[str | None]:
    """The keywords, or the keys of the dict that a lambda returns: the core makes it only when asked."""
    made = call.args[-1]
    if not isinstance(made, ast.Lambda):
        return {keyword.arg for keyword in call.keywords}
    assert isinstance(made.body, ast.Dict)
    return {ast.literal_eval(key) if key is not None else None for key in made.body.keys}


def test_the_package_tells_the_payloads_that_hooks_take() -> None:
    """A wrong name would disable every instrument that has that hook."""
    for place, hook, names in told():
        expected = set(PAYLOADS.get(hook, ()))
        assert names == expected or (None in names and names - {None} < expected), (place, hook)


def test_every_hook_is_told_by_somebody() -> None:
    """No hook is a promise that nothing keeps."""
    assert {hook for _, hook, _ in told()} == set(HOOKS)
