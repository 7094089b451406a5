"""An open page hears that its feed has changed."""

import asyncio
import json
import socket
import time
from base64 import b64encode
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import numpy as np
import pytest
import sqlalchemy as sa
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from reco_assets.recommender import list_scoring
from reco_assets.recommender.fit_inputs import fit_matrix
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.live_votes import DailyFit, EventBatch, LiveVotes, PostFacts
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets.serving.realtime.feed_changes import FeedChanges
from reco_assets.serving.routes import live_feed
from reco_assets.serving.service import wall_clock
from reco_assets.settings import Settings
from reco_assets_tests.recommender.examples import DAY as FIT_DAY
from reco_assets_tests.recommender.examples import WEIGHTS, make_log
from reco_assets_tests.serving.conftest import (
    SOON_S,
    RunningService,
    Serve,
    engine,
    running_service,
    serve,
    settings,
    template,
)
from reco_assets_tests.serving.fitted_world import DAY, MORNING, add_events, make_readers, run_pipeline
from reco_assets_tests.store.published import user

__all__ = ["engine", "serve", "settings", "template"]

SECRET = "a secret of more than thirty-two bytes"


@pytest.fixture
def here(settings: Settings, engine: sa.Engine, tmp_path: Path) -> Settings:
    here = settings.model_copy(update={"storage_dir": tmp_path / "storage"})
    make_readers(engine)
    run_pipeline(here)
    return here


def open_page(running: RunningService, query: str = "", **options: Any) -> ClientConnection:
    url = running.url.replace("http", "ws") + "/api/feeds/live" + query
    return connect(url, open_timeout=SOON_S, **options)


def refused(running: RunningService, query: str = "", **options: Any) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        open_page(running, query, **options)
    return caught.value.response.status_code, json.loads(caught.value.response.body)["error"]["code"]


def wait_for_pages(running: RunningService, n: int) -> None:
    """Until so many pages are connected."""
    deadline = time.monotonic() + 30
    while len(running.service.realtime.changes) != n:
        assert time.monotonic() < deadline, f"{len(running.service.realtime.changes)} instead of {n}"
        time.sleep(0.01)


def test_events_stored_by_any_process_reach_the_page_of_their_user(
    serve: Serve, here: Settings, engine: sa.Engine
) -> None:
    add_events(engine, [(2, 5, MORNING - timedelta(hours=3))])  # the most popular post for user 5, so far
    running = serve(clock=lambda: MORNING, storage_dir=here.storage, realtime_tick_s=0.1)
    assert running.service.realtime.catch_up()
    with (
        open_page(running, f"?user_id={user(5)}") as mine,
        open_page(running, f"?user_id={user(3)}") as others,
    ):
        add_events(engine, [(5, 3, MORNING - timedelta(seconds=1))])
        message = json.loads(mine.recv(SOON_S))
        assert (message["type"], message["reason"]) == ("feed_changed", "your_events")
        with pytest.raises(TimeoutError):
            others.recv(0.3)


def test_a_new_generation_reaches_every_page_also_without_live_votes(
    serve: Serve, here: Settings, engine: sa.Engine
) -> None:
    running = serve(storage_dir=here.storage, realtime=False)
    assert running.service.realtime.catch_up()
    add_events(engine, [(1, 3, MORNING), (3, 1, MORNING)])
    with open_page(running, f"?user_id={user(5)}") as one, open_page(running, f"?user_id={user(3)}") as other:
        published = run_pipeline(here, DAY + timedelta(days=1), version=2, window_days=2)
        for page in (one, other):
            assert json.loads(page.recv(SOON_S)) == {
                "type": "feed_changed",
                "reason": "new_generation",
                "generation_id": str(published.generation_id),
            }


def test_a_browser_brings_its_token_as_a_protocol(serve: Serve) -> None:
    running = serve(auth="jwt", jwt_keys=(SECRET,))
    token = jwt.encode({"sub": str(user(1)), "exp": 4102444800}, SECRET, algorithm="HS256")
    with open_page(running, subprotocols=["reco.bearer", token]) as page:
        assert page.subprotocol == "reco.bearer"
    assert refused(running) == (401, "bad_token")
    assert refused(running, subprotocols=["reco.bearer", token[:-3]]) == (401, "bad_token")
    other = f"?user_id={user(2)}"
    assert refused(running, other, subprotocols=["reco.bearer", token]) == (403, "other_user")


