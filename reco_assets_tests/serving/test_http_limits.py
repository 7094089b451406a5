"""A head is bounded in size and time, before anybody is asked who they are."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from reco_assets.serving.http import limits as http_limits
from reco_assets_tests.serving.conftest import SOON_S, RunningService, Serve, running_service, soon
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import make_world, post, user

MB = 1 << 20


@pytest.fixture
def alone() -> Iterator[RunningService]:
    """A service without a database: none of this gets that far."""
    with running_service(settings_for("postgresql://u:p@127.0.0.1:1/x")) as running:
        yield running


def connected(service: RunningService) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def answer_to(sock: socket.socket) -> bytes:
    """All that comes until the server hangs up; nothing if it did so in the midst of what was sent."""
    received = b""
    try:
        while part := sock.recv(65_536):
            received += part
    except ConnectionError:
        pass
    return received


@pytest.mark.parametrize("start", [b"GET /api/feeds?cursor=", b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: "])
def test_an_endless_head_ends_the_connection(alone: RunningService, start: bytes) -> None:
    sent = 0
    with connected(alone) as sock:
        sock.sendall(start)
        try:
            while sent < 100 * MB:
                sent += sock.send(b"a" * MB)
        except ConnectionError:
            pass
    assert sent < 20 * MB  # what fits into the system's buffers
    assert alone.client.get("/api/health/live").status_code == 200


def test_a_large_head_is_an_error_in_the_one_shape(
    alone: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: list[int] = []
    receive = http_limits.BoundedHttp.data_received

    def noted(self: http_limits.BoundedHttp, data: bytes) -> None:
        receive(self, data)
        arrived.append(len(data))

    monkeypatch.setattr(http_limits.BoundedHttp, "data_received", noted)
    sent = 0
    with connected(alone) as sock:
        # In pieces, each of which is read before the next: what is left unread would cut off the answer.
        for piece in (b"GET /api/feeds?cursor=", *[b"a" * 25_000] * 3):
            sock.sendall(piece)
            sent += len(piece)
            assert soon(lambda: sum(arrived) == sent)  # noqa: B023  # called at once
        head, _, body = answer_to(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"connection: close" in head
    assert json.loads(body)["error"]["code"] == "bad_request"


def test_long_queries_and_large_bodies_are_read_as_before(alone: RunningService) -> None:
    client = alone.client
    for _ in range(3):  # on one connection
        answer = client.get("/nowhere", params={"c": "a" * 16_000}, headers={"X-Long": "b" * 16_000})
        assert answer.status_code == 404
        large = client.post("/api/track", content=b" " * 200_000, headers={"Content-Type": "text/plain"})
        assert large.json()["error"]["code"] == "bad_json"
    too_large = client.post(
        "/api/track", content=b" " * 3_000_000, headers={"Content-Type": "application/json"}
    )
    assert too_large.status_code == 413


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_does_not_come_ends_the_connection(
    alone: RunningService, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "HEAD_WITHIN_S", 0.2)
    with connected(alone) as sock:
        sock.sendall(start)
        try:
            for _ in range(1500):  # a byte now and then does not help
                time.sleep(0.02)
                sock.sendall(b"\r\n" if not start else b"X")
        except ConnectionError:
            return
    pytest.fail("the connection stayed open")


def test_an_open_page_is_no_late_head(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from websockets.sync.client import connect

    protocols: list[http_limits.BoundedHttp] = []
    connection_made = http_limits.BoundedHttp.connection_made

    def noted(self: http_limits.BoundedHttp, transport: asyncio.Transport) -> None:
        protocols.append(self)
        connection_made(self, transport)

    monkeypatch.setattr(http_limits.BoundedHttp, "connection_made", noted)
    url = serve().url.replace("http", "ws") + f"/api/feeds/live?user_id={user(1)}"
    with connect(url, open_timeout=SOON_S) as page:
        assert page.ping().wait(SOON_S)
        assert [protocol._deadline for protocol in protocols] == [None]


def test_a_body_that_does_not_come_is_given_up(serve: Serve, engine: sa.Engine) -> None:
    make_world(engine)
    running = serve(track_timeout_s=0.3)
    with connected(running) as sock:
        sock.sendall(
            b"POST /api/track HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 200\r\n\r\n{"post_id"'
        )
        head, _, body = answer_to(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["error"]["code"] == "body_too_slow"
    event = {"user_id": str(user(1)), "post_id": str(post(1)), "interaction_type": "view"}
    # So short a limit is missed by a busy machine too.
    assert soon(lambda: running.client.post("/api/track", json=event).status_code == 200)
