"""`POST /api/track` over HTTP: what is acknowledged is in the database, once."""

import asyncio
import json
import threading
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
import sqlalchemy as sa

from reco_assets.settings import Settings
from reco_assets.store.database import native_url
from reco_assets_tests.serving.conftest import RunningService, Serve
from reco_assets_tests.store.published import make_world, post, run_sql, user


@pytest.fixture(autouse=True)
def world(engine: sa.Engine) -> None:
    make_world(engine, n_users=3, n_posts=6)


def an_event(a_post: int = 1, kind: str = "view", **changes: Any) -> dict[str, Any]:
    return {"post_id": str(post(a_post)), "interaction_type": kind, **changes}


def batch(*events: Any, a_user: int = 1) -> dict[str, Any]:
    return {"user_id": str(user(a_user)), "interactions": list(events)}


def rows(settings: Settings, columns: str = "id::text") -> list[tuple[Any, ...]]:
    with psycopg.connect(native_url(settings)) as connection:
        return connection.execute(f"SELECT {columns} FROM user_interactions ORDER BY id").fetchall()


def test_one_event_is_stored_with_its_metadata(service: RunningService, settings: Settings) -> None:
    event_id = str(uuid4())
    answer = service.client.post(
        "/api/track",
        json={
            **an_event(2, "like", id=event_id, metadata={"source": "ml_recommendations", "rank": 3}),
            "user_id": str(user(1)),
        },
    )
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "tracked": 1, "duplicates": 0, "errors": []}
    assert rows(settings, "id::text, user_id, post_id, interaction_type, metadata") == [
        (event_id, user(1), post(2), "like", {"source": "ml_recommendations", "rank": 3})
    ]


def test_the_time_is_the_server_s_and_the_client_s_goes_into_the_metadata(
    service: RunningService, settings: Settings
) -> None:
    when = service.service.clock().timestamp() * 1000 - 3_600_000
    body = {**an_event(clientTime=int(when)), "userId": str(user(1))}
    assert service.client.post("/api/track", json=body).status_code == 200
    [(age_s, metadata)] = rows(settings, "extract(epoch FROM now() - created_at)::float, metadata")
    assert age_s < 60
    assert list(metadata) == ["client_time"]
    assert metadata["client_time"].endswith("Z")


def test_good_events_of_a_mixed_batch_are_stored_and_bad_ones_reported_by_index(
    service: RunningService, settings: Settings
) -> None:
    event_id = str(uuid4())
    answer = service.client.post(
        "/api/track",
        json=batch(
            an_event(1, id=event_id),
            an_event(99),
            {"post_id": "x", "interaction_type": "view"},
            an_event(2, "teleport"),
            an_event(3),
            an_event(1, id=event_id),
            "event",
        ),
    )
    assert answer.status_code == 200
    content = answer.json()
    assert (content["success"], content["tracked"], content["duplicates"]) == (False, 2, 1)
    assert [(error["index"], error["code"]) for error in content["errors"]] == [
        (1, "unknown_post"),
        (2, "bad_post_id"),
        (3, "unknown_type"),
        (6, "bad_event"),
    ]
    assert all(error["message"] for error in content["errors"])
    assert len(rows(settings)) == 2


def test_of_an_id_that_comes_twice_the_event_counts_that_can_be_stored(
    service: RunningService, settings: Settings
) -> None:
    event_id = str(uuid4())
    answer = service.client.post(
        "/api/track",
        json=batch(an_event(99, id=event_id), an_event(2, id=event_id), an_event(2, id=event_id)),
    ).json()
    assert (answer["tracked"], answer["duplicates"]) == (1, 1)
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [(0, "unknown_post")]
    assert rows(settings, "id::text, post_id") == [(event_id, post(2))]


def test_an_event_that_the_app_s_own_rules_refuse_is_reported_by_index(
    service: RunningService, settings: Settings, engine: sa.Engine
) -> None:
    rule = f"ALTER TABLE user_interactions ADD CHECK (post_id <> '{post(3)}')"
    run_sql(engine, rule)
    answer = service.client.post("/api/track", json=batch(*(an_event(number) for number in range(1, 7))))
    content = answer.json()
    assert (answer.status_code, content["tracked"]) == (200, 5)
    assert [(error["index"], error["code"]) for error in content["errors"]] == [(2, "refused")]
    single = service.client.post("/api/track", json={**an_event(3), "user_id": str(user(1))})
    assert (single.status_code, single.json()["error"]["code"]) == (422, "refused")
    assert len(rows(settings)) == 5