def test_pages_of_other_origins_may_not_connect_unless_they_are_listed(serve: Serve) -> None:
    running = serve(cors_origins=("https://app.example",))
    query = f"?user_id={user(1)}"
    assert refused(running, query, origin="https://elsewhere.example") == (403, "foreign_origin")
    for origin in ("https://app.example", running.url):
        with open_page(running, query, origin=origin) as page:
            page.ping().wait(SOON_S)


def test_no_more_pages_than_the_setting_allows(serve: Serve) -> None:
    running = serve(live_feed_sockets=1)
    query = f"?user_id={user(1)}"
    with open_page(running, query):
        assert refused(running, query) == (503, "too_many_sockets")
    wait_for_pages(running, 0)
    with open_page(running, query) as page:
        page.ping().wait(SOON_S)


def test_one_user_cannot_take_everybodys_pages(service: RunningService) -> None:
    mine, other = f"?user_id={user(1)}", f"?user_id={user(2)}"
    with ExitStack() as pages:
        for _ in range(10):
            pages.enter_context(open_page(service, mine))
        assert refused(service, mine) == (429, "too_many_sockets")
        with open_page(service, other) as page:
            page.ping().wait(SOON_S)
    wait_for_pages(service, 0)
    with open_page(service, mine) as page:
        page.ping().wait(SOON_S)


class SilentPage:
    """A page that says nothing."""

    async def receive(self) -> None:
        await asyncio.Event().wait()


def test_a_page_that_the_service_gives_up_leaves_no_task_behind() -> None:
    async def test() -> set[str]:
        page: Any = SilentPage()
        relay = asyncio.create_task(live_feed._relay(page, asyncio.Queue(), None, wall_clock))
        await asyncio.sleep(0.01)
        relay.cancel()
        await asyncio.wait({relay})
        await asyncio.sleep(0)
        return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    assert asyncio.run(test()) == set()


