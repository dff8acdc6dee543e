"""The produce core: what to send, when to send it again, and what became of it. No I/O, no clock, no thread.

A state machine in the manner of h11: it is told what happened, and the time, and says what to do next.
`_core` takes events and gives actions; `_topic` and `_partition` hold what waits and decide what may be
sent; `_verdicts` says what an answer changes and `_answers` what it means; `_batch` is what travels.
"""
