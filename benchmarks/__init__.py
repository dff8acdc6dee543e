"""Figures anyone can measure again: trio_kprod beside what else produces to Kafka from Python.

===================================  =================================================================
``python -m benchmarks``             all of them, and ``RESULTS.md`` from what they found
``python -m benchmarks.throughput``  messages a second, by size, key, partitions, topics, headers, codec
``python -m benchmarks.latency``     how long an acknowledgement takes, at a given rate and awaited
``python -m benchmarks.responsiveness``  how late a timer of the same loop fires
``python -m benchmarks.cost``        processor time a message, and `send_nowait` beside a bare channel
``python -m benchmarks.growth``      cost as partitions, topics, buffer, tasks and outage grow
``python -m benchmarks.recovery``    how soon a backlog is delivered after an outage
``python -m benchmarks.memory``      resident memory with everything full, and after a million messages
``python -m benchmarks.soak``        an hour of faults at random, and what became of each message
``python -m benchmarks.endurance``   idle, Kafka away, ten million messages, ten thousand topics
``python -m benchmarks.smoke``       under a minute: are we still several times `KafkaProducer`?
===================================  =================================================================

All need a real Apache Kafka, and start one unless ``--bootstrap-servers`` names it. The other producers come
with ``pip install 'trio_kprod[bench]'``; one that is not installed is left out, and that is said.

`peers` holds the producers that are compared, `harness` what the commands share: each producer runs in a
process of its own, they take turns, and a round counts only if its messages are in the log.
"""
