"""Ports for servers that tests start, stop and start again."""

import os
import random
import socket
from contextlib import suppress

_random = random.Random(os.getpid())
_given: set[int] = set()


def quiet_port() -> int:
    """One that is free and stays so: the kernel gives none below 32768 to anybody who does not ask for it."""
    while True:
        port = _random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
