"""Everything that runs in the client's loop, in the worker thread. Only what is named here is for others.

=================  =====================================================================================
`_host`            where the loop runs: a worker thread, or the caller's loop in tests
`_client`          the loop itself, its seam with the user's loop, and the steps of the produce core
`_brokers`         one connection for produce requests to each broker that leads a partition
`_any_broker`      metadata and producer ids, asked of whichever broker responds first
`_endpoints`       where brokers are, how soon to connect again, and what is wrong with each
`_protocol`        between the core's values and kafka-python's messages
`_produce_codec`   produce requests and plain responses in bytes
`_connection`      one connection: opened, authenticated, then a writer and a reader
`_sasl`            the SASL exchange
`_exchange`        one request and its response; frames
`_reasons`         what to tell about a connection that failed
`_transport`       sockets, and the fence that stops them
=================  =====================================================================================
"""

from ._client import Client as Client
from ._host import Host as Host, LoopHost as LoopHost, ThreadHost as ThreadHost
