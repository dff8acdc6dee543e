"""What to do when messages come faster than Kafka takes them: drop the new, wait, or drop the old."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import trio
from _common import arguments, some_kafka

import trio_kprod
from trio_kprod import Producer

#: More than the queue of the producers below holds.
BURST = [b"reading %d" % number for number in range(100)]


async def drop_new(producer: Producer, topic: str, burst: Sequence[bytes]) -> str:
    """`send_nowait` says at once that there is no room, and the caller decides what that means."""
    dropped = 0
    for value in burst:
        try:
            producer.send_nowait(topic, value)
        except trio_kprod.BufferOverflow as overflow:
            dropped += 1
            reason = overflow
    return f"{dropped} were refused, each with BufferOverflow: {reason}" if dropped else "none was refused"


async def wait(producer: Producer, topic: str, burst: Sequence[bytes]) -> str:
    """`send` waits for room, so whoever calls it slows down to the pace of Kafka."""
    started = trio.current_time()
    for value in burst:
        await producer.send(topic, value)
    return f"none was refused, but it took {trio.current_time() - started:.3f} s"


async def drop_old(producer: Producer, topic: str, burst: Sequence[bytes]) -> str:
    """A deque in front that forgets its oldest: what matters is the latest state, not how it came about."""
    latest = deque(burst, maxlen=10)
    forgotten = len(burst) - len(latest)
    await producer.send_many(topic, latest)
    return f"{forgotten} were forgotten, the first that was sent is {burst[forgotten].decode()!r}"


Policy = Callable[[Producer, str, Sequence[bytes]], Awaitable[str]]


async def show(policy: Policy, servers: str, topic: str) -> None:
    """Let the burst run into a producer that has little room."""
    # The queue is what `send_nowait` can fill; the buffer behind it holds what is on its way. A topic without
    # an acknowledged message may take half of the buffer.
    async with trio_kprod.open_producer(
        servers, max_queue_size=10, max_buffer_size=40, delivery_threshold=20
    ) as producer:
        told = await policy(producer, topic, BURST)
    delivered = producer.statistics().delivered
    print(f"{policy.__name__:>8}: {len(BURST)} readings, {delivered} delivered; {told}")


async def main() -> None:
    options = arguments(__doc__).parse_args()
    policies: tuple[Policy, ...] = (drop_new, wait, drop_old)
    async with some_kafka(options.bootstrap_servers) as servers:
        for policy in policies:
            await show(policy, servers, options.topic)


if __name__ == "__main__":
    trio.run(main)
