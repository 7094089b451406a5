"""Events in one statement: each stored once, each with an answer of its own, both kinds of ids."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from reco_assets.errors import SchemaError
from reco_assets.settings import Settings
from reco_assets.store.database import native_url
from reco_assets.store.event_writes import EventTable, NewEvent, Outcome, insert_events
from reco_assets_tests.store.published import post, user

AN_ID = UUID("11111111-1111-4111-8111-111111111111")
OTHER_ID = UUID("22222222-2222-4222-8222-222222222222")

AS_PRISMA_MAKES_THEM = """
CREATE TYPE "InteractionKind" AS ENUM ('view', 'click', 'like', 'share');
CREATE TABLE users (id text PRIMARY KEY);
CREATE TABLE posts (id text PRIMARY KEY, author_id text NOT NULL, created_at timestamp);
CREATE TABLE user_interactions (
    id text PRIMARY KEY, user_id text NOT NULL, post_id text NOT NULL,
    interaction_type "InteractionKind" NOT NULL, created_at timestamp NOT NULL, metadata jsonb
);
"""

Run = Callable[[Callable[[psycopg.AsyncConnection[Any]], Awaitable[Any]]], Any]


def event(
    a_user: int = 1,
    a_post: int = 1,
    kind: str = "view",
    *,
    id: UUID | None = None,
    metadata: bytes | None = None,
) -> NewEvent:
    return NewEvent(id or uuid4(), user(a_user), post(a_post), kind, metadata)


@pytest.fixture(params=["uuid", "text"])
def run(request: pytest.FixtureRequest, settings: Settings) -> Run:
    """Runs a coroutine function on a database with users 1 and 2 and posts 1 to 3."""
    url = native_url(settings)
    with psycopg.connect(url, autocommit=True) as connection:
        if request.param == "text":
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            connection.execute(AS_PRISMA_MAKES_THEM)
        for number in (1, 2):
            connection.execute("INSERT INTO users (id) VALUES (%s)", [str(user(number))])
        for number in (1, 2, 3):
            title = "" if request.param == "text" else ", title"
            value = "" if request.param == "text" else ", 'a title'"
            connection.execute(
                f"INSERT INTO posts (id, author_id{title}) VALUES (%s, %s{value})",
                [str(post(number)), str(user(1))],
            )

    def runner(function: Callable[[psycopg.AsyncConnection[Any]], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                return await function(connection)

        return asyncio.run(main())

    return runner


async def store(connection: psycopg.AsyncConnection[Any], *events: NewEvent) -> list[Outcome]:
    return await insert_events(connection, await EventTable.read(connection), events)


async def rows(connection: psycopg.AsyncConnection[Any], columns: str) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(f"SELECT {columns} FROM user_interactions ORDER BY id".encode())
    return await cursor.fetchall()


def test_an_event_is_stored_as_it_is_at_the_server_s_time(run: Run) -> None:
    async def test(connection: psycopg.AsyncConnection[Any]) -> None:
        given = event(1, 2, "like", id=AN_ID, metadata='{"place": {"rank": 3}, "text": "né\\""}'.encode())
        assert await store(connection, given) == ["stored"]
        columns = "id::text, user_id::text, post_id::text, interaction_type::text, metadata"
        assert await rows(connection, columns) == [
            (str(AN_ID), str(user(1)), str(post(2)), "like", {"place": {"rank": 3}, "text": 'né"'})
        ]
        [(age,)] = await rows(connection, "now() - created_at::timestamptz < interval '1 minute'")
        assert age

    run(test)


def test_events_without_metadata_store_null(run: Run) -> None:
    async def test(connection: psycopg.AsyncConnection[Any]) -> None:
        assert await store(connection, event(), event(metadata=b"{}")) == ["stored", "stored"]
        assert sorted(await rows(connection, "metadata IS NULL")) == [(False,), (True,)]

    run(test)


def test_each_event_has_an_outcome_of_its_own(run: Run) -> None:
    async def test(connection: psycopg.AsyncConnection[Any]) -> None:
        await store(connection, event(id=AN_ID))
        given = [
            event(1, 99),
            event(1, 1),
            event(77, 1),
            event(1, 1, id=AN_ID),
            event(2, 3, id=OTHER_ID),
            event(2, 3, id=OTHER_ID),
            event(77, 99),
        ]
        assert await store(connection, *given) == [
            "unknown_post",
            "stored",
            "unknown_user",
            "duplicate",
            "stored",
            "duplicate",
            "unknown_user",
        ]
        assert len(await rows(connection, "id")) == 3

    run(test)


def test_of_one_id_the_first_event_that_can_be_stored_counts(run: Run) -> None:
    async def test(connection: psycopg.AsyncConnection[Any]) -> None:
        given = [event(1, 99, id=AN_ID), event(1, 99, id=AN_ID), event(1, 2, id=AN_ID), event(1, 3, id=AN_ID)]
        assert await store(connection, *given) == ["unknown_post", "unknown_post", "stored", "duplicate"]
        assert await rows(connection, "post_id::text") == [(str(post(2)),)]

    run(test)


def test_nothing_is_nothing(run: Run) -> None:
    async def test(connection: psycopg.AsyncConnection[Any]) -> None:
        assert await store(connection) == []

    run(test)


def test_batches_that_share_ids_in_any_order_never_deadlock(run: Run, settings: Settings) -> None:
    url = native_url(settings)

    async def writer(events: list[NewEvent]) -> list[Outcome]:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            return await store(connection, *events)

    async def test(connection: psycopg.AsyncConnection[Any]) -> None:
        for _ in range(10):
            events = [event(1, 1 + number % 3) for number in range(300)]
            both = await asyncio.gather(writer(events), writer(events[::-1]))
            counts = [outcomes.count("stored") for outcomes in both]
            assert sum(counts) == 300
            assert {outcome for outcomes in both for outcome in outcomes} <= {"stored", "duplicate"}
        assert len(await rows(connection, "id")) == 3000

    run(test)


def test_a_post_deleted_meanwhile_costs_only_its_own_event(settings: Settings, run: Run) -> None:
    url = native_url(settings)

    async def test(connection: psycopg.AsyncConnection[Any]) -> None:
        # The deletion has locked the post when our statement has seen it already; then it commits.
        async with await psycopg.AsyncConnection.connect(url) as deleting:
            await deleting.execute("DELETE FROM posts WHERE id = %s", [str(post(2))])
            writing = asyncio.create_task(store(connection, event(1, 1), event(1, 2), event(1, 3)))
            await asyncio.sleep(0.1)
            await deleting.commit()
        outcomes = await writing
        assert outcomes[0] == outcomes[2] == "stored"
        [(kind,)] = await (
            await connection.execute("SELECT count(*) FROM pg_constraint WHERE contype = 'f'")
        ).fetchall()
        assert outcomes[1] == (
            "unknown_post" if kind else "stored"
        )  # Prisma's tables here have no foreign keys

    run(test)


def test_ids_are_looked_up_by_index_whatever_the_planner_guesses(settings: Settings) -> None:
    async def test() -> None:
        async with await psycopg.AsyncConnection.connect(native_url(settings), autocommit=True) as connection:
            people = "INSERT INTO users (id) SELECT gen_random_uuid() FROM generate_series(1, 5000)"
            await connection.execute(people)
            await connection.execute(
                "INSERT INTO posts (author_id, title) SELECT (SELECT id FROM users LIMIT 1), 'a' "
                "FROM generate_series(1, 5000)"
            )
            await connection.execute("ANALYZE users, posts")
            table = await EventTable.read(connection)
            events = [event(number, number) for number in range(2000)]
            for query, parameters in (
                (table.insert, (*table.ids(events), ["view"] * 2000, [None] * 2000)),
                (table.look, tuple(table.ids(events))),
            ):
                for mode in ("force_custom_plan", "force_generic_plan"):
                    await connection.execute(f"SET plan_cache_mode = {mode}".encode())
                    cursor = await connection.execute(b"EXPLAIN " + query, parameters, prepare=True)
                    plan = "\n".join(row[0] for row in await cursor.fetchall())
                    assert "users_pkey" in plan
                    assert "posts_pkey" in plan
                    assert "Seq Scan" not in plan

    asyncio.run(test())


def test_without_the_table_the_command_is_named(settings: Settings) -> None:
    async def test() -> None:
        async with await psycopg.AsyncConnection.connect(native_url(settings), autocommit=True) as connection:
            await connection.execute("DROP TABLE user_interactions")
            with pytest.raises(SchemaError, match="reco migrate"):
                await EventTable.read(connection)

    asyncio.run(test())
