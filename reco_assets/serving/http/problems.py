"""What goes wrong in a request, as answers: one JSON shape, the status chosen in one place."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from reco_assets.errors import BadInput, RecoError
from reco_assets.serving.monitoring.logs import current_request_id

log = logging.getLogger(__name__)

RETRY_AFTER_S: Final = "1"


class Problem(Exception):
    """A request that cannot be answered as asked.

    Args:
        status: of HTTP, 4xx or 503.
        code: for programs, in snake_case; stable.
        message: for people: what is wrong, the value, the limit, the next step.
        headers: of the answer.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="For programs; stable.", examples=["limit_out_of_range"])
    message: str = Field(description="For people: what is wrong, the limit, the next step.")
    request_id: str = Field(description="The same as in the header X-Request-ID and in the logs.")


class ErrorAnswer(BaseModel):
    """The one shape of an error."""

    error: ErrorDetail


_MEANINGS: Final = {
    400: "The request cannot be read as what it should be.",
    401: "No valid credentials.",
    403: "The credentials are not for this user.",
    404: "There is no such thing.",
    405: "The path has no such method.",
    408: "The body did not arrive within RECO_TRACK_TIMEOUT_S.",
    413: "The body is larger than RECO_TRACK_MAX_BODY_BYTES.",
    415: "The body's type is not JSON.",
    422: "A part of the request is out of range.",
    503: "Too many requests are open, or the database is needed and away; try again after the seconds in "
    "Retry-After.",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: the errors it can answer with."""
    return {status: {"model": ErrorAnswer, "description": _MEANINGS[status]} for status in statuses}


def error_response(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer in the one shape."""
    body = to_json({"error": {"code": code, "message": message, "request_id": current_request_id()}})
    return Response(body, status, dict(headers or {}), media_type="application/json")


def install(app: FastAPI) -> None:
    """Answer expected exceptions in the one shape; `RequestEnvelope` answers for the others."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, problem: Problem) -> Response:  # noqa: ARG001
        return error_response(problem.status, problem.code, problem.message, problem.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:  # noqa: ARG001
        return error_response(422, "invalid_parameter", "; ".join(map(_described, error.errors())))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        code, message = _HTTP_CODES.get(error.status_code, ("http_error", str(error.detail)))
        return error_response(
            error.status_code,
            code,
            message.format(path=request.url.path, method=request.method),
            error.headers,
        )

    @app.exception_handler(RecoError)
    async def _expected(request: Request, error: RecoError) -> Response:
        if isinstance(error, BadInput):
            return error_response(400, "bad_input", str(error))
        if error.transient:
            return unavailable()
        # The route, not the path: that may hold ids.
        log.error("%s in %s: %s", type(error).__name__, route_of(request.scope), error)
        return internal_error()


def route_of(scope: Mapping[str, Any]) -> str:
    """The route's own path, its parameters as names; "other" for a path that nobody serves."""
    route: str = getattr(scope.get("route"), "path", "other")
    return route


def unavailable() -> Response:
    """503 for what the database would be needed for."""
    return error_response(
        503,
        "unavailable",
        f"The database cannot be reached or is busy. Try again in {RETRY_AFTER_S} s.",
        {"Retry-After": RETRY_AFTER_S},
    )


def internal_error() -> Response:
    """500: the server logs what it was; the client learns nothing about the inside."""
    return error_response(
        500, "internal_error", "Something failed on our side. The request id finds it in the service's logs."
    )


def _described(error: Any) -> str:
    place: Sequence[Any] = error.get("loc", ())
    name = ".".join(map(str, place[1:])) or ".".join(map(str, place))
    return f"{name}: {error.get('msg', 'is invalid')}"


_HTTP_CODES: Final = {
    404: ("not_found", "There is no {path} here; /openapi.json lists what there is."),
    405: ("method_not_allowed", "{path} has no method {method}; /openapi.json lists what there is."),
}