def test_a_server_that_is_read_only_is_a_reason_to_try_again(serve: Serve, engine: sa.Engine) -> None:
    run_sql(engine, f"ALTER DATABASE {engine.url.database} SET default_transaction_read_only = on")
    client = serve(realtime=False).client
    answer = client.post("/api/track", json=batch(an_event()))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    ready = client.get("/api/health/ready")
    assert (ready.status_code, ready.json()["checks"]["database"]["state"]) == (503, "failed")
    assert "read-only" in ready.json()["checks"]["database"]["detail"]


def test_a_batch_of_bad_events_only_is_still_told_by_index(service: RunningService) -> None:
    answer = service.client.post("/api/track", json=batch(an_event(98), an_event(99)))
    assert answer.status_code == 200
    content = answer.json()
    assert (content["success"], content["tracked"], content["duplicates"]) == (False, 0, 0)
    assert [error["code"] for error in content["errors"]] == ["unknown_post", "unknown_post"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"post_id": str(post(99))}, "unknown_post"),
        ({"post_id": "x"}, "bad_post_id"),
        ({"interaction_type": "teleport"}, "unknown_type"),
        ({"user_id": str(user(77))}, "unknown_user"),
        ({"client_time": 0}, "client_time_out_of_range"),
    ],
)
def test_a_single_bad_event_is_an_error(
    service: RunningService, settings: Settings, changes: dict[str, Any], expected: str
) -> None:
    answer = service.client.post("/api/track", json={**an_event(), "user_id": str(user(1)), **changes})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == expected
    assert rows(settings) == []


def test_nobody_named_is_an_error(service: RunningService) -> None:
    answer = service.client.post("/api/track", json=an_event())
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "user_id_missing")


def test_an_id_that_comes_again_is_a_duplicate(service: RunningService, settings: Settings) -> None:
    body = batch(*(an_event(1 + n % 6, id=str(uuid4())) for n in range(20)))
    first, again = (service.client.post("/api/track", json=body).json() for _ in range(2))
    assert (first["tracked"], first["duplicates"]) == (20, 0)
    assert (again["success"], again["tracked"], again["duplicates"]) == (True, 0, 20)
    assert len(rows(settings)) == 20


def test_what_a_beacon_sends_is_read(service: RunningService, settings: Settings) -> None:
    answer = service.client.post(
        "/api/track",
        content=json.dumps(batch(an_event())),
        headers={"Content-Type": "text/plain;charset=UTF-8"},
    )
    assert answer.json()["tracked"] == 1
    assert len(rows(settings)) == 1


def test_types_without_a_weight_are_tracked_where_a_setting_says_so(serve: Serve, settings: Settings) -> None:
    client = serve(extra_interaction_types=("hide",)).client
    assert client.post("/api/track", json=batch(an_event(kind="hide"))).json()["tracked"] == 1
    assert rows(settings, "interaction_type") == [("hide",)]


def test_with_an_api_key_the_backend_names_the_user(serve: Serve, settings: Settings) -> None:
    key = "0123456789abcdef"
    client = serve(auth="api_key", api_keys=(key,)).client
    refused = client.post("/api/track", json=batch(an_event()))
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "bad_api_key")
    # Refused before the body is read: it says nothing about how a body should look.
    assert client.post("/api/track", content=b"{").status_code in (401, 415)
    taken = client.post("/api/track", json=batch(an_event(), a_user=2), headers={"X-API-Key": key})
    assert taken.json()["tracked"] == 1
    assert rows(settings, "user_id") == [(user(2),)]


