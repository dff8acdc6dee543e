"""Compiled parts of trio_kprod. It finds them by itself; nobody else has a use for them."""

from ._compiled import (
    IntakeCounters as IntakeCounters,
    LedgerCounters as LedgerCounters,
    RoomCounters as RoomCounters,
    Sender as Sender,
    TopicCounters as TopicCounters,
    encode_records as encode_records,
    murmur2 as murmur2,
)
from ._version import __version__ as __version__
