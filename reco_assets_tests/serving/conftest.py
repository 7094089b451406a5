"""A real service on a real database: uvicorn on a free port, in a thread of the test's process."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from fastapi import FastAPI

from reco_assets.serving.app import create_app
from reco_assets.serving.server import options
from reco_assets.serving.service import Clock, Service, wall_clock
from reco_assets.settings import Settings
from reco_assets.store.database import native_url
from reco_assets_tests.store.conftest import engine, settings, settings_for, template

__all__ = ["engine", "settings", "settings_for", "template"]  # fixtures, found here by every test


@dataclass
class RunningService:
    """A service that answers at `url`; `client` is an httpx client for it."""

    url: str
    client: httpx.Client
    service: Service
    app: FastAPI


SOON_S = 30.0
"""Far above what anything here takes: a slow machine must not fail the suite."""


def soon(condition: Callable[[], bool]) -> bool:
    """Wait until it is true; whether it became so."""
    deadline = time.monotonic() + SOON_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@contextmanager
def running_service(settings: Settings, clock: Clock = wall_clock) -> Iterator[RunningService]:
    """Start the service and wait until it answers and has found its database; stop it as a signal would."""
    app = create_app(settings, clock)
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, **options()))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    assert soon(lambda: server.started or not thread.is_alive())
    assert server.started, "the service did not start"
    url = f"http://127.0.0.1:{port}"
    try:
        # By itself it looks for a second and then answers without.
        service: Service = app.state.service
        with suppress(psycopg.OperationalError), psycopg.connect(native_url(settings)):
            assert soon(lambda: service.primary.available), "the service did not find its database"
        with httpx.Client(base_url=url, timeout=20) as client:
            yield RunningService(url, client, service, app)
    finally:
        server.should_exit = True
        thread.join(60)
        sock.close()
        assert not thread.is_alive(), "the service did not stop"


Serve = Callable[..., RunningService]
PATIENT: dict[str, Any] = {"feed_recommendations_ms": 8000, "feed_timeout_s": 20, "track_timeout_s": 20}
"""Far more than it takes: a busy machine misses what is shipped, and would answer something else."""


@pytest.fixture
def serve(settings: Settings) -> Iterator[Serve]:
    """Start a service on the test's database with changed settings: `serve(auth="api_key", …)`."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(clock: Clock = wall_clock, **changes: Any) -> RunningService:
            changed = Settings(**{**PATIENT, **settings.model_dump(exclude_unset=True), **changes})
            return stack.enter_context(running_service(changed, clock))

        yield start


Start = Callable[..., RunningService]


@pytest.fixture
def start(serve: Serve) -> Start:
    """A service ten minutes after NOW, without exploration unless asked for, whose pools are read."""
    from reco_assets_tests.serving.feeds import PLAIN, now, refresh

    def started(**changes: Any) -> RunningService:
        running = serve(clock=now, **{**PLAIN, **changes})
        refresh(running)
        return running

    return started


@pytest.fixture
def service(serve: Serve) -> RunningService:
    """The service with its default settings."""
    return serve()
