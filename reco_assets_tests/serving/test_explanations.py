"""Why a post is recommended: told in full to a backend, without names to a browser."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import pytest
import sqlalchemy as sa

from reco_assets.serving.feeds import live_filter
from reco_assets.settings import Settings
from reco_assets_tests.serving.conftest import RunningService, Serve, engine, serve, settings, template
from reco_assets_tests.serving.fitted_world import MORNING, add_events, make_readers, run_pipeline
from reco_assets_tests.store.published import post, run_sql, user

__all__ = ["engine", "serve", "settings", "template"]

SECRET = "a secret of more than thirty-two bytes"


@pytest.fixture
def files(settings: Settings, engine: sa.Engine, tmp_path: Path) -> Path:
    storage = tmp_path / "storage"
    make_readers(engine)
    run_pipeline(settings.model_copy(update={"storage_dir": storage}))
    add_events(engine, [(2, 5, MORNING - timedelta(hours=3))])
    return storage


def started(serve: Serve, **changes: Any) -> RunningService:
    running = serve(clock=lambda: MORNING, **changes)
    assert running.service.realtime.catch_up()
    return running


def test_a_backend_learns_who_read_it_how_alike_they_are_and_when(serve: Serve, files: Path) -> None:
    running = started(serve, storage_dir=files)
    response = running.client.get(f"/api/recommendations/{user(1)}", params={"limit": 2})
    assert response.status_code == 200
    answer = response.json()
    assert (answer["user_id"], answer["metadata"]["state"]) == (str(user(1)), "ready")
    assert answer["metadata"]["model_version"] == "collaborative_filtering_v1"
    best = answer["recommendations"][0]
    assert (best["post_id"], best["rank"], best["title"]) == (str(post(5)), 1, "post 5")
    why = best["explanation"]
    assert why["summary"] == "Read by 1 reader like you, most recently 3 h ago."
    assert why["n_readers"] == 1
    (reader,) = why["readers"]
    assert (reader["user_id"], reader["similarity"], reader["hours_ago"]) == (str(user(2)), 1.0, 3.0)
    assert reader["share"] + why["popularity_share"] == pytest.approx(1, abs=1e-3)
    assert len(answer["recommendations"]) == 2


def test_a_browser_learns_nobodys_id_and_only_its_own_list(serve: Serve, files: Path) -> None:
    running = started(serve, storage_dir=files, auth="jwt", jwt_keys=(SECRET,))
    token = jwt.encode({"sub": str(user(1)), "exp": 4102444800}, SECRET, algorithm="HS256")
    headers = {"Authorization": f"Bearer {token}"}
    response = running.client.get(f"/api/recommendations/{user(1)}", headers=headers)
    assert response.json()["recommendations"][0]["explanation"]["readers"][0]["user_id"] is None
    assert str(user(2)) not in response.text
    other = running.client.get(f"/api/recommendations/{user(2)}", headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (403, "other_user")
    assert running.client.get(f"/api/recommendations/{user(1)}").status_code == 401


def test_live_filters_hold_here_too(serve: Serve, files: Path, engine: sa.Engine) -> None:
    running = started(serve, storage_dir=files)
    run_sql(engine, f"DELETE FROM posts WHERE id = '{post(5)}'")
    posts = running.client.get(f"/api/recommendations/{user(1)}").json()["recommendations"]
    assert str(post(5)) not in {each["post_id"] for each in posts}
    assert [each["rank"] for each in posts] == list(range(1, len(posts) + 1))


def test_an_empty_list_says_why(serve: Serve, files: Path) -> None:
    running = started(serve, storage_dir=files)
    answer = running.client.get(f"/api/recommendations/{UUID(int=5)}").json()
    assert (answer["recommendations"], answer["metadata"]["reason"]) == ([], "unknown_user")
    off = started(serve, storage_dir=files, realtime=False)
    answer = off.client.get(f"/api/recommendations/{user(1)}").json()
    assert (answer["recommendations"], answer["metadata"]["reason"]) == ([], "realtime_off")


def test_of_deleted_users_nobody_hears_and_they_get_nothing(
    serve: Serve, files: Path, engine: sa.Engine
) -> None:
    running = started(serve, storage_dir=files)
    run_sql(engine, f"DELETE FROM users WHERE id = '{user(2)}'")
    response = running.client.get(f"/api/recommendations/{user(1)}")
    assert response.json()["recommendations"][0]["post_id"] == str(post(5))
    assert response.json()["recommendations"][0]["explanation"]["readers"] == []
    assert str(user(2)) not in response.text
    answer = running.client.get(f"/api/recommendations/{user(2)}").json()
    assert (answer["recommendations"], answer["metadata"]["reason"]) == ([], "unknown_user")
    assert answer["metadata"]["as_of"] is None


def test_a_failure_is_said_and_logged_once(
    capsys: pytest.CaptureFixture[str], serve: Serve, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reco_assets.recommender.live_lists import LiveState

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    running = started(serve, storage_dir=files, realtime_tick_s=60)
    monkeypatch.setattr(live_filter, "_complained_at", None)
    monkeypatch.setattr(LiveState, "explain", broken)
    for _ in range(2):
        answer = running.client.get(f"/api/recommendations/{user(1)}").json()
        best = answer["recommendations"][0]
        assert (best["post_id"], best["explanation"]) == (str(post(5)), None)
        assert answer["metadata"]["reason"] == "explanations_failed"
    monkeypatch.setattr(LiveState, "recommend", broken)
    for _ in range(2):
        answer = running.client.get(f"/api/recommendations/{user(1)}").json()
        assert (answer["recommendations"], answer["metadata"]["reason"]) == ([], "recommendations_failed")
    assert capsys.readouterr().err.count("ZeroDivisionError") == 2  # one traceback: where, and what


@pytest.mark.parametrize("path", ["not-a-uuid", f"{user(1)}?limit=0", f"{user(1)}?limit=101"])
def test_what_is_out_of_range_is_refused(service: RunningService, path: str) -> None:
    response = service.client.get(f"/api/recommendations/{path}")
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_parameter")
