"""What type checkers are told is so at run time. `type_tests/` is about what they make of it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import pytest

import trio_kprod
from trio_kprod import ClientConfig, Item, Producer, ProducerOptions, ProducerScope, open_producer
from trio_kprod._settings._config import NAMED
from trio_kprod.testing import open_memory_producer

SERIALIZERS = {"key_serializer", "value_serializer"}


def test_the_options_that_can_be_passed_on_are_all_but_servers_and_serializers() -> None:
    assert ProducerOptions.__optional_keys__ == (NAMED.keys() - SERIALIZERS) | ClientConfig.__optional_keys__
    assert not ProducerOptions.__required_keys__


def test_their_types_are_those_of_the_signature() -> None:
    """Type checkers see the overloads, people and `help` see the function."""
    named = inspect.signature(open_producer).parameters
    own = {name: ProducerOptions.__annotations__[name] for name in NAMED.keys() - SERIALIZERS}
    assert {name: text(one) for name, one in own.items()} == {
        name: text(named[name].annotation) for name in own
    }


def text(annotation: Any) -> str:
    """An annotation as it is written, whether the version of Python wraps it or not."""
    return annotation.__forward_arg__ if isinstance(annotation, typing.ForwardRef) else str(annotation)


@pytest.mark.parametrize("opens", [open_producer, open_memory_producer])
def test_both_take_the_serializers(opens: Callable[..., object]) -> None:
    named = inspect.signature(opens).parameters
    assert named.keys() >= SERIALIZERS
    assert {named[name].annotation for name in SERIALIZERS} == {"Serializer[Any] | None"}


def test_annotations_work_at_run_time() -> None:
    def annotated(one: Producer[str, bytes], two: Producer[bytes, bytes], plain: Producer) -> None: ...

    hints = typing.get_type_hints(annotated)
    assert (typing.get_origin(hints["one"]), typing.get_args(hints["one"])) == (Producer, (str, bytes))
    assert hints["plain"] is Producer
    assert typing.get_origin(ProducerScope[bytes, bytes]) is ProducerScope
    assert Item[str, bytes](b"value", "key") == Item(b"value", "key")
    assert Producer[bytes, bytes] == trio_kprod.Producer[bytes, bytes]
