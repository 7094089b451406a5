"""Group commit: shared statements, bounded waiting, nothing acknowledged that is not committed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa

from reco_assets.errors import DatabaseBusy, DatabaseUnreachable, SchemaError
from reco_assets.serving.database import Database
from reco_assets.serving.events.event_writer import EventWriter, NewEvent
from reco_assets.serving.monitoring.metrics import Metrics
from reco_assets.settings import Settings
from reco_assets.store.database import native_url
from reco_assets_tests.serving.conftest import SOON_S
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import make_world, post, run_sql, user

NOWHERE = "postgresql://u:p@127.0.0.1:1/x"


def event(
    a_user: int = 1, a_post: int = 1, *, id: UUID | None = None, metadata: bytes | None = None
) -> NewEvent:
    return NewEvent(id or uuid4(), user(a_user), post(a_post), "view", metadata)


@asynccontextmanager
async def writing(settings: Settings, **changes: Any) -> AsyncIterator[tuple[EventWriter, Database, Metrics]]:
    settings = settings.model_copy(update={"track_timeout_s": SOON_S, **changes})
    metrics = Metrics()
    database = Database(settings, settings.database_url, application_name="reco tests", size=6)
    writer = EventWriter(database, settings, metrics)
    await database.start()
    await writer.start()
    try:
        if settings.database_url != NOWHERE:  # the start waits for a second only
            assert await database.wait_available(SOON_S)
        yield writer, database, metrics
    finally:
        await writer.stop()
        await database.stop()


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())


def stored(settings: Settings) -> Counter[str]:
    with psycopg.connect(native_url(settings)) as connection:
        return Counter(row[0] for row in connection.execute("SELECT id::text FROM user_interactions"))


def commits(metrics: Metrics) -> float:
    count = metrics.commits.collect()[0].samples
    return next(sample.value for sample in count if sample.name.endswith("_count"))


@asynccontextmanager
async def locked_table(settings: Settings) -> AsyncIterator[None]:
    """Nobody can write to user_interactions meanwhile."""
    async with await psycopg.AsyncConnection.connect(native_url(settings)) as connection:
        await connection.execute("LOCK TABLE user_interactions IN EXCLUSIVE MODE")
        yield


@pytest.fixture
def world(settings: Settings, engine: sa.Engine) -> Settings:
    make_world(engine, n_users=3, n_posts=3)
    return settings


def test_requests_of_the_same_moment_share_a_commit(world: Settings) -> None:
    async def test() -> None:
        async with writing(world, track_commit_ms=50.0) as (writer, _, metrics):
            outcomes = await asyncio.gather(*(writer.write([event(), event(2, 99)]) for _ in range(50)))
            assert outcomes == [["stored", "unknown_post"]] * 50
            assert commits(metrics) == 1

    run(test())
    assert stored(world).total() == 50


def test_what_arrives_during_a_commit_becomes_the_next_group(world: Settings) -> None:
    async def test() -> None:
        async with writing(world, track_commit_ms=0.0, lock_timeout_s=30.0) as (writer, _, metrics):
            async with locked_table(world):
                waiting = []
                for _ in range(40):
                    waiting.append(asyncio.create_task(writer.write([event()])))
                    await asyncio.sleep(0.002)
            assert await asyncio.gather(*waiting) == [["stored"]] * 40
            assert commits(metrics) <= 3  # the two that had begun, and all the others at once

    run(test())


def test_concurrent_requests_with_the_same_ids_store_each_once(world: Settings) -> None:
    ids = [uuid4() for _ in range(60)]

    async def test() -> None:
        async with (
            writing(world, track_commit_ms=0.0) as (one, _, _),
            writing(world, track_commit_ms=1.0) as (other, _, _),  # as another process would
        ):
            requests = []
            for number in range(50):
                chosen = [ids[(number * 7 + step * 11) % 60] for step in range(20)]
                requests.append((one, other)[number % 2].write([event(id=each) for each in chosen]))
            counts: Counter[str] = Counter()
            for outcomes in await asyncio.gather(*requests):
                counts.update(outcomes)
            assert counts == {"stored": 60, "duplicate": 50 * 20 - 60}

    run(test())
    assert stored(world) == Counter({str(each): 1 for each in ids})


def test_an_event_that_postgresql_refuses_costs_nothing_but_itself(world: Settings) -> None:
    async def test() -> None:
        async with writing(world, track_commit_ms=50.0) as (writer, _, _):
            impossible = event(metadata=b'{"a": "\\u0000"}')
            requests = [writer.write([event()]) for _ in range(5)]
            requests.insert(2, writer.write([impossible]))
            requests.append(writer.write([event(), event(2, 99), event(), impossible, event()]))
            *single, batch = await asyncio.gather(*requests)
            assert single == [["stored"], ["stored"], ["refused"], ["stored"], ["stored"], ["stored"]]
            assert batch == ["stored", "unknown_post", "stored", "refused", "stored"]

    run(test())
    assert stored(world).total() == 8


def test_a_mistake_in_the_table_is_nobody_s_fault_and_drops_no_event(
    world: Settings, engine: sa.Engine
) -> None:
    async def test() -> None:
        async with writing(world) as (writer, _, _):
            broken = (
                "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN 1/0 || f(); END'"
            )
            trigger = (
                "CREATE TRIGGER t BEFORE INSERT ON user_interactions FOR EACH ROW EXECUTE FUNCTION broken()"
            )
            await asyncio.to_thread(run_sql, engine, broken, trigger)
            with pytest.raises(psycopg.ProgrammingError):
                await writer.write([event(), event()])

    run(test())


def test_a_server_that_is_read_only_turns_events_away_and_takes_them_once_it_is_not(
    world: Settings, engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    name = engine.url.database
    as_standby = f"ALTER DATABASE {name} SET default_transaction_read_only = on"
    as_primary = f"ALTER DATABASE {name} RESET default_transaction_read_only"

    async def test() -> None:
        await asyncio.to_thread(run_sql, engine, as_standby)
        async with writing(world) as (writer, _, _):
            for _ in range(3):
                async with asyncio.timeout(SOON_S / 2):  # at once, not after RECO_TRACK_TIMEOUT_S
                    with pytest.raises(DatabaseBusy, match="takes no events"):
                        await writer.write([event()])
            # The engine's session is older than the change.
            await asyncio.to_thread(run_sql, engine, as_primary)
            while True:
                try:
                    assert await writer.write([event()]) == ["stored"]
                    break
                except (DatabaseBusy, DatabaseUnreachable):
                    await asyncio.sleep(0.05)

    run(test())
    assert caplog.text.count("PostgreSQL takes no events: ") == 1
    assert stored(world).total() == 1


def test_a_full_queue_turns_away_at_once_and_keeps_what_it_took(world: Settings) -> None:
    async def test() -> None:
        async with writing(world, track_queue_events=10, track_commit_ms=0.0, lock_timeout_s=30.0) as (
            writer,
            _,
            _,
        ):
            async with locked_table(world):
                waiting = []
                for _ in range(2):
                    waiting.append(asyncio.create_task(writer.write([event()])))
                    await asyncio.sleep(0)
                    while writer._queue:  # until it is being committed
                        await asyncio.sleep(0.005)
                waiting += [asyncio.create_task(writer.write([event()])) for _ in range(10)]
                await asyncio.sleep(0)
                with pytest.raises(DatabaseBusy, match="RECO_TRACK_QUEUE_EVENTS allows 10"):
                    await writer.write([event()])  # at once: all the others wait for the lock
            assert await asyncio.gather(*waiting) == [["stored"]] * 12

    run(test())
    assert stored(world).total() == 12


def test_a_commit_that_takes_too_long_is_given_up_and_told(world: Settings) -> None:
    later = uuid4()

    async def test() -> None:
        async with writing(world, track_timeout_s=0.3, lock_timeout_s=30.0) as (writer, database, _):
            async with locked_table(world):
                with pytest.raises(DatabaseBusy, match="RECO_TRACK_TIMEOUT_S"):
                    await writer.write([event()])
            assert database.available
            while True:
                with suppress(DatabaseBusy):  # so short a limit is missed by a busy machine too
                    assert (await writer.write([event(id=later)]))[0] in ("stored", "duplicate")
                    break

    run(test())
    assert stored(world)[str(later)] == 1


def test_a_request_that_is_gone_before_its_commit_is_not_stored(world: Settings) -> None:
    async def test() -> None:
        async with writing(world, track_commit_ms=100.0) as (writer, _, _):
            task = asyncio.create_task(writer.write([event()]))
            await asyncio.sleep(0.01)
            task.cancel()
            assert await writer.write([event(id=user(5))]) == ["stored"]

    run(test())
    assert stored(world) == {str(user(5)): 1}


def test_a_lost_connection_is_tried_again_and_its_events_count_as_stored(world: Settings) -> None:
    """The server ends the session after the commit, before it has answered."""

    async def test() -> None:
        trigger = """
            CREATE FUNCTION lose_answer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF NOT EXISTS (SELECT FROM gone) THEN INSERT INTO gone VALUES (1);
              PERFORM pg_advisory_xact_lock(1); END IF; RETURN NULL; END $$;
            CREATE TABLE gone (n int);
            CREATE TRIGGER lose_answer AFTER INSERT ON user_interactions EXECUTE FUNCTION lose_answer();
        """
        held_up = b"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        async with (
            writing(world, lock_timeout_s=30.0, feed_timeout_s=30.0) as (writer, database, _),
            await psycopg.AsyncConnection.connect(native_url(world), autocommit=True) as other,
        ):
            await other.execute(trigger.encode())
            await other.execute("SELECT pg_advisory_lock(1)")
            task = asyncio.create_task(writer.write([event()]))
            while await (await other.execute(held_up)).fetchone() is None:
                await asyncio.sleep(0.005)
            (connection,) = database._in_use
            connection.sever()  # the server goes on and commits, but cannot say so
            await other.execute("SELECT pg_advisory_unlock(1)")
            assert await task == ["stored"]

    run(test())
    assert stored(world).total() == 1


def test_without_a_server_events_are_turned_away_at_once() -> None:
    async def test() -> None:
        async with writing(settings_for(NOWHERE)) as (writer, _, _):
            for _ in range(1000):
                with pytest.raises(DatabaseUnreachable):
                    await writer.write([event()])

    run(test())


def test_stopping_commits_what_was_accepted_and_takes_no_more(world: Settings) -> None:
    async def test() -> None:
        async with writing(world, track_commit_ms=100.0) as (writer, _, _):
            waiting = [asyncio.create_task(writer.write([event()])) for _ in range(20)]
            await asyncio.sleep(0)
            await writer.stop()
            with pytest.raises(DatabaseUnreachable, match="stopping"):
                await writer.write([event()])
            assert await asyncio.gather(*waiting) == [["stored"]] * 20

    run(test())
    assert stored(world).total() == 20


def test_a_table_that_is_missing_is_found_once_it_is_migrated(world: Settings, engine: sa.Engine) -> None:
    async def test() -> None:
        async with writing(world) as (writer, _, _):
            await asyncio.to_thread(run_sql, engine, "ALTER TABLE user_interactions RENAME TO elsewhere")
            with pytest.raises(SchemaError, match="reco migrate"):
                await writer.write([event()])
            await asyncio.to_thread(run_sql, engine, "ALTER TABLE elsewhere RENAME TO user_interactions")
            assert await writer.write([event()]) == ["stored"]

    run(test())
