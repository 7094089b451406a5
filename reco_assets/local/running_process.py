"""Whether a process that was noted is still that process: its number alone is used again."""

import os
import socket
from pathlib import Path
from typing import Final

PROCESS_TAG: Final = "reco/process"
"""On a run, from when a process executes it: `this_process` of that process."""

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


def this_process(run_id: str) -> str:
    """The run, and host, pid and start of this process, which executes it.

    A run that is started again takes the tags of the one before along: hence the run.
    """
    return f"{run_id}:{socket.gethostname()}:{os.getpid()}:{start_of(os.getpid())}"


def is_gone(run_id: str, noted: str | None) -> bool:
    """Whether the process that `this_process` noted for the run has ended.

    False where nobody here can tell: nothing is noted (yet), another run's process, or one of another host. A
    container has its own processes and, unless it is set, a host name of its own.
    """
    of_run, *process = (noted or "").split(":")
    if of_run != run_id or len(process) != 3:
        return False
    host, pid, start = process
    return host == socket.gethostname() and str(start_of(int(pid))) != start


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
