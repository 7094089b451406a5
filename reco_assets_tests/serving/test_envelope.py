"""What every answer carries, and what logs and errors do not say."""

import json
import logging
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from reco_assets.errors import SchemaError
from reco_assets.serving.monitoring.logs import configure
from reco_assets_tests.serving.conftest import Serve
from reco_assets_tests.store.published import make_world, post, run_sql, user


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The service takes over the process's logging; give it back to pytest."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the client's own lines, in the same process
    yield
    root.handlers[:] = handlers
    logging.getLogger("httpx").setLevel(logging.NOTSET)
    root.setLevel(level)


def test_every_answer_has_the_request_id_and_the_security_headers(serve: Serve) -> None:
    client = serve().client
    for answer in (client.get("/api/health/live"), client.get("/nowhere"), client.get("/api/feeds")):
        assert answer.headers["x-request-id"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "server" not in answer.headers


def test_a_sane_request_id_of_the_caller_is_kept(serve: Serve) -> None:
    client = serve().client
    assert client.get("/nowhere", headers={"X-Request-ID": "abc-1"}).json()["error"]["request_id"] == "abc-1"
    hostile = client.get("/nowhere", headers={"X-Request-ID": 'a"\tb' * 40})
    assert hostile.headers["x-request-id"].isalnum()


def test_unknown_paths_and_methods_have_the_one_shape_of_an_error(serve: Serve) -> None:
    client = serve().client
    missing, method = client.get("/nowhere"), client.delete("/api/feeds")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert (method.status_code, method.json()["error"]["code"]) == (405, "method_not_allowed")


def test_logs_are_json_and_name_no_user_at_info(
    serve: Serve, engine: sa.Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    make_world(engine)
    client = serve(log_level="info").client
    client.get("/api/feeds", params={"user_id": str(user(1))}, headers={"X-Request-ID": "find-me"})
    body = {
        "user_id": str(user(1)),
        "post_id": str(post(1)),
        "interaction_type": "like",
        "metadata": {"secret": "plum"},
    }
    assert client.post("/api/track", json=body).status_code == 200
    written = capfd.readouterr().err
    lines = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    [line] = [line for line in lines if line.get("request_id") == "find-me"]
    assert (line["route"], line["status"], line["method"]) == ("/api/feeds", 200, "GET")
    assert str(user(1)) not in written
    assert "plum" not in written


def test_what_fails_inside_tells_the_client_nothing(
    serve: Serve, engine: sa.Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    running = serve()

    @running.app.get("/broken")
    async def broken() -> None:
        raise ValueError("SELECT secret FROM place")

    answer = running.client.get("/broken")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "SELECT secret FROM place" in capfd.readouterr().err  # the log has it


def test_what_postgresql_says_about_a_row_is_not_in_the_log(
    serve: Serve, engine: sa.Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    make_world(engine)
    run_sql(engine, "ALTER TABLE user_interactions ADD CONSTRAINT a_rule CHECK (metadata IS NULL)")
    running = serve()

    @running.app.post("/broken/{user_id}")
    async def broken(user_id: str) -> None:
        async with running.service.primary.connection(timeout_s=5) as connection:
            await connection.execute(
                "INSERT INTO user_interactions (user_id, post_id, interaction_type, metadata) "
                "VALUES (%s, %s, 'view', %s)",
                (user_id, str(post(1)), '{"secret": "plum"}'),
            )

    @running.app.post("/expected/{user_id}")
    async def expected(user_id: str) -> None:
        raise SchemaError("something is missing")

    event = {"post_id": str(post(1)), "interaction_type": "view", "metadata": {"secret": "plum"}}
    tracked = running.client.post("/api/track", json={"user_id": str(user(1)), **event})
    assert (tracked.status_code, tracked.json()["error"]["code"]) == (422, "refused")
    for path in ("broken", "expected"):
        assert running.client.post(f"/{path}/{user(1)}").status_code == 500
    written = capfd.readouterr().err
    assert "a_rule" in written
    assert "psycopg.errors.CheckViolation: 23514" in written
    assert "/broken/{user_id}" in written
    assert "SchemaError in /expected/{user_id}" in written
    assert str(user(1)) not in written
    assert str(post(1)) not in written
    assert "plum" not in written


def test_tracebacks_show_what_led_to_what(capfd: pytest.CaptureFixture[str]) -> None:
    configure("error", "json")
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ExceptionGroup("second", [ValueError("within")]) from error
    except ExceptionGroup:
        logging.getLogger("anything").exception("It failed.")
    shown = json.loads(capfd.readouterr().err)["exception"]
    places = [shown.index(text) for text in ("KeyError: 'first'", "second", "ValueError: within")]
    assert places == sorted(places)


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_level_is_the_one_that_was_set(level: str) -> None:
    configure(level, "json")
    assert logging.getLogger().level == getattr(logging, level.upper())
