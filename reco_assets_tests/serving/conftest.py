"""A real service on a real database: uvicorn on a free port, in a thread of the test's process."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from reco_assets.serving.app import create_app
from reco_assets.serving.server import options
from reco_assets.serving.service import Clock, Service, wall_clock
from reco_assets.settings import Settings
from reco_assets_tests.store.conftest import engine, settings, settings_for, template

__all__ = ["engine", "settings", "settings_for", "template"]  # fixtures, found here by every test


@dataclass
class RunningService:
    """A service that answers at `url`; `client` is an httpx client for it."""

    url: str
    client: httpx.Client
    service: Service
    app: FastAPI


@contextmanager
def running_service(settings: Settings, clock: Clock = wall_clock) -> Iterator[RunningService]:
    """Start the service and wait until it answers; stop it as a signal would."""
    app = create_app(settings, clock)
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, **options()))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started, "the service did not start"
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=20) as client:
            yield RunningService(url, client, app.state.service, app)
    finally:
        server.should_exit = True
        thread.join(30)
        sock.close()
        assert not thread.is_alive(), "the service did not stop"


Serve = Callable[..., RunningService]


@pytest.fixture
def serve(settings: Settings) -> Iterator[Serve]:
    """Start a service on the test's database with changed settings: `serve(auth="api_key", …)`."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(clock: Clock = wall_clock, **changes: Any) -> RunningService:
            changed = Settings(**{**settings.model_dump(exclude_unset=True), **changes})
            return stack.enter_context(running_service(changed, clock))

        yield start


@pytest.fixture
def service(serve: Serve) -> RunningService:
    """The service with its default settings."""
    return serve()
