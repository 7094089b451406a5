"""Bad lists went out: an earlier day's are live again, from their archive, by the way of any publication."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from reco_assets.errors import (
    CorruptArtifact,
    MissingUpstream,
    PublicationInProgress,
    PublicationRefused,
)
from reco_assets.local.embedded_postgres import ServerAddress
from reco_assets.pipeline import rollback
from reco_assets.pipeline.rollback import RolledBack, archived_days, roll_back
from reco_assets.resources.storage import FileStorage
from reco_assets.serving.realtime.fitted_day import open_fitted_day
from reco_assets.settings import Settings
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.generations import NOTIFY_CHANNEL, Generation, live_generation
from reco_assets.store.live_events import live_model
from reco_assets.store.publish import STAGES
from reco_assets_tests.serving.fitted_world import DAY, MORNING, add_events, make_readers, run_pipeline
from reco_assets_tests.store.conftest import settings_for, template
from reco_assets_tests.store.published import debris, live_pairs, post, publish_pairs, run_sql, statuses, user

__all__ = ["template"]  # a fixture

BAD_DAY = DAY + timedelta(days=1)
BEFORE_THE_COMMIT = STAGES[: STAGES.index("swapped")]


@dataclass
class World:
    """A good day and the bad one after it, which is live."""

    settings: Settings
    engine: sa.Engine
    good: Generation
    bad: Generation
    good_pairs: set[tuple[int, int]]
    bad_pairs: set[tuple[int, int]]
    read_since: set[tuple[int, int]]
    """What the good lists hold and was read on the bad day; seen posts are never published."""

    @property
    def storage(self) -> FileStorage:
        return FileStorage(base_dir=str(self.settings.storage))

    def live(self) -> Generation:
        return live_of(self.engine)

    def roll_back(self, day: date = DAY, **changes: Any) -> RolledBack:
        said: list[str] = []
        given: dict[str, Any] = {"ttl_hours": 72, "now": datetime.now(UTC), "say": said.append}
        return roll_back(self.engine, self.storage, day, **(given | changes))

    def one(self, query: str) -> Any:
        with transaction(self.engine) as connection:
            return connection.execute(sa.text(query)).one()


def live_of(engine: sa.Engine) -> Generation:
    with transaction(engine) as connection:
        live = live_generation(connection)
    assert live is not None
    return live


@pytest.fixture(scope="session")
def two_days(
    postgres_server: ServerAddress, template: str, tmp_path_factory: pytest.TempPathFactory
) -> World:
    """The world that each test gets a copy of, in the database `two_days`."""
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE two_days TEMPLATE {template}")
    storage = tmp_path_factory.mktemp("two_days") / "storage"
    settings = settings_for(postgres_server.url("two_days"), storage_dir=storage)
    engine = create_engine_for(settings)
    make_readers(engine)
    run_pipeline(settings, DAY, version=1)
    good, good_pairs = live_of(engine), live_pairs(engine)
    add_events(engine, [(1, 5, MORNING), (1, 3, MORNING), (6, 1, MORNING), (6, 5, MORNING)])
    run_pipeline(settings, BAD_DAY, version=2, window_days=2)
    world = World(settings, engine, good, live_of(engine), good_pairs, live_pairs(engine), {(1, 3)})
    assert world.read_since < world.good_pairs
    assert world.bad_pairs != world.good_pairs
    engine.dispose()
    return world


@pytest.fixture
def world(
    two_days: World, postgres_server: ServerAddress, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[World]:
    name = f"r_{abs(hash(request.node.nodeid)):x}"
    shutil.copytree(two_days.settings.storage, tmp_path / "storage")
    settings = settings_for(postgres_server.url(name), storage_dir=tmp_path / "storage")
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE two_days")
        engine = create_engine_for(settings)
        yield replace(two_days, settings=settings, engine=engine)
        engine.dispose()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_an_earlier_days_lists_are_live_again_and_name_the_run_that_made_them(world: World) -> None:
    now = datetime.now(UTC)
    done = world.roll_back(now=now)
    assert live_pairs(world.engine) == world.good_pairs - world.read_since
    live = world.live()
    assert done.live == live
    assert (done.source.id, done.replaced and done.replaced.id) == (world.good.id, world.bad.id)
    assert live.id not in (world.good.id, world.bad.id)
    assert live.restored_from == world.good.id
    for name in ("partition_date", "model_version", "model_digest", "lists_digest", "dagster_run_id"):
        assert getattr(live, name) == getattr(world.good, name), name
    assert live.superseded_at is None
    assert statuses(world.engine) == ["superseded", "superseded", "live"]
    row = world.one(
        "SELECT count(*) AS n, count(DISTINCT user_id) AS users, min(generation_id::text) AS generation, "
        "min(model_version) AS version, min(generated_at) AS made, max(expires_at) AS expires "
        "FROM user_recommendations"
    )
    assert (row.generation, row.version) == (str(live.id), "collaborative_filtering_v1")
    # Computed when they were, readable from now on.
    assert (row.made, row.expires) == (world.good.created_at, now + timedelta(hours=72))
    assert done.publication is not None
    assert (done.publication.n_recommendations, done.publication.n_users) == (row.n, row.users)
    assert (live.n_recommendations, live.n_users) == (row.n, row.users)
    assert done.model_problem == ""
    assert debris(world.engine) == []


def test_posts_and_users_that_are_gone_or_hidden_by_now_do_not_come_back(world: World) -> None:
    gone, hidden = 1, 2
    listed = {number: len([u for u, p in world.good_pairs if p == number]) for number in (gone, hidden)}
    assert min(listed.values()) > 0
    run_sql(
        world.engine,
        f"DELETE FROM posts WHERE id = '{post(gone)}'",
        "CREATE OR REPLACE VIEW recommendable_posts AS SELECT id AS post_id, author_id, created_at "
        f"FROM posts WHERE id <> '{post(hidden)}'",
    )
    done = world.roll_back()
    back = {(u, p) for u, p in world.good_pairs - world.read_since if p not in (gone, hidden)}
    assert live_pairs(world.engine) == back
    assert done.publication is not None
    assert done.publication.dropped_reasons == {
        "post_deleted": listed[gone],
        "not_recommendable": listed[hidden],
        "seen": len(world.read_since),
    }
    assert done.live.dropped_reasons == done.publication.dropped_reasons


def test_nothing_of_the_bad_lists_stays_not_even_for_users_whom_the_good_ones_do_not_know(
    world: World,
) -> None:
    newcomers = {u for u, _ in world.bad_pairs} - {u for u, _ in world.good_pairs}
    assert newcomers == {6}
    done = world.roll_back()
    assert {u for u, _ in live_pairs(world.engine)} <= {u for u, _ in world.good_pairs}
    assert done.publication is not None
    assert done.publication.n_carried_over == 0


def test_older_lists_of_users_without_one_stay_as_in_any_publication(world: World) -> None:
    """Carried over by the good publication and by the bad one: they are of a day before both."""
    engine = world.engine
    run_sql(engine, f"INSERT INTO users (id) VALUES ('{user(7)}')")
    older = world.one(
        "INSERT INTO recommendation_generations (partition_date, status, superseded_at) "
        f"VALUES ('{DAY - timedelta(days=1)}', 'superseded', now()) RETURNING id"
    )
    run_sql(
        engine,
        "INSERT INTO user_recommendations (user_id, post_id, score, generated_at, expires_at, model_version, "
        f"generation_id) VALUES ('{user(7)}', '{post(1)}', 1, now(), now() + interval '1 day', 'v0', "
        f"'{older.id}')",
    )
    done = world.roll_back()
    assert (7, 1) in live_pairs(engine)
    assert done.live.n_carried_over == 1


def test_twice_is_once(world: World) -> None:
    first = world.roll_back()
    second = world.roll_back()
    assert second.publication is None
    assert second.live == first.live
    assert second.source.id == world.good.id
    assert statuses(world.engine) == ["superseded", "superseded", "live"]
    # Nor is there anything to do for what is live because it was published.
    run_pipeline(world.settings, BAD_DAY + timedelta(days=1), version=3, window_days=3)
    assert world.roll_back(BAD_DAY + timedelta(days=1)).publication is None


def test_live_lists_that_have_expired_are_renewed(world: World) -> None:
    now = datetime.now(UTC)
    expire = "UPDATE user_recommendations SET expires_at = now()"
    run_sql(world.engine, expire)
    assert world.roll_back(BAD_DAY, now=now).publication is not None
    assert world.live().restored_from == world.bad.id
    assert live_pairs(world.engine) == world.bad_pairs
    newest = world.one("SELECT min(expires_at) AS first, max(expires_at) AS last FROM user_recommendations")
    assert newest == (now + timedelta(hours=72), now + timedelta(hours=72))
    assert world.roll_back(BAD_DAY).publication is None
    run_sql(world.engine, expire)  # what a rollback made live can expire as well
    assert world.roll_back(BAD_DAY).publication is not None


def test_what_somebody_publishes_right_after_the_swap_is_not_taken_for_the_rollback(world: World) -> None:
    def publish_next(stage: str) -> None:
        if stage == "done":
            run_sql(
                world.engine,
                "UPDATE recommendation_generations SET status = 'superseded' WHERE status = 'live'",
                "INSERT INTO recommendation_generations (partition_date, status, published_at) "
                f"VALUES ('{BAD_DAY + timedelta(days=1)}', 'live', now())",
            )

    done = world.roll_back(on_stage=publish_next)
    assert (done.live.partition_date, done.live.restored_from) == (DAY, world.good.id)


def test_the_next_days_run_replaces_them_and_the_bad_day_can_be_run_again(world: World) -> None:
    world.roll_back()
    assert run_pipeline(world.settings, BAD_DAY, version=3, window_days=2).status == "live"
    assert world.live().partition_date == BAD_DAY
    world.roll_back()
    next_day = BAD_DAY + timedelta(days=1)
    published = run_pipeline(world.settings, next_day, version=4, window_days=3)
    assert published.status == "live"
    live = world.live()
    assert (live.partition_date, live.restored_from) == (next_day, None)


def test_a_backfill_of_days_before_the_bad_one_is_archived_after_a_rollback_as_before(world: World) -> None:
    between, newest = BAD_DAY + timedelta(days=1), BAD_DAY + timedelta(days=2)
    run_pipeline(world.settings, newest, version=3, window_days=4)
    world.roll_back()
    archived = run_pipeline(world.settings, between, version=4, window_days=3)
    assert archived.status == "archived"
    assert f"older than {newest}, the newest that was ever live" in archived.message
    assert world.live().restored_from == world.good.id
    # The command that the message names; then the restored day is not "between" any more.
    assert world.roll_back(between).live.partition_date == between
    assert run_pipeline(world.settings, between, version=5, window_days=3).status == "live"
    world.roll_back()
    assert run_pipeline(world.settings, DAY, version=6, window_days=1).status == "live"
    world.roll_back(between)
    assert run_pipeline(world.settings, newest, version=7, window_days=4).status == "live"


def test_a_rollback_can_be_taken_back(world: World) -> None:
    world.roll_back()
    done = world.roll_back(BAD_DAY)
    assert done.source.id == world.bad.id
    assert done.live.restored_from == world.bad.id
    assert live_pairs(world.engine) == world.bad_pairs


def test_each_archived_day_is_shown_with_what_it_is_or_why_it_cannot_be_used(world: World) -> None:
    def sources() -> list[Any]:
        return [(each.day, each.source and each.source.id) for each in archived_days(engine, world.storage)]

    engine = world.engine
    both = [(BAD_DAY, world.bad.id), (DAY, world.good.id)]
    assert sources() == both
    world.roll_back()  # its record is not the lists' own
    assert sources() == both
    world.storage.recommendations(DAY).write_bytes(b"something else")
    world.storage.recommendations(BAD_DAY).unlink()
    [damaged] = archived_days(engine, world.storage)
    assert (damaged.day, damaged.source) == (DAY, None)
    assert "on record are" in damaged.problem


def test_lists_of_before_digests_were_kept_are_shown_as_such(world: World) -> None:
    run_sql(world.engine, "UPDATE recommendation_generations SET lists_digest = NULL")
    shown = archived_days(world.engine, world.storage)
    assert [each.day for each in shown if "before digests were kept" in each.problem] == [BAD_DAY, DAY]


def test_without_an_archive_it_says_where_it_looked_and_what_to_do(world: World) -> None:
    path = world.storage.recommendations(DAY)
    path.unlink()
    with pytest.raises(MissingUpstream) as raised:
        world.roll_back()
    for part in (str(path), "reco rollback", f"reco run --partition {DAY}", "RECO_ARCHIVE_DAYS"):
        assert part in str(raised.value)
    assert world.live() == world.bad


def test_a_damaged_archive_is_refused(world: World) -> None:
    path = world.storage.recommendations(DAY)
    content = path.read_bytes()
    flipped = content[:100] + bytes([content[100] ^ 1]) + content[101:]
    recorded = str(world.good.lists_digest)[:12]
    for damaged in (content[:-1], flipped, b""):
        path.write_bytes(damaged)
        with pytest.raises(CorruptArtifact, match=rf"SHA-256 begins with .* {recorded}"):
            world.roll_back()
    assert world.live() == world.bad
    assert live_pairs(world.engine) == world.bad_pairs


def test_lists_of_before_digests_were_kept_are_refused(world: World) -> None:
    run_sql(world.engine, "UPDATE recommendation_generations SET lists_digest = NULL")
    with pytest.raises(CorruptArtifact, match=r"none is on record.*before digests were kept"):
        world.roll_back()


@pytest.mark.parametrize("status", ["refused", "failed"])
def test_lists_that_a_check_refused_or_that_failed_are_not_published_by_this_way_either(
    world: World, status: str
) -> None:
    run_sql(
        world.engine,
        f"UPDATE recommendation_generations SET status = '{status}', message = 'worse than popularity' "
        f"WHERE id = '{world.good.id}'",
    )
    with pytest.raises(PublicationRefused, match=rf"{status} \(worse than popularity\)"):
        world.roll_back()
    assert world.live() == world.bad


def test_while_somebody_publishes_it_is_refused_with_who_that_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollback, "_WAIT_S", 0.0)
    refused: list[str] = []

    def try_it(stage: str) -> None:
        if stage == "indexed":
            with pytest.raises(PublicationInProgress) as raised:
                world.roll_back()
            refused.append(str(raised.value))

    publish_pairs(world.engine, [(5, 1)], day=BAD_DAY + timedelta(days=1), on_stage=try_it)
    assert f"publishing {BAD_DAY + timedelta(days=1)}" in refused[0]
    assert live_pairs(world.engine) >= {(5, 1)}


def test_what_was_published_between_the_decision_and_the_lock_is_left_alone(world: World) -> None:
    newest = BAD_DAY + timedelta(days=1)
    published: list[str] = []

    def publish_meanwhile(stage: str) -> None:
        """Before the lock there is no stage; this is the same to the code: live is not what it was."""
        if stage == "locked" and not published:
            published.append(stage)
            run_sql(
                world.engine,
                "UPDATE recommendation_generations SET status = 'superseded' WHERE status = 'live'",
                "INSERT INTO recommendation_generations (partition_date, status, published_at) "
                f"VALUES ('{newest}', 'live', now())",
            )

    with pytest.raises(
        PublicationRefused, match=rf"Another publication came first: now the lists of {newest}"
    ):
        world.roll_back(on_stage=publish_meanwhile)
    assert world.live().partition_date == newest
    assert live_pairs(world.engine) == world.bad_pairs


def test_the_service_is_told_and_finds_the_model_of_the_day(world: World) -> None:
    assert world.settings.database_url
    with psycopg.connect(world.settings.database_url, autocommit=True) as service:
        service.execute(f"LISTEN {NOTIFY_CHANNEL}")
        done = world.roll_back()
        heard = next(service.notifies(timeout=30))
        assert heard.payload == str(done.live.id)
        live = live_model(service)
    assert live is not None
    assert (live.day, live.model_version) == (DAY, "collaborative_filtering_v1")
    fit = open_fitted_day(world.settings.storage, live.day, live.model_digest)
    assert fit.model.n_users_ == 5


def test_a_model_that_is_gone_or_fitted_again_is_said(world: World) -> None:
    shutil.rmtree(world.storage.model(DAY))
    assert "is not there any more" in world.roll_back().model_problem
    world.storage.model(DAY).parent.mkdir(exist_ok=True)
    shutil.copytree(world.storage.model(BAD_DAY), world.storage.model(DAY))
    assert "was fitted again since" in world.roll_back().model_problem


@pytest.mark.parametrize("broken", ["without a manifest", "unreadable"])
def test_a_broken_model_does_not_hold_up_lists_that_need_none(world: World, broken: str) -> None:
    manifest = world.storage.model(DAY) / "manifest.json"
    manifest.unlink()
    if broken == "unreadable":
        manifest.mkdir()
    assert str(manifest.parent) in world.roll_back().model_problem
    assert world.live().partition_date == DAY


@pytest.mark.parametrize("stage", ["recorded", "copied", "swapping", "swapped"])
def test_killed_at_any_stage_one_whole_generation_is_live_and_the_next_try_ends_it(
    world: World, stage: str
) -> None:
    assert world.settings.database_url
    program = [sys.executable, "-m", "reco_assets_tests.pipeline.rolled_back"]
    arguments = [world.settings.database_url, world.storage.base_dir, str(DAY), stage]
    with subprocess.Popen([*program, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "stopped\n"
        process.kill()
    good = world.good_pairs - world.read_since
    assert live_pairs(world.engine) == (world.bad_pairs if stage in BEFORE_THE_COMMIT else good)
    done = world.roll_back()  # waits until the server has noticed
    assert (done.publication is None) == (stage not in BEFORE_THE_COMMIT)
    assert live_pairs(world.engine) == good
    assert world.live().restored_from == world.good.id
    assert "building" not in statuses(world.engine)
    # The next run clears what is left of the one that was killed after the swap.
    run_pipeline(world.settings, BAD_DAY + timedelta(days=1), version=3, window_days=3)
    assert debris(world.engine) == []
