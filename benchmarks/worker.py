"""A contender's process: reads requests as lines of JSON, does one at a time, answers likewise.

    python -m benchmarks.worker MODULE:CLASS DIRECTORY THREADS

Ends at once when its input does, so that nothing outlives the benchmark, however that ends. Whatever
libraries print goes to stderr.
"""

import gc
import json
import os
import queue
import resource
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from benchmarks.contenders.base import Contender
from benchmarks.contenders.registry import make

MEGABYTE = 1_000_000


def main(path: str, directory: str, threads: str) -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    contender = make(path)
    while True:
        request = json.loads(requests.get())
        try:
            answer: dict[str, Any] = {"answer": _serve(contender, request, Path(directory), int(threads))}
        except BaseException as error:
            answer = {
                "error": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(limit=-3),
            }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _read(requests: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)  # in the middle of a computation too


def _serve(contender: Contender, request: dict[str, Any], directory: Path, threads: int) -> dict[str, Any]:
    operation, options = request["operation"], request["options"]
    gc.collect()
    if operation == "load":
        contender.load(directory, threads)
        gc.collect()
        return {"resident_mb": _memory_mb("VmRSS")}
    if operation == "run":
        _forget_peak()
        seconds = contender.run()
        return {"seconds": seconds, "peak_mb": _memory_mb("VmHWM"), **contender.details()}
    answer: dict[str, Any] = getattr(contender, operation)(**options)
    return answer


def _memory_mb(line: str) -> float:
    """Resident now (VmRSS) or at most since `_forget_peak` (VmHWM); elsewhere than on Linux the peak ever."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE
    return int(status.split(f"{line}:")[1].split()[0]) * 1024 / MEGABYTE


def _forget_peak() -> None:
    """Start the peak anew, so that imports and compilation do not count."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


if __name__ == "__main__":
    main(*sys.argv[1:])
