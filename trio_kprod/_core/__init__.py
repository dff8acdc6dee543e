"""The produce core: what to send, when to send it again, and what became of it. No I/O, no clock, no thread.

A state machine in the manner of h11: it is told what happened, and says what to do next. Events go down this
table, actions come back up; only what is named below it is for others.

===============  =======================================================================================
`_core`          events in, actions out: which leaders get which batches in which requests
`_topic`         a topic: its partitions, and the messages that have no partition yet
`_keyless`       which partition gets the next messages without key
`_metadata`      what brokers say of a topic, how often we ask, and how far we believe it
`_expiry`        messages are given up when their time is over
`_progress`      whether a topic makes progress, so that it cannot take the room of others
`_troubles`      why messages of a topic are not acknowledged
`_responses`     what a response, or its absence, does to a batch and to those around it
`_partition`     a partition: what waits for it, what is unsettled, which batch may be sent next
`_batch`         what travels: a batch, its chain of sequence numbers, the request that carries it
`_error_codes`   the table of what each of Kafka's error codes means for a batch
`_hints`         what to look at when a broker refuses
`_records`       a batch in bytes
`_partitioners`  which partition a key belongs to
`_actions`       what the core wants done
`_limits`        how large a request each node takes
`_gathering`     what comes while a request is in flight to a broker leaves together
`_outbox`        where topics and partitions leave actions and timers
`_shared`        the rules, and what all parts of one core share
`_reports`       what the user's loop is told
===============  =======================================================================================
"""

from ._actions import (
    Action as Action,
    Connect as Connect,
    RequestMetadata as RequestMetadata,
    RequestProducerId as RequestProducerId,
    Send as Send,
    Shrunk as Shrunk,
    Troubled as Troubled,
    Untroubled as Untroubled,
    Withdraw as Withdraw,
)
from ._batch import Batch as Batch, Request as Request
from ._core import ProduceCore as ProduceCore
from ._error_codes import (
    PartitionResponse as PartitionResponse,
    Reaction as Reaction,
    refusal as refusal,
    row as row,
)
from ._hints import look_at as look_at
from ._metadata import (
    NO_TOPIC_ID as NO_TOPIC_ID,
    PartitionMetadata as PartitionMetadata,
    TopicMetadata as TopicMetadata,
)
from ._partitioners import Partitioner as Partitioner, adapt as adapt
from ._reports import (
    Observed as Observed,
    Opened as Opened,
    PartitionCount as PartitionCount,
    Recovered as Recovered,
    Report as Report,
    Settled as Settled,
    Stalled as Stalled,
    Throttled as Throttled,
)
from ._shared import Abandoned as Abandoned, Rules as Rules
from ._topic import Topic as Topic
