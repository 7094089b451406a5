"""Servers under test: started, waited for, gone afterwards."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.contenders.registry import CHECKOUT
from benchmarks.processes import ContenderFailed, environment_for

_START_S: Final = 60.0
_READY_S: Final = 180.0
_STOP_S: Final = 30.0


@contextmanager
def hello_server(directory: Path) -> Iterator[str]:
    """The URL of the server that says hello."""
    with _server(["-m", "benchmarks.contenders.hello"], {}, directory / "hello.log") as url:
        yield url


@contextmanager
def service(name: str, directory: Path, options: Mapping[str, Any], **settings: Any) -> Iterator[str]:
    """The URL of `reco serve` on the benchmark's database, one process, its log in a file."""
    environment = {
        "RECO_DATABASE_URL": options["database_url"],
        "RECO_HOME": options["home"],
        "RECO_SERVICE_PORT": "0",
        **{f"RECO_{key.upper()}": str(value) for key, value in settings.items()},
    }
    with _server(["-m", "reco_assets", "serve"], environment, directory / f"{name}.log") as url:
        yield url


def wait_for(url: str, wanted: str) -> None:
    """Until feeds come from a source: models are loaded in the background.

    Raises:
        ContenderFailed: They do not.
    """
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        answer = httpx.get(url, timeout=30)
        if answer.status_code == 200 and answer.json()["posts"][0]["source"] == wanted:
            return
        time.sleep(0.2)
    raise ContenderFailed(f"Feeds do not come from {wanted}: {answer.text[:500]}")


@contextmanager
def _server(arguments: list[str], environment: Mapping[str, str], log: Path) -> Iterator[str]:
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=CHECKOUT,
            env={**environment_for(1), **environment},
            start_new_session=True,  # Ctrl-C is for the benchmark, which then stops it
        )
    try:
        yield _announced(process, log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _announced(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith("Listening on "):
                url = line.removeprefix("Listening on ")
                try:
                    httpx.get(f"{url}/", timeout=5)
                except httpx.TransportError:
                    break
                return url
        time.sleep(0.05)
    tail = "\n".join(log.read_text().splitlines()[-15:])
    raise ContenderFailed(f"{' '.join(map(str, process.args))} did not start:\n{tail}")  # type: ignore[arg-type]