def test_the_log_does_not_say_whose_page_it_is(
    service: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"), open_page(service, f"?user_id={user(1)}") as page:
        page.ping().wait(SOON_S)
    assert "connection open" in caplog.text
    assert str(user(1)) not in caplog.text


def test_without_a_user_there_is_nothing_to_tell(serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    running = serve(log_level="info")
    assert refused(running) == (400, "user_id_missing")
    running.client.get("/api/health/live")  # by now all is written
    written = capfd.readouterr().err
    assert "/api/health/live" in written
    assert "handshake" not in written  # the caller's mistake, which is no news


def test_a_service_that_stops_says_so(settings: Settings) -> None:
    with ExitStack() as stack:
        with running_service(settings) as running:
            page = stack.enter_context(open_page(running, f"?user_id={user(1)}"))
            page.ping().wait(SOON_S)
        with pytest.raises(ConnectionClosed) as caught:
            page.recv(SOON_S)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code in (1001, 1012)


def test_a_page_ends_with_its_token_and_comes_back_with_another(serve: Serve, monkeypatch: Any) -> None:
    monkeypatch.setattr(live_feed, "_LOOK_EVERY_S", 0.05)
    now = [datetime.now(UTC)]
    running = serve(clock=lambda: now[0], auth="jwt", jwt_keys=(SECRET,))
    expires = now[0] + timedelta(minutes=10)

    def protocols(until: datetime) -> list[str]:
        claims = {"sub": str(user(1)), "exp": int(until.timestamp())}
        return ["reco.bearer", jwt.encode(claims, SECRET, algorithm="HS256")]

    with (
        open_page(running, subprotocols=protocols(expires)) as page,
        open_page(running, subprotocols=protocols(expires + timedelta(hours=1))) as longer,
    ):
        now[0] = expires + timedelta(seconds=29)  # clocks may differ by half a minute
        with pytest.raises(TimeoutError):
            page.recv(0.3)
        now[0] = expires + timedelta(seconds=30)
        with pytest.raises(ConnectionClosed) as caught:
            page.recv(SOON_S)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4401, "token expired")
        longer.ping().wait(SOON_S)
        wait_for_pages(running, 1)
    with open_page(running, subprotocols=protocols(expires + timedelta(hours=1))) as page:
        page.ping().wait(SOON_S)


def test_a_page_that_does_not_read_loses_its_place_and_fills_no_memory(
    service: RunningService, monkeypatch: Any
) -> None:
    monkeypatch.setattr(live_feed, "_TAKEN_WITHIN_S", 0.5)
    changes = service.service.realtime.changes
    host, port = service.url.removeprefix("http://").split(":")
    key = b64encode(b"0123456789abcdef").decode()
    with socket.socket() as page:
        page.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        page.connect((host, int(port)))
        page.sendall(
            f"GET /api/feeds/live?user_id={user(1)} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert page.recv(12) == b"HTTP/1.1 101"
        deadline = time.monotonic() + 30
        (waiting,) = changes._queues[user(1).bytes]
        while len(changes):
            assert time.monotonic() < deadline, "it keeps its place"
            changes._send([waiting], {"type": "feed_changed", "padding": "x" * 1_000_000})
            assert waiting.qsize() <= 4
            time.sleep(0.01)
    with open_page(service, f"?user_id={user(1)}") as page:  # others are served
        page.ping().wait(SOON_S)


@pytest.mark.parametrize(
    ("auth", "headers"),
    [
        ({"auth": "none"}, {}),
        ({"auth": "api_key", "api_keys": (SECRET,)}, {"X-API-Key": SECRET}),
        ({"auth": "jwt", "jwt_keys": (SECRET,)}, {}),
    ],
    ids=["none", "api_key", "jwt"],
)
@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://[", "http://"])
def test_no_page_from_elsewhere_takes_over_a_connection(
    serve: Serve, auth: dict[str, Any], headers: dict[str, str], origin: str
) -> None:
    running = serve(**auth)
    token = jwt.encode({"sub": str(user(1)), "exp": 4102444800}, SECRET, algorithm="HS256")
    good = {
        "additional_headers": headers,
        "subprotocols": ["reco.bearer", token] if auth["auth"] == "jwt" else None,
    }
    query = f"?user_id={user(1)}"
    with open_page(running, query, **good, origin=running.url) as page:
        page.ping().wait(SOON_S)
    assert refused(running, query, **good, origin=origin) == (403, "foreign_origin")


def test_a_new_generation_is_told_to_one_page_after_the_other() -> None:
    """They all ask for their feed then: together they would be more than the service answers at a time."""
    told = 300

    async def test() -> None:
        changes = FeedChanges()
        changes.loop = asyncio.get_running_loop()
        queues = [changes.subscribe(user(number % 50)) for number in range(told)]
        changes.tell_all(uuid4())
        while all(queue.empty() for queue in queues):
            await asyncio.sleep(0)
        assert sum(not queue.empty() for queue in queues) < told
        async with asyncio.timeout(SOON_S):
            for queue in queues:
                message = await queue.get()
                assert message is not None
                assert message["reason"] == "new_generation"
        assert all(queue.empty() for queue in queues)

    asyncio.run(test())


def test_a_thread_does_not_make_room_for_every_page_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since a post is eligible that was not before, lists of before and after need rooms of their own."""
    log = make_log(
        [(reader, post, "view", 0.1) for reader in range(20) for post in range(reader % 4, 8)],
        n_users=20,
        n_posts=9,
        post_created_at=np.zeros(9, dtype=np.int64),
        post_eligible=np.arange(9) < 8,
    )
    matrix = InteractionMatrix.from_log(log, FIT_DAY, interaction_weights=WEIGHTS, max_repeats=2)
    live = LiveVotes(DailyFit(fit_matrix(UserKNNRecommender(), matrix, log), matrix, log, WEIGHTS, 2))
    before, _ = live.tick(2 * FIT_DAY)
    readers = np.arange(1, 4)
    reads = np.zeros(3, np.int8), np.full(3, 2 * FIT_DAY)
    live.add(EventBatch(log.user_ids[readers], np.repeat(log.post_ids[8:], 3, axis=0), *reads))
    authors = np.zeros((1, 16), np.uint8)
    live.note_posts(PostFacts(log.post_ids[8:], authors, np.zeros(1, np.int64), np.array([True])))
    after, affected = live.tick(3 * FIT_DAY)
    assert len(affected) == 3
    made: list[object] = []

    def counted(*arrays: Any) -> Any:
        made.append(arrays)
        return workspace(*arrays)

    workspace = list_scoring._Workspace
    monkeypatch.setattr(list_scoring, "_Workspace", counted)
    changes = FeedChanges()
    for row in log.user_ids:
        changes.subscribe(UUID(bytes=row.tobytes()))
    changes.tell_some(before, after, [row.tobytes() for row in log.user_ids], uuid4())
    assert len(made) <= 2
