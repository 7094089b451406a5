"""The real-time tier: what it knows, how soon, and what it does without files or database."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from reco_assets.serving.realtime import live_votes_thread
from reco_assets.serving.realtime.recommendations import LiveList, Realtime
from reco_assets.settings import Settings
from reco_assets.store.database import create_engine_for, native_url
from reco_assets_tests.serving.conftest import SOON_S, engine, settings, settings_for, soon, template
from reco_assets_tests.serving.fitted_world import (
    DAY,
    MORNING,
    add_events,
    add_post,
    fit_day,
    make_readers,
    run_pipeline,
)
from reco_assets_tests.serving.own_server import own_server
from reco_assets_tests.store.published import post, run_sql, user

__all__ = ["engine", "settings", "template"]


class Clock:
    """A clock that is set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Live:
    """A real-time tier on an event loop of its own."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.clock = clock
        self.tier = Realtime(settings, clock)
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.tier.start())

    def at(self, moment: datetime) -> "Live":
        self.clock.now = moment
        assert self.tier.catch_up(SOON_S)
        return self

    def list_of(self, number: int, *, closed: tuple[UUID, ...] = ()) -> list[UUID]:
        found = self.answer(number, closed=closed)
        return [] if found is None else [UUID(post_id) for post_id, _ in found.posts]

    def answer(self, number: int, *, closed: tuple[UUID, ...] = ()) -> LiveList | None:
        return self.loop.run_until_complete(self.tier.recommend(user(number), 10, closed=closed))

    def close(self) -> None:
        self.loop.run_until_complete(self.tier.stop())
        self.loop.close()


@pytest.fixture
def world(settings: Settings, engine: sa.Engine, tmp_path: Path) -> Settings:
    """A published day; the database and the files."""
    here = settings.model_copy(update={"storage_dir": tmp_path / "storage", "realtime_tick_s": 0.1})
    make_readers(engine)
    assert run_pipeline(here).status == "live"
    return here


@contextmanager
def running(settings: Settings, now: datetime = MORNING) -> Iterator[Live]:
    live = Live(settings, Clock(now))
    try:
        yield live.at(now)
    finally:
        live.close()


def test_a_post_of_today_is_recommended_as_soon_as_a_neighbour_has_read_it(
    world: Settings, engine: sa.Engine
) -> None:
    with running(world) as live:
        assert (live.tier.state, live.tier.day, live.tier.model_version) == (
            "ready",
            DAY,
            "collaborative_filtering_v1",
        )
        assert live.tier.as_of == MORNING
        assert post(7) not in live.list_of(1)
        add_post(engine, 7, MORNING + timedelta(minutes=1))
        add_events(engine, [(2, 7, MORNING + timedelta(minutes=2))])
        live.at(MORNING + timedelta(minutes=3))
        found = live.answer(1)
        assert found is not None
        assert (found.posts[0][0], found.folded_in) == (str(post(7)), False)
        assert found.as_of == MORNING + timedelta(minutes=3)
        assert live.list_of(1, closed=(post(7),))[:1] != [post(7)]


def test_it_looks_by_itself_about_once_a_tick(world: Settings, engine: sa.Engine) -> None:
    with running(world) as live:
        add_events(engine, [(2, 5, MORNING - timedelta(seconds=1))])
        assert soon(lambda: live.list_of(1)[:1] == [post(5)])


def test_a_start_catches_up_before_it_says_ready(world: Settings, engine: sa.Engine) -> None:
    add_events(engine, [(2, 5, MORNING - timedelta(hours=3))])
    live = Live(world, Clock(MORNING))
    try:
        assert live.tier.state == "loading"
        assert live.answer(1) is None
        assert soon(lambda: live.tier.state == "ready")
        assert live.list_of(1)[0] == post(5)
        assert live.tier.reason == ""
    finally:
        live.close()


def test_an_unknown_user_has_no_list_and_a_new_one_has_one_from_the_first_event_on(
    world: Settings, engine: sa.Engine
) -> None:
    with running(world) as live:
        assert live.answer(6) is None
        add_events(engine, [(6, 1, MORNING)])
        live.at(MORNING + timedelta(seconds=5))
        found = live.answer(6)
        assert found is not None
        assert found.folded_in
        assert found.posts[0][0] == str(post(2))
        assert live.tier.seen(user(6)) == {post(1)}


def test_own_new_posts_and_those_of_authors_that_a_new_user_hides_are_not_shown(
    world: Settings, engine: sa.Engine
) -> None:
    run_sql(
        engine,
        f"CREATE OR REPLACE VIEW hidden_authors AS SELECT '{user(6)}'::uuid AS user_id, "
        f"'{user(3)}'::uuid AS author_id",
    )
    with running(world) as live:
        add_post(engine, 7, MORNING, author=user(3))
        add_post(engine, 8, MORNING, author=user(6))
        add_events(engine, [(6, 1, MORNING), (2, 7, MORNING), (2, 8, MORNING), (2, 5, MORNING)])
        live.at(MORNING + timedelta(seconds=5))
        assert {post(7), post(8)} & set(live.list_of(6)) == set()
        assert post(5) in live.list_of(6)
        assert {post(7), post(8), post(5)} <= set(live.list_of(1))


def test_events_that_commit_late_count_and_none_counts_twice(world: Settings, engine: sa.Engine) -> None:
    with running(world) as live, psycopg.connect(native_url(world)) as slow:
        slow.execute(
            "INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
            "VALUES (%s, %s, 'view', %s)",
            (str(user(2)), str(post(5)), MORNING + timedelta(seconds=1)),
        )
        add_events(engine, [(2, 6, MORNING + timedelta(seconds=2))])
        live.at(MORNING + timedelta(seconds=2.5))
        assert post(5) not in live.list_of(1)
        slow.commit()
        live.at(MORNING + timedelta(seconds=3))
        assert post(5) in live.list_of(1)
        for second in range(4, 9):
            live.at(MORNING + timedelta(seconds=second))
        loaded = live.tier._loaded
        assert loaded is not None
        assert loaded.follower.votes.n_events == 2


def test_files_that_were_made_again_since_the_publication_are_not_used(
    world: Settings, engine: sa.Engine
) -> None:
    run_sql(engine, f"UPDATE user_interactions SET user_id = '{user(3)}' WHERE user_id = '{user(2)}'")
    from reco_assets.resources.storage import FileStorage
    from reco_assets.store.extract import extract_interactions

    storage = FileStorage(base_dir=str(world.storage))
    extract_interactions(
        world, DAY, DAY + timedelta(days=1), storage.raw_interactions, sorted(world.interaction_weights)
    )
    fit_day(world)
    with running(world) as live:
        assert live.tier.state == "off"
        assert "is not what was published for 2026-11-19" in live.tier.reason
        assert live.answer(1) is None


@pytest.mark.parametrize("missing", ["user_knn_model", "interaction_matrix"])
def test_without_the_files_it_is_off_and_says_which(world: Settings, missing: str) -> None:
    shutil.rmtree(world.storage / missing)
    with running(world) as live:
        assert live.tier.state == "off"
        assert missing in live.tier.reason
        assert "RECO_STORAGE_DIR" in live.tier.reason


def test_a_publication_without_a_digest_says_to_publish_again(world: Settings, engine: sa.Engine) -> None:
    run_sql(engine, "UPDATE recommendation_generations SET model_digest = NULL")
    with running(world) as live:
        assert (live.tier.state, "Publish again" in live.tier.reason) == ("off", True)


def test_before_the_first_publication_and_when_switched_off_it_is_off(
    settings: Settings, engine: sa.Engine
) -> None:
    for changes, reason in (({}, "nothing was published yet"), ({"realtime": False}, "RECO_REALTIME is off")):
        with running(settings.model_copy(update=changes)) as live:
            assert live.tier.state == "off"
            assert reason in live.tier.reason


def test_a_new_generation_takes_over_by_itself_and_open_pages_are_told(
    world: Settings, engine: sa.Engine
) -> None:
    with running(world) as live:
        page = live.tier.changes.subscribe(user(1))
        add_events(engine, [(1, 5, MORNING), (3, 5, MORNING), (3, 1, MORNING)])
        published = run_pipeline(world, DAY + timedelta(days=1), version=2, window_days=2)
        live.clock.now = MORNING + timedelta(days=1)
        assert soon(lambda: live.tier.day == date(2026, 11, 20))
        assert live.tier.model_version == "collaborative_filtering_v2"
        message = live.loop.run_until_complete(asyncio.wait_for(page.get(), SOON_S))
        while message is not None and message["reason"] == "your_events":
            message = live.loop.run_until_complete(asyncio.wait_for(page.get(), SOON_S))
        assert message == {
            "type": "feed_changed",
            "reason": "new_generation",
            "generation_id": str(published.generation_id),
        }


def test_a_page_is_told_when_the_users_own_events_change_the_top_and_only_then(
    world: Settings, engine: sa.Engine
) -> None:
    with running(world) as live:
        follower, convert = live.tier.changes.subscribe(user(1)), live.tier.changes.subscribe(user(5))
        add_events(engine, [(2, 5, MORNING)])
        live.at(MORNING + timedelta(seconds=1))
        assert live.list_of(1)[0] == live.list_of(5)[0] == post(5)
        # User 1 follows the recommendation: that it leaves the list is no news.
        add_events(engine, [(1, 5, MORNING)])
        live.at(MORNING + timedelta(seconds=2))
        assert post(5) not in live.list_of(1)
        # User 5 is like others from now on.
        add_events(engine, [(5, 3, MORNING)])
        live.at(MORNING + timedelta(seconds=3))
        assert live.list_of(5)[0] == post(4)
        message = live.loop.run_until_complete(asyncio.wait_for(convert.get(), SOON_S))
        assert message is not None
        assert message["reason"] == "your_events"
        assert follower.empty()


def test_a_lost_connection_is_made_anew(world: Settings, engine: sa.Engine) -> None:
    with running(world) as live:
        run_sql(
            engine,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'reco service, live votes' AND datname = current_database()",
        )
        add_events(engine, [(2, 5, MORNING - timedelta(seconds=1))])
        assert soon(lambda: live.list_of(1)[:1] == [post(5)])
        assert live.tier.state == "ready"


def test_without_the_database_it_goes_on_with_what_it_knows_and_says_that_it_is_late(
    open_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_votes_thread, "_LATE_AFTER_S", 0.5)
    with own_server(open_tmp_path / "server") as server:
        here = settings_for(server.url, storage_dir=open_tmp_path / "storage", realtime_tick_s=0.1)
        engine = create_engine_for(here)
        make_readers(engine)
        run_pipeline(here)
        add_events(engine, [(2, 5, MORNING - timedelta(seconds=2))])
        with running(here) as live:
            server.kill()
            assert soon(lambda: live.tier.state == "late")
            assert "cannot be reached" in live.tier.reason
            live.clock.now = MORNING + timedelta(minutes=1)
            assert soon(lambda: live.tier.as_of == MORNING + timedelta(minutes=1))
            assert live.list_of(1)[0] == post(5)
            server.start()
            add_events(engine, [(2, 6, MORNING + timedelta(seconds=59))])
            assert soon(lambda: live.list_of(1)[0] == post(6))
            assert (live.tier.state, live.tier.reason) == ("ready", "")
        engine.dispose()


def test_a_state_that_cannot_be_made_during_an_outage_does_not_end_the_thread(
    open_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reco_assets.recommender.live_votes import LiveVotes

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with own_server(open_tmp_path / "server") as server:
        here = settings_for(server.url, storage_dir=open_tmp_path / "storage", realtime_tick_s=0.1)
        engine = create_engine_for(here)
        make_readers(engine)
        run_pipeline(here)
        with running(here) as live:
            with monkeypatch.context() as patch:
                patch.setattr(LiveVotes, "tick", broken)
                server.kill()
                live.at(MORNING + timedelta(minutes=1))  # who waits is not left waiting
                assert "ZeroDivisionError" in live.tier.reason
                assert live.list_of(1)
            server.start()
            add_events(engine, [(2, 5, MORNING + timedelta(seconds=59))])
            live.at(MORNING + timedelta(minutes=1))
            assert soon(lambda: live.at(live.clock.now).tier.state == "ready")
            assert live.list_of(1)[0] == post(5)
        engine.dispose()


def test_looks_that_are_planned_far_apart_are_late_only_when_they_do_not_come(
    world: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_votes_thread, "_LATE_AFTER_S", 0.2)
    monkeypatch.setattr(live_votes_thread, "_SHARE_OF_A_CORE", 1e-6)  # as if a look took minutes
    with running(world) as live:
        time.sleep(0.6)
        assert live.tier.lag_s > 0.5
        assert live.tier.state == "ready"
        live.tier._next_look = time.monotonic() - 0.3
        assert live.tier.state == "late"
        live.at(MORNING + timedelta(seconds=1))
        assert live.tier.state == "ready"


def test_a_follower_that_lost_track_is_replaced_by_one_that_begins_anew(
    world: Settings, engine: sa.Engine
) -> None:
    with running(world, MORNING) as live:
        add_events(engine, [(2, 5, MORNING - timedelta(minutes=minutes)) for minutes in range(1, 20)])
        live.at(MORNING + timedelta(seconds=1))
        loaded = live.tier._loaded
        assert loaded is not None
        loaded.follower.lost_track = True
        live.at(MORNING + timedelta(seconds=2))
        anew = live.tier._loaded
        assert anew is not None
        assert anew is not loaded
        assert (anew.follower.lost_track, anew.follower.votes.n_events) == (False, 19)


def test_a_list_that_fails_is_not_taken_for_an_unknown_user(
    world: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reco_assets.recommender.live_lists import LiveState

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with running(world) as live:
        monkeypatch.setattr(LiveState, "recommend", broken)
        with pytest.raises(ZeroDivisionError):
            live.answer(1)


def test_beyond_the_limit_the_oldest_events_go(world: Settings, engine: sa.Engine) -> None:
    at = MORNING - timedelta(hours=2)
    run_sql(
        engine,
        f"INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
        f"SELECT '{user(3)}', '{post(5)}', 'view', '{at.isoformat()}'::timestamptz + n * interval '1 second' "
        f"FROM generate_series(1, 1500) n",
    )
    with running(world.model_copy(update={"realtime_max_events": 1000})) as live:
        loaded = live.tier._loaded
        assert loaded is not None
        assert loaded.follower.votes.n_events == 1000
        add_events(engine, [(2, 6, MORNING)])
        live.at(MORNING + timedelta(seconds=1))
        assert loaded.follower.votes.n_events == 751  # three quarters, and the new one
        assert post(6) in live.list_of(1)
