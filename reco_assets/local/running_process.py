"""Whether a process that was noted is still that process: its number alone is used again."""

import os
import socket
from pathlib import Path
from typing import Final

PROCESS_TAG: Final = "reco/process"
"""On runs that a `reco` command executes itself: `this_process()` of the command."""

_NO_PROC: Final = 0
"""The start of a living process where there is no /proc: all are taken for the one that was noted."""


def start_of(pid: int) -> int | None:
    """When the process began, in clock ticks since the machine did; None if it is gone.

    An exact number, unlike a time of day: setting the clock does not change it.
    """
    if not Path("/proc/self/stat").exists():
        return _NO_PROC if _is_there(pid) else None
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(fields[18])


def began_after(start: int, moment: float) -> bool:
    """Whether a process with that start began later than `moment`, in seconds since 1970.

    Times of day are rough, ten seconds are left to them.
    """
    if start == _NO_PROC:
        return False
    boot = next(
        int(line.split()[1])
        for line in Path("/proc/stat").read_text().splitlines()
        if line.startswith("btime")
    )
    return boot + start / os.sysconf("SC_CLK_TCK") > moment + 10


def this_process() -> str:
    """Host, pid and start of this process."""
    return f"{socket.gethostname()}:{os.getpid()}:{start_of(os.getpid())}"


def is_gone(noted: str) -> bool:
    """Whether what `this_process` noted has ended; False for a process of another host."""
    host, pid, start = noted.rsplit(":", 2)
    return host == socket.gethostname() and str(start_of(int(pid))) != start


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
