"""The documentation for programs, held against the real service with made-up requests."""

from typing import Any

import pytest
import schemathesis
import sqlalchemy as sa
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks

from reco_assets_tests.serving.conftest import RunningService, Serve
from reco_assets_tests.store.published import make_world, publish_pairs

HELD = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)

LONGEST_URL = 60_000
"""Longer ones do not get past uvicorn's parser."""


@pytest.fixture
def running(serve: Serve, engine: sa.Engine) -> RunningService:
    make_world(engine)
    publish_pairs(engine, [(1, 1), (1, 2)])
    return serve(trending_refresh_s=0.5)


def test_no_request_is_answered_in_a_way_that_is_not_documented(running: RunningService) -> None:
    schema = schemathesis.openapi.from_url(running.url + "/openapi.json")
    tried = []
    for result in schema.get_all_operations():
        operation = result.ok()
        tried.append(operation.label)
        # As documented, and against it: wrong types, missing and forbidden values.
        made_up = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))

        @given(case=made_up)
        @settings(
            max_examples=60,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def hold(case: Any) -> None:
            response = case.call()
            assume(len(response.request.url) < LONGEST_URL)
            case.validate_response(response, checks=HELD)

        hold()
    assert {"GET /api/feeds", "POST /api/track", "GET /api/health/ready"} <= set(tried)


def test_every_route_of_the_api_is_documented_with_the_one_shape_of_an_error(running: RunningService) -> None:
    document = running.client.get("/openapi.json").json()
    assert {"/api/track", "/api/feeds", "/api/health/live", "/api/health/ready"} <= set(document["paths"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], (path, method)
            for status, answer in operation["responses"].items():
                if status.startswith("4"):
                    [content] = answer["content"].values()
                    assert content["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}, (path, status)


def test_an_answer_is_as_the_documentation_says(running: RunningService) -> None:
    """What the feed writes without a model, read back by the model."""
    from reco_assets.serving.feeds.answer import FeedAnswer
    from reco_assets_tests.store.published import user

    answer = running.client.get("/api/feeds", params={"user_id": str(user(1)), "limit": 2})
    assert FeedAnswer.model_validate_json(answer.content).model_dump(mode="json") == answer.json()
    assert set(answer.json()["metadata"]) == set(FeedAnswer.model_fields["metadata"].annotation.model_fields)  # type: ignore[union-attr]
