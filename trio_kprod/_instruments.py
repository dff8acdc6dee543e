"""Hooks for programs that count, log or trace what happens inside.

`Instrument` is what users derive from; `Instruments` is what the producer tells. Hooks run in the loop of
the code that opened the producer, between its tasks, so they must be quick. Most are called once for a batch,
with counts. Those that are called for each message cost time for each, but only if an instrument has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import logging

    from ._messages import Headers, Message, RecordMetadata, Undelivered
    from ._producer import Producer


class Instrument:
    """Base class of instruments: derive from it, override the hooks you want, pass an instance to
    ``open_producer(..., instruments=(MyInstrument(),))``.

    Every hook is a plain method with keyword arguments; those you leave alone cost nothing. Take
    ``**payload`` at the end if you want to accept what later versions may add. Sizes are bytes, counted as
    all bounds count them (encoded, uncompressed, with the record's overhead) unless a hook says otherwise;
    durations are seconds on the client's clock; a `broker` is ``"host:port"``. The events are ruby-kafka's
    where a hook names one.

    If a hook raises, the error is logged, and no hook of its instrument is called any more; messages and the
    other instruments are unharmed.

    Four hooks follow single messages, for traces: `sending`, then `accepted` or `rejected`, and after
    `accepted` always `settled`. They know a message by its `number`, which is unique for a producer.
    """

    # -- the producer --------------------------------------------------------------------------------

    def opened(self, *, producer: Producer[Any, Any]) -> None:
        """The producer is open, and the body of the block is about to begin.

        An instrument may keep it to poll `Producer.statistics`, which any thread may call at any time.
        """

    def closed(self, *, producer: Producer[Any, Any]) -> None:
        """The block is over, and every message has its outcome. Told if `opened` was."""

    # -- each message --------------------------------------------------------------------------------

    def sending(
        self,
        *,
        number: int,
        topic: str,
        value: Any,
        key: Any,
        headers: Headers | None,
        partition: int | None,
        timestamp_ms: int | None,
    ) -> Headers | None:
        """A send is about to make a message of these arguments, which are as the caller gave them.

        What this returns is added to the headers of the message, such as a ``traceparent``.
        """

    def accepted(self, *, number: int, message: Message) -> None:
        """The message is in the queue, as it will be sent."""

    def rejected(self, *, number: int, error: BaseException) -> None:
        """The message was not queued, and the send raises `error` (also `Cancelled`)."""

    def settled(
        self, *, number: int, message: Message, record: RecordMetadata | None, undelivered: Undelivered | None
    ) -> None:
        """The message has its outcome: `record` says where it is in Kafka's log, or `undelivered` why not.

        Exactly one of the two is not None. Told after `ack_messages` or `undelivered` was told of its batch.
        """

    # -- the queue and the buffer --------------------------------------------------------------------

    def enqueue_message(self, *, topic: str, queue_size: int, max_queue_size: int) -> None:
        """A send accepted a message into the queue; `queue_size` is the number of messages in it now.

        ruby-kafka: ``enqueue_message.async_producer``.
        """

    def buffer_overflow(self, *, topic: str) -> None:
        """`send_nowait` found no room and is about to raise `BufferOverflow`; nothing was queued.

        ruby-kafka: ``buffer_overflow.async_producer``.
        """

    def error(self, *, error: BaseException) -> None:
        """Something went wrong in the background: a message was given up, a callback raised, or the producer
        crashed. It is not called for attempts that are made again.

        ruby-kafka: ``error.async_producer``.
        """

    def drop_messages(self, *, message_count: int) -> None:
        """`message_count` messages were given up at once, at the end of the scope or by `abort`.

        ruby-kafka: ``drop_messages.async_producer``.
        """

    def produce_messages(
        self,
        *,
        message_count: int,
        message_bytes: int,
        buffer_size: int,
        max_buffer_size: int,
        queue_size: int,
        max_queue_size: int,
    ) -> None:
        """Messages were taken from the queue into the buffer; the sizes are the numbers in them now.

        ruby-kafka: ``produce_message.producer``, here once for all that were taken together.
        """

    def buffer_full(self, *, buffer_size: int, max_buffer_size: int) -> None:
        """The buffer has no room, by messages or by bytes: a delivery begins, and the queue starts to fill.

        ruby-kafka: ``buffer_overflow.producer``.
        """

    # -- outcomes ------------------------------------------------------------------------------------

    def undelivered(
        self, *, topic: str, partition: int, message_count: int, cause: BaseException, maybe_written: bool
    ) -> None:
        """Messages were given up together; `partition` is -1 if they had not been given one.

        `cause` and `maybe_written` are those of `Undelivered`.
        """

    def topic_error(self, *, topic: str, error: BaseException) -> None:
        """A broker refused messages of this topic, or no broker knows it. They may still be sent again.

        ruby-kafka: ``topic_error.producer``.
        """

    def deliver_messages(
        self,
        *,
        message_count: int,
        delivered_message_count: int,
        attempts: int,
        duration: float,
        error: BaseException | None,
    ) -> None:
        """Every message that one trigger handed over has its outcome.

        A trigger is a threshold reached, an interval passed, a full buffer, a call that asks for delivery, or
        the end of the scope. `attempts` is the most often that a batch of them was sent, `duration` runs from
        the hand-over to the last outcome, `error` is the cause of the first undelivered message, else None.

        ruby-kafka: ``deliver_messages.producer``.
        """

    def send_messages(
        self, *, broker: str, message_count: int, sent_message_count: int, duration: float
    ) -> None:
        """A produce request to `broker` was answered, or its connection was lost.

        `message_count` is how many messages it carried, `sent_message_count` how many of them the response
        acknowledged (with ``acks=0``: all, once it was written), `duration` the time between.

        ruby-kafka: ``send_messages.producer``.
        """

    def ack_messages(
        self, *, topic: str, partition: int, base_offset: int, message_count: int, delay: float
    ) -> None:
        """A batch was acknowledged; `base_offset` is that of its first message, or -1 if unknown.

        `delay` is the time since the oldest of its messages was accepted.

        ruby-kafka: ``ack_message.producer``, here once a batch.
        """

    # -- brokers -------------------------------------------------------------------------------------

    def compress(self, *, message_count: int, uncompressed_bytes: int, compressed_bytes: int) -> None:
        """A batch was compressed; both sizes are those of its encoded records.

        ruby-kafka: ``compress.compressor``.
        """

    def request(
        self,
        *,
        broker: str,
        api: str,
        request_bytes: int,
        response_bytes: int,
        duration: float,
        error: BaseException | None,
    ) -> None:
        """A request was answered, or failed with `error`; `api` is its name, such as ``"Produce"``.

        Sizes are those on the wire, below TLS. ruby-kafka: ``request.connection``.
        """

    def throttled(self, *, broker: str, duration: float) -> None:
        """A broker makes us pause for `duration` more, because a quota is used up (KIP-219)."""

    def connected(self, *, broker: str) -> None:
        """A connection is usable: its first response has come. (With ``acks=0``, a request was written.)

        TLS and SASL are past then. Before that, a listener that wants a login looks like any other.
        """

    def connect_failed(self, *, broker: str, error: BaseException) -> None:
        """An attempt to connect to `broker` has failed, or the connection ended before its first response; it
        is made again after a pause."""

    def disconnected(self, *, broker: str, error: BaseException | None) -> None:
        """A connection that was told as connected has ended; `error` is None if we closed it."""


_T = TypeVar("_T")

#: The name of every hook.
HOOKS = tuple(name for name in vars(Instrument) if not name.startswith("_"))

#: Those of single messages on their way in.
_FOLLOWING = ("sending", "accepted", "rejected", "settled")

_Hook = Callable[..., object]


def overridden(instrument: Instrument) -> dict[str, _Hook]:
    """The hooks that this instrument does not leave alone, by name."""
    hooks: dict[str, _Hook] = {}
    for name in HOOKS:
        hook = getattr(instrument, name)
        if getattr(hook, "__func__", hook) is not vars(Instrument)[name]:
            hooks[name] = hook
    return hooks


def misspelt(instrument: Instrument) -> dict[str, str]:
    """Public methods that are no hooks, but nearly have the name of one, and that name."""
    found: dict[str, str] = {}
    for name in dir(type(instrument)):
        if not name.startswith("_") and name not in HOOKS and callable(getattr(type(instrument), name)):
            for nearest in get_close_matches(name, HOOKS, n=1, cutoff=0.85):
                found[name] = nearest
    return found


class Instruments:
    """Tells every instrument what it asked for.

    Each hook is an attribute: the instruments that have it, with their methods. A hot path pays one look-up::

        if instruments.ack_messages:
            instruments.tell("ack_messages", topic=topic, ...)

    Attributes:
        on_accept (bool): some instrument is told when a message is queued.
        follow_messages (bool): some instrument follows single messages.
    """

    __slots__ = ("_disabled", "_instruments", "_logger", "follow_messages", "on_accept", *HOOKS)

    if TYPE_CHECKING:

        def __getattr__(self, hook: str) -> tuple[tuple[Instrument, _Hook], ...]: ...

    def __init__(
        self, instruments: Iterable[Instrument], logger: logging.Logger | logging.LoggerAdapter[Any]
    ) -> None:
        self._instruments = tuple(instruments)
        self._logger = logger
        self._disabled: set[int] = set()  # by id: an instrument need not be hashable
        for one in self._instruments:
            for name, nearest in misspelt(one).items():
                text = "%s.%s is no hook, so nothing calls it; did you mean %s?"
                logger.warning(text, type(one).__name__, name, nearest)
        self._arrange()

    def tell(self, hook: str, /, **payload: Any) -> None:
        """Call `hook` of every instrument that has it, in the order they were given in. Never raises."""
        self.ask(hook, _discard, **payload)

    def ask(self, hook: str, read: Callable[[Any], _T], /, **payload: Any) -> list[_T]:
        """The same, and return what `read` makes of each answer. `read` raises if an answer is wrong."""
        answers: list[_T] = []
        for instrument, call in getattr(self, hook):
            if id(instrument) in self._disabled:  # since this loop began, by what another hook did
                continue
            try:
                answers.append(read(call(**payload)))
            except BaseException:
                # Also SystemExit and KeyboardInterrupt, if the hook raises them: in a background task they
                # would not end the program, and a send must not raise for a message that it has accepted.
                # (trio does not raise Ctrl-C in here: the callers are protected from it.)
                self._disable(instrument, hook)
        return answers

    def _disable(self, instrument: Instrument, hook: str) -> None:
        self._disabled.add(id(instrument))
        self._arrange()
        self._logger.exception("%r raised in its hook %s; it is told nothing any more", instrument, hook)

    def _arrange(self) -> None:
        active = [(one, overridden(one)) for one in self._instruments if id(one) not in self._disabled]
        for name in HOOKS:
            setattr(self, name, tuple((one, hooks[name]) for one, hooks in active if name in hooks))
        self.on_accept: bool = bool(self.enqueue_message or self.accepted)
        self.follow_messages: bool = any(getattr(self, name) for name in _FOLLOWING)


def _discard(_: object) -> None: ...
