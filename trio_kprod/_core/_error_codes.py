"""What a broker's response for a batch means: the one table, keyed by error code and base offset.

A response speaks of one transmission only. Brokers check size, time stamps, keys, rights and replicas
before they look for duplicates, so a batch that is already in the log can be refused when it is sent
again; whether the *batch* may have been written is remembered elsewhere (`Batch.maybe_written`).

Two facts decide what one transmission did: the code, by this table, and the base offset. A broker that
refuses before appending responds with offset -1. One that appended and failed afterwards responds with the
offset and the error (``DelayedProduce`` in Kafka's source). So ``base_offset >= 0`` with any error means:
maybe written.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .._errors import Refused


class Reaction(enum.Enum):
    """What to do with the batch."""

    WRITTEN = "settle it"
    RETRY = "the same bytes again, after a pause"
    FAIL_RECORDS = "the records that the response lists fail, the rest goes on"
    SPLIT = "halve it until the guilty record stands alone"
    REFUSED = "fail it"
    OUT_OF_ORDER = "the log lacks a predecessor"
    FENCED = "another client uses our producer id"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    `maybe_written`: this transmission may have been written. `refresh`: ask for metadata. `limit`: give the
    batch up after this number of such responses, even if `max_retries` allows more. `new_id`: the producer id
    is spoiled.
    """

    name: str
    reaction: Reaction
    maybe_written: bool = False
    refresh: bool = False
    limit: int | None = None
    new_id: bool = False


class PartitionResponse(NamedTuple):
    """A broker's response for one batch, as the protocol gives it (`leader` and its epoch by KIP-951)."""

    code: int
    base_offset: int = -1
    timestamp_ms: int = -1
    record_errors: Mapping[int, str | None] = {}
    message: str | None = None
    leader: int = -1
    leader_epoch: int = -1


def _rows(reaction: Reaction, codes: Mapping[int, str], **flags: bool | int) -> dict[int, Row]:
    return {code: Row(name, reaction, **flags) for code, name in codes.items()}  # type: ignore[arg-type]


_UNKNOWN_LIMIT = 10
_CORRUPT_LIMIT = 3

TABLE: Mapping[int, Row] = {
    **_rows(Reaction.WRITTEN, {0: "NONE", 46: "DUPLICATE_SEQUENCE_NUMBER"}),
    **_rows(
        Reaction.RETRY,
        {
            3: "UNKNOWN_TOPIC_OR_PARTITION",
            5: "LEADER_NOT_AVAILABLE",
            6: "NOT_LEADER_OR_FOLLOWER",
            8: "BROKER_NOT_AVAILABLE",
            9: "REPLICA_NOT_AVAILABLE",
            72: "LISTENER_NOT_FOUND",
            74: "FENCED_LEADER_EPOCH",
            75: "UNKNOWN_LEADER_EPOCH",
            100: "UNKNOWN_TOPIC_ID",
            103: "INCONSISTENT_TOPIC_ID",
        },
        refresh=True,
    ),
    **_rows(
        Reaction.RETRY,
        {
            14: "COORDINATOR_LOAD_IN_PROGRESS",
            15: "COORDINATOR_NOT_AVAILABLE",
            16: "NOT_COORDINATOR",
            89: "THROTTLING_QUOTA_EXCEEDED",
        },
    ),
    # The replicas do not confirm. Perhaps this leader is cut off from them, and they have another by now.
    **_rows(Reaction.RETRY, {19: "NOT_ENOUGH_REPLICAS"}, refresh=True),
    **_rows(
        Reaction.RETRY,
        {7: "REQUEST_TIMED_OUT", 13: "NETWORK_EXCEPTION", 20: "NOT_ENOUGH_REPLICAS_AFTER_APPEND"},
        maybe_written=True,
        refresh=True,
    ),
    **_rows(Reaction.RETRY, {56: "KAFKA_STORAGE_ERROR"}, maybe_written=True, refresh=True),
    **_rows(Reaction.RETRY, {-1: "UNKNOWN_SERVER_ERROR"}, maybe_written=True, limit=_UNKNOWN_LIMIT),
    **_rows(Reaction.RETRY, {2: "CORRUPT_MESSAGE"}, limit=_CORRUPT_LIMIT),
    **_rows(Reaction.SPLIT, {10: "MESSAGE_TOO_LARGE", 18: "RECORD_LIST_TOO_LARGE"}),
    **_rows(Reaction.FAIL_RECORDS, {32: "INVALID_TIMESTAMP", 87: "INVALID_RECORD"}),
    **_rows(
        Reaction.REFUSED,
        {
            17: "INVALID_TOPIC_EXCEPTION",
            21: "INVALID_REQUIRED_ACKS",
            29: "TOPIC_AUTHORIZATION_FAILED",
            31: "CLUSTER_AUTHORIZATION_FAILED",
            35: "UNSUPPORTED_VERSION",
            42: "INVALID_REQUEST",
            43: "UNSUPPORTED_FOR_MESSAGE_FORMAT",
            44: "POLICY_VIOLATION",
            76: "UNSUPPORTED_COMPRESSION_TYPE",
        },
    ),
    **_rows(
        Reaction.REFUSED,
        {
            48: "INVALID_TXN_STATE",
            49: "INVALID_PRODUCER_ID_MAPPING",
            51: "CONCURRENT_TRANSACTIONS",
            53: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
            90: "PRODUCER_FENCED",
            120: "TRANSACTION_ABORTABLE",
        },
        new_id=True,
    ),
    **_rows(Reaction.OUT_OF_ORDER, {45: "OUT_OF_ORDER_SEQUENCE_NUMBER", 59: "UNKNOWN_PRODUCER_ID"}),
    **_rows(Reaction.FENCED, {47: "INVALID_PRODUCER_EPOCH"}, new_id=True, limit=_UNKNOWN_LIMIT),
}


def row(code: int) -> Row:
    """The row of a code. A code that the table does not know may mean anything."""
    known = TABLE.get(code)
    return known or Row(f"error code {code}", Reaction.RETRY, maybe_written=True, limit=_UNKNOWN_LIMIT)


def may_have_appended(response: PartitionResponse) -> bool:
    """Whether this transmission may have been appended although the response is an error."""
    return row(response.code).maybe_written or response.base_offset >= 0


def refusal(code: int, detail: str | None = None) -> Refused:
    """The error that users get for a response."""
    return Refused(code, row(code).name, detail)
