"""Every event is read once, whatever the clocks and the transactions do."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import sqlalchemy as sa

from reco_assets.recommender.live_votes import LiveVotes
from reco_assets.serving.realtime.event_follower import EventFollower
from reco_assets.serving.realtime.generation_watch import GenerationWatch, connect
from reco_assets.settings import Settings
from reco_assets.store.database import native_url
from reco_assets_tests.recommender.examples import DAY, make_log
from reco_assets_tests.recommender.test_live_votes import daily_fit
from reco_assets_tests.serving.conftest import engine, settings, template
from reco_assets_tests.serving.fitted_world import add_events
from reco_assets_tests.store.published import make_world, post, user

__all__ = ["engine", "settings", "template"]

PAST = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
"""Behind the server's clock, so that the service's decides."""


class Following:
    """A follower of the test's database, and its clock."""

    def __init__(self, settings: Settings) -> None:
        log = make_log([(0, 0, "view", 0.1), (1, 0, "view", 0.2)], n_users=2, n_posts=1)
        self.now = PAST
        self.follower = EventFollower(
            LiveVotes(daily_fit(log, DAY)), PAST - timedelta(hours=1), 1000, lambda: self.now
        )
        self._settings = settings

    def read_at(self, moment: datetime) -> int:
        self.now = moment
        with connect(self._settings) as connection:
            return self.follower.catch_up(connection)


@pytest.fixture
def following(settings: Settings, engine: sa.Engine) -> Following:
    make_world(engine)
    return Following(settings)


def seconds(n: float) -> datetime:
    return PAST + timedelta(seconds=n)


def test_the_wide_look_meets_an_event_that_was_committed_long_after_its_time(
    following: Following, settings: Settings
) -> None:
    following.read_at(PAST)
    with psycopg.connect(native_url(settings)) as slow:
        slow.execute(
            "INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
            "VALUES (%s, %s, 'view', %s)",
            (str(user(1)), str(post(1)), seconds(1)),
        )
        assert following.read_at(seconds(11)) == 0
    assert following.read_at(seconds(12)) == 0
    assert following.read_at(seconds(61)) == 1
    assert following.read_at(seconds(122)) == 0


def test_a_clock_ahead_of_the_servers_loses_nothing(
    following: Following, settings: Settings, engine: sa.Engine
) -> None:
    ahead = timedelta(minutes=1)
    following.read_at(datetime.now(UTC) + ahead)
    with psycopg.connect(native_url(settings), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO user_interactions (user_id, post_id, interaction_type) VALUES (%s, %s, 'view')",
            (str(user(1)), str(post(1))),
        )
    assert following.read_at(datetime.now(UTC) + ahead) == 1


def test_nothing_is_read_twice_when_the_clocks_are_set_back(following: Following, engine: sa.Engine) -> None:
    add_events(engine, [(1, 1, PAST - timedelta(minutes=minutes)) for minutes in range(50)])
    assert following.read_at(PAST) == 50
    for minutes in (1, 3):
        assert following.read_at(PAST - timedelta(minutes=minutes)) == 0
        assert following.read_at(PAST) == 0
        assert not following.follower.lost_track
    for _ in range(2):
        assert following.read_at(PAST - timedelta(minutes=40)) == 0
    assert following.follower.lost_track


def test_a_short_step_back_does_not_put_off_the_wide_look(following: Following, engine: sa.Engine) -> None:
    following.read_at(PAST)
    following.read_at(PAST - timedelta(minutes=2))
    add_events(engine, [(1, 1, PAST - timedelta(minutes=2, seconds=30))])
    assert following.read_at(PAST - timedelta(minutes=1)) == 1


def test_statements_of_live_votes_end_within_seconds(settings: Settings) -> None:
    watch = GenerationWatch(settings)
    try:
        limits = [watch.connection().execute("SHOW statement_timeout").fetchone()]
        with connect(settings) as connection:
            limits.append(connection.execute("SHOW statement_timeout").fetchone())
    finally:
        watch.disconnect()
    assert limits == [("10s",), ("2min",)]
