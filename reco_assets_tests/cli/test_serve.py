"""`reco serve` as a process: it listens where it says, and stops when it is told to."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from reco_assets.settings import Settings
from reco_assets_tests.serving.conftest import soon
from reco_assets_tests.store.conftest import engine, settings, template

__all__ = ["engine", "settings", "template"]  # fixtures


@contextmanager
def reco_serve(
    home: Path, database_url: str, *arguments: str, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The running command and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "reco_assets", "serve", "--port", "0", *arguments],
        env={**os.environ, "RECO_HOME": str(home), "RECO_DATABASE_URL": database_url, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        found = re.match(r"Listening on (http://\S+)", process.stdout.readline())
        assert found
        yield found.group(1), process
    finally:
        if process.stdout is not None:
            process.stdout.close()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _states(client: httpx.Client) -> dict[str, str]:
    checks = client.get("/api/health/ready").json()["checks"]
    return {name: check["state"] for name, check in checks.items()}


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=20, transport=httpx.HTTPTransport(retries=20))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_until_it_is_terminated(home: Path, settings: Settings, workers: str) -> None:
    assert settings.database_url is not None
    with reco_serve(home, settings.database_url, "--workers", workers) as (url, process):
        with _client(url) as client:
            assert client.get("/api/health/live").json() == {"state": "ok"}
            # It answers while it still looks for its database.
            assert soon(lambda: _states(client)["database"] == _states(client)["schema"] == "ok")
            assert "reco_request_seconds" in client.get("/metrics").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


def test_a_database_that_was_not_migrated_makes_it_unready_and_says_what_to_do(
    home: Path, empty_database_url: str
) -> None:
    with reco_serve(home, empty_database_url) as (url, _), _client(url) as client:
        assert soon(lambda: _states(client)["database"] == "ok")
        answer = client.get("/api/health/ready")
        assert answer.status_code == 503
        assert "reco migrate" in answer.json()["checks"]["schema"]["detail"]


def test_it_starts_without_a_database_and_says_that_it_is_not_ready(home: Path) -> None:
    with reco_serve(home, "postgresql://127.0.0.1:1/nowhere") as (url, _), _client(url) as client:
        assert client.get("/api/health/live").status_code == 200
        answer = client.get("/api/health/ready")
        assert (answer.status_code, answer.json()["checks"]["database"]["state"]) == (503, "failed")


def _refusal(home: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "reco_assets", "serve", *arguments],
        env={**os.environ, "RECO_HOME": str(home), "RECO_DATABASE_URL": "postgresql://h/d", **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr


def test_without_authentication_it_does_not_listen_for_other_machines(home: Path) -> None:
    assert "RECO_AUTH" in _refusal(home, "--host", "0.0.0.0")


def test_a_missing_key_stops_the_command(home: Path) -> None:
    assert "RECO_API_KEYS" in _refusal(home, RECO_AUTH="api_key", RECO_SERVICE_WORKERS="2")


def test_a_taken_port_is_named(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert port in _refusal(home, "--port", port)


def test_an_experiment_that_cannot_be_read_stops_the_command(home: Path) -> None:
    assert "RECO_EXPERIMENT" in _refusal(home, RECO_EXPERIMENT="x:ml=50,foo=50", RECO_SERVICE_WORKERS="2")
