"""Contenders as child processes that take turns and end with the benchmark."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

from benchmarks.contenders.registry import CHECKOUT, Entrant

_THREADS = ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR", "VECLIB_MAXIMUM")
_FOREIGN = ("RECO_", "DAGSTER_", "MLFLOW_", "PG", "PYTHON")


class ContenderFailed(Exception):
    """A contender raised an error or died; the message holds what it said."""


def started(entrant: Entrant, directory: Path, threads: int) -> "ContenderProcess":
    """A loaded contender, whose code is compiled if that is kept on disk.

    Raises:
        ContenderFailed: It could not be loaded or run.
    """
    if entrant.compiles:
        process = ContenderProcess(entrant, directory, threads)
        try:
            process.ask("run")
        finally:
            process.stop()
    return ContenderProcess(entrant, directory, threads)


class ContenderProcess:
    """A contender, started and loaded.

    Args:
        entrant: who.
        directory: its data.
        threads: how many it may use.

    Attributes:
        resident_mb: memory after imports and loading.

    Raises:
        ContenderFailed: It could not be loaded.
    """

    def __init__(self, entrant: Entrant, directory: Path, threads: int) -> None:
        self.entrant = entrant
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop
        self._process = subprocess.Popen(
            [entrant.python, "-m", "benchmarks.worker", entrant.path, directory, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=CHECKOUT,
            env=environment_for(threads),
            start_new_session=True,  # Ctrl-C is for the benchmark, which then stops it
        )
        try:
            self.resident_mb = float(self.ask("load")["resident_mb"])
        except BaseException:
            self.stop()
            raise

    def ask(self, operation: str, **options: Any) -> dict[str, Any]:
        """Have it do something and wait for the answer.

        Raises:
            ContenderFailed: It could not.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"operation": operation, "options": options}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ContenderFailed(f"{self.entrant.name} died at {operation}. {self._tail()}")
        reply = json.loads(line)
        if "error" in reply:
            raise ContenderFailed(
                f"{self.entrant.name} failed at {operation}: {reply['error']}\n{reply['traceback']}"
            )
        answer: dict[str, Any] = reply["answer"]
        return answer

    def stop(self) -> None:
        """End it, whatever it is doing."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()
        self._said.close()

    def _tail(self) -> str:
        self._said.seek(0)
        return "\n".join(self._said.read().decode(errors="replace").splitlines()[-15:])


@contextmanager
def unwound_when_stopped() -> Iterator[None]:
    """Ctrl-C and SIGTERM unwind the stack alike, so that processes and directories are cleared away.

    SIGINT too gets a handler: a shell's background jobs start with it ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # the signature of handlers
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def working_directory() -> Iterator[Path]:
    """A directory that is gone afterwards; open to the account that PostgreSQL runs as under root."""
    with tempfile.TemporaryDirectory(prefix="reco-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def without_own_settings(environment: dict[str, str]) -> dict[str, str]:
    """Settings of a deployment must neither bend a benchmark nor lead it to a real database."""
    return {name: value for name, value in environment.items() if not name.startswith(_FOREIGN)}


def environment_for(threads: int) -> dict[str, str]:
    """Of a child: no settings of a deployment, this checkout's modules, and so many threads for libraries."""
    limits = {f"{name}_NUM_THREADS": str(threads) for name in _THREADS}
    return without_own_settings(dict(os.environ)) | limits | {"PYTHONPATH": str(CHECKOUT)}
