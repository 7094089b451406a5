"""Requests of somebody who means no good: paths, headers and numbers that no client sends."""

import json
import socket
from typing import Any
from uuid import uuid4

import jwt
import pytest
import sqlalchemy as sa

from reco_assets.serving.feeds import cursor as cursors
from reco_assets.serving.feeds.lists import Origin
from reco_assets_tests.serving.conftest import RunningService, Serve
from reco_assets_tests.store.published import make_world, post, user

SECRET = "a secret of more than thirty-two bytes"


def raw(service: RunningService, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the first answer to these bytes; the connection ends with it."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        sock.sendall(request.replace(b"{host}", f"{host}:{port}".encode()))
        received = b""
        try:
            while part := sock.recv(65_536):
                received += part
        except ConnectionError:
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, body


def get(service: RunningService, target: bytes, *headers: bytes) -> tuple[int, dict[str, str], bytes]:
    lines = [b"GET " + target + b" HTTP/1.1", *(headers or (b"Host: {host}",)), b"Connection: close"]
    return raw(service, b"\r\n".join([*lines, b"", b""]))


PATHS = [
    b"/demo/..",
    b"/demo/.",
    b"/demo/..%2f..%2fapp.py",
    b"/demo/..%5c..%5capp.py",
    b"/demo/%2e%2e%2freco.js",
    b"/demo/%00",
    b"/demo/demo.js%00.css",
    b"/demo/" + b"a" * 5000,
    b"/demo/%ff%fe",
    b"/demo//etc/passwd",
    b"/demo/" + b"%252e%252e/" * 3 + b"app.py",
    b"/demo/demo.js/",
    b"//evil.example/demo",
    b"/reco.js/../app.py",
    b"/reco.js%00",
    b"/static/reco.js",
    b"/api/feeds/",
    b"/{path}{0}%s%n",
]


def test_no_path_leads_anywhere_else_or_breaks_anything(service: RunningService) -> None:
    for target in PATHS:
        status, headers, body = get(service, target)
        assert status == 404, target
        assert json.loads(body)["error"]["code"] in ("not_found", "no_demo"), target
        assert headers["cache-control"] == "no-store", target
        assert "location" not in headers, target


HOSTS = [b"[", b"[::1", b"evil.example", b"a/b", b"a\\b", b"@", b":", b"", b"127.0.0.1:99999999", b"\xff"]


def test_no_name_for_this_machine_breaks_an_answer_or_gets_into_one(service: RunningService) -> None:
    for host in HOSTS:
        for target in (b"/nowhere", b"/api/feeds", b"/api/feeds/", b"/", b"/api/health/live"):
            status, headers, body = get(service, target, b"Host: " + host)
            assert status in (200, 307, 400, 403, 404), (host, target)
            assert headers.get("location", "/demo") == "/demo", (host, target)
            assert status in (200, 307) or json.loads(body)["error"]["code"], (host, target)


HEADERS = [
    (b"Host: {host}", b"Host: evil.example"),
    (b"Host: {host}", b"Authorization: Bearer " + b"a." * 4000),
    (b"Host: {host}", b"Authorization: Bearer"),
    (b"Host: {host}", b"Authorization: \xff\xfe"),
    (b"Host: {host}", b"X-Request-ID: \xff" + b"a" * 100),
    (b"Host: {host}", b"Origin: http://[", b"Referer: javascript:alert(1)"),
    (b"Host: {host}", b"Range: bytes=" + b"0-0," * 5000 + b"1-1"),
    (b"Host: {host}", b"If-None-Match: " + b'"a",' * 5000),
    (b"Host: {host}", b"If-Modified-Since: Thu, 99 Foo 99999999999 99:99:99"),
    (b"Host: {host}", b"Accept-Encoding: " + b"gzip;q=0.1," * 3000),
    (b"Host: {host}", b"Content-Length: 99999999999999999999"),
    (b"Host: {host}", b"Content-Length: -1"),
    (b"Host: {host}", b"Content-Length: 3", b"Transfer-Encoding: chunked"),
    (b"Host: {host}", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Key: x"),
    (b"Host: {host}", b"Upgrade: h2c", b"HTTP2-Settings: AAAA"),
]


def test_no_header_breaks_an_answer(service: RunningService, engine: sa.Engine) -> None:
    make_world(engine)
    for target in (b"/api/feeds?user_id=" + str(user(1)).encode(), b"/reco.js"):
        for lines in HEADERS:
            status, _, _ = get(service, target, *lines)
            assert 200 <= status < 500, (target, lines)


NUMBERS = ["0", "-1", "1e3", "1.5", "9" * 30, "9" * 5000, "0x10", "+1", " 1", "1_0", "٣", "NaN", "", "null"]


def test_extreme_numbers_are_refused_or_read(service: RunningService, engine: sa.Engine) -> None:
    make_world(engine)
    for number in NUMBERS:
        for path, statuses in (("/api/feeds", (400, 422)), (f"/api/recommendations/{user(1)}", (200, 422))):
            answer = service.client.get(path, params={"user_id": str(user(1)), "limit": number})
            assert answer.status_code in statuses, (number, answer.text)
            assert len(answer.text) < 2000, number


def test_a_cursor_of_another_user_is_refused_and_a_forged_one_shows_nothing_hidden(
    serve: Serve, engine: sa.Engine
) -> None:
    make_world(engine, n_posts=30)
    service = serve(exploration_share=0)
    theirs = service.client.get("/api/feeds", params={"user_id": str(user(1)), "limit": 5}).json()
    stolen = {"user_id": str(user(2)), "cursor": theirs["metadata"]["next_cursor"]}
    answer = service.client.get("/api/feeds", params=stolen)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_cursor")
    # Its checksum is no secret. What it names has to pass the filters: no such post, an own one, a read one.
    author, seen = user(3), post(2)
    run = sa.text("UPDATE posts SET author_id = :author WHERE id = :post")
    with engine.begin() as connection:
        connection.execute(run, {"author": str(author), "post": str(post(1))})
        connection.execute(
            sa.text(
                "INSERT INTO user_interactions (user_id, post_id, interaction_type) VALUES (:u, :p, 'view')"
            ),
            {"u": str(author), "p": str(seen)},
        )
    entries = [(str(each), 0, 1.0) for each in (uuid4(), post(1), seen, post(3))]
    forged = cursors.encode(cursors.Rest(entries, 65_535, Origin(model_version="<script>")), author)
    answer = service.client.get("/api/feeds", params={"user_id": str(author), "cursor": forged})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert [each["post_id"] for each in answer.json()["posts"]] == [str(post(3))]


@pytest.mark.parametrize("auth", ["none", "api_key", "jwt"])
def test_answers_about_a_user_are_kept_by_no_cache(serve: Serve, engine: sa.Engine, auth: str) -> None:
    make_world(engine)
    changes: dict[str, Any] = {
        "none": {},
        "api_key": {"api_keys": (SECRET,)},
        "jwt": {"jwt_keys": (SECRET,)},
    }[auth]
    service = serve(auth=auth, cors_origins=("https://app.example",), **changes)
    token = jwt.encode({"sub": str(user(1)), "exp": 4102444800}, SECRET, algorithm="HS256")
    credentials = {"X-API-Key": SECRET, "Authorization": f"Bearer {token}"}
    for headers in (credentials, {}, {**credentials, "Origin": "https://app.example"}):
        for path in (f"/api/feeds?user_id={user(1)}", f"/api/recommendations/{user(1)}"):
            answer = service.client.get(path, headers=headers)
            assert answer.headers["cache-control"] == "no-store"
            assert "set-cookie" not in answer.headers
            assert "access-control-allow-credentials" not in answer.headers
            assert answer.headers.get("access-control-allow-origin") == headers.get("Origin")


def test_another_origin_is_told_nothing_and_may_ask_for_nothing(serve: Serve, engine: sa.Engine) -> None:
    make_world(engine)
    service = serve(auth="api_key", api_keys=(SECRET,), cors_origins=("https://app.example",))
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    for origin in ("https://evil.example", "null", "https://app.example.evil.example", "http://app.example"):
        answer = service.client.options("/api/track", headers={"Origin": origin, **asked})
        assert answer.status_code == 400
        assert "access-control-allow-origin" not in answer.headers
    answer = service.client.options("/api/track", headers={"Origin": "https://app.example", **asked})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-credentials" not in answer.headers
