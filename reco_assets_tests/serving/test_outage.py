"""What was acknowledged is in the database exactly once: through a killed server, and through a shutdown."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from reco_assets.store.database import create_engine_for
from reco_assets_tests.ports import quiet_port
from reco_assets_tests.serving.conftest import running_service
from reco_assets_tests.serving.own_server import OwnServer, own_server
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import make_world, post, user

N_USERS, N_POSTS = 20, 30


@pytest.fixture
def server(open_tmp_path: Path) -> Iterator[OwnServer]:
    with own_server(open_tmp_path / "postgres") as own:
        engine = create_engine_for(settings_for(own.url))
        make_world(engine, n_users=N_USERS, n_posts=N_POSTS)
        engine.dispose()
        yield own


@dataclass
class Load:
    """Clients that send batches again until they are acknowledged, and others that read feeds."""

    url: str
    sent: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    statuses: Counter[str] = field(default_factory=Counter)
    stopping: bool = False

    async def track(self, client: httpx.AsyncClient, number: int) -> None:
        while not self.stopping:
            events = [
                {"id": str(uuid4()), "postId": str(post(1 + n % N_POSTS)), "interactionType": "view"}
                for n in range(5)
            ]
            self.sent.update(event["id"] for event in events)
            body = {"userId": str(user(1 + number % N_USERS)), "interactions": events}
            while not self.stopping and not await self.post(client, body):
                await asyncio.sleep(0.05)

    async def post(self, client: httpx.AsyncClient, body: dict[str, object]) -> bool:
        try:
            answer = await client.post("/api/track", json=body)
        except httpx.TransportError:
            self.statuses["track: no answer"] += 1
            return False
        self.statuses[f"track: {answer.status_code}"] += 1
        if answer.status_code == 503:
            assert answer.headers["Retry-After"] == "1"
            return False
        assert answer.status_code == 200, answer.text
        content = answer.json()
        assert content["errors"] == []
        assert content["tracked"] + content["duplicates"] == 5
        self.acknowledged.update(event["id"] for event in body["interactions"])  # type: ignore[attr-defined]
        return True

    async def read(self, client: httpx.AsyncClient, number: int) -> None:
        while not self.stopping:
            answer = await client.get("/api/feeds", params={"user_id": str(user(1 + number % N_USERS))})
            self.statuses[f"feed: {answer.status_code}"] += 1
            assert answer.status_code == 200, answer.text
            await asyncio.sleep(0.01)

    async def reached(self, what: str, count: int) -> None:
        """Wait until that many more answers of a kind are there."""
        until = self.statuses[what] + count
        while self.statuses[what] < until:
            await asyncio.sleep(0.01)


def stored(server: OwnServer) -> list[str]:
    return [str(row[0]) for row in server.query("SELECT id FROM user_interactions")]


def test_a_killed_server_costs_no_acknowledged_event_and_no_feed(server: OwnServer) -> None:
    # A minute: who waits for something that is gone makes this test time out.
    settings = settings_for(server.url, track_timeout_s=60.0, feed_timeout_s=60.0)

    async def test(url: str) -> Load:
        load = Load(url)
        limits = httpx.Limits(max_connections=100)
        async with (
            asyncio.timeout(90),
            httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(16):
                group.create_task(load.track(client, number))
            for number in range(8):
                group.create_task(load.read(client, number))
            for _ in range(2):
                await load.reached("track: 200", 50)
                await asyncio.to_thread(server.kill)
                # Many more than there are clients: they are turned away, they do not wait.
                await load.reached("track: 503", 100)
                await load.reached("feed: 200", 100)
                await asyncio.to_thread(server.start)
                async with asyncio.timeout(30):
                    await load.reached("track: 200", 20)
                await load.reached("feed: 200", 20)
            load.stopping = True
        return load

    with running_service(settings) as service:
        load = asyncio.run(test(service.url))
    found = stored(server)
    assert len(found) == len(set(found))
    assert load.acknowledged <= set(found)
    assert set(found) <= load.sent
    assert set(load.statuses) == {"track: 200", "track: 503", "feed: 200"}


def test_a_shutdown_under_load_loses_no_acknowledged_event(server: OwnServer, tmp_path: Path) -> None:
    port = quiet_port()
    environment = {
        **os.environ,
        "RECO_DATABASE_URL": server.url,
        "RECO_HOME": str(tmp_path),
        "RECO_SERVICE_PORT": str(port),
        "RECO_SERVICE_WORKERS": "3",
        "RECO_TRACK_COMMIT_MS": "50",
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "reco_assets", "serve"], env=environment, stdout=log, stderr=log
        )

    async def test() -> Load:
        load = Load(f"http://127.0.0.1:{port}")
        async with asyncio.timeout(90), httpx.AsyncClient(base_url=load.url, timeout=30) as client:
            while True:
                assert process.poll() is None, (tmp_path / "log").read_text()
                with suppress(httpx.TransportError):
                    if (await client.get("/api/health/live")).status_code == 200:
                        break
                await asyncio.sleep(0.1)
            async with asyncio.TaskGroup() as group:
                for number in range(30):
                    group.create_task(load.track(client, number))
                await load.reached("track: 200", 100)
                process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(process.wait, 40)
                load.stopping = True
        return load

    try:
        load = asyncio.run(test())
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)
    found = stored(server)
    assert len(found) == len(set(found))
    assert len(load.acknowledged) >= 500
    assert load.acknowledged <= set(found)
    assert process.returncode in (0, -signal.SIGTERM)
