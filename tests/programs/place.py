"""`open_producer` for a program that is told, by its last argument, where the client runs: thread or loop."""

from __future__ import annotations

import sys
from functools import partial

import trio_kprod

open_producer = partial(trio_kprod.open_producer, own_thread={"thread": True, "loop": False}[sys.argv[-1]])
