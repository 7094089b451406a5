"""Ends what a killed parent leaves behind; a program that `processes.Services` starts beside its servers.

Standard input is a pipe whose other end only the parent holds: it closes when the parent is gone, whatever
it died of, on every platform. Each server writes its process group into the pipe before it becomes the
server, so that no instant is left in which a server runs unknown. `DONE` says that the parent has stopped
all of them itself.

If a directory is given, the watchdog is one of the users of that embedded PostgreSQL: the server outlives
the parent until everything else is stopped, and then ends if nobody else uses it.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Final

from reco_assets.local.embedded_postgres import embedded_postgres

DONE: Final = "done"
TERM_TIMEOUT_S: Final = 5.0
"""For servers to stop in order."""
KILL_TIMEOUT_S: Final = 5.0


def main(directory: Path | None, pipe: IO[str]) -> None:
    """Wait for the parent's end, and end what it has started."""
    with embedded_postgres(directory) if directory else nullcontext():
        groups = []
        for line in pipe:
            if line.strip() == DONE:
                return
            groups.append(int(line))
        end_groups(groups, TERM_TIMEOUT_S)


def end_groups(groups: list[int], term_timeout_s: float, reap: Callable[[], object] = lambda: None) -> None:
    """Terminate process groups; kill what is still there after `term_timeout_s`.

    Args:
        groups: their ids.
        term_timeout_s: for all of them together.
        reap: collects the dead whose parent the caller is: until then they look alive.
    """
    for number, timeout_s in ((signal.SIGTERM, term_timeout_s), (signal.SIGKILL, KILL_TIMEOUT_S)):
        for group in groups:
            _signal(group, number)
        deadline = time.monotonic() + timeout_s
        while any(map(_is_alive, groups)) and time.monotonic() < deadline:
            reap()
            time.sleep(0.05)


def _signal(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # the latter: macOS, of a group of zombies
        return False
    return True


def _is_alive(group: int) -> bool:
    return _signal(group, 0)


if __name__ == "__main__":
    # The parent decides when it is time, not a Ctrl-C in its terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, sys.stdin)
