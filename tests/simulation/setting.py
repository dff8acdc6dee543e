"""What holds for a whole run: the cluster, the producer's settings, how much happens, and how often what.

All of it is drawn from the seed; rare bugs hide in the extremes, so extremes are common here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import inf
from random import Random

from trio_kprod._core._batch import LAST_EPOCH
from trio_kprod._core._shared import Rules

#: What a message counts as, mostly; some are larger.
MESSAGE_SIZE = 100
LARGE = 300

#: How many losses in a row make a request smaller, and a message given up: as in the core, and sooner.
PATIENCE_OF_LOSSES = ((6, 32), (3, 8), (3, 32))

#: What a broker reads in one request, where it reads less than clients send. A large message is more.
FRAME_LIMITS = (200, 300, 500, 1200)

TOPICS = ("a", "b", "c")

#: A broker forgets a producer so long after the time stamp of its last record (a day, as by default).
PRODUCER_ID_EXPIRATION = 86_400.0


@dataclass(frozen=True, slots=True)
class Setting:
    """The conditions of one run."""

    seed: int
    steps: int
    brokers: int
    topics: int  # of `TOPICS`, these exist from the start
    acks: int
    topic_ids: bool  # KIP-516; without, a topic that was made anew looks like the old one
    by_name: bool  # produce requests before v13 name their topics, instead of their ids
    strict_start: bool  # KAFKA-15591
    denied_are_hidden: bool  # metadata answers do not show what may not be written
    forgetful: bool  # unclean elections happen, brokers forget producers, most messages bear old time stamps
    first_sequence: int  # of a chain's first epoch: so that it wraps soon
    last_epoch: int  # so that epochs run out soon
    request_timeout: float
    candidates: int  # how many partitions compete for messages without key
    losses: tuple[int, int]  # how many in a row make a request smaller, and a message given up
    lasting_limit: int | None  # brokers read no larger requests, also after all faults have ended
    rules: Rules
    weights: tuple[float, ...]  # how often each event of `faults` happens

    def __str__(self) -> str:
        mine = [f"{one.name}={getattr(self, one.name)}" for one in fields(self)]
        rules = [f"{one.name}={getattr(self.rules, one.name)}" for one in fields(self.rules)]
        named = [text for text in mine + rules if not text.startswith(("rules=", "weights=", "yield_gil="))]
        return ", ".join(named)

    @classmethod
    def draw(cls, seed: int, random: Random, usual: Iterable[float], acks: int | None = None) -> Setting:
        choice, chance = random.choice, random.random
        drawn = choice((-1, 1, 0))
        acks = drawn if acks is None else acks
        topic_ids = chance() < 0.85
        strict_start = chance() < 0.5
        return cls(
            seed=seed,
            steps=choice((20, 30, 30, 50, 50, 80, 80, 160)),
            brokers=random.randint(1, 5),
            topics=random.randint(1, 3),
            acks=acks,
            topic_ids=topic_ids,
            by_name=not topic_ids or chance() < 0.15,
            strict_start=strict_start,
            denied_are_hidden=chance() < 0.5,
            forgetful=chance() < 0.2,
            first_sequence=2**31 - random.randint(1, 40) if not strict_start and chance() < 0.3 else 0,
            last_epoch=choice((1, 3)) if chance() < 0.1 else LAST_EPOCH,
            request_timeout=choice((0.5, 2.0, 30.0)),
            candidates=choice((1, 2, 32)),
            losses=choice(PATIENCE_OF_LOSSES),
            lasting_limit=choice(FRAME_LIMITS) if chance() < 0.1 else None,
            rules=_rules(random, acks),
            weights=tuple(weight * choice((0.0, 0.2, 1, 1, 1, 4)) for weight in usual),
        )


def _rules(random: Random, acks: int) -> Rules:
    choice = random.choice
    return Rules(
        idempotent=acks == -1,
        has_responses=acks != 0,
        batch_size=choice((161, 361, 1061)),
        max_request_size=choice((500, 10_000)),
        retry_backoff=choice((0.001, 0.01, 0.1)),
        max_retries=choice((-1, -1, -1, 2)),
        delivery_timeout=choice((inf, inf, inf, 0.5, 2.0)),
        topic_timeout=choice((2.0, 8.0)),
        metadata_max_age=choice((5.0, 100_000.0)),
    )
