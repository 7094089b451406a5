"""What a load balancer, and anybody else, hears of the service's state; and the ages in /metrics."""

import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from reco_assets.serving.monitoring import gauges
from reco_assets.settings import Settings
from reco_assets.store.database import create_engine_for
from reco_assets_tests.serving.conftest import (
    RunningService,
    Serve,
    engine,
    running_service,
    serve,
    settings,
    settings_for,
    soon,
    template,
)
from reco_assets_tests.serving.fitted_world import MORNING, make_readers, run_pipeline
from reco_assets_tests.serving.own_server import own_server
from reco_assets_tests.store.published import run_sql

__all__ = ["engine", "serve", "settings", "template"]

PARTS = {"database", "schema", "recommendations", "model"}

PUBLISHED_AT_TWO = "UPDATE recommendation_generations SET published_at = '2026-11-20 02:00+00'"


@pytest.fixture
def storage(settings: Settings, engine: sa.Engine, tmp_path: Path) -> Path:
    storage = tmp_path / "storage"
    make_readers(engine)
    run_pipeline(settings.model_copy(update={"storage_dir": storage}))
    run_sql(engine, PUBLISHED_AT_TWO)
    return storage


def started(serve: Serve, **changes: Any) -> RunningService:
    running = serve(clock=lambda: MORNING, **changes)
    assert running.service.realtime.catch_up()
    return running


def health(running: RunningService) -> tuple[int, dict[str, str], httpx.Response]:
    answer = running.client.get("/api/health/ready")
    assert answer.json()["ready"] == (answer.status_code == 200)
    return (
        answer.status_code,
        {name: check["state"] for name, check in answer.json()["checks"].items()},
        answer,
    )


def test_it_is_ready_with_all_four_parts(serve: Serve, storage: Path) -> None:
    status, states, answer = health(started(serve, storage_dir=storage))
    assert (status, states) == (200, dict.fromkeys(PARTS, "ok"))
    assert "published 7.0 h ago" in answer.json()["checks"]["recommendations"]["detail"]


def test_before_the_first_publication_it_takes_requests_and_says_what_is_missing(serve: Serve) -> None:
    status, states, answer = health(started(serve))
    assert status == 200
    assert (states["recommendations"], states["model"]) == ("degraded", "degraded")
    assert "`reco run`" in answer.json()["checks"]["model"]["detail"]


def test_old_lists_degrade_it(serve: Serve, storage: Path) -> None:
    status, states, _ = health(started(serve, storage_dir=storage, stale_after_hours=6))
    assert (status, states["recommendations"], states["model"]) == (200, "degraded", "ok")


def test_lost_files_degrade_it_and_their_path_is_not_told(serve: Serve, storage: Path) -> None:
    shutil.rmtree(storage / "interaction_matrix")
    running = started(serve, storage_dir=storage)
    status, states, answer = health(running)
    assert (status, states["model"]) == (200, "degraded")
    assert "files of the published model are missing" in answer.json()["checks"]["model"]["detail"]
    assert str(storage) in running.service.realtime.reason
    assert str(storage) not in answer.text


@pytest.mark.parametrize(
    "damage", ["UPDATE reco_alembic_version SET version_num = '0001'", "DROP TABLE reco_alembic_version"]
)
def test_another_schema_keeps_it_from_being_ready(serve: Serve, engine: sa.Engine, damage: str) -> None:
    run_sql(engine, damage)
    status, states, answer = health(started(serve))
    assert (status, states["database"], states["schema"]) == (503, "ok", "failed")
    assert "`reco migrate`" in answer.json()["checks"]["schema"]["detail"]
    assert set(states) == PARTS
    assert tells_no_address(answer, engine.url)


def test_without_a_database_from_the_start_it_is_not_ready() -> None:
    with running_service(settings_for("postgresql://127.0.0.1:1/nowhere")) as running:
        status, states, answer = health(running)
    assert status == 503
    assert states["database"] == "failed"
    assert set(states) == PARTS
    assert tells_no_address(answer, sa.make_url("postgresql://127.0.0.1:1/nowhere"))


def tells_no_address(answer: httpx.Response, url: sa.URL) -> bool:
    return not any(
        part in answer.text for part in (url.host or "127.0.0.1", f":{url.port}", url.database or "nowhere")
    )


def gauge(running: RunningService, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", running.client.get("/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


def test_an_outage_degrades_what_was_ready_and_ages_go_on_growing(
    open_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "_EVERY_S", 0.1)
    now = [MORNING]

    def clock() -> datetime:
        return now[0]

    with own_server(open_tmp_path / "server") as server:
        here = settings_for(
            server.url, storage_dir=open_tmp_path / "storage", realtime_tick_s=0.1, service_workers=1
        )
        engine = create_engine_for(here)
        make_readers(engine)
        run_pipeline(here)
        run_sql(engine, PUBLISHED_AT_TWO)
        engine.dispose()
        with running_service(here, clock) as running:
            assert running.service.realtime.catch_up()
            assert soon(lambda: health(running)[:2] == (200, dict.fromkeys(PARTS, "ok")))
            seven_hours = 7 * 3600.0
            assert soon(lambda: gauge(running, "reco_recommendations_age_seconds") == seven_hours)
            server.kill()
            assert soon(lambda: health(running)[1]["model"] == "degraded")
            status, states, answer = health(running)
            assert (status, states) == (200, dict.fromkeys(PARTS, "degraded"))
            assert tells_no_address(answer, sa.make_url(server.url))
            assert str(open_tmp_path) not in answer.text
            now[0] = MORNING + timedelta(hours=1)
            assert soon(lambda: gauge(running, "reco_recommendations_age_seconds") == seven_hours + 3600)
            lag = gauge(running, "reco_realtime_lag_seconds")
            assert soon(lambda: gauge(running, "reco_realtime_lag_seconds") > lag > 0)
            server.start()
            assert soon(lambda: health(running)[1] == dict.fromkeys(PARTS, "ok"))
