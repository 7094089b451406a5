"""The service's connections: shared, given up at once, and back when the server is."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reco_assets.errors import DatabaseBusy, DatabaseUnreachable, SchemaError
from reco_assets.serving.database import Database
from reco_assets.settings import Settings
from reco_assets.store.async_connection import CONNECT_TIMEOUT_S, ServiceConnection, _patiently
from reco_assets_tests.serving.own_server import OwnServer, own_server
from reco_assets_tests.store.conftest import settings_for

PATIENCE_S = 25.0
"""Far above what anything here takes, and below what a test sleeps in the server."""


@asynccontextmanager
async def opened(
    settings: Settings, size: int = 4, *, patience_s: float = PATIENCE_S
) -> AsyncIterator[Database]:
    database = Database(settings, settings.database_url, application_name="reco tests", size=size)
    await database.start()
    try:
        await database.wait_available(patience_s)  # the start waits for a second
        yield database
    finally:
        await database.stop()


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())


async def one(connection: ServiceConnection, query: str) -> Any:
    row = await (await connection.execute(query.encode())).fetchone()
    assert row
    return row[0]


@pytest.fixture
def server(open_tmp_path: Path) -> Iterator[OwnServer]:
    with own_server(open_tmp_path / "postgres", migrated=False) as own:
        yield own


def test_sessions_are_those_of_the_engine_with_the_time_out_of_a_feed(settings: Settings) -> None:
    async def test() -> None:
        changed = settings.model_copy(update={"feed_timeout_s": 3.0, "lock_timeout_s": 1.5})
        async with opened(changed) as database, database.connection(timeout_s=PATIENCE_S) as connection:
            shown = [
                await one(connection, f"SHOW {name}")
                for name in (
                    "search_path",
                    "TimeZone",
                    "statement_timeout",
                    "lock_timeout",
                    "application_name",
                )
            ]
            assert shown == ["public", "UTC", "3s", "1500ms", "reco tests"]
            assert connection.autocommit
            assert connection.prepare_threshold is not None

    run(test())


def test_behind_a_pooler_nothing_is_prepared(settings: Settings) -> None:
    async def test() -> None:
        pooled = settings.model_copy(update={"database_url": f"{settings.database_url}?pgbouncer=true"})
        async with opened(pooled) as database, database.connection(timeout_s=PATIENCE_S) as connection:
            assert connection.prepare_threshold is None

    run(test())


def test_requests_share_the_connections_and_wait_no_longer_than_they_say(settings: Settings) -> None:
    async def test() -> None:
        async with (
            opened(settings, size=2) as database,
            database.connection(timeout_s=PATIENCE_S) as connection,
        ):
            with pytest.raises(DatabaseBusy, match="RECO_SERVICE_POOL_SIZE"):
                async with database.connection(timeout_s=0.05):
                    pass
            assert await one(connection, "SELECT 1") == 1
            assert database.available

    run(test())


def test_errors_are_ours_and_mistakes_stay_what_they_are(settings: Settings) -> None:
    async def test() -> None:
        async with opened(settings) as database:
            with pytest.raises(SchemaError, match="reco migrate"):
                async with database.connection(timeout_s=PATIENCE_S) as connection:
                    await connection.execute("SELECT * FROM nothing_here")
            with pytest.raises(psycopg.ProgrammingError):
                async with database.connection(timeout_s=PATIENCE_S) as connection:
                    await connection.execute("SELEC 1")
            async with database.connection(timeout_s=PATIENCE_S) as connection:
                assert await one(connection, "SELECT 1") == 1

    run(test())


def test_who_is_cancelled_is_free_at_once_and_the_connection_serves_on(settings: Settings) -> None:
    async def test() -> None:
        async with opened(settings, size=2) as database:
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05), database.connection(timeout_s=PATIENCE_S) as connection:
                        await connection.execute("SELECT pg_sleep(30)")
            async with database.connection(timeout_s=PATIENCE_S) as connection:
                assert await one(connection, "SELECT 42") == 42
                asleep = "query LIKE '%pg_sleep(30)%' AND state = 'active' AND pid <> pg_backend_pid()"
                assert await one(connection, f"SELECT count(*) FROM pg_stat_activity WHERE {asleep}") == 0
            assert database.available

    run(test())


def test_a_query_that_was_cancelled_does_not_answer_the_next_one(settings: Settings) -> None:
    async def test() -> None:
        async with opened(settings, size=2) as database:
            for number in range(30):
                with suppress(TimeoutError):
                    async with (
                        asyncio.timeout(0.002),
                        database.connection(timeout_s=PATIENCE_S) as connection,
                    ):
                        await connection.execute("SELECT 'other', pg_sleep(0.002)")
                async with database.connection(timeout_s=PATIENCE_S) as connection:
                    assert await one(connection, f"SELECT {number}") == number

    run(test())


def test_an_error_that_nobody_thought_of_does_not_end_the_watch(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: Any) -> None:
        raise ValueError("nobody thought of it")

    async def test() -> None:
        async with opened(settings) as database:
            with monkeypatch.context() as patched:
                patched.setattr("reco_assets.serving.database.ask", failing)
                database._suspected.set()
                while database.available:
                    await asyncio.sleep(0.01)
            assert await database.wait_available(PATIENCE_S)
            async with database.connection(timeout_s=PATIENCE_S) as connection:
                assert await one(connection, "SELECT 1") == 1

    run(test())


def test_one_terminated_connection_is_no_lost_server(settings: Settings) -> None:
    async def test() -> None:
        async with opened(settings) as database:
            with pytest.raises(DatabaseUnreachable):
                async with database.connection(timeout_s=PATIENCE_S) as connection:
                    await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            assert database.available
            for _ in range(10):
                async with database.connection(timeout_s=PATIENCE_S) as connection:
                    assert await one(connection, "SELECT 1") == 1

    run(test())


def test_without_a_server_the_start_returns_and_requests_are_turned_away_at_once() -> None:
    async def test() -> None:
        async with opened(settings_for("postgresql://u:hidden@127.0.0.1:1/x"), patience_s=0) as database:
            assert not database.available
            for _ in range(1000):  # if one of them waited, this test would time out
                with pytest.raises(DatabaseUnreachable, match=r"127.0.0.1:1/x") as raised:
                    async with database.connection(timeout_s=300):
                        pass
            assert "hidden" not in str(raised.value)
            assert database.stats()["waiting"] == 0

    run(test())


def test_a_killed_server_turns_away_who_waits_and_is_used_again_when_it_is_back(server: OwnServer) -> None:
    async def test() -> None:
        async with opened(settings_for(server.url), size=2) as database:

            async def ask(seconds: float) -> None:
                async with database.connection(timeout_s=30) as connection:
                    await connection.execute(f"SELECT pg_sleep({seconds})".encode())

            # One asks, the others wait for its connection.
            waiting = [asyncio.create_task(ask(30)) for _ in range(10)]
            while database.stats()["waiting"] < 9:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(server.kill)
            done, pending = await asyncio.wait(waiting, timeout=PATIENCE_S)
            assert not pending
            assert {type(task.exception()) for task in done} == {DatabaseUnreachable}
            assert not database.available
            await asyncio.to_thread(server.start)
            assert await database.wait_available(PATIENCE_S)
            await ask(0)

    run(test())


def test_a_hanging_server_is_noticed_and_used_again_when_it_goes_on(server: OwnServer) -> None:
    settings = settings_for(server.url, feed_timeout_s=60.0)  # no statement would end by itself

    async def test() -> None:
        async with opened(settings, size=3) as database:

            async def ask() -> int:
                async with database.connection(timeout_s=60) as connection:
                    return int(await one(connection, "SELECT 1 FROM pg_sleep(0.05)"))

            assert await asyncio.gather(ask(), ask()) == [1, 1]  # both connections are open
            with server.hanging():
                with pytest.raises(TimeoutError):  # a budget holds, though nobody confirms the cancellation
                    async with asyncio.timeout(0.1):
                        await ask()
                # Who has no budget waits until the sentinel has noticed: for an answer, or for a connection.
                waiting = [asyncio.create_task(ask()) for _ in range(5)]
                while database.available:
                    await asyncio.sleep(0.01)
                done, pending = await asyncio.wait(waiting, timeout=PATIENCE_S)
                assert not pending
                assert {type(task.exception()) for task in done} == {DatabaseUnreachable}
            assert await database.wait_available(PATIENCE_S)
            assert await ask() == 1

    run(test())


def test_a_restarted_server_leaves_no_dead_connection_behind(server: OwnServer) -> None:
    async def test() -> None:
        async with opened(settings_for(server.url), size=5) as database:

            async def ask() -> int:
                async with database.connection(timeout_s=5) as connection:
                    return int(await one(connection, "SELECT 1 FROM pg_sleep(0.05)"))

            assert await asyncio.gather(*(ask() for _ in range(8))) == [1] * 8
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            # Whoever finds a dead connection is told; the watch then replaces them all.
            answers: list[int | BaseException] = []
            while answers != [1] * 8:
                answers = await asyncio.gather(*(ask() for _ in range(8)), return_exceptions=True)
                failed = [answer for answer in answers if answer != 1]
                assert all(isinstance(answer, DatabaseUnreachable) for answer in failed)
            for _ in range(3):
                assert await asyncio.gather(*(ask() for _ in range(8))) == [1] * 8

    run(test())


def test_a_connection_of_ones_own_hears_notifications(settings: Settings) -> None:
    async def test() -> None:
        async with opened(settings) as database:
            listener = await database.connect()
            async with listener:
                await listener.execute("LISTEN news")
                async with database.connection(timeout_s=PATIENCE_S) as connection:
                    await connection.execute("NOTIFY news, 'hello'")
                heard = [note.payload async for note in listener.notifies(timeout=5, stop_after=1)]
            assert heard == ["hello"]

    run(test())


def test_a_process_that_was_held_up_itself_does_not_blame_the_server(settings: Settings) -> None:
    async def test() -> None:
        async with opened(settings) as database:
            asker = await database.connect()
            async with asker:
                asking = asyncio.create_task(_patiently(asker.execute("SELECT pg_sleep(0.5)")))
                await asyncio.sleep(0.1)
                time.sleep(CONNECT_TIMEOUT_S + 0.1)  # the answer arrives meanwhile, and nobody looks
                await asking
            assert database.available

    run(test())
