"""The table of answers: what it says of each code, and of those it does not know."""

from __future__ import annotations

import pytest
from kafka import errors

from trio_kprod._core._error_codes import TABLE, PartitionResponse, Reaction, may_have_appended, refusal, row


def test_codes_not_in_the_table_may_mean_anything() -> None:
    unknown = row(12345)
    assert unknown.reaction is Reaction.RETRY
    assert unknown.maybe_written
    assert unknown.limit == 10
    assert unknown.name == "error code 12345"


def test_names_are_kafkas_own() -> None:
    names = {
        code: getattr(cls, "message", None)
        for cls in vars(errors).values()
        if isinstance(code := getattr(cls, "errno", None), int)
    }
    differing = {
        code: (one.name, names[code]) for code, one in TABLE.items() if names.get(code, one.name) != one.name
    }
    assert set(differing) <= ALIASES, differing


#: Where kafka-python calls an error otherwise than Kafka's protocol guide.
ALIASES = {-1, 0, 6, 10, 17}


@pytest.mark.parametrize("code", sorted(set(TABLE) - {0, 46}))
def test_a_base_offset_beside_an_error_means_perhaps(code: int) -> None:
    assert may_have_appended(PartitionResponse(code, 0))
    assert may_have_appended(PartitionResponse(code, -1)) == TABLE[code].maybe_written


def test_a_refusal_names_code_name_and_detail() -> None:
    assert str(refusal(87, "record 3 has no key")) == "INVALID_RECORD (87): record 3 has no key"
    assert str(refusal(29)) == "TOPIC_AUTHORIZATION_FAILED (29)"
