"""Ports for servers that tests start, stop and start again."""

import os
import random
import socket
from contextlib import suppress

_FIRST, _END = 20_000, 32_000
"""The kernel gives none below 32768 to anybody who does not ask for it."""

_random = random.Random(os.getpid())
_given: set[int] = set()


def quiet_port() -> int:
    """One that is free and stays so: nobody else of this run, in whichever process, is given it."""
    mine = share_of(os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT"))
    while True:
        port = _random.choice(mine)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def share_of(worker: str | None, count: str | None) -> range:
    """The ports of one of pytest's workers, such as gw0, of so many; without any, all."""
    number = int(worker.removeprefix("gw")) if worker else 0
    return range(_FIRST + number, _END, int(count or 1))
