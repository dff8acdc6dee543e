"""The client, and everything that runs in its loop. Only what is named here is for others.

=================  =====================================================================================
`_host`            where the client runs: in a worker thread, or in the loop of the user
`_client`          the loop itself, and its seam with the user's loop
`_brokers`         one connection for produce requests to each broker that leads a partition
`_any_broker`      metadata and producer ids, asked of whichever broker responds first
`_race`            one question to several brokers at once
`_endpoints`       where brokers are, how soon to connect again, and what is wrong with each
`_steps`           when the produce core is handed events, and who may touch it; reports
`_produce_codec`   produce requests and plain responses in bytes
`_protocol`        between the core's values and kafka-python's messages
`_connection`      one connection: opened, then a writer and a reader
`_handshake`       what opening takes: TLS, versions, authentication
`_sasl`            the SASL exchange
`_writer`          the requests that are queued and in flight on one connection
`_exchange`        one request and its response; frames
`_troubles`        what is wrong just now, and how often it is logged
`_probe`           each step of the way to Kafka by itself, for `ping`
`_reasons`         what to tell about a connection that failed
`_diagnosis`       what it means that a connection could not be opened, and what to do
`_second_look`     if a port closed without a word: what it speaks
`_transport`       sockets, and the fence that stops them
=================  =====================================================================================
"""

from ._client import Client as Client
from ._host import Host as Host, LoopHost as LoopHost, ThreadHost as ThreadHost
from ._probe import Finding as Finding, Probe as Probe
