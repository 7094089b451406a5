"""Propensities of real answers against how often posts stand there, filters and all."""

import random
from collections import Counter
from datetime import timedelta
from statistics import mean

import pytest
import sqlalchemy as sa

from reco_assets.serving.routes import feed as feed_route
from reco_assets.settings import Settings
from reco_assets_tests.serving.conftest import Serve
from reco_assets_tests.serving.feeds import PLAIN, feed, now, number
from reco_assets_tests.store.app_databases import add_people, add_posts, app, app_templates, interact
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import NOW, post

__all__ = ["app", "app_templates"]  # fixtures

FEEDS = 400
SHARE = 0.3
LISTED = range(1, 11)
FREE = range(11, 54)
"""Posts that could be explored: 54 and 55 are excluded, 56 to 60 were read."""


@pytest.fixture
def settings(app: sa.Engine) -> Settings:
    return settings_for(app.url.set(drivername="postgresql").render_as_string(hide_password=False))


@pytest.mark.parametrize("filled_up", [0, 4])
def test_what_was_logged_weighs_each_post_once_for_each_position_and_feed(
    app: sa.Engine, serve: Serve, monkeypatch: pytest.MonkeyPatch, filled_up: int
) -> None:
    """The inverse of a propensity is what an estimate from logs multiplies by: it adds up to all posts."""
    add_people(app, 5)
    add_posts(app, 60, at=NOW - timedelta(hours=1))
    for i in LISTED:
        interact(app, 5, i, NOW - timedelta(minutes=i))  # trending
    for i in range(56, 61):
        interact(app, 4, i, NOW - timedelta(days=3))
    length = len(LISTED) + filled_up
    explored = {"exploration_share": SHARE, "feed_length": length, "experiment": "a:trending=1"}
    running = serve(now, **{**PLAIN, **explored})
    monkeypatch.setattr(feed_route, "_chance", random.Random(11))
    explored_weight: list[float] = []
    filled_up_weight: list[float] = []
    listed_weight: Counter[int] = Counter()  # in hundredths
    shown: Counter[int] = Counter()
    for _ in range(FEEDS):
        body = feed(running, 4, limit=length, exclude=f"{post(54)},{post(55)}")
        assert body["metadata"]["experiment"] == {"name": "a", "arm": "trending"}
        weight = random_weight = 0.0
        for each in body["posts"]:
            i = number(each["post_id"])
            shown[i] += 1
            if each["source"] == "exploration":
                weight += 1 / each["propensity"]
            else:
                # 1: of the posts drawn for this list none could be shown.
                assert each["propensity"] in (pytest.approx(1 - SHARE), 1.0)
                if i in LISTED:
                    listed_weight[i] += round(100 / each["propensity"])
                else:
                    random_weight += 1 / each["propensity"]
        explored_weight.append(weight)
        filled_up_weight.append(random_weight)
    assert shown.keys() == {*LISTED, *FREE}
    n_free = len(FREE) - filled_up  # what fills the page up is not explored as well
    assert mean(explored_weight) == pytest.approx(n_free * length, rel=0.13)  # 4.5 deviations
    assert mean(filled_up_weight) == pytest.approx(filled_up, rel=0.13)
    for i in LISTED:
        assert listed_weight[i] / 100 / FEEDS == pytest.approx(1, abs=0.15)
