"""Whatever is sent to the tracking endpoint: a clear 4xx in the one shape, and the service goes on."""

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from reco_assets.settings import Settings
from reco_assets_tests.serving.conftest import RunningService, running_service
from reco_assets_tests.store.conftest import settings_for, template
from reco_assets_tests.store.published import make_world, post, user

__all__ = ["settings_for", "template"]

USER = str(user(1))
GOOD = {"post_id": str(post(1)), "interaction_type": "view", "user_id": USER}
JSON = "application/json"
LIMIT = 262_144


@pytest.fixture(scope="module")
def service(postgres_server: Any, template: str) -> Iterator[RunningService]:
    """One service for all bodies: what one of them breaks, the next one finds broken."""
    import psycopg

    from reco_assets.store.database import create_engine_for

    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE hostile TEMPLATE {template}")
        settings: Settings = settings_for(postgres_server.url("hostile"))
        engine = create_engine_for(settings)
        make_world(engine, n_users=1, n_posts=1)
        engine.dispose()
        with running_service(settings) as running:
            yield running
        connection.execute("DROP DATABASE hostile WITH (FORCE)")


def single(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def with_metadata(text: bytes) -> bytes:
    return single(metadata="HERE").replace(b'"HERE"', text)


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + closing * depth


def batch(items: bytes) -> bytes:
    return b'{"user_id":"%s","interactions":%s}' % (USER.encode(), items)


BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "a blank": (b" ", 400),
    "null": (b"null", 400),
    "a number": (b"1", 400),
    "a text": (b'"post_id"', 400),
    "true": (b"true", 400),
    "a list at the top": (json.dumps([GOOD]).encode(), 400),
    "an empty object": (b"{}", 400),
    "half an object": (single()[:-1], 400),
    "two objects": (single() + single(), 400),
    "single quotes": (single().replace(b'"', b"'"), 400),
    "a trailing comma": (single()[:-1] + b",}", 400),
    "a comment": (b"// hello\n" + single(), 400),
    "a byte order mark": (b"\xef\xbb\xbf" + single(), 400),
    "UTF-16": (single().decode().encode("utf-16"), 400),
    "latin-1": (with_metadata('{"a":"é"}'.encode("latin-1")), 400),
    "overlong UTF-8": (with_metadata(b'{"a":"\xc0\xaf"}'), 400),
    "a surrogate in UTF-8": (with_metadata(b'{"a":"\xed\xa0\x80"}'), 400),
    "a raw null byte": (with_metadata(b'{"a":"\x00"}'), 400),
    "only null bytes": (b"\x00" * 1000, 400),
    "random bytes": (bytes(range(256)) * 10, 400),
    "gzip": (gzip.compress(single()), 400),
    "a form": (b"post_id=1&interaction_type=view", 400),
    "XML": (b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', 400),
    "a pickle": (
        b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93.",
        400,
    ),
    "a name twice": (single()[:-1] + b',"user_id":"%s"}' % USER.encode(), 400),
    "a name twice within": (with_metadata(b'{"a":{"b":1,"b":2}}'), 400),
    "an escaped name twice": (single()[:-1] + b',"post\\u005fid":"x"}', 400),
    "NaN": (with_metadata(b'{"a":NaN}'), 400),
    "Infinity": (with_metadata(b'{"a":-Infinity}'), 400),
    "5,000 digits": (with_metadata(b'{"a":' + b"9" * 5000 + b"}"), 400),
    "a deep list": (nested(100_000), 400),
    "a deep object": (nested(40_000, b'{"a":', b"}").replace(b":}", b":1}"), 400),
    "deep metadata": (with_metadata(b'{"a":' + nested(190) + b"}"), 422),
    "deeper metadata": (with_metadata(b'{"a":' + nested(900) + b"}"), 400),
    "deep metadata beside half a character": (
        with_metadata(b'{"b":"\\ud800","a":' + nested(900) + b"}"),
        422,
    ),
    "a number out of range": (with_metadata(b'{"a":1e999}'), 422),
    "a number with a huge exponent": (with_metadata(b'{"a":1e99999999999999999999}'), 422),
    "1,000 digits": (with_metadata(b'{"a":' + b"9" * 1000 + b"}"), 422),
    "65 bits": (with_metadata(b'{"a":18446744073709551616}'), 422),
    "a null character": (with_metadata(b'{"a":"\\u0000"}'), 422),
    "a null character in a name": (with_metadata(b'{"\\u0000":1}'), 422),
    "a null character in an id": (single(post_id="\0" * 36), 422),
    "a null character in a type": (single(interaction_type="view\0"), 422),
    "large metadata": (single(metadata={"a": "x" * 10_000}), 422),
    "metadata that is a list": (single(metadata=[1]), 422),
    "metadata that is a text": (single(metadata='{"a":1}'), 422),
    "a long post id": (single(post_id="x" * 100_000), 422),
    "SQL for a post": (single(post_id="'; DROP TABLE posts; --"), 422),
    "SQL for a type": (single(interaction_type="view'); DELETE FROM users; --"), 422),
    "SQL for a user": (single(user_id="1 OR 1=1"), 422),
    "a path for a post": (single(post_id="../../../../etc/passwd"), 422),
    "a path for a type": (single(interaction_type="..%2f..%2fview"), 422),
    "half a character for a post": (single(post_id="\ud800"), 422),
    "half a character for a type": (single(interaction_type="\udfff"), 422),
    "a number for a post": (single(post_id=1), 422),
    "an object for a post": (single(post_id={"$ne": None}), 422),
    "a list for a type": (single(interaction_type=["view"]), 422),
    "true for a user": (single(user_id=True), 422),
    "a list of users": (single(user_id=[USER]), 422),
    "a number for an id": (single(id=10**18), 422),
    "an id without dashes": (single(id="0" * 32), 422),
    "an unknown post": (single(post_id=str(post(99))), 422),
    "an unknown field": (single(__proto__={"admin": True}), 422),
    "a long field": (single(**{"x" * 100_000: 1}), 422),
    "two spellings": (single(postId=str(post(1))), 422),
    "the beginning of time": (single(client_time=-(10**18)), 422),
    "the end of time": (single(client_time="9999-12-31T23:59:59.999999+00:00"), 422),
    "before the beginning of time": (single(client_time="0001-01-01T00:00:00+14:00"), 422),
    "a time of many digits": (single(client_time=10**4000), 422),
    "a template for a time": (single(client_time="{{7*7}}${7*7}%s%n"), 422),
    "a batch that is an object": (batch(b"{}"), 422),
    "a batch that is null": (batch(b"null"), 422),
    "an empty batch": (batch(b"[]"), 422),
    "a batch of 101": (batch(b"[" + b",".join([b"1"] * 101) + b"]"), 422),
    "a batch of 100,000": (batch(b"[" + b",".join([b"1"] * 100_000) + b"]"), 422),
    "a batch of 100,000 empty objects": (batch(b"[" + b",".join([b"{}"] * 60_000) + b"]"), 422),
    "a batch with more beside": (batch(b"[{}]")[:-1] + b',"admin":true}', 422),
    "a body just too large": (single(metadata={"a": "x" * LIMIT}), 413),
    "a large body": (b" " * 5_000_000, 413),
}


@pytest.fixture(autouse=True)
def still_answers(service: RunningService) -> Iterator[None]:
    yield
    answer = service.client.post("/api/track", json=GOOD)
    assert answer.status_code == 200, answer.text


def check(answer: Any, status: int) -> None:
    assert answer.status_code == status, answer.text[:300]
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["code"].replace("_", "").isalpha()
    assert 10 < len(error["message"]) < 500
    assert "Traceback" not in answer.text
    assert "SELECT" not in answer.text


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_a_clear_error(service: RunningService, name: str) -> None:
    body, status = BODIES[name]
    check(service.client.post("/api/track", content=body, headers={"Content-Type": JSON}), status)


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_item_of_a_batch_is_a_clear_error_or_its_own(service: RunningService, name: str) -> None:
    body, status = BODIES[name]
    answer = service.client.post(
        "/api/track", content=batch(b"[" + body + b"," + single() + b"]"), headers={"Content-Type": JSON}
    )
    if answer.status_code == 200:
        content = answer.json()
        assert content["tracked"] + content["duplicates"] + len(content["errors"]) >= 2
        assert content["errors"]
        assert status in (400, 422)
    else:
        check(answer, answer.status_code)
        assert 400 <= answer.status_code < 500


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "text/html",
        "application/json, text/plain",
        "application/" + "x" * 5000,
        "json",
    ],
)
def test_other_content_types_are_refused(service: RunningService, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    check(service.client.post("/api/track", content=single(), headers=headers), 415)


def test_compressed_bodies_are_refused(service: RunningService) -> None:
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    check(service.client.post("/api/track", content=gzip.compress(single()), headers=headers), 415)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(service: RunningService, method: str) -> None:
    check(service.client.request(method, "/api/track", content=single()), 405)


@pytest.mark.parametrize(
    "path", ["/api/track/", "/api/%2e%2e/api/track", "/api/track/x", "/api//track", "/API/TRACK"]
)
def test_other_paths_are_not_served(service: RunningService, path: str) -> None:
    answer = service.client.post(path, json=GOOD, follow_redirects=False)
    assert answer.status_code in (404, 405, 307), answer.text


def test_a_body_without_a_length_is_read_up_to_the_limit(service: RunningService) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 500 * LIMIT:
            sent += 65_536
            yield b" " * 65_536

    with connected(service) as sock:
        sock.sendall(head("Transfer-Encoding: chunked"))
        try:
            for chunk in endless():
                sock.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        except OSError:
            pass  # the server has hung up
        assert sent < 100 * LIMIT
    small = (part for part in (single()[:20], single()[20:]))
    answer = service.client.post("/api/track", content=small, headers={"Content-Type": JSON})
    assert answer.status_code == 200


def test_a_length_that_lies_is_an_error(service: RunningService) -> None:
    for length in ("99999999999999999999999999", "-1", "x"):
        with connected(service) as sock:
            sock.sendall(head(f"Content-Length: {length}") + single())
            assert sock.recv(4096).split(b" ")[1] in (b"400", b"413")
    with connected(service) as sock:  # less than promised: nobody is left to answer
        sock.sendall(head("Content-Length: 5000") + single())


def head(line: str) -> bytes:
    return f"POST /api/track HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n{line}\r\n\r\n".encode()


def connected(service: RunningService) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)
