"""What a client may send, and what it may not: always a clear 4xx, never a 5xx."""

import random
from contextlib import suppress
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from reco_assets.serving.feeds.parameters import read_parameters
from reco_assets.serving.http.problems import Problem
from reco_assets.settings import Settings
from reco_assets_tests.serving.conftest import RunningService, Serve
from reco_assets_tests.serving.feeds import ask, feed, numbers
from reco_assets_tests.store.published import make_world, post, user

U = f"user_id={user(1)}"

WRONG = [
    ("", 400, "user_id_missing"),
    ("user_id=", 400, "bad_user_id"),
    ("user_id=1", 400, "bad_user_id"),
    (f"user_id={{{user(1)}}}", 400, "bad_user_id"),
    (f"user_id=urn:uuid:{user(1)}", 400, "bad_user_id"),
    (f"user_id={user(1).hex}", 400, "bad_user_id"),
    ("user_id=" + quote("٣" * 8 + "-0000-0000-0000-000000000000"), 400, "bad_user_id"),
    ("user_id=%27%20OR%201=1--", 400, "bad_user_id"),
    ("user_id=..%2F..%2Fetc%2Fpasswd", 400, "bad_user_id"),
    (f"{U}%00", 400, "bad_user_id"),
    (f"{U}&{U}", 400, "repeated_parameter"),
    (f"{U}&limit=0", 422, "limit_out_of_range"),
    (f"{U}&limit=101", 422, "limit_out_of_range"),
    (f"{U}&limit=999999999", 422, "limit_out_of_range"),
    (f"{U}&limit={'9' * 5000}", 400, "bad_limit"),
    (f"{U}&limit=-1", 400, "bad_limit"),
    (f"{U}&limit=1.0", 400, "bad_limit"),
    (f"{U}&limit=1e1", 400, "bad_limit"),
    (f"{U}&limit=NaN", 400, "bad_limit"),
    (f"{U}&limit=", 400, "bad_limit"),
    (f"{U}&limit={quote('５')}", 400, "bad_limit"),
    (f"{U}&limit=5&limit=6", 400, "repeated_parameter"),
    (f"{U}&exclude=1", 400, "bad_exclude"),
    (f"{U}&exclude={post(1)},x", 400, "bad_exclude"),
    (f"{U}&exclude={','.join([str(post(1))] * 201)}", 422, "too_many_excluded"),
    (f"{U}&exlude={post(1)}", 400, "unknown_parameter"),
    (f"{U}&cursor=", 400, "bad_cursor"),
    (f"{U}&cursor=AAAA", 400, "bad_cursor"),
    (f"{U}&cursor=%00", 400, "bad_cursor"),
    (f"{U}&cursor={'A' * 20_000}", 400, "bad_cursor"),
    (f"{U}&cursor={quote('☃')}", 400, "bad_cursor"),
    (f"{U}&limit", 400, "bad_query"),
    (f"{U}&limit=%ff%fe", 400, "bad_query"),
    ("&".join([f"exclude={post(1)}"] * 300), 400, "bad_query"),
    ("%", 400, "bad_query"),
]


@pytest.fixture(scope="module")
def hostile() -> list[bytes]:
    rng = random.Random(8)
    names = [b"user_id", b"limit", b"exclude", b"cursor", b"x"]
    return [
        b"&".join(
            rng.choice(names)
            + rng.choice([b"=", b"", b"=="])
            + rng.randbytes(rng.randrange(40)).hex().encode()
            if rng.random() < 0.5
            else quote(rng.randbytes(rng.randrange(60))).encode()
            for _ in range(rng.randrange(5))
        )
        for _ in range(300)
    ]


@pytest.fixture
def service(serve: Serve, engine: sa.Engine) -> RunningService:
    make_world(engine)
    return serve(realtime=False, exploration_share=0, trending_refresh_s=0.2)


def test_each_mistake_has_its_status_and_code_and_says_what_to_do(service: RunningService) -> None:
    for query, status, code in WRONG:
        answer = service.client.get(f"/api/feeds?{query}")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code), query[:100]
        assert len(error["message"]) > 20
        assert len(error["message"]) < 400


def test_no_query_is_answered_with_a_server_error(service: RunningService, hostile: list[bytes]) -> None:
    for query in hostile:
        answer = service.client.get("/api/feeds?" + query.decode())
        assert 400 <= answer.status_code < 500, query
        assert answer.json()["error"]["code"]


def test_no_cursor_is_answered_with_a_server_error(service: RunningService) -> None:
    cursor = feed(service, limit=2)["metadata"]["next_cursor"]
    rng = random.Random(4)
    wrong = [cursor[:cut] for cut in range(1, len(cursor), 7)]
    wrong += [rng.randbytes(rng.randrange(1, 400)).hex() for _ in range(50)]
    wrong += [cursor + "AAAA", cursor * 2, cursor.swapcase(), "B" + cursor[1:], "A" * 16_384]
    for each in wrong:
        answer = ask(service, 1, cursor=each)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_cursor"), each
    assert ask(service, 2, cursor=cursor).status_code == 400  # another user's
    assert feed(service, cursor=cursor)["posts"]


def test_excluded_ids_are_taken_with_commas_and_repeated_in_any_case(service: RunningService) -> None:
    query = f"{U}&exclude={post(1)},{str(post(2)).upper()}&exclude={post(3)}&exclude="
    assert sorted(numbers(service.client.get(f"/api/feeds?{query}").json())) == [4, 5, 6]


def test_the_greatest_limit_is_the_settings(serve: Serve, engine: sa.Engine) -> None:
    make_world(engine)
    running = serve(realtime=False, feed_max_limit=3, feed_default_limit=2, feed_max_exclude=1)
    assert ask(running, limit=3).status_code == 200
    assert ask(running, limit=4).status_code == 422
    assert len(feed(running)["posts"]) == 2
    assert ask(running, exclude=f"{post(1)},{post(2)}").status_code == 422


@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(query: bytes) -> None:
    with suppress(Problem):
        assert 1 <= read_parameters(query, Settings()).limit <= 100
