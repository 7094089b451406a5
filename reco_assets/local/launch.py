"""Becomes a server, after its group is noted: what `processes.Services` puts in front of each command.

A program instead of a function between fork and exec: the parent may have threads by then (gRPC's), and
Python code in a forked child can wait for ever for a lock that one of them held.
"""

import os
import signal
import sys


def main(pipe: int, command: list[str]) -> None:
    """Write this process's group, its own pid, into `pipe`, and become `command`."""
    # A shell starts background jobs with SIGINT ignored. Dagster does on SIGTERM what it does on SIGINT,
    # and would sit out both.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.write(pipe, b"%d\n" % os.getpid())
    os.set_inheritable(pipe, False)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, which a program would inherit
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