def test_with_a_token_the_user_is_its_subject_whatever_the_body_says(
    serve: Serve, settings: Settings
) -> None:
    import jwt

    key = "k" * 32
    claims = {"sub": str(user(1)), "exp": 4_000_000_000}
    headers = {"Authorization": f"Bearer {jwt.encode(claims, key, 'HS256')}"}
    client = serve(auth="jwt", jwt_keys=(key,)).client
    for body in ({"interactions": [an_event()]}, batch(an_event(), a_user=1)):
        assert client.post("/api/track", json=body, headers=headers).json()["tracked"] == 1
    other = client.post("/api/track", json=batch(an_event(), a_user=2), headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (403, "other_user")
    assert client.post("/api/track", json=batch(an_event())).status_code == 401
    assert rows(settings, "user_id") == [(user(1),), (user(1),)]


def test_fifty_clients_with_overlapping_ids_store_each_event_once(
    service: RunningService, settings: Settings
) -> None:
    ids = [str(uuid4()) for _ in range(200)]

    async def test() -> Counter[str]:
        counts: Counter[str] = Counter()
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:

            async def one(number: int) -> None:
                for turn in range(4):
                    chosen = [ids[(number * 13 + turn * 31 + step * 7) % 200] for step in range(20)]
                    # The post belongs to the id, as it does when a client sends an event again.
                    events = [an_event(1 + int(each[:2], 16) % 6, id=each) for each in chosen]
                    answer = await client.post("/api/track", json=batch(*events, an_event(99)))
                    assert answer.status_code == 200, answer.text
                    content = answer.json()
                    counts.update(
                        stored=content["tracked"],
                        duplicate=content["duplicates"],
                        error=len(content["errors"]),
                    )

            await asyncio.gather(*(one(number) for number in range(50)))
        return counts

    counts = asyncio.run(test())
    stored = [row[0] for row in rows(settings)]
    assert sorted(stored) == sorted(set(stored))
    assert counts == {"stored": len(stored), "duplicate": 50 * 4 * 20 - len(stored), "error": 50 * 4}


def test_posts_deleted_under_load_cost_their_own_events_only(
    service: RunningService, settings: Settings
) -> None:
    kept, deleted = (1, 2, 3), (4, 5, 6)
    stop = threading.Event()

    def delete_and_restore() -> None:
        with psycopg.connect(native_url(settings), autocommit=True) as connection:
            while not stop.is_set():
                for number in deleted:
                    connection.execute("DELETE FROM posts WHERE id = %s", [post(number)])
                    connection.execute(
                        "INSERT INTO posts (id, author_id, title) VALUES (%s, %s, 'again')",
                        [post(number), user(1)],
                    )

    async def test() -> list[UUID]:
        acknowledged = []
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:

            async def one() -> None:
                for _ in range(15):
                    events = [an_event(number, id=str(uuid4())) for number in (*kept, *deleted)]
                    answer = await client.post("/api/track", json=batch(*events))
                    assert answer.status_code == 200, answer.text
                    errors = answer.json()["errors"]
                    assert {error["code"] for error in errors} <= {"unknown_post"}
                    assert {error["index"] for error in errors} <= {3, 4, 5}
                    acknowledged.extend(event["id"] for event in events[:3])

            await asyncio.gather(*(one() for _ in range(10)))
        return [UUID(each) for each in acknowledged]

    thread = threading.Thread(target=delete_and_restore)
    thread.start()
    try:
        acknowledged = asyncio.run(test())
    finally:
        stop.set()
        thread.join()
    assert set(acknowledged) <= {row[0] for row in rows(settings, "id")}
    assert len(acknowledged) == 10 * 15 * 3


def test_events_are_counted_by_outcome(service: RunningService) -> None:
    event_id = str(uuid4())
    body = batch(an_event(id=event_id), an_event(id=event_id), an_event(99), an_event(kind="x"))
    service.client.post("/api/track", json=body)
    shown = service.client.get("/metrics").text
    for outcome in ("stored", "duplicate", "unknown_post", "unknown_type"):
        assert f'reco_events_total{{outcome="{outcome}"}} 1.0' in shown
    assert "reco_commit_events_count 1.0" in shown


def test_the_schema_describes_both_bodies_and_every_status(service: RunningService) -> None:
    operation = service.client.get("/openapi.json").json()["paths"]["/api/track"]["post"]
    assert set(operation["responses"]) == {"200", "400", "401", "403", "408", "413", "415", "422", "503"}
    assert set(operation["requestBody"]["content"]) == {"application/json", "text/plain"}
    assert "$ref" not in json.dumps(operation["requestBody"])
